package exposition

import (
	"bytes"
	"hash/maphash"
	"slices"
	"unicode/utf8"

	"metrics-server/pkg/sample"
)

// Layout remembers the containers of one node's last answer in the order in which they came, so
// that the next parse finds each by looking where it was, and reuses its ContainerID. It costs 8
// bytes for each container beside the IDs. The zero value is ready. Not for concurrent use.
type Layout struct {
	ids     []*sample.ContainerID // during a parse, those that are new follow those of the last answer
	escaped bool                  // some name, perhaps long ago, did not look in an answer as it is: it had a quote, say
}

// lookAhead is how many places a row may be further than expected before the index is asked. A
// family that leaves some containers out and a few that have gone stay within it.
const lookAhead = 4

// find returns the position in the layout of the container that r names, which it adds if it is
// new; unknown if no container can have such a name. Any order of rows costs a bounded number of comparisons for each.
func (a *answer) find(r *row) int {
	ids := a.layout.ids
	for i := a.cursor; i < min(a.cursor+lookAhead, len(ids)); i++ {
		if r.names(ids[i]) {
			a.cursor = i + 1
			return i
		}
	}
	i := a.index.find(ids, r)
	switch {
	case i < 0:
		id, escaped := r.intern()
		if id == nil {
			return unknown
		}
		a.layout.escaped = a.layout.escaped || escaped
		a.layout.ids = append(ids, id)
		a.rows = append(a.rows, 0)
		return len(ids)
	case i < a.known:
		a.cursor = i + 1
		// Otherwise it is new in this answer. It stands among the others where the cursor is, but
		// behind them in the layout: the cursor stays for the row after it.
	}
	return i
}

func (r *row) names(id *sample.ContainerID) bool {
	return string(r.labels[labelContainer]) == id.Container() &&
		string(r.labels[labelPod]) == id.Pod() &&
		string(r.labels[labelNamespace]) == id.Namespace()
}

// maxName is the most bytes that a name of a pod can have; those of namespaces and containers are shorter. Longer ones would be
// remembered, for as long as other samples, up to the size of an answer.
const maxName = 253

// intern returns a new ID with the row's names, and whether one of them needs an escape, which none in a cluster does; nil
// if they are not UTF-8 or too long.
func (r *row) intern() (id *sample.ContainerID, escaped bool) {
	for _, name := range r.labels {
		if len(name) > maxName || !utf8.Valid(name) {
			return nil, false
		}
		escaped = escaped || bytes.ContainsAny(name, "\"\\\n")
	}
	return new(sample.NewContainerID(r.labels[labelNamespace], r.labels[labelPod], r.labels[labelContainer])), escaped
}

// follow makes the layout that of the answer that listed containers.
func (l *Layout) follow(containers []sample.Container) {
	for i := range containers {
		l.ids[i] = containers[i].ID // each of them has a place in ids, so there are enough
	}
	l.truncate(len(containers))
}

func (l *Layout) truncate(n int) {
	clear(l.ids[n:]) // let go of those that have gone
	l.ids = l.ids[:n]
	if cap(l.ids) > 4*n+64 { // an answer that was absurdly long must not cost memory for ever
		l.ids = slices.Clone(l.ids)
	}
}

// index finds a position in Layout.ids by name, for the rows that are not where they were. It is
// an open hash table without deletion, filled when it is first asked. A map would need the names
// as keys, and allocate.
type index struct {
	seed  maphash.Seed
	slots []int32 // position plus one, or 0; a power of two in length, at most half of it in use
	size  int     // how many of the ids are in it
}

func (x *index) reset() { x.slots, x.size = x.slots[:0], 0 }

// find returns the position of the container that r names, or -1. The ids may have grown since
// the last call.
func (x *index) find(ids []*sample.ContainerID, r *row) int {
	if 2*len(ids) >= len(x.slots) {
		x.grow(4*len(ids) + 16)
	}
	for ; x.size < len(ids); x.size++ {
		id := ids[x.size]
		i := x.hash(maphash.String(x.seed, id.Container()), maphash.String(x.seed, id.Namespace()), maphash.String(x.seed, id.Pod()))
		for x.slots[i] != 0 {
			i = (i + 1) & (len(x.slots) - 1)
		}
		x.slots[i] = int32(x.size + 1)
	}
	i := x.hash(maphash.Bytes(x.seed, r.labels[labelContainer]), maphash.Bytes(x.seed, r.labels[labelNamespace]), maphash.Bytes(x.seed, r.labels[labelPod]))
	for ; x.slots[i] != 0; i = (i + 1) & (len(x.slots) - 1) {
		if at := int(x.slots[i] - 1); r.names(ids[at]) {
			return at
		}
	}
	return -1
}

// hash combines the hashes of the three names to a place in slots. The seed keeps a hostile
// node from choosing names that fall on one place.
func (x *index) hash(container, namespace, pod uint64) int {
	const odd = 0x9e3779b97f4a7c15
	h := (container*odd+namespace)*odd + pod
	return int((h ^ h>>32) & uint64(len(x.slots)-1))
}

// grow empties the table and makes it at least n long.
func (x *index) grow(n int) {
	if x.seed == (maphash.Seed{}) {
		x.seed = maphash.MakeSeed()
	}
	size := 1
	for size < n {
		size *= 2
	}
	x.slots, x.size = zeros(x.slots, size), 0
}

// zeros returns n zeros in the memory of s if they fit.
func zeros(s []int32, n int) []int32 {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}
