package apiserver

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet/kubelettest"
)

// fixedObjects returns the answers that do not change, by path: discovery, and what the doctor reads of metrics-server.
func (s *Server) fixedObjects() map[string]any {
	const system = "/namespaces/" + serverNamespace
	proxyCA := kubelettest.NewCA("front-proxy").PEM()
	empty := func(apiVersion, kind string) any {
		return map[string]any{"kind": kind, "apiVersion": apiVersion, "items": []any{}, "metadata": map[string]any{}}
	}
	metadata := func(name string) any { return ownerObject(key{serverNamespace, name}, nil) }
	all := map[string]any{
		"/version": map[string]string{
			"major": "1", "minor": "37", "gitVersion": kubernetesVersion, "goVersion": "go1.26.0", "platform": "linux/amd64",
		},
		"/livez": "ok", "/readyz": "ok", "/healthz": "ok",
		"/api": map[string]any{"kind": "APIVersions", "versions": []string{"v1"}},
		"/api/v1" + system + "/services/" + serverName: &corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Namespace: serverNamespace, Name: serverName},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"k8s-app": serverName},
				Ports:    []corev1.ServicePort{{Name: "https", Port: 443, TargetPort: intstr.FromString("https")}},
			},
		},
		"/apis/discovery.k8s.io/v1" + system + "/endpointslices": &discoveryv1.EndpointSliceList{
			TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"},
			Items: []discoveryv1.EndpointSlice{{
				Ports: []discoveryv1.EndpointPort{{Name: new("https")}},
				Endpoints: []discoveryv1.Endpoint{{
					Addresses: []string{"172.16.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
				}},
			}},
		},
		"/apis/apps/v1" + system + "/deployments": empty("apps/v1", "DeploymentList"),
		"/api/v1" + system + "/events":            empty("v1", "EventList"),
		"/api/v1" + system + "/configmaps/" + kubeapi.AuthenticationConfigMap: &corev1.ConfigMap{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			Data:     map[string]string{kubeapi.FrontProxyCAKey: string(proxyCA)},
		},
		"/api/v1" + system + "/serviceaccounts/metrics-server":          metadata("metrics-server"),
		"/api/v1" + system + "/serviceaccounts/metrics-server-kubelets": metadata("metrics-server-kubelets"),
		"/api/v1" + system + "/secrets/" + kubeapi.ServingSecret:        metadata(kubeapi.ServingSecret),
		"/apis/authorization.k8s.io/v1/subjectaccessreviews": map[string]any{
			"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": map[string]any{"allowed": true},
		},
	}
	register := func(group, namespace, service string, versions []string) {
		for _, v := range versions {
			all[kubeapi.APIServicePath(v+"."+group)] = apiService(v, group, namespace, service)
		}
	}
	register(kubeapi.MetricsGroup, serverNamespace, serverName, s.metricsVersions())
	register(kubeapi.CustomMetricsGroup, "custom-metrics", "custom-metrics-server", kubeapi.CustomMetricsVersions())
	s.discovery(all)
	return all
}

// discovery adds the documents of discovery.
func (s *Server) discovery(all map[string]any) {
	resources := map[string][]metav1.APIResource{} // by API version
	for _, c := range s.collections() {
		r := metav1.APIResource{Name: c.name, Kind: c.kind, Namespaced: c.namespaced, Verbs: metav1.Verbs{"get", "list"}}
		if !c.listOnly {
			r.Verbs = append(r.Verbs, "watch")
		}
		if c.short != "" {
			r.ShortNames = []string{c.short}
		}
		resources[c.apiVersion()] = append(resources[c.apiVersion()], r)
	}
	read := metav1.Verbs{"get", "list"}
	resources["v1"] = append(resources["v1"],
		metav1.APIResource{Name: "namespaces", Kind: "Namespace", Verbs: read},
		metav1.APIResource{Name: "services", Kind: "Service", Namespaced: true, Verbs: read})
	for _, w := range []struct{ name, kind string }{
		{"deployments", "Deployment"},
		{"statefulsets", "StatefulSet"},
		{"daemonsets", "DaemonSet"},
		{"replicasets", "ReplicaSet"},
	} {
		resources["apps/v1"] = append(resources["apps/v1"],
			metav1.APIResource{Name: w.name, Kind: w.kind, Namespaced: true, Verbs: read},
			metav1.APIResource{
				Name: w.name + "/scale", Group: "autoscaling", Version: "v1", Kind: "Scale", Namespaced: true, Verbs: read,
			})
	}
	custom := apiVersionOf(kubeapi.CustomMetricsGroup, kubeapi.CustomMetricsVersions()[0])
	resources[custom] = []metav1.APIResource{{Name: kubeapi.AnyResource, Kind: "MetricValueList", Verbs: read[:1]}}

	groups := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIGroupList"}}
	for _, g := range []struct {
		name     string
		versions []string
	}{
		{"apps", []string{"v1"}},
		{"autoscaling", []string{"v2"}},
		{kubeapi.MetricsGroup, s.metricsVersions()},
		{kubeapi.CustomMetricsGroup, kubeapi.CustomMetricsVersions()[:1]},
	} {
		group := metav1.APIGroup{Name: g.name}
		for _, v := range g.versions {
			group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{
				GroupVersion: apiVersionOf(g.name, v), Version: v,
			})
		}
		group.PreferredVersion = group.Versions[0]
		groups.Groups = append(groups.Groups, group)
		group.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "APIGroup"}
		all["/apis/"+g.name] = &group
	}
	all["/apis"] = groups
	for apiVersion, list := range resources {
		path := "/apis/" + apiVersion
		if apiVersion == "v1" {
			path = "/api/v1"
		}
		all[path] = &metav1.APIResourceList{
			TypeMeta:     metav1.TypeMeta{APIVersion: "v1", Kind: "APIResourceList"},
			GroupVersion: apiVersion, APIResources: list,
		}
	}
}
