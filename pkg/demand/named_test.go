package demand

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
)

var ingresses = schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"}

// requestsOf is a metric that an administrator names, of Ingresses.
func requestsOf(name string) Named {
	return Named{
		Name: name, Resource: ingresses, Namespace: "gateway", Service: "nginx", ServicePort: "metrics",
		Ask: sample.Ask{Path: "/stats"}, Expression: "sum by (n, i) (x)", NamespaceLabel: "n", NameLabel: "i",
	}
}

func onIngress(name, ingress string) autoscalingv2.MetricSpec {
	return objectMetric(name, "networking.k8s.io/v1", "Ingress", ingress)
}

// noScale is the answer to a request for the scale of an Ingress.
func noScale(name string) error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "get", ingresses, name, "404 page not found", 0, true)
}

func inNamespace[T metav1.Object](namespace string, o T) T {
	o.SetNamespace(namespace)
	return o
}

func inGateway(p *corev1.Pod) { p.Namespace = "gateway" }

func nginx() *corev1.Service {
	return inNamespace("gateway", testService("nginx", "nginx",
		corev1.ServicePort{Name: "metrics", Port: 80, TargetPort: intstr.FromInt32(10254)}))
}

// TestNamed checks that HPAs of all namespaces share one Want with the pods of the gateway, as long as one of them
// refers to the metric, and that what an HPA says itself comes first.
func TestNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services := requestsOf("requests")
		services.Resource, services.Backend = schema.GroupResource{Resource: "services"}, "main"
		services.Namespace, services.Service = "", ""
		const series = "metric requests of all ingresses.networking.k8s.io by : nginx-1"
		c := startNamed(t, nil, []Named{requestsOf("requests"), services, requestsOf("unused")},
			map[string]any{"ingresses/front": noScale("front")},
			testHPA("web", metrics(onIngress("requests", "front"), objectMetric("requests", "v1", "Service", "front")),
				"port", "8080"),
			inNamespace("blog", testHPA("web", metrics(onIngress("requests", "front")))),
			pod("nginx-1", "nginx", inGateway), pod("nginx-2", "other", inGateway), nginx())
		if err := c.Synced(); err != nil {
			t.Error(err)
		}
		const front = "metric requests of ingresses.networking.k8s.io front by web: "
		c.expect(series, "metric requests of all services by : ", front, front,
			"metric requests of services front by web: ")
		w, err := c.Find(ObjectRequest("blog", ingresses, "front", "requests", labels.Everything()))
		if err != nil || w.Named == nil || w.Ask != (sample.Ask{}) || len(w.Pods) > 0 {
			t.Fatalf("%+v, %v", w, err)
		}
		shared, err := c.Find(w.SeriesOf())
		if err != nil || shared.Ask != (sample.Ask{Port: "10254", Path: "/stats"}) ||
			shared.Expression != "sum by (n, i) (x)" || shared.Named != w.Named {
			t.Errorf("%+v, %v", shared, err)
		}

		// The gateway gets another pod. The Wants of HPAs do not change.
		before := c.calls
		c.must(c.client.CoreV1().Pods("gateway").Create(t.Context(), pod("nginx-3", "nginx", inGateway),
			metav1.CreateOptions{}))
		if got := c.wants()[0]; got != series+" nginx-3" || c.calls != before+1 {
			t.Errorf("%s, after %d calls", got, c.calls-before)
		}

		// Another definition of the same name.
		other := requestsOf("requests")
		other.Expression = "sum by (n, i) (y)"
		c.SetNamed([]Named{other})
		settle()
		if w, err := c.Find(w.SeriesOf()); err != nil || w.Expression != other.Expression {
			t.Errorf("%+v, %v", w, err)
		}
		// Nobody refers to it any more.
		autoscalers := c.client.AutoscalingV2()
		c.must(nil, autoscalers.HorizontalPodAutoscalers("blog").Delete(t.Context(), "web", metav1.DeleteOptions{}))
		c.must(autoscalers.HorizontalPodAutoscalers("shop").Update(t.Context(), testHPA("web", metrics(
			onIngress("requests", "front")), "targets", "requests: service/front:80"), metav1.UpdateOptions{}))
		c.expect(front + `! Service "front" does not exist`)
		for _, annotations := range [][2]string{{"queries", "requests: sum(x)"}, {"backend", "pods"}} {
			c.must(autoscalers.HorizontalPodAutoscalers("shop").Update(t.Context(), testHPA("web", metrics(
				onIngress("requests", "front")), annotations[0], annotations[1]), metav1.UpdateOptions{}))
			c.expect(front + "! ingresses.networking.k8s.io has no scale subresource")
		}
		if c.namespaces["gateway"] != nil {
			t.Error("the gateway is still watched")
		}
	})
}

