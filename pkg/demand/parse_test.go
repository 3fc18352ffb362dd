package demand

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
)

// testHPA returns an HPA for Deployment web. annotations are keys without prefix and values.
func testHPA(name string, metrics []autoscalingv2.MetricSpec,
	annotations ...string,
) *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{"other/annotation": "x"}},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: Reference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, Metrics: metrics,
		},
	}
	for i := 0; i < len(annotations); i += 2 {
		h.Annotations[kubeapi.AutoscalerPrefix+annotations[i]] = annotations[i+1]
	}
	return h
}

func podsMetric(name string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.PodsMetricSourceType,
		Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: name}},
	}
}

func objectMetric(name, apiVersion, kind, object string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ObjectMetricSourceType,
		Object: &autoscalingv2.ObjectMetricSource{
			Metric:          autoscalingv2.MetricIdentifier{Name: name},
			DescribedObject: Reference{APIVersion: apiVersion, Kind: kind, Name: object},
		},
	}
}

func externalMetric(name string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type:     autoscalingv2.ExternalMetricSourceType,
		External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: name}},
	}
}

func metrics(m ...autoscalingv2.MetricSpec) []autoscalingv2.MetricSpec { return m }

func TestParse(t *testing.T) {
	selected := podsMetric("b")
	selected.Pods.Metric.Selector = &metav1.LabelSelector{
		MatchLabels: map[string]string{"quantile": "0.99"},
		MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: "code", Operator: metav1.LabelSelectorOpIn,
			Values: []string{"503", "500"},
		}},
	}
	resource := autoscalingv2.MetricSpec{
		Type:     autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu"},
	}
	h := Parse(testHPA("web", metrics(resource, podsMetric("a"), selected, externalMetric("queue"),
		objectMetric("c", "v1", "Service", "front")),
		"queries", "# comment\na: |\n  sum by (pod) (\n    rate(x[1m]))\nqueue: up\n",
		"targets", "c: service/back:http\nqueue: service/q:80",
		"path", "/m?format=prometheus", "scheme", "https", "window", "1m30s"), false)
	ask := sample.Ask{Path: "/m?format=prometheus", Scheme: "https"}
	want := &HPA{
		Namespace: "shop", Name: "web", Target: Reference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
		Metrics: []Metric{
			{
				Index: 1, Type: autoscalingv2.PodsMetricSourceType, Name: "a",
				Definition: Definition{Expression: "sum by (pod) (\n  rate(x[1m]))", Ask: ask}, ownWindow: true,
				ExpressionAt: `annotation metrics-server/queries of HorizontalPodAutoscaler "web", line 2`,
			},
			{
				Index: 2, Type: autoscalingv2.PodsMetricSourceType, Name: "b",
				Selector: []metav1.LabelSelectorRequirement{
					{Key: "code", Operator: metav1.LabelSelectorOpIn, Values: []string{"500", "503"}},
					{Key: "quantile", Operator: metav1.LabelSelectorOpIn, Values: []string{"0.99"}},
				},
				selector:   "code in (500,503),quantile=0.99",
				Definition: Definition{Window: 90 * time.Second, Ask: ask}, ownWindow: true,
			},
			{
				Index: 4, Type: autoscalingv2.ObjectMetricSourceType, Name: "c", Object: Reference{
					APIVersion: "v1",
					Kind:       "Service", Name: "front",
				},
				Definition: Definition{Window: 90 * time.Second, Service: "back", ServicePort: "http", Ask: ask}, ownWindow: true,
			},
		},
	}
	if diff := cmp.Diff(want, h, cmp.AllowUnexported(Metric{}, Error{})); diff != "" {
		t.Error(diff)
	}
	// What the controller sends is read as the same request.
	sent, err := metav1.LabelSelectorAsSelector(selected.Pods.Metric.Selector)
	if err != nil {
		t.Fatal(err)
	}
	received, err := labels.Parse(sent.String())
	if err != nil || canonical(received) != h.Metrics[1].selector {
		t.Errorf("the controller sends %s (%v), and the HPA has %s", canonical(received), err, h.Metrics[1].selector)
	}
}

