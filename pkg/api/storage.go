package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// Resource is what the engine must know of one resource. T is the internal API type of its objects,
// V the value that is served for each.
type Resource[T, V any] interface {
	rest.SingularNameProvider
	rest.Scoper
	ItemEncoder[V]

	GroupResource() schema.GroupResource
	// Read stores the values of objects in into, which has the same length and whose memory is
	// reused.
	Read(of []sample.Object, now time.Time, into []V)
	// Why explains in plain words why Read found no value; "" if it does not know.
	Why(o *sample.Object, now time.Time) string
	// Served is called for each value that is served.
	Served(v *V, now time.Time)
	// NodeOf returns the node that an object with this value runs on, and the revision at which that node took
	// the place of another one or of none, zero if none did. It is at most Revision.
	NodeOf(v *V) (node string, since sample.Revision)

	// Fill builds the API object in an empty one. It retains only immutable parts of o and v.
	Fill(into *T, o *sample.Object, v *V)
	// StandardSize estimates the memory in bytes of the API object, including its encoding.
	StandardSize(v *V) int64
	// List builds a list, and Items returns what is in one.
	List(items []T) runtime.Object
	Items(list runtime.Object) []T
	// Cells returns the cells of an object's row in a Table. They equal those of AppendCells.
	Cells(of *T, now time.Time) []any
}

// ItemEncoder is the part of an encoding that differs between resources. All of them encode the
// metadata of an object in the same way.
type ItemEncoder[V any] interface {
	// Kind returns the kind of the objects.
	Kind() string
	// Exists reports whether there is a value. If not, it is empty, which is how a deleted object is
	// encoded.
	Exists(v *V) bool
	// Revision returns since when the value is as it is, also if there is none; zero if unknown.
	Revision(v *V) sample.Revision
	// Time returns the time of a value, which is served as the time of the object's creation.
	Time(v *V) time.Time
	// AppendJSON appends the fields after the metadata, with commas between them.
	AppendJSON(b []byte, v *V, times *JSONTime) []byte
	// AppendProtobuf appends the fields after the metadata.
	AppendProtobuf(b []byte, v *V) []byte
	// Columns returns the columns of a Table, and AppendCells appends the cells of an object's row
	// as a JSON array.
	Columns() []metav1.TableColumnDefinition
	AppendCells(b []byte, o *sample.Object, v *V, now time.Time) []byte
}

// Storage serves get, list and watch of one resource, identically in every version of its group. For all
// other verbs the generic server answers 405. Create it with NewStorage.
type Storage[T, V any, P object[T]] struct {
	Resource[T, V]
	group   *Group
	objects Objects
	clock   *revision.Clock
	gone    *Deletions
	batches sync.Pool // of *batch[V]
	watched snapshots
}

// NewStorage returns the storage of a resource of g. The revisions of its objects and values are of
// clock, and gone has the objects that ceased to be in objects or to have a value.
func NewStorage[T, V any, P object[T]](
	g *Group, r Resource[T, V], objects Objects, clock *revision.Clock, gone *Deletions,
) *Storage[T, V, P] {
	s := &Storage[T, V, P]{
		Resource: r, group: g, objects: objects, clock: clock, gone: gone,
		batches: sync.Pool{New: func() any { return &batch[V]{} }},
	}
	s.watched.take = s.takeSnapshot
	return s
}

type object[T any] interface {
	*T
	runtime.Object
	metav1.Object
}

var _ interface {
	rest.Getter
	rest.Lister
	rest.Scoper
	rest.SingularNameProvider
	rest.Watcher
} = &Storage[metav1.PartialObjectMetadata, int, *metav1.PartialObjectMetadata]{}

// New implements rest.Storage.
func (s *Storage[T, V, P]) New() runtime.Object { return P(new(T)) }

// NewList implements rest.Lister.
func (s *Storage[T, V, P]) NewList() runtime.Object { return s.Resource.List(nil) }

// Destroy implements rest.Storage.
func (s *Storage[T, V, P]) Destroy() {}

// Get returns one object. An object that does not exist and one without a value are both NotFound;
// for the latter the message gives the cause.
func (s *Storage[T, V, P]) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	now := time.Now()
	o, ok := s.objects.Get(genericapirequest.NamespaceValue(ctx), name)
	if !ok {
		return nil, apierrors.NewNotFound(s.GroupResource(), name)
	}
	var values [1]V
	s.Read([]sample.Object{o}, now, values[:])
	v := values[0]
	if !s.Exists(&v) {
		err := apierrors.NewNotFound(s.GroupResource(), name)
		why := cmp.Or(s.Why(&o, now), "its first usage arrived during this request: retry")
		err.ErrStatus.Message = fmt.Sprintf("%s %q has no usage: %s", s.GroupResource(), name, why)
		return nil, err
	}
	s.Served(&v, now)
	r := s.revisionOf(&o, &v)
	standard := func() runtime.Object { return s.standardObject(&o, &v, r) }
	if outputOf(ctx).standard {
		return standard(), nil
	}
	return &lazyObject[V]{lazy: s.lazy(standard), object: o, value: v, revision: r}, nil
}

