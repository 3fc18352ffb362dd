package resource

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"metrics-server/pkg/sample"
)

// ownMetrics are the metrics of this package.
type ownMetrics struct {
	freshness prometheus.Histogram
}

func newOwnMetrics(r prometheus.Registerer) (*ownMetrics, error) {
	m := &ownMetrics{
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

// served records that a usage with time t was served at now.
func (m *ownMetrics) served(t sample.Time, now time.Time) {
	m.freshness.Observe(now.Sub(t.Std()).Seconds())
}
