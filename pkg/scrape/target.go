package scrape

import (
	"context"
	"sync"
	"time"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/schedule"
)

// followUps are the times of scrapes after a node's first success, as long as the Sink reports that
// something has no usage. A usage needs two samples at least 5 s apart, so the first follow-up is
// for kubelets that sample on request, and only for those. Others sample a node every 10 s and a
// container every 10 to 20 s: by the second follow-up half of the pods with two containers have new
// samples, by the fourth all, and the last is for samples that the kubelet took late. Of 5,000
// nodes, the last is asked for the last time before second 23.
var followUps = [...]time.Duration{
	5100 * time.Millisecond, 10800 * time.Millisecond, 15500 * time.Millisecond, 20050 * time.Millisecond,
	20600 * time.Millisecond,
}

// shortPeriod is as short as the spacing of followUps: a shorter period needs none.
const shortPeriod = 6 * time.Second

// maxKeptContainers limits the size of batches that are kept for reuse, to about 115 KB each. A
// node with more containers, several times the usual limit of pods, gets a new batch for every
// scrape.
const maxKeptContainers = 2048

// target is one node as a schedule.Target.
type target struct {
	scraper *Scraper
	name    string
	fetcher Fetcher

	mu        sync.Mutex // held while the Sink is called; guards the fields that follow
	removed   bool       // the Sink must not be called again
	durations durations
}

// Scrape fetches the samples of t and records them.
func (t *target) Scrape(ctx context.Context) schedule.Result {
	s := t.scraper
	batch := s.batches.Get().(*sample.Batch) // not reused after a panic: its state is unknown
	r := schedule.Result{Err: t.fetcher.Fetch(ctx, batch)}
	if r.Err == nil {
		r.Settled, r.FollowUps = t.deliver(batch, time.Now()), s.followUps
		if !r.Settled && len(r.FollowUps) > 0 && clocked(batch) {
			r.FollowUps = r.FollowUps[1:]
		}
	} else if batch.Refused.Total() > 0 {
		s.cfg.Sink.Refused(&batch.Refused)
	}
	if cap(batch.Containers) <= maxKeptContainers {
		batch.Reset()
		s.batches.Put(batch)
	}
	return r
}

// deliver hands b to the Sink unless t was removed.
func (t *target) deliver(b *sample.Batch, received time.Time) (settled bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.removed && t.scraper.cfg.Sink.Record(t.name, b, received)
}

func (t *target) observe(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.durations.observe(d)
}

func (t *target) observed() durations {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.durations
}

// clocked reports whether a kubelet samples each container on a timer of its own instead of on
// request: then the samples of an answer have different timestamps. The node's sample is ignored,
// because it may have a timer in both cases.
func clocked(b *sample.Batch) bool {
	var first, last sample.Time
	for i := range b.Containers {
		if t := b.Containers[i].Time; t != 0 {
			if first == 0 {
				first = t
			}
			first, last = min(first, t), max(last, t)
		}
	}
	return last.Sub(first) > time.Second
}
