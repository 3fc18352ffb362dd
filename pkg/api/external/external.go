// Package external serves the API group external.metrics.k8s.io, in which a HorizontalPodAutoscaler finds
// its metrics of type External.
//
// The name of a metric is the resource in a path: see metricgroup. The client of k8s.io/metrics, which the
// HPA controller uses, requests it in lower case. Answers equal those of sigs.k8s.io/custom-metrics-apiserver,
// with which hack/adapter compares them.
package external

import (
	"context"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	metricsapi "k8s.io/metrics/pkg/apis/external_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics/install"

	"metrics-server/pkg/api"
	"metrics-server/pkg/api/metricgroup"
	"metrics-server/pkg/api/openapi"
)

// Group is external.metrics.k8s.io in its only version.
var Group = api.NewGroup(metricsapi.GroupName, newScheme(), openapi.GetOpenAPIDefinitions)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	install.Install(s)
	return s
}

// Values provides the values of metrics. An error's text is the answer to the client: the HPA controller
// copies it into conditions and Events, so it should be stable and say what to do.
type Values interface {
	// External returns the value of a metric. The name is the one in the request, mostly in lower case.
	External(ctx context.Context, namespace, metric string, selector labels.Selector) (metricgroup.Value, error)
}

// Install adds the group to s, with the path that k8s.io/metrics/pkg/client/external_metrics requests.
func Install(s *genericapiserver.GenericAPIServer, values Values) {
	g := &metricgroup.Group{
		Group: Group, Kind: "ExternalMetricValueList", Verb: "list",
		Routes: []metricgroup.Route{{
			Path: "/namespaces/{namespace}/{metric}", Operation: "listNamespacedMetric",
			Doc: "get a metric that HorizontalPodAutoscalers of a namespace refer to",
		}},
		Parameters: map[string]string{
			"namespace": "namespace of the HorizontalPodAutoscalers", "metric": "name of the metric",
		},
		Query: map[string]string{"labelSelector": "selects series by label"},
		Answer: func(r *http.Request, info *request.RequestInfo) (runtime.Object, error) {
			return answer(r, info, values)
		},
	}
	g.Install(s)
}

// answer returns a list with one item, which covers all series that the selector selects.
func answer(r *http.Request, info *request.RequestInfo, values Values) (*metricsapi.ExternalMetricValueList, error) {
	of := schema.GroupResource{Group: Group.Name, Resource: info.Resource}
	if info.Verb != "list" || info.Namespace == "" || len(info.Parts) != 1 {
		return nil, apierrors.NewNotFound(of, info.Name)
	}
	selector, repeated, err := metricgroup.SeriesSelector(r, "labelSelector")
	if err != nil {
		return nil, err
	}
	v, err := values.External(r.Context(), info.Namespace, info.Resource, selector)
	if err != nil {
		return nil, metricgroup.NotFound(of, "", err)
	}
	found := map[string]string{} // labels that all selected series have
	if repeated != nil {
		found = repeated.MatchLabels
	}
	return &metricsapi.ExternalMetricValueList{Items: []metricsapi.ExternalMetricValue{{
		MetricName:    info.Resource,
		MetricLabels:  found,
		Timestamp:     metav1.NewTime(v.Time),
		WindowSeconds: v.WindowSeconds(),
		Value:         v.Quantity(),
	}}}, nil
}
