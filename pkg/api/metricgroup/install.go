package metricgroup

import (
	"maps"
	"slices"
	"strings"

	"github.com/emicklei/go-restful/v3"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	genericapiserver "k8s.io/apiserver/pkg/server"

	"metrics-server/pkg/kubeapi"
)

// Install adds the group to s.
func (g *Group) Install(s *genericapiserver.GenericAPIServer) {
	versions := g.Scheme.PrioritizedVersionsForGroup(g.Name)
	slices.SortFunc(versions, func(a, b schema.GroupVersion) int { // the newest first, which is preferred
		return version.CompareKubeAwareVersionStrings(b.Version, a.Version)
	})
	group := metav1.APIGroup{Name: g.Name}
	for _, v := range versions {
		group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{
			GroupVersion: v.String(), Version: v.Version,
		})
		h := &handler{Group: g, version: v}
		s.Handler.GoRestfulContainer.Add(h.webService())
		s.AggregatedDiscoveryGroupManager.AddGroupVersion(v.Group, apidiscoveryv2.APIVersionDiscovery{
			Version: v.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent,
			Resources: []apidiscoveryv2.APIResourceDiscovery{{
				Resource: kubeapi.AnyResource, Scope: apidiscoveryv2.ScopeNamespace, Verbs: []string{g.Verb},
				ResponseKind: &metav1.GroupVersionKind{Group: v.Group, Version: v.Version, Kind: g.Kind},
			}},
		})
	}
	group.PreferredVersion = group.Versions[0]
	s.DiscoveryGroupManager.AddGroup(group)
	s.Handler.GoRestfulContainer.Add(discovery.NewAPIGroupHandler(s.Serializer, group).WebService())
}

// webService returns the routes of a version, and its discovery document. OpenAPI omits the response models:
// they would pull in all of core/v1.
func (h *handler) webService() *restful.WebService {
	ws := new(restful.WebService)
	ws.Path(genericapiserver.APIGroupPrefix + "/" + h.version.String())
	ws.Doc("API at " + genericapiserver.APIGroupPrefix + "/" + h.version.String())
	discovery.NewAPIVersionHandler(h.Codecs, h.version, discovery.APIResourceListerFunc(h.resources)).
		AddToWebService(ws)
	serve := metrics.InstrumentRouteFunc(strings.ToUpper(h.Verb), h.version.Group, h.version.Version,
		kubeapi.AnyResource, "", "resource", metrics.APIServerComponent, false, "", h.serve)
	types := make([]string, 0, 3)
	for _, t := range h.Codecs.SupportedMediaTypes() {
		types = append(types, t.MediaType)
	}
	for _, r := range h.Routes {
		b := ws.GET(r.Path).To(serve).Operation(r.Operation + h.version.Version).Doc(r.Doc).Produces(types...)
		for _, p := range slices.Sorted(maps.Keys(h.Query)) {
			b.Param(ws.QueryParameter(p, h.Query[p]))
		}
		for p := range strings.SplitSeq(r.Path, "/") {
			if name, ok := strings.CutPrefix(p, "{"); ok {
				name = strings.TrimSuffix(name, "}")
				b.Param(ws.PathParameter(name, h.Parameters[name]))
			}
		}
		ws.Route(b)
	}
	return ws
}

// resources is the constant list of resources in discovery.
func (h *handler) resources() []metav1.APIResource {
	return []metav1.APIResource{{
		Name: kubeapi.AnyResource, Namespaced: true, Kind: h.Kind,
		Group: h.version.Group, Version: h.version.Version, Verbs: metav1.Verbs{h.Verb},
	}}
}
