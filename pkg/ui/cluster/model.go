package cluster

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"metrics-server/pkg/history"
)

// model joins objects, usage and past. It is pure: it does no I/O and has no clock.
type model struct {
	short, long *tape
	sources     map[SourceName]*Source
	version     uint64

	nodes     map[string]*nodeEntry
	pods      map[types.NamespacedName]*podEntry
	hpas      map[types.NamespacedName]*hpaEntry
	workloads map[history.Key]*workloadEntry
	allNodes  Past // the sums over the nodes, also over those that were deleted since

	// The entries that have an object.
	nodeOrder     order[*nodeEntry]
	podOrder      order[*podEntry]
	hpaOrder      order[*hpaEntry]
	workloadOrder order[*workloadEntry]
}

// Rows are in snapshots, so they are replaced rather than changed.

// nodeEntry is a node, or the usage of an unknown node.
type nodeEntry struct {
	row    *Node     // nil: not known
	usage  *measured // nil iff row is not
	reason string    // why there is none, in the words of the metrics server; "" if it does not say
	asked  time.Time // when it was last asked for the reason
}

// podEntry is a pod, or the usage of an unknown pod.
type podEntry struct {
	row      *Pod      // nil: not known
	usage    *measured // nil iff row is not
	workload *workloadEntry
}

// workloadEntry is a workload. It outlasts its last pod by forgetAfter, because that pod may be replaced.
type workloadEntry struct {
	key     history.Key
	past    Past
	pods    int       // objects
	emptied int64     // the tick at which pods became 0
	gone    bool      // it is forgotten
	row     *Workload // nil: all pods have ended
	// conditions are those of the pod that was read last. Most pods have the same conditions, and share them.
	conditions []Condition
}

// forgetAfter is the number of ticks for which a workload without pods keeps its past.
const forgetAfter = ShortPast

type hpaEntry struct{ row *HPA }

func newModel(step time.Duration, now time.Time) *model {
	m := &model{
		short: newTape(step, false, now), long: newTape(step, true, now),
		sources:   map[SourceName]*Source{},
		nodes:     map[string]*nodeEntry{},
		pods:      map[types.NamespacedName]*podEntry{},
		hpas:      map[types.NamespacedName]*hpaEntry{},
		workloads: map[history.Key]*workloadEntry{},
		nodeOrder: order[*nodeEntry]{
			compare: func(a, b *nodeEntry) int { return strings.Compare(a.row.Name, b.row.Name) },
			alive:   func(e *nodeEntry) bool { return e.row != nil },
		},
		podOrder: order[*podEntry]{
			compare: func(a, b *podEntry) int {
				return cmp.Or(strings.Compare(a.row.Namespace, b.row.Namespace), strings.Compare(a.row.Name, b.row.Name))
			},
			alive: func(e *podEntry) bool { return e.row != nil },
		},
		hpaOrder: order[*hpaEntry]{
			compare: func(a, b *hpaEntry) int {
				return cmp.Or(strings.Compare(a.row.Object.Namespace, b.row.Object.Namespace),
					strings.Compare(a.row.Object.Name, b.row.Object.Name))
			},
			alive: func(e *hpaEntry) bool { return e.row != nil },
		},
		workloadOrder: order[*workloadEntry]{
			compare: func(a, b *workloadEntry) int {
				return cmp.Or(strings.Compare(a.key.Namespace, b.key.Namespace), strings.Compare(a.key.Kind, b.key.Kind),
					strings.Compare(a.key.Name, b.key.Name))
			},
			alive: func(e *workloadEntry) bool { return !e.gone },
		},
	}
	for _, name := range sourceNames() {
		m.sources[name] = &Source{Name: name, State: Waiting}
	}
	m.allNodes = m.long.take(2)
	return m
}

// item is an object of a source.
type item interface {
	key() types.NamespacedName // without a namespace for nodes
	put(*model)
}

func (n *Node) key() types.NamespacedName { return types.NamespacedName{Name: n.Name} }

