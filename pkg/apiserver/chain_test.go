package apiserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditpolicy "k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	endpointmetrics "k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/component-base/metrics/legacyregistry"

	"metrics-server/pkg/api/resource"
)

// auditLog keeps the audit events of a request.
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

// chainBuilder has the type of genericapiserver.DefaultBuildHandlerChain.
type chainBuilder func(http.Handler, *genericapiserver.Config) http.Handler

// testChain is the chain of a server of metrics.k8s.io.
func testChain(next http.Handler, c *genericapiserver.Config) http.Handler {
	return handlerChain(next, c, resource.Group)
}

// chainConfig returns a configuration in which alice may do everything except delete, impersonate
// root, and use the resources broken and slow; bob may read one path. The authentication of the
// user slow never ends.
func chainConfig() *genericapiserver.Config {
	c := NewGenericConfig("test", "v1.2.3", resource.Group)
	// as Complete does
	c.RequestInfoResolver, c.FeatureGate = genericapiserver.NewRequestInfoResolver(c), utilfeature.DefaultFeatureGate
	c.Authentication.Authenticator = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool,
		error,
	) {
		switch token := r.Header.Get("Authorization"); token {
		case "Bearer slow":
			return nil, false, outlast(r.Context())
		case "":
			return nil, false, nil
		case "Bearer alice", "Bearer bob":
			return &authenticator.Response{User: &user.DefaultInfo{
				Name:   token[len("Bearer "):],
				Groups: []string{user.AllAuthenticated},
			}}, true, nil
		default:
			return nil, false, errors.New("who is that?")
		}
	})
	c.Authorization.Authorizer = authorizer.AuthorizerFunc(func(ctx context.Context,
		a authorizer.Attributes,
	) (authorizer.Decision, string, error) {
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

// outlast returns a second after ctx has ended, so that the timeout of the request responds first.
func outlast(ctx context.Context) error {
	<-ctx.Done()
	time.Sleep(time.Second)
	return ctx.Err()
}

// chainAnswer is the result of a request. Without an answer, only the audit log is not zero.
type chainAnswer struct {
	Code   int
	Header http.Header
	Body   string
	Audit  []string
}

// The chain gives the same answers, and leaves the same audit events, as the one of the generic
// server.
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
			"user": who, "header": r.Header, "limited": limited, "limit": time.Until(deadline).Round(10 * time.Second),
			"namespace": namespace, "tracked": tracked,
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
		start := func(build chainBuilder) *httptest.Server {
			c := chainConfig()
			if audited {
				c.AuditBackend = &log
				c.AuditPolicyRuleEvaluator = auditpolicy.NewFakePolicyRuleEvaluator(auditinternal.LevelMetadata, nil)
			}
			s := httptest.NewUnstartedServer(build(api, c))
			s.Config.ErrorLog = nil
			s.Start()
			t.Cleanup(s.Close)
			return s
		}
		ours, standard := start(testChain), start(genericapiserver.DefaultBuildHandlerChain)
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
			if d := gocmp.Diff(want, got); d != "" || got.Code != tt.want {
				t.Errorf("%s %s as %q with %v, audited %v: %d, want %d (-want +got):\n%s", tt.method, tt.path, tt.as, tt.header,
					audited, got.Code, tt.want, d)
			}
			if audited && len(got.Audit) == 0 {
				t.Errorf("%s %s as %q with %v is not in the audit log", tt.method, tt.path, tt.as, tt.header)
			}
		}
	}
}

