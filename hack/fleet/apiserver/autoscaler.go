package apiserver

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"metrics-server/hack/fleet/cluster"
)

// autoscalers returns the HorizontalPodAutoscalers of c.
func autoscalers(c *cluster.Cluster) *collection {
	of := func(o any) *cluster.Autoscaler { return o.(*cluster.Autoscaler) }
	return &collection{
		version: "autoscaling/v2", name: "horizontalpodautoscalers", kind: "HorizontalPodAutoscaler", namespaced: true,
		selectable: map[string]bool{"metadata.name": true, "metadata.namespace": true},
		snapshot: func(namespace string) ([]any, uint64) {
			all, version := c.Autoscalers(namespace)
			return objects(all), version
		},
		get: func(namespace, name string) any {
			if a := c.Autoscaler(namespace, name); a != nil {
				return a
			}
			return nil
		},
		log:         &c.AutoscalerLog,
		inNamespace: func(o any) string { return of(o).Namespace },
		labelsOf:    func(o any) map[string]string { return of(o).Labels },
		fieldsOf: func(o any) fields.Set {
			return fields.Set{"metadata.name": of(o).Name, "metadata.namespace": of(o).Namespace}
		},
		meta:  func(o any) metav1.ObjectMeta { return autoscaler(of(o)).ObjectMeta },
		whole: func(o any) message { return autoscaler(of(o)) },
		empty: func(m metav1.ObjectMeta) message {
			return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: m}
		},
	}
}

// services returns no Services: no metric here is of the pods of one.
func services(c *cluster.Cluster) *collection {
	return &collection{
		version: "v1", name: "services", kind: "Service", namespaced: true,
		snapshot: func(string) ([]any, uint64) { return nil, c.Version() },
		get:      func(string, string) any { return nil },
		empty:    func(m metav1.ObjectMeta) message { return &corev1.Service{ObjectMeta: m} },
	}
}

// autoscaler returns a as an API object, with the annotation and the status that kubectl and the
// controller leave behind.
func autoscaler(a *cluster.Autoscaler) *autoscalingv2.HorizontalPodAutoscaler {
	annotations := map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"}
	maps.Copy(annotations, a.Annotations)
	now := metav1.Now()
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: a.Namespace, Name: a.Name, UID: types.UID("5d0c7a11-0000-4000-8000-0000" + a.Hash),
			ResourceVersion: strconv.FormatUint(a.Version, 10), Labels: a.Labels, Annotations: annotations,
		},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{
				APIVersion: "apps/v1", Kind: kindOf(a.Workload), Name: a.Name,
			},
			MinReplicas: new(int32(1)), MaxReplicas: 1000, Metrics: a.Metrics,
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			CurrentReplicas: 1, DesiredReplicas: 1,
			Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{{
				Type: autoscalingv2.ScalingActive, Status: corev1.ConditionTrue, Reason: "ValidMetricFound",
				LastTransitionTime: now,
			}},
		},
	}
	for _, m := range a.Metrics {
		if m.Pods != nil {
			h.Status.CurrentMetrics = append(h.Status.CurrentMetrics, autoscalingv2.MetricStatus{
				Type: m.Type,
				Pods: &autoscalingv2.PodsMetricStatus{Metric: m.Pods.Metric, Current: autoscalingv2.MetricValueStatus{
					AverageValue: m.Pods.Target.AverageValue,
				}},
			})
		}
	}
	return h
}

func kindOf(w *cluster.Workload) string {
	if w.Stateful {
		return "StatefulSet"
	}
	return "Deployment"
}

// scalable has the resources with a scale, and their kinds.
var scalable = map[string]string{"deployments": "Deployment", "statefulsets": "StatefulSet"}

// scale serves apis/apps/v1/namespaces/N/RESOURCE/NAME/scale. It reports whether the path is such a
// path.
func (s *Server) scale(w http.ResponseWriter, r *http.Request, parts []string) bool {
	if len(parts) != 8 || !slices.Equal(parts[:4], []string{"apis", "apps", "v1", "namespaces"}) ||
		scalable[parts[5]] == "" || parts[7] != "scale" {
		return false
	}
	namespace, name := parts[4], parts[6]
	pods, _ := s.config.Cluster.Pods(namespace)
	replicas := int32(0)
	for _, p := range pods {
		if p.Workload.Name == name && kindOf(p.Workload) == scalable[parts[5]] {
			replicas++
		}
	}
	if replicas == 0 {
		s.fail(w, r, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("%s %q not found", parts[5], name))
		return true
	}
	sendJSON(w, &autoscalingv1.Scale{
		TypeMeta:   metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       autoscalingv1.ScaleSpec{Replicas: replicas},
		Status:     autoscalingv1.ScaleStatus{Replicas: replicas, Selector: "app=" + name},
	})
	return true
}

// discover serves discovery: the groups and the resources. It reports whether the path belongs to
// discovery.
func (s *Server) discover(w http.ResponseWriter, parts []string) bool {
	group := func(name, version string) metav1.APIGroup {
		v := metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + version, Version: version}
		return metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v}
	}
	list := func(version string, resources ...metav1.APIResource) {
		sendJSON(w, &metav1.APIResourceList{
			TypeMeta:     metav1.TypeMeta{APIVersion: "v1", Kind: "APIResourceList"},
			GroupVersion: version, APIResources: resources,
		})
	}
	verbs := metav1.Verbs{"get", "list", "watch"}
	switch strings.Join(parts, "/") {
	case "api":
		sendJSON(w, &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	case "apis":
		sendJSON(w, &metav1.APIGroupList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIGroupList"},
			Groups:   []metav1.APIGroup{group("apps", "v1"), group("autoscaling", "v2")},
		})
	case "api/v1":
		list("v1", metav1.APIResource{Name: "pods", SingularName: "pod", Namespaced: true, Kind: "Pod", Verbs: verbs},
			metav1.APIResource{Name: "services", SingularName: "service", Namespaced: true, Kind: "Service", Verbs: verbs},
			metav1.APIResource{Name: "nodes", SingularName: "node", Kind: "Node", Verbs: verbs})
	case "apis/autoscaling/v2":
		list("autoscaling/v2", metav1.APIResource{
			Name: "horizontalpodautoscalers", SingularName: "horizontalpodautoscaler", Namespaced: true,
			Kind: "HorizontalPodAutoscaler", Verbs: verbs,
		})
	case "apis/apps/v1":
		var all []metav1.APIResource
		for name, kind := range scalable {
			all = append(all, metav1.APIResource{Name: name, Namespaced: true, Kind: kind, Verbs: verbs},
				metav1.APIResource{
					Name: name + "/scale", Namespaced: true, Group: "autoscaling", Version: "v1", Kind: "Scale",
					Verbs: metav1.Verbs{"get"},
				})
		}
		list("apps/v1", all...)
	default:
		return false
	}
	return true
}

func sendJSON(w http.ResponseWriter, o any) {
	b, err := json.Marshal(o)
	must(err)
	send(w, http.StatusOK, form{}, b)
}
