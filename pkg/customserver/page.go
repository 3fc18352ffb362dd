package customserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/podtarget"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/schedule"
)

// page is the metrics page of one pod.
type page struct {
	*collector
	key             string // pod and address; a pod may be scraped at several addresses
	series          string // key of the series in store; a later page with the same key has another one
	namespace, name string // of the pod
	address         podtarget.Address
	cost            int64 // how many endpoints it counts as
	target          *podtarget.Target

	// The fields that follow are guarded by collector.mu.
	pod       *sample.Pod
	queries   map[*compiled]int // how many Wants have a query
	keep      *keep
	keepKey   string
	scheduler *schedule.Scheduler

	// scraping is held during a scrape: one that was canceled because the page moved to another scheduler
	// may still be ending when the next one begins.
	scraping sync.Mutex
	dropped  atomic.Bool // nobody wants it any more

	mu      sync.Mutex
	round   int   // grows when the queries change, so that a first answer is needed again
	answers int   // in this round
	problem error // of the last scrape that was reported; nil if it succeeded
}

// keep is what is kept of the pods that have the same queries.
type keep struct {
	*appmetrics.Kept
	filter podtarget.Filter
	users  int // pages
}

// pageLocked returns the page of a pod at the address that w and the pod determine, with the query of w as one more
// user. It returns neither a page nor an error if w.refused says why there is none.
func (c *collector) pageLocked(p *sample.Pod, w *wanted) (*page, error) {
	q := w.query
	address, err := podtarget.Resolve(p, w.Ask, w.Service)
	if err != nil {
		return nil, err
	}
	url := address.URL.String()
	key := p.UID + " " + url
	known := c.pages[key]
	switch {
	case known == nil && c.ofPod[p.UID] >= maxEndpointsOfPod && q.asks == podAutoscalers:
		return nil, tooManyEndpoints(p)
	case known != nil && !known.hasRoom(q) && q.asks == allSelectors:
		return nil, tooManySelectors(p, url)
	case known != nil && !known.hasRoom(q):
		return nil, tooManyMetrics(p, url)
	}
	cost := int64(1)
	if address.URL.Scheme == "https" {
		cost = tlsEndpoints
	}
	if known == nil && !w.take(c.limits, endpointLimit, cost) {
		return nil, nil
	}
	if (known == nil || known.queries[q] == 0) && !w.take(c.limits, memoryLimit, placeMemory+q.KeptSize()) {
		if known == nil {
			c.limits.endpoints.Give(p.Namespace, cost)
		}
		return nil, nil
	}
	if known == nil {
		c.number++
		known = &page{
			collector: c, key: key, series: fmt.Sprintf("%s %d", key, c.number),
			namespace: p.Namespace, name: p.Name, address: address, cost: cost,
			target: c.pods.Target(p.Namespace, p.Name, address), queries: map[*compiled]int{},
		}
		c.pages[key] = known
		c.ofPod[p.UID]++
	}
	if before := known.pod; before != nil && p.Ready && !before.Ready && known.failing() {
		known.askLocked(known.scheduler) // it has just become able to answer
	}
	known.pod = p
	known.queries[q]++
	return known, nil
}

// hasRoom reports whether q may be one of the queries of p. The autoscalers of the namespace of the pods and the
// selectors of all namespaces must not be able to displace each other, nor what the administrator's file asks for.
func (p *page) hasRoom(q *compiled) bool {
	if p.queries[q] > 0 || q.asks == administrator {
		return true
	}
	n := 0
	for other := range p.queries {
		if other.asks == q.asks {
			n++
		}
	}
	return n < maxMetricsOfEndpoint
}

// dropLocked ends the use of the pages of w.
func (c *collector) dropLocked(w *wanted) {
	for _, at := range w.places {
		p := at.page
		if p == nil {
			continue
		}
		if p.queries[w.query]--; p.queries[w.query] == 0 {
			if len(p.queries) >= maxMetricsOfEndpoint {
				c.roomy[p.pod.UID] = true
			}
			delete(p.queries, w.query)
			c.given++
			c.limits.memory.Give(p.namespace, placeMemory+w.query.KeptSize())
		}
	}
}

func (c *collector) refreshPageLocked(p *page) {
	var b strings.Builder
	queries := slices.SortedFunc(maps.Keys(p.queries), func(x, y *compiled) int { return cmp.Compare(x.number, y.number) })
	for _, q := range queries {
		fmt.Fprintf(&b, "%d ", q.number)
	}
	key := b.String()
	if key == p.keepKey {
		return
	}
	before := p.keepKey
	if before != "" {
		if p.keep.users--; p.keep.users == 0 {
			delete(c.shared, before)
		}
	}
	p.keepKey = key
	if key == "" {
		delete(c.pages, p.key)
		if c.ofPod[p.pod.UID] >= maxEndpointsOfPod {
			c.roomy[p.pod.UID] = true
		}
		if c.ofPod[p.pod.UID]--; c.ofPod[p.pod.UID] == 0 {
			delete(c.ofPod, p.pod.UID)
		}
		c.limits.endpoints.Give(p.namespace, p.cost)
		p.dropped.Store(true)
		p.scheduler.Remove(p.key)
		p.target.Close()
		c.store.Forget(p.series)
		return
	}
	if p.keep = c.shared[key]; p.keep == nil {
		all := make([]*appmetrics.Query, len(queries))
		for i, q := range queries {
			all[i] = q.Query
		}
		kept := appmetrics.Keep(all...)
		p.keep = &keep{Kept: kept, filter: podtarget.NewFilter(kept.Names())}
		c.shared[key] = p.keep
	}
	p.keep.users++
	s := c.usual
	if p.keep.Interval(interval) < interval {
		s = c.faster
	}
	// What is new has no values yet, so the pod is scraped at once. If queries were only removed,
	// there is no hurry.
	isNew := func(q *compiled) bool { return !strings.Contains(" "+before, fmt.Sprintf(" %d ", q.number)) }
	if s != p.scheduler || slices.ContainsFunc(queries, isNew) {
		p.askLocked(s)
	}
}

