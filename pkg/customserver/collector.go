package customserver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/podtarget"
	"metrics-server/pkg/schedule"
)

const (
	// interval is how often a pod is scraped, unless one of its metrics has a range shorter than two
	// intervals. All replicas of this server scrape at the same moments.
	interval = appmetrics.DefaultInterval
	// shortInterval is how often pods with such a metric are scraped: the shortest range is 10 s.
	shortInterval = 5 * time.Second
	// secondPage is when a pod is scraped for the second time, because a rate takes two pages. If two
	// pages were closer than a third of the interval, only one would be kept.
	secondPage = interval / 3
)

// collector scrapes every pod that has a wanted metric, and stores the series of its page.
type collector struct {
	store         *appmetrics.Store
	limits        *limits
	pods          *podtarget.Targets
	parsing       turns               // of pages of more than turnPage bytes
	usual, faster *schedule.Scheduler // by how often pods are scraped

	mu     sync.RWMutex // guards the fields that follow
	wants  map[demand.Request]*wanted
	pages  map[string]*page // by key
	ofPod  map[string]int   // how many pages a pod has, by its UID
	shared map[string]*keep // by the numbers of its queries
	number uint64           // of the last query or page
	// refused are the wants that did not get all that they need. They are tried again when there may be room.
	refused map[demand.Request]bool
	roomy   map[string]bool // by UID: the pods at a limit of their own that got room since the last retry
	scratch []place         // reused by placesLocked
	given   uint64          // how often the use of a page was given back
}

// wanted is a Want with its query and the pages of its pods.
type wanted struct {
	*demand.Want
	query   *compiled
	places  []place         // of the Pods that are scraped or have an error of their own, in the order of Pods
	refused map[limit]error // the shared limits by which other Pods are not scraped; nil if there are none
	room    bool            // whether a pod in places that was at a limit of its own has got room since
	memory  int64           // what is taken of the memory for the errors in places
}

// place is the page of one pod of a Want, or the error that says why there is none.
type place struct {
	pod  int   // index in Pods
	page *page // nil if it is not scraped
	err  error // why not; nil if it is
}

// Memory that is taken for a place, and more for an error, without its text.
const (
	placeMemory = 32
	errorMemory = 160
)

// take takes n of what the namespace of w has of a limit, and reports whether it may. A limit that has refused w
// something is not asked again, so that all pods of w share one error.
func (w *wanted) take(l *limits, of limit, n int64) bool {
	if w.refused[of] != nil {
		return false
	}
	err := l.take(of, w.Namespace, n)
	if err != nil {
		w.refuse(of, err)
	}
	return err == nil
}

func (w *wanted) refuse(of limit, err error) {
	if w.refused == nil {
		w.refused = map[limit]error{}
	}
	w.refused[of] = err
}

// refusal returns why pods without a place are not scraped.
func (w *wanted) refusal() error {
	if err := w.refused[memoryLimit]; err != nil {
		return err
	}
	return w.refused[endpointLimit]
}

func newCollector(limits *limits, pods *podtarget.Targets, onResult func(context.Context, schedule.Report),
) *collector {
	at := func(period time.Duration) *schedule.Scheduler {
		return schedule.New(schedule.Config{
			Period: period, MaxInFlight: maxInFlight, OnResult: onResult,
			Owner: func(t schedule.Target) string { return t.(*page).namespace },
		})
	}
	return &collector{
		store: appmetrics.New(appmetrics.Config{
			Interval: interval, Parallel: parallel, Timeout: evaluationTimeout, Memory: limits.memory,
		}),
		limits: limits, pods: pods, usual: at(interval), faster: at(shortInterval),
		wants: map[demand.Request]*wanted{}, pages: map[string]*page{}, ofPod: map[string]int{},
		shared: map[string]*keep{}, refused: map[demand.Request]bool{}, roomy: map[string]bool{},
	}
}

// run scrapes pods until ctx ends.
func (c *collector) run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { wait.UntilWithContext(ctx, func(context.Context) { c.retry() }, interval) })
	for _, s := range c.schedulers() {
		wg.Go(func() { _ = s.Run(ctx) }) // it returns nil
	}
	wg.Wait()
	c.pods.Close()
	return nil
}

func (c *collector) schedulers() [2]*schedule.Scheduler {
	return [2]*schedule.Scheduler{c.usual, c.faster}
}

// size returns how many pages there are.
func (c *collector) size() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.pages)
}

// counts returns how many metrics are collected, and how many cannot be. Those that are undeclared are neither:
// another program may serve them.
func (c *collector) counts() (good, bad int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, w := range c.wants {
		switch {
		case w.Undeclared:
		case w.Err != nil || w.query.err != nil:
			bad++
		default:
			good++
		}
	}
	return good, bad
}

