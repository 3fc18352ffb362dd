package customserver

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apilabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/adapterconfig"
	"metrics-server/pkg/backend"
	"metrics-server/pkg/demand"
)

const someRules = `
rules:
- seriesQuery: 'http_requests_total{namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[3m])) by (<<.GroupBy>>)
- seriesQuery: '{__name__=~"^app_.*",namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {matches: "^app_(.*)$"}
  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
- seriesQuery: 'hits{namespace!="",ingress!=""}'
  resources: {overrides: {namespace: {resource: namespace}, ingress: {group: networking.k8s.io, resource: ingress}}}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)
- seriesQuery: 'share{namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>) / scalar(sum(<<.Series>>{<<.LabelMatchers>>}))
externalRules:
- seriesQuery: 'lag{topic!=""}'
  resources: {overrides: {namespace: {resource: namespace}}}
  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (topic)
`

// withRules is polling with someRules for the backend main.
func withRules(t *testing.T, f func(*testing.T, *system, *fakeServer, *rules)) {
	t.Helper()
	r := parsedRules(t, someRules)
	polling(t, func(t *testing.T, s *system, fakes map[string]*fakeServer) {
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, r); err != nil {
			t.Fatal(err)
		}
		f(t, s, fakes["one"], r)
	})
}

func parsedRules(t *testing.T, text string) *rules {
	t.Helper()
	config, problems := adapterconfig.Parse([]byte(text))
	if len(problems) > 0 {
		t.Fatal(problems[0].Error())
	}
	return &rules{backend: "main", config: config, text: text}
}

func series(value float64, of ...string) backend.Sample {
	return backend.Sample{Labels: labels.FromStrings(of...), Value: value}
}

// TestRules checks what rules of prometheus-adapter make of metrics of each type.
func TestRules(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		const hits = `sum(rate(hits{namespace="shop",ingress="front"}[2m])) by (ingress)`
		const lag = `max(lag{topic="orders",namespace="shop"}) by (topic)`
		one.change(func() {
			one.values = map[string]float64{"web-0": 3}
			one.samples = map[string][]backend.Sample{
				hits: {series(7, "ingress", "front")}, lag: {series(2), series(3)},
				`group by (__name__) ({__name__="http_requests_total",namespace!="",pod!="",pod!=""})`: {
					series(1, "__name__", "http_requests_total"),
				},
			}
		})
		byRule := s.poll(inBackend(ofPods("http_requests_per_second", pods(1))))
		byName := s.poll(inBackend(ofPods("queue", pods(1))))
		own := inBackend(ofPods("http_requests_per_second2", pods(1)))
		own.Expression = "max by (pod) (x)"
		s.poll(own)
		ingress := schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"}
		s.poll(inBackend(&demand.Want{
			Request: demand.ObjectRequest("shop", ingress, "front", "hits", apilabels.Everything()), Name: "hits",
			Type:      autoscalingv2.ObjectMetricSourceType,
			Describes: demand.Reference{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "front"},
		}))
		topic := apilabels.SelectorFromSet(apilabels.Set{"topic": "orders"})
		s.poll(inBackend(&demand.Want{
			Request: demand.ExternalRequest("shop", "lag", topic), Name: "lag",
			Type: autoscalingv2.ExternalMetricSourceType,
			Requirements: []metav1.LabelSelectorRequirement{{
				Key: "topic", Operator: metav1.LabelSelectorOpIn, Values: []string{"orders"},
			}},
		}))
		settled(time.Second)
		for _, w := range []*demand.Want{byRule, byName, own} {
			s.check(w, "web-0 3")
		}
		v, err := s.Object(t.Context(), "shop", ingress, "front", "hits", apilabels.Everything())
		if err != nil || v.Number != 7 {
			t.Errorf("got %+v, %v, want 7", v, err)
		}
		e, err := s.External(t.Context(), "shop", "lag", topic)
		if err != nil || e.Number != 5 {
			t.Errorf("%+v, %v, want the sum of both series", e, err)
		}
		for _, want := range []string{
			`sum(rate(http_requests_total{namespace="shop",pod!=""}[3m])) by (pod)`,
			`sum by (pod) (queue{namespace="shop"})`, `max by (pod) (x{namespace="shop"})`,
		} {
			if one.queries()[want] == 0 {
				t.Errorf("queries: %v, want %s", one.queries(), want)
			}
		}
	})
}