// TestRequestedSelector checks that what the controller sends for a selector is read as the same request.
func TestRequestedSelector(t *testing.T) {
	const in, notIn, exists = metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists
	for _, s := range []*metav1.LabelSelector{
		nil,
		{MatchLabels: map[string]string{"b": "", "a": "x"}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "k", Operator: in, Values: []string{"b", "a", "b"}}}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "k", Operator: in, Values: []string{"a", "a"}}}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "k", Operator: notIn, Values: []string{"a", "", ""}}}},
		{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "k", Operator: exists}, {Key: "k", Operator: in, Values: []string{"a"}}, {Key: "k", Operator: exists},
		}},
	} {
		normal, text, err := requirements(s)
		if err != nil {
			t.Fatal(err)
		}
		sent, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		received, err := labels.Parse(sent.String())
		if err != nil {
			t.Fatal(err)
		}
		if s != nil && canonical(received) != text {
			t.Errorf("the controller asks with %q, and the HPA with %q", canonical(received), text)
		}
		for _, r := range normal {
			if len(slices.Compact(slices.Clone(r.Values))) != len(r.Values) {
				t.Errorf("%v has a value twice", r)
			}
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		name        string
		annotations []string
		cause       Cause
		want        string
	}{
		{"misspelled", []string{"querys", "x: y"}, BadAnnotation, "metrics-server/querys of HorizontalPodAutoscaler " +
			"\"web\" is unknown: did you mean metrics-server/queries?"},
		{"unknown", []string{"interval", "1s"}, BadAnnotation, "use one of metrics-server/queries, "},
		{"not YAML", []string{"queries", "a: b\n\tc: d\n"}, BadAnnotation, "line 2"},
		{"not a map", []string{"queries", "- a\n"}, BadAnnotation, "line 1: it is not a YAML map"},
		{"nested", []string{"queries", "a:\n  b: c\n"}, BadAnnotation, "line 2: the value of a is not a string"},
		{"empty", []string{"queries", " \n# nothing"}, BadAnnotation, "it is empty"},
		{"no value", []string{"queries", "a:\n"}, BadAnnotation, "a has no value"},
		{"twice", []string{"queries", "a: b\nb: c\na: d"}, BadAnnotation, "line 3: a is there twice"},
		{"two documents", []string{"queries", "a: b\n---\nb: c"}, BadAnnotation, "more than one YAML document"},
		{"anchor", []string{"queries", "a: &x b\nb: c"}, BadAnnotation, "line 1: the value of a is not a string"},
		{"alias", []string{"queries", "a: b\nb: *x"}, BadAnnotation, "unknown anchor"},
		{"merge key", []string{"queries", "<<: {a: b}"}, BadAnnotation, "line 1: a key is not the name of a metric"},
		{
			"other metric",
			[]string{"queries", "requests_totl: up"},
			BadAnnotation,
			"line 1: the HorizontalPodAutoscaler has no metric requests_totl of type Pods, Object or External: did you " +
				"mean requests_total?",
		},
		{"far metric", []string{"targets", "xyz: service/a:80"}, BadAnnotation, "use the name of one of its metrics"},
		{"port", []string{"port", "0"}, BadAnnotation, "metrics-server/port of HorizontalPodAutoscaler \"web\": \"0\" " +
			"is not a port"},
		{"port name", []string{"port", "Web_Port"}, BadAnnotation, "or the name of a container port"},
		{"path", []string{"path", "metrics"}, BadAnnotation, "use an absolute path"},
		{"URL", []string{"path", "http://x/metrics"}, BadAnnotation, "use an absolute path"},
		{"scheme", []string{"scheme", "HTTP"}, BadAnnotation, "use http or https"},
		{"window", []string{"window", "30"}, BadAnnotation, "use a duration from 10s to 10m"},
		{"short window", []string{"window", "9s"}, BadAnnotation, "use a duration from 10s to 10m"},
		{"long window", []string{"window", "11m"}, BadAnnotation, "use a duration from 10s to 10m"},
		{"backend", []string{"backend", "a b"}, BadAnnotation, `"a b" is not the name of a backend`},
		{"no backend", []string{"backend", ""}, BadAnnotation, `or "pods" to scrape pods`},
		{
			"backend and path",
			[]string{"backend", "main", "path", "/x"},
			BadAnnotation,
			`names backend main, and others say where pods are scraped: remove metrics-server/backend`,
		},
		{"too long", []string{"queries", strings.Repeat("x", maxAnnotation+1)}, OverLimit, "more than 16 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := Parse(testHPA("web", metrics(podsMetric("requests_total"), podsMetric("a")), tt.annotations...), false)
			for _, m := range h.Metrics {
				if m.Err == nil || m.Err.cause != tt.cause || !strings.Contains(m.Err.Error(), tt.want) {
					t.Fatalf("%v, want %q", m.Err, tt.want)
				}
			}
		})
	}
}