func (p *Pod) key() types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

func (h *HPA) key() types.NamespacedName {
	return types.NamespacedName{Namespace: h.Object.Namespace, Name: h.Object.Name}
}

func (u *measured) key() types.NamespacedName {
	return types.NamespacedName{Namespace: u.namespace, Name: u.name}
}

// put adds or changes a node. n becomes a row.
func (n *Node) put(m *model) {
	e := m.nodes[n.Name]
	if e == nil {
		e = &nodeEntry{}
		m.nodes[n.Name] = e
	}
	switch old := e.row; {
	case old == nil:
		n.Past = m.long.take(2)
		m.nodeOrder.add(e)
	case old.uid != n.uid:
		m.long.give(old.Past)
		n.Past = m.long.take(2)
	default:
		n.Past = old.Past
	}
	u := e.usage
	if e.row != nil {
		u = e.row.measured()
	}
	e.row, e.usage = n.with(u), nil
}

// put adds or changes a pod. p becomes a row.
func (p *Pod) put(m *model) {
	k := p.key()
	e := m.pods[k]
	if e == nil {
		e = &podEntry{}
		m.pods[k] = e
	}
	switch old := e.row; {
	case old == nil:
		p.Past = m.short.take(2)
		m.podOrder.add(e)
	case old.uid != p.uid:
		m.short.give(old.Past)
		p.Past = m.short.take(2)
	default:
		p.Past = old.Past
	}
	if e.workload == nil || e.workload.key != p.Workload {
		m.leaveWorkload(e)
		m.joinWorkload(e, p.Workload)
	}
	if w := e.workload; slices.Equal(w.conditions, p.Conditions) {
		p.Conditions = w.conditions
	} else {
		w.conditions = p.Conditions
	}
	u := e.usage
	if e.row != nil {
		u = e.row.measured()
	}
	e.row, e.usage = p.with(u), nil
}

func (m *model) joinWorkload(e *podEntry, k history.Key) {
	w := m.workloads[k]
	if w == nil {
		w = &workloadEntry{key: k, past: m.long.take(4)}
		m.workloads[k] = w
		m.workloadOrder.add(w)
	}
	w.pods++
	e.workload = w
}

func (m *model) leaveWorkload(e *podEntry) {
	if w := e.workload; w != nil {
		w.pods--
		w.emptied = m.long.last
		e.workload = nil
	}
}

// forgetWorkloads forgets the workloads that have had no pods for long.
func (m *model) forgetWorkloads() {
	for k, w := range m.workloads {
		if w.pods == 0 && m.long.last-w.emptied >= forgetAfter {
			m.long.give(w.past)
			w.gone = true
			delete(m.workloads, k)
			m.workloadOrder.drop()
		}
	}
}

// put adds or changes an autoscaler. h becomes a row.
func (h *HPA) put(m *model) {
	k := h.key()
	e := m.hpas[k]
	if e == nil {
		e = &hpaEntry{}
		m.hpas[k] = e
		m.hpaOrder.add(e)
	}
	same := func(a, b Metric) bool {
		return a.Type == b.Type && a.Name == b.Name && a.Container == b.Container && a.Object == b.Object &&
			a.TargetType == b.TargetType
	}
	switch old := e.row; {
	case old == nil:
		h.Past = m.long.take(2 + len(h.Metrics))
	case old.Object.UID != h.Object.UID, !slices.EqualFunc(old.Metrics, h.Metrics, same):
		m.long.give(old.Past)
		h.Past = m.long.take(2 + len(h.Metrics))
	default:
		h.Past = old.Past
	}
	e.row = h
}

// put adds or changes the usage of a node or of a pod.
func (u *measured) put(m *model) {
	if u.namespace == "" {
		e := m.nodes[u.name]
		switch {
		case e == nil:
			m.nodes[u.name] = &nodeEntry{usage: u}
		case e.row == nil:
			e.usage = u
		default:
			e.setUsage(u)
		}
		return
	}
	e := m.pods[u.key()]
	switch {
	case e == nil:
		m.pods[u.key()] = &podEntry{usage: u}
	case e.row == nil:
		e.usage = u
	case e.row.Usage != u.usage: // a list repeats samples; then the row stays the same
		e.setUsage(u)
	}
}