// revisionOf returns the revision of the last change of an object or its value.
func (s *Storage[T, V, P]) revisionOf(o *sample.Object, v *V) sample.Revision {
	return max(o.Changed, s.Revision(v))
}

// standardObject builds the API object.
func (s *Storage[T, V, P]) standardObject(o *sample.Object, v *V, r sample.Revision) P {
	item := P(new(T))
	s.Fill(item, o, v)
	item.SetResourceVersion(formatRevision(r))
	return item
}

func (s *Storage[T, V, P]) lazy(standard func() runtime.Object) lazy[V] {
	return lazy[V]{ItemEncoder: s.Resource, group: s.group, standard: standard}
}

// List returns all selected objects that have a value.
func (s *Storage[T, V, P]) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	q, err := newQuery(genericapirequest.NamespaceValue(ctx), options)
	if err != nil {
		return nil, err
	}
	r := s.clock.Last() // what changes from now on may be in the list, or is sent to a watch
	if err := checkListVersion(options, r); err != nil {
		return nil, err
	}
	o, all := outputOf(ctx), s.each(ctx, q, false)
	if o.standard {
		return s.standardList(ctx, all, r, o.list)
	}
	standard := func() runtime.Object {
		list, _ := s.standardList(context.Background(), all, r, nil) // cannot fail: neither share nor deadline
		return list
	}
	l := &lazyList[V]{lazy: s.lazy(standard), ctx: ctx, items: all, output: o, revision: r}
	if o.table != "" && !s.NamespaceScoped() {
		l.items = s.each(ctx, q, true)
	}
	if o.protobuf {
		if err := l.encode(); err != nil { // now, because an error after the header cannot be reported
			return nil, err
		}
	}
	return l, nil
}

// onNode reports whether q selects objects on the node of v.
func (s *Storage[T, V, P]) onNode(q *query, v *V) bool {
	node, _ := s.NodeOf(v)
	return q.selectsNode(node)
}

// standardList builds the list of all objects. Memory beyond the size of one buffer is taken from
// share. It fails when ctx is done.
func (s *Storage[T, V, P]) standardList(
	ctx context.Context, all iter.Seq2[*sample.Object, *V], r sample.Revision, share *share,
) (runtime.Object, error) {
	items := []T{}
	var size int64 // not yet taken from share
	for o, v := range all {
		if size += s.StandardSize(v); size >= bufferSize {
			if err := cmp.Or(ended(ctx), share.take(size)); err != nil {
				return nil, err
			}
			size = 0
		}
		items = append(items, *s.standardObject(o, v, s.revisionOf(o, v)))
	}
	if err := ended(ctx); err != nil {
		return nil, err
	}
	list := s.Resource.List(items)
	if m, err := meta.ListAccessor(list); err == nil {
		m.SetResourceVersion(formatRevision(r))
	}
	return list, nil
}

// ended returns why the request of ctx has ended, nil if it has not.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		return apierrors.NewTimeoutError("the list took longer than a request may take: select fewer objects", 0)
	}
	return err
}

// batch holds objects whose values are read together.
type batch[V any] struct {
	objects [32]sample.Object
	values  [32]V
}

func (s *Storage[T, V, P]) freeBatch(b *batch[V]) {
	clear(b.objects[:])
	s.batches.Put(b)
}

// each yields, in order, every object that q selects and that has a value, and counts it as served.
// With unknown, objects without a value are yielded too, with an empty one. Both pointers are valid
// until the next iteration. The sequence ends early when ctx is done, even if it selects nothing;
// the caller must check ctx afterwards.
func (s *Storage[T, V, P]) each(ctx context.Context, q *query, unknown bool) iter.Seq2[*sample.Object, *V] {
	return func(yield func(*sample.Object, *V) bool) {
		b := s.batches.Get().(*batch[V])
		defer s.freeBatch(b)
		// yieldAll yields the first n objects of b. The clock is read for each batch, because a
		// slow client can take a minute to read the list.
		yieldAll := func(n int) bool {
			now := time.Now()
			s.Read(b.objects[:n], now, b.values[:n])
			for i := range n {
				o, v := &b.objects[i], &b.values[i]
				switch known := s.Exists(v); {
				case known && s.onNode(q, v):
					s.Served(v, now)
				case !known && unknown:
				default:
					continue
				}
				if !yield(o, v) {
					return false
				}
			}
			return true
		}
		n, done := 0, ctx.Done()
		for o := range q.candidates(s.objects, s.NamespaceScoped(), done) {
			if closed(done) {
				return
			}
			if !q.selectsName(&o) {
				continue
			}
			b.objects[n] = o
			if n++; n == len(b.objects) {
				if !yieldAll(n) {
					return
				}
				n = 0
			}
		}
		yieldAll(n)
	}
}