// TestNamedSelectors checks that a metric.selector has a Want of its own, and that a namespace may have only a few.
func TestNamedSelectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []autoscalingv2.MetricSpec
		for i := range maxSelectors + 1 {
			m := onIngress("requests", "front")
			m.Object.Metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"host": fmt.Sprint(i)}}
			all = append(all, m)
		}
		all = append(all, all[0], onIngress("requests", "other"))
		c := startNamed(t, nil, []Named{requestsOf("requests")}, nil, testHPA("web", all),
			pod("nginx-1", "nginx", inGateway), nginx())
		var lines []string
		for i := range maxSelectors {
			lines = append(lines, fmt.Sprintf("metric requests with selector host=%d of all ", i),
				fmt.Sprintf("metric requests with selector host=%d of ingresses.networking.k8s.io front by web: ", i))
		}
		lines = append(lines, "metric requests of all ingresses", "metric requests of ingresses.networking.k8s.io other")
		if got := len(c.wants()); got != len(lines)+1 {
			t.Errorf("%d wants, want %d", got, len(lines)+1)
		}
		text := strings.Join(c.wants(), "\n")
		for _, line := range append(lines, fmt.Sprintf("host=%d of ingresses.networking.k8s.io front by web: ! the "+
			`HorizontalPodAutoscalers of namespace "shop" use metrics named in the administrator's file with more than `+
			"5 selectors", maxSelectors)) {
			if !strings.Contains(text, line) {
				t.Errorf("no line %q in\n%s", line, text)
			}
		}
	})
}

// TestNamedSelectorsOfManyMetrics checks that the limit on selectors counts each metric that a selector is used with.
func TestNamedSelectorsOfManyMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var named []Named
		var all []autoscalingv2.MetricSpec
		for i := range maxSelectors + 1 {
			name := fmt.Sprint("requests", i)
			named = append(named, requestsOf(name))
			m := onIngress(name, "front")
			m.Object.Metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"host": "x"}}
			all = append(all, m)
		}
		c := startNamed(t, nil, named, nil, testHPA("web", all), pod("nginx-1", "nginx", inGateway), nginx())
		series, refused := 0, 0
		for _, line := range c.wants() {
			switch {
			case strings.Contains(line, "of all"):
				series++
			case strings.Contains(line, `! the HorizontalPodAutoscalers of namespace "shop" use metrics named in the `+
				"administrator's file with more than 5 selectors, which is the limit; a selector counts once for each metric"):
				refused++
			}
		}
		if series != maxSelectors || refused != 1 {
			t.Errorf("%d metrics are collected and %d refused, want 5 and 1:\n%s", series, refused,
				strings.Join(c.wants(), "\n"))
		}
	})
}

// TestNamedUnread checks that an administrator does not have to correct the file if the pods of the gateway could not
// be read.
func TestNamedUnread(t *testing.T) {
	for want, failure := range map[string]error{
		"the pods are still being read: retry in a moment":             apierrors.NewResourceExpired("no failure"),
		"the API server cannot be asked to list and watch pods: check": errors.New("connection refused"),
		"the custom metrics server has no right to list and watch pods: grant it": apierrors.NewForbidden(podsResource, "",
			errors.New("no")),
	} {
		synctest.Test(t, func(t *testing.T) {
			c := startNamed(t, func(config *Config) {
				config.Client.(*fake.Clientset).PrependReactor("list", "pods",
					func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, failure })
			}, []Named{requestsOf("requests")}, nil, testHPA("web", metrics(onIngress("requests", "front"))), nginx())
			c.expect("metric requests of all ingresses.networking.k8s.io by : ! metric requests of all "+
				`ingresses.networking.k8s.io, named in the administrator's file, has no values: in namespace "gateway", `+want,
				"metric requests of ingresses.networking.k8s.io front by web: ")
		})
	}
}

// TestNamedProblems checks errors: of the Service, of an object whose kind is unknown, and of names that resemble that
// of a metric.
func TestNamedProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		noPort := requestsOf("ported")
		noPort.ServicePort = "web"
		gone := requestsOf("gone")
		gone.Service = "apache"
		scales := map[string]any{
			"ingresses/a": apierrors.NewForbidden(ingresses, "a", errors.New("no")), "ingresses/b": noScale("b"),
		}
		c := startNamed(t, nil, []Named{noPort, gone}, scales, testHPA("web", metrics(onIngress("ported", "a"),
			onIngress("gone", "a"), onIngress("portet", "a"), objectMetric("gone", "gateway.networking.k8s.io/v1",
				"HTTPRoute", "a"), onIngress("queue", "b"))), nginx())
		c.expect(
			"metric gone of all ingresses.networking.k8s.io by : ! metric gone of all ingresses.networking.k8s.io, "+
				`named in the administrator's file, has no values: in namespace "gateway", Service "apache" does not exist: an `+
				"administrator has to correct it",
			"metric gone of ingresses.networking.k8s.io a by web: ",
			"metric gone of pods a by web: ! the API server has no kind HTTPRoute",
			"metric ported of all ingresses.networking.k8s.io by : ! ",
			"metric ported of ingresses.networking.k8s.io a by web: ",
			"metric portet of ingresses.networking.k8s.io a by web: ! ",
			"metric queue of ingresses.networking.k8s.io b by web: ! ",
		)
		text := strings.Join(c.wants(), "\n")
		for _, want := range []string{
			`Service "nginx" has no TCP port web, only metrics=80: an administrator`,
			"with label " + kubeapi.ScaleReaderLabel + "=true, or use a metric that the administrator names for " +
				"ingresses.networking.k8s.io: ported\n",
			`with a line "queue: service/NAME:PORT", or use a metric that the administrator names for ` +
				"ingresses.networking.k8s.io: gone, ported",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	})
}
