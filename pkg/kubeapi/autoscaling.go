package kubeapi

// Annotations of a HorizontalPodAutoscaler. Every key that begins with AutoscalerPrefix is one of them or
// a mistake.
const (
	AutoscalerPrefix  = "metrics-server/"
	QueriesAnnotation = AutoscalerPrefix + "queries" // a YAML map from metric name to PromQL
	TargetsAnnotation = AutoscalerPrefix + "targets" // a YAML map from metric name to service/NAME:PORT
	PortAnnotation    = AutoscalerPrefix + "port"    // where the pods are scraped
	HPAPathAnnotation = AutoscalerPrefix + "path"
	SchemeAnnotation  = AutoscalerPrefix + "scheme"
	WindowAnnotation  = AutoscalerPrefix + "window" // the range of the rates in default expressions
	// BackendAnnotation names the backend that has the metrics, or is PodsBackend.
	BackendAnnotation = AutoscalerPrefix + "backend"
)

// PodsBackend is the value of BackendAnnotation that has pods scraped even if there is a default backend.
const PodsBackend = "pods"

// Annotations of a pod that say where it is scraped.
const (
	PodPortAnnotation   = "prometheus.io/port"
	PodPathAnnotation   = "prometheus.io/path"
	PodSchemeAnnotation = "prometheus.io/scheme"
)

// ScaleReaderLabel is the label of ClusterRoles that allow this program to read the scale of custom resources.
const ScaleReaderLabel = "metrics-server/aggregate-to-custom-metrics"
