package inventory

import (
	"fmt"
	"hash/maphash"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

// store is what a reflector writes to, from one goroutine at a time. Add, Update and Delete get objects
// as they come from the API server; Replace gets what compact made of them.
type store interface {
	cache.ReflectorStore
	compact(object any) (runtime.Object, error)
	index() *Index
}

// passed lets a compact object pass through a list of runtime.Objects.
type passed struct{}

func (passed) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }
func (passed) DeepCopyObject() runtime.Object   { panic("inventory: compact objects are never copied") }

// podStore is the store of pods.
type podStore struct {
	objects
	onGone func(namespace, name string)
}

type pod struct {
	passed
	record
}

func (s *podStore) compact(object any) (runtime.Object, error) {
	from, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return nil, fmt.Errorf("%T is not the metadata of a pod", object)
	}
	return &pod{record: s.record(from)}, nil
}

// Add adds or changes a pod.
func (s *podStore) Add(object any) error {
	from, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("%T is not the metadata of a pod", object)
	}
	if r := s.record(from); s.put(r) {
		s.onGone(r.set.namespace, r.name)
	}
	return nil
}

// Update is Add.
func (s *podStore) Update(object any) error { return s.Add(object) }

// Delete removes a pod.
func (s *podStore) Delete(object any) error {
	o, found, err := s.remove(object)
	if found {
		s.onGone(o.GetNamespace(), o.GetName())
	}
	return err
}

// Replace makes items, each a *pod, the whole set, and tells what is gone.
func (s *podStore) Replace(items []any, _ string) error {
	records := make([]record, len(items))
	for i, item := range items {
		records[i] = item.(*pod).record
	}
	before := s.all.load()
	s.replace(records)
	now := s.all.load()
	for old := range before.from("") {
		if r, ok := now.get(old.set.namespace, old.name); !ok || r.uid != old.uid {
			s.onGone(old.set.namespace, old.name)
		}
	}
	return nil
}

// objects is what the stores of pods and of nodes have in common: an Index whose records share
// what they can.
type objects struct {
	all    Index
	labels labelTable
	left   int // records that left since the last sweep, each with a label set that may be the last of its kind
}

func (s *objects) index() *Index { return &s.all }

// Resync does nothing: nobody is told the same again.
func (s *objects) Resync() error { return nil }

func (s *objects) record(o metav1.Object) record {
	r := s.labels.record(o.GetNamespace(), o.GetName(), o.GetLabels())
	r.uid = maphash.String(seed, string(o.GetUID()))
	return r
}

// put adds or changes an object, and reports whether it took the place of another one of its name.
func (s *objects) put(r record) (anew bool) {
	old, found := s.all.load().get(r.set.namespace, r.name)
	if found && old.uid == r.uid && old.set.equal(r.set) {
		return false // a pod's status changes many times, its labels hardly ever
	}
	s.all.put(r)
	if found {
		s.oneLeft()
	}
	return found && old.uid != r.uid
}

// remove removes an object, and reports which and whether it was there.
func (s *objects) remove(object any) (o metav1.Object, found bool, err error) {
	o, ok := object.(metav1.Object)
	if !ok {
		return nil, false, fmt.Errorf("%T has no metadata", object)
	}
	found = s.all.remove(o.GetNamespace(), o.GetName())
	if found {
		s.oneLeft()
	}
	return o, found, nil
}

// replace makes records the whole set and sorts them.
func (s *objects) replace(records []record) {
	slices.SortFunc(records, func(a, b record) int { return a.compare(b.set.namespace, b.name) })
	s.all.replace(records)
	s.sweep()
}

// oneLeft sweeps when enough records have left to make it worth the time.
func (s *objects) oneLeft() {
	s.left++
	if s.left > 1024+s.all.Len()/8 {
		s.sweep()
	}
}

func (s *objects) sweep() {
	s.labels.sweep(s.all.load())
	s.left = 0
}
