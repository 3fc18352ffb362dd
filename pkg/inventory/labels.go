package inventory

import (
	"hash/maphash"
	"slices"
	"strings"

	"metrics-server/pkg/sample"
)

// seed makes hashes of labels and of UIDs unpredictable.
var seed = maphash.MakeSeed()

// labelSet is a namespace, labels and a controller, shared by every object that has all of them. It is
// immutable.
type labelSet struct {
	namespace  string
	labels     sample.Labels
	controller *sample.Controller // nil: none, or unknown
	hash       uint64
}

func (s *labelSet) equal(o *labelSet) bool {
	return s == o || s.has(o.namespace, o.labels, o.managedBy())
}

func (s *labelSet) has(namespace string, labels sample.Labels, c sample.Controller) bool {
	return s.namespace == namespace && s.managedBy() == c && slices.Equal(s.labels, labels)
}

func (s *labelSet) managedBy() sample.Controller {
	if s.controller == nil {
		return sample.Controller{}
	}
	return *s.controller
}

// labelTable finds the labelSet that an object shares with others: the pods of a ReplicaSet have one
// between them. It holds all sets that it ever saw until it is swept. Where sets differ, as those of a
// StatefulSet's pods do, they still share most of the strings that are equal: objects come sorted, so a
// small cache finds nearly all that a map of all strings would, which takes more memory than it saves.
// Not for concurrent use; the zero value is ready.
//
// It has neither reference counts nor weak pointers: a list that fails half-way leaves sets behind
// that no one would count down, and a sweep costs a few milliseconds for 150,000 pods.
type labelTable struct {
	sets    map[uint64]*labelSet // by hash
	words   [2048][2]string      // strings seen lately, the last two of each hash, the later one first
	scratch sample.Labels
}

func (t *labelTable) entry(namespace, name string, labels map[string]string, c sample.Controller) entry {
	if t.sets == nil {
		t.sets = map[uint64]*labelSet{}
	}
	sorted := t.scratch[:0]
	for k, v := range labels {
		sorted = append(sorted, sample.Label{Key: k, Value: v})
	}
	slices.SortFunc(sorted, func(a, b sample.Label) int { return strings.Compare(a.Key, b.Key) })
	t.scratch = sorted

	hash := hashOf(namespace, sorted, c)
	shared := t.sets[hash]
	if shared != nil && shared.has(namespace, sorted, c) {
		return entry{name: name, set: shared}
	}
	set := &labelSet{namespace: t.word(namespace), hash: hash}
	if c != (sample.Controller{}) {
		set.controller = &sample.Controller{Kind: t.word(c.Kind), Name: t.word(c.Name)}
	}
	if len(sorted) > 0 {
		set.labels = make(sample.Labels, len(sorted))
	}
	for i, l := range sorted {
		value := name // a StatefulSet's pod has its name for a label: one copy is enough
		if l.Value != name {
			value = t.word(l.Value)
		}
		set.labels[i] = sample.Label{Key: t.word(l.Key), Value: value}
	}
	if shared == nil { // if two sets ever have one hash, the second is merely not shared
		t.sets[hash] = set
	}
	return entry{name: name, set: set}
}

// sweep forgets the sets that no entry of s has.
func (t *labelTable) sweep(s *snapshot) {
	t.sets = map[uint64]*labelSet{} // a new one: a map never shrinks
	for e := range s.from("") {
		if t.sets[e.set.hash] == nil {
			t.sets[e.set.hash] = e.set
		}
	}
}

// word returns a copy of s that may be shared. Two strings are kept for each hash. With only one,
// two keys that most objects have and whose hashes collide would keep replacing each other and
// never be shared, which would happen in one process of twenty.
func (t *labelTable) word(s string) string {
	w := &t.words[maphash.String(seed, s)%uint64(len(t.words))]
	if w[0] != s {
		if w[1] == s {
			s = w[1]
		}
		w[0], w[1] = s, w[0]
	}
	return w[0]
}

func hashOf(namespace string, labels sample.Labels, c sample.Controller) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	h.WriteString(namespace)
	h.WriteByte(0) // in neither names, keys nor values
	h.WriteString(c.Kind)
	h.WriteByte(0)
	h.WriteString(c.Name)
	for _, l := range labels {
		h.WriteByte(0)
		h.WriteString(l.Key)
		h.WriteByte(0)
		h.WriteString(l.Value)
	}
	return h.Sum64()
}
