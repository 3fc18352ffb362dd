package server

import (
	"net/http"
	"net/http/httptest"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/inventory"
)

// When the requests in flight are at their limit, lists are turned away and probes are not.
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
	h = handlerChain(h, c)
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
		"/livez": 200, "/readyz": 200, "/healthz": 200, "/readyz/metric-storage-ready": 200, "/livez?verbose": 200,
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

// The API server is told who asks, by both clients.
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
		config := clientConfig(&rest.Config{Host: api.URL, UserAgent: tc.given})
		h, err := rest.HTTPClientFor(config)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := inventory.NewClient(config, h)
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
