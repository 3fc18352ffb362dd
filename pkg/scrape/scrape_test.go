package scrape

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

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
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

// The batch of a scrape is reused.
func TestAllocationsOfAScrape(t *testing.T) {
	n := &target{scraper: New(Config{Sink: quick{}}), name: "node-a", fetcher: quick{}}
	const budget = 1 // none, but with the race detector pools forget at random
	if got := testing.AllocsPerRun(1000, func() { n.Scrape(t.Context()) }); got > budget {
		t.Errorf("%v allocations, at most %d expected", got, budget)
	}
}

// A node that is not settled is scraped at the follow-ups; where containers are sampled on a timer of
// their own, not at the first.
func TestFollowUps(t *testing.T) {
	for name, tt := range map[string]struct {
		sampled []sample.Time
		want    []time.Duration
	}{
		"sampled on request": {nil, followUps[:]},
		"sampled on a timer": {[]sample.Time{0, 7_000, 8_001}, followUps[1:]},
	} {
		bubble(name, t, func(t *testing.T) {
			s := run(t, Config{Sink: &store{unsettled: true}})
			k := &kubelet{t: t, sampled: tt.sampled}
			s.Add("node-a", k)
			wait(22 * time.Second)
			var asked []time.Duration // since the first time
			for _, at := range k.times() {
				asked = append(asked, at.Sub(k.times()[0]))
			}
			if d := cmp.Diff(append([]time.Duration{0}, tt.want...), asked); d != "" {
				t.Error(d)
			}
		})
	}
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

// Refused samples are counted even if the answer has no other samples.
func TestRefusedOfAFailedScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &store{}
		s := run(t, Config{Sink: sink})
		s.Add("ahead", fetchFunc(func(_ context.Context, into *sample.Batch) error {
			into.Refused[sample.TimestampAhead] = 3
			return errors.New("no samples")
		}))
		wait(time.Second)
		sink.mu.Lock()
		defer sink.mu.Unlock()
		if got := sink.refused[sample.TimestampAhead]; got != 3 {
			t.Errorf("%d samples counted as refused, want 3", got)
		}
	})
}

// An answer that comes after its node was removed is not recorded.
func TestAnswerAfterRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &store{}
		s := run(t, Config{Sink: sink})
		s.Add("node-a", fetchFunc(func(ctx context.Context, _ *sample.Batch) error {
			<-ctx.Done()
			time.Sleep(time.Minute)
			return nil
		}))
		wait(time.Second)
		s.Remove("node-a")
		wait(2 * time.Minute)
		if got := sink.of("node-a"); len(got) > 0 {
			t.Errorf("recorded at %v", got)
		}
	})
}

// slowSink is a Sink whose Record waits.
type slowSink struct {
	entered, leave chan struct{}
	left           atomic.Bool
}

func (s *slowSink) Refused(*sample.Refusals) {}

func (s *slowSink) Record(string, *sample.Batch, time.Time) bool {
	close(s.entered)
	<-s.leave
	s.left.Store(true)
	return true
}

// It runs in real time, because a goroutine that waits for a mutex stops the clock of synctest.
func TestRemoveWaitsForRecord(t *testing.T) {
	sink := &slowSink{entered: make(chan struct{}), leave: make(chan struct{})}
	s := New(Config{Sink: sink})
	sharedtest.Start(t, quiet(t), s.Run)
	s.Add("node-a", quick{})
	<-sink.entered

	removed := make(chan bool, 1)
	go func() {
		s.Remove("node-a")
		removed <- sink.left.Load()
	}()
	for known := true; known; _, known = s.Node("node-a") {
		runtime.Gosched()
	}
	for range 1000 { // Remove would return now, if it did not wait
		runtime.Gosched()
	}
	close(sink.leave)
	if !<-removed {
		t.Error("Remove returned while the Sink was called")
	}
}

// panickingSink panics on the answer of one node.
type panickingSink struct{ store }

func (s *panickingSink) Record(node string, b *sample.Batch, at time.Time) bool {
	if node == "panics" {
		panic("no room")
	}
	return s.store.Record(node, b, at)
}

func TestPanicCostsOneScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, lines := logged(t, "0")
		sink := &panickingSink{}
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
		s.Add("panics", &kubelet{t: t})
		wait(period + period/6)
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
		if len(stacks) != 1 || !strings.Contains(stacks[0], "panickingSink") {
			t.Errorf("stacks in the log: %q", stacks)
		}
	})
}

// remedyTimeout is that of schedule.
const remedyTimeout = "check that it is up and that the network lets this server reach it"

func TestLog(t *testing.T) {
	for verbosity, want := range map[string][]string{
		"0": {
			"ERROR Scraping a node begins to fail node=node-a cause=connection refused remedy=start the kubelet of node-a",
			"INFO Scraping a node works again node=node-a",
			"ERROR Scraping a node begins to fail node=node-a cause=timeout remedy=" + remedyTimeout,
		},
		"2": {
			"ERROR Scraping a node begins to fail node=node-a cause=connection refused remedy=start the kubelet of node-a",
			"INFO Scraping a node fails again node=node-a cause=connection refused",
			"INFO Scraping a node fails again node=node-a cause=connection refused",
			"INFO Scraping a node works again node=node-a",
			"ERROR Scraping a node begins to fail node=node-a cause=timeout remedy=" + remedyTimeout,
		},
	} {
		bubble("verbosity "+verbosity, t, func(t *testing.T) {
			ctx, lines := logged(t, verbosity)
			s := New(Config{Sink: &store{}})
			runScraper(t, ctx, s)
			var tries atomic.Int32
			s.Add("node-b", &kubelet{t: t})
			s.Add("node-a", &kubelet{t: t, fault: func() error {
				switch n := tries.Add(1); {
				case n >= 3 && n <= 5:
					return fmt.Errorf("asking: %w", refusedError{"node-a"})
				case n == 8:
					return errHang
				}
				return nil
			}})
			for tries.Load() < 8 {
				wait(time.Second)
			}
			wait(12 * time.Second) // hangs until the time-out
			var got []string
			for _, e := range lines() {
				line := fmt.Sprintf("%s %s node=%v", e.Type, e.Message, field(e, "node"))
				if cause := field(e, "cause"); cause != nil {
					line += fmt.Sprint(" cause=", cause)
				}
				if remedy := field(e, "remedy"); remedy != nil {
					line += fmt.Sprint(" remedy=", remedy)
				}
				got = append(got, line)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
