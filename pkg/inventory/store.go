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

type podStore struct {
	objects
	onGone func(sample.Object)
}

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
	if old, recreated := s.put(s.entry(from)); recreated {
		s.onGone(old.object())
	}
	return nil
}

// Update is Add.
func (s *podStore) Update(object any) error { return s.Add(object) }

// Delete removes a pod.
func (s *podStore) Delete(object any) error {
	gone, found, err := s.remove(object)
	if found {
		s.onGone(gone.object())
	}
	return err
}

// Replace makes items, each a *podEntry, the whole set, and reports those that are gone.
func (s *podStore) Replace(items []any, _ string) error {
	entries := make([]entry, len(items))
	for i, item := range items {
		entries[i] = item.(*podEntry).entry
	}
	before := s.all.load()
	s.replace(entries)
	now := s.all.load()
	for old := range before.from("") {
		if e, ok := now.get(old.set.namespace, old.name); !ok || e.uid != old.uid {
			s.onGone(old.object())
		}
	}
	return nil
}

// objects is what the stores of pods and of nodes have in common: an ObjectSet whose entries share
// what they can.
type objects struct {
	all    ObjectSet
	labels labelTable
	left   int // entries that left since the last sweep, each with a label set that may be the last of its kind

	publish func(change func(sample.Revision)) // Config.Publish, may be nil
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

// put adds or changes an object, and reports whether it replaced another object of the same name, and
// which.
func (s *objects) put(e entry) (old entry, recreated bool) {
	old, found := s.all.load().get(e.set.namespace, e.name)
	if found && old.uid == e.uid && old.set.equal(e.set) {
		return old, false // a pod's status changes many times, its labels hardly ever
	}
	if found && old.uid == e.uid {
		relabeled := e // only this copy is allocated
		s.relabel(func(r sample.Revision) {
			relabeled.changed = r
			s.all.put(relabeled)
		})
	} else {
		s.all.put(e)
	}
	if found {
		s.oneLeft()
	}
	return old, found && old.uid != e.uid
}

// relabel calls change, which makes other labels visible, with their revision, 0 if changes have none.
func (s *objects) relabel(change func(sample.Revision)) {
	if s.publish == nil {
		change(0)
		return
	}
	s.publish(change)
}

// remove removes an object, and reports which and whether it was there.
func (s *objects) remove(object any) (gone entry, found bool, err error) {
	o, ok := object.(metav1.Object)
	if !ok {
		return gone, false, fmt.Errorf("%T has no metadata", object)
	}
	gone, found = s.all.load().get(o.GetNamespace(), o.GetName())
	if found {
		s.all.remove(o.GetNamespace(), o.GetName())
		s.oneLeft()
	}
	return gone, found, nil
}

// replace makes entries the whole set and sorts them.
func (s *objects) replace(entries []entry) {
	slices.SortFunc(entries, func(a, b entry) int { return a.compare(b.set.namespace, b.name) })
	before := s.all.load()
	var changed []int
	for i := range entries {
		e := &entries[i]
		old, found := before.get(e.set.namespace, e.name)
		if !found || old.uid != e.uid {
			continue
		}
		if e.changed = old.changed; !old.set.equal(e.set) {
			changed = append(changed, i)
		}
	}
	next := newSnapshot(entries)
	if len(changed) == 0 {
		s.all.current.Store(next)
	} else {
		s.relabel(func(r sample.Revision) {
			for _, i := range changed {
				next.entry(i).changed = r
			}
			s.all.current.Store(next)
		})
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
