package schedule

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sharedtest"
)

func TestDefaults(t *testing.T) {
	f := func(c Config, wantPeriod, wantTimeout time.Duration) {
		t.Helper()
		c.setDefaults()
		if c.Period != wantPeriod || c.Timeout != wantTimeout || c.MaxInFlight != 1024 {
			t.Errorf("period %v, time-out %v, at most %d", c.Period, c.Timeout, c.MaxInFlight)
		}
	}
	f(Config{}, 15*time.Second, 10*time.Second)
	f(Config{Period: time.Minute}, time.Minute, 10*time.Second)
	f(Config{Period: 5 * time.Second}, 5*time.Second, 4500*time.Millisecond)
	f(Config{Period: 5 * time.Second, Timeout: time.Second}, 5*time.Second, time.Second)
}

// A settled node is scraped exactly at its slots, from the first slot that is not too close to the
// first scrape.
func TestRegularSchedule(t *testing.T) {
	for _, r := range []time.Duration{time.Second, 5 * time.Second, period, time.Minute} {
		bubble(r.String(), t, func(t *testing.T) {
			s := run(t, Config{Period: r})
			nodes := map[string]*target{}
			for _, name := range names(50) {
				nodes[name] = &target{t: t, delay: 20 * time.Millisecond}
				s.Add(name, nodes[name])
			}
			start := time.Now()
			wait(20 * r)
			for name, k := range nodes {
				asked := k.times()
				slot := s.plan.slot(s.plan.phase(name, len(nodes)), asked[0].Add(s.plan.gap()))
				for i, got := range asked[1:] {
					if want := slot.Add(time.Duration(i) * r); !got.Equal(want) {
						t.Fatalf("%s: scrape %d at %v, want %v", name, i+1, got.Sub(start), want.Sub(start))
					}
				}
				if len(asked) < 19 {
					t.Errorf("%s: %d scrapes in 20 periods", name, len(asked))
				}
			}
		})
	}
}

// The phase of a node is tied to the wall clock: another process scrapes it at the same times.
func TestPhaseSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &target{t: t}, &target{t: t}
		a := run(t, Config{})
		a.Add("node-a", first)
		wait(47 * time.Second)
		b := run(t, Config{})
		b.Add("node-a", second)
		wait(20 * time.Second)
		now := time.Now()
		wait(time.Minute)
		if d := cmp.Diff(first.since(now), second.since(now)); d != "" || len(first.since(now)) != 4 {
			t.Errorf("asked at different times:\n%s", d)
		}
	})
}

func TestFirstScrapesAreSpread(t *testing.T) {
	add := func(s *Scheduler, count *[100]atomic.Int32, nodes int) {
		start := time.Now()
		for _, name := range names(nodes) {
			s.Add(name, targetFunc(func(context.Context) error {
				if d := time.Since(start); d < 10*time.Second {
					count[d/(100*time.Millisecond)].Add(1)
				}
				return nil
			}))
		}
	}
	check := func(t *testing.T, count *[100]atomic.Int32, nodes int, within time.Duration) {
		total := 0
		for i := range int(within / (100 * time.Millisecond)) {
			n := int(count[i].Load())
			total += n
			if n > 223 {
				t.Errorf("%d first scrapes in tenth %d of a second", n, i)
			}
		}
		if total != nodes {
			t.Errorf("%d of %d nodes asked within %v", total, nodes, within)
		}
	}
	for nodes, within := range map[int]time.Duration{100: 100 * time.Millisecond, 5000: 2300 * time.Millisecond} {
		bubble("while running", t, func(t *testing.T) {
			var count [100]atomic.Int32
			s := run(t, Config{Period: 10 * time.Minute})
			add(s, &count, nodes)
			wait(10 * time.Second)
			check(t, &count, nodes, within)
		})
		bubble("before Run", t, func(t *testing.T) {
			var count [100]atomic.Int32
			s := New(Config{Period: 10 * time.Minute})
			add(s, &count, nodes)
			runScheduler(t, s)
			wait(10 * time.Second)
			check(t, &count, nodes, within)
		})
	}
}

func TestFollowUps(t *testing.T) {
	const latency = 20 * time.Millisecond
	follow := []time.Duration{0}
	for _, d := range followUps {
		follow = append(follow, d+latency)
	}
	bubble("until the last, then the slots", t, func(t *testing.T) {
		s := run(t, Config{})
		for _, name := range names(30) {
			k := &target{t: t, delay: latency, settled: never}
			s.Add(name, k)
			wait(100 * time.Second)
			asked := k.since(k.times()[0])
			if d := cmp.Diff(follow, asked[:len(follow)]); d != "" {
				t.Errorf("%s: %s", name, d)
			}
			last := follow[len(follow)-1]
			for _, at := range asked[len(follow):] {
				if at-last < s.plan.gap() || at-last > period+s.plan.gap() {
					t.Errorf("%s: asked at %v, before that at %v", name, at, last)
				}
				if slot := s.plan.slot(s.plan.phase(name, 1), k.times()[0].Add(at)); !slot.Equal(k.times()[0].Add(at)) {
					t.Errorf("%s: asked at %v, which is no slot", name, at)
				}
				last = at
			}
			if n := len(asked) - len(follow); n < 4 || n > 6 {
				t.Errorf("%s: %d scrapes in the 80 s after the follow-ups", name, n)
			}
			s.Remove(name)
		}
	})
	bubble("none once settled", t, func(t *testing.T) {
		var settled atomic.Bool
		s := run(t, Config{})
		k := &target{t: t, delay: latency, settled: settled.Load}
		s.Add("node-a", k)
		wait(time.Second)
		settled.Store(true)
		wait(time.Minute)
		asked := k.since(k.times()[0])
		if asked[1] != follow[1] {
			t.Errorf("first follow-up after %v", asked[1])
		}
		if got, want := len(asked), 5; got != want { // one, its follow-up and the slots of the minute
			t.Errorf("%d scrapes in a minute: %v", got, asked)
		}
	})
	bubble("again after a failure", t, func(t *testing.T) {
		var down atomic.Bool
		s := run(t, Config{})
		k := &target{t: t, delay: latency, settled: never, fault: func() error {
			if down.Load() {
				return refusedError{"node-a"}
			}
			return nil
		}}
		s.Add("node-a", k)
		wait(2 * time.Minute)
		down.Store(true)
		wait(2 * time.Minute)
		down.Store(false)
		up := time.Now()
		wait(2 * time.Minute)
		asked := k.since(up)
		got := asked[:len(follow)]
		for i := range got[1:] {
			got[i+1] -= got[0]
		}
		got[0] = 0
		if d := cmp.Diff(follow, got); d != "" {
			t.Error(d)
		}
	})
}

