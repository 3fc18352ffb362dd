package hpa

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	externalv1beta1 "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sharedtest"
)

// find returns the findings with these beginnings of their parts: message, cause and remedy need only contain them.
func find(r *Report, want doctor.Line) (found []doctor.Line) {
	for _, l := range r.Checks {
		if l.Check == want.Check && l.Status == want.Status && strings.Contains(l.Message, want.Message) &&
			strings.Contains(l.Cause, want.Cause) && strings.Contains(l.Remedy, want.Remedy) {
			found = append(found, l)
		}
	}
	return found
}

// checkFindings checks that want are the findings of r that are not OK.
func checkFindings(t *testing.T, r *Report, want []doctor.Line) {
	t.Helper()
	bad := 0
	for _, l := range r.Checks {
		if l.Status != doctor.OK {
			bad++
		}
	}
	if bad != len(want) {
		t.Errorf("%d findings, want %d\n%s", bad, len(want), text(t, r))
	}
	for _, w := range want {
		if len(find(r, w)) != 1 {
			t.Errorf("want exactly one finding like %+v in\n%s", w, text(t, r))
		}
	}
}

func TestFindings(t *testing.T) {
	forbidden := func(path, right string) func(*fakeCluster) {
		return func(c *fakeCluster) {
			c.refuse(path, 403, metav1.StatusReasonForbidden, `pods "web-a" is forbidden: cannot get resource "`+right+`"`)
		}
	}
	for name, tc := range map[string]struct {
		broken func(*fakeCluster)
		want   doctor.Line
	}{
		"no right to list pods": {
			forbidden(pathPods, "pods"), doctor.Line{Check: checkPods, Status: doctor.Unknown, Remedy: "list pods"},
		},
		"no right to read the scale": {
			forbidden(pathScale, "deployments/scale"),
			doctor.Line{Check: checkTarget, Status: doctor.Unknown, Remedy: "get deployments.apps/scale"},
		},
		"no right to use the proxy": {
			forbidden(pageOf("web-a"), "pods/proxy"),
			doctor.Line{Check: checkPages, Status: doctor.Unknown, Message: "1 of 3", Remedy: "may get pods/proxy"},
		},
		"no right to read APIServices": {
			forbidden(pathCustom, "apiservices"),
			doctor.Line{Check: checkAPIService, Status: doctor.Unknown, Remedy: "get apiservices"},
		},
		"no right to read the metric": {
			forbidden(pathValue, "pods/packets-per-second"),
			doctor.Line{
				Check: checkServed, Status: doctor.Unknown, Message: "the value cannot be read",
				Cause: `cannot get resource "pods/packets-per-second"`, Remedy: "the right in this message",
			},
		},
		"no right to list other HPAs": {
			forbidden(pathHPAs, "horizontalpodautoscalers"), doctor.Line{Check: checkHPA, Status: doctor.Unknown},
		},
		"no target": {
			func(c *fakeCluster) {
				c.objects[pathScale] = &metav1.Status{
					Code: 404, Reason: metav1.StatusReasonNotFound, Message: `deployments.apps "web" not found`,
					Details: &metav1.StatusDetails{Name: "web"},
				}
			},
			doctor.Line{Check: checkTarget, Status: doctor.Problem, Message: `Deployment "web" does not exist`},
		},
		"unknown kind": {
			func(c *fakeCluster) { c.hpa.Spec.ScaleTargetRef.Kind = "Rollout" },
			doctor.Line{Check: checkTarget, Status: doctor.Problem, Message: "no kind Rollout in apps/v1"},
		},
		"no pods": {
			func(c *fakeCluster) { c.pods = nil },
			doctor.Line{Check: checkPods, Status: doctor.Problem, Message: "no pod has the labels app=web"},
		},
		"two HPAs": {
			func(c *fakeCluster) {
				other := c.hpa.DeepCopy()
				other.Name = "other"
				c.objects[pathHPAs] = &autoscalingv2.HorizontalPodAutoscalerList{
					Items: []autoscalingv2.HorizontalPodAutoscaler{*c.hpa, *other},
				}
			},
			doctor.Line{Check: checkHPA, Status: doctor.Problem, Message: "the same target: other", Cause: "AmbiguousSelector"},
		},
		"pods without an owner": {
			func(c *fakeCluster) { c.pods[1].OwnerReferences = nil },
			doctor.Line{
				Check: checkPods, Status: doctor.Problem,
				Message: "the target does not own 1 of 3 pods that the selector app=web selects: web-b",
				Cause:   "no workload owns web-b", Remedy: "delete the pods that no workload owns",
			},
		},
		"too many metrics": {
			func(c *fakeCluster) {
				for range 20 {
					c.hpa.Spec.Metrics = append(c.hpa.Spec.Metrics, podsMetric("packets-per-second", "1k"))
				}
			},
			doctor.Line{
				Check: checkHPA, Status: doctor.Problem, Message: "20 metrics",
				Cause: "one mistake in the HorizontalPodAutoscaler disables all of its metrics",
			},
		},
		"a value that counts a pod at the mean of the others": {
			func(c *fakeCluster) {
				for i, name := range []string{"web-d", "web-e"} {
					p := workPod(name, "web-1", map[string]string{"app": "web"})
					p.Status.PodIP = fmt.Sprintf("10.0.0.%d", i+4)
					c.pods = append(c.pods, p)
				}
				c.eachPage(page{200, "text/plain; version=0.0.4", goodPage, false})
				c.objects[pageOf("web-e")] = page{
					200, "text/plain; version=0.0.4", "# TYPE queue_length gauge\nqueue_length NaN\n", false,
				}
				c.hpa.Spec.Metrics[0] = objectMetric("queue_length",
					autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
					autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("2"))})
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Warning, Message: "1 of 5 pods", Cause: "the value is an estimate",
				Remedy: "see why these pods have no value",
			},
		},
		"not installed": {
			func(c *fakeCluster) {
				delete(c.objects, pathCustom)
				delete(c.objects, pathCustom1)
				delete(c.objects, pathValue)
			},
			doctor.Line{Check: checkAPIService, Status: doctor.Problem, Message: "no APIService of custom.metrics.k8s.io"},
		},
		"only v1beta1": {
			func(c *fakeCluster) { delete(c.objects, pathCustom) },
			doctor.Line{
				Check: checkAPIService, Status: doctor.Warning, Message: "only v1beta1.custom.metrics.k8s.io is registered",
				Cause: "incomplete",
			},
		},
		"only v1beta2, of another program": {
			func(c *fakeCluster) {
				c.objects[pathCustom] = registered("v1beta2", "monitoring/adapter")
				delete(c.objects, pathCustom1)
			},
			doctor.Line{
				Check: checkAPIService, Status: doctor.Warning, Message: "only v1beta2.custom.metrics.k8s.io",
				Cause: "monitoring/adapter of another program", Remedy: "kubectl delete apiservice v1beta2.custom.metrics.k8s.io",
			},
		},
		"served otherwise than from here": {
			func(c *fakeCluster) { c.unserved("pod web-a at http://10.0.0.1:9090/metrics: cannot connect") },
			doctor.Line{
				Check: checkServed, Status: doctor.Problem, Message: "cannot connect",
				Cause:  "; the pages of all pods are in order when read through the API server",
				Remedy: "check whether a NetworkPolicy",
			},
		},
		"not served, and the pages are no cause": {
			func(c *fakeCluster) {
				c.unserved(`the value of metric "packets-per-second" is NaN, which is not a number; exclude it`)
			},
			doctor.Line{
				Check: checkServed, Status: doctor.Problem, Message: "is NaN",
				Cause: "in order when read through the API server", Remedy: "do what the message says",
			},
		},
		"not served, and the pages cannot be read": {
			func(c *fakeCluster) {
				for _, pod := range []string{"web-a", "web-b", "web-c"} {
					forbidden(pageOf(pod), "pods/proxy")(c)
				}
				c.unserved("pod web-a at http://10.0.0.1:9090/metrics: cannot connect")
			},
			doctor.Line{
				Check: checkServed, Status: doctor.Problem, Message: "cannot connect",
				Cause: "no cause was found in the pages that could be read", Remedy: "check whether a NetworkPolicy",
			},
		},
		"not served because of a limit": {
			func(c *fakeCluster) {
				c.unserved("pod web-a at http://10.0.0.1:9090/metrics: " + appmetrics.OverShareError("shop").Error())
			},
			doctor.Line{
				Check: checkServed, Status: doctor.Problem, Message: `namespace "shop" has used up its share of the memory`,
				Cause: "in order when read through the API server", Remedy: "do what the message says",
			},
		},
		"a target that is not positive": {
			func(c *fakeCluster) { c.hpa.Spec.Metrics[0] = podsMetric("packets-per-second", "0") },
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "the target is not positive",
				Cause: "cannot calculate with this target", Remedy: "set a target greater than zero",
			},
		},
		"a metric of type Pods without averageValue": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0].Pods.Target = autoscalingv2.MetricTarget{
					Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("1")),
				}
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "must be an averageValue",
				Cause: "cannot calculate with this target", Remedy: "set target.type to AverageValue",
			},
		},
		"no pod that counts has a value": {
			func(c *fakeCluster) {
				c.objects[pathValue] = values(map[string]string{"web-c": "1"})
				c.pods[2].Status.Phase = corev1.PodFailed
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "no pod that counts has a value",
				Cause: "do not count", Remedy: "check that the pods run and become ready",
			},
		},
		"a label filter that matches nothing": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0].Pods.Metric.Selector = &metav1.LabelSelector{
					MatchLabels: map[string]string{"direction": "up"},
				}
				c.unserved("the page has packets_total, and the label filter matches none of its series")
			},
			doctor.Line{
				Check: checkPages, Status: doctor.Problem, Message: `label direction has only "in", "out"`,
				Remedy: "metric.selector",
			},
		},
		"a counter asked for as a level": {
			func(c *fakeCluster) {
				c.hpa.Annotations[kubeapi.QueriesAnnotation] = "packets-per-second: sum by (pod) (packets_total)"
			},
			doctor.Line{Check: checkMetric, Status: doctor.Warning, Message: "packets_total"},
		},
		"a target of another type than its value": {
			func(c *fakeCluster) {
				path := "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/deployments.apps/web/queue_length"
				c.objects[path] = values(map[string]string{"web": "15"})
				c.hpa.Spec.Metrics[0] = objectMetric("queue_length",
					autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
					autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, Value: new(resource.MustParse("2"))})
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "target.type does not fit", Cause: wrongTarget,
				Remedy: "set target.type to Value with target.value",
			},
		},
		"a Service that does not exist": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0] = objectMetric("queue_length",
					autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "gone"},
					autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("2"))})
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "Service default/gone does not exist",
				Cause: "the HorizontalPodAutoscaler names it",
			},
		},
		"a port that the Service does not have": {
			func(c *fakeCluster) {
				c.hpa.Annotations[kubeapi.TargetsAnnotation] = "queue_length: service/web:grpc"
				c.hpa.Spec.Metrics[0] = objectMetric("queue_length",
					autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "web"},
					autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("2"))})
				c.objects["/api/v1/namespaces/default/services/web"] = &corev1.Service{
					ObjectMeta: metav1.ObjectMeta{Name: "web"},
					Spec: corev1.ServiceSpec{
						Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
					},
				}
			},
			doctor.Line{Check: checkMetric, Status: doctor.Problem, Message: "no TCP port grpc, only http=80"},
		},
		"an object without scale": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0] = objectMetric("queue_length",
					autoscalingv2.CrossVersionObjectReference{APIVersion: "example.com/v1", Kind: "Widget", Name: "w"},
					autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("2"))})
				c.objects["/apis/example.com/v1/namespaces/default/widgets/w/scale"] = &metav1.Status{
					Code: 404, Reason: metav1.StatusReasonNotFound, Message: "the server could not find the requested resource",
				}
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "has no scale subresource",
				Remedy: kubeapi.TargetsAnnotation,
			},
		},
		"requests of zero": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0] = cpuMetric(50)
				for _, p := range c.pods {
					p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("0")}
				}
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "request nothing", Cause: "these are zero",
				Remedy: "set requests greater than zero",
			},
		},
		"no request": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0] = cpuMetric(50)
				c.pods[2].Spec.Containers[0].Resources.Requests = nil
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "container app of pod web-c has no request for cpu",
				Remedy: "set a request for cpu on container app",
			},
		},
		"no request of the pod": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0] = cpuMetric(50)
				c.pods[2].Spec.Containers[0].Resources.Requests = nil
				c.pods[2].Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceMemory: resource.MustParse("1Gi"),
				}}
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "pod web-c has no request for cpu",
				Remedy: "set a request for cpu in spec.resources of the pods",
			},
		},
		"no resource metrics": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0] = cpuMetric(50)
				delete(c.objects, pathUsage)
			},
			doctor.Line{Check: checkServed, Status: doctor.Problem, Remedy: "run metrics-server doctor"},
		},
		"nobody serves external metrics": {
			func(c *fakeCluster) { c.hpa.Spec.Metrics[0] = externalMetric("Queue") },
			doctor.Line{Check: checkAPIService, Status: doctor.Problem, Message: "no APIService of external.metrics.k8s.io"},
		},
		"the controller has not looked at it": {
			func(c *fakeCluster) { c.hpa.Status.Conditions = nil },
			doctor.Line{Check: checkController, Status: doctor.Warning, Remedy: "--kube-api-qps"},
		},
		"the controller lacks a right": {
			func(c *fakeCluster) {
				c.hpa.Status.Conditions = conditions(false, "FailedGetPodsMetric",
					`unable to fetch metrics from custom metrics API: `+
						`pods.custom.metrics.k8s.io is forbidden: User "system:serviceaccount:kube-system:horizontal-pod-autoscaler"`)
			},
			doctor.Line{Check: checkController, Status: doctor.Problem, Remedy: "kube-system/horizontal-pod-autoscaler"},
		},
		"the custom metrics server does not trust the front proxy": {
			func(c *fakeCluster) { c.refuse(pathValue, 401, metav1.StatusReasonUnauthorized, "Unauthorized") },
			doctor.Line{
				Check: checkServed, Status: doctor.Problem, Message: "has no value: Unauthorized",
				Cause: doctor.CauseFrontProxy, Remedy: doctor.RemedyFrontProxy,
			},
		},
		"metrics-server takes the front proxy for an anonymous user": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0] = cpuMetric(50)
				c.refuse(pathUsage, 403, metav1.StatusReasonForbidden,
					`pods.metrics.k8s.io is forbidden: User "system:anonymous" cannot list resource "pods"`)
			},
			doctor.Line{
				Check: checkServed, Status: doctor.Problem, Message: "cannot list resource", Cause: doctor.CauseFrontProxy,
				Remedy: doctor.RemedyFrontProxy,
			},
		},
		"the controller gets 401": {
			func(c *fakeCluster) {
				c.hpa.Status.Conditions = conditions(false, "FailedGetPodsMetric",
					"unable to get metric packets-per-second: unable to fetch metrics from custom metrics API: Unauthorized")
			},
			doctor.Line{Check: checkController, Status: doctor.Problem, Cause: doctor.CauseFrontProxy},
		},
		"two HPAs select the pods": {
			func(c *fakeCluster) {
				c.hpa.Status.Conditions = conditions(false, "AmbiguousSelector",
					"pods by selector app=web are controlled by more than one HPA (e.g. [default/other default/web])")
			},
			doctor.Line{Check: checkController, Status: doctor.Problem, Cause: causeAmbiguous, Remedy: "delete all but one"},
		},
		"two HPAs select the pods, in the words of Kubernetes 1.36": {
			func(c *fakeCluster) {
				c.hpa.Status.Conditions = conditions(false, "AmbiguousSelector",
					"pods by selector app=web are controlled by multiple HPAs: [default/other default/web]")
			},
			doctor.Line{Check: checkController, Status: doctor.Problem, Cause: causeAmbiguous, Remedy: "delete all but one"},
		},
		"the controller misses the request of a pod": {
			func(c *fakeCluster) {
				c.hpa.Status.Conditions = conditions(false, "FailedGetResourceMetric",
					"failed to get cpu utilization: missing pod-level request for cpu in Pod web-c")
			},
			doctor.Line{Check: checkController, Status: doctor.Problem, Remedy: "spec.resources of the pods"},
		},
		"the controller misses a container": {
			func(c *fakeCluster) {
				c.hpa.Status.Conditions = conditions(false, "FailedGetContainerResourceMetric",
					"failed to get cpu utilization: container ap not found in Pod web-c")
			},
			doctor.Line{
				Check: checkController, Status: doctor.Problem, Cause: "not every pod has", Remedy: "name of the container",
			},
		},
		"scaled to zero by hand": {
			func(c *fakeCluster) {
				c.scale(0, 0)
				c.pods = nil
				c.hpa.Status.Conditions = conditions(false, "ScalingDisabled",
					"scaling is disabled since the replica count of the target is zero")
			},
			doctor.Line{Check: checkController, Status: doctor.Warning, Remedy: "at least one"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			tc.broken(c)
			r := c.run()
			if len(find(r, tc.want)) != 1 {
				t.Errorf("not one finding like %+v in\n%s", tc.want, text(t, r))
			}
			for _, l := range r.Checks {
				if l.Status != doctor.OK && (l.Cause == "" || l.Remedy == "") {
					t.Errorf("a finding without cause or remedy: %+v", l)
				}
			}
		})
	}
}

