package api

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/metrics/pkg/apis/metrics"

	"metrics-server/pkg/sample"
)

// storage serves get and list of one resource, the same in every version. T is the internal type
// of its objects. Because it offers no other verb, the generic server answers 405 to all of them.
type storage[T any, P object[T]] struct {
	kind[T]
	objects Objects
	metrics *serverMetrics
}

type object[T any] interface {
	*T
	runtime.Object
	metav1.Object
}

// kind is what differs between nodes and pods. The usage of a node is that of a pod with one
// container, so that one loop serves both.
type kind[T any] interface {
	resource() schema.GroupResource
	rest.SingularNameProvider
	rest.Scoper
	shape

	// read reads the usages of objects over into, which is as long, and whose memory it reuses. One that has no usage has no
	// containers then.
	read(of []sample.Object, now time.Time, into []sample.PodUsage)
	// why says why read reports none.
	why(o *sample.Object, now time.Time) string
	// fill builds the API's object in an empty one. It keeps nothing of o and u that is not immutable.
	fill(into *T, o *sample.Object, u *sample.PodUsage)

	list(items []T) runtime.Object
	items(list runtime.Object) []T
	cells(of *T) cells
}

var (
	_ rest.Getter               = &storage[metrics.PodMetrics, *metrics.PodMetrics]{}
	_ rest.Lister               = &storage[metrics.PodMetrics, *metrics.PodMetrics]{}
	_ rest.Scoper               = &storage[metrics.PodMetrics, *metrics.PodMetrics]{}
	_ rest.SingularNameProvider = &storage[metrics.PodMetrics, *metrics.PodMetrics]{}
)

// New implements rest.Storage.
func (s *storage[T, P]) New() runtime.Object { return P(new(T)) }

// NewList implements rest.Lister.
func (s *storage[T, P]) NewList() runtime.Object { return s.list(nil) }

// Destroy implements rest.Storage.
func (s *storage[T, P]) Destroy() {}

// Get returns one object. An object that does not exist and one without usage are both NotFound;
// the message of the latter says why there is none.
func (s *storage[T, P]) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	return s.get(genericapirequest.NamespaceValue(ctx), name, formOf(ctx))
}

func (s *storage[T, P]) get(namespace, name string, f *form) (runtime.Object, error) {
	now := time.Now()
	o, ok := s.objects.Get(namespace, name)
	if !ok {
		return nil, apierrors.NewNotFound(s.resource(), name)
	}
	var usages [1]sample.PodUsage
	s.read([]sample.Object{o}, now, usages[:])
	u := usages[0]
	if len(u.Containers) == 0 {
		err := apierrors.NewNotFound(s.resource(), name)
		why := cmp.Or(s.why(&o, now), "it came while this answer was written, so ask again")
		err.ErrStatus.Message = fmt.Sprintf("%s %q has no usage: %s", s.resource(), name, why)
		return nil, err
	}
	s.metrics.served(u.Time, now)
	standard := func() runtime.Object {
		item := new(T)
		s.fill(item, &o, &u)
		return P(item)
	}
	if f.standard {
		return standard(), nil
	}
	return &lazyObject{lazy: lazy{shape: s.kind, standard: standard}, object: o, usage: u}, nil
}

// List returns every selected object that has a usage.
func (s *storage[T, P]) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	q, err := newQuery(genericapirequest.NamespaceValue(ctx), options)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, q, formOf(ctx))
}

// answer returns what q selects, in the form f.
func (s *storage[T, P]) answer(ctx context.Context, q *query, f *form) (runtime.Object, error) {
	all := s.each(q, false)
	if f.standard {
		return s.standardList(ctx, all, f.share)
	}
	standard := func() runtime.Object {
		list, _ := s.standardList(context.Background(), all, nil) // which refuses nothing
		return list
	}
	l := &lazyList{lazy: lazy{shape: s.kind, standard: standard}, items: all, form: f}
	if f.table != "" && !s.NamespaceScoped() {
		l.items = s.each(q, true)
	}
	if f.protobuf {
		if err := l.encode(ctx); err != nil { // now, because later there is no way to refuse
			return nil, err
		}
	}
	return l, nil
}

// standardList builds the list of all, of which what is more than a buffer's size is taken from share. It ends when ctx does.
func (s *storage[T, P]) standardList(ctx context.Context, all iter.Seq2[*sample.Object, *sample.PodUsage], share *share) (runtime.Object, error) {
	items := []T{}
	var size int64 // not taken yet
	for o, u := range all {
		if size += standardObject + int64(len(u.Containers))*standardContainer; size >= bufferSize {
			if err := cmp.Or(ctx.Err(), share.take(size)); err != nil {
				return nil, err
			}
			size = 0
		}
		var item T
		s.fill(&item, o, u)
		items = append(items, item)
	}
	return s.list(items), nil
}

// batch is objects whose usages are read together.
type batch struct {
	objects [32]sample.Object
	usages  [32]sample.PodUsage
}

var batches = sync.Pool{New: func() any { return &batch{} }}

// each yields, in order, every object that q selects and that has a usage, with that usage, and
// counts it as served. Both are valid until the next one is asked for. With unknown, those without usage are yielded too, with
// one that is empty.
func (s *storage[T, P]) each(q *query, unknown bool) iter.Seq2[*sample.Object, *sample.PodUsage] {
	return func(yield func(*sample.Object, *sample.PodUsage) bool) {
		b := batches.Get().(*batch)
		defer func() {
			clear(b.objects[:])
			batches.Put(b)
		}()
		// yieldAll yields the first n of b. Time is read for each batch: a slow client can take a minute to read the list.
		yieldAll := func(n int) bool {
			now := time.Now()
			s.read(b.objects[:n], now, b.usages[:n])
			for i := range n {
				o, u := &b.objects[i], &b.usages[i]
				switch known := len(u.Containers) > 0; {
				case known && q.selectsNode(u.Node):
					s.metrics.served(u.Time, now)
				case !known && unknown:
				default:
					continue
				}
				if !yield(o, u) {
					return false
				}
			}
			return true
		}
		n := 0
		for o := range q.candidates(s.objects, s.NamespaceScoped()) {
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
