package api

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/install"

	"metrics-server/pkg/api/openapi"
)

// The fields that a field selector may name.
const (
	fieldName      = "metadata.name"
	fieldNamespace = "metadata.namespace"
	fieldNodeName  = "spec.nodeName"
)

var (
	// Scheme knows the types of metrics.k8s.io in every version. v1 is the preferred one.
	Scheme = newScheme()
	// Codecs encodes and decodes them as JSON, YAML and protobuf.
	Codecs = serializer.NewCodecFactory(Scheme)
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	install.Install(s)
	for _, v := range s.PrioritizedVersionsForGroup(metrics.GroupName) {
		utilruntime.Must(s.AddFieldLabelConversionFunc(v.WithKind("NodeMetrics"), onlyFields("nodes", fieldName)))
		utilruntime.Must(s.AddFieldLabelConversionFunc(v.WithKind("PodMetrics"), onlyFields("pods", fieldName, fieldNamespace, fieldNodeName)))
	}
	// The types that every group shares (options, Status, discovery) live in the version without a group.
	unversioned := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(s, unversioned)
	s.AddUnversionedTypes(unversioned,
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return s
}

// onlyFields refuses every field selector but those on the supported fields.
func onlyFields(resource string, supported ...string) runtime.FieldLabelConversionFunc {
	return func(field, value string) (string, string, error) {
		if !slices.Contains(supported, field) {
			return "", "", fmt.Errorf("field selector %q is not supported for %s: use %s", field, resource, strings.Join(supported, ", "))
		}
		return field, value, nil
	}
}

// Configure makes c publish the models of the group in OpenAPI v2 and v3.
func Configure(c *genericapiserver.Config) {
	const title = "metrics-server"
	namer := openapinamer.NewDefinitionNamer(Scheme)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	c.OpenAPIConfig.Info.Title = title
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	c.OpenAPIV3Config.Info.Title = title
}