func (c *collector) find(r demand.Request) *wanted {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.wants[r]
}

// set starts or continues collecting a Want, which is new or has changed.
func (c *collector) set(w *demand.Want) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setLocked(w)
}

func (c *collector) setLocked(w *demand.Want) {
	before := c.given
	c.replaceLocked(w)
	if c.refused[w.Request] && c.given != before { // what the old Want gave back last may be enough
		c.replaceLocked(w)
	}
}

func (c *collector) replaceLocked(w *demand.Want) {
	old := c.wants[w.Request]
	n := &wanted{Want: w}
	if old != nil && old.SameQuery(w) && !old.query.limited {
		n.query = old.query
	} else {
		if old != nil {
			c.releaseLocked(old)
		}
		n.query = c.compileLocked(w)
	}
	c.wants[w.Request] = n
	if old != nil {
		c.limits.memory.Give(w.Namespace, old.memory) // its errors do not outlive this call
		old.memory = 0
	}
	podLimited := false
	switch {
	case n.query.limited:
		n.refuse(memoryLimit, n.query.err)
	case w.Err == nil && n.query.err == nil:
		podLimited = c.placesLocked(n)
	}
	if old != nil {
		c.dropLocked(old)
	}
	c.refreshLocked(n, old)
	if podLimited || n.refused != nil {
		c.refused[w.Request] = true
	} else {
		delete(c.refused, w.Request)
	}
}

// placesLocked makes the places of w, and reports whether some of its pods are at a limit of their own.
func (c *collector) placesLocked(w *wanted) (podLimited bool) {
	all := c.scratch[:0]
	for i, p := range w.Pods {
		page, err := c.pageLocked(p, w)
		if err != nil {
			podLimited = podLimited || isOverShare(err)
			size := placeMemory + errorMemory + int64(len(err.Error()))
			if !w.take(c.limits, memoryLimit, size) {
				continue
			}
			w.memory += size
		}
		if page != nil || err != nil {
			all = append(all, place{pod: i, page: page, err: err})
		}
	}
	w.places = slices.Clone(all)
	clear(all)
	c.scratch = all
	return podLimited
}

// remove stops collecting the Want of a request.
func (c *collector) remove(r demand.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.wants[r]; old != nil {
		delete(c.wants, r)
		delete(c.refused, r)
		c.limits.memory.Give(old.Namespace, old.memory)
		c.releaseLocked(old)
		c.dropLocked(old)
		c.refreshLocked(old)
	}
}

func isOverShare(err error) bool {
	e, ok := errors.AsType[*appmetrics.Error](err)
	return ok && e.Cause == appmetrics.OverShare
}

// retries is how many wants are retried at a time: with 2,000 pods each, they take less than a
// second.
const retries = 100

// retry lets refused wants try again to get what they need, one of each namespace in turn.
func (c *collector) retry() {
	left := retries
	for waiting := c.retryable(); len(waiting) > 0; {
		for namespace, all := range waiting {
			if left--; left < 0 {
				return
			}
			c.mu.Lock()
			if r := all[0]; c.refused[r] {
				c.setLocked(c.wants[r].Want)
			}
			c.mu.Unlock()
			if waiting[namespace] = all[1:]; len(all) == 1 {
				delete(waiting, namespace)
			}
		}
	}
}

// retryable returns the refused wants that may get more now, by namespace, in random order.
func (c *collector) retryable() map[string][]demand.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[string][]demand.Request{}
	known := map[refusal]bool{}
	mayTake := func(r refusal) bool {
		may, ok := known[r]
		if !ok {
			may = c.limits.mayTake(r)
			known[r] = may
		}
		return may
	}
	for r := range c.refused {
		w := c.wants[r]
		w.room = w.room || len(c.roomy) > 0 && w.waitsFor(c.roomy)
		may, owner := w.room, r.Namespace
		if w.query.limited {
			owner = payer(w.Want)
		}
		for of := range w.refused {
			may = mayTake(refusal{owner, of}) || may
		}
		if may {
			all[r.Namespace] = append(all[r.Namespace], r)
		}
	}
	clear(c.roomy)
	return all
}

// waitsFor reports whether w was refused something because of a limit on one of pods, which are given by UID.
func (w *wanted) waitsFor(pods map[string]bool) bool {
	return slices.ContainsFunc(w.places, func(at place) bool { return isOverShare(at.err) && pods[w.Pods[at.pod].UID] })
}

// refreshLocked makes the pages of all keep what their queries need, and drops those without any.
func (c *collector) refreshLocked(all ...*wanted) {
	for _, w := range all {
		if w == nil {
			continue
		}
		for _, at := range w.places {
			if p := at.page; p != nil && c.pages[p.key] == p {
				c.refreshPageLocked(p)
			}
		}
	}
}
