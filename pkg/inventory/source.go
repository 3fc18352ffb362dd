package inventory

import (
	"context"
	"errors"
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

// pageSize is the limit of a list request. A page of nodes, the larger objects, is about 7 MiB.
const pageSize = 500

// backoff is how long to wait between attempts, at most 10 to 15 s: so few requests are no burden for an
// API server, and the server is not ready before the first list.
var backoff = wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 8, Cap: 10 * time.Second}

// backoffReset is how long after the last attempt the backoff starts over.
const backoffReset = 2 * time.Minute

// source keeps a store in sync with one resource of the API server. It is both the ListerWatcher and the
// store of a reflector, so that it can compact objects before they are collected and see the errors
// that a reflector does not report.
type source struct {
	store
	from     collection
	example  runtime.Object     // the type of a watch's objects
	selected metav1.ListOptions // selectors of lists and watches

	health   health
	received atomic.Int64 // objects of the current list

	// The fields that follow belong to the goroutine of the reflector.

	streaming bool      // the open watch began with a list
	open      *guard    // the last watch
	cutOff    int       // how many streamed lists in a row failed
	noStreams time.Time // until then lists are not streamed
	short     int       // how many watches in a row ended at once
	lastShort error     // how the last of them ended
	unsure    bool      // the last watch began without a version, so the next one would miss deletions
	first     string    // the first object of the current list
}

// run lists and watches until ctx ends.
func (s *source) run(ctx context.Context) {
	logger := klog.FromContext(ctx).WithValues("resource", s.health.resource)
	s.health.logger = logger
	// What client-go logs about each attempt needs a higher verbosity: health logs when watching begins
	// to fail and when it works again.
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

	// This is Reflector.RunWithContext with another handler for the error.
	delay := backoff.DelayWithReset(interruptible, backoffReset)
	_ = delay.Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		if err := reflector.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			s.health.failed(err)
		}
		return false, nil
	})
}

// listPage requests one page of a list and compacts its objects. A reflector lists only where lists are
// not streamed.
func (s *source) listPage(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	s.streaming = false
	if o.Continue == "" {
		s.received.Store(0)
		s.unsure = false
		s.judgeLast()
	}
	// A reflector requests a list "not older than" a version. The API server's cache serves that, ignores
	// the limit, and would send 150,000 pods at once. The newest list comes in pages.
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
	first := ""
	err = meta.EachListItem(page, func(object runtime.Object) error {
		if o, err := meta.Accessor(object); err == nil && first == "" {
			first = o.GetNamespace() + "/" + o.GetName()
		}
		o, err := s.receive(object)
		out.Items = append(out.Items, o)
		return err
	})
	if o.Continue == "" {
		s.first = first
	} else if list.GetContinue() == o.Continue || first != "" && first == s.first {
		return nil, errEndlessList // it begins again instead of going on
	}
	return out, err
}

func (s *source) openWatch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	s.selectors(&o)
	if o.SendInitialEvents != nil && *o.SendInitialEvents {
		return s.openStream(ctx, o)
	}
	s.streaming = false
	s.judgeLast()
	fromNowhere := o.ResourceVersion == "" || o.ResourceVersion == "0"
	if fromNowhere && s.unsure {
		return expired(errNoVersion), nil
	}
	w, err := s.from.watch(ctx, o)
	if err != nil {
		if utilnet.IsConnectionRefused(err) || apierrors.IsTooManyRequests(err) {
			s.health.failed(err) // the reflector retries these without reporting them
		}
		return nil, err
	}
	s.unsure = fromNowhere
	switch {
	case s.short == 0:
		s.health.works()
	case s.short >= shortWatches:
		s.health.failed(s.lastShort)
	}
	g := newGuard(w, s.health.works)
	s.open = g
	go g.passWatch(s.hold())
	return g, nil
}

// openStream opens a watch that begins with a list.
func (s *source) openStream(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	s.judgeLast()
	s.received.Store(0)
	s.streaming, s.unsure = false, false
	if time.Now().Before(s.noStreams) {
		return nil, errNotStreamed
	}
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(openPatience, cancel)
	w, err := s.from.watch(ctx, o)
	if !late.Stop() {
		if err == nil {
			w.Stop()
		}
		s.open = &guard{failure: errNotAccepted}
		return nil, errNotAccepted
	}
	if err != nil {
		cancel()
		// After some errors the reflector would request a stream again, after a 410 without a pause. After
		// an unknown error it lists, and reports an error of that.
		return nil, errors.New(err.Error())
	}
	s.streaming = true
	s.open = newGuard(cancelling{w, cancel}, func() {})
	go s.open.passList(s.hold())
	return s.open, nil
}

// judgeLast decides by the end of the last watch whether lists are streamed from now on.
func (s *source) judgeLast() {
	g := s.open
	s.open = nil
	if g == nil {
		return
	}
	if s.lastShort = g.short; g.short != nil {
		s.short++
	} else {
		s.short = 0
	}
	if g.failure == nil {
		return
	}
	// One connection that breaks means nothing.
	if s.cutOff++; errors.Is(g.failure, errCutOff) && s.cutOff < 2 {
		s.health.logger.V(2).Info("A streamed list broke off, so it is listed instead", "cause", g.failure.Error())
		return
	}
	again := !s.noStreams.IsZero()
	s.noStreams = time.Now().Add(streamRetry)
	if !again {
		s.health.notStreamed(g.failure)
	}
}

// hold is the delay before the reflector learns that a watch has ended at once.
func (s *source) hold() time.Duration { return firstHold << min(s.short, shortWatches) }

// cancelling is a watch whose context ends with it.
type cancelling struct {
	watch.Interface
	cancel context.CancelFunc
}

// Stop implements watch.Interface.
func (c cancelling) Stop() {
	c.Interface.Stop()
	c.cancel()
}

func (s *source) selectors(o *metav1.ListOptions) {
	o.LabelSelector, o.FieldSelector = s.selected.LabelSelector, s.selected.FieldSelector
}

// Transformer compacts objects while a reflector collects a streamed list.
func (s *source) Transformer() cache.TransformFunc {
	return func(object any) (any, error) { return s.receive(object) }
}

func (s *source) receive(object any) (runtime.Object, error) {
	s.received.Add(1)
	return s.compact(object)
}

// Replace stores a complete list.
func (s *source) Replace(items []any, version string) error {
	if err := s.store.Replace(items, version); err != nil {
		return err
	}
	s.health.complete()
	if s.streaming { // otherwise the watch is yet to be opened
		s.cutOff, s.noStreams = 0, time.Time{}
		s.health.works()
	}
	return nil
}

// synced returns nil once a list was complete, and until then an error with what is missing.
func (s *source) synced() error { return s.health.synced(s.received.Load()) }

// interruptibleClock is the real clock, except that no wait outlasts a context: a reflector ignores its
// own context while it waits between attempts to stream a list.
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
