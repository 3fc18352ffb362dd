// Package scrape makes a target of each node's kubelet: when it is scraped is for schedule to decide,
// the caller's Fetcher asks, and the caller's Sink receives the samples. This package times the
// follow-ups of kubelets, counts, logs, and reports nodes that fail.
//
// All methods of Scraper are safe for concurrent use. No lock is held during a fetch or logging.
package scrape

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/schedule"
)

// Fetcher scrapes one node. At most one Fetch of a Fetcher runs at a time.
type Fetcher interface {
	// Fetch fills into, which is empty, belongs to the Scraper and must not be retained. It returns
	// soon after ctx ends. For the methods that an error may have, see schedule.Result.
	Fetch(ctx context.Context, into *sample.Batch) error
}

// Sink receives the samples of nodes.
type Sink interface {
	// Record stores b, which is valid during the call only. received is when the answer was
	// complete, by this server's clock. Record reports whether everything that the node listed has
	// a usage: until then, the node's first scrapes follow each other quickly. Calls for one node
	// never overlap.
	Record(node string, b *sample.Batch, received time.Time) (settled bool)
	// Refused counts the refused samples of a scrape that failed because no sample was acceptable.
	// Record is not called for it.
	Refused(r *sample.Refusals)
}

// Config configures a Scraper. A zero field means its default.
type Config struct {
	// Period, Timeout and MaxInFlight are those of schedule.Config. A scrape in flight takes 12 KB
	// (stack, context, a batch of 60 containers) and what the Fetcher holds: 18 MB if both lanes are
	// full, and the answers that are being read.
	Period, Timeout time.Duration
	MaxInFlight     int
	// Sink is where samples go. Required.
	Sink Sink
	// OnFailing is called when a node has failed twice in a row, and then for each further cause;
	// OnRecovered when it answers again after that, with how long it failed. The goroutine of the
	// scrape calls them and waits. Default: no calls.
	OnFailing   func(node string, s schedule.TargetStatus)
	OnRecovered func(node string, after time.Duration)
	// Registerer exports the metrics. Default: they are counted but not exported.
	Registerer prometheus.Registerer
}

// Scraper scrapes nodes. Make it with New.
type Scraper struct {
	schedule  *schedule.Scheduler
	cfg       Config
	followUps []time.Duration
	metrics   *metrics
	batches   sync.Pool // of *sample.Batch
	stack     sync.Once // logs the stack of the first panic
}

// New returns a Scraper without nodes. It panics if its metrics are registered already.
func New(c Config) *Scraper {
	s := &Scraper{
		cfg:       c,
		followUps: followUps[:],
		// Most nodes list fewer containers, so most batches are allocated once.
		batches: sync.Pool{New: func() any { return &sample.Batch{Containers: make([]sample.Container, 0, 64)} }},
	}
	if c.Period != 0 && c.Period < shortPeriod {
		s.followUps = nil
	}
	s.schedule = schedule.New(schedule.Config{
		Period: c.Period, Timeout: c.Timeout, MaxInFlight: c.MaxInFlight, OnResult: s.report,
	})
	s.metrics = newMetrics(c.Registerer, s.schedule)
	return s
}

// Run scrapes until ctx ends and every scrape in flight has returned. It returns nil. Call it once.
func (s *Scraper) Run(ctx context.Context) error { return s.schedule.Run(ctx) }

// Status returns the state of all nodes. Its cost does not depend on their number.
func (s *Scraper) Status() schedule.Status { return s.schedule.Status() }

// Node returns the status of one node and whether it is known.
func (s *Scraper) Node(name string) (schedule.TargetStatus, bool) {
	return s.schedule.TargetStatus(name)
}

// Add starts to scrape a node, which must not be known yet, with f.
func (s *Scraper) Add(name string, f Fetcher) {
	s.schedule.Add(name, &target{scraper: s, name: name, fetcher: f})
}

// Remove forgets the node and cancels its scrape in flight, without waiting for it. After Remove
// has returned, the Sink is not called for the node; Remove waits for a call in progress. A node
// that comes back needs a new Fetcher, because the Fetch of the old one may still be running.
func (s *Scraper) Remove(name string) {
	if t, ok := s.schedule.Remove(name).(*target); ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.removed = true
	}
}

// reportAfter is the number of consecutive failures after which Config.OnFailing is called: a
// single one may be a kubelet that restarts.
const reportAfter = 2

// report counts a scrape, and logs and reports what it changed.
func (s *Scraper) report(ctx context.Context, r schedule.Report) {
	t := r.Target.(*target)
	t.observe(r.After.Duration)
	s.metrics.count(&r)
	log := klog.FromContext(ctx)
	before, after := &r.Before, &r.After
	switch {
	case before.Failing() && !after.Failing():
		failedFor := r.Ended.Sub(before.FailingSince)
		log.Info("Scraping a node works again", "node", t.name, "failedFor", failedFor)
		if before.Failures >= reportAfter && s.cfg.OnRecovered != nil {
			s.cfg.OnRecovered(t.name, failedFor)
		}
	case !before.Failing() && after.Failing():
		log.Error(after.Err, "Scraping a node begins to fail", "node", t.name, "cause", after.Cause, "remedy", after.Remedy)
	case r.NewCause:
		log.Error(after.Err, "Scraping a node fails for another cause", "node", t.name, "cause", after.Cause,
			"remedy", after.Remedy, "since", after.FailingSince)
	case after.Failing():
		log.V(2).Info("Scraping a node fails again", "node", t.name, "cause", after.Cause,
			"since", after.FailingSince, "err", after.Err)
	}
	further := after.Failures == reportAfter || r.NewCause && after.Failures > reportAfter
	if further && s.cfg.OnFailing != nil {
		s.cfg.OnFailing(t.name, *after)
	}
	if r.Stack != nil {
		s.stack.Do(func() {
			log.Error(after.Err, "A scrape panicked; later panics are not logged", "node", t.name, "stack", string(r.Stack))
		})
	}
}
