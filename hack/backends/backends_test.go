//go:build backends

// The custom metrics server runs as in a cluster, with a simulated API server. Prometheus and VictoriaMetrics scrape an
// exporter of the tests every second.

package backends

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"metrics-server/pkg/adminfile"
	"metrics-server/pkg/backend"
)

const (
	pods     = autoscalingv2.PodsMetricSourceType
	object   = autoscalingv2.ObjectMetricSourceType
	external = autoscalingv2.ExternalMetricSourceType
)

// test is one program with the custom metrics server.
type test struct {
	*server
	program *program
}

// TestPrograms runs the server with each program as its default backend, and with more backends that are the same
// program with other settings.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			dir, e := t.TempDir(), newExporter()
			t.Cleanup(e.Close)
			p := launch(t, k, dir, "/below/a-path", "1s", e)
			all := []backend.Config{p.settings("main")}
			with := func(name string, change func(*backend.Config)) {
				c := p.settings(name)
				change(&c)
				all = append(all, c)
			}
			with("lenient", func(c *backend.Config) { c.AllowWarnings = true })
			with("as-it-is", func(c *backend.Config) { c.Parameters = nil })
			with("few", func(c *backend.Config) { c.MaxSeries = 1 })
			with("short", func(c *backend.Config) { c.MaxBody = 150 })
			g := newGuard(t, p)
			all = append(all, g.backends...)
			s := serve(t, e, &adminfile.File{Backends: all, Default: "main"}, 60, replicas)
			for name, f := range map[string]func(*testing.T, test){
				"Metrics": testMetrics, "PodsThatGo": testPodsThatGo, "MissingPod": testMissingPod, "YoungSeries": testYoungSeries,
				"LatencyOffset": testLatencyOffset, "Limits": testLimits, "Rules": testRules,
				"Credentials": func(t *testing.T, s test) { testCredentials(t, s, g) },
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					f(t, test{s, p})
				})
			}
		})
	}
}

// result is what the server is to answer: values, or an error.
type result struct {
	values []float64
	fails  string // a part of the error
}

func values(all ...float64) result { return result{values: all} }

func fails(text string) result { return result{fails: text} }

