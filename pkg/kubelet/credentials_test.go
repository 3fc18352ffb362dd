package kubelet

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
)

// shown has the credentials in a request: the Authorization header and the user of the client
// certificate.
type shown struct{ Header, User string }

func shownIn(r *http.Request) shown {
	s := shown{Header: r.Header.Get("Authorization")}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		s.User = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	return s
}

// withToken is a rest.Config.WrapTransport that adds a credential by itself, as a plug-in may.
func withToken(base http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer wrapped")
		return base.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCredentials(t *testing.T) {
	certPEM, keyPEM := cluster.Client("metrics-server")
	certFile, keyFile, tokenFile := file(t, certPEM), file(t, keyPEM), file(t, []byte(token+"\n"))
	inline := rest.TLSClientConfig{CertData: certPEM, KeyData: keyPEM}
	for _, tt := range []struct {
		name   string
		config Config
		want   shown
	}{
		{"token", Config{Rest: &rest.Config{BearerToken: token}}, shown{"Bearer " + token, ""}},
		{"token file", Config{Rest: &rest.Config{BearerTokenFile: tokenFile}}, shown{"Bearer " + token, ""}},
		{"basic", Config{Rest: &rest.Config{Username: "u", Password: "p"}}, shown{"Basic dTpw", ""}},
		{"wrapper", Config{Rest: &rest.Config{WrapTransport: withToken}}, shown{"Bearer wrapped", ""}},
		{"certificate of the kubeconfig", Config{Rest: &rest.Config{TLSClientConfig: inline}}, shown{"", "metrics-server"}},
		{
			"certificate and token of the kubeconfig",
			Config{Rest: &rest.Config{TLSClientConfig: inline, BearerToken: token}},
			shown{"", "metrics-server"},
		},
		{
			"certificate for kubelets",
			Config{
				ClientCertFile: certFile, ClientKeyFile: keyFile,
				Rest: &rest.Config{BearerToken: token, BearerTokenFile: tokenFile},
			},
			shown{"", "metrics-server"},
		},
		{
			"certificate for kubelets and basic",
			Config{ClientCertFile: certFile, ClientKeyFile: keyFile, Rest: &rest.Config{Username: "u", Password: "p"}},
			shown{"", "metrics-server"},
		},
		{
			"certificate for kubelets and wrapper",
			Config{ClientCertFile: certFile, ClientKeyFile: keyFile, Rest: &rest.Config{WrapTransport: withToken}},
			shown{"", "metrics-server"},
		},
		{"plug-in's token", Config{Rest: plugin(t, `"token":"`+token+`"`)}, shown{"Bearer " + token, ""}},
		{
			"plug-in's token and certificate",
			Config{Rest: plugin(t, `"token":"`+token+`","clientCertificateData":`+quote(certPEM)+
				`,"clientKeyData":`+quote(keyPEM))},
			shown{"", "metrics-server"},
		},
		{
			"certificate for kubelets and plug-in",
			Config{ClientCertFile: certFile, ClientKeyFile: keyFile, Rest: plugin(t, `"token":"`+token+`"`)},
			shown{"", "metrics-server"},
		},
	} {
		f := newFake(t, secure())
		tt.config.CAData, tt.config.UseNodeStatusPort = cluster.PEM(), true
		c := newClient(t, tt.config, f.endpoint())
		for range 2 {
			_ = c.Fetch(within(t), &sample.Batch{}) // which may well end in a 401
			if d := cmp.Diff(tt.want, shownIn(f.last(t))); d != "" {
				t.Errorf("%s: shown to the kubelet (-want +got):\n%s", tt.name, d)
			}
			f.CloseConnections()
		}
	}
}

// plugin is a rest.Config with an exec plug-in that gives that status.
func plugin(t *testing.T, status string) *rest.Config {
	script := file(t, []byte("#!/bin/sh\ncat <<'E'\n"+
		`{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{`+status+"}}\nE\n"))
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	return &rest.Config{ExecProvider: &clientcmdapi.ExecConfig{
		Command:         script,
		APIVersion:      "client.authentication.k8s.io/v1",
		InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
	}}
}

func quote(pem []byte) string { return `"` + strings.ReplaceAll(string(pem), "\n", `\n`) + `"` }

func TestNoCredentialsOverPlainHTTP(t *testing.T) {
	certPEM, keyPEM := cluster.Client("metrics-server")
	for name, r := range map[string]*rest.Config{
		"token":       {BearerToken: token},
		"token file":  {BearerTokenFile: file(t, []byte(token))},
		"basic":       {Username: "u", Password: "p"},
		"wrapper":     {WrapTransport: withToken},
		"certificate": {TLSClientConfig: rest.TLSClientConfig{CertData: certPEM, KeyData: keyPEM}},
		"plug-in":     plugin(t, `"token":"`+token+`"`),
	} {
		f := newFake(t, kubelettest.ServerConfig{})
		mustFetch(t, newClient(t, Config{PlainHTTP: true, UseNodeStatusPort: true, Rest: r}, f.endpoint()))
		if d := cmp.Diff(shown{}, shownIn(f.last(t))); d != "" {
			t.Errorf("%s: shown to the kubelet (-want +got):\n%s", name, d)
		}
	}
}

// TestServerNameIsTheAddress uses a kubeconfig that gives the name in the API server's certificate,
// which is not the kubelet's.
func TestServerNameIsTheAddress(t *testing.T) {
	f := newFake(t, secure())
	c := config()
	c.Rest.ServerName = "kubernetes.default"
	e := f.endpoint()
	mustFetch(t, newClient(t, c, e))
	e.Addresses = []Address{{"Hostname", "localhost"}}
	mustFetch(t, newClient(t, c, e))
	if got := f.last(t).TLS.ServerName; got != "localhost" {
		t.Errorf("server name %q, want the address that was dialled", got)
	}
}

func TestAuthorities(t *testing.T) {
	other := kubelettest.NewCA("other")
	f := newFake(t, secure())
	for _, tt := range []struct {
		name   string
		config Config
		cause  string // "": works
	}{
		{"text", Config{CAData: cluster.PEM()}, ""},
		{"file", Config{CAFile: file(t, cluster.PEM())}, ""},
		{"bundle", Config{CAFile: file(t, append(other.PEM(), cluster.PEM()...))}, ""},
		{"of the kubeconfig", Config{Rest: &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: cluster.PEM()}}}, ""},
		{
			"file of the kubeconfig",
			Config{Rest: &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: file(t, cluster.PEM())}}},
			"",
		},
		{
			"not verified for the kubeconfig",
			Config{Rest: &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}},
			"",
		},
		{
			"file beats the kubeconfig's",
			Config{
				CAFile: file(t, cluster.PEM()),
				Rest:   &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: other.PEM()}},
			},
			"",
		},
		{
			"file beats not verified",
			Config{CAFile: file(t, other.PEM()), Rest: &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}},
			"x509",
		},
		{
			"not verified beats the kubeconfig's",
			Config{Insecure: true, Rest: &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: other.PEM()}}},
			"",
		},
		{"another", Config{CAData: other.PEM()}, "x509"},
		{"the system's", Config{}, "x509"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.UseNodeStatusPort = true
			if tt.config.Rest == nil {
				tt.config.Rest = &rest.Config{}
			}
			tt.config.Rest.BearerToken = token
			c := newClient(t, tt.config, f.endpoint())
			if tt.cause == "" {
				mustFetch(t, c)
			} else {
				_ = failure(t, within(t), c, tt.cause)
			}
		})
	}
}