// TestZeroReplicas checks that no value of a pod is reported as missing at zero replicas.
func TestZeroReplicas(t *testing.T) {
	disabled := doctor.Line{Check: checkController, Status: doctor.Warning, Message: "ScalingDisabled"}
	external := func(c *fakeCluster, change func(h *autoscalingv2.HorizontalPodAutoscaler)) {
		metrics := c.hpa.Spec.Metrics
		c.serveExternal("keda/keda-operator-metrics-apiserver", "externalmetrics")
		c.hpa.Annotations = nil
		c.hpa.Spec.Metrics = append([]autoscalingv2.MetricSpec{c.hpa.Spec.Metrics[0], cpuMetric(50)}, metrics[1:]...)
		change(c.hpa)
	}
	for name, tc := range map[string]struct {
		change   func(*fakeCluster)
		want     []doctor.Line // all that are not OK
		replicas int32
	}{
		"by hand": {func(*fakeCluster) {}, []doctor.Line{disabled}, 0},
		"by hand, with an object that has no pods": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0] = objectMetric("queue_length",
					autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
					autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("2"))})
			}, []doctor.Line{disabled}, 0,
		},
		"by the controller": {
			func(c *fakeCluster) {
				external(c, func(h *autoscalingv2.HorizontalPodAutoscaler) {
					h.Spec.MinReplicas = new(int32(0))
					h.Status.Conditions = conditions(true, "ValidMetricFound", "m")
					addCondition(h, "ScaledToZero", "True", "ScaledToZero")
				})
			}, nil, 4, // 11 at a target of 2 for each, limited by the policy of a scale-up
		},
		"by the controller, and the metric that decides has no value": {
			func(c *fakeCluster) {
				external(c, func(h *autoscalingv2.HorizontalPodAutoscaler) {
					h.Spec.MinReplicas = new(int32(0))
					h.Status.Conditions = conditions(true, "ValidMetricFound", "m")
					addCondition(h, "ScaledToZero", "True", "ScaledToZero")
				})
				delete(c.objects, pathQueue)
			}, []doctor.Line{{Check: checkServed, Status: doctor.Problem, Message: "spec.metrics[0]"}}, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.scale(0, 0)
			c.pods = nil
			c.unserved("no pods for metric packets-per-second")
			c.hpa.Spec.Metrics = append(c.hpa.Spec.Metrics, cpuMetric(50), podsMetric("packets-per-second", "1k"))
			c.objects[pathUsage] = usage(nil)
			c.hpa.Status.Conditions = conditions(false, "ScalingDisabled",
				"scaling is disabled since the replica count of the target is zero")
			tc.change(c)
			r := c.run()
			checkFindings(t, r, tc.want)
			if got := r.Autoscaler.Decision.Replicas; got != tc.replicas {
				t.Errorf("%d replicas, want %d in\n%s", got, tc.replicas, text(t, r))
			}
		})
	}
}

