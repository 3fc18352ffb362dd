package resource

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/install"

	"metrics-server/pkg/api"
	"metrics-server/pkg/api/openapi"
)

// Group is metrics.k8s.io in every version; v1 is preferred.
var Group = api.NewGroup(metrics.GroupName, newScheme(), openapi.GetOpenAPIDefinitions, "nodes", "pods")

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	install.Install(s)
	for _, v := range s.PrioritizedVersionsForGroup(metrics.GroupName) {
		utilruntime.Must(s.AddFieldLabelConversionFunc(v.WithKind("NodeMetrics"), onlyFields("nodes", api.FieldName)))
		utilruntime.Must(s.AddFieldLabelConversionFunc(v.WithKind("PodMetrics"),
			onlyFields("pods", api.FieldName, api.FieldNamespace, api.FieldNodeName)))
	}
	return s
}

// onlyFields rejects field selectors on any but the supported fields.
func onlyFields(resource string, supported ...string) runtime.FieldLabelConversionFunc {
	return func(field, value string) (string, string, error) {
		if !slices.Contains(supported, field) {
			return "", "", fmt.Errorf("field selector %q is not supported for %s: use %s",
				field, resource, strings.Join(supported, ", "))
		}
		return field, value, nil
	}
}
