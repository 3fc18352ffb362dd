package schedule

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// owned is a target with an owner.
type owned struct {
	*target
	owner string
}

func ownerOf(t Target) string { return t.(owned).owner }

// delays records how long the scrapes of owners wait for a place.
type delays struct {
	mu sync.Mutex
	of map[string][]time.Duration
}

func (d *delays) onResult(_ context.Context, r Report) {
	d.mu.Lock()
	defer d.mu.Unlock()
	owner := ownerOf(r.Target)
	d.of[owner] = append(d.of[owner], r.After.LastAttempt.Sub(r.Due))
}

// reset forgets what was recorded.
func (d *delays) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of = map[string][]time.Duration{}
}

// However many targets of an owner are slow, and however slow, those of others are scraped on time.
func TestSlowOwnerDelaysNoOther(t *testing.T) {
	for _, tt := range []struct {
		targets int
		delay   time.Duration
		owners  int // of the slow targets
	}{
		{1000, 9900 * time.Millisecond, 1},  // nearly the time-out
		{2000, 4900 * time.Millisecond, 1},  // nearly the longest patience
		{12000, 900 * time.Millisecond, 1},  // nearly the shortest patience
		{2000, 4900 * time.Millisecond, 20}, // of many owners
	} {
		bubble(fmt.Sprintf("%d targets of %d owners take %v", tt.targets, tt.owners, tt.delay), t, func(t *testing.T) {
			waits := &delays{of: map[string][]time.Duration{}}
			s := run(t, Config{MaxInFlight: 512, Owner: ownerOf, OnResult: waits.onResult})
			for i, name := range names(tt.targets) {
				owner := fmt.Sprint("slow-", i%tt.owners)
				s.Add(name, owned{&target{t: t, delay: tt.delay}, owner})
			}
			for i := range 50 {
				s.Add(fmt.Sprint("quick-", i), owned{&target{t: t, delay: 20 * time.Millisecond}, "quick"})
			}
			const tenth = time.Second                                             // of the time-out
			for _, lasts := range []time.Duration{time.Minute, 5 * time.Minute} { // the first scrapes, and the regular ones
				waits.reset()
				wait(lasts)
				got := waits.of["quick"]
				slices.Sort(got)
				if len(got) < 50*int(lasts/period)*9/10 {
					t.Fatalf("%d quick scrapes in %v", len(got), lasts)
				}
				longest, most := got[len(got)-1], got[len(got)*99/100]
				t.Logf("in %v, 99%% of the quick scrapes wait for at most %v, one for %v", lasts, most, longest)
				if longest > tenth {
					t.Errorf("a quick scrape waits for %v", longest)
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for name, e := range s.entries {
				if ownerOf(e.target) == "quick" && (e.status.Failing() || e.status.FailingSince != time.Time{}) {
					t.Errorf("%s fails: %v", name, e.status.Err)
				}
			}
		})
	}
}

// Nor do targets of an owner that hang delay those of others that have failed and are tried again.
func TestHangingOwnerDelaysNoRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := &delays{of: map[string][]time.Duration{}}
		s := run(t, Config{MaxInFlight: 512, Owner: ownerOf, OnResult: waits.onResult})
		for _, name := range names(10_000) {
			s.Add(name, owned{&target{t: t, fault: func() error { return errHang }}, "hangs"})
		}
		for i := range 50 {
			name := fmt.Sprint("refuses-", i)
			s.Add(name, owned{&target{t: t, fault: func() error { return refusedError{name} }}, "refuses"})
		}
		wait(time.Minute)
		waits.reset()
		wait(5 * time.Minute)
		got := waits.of["refuses"]
		if len(got) < 50*10 {
			t.Errorf("%d retries in 5 minutes", len(got))
		}
		if longest := slices.Max(got); longest > time.Second {
			t.Errorf("a retry waits for %v", longest)
		}
	})
}

// While a lane is full, each owner that waits gets a place in turn, and an owner that has few is not displaced.
func TestOwnersShareALane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, Config{MaxInFlight: 8, Period: time.Hour, Owner: ownerOf})
		add := func(owner string, n int) (all []*target) {
			for i := range n {
				one := &target{t: t, fault: func() error { return errHang }}
				all = append(all, one)
				s.Add(fmt.Sprint(owner, "-", i), owned{one, owner})
			}
			return all
		}
		started := func(all []*target) (n int) {
			for _, one := range all {
				n += len(one.times())
			}
			return n
		}
		many := add("many", 20)
		wait(100 * time.Millisecond)
		few := add("few", 3)
		wait(100 * time.Millisecond)
		if m, f := started(many), started(few); m != 8 || f != 0 {
			t.Errorf("%d and %d scrapes have begun, want 8 and 0: all are young", m, f)
		}
		wait(time.Second)
		// All eight are older than a tenth of the time-out: three went to few, and five to others of many.
		if m, f := started(many), started(few); m != 13 || f != 3 {
			t.Errorf("%d and %d scrapes have begun, want 13 and 3", m, f)
		}
		s.Remove("many-19") // while it waits
		wait(9900 * time.Millisecond)
		for i := range few {
			if st, _ := s.TargetStatus(fmt.Sprint("few-", i)); st.Duration != 10*time.Second {
				t.Errorf("scrape %d of few ended after %v, want the time-out", i, st.Duration)
			}
		}
		wait(2 * time.Minute)
		if n := len(many[19].times()); n != 0 {
			t.Errorf("a target that was removed while it waited was scraped %d times", n)
		}
	})
}