// TestRulesValues checks the values of rules where prometheus-adapter's differ from those of queries of autoscalers.
func TestRulesValues(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, r *rules) {
		nan := math.NaN()
		const hits, lag = `sum(rate(hits{namespace="shop",ingress="front"}[2m])) by (ingress)`,
			`max(lag{namespace="shop"}) by (topic)`
		answer := func(ofHits, ofLag []backend.Sample) {
			one.change(func() {
				one.samples = map[string][]backend.Sample{
					hits: ofHits, lag: ofLag,
					`group by (__name__) ({__name__="http_requests_total",namespace!="",pod!="",pod!=""})`: {
						series(1, "__name__", "http_requests_total"),
					},
				}
			})
			settled(20 * time.Second)
		}
		one.change(func() { one.values = map[string]float64{"web-0": nan, "web-1": math.Inf(1)} })
		answer([]backend.Sample{series(nan, "ingress", "front")}, []backend.Sample{series(1), series(nan)})
		byRule := s.poll(inBackend(ofPods("http_requests_per_second", pods(1))))
		byName := s.poll(inBackend(ofPods("queue", pods(1))))
		ingress := schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"}
		s.poll(inBackend(&demand.Want{
			Request: demand.ObjectRequest("shop", ingress, "front", "hits", apilabels.Everything()), Name: "hits",
			Type:      autoscalingv2.ObjectMetricSourceType,
			Describes: demand.Reference{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "front"},
		}))
		s.poll(inBackend(&demand.Want{
			Request: demand.ExternalRequest("shop", "lag", apilabels.Everything()), Name: "lag",
			Type: autoscalingv2.ExternalMetricSourceType,
		}))
		settled(time.Second)
		object := func() (float64, error) {
			v, err := s.Object(t.Context(), "shop", ingress, "front", "hits", apilabels.Everything())
			return v.Number, err
		}
		for of, got := range map[string]string{"a pod": s.served(byRule), "an object": fmt.Sprint(object())} {
			if !strings.Contains(got, "NaN") {
				t.Errorf("%q for %s, want an error", got, of)
			}
		}
		zeros := *r
		zeros.nanAsZero = true
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, &zeros); err != nil {
			t.Fatal(err)
		}
		settled(20 * time.Second)
		s.check(byRule, "web-0 0")
		if got := s.served(byName); !strings.Contains(got, "NaN for web-0") {
			t.Errorf("%q without a rule", got)
		}
		if v, err := object(); err != nil || v != 0 {
			t.Errorf("%v, %v, want 0", v, err)
		}
		if _, err := s.External(t.Context(), "shop", "lag", apilabels.Everything()); err == nil ||
			!strings.Contains(err.Error(), "NaN") {
			t.Errorf("%v, want an error: prometheus-adapter serves an absurd number", err)
		}
		answer([]backend.Sample{series(5, "ingress", "back"), series(7, "ingress", "front")}, nil)
		if v, err := object(); err != nil || v != 7 {
			t.Errorf("%v, %v, want the series that has the name of the object", v, err)
		}
		for want, of := range map[string][]backend.Sample{
			`no series for front`: {series(5, "ingress", "back")}, `no label "ingress"`: {series(5)},
			"more than one series for front": {series(5, "ingress", "front"), series(7, "ingress", "front")},
			"+Inf for front":                 {series(math.Inf(1), "ingress", "front")},
		} {
			answer(of, nil)
			if v, err := object(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, %v, want %s", v, err, want)
			}
		}
	})
}

