package store

import (
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"metrics-server/pkg/sample"
)

// node is what is known of one node and the containers that its kubelet lists.
type node struct {
	name   string
	limits *limits
	born   time.Time    // when its first answer was received; immutable
	last   atomic.Int64 // since(time of the last answer)
	idle   atomic.Bool  // that answer had no container with CPU or memory

	mu sync.Mutex
	*layout
	removed bool // RemoveNode was called: nothing may be recorded here any more
	own     struct {
		past
		usage
	}
	points int // samples in containers
}

func newNode(name string, l *limits, born time.Time) *node {
	n := &node{name: name, limits: l, born: born}
	n.layout = &layout{node: n}
	return n
}

// self is the series of the node itself.
func (n *node) self() series { return series{&n.own.past, &n.own.usage} }

// lock takes n.mu, unless n was removed in the meantime: then it returns false.
func (n *node) lock() bool {
	n.mu.Lock()
	if n.removed {
		n.mu.Unlock()
		return false
	}
	return true
}

// since is t by the clock that the node's series are kept in. A difference of readings of one
// process's clock is not disturbed when the wall clock is set.
func (n *node) since(t time.Time) time.Duration { return t.Sub(n.born) }

// silent reports whether the node's last answer was received too long before now to be believed.
func (n *node) silent(now time.Time) bool {
	return n.since(now)-time.Duration(n.last.Load()) > n.limits.expiry
}

// record takes one answer. The caller holds n.mu.
func (n *node) record(b *sample.Batch, received time.Time, x *index) Report {
	if n.silent(received) {
		n.forget(x, received)
	}
	now := n.since(received)
	n.last.Store(int64(now))

	var r Report
	if !n.aligned(b.Containers) || n.forgettable(now, n.limits.expiry) {
		next := n.align(b.Containers, now, n.limits.expiry)
		r.Conflicts = n.announce(next, x, received)
		n.layout = next
	}
	own := b.Node.Given.Has(sample.CPU | sample.Memory)
	if own && !n.self().record(&b.Node, now, n.limits) {
		r.Old++
	}
	complete, idle, i := true, true, 0
	for j := range b.Containers {
		if i == len(n.order) || n.pasts[n.order[i]].id != b.Containers[j].ID {
			continue // a duplicate
		}
		c := n.series(int(n.order[i]))
		i++
		if !c.record(&b.Containers[j].Sample, now, n.limits) {
			r.Old++
		}
		idle = idle && c.state == ended
		complete = complete && (c.state == ended || c.serves(now, n.limits))
	}
	n.idle.Store(idle)
	n.count()
	r.Settled = (!own || n.own.usable(now, n.limits)) && (complete || n.settled(now))
	return r
}

// count brings n.points up to date.
func (n *node) count() {
	n.points = 0
	for i := range n.usages {
		n.points += int(n.usages[i].n)
	}
}

// settled reports whether every pod has a usage, but for those with a container that had just started
// when its newest sample was taken. The caller holds n.mu.
func (n *node) settled(now time.Duration) bool {
	var pod podKey
	young, lacking := false, false
	for i := range n.usages {
		c := n.series(i)
		if !c.counts() {
			continue
		}
		if k := keyOf(c.id); k != pod {
			if lacking && !young {
				return false
			}
			pod, young, lacking = k, false, false
		}
		young = young || c.start > 0 && c.t[0]-c.start <= youngSettled
		lacking = lacking || !c.serves(now, n.limits)
	}
	return !lacking || young
}

// announce tells the index which pods appear, leave and move when n's layout becomes next. It returns the conflicts that begin.
func (n *node) announce(next *layout, x *index, received time.Time) (conflicts []PodClaim) {
	before, after := pods{layout: n.layout}, pods{layout: next}
	old, was := before.next()
	now, is := after.next()
	for was || is {
		switch {
		case !is || was && old.compare(now.podKey) < 0:
			x.unclaim(old.podKey, n, received)
			old, was = before.next()
		case !was || old.compare(now.podKey) > 0:
			if k := now.podKey; x.claim(k, now.place, received) {
				conflicts = append(conflicts, PodClaim{Namespace: k.namespace, Pod: k.name})
			}
			now, is = after.next()
		default:
			x.move(now.podKey, now.place)
			old, was = before.next()
			now, is = after.next()
		}
	}
	return conflicts
}

// forget drops the node's samples and claims. The caller holds n.mu.
func (n *node) forget(x *index, received time.Time) {
	nothing := &layout{node: n}
	n.announce(nothing, x, received)
	n.own.past, n.own.usage, n.layout, n.points = past{}, usage{}, nothing, 0
}

// removePod drops what n has said of a pod. The caller holds n.mu.
func (n *node) removePod(k podKey, x *index) {
	n.layout.remove(k)
	n.count()
	x.unclaim(k, n, time.Time{})
}

// pod fills into with the usage of the pod k at p and reports whether it can be served.
func (p place) pod(k podKey, now time.Time, into *sample.PodUsage) bool {
	n := p.node
	n.mu.Lock()
	defer n.mu.Unlock()
	*into = sample.PodUsage{Node: n.name, Containers: into.Containers[:0]}
	at := n.since(now)
	for i, to := p.run(k); i < to; i++ {
		c := &n.usages[i]
		if !c.counts() {
			continue
		}
		if !c.serves(at, n.limits) {
			into.Containers = into.Containers[:0]
			return false
		}
		if len(into.Containers) == 0 || c.at < into.Time {
			into.Time, into.Window = c.at, c.span()
		}
		into.Containers = append(into.Containers, sample.ContainerUsage{Name: c.name.Value(), Usage: c.sample()})
	}
	return len(into.Containers) > 0
}

// fetch has the processor fetch what pod will read, and does not wait for it. It reads only what never changes.
//
//go:noinline
func (p place) fetch() (string, unique.Handle[string]) {
	if p.layout == nil || int(p.at) >= len(p.usages) {
		return "", unique.Handle[string]{}
	}
	return p.node.name, p.usages[p.at].name
}

// run returns where the containers of the pod k at p begin and end in the node's layout. The caller holds the node's lock.
func (p place) run(k podKey) (from, to int) {
	if p.layout != p.node.layout { // it is another one since p was looked up
		return p.node.find(k)
	}
	return int(p.at), int(p.at) + int(p.n)
}

// claim is what decides between nodes that claim one pod.
type claim struct {
	start sample.Time // the newest start of its containers, 0 if unknown
	at    sample.Time // of the usage that would be served, 0 if there is none
}

// claim returns what the node of p knows of the pod k, which others claim too.
func (p place) claim(k podKey, now time.Time) claim {
	var c claim
	var u sample.PodUsage
	if p.pod(k, now, &u) {
		c.at = u.Time
	}
	n := p.node
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, to := p.run(k); i < to; i++ {
		if n.usages[i].counts() {
			c.start = max(c.start, n.pasts[i].start)
		}
	}
	return c
}

// beats reports whether claim c of n goes before claim d of m, where pick is who was chosen last.
func (c claim) beats(d claim, n, m, pick *node) bool {
	switch {
	case c.start != d.start:
		return c.start > d.start
	case n == pick || m == pick:
		return n == pick
	case c.at != d.at:
		return c.at > d.at
	}
	return n.name < m.name
}
