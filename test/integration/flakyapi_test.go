//go:build integration

package integration

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// flakyAPI is a reverse proxy in front of the real API server that fails as a test wants.
type flakyAPI struct {
	url, addr string
	forward   *httputil.ReverseProxy
	tls       *tls.Config

	mu      sync.Mutex
	server  *http.Server // nil while it is down
	fault   apiFault
	faulted int // requests that fault answered
	open    map[*http.Request]context.CancelFunc
}

// apiFault answers a request in place of the API server, or returns false and does not answer it.
// It may change r, which is then forwarded.
type apiFault func(w http.ResponseWriter, r *http.Request) bool

// newFlakyAPI starts a flakyAPI that forwards everything.
func newFlakyAPI(t *testing.T) *flakyAPI {
	t.Helper()
	target, err := url.Parse(cluster.admin.Host)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(1) // one that no outgoing connection takes while p is down
	if err != nil {
		t.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0) // requests that are cut off
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cluster.ca.Pool()}, ForceAttemptHTTP2: true}
	p := &flakyAPI{
		forward: &httputil.ReverseProxy{
			Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
			Transport:     transport,
			FlushInterval: -1,
			ErrorLog:      quiet,
		},
		tls: &tls.Config{
			Certificates: []tls.Certificate{*cluster.ca.Server("127.0.0.1")},
			NextProtos:   []string{"h2", "http/1.1"},
		},
		addr: "127.0.0.1:" + ports[0],
		open: map[*http.Request]context.CancelFunc{},
	}
	p.url = "https://" + p.addr
	p.up(t)
	t.Cleanup(func() {
		p.down()
		transport.CloseIdleConnections()
	})
	return p
}

// up listens again, at the same address.
func (p *flakyAPI) up(t *testing.T) {
	t.Helper()
	var l net.Listener
	eventually(t, "listen as the API server", func() (err error) {
		l, err = net.Listen("tcp", p.addr)
		return err
	})
	server := &http.Server{Handler: p, TLSConfig: p.tls, ErrorLog: p.forward.ErrorLog}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = server
	go func() { _ = server.ServeTLS(l, "", "") }()
}

// down refuses connections and closes the open ones.
func (p *flakyAPI) down() {
	p.mu.Lock()
	server := p.server
	p.server = nil
	p.mu.Unlock()
	if server != nil {
		_ = server.Close()
	}
}

// fail lets f handle every request from now on; nil ends the fault. Open requests, above all
// watches, are cut.
func (p *flakyAPI) fail(f apiFault) {
	p.mu.Lock()
	p.fault, p.faulted = f, 0
	p.mu.Unlock()
	p.cut()
}

// cut ends the requests that are open in the middle of their answers.
func (p *flakyAPI) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cancel := range p.open {
		cancel()
	}
}

// failed returns how many requests the fault has answered.
func (p *flakyAPI) failed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faulted
}

// ServeHTTP implements http.Handler.
func (p *flakyAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	r = r.WithContext(ctx)
	p.mu.Lock()
	fault := p.fault
	p.open[r] = cancel
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, r)
	}()
	if fault == nil {
		p.forward.ServeHTTP(w, r)
		return
	}
	answered := true // also if it panics
	defer func() {
		if answered {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.faulted++
		}
	}()
	if answered = fault(w, r); !answered {
		p.forward.ServeHTTP(w, r)
	}
}

// at applies f only to requests whose path begins with one of some.
func at(f apiFault, paths ...string) apiFault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		for _, path := range paths {
			if strings.HasPrefix(r.URL.Path, path) {
				return f(w, r)
			}
		}
		return false
	}
}

const (
	apiNodes       = "/api/v1/nodes"
	apiPods        = "/api/v1/pods"
	apiConfigMaps  = "/api/v1/namespaces/kube-system/configmaps"
	apiTokens      = "/apis/authentication.k8s.io/v1/tokenreviews"
	apiPermissions = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
)

// answer answers with an API status.
func answer(code int, reason string, header ...string) apiFault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, statusOf(code, reason))
		return true
	}
}

func statusOf(code int, reason string) string {
	return fmt.Sprintf(
		`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the test says so","reason":%q,"code":%d}`,
		reason, code,
	)
}

// hang never answers.
func hang(_ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	return true
}

// resumes reports whether r is a watch that continues from the end of another one.
func resumes(r *http.Request) bool {
	q := r.URL.Query()
	return q.Get("watch") != "" && q.Get("resourceVersion") != "" && q.Get("sendInitialEvents") == ""
}

// gone closes each watch after a second. It answers the next watch as an API server does that has
// forgotten the version: with a status, or with an error as the first event.
func gone(event bool) apiFault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case !resumes(r):
			return shortWatches(w, r)
		case !event:
			return answer(http.StatusGone, "Expired")(w, r)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"type":"ERROR","object":%s}`+"\n", statusOf(http.StatusGone, "Expired"))
		return true
	}
}

// shortWatches makes the API server close watches after a second each.
func shortWatches(_ http.ResponseWriter, r *http.Request) bool {
	if q := r.URL.Query(); q.Get("watch") != "" {
		q.Set("timeoutSeconds", "1")
		r.URL.RawQuery = q.Encode()
	}
	return false
}

// asFrontProxy returns s for requests that the aggregator forwards, with the user in headers.
func (s *metricsServer) asFrontProxy(t *testing.T) *metricsServer {
	t.Helper()
	cert, err := tls.X509KeyPair(cluster.frontProxy.Client("front-proxy-client"))
	if err != nil {
		t.Fatal(err)
	}
	as := *s
	as.http = insecure()
	as.http.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{cert}
	return &as
}