// The filters that a flag adds do the same here as in the generic server's chain.
func TestFiltersByFlag(t *testing.T) {
	const origin = "https://dash.example.com"
	for _, tc := range []struct {
		name   string
		set    func(*genericapiserver.Config)
		method string
		header string // with the flag; without it there is none
		want   string
	}{
		{
			"HSTS", func(c *genericapiserver.Config) { c.HSTSDirectives = []string{"max-age=31536000", "preload"} }, "GET",
			"Strict-Transport-Security", "max-age=31536000; preload",
		},
		{
			"CORS", func(c *genericapiserver.Config) { c.CorsAllowedOriginList = []string{`//dash\.example\.com$`} }, "GET",
			"Access-Control-Allow-Origin", origin,
		},
		{
			"CORS preflight", func(c *genericapiserver.Config) { c.CorsAllowedOriginList = []string{`//dash\.example\.com$`} },
			"OPTIONS", "Access-Control-Allow-Origin", origin,
		},
		{
			"CORS of others", func(c *genericapiserver.Config) { c.CorsAllowedOriginList = []string{`//other\.example\.com$`} },
			"GET", "Access-Control-Allow-Origin", "",
		},
		{"GOAWAY", func(c *genericapiserver.Config) {
			c.GoawayChance, c.SecureServing = 1, &genericapiserver.SecureServingInfo{}
		}, "GET", "Connection", "close"},
		{"GOAWAY without HTTP/2", func(c *genericapiserver.Config) {
			c.GoawayChance, c.SecureServing = 1, &genericapiserver.SecureServingInfo{DisableHTTP2: true}
		}, "GET", "Connection", ""},
	} {
		ask := func(build chainBuilder, set func(*genericapiserver.Config)) *httptest.ResponseRecorder {
			c := chainConfig()
			set(c)
			r := httptest.NewRequestWithContext(t.Context(), tc.method, "/apis/metrics.k8s.io/v1/nodes", http.NoBody)
			r.Proto, r.ProtoMajor = "HTTP/2.0", 2
			r.Header.Set("Authorization", "Bearer alice")
			r.Header.Set("Origin", origin)
			w := httptest.NewRecorder()
			build(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
				c).ServeHTTP(w, r)
			w.Header().Del("Audit-Id")
			return w
		}
		got, standard := ask(testChain, tc.set), ask(genericapiserver.DefaultBuildHandlerChain, tc.set)
		if v := got.Header().Get(tc.header); v != tc.want {
			t.Errorf("%s: %s is %q, want %q", tc.name, tc.header, v, tc.want)
		}
		if d := gocmp.Diff(standard.Header(), got.Header()); d != "" || got.Code != standard.Code {
			t.Errorf("%s: %d, the generic server's %d (-standard +ours):\n%s", tc.name, got.Code, standard.Code, d)
		}
		without := ask(testChain, func(*genericapiserver.Config) {})
		if v, ok := without.Header()[tc.header]; ok {
			t.Errorf("%s: without the flag %s is %q", tc.name, tc.header, v)
		}
	}
}

// --max-requests-inflight and --request-timeout work.
func TestLimitsByFlag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chainConfig()
		c.MaxRequestsInFlight, c.RequestTimeout = 2, 7*time.Second
		h := testChain(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), c)
		start := time.Now()
		ask := func() (int, time.Duration) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/apis/metrics.k8s.io/v1/nodes", http.NoBody)
			r.Header.Set("Authorization", "Bearer alice")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code, time.Since(start)
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, took := ask(); took != 7*time.Second {
					t.Errorf("a request took %v, want 7s", took)
				}
			})
		}
		synctest.Wait()
		if code, took := ask(); code != http.StatusTooManyRequests || took != 0 {
			t.Errorf("the third request: %d after %v, want 429 at once", code, took)
		}
		wg.Wait()
	})
}

// A handler's wait ends after a minute.
func TestRequestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := testChain(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), chainConfig())
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/apis/metrics.k8s.io/v1/nodes", http.NoBody)
		r.Header.Set("Authorization", "Bearer alice")
		begin := time.Now()
		h.ServeHTTP(httptest.NewRecorder(), r)
		if got := time.Since(begin); got != time.Minute {
			t.Errorf("the request took %v", got)
		}
	})
}

// A request with a shorter timeout of its own gets a 504 when it is over, whether the handler, the
// authentication or the authorization is slow.
func TestTimeoutOfTheClient(t *testing.T) {
	for _, build := range []chainBuilder{genericapiserver.DefaultBuildHandlerChain, testChain} {
		synctest.Test(t, func(t *testing.T) {
			slow := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = outlast(r.Context()) })
			h := build(slow, chainConfig())
			for path, token := range map[string]string{
				"/apis/metrics.k8s.io/v1/nodes?timeout=5s":         "alice",
				"/apis/metrics.k8s.io/v1/nodes?limit=1&timeout=5s": "slow",
				"/apis/metrics.k8s.io/v1/slow?timeout=5s":          "alice",
			} {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
				r.Header.Set("Authorization", "Bearer "+token)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusGatewayTimeout {
					t.Errorf("%s as %s: %d %s", path, token, w.Code, w.Body)
				}
			}
			time.Sleep(2 * time.Second) // until outlast has returned
		})
	}
}

// While the server stops, it waits for the requests in flight and rejects new ones.
func TestRequestsWhileTheServerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chainConfig()
		var stopped atomic.Bool
		h := testChain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			go func() {
				c.NonLongRunningRequestWaitGroup.Wait()
				stopped.Store(true)
			}()
			time.Sleep(10 * time.Second)
			if stopped.Load() {
				t.Error("the server does not wait for a request in flight")
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
		synctest.Wait()
		if !stopped.Load() {
			t.Error("the server still waits after the last request")
		}
		if code := ask(); code != http.StatusServiceUnavailable {
			t.Errorf("a request afterwards: %d", code)
		}
	})
}

