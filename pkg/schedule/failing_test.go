package schedule

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// However many nodes hang, and whenever they begin to, the others are scraped at exactly the same times
// as without them.
func TestHangingNodesCostOnlyThemselves(t *testing.T) {
	const nodes = 300
	type schedule map[string][]time.Duration
	// measure returns when each healthy node is asked in the minutes from the second to the fifth.
	measure := func(t *testing.T, maxInFlight int, healthy func(i int) bool, hangFrom time.Duration) schedule {
		start := time.Now()
		s := run(t, Config{MaxInFlight: maxInFlight})
		fault := func() error {
			if time.Since(start) >= hangFrom {
				return errHang
			}
			return nil
		}
		kubelets := map[string]*target{}
		for i, name := range names(nodes) {
			k := &target{t: t, delay: 20 * time.Millisecond}
			if healthy(i) {
				kubelets[name] = k
			} else {
				k.fault = fault
			}
			s.Add(name, k)
		}
		wait(5 * time.Minute)
		got := schedule{}
		for name, k := range kubelets {
			got[name] = k.since(start.Add(2 * time.Minute))
		}
		if st := s.Status(); st.Failing != nodes-len(kubelets) && hangFrom < time.Hour {
			t.Errorf("%d nodes fail, want %d", st.Failing, nodes-len(kubelets))
		}
		return got
	}
	f := func(name string, healthy func(i int) bool) {
		t.Helper()
		var want schedule
		bubble(name+", without", t, func(t *testing.T) { want = measure(t, 48, healthy, time.Hour) })
		if len(want) == 0 {
			t.Errorf("%s: no node was asked", name)
		}
		same := func(when string, maxInFlight int, hangFrom time.Duration) {
			bubble(name+", "+when, t, func(t *testing.T) {
				if d := cmp.Diff(want, measure(t, maxInFlight, healthy, hangFrom)); d != "" {
					t.Error(d)
				}
			})
		}
		same("after 150 s", 48, 150*time.Second)
		same("from the start", 48, 0)
		same("from the start, far more than fit into the lane of those that fail", 32, 0)
	}
	f("30 percent hang", func(i int) bool { return i%10 >= 3 })
	f("all but one hang", func(i int) bool { return i == 150 })
}

// A node whose first scrape fails is scraped again at once, because nothing of it is served yet.
func TestFirstFailure(t *testing.T) {
	bubble("refused", t, func(t *testing.T) {
		s := run(t, Config{})
		failures := 0
		k := &target{t: t, fault: func() error {
			if failures++; failures == 1 {
				return refusedError{"node-a"}
			}
			return nil
		}}
		start := time.Now()
		s.Add("node-a", k)
		wait(time.Second)
		if st := s.Status(); st.Doubtful != 1 || st.Failing != 1 {
			t.Errorf("after the first failure: %+v", st)
		}
		wait(2 * time.Second)
		if st := s.Status(); st.Doubtful != 0 || st.Answered != 1 {
			t.Errorf("after the second try: %+v", st)
		}
		if times := k.since(start); len(times) < 2 || times[1] != s.plan.gap() {
			t.Errorf("asked at %v", times)
		}
	})
}

// So is a node that has answered before it settled.
func TestFirstFailureBeforeAllIsServed(t *testing.T) {
	bubble("refused", t, func(t *testing.T) {
		s := run(t, Config{})
		asked := 0
		k := &target{t: t, settled: never, fault: func() error {
			if asked++; asked == 2 {
				return refusedError{"node-a"}
			}
			return nil
		}}
		s.Add("node-a", k)
		wait(9 * time.Second)
		times := k.since(k.times()[0])
		if len(times) != 3 || times[1] != followUps[0] || times[2] != followUps[0]+s.plan.gap() {
			t.Errorf("asked at %v", times)
		}
	})
}

