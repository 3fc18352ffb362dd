package server

import (
	"iter"
	"sync"
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

// podsCollector tells of how many of the pods that run a usage can be served. To count 150,000 takes as long as to read them
// for a list, 0.2 s or so, so that is not done anew for everybody who asks.
type podsCollector struct {
	all   func(namespace string, selects func(sample.Labels) bool) iter.Seq[sample.Object]
	usage func(namespace, pod string, now time.Time, into *sample.PodUsage) bool

	mu              sync.Mutex
	counted         time.Time
	served, missing int
}

// podsPeriod is how long a count is good for.
const podsPeriod = 30 * time.Second

var podsDesc = prometheus.NewDesc("metrics_server_pods",
	"Number of running pods, by whether a usage of theirs is served or missing; counted every 30 seconds at most.", []string{"usage"}, nil)

// Describe implements prometheus.Collector.
func (c *podsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- podsDesc }

// Collect implements prometheus.Collector.
func (c *podsCollector) Collect(ch chan<- prometheus.Metric) {
	served, missing := c.count(time.Now())
	ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(served), "served")
	ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(missing), "missing")
}

func (c *podsCollector) count(now time.Time) (served, missing int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.counted.IsZero() && now.Sub(c.counted) < podsPeriod {
		return c.served, c.missing
	}
	var into sample.PodUsage
	for p := range c.all("", nil) {
		if c.usage(p.Namespace, p.Name, now, &into) {
			served++
		} else {
			missing++
		}
	}
	c.counted, c.served, c.missing = now, served, missing
	return served, missing
}
