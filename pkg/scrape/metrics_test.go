package scrape

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"metrics-server/pkg/sharedtest"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		s := run(t, Config{Sink: &store{}, Registerer: registry})
		s.Add("node-a", &kubelet{t: t, delay: 20 * time.Millisecond})
		s.Add("node-b", &kubelet{t: t, delay: 500 * time.Millisecond, fault: func() error { return refusedError{"node-b"} }})
		s.Add("node-c", &kubelet{t: t, fault: func() error { return errHang }})
		wait(time.Second)
		// Virtual time begins in the year 2000. node-c, still hanging, has no series yet.
		f := func(want string, names ...string) {
			t.Helper()
			if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
				t.Error(err)
			}
		}
		const perNode = `
# HELP metrics_server_kubelet_last_request_time_seconds Time when the last request to a node's kubelet ended, ` +
			`in seconds since 1970.
# TYPE metrics_server_kubelet_last_request_time_seconds gauge
metrics_server_kubelet_last_request_time_seconds{node="node-a"} 9.4668480002e+08
# HELP metrics_server_kubelet_request_duration_seconds Duration of requests to a node's kubelet.
# TYPE metrics_server_kubelet_request_duration_seconds histogram
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="0.005"} 0
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="0.01"} 0
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="0.025"} 1
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="0.05"} 1
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="0.1"} 1
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="0.25"} 1
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="0.5"} 1
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="1"} 1
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="2.5"} 1
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="5"} 1
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="10"} 1
metrics_server_kubelet_request_duration_seconds_bucket{node="node-a",le="+Inf"} 1
metrics_server_kubelet_request_duration_seconds_sum{node="node-a"} 0.02
metrics_server_kubelet_request_duration_seconds_count{node="node-a"} 1
`
		both := []string{
			"metrics_server_kubelet_last_request_time_seconds",
			"metrics_server_kubelet_request_duration_seconds",
		}
		if n, err := testutil.GatherAndCount(registry, both...); err != nil || n != 4 {
			t.Errorf("%d series of two nodes, error %v", n, err)
		}
		const counters = `
# HELP metrics_server_kubelet_request_total Number of requests sent to kubelets, by whether they succeeded.
# TYPE metrics_server_kubelet_request_total counter
metrics_server_kubelet_request_total{success="false"} %d
metrics_server_kubelet_request_total{success="true"} 1
# HELP metrics_server_kubelet_scrape_failures_total Number of failed scrapes of kubelets, by cause.
# TYPE metrics_server_kubelet_scrape_failures_total counter
metrics_server_kubelet_scrape_failures_total{cause="connection refused"} 1
`
		totals := []string{"metrics_server_kubelet_request_total", "metrics_server_kubelet_scrape_failures_total"}
		f(fmt.Sprintf(counters, 1), totals...)
		f(`
# HELP metrics_server_failing_nodes Number of nodes whose last scrape failed, by cause.
# TYPE metrics_server_failing_nodes gauge
metrics_server_failing_nodes{cause="connection refused"} 1
# HELP metrics_server_nodes Number of nodes, by how their last scrape went: waiting for the first `+
			`one, failing, complete, or incomplete if something that it lists has no usage yet.
# TYPE metrics_server_nodes gauge
metrics_server_nodes{state="complete"} 1
metrics_server_nodes{state="failing"} 1
metrics_server_nodes{state="incomplete"} 0
metrics_server_nodes{state="waiting"} 1
`, "metrics_server_nodes", "metrics_server_failing_nodes")
		s.Remove("node-b")
		s.Remove("node-c")
		wait(time.Second)
		f(perNode, both...)
		f("", "metrics_server_failing_nodes")
		f(fmt.Sprintf(counters, 1), totals...) // a scrape that Remove ended is no failure
		f(`
# HELP metrics_server_manager_tick_duration_seconds Time from the moment a scrape is due until `+
			`its samples are stored: waiting for a turn, request and storing.
# TYPE metrics_server_manager_tick_duration_seconds histogram
metrics_server_manager_tick_duration_seconds_bucket{le="0.005"} 0
metrics_server_manager_tick_duration_seconds_bucket{le="0.01"} 0
metrics_server_manager_tick_duration_seconds_bucket{le="0.025"} 1
metrics_server_manager_tick_duration_seconds_bucket{le="0.05"} 1
metrics_server_manager_tick_duration_seconds_bucket{le="0.1"} 1
metrics_server_manager_tick_duration_seconds_bucket{le="0.25"} 1
metrics_server_manager_tick_duration_seconds_bucket{le="0.5"} 1
metrics_server_manager_tick_duration_seconds_bucket{le="1"} 1
metrics_server_manager_tick_duration_seconds_bucket{le="2.5"} 1
metrics_server_manager_tick_duration_seconds_bucket{le="5"} 1
metrics_server_manager_tick_duration_seconds_bucket{le="10"} 1
metrics_server_manager_tick_duration_seconds_bucket{le="+Inf"} 1
metrics_server_manager_tick_duration_seconds_sum 0.02
metrics_server_manager_tick_duration_seconds_count 1
`, "metrics_server_manager_tick_duration_seconds")
		if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
			t.Errorf("lint: %v %v", problems, err)
		}
		s.Remove("node-a")
		f("", both...)
	})
}

// The histogram of a node is the one that client_golang would have made.
func TestDurationsAreAHistogram(t *testing.T) {
	const name = "metrics_server_kubelet_request_duration_seconds"
	got, want := prometheus.NewRegistry(), prometheus.NewRegistry()
	reference := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: "Duration of requests to a node's kubelet.",
	}, []string{"node"})
	want.MustRegister(reference)
	n := &target{name: "node-a"}
	for _, d := range []time.Duration{
		0, time.Millisecond, 5 * time.Millisecond, 5*time.Millisecond + 1, 9 * time.Second, 10 * time.Second, time.Minute,
	} {
		reference.WithLabelValues("node-a").Observe(d.Seconds())
		n.observe(d)
	}
	got.MustRegister(single{&histogram{
		desc:   prometheus.NewDesc(name, "Duration of requests to a node's kubelet.", []string{"node"}, nil),
		target: n, durations: n.observed(),
	}})
	text := func(g prometheus.Gatherer) string {
		b, err := testutil.GatherAndFormat(g, expfmt.TypeTextPlain, name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if d := cmp.Diff(text(want), text(got)); d != "" {
		t.Error(d)
	}
}

// single is a Collector of one metric.
type single struct{ prometheus.Metric }

func (s single) Describe(out chan<- *prometheus.Desc) { out <- s.Desc() }
func (s single) Collect(out chan<- prometheus.Metric) { out <- s.Metric }

func BenchmarkCollectOf2000(b *testing.B) {
	const nodes = 2000
	registry := prometheus.NewRegistry()
	s := New(Config{Sink: quick{}, Registerer: registry})
	for _, name := range names(nodes) {
		s.Add(name, quick{})
	}
	sharedtest.Start(b, b.Context(), s.Run)
	for s.Status().Answered < nodes {
		time.Sleep(time.Millisecond)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
