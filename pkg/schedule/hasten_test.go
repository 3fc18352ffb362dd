package schedule

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHasten(t *testing.T) {
	const second = time.Second
	bubble("at once, with the follow-ups of a new target", t, func(t *testing.T) {
		s := run(t, Config{})
		settled := true
		k := &target{t: t, settled: func() bool { return settled }}
		s.Add("node-a", k)
		wait(time.Minute)
		toward(s.plan.slot(s.plan.phase("node-a", 1), time.Now()).Add(2 * second)) // far from its slots
		settled = false
		now := time.Now()
		s.Hasten("node-a")
		s.Hasten("no such node")
		wait(6 * second)
		if d := cmp.Diff([]time.Duration{0, followUps[0]}, k.since(now)); d != "" {
			t.Error(d)
		}
	})
	bubble("a third of a period apart", t, func(t *testing.T) {
		s := run(t, Config{})
		k := &target{t: t}
		s.Add("node-a", k)
		wait(2 * second)
		start := time.Now()
		for range 300 {
			s.Hasten("node-a")
			wait(second / 10)
		}
		asked := k.since(start)
		if len(asked) < 6 || len(asked) > 9 { // regular scrapes come in addition
			t.Errorf("asked at %v", asked)
		}
		if asked[0] != 0 || !slices.Contains(asked, 5*second) {
			t.Errorf("asked at %v, want at once and after 5 s", asked)
		}
	})
	bubble("during a scrape", t, func(t *testing.T) {
		s := run(t, Config{})
		k := &target{t: t, delay: second, settled: never}
		s.Add("node-a", k)
		start := time.Now()
		wait(second / 2)
		s.Hasten("node-a")
		wait(8 * second)
		if d := cmp.Diff([]time.Duration{0, second, 2*second + followUps[0]}, k.since(start)); d != "" {
			t.Error(d)
		}
	})
	bubble("a target that fails", t, func(t *testing.T) {
		s := run(t, Config{})
		k := &target{t: t, fault: func() error { return refusedError{"node-a"} }}
		s.Add("node-a", k)
		wait(2*time.Minute + second)
		before, _ := s.TargetStatus("node-a")
		now := time.Now()
		s.Hasten("node-a")
		s.mu.Lock()
		if s.entries["node-a"].lane != &s.failing {
			t.Error("it has left the lane of targets that fail")
		}
		s.mu.Unlock()
		wait(second)
		if d := cmp.Diff([]time.Duration{0}, k.since(now)); d != "" {
			t.Error(d)
		}
		if st, _ := s.TargetStatus("node-a"); st.Failures != before.Failures+1 || st.FailingSince != before.FailingSince {
			t.Errorf("status %+v, before %+v", st, before)
		}
	})
	bubble("before Run, and before the first scrape", t, func(t *testing.T) {
		s := New(Config{})
		k := &target{t: t}
		s.Add("node-a", k)
		s.Hasten("node-a")
		runScheduler(t, s)
		wait(second)
		other := &target{t: t}
		s.Add("node-b", other)
		s.Hasten("node-b")
		wait(second)
		if len(k.times()) != 1 || len(other.times()) != 1 {
			t.Errorf("asked at %v and %v", k.times(), other.times())
		}
	})
}

// TestChangesDelayNobody checks that a new target is scraped soon while 2,000 others are hastened, or removed and
// added again, ten times a second.
func TestChangesDelayNobody(t *testing.T) {
	for name, change := range map[string]func(*Scheduler, string, Target){
		"hastened": func(s *Scheduler, name string, _ Target) { s.Hasten(name) },
		"added again": func(s *Scheduler, name string, k Target) {
			s.Remove(name)
			s.Add(name, k)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := run(t, Config{})
				known := targetFunc(func(context.Context) error { return nil })
				all := names(2000)
				for _, name := range all {
					s.Add(name, known)
				}
				wait(time.Minute)
				for i := range 30 {
					for _, name := range all {
						change(s, name, known)
					}
					wait(time.Second / 10)
					if i%10 != 9 {
						continue
					}
					k := &target{t: t}
					s.Add(fmt.Sprintf("new-%d", i), k)
					now := time.Now()
					wait(time.Second)
					if len(k.since(now)) == 0 {
						t.Errorf("a new target is not scraped within a second after %d changes", i+1)
					}
				}
			})
		})
	}
}