// TestUnreadMetric checks that a metric which only the doctor may not read does not count as failing.
func TestUnreadMetric(t *testing.T) {
	for name, refuse := range map[string]func(*fakeCluster){
		"no right to read the metric": func(c *fakeCluster) {
			c.refuse(pathValue, 403, metav1.StatusReasonForbidden, "no right")
		},
		"no right to list pods": func(c *fakeCluster) { c.refuse(pathPods, 403, metav1.StatusReasonForbidden, "no right") },
		"the API server does not list pods": func(c *fakeCluster) {
			c.refuse(pathPods, 500, metav1.StatusReasonInternalError, "it fails")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			refuse(c)
			c.hpa.Status.DesiredReplicas = 10
			r := c.run()
			d := r.Autoscaler.Decision
			if d.Replicas != 10 || len(d.Unknown) != 1 || !strings.Contains(d.Verdict, "it decided on 10") ||
				r.Status != doctor.Unknown {
				t.Errorf("%+v, want the decision of the controller in\n%s", d, text(t, r))
			}
		})
	}
}

// TestFailingForTheController checks that a metric counts as failing if the controller gets the same answer.
func TestFailingForTheController(t *testing.T) {
	c := newCluster(t)
	c.refuse(pathValue, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
	r := c.run()
	if d := r.Autoscaler.Decision; len(d.Unknown) > 0 || !strings.Contains(d.Verdict, "no metric has a value") {
		t.Errorf("%+v in\n%s", d, text(t, r))
	}
}

// TestResourceMetrics checks what is said of pods that run and have no resource metrics.
func TestResourceMetrics(t *testing.T) {
	ofContainer := func(name string) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{
			Type: autoscalingv2.ContainerResourceMetricSourceType,
			ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
				Name: corev1.ResourceMemory, Container: name, Target: autoscalingv2.MetricTarget{
					Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("64Mi")),
				},
			},
		}
	}
	const noneReturned = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get " +
		"metrics for resource cpu: no metrics returned from resource metrics API"
	for name, tc := range map[string]struct {
		change func(*fakeCluster)
		want   []doctor.Line // all that are not OK
	}{
		"no metrics": {
			func(c *fakeCluster) {
				c.objects[pathUsage] = usage(nil)
				c.hpa.Status.Conditions = conditions(false, "FailedGetResourceMetric", noneReturned)
			},
			[]doctor.Line{
				{
					Check: checkServed, Status: doctor.Problem, Message: "0 not ready, 3 without a value",
					Cause: "metrics.k8s.io has no value of web-a, web-b, web-c", Remedy: "run metrics-server doctor",
				},
				{
					Check: checkController, Status: doctor.Problem, Cause: "no resource metrics of the pods",
					Remedy: "run metrics-server doctor",
				},
			},
		},
		"the API fails": {
			func(c *fakeCluster) {
				c.hpa.Status.Conditions = conditions(false, "FailedGetResourceMetric", strings.Replace(noneReturned,
					"no metrics returned from resource metrics API", "unable to fetch metrics from resource metrics API: EOF", 1))
			},
			[]doctor.Line{{
				Check: checkController, Status: doctor.Problem, Cause: "metrics.k8s.io cannot be read",
				Remedy: "run metrics-server doctor",
			}},
		},
		"no pod that counts": {
			func(c *fakeCluster) {
				c.objects[pathUsage] = usage(nil)
				for _, p := range c.pods {
					p.Status.Phase = corev1.PodPending
				}
			},
			[]doctor.Line{{
				Check: checkMetric, Status: doctor.Problem, Message: "3 not ready, 0 without a value",
				Remedy: "check that the pods run and become ready",
			}},
		},
		"no pods": {
			func(c *fakeCluster) { c.pods = nil },
			[]doctor.Line{{Check: checkPods, Status: doctor.Problem, Message: "no pod has the labels"}},
		},
		"a container": {func(c *fakeCluster) { c.hpa.Spec.Metrics[0] = ofContainer("app") }, nil},
		"a container that no pod has": {
			func(c *fakeCluster) { c.hpa.Spec.Metrics[0] = ofContainer("ap") },
			[]doctor.Line{{
				Check: checkMetric, Status: doctor.Problem, Message: "pod web-a has no container ap",
				Remedy: "name of the container",
			}},
		},
		"a container without metrics": {
			func(c *fakeCluster) {
				c.hpa.Spec.Metrics[0] = ofContainer("app")
				c.objects[pathUsage] = usage(nil)
			},
			[]doctor.Line{{Check: checkServed, Status: doctor.Problem, Remedy: "run metrics-server doctor"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.hpa.Spec.Metrics[0] = cpuMetric(50)
			tc.change(c)
			checkFindings(t, c.run(), tc.want)
		})
	}
}