// TestRulesWithNames checks that a rule whose values depend on which pods are meant gets their names, and that a new
// pod leaves no gap.
func TestRulesWithNames(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		one.change(func() {
			one.values = map[string]float64{"web-0": 1}
			one.samples = map[string][]backend.Sample{
				`group by (__name__) ({__name__="share",namespace!="",pod!="",pod!=""})`: {series(1, "__name__", "share")},
			}
		})
		w := s.poll(inBackend(ofPods("share", pods(1))))
		settled(time.Second)
		s.check(w, "web-0 1")
		one.change(func() { one.err = context.DeadlineExceeded })
		more := s.poll(inBackend(ofPods("share", pods(2))))
		settled(time.Second)
		s.check(more, "web-0 1")
		found := false
		for query := range one.queries() {
			found = found || strings.Contains(query, `pod=~"web-0|web-1"`)
		}
		if !found {
			t.Errorf("queries: %v", one.queries())
		}
		none := s.poll(inBackend(ofPods("share", nil)))
		if got := s.served(none); !strings.HasPrefix(got, "error: no pods for metric share of pods with app=web: check") {
			t.Error(got)
		}
	})
}

// TestRulesDiscover checks that the series of a rule with a pattern are found, also later, and that a file that is read
// again leaves no gap.
func TestRulesDiscover(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, r *rules) {
		const discover = `group by (__name__) ({__name__=~"^app_.*",namespace!="",pod!="",pod!=""})`
		const query = `max(app_queue{namespace="shop",pod!=""}) by (pod)`
		one.change(func() {
			one.samples = map[string][]backend.Sample{
				discover: {series(1, "__name__", "app_other")}, query: {series(9, "pod", "web-0")},
			}
			one.gate = make(chan struct{})
		})
		w := s.poll(inBackend(ofPods("queue", pods(1))))
		settled(time.Second)
		s.check(w, "error: the series of rules[1] in the configuration of prometheus-adapter are not known: backend "+
			`"main" has not answered this query yet: retry in a moment`)
		server := &Server{collector: s.collector, backends: s.backends}
		if err := server.asked(); err == nil || !strings.Contains(err.Error(), "1 not sent yet") {
			t.Errorf("%v, want that series are not known", err)
		}
		close(one.gate)
		settled(15 * time.Second)
		if err := server.asked(); err != nil {
			t.Error(err)
		}
		if got := s.served(w); !strings.Contains(got, "no series") { // by name
			t.Errorf("%s; queries: %v", got, one.queries())
		}
		one.change(func() { one.samples[discover] = append(one.samples[discover], series(1, "__name__", "app_queue")) })
		settled(discoverEvery + 2*reloadEvery)
		s.check(w, "web-0 9")
		if n := one.queries()[discover]; n < 2 || n > 3 {
			t.Errorf("%d queries for names in about 90 s, want one a minute", n)
		}
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, r); err != nil {
			t.Fatal(err)
		}
		s.check(w, "web-0 9")
		settled(time.Minute)
		s.check(w, "web-0 9")
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, nil); err != nil {
			t.Fatal(err)
		}
		settled(time.Second)
		if got := s.served(w); !strings.Contains(got, "no series") {
			t.Errorf("%q without rules", got)
		}
	})
}

// TestRulesHostileSeries checks that the name of a discovered series cannot widen a query to other namespaces.
func TestRulesHostileSeries(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		const discover = `group by (__name__) ({__name__=~"^app_.*",namespace!="",pod!="",pod!=""})`
		const hostile = `up) by (pod) * 0 + on () group_left () max(secret{namespace="victim"}) or max(up`
		one.change(func() {
			one.samples = map[string][]backend.Sample{discover: {series(1, "__name__", "app_"+hostile)}}
		})
		w := s.poll(inBackend(ofPods(hostile, pods(1))))
		settled(20 * time.Second)
		if got := s.served(w); !strings.Contains(got, "error: rules[1]") || !strings.Contains(got, "rename the series") {
			t.Error(got)
		}
		for query := range one.queries() {
			if strings.Contains(query, "victim") {
				t.Errorf("it was queried: %s", query)
			}
		}
	})
}

