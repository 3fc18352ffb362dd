package customserver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	promlabels "github.com/prometheus/prometheus/model/labels"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/adminfile"
	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/backend"
	"metrics-server/pkg/definition"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/sample"
)

// namedBy returns the only metric in an administrator's file.
func namedBy(t *testing.T, metric string) *demand.Named {
	t.Helper()
	f, err := adminfile.Parse([]byte("backends: [{name: main, url: http://a}]\nmetrics: [" + metric + "]"))
	if err != nil {
		t.Fatal(err)
	}
	return &definition.Named(f)[0]
}

// gatewayPods are pods of a gateway in a namespace of its own.
func gatewayPods(count int) []*sample.Pod {
	all := pods(count)
	for i, p := range all {
		p.Namespace, p.Name = "edge", fmt.Sprintf("gateway-%d", i)
	}
	return all
}

// name adds a metric that an administrator names to s, and returns a function that returns what an HPA gets.
func (s *system) name(n *demand.Named, gateway []*sample.Pod, selector labels.Set,
) func(namespace, object string) string {
	all := labels.SelectorFromSet(selector)
	w := &demand.Want{
		Request: demand.ObjectRequest("", n.Resource, "", n.Name, all), Name: n.Name, HPAs: []string{"web"},
		Type: autoscalingv2.ObjectMetricSourceType, Definition: demand.Definition{Named: n},
	}
	series := &demand.Want{
		Request: w.SeriesOf(), Name: n.Name, Type: w.Type, Definition: n.Definition(), Pods: gateway,
		ExpressionAt: "the administrator's file",
	}
	for key, value := range selector {
		series.Requirements = append(series.Requirements, metav1.LabelSelectorRequirement{
			Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{value},
		})
	}
	if n.Backend == "" {
		s.want(series)
	} else {
		s.poll(series)
	}
	return func(namespace, object string) string {
		s.t.Helper()
		own := *w
		own.Namespace, own.Object = namespace, object
		s.current[own.Request] = &own
		v, err := s.Object(s.t.Context(), namespace, n.Resource, object, n.Name, all)
		if err != nil {
			return "error: " + err.Error()
		}
		if v.Of.Namespace != namespace || v.Of.Name != object {
			s.t.Errorf("the value is that of %+v", v.Of)
		}
		return fmt.Sprintf("%.3g", v.Number)
	}
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) || strings.HasPrefix(got, "error") != strings.HasPrefix(want, "error") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// testPage is a handler with a page of testdata, whose numbers are the seconds since its start times 10, 1, 7, 3 and 2.
func testPage(t *testing.T, name string) http.Handler {
	t.Helper()
	page, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return metricsPage(string(page), func(s float64) (all []any) {
		for _, perSecond := range []float64{10, 1, 7, 3, 2} {
			all = append(all, 1000+perSecond*s)
		}
		return all
	})
}

// TestPresets checks what each preset makes of a page of its controller: an object gets the rate of its own requests,
// summed over the pods of the controller.
func TestPresets(t *testing.T) {
	for metric, tt := range map[string]struct {
		page string
		want map[string]string // by namespace and object
	}{
		"preset: ingress-nginx": {"ingress-nginx.txt", map[string]string{
			"shop/front": "22", "blog/front": "14",
			"shop/frnt": "error: metric requests_per_second of ingresses.networking.k8s.io frnt, named in the administrator's " +
				`file, has no value: no series has exported_namespace="shop" and ingress="frnt": did you mean "front"?`,
			"blog/web":  `ingress="web": check its name; many controllers expose a series only after the first request`,
			"other/web": `check its name`,
		}},
		"preset: ingress-nginx, resource: services": {"ingress-nginx.txt", map[string]string{
			"shop/web": "20", "shop/api": "2", "blog/web": "14", "blog/api": `service="api"`,
		}},
		"preset: envoy-gateway": {"envoy-gateway.txt", map[string]string{
			"shop/front": "22", "blog/front": "14", "shop/idle": "0", "shop/xds_cluster": `httproute="xds_cluster"`,
		}},
	} {
		t.Run(metric, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, gateway := start(t), gatewayPods(2)
				value := s.name(namedBy(t, "{"+metric+", service: service/edge/gateway:metrics}"), gateway, nil)
				if n := s.collector.find(s.only().Request); n == nil {
					t.Fatal("the series are not collected")
				}
				for _, p := range gateway {
					s.listen(p, testPage(t, tt.page))
				}
				time.Sleep(30 * time.Second)
				expect(t, value("shop", "front"), "error: metric requests_per_second of")
				time.Sleep(45 * time.Second)
				for object, want := range tt.want {
					namespace, name, _ := strings.Cut(object, "/")
					got := value(namespace, name)
					if strings.Contains(want, " ") || strings.Contains(want, "=") || strings.Contains(want, "check") {
						got = strings.TrimPrefix(got, "error: ")
						want = strings.TrimPrefix(want, "error: ")
					}
					expect(t, got, want)
				}
			})
		})
	}
}

