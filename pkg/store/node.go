package store

import (
	"sync"
	"sync/atomic"
	"time"

	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// node is the data of one node and of the containers that its kubelet lists.
type node struct {
	name string
	born time.Time    // when its first answer was received; immutable
	last atomic.Int64 // when the last answer was received, as since returns it
	idle atomic.Bool  // the last answer had no container with CPU or memory

	mu      sync.Mutex // guards the fields that follow
	layout  *layout
	limits  limits
	removed bool   // RemoveNode was called; nothing may be recorded any more
	own     series // of the node itself
	points  int    // samples of containers
}

func newNode(name string, l limits, born time.Time) *node {
	n := &node{name: name, limits: l, born: born}
	n.layout = &layout{node: n}
	return n
}

// lock locks n.mu, or returns false if n has been removed.
func (n *node) lock() bool {
	n.mu.Lock()
	if n.removed {
		n.mu.Unlock()
		return false
	}
	return true
}

// since converts t to the time since n's first answer, in which moments are stored. It is monotonic:
// setting the wall clock does not affect it.
func (n *node) since(t time.Time) time.Duration { return t.Sub(n.born) }

// silent reports whether the node's last answer has expired at now.
func (n *node) silent(now time.Time) bool {
	return n.since(now)-time.Duration(n.last.Load()) > n.limits.expiry
}

// record stores one answer, whose changes get the next revision of clock. The caller holds n.mu.
func (n *node) record(
	b *sample.Batch, c sample.Capacity, received time.Time, x *podIndex, clock *revision.Clock,
) Report {
	n.limits.setCapacity(c)
	forgotten := n.silent(received)
	if forgotten {
		n.forget(x, received)
	}
	now := n.since(received)
	n.last.Store(int64(now))

	var r Report
	var relisted []podKey // the pods whose listed containers have changed
	if !n.layout.aligned(b.Containers) || n.layout.forgettable(now, n.limits.expiry) {
		var next *layout
		next, relisted = n.layout.align(b.Containers, now, n.limits.expiry)
		r.Conflicts = n.announce(next, x, received)
		n.layout = next
	}
	// Not before new pods are in the index: whoever knows the revision must find them, and then waits
	// for n.mu.
	revision := clock.Next(received)
	for _, k := range relisted {
		n.layout.touch(k, revision)
	}
	if forgotten {
		n.own.changed = revision
	}
	own := b.Node.Given.Has(sample.CPU | sample.Memory)
	if !n.own.track(&b.Node, now, &n.limits, revision) {
		r.Refused[n.own.reason]++
	}
	l, complete, idle, i := n.layout, true, true, 0
	for j := range b.Containers {
		if i == len(l.order) || l.containers[l.order[i]].id != b.Containers[j].ID {
			continue // a duplicate
		}
		c := &l.containers[l.order[i]]
		i++
		if !c.track(&b.Containers[j].Sample, now, &n.limits, revision) {
			r.Refused[c.reason]++
		}
		idle = idle && c.state == ended
		complete = complete && (c.state == ended || c.serves(now, &n.limits))
	}
	n.idle.Store(idle)
	n.count()
	r.Settled = (!own || n.own.usable(now, &n.limits)) && (complete || n.settled(now))
	return r
}

// count brings n.points up to date.
func (n *node) count() {
	n.points = 0
	for i := range n.layout.containers {
		n.points += n.layout.containers[i].points.Len()
	}
}

// settled reports whether every pod has a usage, except for those with a container that had just
// started when its newest sample was taken. The caller holds n.mu.
func (n *node) settled(now time.Duration) bool {
	var pod podKey
	young, lacking := false, false
	for i := range n.layout.containers {
		c := &n.layout.containers[i]
		if !c.counts() {
			continue
		}
		if k := keyOf(c.id); k != pod {
			if lacking && !young {
				return false
			}
			pod, young, lacking = k, false, false
		}
		young = young || c.start > 0 && c.points[0].Time-c.start <= youngSettled
		lacking = lacking || !c.serves(now, &n.limits)
	}
	return !lacking || young
}

// announce updates the index with the pods that appear, leave and move when n's layout becomes next.
// It returns the conflicts that begin.
func (n *node) announce(next *layout, x *podIndex, received time.Time) (conflicts []PodClaim) {
	before, after := pods{layout: n.layout}, pods{layout: next}
	old, was := before.next()
	now, is := after.next()
	for was || is {
		switch {
		case !is || was && old.key.compare(now.key) < 0:
			x.unclaim(old.key, n, received)
			old, was = before.next()
		case !was || old.key.compare(now.key) > 0:
			k := now.key
			if rival := x.claim(k, now.place, received); rival != nil {
				conflicts = append(conflicts, PodClaim{Namespace: k.namespace, Pod: k.name, Rival: rival.name})
			}
			now, is = after.next()
		default:
			x.move(now.key, now.place)
			old, was = before.next()
			now, is = after.next()
		}
	}
	return conflicts
}

// forget drops the node's samples and claims. The caller holds n.mu.
func (n *node) forget(x *podIndex, received time.Time) {
	nothing := &layout{node: n}
	n.announce(nothing, x, received)
	n.own, n.layout, n.points = series{}, nothing, 0
}

// removePod drops n's samples and claim of a pod. The caller holds n.mu.
func (n *node) removePod(k podKey, x *podIndex) {
	n.layout.remove(k)
	n.count()
	x.unclaim(k, n, time.Time{})
}

// touch notes that the usage of the pod k has changed.
func (p place) touch(k podKey, r sample.Revision) {
	n := p.node()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.layout.touch(k, r)
}

// pod fills into with the usage of the pod k at p and reports whether it can be served.
func (p place) pod(k podKey, now time.Time, into *sample.PodUsage) bool {
	n := p.node()
	n.mu.Lock()
	defer n.mu.Unlock()
	*into = sample.PodUsage{Node: n.name, Containers: into.Containers[:0]}
	at := n.since(now)
	for i, to := p.run(k); i < to; i++ {
		c := &n.layout.containers[i]
		into.Revision = max(into.Revision, c.changed) // that it ended is a change, too
		if !c.counts() {
			continue
		}
		if !c.serves(at, &n.limits) {
			into.Containers = into.Containers[:0]
			return false
		}
		if len(into.Containers) == 0 || c.time < into.Time {
			into.Time, into.Window = c.time, c.span()
		}
		into.Containers = append(into.Containers, sample.ContainerUsage{Name: c.name.Value(), Usage: c.sample()})
	}
	return len(into.Containers) > 0
}

// run returns the range of the pod k's containers in the node's layout. The caller holds the node's
// lock.
func (p place) run(k podKey) (from, to int) {
	if l := p.node().layout; p.layout != l { // it was replaced after p was looked up
		return l.find(k)
	}
	return int(p.at), int(p.at) + int(p.n)
}

// claim is the basis for deciding between nodes that claim one pod.
type claim struct {
	start sample.Time // the newest start of its containers, 0 if unknown
	at    sample.Time // of the usage that would be served, 0 if there is none
}

// claim returns the claim of p's node on the pod k.
func (p place) claim(k podKey, now time.Time) claim {
	var c claim
	var u sample.PodUsage
	if p.pod(k, now, &u) {
		c.at = u.Time
	}
	n := p.node()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, to := p.run(k); i < to; i++ {
		if s := &n.layout.containers[i]; s.counts() {
			c.start = max(c.start, s.start)
		}
	}
	return c
}

// beats reports whether claim c of n prevails over claim d of m; pick is the node that was chosen last.
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