func (e *nodeEntry) setUsage(u *measured) {
	row := *e.row
	e.row, e.reason = row.with(u), ""
}

func (e *podEntry) setUsage(u *measured) {
	row := *e.row
	row.Containers = slices.Clone(row.Containers)
	e.row = row.with(u)
}

// isMeasured reports whether the metrics server has a usage of n.
func (n *Node) isMeasured() bool { return !n.Usage.Sampled.IsZero() || n.outdated != nil }

// measured returns the usage that the metrics server has of n, nil if there is none.
func (n *Node) measured() *measured {
	if n.Usage.Sampled.IsZero() {
		return n.outdated
	}
	return &measured{name: n.Name, usage: n.Usage}
}

// isMeasured reports whether the metrics server has a usage of p.
func (p *Pod) isMeasured() bool { return !p.Usage.Sampled.IsZero() || p.outdated != nil }

// measured returns the usage that the metrics server has of p, nil if there is none.
func (p *Pod) measured() *measured {
	if p.Usage.Sampled.IsZero() {
		return p.outdated
	}
	u := &measured{namespace: p.Namespace, name: p.Name, usage: p.Usage}
	for _, c := range p.Containers {
		u.containers = append(u.containers, measuredContainer{c.Name, c.Used})
	}
	return u
}

// of returns the usage of an object that was created at that time. A usage that is older is returned as outdated: it is
// of another object of the same name, or the node's clock is behind.
func (u *measured) of(created time.Time) (_ Usage, outdated *measured) {
	switch {
	case u == nil:
		return noUsage, nil
	case u.usage.Sampled.Before(created):
		return noUsage, u
	}
	return u.usage, nil
}

// with sets the usage of n, which must not be in a snapshot yet.
func (n *Node) with(u *measured) *Node {
	n.Usage, n.outdated = u.of(n.Created)
	return n
}

// with sets the usage of p, which must not be in a snapshot yet.
func (p *Pod) with(u *measured) *Pod {
	p.Usage, p.outdated = u.of(p.Created)
	for i := range p.Containers {
		c := &p.Containers[i]
		c.Used = unknown
		if p.Usage.Sampled.IsZero() {
			continue
		}
		for _, of := range u.containers {
			if of.name == c.Name {
				c.Used = of.used
			}
		}
	}
	return p
}

func dropNode(m *model, k types.NamespacedName) {
	e := m.nodes[k.Name]
	if e == nil || e.row == nil {
		return
	}
	m.long.give(e.row.Past)
	delete(m.nodes, k.Name)
	if u := e.row.measured(); u != nil {
		m.nodes[k.Name] = &nodeEntry{usage: u}
	}
	e.row = nil
	m.nodeOrder.drop()
}

func dropPod(m *model, k types.NamespacedName) {
	e := m.pods[k]
	if e == nil || e.row == nil {
		return
	}
	m.short.give(e.row.Past)
	m.leaveWorkload(e)
	delete(m.pods, k)
	if u := e.row.measured(); u != nil {
		m.pods[k] = &podEntry{usage: u}
	}
	e.row = nil
	m.podOrder.drop()
}

func dropHPA(m *model, k types.NamespacedName) {
	e := m.hpas[k]
	if e == nil {
		return
	}
	m.long.give(e.row.Past)
	delete(m.hpas, k)
	e.row = nil
	m.hpaOrder.drop()
}

func dropNodeUsage(m *model, k types.NamespacedName) {
	switch e := m.nodes[k.Name]; {
	case e == nil:
	case e.row == nil:
		delete(m.nodes, k.Name)
	default:
		e.setUsage(nil)
	}
}

func dropPodUsage(m *model, k types.NamespacedName) {
	switch e := m.pods[k]; {
	case e == nil:
	case e.row == nil:
		delete(m.pods, k)
	default:
		e.setUsage(nil)
	}
}

