package revision

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// Revisions rise whatever is done to the wall clock. One that was set forward is followed.
func TestClock(t *testing.T) {
	start := time.Now()
	c := NewClock(start)
	at := func(d time.Duration, set int64) time.Time { return sharedtest.SetClock(t, start.Add(d), set) }
	last := c.Start()
	for i, tc := range []struct {
		now  time.Time
		want time.Duration // since start
	}{
		{start.Add(time.Second), time.Second},
		{start.Add(time.Second), time.Second}, // no two have the same revision
		{start.Add(time.Second / 2), time.Second},
		{at(2*time.Second, -3600), 2 * time.Second},
		{at(3*time.Second, 3600), time.Hour + 3*time.Second},
		{at(4*time.Second, 0), time.Hour + 4*time.Second},
	} {
		r := c.Next(tc.now)
		if got := r.Time().Sub(c.Start().Time()); got != tc.want || r <= last || r != c.Last() || !c.Own(r) {
			t.Errorf("%d: revision %d after %d, %v after the start, want %v", i, r, last, got, tc.want)
		}
		last = r
	}
	if ago := c.Ago(at(5*time.Second, 0), 2*time.Second); ago.Time() != last.Time().Add(-time.Second) {
		t.Errorf("2 s ago: %v, want 1 s before %v", ago.Time().Std(), last.Time().Std())
	}
}

// A process knows its own revisions, as far as it has made them.
func TestOwn(t *testing.T) {
	now := time.Now()
	c := NewClock(now)
	r := c.Next(now.Add(time.Second))
	for revision, want := range map[sample.Revision]bool{
		c.Start(): true, r: true, r + 1<<16: false, c.Start() - 1<<16: false, r ^ 1: false,
		sample.NewRevision(r.Time(), 0): false, 0: false,
	} {
		if got := c.Own(revision); got != want {
			t.Errorf("%d is one of this process: %v, want %v", revision, got, want)
		}
	}
}

// 15,000 nodes answer 1,250 times a second. The revisions must not run ahead of the time, or other
// replicas would take them for revisions of the future.
func TestManyChanges(t *testing.T) {
	const perSecond, seconds = 1250, 60
	start := time.Now()
	c := NewClock(start)
	for i := range perSecond * seconds {
		now := start.Add(time.Duration(i) * time.Second / perSecond)
		c.Next(now)
		if ahead := c.Last().Time().Sub(sample.TimeOf(now)); ahead >= time.Second {
			t.Fatalf("%v ahead after %v", ahead, now.Sub(start))
		}
	}
}

// Whoever knows a revision finds what was published with it.
func TestPublish(t *testing.T) {
	now := time.Now()
	c := NewClock(now)
	var published atomic.Uint64
	published.Store(uint64(c.Start()))
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for range 10_000 {
			c.Publish(now, func(r sample.Revision) { published.Store(uint64(r)) })
		}
	})
	for range 10_000 {
		if last := c.Last(); sample.Revision(published.Load()) < last {
			t.Fatalf("revision %d is known, but not published", last)
		}
	}
	publisher.Wait()
	if last := c.Last(); sample.Revision(published.Load()) != last || !c.Own(last) {
		t.Errorf("published %d, want %d", published.Load(), last)
	}
}

// What time alone has changed has a higher revision than all until then, also if many changes at one
// moment have let revisions run ahead.
func TestAgo(t *testing.T) {
	start := time.Now()
	c := NewClock(start)
	for range 100_000 {
		c.Next(start)
	}
	at := start.Add(time.Millisecond)
	last := c.Next(at)
	if ago := c.Ago(at.Add(time.Second), time.Second); ago <= last {
		t.Errorf("revision %d, want a higher one than %d", ago, last)
	}
}
