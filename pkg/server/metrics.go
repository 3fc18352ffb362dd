package server

import (
	"iter"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"metrics-server/pkg/sample"
)

// newOwnCredentials reports whether kubelets are shown credentials that they could use elsewhere.
func newOwnCredentials(shown func() bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "metrics_server_kubelet_own_credentials",
		Help: "1 while kubelets are shown the server's own credentials, which whoever answers in a kubelet's place can " +
			"use; 0 while they are shown a token of --kubelet-service-account, a client certificate or nothing.",
	}, func() float64 {
		if shown() {
			return 1
		}
		return 0
	})
}

// podsCollector counts the running pods with and without a usage. Counting 150,000 pods takes about
// 0.2 s, as long as reading them for a list, so a count is reused for podsPeriod.
type podsCollector struct {
	all   func(namespace string, selects func(sample.Labels) bool) iter.Seq[sample.Object]
	usage func(namespace, pod string, now time.Time, into *sample.PodUsage) bool
	// someNodes means that only some nodes are scraped. Which pods should have a usage is then unknown.
	someNodes bool

	mu              sync.Mutex
	counted         time.Time
	served, missing int
}

// podsPeriod is how long a count is reused.
const podsPeriod = 30 * time.Second

var podsDesc = prometheus.NewDesc("metrics_server_pods",
	"Number of running pods, by whether a usage of theirs is served or missing; counted at most every 30 seconds. With "+
		"--node-selector, only those whose usage is served.",
	[]string{"usage"}, nil)

// Describe implements prometheus.Collector.
func (c *podsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- podsDesc }

// Collect implements prometheus.Collector.
func (c *podsCollector) Collect(ch chan<- prometheus.Metric) {
	served, missing := c.count(time.Now())
	ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(served), "served")
	if !c.someNodes {
		ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(missing), "missing")
	}
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
