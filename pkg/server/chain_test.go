package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditpolicy "k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/warning"
)

// auditLog keeps what a request leaves in the audit log.
type auditLog struct {
	mu     sync.Mutex
	events []string
}

func (l *auditLog) ProcessEvents(events ...*auditinternal.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		code := int32(0)
		if e.ResponseStatus != nil {
			code = e.ResponseStatus.Code
		}
		l.events = append(l.events, fmt.Sprintf("%s %s %s by %s: %d", e.Stage, e.Verb, e.RequestURI, e.User.Username, code))
	}
	return true
}

func (l *auditLog) Run(<-chan struct{}) error { return nil }
func (l *auditLog) Shutdown()                 {}
func (l *auditLog) String() string            { return "test" }

func (l *auditLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.events = nil }()
	return l.events
}

// chainConfig is a configuration in which alice may do everything but delete, be root, and ask for what is broken or slow, and bob may read
// one path. To find out who slow is takes for ever.
func chainConfig() *genericapiserver.Config {
	c := NewGenericConfig("v1.2.3")
	c.RequestInfoResolver, c.FeatureGate = genericapiserver.NewRequestInfoResolver(c), utilfeature.DefaultFeatureGate // as Complete does
	c.Authentication.Authenticator = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		switch token := r.Header.Get("Authorization"); token {
		case "Bearer slow":
			return nil, false, outlast(r.Context())
		case "":
			return nil, false, nil
		case "Bearer alice", "Bearer bob":
			return &authenticator.Response{User: &user.DefaultInfo{Name: token[len("Bearer "):], Groups: []string{user.AllAuthenticated}}}, true, nil
		default:
			return nil, false, errors.New("who is that?")
		}
	})
	c.Authorization.Authorizer = authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		switch {
		case a.GetResource() == "slow":
			return authorizer.DecisionNoOpinion, "", outlast(ctx)
		case a.GetResource() == "broken":
			return authorizer.DecisionNoOpinion, "", errors.New("the API server does not answer")
		case a.GetUser().GetName() == "alice" && a.GetVerb() != "delete" && a.GetName() != "root",
			a.GetUser().GetName() == "bob" && a.GetPath() == "/apis/metrics.k8s.io/v1/nodes":
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionDeny, "it is not allowed", nil
	})
	return c
}

// outlast waits for longer than ctx lasts: what ends with it may still answer first.
func outlast(ctx context.Context) error {
	<-ctx.Done()
	time.Sleep(time.Second)
	return ctx.Err()
}

// chainAnswer is what comes of a request, zero but for the audit log if there is no answer.
type chainAnswer struct {
	Code   int
	Header http.Header
	Body   string
	Audit  []string
}

// The chain answers as the generic server's does, and leaves as much in the audit log.
func TestHandlerChain(t *testing.T) {
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RawQuery {
		case "panic":
			panic("for the test")
		case "abort":
			panic(http.ErrAbortHandler)
		case "fail":
			http.Error(w, "for the test", http.StatusTeapot)
			return
		}
		warning.AddWarning(r.Context(), "", "for the test")
		who, _ := request.UserFrom(r.Context())
		deadline, limited := r.Context().Deadline()
		namespace, _ := request.NamespaceFrom(r.Context())
		_, tracked := request.LatencyTrackersFrom(r.Context())
		err := json.NewEncoder(w).Encode(map[string]any{
			"user": who, "header": r.Header, "limited": limited, "limit": time.Until(deadline).Round(10 * time.Second), "namespace": namespace, "tracked": tracked,
		})
		if err != nil {
			t.Error(err)
		}
	})
	const nodes = "/apis/metrics.k8s.io/v1/nodes"
	tests := []struct {
		method, path, as string
		header           map[string]string
		want             int // 0: no answer
	}{
		{"GET", nodes, "alice", nil, 200},
		{"GET", nodes, "bob", nil, 200},
		{"GET", nodes + "/n1", "bob", nil, 403},
		{"GET", nodes, "", nil, 401},
		{"GET", nodes, "mallory", nil, 401},
		{"DELETE", nodes + "/n1", "alice", nil, 403},
		{"GET", "/apis/metrics.k8s.io/v1/broken", "alice", nil, 500},
		{"GET", "/metrics", "alice", nil, 200},
		{"GET", "/livez", "alice", nil, 200},
		{"GET", "/livez", "bob", nil, 403},
		{"POST", nodes, "alice", nil, 200},
		{"OPTIONS", nodes, "alice", map[string]string{"Origin": "https://example.com"}, 200},
		{"GET", nodes + "?timeout=20s", "alice", nil, 200},
		{"GET", nodes + "?timeout=soon", "alice", nil, 400},
		{"GET", nodes + "?watch=1", "alice", nil, 200},
		{"GET", nodes + "?fail", "alice", nil, 418},
		{"GET", nodes + "?panic", "alice", nil, 0},
		{"GET", nodes + "?abort", "alice", nil, 0},
		{"GET", nodes, "alice", map[string]string{"Impersonate-User": "bob"}, 200},
		{"GET", nodes + "/n1", "alice", map[string]string{"Impersonate-User": "bob"}, 403},
		{"GET", nodes, "alice", map[string]string{"Impersonate-User": "root"}, 403},
		{"GET", nodes, "bob", map[string]string{"Impersonate-User": "alice"}, 403},
		{"GET", nodes, "alice", map[string]string{"Impersonate-Group": "system:masters"}, 400},
		{"GET", nodes, "", map[string]string{"X-Remote-User": "alice"}, 401},
		{"GET", nodes, "bob", map[string]string{"X-Remote-User": "alice", "X-Remote-Group": "system:masters"}, 200},
		{"GET", nodes, "alice", map[string]string{"Audit-Id": "mine"}, 200},
	}
	for _, audited := range []bool{false, true} {
		var log auditLog
		start := func(build func(http.Handler, *genericapiserver.Config) http.Handler) *httptest.Server {
			c := chainConfig()
			if audited {
				c.AuditBackend, c.AuditPolicyRuleEvaluator = &log, auditpolicy.NewFakePolicyRuleEvaluator(auditinternal.LevelMetadata, nil)
			}
			s := httptest.NewUnstartedServer(build(api, c))
			s.Config.ErrorLog = nil
			s.Start()
			t.Cleanup(s.Close)
			return s
		}
		ours, standard := start(handlerChain), start(genericapiserver.DefaultBuildHandlerChain)
		for _, tt := range tests {
			ask := func(s *httptest.Server) (answer chainAnswer) {
				r, err := http.NewRequestWithContext(t.Context(), tt.method, s.URL+tt.path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				if tt.as != "" {
					r.Header.Set("Authorization", "Bearer "+tt.as)
				}
				for k, v := range tt.header {
					r.Header.Set(k, v)
				}
				resp, err := s.Client().Do(r)
				if err != nil {
					answer.Audit = log.take()
					return answer
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Errorf("%s %s: %v", tt.method, tt.path, err)
				}
				resp.Header.Del("Date")
				if resp.Header.Get("Audit-Id") == "" {
					t.Errorf("%s %s: no Audit-Id", tt.method, tt.path)
				}
				if resp.Header.Get("Audit-Id") != tt.header["Audit-Id"] {
					resp.Header.Del("Audit-Id") // a random one
				}
				answer.Code, answer.Header, answer.Body, answer.Audit = resp.StatusCode, resp.Header, string(body), log.take()
				return answer
			}
			got, want := ask(ours), ask(standard)
			if d := cmp.Diff(want, got); d != "" || got.Code != tt.want {
				t.Errorf("%s %s as %q with %v, audited %v: %d, want %d (-want +got):\n%s", tt.method, tt.path, tt.as, tt.header, audited, got.Code, tt.want, d)
			}
			if audited && len(got.Audit) == 0 {
				t.Errorf("%s %s as %q with %v is not in the audit log", tt.method, tt.path, tt.as, tt.header)
			}
		}
	}
}

