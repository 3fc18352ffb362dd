// Package kubeapi has what several packages need to know about Kubernetes and about this program's
// manifests: names, ports, annotations, and why requests to the API server fail. It has no state.
package kubeapi

// Kubelets.
const (
	// KubeletPort is the port on which kubelets listen by default.
	KubeletPort = 10250
	// KubeletPath is the path of a kubelet's resource metrics.
	KubeletPath = "/metrics/resource"
	// PathAnnotation is the annotation of a Node that replaces KubeletPath.
	PathAnnotation = "metrics.k8s.io/resource-metrics-path"
)

// AddressTypes returns the types of node addresses, in the order in which the API server itself
// prefers them.
func AddressTypes() []string {
	return []string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"}
}

// The ConfigMap in kube-system in which the API server publishes how requests are authenticated, and
// its key with the authority that signs the front proxy's certificate.
const (
	AuthenticationConfigMap = "extension-apiserver-authentication"
	FrontProxyCAKey         = "requestheader-client-ca-file"
)

// The Secret of the serving certificate, in deploy/ and in a Helm release of the chart's own name, is called as
// the server's Deployment is, with ServingSecretSuffix.
const (
	ServingSecretSuffix = "-serving"
	ServingSecret       = "metrics-server" + ServingSecretSuffix
)

// MetricsGroup is the API group that this program serves.
const MetricsGroup = "metrics.k8s.io"

// MetricsVersions returns the served versions of MetricsGroup, the preferred one first.
func MetricsVersions() []string { return []string{"v1", "v1beta1"} }

// MetricsAPIServices returns the names of the APIServices of MetricsVersions.
func MetricsAPIServices() []string { return apiServices(MetricsGroup, MetricsVersions()) }

// CustomMetricsGroup is the API group that the command custom-metrics serves.
const CustomMetricsGroup = "custom.metrics.k8s.io"

// CustomMetricsVersions returns the served versions of CustomMetricsGroup, the preferred one first.
func CustomMetricsVersions() []string { return []string{"v1beta2", "v1beta1"} }

// CustomMetricsAPIServices returns the names of the APIServices of CustomMetricsVersions.
func CustomMetricsAPIServices() []string {
	return apiServices(CustomMetricsGroup, CustomMetricsVersions())
}

// ExternalMetricsGroup is the API group of metrics of type External, and ExternalMetricsVersion its only version.
// The command custom-metrics serves it if it is told to; other programs often do.
const (
	ExternalMetricsGroup   = "external.metrics.k8s.io"
	ExternalMetricsVersion = "v1beta1"
)

// ExternalMetricsAPIServices returns the name of the only APIService of ExternalMetricsGroup.
func ExternalMetricsAPIServices() []string {
	return apiServices(ExternalMetricsGroup, []string{ExternalMetricsVersion})
}

// AnyResource is the only resource that the command custom-metrics lists in discovery, in both groups. It stands for
// all: clients that look for the groups find them, and no resource has this name, because it contains a slash.
const AnyResource = "*/*"

func apiServices(group string, versions []string) []string {
	names := make([]string, len(versions))
	for i, version := range versions {
		names[i] = version + "." + group
	}
	return names
}

// APIServicePath returns the path of an APIService in the API server.
func APIServicePath(name string) string {
	return "/apis/apiregistration.k8s.io/v1/apiservices/" + name
}