func externalMetric(name string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
			Metric: autoscalingv2.MetricIdentifier{
				Name: name, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"queue": "q"}},
			},
			Target: autoscalingv2.MetricTarget{
				Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse("2")),
			},
		},
	}
}

// External metrics are those of others, read as the controller does.
func TestExternal(t *testing.T) {
	c := newCluster(t)
	c.hpa.Spec.Metrics[0] = externalMetric("Queue")
	s := registered("v1beta1", "keda/keda-operator-metrics-apiserver")
	s.Metadata.Name = "v1beta1.external.metrics.k8s.io"
	c.objects[kubeapi.APIServicePath(s.Metadata.Name)] = s
	c.objects["/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue"] = &externalv1beta1.ExternalMetricValueList{
		Items: []externalv1beta1.ExternalMetricValue{
			{MetricName: "queue", Timestamp: metav1.NewTime(now), Value: resource.MustParse("7")},
			{MetricName: "queue", Timestamp: metav1.NewTime(now), Value: resource.MustParse("4")},
		},
	}
	r := c.run()
	m := r.Autoscaler.Metrics[0]
	if m.Calculation == nil || m.Calculation.Replicas != 6 || m.ServedBy != "keda/keda-operator-metrics-apiserver" ||
		!strings.HasSuffix(m.Request, "/queue?labelSelector=queue%3Dq") || r.Status != doctor.OK {
		t.Errorf("got %+v, want 6 replicas, served by KEDA, in\n%s", m, text(t, r))
	}
}

