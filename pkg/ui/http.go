package ui

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// headers are sent with every answer. There are no CORS headers: no other website may read an answer.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
		"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"X-Content-Type-Options":       "nosniff",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cache-Control":                "no-store",
}

// tokenParameter is the parameter of the URL that lets a browser in.
const tokenParameter = "token"

// ServeHTTP answers a request to the server.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range headers {
		w.Header().Set(name, value)
	}
	refusal := s.session.refusal(r)
	if token := r.URL.Query().Get(tokenParameter); token != "" && r.URL.Path == "/" && r.Method == http.MethodGet {
		// The link may have been followed on another website, such as a terminal in a browser.
		if refusal == nil || s.session.named(r) && s.session.enter(w, token) {
			welcome(w, r)
			return
		}
	}
	switch {
	case refusal == nil:
		s.handler.ServeHTTP(w, r)
	case strings.HasPrefix(r.URL.Path, "/api/"):
		refuse(w, http.StatusForbidden, refusal)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "metrics-server ui: %s: %s.\n", refusal.Error, refusal.Remedy)
	}
}

// welcome sends a browser from the URL with the token to the page.
func welcome(w http.ResponseWriter, r *http.Request) {
	if fromElsewhere(r) {
		// After a redirect, the request would still count as one of the other website, and lack the cookie. A refresh is a
		// new request.
		w.Header().Set("Refresh", "0; url=/")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		return
	}
	w.Header().Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther)
}

// refuse answers with a problem.
func refuse(w http.ResponseWriter, code int, p *Problem) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(p) // the browser has closed the connection
}

// routes returns the handler of requests of the browser that was let in.
func (s *Server) routes(files map[string]*file) http.Handler {
	mux := http.NewServeMux()
	handle := func(method, pattern string, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == method || r.Method == http.MethodHead && method == http.MethodGet {
				h(w, r)
				return
			}
			w.Header().Set("Allow", method)
			refuse(w, http.StatusMethodNotAllowed, &Problem{
				fmt.Sprintf("%s does not support the method %s", r.URL.Path, r.Method), "use " + method,
			})
		})
	}
	get := func(pattern string, read reader) {
		handle(http.MethodGet, pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, read) })
	}
	get("/api/status", s.status)
	get("/api/nodes", nodeTable.read)
	get("/api/pods", podTable.read)
	get("/api/workloads", workloadTable.read)
	get("/api/hpas", hpaTable.read)
	get("/api/nodes/{name}", s.node)
	get("/api/pods/{namespace}/{name}", s.pod)
	get("/api/workloads/{namespace}/{kind}/{name}", s.workload)
	get("/api/hpas/{namespace}/{name}", s.hpa)
	handle(http.MethodPost, "/api/doctor", s.startDoctor)
	handle(http.MethodGet, "/", func(w http.ResponseWriter, r *http.Request) {
		f := files[r.URL.Path]
		if f == nil {
			refuse(w, http.StatusNotFound, &Problem{r.URL.Path + " does not exist", "open / for the page"})
			return
		}
		f.serve(w, r)
	})
	return mux
}

// startDoctor makes the doctor run now. Other websites cannot set X-Requested-With without permission by CORS, and
// Sec-Fetch-Site is set by the browser itself.
func (s *Server) startDoctor(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Requested-With") != "metrics-server-ui" && r.Header.Get("Sec-Fetch-Site") != "same-origin" {
		refuse(w, http.StatusForbidden, &Problem{
			"the request does not say that it is from the page", "send the header X-Requested-With: metrics-server-ui",
		})
		return
	}
	s.findings.start()
	w.WriteHeader(http.StatusAccepted)
}

// request is a request for JSON, and the state that it is answered from.
type request struct {
	*http.Request
	*state
}

// reader returns an answer, or why there is none. version identifies what the answer is made from besides the state.
type reader func(r *request) (answer any, version uint64, err *failure)

// failure is why a request fails.
type failure struct {
	code int
	Problem
}

func notFound(what, remedy string) *failure {
	return &failure{http.StatusNotFound, Problem{what, remedy}}
}

func badRequest(what, remedy string) *failure {
	return &failure{http.StatusBadRequest, Problem{what, remedy}}
}

// answer writes what read returns as JSON, or 304 if the browser has it. It writes nothing before all of the JSON is
// there, so that an answer is never cut short.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, read reader) {
	q := &request{r, s.state()}
	answer, version, err := read(q)
	if err != nil {
		refuse(w, err.code, &err.Problem)
		return
	}
	h := fnv.New64a()
	h.Write([]byte(r.URL.RequestURI()))
	tag := fmt.Sprintf(`"%s-%d-%d-%d-%x"`, s.instance, q.snapshot.Version, q.diagnosis.version, version, h.Sum64())
	if unchanged(w, r, tag) {
		return
	}
	body, failed := json.Marshal(answer)
	if failed != nil {
		w.Header().Del("ETag")
		refuse(w, http.StatusInternalServerError, &Problem{
			fmt.Sprintf("the answer to %s cannot be written: %v", r.URL.Path, failed),
			"this is a bug in metrics-server: report it with this message",
		})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // the browser has closed the connection
}

// unchanged sets the ETag of an answer. If the browser already has this answer, it writes 304 and returns true.
func unchanged(w http.ResponseWriter, r *http.Request, tag string) bool {
	w.Header().Set("ETag", tag)
	for has := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(has), "W/") == tag {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// file is a file of the page.
type file struct {
	content   []byte
	mediaType string
	tag       string
}

// mediaTypes has the media types of the page's files, by extension.
var mediaTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
}

// loadFiles returns the files of the page by the path of their URL. Only paths in the map exist, so there is no path
// traversal.
func loadFiles(files fs.FS) (map[string]*file, error) {
	all := map[string]*file{}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		all["/"+name] = &file{
			content: content, mediaType: cmp.Or(mediaTypes[path.Ext(name)], "application/octet-stream"),
			tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the files of the page: %w", err)
	}
	index := all["/index.html"]
	if index == nil {
		return nil, fmt.Errorf("the page has no index.html: run make ui, and build the program again")
	}
	all["/"] = index
	return all, nil
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache") // cached, but revalidated: another release may use the port next
	if unchanged(w, r, f.tag) {
		return
	}
	w.Header().Set("Content-Type", f.mediaType)
	_, _ = w.Write(f.content) // the browser has closed the connection
}
