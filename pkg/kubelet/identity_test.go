package kubelet

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
)

// weak is the token of a tokens.
const weak = "weak-token-of-the-account-for-kubelets"

// tokens is a TokenSource.
type tokens struct {
	mu      sync.Mutex
	token   string
	own     bool
	err     error
	refused []string
}

func (s *tokens) Token(context.Context) (string, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token, s.own, s.err
}

func (s *tokens) Refused(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, token)
}

func (s *tokens) set(token string, own bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.own, s.err = token, own, err
}

// With Tokens, a kubelet is shown no other credential, whatever kind the server uses for the API server.
func TestOnlyTokensAreShown(t *testing.T) {
	certPEM, keyPEM := cluster.Client("metrics-server")
	tokenFile := file(t, []byte(token+"\n"))
	inline := rest.TLSClientConfig{CertData: certPEM, KeyData: keyPEM}
	for name, r := range map[string]*rest.Config{
		"token":       {BearerToken: token},
		"token file":  {BearerToken: token, BearerTokenFile: tokenFile},
		"basic":       {Username: "u", Password: "p"},
		"wrapper":     {WrapTransport: withToken},
		"certificate": {TLSClientConfig: inline, BearerToken: token},
		"plug-in":     plugin(t, `"token":"`+token+`"`),
		"plug-in with all": plugin(t, `"token":"`+token+`","clientCertificateData":`+quote(certPEM)+
			`,"clientKeyData":`+quote(keyPEM)),
		"impersonation": {BearerToken: token, Impersonate: rest.ImpersonationConfig{
			UserName: "admin",
			Groups:   []string{"system:masters"},
		}},
	} {
		f := newFake(t, secure())
		f.SetToken(weak)
		source := &tokens{token: weak}
		c := newClient(t, Config{Rest: r, Tokens: source, CAData: cluster.PEM(), UseNodeStatusPort: true}, f.endpoint())
		for range 2 {
			mustFetch(t, c)
		}
		if d := cmp.Diff(shown{Header: "Bearer " + weak}, shownIn(f.last(t))); d != "" {
			t.Errorf("%s: shown to the kubelet (-want +got):\n%s", name, d)
		}
		for key, values := range f.last(t).Header {
			if known := []string{"Accept", "Authorization", "User-Agent"}; !slices.Contains(known, key) ||
				key != "Authorization" && strings.Contains(strings.Join(values, ""), token) {
				t.Errorf("%s: the kubelet sees %s: %q", name, key, values)
			}
		}
		if f.Accepted() != 1 {
			t.Errorf("%s: %d connections, want 1", name, f.Accepted())
		}
		// The next token goes over the same connection.
		source.set("next-"+weak, false, nil)
		f.SetToken("next-" + weak)
		if mustFetch(t, c); f.Accepted() != 1 {
			t.Errorf("%s: another token takes another connection", name)
		}
	}
}

// A connection or TLS session made with tokens is never used with the server's own credentials, nor the
// reverse.
func TestFallbackToOwnCredentials(t *testing.T) {
	certPEM, keyPEM := cluster.Client("metrics-server")
	for name, tt := range map[string]struct {
		rest *rest.Config
		own  shown
	}{
		"token": {&rest.Config{BearerToken: token}, shown{Header: "Bearer " + token}},
		"certificate": {
			&rest.Config{TLSClientConfig: rest.TLSClientConfig{CertData: certPEM, KeyData: keyPEM}},
			shown{User: "metrics-server"},
		},
	} {
		f := newFake(t, secure())
		source := &tokens{token: weak}
		c := newClient(t, Config{Rest: tt.rest, Tokens: source, CAData: cluster.PEM(), UseNodeStatusPort: true}, f.endpoint())
		for i, own := range []bool{false, true, false, false, true, true, false} {
			if own {
				source.set("", true, nil)
				f.SetToken(token)
			} else {
				source.set(weak, false, nil)
				f.SetToken(weak)
			}
			want := shown{Header: "Bearer " + weak}
			if own {
				want = tt.own
			}
			mustFetch(t, c)
			if d := cmp.Diff(want, shownIn(f.last(t))); d != "" {
				t.Errorf("%s, step %d (-want +got):\n%s", name, i, d)
			}
		}
		if f.Resumed() != 0 {
			t.Errorf("%s: %d sessions were resumed over a change of identity", name, f.Resumed())
		}
	}
}

// With a client certificate for kubelets, no token is requested.
func TestClientCertificateBeatsTokens(t *testing.T) {
	certPEM, keyPEM := cluster.Client("metrics-server")
	f := newFake(t, secure())
	source := &tokens{err: errors.New("asked for")}
	mustFetch(t, newClient(t, Config{
		Rest: &rest.Config{BearerToken: token}, Tokens: source, CAData: cluster.PEM(), UseNodeStatusPort: true,
		ClientCertFile: file(t, certPEM), ClientKeyFile: file(t, keyPEM),
	}, f.endpoint()))
	if d := cmp.Diff(shown{User: "metrics-server"}, shownIn(f.last(t))); d != "" {
		t.Errorf("shown to the kubelet (-want +got):\n%s", d)
	}
	g := newFake(t, kubelettest.ServerConfig{})
	mustFetch(t, newClient(t, Config{
		PlainHTTP: true, UseNodeStatusPort: true, Rest: &rest.Config{BearerToken: token},
		Tokens: source,
	}, g.endpoint()))
	if d := cmp.Diff(shown{}, shownIn(g.last(t))); d != "" {
		t.Errorf("shown over plain HTTP (-want +got):\n%s", d)
	}
}

