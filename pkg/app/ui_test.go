package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"metrics-server/pkg/sharedtest"
	"metrics-server/pkg/ui"
)

// uiKubeconfig returns a kubeconfig for the API server at url.
func uiKubeconfig(t *testing.T, url string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"kitchen","clusters":[{"name":"c",`+
		`"cluster":{"server":%q}}],"contexts":[{"name":"kitchen","context":{"cluster":"c"}}]}`, url)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// runningUI is the command, and a browser that has opened its URL.
type runningUI struct {
	t       *testing.T
	browser http.Client
	page    *url.URL // without the token
	end     func()   // interrupts the command, and checks how it ends
}

func startUI(t *testing.T, kubeconfig string) *runningUI {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	stdout, out := io.Pipe()
	var code int
	cmd := newCommand(&code, []string{"ui", "--kubeconfig", kubeconfig})
	cmd.SetOut(out)
	cmd.SetErr(io.Discard)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	u := &runningUI{t: t, end: sync.OnceFunc(func() {
		interrupt()
		if err := <-ended; err != nil || code != 0 {
			t.Errorf("it ended with %v and the exit code %d", err, code)
		}
	})}
	t.Cleanup(u.end)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	u.page, err = url.Parse(strings.TrimSpace(line))
	if err != nil || u.page.Hostname() != "127.0.0.1" || u.page.Query().Get("token") == "" {
		t.Fatalf("it printed %q (%v)", line, err)
	}
	if u.browser.Jar, err = cookiejar.New(nil); err != nil {
		t.Fatal(err)
	}
	if page := u.read(u.page.String()); !strings.Contains(string(page), "<script") {
		t.Errorf("the page is %s", page)
	}
	u.page.RawQuery = ""
	return u
}

// read returns what is at a URL.
func (u *runningUI) read(url string) []byte {
	u.t.Helper()
	response, err := u.browser.Get(url)
	if err != nil {
		u.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		u.t.Fatalf("%s: %s %s (%v)", url, response.Status, body, err)
	}
	return body
}

// await returns the status when a source is in a state.
func (u *runningUI) await(source, state string) (s ui.Status) {
	u.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err := json.Unmarshal(u.read(u.page.JoinPath("/api/status").String()), &s); err != nil {
			u.t.Fatal(err)
		}
		if slices.ContainsFunc(s.Sources, func(s ui.Source) bool { return s.Name == source && s.State == state }) {
			return s
		}
	}
	u.t.Fatalf("%s are not %s: %+v", source, state, s.Sources)
	return s
}

// The command prints a URL that leads to the page, and serves it until it is interrupted.
func TestUI(t *testing.T) {
	// An API server with a node and nothing else, of which nothing can be watched.
	var agent atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent.Store(r.UserAgent())
		w.Header().Set("Content-Type", "application/json")
		fail := func(code int, reason string) {
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","code":%d,"reason":%q}`, code, reason)
		}
		switch {
		case r.URL.Query().Get("watch") != "":
			fail(http.StatusMethodNotAllowed, "MethodNotAllowed")
		case r.URL.Path == "/version":
			fmt.Fprint(w, `{"gitVersion":"v1.37.2"}`)
		case r.URL.Path == "/api/v1/nodes":
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"NodeList","metadata":{"resourceVersion":"1"},"items":[`+
				`{"metadata":{"name":"n1"}}]}`)
		default:
			fail(http.StatusNotFound, "NotFound")
		}
	}))
	defer s.Close()
	u := startUI(t, uiKubeconfig(t, s.URL))
	status := u.await("nodes", "polling")
	if status.Context != "kitchen" || status.Version != buildVersion() || status.Server != s.URL ||
		status.Totals.Nodes == nil || *status.Totals.Nodes != 1 {
		t.Errorf("%+v", status)
	}
	if got, _ := agent.Load().(string); got != "metrics-server-ui/"+buildVersion() {
		t.Errorf("the API server is asked by %q", got)
	}
	u.end()
	if _, err := u.browser.Get(u.page.String()); err == nil { //nolint:bodyclose // there is no answer
		t.Error("it answers after its end")
	}
}

// Without an API server the page is served, and says so.
func TestUIWithoutAPIServer(t *testing.T) {
	status := startUI(t, uiKubeconfig(t, "http://"+sharedtest.RefusingAddr(t))).await("nodes", "failed")
	for _, s := range status.Sources {
		if s.State == "failed" && (s.Error == "" || s.Remedy == "") {
			t.Errorf("%+v has no error or no remedy", s)
		}
	}
}

func TestUICannotRun(t *testing.T) {
	kubeconfig := uiKubeconfig(t, "http://"+sharedtest.RefusingAddr(t))
	for want, args := range map[string][]string{
		"/nowhere":                  {"--kubeconfig=/nowhere"},
		`"other"`:                   {"--context=other"},
		"is not a loopback address": {"--address=0.0.0.0:0"},
		"ssh -L":                    {"--address=:8080"},
		"is not an address":         {"--address=127.0.0.1"},
		"unknown flag: --no-such":   {"--no-such"},
		"stray":                     {"stray"},
	} {
		var code int
		cmd := newCommand(&code, append([]string{"ui", "--kubeconfig", kubeconfig}, args...))
		cmd.SilenceErrors = true
		var stdout, stderr strings.Builder
		cmd.SetOut(&stdout)
		cmd.SetErr(&stderr)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			stderr.WriteString(err.Error())
		}
		if code != codeCannotRun || !strings.Contains(stderr.String(), want) || stdout.Len() > 0 {
			t.Errorf("%q: exit code %d, it wrote %q and %q; want %s", args, code, stdout.String(), stderr.String(), want)
		}
	}
}
