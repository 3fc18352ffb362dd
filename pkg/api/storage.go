package api

import (
	"cmp"
	"context"
	"fmt"
	"iter"
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

	// read reads the usage of o over into, whose memory it reuses, and reports whether there is one.
	read(o *sample.Object, now time.Time, into *sample.PodUsage) bool
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
	now := time.Now()
	o, ok := s.objects.Get(genericapirequest.NamespaceValue(ctx), name)
	if !ok {
		return nil, apierrors.NewNotFound(s.resource(), name)
	}
	var u sample.PodUsage
	if !s.read(&o, now, &u) {
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
	if formOf(ctx).standard {
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
	form := formOf(ctx)
	all := s.each(q, time.Now(), false)
	if form.standard {
		return s.standardList(ctx, all, form.share)
	}
	standard := func() runtime.Object {
		list, _ := s.standardList(context.Background(), all, nil) // which refuses nothing
		return list
	}
	l := &lazyList{lazy: lazy{shape: s.kind, standard: standard}, items: all, form: form}
	if form.table != "" && !s.NamespaceScoped() {
		l.items = s.each(q, time.Now(), true)
	}
	if form.protobuf {
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

// each yields, in order, every object that q selects and that has a usage, with that usage, and
// counts it as served. Both are valid until the next one is asked for. With unknown, those without usage are yielded too, with
// one that is empty.
func (s *storage[T, P]) each(q *query, now time.Time, unknown bool) iter.Seq2[*sample.Object, *sample.PodUsage] {
	return func(yield func(*sample.Object, *sample.PodUsage) bool) {
		var (
			o sample.Object
			u sample.PodUsage
		)
		asked := 0
		for o = range q.candidates(s.objects, s.NamespaceScoped()) {
			// A slow client can take a minute to read the list.
			if asked++; asked%256 == 0 {
				now = time.Now()
			}
			if !q.selectsName(&o) {
				continue
			}
			switch known := s.read(&o, now, &u); {
			case known && q.selectsNode(u.Node):
				s.metrics.served(u.Time, now)
			case !known && unknown:
				u = sample.PodUsage{Containers: u.Containers[:0]}
			default:
				continue
			}
			if !yield(&o, &u) {
				return
			}
		}
	}
}
