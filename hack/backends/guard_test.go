//go:build backends

package backends

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"metrics-server/pkg/backend"
	"metrics-server/pkg/kubelet/kubelettest"
)

// guard is a reverse proxy in front of a program, such as one that protects a Prometheus. Each of its paths requires
// different credentials.
type guard struct {
	backends  []backend.Config
	tokenFile string
	token     atomic.Pointer[string]
	bearers   atomic.Int64 // requests with the present token
}

// newGuard starts a guard in front of a program, until the test ends.
func newGuard(t *testing.T, p *program) *guard {
	t.Helper()
	target, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{}
	g.setToken("first-token")
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		_, r.Out.URL.Path, _ = strings.Cut(r.In.URL.Path[1:], "/")
		r.SetURL(target)
	}}
	ca := kubelettest.NewCA("guard")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := strings.Cut(r.URL.Path[1:], "/")
		switch {
		case kind == "hanging":
			_, _ = io.Copy(io.Discard, r.Body) // until then, the end of the connection is not noticed
			<-r.Context().Done()
		case kind == "moved":
			http.Redirect(w, r, p.url, http.StatusFound)
		case g.admits(kind, r):
			proxy.ServeHTTP(w, r)
		default:
			http.Error(w, "show your credentials", http.StatusUnauthorized)
		}
	}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{*ca.Server("127.0.0.1")}, ClientAuth: tls.VerifyClientCertIfGiven,
		ClientCAs: ca.Pool(), MinVersion: tls.VersionTLS12,
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	server.StartTLS()
	t.Cleanup(server.Close)

	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	cert, key := ca.Client("autoscaling")
	authority := write("ca.crt", ca.PEM())
	g.tokenFile = write("token", []byte("first-token\n"))
	with := func(name, path string, change func(*backend.Config)) {
		c := p.settings(name)
		c.URL, c.CAFile = server.URL+"/"+path, authority
		change(&c)
		g.backends = append(g.backends, c)
	}
	nothing := func(*backend.Config) {}
	with("bearer", "bearer", func(c *backend.Config) { c.TokenFile = g.tokenFile })
	with("basic", "basic", func(c *backend.Config) {
		c.Username, c.PasswordFile = "autoscaling", write("password", []byte("secret words"))
	})
	with("certificate", "certificate", func(c *backend.Config) {
		c.CertFile, c.KeyFile = write("tls.crt", cert), write("tls.key", key)
	})
	with("tenant", "tenant", func(c *backend.Config) { c.Headers = map[string]string{"X-Scope-OrgID": "shop"} })
	with("nobody", "bearer", nothing)
	with("untrusted", "tenant", func(c *backend.Config) { c.CAFile = "" })
	with("hanging", "hanging", nothing)
	with("moved", "moved", nothing)
	return g
}

func (g *guard) setToken(token string) { g.token.Store(&token) }

// admits reports whether a request has the credentials that a path requires, and no others.
func (g *guard) admits(path string, r *http.Request) bool {
	authorization := r.Header.Get("Authorization")
	switch path {
	case "bearer":
		if authorization != "Bearer "+*g.token.Load() {
			return false
		}
		g.bearers.Add(1)
		return len(r.TLS.PeerCertificates) == 0
	case "basic":
		user, password, ok := r.BasicAuth()
		return ok && user == "autoscaling" && password == "secret words"
	case "certificate":
		return authorization == "" && len(r.TLS.PeerCertificates) > 0
	case "tenant":
		return authorization == "" && r.Header.Get("X-Scope-OrgID") == "shop"
	}
	return false
}

// testCredentials checks that each kind of credentials passes a proxy that verifies them, and that the errors of
// backends that cannot be reached name the reason.
func testCredentials(t *testing.T, s test, g *guard) {
	for _, name := range []string{"bearer", "basic", "certificate", "tenant"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := s.declare(t, metric{kind: pods, name: "queue", backend: name})
			d.export()
			eventually(t, "values are served", func() error { return d.has(10, 11) })
			if name != "bearer" {
				return
			}
			// Both sides get another token, and there is no gap.
			if err := os.WriteFile(g.tokenFile, []byte("second-token"), 0o600); err != nil {
				t.Fatal(err)
			}
			g.setToken("second-token")
			g.bearers.Store(0)
			stays(t, "values are served", 2*interval, func() error { return d.has(10, 11) })
			if g.bearers.Load() == 0 {
				t.Error("no request had the other token")
			}
		})
	}
	for name, text := range map[string]string{
		"nobody": "does not accept the credentials (401)", "untrusted": "no TLS connection could be made to backend",
		"hanging": "did not answer in time", "moved": "answered with a redirect (302)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := s.declare(t, metric{kind: pods, name: "queue", backend: name})
			eventually(t, "the reason is served", func() error { return d.fails(text) })
		})
	}
}