// only returns the Want for the values of all objects.
func (s *system) only() *demand.Want {
	for r, w := range s.current {
		if r.Series {
			return w
		}
	}
	return nil
}

const gauge = `{name: load, resource: gateways.example.com, service: "service/edge/gateway:metrics", namespaceLabel: ` +
	`exported_namespace, nameLabel: gw, query: 'sum by (exported_namespace, gw) (load)'`

func loads(lines string) http.Handler {
	return metricsPage("# TYPE load gauge\n"+lines, func(float64) []any { return nil })
}

// TestNamedPods checks what becomes of pods of a gateway that do not answer, and that nobody is told about the pods and
// the labels of others.
func TestNamedPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gateway := start(t), gatewayPods(5)
		value := s.name(namedBy(t, gauge+"}"), gateway, nil)
		const unnamed = ", named in the administrator's file, has no value: "
		expect(t, value("shop", "a"), "error: metric load of all gateways.example.com"+unnamed+"too many pods of "+
			"service/edge/gateway cannot be scraped or are too new: the log of the custom metrics server has the details")
		for _, p := range gateway[:4] {
			s.listen(p, loads("load{namespace=\"shop\",gw=\"a\"} 3\nload{namespace=\"secret\",gw=\"hidden\"} 1\n"))
		}
		time.Sleep(20 * time.Second)
		expect(t, value("shop", "a"), "15") // the fifth is counted at the mean of the others
		got := value("shop", "b")
		expect(t, got, "error: metric load of gateways.example.com b"+unnamed+`no series has exported_namespace="shop"`)
		for _, p := range gateway[1:] {
			s.listen(p, nil)
		}
		time.Sleep(2 * time.Minute)
		got += value("shop", "a")
		selected := s.name(namedBy(t, gauge+"}"), gateway[:1], labels.Set{"gw": "none"})
		time.Sleep(20 * time.Second)
		got += selected("shop", "a")
		expect(t, selected("shop", "a"), "error: metric load with selector gw=none of gateways.example.com a"+unnamed+
			`no series has exported_namespace="shop"`)
		for _, p := range gateway {
			s.listen(p, loads("other 1\n"))
		}
		time.Sleep(time.Minute)
		expect(t, value("shop", "a"), "error: metric load of all gateways.example.com"+unnamed+
			"the pods of service/edge/gateway have no such series; many controllers expose one only after the first request")
		for _, secret := range []string{"secret", "hidden", "gateway-1", "10.0.0."} {
			if strings.Contains(got, secret) {
				t.Errorf("%q names %q", got, secret)
			}
		}
		series := s.only()
		s.drop(series)
		expect(t, value("shop", "a"), "error")
	})
}

