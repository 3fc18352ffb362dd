package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/metrics/legacyregistry"
)

// What autoscalers ask for does not pass the generic server's router; everything else does. Either way the answer is the router's, and
// so is what is counted.
func TestDirect(t *testing.T) {
	const (
		protobuf = runtime.ContentTypeProtobuf
		table    = mediaJSON + ";as=Table;g=meta.k8s.io;v=v1"
	)
	tests := []struct {
		method, path, accept string
		direct               bool
	}{
		{"GET", "/nodes", mediaJSON, true},
		{"GET", "/nodes/n1", protobuf, true},
		{"GET", "/nodes?labelSelector=zone%3Deast", protobuf + "," + mediaJSON, true},
		{"GET", "/pods", protobuf, true},
		{"GET", "/pods?labelSelector=app+in+%28web%2Cdb%29", mediaJSON, true},
		{"GET", "/namespaces/a/pods", "", true},
		{"GET", "/namespaces/a/pods?labelSelector=", mediaJSON, true},
		{"GET", "/namespaces/a/pods?labelSelector=tier%3Dfront", protobuf, true},
		{"GET", "/namespaces/none/pods", protobuf, true},
		{"GET", "/namespaces/a/pods/web-1", protobuf, true},
		{"GET", "/namespaces/a/pods/web-1", "*/*", true},
		{"GET", "/namespaces/a/pods/none", protobuf, true},
		{"GET", "/namespaces/a/pods/new", mediaJSON, true},

		{"HEAD", "/nodes/n1", mediaJSON, false},
		{"DELETE", "/nodes/n1", mediaJSON, false},
		{"GET", "/namespaces/a/pods", table, false},
		{"GET", "/nodes", "application/yaml", false},
		{"GET", "/nodes", mediaJSON + ";pretty=1", false},
		{"GET", "/nodes", "text/html", false},
		{"GET", "/nodes?pretty=1", mediaJSON, false},
		{"GET", "/nodes?watch=1", mediaJSON, false},
		{"GET", "/nodes?limit=500", mediaJSON, false},
		{"GET", "/nodes/n1?labelSelector=zone%3Deast", mediaJSON, false},
		{"GET", "/nodes?labelSelector=zone%3Deast&limit=1", mediaJSON, false},
		{"GET", "/nodes?labelSelector=zone%3Deast&labelSelector=os%3Dlinux", mediaJSON, false},
		{"GET", "/nodes?labelSelector=zone%3Deast;limit=1", mediaJSON, false},
		{"GET", "/nodes?labelSelector=zone+east", mediaJSON, false},
		{"GET", "/nodes?labelSelector=%zz", mediaJSON, false},
		{"GET", "/nodes?fieldSelector=metadata.name%3Dn1", mediaJSON, false},
		{"GET", "/namespaces/a/pods?continue=abc", mediaJSON, false},
		{"GET", "/nodes/", mediaJSON, false},
		{"GET", "/nodes/n1/", mediaJSON, false},
		{"GET", "/nodes/n1/status", mediaJSON, false},
		{"GET", "/namespaces/a/nodes", mediaJSON, false},
		{"GET", "/namespaces/a/nodes/n1", mediaJSON, false},
		{"GET", "/namespaces/a", mediaJSON, false},
		{"GET", "/pods/web-1", mediaJSON, false},
		{"GET", "/watch/pods", mediaJSON, false},
		{"GET", "/containers", mediaJSON, false},
		{"GET", "", mediaJSON, false},
	}
	c := newCluster()
	routed := false
	ours := c.handlerOf(t, c.config(), func(a *API, next http.Handler) http.Handler {
		return a.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			routed = true
			next.ServeHTTP(w, r)
		}))
	})
	standard := c.standardHandler(t)
	check := func(method, path, accept string, direct bool) {
		ask := func(h http.Handler) (*httptest.ResponseRecorder, map[string]float64) {
			r := httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody)
			r.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			before := requestsCounted(t)
			h.ServeHTTP(w, r)
			w.Header().Del("Audit-Id")
			counted := requestsCounted(t)
			for series, n := range before {
				if counted[series] -= n; counted[series] == 0 {
					delete(counted, series)
				}
			}
			return w, counted
		}
		routed = false
		got, counted := ask(ours)
		if routed == direct {
			t.Errorf("%s %s as %q reached the router: %v", method, path, accept, routed)
		}
		want, wantCounted := ask(standard)
		if got.Code != want.Code || got.Body.String() != want.Body.String() {
			t.Errorf("%s %s as %q: got %d\n%s\nwant %d\n%s", method, path, accept, got.Code, got.Body, want.Code, want.Body)
		}
		if d := gocmp.Diff(want.Header(), got.Header()); d != "" {
			t.Errorf("%s %s as %q: header (-want +got):\n%s", method, path, accept, d)
		}
		if d := gocmp.Diff(wantCounted, counted); d != "" || direct && len(counted) == 0 {
			t.Errorf("%s %s as %q: counted (-want +got):\n%s", method, path, accept, d)
		}
	}
	for _, tt := range tests {
		for _, version := range []string{"v1", "v1beta1"} {
			check(tt.method, group+version+tt.path, tt.accept, tt.direct)
		}
	}
	check("GET", group+"v7/nodes", mediaJSON, false)
	check("GET", "/apis/example.com/v1/nodes", mediaJSON, false)
	check("GET", "/api/v1/nodes", mediaJSON, false)
}

