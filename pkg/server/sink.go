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

// sink takes the answers of kubelets to the store, counts what was refused, logs whose it was and whose lack
// series, and has conflicts about pods settled. It implements scrape.Sink.
type sink struct {
	store   *store.Store
	owners  *owners
	metrics *sinkMetrics

	mu       sync.Mutex
	refusing spells            // of whose answers something is refused
	lacking  spells            // whose answers lack series
	lacks    map[string]string // which series the last answer of a node lacked; nothing of one that lacked none
}

// spells are the nodes of which something is wrong, and when it last was.
type spells map[string]time.Time

// calm is how long it must not be wrong before that is news again: one that lies now and then is not to fill the log.
const calm = time.Minute

// news says whether something begins or ends to be wrong.
type news struct{ begins, ends bool }

// note notes whether it is wrong of a node, and says whether that is news.
func (s spells) note(node string, wrong bool, at time.Time) news {
	last, was := s[node]
	switch {
	case wrong:
		s[node] = at
		return news{begins: !was}
	case was && at.Sub(last) > calm:
		delete(s, node)
		return news{ends: true}
	}
	return news{}
}

type sinkMetrics struct {
	refused   [sample.NumReasons]prometheus.Counter
	conflicts prometheus.Counter
}

func newSink(s *store.Store, o *owners, r prometheus.Registerer) *sink {
	return &sink{store: s, owners: o, metrics: newSinkMetrics(s, r), refusing: spells{}, lacking: spells{}, lacks: map[string]string{}}
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
	k.tell(node, &refused, kubelet.Lacking(b), received)
	k.metrics.conflicts.Add(float64(len(report.Conflicts)))
	for _, c := range report.Conflicts {
		k.owners.ask(c.Namespace, c.Pod)
	}
	return report.Settled
}

// tell logs when samples of a node begin to be refused or its answers to lack series, and when they no longer are or do.
func (k *sink) tell(node string, r *sample.Refusals, lacks string, received time.Time) {
	refused, lacking := k.note(node, r.Total() > 0, lacks, received)
	switch {
	case refused.begins:
		klog.InfoS("samples of a node begin to be refused: the rest of its answers is served", "node", node, "samples", r.String(),
			"remedy", "look at what its kubelet says: "+lookAt(node))
	case refused.ends:
		klog.InfoS("samples of a node are no longer refused", "node", node)
	}
	switch {
	case lacking.begins:
		klog.InfoS("answers of a node begin to lack series: what needs them is not served", "node", node, "series", lacks,
			"remedy", kubelet.RemedyRuntime+"; what it says: "+lookAt(node))
	case lacking.ends:
		klog.InfoS("answers of a node no longer lack series", "node", node)
	}
}

// lookAt is how to see what a node's kubelet says.
func lookAt(node string) string {
	return "kubectl get --raw /api/v1/nodes/" + node + "/proxy/metrics/resource"
}

// note notes what is wrong with an answer of a node, and says what of that is news.
func (k *sink) note(node string, refused bool, lacks string, received time.Time) (refusal, lack news) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if lacks == "" {
		delete(k.lacks, node)
	} else {
		k.lacks[node] = lacks
	}
	return k.refusing.note(node, refused, received), k.lacking.note(node, lacks != "", received)
}

// lackedBy names the series that a node's last answer lacked.
func (k *sink) lackedBy(node string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lacks[node]
}

// forget drops what is known of a node that left the cluster, of which no answer will come.
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