type sourceError struct{}

func (sourceError) Error() string  { return "the API server is down" }
func (sourceError) Remedy() string { return "start it" }

// Without a token the kubelet gets no request, and the error contains the reason.
func TestNoToken(t *testing.T) {
	f := newFake(t, secure())
	source := &tokens{err: sourceError{}}
	c := config()
	c.Tokens = source
	client := newClient(t, c, f.endpoint())
	e := failure(t, within(t), client, "no token")
	if e.Remedy() != "start it" || !strings.Contains(e.Error(), "the API server is down") {
		t.Errorf("%v; remedy %q", e, e.Remedy())
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	e = failure(t, ctx, client, "no token")
	if want := "timed out while waiting for a token"; !strings.Contains(e.Error(), want) ||
		!strings.Contains(e.Error(), "the API server is down") {
		t.Errorf("%v does not say %q and the reason", e, want)
	}
	if len(f.seen()) != 0 || f.Accepted() != 0 {
		t.Errorf("%d requests on %d connections, want none", len(f.seen()), f.Accepted())
	}
	source.set(weak, false, nil)
	f.SetToken(weak)
	mustFetch(t, client)
}

// If the caller does not wait any longer for a token, the error still has the reason why there is none.
func TestCancelWithoutAToken(t *testing.T) {
	f := newFake(t, secure())
	ctx, cancel := context.WithCancel(t.Context())
	c := config()
	c.Tokens = waitingTokens{begun: cancel}
	e := failure(t, ctx, newClient(t, c, f.endpoint()), "no token")
	if want := "canceled while waiting for a token"; e.Remedy() != "start it" || !strings.Contains(e.Error(), want) ||
		!strings.Contains(e.Error(), "the API server is down") {
		t.Errorf("%v does not say %q and the reason; remedy %q", e, want, e.Remedy())
	}
}

// waitingTokens is a TokenSource without a token. It calls begun and waits until the context ends.
type waitingTokens struct{ begun func() }

func (s waitingTokens) Token(ctx context.Context) (string, bool, error) {
	s.begun()
	<-ctx.Done()
	return "", false, sourceError{}
}

func (waitingTokens) Refused(string) {}

// A 401 or 403 reports the token as refused; other failures do not.
func TestRefusedTokens(t *testing.T) {
	for _, tt := range []struct {
		code    int
		own     bool
		refused bool
		remedy  string
	}{
		{401, false, true, "authentication.webhook.enabled"},
		{403, false, true, "ClusterRole system:metrics-server-kubelets"},
		{403, true, false, "ClusterRole system:metrics-server needs"},
		{401, true, false, "authentication.webhook.enabled"},
		{500, false, false, "log"},
	} {
		f := newFake(t, secure())
		f.SetFault(func(w http.ResponseWriter, r *http.Request, _ []byte) {
			http.Error(w, "no, "+r.Header.Get("Authorization"), tt.code)
		})
		source := &tokens{token: weak, own: tt.own}
		f.SetToken(weak)
		if tt.own {
			source.token = ""
			f.SetToken(token)
		}
		c := config()
		c.Tokens = source
		var e *Error
		if err := newClient(t, c, f.endpoint()).Fetch(within(t), &sample.Batch{}); !errors.As(err, &e) ||
			!strings.Contains(e.Remedy(), tt.remedy) {
			t.Errorf("%d, own %v: %v, want the remedy %q", tt.code, tt.own, err, tt.remedy)
		} else if strings.Contains(e.Error(), weak) || strings.Contains(e.Error(), token) || !strings.Contains(e.Error(),
			"[redacted]") {
			t.Errorf("the error shows the token: %v", e)
		}
		if got := slices.Equal(source.refused, []string{weak}); got != tt.refused || !tt.refused && len(source.refused) > 0 {
			t.Errorf("%d, own %v: refused %q, want %v", tt.code, tt.own, source.refused, tt.refused)
		}
	}
}

func TestOwnReplayable(t *testing.T) {
	certPEM, keyPEM := cluster.Client("metrics-server")
	inline := rest.TLSClientConfig{CertData: certPEM, KeyData: keyPEM}
	certFile, keyFile := file(t, certPEM), file(t, keyPEM)
	for name, tt := range map[string]struct {
		config Config
		want   bool
	}{
		"nothing":               {Config{}, false},
		"token":                 {Config{Rest: &rest.Config{BearerToken: token}}, true},
		"token file":            {Config{Rest: &rest.Config{BearerTokenFile: file(t, []byte(token))}}, true},
		"basic":                 {Config{Rest: &rest.Config{Username: "u", Password: "p"}}, true},
		"plug-in":               {Config{Rest: plugin(t, `"token":"`+token+`"`)}, true},
		"certificate":           {Config{Rest: &rest.Config{TLSClientConfig: inline}}, false},
		"certificate and token": {Config{Rest: &rest.Config{TLSClientConfig: inline, BearerToken: token}}, false},
		"certificate for kubelets": {Config{
			Rest: &rest.Config{BearerToken: token}, ClientCertFile: certFile,
			ClientKeyFile: keyFile,
		}, false},
		"plain HTTP, and so no use": {Config{Rest: &rest.Config{BearerToken: token}, PlainHTTP: true}, false},
	} {
		s, err := New(tt.config)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.OwnReplayable(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
		s.Close()
	}
}
