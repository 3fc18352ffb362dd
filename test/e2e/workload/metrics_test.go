package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// TestPage compares the page with what it was told, to the byte, and has the reference parser read it.
func TestPage(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	p := newPage(func() time.Time { return now })
	do := func(f func(string) error, text string) {
		t.Helper()
		if err := f(text); err != nil {
			t.Fatal(err)
		}
	}
	do(p.rate, "packets_total=1500")
	do(p.rate, `http_requests_total{code="500",path="/a=b"}=0.5`)
	do(p.rate, `request_duration_seconds{le="0.25"}=4`)
	do(p.rate, `request_duration_seconds{le="1"}=1`)
	do(p.set, "queue_length=7")
	now = now.Add(10 * time.Second)
	do(p.rate, "packets_total=10") // what was counted stays
	now = now.Add(10 * time.Second)

	w := httptest.NewRecorder()
	if err := p.serve(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)); err != nil {
		t.Fatal(err)
	}
	const want = `# TYPE http_requests_total counter
http_requests_total{code="200",path="/"} 0
http_requests_total{code="500",path="/a=b"} 10
# TYPE packets_total counter
packets_total 15100
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.7e+09
# TYPE queue_length gauge
queue_length 7
# TYPE request_duration_seconds histogram
request_duration_seconds_bucket{le="0.1"} 0
request_duration_seconds_bucket{le="0.25"} 80
request_duration_seconds_bucket{le="0.5"} 80
request_duration_seconds_bucket{le="1"} 100
request_duration_seconds_bucket{le="+Inf"} 100
request_duration_seconds_sum 40
request_duration_seconds_count 100
`
	got := w.Body.String()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(strings.NewReader(got))
	if err != nil || len(parsed) != len(families) {
		t.Errorf("%d families, want %d; %v", len(parsed), len(families), err)
	}
}

func TestFaults(t *testing.T) {
	p := newPage(time.Now)
	for fault, want := range map[string]struct {
		code int
		kind string
	}{
		"404": {404, "text/plain"}, "500": {500, "text/plain"}, "html": {200, "text/html"}, "": {200, "text/plain"},
	} {
		if err := p.fail(fault); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		if err := p.serve(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)); err != nil {
			t.Fatal(err)
		}
		if kind := w.Header().Get("Content-Type"); w.Code != want.code || !strings.HasPrefix(kind, want.kind) {
			t.Errorf("%q: %d, %s, want %d, %s", fault, w.Code, kind, want.code, want.kind)
		}
	}
	for name, err := range map[string]error{
		"unknown fault": p.fail("x"), "unknown family": p.rate("x=1"), "no value": p.set("queue_length"),
		"no number": p.set("queue_length=x"),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
