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

// layout is what one kubelet lists, in its order, so that the next answer finds each container
// without looking for it. Containers are kept by value: with hundreds of thousands of them, pointers between
// them would cost as much as the samples.
type layout struct {
	// The containers: [:listed] as in the last answer, then those that vanished, the latest first.
	pasts  []past
	usages []usage
	listed int
	byPod  []int32 // indices of containers, sorted by namespace, pod and container
	places []place // one for each pod, sorted by hash
}

// series is the i-th container.
func (l *layout) series(i int) series { return series{&l.pasts[i], &l.usages[i]} }

// place is where a pod is. Looked for by names, it would take a dozen reads all over the memory, and a list of all pods
// waits for little else.
type place struct {
	hash  uint32 // of its key
	at, n uint16 // its containers are byPod[at:at+n]: there is room, as MaxContainers bounds them
}

// podKey names a pod.
type podKey struct{ namespace, name string }

func keyOf(id *sample.ContainerID) podKey { return podKey{id.Namespace(), id.Pod()} }

var seed = maphash.MakeSeed()

// hash tells pods apart whose names and namespaces are each other's.
func hash(k podKey) uint64 {
	return maphash.String(seed, k.name) + bits.RotateLeft64(maphash.String(seed, k.namespace), 32)
}

// hash32 is as long as a place has room for.
func hash32(k podKey) uint32 { return uint32(hash(k)) }

func (k podKey) compare(o podKey) int {
	if c := strings.Compare(k.namespace, o.namespace); c != 0 {
		return c
	}
	return strings.Compare(k.name, o.name)
}

// aligned reports whether batch lists the same containers in the same order as l. It takes over
// the batch's pointers, so that the next comparison is one of pointers only.
func (l *layout) aligned(batch []sample.Container) bool {
	if len(batch) != l.listed {
		return false
	}
	for i := range batch {
		known, id := l.pasts[i].id, batch[i].ID
		if known == id {
			continue
		}
		if *known != *id {
			return false
		}
		l.pasts[i].id = id
	}
	return true
}

// forgettable reports whether a vanished container was received too long ago to be remembered.
func (l *layout) forgettable(now, expiry time.Duration) bool {
	for i := l.listed; i < len(l.usages); i++ {
		if now-l.usages[i].received > expiry {
			return true
		}
	}
	return false
}

// align returns a layout in the order of batch with the series of l. The first of duplicates wins.
// Containers that batch lacks are remembered until expiry, though not many more than are listed, and
// not without a start time: nothing else would tell one from the next of its name.
func (l *layout) align(batch []sample.Container, now, expiry time.Duration) layout {
	const placed = -1
	index := make(map[sample.ContainerID]int, len(l.pasts)) // in l
	for i := range l.pasts {
		index[*l.pasts[i].id] = i
	}
	next := layout{
		pasts:  make([]past, 0, max(len(batch), len(l.pasts))),
		usages: make([]usage, 0, max(len(batch), len(l.pasts))),
	}
	for i := range batch {
		id := batch[i].ID
		old, known := index[*id]
		switch {
		case !known:
			next.pasts = append(next.pasts, past{id: id})
			next.usages = append(next.usages, usage{name: unique.Make(id.Container())})
		case old == placed:
			continue
		default:
			next.pasts = append(next.pasts, l.pasts[old])
			next.pasts[len(next.pasts)-1].id = id
			next.usages = append(next.usages, l.usages[old])
		}
		index[*id] = placed
	}
	next.listed = len(next.pasts)
	limit := next.listed + max(next.listed, minRemembered)
	for i := range l.pasts {
		c := l.series(i)
		if len(next.pasts) < limit && index[*c.id] != placed && c.start > 0 && now-c.received <= expiry {
			next.pasts = append(next.pasts, *c.past)
			next.usages = append(next.usages, *c.usage)
		}
	}
	next.pasts = slices.Clip(slices.Clone(next.pasts))
	next.usages = slices.Clip(slices.Clone(next.usages))

	next.byPod = make([]int32, len(next.pasts))
	for i := range next.byPod {
		next.byPod[i] = int32(i)
	}
	slices.SortFunc(next.byPod, func(a, b int32) int {
		x, y := next.pasts[a].id, next.pasts[b].id
		return cmp.Or(keyOf(x).compare(keyOf(y)), strings.Compare(x.Container(), y.Container()))
	})
	next.place()
	return next
}

// place works out places anew.
func (l *layout) place() {
	l.places = nil
	var last podKey
	for at, i := range l.byPod {
		if k := l.key(i); at == 0 || k != last {
			l.places = append(l.places, place{hash: hash32(k), at: uint16(at)})
			last = k
		}
		l.places[len(l.places)-1].n++
	}
	l.places = slices.Clip(l.places)
	slices.SortFunc(l.places, func(a, b place) int { return cmp.Compare(a.hash, b.hash) })
}

// key is that of the pod of the i-th container.
func (l *layout) key(i int32) podKey { return keyOf(l.pasts[i].id) }

// remove forgets a pod's containers. It does not sort again: a node that floods may claim every pod that
// leaves the cluster.
func (l *layout) remove(k podKey) {
	at, found := l.at(k)
	if !found || l.key(l.byPod[l.places[at].at]) != k {
		return
	}
	p := l.places[at]
	gone := slices.Sorted(slices.Values(l.run(p)))
	l.places = slices.Delete(l.places, at, at+1)
	for i := range l.places {
		if l.places[i].at > p.at {
			l.places[i].at -= p.n
		}
	}
	kept := l.byPod[:0]
	for _, i := range l.byPod {
		if before, found := slices.BinarySearch(gone, i); !found {
			kept = append(kept, i-int32(before))
		}
	}
	listed, _ := slices.BinarySearch(gone, int32(l.listed))
	l.listed -= listed
	l.byPod = kept
	l.pasts, l.usages = without(l.pasts, gone), without(l.usages, gone)
}

// without removes the elements of s at gone, which is sorted.
func without[T any](s []T, gone []int32) []T {
	kept := s[:0]
	for i := range s {
		if len(gone) > 0 && int(gone[0]) == i {
			gone = gone[1:]
			continue
		}
		kept = append(kept, s[i])
	}
	clear(s[len(kept):])
	return kept
}

// find returns the indices of a pod's containers, sorted by name.
func (l *layout) find(k podKey) []int32 {
	at, found := l.at(k)
	if !found {
		return nil
	}
	return l.run(l.places[at])
}

// at returns which of places a pod has. Whoever asks has just learned from the index that this node lists the pod, so
// names, which would have to be fetched from far away, are only compared where hashes do not tell the node's pods apart.
func (l *layout) at(k podKey) (at int, found bool) {
	hash := hash32(k)
	at, found = slices.BinarySearchFunc(l.places, hash, func(p place, hash uint32) int { return cmp.Compare(p.hash, hash) })
	if next := at + 1; found && next < len(l.places) && l.places[next].hash == hash {
		for ; at < len(l.places) && l.places[at].hash == hash; at++ {
			if l.key(l.byPod[l.places[at].at]) == k {
				return at, true
			}
		}
		return 0, false
	}
	return at, found
}

// run returns the part of byPod that is at p.
func (l *layout) run(p place) []int32 { return l.byPod[p.at : p.at+p.n] }

// pods returns the pods that are listed, sorted.
func (l *layout) pods() []podKey {
	var keys []podKey
	for _, i := range l.byPod {
		if int(i) >= l.listed {
			continue
		}
		if k := l.key(i); len(keys) == 0 || keys[len(keys)-1] != k {
			keys = append(keys, k)
		}
	}
	return keys
}
