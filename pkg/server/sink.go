package server

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/store"
)

// sink stores the responses of kubelets. It counts refused samples, logs which nodes they came from
// and which responses lack series, and passes conflicts about pods to owners. It implements
// scrape.Sink.
type sink struct {
	store   *store.Store
	owners  *owners
	metrics *sinkMetrics

	mu       sync.Mutex
	refusing incidents         // nodes with refused samples
	lacking  incidents         // nodes whose responses lack series
	lacks    map[string]string // the series that the last response of a node lacked; absent if none
}

// incidents maps each node with an ongoing problem to the time at which the problem was last seen.
type incidents map[string]time.Time

// quietPeriod is how long a problem must not be seen before it counts as ended. It keeps a node
// with an intermittent problem from flooding the log.
const quietPeriod = time.Minute

// transition reports whether a problem begins or ends.
type transition struct{ begins, ends bool }

// note records whether the problem was seen on a node and reports whether it thereby begins or
// ends.
func (i incidents) note(node string, seen bool, at time.Time) transition {
	last, ongoing := i[node]
	switch {
	case seen:
		i[node] = at
		return transition{begins: !ongoing}
	case ongoing && at.Sub(last) > quietPeriod:
		delete(i, node)
		return transition{ends: true}
	}
	return transition{}
}

type sinkMetrics struct {
	refused   [sample.NumReasons]prometheus.Counter
	conflicts prometheus.Counter
}

func newSink(s *store.Store, o *owners, r prometheus.Registerer) *sink {
	return &sink{
		store: s, owners: o, metrics: newSinkMetrics(s, r),
		refusing: incidents{}, lacking: incidents{}, lacks: map[string]string{},
	}
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
	refused := b.Refused
	refused.Add(&report.Refused)
	k.Refused(&refused)
	k.logTransitions(node, &refused, b.Clock(), kubelet.Lacking(b), received)
	k.metrics.conflicts.Add(float64(len(report.Conflicts)))
	for _, c := range report.Conflicts {
		k.owners.ask(node, c)
	}
	return report.Settled
}

// logTransitions logs when refused samples or missing series of a node begin or end. clock
// describes the error of the node's clock, if that is the cause.
func (k *sink) logTransitions(node string, r *sample.Refusals, clock, lacks string, received time.Time) {
	refused, lacking := k.note(node, r.Total() > 0, lacks, received)
	switch {
	case refused.begins:
		cause, remedy := kubelet.ExplainRefused(r.Commonest())
		if clock != "" {
			cause += "; " + clock
		}
		klog.InfoS("Warning: Some samples of a node are refused; the rest of its answers is used", "node", node,
			"samples", r.String(), "cause", cause, "remedy", remedy+"; to see the kubelet's answer: "+rawMetrics(node))
	case refused.ends:
		klog.InfoS("Samples of a node are no longer refused", "node", node)
	}
	switch {
	case lacking.begins:
		klog.InfoS("Warning: Answers of a node lack series, so what depends on them is not served", "node", node,
			"series", lacks, "remedy", kubelet.RemedyRuntime+"; to see the kubelet's answer: "+rawMetrics(node))
	case lacking.ends:
		klog.InfoS("Answers of a node no longer lack series", "node", node)
	}
}

// rawMetrics returns the command that shows the metrics of a node's kubelet.
func rawMetrics(node string) string {
	return "kubectl get --raw /api/v1/nodes/" + node + "/proxy/metrics/resource"
}

// note records the problems of a node's response and returns their transitions.
func (k *sink) note(node string, refused bool, lacks string, received time.Time) (refusal, lack transition) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if lacks == "" {
		delete(k.lacks, node)
	} else {
		k.lacks[node] = lacks
	}
	return k.refusing.note(node, refused, received), k.lacking.note(node, lacks != "", received)
}

// lackedBy returns the series that the last response of a node lacked.
func (k *sink) lackedBy(node string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lacks[node]
}

// forget drops all state of a node that left the cluster.
func (k *sink) forget(node string) {
	k.store.RemoveNode(node)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.refusing, node)
	delete(k.lacking, node)
	delete(k.lacks, node)
}

// Refused implements scrape.Sink.
func (k *sink) Refused(r *sample.Refusals) {
	for reason, n := range r {
		if n > 0 {
			k.metrics.refused[reason].Add(float64(n))
		}
	}
}

// pointsCollector reports the number of samples in the store.
type pointsCollector struct{ store *store.Store }

var pointsDesc = prometheus.NewDesc("metrics_server_storage_points",
	"Number of samples stored, by type of object.", []string{"type"}, nil)

func (c pointsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- pointsDesc }

func (c pointsCollector) Collect(ch chan<- prometheus.Metric) {
	nodes, containers := c.store.Points()
	ch <- prometheus.MustNewConstMetric(pointsDesc, prometheus.GaugeValue, float64(nodes), "node")
	ch <- prometheus.MustNewConstMetric(pointsDesc, prometheus.GaugeValue, float64(containers), "container")
}