// TestNamedMissing checks what an object without a series gets: an error, or 0 if the file says so, all pods answer and
// others have a series.
func TestNamedMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gateway := start(t), gatewayPods(5)
		value := s.name(namedBy(t, gauge+", missing: zero}"), gateway, nil)
		for _, p := range gateway {
			s.listen(p, loads("load{namespace=\"blog\",gw=\"b\"} NaN\nload{namespace=\"blog\",gw=\"c\"} 1e300\n"))
		}
		time.Sleep(10 * time.Second)
		expect(t, value("shop", "a"), "0")
		expect(t, value("blog", "b"), "error: metric load of gateways.example.com b, named in the administrator's file, has "+
			"no value: it is NaN")
		expect(t, value("blog", "c"), "error: metric load of gateways.example.com c, named in the administrator's file, has "+
			"no value: the value is outside of")
		s.listen(gateway[0], nil)
		time.Sleep(2 * time.Minute)
		expect(t, value("shop", "a"), `error: metric load of gateways.example.com a, named in the administrator's file, has `+
			`no value: no series has exported_namespace="shop" and gw="a"`)
		for _, p := range gateway {
			s.listen(p, loads("load 1\n"))
		}
		time.Sleep(time.Minute)
		expect(t, value("shop", "a"), "error: metric load of gateways.example.com a, named in")
	})
}

// TestNamedSelector checks that a selector filters series, that requests share an evaluation, and that a selector of an
// autoscaler cannot displace what is for all.
func TestNamedSelector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gateway := start(t), gatewayPods(1)
		s.listen(gateway[0], loads("load{namespace=\"shop\",gw=\"a\",host=\"x\"} 3\nload{namespace=\"shop\",gw=\"a\"} 1\n"))
		n := namedBy(t, gauge+"}")
		selected := s.name(n, gateway, labels.Set{"host": "x"})
		for i := range maxMetricsOfEndpoint {
			s.name(n, gateway, labels.Set{"host": fmt.Sprint(i)})
		}
		value := s.name(n, gateway, nil)
		time.Sleep(20 * time.Second)
		expect(t, selected("shop", "a"), "3")
		expect(t, value("shop", "a"), "4")
		s.listen(gateway[0], loads("load{namespace=\"shop\",gw=\"a\"} 7\n"))
		time.Sleep(tableAge - 100*time.Millisecond)
		expect(t, value("shop", "a"), "4")
		time.Sleep(15 * time.Second)
		expect(t, value("shop", "a"), "7")
	})
}

// TestNamedSelectorAllowance checks that the selectors that autoscalers of all namespaces add cannot displace the
// metrics of the gateway's own namespace, nor these the selectors, and that neither displace what is for all.
func TestNamedSelectorAllowance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gateway := start(t), gatewayPods(1)
		s.listen(gateway[0], loads("load{namespace=\"shop\",gw=\"a\",host=\"0\"} 3\n"))
		n := namedBy(t, gauge+", path: /metrics}")
		own := func(i int, path string) *demand.Want {
			name := fmt.Sprintf("load-%d%s", i, strings.ReplaceAll(path, "/", "-"))
			w := ofPods(name, gateway)
			w.Request = demand.PodsRequest("edge", web, name, labels.Everything())
			w.Expression, w.Ask.Path = "sum by (pod) (load)", path
			return s.want(w)
		}
		first := s.name(n, gateway, labels.Set{"host": "0"})
		for i := range maxMetricsOfEndpoint {
			s.name(n, gateway, labels.Set{"host": fmt.Sprint(i)})
			own(i, "/metrics")
		}
		refused, last := s.name(n, gateway, labels.Set{"host": "last"}), own(100, "/metrics")
		for i := range maxEndpointsOfPod {
			own(i, fmt.Sprint("/", i))
		}
		elsewhere := namedBy(t, gauge+", path: /other}")
		elsewhere.Name = "load2"
		value, selected := s.name(elsewhere, gateway, nil), s.name(elsewhere, gateway, labels.Set{"host": "0"})
		time.Sleep(20 * time.Second)
		expect(t, first("shop", "a"), "3")
		expect(t, value("shop", "a"), "3")
		expect(t, selected("shop", "a"), "3")
		s.checkCount(own(0, "/metrics"), 1)
		s.checkCount(last, 0, "pod gateway-0 has 50 metrics already, which is the limit at one URL "+
			`(http://10.0.0.1:8080/metrics): let the HorizontalPodAutoscalers of namespace "edge" that select it refer to fewer`)
		expect(t, refused("shop", "a"), "error: metric load with selector host=last of all gateways.example.com, named in "+
			"the administrator's file, has no value: its series or its expression exceed a limit")
		r := demand.ObjectRequest("edge", n.Resource, "", n.Name, labels.SelectorFromSet(labels.Set{"host": "last"}))
		r.Series = true
		const want = "autoscalers of all namespaces use 50 different selectors with metrics of the administrator's file " +
			"already, which is the limit at one URL of pod gateway-0 (http://10.0.0.1:8080/metrics): let them use fewer"
		if got := s.collector.find(r).places[0].err; got == nil || got.Error() != want {
			t.Errorf("it is logged that %v, want %s", got, want)
		}
		for _, w := range s.current {
			s.drop(w)
		}
		time.Sleep(time.Minute)
		s.nothingTaken()
	})
}