// TestRulesSecondSeries checks that a second series with the same name in the API breaks the metric neither in other
// namespaces nor for an autoscaler that already has it.
func TestRulesSecondSeries(t *testing.T) {
	const everywhere = `group by (__name__) ({__name__=~"^hits_.*",namespace!="",pod!="",pod!=""})`
	const here = `group by (__name__) ({__name__=~"^hits_.*",namespace!="",namespace="shop",pod!="",pod!=""})`
	total, count := series(1, "__name__", "hits_total"), series(1, "__name__", "hits_count")
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		r := parsedRules(t, `
rules:
- seriesQuery: '{__name__=~"^hits_.*",namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {matches: "^(.*)_.*$"}
  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
`)
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, r); err != nil {
			t.Fatal(err)
		}
		find := func(all, inNamespace []backend.Sample) {
			one.change(func() {
				one.samples = map[string][]backend.Sample{
					everywhere: all, here: inNamespace,
					`max(hits_total{namespace="shop",pod!=""}) by (pod)`: {series(9, "pod", "web-0")},
				}
			})
			settled(discoverEvery + 2*reloadEvery)
		}
		w := s.poll(inBackend(ofPods("hits", pods(1))))
		find([]backend.Sample{total}, nil)
		s.check(w, "web-0 9")
		if n := one.queries()[here]; n != 0 {
			t.Errorf("%d queries for the names in one namespace, which nobody needs", n)
		}

		find([]backend.Sample{total, count}, []backend.Sample{total})
		s.check(w, "web-0 9")
		s.backends.remove(w.Request) // as after a restart
		s.poll(w)
		settled(2 * reloadEvery)
		s.check(w, "web-0 9")

		find([]backend.Sample{total, count}, []backend.Sample{total, count})
		settled(2 * discoverEvery)
		s.check(w, "web-0 9")
		s.backends.remove(w.Request)
		s.poll(w)
		settled(2 * reloadEvery)
		if got := s.served(w); !strings.Contains(got, `gives more than one series the name "hits"`) {
			t.Error(got)
		}
		find([]backend.Sample{total, count}, []backend.Sample{total})
		s.check(w, "web-0 9")
	})
}

// TestRulesOfAChangedBackend checks that the last answers are served while a backend with other settings has not
// answered yet which series exist, and for four of the old intervals at most.
func TestRulesOfAChangedBackend(t *testing.T) {
	const discover = `group by (__name__) ({__name__=~"^app_.*",namespace!="",pod!="",pod!=""})`
	for name, tt := range map[string]struct {
		metric, query string
	}{
		"by a rule":  {"queue", `max(app_queue{namespace="shop",pod!=""}) by (pod)`},
		"by default": {"depth", `sum by (pod) (depth{namespace="shop"})`},
	} {
		t.Run(name, func(t *testing.T) {
			withRules(t, func(t *testing.T, s *system, one *fakeServer, r *rules) {
				one.change(func() {
					one.samples = map[string][]backend.Sample{
						discover: {series(1, "__name__", "app_queue")}, tt.query: {series(9, "pod", "web-0")},
					}
				})
				w := s.poll(inBackend(ofPods(tt.metric, pods(1))))
				settled(20 * time.Second)
				s.check(w, "web-0 9")

				// It does not answer.
				c, err := s.backends.connect(backend.Config{URL: "two"})
				if err != nil {
					t.Fatal(err)
				}
				two := c.(*fakeServer)
				two.gate = make(chan struct{})
				defer close(two.gate)
				changed := backend.Config{Name: "main", URL: "two", PodLabel: "instance"}
				apply := func(c backend.Config) {
					t.Helper()
					if err := s.backends.apply([]backend.Config{c}, r); err != nil {
						t.Fatal(err)
					}
				}
				a, err := s.backends.find(w.Request).answer(time.Now())
				if err != nil {
					t.Fatal(err)
				}
				until := a.Received.Add(time.Minute)
				apply(changed)
				s.check(w, "web-0 9")
				settled(30 * time.Second)
				s.check(w, "web-0 9")
				changed.Interval = time.Minute
				apply(changed)
				settled(time.Until(until))
				s.check(w, "web-0 9")
				settled(reloadEvery)
				if got := s.served(w); !strings.Contains(got, "are not known") {
					t.Errorf("%q after four intervals, want an error", got)
				}
				if n := s.backends.find(w.Request); n.old != nil {
					t.Error("the old answer is held although it is not served any more")
				}
			})
		})
	}
}

