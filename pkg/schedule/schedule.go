// Package schedule decides when each target is scraped, how many scrapes run at once, how long each
// may take, and how soon a failing target is tried again. It does not know what a target is.
//
// Every target has its own schedule: one slot in each period, at a phase that depends on its name and
// on the approximate number of targets. Targets are thus spread evenly, and a restart does not move
// them. Two lanes limit the scrapes in flight, one for targets that answer and one for targets whose
// last scrape failed: however many targets hang, those that answer are scraped on time. While a lane is full,
// the owners of targets share its places: however many targets of one owner are slow, those of others are
// scraped on time.
//
// One goroutine (Run) starts scrapes, each scrape runs in a goroutine of its own, and one mutex
// guards the schedule. The mutex is never held during a scrape or a call of OnResult. All methods of
// Scheduler are safe for concurrent use.
package schedule

import (
	"cmp"
	"container/heap"
	"container/list"
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Target is what is scraped.
type Target interface {
	// Scrape returns soon after ctx ends. Scrapes of one target never overlap.
	Scrape(ctx context.Context) Result
}

// Result is how a scrape ended.
type Result struct {
	// Err is nil if the scrape succeeded. It may have the methods Cause() string (a few stable
	// words, the label of a metric) and Remedy() string (what an administrator can do).
	Err error
	// Settled reports whether the target needs no follow-up.
	Settled bool
	// FollowUps are the times, ascending, at which the target is scraped again after its first
	// success, as long as it has not settled. They are additional to its slots.
	FollowUps []time.Duration
}

// Report says how a scrape changed the state of its target.
type Report struct {
	Name          string
	Target        Target
	Due, Ended    time.Time
	Before, After TargetStatus
	NewCause      bool   // it failed, for the first time with this cause since the last success
	Stack         []byte // of a panic
}

// Config configures a Scheduler. A zero field means its default.
type Config struct {
	// Period is the time between two scrapes of a target. Default 15 s.
	Period time.Duration
	// Timeout limits one scrape; it should be less than Period. Default 10 s, or nine tenths of
	// Period if that is less.
	Timeout time.Duration
	// MaxInFlight limits the scrapes in flight of targets that answer; half as many more may be in
	// flight to targets that fail. Default 1024: of 15,000 targets, 150 are scraped at the same
	// time, and the rest is for slow targets and for the moment when many begin to hang.
	MaxInFlight int
	// Owner returns the owner of a target, such as its namespace. It must not call the Scheduler.
	// Default: all targets have the same owner.
	Owner func(Target) string
	// OnResult is called after each scrape, unless its target was removed or Run is ending. The
	// goroutine of the scrape calls it and waits; ctx is that of Run. Default: no calls.
	OnResult func(ctx context.Context, r Report)
}

func (c *Config) setDefaults() {
	c.Period = cmp.Or(c.Period, 15*time.Second)
	c.Timeout = cmp.Or(c.Timeout, min(10*time.Second, c.Period*9/10))
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 1024)
	if c.Owner == nil {
		c.Owner = func(Target) string { return "" }
	}
	if c.OnResult == nil {
		c.OnResult = func(context.Context, Report) {}
	}
}

// Scheduler scrapes targets. Make it with New.
type Scheduler struct {
	config  Config
	plan    plan
	wake    chan struct{}  // tells Run that the soonest scrape may have changed
	flights sync.WaitGroup // goroutines of scrapes

	mu               sync.Mutex      // guards the fields that follow
	wakeBy           time.Time       // when Run is to wake up at the latest; zero before its first pass
	ctx              context.Context // of Run; nil before it
	entries          map[string]*entry
	owners           map[string]*owner // of entries
	healthy, failing lane
	lastFirst        time.Time // when the last first or hastened scrape is due
	tally            tally
}

// entry is one target's schedule and state. Scheduler.mu guards all fields except name.
//
// Invariant: once Run has begun, an entry either is in lane.calendar, waits in a line of its owner or has a flight.
type entry struct {
	name         string
	owner        *owner
	target       Target
	due          time.Time // of the next scrape, or of the one in flight
	lane         *lane     // where it waits or is in flight; nil before Run
	flight       *flight   // nil while it waits
	firstSuccess time.Time // since it was added, hastened or failed
	hastened     bool      // Hasten was called, and no scrape has begun since
	lastHastened time.Time // when the last scrape that was hastened began
	status       TargetStatus
	listed       *list.Element // in tally, while it fails
	reported     []string      // causes of failures since the last success
}

