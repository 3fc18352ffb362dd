package scrape

import (
	"container/list"
	"context"
	"runtime/debug"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"metrics-server/pkg/sample"
)

// maxKeptContainers caps the batches that are kept for reuse, at about 115 KB each. Only a node that lists
// more containers, several times the usual limit of pods, pays for its own.
const maxKeptContainers = 2048

// doomed is how many failures in a row are told to Config.OnFailing: one alone is a kubelet that restarts.
const doomed = 2

// flight is one scrape in flight. Scraper.mu guards element and givenUp.
type flight struct {
	fetcher Fetcher
	due     time.Time
	started time.Time
	cancel  context.CancelFunc
	element *list.Element // in the lane; nil once it no longer counts there
	givenUp bool
}

// outcome is how a scrape ended.
type outcome struct {
	ended   time.Time
	settled bool
	clocked bool // see clocked
	err     error
	stack   []byte // of a panic
}

// start begins a scrape of n. Scraper.mu is held.
func (s *Scraper) start(n *node, now time.Time) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeout)
	f := &flight{fetcher: n.fetcher, due: n.due, started: now, cancel: cancel}
	n.flight = f
	n.lane.add(f)
	s.flights.Go(func() {
		defer cancel()
		growStack()
		s.finish(n, f, s.scrape(ctx, n, f.fetcher))
	})
}

// scrape asks n and has the answer recorded. A panic costs this scrape only.
func (s *Scraper) scrape(ctx context.Context, n *node, f Fetcher) (o outcome) {
	defer func() {
		if v := recover(); v != nil { // the batch is not reused: who knows what is in it
			o = outcome{err: &panicError{v}, stack: debug.Stack()}
		}
		o.ended = time.Now()
	}()
	batch := s.batches.Get().(*sample.Batch)
	if o.err = f.Fetch(ctx, batch); o.err == nil {
		o.settled, o.clocked = s.record(n, batch, time.Now()), clocked(batch)
	} else if batch.Refused.Total() > 0 {
		s.cfg.Sink.Refused(&batch.Refused)
	}
	if cap(batch.Containers) <= maxKeptContainers {
		batch.Reset()
		s.batches.Put(batch)
	}
	return o
}

// record hands b to the Sink unless n was removed.
func (s *Scraper) record(n *node, b *sample.Batch, received time.Time) (settled bool) {
	n.gate.Lock()
	defer n.gate.Unlock()
	return !n.gone && s.cfg.Sink.Record(n.name, b, received)
}

// land takes the scrape of n out of its lane. Scraper.mu is held.
func (s *Scraper) land(n *node) {
	if n.lane.full() {
		s.poke()
	}
	n.lane.remove(n.flight)
}

// finish notes how the scrape f of n ended, and schedules the next.
func (s *Scraper) finish(n *node, f *flight, o outcome) {
	before, after, news, ok := s.settle(n, f, o)
	if !ok {
		return
	}
	log := klog.FromContext(s.ctx)
	switch {
	case before.Failing() && !after.Failing():
		failedFor := o.ended.Sub(before.FailingSince)
		log.Info("Scraping a node works again", "node", n.name, "failedFor", failedFor)
		if before.Failures >= doomed {
			s.cfg.OnRecovered(n.name, failedFor)
		}
	case !before.Failing() && after.Failing():
		log.Error(after.Err, "Scraping a node begins to fail", "node", n.name, "cause", after.Cause, "remedy", after.Remedy)
	case news:
		log.Error(after.Err, "Scraping a node fails for another cause", "node", n.name, "cause", after.Cause, "remedy", after.Remedy, "since", after.FailingSince)
	case after.Failing():
		log.V(2).Info("Scraping a node fails again", "node", n.name, "cause", after.Cause, "since", after.FailingSince, "err", after.Err)
	}
	if after.Failures == doomed || news && after.Failures > doomed {
		s.cfg.OnFailing(n.name, after)
	}
	if o.stack != nil {
		s.stack.Do(func() { log.Error(after.Err, "The first panic of a scrape", "node", n.name, "stack", string(o.stack)) })
	}
}

// settle updates the state of n and its schedule. It returns the state before and after, whether n has not failed for this cause
// since it answered last, and false if there is nothing to tell: n was removed, or Run is ending.
func (s *Scraper) settle(n *node, f *flight, o outcome) (before, after NodeStatus, news, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes[n.name] != n || s.ctx.Err() != nil {
		return before, after, false, false
	}
	s.land(n)
	n.flight = nil
	if o.err != nil && f.givenUp {
		o.err = &crowdedError{after: o.ended.Sub(f.started)}
	}

	before, after = n.status, n.status
	after.note(f.started, o)
	s.tally.move(n, &before, &after)
	s.metrics.count(f, o, &after)
	n.seen.observe(after.Duration)
	n.status = after

	if news = after.Failing() && !slices.Contains(n.told, after.Cause); news {
		n.told = append(n.told, after.Cause)
	}
	if o.err == nil {
		n.told = nil
		if before.Failing() || before.LastSuccess.IsZero() {
			n.fresh = o.ended
		}
		n.clocked = o.clocked
		s.typical += (after.Duration - s.typical) / 16
	}
	s.schedule(n, s.plan.next(n, len(s.nodes), f.started, o.ended))
	return before, after, news, true
}
