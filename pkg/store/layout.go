package store

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"metrics-server/pkg/sample"
)

// container is one container of a node. It is kept by value: with hundreds of thousands of them,
// pointers between them would cost as much as the samples.
type container struct {
	id *sample.ContainerID
	series
}

// layout is what one kubelet lists, in its order, so that the next answer finds each container
// without looking for it.
type layout struct {
	containers []container // containers[:listed] as in the last answer, then those that vanished lately
	listed     int
	byPod      []int32 // indices of containers, sorted by namespace, pod and container
}

// podKey names a pod.
type podKey struct{ namespace, name string }

func keyOf(id *sample.ContainerID) podKey { return podKey{id.Namespace, id.Pod} }

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
// Containers that batch lacks are remembered until expiry.
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
	for i := range l.containers {
		c := &l.containers[i]
		if index[*c.id] != placed && now-c.received <= expiry {
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
	return layout{containers: next, listed: listed, byPod: byPod}
}

// find returns the indices of a pod's containers, sorted by name.
func (l *layout) find(key podKey) []int32 {
	from, _ := slices.BinarySearchFunc(l.byPod, key, func(i int32, k podKey) int {
		return keyOf(l.containers[i].id).compare(k)
	})
	to := from
	for to < len(l.byPod) && keyOf(l.containers[l.byPod[to]].id) == key {
		to++
	}
	return l.byPod[from:to]
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