// A node that fails is first tried at its slot, then less often, but at least once in two periods.
func TestBackOff(t *testing.T) {
	for _, fault := range []error{errHang, refusedError{"node-a"}} {
		bubble(fault.Error(), t, func(t *testing.T) {
			var down atomic.Bool
			s := run(t, Config{})
			k := &target{t: t, fault: func() error {
				if down.Load() {
					return fault
				}
				return nil
			}}
			s.Add("node-a", k)
			wait(time.Minute)
			down.Store(true)
			start := time.Now()
			wait(time.Hour)
			tried := k.since(start)
			if d := tried[1] - tried[0]; d != period {
				t.Errorf("tried again %v after the first failure, not at the next slot", d)
			}
			for i := range tried[2:] {
				if d := tried[i+2] - tried[i+1]; d < period*5/4 || d > period*11/6 {
					t.Errorf("try %d comes %v after the one before", i+2, d)
				}
			}
			if last := tried[len(tried)-1]; last < time.Hour-2*period {
				t.Errorf("the last try was at %v: forgotten", last)
			}
			if n := len(tried); n < 130 || n > 160 {
				t.Errorf("%d tries in an hour", n)
			}
		})
	}
}

// Whenever a node recovers, its samples arrive within two periods.
func TestRecoveryTakesAtMostTwoPeriods(t *testing.T) {
	for _, r := range []time.Duration{time.Second, period, time.Minute} {
		bubble(r.String(), t, func(t *testing.T) {
			answered := &answers{}
			s := run(t, Config{Period: r, OnResult: answered.onResult})
			start := time.Now()
			back := map[string]time.Time{}
			longest := time.Duration(0)
			for i, name := range names(400) {
				failsFrom := start.Add(r * time.Duration(i%17) / 4)
				worksFrom := failsFrom.Add(r * time.Duration(i) / 30)
				back[name] = worksFrom
				s.Add(name, &target{t: t, delay: r / 15, fault: func() error {
					switch now := time.Now(); {
					case now.Before(failsFrom) || !now.Before(worksFrom):
						return nil
					case i%2 == 0:
						return errHang
					default:
						return refusedError{name}
					}
				}})
			}
			wait(30 * r)
			for name, at := range back {
				for _, received := range answered.of(name) {
					if received.After(at) {
						longest = max(longest, received.Sub(at))
						break
					}
				}
				if last := answered.of(name); len(last) == 0 || time.Since(last[len(last)-1]) > 2*r {
					t.Errorf("%s does not answer any more", name)
				}
			}
			if longest > 2*r || longest < r {
				t.Errorf("recovery takes up to %v", longest)
			}
		})
	}
}

// Even if all nodes hang at once, far more than the lane holds, each is tried and recovers in time.
func TestRecoveryOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		answered := &answers{}
		s := run(t, Config{MaxInFlight: 48, OnResult: answered.onResult})
		all := names(300)
		for _, name := range all {
			s.Add(name, &target{t: t, delay: 20 * time.Millisecond, fault: func() error {
				if down.Load() {
					return errHang
				}
				return nil
			}})
		}
		wait(time.Minute)
		down.Store(true)
		wait(10 * time.Minute)
		if st := s.Status(); st.Failing != len(all) {
			t.Errorf("%d of %d nodes fail", st.Failing, len(all))
		}
		down.Store(false)
		up := time.Now()
		wait(2 * period)
		for _, name := range all {
			if got := answered.of(name); !got[len(got)-1].After(up) {
				t.Errorf("%s has not recovered", name)
			}
		}
	})
}

