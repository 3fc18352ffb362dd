package apiserver

import (
	"net/http"
	"net/http/httptest"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/inventory"
)

func TestMain(m *testing.M) {
	// The second handler limits the rate of errors. It would sleep for 26 years in the first synctest
	// bubble after an error outside, because the clock of a bubble starts in the year 2000.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1] //nolint:reassign // there is no other way
	m.Run()
}

// When the requests in flight are at their limit, lists are rejected and probes are not.
func TestProbesPassTheLimitOfRequests(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "slow" {
			close(entered)
			<-leave
		}
	}))
	c := chainConfig()
	c.MaxRequestsInFlight = 1
	h = testChain(h, c)
	ask := func(path string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
		r.Header.Set("Authorization", "Bearer alice")
		h.ServeHTTP(w, r)
		return w.Code
	}
	const list = "/apis/metrics.k8s.io/v1/pods"
	done := make(chan int)
	go func() { done <- ask(list + "?slow") }()
	<-entered
	for path, want := range map[string]int{
		list: 429, "/metrics": 429, "/livezz": 429, "/apis/metrics.k8s.io/v1/namespaces/livez/pods/readyz": 429,
		"/livez": 200, "/readyz": 200, "/healthz": 200, "/livez?verbose": 200, "/readyz?exclude=x": 200,
		// These are not probes, or the generic server's own limit lets them pass.
		"/readyz/metric-storage-ready": 429, "/livez/": 429, "/livez/x": 429, "/healthz/../x": 429, "/LIVEZ": 429,
		list + "?watch=1": 429, "/debug/pprof/profile": 429, "/debug/pprof/x": 429,
	} {
		if got := ask(path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	close(leave)
	if code := <-done; code != 200 {
		t.Errorf("the list that was first: %d", code)
	}
	if got := ask(list); got != 200 {
		t.Errorf("a list when there is room again: %d", got)
	}
}

// Both clients tell the API server who they are.
func TestUserAgent(t *testing.T) {
	for _, tc := range []struct{ given, want string }{
		{"", rest.DefaultKubernetesUserAgent()},
		{"mine/1", "mine/1"},
	} {
		agents := make(chan string, 2)
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			agents <- r.UserAgent()
			http.Error(w, "no", http.StatusForbidden)
		}))
		t.Cleanup(api.Close)
		config := ClientConfig(&rest.Config{Host: api.URL, UserAgent: tc.given})
		h, err := rest.HTTPClientFor(config)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := inventory.NewClient(config, h, false)
		if err != nil {
			t.Fatal(err)
		}
		others, err := kubernetes.NewForConfigAndClient(config, h)
		if err != nil {
			t.Fatal(err)
		}
		if err := objects.Get().Resource("pods").Do(t.Context()).Error(); !apierrors.IsForbidden(err) {
			t.Error(err)
		}
		if _, err := others.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Error(err)
		}
		for range 2 {
			if got := <-agents; got != tc.want {
				t.Errorf("user agent %q, want %q", got, tc.want)
			}
		}
	}
}
