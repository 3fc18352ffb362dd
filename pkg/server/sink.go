package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/store"
)

// sink takes the answers of kubelets to the store, counts what was refused, and has conflicts
// about pods settled. It implements scrape.Sink.
type sink struct {
	store   *store.Store
	owners  *owners
	metrics *sinkMetrics
}

type sinkMetrics struct {
	refused   [sample.NumReasons]prometheus.Counter
	conflicts prometheus.Counter
}

func newSink(s *store.Store, o *owners, r prometheus.Registerer) *sink {
	return &sink{store: s, owners: o, metrics: newSinkMetrics(s, r)}
}

func newSinkMetrics(s *store.Store, r prometheus.Registerer) *sinkMetrics {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "metrics_server_samples_refused_total",
		Help: "Number of samples of kubelets that were refused, by reason.",
	}, []string{"reason"})
	m := &sinkMetrics{
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "metrics_server_pod_conflicts_total",
			Help: "Number of times that a node claimed a pod that another node claims too.",
		}),
	}
	for i := range m.refused {
		m.refused[i] = refused.WithLabelValues(sample.Reason(i).String())
	}
	r.MustRegister(refused, m.conflicts, pointsCollector{s})
	return m
}

// Record implements scrape.Sink.
func (k *sink) Record(node string, b *sample.Batch, received time.Time) (settled bool) {
	report := k.store.Record(node, b, received)
	k.Refused(&b.Refused)
	k.Refused(&sample.Refusals{sample.TimestampOld: report.Old, sample.Excess: report.Excess})
	k.metrics.conflicts.Add(float64(len(report.Conflicts)))
	for _, c := range report.Conflicts {
		k.owners.ask(c.Namespace, c.Pod)
	}
	return report.Settled
}

// Refused implements scrape.Sink.
func (k *sink) Refused(r *sample.Refusals) {
	for reason, n := range r {
		if n > 0 {
			k.metrics.refused[reason].Add(float64(n))
		}
	}
}

// pointsCollector tells how many samples the store holds.
type pointsCollector struct{ store *store.Store }

var pointsDesc = prometheus.NewDesc("metrics_server_storage_points",
	"Number of samples stored, by type of object.", []string{"type"}, nil)

func (c pointsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- pointsDesc }

func (c pointsCollector) Collect(ch chan<- prometheus.Metric) {
	nodes, containers := c.store.Points()
	ch <- prometheus.MustNewConstMetric(pointsDesc, prometheus.GaugeValue, float64(nodes), "node")
	ch <- prometheus.MustNewConstMetric(pointsDesc, prometheus.GaugeValue, float64(containers), "container")
}
