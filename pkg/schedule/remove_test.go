package schedule

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRemove(t *testing.T) {
	bubble("cancels, and no answer comes through", t, func(t *testing.T) {
		answered := &answers{}
		s := run(t, Config{OnResult: answered.onResult})
		cancelled := false
		s.Add("node-a", targetFunc(func(ctx context.Context) error {
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
		if got := answered.of("node-a"); len(got) > 0 {
			t.Errorf("recorded at %v", got)
		}
		if _, ok := s.TargetStatus("node-a"); ok {
			t.Error("the node is still known")
		}
		if d := cmp.Diff(Status{}, s.Status()); d != "" {
			t.Errorf("status: %s", d)
		}
	})
	bubble("a node that waits", t, func(t *testing.T) {
		s := run(t, Config{})
		k, other := &target{t: t}, &target{t: t}
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
		answered := &answers{}
		s := run(t, Config{OnResult: answered.onResult})
		s.Add("node-a", targetFunc(func(ctx context.Context) error {
			time.Sleep(5 * time.Second) // deaf to ctx
			return refusedError{"node-a"}
		}))
		wait(time.Second)
		s.Remove("node-a")
		k := &target{t: t}
		s.Add("node-a", k)
		wait(time.Minute)
		st, _ := s.TargetStatus("node-a")
		if n := len(k.times()); n < 4 || len(answered.of("node-a")) != n || st.Failing() {
			t.Errorf("asked %d times, %d answers, status %+v", n, len(answered.of("node-a")), st)
		}
	})
	bubble("before Run", t, func(t *testing.T) {
		s := New(Config{})
		k := &target{t: t}
		s.Add("node-a", k)
		s.Remove("node-a")
		runScheduler(t, s)
		wait(time.Minute)
		if k.times() != nil {
			t.Error("asked")
		}
	})
}