// TestRulesAreDiscoveredAgain checks that the last answers are served between the moment when it is known which series
// exist in a changed backend, and the first answer.
func TestRulesAreDiscoveredAgain(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, r *rules) {
		const discover = `group by (__name__) ({__name__=~"^app_.*",namespace!="",pod!="",pod!=""})`
		const query = `max(app_queue{namespace="shop",pod!=""}) by (pod)`
		known := []backend.Sample{series(1, "__name__", "app_queue")}
		one.change(func() {
			one.samples = map[string][]backend.Sample{discover: known, query: {series(9, "pod", "web-0")}}
		})
		w := s.poll(inBackend(ofPods("queue", pods(1))))
		settled(20 * time.Second)
		c, err := s.backends.connect(backend.Config{URL: "two"})
		if err != nil {
			t.Fatal(err)
		}
		two := c.(*fakeServer)
		first, second := make(chan struct{}), make(chan struct{})
		two.gate, two.samples = first, map[string][]backend.Sample{discover: known, query: {series(7, "pod", "web-0")}}
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "two"}}, r); err != nil {
			t.Fatal(err)
		}
		settled(time.Second)
		s.check(w, "web-0 9")
		two.change(func() { two.gate = second }) // for the query
		close(first)
		settled(time.Second)
		if n := two.queries()[query]; n != 1 {
			t.Errorf("queries: %v, want one of %s", two.queries(), query)
		}
		s.check(w, "web-0 9")
		close(second)
		settled(time.Second)
		s.check(w, "web-0 7")
	})
}

// TestRulesOtherNamespaces checks a rule whose query reads all namespaces: pods of the same name in other namespaces
// neither give a pod their values nor break its metric.
func TestRulesOtherNamespaces(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		r := parsedRules(t, `
rules:
- seriesQuery: 'busy{exported_namespace!="",pod!=""}'
  resources: {overrides: {exported_namespace: {resource: namespace}, pod: {resource: pod}}}
  metricsQuery: sum(busy) by (exported_namespace, pod)
`)
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, r); err != nil {
			t.Fatal(err)
		}
		own := series(3, "exported_namespace", "shop", "pod", "web-0")
		other := series(9, "exported_namespace", "test", "pod", "web-0")
		const discover = `group by (__name__) ({__name__="busy",exported_namespace!="",pod!="",pod!=""})`
		const query = "sum(busy) by (exported_namespace, pod)"
		answer := func(all ...backend.Sample) {
			one.change(func() {
				one.samples = map[string][]backend.Sample{discover: {series(1, "__name__", "busy")}, query: all}
			})
			settled(20 * time.Second)
		}
		answer(own, other)
		w := s.poll(inBackend(ofPods("busy", pods(1))))
		settled(time.Second)
		s.check(w, "web-0 3")
		answer(other)
		if got := s.served(w); !strings.Contains(got, "no series for web-0") {
			t.Errorf("%q, want no value of another namespace", got)
		}
		answer(series(5, "pod", "web-0"))
		s.check(w, "web-0 5")
		want, err := backend.Trust(query, "shop", "pod,exported_namespace")
		if got := s.backends.find(w.Request).expression; err != nil || got != want {
			t.Errorf("%+v, %v, want %+v, whose answers keep both labels", got, err, want)
		}
	})
}

// TestRulesOfAnotherNamespace checks that a rule which has series for a metric only in another namespace does not take
// it over while it is not known, after a start or when rules are read again, that an earlier rule has series here.
func TestRulesOfAnotherNamespace(t *testing.T) {
	const every, here = `namespace!="",pod!="",pod!=""})`, `namespace!="",namespace="shop",pod!="",pod!=""})`
	const total = `group by (__name__) ({__name__="hits_total",`
	const seconds = `group by (__name__) ({__name__="hits_seconds_total",`
	const query, other = `max(hits_total{namespace="shop",pod!=""}) by (pod)`,
		`max(hits_seconds_total{namespace="shop",pod!=""}) by (pod)`
	const rule = `
- seriesQuery: '%s{namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {as: hits}
  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)`
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		r := parsedRules(t, "rules:"+fmt.Sprintf(rule, "hits_total")+fmt.Sprintf(rule, "hits_seconds_total"))
		apply := func() {
			t.Helper()
			if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, r); err != nil {
				t.Fatal(err)
			}
			settled(time.Minute)
		}
		one.change(func() {
			one.samples = map[string][]backend.Sample{
				total + every:   {series(1, "__name__", "hits_total")},
				total + here:    {series(1, "__name__", "hits_total")},
				seconds + every: {series(1, "__name__", "hits_seconds_total")},
				seconds + here:  nil,
				query:           {series(9, "pod", "web-0")},
			}
		})
		apply()
		w := s.poll(inBackend(ofPods("hits", pods(1))))
		settled(time.Minute)
		s.check(w, "web-0 9")
		before := s.backends.find(w.Request).subscription
		apply()
		s.check(w, "web-0 9")
		if s.backends.find(w.Request).subscription != before {
			t.Error("the query was stopped in between")
		}
		if n := one.queries()[other]; n != 0 {
			t.Errorf("%d queries by the rule of the other namespace", n)
		}
	})
}

