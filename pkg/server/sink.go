package server

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/store"
)

// sink takes the answers of kubelets to the store, counts what was refused and logs whose it was, and has
// conflicts about pods settled. It implements scrape.Sink.
type sink struct {
	store   *store.Store
	owners  *owners
	metrics *sinkMetrics

	mu       sync.Mutex
	refusing map[string]time.Time // nodes of whose answers something is refused, and when that was last so
}

// refusalCalm is how long nothing of a node's answers must be refused before that is news again: one that lies now and then is
// not to fill the log.
const refusalCalm = time.Minute

type sinkMetrics struct {
	refused   [sample.NumReasons]prometheus.Counter
	conflicts prometheus.Counter
}

func newSink(s *store.Store, o *owners, r prometheus.Registerer) *sink {
	return &sink{store: s, owners: o, metrics: newSinkMetrics(s, r), refusing: map[string]time.Time{}}
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
	refused[sample.TimestampOld] += report.Old
	refused[sample.Excess] += report.Excess
	k.Refused(&refused)
	k.tell(node, &refused, received)
	k.metrics.conflicts.Add(float64(len(report.Conflicts)))
	for _, c := range report.Conflicts {
		k.owners.ask(c.Namespace, c.Pod)
	}
	return report.Settled
}

// tell logs when samples of a node begin to be refused, and when they are accepted again.
func (k *sink) tell(node string, r *sample.Refusals, received time.Time) {
	switch begins, ends := k.note(node, r.Total() > 0, received); {
	case begins:
		klog.InfoS("samples of a node begin to be refused: the rest of its answers is served", "node", node, "samples", r.String(),
			"remedy", "look at what its kubelet says: kubectl get --raw /api/v1/nodes/"+node+"/proxy/metrics/resource")
	case ends:
		klog.InfoS("samples of a node are no longer refused", "node", node)
	}
}

// note notes whether something of an answer was refused, and says whether that begins or ends.
func (k *sink) note(node string, refused bool, received time.Time) (begins, ends bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	last, refusing := k.refusing[node]
	switch {
	case refused:
		k.refusing[node] = received
		return !refusing, false
	case refusing && received.Sub(last) > refusalCalm:
		delete(k.refusing, node)
		return false, true
	}
	return false, false
}

// forget drops what is known of a node that left the cluster, of which no answer will come.
func (k *sink) forget(node string) {
	k.store.RemoveNode(node)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.refusing, node)
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