// TestPanicIsAMistake parses an annotation with a parser that has no HPA to note the mistake.
func TestPanicIsAMistake(t *testing.T) {
	err := (&parser{}).annotation(kubeapi.QueriesAnnotation, "- a")
	if err == nil || !strings.Contains(err.Error(), "nil pointer dereference") {
		t.Error(err)
	}
}

// TestMistakesOfOneMetric checks that others are not affected.
func TestMistakesOfOneMetric(t *testing.T) {
	invalid := podsMetric("a")
	invalid.Pods.Metric.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key:      "x",
		Operator: "Is",
	}}}
	service := objectMetric("a", "v1", "Service", "front")
	for _, tt := range []struct {
		metric      autoscalingv2.MetricSpec
		annotations []string
		want        string
	}{
		{invalid, nil, "metric.selector of spec.metrics[0] of HorizontalPodAutoscaler \"web\""},
		{podsMetric("a"), []string{"targets", "a: service/x:80"}, "a is a metric of type Pods"},
		{service, []string{"targets", "a: deployment/x:80"}, "line 1: \"deployment/x:80\" is not a Service: use " +
			"service/NAME:PORT"},
		{service, []string{"targets", "a: service/other/x:80"}, "is not the name of a Service in the same namespace"},
		{service, []string{"targets", "a: service/x.other:80"}, "is not the name of a Service in the same namespace"},
		{service, []string{"targets", "a: service/X:80"}, "cannot be the name of a Service"},
		{service, []string{"targets", "a: service/x"}, "has no valid port"},
		{service, []string{"targets", "a: \"service/x:\""}, "has no valid port"},
		{
			externalMetric("a"),
			[]string{"queries", "a: sum(x)"},
			`annotation metrics-server/targets of HorizontalPodAutoscaler "web" does not say which pods have external ` +
				`metric a: add the line "a: service/NAME:PORT"`,
		},
		{externalMetric("a"), []string{"targets", "a: service/other/x:80"}, "is not the name of a Service in the same"},
		{
			externalMetric("Status"),
			[]string{"targets", "Status: service/x:80"},
			"no request can ask for external metric Status of HorizontalPodAutoscaler \"web\"",
		},
		{externalMetric("finalize"), []string{"targets", "finalize: service/x:80"}, "no request can ask for external metric"},
	} {
		h := Parse(testHPA("web", metrics(tt.metric, podsMetric("b")), tt.annotations...), true)
		if err := h.Metrics[0].Err; err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
		if err := h.Metrics[1].Err; err != nil {
			t.Errorf("another metric: %v", err)
		}
	}
}