// TestRulesLeftOut checks that a metric does not get another meaning when its rule is left out because of a mistake.
func TestRulesLeftOut(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		const discover = `group by (__name__) ({__name__="http_requests_total",namespace!="",pod!="",pod!=""})`
		one.change(func() {
			one.values = map[string]float64{"web-0": 3}
			one.samples = map[string][]backend.Sample{discover: {series(1, "__name__", "http_requests_total")}}
		})
		w := s.poll(inBackend(ofPods("http_requests_per_second", pods(1))))
		other := s.poll(inBackend(ofPods("depth", pods(1))))
		text := strings.Replace(someRules, "{<<.LabelMatchers>>}[3m]", "{<<.LabelMatchers>>[3m]", 1)
		config, problems := adapterconfig.Parse([]byte(text))
		if len(problems) != 1 || !problems[0].LeftOut || config.Used() != 4 {
			t.Fatalf("%v, want one rule to be left out", problems)
		}
		broken := &rules{backend: "main", config: config, text: text}
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, broken); err != nil {
			t.Fatal(err)
		}
		settled(20 * time.Second)
		s.check(w, `error: rules[0] (line 3) in the configuration of prometheus-adapter has metric `+
			`"http_requests_per_second", but contains a mistake: an administrator finds it in the log of the custom `+
			`metrics server, or with --check-config`)
		s.check(other, "web-0 3")
	})
}

// TestRulesWithoutSeries checks that a metric which a rule has is not served by its name when there are no series, and
// that a rule which has it keeps it when they vanish.
func TestRulesWithoutSeries(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		const discover = `group by (__name__) ({__name__="share",namespace!="",pod!="",pod!=""})`
		find := func(found ...backend.Sample) {
			one.change(func() { one.samples = map[string][]backend.Sample{discover: found} })
		}
		one.change(func() { one.values = map[string]float64{"web-0": 1} })
		find()
		w := s.poll(inBackend(ofPods("share", pods(1))))
		settled(time.Minute)
		s.check(w, `error: rules[3] in the configuration of prometheus-adapter has metric "share", and backend "main" has `+
			"no series share for it: check that it is scraped, and what seriesQuery selects")
		find(series(1, "__name__", "share"))
		settled(discoverEvery + 2*reloadEvery)
		s.check(w, "web-0 1")
		find()
		settled(2 * discoverEvery)
		s.check(w, "web-0 1")
		for query := range one.queries() {
			if strings.HasPrefix(query, "sum by (pod) (share") {
				t.Errorf("it was queried by name: %s", query)
			}
		}

		// Nobody needs the series any more.
		s.backends.remove(w.Request)
		settled(2 * reloadEvery)
		before := one.queries()[discover]
		settled(3 * discoverEvery)
		s.backends.mu.Lock()
		left := len(s.backends.discovery.found)
		s.backends.mu.Unlock()
		if n := one.queries()[discover] - before; n != 0 || left != 0 {
			t.Errorf("%d more queries for names, and %d are to come", n, left)
		}
	})
}