func TestNewReportsEveryProblem(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	junk := file(t, []byte("junk"))
	for _, tt := range []struct {
		config Config
		want   []string
	}{
		{
			Config{CAFile: "f", CAData: []byte("x"), Insecure: true, ClientCertFile: "c", Port: 70000, MaxBody: -1},
			[]string{
				"--kubelet-certificate-authority and --kubelet-certificate-authority-text exclude",
				"--kubelet-certificate-authority and --kubelet-insecure-tls exclude",
				"--kubelet-certificate-authority-text and --kubelet-insecure-tls exclude",
				"belong together", "70000", "-1 bytes",
			},
		},
		{
			Config{PlainHTTP: true, Insecure: true},
			[]string{"--deprecated-kubelet-completely-insecure and --kubelet-insecure-tls exclude"},
		},
		{
			Config{CAFile: missing, ClientCertFile: missing + "c", ClientKeyFile: missing + "k"},
			[]string{
				"certificate authority: open " + missing, "client certificate: open " + missing + "c",
				"client key: open " + missing + "k",
			},
		},
		{
			Config{CAFile: junk, ClientCertFile: junk, ClientKeyFile: junk},
			[]string{"certificate authority: no certificate in " + junk, "client certificate " + junk + " with key " + junk},
		},
		{Config{CAData: []byte("junk")}, []string{"(given inline)"}},
		{Config{Rest: &rest.Config{BearerTokenFile: missing}}, []string{missing}},
	} {
		_, err := New(tt.config)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("New(%+v) = %v, which does not say %q", tt.config, err, want)
			}
		}
	}
}

// inBubble runs test with a client in a synctest bubble and a function that scrapes once more.
func inBubble(t *testing.T, c Config, e Endpoint, test func(client *Client, fetch func() error, log func() string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, c, e)
		logger := ktesting.NewLogger(ktesting.NopTL{}, ktesting.NewConfig(ktesting.BufferLogs(true)))
		ctx := klog.NewContext(t.Context(), logger)
		fetch := func() error {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return client.Fetch(ctx, &sample.Batch{})
		}
		test(client, fetch, logger.GetSink().(ktesting.Underlier).GetBuffer().String)
	})
}