func TestTooManyMetrics(t *testing.T) {
	many := make([]autoscalingv2.MetricSpec, MaxMetrics+1)
	for i := range many {
		many[i] = podsMetric(strings.Repeat("x", i+1))
	}
	if h := Parse(testHPA("web", many[1:]), true); h.Metrics[0].Err != nil || len(h.Metrics) != MaxMetrics {
		t.Errorf("%d metrics, %v, want the maximum without an error", len(h.Metrics), h.Metrics[0].Err)
	}
	h := Parse(testHPA("web", many), true)
	if err := h.Metrics[0].Err; err == nil || err.cause != OverLimit || len(h.Metrics) != MaxMetrics {
		t.Errorf("%d metrics, %v, want the maximum and an error", len(h.Metrics), err)
	}
	// Metrics of type External count if they are served and the HPA says which pods have them.
	many[0] = externalMetric("x")
	for _, h := range []*HPA{
		Parse(testHPA("web", many, "targets", "x: service/a:80"), false), Parse(testHPA("web", many), true),
	} {
		if h.Metrics[0].Err != nil || len(h.Metrics) != MaxMetrics {
			t.Errorf("%d metrics, %v, want the maximum without an error", len(h.Metrics), h.Metrics[0].Err)
		}
	}
	if err := Parse(testHPA("web", many, "targets", "x: service/a:80"), true).Metrics[0].Err; err == nil ||
		!strings.Contains(err.Error(), "more than 20 metrics of types Pods, Object and External") {
		t.Error(err)
	}
}

// TestExternalOfOthers checks that metrics of type External that another program may serve spoil no other metric of
// their HPA, whatever they are.
func TestExternalOfOthers(t *testing.T) {
	var all []autoscalingv2.MetricSpec
	for i := range 10 {
		all = append(all, externalMetric(fmt.Sprint("s0-", i)))
	}
	for i := range 15 {
		all = append(all, podsMetric(fmt.Sprint("m", i)))
	}
	all[1] = externalMetric(strings.Repeat("x", maxMetric+1))
	for _, h := range []*autoscalingv2.HorizontalPodAutoscaler{
		testHPA("web", all), testHPA("web", all, "window", "1m", "queries", "s0-0: sum(x)"),
	} {
		got := Parse(h, true)
		if len(got.Mistakes) > 0 || len(got.Metrics) != MaxMetrics {
			t.Errorf("%d metrics and the mistakes %v, want the maximum and none", len(got.Metrics), got.Mistakes)
		}
		for i, m := range got.Metrics {
			external := m.Type == autoscalingv2.ExternalMetricSourceType
			if m.Undeclared != external || (m.Err != nil) != external || i > 0 && m.Index <= got.Metrics[i-1].Index {
				t.Errorf("%+v: want it undeclared, with an error, exactly if it is external, and in the order of the HPA", m)
			}
		}
		reduced := h.DeepCopy()
		reduce(reduced, true)
		if diff := cmp.Diff(got, Parse(reduced, true), cmp.AllowUnexported(Metric{}, Error{})); diff != "" {
			t.Error("reduced:", diff)
		}
	}
	// Of an HPA with a mistake, nobody can tell what it was meant to say.
	if m := Parse(testHPA("web", all, "targets", "s0-O: service/x:80"), true).Metrics[0]; m.Undeclared || m.Err == nil ||
		!strings.Contains(m.Err.Error(), "has no metric s0-O") {
		t.Errorf("got %+v, want the mistake as its error, and not undeclared", m)
	}
}

