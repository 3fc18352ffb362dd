package store

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"
	"sort"
	"strings"
	"time"
	"unique"

	"metrics-server/pkg/sample"
)

const (
	// MaxContainers is how many containers of one answer are taken, which is far beyond what any
	// kubelet runs. It bounds what a node that floods costs in memory and in time under its lock.
	MaxContainers = 8192

	// minRemembered is how many vanished containers may be remembered however few are listed: a
	// kubelet's whole list may flap.
	minRemembered = 2048
)

// capped returns b without what is beyond MaxContainers, and how many containers that leaves out.
// Pods stay whole: if one of its containers is beyond, all of them are left out.
func capped(b *sample.Batch) (*sample.Batch, int) {
	if len(b.Containers) <= MaxContainers {
		return b, 0
	}
	whole := make(map[podKey]bool, MaxContainers)
	for _, c := range b.Containers[:MaxContainers] {
		whole[keyOf(c.ID)] = true
	}
	for _, c := range b.Containers[MaxContainers:] {
		delete(whole, keyOf(c.ID))
	}
	taken := slices.Clone(b.Containers[:MaxContainers])
	taken = slices.DeleteFunc(taken, func(c sample.Container) bool { return !whole[keyOf(c.ID)] })
	return &sample.Batch{Node: b.Node, Containers: taken}, len(b.Containers) - len(taken)
}

// layout is what one kubelet lists. The next answer finds each container without looking for it, and those of a pod lie
// together, for that is how they are read: a list of all pods waits for little else than memory. Containers are kept by value:
// with hundreds of thousands of them, pointers between them would cost as much as the samples.
//
// Which containers there are, and where, never changes: another list makes another layout. All else is guarded by the node's lock.
type layout struct {
	node *node
	// The containers, sorted by namespace, pod and name: those of the last answer and some that vanished.
	pasts  []past
	usages []usage
	order  []int32 // where the containers of the last answer are, in its order
}

// series is the i-th container.
func (l *layout) series(i int) series { return series{&l.pasts[i], &l.usages[i]} }

// place is where a pod is: its containers are [at:at+n] of the layout. There is room, as MaxContainers bounds them.
type place struct {
	*layout
	at, n uint16
}

// podKey names a pod.
type podKey struct{ namespace, name string }

func keyOf(id *sample.ContainerID) podKey { return podKey{id.Namespace(), id.Pod()} }

var seed = maphash.MakeSeed()

// hash is that of the pod's names, never 0. It also tells pods apart whose names and namespaces are each other's.
func (k podKey) hash() uint64 {
	return cmp.Or(maphash.String(seed, k.name)+bits.RotateLeft64(maphash.String(seed, k.namespace), 32), 1)
}

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

// aligned reports whether batch lists the same containers in the same order as l. It takes over
// the batch's pointers, so that the next comparison is one of pointers only.
func (l *layout) aligned(batch []sample.Container) bool {
	if len(batch) != len(l.order) {
		return false
	}
	for i, at := range l.order {
		known, id := l.pasts[at].id, batch[i].ID
		if known == id {
			continue
		}
		if *known != *id {
			return false
		}
		l.pasts[at].id = id
	}
	return true
}

// forgettable reports whether a vanished container was received too long ago to be remembered.
func (l *layout) forgettable(now, expiry time.Duration) bool {
	if len(l.order) == len(l.usages) {
		return false // none has vanished
	}
	for i := range l.usages {
		if u := &l.usages[i]; !u.listed && now-u.received > expiry {
			return true
		}
	}
	return false
}

// match is one container: where a layout has it, and where an answer has it.
type match struct{ layout, answer int32 }

const none = -1