// testMetrics checks what the server makes of the program's answers.
func testMetrics(t *testing.T, s test) {
	const app = `app="$APP"`
	selected := map[string]string{"app": "$APP"}
	for _, e := range []struct {
		name     string
		metric   metric
		want     result
		victoria result // if it differs
	}{
		{
			name: "value of each pod", metric: metric{kind: pods, name: "queue"}, want: values(10, 11),
		},
		{
			name: "selected series", metric: metric{kind: pods, name: "backlog", selector: map[string]string{"topic": "b"}},
			want: values(2, 2),
		},
		{
			name: "rate", metric: metric{kind: pods, name: "requests_total", window: "10s"}, want: values(5, 10),
		},
		{
			name: "rate by another name", metric: metric{kind: pods, name: "requests-per-second", window: "10s"},
			want: values(5, 10),
		},
		{
			name: "external", metric: metric{kind: external, name: "queue", selector: selected}, want: values(521),
		},
		{
			name:   "object",
			metric: metric{kind: object, name: "load", expression: `sum(queue{` + app + `,gone=""})`}, want: values(21),
		},
		{
			name:   "scalar",
			metric: metric{kind: object, name: "load", expression: `scalar(sum(queue{` + app + `}))`}, want: values(521),
		},
		{
			name: "zero", metric: metric{kind: pods, name: "idle", expression: `sum by (pod) (queue - queue)`},
			want: values(0, 0),
		},
		{
			// Prometheus informs that the name is not one of a counter.
			name:   "information",
			metric: metric{kind: pods, name: "growth", expression: `sum by (pod) (rate(queue[10s]))`}, want: values(0, 0),
		},
		{
			name: "another namespace", want: fails("returned no series"),
			metric: metric{kind: external, name: "of-others", expression: `sum(queue{namespace="elsewhere"})`},
		},
		{
			name: "all namespaces", want: values(521), // but not those elsewhere
			metric: metric{
				kind: external, name: "of-all", expression: `sum({__name__="queue",namespace=~".*",` + app + `})`,
			},
		},
		{
			name: "another namespace in a subquery", want: fails("returned no series"),
			metric: metric{
				kind: external, name: "of-others-before",
				expression: `max(max_over_time(queue{namespace="elsewhere"}[1m:1s] offset 1s))`,
			},
		},
		{
			name: "two series of a pod", want: fails("more than one series for"),
			metric: metric{kind: pods, name: "topics", expression: `backlog{` + app + `}`},
		},
		{
			name: "two series", want: fails("more than one series where one value is needed"),
			metric: metric{kind: external, name: "topics-of-all", expression: `backlog{` + app + `}`},
		},
		{
			name: "no series", metric: metric{kind: pods, name: "nothing"}, want: fails("returned no series for"),
		},
		{
			name: "no single series", metric: metric{kind: external, name: "none"}, want: fails("returned no series"),
		},
		{
			name: "sum of no series", want: fails("returned NaN"), victoria: fails("returned no series"),
			metric: metric{kind: external, name: "none-as-scalar", expression: `scalar(sum(none))`},
		},
		{
			name: "not a number", want: fails("returned NaN for"), victoria: fails("returned no series for"),
			metric: metric{kind: pods, name: "ratio", expression: `sum by (pod) (0 * queue / 0)`},
		},
		{
			name: "infinity", want: fails("returned +Inf for"),
			metric: metric{kind: pods, name: "infinite", expression: `sum by (pod) (queue / 0)`},
		},
		{
			name: "no label", want: fails(`have no label "pod"`),
			metric: metric{kind: pods, name: "gateway"},
		},
		{
			name: "error of an evaluation", want: fails(`backend "main" cannot evaluate the expression: `),
			metric: metric{kind: pods, name: "joined", expression: `backlog * on (pod) backlog`},
		},
		{
			name:   "warning",
			metric: metric{kind: pods, name: "warned", expression: `sum by (pod) (queue) or histogram_quantile(0.9, queue)`},
			want:   fails(`backend "main" warns that its answer may be wrong or incomplete: `), victoria: values(10, 11),
		},
		{
			name: "allowed warning", want: values(10, 11),
			metric: metric{
				kind: pods, name: "warned-again", backend: "lenient",
				expression: `sum by (pod) (queue) or histogram_quantile(0.9, queue)`,
			},
		},
	} {
		want := e.want
		if s.program.name == "victoria-metrics" && (e.victoria.values != nil || e.victoria.fails != "") {
			want = e.victoria
		}
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			d := s.declare(t, e.metric)
			d.export()
			eventually(t, "it is served", func() error {
				if want.fails != "" {
					return d.fails(want.fails)
				}
				return d.has(want.values...)
			})
		})
	}
}

// testPodsThatGo checks that a deleted pod has no value although the backend still has its series, and that a pod whose
// series has ended has none either.
func testPodsThatGo(t *testing.T, s test) {
	d := s.declare(t, metric{kind: pods, name: "queue"})
	d.export()
	eventually(t, "both pods have values", func() error { return d.has(10, 11) })
	all := d.pods()
	if err := d.cluster.Delete(all[0], time.Now(), noKubelet); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other pod alone has one", func() error { return d.has(11) })
	d.exporter.remove(of("queue", all[1], ""))
	eventually(t, "none has", func() error { return d.fails("returned no series for " + all[1].Name) })
}

// testMissingPod checks that a pod without a series is missing, and the others have values.
func testMissingPod(t *testing.T, s test) {
	d := s.declare(t, metric{kind: pods, name: "sparse"})
	d.exporter.set(of("sparse", d.pods()[1], ""), value{first: 3})
	eventually(t, "one pod has a value", func() error { return d.has(math.NaN(), 3) })
}

// testYoungSeries checks what docs/backends.md says of rates over a range that is longer than the series: Prometheus
// divides by the whole range.
func testYoungSeries(t *testing.T, s test) {
	d := s.declare(t, metric{kind: pods, name: "arrivals_total"})
	for _, p := range d.pods() {
		d.exporter.set(of("arrivals_total", p, ""), value{perSecond: 100})
	}
	var got map[string]float64
	eventually(t, "there are rates", func() (err error) {
		got, err = d.ask()
		return err
	})
	for pod, v := range got {
		if isLow := v < 50; isLow != (s.program.name == "prometheus") {
			t.Errorf("the rate of %s, which grows by 100 a second, is %v", pod, v)
		}
	}
}