// keysOf returns the names of the objects of a source.
func (m *model) keysOf(name SourceName) iter.Seq[types.NamespacedName] {
	return func(yield func(types.NamespacedName) bool) {
		switch name {
		case Nodes, NodeMetrics:
			for k, e := range m.nodes {
				has := e.row != nil
				if name == NodeMetrics {
					has = e.row == nil || e.row.isMeasured()
				}
				if has && !yield(types.NamespacedName{Name: k}) {
					return
				}
			}
		case Pods, PodMetrics:
			for k, e := range m.pods {
				has := e.row != nil
				if name == PodMetrics {
					has = e.row == nil || e.row.isMeasured()
				}
				if has && !yield(k) {
					return
				}
			}
		case HPAs:
			for k := range m.hpas {
				if !yield(k) {
					return
				}
			}
		}
	}
}

// drop removes an object of a source.
func (m *model) drop(name SourceName, k types.NamespacedName) {
	switch name {
	case Nodes:
		dropNode(m, k)
	case Pods:
		dropPod(m, k)
	case HPAs:
		dropHPA(m, k)
	case NodeMetrics:
		dropNodeUsage(m, k)
	case PodMetrics:
		dropPodUsage(m, k)
	}
}

// keep drops all objects of a source that are not present.
func (m *model) keep(name SourceName, present map[types.NamespacedName]struct{}) {
	for k := range m.keysOf(name) {
		if _, ok := present[k]; !ok {
			m.drop(name, k)
		}
	}
}

// current reports whether a source is up to date.
func (m *model) current(name SourceName) bool {
	s := m.sources[name].State
	return s == Watching || s == Polling
}

// snapshot returns the present state.
func (m *model) snapshot(now time.Time) *Snapshot {
	m.version++
	s := &Snapshot{Version: m.version, At: now, short: m.short.view, long: m.long.view, allNodes: m.allNodes}
	nodes, pods, workloads, hpas := m.nodeOrder.all(), m.podOrder.all(), m.workloadOrder.all(), m.hpaOrder.all()
	objects := map[SourceName]int{Nodes: len(nodes), Pods: len(pods), HPAs: len(hpas)}

	running := 0.0
	if m.sources[Pods].Updated.IsZero() {
		running = math.NaN()
	}
	s.Nodes = make([]*Node, len(nodes))
	for i, e := range nodes {
		row := *e.row
		row.Requests, row.Limits, row.Pods, row.PodsMissing, row.PodsOverdue = unknown, unknown, running, running, 0
		row.Missing, row.Overdue = m.whyNodeMissing(e, now)
		e.row, s.Nodes[i] = &row, &row
		if !row.Usage.Sampled.IsZero() {
			objects[NodeMetrics]++
		}
	}
	for _, w := range workloads {
		w.row = nil
	}
	s.Pods = make([]*Pod, len(pods))
	usages := 0
	for i, e := range pods {
		if !e.row.Usage.Sampled.IsZero() {
			usages++
		}
		var node *Node
		if n := m.nodes[e.row.Node]; n != nil {
			node = n.row
		}
		if why, overdue := m.whyPodMissing(e.row, node, now); why != e.row.Missing || overdue != e.row.Overdue {
			row := *e.row
			row.Missing, row.Overdue = why, overdue
			e.row = &row
		}
		s.Pods[i] = e.row
		if e.row.Ended {
			continue
		}
		if node != nil {
			node.count(e.row)
		}
		if e.workload.row == nil {
			e.workload.row = &Workload{
				Key: e.workload.key, Past: e.workload.past, Used: unknown, Requests: unknown, Limits: unknown,
			}
		}
		e.workload.row.count(e.row)
	}
	s.Workloads = make([]*Workload, 0, len(workloads))
	for _, w := range workloads {
		if w.row != nil {
			s.Workloads = append(s.Workloads, w.row)
		}
	}
	s.HPAs = make([]*HPA, len(hpas))
	for i, e := range hpas {
		s.HPAs[i] = e.row
	}
	objects[PodMetrics] = usages
	for _, name := range sourceNames() {
		source := *m.sources[name]
		source.Objects += objects[name]
		s.Sources = append(s.Sources, source)
	}
	return s
}

