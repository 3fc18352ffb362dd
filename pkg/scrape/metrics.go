package scrape

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"

	"metrics-server/pkg/schedule"
)

// metrics are the metrics over all nodes. The series of single nodes are built when they are
// collected.
type metrics struct {
	succeeded, failed prometheus.Counter
	failures          *prometheus.CounterVec
	cycle             prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, s *schedule.Scheduler) *metrics {
	auto := promauto.With(r)
	requests := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "metrics_server_kubelet_request_total",
		Help: "Number of requests sent to kubelets, by whether they succeeded.",
	}, []string{"success"})
	m := &metrics{
		succeeded: requests.WithLabelValues("true"),
		failed:    requests.WithLabelValues("false"),
		failures: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "metrics_server_kubelet_scrape_failures_total",
			Help: "Number of failed scrapes of kubelets, by cause.",
		}, []string{"cause"}),
		cycle: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "metrics_server_manager_tick_duration_seconds",
			Help: "Time from the moment a scrape is due until its samples are stored: waiting for a turn, request and " +
				"storing.",
			Buckets: prometheus.DefBuckets,
		}),
	}
	if r != nil {
		r.MustRegister(&nodeCollector{
			schedule: s,
			last: prometheus.NewDesc("metrics_server_kubelet_last_request_time_seconds",
				"Time when the last request to a node's kubelet ended, in seconds since 1970.", []string{"node"}, nil),
			duration: prometheus.NewDesc("metrics_server_kubelet_request_duration_seconds",
				"Duration of requests to a node's kubelet.", []string{"node"}, nil),
		}, &statusCollector{
			schedule: s,
			nodes: prometheus.NewDesc("metrics_server_nodes",
				"Number of nodes, by how their last scrape went: waiting for the first one, failing, complete, or incomplete "+
					"if something that it lists has no usage yet.",
				[]string{"state"}, nil),
			failing: prometheus.NewDesc("metrics_server_failing_nodes",
				"Number of nodes whose last scrape failed, by cause.", []string{"cause"}, nil),
		})
	}
	return m
}

func (m *metrics) count(r *schedule.Report) {
	if r.After.Failing() {
		m.failed.Inc()
		m.failures.WithLabelValues(r.After.Cause).Inc()
		return
	}
	m.succeeded.Inc()
	m.cycle.Observe(r.Ended.Sub(r.Due).Seconds())
}

// bounds are the upper bounds of the buckets of request durations. It is an array, unlike
// DefBuckets, so that the counters of a node can be one too.
var bounds = [11]float64(prometheus.DefBuckets)

// durations is the histogram of one node's request durations. It takes 56 bytes; a histogram of
// client_golang takes more than a kilobyte.
type durations struct {
	counts [len(bounds) + 1]uint32 // by bucket, not cumulative; the last is +Inf
	sum    time.Duration
}

func (d *durations) observe(v time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], v.Seconds())
	d.counts[i]++
	d.sum += v
}

// nodeCollector builds the series of each node that was scraped.
type nodeCollector struct {
	schedule       *schedule.Scheduler
	last, duration *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *nodeCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.last
	out <- c.duration
}

// Collect implements prometheus.Collector. It copies first, because out may block.
func (c *nodeCollector) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.histograms() {
		out <- prometheus.MustNewConstMetric(c.last, prometheus.GaugeValue, float64(m.ended.UnixMilli())/1000, m.target.name)
		out <- m
	}
}

func (c *nodeCollector) histograms() []*histogram {
	var all []*histogram
	c.schedule.Each(func(t schedule.Target, st *schedule.TargetStatus) {
		if !st.LastAttempt.IsZero() {
			all = append(all, &histogram{desc: c.duration, target: t.(*target), ended: st.LastAttempt.Add(st.Duration)})
		}
	})
	for _, h := range all { // not within Each: a Sink may hold the lock of a target
		h.durations = h.target.observed()
	}
	return all
}

// statusCollector counts the nodes in each state.
type statusCollector struct {
	schedule       *schedule.Scheduler
	nodes, failing *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *statusCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.nodes
	out <- c.failing
}

// Collect implements prometheus.Collector.
func (c *statusCollector) Collect(out chan<- prometheus.Metric) {
	st := c.schedule.Status()
	gauge := func(d *prometheus.Desc, n int, label string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), label)
	}
	gauge(c.nodes, st.Waiting, "waiting")
	gauge(c.nodes, st.Settled, "complete")
	gauge(c.nodes, st.Answered-st.Settled, "incomplete")
	gauge(c.nodes, st.Failing, "failing")
	for _, cause := range st.Causes {
		gauge(c.failing, cause.Targets, cause.Cause)
	}
}

// histogram is a copy of one node's durations, as a prometheus.Metric.
type histogram struct {
	durations
	desc   *prometheus.Desc
	target *target
	ended  time.Time
}

// Desc implements prometheus.Metric.
func (h *histogram) Desc() *prometheus.Desc { return h.desc }

// Write implements prometheus.Metric.
func (h *histogram) Write(out *dto.Metric) error {
	var total uint64
	buckets := make([]*dto.Bucket, len(bounds))
	var cells [len(bounds)]struct { // one allocation for what buckets points to
		bucket dto.Bucket
		count  uint64
	}
	for i := range bounds {
		total += uint64(h.counts[i])
		c := &cells[i]
		c.count = total
		c.bucket.UpperBound, c.bucket.CumulativeCount = &bounds[i], &c.count
		buckets[i] = &c.bucket
	}
	total += uint64(h.counts[len(bounds)])
	out.Label = []*dto.LabelPair{{Name: new("node"), Value: &h.target.name}}
	out.Histogram = &dto.Histogram{SampleCount: &total, SampleSum: new(h.sum.Seconds()), Bucket: buckets}
	return nil
}
