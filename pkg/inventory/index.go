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

// Index is a set of objects, sorted by namespace and name. Any number of goroutines may read it; a
// reader sees the set as it was at one moment and neither waits for the writer nor makes it wait. The
// zero value is empty.
type Index struct {
	current atomic.Pointer[snapshot]
}

// maxChunk is how many records a chunk holds at most. A change copies one chunk and the list of chunks:
// for 150,000 pods at this size about the same for both, some microseconds together.
const maxChunk = 256

// snapshot is an immutable set: sorted chunks of sorted records, none of them empty. Chunks are shared
// between successive snapshots. A B-tree with copy on write does the same with more memory: its nodes
// stay half full after a sorted load.
type snapshot struct {
	chunks [][]record
	len    int
}

// record is what is kept of an object.
type record struct {
	name string
	set  *labelSet // shared by the objects with the same namespace and labels
	uid  uint64    // a hash of its UID: another one is another object of the same name
}

func (r record) object() sample.Object {
	return sample.Object{Namespace: r.set.namespace, Name: r.name, Labels: r.set.labels}
}

// compare orders r and the object named as given.
func (r record) compare(namespace, name string) int {
	return cmp.Or(strings.Compare(r.set.namespace, namespace), strings.Compare(r.name, name))
}

// Get returns the object of that name, and whether there is one.
func (x *Index) Get(namespace, name string) (sample.Object, bool) {
	r, ok := x.load().get(namespace, name)
	if !ok {
		return sample.Object{}, false
	}
	return r.object(), true
}

// All iterates over the objects of a namespace, or over all if it is "", sorted by namespace and name, as
// they were when the iteration began. Unless selects is nil, those whose labels it refuses are passed over: it is asked once for
// neighbours that share their labels, as the pods of a ReplicaSet do, so that the others of a large namespace cost next to nothing.
func (x *Index) All(namespace string, selects func(sample.Labels) bool) iter.Seq[sample.Object] {
	return func(yield func(sample.Object) bool) {
		var last *labelSet
		wanted := false
		for r := range x.load().from(namespace) {
			if r.set != last {
				if namespace != "" && r.set.namespace != namespace {
					return
				}
				last, wanted = r.set, selects == nil || selects(r.set.labels)
			}
			if wanted && !yield(r.object()) {
				return
			}
		}
	}
}

// Len is the number of objects.
func (x *Index) Len() int { return x.load().len }

// put adds r or puts it in the place of the one of its name. As all that write, it is for one
// goroutine at a time.
func (x *Index) put(r record) {
	s := x.load()
	if len(s.chunks) == 0 {
		x.replace([]record{r})
		return
	}
	c, at, found := s.find(r.set.namespace, r.name)
	chunk := s.chunks[c]
	if found {
		chunk = slices.Clone(chunk)
		chunk[at] = r
		x.splice(s, c, c+1, 0, chunk)
		return
	}
	grown := slices.Concat(chunk[:at], []record{r}, chunk[at:])
	if len(grown) <= maxChunk {
		x.splice(s, c, c+1, 1, grown)
		return
	}
	half := len(grown) / 2
	x.splice(s, c, c+1, 1, slices.Clone(grown[:half]), slices.Clone(grown[half:]))
}

// remove removes the object of that name and reports whether there was one.
func (x *Index) remove(namespace, name string) bool {
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

// replace makes records, which are sorted and distinct, the whole set.
func (x *Index) replace(records []record) {
	s := &snapshot{len: len(records)}
	for chunk := range slices.Chunk(records, maxChunk) {
		s.chunks = append(s.chunks, slices.Clone(chunk)) // each can be freed without the others
	}
	x.current.Store(s)
}

// splice publishes s with the chunks [from:to) replaced, which makes it longer by grown.
func (x *Index) splice(s *snapshot, from, to, grown int, chunks ...[]record) {
	x.current.Store(&snapshot{
		chunks: slices.Concat(s.chunks[:from], chunks, s.chunks[to:]),
		len:    s.len + grown,
	})
}

func (x *Index) load() *snapshot {
	if s := x.current.Load(); s != nil {
		return s
	}
	return &snapshot{}
}

// find returns where the record of that name is, or else would be inserted: chunk c, place at. If there
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

func (s *snapshot) get(namespace, name string) (record, bool) {
	c, at, found := s.find(namespace, name)
	if !found {
		return record{}, false
	}
	return s.chunks[c][at], true
}

// from iterates over the records from the first of a namespace to the end.
func (s *snapshot) from(namespace string) iter.Seq[record] {
	return func(yield func(record) bool) {
		c, at, _ := s.find(namespace, "")
		for ; c < len(s.chunks); c, at = c+1, 0 {
			for _, r := range s.chunks[c][at:] {
				if !yield(r) {
					return
				}
			}
		}
	}
}
