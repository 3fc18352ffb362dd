package adminfile

import (
	"maps"
	"slices"
)

// presets are the metrics of known controllers, by the name of the controller, the default one first. NAMESPACE, NAME
// and PERIOD in a query stand for the two labels and the range of rates.
var presets = map[string][]Metric{
	// ingress-nginx 1.15 counts requests by the labels namespace, ingress and service, among others
	// (internal/ingress/metric/collectors/socket.go). A page's label namespace becomes exported_namespace, because the
	// scraped pod has a namespace of its own. The default server, which answers requests for unknown hosts, has empty
	// labels.
	"ingress-nginx": {
		{
			Resource: "ingresses.networking.k8s.io", NamespaceLabel: "exported_namespace", NameLabel: "ingress",
			Query: "sum by (NAMESPACE, NAME) (rate(nginx_ingress_controller_requests[PERIOD]))",
		},
		{
			Resource: "services", NamespaceLabel: "exported_namespace", NameLabel: "service",
			Query: "sum by (NAMESPACE, NAME) (rate(nginx_ingress_controller_requests[PERIOD]))",
		},
	},
	// Envoy Gateway makes a cluster of each rule of an HTTPRoute and calls it httproute/NAMESPACE/NAME/rule/NUMBER. Its
	// proxies have Envoy's statistics of clusters at port 19001.
	"envoy-gateway": {{
		Resource: "httproutes.gateway.networking.k8s.io", Path: "/stats/prometheus",
		NamespaceLabel: "httproute_namespace", NameLabel: "httproute",
		Query: `sum by (NAMESPACE, NAME) (label_replace(label_replace(
  rate(envoy_cluster_upstream_rq_total{envoy_cluster_name=~"httproute/[^/]+/[^/]+/rule/.+"}[PERIOD]),
  "NAMESPACE", "$1", "envoy_cluster_name", "httproute/([^/]+)/.*"),
  "NAME", "$1", "envoy_cluster_name", "httproute/[^/]+/([^/]+)/.*"))`,
	}},
}

func presetNames() []string { return slices.Sorted(maps.Keys(presets)) }

// presetResources returns the resources of the objects that presets are about.
func presetResources() (names []string) {
	for _, name := range presetNames() {
		for _, m := range presets[name] {
			names = append(names, m.Resource)
		}
	}
	return names
}
