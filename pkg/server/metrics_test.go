package server

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// theirs are the names that the incumbent has as well, with these types, labels and meanings.
var theirs = []string{
	"metrics_server_api_metric_freshness_seconds",
	"metrics_server_kubelet_last_request_time_seconds",
	"metrics_server_kubelet_request_duration_seconds",
	"metrics_server_kubelet_request_total",
	"metrics_server_manager_tick_duration_seconds",
	"metrics_server_storage_points",
}

const metricsDocHead = `# Metrics

The server's own metrics at ` + "`/metrics`" + `; [observability.md](observability.md) says how to read them.
This page is generated from the server's registry by ` + "`make generate`" + `.

A *stable* metric keeps its name, type and labels until the next major version; these are the metrics
that the incumbent has under the same names. A *beta* metric may change with a minor version, and the
[changelog](../CHANGELOG.md) then says so.

| metric | type | labels | stability | meaning |
|---|---|---|---|---|
`

const metricsDocTail = `
In addition, there are the metrics of every Kubernetes API server, such as ` + "`apiserver_request_total`" + `,
` + "`apiserver_request_duration_seconds`, `process_*` and `go_*`" + `, except
` + "`apiserver_request_filter_duration_seconds`" + `, because measuring a filter costs as
much as the filter itself. Service level indicators of the probes are at ` + "`/metrics/slis`" + `.
`

// docs/metrics.md is what the server registers. To update it: go test ./pkg/server -run TestMetricsDoc -update
func TestMetricsDoc(t *testing.T) {
	const file = "../../docs/metrics.md"
	s := newServer(t)
	families := gatherAll(t, s)
	var rows []string
	known := slices.Clone(theirs)
	for d := range descriptions(s.metrics) {
		f := families[d.name]
		if f == nil {
			t.Errorf("%s has no series after a scrape that succeeded and one that failed: give it one here, for its type",
				d.name)
			continue
		}
		stability := "beta"
		if i := slices.Index(known, d.name); i >= 0 {
			stability, known = "stable", slices.Delete(known, i, i+1)
		}
		labels := "-"
		if len(d.labels) > 0 {
			labels = "`" + strings.Join(d.labels, "`, `") + "`"
		}
		cells := []string{"`" + d.name + "`", strings.ToLower(f.GetType().String()), labels, stability, f.GetHelp()}
		rows = append(rows, "| "+strings.Join(cells, " | ")+" |\n")
	}
	if len(known) > 0 {
		t.Errorf("dashboards of the incumbent's users read %v, which are gone", known)
	}
	slices.Sort(rows)
	doc := metricsDocHead + strings.Join(rows, "") + metricsDocTail
	sharedtest.CompareWithFile(t, file, doc)
}

// newServer returns one that is connected to nothing, with everything that can be switched on.
func newServer(t *testing.T) *Server {
	t.Helper()
	return newServerWith(t, func(c *Config) { c.History = time.Hour })
}

// newServerWith returns one that is connected to nothing, with the settings that change makes.
func newServerWith(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	generic := NewGenericConfig("v1.2.3")
	generic.ExternalAddress = "127.0.0.1:443"
	generic.LoopbackClientConfig = &rest.Config{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	generic.SecureServing = &genericapiserver.SecureServingInfo{Listener: listener}
	config := Config{
		Generic: generic, Rest: &rest.Config{Host: "127.0.0.1:1"}, Kubelet: KubeletConfig{Rest: &rest.Config{}},
		Resolution: time.Minute, Timeout: time.Second, ServingSecret: types.NamespacedName{
			Namespace: "kube-system",
			Name:      "serving",
		},
	}
	change(&config)
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.serving.Destroy)
	return s
}

type fetcher func(into *sample.Batch) error

func (f fetcher) Fetch(_ context.Context, into *sample.Batch) error { return f(into) }

// gatherAll returns what s says after one node has answered and one has not: then every metric has a series.
func gatherAll(t *testing.T, s *Server) map[string]*dto.MetricFamily {
	t.Helper()
	asked := make(chan struct{}, 10)
	s.scraper.Add("good", fetcher(func(into *sample.Batch) error {
		into.Node = sample.Sample{Time: sample.TimeOf(time.Now()), CPU: 1, Memory: 1, Given: sample.CPU | sample.Memory}
		asked <- struct{}{}
		return nil
	}))
	s.scraper.Add("bad", fetcher(func(*sample.Batch) error {
		asked <- struct{}{}
		return errors.New("no")
	}))
	stop := sharedtest.Start(t, t.Context(), s.scraper.Run)
	for s.scraper.Status().Waiting > 0 {
		<-asked
	}
	stop()
	list, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]*dto.MetricFamily{}
	for _, f := range list {
		families[f.GetName()] = f
	}
	return families
}

type description struct {
	name   string
	labels []string
}

// A Desc reveals its name only in its String method.
var descString = regexp.MustCompile(`^Desc\{fqName: "([^"]+)",.* variableLabels: \{([^}]*)\}\}$`)

// descriptions are those of all metrics that are registered, with series or without.
func descriptions(r *prometheus.Registry) iter.Seq[description] {
	return func(yield func(description) bool) {
		descs := make(chan *prometheus.Desc)
		go func() {
			r.Describe(descs)
			close(descs)
		}()
		for d := range descs {
			m := descString.FindStringSubmatch(d.String())
			if m == nil {
				panic(fmt.Sprintf("%s is not what client_golang used to write", d))
			}
			if !yield(description{m[1], strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' })}) {
				return
			}
		}
	}
}

func TestPodsCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pods := []sample.Object{{Namespace: "a", Name: "new"}, {Namespace: "a", Name: "old"}, {Namespace: "b", Name: "old"}}
		registry := prometheus.NewRegistry()
		registry.MustRegister(&podsCollector{
			all: func(namespace string, selects func(sample.Labels) bool) iter.Seq[sample.Object] {
				if namespace != "" || selects != nil {
					t.Errorf("only some pods are counted")
				}
				return slices.Values(pods)
			},
			usage: func(namespace, pod string, now time.Time, _ *sample.PodUsage) bool {
				return now.Equal(time.Now()) && namespace == "a" && pod == "old"
			},
		})
		check := func(missing int) {
			t.Helper()
			const help = "Number of running pods, by whether a usage of theirs is served or missing; counted at most " +
				"every 30 seconds. With --node-selector, only those whose usage is served."
			want := fmt.Sprintf(`
# HELP metrics_server_pods %s
# TYPE metrics_server_pods gauge
metrics_server_pods{usage="missing"} %d
metrics_server_pods{usage="served"} 1
`, help, missing)
			if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
				t.Error(err)
			}
		}
		check(2)
		pods = pods[:2]
		time.Sleep(podsPeriod - 1)
		check(2)
		time.Sleep(time.Nanosecond)
		check(1)
	})
}

// TestPodsOfSomeNodes checks that with --node-selector no pod counts as missing: it may be on one of the other nodes.
func TestPodsOfSomeNodes(t *testing.T) {
	for selector, want := range map[string]int{"": 2, "pool=blue": 1} {
		s := newServerWith(t, func(c *Config) { c.NodeSelector = selector })
		if n, err := testutil.GatherAndCount(s.metrics, "metrics_server_pods"); n != want || err != nil {
			t.Errorf("node selector %q: %d series (%v), want %d", selector, n, err, want)
		}
	}
}
