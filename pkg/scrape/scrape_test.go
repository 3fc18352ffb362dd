package scrape

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
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

// A settled node is asked at its slots, exactly, from the first slot that is not too near to the first scrape.
func TestRegularSchedule(t *testing.T) {
	for _, r := range []time.Duration{time.Second, 5 * time.Second, period, time.Minute} {
		bubble(r.String(), t, func(t *testing.T) {
			s := run(t, Config{Period: r, Sink: &store{}})
			nodes := map[string]*kubelet{}
			for _, name := range names(50) {
				nodes[name] = &kubelet{t: t, delay: 20 * time.Millisecond}
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

// The phase of a node is tied to the wall clock: another process asks it at the same moments.
func TestPhaseSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &kubelet{t: t}, &kubelet{t: t}
		a := run(t, Config{Sink: &store{}})
		a.Add("node-a", first)
		wait(47 * time.Second)
		b := run(t, Config{Sink: &store{}})
		b.Add("node-a", second)
		wait(20 * time.Second)
		now := time.Now()
		wait(time.Minute)
		if d := cmp.Diff(first.since(now), second.since(now)); d != "" || len(first.since(now)) != 4 {
			t.Errorf("asked at different times:\n%s", d)
		}
	})
}

func TestFirstScrapesArePaced(t *testing.T) {
	add := func(s *Scraper, count *[100]atomic.Int32, nodes int) {
		start := time.Now()
		for _, name := range names(nodes) {
			s.Add(name, fetchFunc(func(context.Context, *sample.Batch) error {
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
			s := run(t, Config{Sink: &store{}, Period: 10 * time.Minute})
			add(s, &count, nodes)
			wait(10 * time.Second)
			check(t, &count, nodes, within)
		})
		bubble("before Run", t, func(t *testing.T) {
			var count [100]atomic.Int32
			s := New(Config{Sink: &store{}, Period: 10 * time.Minute})
			add(s, &count, nodes)
			runScraper(t, quiet(t), s)
			wait(10 * time.Second)
			check(t, &count, nodes, within)
		})
	}
}

func TestClocked(t *testing.T) {
	for name, tt := range map[string]struct {
		containers []sample.Time
		want       bool
	}{
		"none":                       {nil, false},
		"one":                        {[]sample.Time{5_000}, false},
		"none has a sample":          {[]sample.Time{0, 0}, false},
		"at once, one has no sample": {[]sample.Time{5_000, 0, 5_400, 6_000}, false},
		"apart":                      {[]sample.Time{6_001, 0, 5_400, 5_000}, true},
	} {
		b := &sample.Batch{Node: sample.Sample{Time: 1}}
		for _, at := range tt.containers {
			b.Containers = append(b.Containers, sample.Container{Sample: sample.Sample{Time: at}})
		}
		if got := clocked(b); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestFollowUps(t *testing.T) {
	const latency = 20 * time.Millisecond
	follow := []time.Duration{0}
	for _, d := range followUps {
		follow = append(follow, d+latency)
	}
	bubble("until the last, then the slots", t, func(t *testing.T) {
		s := run(t, Config{Sink: &store{unsettled: true}})
		for _, name := range names(30) {
			k := &kubelet{t: t, delay: latency}
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
	bubble("without the first where containers have clocks of their own", t, func(t *testing.T) {
		s := run(t, Config{Sink: &store{unsettled: true}})
		k := &kubelet{t: t, delay: latency, sampled: []sample.Time{0, 7_000, 8_001}}
		s.Add("node-a", k)
		wait(22 * time.Second)
		if d := cmp.Diff(slices.Delete(slices.Clone(follow), 1, 2), k.since(k.times()[0])); d != "" {
			t.Error(d)
		}
	})
	bubble("none once settled", t, func(t *testing.T) {
		sink := &store{unsettled: true}
		s := run(t, Config{Sink: sink})
		k := &kubelet{t: t, delay: latency}
		s.Add("node-a", k)
		wait(time.Second)
		sink.mu.Lock()
		sink.unsettled = false
		sink.mu.Unlock()
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
		s := run(t, Config{Sink: &store{unsettled: true}})
		k := &kubelet{t: t, delay: latency, fault: func() error {
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
	bubble("none at a short period", t, func(t *testing.T) {
		s := run(t, Config{Sink: &store{unsettled: true}, Period: 5 * time.Second})
		k := &kubelet{t: t}
		s.Add("node-a", k)
		wait(time.Minute)
		if n := len(k.times()); n != 13 {
			t.Errorf("%d scrapes in a minute", n)
		}
	})
}

// With one of three scrapes failing the others stay on time, and no pause between two answers is longer than
// two periods.
func TestOneOfThreeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &store{}
		s := run(t, Config{Sink: sink})
		var n atomic.Int32
		k := &kubelet{t: t, fault: func() error {
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
		got := sink.of("node-a")
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

// A scrape that takes longer than a period costs the slots that it covers, and nothing is made up for.
func TestLateScrapeSkipsSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, Config{Sink: &store{}, Timeout: time.Minute})
		var slow atomic.Bool
		k := &kubelet{t: t, fault: func() error {
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
		s := run(t, Config{Sink: &store{}})
		before, after := &kubelet{t: t}, &kubelet{t: t}
		s.Add("node-a", before)
		wait(time.Minute)
		was, _ := s.Node("node-a")
		s.Add("node-a", after)
		if is, _ := s.Node("node-a"); is != was {
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

// Run waits for scrapes that are slow to end, and what they say then changes nothing.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(Config{Sink: &store{}})
		s.Add("node-a", fetchFunc(func(ctx context.Context, _ *sample.Batch) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			return ctx.Err()
		}))
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		wait(time.Second)
		cancel()
		now := time.Now()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(now); d != time.Second {
			t.Errorf("Run returned after %v", d)
		}
		if st := s.Status(); st.Failing != 0 {
			t.Errorf("the end counts as a failure: %+v", st)
		}
		s.Add("node-b", &kubelet{t: t})
		s.Remove("node-a")
	})
}

// sharpSink panics on the answer of one node.
type sharpSink struct{ store }

func (s *sharpSink) Record(node string, b *sample.Batch, at time.Time) bool {
	if node == "sharp" {
		panic("no room")
	}
	return s.store.Record(node, b, at)
}

func TestPanicCostsOneScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, lines := logged(t, "0")
		sink := &sharpSink{}
		s := New(Config{Sink: sink})
		runScraper(t, ctx, s)
		var n atomic.Int32
		s.Add("node-a", fetchFunc(func(_ context.Context, b *sample.Batch) error {
			b.Containers = append(b.Containers, sample.Container{})
			if n.Add(1) == 2 {
				b.Containers[n.Load()] = sample.Container{} // out of range
			}
			return nil
		}))
		s.Add("node-b", &kubelet{t: t})
		s.Add("sharp", &kubelet{t: t})
		wait(period + s.plan.gap())
		st, _ := s.Node("node-a")
		if st.Cause != "panic" || st.Err == nil || st.Remedy == "" {
			t.Errorf("status %+v", st)
		}
		wait(5 * time.Minute)
		if a, b := len(sink.of("node-a")), len(sink.of("node-b")); b < 20 || a != b-1 {
			t.Errorf("%d answers of the node with one panic, %d of another", a, b)
		}
		var stacks []string
		for _, e := range lines() {
			if stack := field(e, "stack"); stack != nil {
				stacks = append(stacks, stack.(string))
			}
		}
		if len(stacks) != 1 || !strings.Contains(stacks[0], "sharpSink") {
			t.Errorf("stacks in the log: %q", stacks)
		}
	})
}
