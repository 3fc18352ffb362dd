// Package api is an engine for read-only API groups on a generic API server: content negotiation,
// get, list and watch with selectors, and streaming encoders. It knows no group; each is a package of its
// own that describes its types (Group) and what is served of them (Resource).
//
// For each request the engine joins the existing objects (Objects) with their current values
// (Resource.Read). It keeps no state, so everything in it is safe for concurrent use; what a group
// provides must be too.
//
// Lists are streamed: JSON, protobuf and Tables are encoded directly from the values, without
// building API objects (see lazy). Unusual formats are left to the generic server.
//
// Lists are complete and in the order of Objects: limit is ignored and no continue token is ever
// returned.
//
// Watches compare what each client has with what is served, instead of queueing events (see watcher).
package api

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	openapicommon "k8s.io/kube-openapi/pkg/common"

	"metrics-server/pkg/sample"
)

// Objects provides the existing objects of one resource.
type Objects interface {
	Get(namespace, name string) (sample.Object, bool)
	// All yields the objects of a namespace, or of all namespaces if it is empty, sorted by
	// namespace and name. If selects is not nil, objects whose labels it rejects are omitted; its
	// result may be reused for labels that are the same slice.
	All(namespace string, selects func(sample.Labels) bool) iter.Seq[sample.Object]
}

// Group describes an API group. It is immutable. Create it with NewGroup.
type Group struct {
	Name   string
	Scheme *runtime.Scheme
	// Codecs encodes and decodes the types of the group as JSON, YAML and protobuf.
	Codecs serializer.CodecFactory

	resources   []string
	definitions openapicommon.GetOpenAPIDefinitions
	encodings   map[runtime.Identifier]encoding // by standard encoder
}

// NewGroup returns the group of a name, whose types are in scheme and their OpenAPI models in
// definitions. It adds the types that all groups share to scheme, which belongs to the group from
// then on. The names of resources appear in the labels of metrics.
func NewGroup(
	name string, scheme *runtime.Scheme, definitions openapicommon.GetOpenAPIDefinitions, resources ...string,
) *Group {
	// Options, Status and discovery belong to the version without a group.
	unversioned := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(scheme, unversioned)
	scheme.AddUnversionedTypes(unversioned,
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	g := &Group{
		Name: name, Scheme: scheme, Codecs: serializer.NewCodecFactory(scheme),
		resources: resources, definitions: definitions,
	}
	g.encodings = g.newEncodings()
	return g
}

// Install adds the group to s, with the same storages, by name of the resource, in every version.
func (g *Group) Install(s *genericapiserver.GenericAPIServer, storages map[string]rest.Storage) error {
	info := genericapiserver.NewDefaultAPIGroupInfo(g.Name, g.Scheme, metav1.ParameterCodec, g.Codecs)
	for _, v := range info.PrioritizedVersions {
		info.VersionedResourcesStorageMap[v.Version] = storages
	}
	if err := s.InstallAPIGroup(&info); err != nil {
		return fmt.Errorf("install the API group %s: %w", g.Name, err)
	}
	return nil
}

// Has reports whether a request is for a resource of the group, in a version that the group has.
func (g *Group) Has(info *genericapirequest.RequestInfo) bool {
	return info.IsResourceRequest && info.APIGroup == g.Name && info.Subresource == "" &&
		slices.Contains(g.resources, info.Resource) &&
		g.Scheme.IsVersionRegistered(schema.GroupVersion{Group: g.Name, Version: info.APIVersion})
}

// Configure makes c publish the OpenAPI v2 and v3 models of groups.
func Configure(c *genericapiserver.Config, title, version string, groups ...*Group) {
	var schemes []*runtime.Scheme
	for _, g := range groups {
		schemes = append(schemes, g.Scheme)
	}
	definitions := func(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
		all := map[string]openapicommon.OpenAPIDefinition{}
		for _, g := range groups {
			maps.Copy(all, g.definitions(ref))
		}
		return all
	}
	namer := openapinamer.NewDefinitionNamer(schemes...)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	c.OpenAPIConfig.Info.Title, c.OpenAPIV3Config.Info.Title = title, title
	c.OpenAPIConfig.Info.Version, c.OpenAPIV3Config.Info.Version = version, version
}