// count adds a pod that has not ended to the sums of its node.
func (n *Node) count(p *Pod) {
	n.Requests, n.Limits = n.Requests.plusKnown(p.Requests), n.Limits.plusKnown(p.Limits)
	if p.Running {
		n.Pods++
		if p.Usage.Sampled.IsZero() {
			n.PodsMissing++
		}
		if p.Overdue {
			n.PodsOverdue++
		}
	}
}

// count adds a pod that has not ended to the sums of its workload.
func (w *Workload) count(p *Pod) {
	if !p.Running {
		w.Pending++
		return
	}
	w.Requests = w.Requests.plusKnown(p.Requests)
	if w.Pods++; w.Pods == 1 {
		w.Limits = p.Limits
	} else {
		w.Limits = w.Limits.plus(p.Limits)
	}
	if p.Usage.Sampled.IsZero() {
		w.Missing++
		if p.Overdue {
			w.Overdue++
		}
		return
	}
	w.Used = w.Used.plusKnown(p.Usage.Used)
	if w.Sampled.IsZero() || p.Usage.Sampled.Before(w.Sampled) {
		w.Sampled = p.Usage.Sampled
	}
}

// firstUsage is how long the first usage of a node or pod that has just started may take.
const firstUsage = 2 * time.Minute

// whyNodeMissing returns why a node has no usage, and whether it should have one.
func (m *model) whyNodeMissing(e *nodeEntry, now time.Time) (why string, overdue bool) {
	n := e.row
	joining := n.Ready == Ready && now.Sub(n.Created) < firstUsage
	switch {
	case !n.Usage.Sampled.IsZero() || m.sources[NodeMetrics].State == Waiting:
		return "", false
	case !m.current(NodeMetrics):
		return "the metrics of nodes cannot be read", false
	case e.reason != "":
		return e.reason, !joining
	case n.Ready != Ready:
		return "the node is not ready", true
	case joining:
		return "the node has just joined: its first usage follows within two minutes", false
	case n.outdated != nil:
		return "the timestamp of its usage is before the node was created: check the node's clock", true
	}
	return "the metrics server has no usage of it", true
}

// whyPodMissing returns why a pod has no usage, and whether it should have one. node is nil if it is not known.
func (m *model) whyPodMissing(p *Pod, node *Node, now time.Time) (why string, overdue bool) {
	switch {
	case !p.Usage.Sampled.IsZero() || p.Ended:
		return "", false
	case p.Node == "":
		return "it is not scheduled to a node", false
	case !p.Running:
		return "it has not started", false
	case m.sources[PodMetrics].State == Waiting:
		return "", false
	case !m.current(PodMetrics):
		return "the metrics of pods cannot be read", false
	case node != nil && node.Ready != Ready:
		return "its node is not ready", true
	case node != nil && node.Usage.Sampled.IsZero() && m.current(NodeMetrics):
		return "its node has no usage either", node.Overdue
	case p.Started.IsZero():
		return "none of its containers runs", true
	case now.Sub(p.Started) < firstUsage:
		return "it has just started: its first usage follows within two minutes", false
	case p.outdated != nil:
		return "the timestamp of its usage is before the pod was created: check the node's clock", true
	}
	return "the metrics server has no usage of it", true
}

