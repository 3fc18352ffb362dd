package store

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"time"
	"unique"

	"metrics-server/pkg/ring"
	"metrics-server/pkg/sample"
)

// minRemembered is how many vanished containers are remembered at least, however few are listed: the
// whole list of a kubelet may flap.
const minRemembered = 2048

// layout holds the containers that one kubelet lists. The next answer finds each at a known position.
// The containers of a pod are adjacent, as they are read together: listing all pods is bound by cache
// misses. They are stored by value, because with hundreds of thousands of them, pointers would cost as
// much as the samples.
//
// Which containers a layout has, and where, never changes: a different list makes a new layout. The
// node's lock guards all else.
type layout struct {
	node *node // whose layout it is or was
	// The containers of the last answer and some that vanished, sorted by namespace, pod and name.
	containers []series
	order      []int32 // the positions of the last answer's containers, in its order
}

// place is the position of a pod: its containers are [at:at+n] of the layout. The zero value is nowhere.
type place struct {
	layout *layout
	at, n  int32
}

// node is the node that lists the pod, nil if p is nowhere.
func (p place) node() *node {
	if p.layout == nil {
		return nil
	}
	return p.layout.node
}

// podKey names a pod.
type podKey struct{ namespace, name string }

func keyOfPod(o *sample.Object) podKey { return podKey{o.Namespace, o.Name} }

func keyOf(id *sample.ContainerID) podKey { return podKey{id.Namespace(), id.Pod()} }

func (k podKey) compare(o podKey) int {
	if c := strings.Compare(k.namespace, o.namespace); c != 0 {
		return c
	}
	return strings.Compare(k.name, o.name)
}

// compare is the order of containers in a layout.
func compare(a, b *sample.ContainerID) int {
	if c := keyOf(a).compare(keyOf(b)); c != 0 {
		return c
	}
	return strings.Compare(a.Container(), b.Container())
}

// aligned reports whether batch lists the same containers in the same order as l. It adopts the batch's
// pointers, so that the next comparison is of pointers only.
func (l *layout) aligned(batch []sample.Container) bool {
	if len(batch) != len(l.order) {
		return false
	}
	for i, at := range l.order {
		known, id := l.containers[at].id, batch[i].ID
		if known == id {
			continue
		}
		if *known != *id {
			return false
		}
		l.containers[at].id = id
	}
	return true
}

// forgettable reports whether l has a vanished container that has expired.
func (l *layout) forgettable(now, expiry time.Duration) bool {
	return len(l.order) < len(l.containers) && slices.ContainsFunc(l.containers, func(c series) bool {
		return !c.listed && now-c.received > expiry
	})
}

// match holds the positions of one container in a layout and in an answer, or none.
type match struct{ layout, answer int32 }

const none = -1

// align returns a layout for batch with the series of l, and the pods whose containers in batch differ from those in
// the last answer. The first of duplicates wins. Containers that batch lacks are remembered until expiry, up to a
// limit that depends on how many are listed, and only those with a start time, which tells them from a later
// container of the same name.
func (l *layout) align(batch []sample.Container, now, expiry time.Duration) (next *layout, changed []podKey) {
	matches := l.match(batch)
	changed = l.changed(matches, batch)
	all := slices.DeleteFunc(matches, func(m match) bool {
		return m.answer == none &&
			(l.containers[m.layout].start == 0 || now-l.containers[m.layout].received > expiry)
	})
	all = l.dropOldest(all)

	next = &layout{node: l.node, containers: make([]series, len(all)), order: make([]int32, len(batch))}
	for i := range next.order {
		next.order[i] = none
	}
	for at, m := range all {
		c := &next.containers[at]
		if m.layout == none || m.answer != none && l.replaced(int(m.layout), &batch[m.answer]) {
			c.name = unique.Make(batch[m.answer].ID.Container())
		} else {
			*c = l.containers[m.layout]
		}
		if c.listed = m.answer != none; c.listed {
			c.id = batch[m.answer].ID // the same names, and the pointer that the next answer will have
			next.order[m.answer] = int32(at)
		}
	}
	next.order = slices.DeleteFunc(next.order, func(at int32) bool { return at == none }) // duplicates
	return next, changed
}