// TestPortAndTarget checks that metrics-server/port applies to the metrics without an entry in metrics-server/targets,
// and is a mistake if the HPA scrapes pods for no such metric.
func TestPortAndTarget(t *testing.T) {
	targeted := []autoscalingv2.MetricSpec{externalMetric("a"), objectMetric("a", "networking.k8s.io/v1", "Ingress", "x")}
	annotations := []string{"targets", "a: service/x:80", "port", "9090", "path", "/m"}
	for _, metric := range targeted {
		for _, other := range []autoscalingv2.MetricSpec{podsMetric("b"), objectMetric("b", "v1", "Service", "y")} {
			got := Parse(testHPA("web", metrics(metric, other), annotations...), true).Metrics
			if m := got[0]; m.Err != nil || m.ServicePort != "80" || m.Ask != (sample.Ask{Path: "/m"}) {
				t.Errorf("%s metric with an entry: %+v, %v", metric.Type, m.Definition, m.Err)
			}
			if m := got[1]; m.Err != nil || m.Service != "" || m.Ask != (sample.Ask{Port: "9090", Path: "/m"}) {
				t.Errorf("%s metric without an entry: %+v, %v", other.Type, m.Definition, m.Err)
			}
		}
		for _, h := range []*autoscalingv2.HorizontalPodAutoscaler{
			testHPA("web", metrics(metric), annotations...),
			testHPA("web", metrics(metric, podsMetric("b")), append(annotations, "backend", "main")...), // it has b
		} {
			const want = "line 1 gives a port, and so does metrics-server/port: remove metrics-server/port"
			if err := Parse(h, true).Metrics[0].Err; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s metric: error %v, want %q", metric.Type, err, want)
			}
		}
	}
}

// TestTargetOfOneName checks that metrics of different types may have one name, and the entry of one of them.
func TestTargetOfOneName(t *testing.T) {
	for _, other := range []autoscalingv2.MetricSpec{
		externalMetric("a"), objectMetric("a", "networking.k8s.io/v1", "Ingress", "x"),
	} {
		for _, external := range []bool{false, true} {
			h := Parse(testHPA("web", metrics(podsMetric("a"), other), "targets", "a: service/exporter:80"), external)
			if m := h.Metrics[0]; m.Err != nil || m.Service != "" {
				t.Errorf("the Pods metric: got %+v, %v, want no Service", m, m.Err)
			}
			if len(h.Metrics) == 2 && (h.Metrics[1].Err != nil || h.Metrics[1].Service != "exporter") {
				t.Errorf("the other metric: got %+v, %v, want Service exporter", h.Metrics[1], h.Metrics[1].Err)
			}
		}
	}
}

// TestExternal checks what is read of a metric of type External, which is nothing if it is not served.
func TestExternal(t *testing.T) {
	selected := externalMetric("queueDepth")
	selected.External.Metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"queue": "orders"}}
	h := testHPA("web", metrics(podsMetric("a"), selected),
		"targets", "queueDepth: service/redis-exporter:9121", "queries", "queueDepth: sum(redis_list_length)", "path", "/m")
	if got := Parse(h, false); len(got.Metrics) != 1 || len(got.Mistakes) > 0 {
		t.Errorf("it is not served, and read: %+v", got)
	}
	got := Parse(h, true)
	want := Metric{
		Index: 1, Type: autoscalingv2.ExternalMetricSourceType, Name: "queueDepth",
		Selector: []metav1.LabelSelectorRequirement{
			{Key: "queue", Operator: metav1.LabelSelectorOpIn, Values: []string{"orders"}},
		},
		selector: "queue=orders",
		Definition: Definition{
			Expression: "sum(redis_list_length)", Service: "redis-exporter", ServicePort: "9121", Ask: sample.Ask{Path: "/m"},
		},
		ExpressionAt: `annotation metrics-server/queries of HorizontalPodAutoscaler "web", line 1`,
	}
	if diff := cmp.Diff(want, got.Metrics[1], cmp.AllowUnexported(Metric{}, Error{})); diff != "" {
		t.Error(diff)
	}
}