// tick adds the present to the past. s is a new snapshot.
func (m *model) tick(s *Snapshot) {
	tick := tickAt(s.At, m.long.step)
	if tick <= m.long.last {
		return
	}
	long, short := m.long.column(), m.short.column()
	if !m.sources[Nodes].listed || !m.sources[NodeMetrics].listed {
		m.allNodes.since = tick + 1 // the sums would lack nodes; the history may have them
	}
	if m.current(NodeMetrics) {
		sum := unknown
		for _, n := range s.Nodes {
			sum = sum.plusKnown(n.Usage.Used)
			n.Past.put(long, CPU, n.Usage.Used.CPU)
			n.Past.put(long, Memory, n.Usage.Used.Memory)
		}
		m.allNodes.put(long, CPU, sum.CPU)
		m.allNodes.put(long, Memory, sum.Memory)
	}
	if m.current(PodMetrics) {
		for _, p := range s.Pods {
			p.Past.put(short, CPU, p.Usage.Used.CPU)
			p.Past.put(short, Memory, p.Usage.Used.Memory)
		}
	}
	if m.current(Pods) {
		for _, w := range s.Workloads {
			w.Past.put(long, RunningPods, float64(w.Pods))
			if m.current(PodMetrics) {
				w.Past.put(long, CPU, w.Used.CPU)
				w.Past.put(long, Memory, w.Used.Memory)
				w.Past.put(long, MissingPods, float64(w.Missing))
			}
		}
	}
	if m.current(HPAs) {
		for _, h := range s.HPAs {
			h.Past.put(long, Current, float64(h.Object.Status.CurrentReplicas))
			h.Past.put(long, Desired, float64(h.Object.Status.DesiredReplicas))
			for i, metric := range h.Metrics {
				h.Past.put(long, FirstMetric+Quantity(i), metric.Current)
			}
		}
	}
	m.long.add(tick, long)
	m.short.add(tick, short)
	m.forgetWorkloads()
}

// backfill adds the history of the metrics server: from before each object was first seen, and of the ticks that were
// left out.
func (m *model) backfill(answers ...*history.Answer) {
	r := m.long.revise()
	var values []float64 // reused
	for _, a := range answers {
		if a.Step < 1 {
			continue
		}
		valuesAt := func(s *history.Series, at time.Time) []float64 {
			seconds := int64(at.Sub(a.Start) / time.Second)
			values = appendPoint(values[:0], s, int(math.Floor(float64(seconds)/float64(a.Step)))-s.First)
			return values
		}
		var nodes []*history.Series
		for i := range a.Series {
			s := &a.Series[i]
			if s.Kind == history.KindNode && s.Namespace == "" {
				nodes = append(nodes, s)
			}
			if past := m.pastOf(s.Key); past != nil {
				r.fill(past, func(at time.Time) []float64 { return valuesAt(s, at) })
			}
		}
		if len(nodes) == 0 {
			continue
		}
		r.fill(&m.allNodes, func(at time.Time) []float64 {
			sum := unknown
			for _, s := range nodes {
				if v := valuesAt(s, at); len(v) > 0 {
					sum = sum.plusKnown(Amount{v[0], v[1]})
				}
			}
			if math.IsNaN(sum.CPU) && math.IsNaN(sum.Memory) {
				return nil
			}
			return append(values[:0], sum.CPU, sum.Memory)
		})
	}
	r.apply()
}

// appendPoint appends the quantities of a point of s, none if s does not have it.
func appendPoint(to []float64, s *history.Series, point int) []float64 {
	if point < 0 || point >= len(s.CPU) {
		return to
	}
	to = append(to, float64(s.CPU[point]), float64(s.Memory[point]))
	if len(s.Pods) == 0 {
		return to
	}
	pods := float64(s.Pods[point])
	missing := pods - pods // 0, or unknown
	if len(s.Missing) > 0 {
		missing = float64(s.Missing[point])
	}
	return append(to, pods, missing)
}

// pastOf returns the past of a node or a workload, to be changed; nil if it is not known.
func (m *model) pastOf(k history.Key) *Past {
	if k.Kind == history.KindNode && k.Namespace == "" {
		e := m.nodes[k.Name]
		if e == nil || e.row == nil {
			return nil
		}
		row := *e.row
		e.row = &row
		return &row.Past
	}
	if w := m.workloads[k]; w != nil {
		return &w.past
	}
	return nil
}
