package server

import (
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/component-base/metrics/prometheus/slis"

	"metrics-server/pkg/sample"
)

// installMetrics serves the metrics of the libraries and those of own at /metrics.
func installMetrics(m *mux.PathRecorderMux, own prometheus.Gatherer) {
	// Registering the generic API server's metrics is only to be had together with a handler,
	// which would not know our own.
	routes.DefaultMetrics{}.Install(mux.NewPathRecorderMux("unused"))
	m.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{legacyregistry.DefaultGatherer, own},
		promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	slis.SLIMetrics{}.Install(m)
}

// podsCollector tells of how many of the pods that run a usage can be served. It counts when it is asked: a pod costs
// about as much as in a list, and nobody asks more often than every few seconds.
type podsCollector struct {
	all   func(namespace string) iter.Seq[sample.Object]
	usage func(namespace, pod string, now time.Time, into *sample.PodUsage) bool
}

var podsDesc = prometheus.NewDesc("metrics_server_pods",
	"Number of running pods, by whether a usage of theirs is served or missing.", []string{"usage"}, nil)

// Describe implements prometheus.Collector.
func (c podsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- podsDesc }

// Collect implements prometheus.Collector.
func (c podsCollector) Collect(ch chan<- prometheus.Metric) {
	var served, missing int
	var into sample.PodUsage
	now := time.Now()
	for p := range c.all("") {
		if c.usage(p.Namespace, p.Name, now, &into) {
			served++
		} else {
			missing++
		}
	}
	ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(served), "served")
	ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(missing), "missing")
}