// BenchmarkHandlerChain compares the chain with the generic server's, without access control.
func BenchmarkHandlerChain(b *testing.B) {
	for _, bm := range []struct {
		name  string
		build chainBuilder
	}{
		{"standard", genericapiserver.DefaultBuildHandlerChain},
		{"ours", testChain},
	} {
		b.Run(bm.name, func(b *testing.B) {
			h := bm.build(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), chainConfig())
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/apis/metrics.k8s.io/v1/namespaces/a/pods/web-1",
					http.NoBody)
				r.Header.Set("Authorization", "Bearer alice")
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}

// Whatever the path of a request that is rejected, cut off or aborted, it adds no series to the metrics.
func TestRejectedRequestsAddNoSeries(t *testing.T) {
	endpointmetrics.Register()
	series := func() (n int) {
		families, err := legacyregistry.DefaultGatherer.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			switch f.GetName() {
			case "apiserver_request_total", "apiserver_request_terminations_total", "apiserver_request_aborts_total":
				n += len(f.GetMetric())
			}
		}
		return n
	}
	for name, tc := range map[string]struct {
		method, query  string
		limit, writing int // 0: the default
		abort          bool
		want           int // 0: no answer
	}{
		"share of a user":       {method: http.MethodGet, limit: 1, want: http.StatusTooManyRequests},
		"limit of writes":       {method: http.MethodPost, writing: 1, want: http.StatusTooManyRequests},
		"timeout of the client": {method: http.MethodGet, query: "?timeout=1ms", want: http.StatusGatewayTimeout},
		"abort":                 {method: http.MethodGet, abort: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := chainConfig()
				c.Authorization.Authorizer = authorizer.AuthorizerFunc(
					func(ctx context.Context, _ authorizer.Attributes) (authorizer.Decision, string, error) {
						if tc.abort {
							panic(http.ErrAbortHandler)
						}
						_ = outlast(ctx)
						return authorizer.DecisionDeny, "", nil
					})
				c.MaxRequestsInFlight = cmp.Or(tc.limit, c.MaxRequestsInFlight)
				c.MaxMutatingRequestsInFlight = cmp.Or(tc.writing, c.MaxMutatingRequestsInFlight)
				h := testChain(http.NotFoundHandler(), c)
				ctx, stop := context.WithCancel(t.Context())
				ask := func(path string) (code int) {
					defer func() {
						p := recover()
						if err, ok := p.(error); p != nil && (!ok || !errors.Is(err, http.ErrAbortHandler)) {
							panic(p)
						}
					}()
					r := httptest.NewRequestWithContext(ctx, tc.method, path+tc.query, http.NoBody)
					r.Header.Set("Authorization", "Bearer alice")
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					return w.Code
				}
				var blocked sync.WaitGroup
				if tc.want == http.StatusTooManyRequests {
					blocked.Go(func() { ask("/apis/metrics.k8s.io/v1/nodes") })
					synctest.Wait()
				}
				defer func() {
					stop()
					blocked.Wait()
					time.Sleep(2 * time.Second) // until outlast has returned
				}()
				paths := func(i int) []string {
					return []string{
						fmt.Sprintf("/x/%d", i), fmt.Sprintf("/livez/%d", i), fmt.Sprintf("/apis/a%d/v1/b", i),
						fmt.Sprintf("/apis/metrics.k8s.io/v%d/nodes", i+3), fmt.Sprintf("/apis/metrics.k8s.io/v1/r%d", i),
						fmt.Sprintf("/apis/metrics.k8s.io/v1/nodes/n%d", i), fmt.Sprintf("/apis/metrics.k8s.io/v1/nodes/n/s%d", i),
						fmt.Sprintf("/apis/metrics.k8s.io/v1/namespaces/n%d/pods", i), fmt.Sprintf("/api/v1/r%d", i),
					}
				}
				round := func(i int) {
					for _, path := range paths(i) {
						if code := ask(path); code != tc.want {
							t.Errorf("%s: %d, want %d", path, code, tc.want)
						}
					}
				}
				round(0)
				before := series()
				for i := range 5 {
					round(i + 1)
				}
				if n := series() - before; n != 0 {
					t.Errorf("%d series more after %d requests more", n, 5*len(paths(0)))
				}
			})
		})
	}
}
