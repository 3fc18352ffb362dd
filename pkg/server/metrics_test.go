package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/sample"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

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

What the server says of itself at ` + "`/metrics`" + `; [observability.md](observability.md) says how to read it. Made from the server's registry;
` + "`make generate`" + ` makes it anew.

*stable* keeps its name, type and labels until the next major version; those are the incumbent's, under its names. *beta* may change with
a minor version, and the [changelog](changelog.md) says so.

| metric | type | labels | stability | meaning |
|---|---|---|---|---|
`

const metricsDocTail = `
Beside them are those that every API server of Kubernetes has, such as ` + "`apiserver_request_total`, `apiserver_request_duration_seconds`, `process_*` and `go_*`" + `,
but for ` + "`apiserver_request_filter_duration_seconds`" + `: to measure each step of a small request costs as much as the step.
Service level indicators of the probes are at ` + "`/metrics/slis`" + `.
`

// docs/metrics.md is what the server registers. To write it anew: go test ./pkg/server -run TestMetricsDoc -update
func TestMetricsDoc(t *testing.T) {
	const file = "../../docs/metrics.md"
	s := newServer(t)
	families := gatherAll(t, s)
	var rows []string
	known := slices.Clone(theirs)
	for d := range descriptions(s.metrics) {
		f := families[d.name]
		if f == nil {
			t.Errorf("%s has no series after a scrape that succeeded and one that failed: give it one here, for its type", d.name)
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
	if *update {
		if err := os.WriteFile(file, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), doc); diff != "" {
		t.Errorf("docs/metrics.md is not what the server registers (run `make generate`):\n%s", diff)
	}
}

// newServer returns one that is connected to nothing.
func newServer(t *testing.T) *Server {
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
	s, err := New(Config{
		Generic: generic, Rest: &rest.Config{Host: "127.0.0.1:1"}, Kubelet: KubeletConfig{Rest: &rest.Config{}},
		Resolution: time.Minute, Timeout: time.Second, ServingSecret: types.NamespacedName{Namespace: "kube-system", Name: "serving"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.generic.Destroy)
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
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.scraper.Run(ctx) }()
	for s.scraper.Status().Waiting > 0 {
		<-asked
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
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

// A Desc says what it is in its String method alone.
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
			want := fmt.Sprintf(`
# HELP metrics_server_pods Number of running pods, by whether a usage of theirs is served or missing; counted every 30 seconds at most.
# TYPE metrics_server_pods gauge
metrics_server_pods{usage="missing"} %d
metrics_server_pods{usage="served"} 1
`, missing)
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
