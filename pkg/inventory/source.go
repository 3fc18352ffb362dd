package inventory

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// pageSize is how many objects an API server without watch-list is asked for at once. A page of nodes,
// the larger objects, is some 7 MiB.
const pageSize = 500

// backoff is how long to wait between attempts. It ends at 10 to 15 s: one request of a single replica
// burdens no API server, and whoever waits for the first list waits for readiness.
var backoff = wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 8, Cap: 10 * time.Second}

// backoffReset is after how long the waiting begins anew from the shortest.
const backoffReset = 2 * time.Minute

// source keeps a store in step with one resource of the API server. It stands on both sides of
// a reflector, as its ListerWatcher and as its store, to make objects compact before they are
// collected, and to see the errors that a reflector keeps to itself.
type source struct {
	store
	from     collection
	example  runtime.Object     // what a watch sends
	selected metav1.ListOptions // selectors of lists and watches

	health    health
	received  atomic.Int64 // objects of the list that is being received
	streaming bool         // the watch that is open began with a list; only for the reflector, which does one thing at a time
}

// run lists and watches until ctx ends.
func (s *source) run(ctx context.Context) {
	logger := klog.FromContext(ctx).WithValues("resource", s.health.resource)
	s.health.logger = logger
	// What client-go says of each attempt is for higher verbosities: health says when something
	// begins to fail and when it works again.
	quiet := logger.V(2)
	ctx = klog.NewContext(ctx, quiet)
	interruptible := interruptibleClock{ctx: ctx}
	reflector := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc:  s.listPage,
			WatchFuncWithContext: s.openWatch,
		}, s.from.client),
		s.example, s,
		cache.ReflectorOptions{
			Name: "inventory", TypeDescription: s.health.resource,
			Logger: &quiet, Clock: interruptible, Backoff: &backoff,
		},
	)
	reflector.WatchListPageSize = pageSize

	// This is Reflector.RunWithContext, except for who hears of the error.
	delay := backoff.DelayWithReset(interruptible, backoffReset)
	_ = delay.Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		if err := reflector.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			s.health.failed(err)
		}
		return false, nil
	})
}

// listPage gets one page of a list and makes its objects compact. A reflector lists only if the API
// server does not stream lists.
func (s *source) listPage(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	s.streaming = false
	if o.Continue == "" {
		s.received.Store(0)
	}
	// A reflector asks for a list "not older than": from the API server's cache, which ignores the limit and
	// answers 150,000 pods at once. The newest list comes in pages.
	o.ResourceVersion, o.ResourceVersionMatch = "", ""
	s.selectors(&o)
	page, err := s.from.list(ctx, o)
	if err != nil {
		return nil, err
	}
	list, err := meta.ListAccessor(page)
	if err != nil {
		return nil, err
	}
	out := &internalversion.List{
		ListMeta: metav1.ListMeta{ResourceVersion: list.GetResourceVersion(), Continue: list.GetContinue()},
		Items:    make([]runtime.Object, 0, meta.LenList(page)),
	}
	err = meta.EachListItem(page, func(object runtime.Object) error {
		o, err := s.receive(object)
		out.Items = append(out.Items, o)
		return err
	})
	return out, err
}

// openWatch opens a watch.
func (s *source) openWatch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	streaming := o.SendInitialEvents != nil && *o.SendInitialEvents
	if streaming {
		s.received.Store(0)
	}
	s.selectors(&o)
	w, err := s.from.watch(ctx, o)
	s.streaming = streaming && err == nil
	switch {
	case err == nil && !streaming:
		s.health.works()
	case utilnet.IsConnectionRefused(err), apierrors.IsTooManyRequests(err):
		s.health.failed(err) // the reflector tries these again and tells no one
	}
	return w, err
}

func (s *source) selectors(o *metav1.ListOptions) {
	o.LabelSelector, o.FieldSelector = s.selected.LabelSelector, s.selected.FieldSelector
}

// Transformer makes objects compact while a reflector collects a list that is streamed.
func (s *source) Transformer() cache.TransformFunc {
	return func(object any) (any, error) { return s.receive(object) }
}

func (s *source) receive(object any) (runtime.Object, error) {
	s.received.Add(1)
	return s.compact(object)
}

// Replace passes a complete list on.
func (s *source) Replace(items []any, version string) error {
	if err := s.store.Replace(items, version); err != nil {
		return err
	}
	s.health.complete()
	if s.streaming { // else it remains to be seen whether watching works, too
		s.health.works()
	}
	return nil
}

// synced returns nil once a list was complete, and until then what is missing.
func (s *source) synced() error { return s.health.synced(s.received.Load()) }

// interruptibleClock is the real clock, except that it waits no longer than a context lasts:
// a reflector waits between attempts to stream a list without looking at its own.
type interruptibleClock struct {
	clock.RealClock
	ctx context.Context
}

// After returns a channel that receives after d or when the context ends.
func (c interruptibleClock) After(d time.Duration) <-chan time.Time {
	ch := make(chan time.Time, 1)
	fire := sync.OnceFunc(func() { ch <- time.Now() })
	stop := context.AfterFunc(c.ctx, fire)
	time.AfterFunc(d, func() {
		stop()
		fire()
	})
	return ch
}