// What a request waits for ends after a minute.
func TestRequestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handlerChain(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), chainConfig())
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/apis/metrics.k8s.io/v1/nodes", http.NoBody)
		r.Header.Set("Authorization", "Bearer alice")
		begin := time.Now()
		h.ServeHTTP(httptest.NewRecorder(), r)
		if got := time.Since(begin); got != time.Minute {
			t.Errorf("the request took %v", got)
		}
	})
}

// A client that sets a shorter timeout is told when it is over, whatever is waited for.
func TestTimeoutOfTheClient(t *testing.T) {
	for _, build := range []func(http.Handler, *genericapiserver.Config) http.Handler{genericapiserver.DefaultBuildHandlerChain, handlerChain} {
		h := build(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = outlast(r.Context()) }), chainConfig())
		for path, token := range map[string]string{
			"/apis/metrics.k8s.io/v1/nodes?timeout=50ms": "alice", "/apis/metrics.k8s.io/v1/nodes?limit=1&timeout=50ms": "slow",
			"/apis/metrics.k8s.io/v1/slow?timeout=50ms": "alice",
		} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusGatewayTimeout {
				t.Errorf("%s as %s: %d %s", path, token, w.Code, w.Body)
			}
		}
	}
}

// While the server ends, requests that come too late are turned away, and those under way are waited for.
func TestRequestsWhileTheServerEnds(t *testing.T) {
	c := chainConfig()
	waits := make(chan struct{})
	h := handlerChain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		go func() {
			c.NonLongRunningRequestWaitGroup.Wait()
			close(waits)
		}()
		select {
		case <-waits:
			t.Error("a request is under way, and is not waited for")
		case <-time.After(50 * time.Millisecond):
		}
	}), c)
	ask := func() int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/apis/metrics.k8s.io/v1/nodes", http.NoBody)
		r.Header.Set("Authorization", "Bearer alice")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	if code := ask(); code != http.StatusOK {
		t.Errorf("the first request: %d", code)
	}
	<-waits
	if code := ask(); code != http.StatusServiceUnavailable {
		t.Errorf("a request afterwards: %d", code)
	}
}

// BenchmarkHandlerChain compares the chain with the generic server's, without access control.
func BenchmarkHandlerChain(b *testing.B) {
	for _, bm := range []struct {
		name  string
		build func(http.Handler, *genericapiserver.Config) http.Handler
	}{
		{"standard", genericapiserver.DefaultBuildHandlerChain},
		{"ours", handlerChain},
	} {
		b.Run(bm.name, func(b *testing.B) {
			h := bm.build(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), chainConfig())
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/apis/metrics.k8s.io/v1/namespaces/a/pods/web-1", http.NoBody)
				r.Header.Set("Authorization", "Bearer alice")
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}