// New returns a Scheduler without targets.
func New(c Config) *Scheduler {
	c.setDefaults()
	owners := map[string]*owner{}
	return &Scheduler{
		config:  c,
		plan:    plan{period: c.Period},
		wake:    make(chan struct{}, 1),
		entries: map[string]*entry{},
		owners:  owners,
		healthy: lane{kind: healthy, size: c.MaxInFlight, timeout: c.Timeout, owners: owners},
		failing: lane{kind: failing, size: max(1, c.MaxInFlight/2), timeout: c.Timeout, owners: owners},
		tally:   tally{causes: map[string]*list.List{}},
	}
}

// Run scrapes until ctx ends and every scrape in flight has returned. It returns nil. Call it once.
func (s *Scheduler) Run(ctx context.Context) error {
	s.begin(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flights.Wait()
			return nil
		case <-timer.C:
		case <-s.wake:
		}
		timer.Reset(s.dispatch(time.Now()))
	}
}

// begin schedules the targets that were added before Run, in the order of their names, so that a
// restart keeps their order.
func (s *Scheduler) begin(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
	for _, name := range slices.Sorted(maps.Keys(s.entries)) {
		s.scheduleFirstLocked(s.entries[name])
	}
}

// Add starts to scrape t under a name. A known name keeps its schedule and its state, and its next
// scrape is one of t.
func (s *Scheduler) Add(name string, t Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[name]; e != nil {
		e.target = t
		return
	}
	of := s.config.Owner(t)
	o := s.owners[of]
	if o == nil {
		o = &owner{name: of}
		s.owners[of] = o
	}
	o.targets++
	e := &entry{name: name, owner: o, target: t}
	s.entries[name] = e
	if s.ctx != nil {
		s.scheduleFirstLocked(e)
	}
}

// Remove forgets a target and returns it; nil if the name is unknown. It cancels a scrape in flight
// without waiting for it.
func (s *Scheduler) Remove(name string) Target {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil {
		return nil
	}
	delete(s.entries, name)
	s.tally.update(e, &e.status, &TargetStatus{})
	switch {
	case e.flight != nil:
		s.leaveLaneLocked(e)
		e.flight.cancel()
	case e.lane != nil:
		e.lane.drop(e)
	}
	if e.owner.targets--; e.owner.targets == 0 {
		delete(s.owners, e.owner.name)
	}
	return e.target
}

// Hasten makes Run scrape a known target soon, and follow that up as if it were its first scrape. The target
// keeps its state: if it fails, it stays in the lane of failing targets. Hastened scrapes of a target are at
// least a third of a period apart; calls in between are merged into the next one. A scrape in flight goes on.
func (s *Scheduler) Hasten(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil || e.hastened || e.flight == nil && e.status.LastAttempt.IsZero() { // its first scrape is to come
		return
	}
	e.hastened = true
	if e.flight != nil {
		return // settle schedules it
	}
	if due := s.hastenLocked(e, e.due); due.Before(e.due) {
		e.lane.drop(e)
		s.scheduleLocked(e, due)
	}
}

// hastenLocked returns when to scrape e, which is hastened and otherwise due at due.
func (s *Scheduler) hastenLocked(e *entry, due time.Time) time.Time {
	soon, earliest := s.paceLocked(), e.lastHastened.Add(s.plan.hasteGap())
	switch {
	case !later(soon, earliest).Before(due):
		return due
	case earliest.After(soon):
		return earliest
	}
	s.lastFirst = soon
	return soon
}

// scheduleFirstLocked schedules the first scrape of e, as soon as the pace of first scrapes allows.
func (s *Scheduler) scheduleFirstLocked(e *entry) {
	s.lastFirst = s.paceLocked()
	s.scheduleLocked(e, s.lastFirst)
}

// paceLocked returns when the next first scrape may begin. No more first scrapes than there are targets can be
// waiting, so targets that are removed and added again and again do not delay those of others.
func (s *Scheduler) paceLocked() time.Time {
	now := time.Now()
	next := later(s.lastFirst.Add(firstPace), now)
	if latest := now.Add(time.Duration(len(s.entries)) * firstPace); next.After(latest) {
		return latest
	}
	return next
}

// scheduleLocked schedules the next scrape of e, which is not in flight, for due.
func (s *Scheduler) scheduleLocked(e *entry, due time.Time) {
	e.due, e.lane = due, &s.healthy
	if e.status.Failing() {
		e.lane = &s.failing
	}
	heap.Push(&e.lane.calendar, e)
	if e.lane.calendar[0].entry == e {
		s.poke()
	}
}

// poke wakes Run up.
func (s *Scheduler) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// dispatch starts the scrapes that are due and returns the time until the next one.
func (s *Scheduler) dispatch(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := s.config.Period // or until poked
	for _, l := range [...]*lane{&s.healthy, &s.failing} {
		for {
			e, until := l.next(now)
			if e == nil {
				if !until.IsZero() {
					wait = min(wait, until.Sub(now))
				}
				break
			}
			s.startLocked(e, now)
		}
	}
	s.wakeBy = now.Add(wait)
	return wait
}