// TestNamedSelectorTurns checks that a namespace whose turn is taken does not hold up another one that uses the same
// selector.
func TestNamedSelectorTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gateway := start(t), gatewayPods(1)
		s.listen(gateway[0], loads("load{namespace=\"b\",gw=\"a\",host=\"x\"} 3\n"))
		selected := s.name(namedBy(t, gauge+"}"), gateway, labels.Set{"host": "x"})
		time.Sleep(20 * time.Second)
		end, err := s.evaluating.take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		selected("c", "a") // makes the table
		time.Sleep(2 * tableAge)
		answered := make(chan string)
		go func() { answered <- selected("a", "a") }()
		synctest.Wait()
		before := time.Now()
		expect(t, selected("b", "a"), "3")
		if waited := time.Since(before); waited > 0 {
			t.Errorf("the answer takes %v", waited)
		}
		time.Sleep(2 * tableAge)
		end()
		expect(t, <-answered, `error: metric load with selector host=x of gateways.example.com a`)
	})
}

// TestNamedSelectorMemory checks that the queries of selectors do not use up the memory of the gateway's namespace.
func TestNamedSelectorMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 1 << 20
		s, gateway := startWith(t, 100, memory), gatewayPods(1)
		s.listen(gateway[0], loads("load{namespace=\"shop\",gw=\"a\"} 3\n"))
		n := namedBy(t, gauge+"}")
		var last func(namespace, object string) string
		for i := range 200 {
			last = s.name(n, gateway, labels.Set{"host": fmt.Sprint(i, strings.Repeat("x", 1900))})
		}
		value := s.name(n, gateway, nil)
		time.Sleep(20 * time.Second)
		expect(t, last("shop", "a"), "error: the selectors that autoscalers add to metrics of the administrator's file have "+
			"used up their share of the memory: use fewer different selectors")
		expect(t, value("shop", "a"), "3")
		for r := range s.current {
			s.collector.remove(r)
		}
		if taken, _ := s.collector.limits.memory.Taken(); taken != 0 {
			t.Errorf("%d bytes are still taken", taken)
		}
	})
}

// TestNamedSelectorReveals checks that a selector gets the same answer whether or not another namespace has series that
// it selects. Otherwise an HPA could ask for the objects, hosts and paths of others.
func TestNamedSelectorReveals(t *testing.T) {
	for _, missing := range []string{"error", "zero"} {
		synctest.Test(t, func(t *testing.T) {
			s, gateway := start(t), gatewayPods(1)
			s.listen(gateway[0], loads(`load{namespace="secret",gw="hidden",host="x"} 1
load{namespace="secret",gw="hidden",host="z"} 1
load{namespace="shop",gw="b",host="z"} 1
`))
			n := namedBy(t, gauge+", missing: "+missing+"}")
			there, absent := s.name(n, gateway, labels.Set{"host": "x"}), s.name(n, gateway, labels.Set{"host": "y"})
			own := s.name(n, gateway, labels.Set{"host": "z"})
			time.Sleep(20 * time.Second)
			got := there("shop", "a")
			expect(t, got, "error: metric load with selector host=x of gateways.example.com a")
			if other := strings.ReplaceAll(absent("shop", "a"), "host=y", "host=x"); other != got {
				t.Errorf("missing: %s: if another namespace has series, an HPA is told\n%s\nand else\n%s", missing, got, other)
			}
			if missing == "zero" {
				expect(t, own("shop", "a"), "0")
			}
		})
	}
}

