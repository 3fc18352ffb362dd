package scrape

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
)

func TestRemove(t *testing.T) {
	bubble("cancels, and no answer comes through", t, func(t *testing.T) {
		sink := &store{}
		s := run(t, Config{Sink: sink})
		cancelled := false
		s.Add("node-a", fetchFunc(func(ctx context.Context, b *sample.Batch) error {
			<-ctx.Done()
			cancelled = true
			time.Sleep(time.Minute) // a Fetcher that is slow to end, and has an answer all the same
			return nil
		}))
		wait(time.Second)
		before := time.Now()
		s.Remove("node-a")
		if time.Since(before) != 0 {
			t.Error("Remove waited")
		}
		synctest.Wait()
		if !cancelled {
			t.Error("the scrape goes on")
		}
		if n := inFlight(s); n != 0 {
			t.Errorf("%d places in the lane are taken", n)
		}
		wait(2 * time.Minute)
		if got := sink.of("node-a"); len(got) > 0 {
			t.Errorf("recorded at %v", got)
		}
		if _, ok := s.Node("node-a"); ok {
			t.Error("the node is still known")
		}
		if d := cmp.Diff(Status{}, s.Status()); d != "" {
			t.Errorf("status: %s", d)
		}
	})
	bubble("a node that waits", t, func(t *testing.T) {
		s := run(t, Config{Sink: &store{}})
		k, other := &kubelet{t: t}, &kubelet{t: t}
		s.Add("node-a", k)
		s.Add("node-b", other)
		wait(time.Minute)
		s.Remove("node-a")
		s.Remove("node-a")
		s.Remove("no such node")
		now := time.Now()
		wait(time.Minute)
		if k.since(now) != nil || len(other.since(now)) != 4 {
			t.Errorf("asked at %v, the other at %v", k.since(now), other.since(now))
		}
	})
	bubble("and add again", t, func(t *testing.T) {
		sink := &store{}
		s := run(t, Config{Sink: sink})
		s.Add("node-a", fetchFunc(func(ctx context.Context, b *sample.Batch) error {
			time.Sleep(5 * time.Second) // deaf to ctx
			return refusedError{"node-a"}
		}))
		wait(time.Second)
		s.Remove("node-a")
		k := &kubelet{t: t}
		s.Add("node-a", k)
		wait(time.Minute)
		st, _ := s.Node("node-a")
		if n := len(k.times()); n < 4 || len(sink.of("node-a")) != n || st.Failing() {
			t.Errorf("asked %d times, %d answers, status %+v", n, len(sink.of("node-a")), st)
		}
	})
	bubble("before Run", t, func(t *testing.T) {
		s := New(Config{Sink: &store{}})
		k := &kubelet{t: t}
		s.Add("node-a", k)
		s.Remove("node-a")
		runScraper(t, quiet(t), s)
		wait(time.Minute)
		if k.times() != nil {
			t.Error("asked")
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

// This one runs in real time: a goroutine that waits for a mutex keeps virtual time from going on.
func TestRemoveWaitsForRecord(t *testing.T) {
	sink := &slowSink{entered: make(chan struct{}), leave: make(chan struct{})}
	s := New(Config{Sink: sink})
	ctx, cancel := context.WithCancel(quiet(t))
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
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
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