// TestRulesCorrected checks that a rule which was corrected does not stay in effect because the new one finds no
// series, and that rules which are read again unchanged stay in effect.
func TestRulesCorrected(t *testing.T) {
	const before = `group by (__name__) ({__name__="share",namespace!="",pod!="",pod!=""})`
	const after = `group by (__name__) ({__name__="share",job="web",namespace!="",pod!="",pod!=""})`
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		find := func(found ...backend.Sample) {
			one.change(func() { one.samples = map[string][]backend.Sample{before: found, after: {}} })
		}
		apply := func(text string) {
			t.Helper()
			if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, parsedRules(t, text)); err != nil {
				t.Fatal(err)
			}
			settled(2 * discoverEvery)
		}
		one.change(func() { one.values = map[string]float64{"web-0": 1} })
		find(series(1, "__name__", "share"))
		w := s.poll(inBackend(ofPods("share", pods(1))))
		settled(time.Second)
		s.check(w, "web-0 1")
		find()
		apply(someRules)
		s.check(w, "web-0 1")

		asked := func() (n int) {
			for query, times := range one.queries() {
				if strings.HasPrefix(query, "sum(share{") {
					n += times
				}
			}
			return n
		}
		apply(strings.Replace(someRules, `'share{`, `'share{job="web",`, 1))
		if got := s.served(w); !strings.Contains(got, `has metric "share", and backend "main" has no series share`) {
			t.Error(got)
		}
		sent := asked()
		settled(discoverEvery)
		if n := asked() - sent; sent == 0 || n != 0 {
			t.Errorf("%d queries by the old rule after %d, want none", n, sent)
		}
	})
}

// TestSettingsWithRules checks that the configuration of prometheus-adapter is read with the file, and when it changes.
func TestSettingsWithRules(t *testing.T) {
	dir := t.TempDir()
	file, adapter := filepath.Join(dir, "backends.yaml"), filepath.Join(dir, "config.yaml")
	write := func(file, content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "backends: [{name: main, url: http://a}]\ndefault: main\nadapter: {file: config.yaml}")
	s := &settings{path: file}
	if _, _, err := s.loads(); err == nil || !strings.Contains(err.Error(), "configuration of prometheus-adapter: open") {
		t.Error(err)
	}
	write(adapter, someRules+"resourceRules: {cpu: {}}\n")
	l, _, err := s.loads()
	if err != nil || l == nil || l.rules.backend != "main" || len(l.rules.config.Rules) != 4 || len(l.problems) != 1 {
		t.Fatalf("got %+v, %v, want four rules for backend main and one problem", l, err)
	}
	if of := s.state(); of.rules != 5 || of.leftOut != 0 {
		t.Errorf("%+v, want that resourceRules do not count", of)
	}
	if l, _, err := s.loads(); l != nil || err != nil {
		t.Errorf("%+v, %v, want that nothing has changed", l, err)
	}
	write(adapter, "rules: [")
	_, _, err = s.loads()
	if err == nil || !strings.Contains(err.Error(), adapter+", the configuration of prometheus-adapter:\n") {
		t.Error(err)
	}
	write(adapter, someRules)
	if l, _, err := s.loads(); err != nil || l == nil || len(l.problems) != 0 {
		t.Errorf("got %+v, %v, want the corrected file", l, err)
	}
}

// TestLeftOut checks how many rules count as left out.
func TestLeftOut(t *testing.T) {
	for name, tt := range map[string]struct {
		file string
		want int
	}{
		"none":            {someRules, 0},
		"resourceRules":   {someRules + "resourceRules: {cpu: {}}", 0},
		"unknown section": {"other: []\n" + someRules, 0},
		"warning": {
			"rules: [{seriesQuery: a, metricsQuery: a, resources: {template: <<.Resource>>, namespaced: false}}]", 0,
		},
		"two mistakes in one": {"rules: [{seriesQuery: '{', seriesFilters: [{}], metricsQuery: a}]", 1},
		"two of each": {
			"rules: [{seriesQuery: '{'}, {seriesQuery: '}'}]\nexternalRules: [{seriesQuery: '{'}, {seriesQuery: '}'}]", 4,
		},
		"sections": {"rules: {custom: []}\nexternalRules: text", 2},
	} {
		t.Run(name, func(t *testing.T) {
			_, problems := adapterconfig.Parse([]byte(tt.file))
			if got := leftOut(problems); got != tt.want {
				t.Errorf("%d, want %d: %v", got, tt.want, problems)
			}
		})
	}
}
