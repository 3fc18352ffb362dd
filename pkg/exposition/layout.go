package exposition

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"metrics-server/pkg/sample"
)

// Layout remembers the containers of one node's last answer in the order in which they came, so
// that the next parse finds each where it was and reuses its ContainerID. Besides the IDs, which the
// limits on an answer bound, it costs 8 bytes per container, and a few more for one with a zero. The
// zero value is ready. Not for concurrent use.
type Layout struct {
	ids     []*sample.ContainerID         // during a parse, new ones follow those of the last answer
	escaped bool                          // a name needed an escape, such as a quote, in some answer so far
	doubts  map[*sample.ContainerID]doubt // about containers with a zero; nil if there is none
}

// lookAhead is how many places a row may be further than expected before it is looked up by name.
// This is enough for families that omit some containers, and for a few containers that have gone.
const lookAhead = 4

// find returns the position in the layout of the container that r names, which it adds if it is
// new; unknown and the reason if no container can have such a name, or there are too many. The number
// of comparisons per row is bounded for any order of rows.
func (a *answer) find(r *row) (int, sample.Reason) {
	ids := a.layout.ids
	for i := a.cursor; i < min(a.cursor+lookAhead, len(ids)); i++ {
		if r.names(ids[i]) {
			a.cursor = i + 1
			return i, 0
		}
	}
	i := a.lookUp(r)
	switch {
	case i == unknown:
		size, escaped, ok := r.inspect()
		if !ok {
			return unknown, sample.Malformed
		}
		namespace, pod := r.labels[labelNamespace], r.labels[labelPod]
		if a.full(size) {
			leaveOut(&a.excess, a.batch, namespace, pod)
			return unknown, sample.Excess
		}
		a.layout.escaped = a.layout.escaped || escaped
		a.layout.ids = append(ids, new(sample.NewContainerID(namespace, pod, r.labels[labelContainer])))
		a.rows = append(a.rows, 0)
		return len(ids), 0
	case i < a.known:
		a.cursor = i + 1
		// Otherwise it is new in this answer. In the answer it is among the others, but in the layout it
		// comes after them, so the cursor stays where it is for the next row.
	}
	return i, 0
}

func (r *row) names(id *sample.ContainerID) bool {
	return string(r.labels[labelContainer]) == id.Container() &&
		string(r.labels[labelPod]) == id.Pod() &&
		string(r.labels[labelNamespace]) == id.Namespace()
}

// maxName is the maximum length of a pod's name; those of namespaces and containers are shorter.
const maxName = 253

// inspect returns the total length of the row's names, and whether one of them needs an escape, which
// no name in a cluster does; ok is false if one is not UTF-8 or too long.
func (r *row) inspect() (size int, escaped, ok bool) {
	for _, name := range r.labels {
		if len(name) > maxName || !utf8.Valid(name) {
			return 0, false, false
		}
		size += len(name)
		escaped = escaped || bytes.ContainsAny(name, "\"\\\n")
	}
	return size, escaped, true
}

// follow makes l the layout of an answer that lists these containers.
func (l *Layout) follow(containers []sample.Container) {
	for i := range containers {
		l.ids[i] = containers[i].ID // each of them has a place in ids, so there are enough
	}
	l.truncate(len(containers))
}

func (l *Layout) truncate(n int) {
	clear(l.ids[n:]) // release containers that have gone
	l.ids = l.ids[:n]
	if cap(l.ids) > 4*n+64 { // an absurdly long answer must not cost memory for ever
		l.ids = slices.Clone(l.ids)
	}
}

// nameKey names a container as the key of a map. Looking one up that is made of bytes does not allocate.
type nameKey struct{ namespace, pod, container string }

// lookUp returns the position in the layout of the container that r names, or unknown.
func (a *answer) lookUp(r *row) int {
	ids := a.layout.ids
	if a.positions == nil {
		a.positions = map[nameKey]int32{}
	}
	for i := len(a.positions); i < len(ids); i++ {
		a.positions[nameKey{ids[i].Namespace(), ids[i].Pod(), ids[i].Container()}] = int32(i)
	}
	namespace, pod, container := r.labels[labelNamespace], r.labels[labelPod], r.labels[labelContainer]
	if i, ok := a.positions[nameKey{string(namespace), string(pod), string(container)}]; ok {
		return int(i)
	}
	return unknown
}
