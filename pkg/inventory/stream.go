package inventory

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// An API server that streams lists sends the objects as ADDED events and then a bookmark that marks the
// end. Some servers and proxies accept the request but never send the bookmark, and a reflector waits
// for it forever. A guard stands between the watch and the reflector and ends such a stream, after
// which the reflector lists and watches. It also delays the end of a watch that ends at once, because
// the reflector would list everything again.

const (
	// streamPatience is how long a streamed list may make no progress. A large list that is sent slowly
	// makes progress all the time.
	streamPatience = 10 * time.Second
	// streamGrace is the last part of streamPatience. It gives a process that was starved of CPU time the
	// chance to read what has arrived.
	streamGrace = time.Second
	// openPatience is how long the API server may take to accept the request for a stream. Priority and
	// fairness may queue a request for 15 s, and some proxies delay the header until the first event.
	openPatience = 30 * time.Second
	// streamRetry is how long lists are not streamed after streams were given up.
	streamRetry = time.Hour
	// leastWatch is the shortest time after which the reflector learns that a watch without events has
	// ended. If it ended within a second, the reflector would list everything again.
	leastWatch = 1100 * time.Millisecond
	// A watch is short if it ended within shortWatch and its first event, if any, was an error.
	// shortWatches of them in a row are a failure. The end of the first is delayed by firstHold; the
	// delay doubles with each of the next, up to shortWatches times.
	shortWatch   = 500 * time.Millisecond
	shortWatches = 3
	firstHold    = 2 * time.Second
)

var (
	errNotAccepted  = errors.New("the request was not answered within 30s")
	errNoEnd        = errors.New("the bookmark that ends the list did not come within 10s after the last object")
	errCutOff       = errors.New("the stream ended before the list was complete")
	errNotStreamed  = errors.New("streamed lists were given up for an hour")
	errEndlessList  = errors.New("the list does not end: its pages repeat")
	errNoVersion    = errors.New("the lists of the API server have no resourceVersion")
	errShortWatches = errors.New("watches end at once, again and again, so changes are seen late")
)

// guard forwards the events of a watch.
type guard struct {
	inner watch.Interface
	out   chan watch.Event
	done  chan struct{}
	stop  func()
	lasts func() // called once the watch has sent an event or lasted for shortWatch; not for lists

	// The fields that follow may be read once an error or the end of the watch was received.
	failure error // why the streamed list is incomplete, or nil
	short   error // non-nil iff the watch was short
}

func newGuard(inner watch.Interface, lasts func()) *guard {
	g := &guard{inner: inner, out: make(chan watch.Event), done: make(chan struct{}), lasts: sync.OnceFunc(lasts)}
	g.stop = sync.OnceFunc(func() {
		close(g.done)
		inner.Stop()
	})
	return g
}

// ResultChan implements watch.Interface.
func (g *guard) ResultChan() <-chan watch.Event { return g.out }

// Stop implements watch.Interface.
func (g *guard) Stop() { g.stop() }

// send reports whether e was received.
func (g *guard) send(e watch.Event) bool {
	select {
	case g.out <- e:
		return true
	case <-g.done:
		return false
	}
}

// passList forwards a streamed list and then the watch that follows it. If the list does not end, it
// sends an error.
func (g *guard) passList(hold time.Duration) {
	defer close(g.out)
	switch end, err := g.passInitial(); {
	case err != nil:
		g.failure = err
		g.send(watch.Event{Type: watch.Error, Object: failure(http.StatusGatewayTimeout, err)})
	case end:
		g.pass(hold)
	}
}

// passInitial forwards events up to the bookmark that ends the list, and reports whether it came.
func (g *guard) passInitial() (end bool, err error) {
	patience := time.NewTimer(streamPatience - streamGrace)
	defer patience.Stop()
	// The objects of a list are ADDED. Any other event is a later change, and no progress.
	listing, late := true, false
	for {
		select {
		case <-g.done:
			return false, nil
		case e, ok := <-g.inner.ResultChan():
			if !ok {
				return false, errCutOff
			}
			if e.Type == watch.Error {
				return false, fmt.Errorf("%w: %w", errCutOff, apierrors.FromObject(e.Object))
			}
			if listing = listing && e.Type == watch.Added; !g.send(e) {
				return false, nil
			}
			if endsList(e) {
				return true, nil
			}
			if listing {
				late = false
				patience.Reset(streamPatience - streamGrace)
			}
		case <-patience.C:
			if late {
				return false, errNoEnd
			}
			late = true
			patience.Reset(streamGrace)
		}
	}
}

// passWatch forwards a watch. If it ends at once, its end is delayed by hold.
func (g *guard) passWatch(hold time.Duration) {
	defer close(g.out)
	g.pass(hold)
}

func (g *guard) pass(hold time.Duration) {
	start, quiet := time.Now(), true
	lasting := time.NewTimer(shortWatch)
	defer lasting.Stop()
	for {
		select {
		case <-g.done:
			return
		case <-lasting.C:
		case e, ok := <-g.inner.ResultChan():
			failed := ok && e.Type == watch.Error
			if quiet && (failed || !ok) {
				g.short = errShortWatches
				if failed {
					g.short = fmt.Errorf("%w: %w", errShortWatches, apierrors.FromObject(e.Object))
				}
				g.holdBack(time.Since(start), hold)
			}
			if !ok || !g.send(e) || failed {
				return
			}
			quiet = false
		}
		g.lasts()
	}
}

// holdBack waits until the reflector may learn that the watch, which lasted that long, has ended.
func (g *guard) holdBack(lasted, hold time.Duration) {
	if lasted >= shortWatch {
		g.short, hold = nil, leastWatch-lasted
	}
	select {
	case <-time.After(hold):
	case <-g.done:
	}
}

// endsList reports whether e is the bookmark that ends a streamed list.
func endsList(e watch.Event) bool {
	if e.Type != watch.Bookmark {
		return false
	}
	o, err := meta.Accessor(e.Object)
	return err == nil && o.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
}

// expired returns a watch that ends with 410, after which a reflector lists.
func expired(err error) watch.Interface {
	w := watch.NewFakeWithChanSize(1, false)
	w.Error(failure(http.StatusGone, err))
	return w
}

func failure(code int32, err error) *metav1.Status {
	s := &metav1.Status{Status: metav1.StatusFailure, Code: code, Message: err.Error()}
	if code == http.StatusGone {
		s.Reason = metav1.StatusReasonExpired
	}
	return s
}
