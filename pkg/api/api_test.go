package api

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/install"

	"metrics-server/pkg/api/openapi"
)

func newTestGroup() *Group {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	return NewGroup(metrics.GroupName, scheme, openapi.GetOpenAPIDefinitions, "nodes", "pods")
}

// TestEncodings checks that the engine tells apart the JSON and protobuf encoders of every version.
func TestEncodings(t *testing.T) {
	if g := newTestGroup(); len(g.encodings) != 4 {
		t.Errorf("got %v, want two media types in two versions", g.encodings)
	}
}

func TestGroupHas(t *testing.T) {
	g := newTestGroup()
	info := request.RequestInfo{IsResourceRequest: true, APIGroup: metrics.GroupName, APIVersion: "v1", Resource: "pods"}
	if !g.Has(&info) {
		t.Errorf("%+v: got false", info)
	}
	for _, change := range []func(*request.RequestInfo){
		func(i *request.RequestInfo) { i.IsResourceRequest = false },
		func(i *request.RequestInfo) { i.APIGroup = "example.com" },
		func(i *request.RequestInfo) { i.APIVersion = "v7" },
		func(i *request.RequestInfo) { i.Resource = "secrets" },
		func(i *request.RequestInfo) { i.Subresource = "status" },
	} {
		other := info
		change(&other)
		if g.Has(&other) {
			t.Errorf("%+v: got true", other)
		}
	}
}

// TestHandlerWithoutRequestInfo checks that requests about which nothing is known are left to the
// generic server.
func TestHandlerWithoutRequestInfo(t *testing.T) {
	standard := 0
	h := Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if outputOf(r.Context()).standard {
			standard++
		}
	}), newTestGroup())
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/apis/metrics.k8s.io/v1/nodes", http.NoBody)
	h.ServeHTTP(httptest.NewRecorder(), r)
	h.ServeHTTP(httptest.NewRecorder(), r.WithContext(request.WithRequestInfo(r.Context(), &request.RequestInfo{})))
	if standard != 2 {
		t.Errorf("%d of 2 requests were left to the generic server", standard)
	}
}
