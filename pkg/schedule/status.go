package schedule

import (
	"cmp"
	"container/list"
	"slices"
	"time"
)

// Status summarises all targets, for probes.
type Status struct {
	Targets  int // = Waiting + Answered + Failing
	Waiting  int // not scraped yet
	Answered int // the last scrape succeeded
	Settled  int // those among Answered whose Result was settled
	Failing  int // the last scrape failed
	Doubtful int // those among Failing that failed once and were not settled before

	Causes      []Cause       // why targets fail, the commonest first
	LastSuccess time.Time     // of any target, even if it was removed
	Late        time.Duration // how late Run is in starting scrapes; independent of targets
}

// Cause is a reason why targets fail.
type Cause struct {
	Cause           string
	Targets         int
	Example         string // the target that has failed longest with this cause
	Message, Remedy string // of the example; Remedy may be empty
}

// TargetStatus is the state of one target.
type TargetStatus struct {
	LastAttempt  time.Time     // when the last completed scrape began; zero if there was none
	Duration     time.Duration // of that scrape
	LastSuccess  time.Time     // when the last successful scrape ended; zero if there was none
	Settled      bool          // of the last successful scrape: see Result
	Err          error         // of the last scrape; nil if it succeeded
	Cause        string        // of Err, in a few stable words
	Remedy       string        // for Err; may be empty
	Failures     int           // number of consecutive failures
	FailingSince time.Time     // zero if the last scrape succeeded
}

// Failing reports whether the last scrape failed.
func (s *TargetStatus) Failing() bool { return s.Err != nil }

// doubtful reports whether the target failed once before it had settled. Such a target is retried at
// once, and readiness may wait for it.
func (s *TargetStatus) doubtful() bool { return s.Failures == 1 && !s.Settled }

func (s *TargetStatus) answered() bool { return !s.LastAttempt.IsZero() && !s.Failing() }

// update records a scrape.
func (s *TargetStatus) update(started, ended time.Time, r *Result) {
	switch {
	case r.Err == nil:
		s.LastSuccess, s.Settled, s.FailingSince, s.Failures = ended, r.Settled, time.Time{}, 0
	case !s.Failing():
		s.FailingSince, s.Failures = started, 1
	default:
		s.Failures++
	}
	s.LastAttempt, s.Duration = started, ended.Sub(started)
	s.Err = r.Err
	s.Cause, s.Remedy = explain(r.Err)
}

// Status returns the present state. Its cost does not depend on the number of targets.
func (s *Scheduler) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Targets:     len(s.entries),
		Answered:    s.tally.answered,
		Settled:     s.tally.settled,
		Doubtful:    s.tally.doubtful,
		LastSuccess: s.tally.lastSuccess,
	}
	if !s.wakeBy.IsZero() {
		st.Late = max(0, time.Since(s.wakeBy))
	}
	for cause, failing := range s.tally.causes {
		example := failing.Front().Value.(*entry)
		st.Failing += failing.Len()
		st.Causes = append(st.Causes, Cause{
			Cause: cause, Targets: failing.Len(),
			Example: example.name, Message: example.status.Err.Error(), Remedy: example.status.Remedy,
		})
	}
	st.Waiting = st.Targets - st.Answered - st.Failing
	slices.SortFunc(st.Causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Targets, a.Targets), cmp.Compare(a.Cause, b.Cause))
	})
	return st
}

// TargetStatus returns the status of one target and whether it is known.
func (s *Scheduler) TargetStatus(name string) (TargetStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil {
		return TargetStatus{}, false
	}
	return e.status, true
}

// Each calls f for every target, in no order, with the Scheduler locked: f must not call its methods.
func (s *Scheduler) Each(f func(t Target, st *TargetStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		f(e.target, &e.status)
	}
}

// tally maintains the sums of Status, so that probes need not walk the targets.
type tally struct {
	answered, settled, doubtful int
	lastSuccess                 time.Time
	causes                      map[string]*list.List // of *entry, in the order in which they began; no list is empty
}

// update records that the state of e changes. A target that keeps failing with the same cause keeps
// its place, so that the example does not change with every attempt.
func (t *tally) update(e *entry, from, to *TargetStatus) {
	t.add(from, -1)
	t.add(to, 1)
	if to.LastSuccess.After(t.lastSuccess) {
		t.lastSuccess = to.LastSuccess
	}
	if from.Cause == to.Cause {
		return
	}
	if from.Failing() {
		failing := t.causes[from.Cause]
		if failing.Remove(e.listed); failing.Len() == 0 {
			delete(t.causes, from.Cause)
		}
	}
	if to.Failing() {
		if t.causes[to.Cause] == nil {
			t.causes[to.Cause] = list.New()
		}
		e.listed = t.causes[to.Cause].PushBack(e)
	}
}

func (t *tally) add(s *TargetStatus, by int) {
	if s.answered() {
		t.answered += by
		if s.Settled {
			t.settled += by
		}
	}
	if s.doubtful() {
		t.doubtful += by
	}
}
