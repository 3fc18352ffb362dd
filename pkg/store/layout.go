package store

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"
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
type layout struct {
	// The containers, sorted by namespace, pod and name: those of the last answer and some that vanished.
	pasts  []past
	usages []usage
	order  []int32 // where the containers of the last answer are, in its order
	places []place // one for each pod, sorted by hash
}

// series is the i-th container.
func (l *layout) series(i int) series { return series{&l.pasts[i], &l.usages[i]} }

// place is where a pod is. Looked for by names, it would take a dozen reads all over the memory.
type place struct {
	hash  uint32 // of its key
	at, n uint16 // its containers are [at:at+n]: there is room, as MaxContainers bounds them
}

// run returns where the containers at p begin and end.
func (p place) run() (from, to int) { return int(p.at), int(p.at) + int(p.n) }

// podKey names a pod.
type podKey struct{ namespace, name string }

func keyOf(id *sample.ContainerID) podKey { return podKey{id.Namespace(), id.Pod()} }

var seed = maphash.MakeSeed()

// hash is that of the pod's names. It also tells pods apart whose names and namespaces are each other's.
func (k podKey) hash() uint64 {
	return maphash.String(seed, k.name) + bits.RotateLeft64(maphash.String(seed, k.namespace), 32)
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
func (l *layout) align(batch []sample.Container, now, expiry time.Duration) layout {
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
	next := layout{pasts: make([]past, len(all)), usages: make([]usage, len(all)), order: make([]int32, listed)}
	for at, i := range sorted {
		next.pasts[at], next.usages[at] = *all[i].past, *all[i].usage
		if next.usages[at].listed = int(i) < listed; next.usages[at].listed {
			next.order[i] = int32(at)
		}
	}
	next.place()
	return next
}

// place works out places anew.
func (l *layout) place() {
	l.places = nil
	var last podKey
	for at := range l.pasts {
		if k := l.key(at); at == 0 || k != last {
			l.places = append(l.places, place{hash: uint32(k.hash()), at: uint16(at)})
			last = k
		}
		l.places[len(l.places)-1].n++
	}
	l.places = slices.Clip(l.places)
	slices.SortFunc(l.places, func(a, b place) int { return cmp.Compare(a.hash, b.hash) })
}

// key is that of the pod of the i-th container.
func (l *layout) key(i int) podKey { return keyOf(l.pasts[i].id) }

// remove forgets a pod's containers. It does not sort again: a node that floods may claim every pod that
// leaves the cluster.
func (l *layout) remove(k podKey) {
	at, found := l.at(k, k.hash())
	if !found || l.key(int(l.places[at].at)) != k {
		return
	}
	from, to := l.places[at].run()
	l.places = slices.Delete(l.places, at, at+1)
	for i := range l.places {
		if int(l.places[i].at) >= to {
			l.places[i].at -= uint16(to - from)
		}
	}
	kept := l.order[:0]
	for _, i := range l.order {
		switch {
		case int(i) < from:
			kept = append(kept, i)
		case int(i) >= to:
			kept = append(kept, i-int32(to-from))
		}
	}
	l.order = kept
	l.pasts, l.usages = slices.Delete(l.pasts, from, to), slices.Delete(l.usages, from, to)
}

// find returns where a pod's containers begin and end, sorted by name. hash is k's.
func (l *layout) find(k podKey, hash uint64) (from, to int) {
	at, found := l.at(k, hash)
	if !found {
		return 0, 0
	}
	return l.places[at].run()
}

// at returns which of places a pod has. Whoever asks has just learned from the index that this node lists the pod, so
// names, which would have to be fetched from far away, are only compared where hashes do not tell the node's pods apart.
func (l *layout) at(k podKey, hash uint64) (at int, found bool) {
	h := uint32(hash)
	// Hashes are spread evenly, so the place is near here, which saves most of the steps of a binary search.
	at = int(uint64(h) * uint64(len(l.places)) >> 32)
	for at > 0 && l.places[at-1].hash >= h {
		at--
	}
	for at < len(l.places) && l.places[at].hash < h {
		at++
	}
	if next := at + 1; next < len(l.places) && l.places[at].hash == h && l.places[next].hash == h {
		for ; at < len(l.places) && l.places[at].hash == h; at++ {
			if l.key(int(l.places[at].at)) == k {
				return at, true
			}
		}
		return 0, false
	}
	return at, at < len(l.places) && l.places[at].hash == h
}

// pods returns the pods that are listed, sorted.
func (l *layout) pods() []podKey {
	var keys []podKey
	for i := range l.usages {
		if !l.usages[i].listed {
			continue
		}
		if k := l.key(i); len(keys) == 0 || keys[len(keys)-1] != k {
			keys = append(keys, k)
		}
	}
	return keys
}