// changed returns the pods with a container that only one of the last answer and batch lists.
func (l *layout) changed(all []match, batch []sample.Container) (pods []podKey) {
	for _, m := range all {
		was, is := m.layout != none && l.containers[m.layout].listed, m.answer != none
		if was == is {
			continue
		}
		var k podKey
		if is {
			k = keyOf(batch[m.answer].ID)
		} else {
			k = l.key(int(m.layout))
		}
		if n := len(pods); n == 0 || pods[n-1] != k {
			pods = append(pods, k)
		}
	}
	return pods
}

// replaced reports whether the i-th container vanished before and c is another one of its name: it
// started after the last sample, and its counter can have begun then.
func (l *layout) replaced(i int, c *sample.Container) bool {
	start := startOf(&c.Sample)
	return !l.containers[i].listed && start > l.containers[i].points[0].Time &&
		l.node.limits.fits(ring.Point{Time: start}, ring.Point{Time: c.Time, Value: c.CPU})
}

// match returns the containers of l and of batch, each once, sorted.
func (l *layout) match(batch []sample.Container) []match {
	listed := make([]int32, len(batch))
	for i := range listed {
		listed[i] = int32(i)
	}
	slices.SortStableFunc(listed, func(a, b int32) int { return compare(batch[a].ID, batch[b].ID) })
	listed = slices.CompactFunc(listed, func(a, b int32) bool { return *batch[a].ID == *batch[b].ID })

	all := make([]match, 0, max(len(listed), len(l.containers)))
	for i, j := 0, 0; i < len(l.containers) || j < len(listed); {
		var order int
		switch {
		case j == len(listed):
			order = -1
		case i == len(l.containers):
			order = +1
		default:
			order = compare(l.containers[i].id, batch[listed[j]].ID)
		}
		m := match{none, none}
		if order <= 0 {
			m.layout = int32(i)
			i++
		}
		if order >= 0 {
			m.answer = listed[j]
			j++
		}
		all = append(all, m)
	}
	return all
}

// dropOldest limits how many of the containers that vanished from l are remembered.
func (l *layout) dropOldest(all []match) []match {
	var vanished []int32
	for _, m := range all {
		if m.answer == none {
			vanished = append(vanished, m.layout)
		}
	}
	limit := max(len(all)-len(vanished), minRemembered)
	if len(vanished) <= limit {
		return all
	}
	// Stable, so that of the pods that vanished together at most one is remembered in part.
	slices.SortStableFunc(vanished, func(a, b int32) int {
		return cmp.Compare(l.containers[b].received, l.containers[a].received)
	})
	oldest := vanished[limit:]
	slices.Sort(oldest)
	return slices.DeleteFunc(all, func(m match) bool {
		_, drop := slices.BinarySearch(oldest, m.layout)
		return drop
	})
}

// key is the key of the i-th container's pod.
func (l *layout) key(i int) podKey { return keyOf(l.containers[i].id) }

// remove clears the data of a pod's containers. The next answer with a different list makes a layout
// without them.
func (l *layout) remove(k podKey) {
	from, to := l.find(k)
	l.order = slices.DeleteFunc(l.order, func(i int32) bool { return from <= int(i) && int(i) < to })
	for i := from; i < to; i++ {
		l.containers[i] = series{id: l.containers[i].id, name: l.containers[i].name}
	}
}

// touch notes that the usage of a pod has changed.
func (l *layout) touch(k podKey, r sample.Revision) {
	for i, to := l.find(k); i < to; i++ {
		c := &l.containers[i]
		c.changed = max(c.changed, r)
	}
}

// find returns the range of a pod's containers.
func (l *layout) find(k podKey) (from, to int) {
	from = sort.Search(len(l.containers), func(i int) bool { return l.key(i).compare(k) >= 0 })
	for to = from; to < len(l.containers) && l.key(to) == k; to++ {
	}
	return from, to
}

// listedPod is a pod of the last answer.
type listedPod struct {
	key podKey
	place
}

// pods iterates over the listed pods of a layout, in order.
type pods struct {
	layout *layout
	at     int // where the next pod begins, listed or not
}

// next returns the next pod, and false after the last one.
func (p *pods) next() (pod listedPod, ok bool) {
	l := p.layout
	for !ok && p.at < len(l.containers) {
		from := p.at
		pod.key = l.key(from)
		for ; p.at < len(l.containers) && l.key(p.at) == pod.key; p.at++ {
			ok = ok || l.containers[p.at].listed
		}
		pod.place = place{l, int32(from), int32(p.at - from)}
	}
	return pod, ok
}
