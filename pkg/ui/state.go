package ui

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"metrics-server/pkg/ui/cluster"
)

// maxOrders is how many sorted tables are kept for a state: the page shows one or two at a time.
const maxOrders = 8

// state is what answers are made from: a snapshot, the findings of the doctor, and values derived from them. It is safe
// for concurrent use.
type state struct {
	snapshot  *cluster.Snapshot
	diagnosis *diagnosis

	summary func() summary           // made at the first call
	scalers func() map[Object]string // the autoscaler of each workload that has one; made at the first call

	mu     sync.Mutex // guards orders
	orders map[view]order
}

// summary is what a state says of the whole cluster.
type summary struct {
	totals     Totals
	namespaces []string
}

// latest keeps the state of the last request, which the next one most likely shares.
type latest struct {
	mu    sync.Mutex
	state *state
}

// of returns the state with the snapshot and the diagnosis.
func (l *latest) of(snapshot *cluster.Snapshot, d *diagnosis) *state {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.state; s == nil || s.snapshot.Version != snapshot.Version || s.diagnosis != d {
		l.state = newState(snapshot, d)
	}
	return l.state
}

func newState(snapshot *cluster.Snapshot, d *diagnosis) *state {
	return &state{
		snapshot: snapshot, diagnosis: d, orders: map[view]order{},
		summary: sync.OnceValue(func() summary { return summarize(snapshot) }),
		scalers: sync.OnceValue(func() map[Object]string {
			all := map[Object]string{}
			for _, h := range snapshot.HPAs {
				all[targetOf(h)] = h.Object.Name
			}
			return all
		}),
	}
}

// summarize adds up a snapshot.
func summarize(s *cluster.Snapshot) summary {
	pods, podsMissing := 0, 0
	measured := slices.DeleteFunc(slices.Clone(s.Nodes), func(n *cluster.Node) bool { return n.Usage.Sampled.IsZero() })
	nodesMissing := len(s.Nodes) - len(measured)
	if len(measured) == 0 {
		measured = s.Nodes
	}
	used, requests, limits, capacity := nothing, nothing, nothing, nothing
	for _, n := range measured {
		used, capacity = add(used, n.Usage.Used), add(capacity, n.Allocatable)
		requests, limits = add(requests, n.Requests), add(limits, n.Limits)
	}
	t := Totals{Resources: resources(used, requests, limits, capacity)}
	t.Resources.CPU.History = series(s.NodesSeries(cluster.CPU, shortHistory))
	t.Resources.Memory.History = series(s.NodesSeries(cluster.Memory, shortHistory))
	var namespaces []string
	name := func(namespace string) {
		if n := len(namespaces); n == 0 || namespaces[n-1] != namespace { // objects are sorted by namespace
			namespaces = append(namespaces, namespace)
		}
	}
	for _, p := range s.Pods {
		name(p.Namespace)
		if p.Running {
			pods++
			if p.Usage.Sampled.IsZero() {
				podsMissing++
			}
		}
	}
	for _, h := range s.HPAs {
		name(h.Object.Namespace)
	}
	slices.Sort(namespaces)
	if s.WasRead(cluster.Nodes) {
		t.Nodes, t.NodesMissing = new(len(s.Nodes)), &nodesMissing
	}
	if s.WasRead(cluster.Pods) {
		t.Pods, t.PodsMissing, t.Workloads = &pods, &podsMissing, new(len(s.Workloads))
	}
	if s.WasRead(cluster.HPAs) {
		t.HPAs = new(len(s.HPAs))
	}
	return summary{t, append([]string{}, slices.Compact(namespaces)...)}
}

// nothing is the sum of no amounts.
var nothing = cluster.Amount{CPU: math.NaN(), Memory: math.NaN()}

// add returns a sum, in which unknown amounts do not count.
func add(a, b cluster.Amount) cluster.Amount {
	sum := func(a, b float64) float64 {
		switch {
		case math.IsNaN(a):
			return b
		case math.IsNaN(b):
			return a
		}
		return a + b
	}
	return cluster.Amount{CPU: sum(a.CPU, b.CPU), Memory: sum(a.Memory, b.Memory)}
}

// status answers /api/status.
func (s *Server) status(r *request) (any, uint64, *failure) {
	sum := r.summary()
	a := Status{
		Version: s.config.Version, Context: s.config.Context, Server: s.config.Rest.Host, Now: time.Now().UTC(),
		Since: s.since, Sources: []Source{}, Totals: sum.totals, Namespaces: sum.namespaces, Findings: r.diagnosis.Findings,
	}
	for _, one := range r.snapshot.Sources {
		source := Source{
			Name: string(one.Name), State: string(one.State), Error: one.Error, Remedy: one.Remedy,
			Updated: moment(one.Updated),
		}
		if r.snapshot.WasRead(one.Name) && r.snapshot.WasRead(objectsOf(one.Name)) {
			source.Objects = &one.Objects
		}
		a.Sources = append(a.Sources, source)
	}
	return a, 0, nil
}

// objectsOf returns the source of the objects that the objects of a source are about: metrics count with these only.
func objectsOf(name cluster.SourceName) cluster.SourceName {
	switch name {
	case cluster.NodeMetrics:
		return cluster.Nodes
	case cluster.PodMetrics:
		return cluster.Pods
	}
	return name
}