// A mistake of the HPA is the only finding about a metric of type External without an entry in targets.
func TestExternalWithoutTargetAndAMistake(t *testing.T) {
	c := newCluster(t)
	c.serveExternal(ourService, kubeapi.AnyResource)
	c.hpa.Annotations = map[string]string{kubeapi.WindowAnnotation: "1s"}
	r := c.run()
	for _, l := range r.Checks {
		if l.Check == checkMetric && l.Status != doctor.OK {
			t.Errorf("%+v in\n%s", l, text(t, r))
		}
	}
	if r.Status != doctor.Problem {
		t.Errorf("the mistake is not found:\n%s", text(t, r))
	}
}

// The request is exactly the controller's.
func TestRequestsOfTheController(t *testing.T) {
	c := newCluster(t)
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"b": "1", "a": "2"}}
	c.hpa.Spec.Metrics[0].Pods.Metric.Selector = selector
	value := autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("2"))}
	c.hpa.Spec.Metrics = append(c.hpa.Spec.Metrics,
		objectMetric("m", autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			value),
		objectMetric("m", autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Namespace", Name: "other"},
			value))
	r := c.run()
	var got []string
	for _, m := range r.Autoscaler.Metrics {
		got = append(got, m.Request)
	}
	const root = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/"
	want := []string{
		root + "pods/*/packets-per-second?labelSelector=app%3Dweb&metricLabelSelector=a%3D2%2Cb%3D1",
		root + "deployments.apps/web/m", root + "metrics/m",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// A path of an annotation must not lead out of the pod, with the credentials of an administrator.
func TestProxyPath(t *testing.T) {
	const root = "/api/v1/namespaces/n/pods/"
	for at, want := range map[string]string{
		"http://10.0.0.1:80/metrics":                      root + "p:80/proxy/metrics",
		"https://10.0.0.1:8443/metrics/":                  root + "https:p:8443/proxy/metrics/",
		"http://10.0.0.1:80/":                             root + "p:80/proxy/",
		"http://10.0.0.1:80/../../../secrets":             root + "p:80/proxy/secrets",
		"http://10.0.0.1:80/a/%2e%2e/%2E%2E/%2e%2e%2fb":   root + "p:80/proxy/b",
		"http://[fd00::1]:80//../../x":                    root + "p:80/proxy/x",
		"http://10.0.0.1:80/a/..%2f..%2f..%2f..%2fsecret": root + "p:80/proxy/secret",
	} {
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		if got := proxyPath("n", "p", u); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
}

// Redirects of a pod are not followed, and a path of an annotation stays within it.
func TestStaysWithinThePod(t *testing.T) {
	c := newCluster(t)
	c.hpa.Annotations[kubeapi.HPAPathAnnotation] = "/../../../../../../apis/x?a=b"
	for _, p := range c.pods {
		c.objects[pathPods+"/"+p.Name+":9090/proxy/apis/x"] = page{code: 302}
	}
	r := c.run()
	want := doctor.Line{Check: checkPages, Status: doctor.Problem, Message: "HTTP 302 Found", Cause: "redirects"}
	if len(find(r, want)) != 1 {
		t.Errorf("no %+v in\n%s", want, text(t, r))
	}
	for _, request := range c.requests {
		if strings.Contains(request, "secrets") || strings.Contains(request, "..") || strings.HasPrefix(request, "/apis/x") {
			t.Errorf("asked for %s", request)
		}
	}
}

// At most 20 pods are asked for a metric, 8 at a time, and once for all metrics.
func TestManyPods(t *testing.T) {
	c := newCluster(t)
	c.pods, c.patience = nil, time.Second
	for i := range 25 {
		p := workPod(fmt.Sprintf("web-%02d", i), "web-1", map[string]string{"app": "web"})
		p.Status.PodIP = fmt.Sprintf("10.0.1.%d", i)
		c.pods = append(c.pods, p)
		c.objects[pageOf(p.Name)] = page{hangs: true}
	}
	c.hpa.Spec.Metrics = append(c.hpa.Spec.Metrics, podsMetric("queue_length", "2"))
	r := c.run()
	n := 0
	for _, request := range c.requests {
		if strings.Contains(request, "/proxy/") {
			n++
		}
	}
	// The API server may notice late that requests were given up, when the next ones have begun.
	if n != maxPages || c.most > 2*maxParallel {
		t.Errorf("%d requests for pages, %d at a time", n, c.most)
	}
	for _, m := range r.Autoscaler.Metrics {
		if len(m.Pages) != maxPages || m.Omitted != 5 {
			t.Errorf("%d pages, %d omitted", len(m.Pages), m.Omitted)
		}
	}
	if len(find(r, doctor.Line{Check: checkPages, Status: doctor.Problem})) > 0 {
		t.Errorf("a problem, although there are values:\n%s", text(t, r))
	}
	if got := text(t, r); !strings.Contains(got, "5 more pods were not scraped") {
		t.Errorf("the text does not say so:\n%s", got)
	}
}

func TestExplainAnswer(t *testing.T) {
	reach := func(message string) *answer {
		b, err := json.Marshal(metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Code: 503,
			Message: "error trying to reach service: " + message,
		})
		if err != nil {
			t.Fatal(err)
		}
		return &answer{status: 503, body: b}
	}
	plain := func(status int, body string) *answer { return &answer{status: status, body: []byte(body)} }
	for name, tc := range map[string]struct {
		got          *answer
		text, remedy string
	}{
		"good": {plain(200, "a 1\n"), "", ""},
		"refused": {
			reach("dial tcp 10.0.0.1:80: connect: connection refused"), "connection refused", "not only on localhost",
		},
		"refused, as text": {
			plain(503, "Error trying to reach service: 'dial tcp: connection refused'"), "connection refused", "localhost",
		},
		"plain": {reach("http: server gave HTTP response to HTTPS client"), "the scheme is https", "use http"},
		"TLS": {
			reach(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "\x15\x03\x01\x00\x02\x02"`),
			"the scheme is http, and the port speaks TLS", "use https",
		},
		"TLS, by text":       {plain(400, "Client sent an HTTP request to an HTTPS server.\n"), "speaks TLS", "use https"},
		"no HTTP":            {reach(`malformed HTTP response "SSH-2.0"`), "does not speak HTTP", "port"},
		"timeout":            {reach("dial tcp 10.0.0.1:80: i/o timeout"), "not accepted in time", "NetworkPolicy"},
		"no route":           {reach("connect: no route to host"), "no route", "network"},
		"client cert":        {reach("remote error: tls: certificate required"), "handshake", "mesh"},
		"reset":              {reach("read: connection reset by peer"), "closed before", "mesh"},
		"EOF":                {reach("EOF"), "closed before", "mesh"},
		"anything else":      {reach("whatever"), "cannot reach", "network"},
		"401":                {plain(401, ""), "401 Unauthorized", "without authentication"},
		"403":                {plain(403, "no"), "403 Forbidden", "without credentials"},
		"404":                {plain(404, "no"), "404 Not Found", "path"},
		"500":                {plain(500, "no"), "500 Internal", "log of the pod"},
		"204":                {plain(204, ""), "204 No Content", "path"},
		"HTML":               {plain(200, "\n <html>"), "HTML", "path"},
		"a page that says <": {plain(200, "a 1 # <"), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := explainAnswer(tc.got)
			if tc.text == "" {
				if f != nil {
					t.Errorf("got the fault %+v, want none", f)
				}
				return
			}
			if f == nil || !strings.Contains(f.text, tc.text) || !strings.Contains(f.remedy, tc.remedy) || f.cause == "" {
				t.Errorf("%+v, want %q and %q", f, tc.text, tc.remedy)
			}
		})
	}
}

func TestOverview(t *testing.T) {
	c := newCluster(t)
	good, failing, wrong, capped := c.hpa, c.hpa.DeepCopy(), c.hpa.DeepCopy(), c.hpa.DeepCopy()
	failing.Name, wrong.Name, capped.Name = "failing", "wrong", "capped"
	failing.Namespace = "another-namespace"
	failing.Status.DesiredReplicas, failing.Status.LastScaleTime = 0, nil
	failing.Status.Conditions = conditions(false, "FailedGetPodsMetric",
		"unable to fetch metrics from custom metrics API: x")
	wrong.Annotations = map[string]string{"metrics-server/windows": "30s"}
	addCondition(capped, autoscalingv2.ScalingLimited, "True", "TooManyReplicas")
	capped.Status.Conditions[2].Message = "the desired replica count is more than the maximum replica count"
	c.objects[pathAllHPAs] = &autoscalingv2.HorizontalPodAutoscalerList{
		Items: []autoscalingv2.HorizontalPodAutoscaler{*good, *failing, *wrong, *capped},
	}
	r, err := Run(t.Context(), Config{Rest: &rest.Config{Host: c.host}, Version: "v1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	sharedtest.CompareWithFile(t, "testdata/overview.txt", text(t, r))
	for _, l := range r.Checks {
		if namespace, name, ok := strings.Cut(l.Check, "/"); ok &&
			!slices.Equal(l.Objects, []doctor.Object{doctor.Autoscaler(namespace, name)}) {
			t.Errorf("%s is about %v", l.Check, l.Objects)
		}
	}
	if r.ExitCode() != 1 {
		t.Errorf("exit code %d", r.ExitCode())
	}
	// Of one namespace, since the others may not be read.
	c.refuse(pathAllHPAs, 403, metav1.StatusReasonForbidden, "forbidden")
	if _, err = Run(t.Context(), Config{Rest: &rest.Config{Host: c.host}}); err == nil ||
		!strings.HasSuffix(err.Error(), "with --namespace") {
		t.Errorf("error %v, want that a namespace has to be given", err)
	}
	c.objects[pathHPAs] = &autoscalingv2.HorizontalPodAutoscalerList{}
	r, err = Run(t.Context(), Config{Rest: &rest.Config{Host: c.host}, Namespace: "default"})
	if err != nil || len(find(r, doctor.Line{Check: checkHPA, Status: doctor.OK, Message: "there are no"})) != 1 {
		t.Errorf("error %v, %+v", err, r)
	}
}

// TestOverviewTimeout checks that the HPAs which were read are reported, although there are more.
func TestOverviewTimeout(t *testing.T) {
	c := newCluster(t)
	c.objects[pathAllHPAs] = &autoscalingv2.HorizontalPodAutoscalerList{
		ListMeta: metav1.ListMeta{Continue: "next"}, Items: []autoscalingv2.HorizontalPodAutoscaler{*c.hpa},
	}
	c.objects[pathAllHPAs+"?continue=next"] = page{hangs: true}
	ctx, pass := sharedtest.WithDeadline(t.Context())
	c.onHang = pass
	r, err := Run(ctx, Config{Rest: &rest.Config{Host: c.host}})
	if err != nil {
		t.Fatal(err)
	}
	checkFindings(t, r, []doctor.Line{{Check: checkHPA, Status: doctor.Unknown, Remedy: doctor.RemedyDeadline}})
	if r.ExitCode() != 0 || len(find(r, doctor.Line{Check: "default/web", Status: doctor.OK})) != 1 {
		t.Errorf("exit code %d\n%s", r.ExitCode(), text(t, r))
	}
	// Without any, nothing was checked.
	c.objects[pathAllHPAs] = page{hangs: true}
	ctx, pass = sharedtest.WithDeadline(t.Context())
	c.onHang = pass
	if _, err = Run(ctx, Config{Rest: &rest.Config{Host: c.host}}); err == nil ||
		!strings.Contains(err.Error(), "longer --timeout") {
		t.Errorf("error %v, want that the timeout is too short", err)
	}
}

// The JSON is a contract: testdata/report.json changes only by growing.
func TestJSON(t *testing.T) {
	c := newCluster(t)
	c.objects[pathValue] = values(map[string]string{"web-a": "3k", "web-b": "3k"})
	c.unreachable("web-c", "dial tcp 10.0.0.3:9090: connect: connection refused")
	c.hpa.Spec.Metrics = append(c.hpa.Spec.Metrics, cpuMetric(60))
	var b strings.Builder
	if err := doctor.WriteJSON(&b, c.run()); err != nil {
		t.Fatal(err)
	}
	sharedtest.CompareWithFile(t, "testdata/report.json", b.String())
}

func TestCannotRun(t *testing.T) {
	for name, tc := range map[string]struct {
		broken func(*fakeCluster) string // returns the host
		want   string
	}{
		"nobody there": {func(*fakeCluster) string { return "http://127.0.0.1:1" }, "check that the API server runs"},
		"no such HPA": {func(c *fakeCluster) string {
			c.refuse(pathHPA, http.StatusNotFound, metav1.StatusReasonNotFound, `horizontalpodautoscalers "web" not found`)
			return c.host
		}, "check its name and namespace"},
		"no right": {func(c *fakeCluster) string {
			c.refuse(pathHPA, http.StatusForbidden, metav1.StatusReasonForbidden, "forbidden")
			return c.host
		}, "may get and list horizontalpodautoscalers"},
		"no credentials": {func(c *fakeCluster) string {
			c.refuse(pathHPA, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
			return c.host
		}, "--kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			host := tc.broken(c)
			_, err := Run(t.Context(), Config{Rest: &rest.Config{Host: host}, Namespace: "default", Name: "web"})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// When the time is up, everything else is unknown.
func TestTimeout(t *testing.T) {
	c := newCluster(t)
	c.eachPage(page{hangs: true})
	c.hpa.Spec.Metrics = append(c.hpa.Spec.Metrics, cpuMetric(60)) // which comes after the pages
	ctx, pass := sharedtest.WithDeadline(t.Context())
	c.onHang = pass
	r, err := Run(ctx, Config{Rest: &rest.Config{Host: c.host}, Namespace: "default", Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if r.ExitCode() != 0 || len(find(r, doctor.Line{
		Check: checkPages, Status: doctor.Unknown,
		Remedy: doctor.RemedyDeadline,
	})) != 1 ||
		len(find(r, doctor.Line{Check: checkServed, Status: doctor.Unknown, Remedy: doctor.RemedyDeadline})) != 1 {
		t.Errorf("exit code %d\n%s", r.ExitCode(), text(t, r))
	}
}

// Texts from pods and other programs cannot control the terminal.
func TestTextIsPlain(t *testing.T) {
	c := newCluster(t)
	c.unserved("\x1b[31mred\r\n")
	c.hpa.Annotations[kubeapi.QueriesAnnotation] = "packets-per-second: |\n  sum by (pod) (\n    queue_length)\n"
	for _, r := range text(t, c.run()) {
		if r < ' ' && r != '\n' {
			t.Fatalf("%q is written", r)
		}
	}
}

const pathQueue = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_length"

// serveExternal registers external metrics with a Service, and has it answer with a value of 11.
func (c *fakeCluster) serveExternal(service, discovered string) {
	s := registered("v1beta1", service)
	s.Metadata.Name = "v1beta1.external.metrics.k8s.io"
	c.objects[kubeapi.APIServicePath(s.Metadata.Name)] = s
	c.objects["/apis/external.metrics.k8s.io/v1beta1"] = &metav1.APIResourceList{
		APIResources: []metav1.APIResource{{Name: discovered}},
	}
	c.objects[pathQueue] = &externalv1beta1.ExternalMetricValueList{Items: []externalv1beta1.ExternalMetricValue{
		{MetricName: "queue_length", Timestamp: metav1.NewTime(now), Value: resource.MustParse("11")},
	}}
	c.objects["/api/v1/namespaces/default/services/exporter"] = &corev1.Service{
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Name: "metrics", Port: 9090}},
		},
	}
	m := externalMetric("queue_length")
	m.External.Metric.Selector = nil
	c.hpa.Spec.Metrics[0] = m
	c.hpa.Annotations = map[string]string{kubeapi.TargetsAnnotation: "queue_length: service/exporter:9090"}
}

const ourService = "kube-system/custom-metrics-server"

// External metrics of this project are explained as those of types Pods and Object are: with expression and pages.
func TestOurExternal(t *testing.T) {
	c := newCluster(t)
	c.serveExternal(ourService, kubeapi.AnyResource)
	r := c.run()
	m := r.Autoscaler.Metrics[0]
	if m.Calculation == nil || m.ServedBy != ourService || m.Expression != "sum (queue_length)" || len(m.Pages) != 3 ||
		m.Pages[0].URL != "http://10.0.0.1:9090/metrics" || r.Status != doctor.OK {
		t.Errorf("got %+v, want a calculation from three pages at port 9090, in\n%s", m, text(t, r))
	}
}

func TestExternalFindings(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*fakeCluster)
		want   doctor.Line
	}{
		"no target": {
			func(c *fakeCluster) {
				c.hpa.Annotations = nil
				c.refuse(pathQueue, 404, metav1.StatusReasonNotFound, "it is not said which pods have it")
			},
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "does not say which pods have external metric queue_length",
				Remedy: `add the line "queue_length: service/NAME:PORT"`,
			},
		},
		"no Service": {
			func(c *fakeCluster) { delete(c.objects, "/api/v1/namespaces/default/services/exporter") },
			doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "Service default/exporter does not exist",
				Cause: "annotation metrics-server/targets names it",
			},
		},
		"no pods": {
			func(c *fakeCluster) { c.pods = nil },
			doctor.Line{Check: checkMetric, Status: doctor.Problem, Cause: "Service default/exporter has no running pods"},
		},
		"expression with several values": {
			func(c *fakeCluster) {
				c.hpa.Annotations[kubeapi.QueriesAnnotation] = "queue_length: sum by (pod) (queue_length)"
			},
			doctor.Line{Check: checkMetric, Status: doctor.Problem, Message: "types Object and External need a single one"},
		},
		"no value": {
			func(c *fakeCluster) {
				c.refuse(pathQueue, 404, metav1.StatusReasonNotFound, "pod web-a at http://10.0.0.1:9090/metrics: cannot connect")
			},
			doctor.Line{Check: checkServed, Status: doctor.Problem, Remedy: "a NetworkPolicy"},
		},
		"evaluated too late": {
			func(c *fakeCluster) {
				c.refuse(pathQueue, 504, metav1.StatusReasonTimeout, "Timeout: metric was not evaluated in time")
			},
			doctor.Line{Check: checkServed, Status: doctor.Problem, Remedy: "more CPU"},
		},
		"a wrong annotation": {
			func(c *fakeCluster) { c.hpa.Annotations[kubeapi.WindowAnnotation] = "1s" },
			doctor.Line{Check: checkHPA, Status: doctor.Problem, Message: "metrics-server/window"},
		},
		"of another program": {
			func(c *fakeCluster) { c.serveExternal("keda/keda-operator-metrics-apiserver", "externalmetrics") },
			doctor.Line{
				Check: checkMetric, Status: doctor.Warning, Message: "has no effect",
				Cause: "keda/keda-operator-metrics-apiserver of another program",
			},
		},
		"of another program whose Service is called as ours": {
			func(c *fakeCluster) { c.serveExternal("datadog/datadog-custom-metrics-server", "nginx.requests") },
			doctor.Line{Check: checkMetric, Status: doctor.Warning, Cause: "datadog/datadog-custom-metrics-server of another"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.serveExternal(ourService, kubeapi.AnyResource)
			tc.change(c)
			r := c.run()
			if len(find(r, tc.want)) != 1 {
				t.Errorf("not one finding like %+v in\n%s", tc.want, text(t, r))
			}
			for _, l := range r.Checks {
				if l.Status != doctor.OK && (l.Cause == "" || l.Remedy == "") {
					t.Errorf("a finding without cause or remedy: %+v", l)
				}
			}
		})
	}
}

// TestBackends checks what is said of metrics that a backend has: one that the HPA names, and the default one of the
// server, which only the server knows.
func TestBackends(t *testing.T) {
	const problem = `metric "packets-per-second" in backend "main": the expression returned no series: check that the ` +
		"series exist"
	const byName = `sum by (pod) (rate(packets_total{namespace="default"}[2m]))`
	failing := []kubeapi.BackendNote{{Name: "other", Queries: 2, Failing: 2}, {Name: "main", Queries: 3, Failing: 2}}
	for name, tc := range map[string]struct {
		annotation string // metrics-server/backend
		notes      *kubeapi.Notes
		unserved   string
		change     func(*fakeCluster) // besides
		backend    string
		expression string // in the text
		pages      int
		want       []doctor.Line // all that are not OK
	}{
		"named": {
			annotation: "main", notes: &kubeapi.Notes{Backend: "main", Expression: byName}, backend: "main", expression: byName,
		},
		"named, and the server cannot be asked": {
			annotation: "main",
			change:     func(c *fakeCluster) { c.refuse(pathValue, 403, metav1.StatusReasonForbidden, "no right") },
			backend:    "main", expression: "default, by the name of the metric",
			want: []doctor.Line{{Check: checkServed, Status: doctor.Unknown, Cause: "right"}},
		},
		"named, without a value": {
			annotation: "main", notes: &kubeapi.Notes{Backend: "main", Expression: byName}, unserved: problem,
			backend: "main", expression: byName,
			want: []doctor.Line{
				{Check: checkServed, Status: doctor.Problem, Message: problem, Remedy: "only an administrator can change"},
				{Check: checkController, Status: doctor.Problem},
			},
		},
		"default": {
			notes: &kubeapi.Notes{Backend: "main", Expression: byName}, backend: "main, the default",
			expression: byName,
		},
		"default, by a rule": {
			notes: &kubeapi.Notes{Backend: "main", Ruled: true}, backend: "main, the default",
			expression: "by a rule in the configuration of prometheus-adapter",
		},
		"default, with an expression": {
			notes: &kubeapi.Notes{Backend: "main", Expression: `max by (pod) (x{namespace="default"})`},
			change: func(c *fakeCluster) {
				c.hpa.Annotations[kubeapi.QueriesAnnotation] = "packets-per-second: max by (pod) (x)"
			},
			backend: "main, the default", expression: "max by (pod) (x) (from annotation",
		},
		"default, of type External": {
			notes: &kubeapi.Notes{Backend: "main", Expression: `sum(queue_length{namespace="default"})`},
			change: func(c *fakeCluster) {
				c.serveExternal(ourService, kubeapi.AnyResource)
				c.hpa.Annotations = nil
			},
			backend: "main, the default", expression: `sum(queue_length{namespace="default"}) (default)`,
		},
		"default, without a value": {
			notes: &kubeapi.Notes{Backend: "main", Expression: byName}, unserved: problem, backend: "main, the default",
			expression: byName,
			want: []doctor.Line{
				{Check: checkServed, Status: doctor.Problem, Message: problem}, {Check: checkController, Status: doctor.Problem},
			},
		},
		"pods": {
			annotation: kubeapi.PodsBackend, notes: &kubeapi.Notes{}, pages: 3,
			want: []doctor.Line{{Check: checkPages, Status: doctor.Problem, Message: "the pod exposes no metric"}},
		},
		"no backend": {
			notes: &kubeapi.Notes{}, pages: 3,
			want: []doctor.Line{{Check: checkPages, Status: doctor.Problem, Message: "the pod exposes no metric"}},
		},
		"served by another program": {
			change: func(c *fakeCluster) { c.objects[pathCustom] = registered("v1beta2", "monitoring/prometheus-adapter") },
			want:   []doctor.Line{{Check: checkAPIService, Status: doctor.Problem}},
		},
		"state of the server": {
			notes:   &kubeapi.Notes{Backend: "main", InvalidFile: true, LeftOutRules: 1, FailingBackends: failing},
			backend: "main",
			want: []doctor.Line{
				{Check: checkBackends, Status: doctor.Warning, Message: "use the administrator's file", Remedy: "--check-config"},
				{Check: checkBackends, Status: doctor.Warning, Message: "leaves out 1 rule of"},
				{Check: checkBackends, Status: doctor.Problem, Message: `2 of 3 queries of backend "main" fail`},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.eachPage(page{200, "text/plain; version=0.0.4", "# TYPE other gauge\nother 1\n", false})
			c.notes = tc.notes
			if tc.annotation != "" {
				c.hpa.Annotations[kubeapi.BackendAnnotation] = tc.annotation
			}
			if tc.unserved != "" {
				c.unserved(tc.unserved)
			}
			if tc.change != nil {
				tc.change(c)
			}
			r := c.run()
			said := text(t, r)
			if n := len(r.Autoscaler.Metrics[0].Pages); n != tc.pages {
				t.Errorf("%d pages, want %d", n, tc.pages)
			}
			checkFindings(t, r, tc.want)
			if has := strings.Contains(said, "\n  backend     "+tc.backend); has != (tc.backend != "") {
				t.Errorf("it names the backend: %v, want %q in\n%s", has, tc.backend, said)
			}
			if !strings.Contains(said, tc.expression) {
				t.Errorf("it does not say %q:\n%s", tc.expression, said)
			}
		})
	}
}

// TestBackendsOverview checks that the overview says once what is wrong with backends, or that it is not known.
func TestBackendsOverview(t *testing.T) {
	c := newCluster(t)
	overview := func() *Report {
		t.Helper()
		r, err := Run(t.Context(), Config{Rest: &rest.Config{Host: c.host}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	state := doctor.Line{Check: checkBackends}
	if r := overview(); len(find(r, state)) != 0 {
		t.Errorf("%+v, want nothing of a server without notes", r.Checks)
	}
	c.notes = &kubeapi.Notes{InvalidFile: true}
	state.Status = doctor.Warning
	if r := overview(); len(find(r, state)) != 1 {
		t.Errorf("%+v, want that the file is invalid", r.Checks)
	}
	// A backend may be asked what pods are not.
	c.serveExternal(ourService, kubeapi.AnyResource)
	c.hpa.Spec.Metrics = []autoscalingv2.MetricSpec{podsMetric("packets-per-second", "1k"), externalMetric("queue")}
	c.hpa.Annotations = map[string]string{
		kubeapi.QueriesAnnotation: "packets-per-second: sum by (pod) (rate(packets_total[1h] offset 1h))",
	}
	own := doctor.Line{Check: "default/web", Status: doctor.Problem}
	if r := overview(); len(find(r, own)) != 1 {
		t.Errorf("%+v, want mistakes if pods are scraped", r.Checks)
	}
	c.notes = &kubeapi.Notes{DefaultBackend: "main"}
	if r := overview(); r.Status != doctor.OK {
		t.Errorf("%+v, want no mistake if the default backend has the metrics", r.Checks)
	}
	c.notes = nil
	c.refuse("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/doctor", 403, metav1.StatusReasonForbidden,
		"no right")
	state.Status = doctor.Unknown
	if r := overview(); len(find(r, state)) != 1 {
		t.Errorf("%+v, want that it is unknown", r.Checks)
	}
}
