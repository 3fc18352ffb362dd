package inventory

import (
	"fmt"
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
type podStore struct{ objects }

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
	s.put(s.record(from))
	return nil
}

// Update is Add.
func (s *podStore) Update(object any) error { return s.Add(object) }

// Delete removes a pod.
func (s *podStore) Delete(object any) error {
	_, err := s.remove(object)
	return err
}

// Replace makes items, each a *pod, the whole set.
func (s *podStore) Replace(items []any, _ string) error {
	records := make([]record, len(items))
	for i, item := range items {
		records[i] = item.(*pod).record
	}
	s.replace(records)
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
	return s.labels.record(o.GetNamespace(), o.GetName(), o.GetLabels())
}

func (s *objects) put(r record) {
	old, found := s.all.load().get(r.set.namespace, r.name)
	if found && old.set.equal(r.set) {
		return // a pod's status changes many times, its labels hardly ever
	}
	s.all.put(r)
	if found {
		s.oneLeft()
	}
}

// remove removes an object and returns its name.
func (s *objects) remove(object any) (name string, err error) {
	o, ok := object.(metav1.Object)
	if !ok {
		return "", fmt.Errorf("%T has no metadata", object)
	}
	if s.all.remove(o.GetNamespace(), o.GetName()) {
		s.oneLeft()
	}
	return o.GetName(), nil
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