// FuzzParse checks that no annotation breaks the parser, and that what it accepts is what it promises.
func FuzzParse(f *testing.F) {
	f.Add("queries", "a: sum(x)\nb: |\n  y\n")
	f.Add("targets", "a: service/x:http")
	f.Add("queries", "a: &a [*a]\n<<: *a\n? {b: c}\n: d")
	f.Add("window", "1m")
	f.Add("port", "http-metrics")
	f.Add("path", "/a?b#c")
	f.Fuzz(func(t *testing.T, key, value string) {
		h := testHPA("web", metrics(objectMetric("a", "v1", "Service", "x"), podsMetric("b"), externalMetric("a")), key,
			value)
		got, again := Parse(h, true), Parse(h, true)
		if diff := cmp.Diff(got, again, cmp.AllowUnexported(Metric{}, Error{})); diff != "" {
			t.Error(diff)
		}
		for _, m := range got.Metrics {
			if m.Err != nil {
				if m.Err.Error() == "" || len(m.Err.Error()) > 2000 {
					t.Errorf("an error of %d bytes, want 1 to 2,000", len(m.Err.Error()))
				}
				continue
			}
			if m.Expression == "" && (m.Window < MinWindow || m.Window > MaxWindow) || len(m.Expression) > len(value) ||
				strings.ContainsAny(m.Service, "/.:") || (m.Service == "") != (m.ServicePort == "") ||
				m.Type == autoscalingv2.ExternalMetricSourceType && m.Service == "" {
				t.Errorf("invalid, without an error: %+v", m)
			}
		}
	})
}

func TestFind(t *testing.T) {
	pods := labels.SelectorFromSet(labels.Set{"app": "web"})
	filter := labels.SelectorFromSet(labels.Set{"code": "500"})
	wants := map[Request]*Want{}
	add := func(r Request, err *Error) {
		wants[r] = &Want{Request: r, Name: r.Metric, HPAs: []string{"web"}, Err: err}
	}
	add(PodsRequest("shop", pods, "requests_total", labels.Everything()), nil)
	add(PodsRequest("shop", pods, "errors_total", filter), nil)
	add(Request{Namespace: "shop", Resource: podsResource, Metric: "waiting", Unresolved: "web"}, newError(NotRead, "",
		"is being read"))
	add(ExternalRequest("shop", "queue_depth", filter), nil)
	other := labels.SelectorFromSet(labels.Set{"app": "db"})
	for _, tt := range []struct {
		r    Request
		want string // of the error
	}{
		{PodsRequest("shop", pods, "requests_total", labels.Everything()), ""},
		{PodsRequest("shop", pods, "errors_total", filter), ""},
		{PodsRequest("shop", pods, "waiting", labels.Everything()), "is being read"},
		{
			PodsRequest("shop", pods, "request_total", labels.Everything()),
			`no HorizontalPodAutoscaler in namespace "shop" refers to ` +
				`metric request_total of pods with app=web: did you mean requests_total?`,
		},
		{PodsRequest("shop", pods, "errors_total", labels.Everything()), `"web" refers to it with another metric selector`},
		{PodsRequest("shop", other, "requests_total", labels.Everything()), `"web" refers to this metric of other pods`},
		{PodsRequest("shop", pods, "cpu", labels.Everything()), "created just now takes effect within a second"},
		{ExternalRequest("shop", "queue_depth", filter), ""},
		{ExternalRequest("shop", "Queue_Depth", filter), ""},
		{
			ExternalRequest("shop", "queue_depth", labels.Everything()),
			`refers to external metric queue_depth; HorizontalPodAutoscaler "web" refers to it with another metric selector`,
		},
		{ExternalRequest("shop", "queue_deph", filter), "did you mean queue_depth?"},
		{ExternalRequest("shop", "requests_total", labels.Everything()), "create a HorizontalPodAutoscaler that uses it"},
		{PodsRequest("shop", pods, "queue_depth", filter), "create a HorizontalPodAutoscaler that uses it"},
	} {
		w, err := findIn(wants, tt.r)
		if (tt.want == "") != (err == nil) || (w != nil) != (err == nil) || err != nil && !strings.Contains(err.Error(),
			tt.want) {
			t.Errorf("%v: got %v, %v, want %q", tt.r, w, err, tt.want)
		}
	}
}

func TestErrorIsExplained(t *testing.T) {
	var err error = newError(NoScale, "use another", "%s has none", "x")
	e, ok := errors.AsType[interface {
		error
		Cause() string
		Remedy() string
	}](err)
	if !ok || e.Error() != "x has none: use another" || e.Cause() != "no scale" || e.Remedy() != "use another" {
		t.Error(err)
	}
}