// askLocked has s scrape p soon, and a second time as soon as two pages make a rate.
func (p *page) askLocked(s *schedule.Scheduler) {
	p.mu.Lock()
	p.round++ // a scrape in flight does not count: it may not know what is new
	p.answers = 0
	p.mu.Unlock()
	if s == p.scheduler {
		s.Hasten(p.key)
		return
	}
	if p.scheduler != nil {
		p.scheduler.Remove(p.key)
	}
	p.scheduler = s
	s.Add(p.key, p)
}

func (p *page) failing() bool { return p.lastProblem() != nil }

// lastProblem returns why the last scrape failed; nil if it did not, or if there was none.
func (p *page) lastProblem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.problem
}

// Scrape implements schedule.Target.
func (p *page) Scrape(ctx context.Context) schedule.Result {
	p.scraping.Lock()
	defer p.scraping.Unlock()
	p.collector.mu.RLock()
	keep, pod := p.keep, p.pod
	p.mu.Lock()
	round := p.round
	p.mu.Unlock()
	p.collector.mu.RUnlock()

	read := func(a podtarget.Page) error { return p.record(ctx, a, keep.Kept, pod) }
	err := p.target.Scrape(ctx, keep.filter, read)
	if errors.Is(err, appmetrics.ErrFiltered) {
		p.target.NoFilter()
		err = p.target.Scrape(ctx, podtarget.Filter{}, read)
	}
	if said, ok := errors.AsType[*appmetrics.Error](err); ok {
		if said.Cause == appmetrics.OverShare {
			p.collector.limits.refuse(memoryLimit, p.namespace)
		}
		err = &pageError{err: said, pod: pod.Name, url: p.address.URL.String()}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && p.round == round {
		p.answers++
	}
	return schedule.Result{Err: err, Settled: p.answers >= 2, FollowUps: []time.Duration{secondPage}}
}

// note remembers how a scrape ended, which the scheduler knows better than Scrape: it gives some up, and does not
// report those that ended because the page was removed.
func (p *page) note(err error) {
	_, ofPod := errors.AsType[*podtarget.Error](err)
	_, ofPage := errors.AsType[*pageError](err)
	switch {
	case errors.Is(err, schedule.ErrGivenUp): // the text of err itself changes each time
		err = p.explain(schedule.ErrGivenUp)
	case err != nil && !ofPod && !ofPage:
		err = p.explain(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problem = err
}

func (p *page) explain(err error) error {
	return fmt.Errorf("pod %s at %s: %w", p.name, p.address.URL.String(), err)
}

func (p *page) record(ctx context.Context, a podtarget.Page, kept *appmetrics.Kept, pod *sample.Pod) error {
	if len(a.Body) > turnPage || kept.Costly(len(a.Body)) {
		end, err := p.parsing.take(ctx, p.namespace)
		if err != nil {
			return &turnError{namespace: p.namespace, err: err}
		}
		defer end()
	}
	err := p.store.Record(p.series, kept, appmetrics.Page{
		Namespace: pod.Namespace, Pod: pod.Name, At: a.At, Started: p.address.Started(pod),
		ContentType: a.ContentType, Body: a.Body, Filtered: a.Filtered,
	})
	if p.dropped.Load() { // the store may have been told to forget it before this page
		p.store.Forget(p.series)
	}
	if partial, ok := errors.AsType[*appmetrics.PartialError](err); ok { // the answers have the reason
		if partial.Reason.Cause == appmetrics.OverShare {
			p.collector.limits.refuse(memoryLimit, p.namespace)
		}
		return nil
	}
	return err
}

// turnError says that a page was not parsed in time, because others of its namespace were.
type turnError struct {
	namespace string
	err       error
}

func (e *turnError) Error() string {
	return fmt.Sprintf("its page was not parsed in time, because only one page of namespace %q that has more than "+
		"%d KiB, or is matched with many or long patterns, is parsed at a time: make the pages smaller, or use = instead "+
		"of =~ in expressions", e.namespace, turnPage>>10)
}
func (e *turnError) Unwrap() error { return e.err }

// pageError is an error about the page of a pod.
type pageError struct {
	err      *appmetrics.Error
	pod, url string
}

func (e *pageError) Error() string { return fmt.Sprintf("pod %s at %s: %v", e.pod, e.url, e.err) }
func (e *pageError) Unwrap() error { return e.err }

// Cause and Remedy are for schedule.Result. The text has the remedy.
func (e *pageError) Cause() string { return e.err.Cause.String() }

func (*pageError) Remedy() string { return "" }
