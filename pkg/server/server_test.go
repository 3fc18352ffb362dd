package server

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
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
	c := NewGenericConfig("v1.2.3")
	h = genericfilters.WithMaxInFlightLimit(h, 1, 1, c.LongRunningFunc)
	h = filters.WithRequestInfo(h, &request.RequestInfoFactory{APIPrefixes: sets.NewString("apis"), GrouplessAPIPrefixes: sets.NewString()})
	ask := func(path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
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