// TestNamedTable checks that the values of all objects are kept no longer than they are served, and that
// a request waits for the evaluation of another one no longer than it may take itself.
func TestNamedTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gateway := start(t), gatewayPods(1)
		s.listen(gateway[0], loads("load{namespace=\"shop\",gw=\"a\"} 3\n"))
		n := namedBy(t, gauge+"}")
		value := s.name(n, gateway, nil)
		time.Sleep(20 * time.Second)
		expect(t, value("shop", "a"), "3")
		var all *table
		for _, all = range s.tables.all {
		}
		held := func() bool {
			if err := all.turn.Acquire(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			defer all.turn.Release(1)
			return all.values != nil
		}
		time.Sleep(tableAge - time.Millisecond)
		if !held() {
			t.Error("the values are dropped while they are served")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if held() {
			t.Error("the values are held although they are too old to be served")
		}

		if err := all.turn.Acquire(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		defer all.turn.Release(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Object(ctx, "shop", n.Resource, "a", n.Name, labels.Everything())
		if !apierrors.IsTimeout(err) || !strings.Contains(err.Error(), `metric "load" was not evaluated in time`) {
			t.Errorf("%v for a request whose time has ended, want a timeout", err)
		}
	})
}

// TestNamedBackend checks values of a backend: one query for all namespaces, with the selector of an autoscaler.
func TestNamedBackend(t *testing.T) {
	polling(t, func(t *testing.T, s *system, fakes map[string]*fakeServer) {
		of := func(namespace, object string, v float64) backend.Sample {
			return backend.Sample{Labels: promlabels.FromStrings("ns", namespace, "route", object), Value: v}
		}
		const all, some = "sum by (ns, route) (rate(hits[5m]))", `sum by (ns, route) (rate(hits{code="500"}[5m]))`
		one := fakes["one"]
		one.change(func() {
			one.samples = map[string][]backend.Sample{
				all: {
					of("shop", "a", 3), of("blog", "a", 4), of("shop", "twice", 1), of("shop", "twice", 2),
					of("shop", "nan", math.NaN()), of("", "a", 5),
				},
				some: {of("shop", "a", 1)},
			}
		})
		n := namedBy(t, "{name: hits, resource: httproutes.gateway.networking.k8s.io, backend: main, query: '"+all+
			"', namespaceLabel: ns, nameLabel: route}")
		gate := make(chan struct{})
		one.change(func() { one.gate = gate })
		value, errors500 := s.name(n, nil, nil), s.name(n, nil, labels.Set{"code": "500"})
		expect(t, value("shop", "a"), `error: metric hits of all httproutes.gateway.networking.k8s.io, named in the `+
			`administrator's file, has no value: backend "main" has not answered this query yet: retry in a moment`)
		long := s.name(n, nil, labels.Set{"code": strings.Repeat("5", 9000)})
		expect(t, long("shop", "a"), `error: the selector of metric "hits" has 9`)
		one.change(func() { one.gate = nil })
		close(gate)
		settled(time.Second)
		expect(t, value("shop", "a"), "3")
		expect(t, value("blog", "a"), "4")
		expect(t, errors500("shop", "a"), "1")
		expect(t, value("shop", "twice"), "error: metric hits of httproutes.gateway.networking.k8s.io twice, named in the "+
			"administrator's file, has no value: several series belong to the object: an administrator has to aggregate more, "+
			"as in sum by (ns, route) (...)")
		expect(t, value("shop", "nan"), "error: metric hits of httproutes.gateway.networking.k8s.io nan, named in the "+
			"administrator's file, has no value: it is NaN")
		if one.asked[all] != 1 || one.asked[some] != 1 || len(one.asked) != 2 {
			t.Errorf("queries: %v", one.asked)
		}
		series := demand.Request{Resource: n.Resource, Metric: n.Name, Series: true}
		logged := func() string { return s.tables.table(series).logged }
		if got := logged(); got != "" {
			t.Errorf("%q is logged of a metric that has values", got)
		}
		one.change(func() { one.err = errors.New("no") })
		settled(2 * time.Minute)
		expect(t, value("shop", "a"), "error: metric hits of all httproutes.gateway.networking.k8s.io, named in the "+
			`administrator's file, has no value: backend "main" has not given a usable answer (expired): the log of the `+
			"custom metrics server has the details for an administrator")
		if got := logged(); !strings.Contains(got, `a query of backend "main" failed`) {
			t.Errorf("%q is logged, want why there is no answer", got)
		}

		// The backend is taken from the file before the metric is.
		if err := s.backends.apply(nil, nil); err != nil {
			t.Fatal(err)
		}
		expect(t, value("shop", "a"), `error: the administrator's file names backend "main", which does not exist`)
	})
}

// TestWarningsAboutNamedMetrics checks that a metric whose error changes from answer to answer is logged only now and
// then.
func TestWarningsAboutNamedMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var one table
		for _, step := range []struct {
			after time.Duration
			err   error
			want  string // the error that was logged last, "" after values
		}{
			{0, nil, ""},
			{0, errors.New("a"), "a"},
			{time.Second, errors.New("b"), "a"},
			{quietAfter, errors.New("b"), "b"},
			{time.Second, nil, ""},
			{time.Second, errors.New("c"), ""},
			{time.Second, nil, ""},
			{quietAfter, errors.New("c"), "c"},
		} {
			time.Sleep(step.after)
			one.report(&demand.Want{}, step.err)
			if one.logged != step.want {
				t.Errorf("after %v and error %v, %q was logged last, want %q", step.after, step.err, one.logged, step.want)
			}
		}
	})
}

