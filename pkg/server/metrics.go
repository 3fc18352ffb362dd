package server

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/component-base/metrics/prometheus/slis"
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
