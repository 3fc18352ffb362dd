package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"metrics-server/pkg/sample"
)

// serverMetrics are the metrics of this package.
type serverMetrics struct {
	freshness prometheus.Histogram
}

func newServerMetrics(r prometheus.Registerer) (*serverMetrics, error) {
	m := &serverMetrics{
		freshness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "metrics_server_api_metric_freshness_seconds",
			Help:    "Age of the usage of each node or pod at the moment it was served.",
			Buckets: prometheus.ExponentialBuckets(1, 1.364, 20),
		}),
	}
	if r == nil {
		return m, nil
	}
	return m, r.Register(m.freshness)
}

// served notes that a usage of time t was served at now.
func (m *serverMetrics) served(t sample.Time, now time.Time) {
	m.freshness.Observe(now.Sub(t.Std()).Seconds())
}
