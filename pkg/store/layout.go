package store

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"time"

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

// container is one container of a node. It is kept by value: with hundreds of thousands of them,
// pointers between them would cost as much as the samples.
type container struct {
	id *sample.ContainerID
	series
}

// layout is what one kubelet lists, in its order, so that the next answer finds each container
// without looking for it.
type layout struct {
	containers []container // containers[:listed] as in the last answer, then those that vanished, the latest first
	listed     int
	byPod      []int32 // indices of containers, sorted by namespace, pod and container
	places     []place // one for each pod, sorted by hash
}

// place is where a pod is. Looked for by names, it would take a dozen reads all over the memory, and a list of all pods
// waits for little else.
type place struct {
	hash uint32 // of its key
	at   int32  // index in byPod of its first container
}

// podKey names a pod.
type podKey struct{ namespace, name string }

func keyOf(id *sample.ContainerID) podKey { return podKey{id.Namespace, id.Pod} }

var seed = maphash.MakeSeed()

func hash(k podKey) uint64 { return maphash.String(seed, k.name) + maphash.String(seed, k.namespace) }

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
		c, id := &l.containers[i], batch[i].ID
		if c.id == id {
			continue
		}
		if *c.id != *id {
			return false
		}
		c.id = id
	}
	return true
}

// forgettable reports whether a vanished container was received too long ago to be remembered.
func (l *layout) forgettable(now, expiry time.Duration) bool {
	for i := l.listed; i < len(l.containers); i++ {
		if now-l.containers[i].received > expiry {
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
	index := make(map[sample.ContainerID]int, len(l.containers)) // in l
	for i := range l.containers {
		index[*l.containers[i].id] = i
	}
	next := make([]container, 0, max(len(batch), len(l.containers)))
	for i := range batch {
		c := container{id: batch[i].ID}
		old, known := index[*c.id]
		if old == placed && known {
			continue
		}
		if known {
			c.series = l.containers[old].series
		}
		index[*c.id] = placed
		next = append(next, c)
	}
	listed := len(next)
	limit := listed + max(listed, minRemembered)
	for i := range l.containers {
		c := &l.containers[i]
		if len(next) < limit && index[*c.id] != placed && c.start > 0 && now-c.received <= expiry {
			next = append(next, *c)
		}
	}
	next = slices.Clip(slices.Clone(next))

	byPod := make([]int32, len(next))
	for i := range byPod {
		byPod[i] = int32(i)
	}
	slices.SortFunc(byPod, func(a, b int32) int {
		x, y := next[a].id, next[b].id
		return cmp.Or(keyOf(x).compare(keyOf(y)), strings.Compare(x.Container, y.Container))
	})
	aligned := layout{containers: next, listed: listed, byPod: byPod}
	aligned.place()
	return aligned
}

// place works out places anew.
func (l *layout) place() {
	l.places = nil
	for i, c := range l.byPod {
		if k := l.key(c); i == 0 || k != l.key(l.byPod[i-1]) {
			l.places = append(l.places, place{hash32(k), int32(i)})
		}
	}
	l.places = slices.Clip(l.places)
	slices.SortFunc(l.places, func(a, b place) int { return cmp.Compare(a.hash, b.hash) })
}

// key is that of the pod of the i-th container.
func (l *layout) key(i int32) podKey { return keyOf(l.containers[i].id) }

// remove forgets a pod's containers. It does not sort again: a node that floods may claim every pod that
// leaves the cluster.
func (l *layout) remove(k podKey) {
	at, found := l.at(k)
	if !found {
		return
	}
	pod := l.run(at)
	l.places = slices.DeleteFunc(l.places, func(p place) bool { return int(p.at) == at })
	for i := range l.places {
		if int(l.places[i].at) > at {
			l.places[i].at -= int32(len(pod))
		}
	}
	gone := slices.Sorted(slices.Values(pod))
	kept := l.byPod[:0]
	for _, i := range l.byPod {
		if before, found := slices.BinarySearch(gone, i); !found {
			kept = append(kept, i-int32(before))
		}
	}
	listed, _ := slices.BinarySearch(gone, int32(l.listed))
	l.listed -= listed
	l.byPod = kept
	l.containers = slices.DeleteFunc(l.containers, func(c container) bool { return keyOf(c.id) == k })
}

// find returns the indices of a pod's containers, sorted by name.
func (l *layout) find(k podKey) []int32 {
	at, found := l.at(k)
	if !found {
		return nil
	}
	return l.run(at)
}

// at returns where in byPod a pod begins.
func (l *layout) at(k podKey) (at int, found bool) {
	hash := hash32(k)
	i, _ := slices.BinarySearchFunc(l.places, hash, func(p place, hash uint32) int { return cmp.Compare(p.hash, hash) })
	for ; i < len(l.places) && l.places[i].hash == hash; i++ {
		if at := l.places[i].at; l.key(l.byPod[at]) == k {
			return int(at), true
		}
	}
	return 0, false
}

// run returns the part of byPod that is of the pod that begins at at.
func (l *layout) run(at int) []int32 {
	to := at + 1
	for k := l.key(l.byPod[at]); to < len(l.byPod) && l.key(l.byPod[to]) == k; {
		to++
	}
	return l.byPod[at:to]
}

// pods returns the pods that are listed, sorted.
func (l *layout) pods() []podKey {
	var keys []podKey
	for _, i := range l.byPod {
		if int(i) >= l.listed {
			continue
		}
		if k := keyOf(l.containers[i].id); len(keys) == 0 || keys[len(keys)-1] != k {
			keys = append(keys, k)
		}
	}
	return keys
}
