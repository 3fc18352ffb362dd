package schedule

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		if d := cmp.Diff(Status{}, s.Status()); d != "" {
			t.Errorf("without nodes: %s", d)
		}
		var failing atomic.Bool
		fails := func(name string) *target {
			return &target{t: t, fault: func() error {
				if failing.Load() {
					return refusedError{name}
				}
				return nil
			}}
		}
		s.Add("good-1", &target{t: t})
		s.Add("good-2", &target{t: t})
		s.Add("idle", &target{t: t, settled: never})
		for _, name := range []string{"down-1", "down-2", "down-3"} {
			s.Add(name, fails(name))
		}
		s.Add("hangs", &target{t: t, fault: func() error { return errHang }})
		s.Add("odd", &target{t: t, fault: func() error { return errors.New("odd") }})

		check := func(when string, want Status) {
			t.Helper()
			got := s.Status()
			answered := want.Answered > 0
			if got.LastSuccess.IsZero() == answered || time.Since(got.LastSuccess) > 2*period && answered {
				t.Errorf("%s: last success %v", when, got.LastSuccess)
			}
			got.LastSuccess = time.Time{}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", when, d)
			}
		}
		check("before Run", Status{Targets: 8, Waiting: 8})
		runScheduler(t, s)
		wait(time.Second)
		odd := Cause{Cause: "other", Targets: 1, Example: "odd", Message: "odd"}
		check("after a second", Status{
			Targets: 8, Waiting: 1, Answered: 6, Settled: 5, Failing: 1, Doubtful: 1, Causes: []Cause{odd},
		})
		failing.Store(true)
		wait(5 * time.Minute)

		hangs := Cause{
			Cause: "timeout", Targets: 1, Example: "hangs",
			Message: "asking: context deadline exceeded", Remedy: remedyTimeout,
		}
		first := s.Status().Causes[0].Example
		down := Cause{
			Cause: "connection refused", Targets: 3, Example: first,
			Message: "node " + first + ": connection refused", Remedy: "start the kubelet of " + first,
		}
		want := Status{Targets: 8, Answered: 3, Settled: 2, Failing: 5, Causes: []Cause{down, odd, hangs}}
		for i := range 20 { // the example stays the same while nodes are tried again
			check(fmt.Sprint("failing, ", i), want)
			wait(7 * time.Second)
		}

		failing.Store(false)
		s.Remove("hangs")
		s.Remove("good-1")
		wait(2 * period)
		check("recovered", Status{Targets: 6, Answered: 5, Settled: 4, Failing: 1, Causes: []Cause{odd}})
		for _, name := range []string{"good-2", "idle", "down-1", "down-2", "down-3", "odd"} {
			s.Remove(name)
		}
		if got := s.Status(); got.Targets != 0 || got.Answered != 0 || got.Settled != 0 || got.Causes != nil {
			t.Errorf("all removed: %+v", got)
		}
	})
}

func TestTargetStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, Config{})
		if _, ok := s.TargetStatus("node-a"); ok {
			t.Error("an unknown node has a status")
		}
		var down atomic.Bool
		s.Add("node-a", &target{t: t, delay: 50 * time.Millisecond, fault: func() error {
			if down.Load() {
				return refusedError{"node-a"}
			}
			return nil
		}})
		start := time.Now()
		check := func(want TargetStatus) {
			t.Helper()
			if got, ok := s.TargetStatus("node-a"); !ok || got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		check(TargetStatus{})
		wait(time.Second)
		good := TargetStatus{
			LastAttempt: start, Duration: 50 * time.Millisecond,
			LastSuccess: start.Add(50 * time.Millisecond), Settled: true,
		}
		check(good)
		down.Store(true)
		slot := s.plan.slot(s.plan.phase("node-a", 1), start.Add(s.plan.gap()))
		for i := range 2 {
			toward(slot.Add(time.Duration(i)*period + time.Second))
			bad := good
			bad.Failures = i + 1
			bad.LastAttempt, bad.FailingSince = slot.Add(time.Duration(i)*period), slot
			bad.Err, bad.Cause, bad.Remedy = refusedError{"node-a"}, "connection refused", "start the kubelet of node-a"
			check(bad)
		}
		down.Store(false)
		wait(2 * period)
		got, _ := s.TargetStatus("node-a")
		if got.Failing() || !got.FailingSince.IsZero() || got.Cause != "" || got.Remedy != "" {
			t.Errorf("recovered: %+v", got)
		}
	})
}

func TestExplain(t *testing.T) {
	f := func(err error, wantCause, wantRemedy string) {
		t.Helper()
		if cause, remedy := explain(err); cause != wantCause || remedy != wantRemedy {
			t.Errorf("%v: cause %q, remedy %q", err, cause, remedy)
		}
	}
	f(nil, "", "")
	f(errors.New("x"), "other", "")
	f(context.Canceled, "other", "")
	f(fmt.Errorf("asking: %w", context.DeadlineExceeded), "timeout", remedyTimeout)
	f(refusedError{"a"}, "connection refused", "start the kubelet of a")
	f(fmt.Errorf("asking: %w", refusedError{"a"}), "connection refused", "start the kubelet of a")
	f(vagueError{}, "other", "")
}

// vagueError is an error whose cause is empty.
type vagueError struct{ refusedError }

func (vagueError) Cause() string  { return "" }
func (vagueError) Remedy() string { return "" }

// Late grows while Run does not start scrapes.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idle(t.Context(), 1)
		if late := s.Status().Late; late != 0 {
			t.Errorf("late by %v before Run", late)
		}
		s.dispatch(time.Now())
		wait(period) // no Run: nobody dispatches
		before := s.Status().Late
		wait(time.Minute)
		if late := s.Status().Late; late-before != time.Minute || late > time.Minute+period {
			t.Errorf("late by %v and a minute later by %v", before, late)
		}
	})
}
