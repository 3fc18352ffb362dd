package backend

import (
	"context"
	"errors"
	"sync"
	"time"

	"metrics-server/pkg/schedule"
)

// HeldPolls is the number of intervals for which the last answer is served while queries fail.
const HeldPolls = 4

// Querier sends a query. A Client is one.
type Querier interface {
	Query(context.Context, Expression) (*Answer, error)
}

// Memory divides the memory for answers among namespaces.
type Memory interface {
	// Take takes n bytes for a namespace, or returns an error for its users that says why there are no more.
	Take(namespace string, n int64) error
	Give(namespace string, n int64)
}

// PollerConfig configures a Poller. Name and Backend must be set; another zero field means its default.
type PollerConfig struct {
	Config
	Backend Querier
	// Memory is for answers. Default: there is no limit.
	Memory Memory
	// OnResult is called after each query. Default: no calls.
	OnResult func(context.Context, schedule.Report)
}

// Poller repeats the queries that somebody subscribed to. Make it with NewPoller.
type Poller struct {
	config    PollerConfig
	scheduler *schedule.Scheduler

	mu    sync.Mutex // guards the field that follows
	polls map[Expression]*poll
}

// unlimited is a Memory without a limit.
type unlimited struct{}

func (unlimited) Take(string, int64) error { return nil }
func (unlimited) Give(string, int64)       {}

// poll is the state of one query. It is a schedule.Target.
type poll struct {
	*Poller
	expression Expression
	users      int // guarded by Poller.mu

	mu     sync.Mutex // guards the fields that follow
	answer *Answer    // the last one; nil if there was none
	err    error      // of the last query; nil if it succeeded
	size   int64      // bytes taken from Memory
	ended  bool       // there are no more subscriptions
}

// NewPoller returns a Poller without queries.
func NewPoller(c PollerConfig) *Poller {
	c.Config = c.WithDefaults()
	if c.Memory == nil {
		c.Memory = unlimited{}
	}
	return &Poller{
		config: c,
		// The Querier limits the parallel queries and the time of each. A limit here would abandon the oldest query for
		// the next one, and so abandon every query of a backend that is merely slow. A query that waits for longer than
		// the period is sent less often.
		scheduler: schedule.New(schedule.Config{
			Period: c.Interval, Timeout: c.patience() + c.Interval, MaxInFlight: 1 << 20, OnResult: c.OnResult,
		}),
		polls: map[Expression]*poll{},
	}
}

// Run polls until ctx ends. It returns nil. Call it once.
func (p *Poller) Run(ctx context.Context) error { return p.scheduler.Run(ctx) }

// Status summarises the queries, for probes and metrics.
func (p *Poller) Status() schedule.Status { return p.scheduler.Status() }

// Subscription keeps one query polled until it is closed.
type Subscription struct {
	poller *Poller
	poll   *poll
	close  sync.Once
}

// Subscribe has e queried soon and then at every interval. Subscriptions to the same expression share
// its queries.
func (p *Poller) Subscribe(e Expression) *Subscription {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.polls[e]
	if known == nil {
		known = &poll{Poller: p, expression: e}
		p.polls[e] = known
		p.scheduler.Add(e.key(), known)
	}
	known.users++
	return &Subscription{poller: p, poll: known}
}

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.close.Do(func() {
		p := s.poller
		p.mu.Lock()
		defer p.mu.Unlock()
		if s.poll.users--; s.poll.users == 0 {
			delete(p.polls, s.poll.expression)
			p.scheduler.Remove(s.poll.expression.key())
			s.poll.end()
		}
	})
}

// Answer returns the last answer if it is at most HeldPolls intervals old at now. The error is an *Error.
func (s *Subscription) Answer(now time.Time) (*Answer, error) {
	answer, err := s.poll.last()
	hold := HeldPolls * s.poller.config.Interval
	switch {
	case answer != nil && now.Sub(answer.Received) <= hold:
		return answer, nil
	case err == nil && answer == nil:
		return nil, newError(NotAsked, "retry in a moment", "backend %q has not answered this query yet",
			s.poller.config.Name)
	}
	reason, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return nil, newError(Expired, "see the log of the custom metrics server", "backend %q has not been queried for more "+
			"than %v", s.poller.config.Name, hold)
	case !ok:
		reason = newError(Unreachable, "", "a query of backend %q failed", s.poller.config.Name).because(err)
	}
	if answer == nil {
		return nil, reason
	}
	return nil, newError(Expired, reason.remedy, "the last good answer of backend %q is more than %v old; the last query "+
		"failed: %s", s.poller.config.Name, hold, reason.text).because(reason)
}

func (p *poll) last() (*Answer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answer, p.err
}

// Scrape implements schedule.Target.
func (p *poll) Scrape(ctx context.Context) schedule.Result {
	answer, err := p.config.Backend.Query(ctx, p.expression)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		err = p.keepLocked(answer)
	}
	p.err = err
	return schedule.Result{Err: err, Settled: true}
}

// keepLocked replaces the answer, or returns why there is no memory for the new one.
func (p *poll) keepLocked(a *Answer) error {
	if p.ended {
		return nil
	}
	memory, owner, size := p.config.Memory, p.expression.owner, a.size()
	if more := size - p.size; more <= 0 {
		memory.Give(owner, -more)
	} else if err := memory.Take(owner, more); err != nil {
		return newError(OverShare, "", "%v", err)
	}
	p.answer, p.size = a, size
	return nil
}

// end gives back the memory.
func (p *poll) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config.Memory.Give(p.expression.owner, p.size)
	p.answer, p.size, p.ended = nil, 0, true
}
