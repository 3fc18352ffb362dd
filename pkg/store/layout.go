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

// align returns a layout for batch with the series of l. The first of duplicates wins.
// Containers that batch lacks are remembered until expiry, though not many more than are listed, and
// not without a start time: nothing else would tell one from the next of its name.
func (l *layout) align(batch []sample.Container, now, expiry time.Duration) *layout {
	const placed = -1
	index := make(map[sample.ContainerID]int, len(l.pasts)) // in l
	for i := range l.pasts {
		index[*l.pasts[i].id] = i
	}
	all := make([]series, 0, max(len(batch), len(l.pasts)))
	var fresh layout // the series that are new
	for i := range batch {
		id := batch[i].ID
		old, known := index[*id]
		switch {
		case !known:
			if fresh.pasts == nil { // large enough, so that none moves
				fresh.pasts, fresh.usages = make([]past, 0, len(batch)-i), make([]usage, 0, len(batch)-i)
			}
			fresh.pasts = append(fresh.pasts, past{id: id})
			fresh.usages = append(fresh.usages, usage{name: unique.Make(id.Container())})
			all = append(all, fresh.series(len(fresh.pasts)-1))
		case old == placed:
			continue
		default:
			c := l.series(old)
			c.id = id // of the same names, and the one that the next answer will have
			all = append(all, c)
		}
		index[*id] = placed
	}
	listed := len(all)
	for i := range l.pasts {
		if c := l.series(i); index[*c.id] != placed && c.start > 0 && now-c.received <= expiry {
			all = append(all, c)
		}
	}
	if limit := listed + max(listed, minRemembered); len(all) > limit {
		slices.SortStableFunc(all[listed:], func(a, b series) int { return cmp.Compare(b.received, a.received) })
		all = all[:limit]
	}

	sorted := make([]int32, len(all))
	for i := range sorted {
		sorted[i] = int32(i)
	}
	slices.SortFunc(sorted, func(a, b int32) int {
		x, y := all[a].id, all[b].id
		return cmp.Or(keyOf(x).compare(keyOf(y)), strings.Compare(x.Container(), y.Container()))
	})
	next := &layout{node: l.node, pasts: make([]past, len(all)), usages: make([]usage, len(all)), order: make([]int32, listed)}
	for at, i := range sorted {
		next.pasts[at], next.usages[at] = *all[i].past, *all[i].usage
		if next.usages[at].listed = int(i) < listed; next.usages[at].listed {
			next.order[i] = int32(at)
		}
	}
	return next
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

// pods returns the pods that are listed, sorted.
func (l *layout) pods() []listedPod {
	var pods []listedPod
	for from := 0; from < len(l.pasts); {
		k, to, listed := l.key(from), from, false
		for ; to < len(l.pasts) && l.key(to) == k; to++ {
			listed = listed || l.usages[to].listed
		}
		if listed {
			pods = append(pods, listedPod{k, place{l, uint16(from), uint16(to - from)}})
		}
		from = to
	}
	return pods
}