// If every third scrape fails, the others stay on time, and two answers are at most two periods apart.
func TestOneOfThreeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answered := &answers{}
		s := run(t, Config{OnResult: answered.onResult})
		var n atomic.Int32
		k := &target{t: t, fault: func() error {
			if n.Add(1)%3 == 0 {
				return errHang
			}
			return nil
		}}
		s.Add("node-a", k)
		wait(10 * time.Minute)
		for i, at := range k.times()[1:] {
			if slot := s.plan.slot(s.plan.phase("node-a", 1), at); !slot.Equal(at) {
				t.Errorf("scrape %d is %v before the slot", i+1, slot.Sub(at))
			}
		}
		got := answered.of("node-a")
		for i := range got[1:] {
			if d := got[i+1].Sub(got[i]); d > 2*period {
				t.Errorf("no answer for %v", d)
			}
		}
		if len(got) < 26 {
			t.Errorf("%d answers in 40 slots", len(got))
		}
	})
}

// A scrape that takes longer than a period skips the slots that it covers.
func TestLateScrapeSkipsSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, Config{Timeout: time.Minute})
		var slow atomic.Bool
		k := &target{t: t, fault: func() error {
			if slow.Load() {
				time.Sleep(40 * time.Second)
			}
			return nil
		}}
		s.Add("node-a", k)
		wait(time.Minute)
		slow.Store(true)
		wait(period)
		slow.Store(false)
		began := k.times()[len(k.times())-1]
		wait(2 * time.Minute)
		want := []time.Duration{0, 3 * period, 4 * period, 5 * period}
		if d := cmp.Diff(want, k.since(began)[:4]); d != "" {
			t.Error(d)
		}
	})
}

func TestReplaceKeepsSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, Config{})
		before, after := &target{t: t}, &target{t: t}
		s.Add("node-a", before)
		wait(time.Minute)
		was, _ := s.TargetStatus("node-a")
		s.Add("node-a", after)
		if is, _ := s.TargetStatus("node-a"); is != was {
			t.Errorf("status was %+v, is %+v", was, is)
		}
		now := time.Now()
		wait(time.Minute)
		slot := s.plan.slot(s.plan.phase("node-a", 1), now)
		want := []time.Time{slot, slot.Add(period), slot.Add(2 * period), slot.Add(3 * period)}
		if d := cmp.Diff(want, after.times()); d != "" {
			t.Error(d)
		}
		if before.since(now) != nil {
			t.Error("the old Fetcher was asked again")
		}
	})
}

// Run waits for scrapes that are slow to end, and ignores their results.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		s.Add("node-a", targetFunc(func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			return ctx.Err()
		}))
		stop := sharedtest.Start(t, t.Context(), s.Run)
		wait(time.Second)
		now := time.Now()
		stop()
		if d := time.Since(now); d != time.Second {
			t.Errorf("Run returned after %v", d)
		}
		if st := s.Status(); st.Failing != 0 {
			t.Errorf("the end counts as a failure: %+v", st)
		}
		s.Add("node-b", &target{t: t})
		s.Remove("node-a")
	})
}

// A panic is a failure of its target only.
func TestPanicCostsOneScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stacks []string
		s := run(t, Config{OnResult: func(_ context.Context, r Report) {
			if r.Stack != nil {
				stacks = append(stacks, string(r.Stack))
			}
		}})
		n := 0
		panics := &target{t: t, fault: func() error {
			if n++; n == 2 {
				panic("boom")
			}
			return nil
		}}
		other := &target{t: t}
		s.Add("node-a", panics)
		s.Add("node-b", other)
		wait(period + s.plan.gap())
		st, _ := s.TargetStatus("node-a")
		if st.Cause != "panic" || st.Err == nil || st.Remedy == "" {
			t.Errorf("status %+v", st)
		}
		wait(5 * time.Minute)
		if a, b := len(panics.times()), len(other.times()); b < 20 || a != b {
			t.Errorf("%d scrapes of the target with one panic, %d of another", a, b)
		}
		if len(stacks) != 1 || !strings.Contains(stacks[0], "TestPanicCostsOneScrape") {
			t.Errorf("stacks %q", stacks)
		}
	})
}
