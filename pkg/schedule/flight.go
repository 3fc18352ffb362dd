package schedule

import (
	"container/list"
	"context"
	"runtime/debug"
	"slices"
	"time"
)

// flight is one scrape in flight. Scheduler.mu guards element and givenUp.
type flight struct {
	target   Target
	owner    *owner
	due      time.Time
	started  time.Time
	hastened bool
	cancel   context.CancelFunc
	element  *list.Element // in the lane; nil when it has left the lane
	givenUp  bool
}

// startLocked begins a scrape of e. Scheduler.mu is held.
func (s *Scheduler) startLocked(e *entry, now time.Time) {
	ctx, cancel := context.WithTimeout(s.ctx, s.config.Timeout)
	f := &flight{target: e.target, owner: e.owner, due: e.due, started: now, hastened: e.hastened, cancel: cancel}
	if f.hastened {
		e.hastened, e.lastHastened = false, now
	}
	e.flight = f
	e.lane.add(f)
	s.flights.Go(func() {
		defer cancel()
		result, stack := scrape(ctx, f.target)
		if report, ok := s.settle(e, f, result, time.Now()); ok {
			report.Stack = stack
			s.config.OnResult(s.ctx, report)
		}
	})
}

// scrape scrapes t. A panic fails this scrape only.
func scrape(ctx context.Context, t Target) (r Result, stack []byte) {
	defer func() {
		if v := recover(); v != nil {
			r, stack = Result{Err: &panicError{v}}, debug.Stack()
		}
	}()
	return t.Scrape(ctx), nil
}

// leaveLaneLocked takes the scrape of e out of its lane. Scheduler.mu is held.
func (s *Scheduler) leaveLaneLocked(e *entry) {
	if e.lane.full() {
		s.poke()
	}
	e.lane.remove(e.flight)
}

// settle updates the state of e and its schedule. ok is false if there is nothing to report, because
// e was removed or Run is ending.
func (s *Scheduler) settle(e *entry, f *flight, r Result, ended time.Time) (report Report, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[e.name] != e || s.ctx.Err() != nil {
		return report, false
	}
	s.leaveLaneLocked(e)
	e.flight = nil
	if r.Err != nil && f.givenUp {
		r.Err = &crowdedError{after: ended.Sub(f.started), err: r.Err}
	}

	report = Report{Name: e.name, Target: f.target, Due: f.due, Ended: ended, Before: e.status}
	e.status.update(f.started, ended, &r)
	s.tally.update(e, &report.Before, &e.status)
	report.After = e.status

	if report.NewCause = e.status.Failing() && !slices.Contains(e.reported, e.status.Cause); report.NewCause {
		e.reported = append(e.reported, e.status.Cause)
	}
	if r.Err == nil {
		e.reported = nil
		if f.hastened || report.Before.Failing() || report.Before.LastSuccess.IsZero() {
			e.firstSuccess = ended
		}
		e.owner.answered(e.status.Duration)
	}
	due := s.plan.next(e, len(s.entries), r.FollowUps, f.started, ended)
	if e.hastened {
		due = s.hastenLocked(e, due)
	}
	s.scheduleLocked(e, due)
	return report, true
}