// find returns the object for which compare returns 0, or nil. all is sorted in the order of compare.
func find[T any](all []*T, compare func(*T) int) *T {
	i, ok := slices.BinarySearchFunc(all, 0, func(one *T, _ int) int { return compare(one) })
	if !ok {
		return nil
	}
	return all[i]
}

func gone(kind, name string) *failure { return notThere(kind, name, "does not exist, or was deleted") }

func notThere(kind, name, why string) *failure {
	return notFound(kind+" "+name+" "+why, "choose another one from the table")
}

// node answers /api/nodes/NAME.
func (s *Server) node(r *request) (any, uint64, *failure) {
	name := r.PathValue("name")
	n := find(r.snapshot.Nodes, func(n *cluster.Node) int { return strings.Compare(n.Name, name) })
	if n == nil {
		return nil, 0, gone("node", name)
	}
	d := NodeDetail{
		NodeRow: nodeRow(r.state, n), KubeletVersion: n.KubeletVersion, Addresses: append([]string{}, n.Addresses...),
		Conditions: conditions(n.Conditions),
	}
	d.CPU.History, d.Memory.History = histories(r.snapshot, n.Past, longHistory)
	return d, 0, nil
}

// pod answers /api/pods/NAMESPACE/NAME.
func (s *Server) pod(r *request) (any, uint64, *failure) {
	namespace, name := r.PathValue("namespace"), r.PathValue("name")
	p := find(r.snapshot.Pods, func(p *cluster.Pod) int {
		return cmp.Or(strings.Compare(p.Namespace, namespace), strings.Compare(p.Name, name))
	})
	if p == nil {
		return nil, 0, gone("pod", namespace+"/"+name)
	}
	d := PodDetail{PodRow: podRow(r.state, p), Containers: []Container{}, IP: p.IP, Conditions: conditions(p.Conditions)}
	d.CPU.History, d.Memory.History = histories(r.snapshot, p.Past, longHistory)
	var version uint64
	if p.Running && p.Usage.Sampled.IsZero() {
		asked := s.pods.get(d.Object)
		d.Error, version = cmp.Or(asked.result, d.Error), asked.version
	}
	for _, c := range p.Containers {
		d.Containers = append(d.Containers, Container{
			Name: c.Name, State: c.State, Restarts: c.Restarts, Resources: resources(c.Used, c.Requests, c.Limits, nothing),
		})
	}
	return d, version, nil
}

// workload answers /api/workloads/NAMESPACE/KIND/NAME.
func (s *Server) workload(r *request) (any, uint64, *failure) {
	namespace, kind, name := r.PathValue("namespace"), r.PathValue("kind"), r.PathValue("name")
	w := find(r.snapshot.Workloads, func(w *cluster.Workload) int {
		return cmp.Or(strings.Compare(w.Namespace, namespace), strings.Compare(w.Kind, kind), strings.Compare(w.Name, name))
	})
	if w == nil {
		return nil, 0, notThere(kind, namespace+"/"+name,
			"has no running or pending pods: it is scaled to zero, has ended, or was deleted")
	}
	d := WorkloadDetail{
		WorkloadRow: workloadRow(r.state, w),
		PodCount:    series(r.snapshot.Series(w.Past, cluster.RunningPods, longHistory)),
	}
	d.CPU.History, d.Memory.History = histories(r.snapshot, w.Past, longHistory)
	return d, 0, nil
}

// hpa answers /api/hpas/NAMESPACE/NAME.
func (s *Server) hpa(r *request) (any, uint64, *failure) {
	namespace, name := r.PathValue("namespace"), r.PathValue("name")
	h := find(r.snapshot.HPAs, func(h *cluster.HPA) int {
		return cmp.Or(strings.Compare(h.Object.Namespace, namespace), strings.Compare(h.Object.Name, name))
	})
	if h == nil {
		return nil, 0, gone("HorizontalPodAutoscaler", namespace+"/"+name)
	}
	explained := s.scalers.get(objectOf(h))
	d := HPADetail{
		HPARow:         hpaRow(r.state, h),
		DesiredHistory: series(r.snapshot.Series(h.Past, cluster.Desired, longHistory)),
		MetricHistory:  []HPASeries{}, Conditions: []Condition{},
		Report: explained.result.Report, ReportText: explained.result.text,
	}
	d.CurrentHistory = series(r.snapshot.Series(h.Past, cluster.Current, longHistory))
	if explained.err != nil {
		d.ReportError = explained.err.Error()
	}
	for i, m := range h.Metrics {
		d.MetricHistory = append(d.MetricHistory, HPASeries{
			Current: series(r.snapshot.Series(h.Past, cluster.FirstMetric+cluster.Quantity(i), longHistory)),
			Target:  known(m.Target), Unit: unitOf(m),
		})
	}
	for _, c := range h.Object.Status.Conditions {
		d.Conditions = append(d.Conditions, Condition{
			Type: string(c.Type), Status: string(c.Status), Reason: c.Reason, Message: c.Message,
		})
	}
	return d, explained.version, nil
}