// align returns a layout for batch with the series of l. The first of duplicates wins.
// Containers that batch lacks are remembered until expiry, though not many more than are listed, and
// not without a start time: nothing else would tell one from the next of its name.
func (l *layout) align(batch []sample.Container, now, expiry time.Duration) *layout {
	all := slices.DeleteFunc(l.match(batch), func(m match) bool {
		return m.answer == none && (l.pasts[m.layout].start == 0 || now-l.usages[m.layout].received > expiry)
	})
	all = l.dropOldest(all)

	next := &layout{node: l.node, pasts: make([]past, len(all)), usages: make([]usage, len(all)), order: make([]int32, len(batch))}
	for i := range next.order {
		next.order[i] = none
	}
	for at, m := range all {
		c := next.series(at)
		if m.layout == none {
			c.name = unique.Make(batch[m.answer].ID.Container())
		} else {
			*c.past, *c.usage = l.pasts[m.layout], l.usages[m.layout]
		}
		if c.listed = m.answer != none; c.listed {
			c.id = batch[m.answer].ID // of the same names, and the one that the next answer will have
			next.order[m.answer] = int32(at)
		}
	}
	next.order = slices.DeleteFunc(next.order, func(at int32) bool { return at == none }) // duplicates
	return next
}

// match returns the containers of l and of batch, each once, sorted.
func (l *layout) match(batch []sample.Container) []match {
	listed := make([]int32, len(batch))
	for i := range listed {
		listed[i] = int32(i)
	}
	slices.SortStableFunc(listed, func(a, b int32) int { return compare(batch[a].ID, batch[b].ID) })
	listed = slices.CompactFunc(listed, func(a, b int32) bool { return *batch[a].ID == *batch[b].ID })

	all := make([]match, 0, max(len(listed), len(l.pasts)))
	for i, j := 0, 0; i < len(l.pasts) || j < len(listed); {
		var order int
		switch {
		case j == len(listed):
			order = -1
		case i == len(l.pasts):
			order = +1
		default:
			order = compare(l.pasts[i].id, batch[listed[j]].ID)
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

// dropOldest leaves of the containers that vanished from l as many as may be remembered.
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
	// Stable, so that of pods that vanished together all but one are remembered or forgotten in whole.
	slices.SortStableFunc(vanished, func(a, b int32) int { return cmp.Compare(l.usages[b].received, l.usages[a].received) })
	oldest := vanished[limit:]
	slices.Sort(oldest)
	return slices.DeleteFunc(all, func(m match) bool {
		_, drop := slices.BinarySearch(oldest, m.layout)
		return drop
	})
}

// key is that of the pod of the i-th container.
func (l *layout) key(i int) podKey { return keyOf(l.pasts[i].id) }

// remove forgets what is known of a pod's containers. The next answer that has another list makes a layout without them.
func (l *layout) remove(k podKey) {
	from, to := l.find(k)
	l.order = slices.DeleteFunc(l.order, func(i int32) bool { return from <= int(i) && int(i) < to })
	for i := from; i < to; i++ {
		l.pasts[i], l.usages[i].reading = past{id: l.pasts[i].id}, reading{}
	}
}

// find returns where a pod's containers begin and end, sorted by name.
func (l *layout) find(k podKey) (from, to int) {
	from = sort.Search(len(l.pasts), func(i int) bool { return l.key(i).compare(k) >= 0 })
	for to = from; to < len(l.pasts) && l.key(to) == k; to++ {
	}
	return from, to
}

// listedPod is a pod of the last answer.
type listedPod struct {
	podKey
	place
}

// pods walks over the pods of a layout that are listed, sorted.
type pods struct {
	*layout
	at int // where the next one begins, listed or not
}

// next returns the next pod, and false after the last one.
func (l *pods) next() (p listedPod, ok bool) {
	for !ok && l.at < len(l.pasts) {
		from := l.at
		p.podKey = l.key(from)
		for ; l.at < len(l.pasts) && l.key(l.at) == p.podKey; l.at++ {
			ok = ok || l.usages[l.at].listed
		}
		p.place = place{l.layout, uint16(from), uint16(l.at - from)}
	}
	return p, ok
}