// testLatencyOffset checks what docs/backends.md says of VictoriaMetrics: unless it is told otherwise, samples of the
// last 30 s do not count.
func testLatencyOffset(t *testing.T, s test) {
	told := s.declare(t, metric{kind: pods, name: "queue"})
	untold := s.declare(t, metric{kind: pods, name: "queue", backend: "as-it-is"})
	begin := time.Now()
	told.export()
	untold.export()
	eventually(t, "the value is served", func() error { return told.has(10, 11) })
	if s.program.name == "victoria-metrics" && untold.has(10, 11) == nil {
		t.Error("it is served without parameters, too")
	}
	eventually(t, "it is served without parameters", func() error { return untold.has(10, 11) })
	if took := time.Since(begin); s.program.name == "victoria-metrics" && took < 28*time.Second {
		t.Errorf("without parameters it is served after %v", took)
	}
}

// testLimits checks that answers which are too large are failures.
func testLimits(t *testing.T, s test) {
	few := s.declare(t, metric{kind: pods, name: "queue", backend: "few"})
	short := s.declare(t, metric{kind: pods, name: "queue", backend: "short"})
	few.export()
	eventually(t, "there are too many series", func() error { return few.fails("an answer of more than 1 series") })
	eventually(t, "there are too many bytes", func() error { return short.fails("an answer of more than 150 bytes") })
}

// testRules checks that rules of prometheus-adapter find their series, and ask for them.
func testRules(t *testing.T, s test) {
	const rules = `
rules:
- seriesQuery: '{__name__=~"^adapted_.*_total$",namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {matches: "^adapted_(.*)_total$", as: "${1}_per_second"}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[10s])) by (<<.GroupBy>>)
externalRules:
- seriesQuery: '{__name__=~"^adapted_.*_jobs$"}'
  resources: {overrides: {namespace: {resource: namespace}}}
  name: {matches: "^adapted_(.*)_jobs$"}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (topic)
`
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	ruled := serve(t, s.exporter, &adminfile.File{
		Backends: []backend.Config{s.program.settings("main")}, Default: "main", Adapter: &adminfile.Adapter{File: file},
	}, 3, replicas)
	visits := ruled.declare(t, metric{kind: pods, name: "visits_per_second"})
	mail := ruled.declare(t, metric{kind: external, name: "mail"})
	unruled := ruled.declare(t, metric{kind: pods, name: "unruled"})
	for i, p := range visits.pods() {
		s.exporter.set(of("adapted_visits_total", p, ""), value{perSecond: 20 * float64(i+1)})
		s.exporter.set(of("adapted_mail_jobs", p, fmt.Sprintf(`,topic="%d"`, i)), value{first: 30})
	}
	for _, p := range unruled.pods() {
		s.exporter.set(of("unruled", p, ""), value{first: 4})
	}
	eventually(t, "a metric without a rule is served", func() error { return unruled.has(4, 4) })
	eventually(t, "a metric of a rule is served", func() error { return visits.has(20, 40) })
	eventually(t, "series of an external rule are added up", func() error { return mail.has(60) })
}

// TestStop checks that the last values are served for four intervals after a program was stopped, then the reason, and
// values again once it runs.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			dir, e := t.TempDir(), newExporter()
			t.Cleanup(e.Close)
			p := launch(t, k, dir, "", "1s", e)
			s := serve(t, e, &adminfile.File{Backends: []backend.Config{p.settings("main")}, Default: "main"}, 2, replicas)
			d := s.declare(t, metric{kind: pods, name: "queue"})
			d.export()
			eventually(t, "both pods have values", func() error { return d.has(10, 11) })

			p.stop()
			stays(t, "the last values are served", backend.HeldPolls*interval/2, func() error { return d.has(10, 11) })
			eventually(t, "the reason is served", func() error {
				return d.fails(`the last good answer of backend "main" is more than 8s old; the last query failed: ` +
					`backend "main" refused the connection: check that it runs`)
			})
			late := s.declare(t, metric{kind: external, name: "queue"})
			eventually(t, "a metric that had no value has the reason", func() error {
				return late.fails(`backend "main" refused the connection: check that it runs`)
			})

			p.start(t)
			eventually(t, "values are served again", func() error { return d.has(10, 11) })
			eventually(t, "and of the other metric", func() error { return late.has(521) })
		})
	}
}