// TestNamedPartial checks that an object is not taken for one without requests if its series may be in the part of an
// answer that is missing.
func TestNamedPartial(t *testing.T) {
	polling(t, func(t *testing.T, s *system, fakes map[string]*fakeServer) {
		const all = "sum by (ns, route) (rate(hits[5m]))"
		one := fakes["one"]
		one.change(func() {
			one.samples = map[string][]backend.Sample{
				all: {{Labels: promlabels.FromStrings("ns", "blog", "route", "a"), Value: 4}},
			}
		})
		value := s.name(namedBy(t, "{name: hits, resource: httproutes.gateway.networking.k8s.io, backend: main, query: '"+all+
			"', namespaceLabel: ns, nameLabel: route, missing: zero}"), nil, nil)
		settled(time.Second)
		expect(t, value("shop", "a"), "0")
		one.change(func() { one.partial = true })
		settled(time.Minute)
		expect(t, value("blog", "a"), "4")
		expect(t, value("shop", "a"), "error: metric hits of httproutes.gateway.networking.k8s.io a, named in the "+
			`administrator's file, has no value: no series has ns="shop"`)
	})
}

// TestNamedIsNotCollected checks that only the Want with the values of all objects is collected.
func TestNamedIsNotCollected(t *testing.T) {
	s := newServer(t)
	n := namedBy(t, gauge+"}")
	w := &demand.Want{
		Request: demand.ObjectRequest("shop", schema.GroupResource{Group: "example.com", Resource: "gateways"}, "a", "load",
			labels.Everything()),
		Name: "load", HPAs: []string{"web"}, Type: autoscalingv2.ObjectMetricSourceType,
		Definition: demand.Definition{Window: demand.DefaultWindow},
	}
	s.set(w)
	if s.collector.find(w.Request) == nil {
		t.Error("it is not collected as long as it is not named")
	}
	own := *w
	own.Definition = demand.Definition{Named: n}
	s.set(&own)
	if s.collector.find(w.Request) != nil {
		t.Error("it is collected although it is named")
	}
	series := &demand.Want{Request: own.SeriesOf(), Name: "load", Type: w.Type, Definition: n.Definition()}
	s.set(series)
	if got := s.collector.find(series.Request); got == nil || got.query.err != nil {
		t.Errorf("%+v", got)
	}
	s.tables.table(series.Request)
	s.remove(series.Request)
	if s.collector.find(series.Request) != nil || len(s.tables.all) > 0 {
		t.Error("something is left of it")
	}
	if _, err := (&objectValues{}).value(&own); !isCause(err, appmetrics.NoResult) {
		t.Error(err)
	}
}

func isCause(err error, cause appmetrics.Cause) bool {
	said, ok := errors.AsType[*appmetrics.Error](err)
	return ok && said.Cause == cause
}
