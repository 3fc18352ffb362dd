package inventory

import (
	"cmp"
	"iter"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"metrics-server/pkg/sample"
)

// ObjectSet holds objects, sorted by namespace and name. Any number of goroutines may read it; a
// reader sees the set as it was at one moment and neither waits for the writer nor makes it wait. The
// zero value is empty.
type ObjectSet struct {
	current atomic.Pointer[snapshot]
}

// maxChunk is how many entries a chunk holds at most. A change copies one chunk and the list of chunks:
// for 150,000 pods at this size about the same for both, some microseconds together.
const maxChunk = 256

// snapshot is an immutable set: sorted chunks of sorted entries, none of them empty. Chunks are shared
// between successive snapshots. A B-tree with copy on write does the same with more memory: its nodes
// stay half full after a sorted load.
type snapshot struct {
	chunks [][]entry
	len    int
}

// entry has what is kept of an object.
type entry struct {
	name string
	set  *labelSet // shared by the objects with the same namespace and labels
	uid  uint64    // a hash of its UID: another one is another object of the same name
	// changed is when the labels changed, zero if they never did.
	changed sample.Revision
}

func (e entry) object() sample.Object {
	return sample.Object{Namespace: e.set.namespace, Name: e.name, Labels: e.set.labels, Changed: e.changed}
}

// compare orders e and the object named as given.
func (e entry) compare(namespace, name string) int {
	return cmp.Or(strings.Compare(e.set.namespace, namespace), strings.Compare(e.name, name))
}

// Get returns the object of that name, and whether there is one.
func (x *ObjectSet) Get(namespace, name string) (sample.Object, bool) {
	e, ok := x.load().get(namespace, name)
	if !ok {
		return sample.Object{}, false
	}
	return e.object(), true
}

// All iterates over the objects of a namespace, or over all if it is "", sorted by namespace and name, as
// they were when the iteration began. Unless selects is nil, objects whose labels it rejects are
// skipped. It is called once for adjacent objects that share their labels, as the pods of a ReplicaSet
// do, so that the rest of a large namespace costs next to nothing.
func (x *ObjectSet) All(namespace string, selects func(sample.Labels) bool) iter.Seq[sample.Object] {
	return func(yield func(sample.Object) bool) {
		var last *labelSet
		wanted := false
		for e := range x.load().from(namespace) {
			if e.set != last {
				if namespace != "" && e.set.namespace != namespace {
					return
				}
				last, wanted = e.set, selects == nil || selects(e.set.labels)
			}
			if wanted && !yield(e.object()) {
				return
			}
		}
	}
}

// Managed iterates over all objects as All does, with what manages each; the zero value if nothing
// does, or if the client does not decode it.
func (x *ObjectSet) Managed() iter.Seq2[sample.Object, sample.Controller] {
	return func(yield func(sample.Object, sample.Controller) bool) {
		for e := range x.load().from("") {
			if !yield(e.object(), e.set.managedBy()) {
				return
			}
		}
	}
}

// Len is the number of objects.
func (x *ObjectSet) Len() int { return x.load().len }

// put adds e or replaces the entry of the same name. Like all methods that write, it is for one
// goroutine at a time.
func (x *ObjectSet) put(e entry) {
	s := x.load()
	if len(s.chunks) == 0 {
		x.replace([]entry{e})
		return
	}
	c, at, found := s.find(e.set.namespace, e.name)
	chunk := s.chunks[c]
	if found {
		chunk = slices.Clone(chunk)
		chunk[at] = e
		x.splice(s, c, c+1, 0, chunk)
		return
	}
	grown := slices.Concat(chunk[:at], []entry{e}, chunk[at:])
	if len(grown) <= maxChunk {
		x.splice(s, c, c+1, 1, grown)
		return
	}
	half := len(grown) / 2
	x.splice(s, c, c+1, 1, slices.Clone(grown[:half]), slices.Clone(grown[half:]))
}

func (x *ObjectSet) remove(namespace, name string) bool {
	s := x.load()
	c, at, found := s.find(namespace, name)
	if !found {
		return false
	}
	chunk := s.chunks[c]
	before, after := chunk[:at], chunk[at+1:]
	switch {
	case len(chunk) == 1:
		x.splice(s, c, c+1, -1)
	case c > 0 && len(s.chunks[c-1])+len(chunk) <= maxChunk/2: // or many small chunks would stay after a shrink
		x.splice(s, c-1, c+1, -1, slices.Concat(s.chunks[c-1], before, after))
	case c+1 < len(s.chunks) && len(chunk)+len(s.chunks[c+1]) <= maxChunk/2:
		x.splice(s, c, c+2, -1, slices.Concat(before, after, s.chunks[c+1]))
	default:
		x.splice(s, c, c+1, -1, slices.Concat(before, after))
	}
	return true
}

// replace makes entries, which are sorted and distinct, the whole set.
func (x *ObjectSet) replace(entries []entry) { x.current.Store(newSnapshot(entries)) }

// newSnapshot returns a snapshot of entries, which are sorted and distinct.
func newSnapshot(entries []entry) *snapshot {
	s := &snapshot{len: len(entries)}
	for chunk := range slices.Chunk(entries, maxChunk) {
		s.chunks = append(s.chunks, slices.Clone(chunk)) // each can be freed without the others
	}
	return s
}

// entry returns the i-th entry of a snapshot as newSnapshot made it, to be changed before anybody else
// sees the snapshot.
func (s *snapshot) entry(i int) *entry { return &s.chunks[i/maxChunk][i%maxChunk] }

// splice publishes s with the chunks [from:to) replaced, which makes it longer by grown.
func (x *ObjectSet) splice(s *snapshot, from, to, grown int, chunks ...[]entry) {
	x.current.Store(&snapshot{
		chunks: slices.Concat(s.chunks[:from], chunks, s.chunks[to:]),
		len:    s.len + grown,
	})
}

func (x *ObjectSet) load() *snapshot {
	if s := x.current.Load(); s != nil {
		return s
	}
	return &snapshot{}
}

// find returns where the entry of that name is, or else would be inserted: chunk c, place at. If there
// are chunks, c is one of them, and at may be its length.
func (s *snapshot) find(namespace, name string) (c, at int, found bool) {
	c = sort.Search(len(s.chunks), func(i int) bool { return s.chunks[i][0].compare(namespace, name) > 0 })
	c = max(c-1, 0)
	if c == len(s.chunks) {
		return 0, 0, false
	}
	chunk := s.chunks[c]
	at = sort.Search(len(chunk), func(i int) bool { return chunk[i].compare(namespace, name) >= 0 })
	return c, at, at < len(chunk) && chunk[at].compare(namespace, name) == 0
}

func (s *snapshot) get(namespace, name string) (entry, bool) {
	c, at, found := s.find(namespace, name)
	if !found {
		return entry{}, false
	}
	return s.chunks[c][at], true
}

// from iterates over the entries from the first of a namespace to the end.
func (s *snapshot) from(namespace string) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		c, at, _ := s.find(namespace, "")
		for ; c < len(s.chunks); c, at = c+1, 0 {
			for _, e := range s.chunks[c][at:] {
				if !yield(e) {
					return
				}
			}
		}
	}
}
