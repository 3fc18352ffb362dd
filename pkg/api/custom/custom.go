// Package custom serves the API group custom.metrics.k8s.io, in which a HorizontalPodAutoscaler finds
// the metrics of its types Pods and Object.
//
// The resource in a path is the resource of the object that a metric describes, which may belong to any
// group, and the name of the metric is the subresource: see metricgroup. Answers equal those of
// sigs.k8s.io/custom-metrics-apiserver, with which hack/adapter compares them. Its clients are in k8s.io/metrics.
package custom

import (
	"context"
	"errors"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	metricsapi "k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/custom_metrics/install"

	"metrics-server/pkg/api"
	"metrics-server/pkg/api/metricgroup"
	"metrics-server/pkg/api/openapi"
)

// Group is custom.metrics.k8s.io in every version.
var Group = api.NewGroup(metricsapi.GroupName, newScheme(), openapi.GetOpenAPIDefinitions)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	install.Install(s)
	return s
}

// Values provides the values of metrics. An error's text is the answer to the client: the HPA controller
// copies it into conditions and Events, so it should be stable and say what to do.
type Values interface {
	// Pods returns a metric of the pods that a selector selects, sorted by pod. It is not empty.
	Pods(ctx context.Context, namespace string, pods labels.Selector, metric string, selector labels.Selector) (
		[]Value, error)
	// Object returns a metric of one object.
	Object(ctx context.Context, namespace string, of schema.GroupResource, name, metric string,
		selector labels.Selector) (Value, error)
}

// Value is the value of a metric of one object.
type Value struct {
	Of corev1.ObjectReference
	metricgroup.Value
}

// Install adds the group to s, with the paths that k8s.io/metrics/pkg/client/custom_metrics requests.
func Install(s *genericapiserver.GenericAPIServer, values Values) {
	g := &metricgroup.Group{
		Group: Group, Kind: "MetricValueList", Verb: "get",
		Routes: []metricgroup.Route{
			{
				Path: "/namespaces/{namespace}/{resource}/{name}/{metric}", Operation: "getNamespacedMetric",
				Doc: "get a metric of an object in a namespace, or of all pods that labelSelector selects, with the name *",
			},
			{
				Path: "/namespaces/{namespace}/metrics/{metric}", Operation: "getNamespaceMetric",
				Doc: "get a metric of a namespace",
			},
			{
				Path: "/{resource}/{name}/{metric}", Operation: "getMetric",
				Doc: "get a metric of an object without namespace",
			},
		},
		Parameters: map[string]string{
			"namespace": "namespace of the object, or of the pods",
			"resource":  "resource of the object that the metric describes, with its API group, such as deployments.apps",
			"name":      "name of the object, or * for all pods that labelSelector selects",
			"metric":    "name of the metric",
		},
		Query: map[string]string{"metricLabelSelector": "selects series by label"},
		Answer: func(r *http.Request, info *request.RequestInfo) (runtime.Object, error) {
			q, err := newQuery(r, info)
			if err != nil {
				return nil, err
			}
			return q.answer(r.Context(), values)
		},
	}
	g.Install(s)
}

// query is what a request asks for.
type query struct {
	namespace     string
	of            schema.GroupResource // of the objects that the metric describes
	name          string               // of the object; AllObjects for all that objects selects
	objects       labels.Selector
	metric        string
	selector      labels.Selector
	labelSelector *metav1.LabelSelector // selector as the answer repeats it; nil if it is empty
}

var errListOfOthers = errors.New("metrics of several objects are served for pods only: request one object by name")

// newQuery reads a request.
func newQuery(r *http.Request, info *request.RequestInfo) (*query, error) {
	q := &query{
		namespace: info.Namespace, of: schema.ParseGroupResource(info.Resource), name: info.Name, metric: info.Subresource,
	}
	if info.Resource == "metrics" && info.Subresource == "" && info.Namespace != "" {
		q.of, q.name, q.metric = schema.GroupResource{Resource: "namespaces"}, info.Namespace, info.Name
	}
	if q.name == "" || q.metric == "" || info.Verb != "get" || len(info.Parts) > 3 {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: Group.Name, Resource: info.Resource}, info.Name)
	}
	var err error
	if q.objects, err = metricgroup.Selector(r, "labelSelector"); err != nil {
		return nil, err
	}
	if q.selector, q.labelSelector, err = metricgroup.SeriesSelector(r, "metricLabelSelector"); err != nil {
		return nil, err
	}
	return q, nil
}

func (q *query) answer(ctx context.Context, from Values) (*metricsapi.MetricValueList, error) {
	var values []Value
	var err error
	switch {
	case q.name == metricsapi.AllObjects && q.of.Resource == "pods" && q.of.Group == "":
		values, err = from.Pods(ctx, q.namespace, q.objects, q.metric, q.selector)
	case q.name == metricsapi.AllObjects:
		err = errListOfOthers
	default:
		values = make([]Value, 1)
		values[0], err = from.Object(ctx, q.namespace, q.of, q.name, q.metric, q.selector)
	}
	if err != nil {
		return nil, metricgroup.NotFound(q.of, q.name, err)
	}
	list := &metricsapi.MetricValueList{Items: make([]metricsapi.MetricValue, len(values))}
	for i := range values {
		list.Items[i] = q.item(&values[i])
	}
	return list, nil
}

// item is the API object of a value.
func (q *query) item(v *Value) metricsapi.MetricValue {
	return metricsapi.MetricValue{
		DescribedObject: metricsapi.ObjectReference{
			Kind: v.Of.Kind, APIVersion: v.Of.APIVersion, Namespace: v.Of.Namespace, Name: v.Of.Name,
		},
		Metric:        metricsapi.MetricIdentifier{Name: q.metric, Selector: q.labelSelector},
		Timestamp:     metav1.NewTime(v.Time),
		WindowSeconds: v.WindowSeconds(),
		Value:         v.Quantity(),
	}
}