// requestsCounted is how many requests and bytes of answers the generic server has counted, by all labels.
func requestsCounted(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "apiserver_request_") && !strings.HasPrefix(f.GetName(), "apiserver_response_sizes") {
			continue
		}
		if strings.HasSuffix(f.GetName(), "filter_duration_seconds") { // it is of the filters before
			continue
		}
		for _, m := range f.Metric {
			series := f.GetName()
			for _, l := range m.Label {
				series += "," + l.GetName() + "=" + l.GetValue()
			}
			counted[series] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			if strings.Contains(f.GetName(), "sizes") {
				counted[series+" sum"] = m.GetHistogram().GetSampleSum()
			}
		}
	}
	return counted
}

// A request of which nothing is known is not answered directly.
func TestDirectWithoutRequestInfo(t *testing.T) {
	a, err := New(newCluster().config())
	if err != nil {
		t.Fatal(err)
	}
	routed := 0
	h := a.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { routed++ }))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, group+"v1/nodes", http.NoBody)
	h.ServeHTTP(httptest.NewRecorder(), r)
	h.ServeHTTP(httptest.NewRecorder(), r.WithContext(request.WithRequestInfo(r.Context(), &request.RequestInfo{})))
	if routed != 2 {
		t.Errorf("%d of 2 requests were passed on", routed)
	}
}

// answers is an audit backend that keeps the answers that are to be logged.
type answers struct{ bodies []string }

func (a *answers) ProcessEvents(events ...*auditinternal.Event) bool {
	for _, e := range events {
		if e.ResponseObject != nil {
			a.bodies = append(a.bodies, string(e.ResponseObject.Raw))
		}
	}
	return true
}

func (a *answers) Run(<-chan struct{}) error { return nil }
func (a *answers) Shutdown()                 {}
func (a *answers) String() string            { return "test" }

// Where the audit policy wants answers, those that are given directly are logged too.
func TestDirectIsAudited(t *testing.T) {
	c := newCluster()
	logged := func(before func(*API, http.Handler) http.Handler) *answers {
		served, log := c.config(), &answers{}
		served.Registerer = nil
		h := c.handlerOf(t, served, before, func(config *genericapiserver.Config) {
			config.AuditBackend, config.AuditPolicyRuleEvaluator = log, policy.NewFakePolicyRuleEvaluator(auditinternal.LevelRequestResponse, nil)
		})
		for _, path := range []string{"v1/namespaces/a/pods/web-1", "v1beta1/pods?labelSelector=app%3Dweb", "v1/nodes", "v1/nodes/none"} {
			answer(t, h, group+path, runtime.ContentTypeProtobuf, "")
		}
		return log
	}
	got := logged((*API).Handler)
	want := logged(func(_ *API, next http.Handler) http.Handler { return next })
	if d := gocmp.Diff(want.bodies, got.bodies); d != "" || len(got.bodies) != 4 {
		t.Errorf("%d answers were logged (-want +got):\n%s", len(got.bodies), d)
	}
}
