package hpa

import (
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sharedtest"
)

// TestMistakes compares the whole text for deliberate mistakes with testdata. To update it: go test
// ./pkg/doctor/hpa -run TestMistakes -update
func TestMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		broken func(*fakeCluster)
		want   []string // what the findings must say
		code   int
	}{
		"healthy": {func(*fakeCluster) {}, []string{"is served by the Service custom-metrics/custom-metrics-server"}, 0},
		"no-such-family": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0].Pods.Metric.Name = "packet_total"
				c.unserved("the pod exposes no metric packet_total; did you mean packets_total?")
				c.objects[strings.Replace(pathValue, "packets-per-second", "packet_total", 1)] = c.objects[pathValue]
			},
			[]string{"the pod exposes no metric", "did you mean packets_total?", "3 of 3 pods"},
			1,
		},
		"no-port": {
			func(c *fakeCluster) {
				for _, p := range c.pods {
					p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "a", ContainerPort: 1}, {Name: "b", ContainerPort: 2}}
				}
				c.unserved("pod web-a has more than one port that could have its metrics: it declares a=1, b=2")
			},
			[]string{"more than one port", "a=1 (container app), b=2 (container app)", "annotation metrics-server/port"},
			1,
		},
		"connection-refused": {
			func(c *fakeCluster) {
				c.unreachable("web-b", "dial tcp 10.0.0.2:9090: connect: connection refused")
				c.objects[pathValue] = values(map[string]string{"web-a": "1k", "web-c": "1050"})
			},
			[]string{"warning  pages", "1 of 3 pods (web-b): connection refused", "not only on localhost"},
			0,
		},
		"not-found": {
			func(c *fakeCluster) {
				c.eachPage(page{404, "text/plain", "404 page not found\n", false})
				c.unserved("pod web-a at http://10.0.0.1:9090/metrics: it answers 404 Not Found")
			},
			[]string{"problem  pages", "HTTP 404 Not Found", "annotation metrics-server/path"},
			1,
		},
		"html": {
			func(c *fakeCluster) {
				c.eachPage(page{200, "text/html", "<!DOCTYPE html><html></html>", false})
				c.unserved("pod web-a at http://10.0.0.1:9090/metrics: the answer is HTML or XML")
			},
			[]string{"the answer is HTML or XML"},
			1,
		},
		"unknown-annotation": {
			func(c *fakeCluster) {
				c.hpa.Annotations["metrics-server/query"] = "packets-per-second: sum(x)"
				c.unserved("annotation metrics-server/query of HorizontalPodAutoscaler \"web\" is unknown")
			},
			[]string{"annotation metrics-server/query", "did you mean metrics-server/queries?"},
			1,
		},
		"wrong-promql": {
			func(c *fakeCluster) {
				c.hpa.Annotations[kubeapi.QueriesAnnotation] = "packets-per-second: sum by (pod) (rate(packets_total[30s])"
				c.unserved("not valid PromQL")
			},
			[]string{"annotation metrics-server/queries", "line 1", "is wrong at character", "not valid PromQL"},
			1,
		},
		"other-adapter": {
			func(c *fakeCluster) {
				c.objects[pathCustom] = registered("v1beta2", "monitoring/prometheus-adapter")
				c.objects[pathCustom1] = registered("v1beta1", "monitoring/prometheus-adapter")
				c.unserved("the server could not find the metric packets-per-second for pods")
			},
			[]string{"points to the Service monitoring/prometheus-adapter", "the program behind Service monitoring"},
			1,
		},
		"left-behind": {
			func(c *fakeCluster) {
				c.objects[pathCustom] = unavailable("v1beta2", "monitoring/prometheus-adapter")
				c.objects[pathValue1] = c.objects[pathValue]
			},
			[]string{"left its APIService behind", "ServiceNotFound", "requests v1beta1.custom.metrics.k8s.io"},
			1,
		},
		"overlapping-selector": {
			func(c *fakeCluster) {
				p := workPod("worker-x", "worker-1", map[string]string{"app": "web", "role": "worker"})
				p.Status.PodIP = "10.0.0.9"
				c.pods = append(c.pods, p)
				c.objects["/apis/apps/v1/namespaces/default/replicasets/worker-1"] = replicaSet("worker")
				c.objects["/apis/apps/v1/namespaces/default/deployments/worker"] = replicaSet("")
				c.objects[pageOf("worker-x")] = page{200, "text/plain", goodPage, false}
			},
			[]string{"does not own 1 of 4 pods that the selector app=web selects: worker-x", "Deployment worker"},
			1,
		},
		"no-scale": {
			func(c *fakeCluster) {
				c.hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{
					APIVersion: "example.com/v1", Kind: "Widget", Name: "web",
				}
				c.objects["/apis/example.com/v1/namespaces/default/widgets/web/scale"] = &metav1.Status{
					Code: 404, Reason: metav1.StatusReasonNotFound, Message: "the server could not find the requested resource",
					Details: &metav1.StatusDetails{},
				}
				c.hpa.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{
					Type: autoscalingv2.AbleToScale, Status: corev1.ConditionFalse, Reason: "FailedGetScale",
					Message: "the HPA controller was unable to get the target's current scale: the server could not find the " +
						"requested resource",
				}}
			},
			[]string{"widgets.example.com has no scale subresource", "AbleToScale is False: FailedGetScale"},
			1,
		},
		"scale-up-with-missing": {
			func(c *fakeCluster) {
				c.objects[pathValue] = values(map[string]string{"web-a": "3k", "web-b": "3k"})
				c.objects[pageOf("web-c")], c.patience = page{hangs: true}, 2*time.Second
				c.hpa.Spec.Metrics = append(c.hpa.Spec.Metrics, cpuMetric(60))
			},
			[]string{"(web-c): no answer within 2s"},
			0,
		},
		"at-the-limit": {
			func(c *fakeCluster) {
				c.objects[pathValue] = values(map[string]string{"web-a": "9k", "web-b": "9k", "web-c": "9k"})
				c.hpa.Spec.MaxReplicas = 5
			},
			[]string{"the metrics ask for 27 replicas, and maxReplicas allows 5"},
			0,
		},
		"object-of-service": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics = []autoscalingv2.MetricSpec{objectMetric("queue_length",
					autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "web"},
					autoscalingv2.MetricTarget{
						Type:         autoscalingv2.AverageValueMetricType,
						AverageValue: new(resource.MustParse("2")),
					})}
				c.objects["/api/v1/namespaces/default/services/web"] = &corev1.Service{
					Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}},
				}
				c.objects["/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/web/queue_length"] = values(
					map[string]string{"web": "9"})
			},
			[]string{"is served by"},
			0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			tc.broken(c)
			r := c.run()
			got := text(t, r)
			if r.ExitCode() != tc.code {
				t.Errorf("exit code %d, want %d", r.ExitCode(), tc.code)
			}
			_, findings, _ := strings.Cut(got, "\nDecision")
			for _, want := range tc.want {
				if !strings.Contains(findings, want) {
					t.Errorf("no %q in\n%s", want, findings)
				}
			}
			for _, l := range r.Checks {
				if l.Status != doctor.OK && (l.Cause == "" || l.Remedy == "") {
					t.Errorf("a finding without cause or remedy: %+v", l)
				}
				if strings.Contains(l.Message+l.Cause+l.Remedy, "%!") {
					t.Errorf("not formatted: %+v", l)
				}
			}
			sharedtest.CompareWithFile(t, "testdata/"+name+".txt", got)
		})
	}
}