func TestTokenIsRotated(t *testing.T) {
	f := newOldFake(t, secure())
	path := file(t, []byte(token))
	c := config()
	c.Rest = &rest.Config{BearerToken: token, BearerTokenFile: path} // as in a pod
	inBubble(t, c, f.endpoint(), func(_ *Client, fetch func() error, _ func() string) {
		if err := fetch(); err != nil {
			t.Fatal(err)
		}
		write(t, path, []byte("next"))
		time.Sleep(time.Minute)
		f.SetToken("next")
		if err := fetch(); err != nil {
			t.Error(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := fetch(); err != nil {
			t.Error("the last good token is not used:", err)
		}
	})
	if f.Accepted() != 1 {
		t.Errorf("%d connections, want 1: another token is no reason for another connection", f.Accepted())
	}
}

func TestAuthorityIsReloaded(t *testing.T) {
	f := newOldFake(t, secure())
	other := kubelettest.NewCA("other")
	g := newOldFake(t, kubelettest.ServerConfig{Certificate: other.Server("127.0.0.1")})
	path := file(t, cluster.PEM())
	c := config()
	c.CAData, c.CAFile = nil, path
	inBubble(t, c, f.endpoint(), func(client *Client, fetch func() error, log func() string) {
		ok := func(what string, connections int) {
			t.Helper()
			if err := fetch(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if f.Accepted() != connections {
				t.Errorf("%s: %d connections, want %d", what, f.Accepted(), connections)
			}
		}
		ok("at first", 1)
		time.Sleep(checkFiles)
		ok("nothing changed", 1)
		if log() != "" {
			t.Errorf("logged although nothing changed: %s", log())
		}

		for _, broken := range [][]byte{[]byte("junk"), nil} {
			write(t, path, broken)
			for range 3 {
				time.Sleep(checkFiles)
				ok("broken", 1)
			}
		}
		if n := strings.Count(log(), "cannot be used"); n != 2 {
			t.Errorf("two broken contents were logged %d times, want 2:\n%s", n, log())
		}
		if !strings.Contains(log(), path) {
			t.Errorf("the log does not name the file:\n%s", log())
		}
		write(t, path, cluster.PEM())
		time.Sleep(checkFiles)
		ok("mended", 1)

		write(t, path, append(other.PEM(), cluster.PEM()...))
		time.Sleep(checkFiles)
		ok("one more authority", 2)
		if !strings.Contains(log(), "Reloaded the TLS files") {
			t.Errorf("a change was not logged:\n%s", log())
		}

		// Kubelet and file change to another authority at once, a moment after the file was read.
		write(t, path, cluster.PEM())
		time.Sleep(checkFiles)
		ok("one authority less", 3)
		time.Sleep(time.Second)
		write(t, path, other.PEM())
		client.SetEndpoint(g.endpoint())
		if err := fetch(); err != nil {
			t.Errorf("another authority, before the file's turn: %v", err)
		}

		// A kubelet that is no longer trusted is rejected, even in a session that could be resumed.
		write(t, path, cluster.PEM())
		time.Sleep(checkFiles)
		var e *Error
		if err := fetch(); !errors.As(err, &e) || e.Cause() != "x509" {
			t.Errorf("a certificate of an authority that was removed: %v", err)
		}
		if connected(client) {
			t.Error("the connection is still open")
		}
	})
	if n := f.Resumed() + g.Resumed(); n != 0 {
		t.Errorf("%d sessions were resumed over a change of authority", n)
	}
}

func TestClientCertificateIsReloaded(t *testing.T) {
	f := newOldFake(t, secure())
	cert1, key1 := cluster.Client("first")
	cert2, key2 := cluster.Client("second")
	certPath, keyPath := file(t, cert1), file(t, key1)
	c := config()
	c.ClientCertFile, c.ClientKeyFile = certPath, keyPath
	inBubble(t, c, f.endpoint(), func(_ *Client, fetch func() error, log func() string) {
		for _, step := range []struct {
			name   string
			change func()
			user   string
		}{
			{"at first", func() {}, "first"},
			{"certificate without its key", func() { write(t, certPath, cert2) }, "first"},
			{"its key", func() { write(t, keyPath, key2) }, "second"},
			{"key gone", func() { os.Remove(keyPath) }, "second"},
		} {
			step.change()
			time.Sleep(checkFiles)
			if err := fetch(); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
			if d := cmp.Diff(shown{User: step.user}, shownIn(f.last(t))); d != "" {
				t.Errorf("%s (-want +got):\n%s", step.name, d)
			}
		}
		if n := strings.Count(log(), "cannot be used"); n != 2 {
			t.Errorf("logged %d failures to load, want 2:\n%s", n, log())
		}
	})
	if f.Accepted() != 2 {
		t.Errorf("%d connections, want 2: one for each certificate", f.Accepted())
	}
}