// The lanes are bounded: a node that is due while its lane is full waits, in order of the due
// times, until one ends or has been in flight for a tenth of the time-out.
func TestLanesAreBounded(t *testing.T) {
	bubble("short scrapes are waited for in order", t, func(t *testing.T) {
		s := run(t, Config{MaxInFlight: 2, Period: time.Hour})
		var order []string
		var inFlight, most int
		gate := make(chan struct{}, 1)
		for _, name := range names(50) {
			s.Add(name, targetFunc(func(context.Context) error {
				gate <- struct{}{}
				order = append(order, name)
				inFlight++
				most = max(most, inFlight)
				<-gate
				time.Sleep(400 * time.Millisecond)
				gate <- struct{}{}
				inFlight--
				<-gate
				return nil
			}))
		}
		wait(50*400*time.Millisecond/2 - 10*time.Millisecond)
		if n := s.Status().Answered; n != 48 {
			t.Errorf("%d have answered after 24 turns of two", n)
		}
		wait(time.Second)
		if most != 2 {
			t.Errorf("%d scrapes at once", most)
		}
		if d := cmp.Diff(names(50), order); d != "" {
			t.Error(d)
		}
	})
	bubble("long ones are given up for others", t, func(t *testing.T) {
		s := run(t, Config{MaxInFlight: 2, Period: time.Hour})
		for _, name := range names(7) {
			s.Add(name, &target{t: t, fault: func() error { return errHang }})
		}
		patience := time.Second
		for turn := range 3 {
			wait(patience/2 + 2*firstPace)
			if n, late := inFlight(s), s.Status().Late; n != 2 || late != 0 { // slow nodes do not make Run late
				t.Errorf("turn %d: %d in flight, late by %v", turn, n, late)
			}
			if st := s.Status(); st.Failing != 2*turn {
				t.Errorf("turn %d: %d given up", turn, st.Failing)
			}
			wait(patience/2 - 2*firstPace)
			wait(2 * firstPace)
		}
		st, _ := s.TargetStatus("node-00000")
		if st.Cause != "timeout" || st.Duration != patience || st.Remedy != remedyCrowded {
			t.Errorf("status of one that was given up: %+v", st)
		}
		// The last two and the seventh have no successor: they have the whole time-out.
		wait(10 * time.Second)
		last, _ := s.TargetStatus("node-00006")
		if last.Duration != 10*time.Second || last.Cause != "timeout" {
			t.Errorf("status of the last: %+v", last)
		}
	})
	bubble("the cause of one that is given up is kept", t, func(t *testing.T) {
		s := run(t, Config{MaxInFlight: 2, Period: time.Hour})
		all := names(50)
		for _, name := range all {
			s.Add(name, targetFunc(func(ctx context.Context) error {
				<-ctx.Done()
				return noTokenError{ctx.Err()}
			}))
		}
		wait(time.Minute)
		for _, name := range all {
			st, _ := s.TargetStatus(name)
			if st.Cause != "no token" || st.Remedy != "start the API server" || !strings.HasSuffix(st.Err.Error(), "no token") {
				t.Errorf("status of %s: %+v", name, st)
			}
		}
		first, _ := s.TargetStatus(all[0])
		if want := "given up after 1s, because too many others do not answer: no token"; first.Err.Error() != want ||
			!errors.Is(first.Err, ErrGivenUp) {
			t.Errorf("error of the first: %v, want %q", first.Err, want)
		}
		want := []Cause{{
			Cause: "no token", Targets: len(all), Example: all[0], Message: first.Err.Error(), Remedy: "start the API server",
		}}
		if d := cmp.Diff(want, s.Status().Causes); d != "" {
			t.Errorf("causes (-want +got):\n%s", d)
		}
	})
	bubble("of failing nodes half as many", t, func(t *testing.T) {
		var inFlight, most atomic.Int32
		var fails atomic.Bool
		s := run(t, Config{MaxInFlight: 8})
		for _, name := range names(200) {
			s.Add(name, targetFunc(func(context.Context) error {
				most.Store(max(most.Load(), inFlight.Add(1)))
				defer inFlight.Add(-1)
				if fails.Load() {
					time.Sleep(400 * time.Millisecond) // less than the patience
					return refusedError{name}
				}
				return nil
			}))
		}
		fails.Store(true)
		wait(5 * time.Minute)
		if st := s.Status(); st.Failing != 200 {
			t.Fatalf("%d nodes fail", st.Failing)
		}
		most.Store(0)
		wait(5 * time.Minute)
		if got := most.Load(); got != 4 {
			t.Errorf("%d scrapes of failing nodes at once", got)
		}
	})
}

// noTokenError is the error of a scrape that waited for a token until its context ended.
type noTokenError struct{ error }

func (noTokenError) Error() string  { return "no token" }
func (noTokenError) Cause() string  { return "no token" }
func (noTokenError) Remedy() string { return "start the API server" }

// When this server is too slow for the first scrapes of many nodes, none is given up.
func TestShortOfCPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, Config{})
		const nodes = 3000
		cpu := make(chan struct{}, 1)
		for _, name := range names(nodes) {
			s.Add(name, targetFunc(func(ctx context.Context) error {
				select {
				case cpu <- struct{}{}:
				case <-ctx.Done():
					return ctx.Err()
				}
				time.Sleep(3 * time.Millisecond) // first scrapes come seven times as fast
				<-cpu
				return nil
			}))
		}
		wait(nodes * 3 * time.Millisecond / 2)
		if n := inFlight(s); n != 1024 {
			t.Fatalf("%d in flight half-way: the lane is not full", n)
		}
		wait(nodes * 4 * time.Millisecond)
		if st := s.Status(); st.Answered != nodes {
			t.Errorf("status %+v, want %d targets that have answered", st, nodes)
		}
	})
}
