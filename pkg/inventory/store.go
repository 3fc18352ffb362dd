package inventory

import (
	"fmt"
	"hash/maphash"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"metrics-server/pkg/sample"
)

// store is what a reflector writes to, from one goroutine at a time. Add, Update and Delete receive
// objects as the API server sends them; Replace receives the results of compact.
type store interface {
	cache.ReflectorStore
	compact(object any) (runtime.Object, error)
	objectSet() *ObjectSet
}

// passed lets a compact object pass through a list of runtime.Objects.
type passed struct{}

func (passed) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }
func (passed) DeepCopyObject() runtime.Object   { panic("inventory: compact objects are never copied") }

type podStore struct{ objects }

type podEntry struct {
	passed
	entry
}

func (s *podStore) compact(object any) (runtime.Object, error) {
	from, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return nil, fmt.Errorf("%T is not the metadata of a pod", object)
	}
	return &podEntry{entry: s.entry(from)}, nil
}

// Add adds or changes a pod.
func (s *podStore) Add(object any) error {
	from, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return fmt.Errorf("%T is not the metadata of a pod", object)
	}
	s.put(s.entry(from))
	return nil
}

// Update is Add.
func (s *podStore) Update(object any) error { return s.Add(object) }

// Delete removes a pod.
func (s *podStore) Delete(object any) error { return s.remove(object) }

// Replace makes items, each a *podEntry, the whole set, and reports those that are gone.
func (s *podStore) Replace(items []any, _ string) error {
	entries := make([]entry, len(items))
	for i, item := range items {
		entries[i] = item.(*podEntry).entry
	}
	s.replace(entries)
	return nil
}

// objects is what the stores of pods and of nodes have in common: an ObjectSet whose entries share
// what they can.
type objects struct {
	all    ObjectSet
	labels labelTable
	left   int // entries that left since the last sweep, each with a label set that may be the last of its kind

	hooks
}

// hooks are the functions of Config for one kind of objects. Each may be nil.
type hooks struct {
	publish func(change func(sample.Revision))
	leaving func([]sample.Object, sample.Revision)
	onGone  func(sample.Object)
	onNew   func(sample.Object)
}

func (s *objects) objectSet() *ObjectSet { return &s.all }

// Resync does nothing: the callbacks report only changes.
func (s *objects) Resync() error { return nil }

func (s *objects) entry(o metav1.Object) entry {
	e := s.labels.entry(o.GetNamespace(), o.GetName(), o.GetLabels(), controllerOf(o))
	e.uid = maphash.String(seed, string(o.GetUID()))
	return e
}

// controllerOf returns what manages o, as far as its owners were decoded.
func controllerOf(o metav1.Object) sample.Controller {
	if c := metav1.GetControllerOfNoCopy(o); c != nil {
		return sample.Controller{Kind: c.Kind, Name: c.Name}
	}
	return sample.Controller{}
}

// put adds or changes an object. Another object of the same name is removed first.
func (s *objects) put(e entry) {
	old, found := s.all.load().get(e.set.namespace, e.name)
	switch {
	case !found:
		s.add(e)
	case old.uid != e.uid:
		s.removeEntry(old)
		s.add(e)
	case !old.set.equal(e.set): // a pod's status changes many times, its labels hardly ever
		relabeled := e // only this copy is allocated
		s.change(func(r sample.Revision) {
			relabeled.changed = r
			s.all.put(relabeled)
		})
		s.oneLeft()
	}
}

// add adds an object, and tells that it is new.
func (s *objects) add(e entry) {
	s.all.put(e)
	if s.onNew != nil {
		s.onNew(e.object())
	}
}

// change calls f, which makes a change visible, with its revision, 0 if changes have none.
func (s *objects) change(f func(sample.Revision)) {
	if s.publish == nil {
		f(0)
		return
	}
	s.publish(f)
}

// remove removes an object if it is there.
func (s *objects) remove(object any) error {
	o, ok := object.(metav1.Object)
	if !ok {
		return fmt.Errorf("%T has no metadata", object)
	}
	if gone, found := s.all.load().get(o.GetNamespace(), o.GetName()); found {
		s.removeEntry(gone)
	}
	return nil
}

func (s *objects) removeEntry(gone entry) {
	left := []sample.Object{gone.object()}
	s.change(func(r sample.Revision) {
		s.leave(left, r)
		s.all.remove(gone.set.namespace, gone.name)
	})
	s.oneLeft()
	s.report(left)
}

// leave tells that objects are about to be removed, with the revision of that.
func (s *objects) leave(gone []sample.Object, r sample.Revision) {
	if s.leaving != nil && len(gone) > 0 {
		s.leaving(gone, r)
	}
}

// report tells that objects have been removed.
func (s *objects) report(gone []sample.Object) {
	if s.onGone == nil {
		return
	}
	for _, o := range gone {
		s.onGone(o)
	}
}

// replace makes entries the whole set and sorts them. Objects that are gone are reported before others
// take their names.
func (s *objects) replace(entries []entry) {
	slices.SortFunc(entries, func(a, b entry) int { return a.compare(b.set.namespace, b.name) })
	before := s.all.load()
	var recreated []entry
	var changed []int // without those in recreated
	for i := range entries {
		e := &entries[i]
		old, found := before.get(e.set.namespace, e.name)
		switch {
		case !found:
		case old.uid != e.uid:
			recreated = append(recreated, *e)
		default:
			if e.changed = old.changed; !old.set.equal(e.set) {
				changed = append(changed, i-len(recreated))
			}
		}
	}
	stay := entries // with those that are new
	if len(recreated) > 0 {
		stay = slices.DeleteFunc(slices.Clone(entries), func(e entry) bool {
			old, found := before.get(e.set.namespace, e.name)
			return found && old.uid != e.uid
		})
	}
	next := newSnapshot(stay)
	var gone []sample.Object
	for old := range before.from("") {
		if _, found := next.get(old.set.namespace, old.name); !found {
			gone = append(gone, old.object())
		}
	}
	if len(changed) == 0 && len(gone) == 0 {
		s.all.current.Store(next)
	} else {
		s.change(func(r sample.Revision) {
			for _, i := range changed {
				next.entry(i).changed = r
			}
			s.leave(gone, r)
			s.all.current.Store(next)
		})
	}
	s.report(gone)
	for _, e := range recreated {
		s.add(e)
	}
	if s.onNew != nil && before.len > 0 {
		for _, e := range stay {
			if _, found := before.get(e.set.namespace, e.name); !found {
				s.onNew(e.object())
			}
		}
	}
	s.sweep()
}

// oneLeft sweeps when enough entries have left to make it worth the time.
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
