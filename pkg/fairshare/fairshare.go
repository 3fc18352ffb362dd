// Package fairshare divides a limit among owners, so that none of them can take everything.
//
// An owner may take more only as long as that leaves it with at most a multiple (part) of what was
// free before. With a part of 3, the first owner gets three quarters of the limit at most, and an
// owner that comes later three quarters of the rest. Nobody loses what it has. With Remember, an owner
// may also replace what it has when others have grown since.
//
// Turns lets tasks wait for their share.
//
// A Pool and Turns may be used by any number of goroutines.
package fairshare

import (
	"maps"
	"sync"
	"time"
)

// Pool is what is divided. Make it with New.
type Pool struct {
	part     int64
	limit    func() int64
	remember time.Duration

	mu    sync.Mutex // guards the fields that follow
	taken int64
	by    map[string]int64 // by owner; no value is 0
	// given is what owners gave back and may take again. An owner never has more with it than it had before.
	given  map[string]given
	purged time.Time // when given was last purged
}

// given is what an owner gave back in the period of Pool.remember that began at since, and in the previous one.
type given struct {
	current, previous int64
	since             time.Time
}

// New returns a Pool of limit, which is asked each time because it may change.
func New(part int64, limit func() int64) *Pool {
	return &Pool{part: part, limit: limit, by: map[string]int64{}}
}

// Fixed returns a limit that does not change.
func Fixed(limit int64) func() int64 { return func() int64 { return limit } }

// Remember lets each owner take again what it gave back, if that is free, for at least d and at most twice that. Call
// it before p is used.
func (p *Pool) Remember(d time.Duration) *Pool {
	p.remember, p.given = d, map[string]given{}
	return p
}

// Take takes n for owner, and reports whether it may have that much.
func (p *Pool) Take(owner string, n int64) bool { return p.take(owner, n, -1) }

// TakeOrAlone is Take for one of several users of an owner's share, such as a request, which has
// taken mine so far. As long as nothing else is taken, not even by the same owner, it gets whatever
// it needs.
func (p *Pool) TakeOrAlone(owner string, n, mine int64) bool { return p.take(owner, n, mine) }

func (p *Pool) take(owner string, n, mine int64) bool {
	limit := p.limit()
	p.mu.Lock()
	defer p.mu.Unlock()
	free := limit - p.taken
	g := p.givenLocked(owner, time.Now())
	again := p.remember > 0 && n <= g.current+g.previous
	if p.taken != mine && (n > free || p.by[owner]+n > p.part*free && !again) {
		return false
	}
	p.addLocked(owner, n)
	// current comes first, so that giving and taking a little all the time does not renew what was given before.
	ofCurrent := min(n, g.current)
	g.current -= ofCurrent
	if g.previous = max(0, g.previous-(n-ofCurrent)); g.current+g.previous > 0 {
		p.given[owner] = g
	} else {
		delete(p.given, owner)
	}
	return true
}

// Give gives back n of what owner has taken.
func (p *Pool) Give(owner string, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addLocked(owner, -n)
	if p.remember == 0 || n <= 0 {
		return
	}
	now := time.Now()
	if now.Sub(p.purged) > p.remember {
		maps.DeleteFunc(p.given, func(_ string, g given) bool { return now.Sub(g.since) > 2*p.remember })
		p.purged = now
	}
	g := p.givenLocked(owner, now)
	g.current += n
	p.given[owner] = g
}

// givenLocked returns what owner may take again at now.
func (p *Pool) givenLocked(owner string, now time.Time) given {
	g := p.given[owner]
	switch age := now.Sub(g.since); {
	case age < p.remember:
		return g
	case age < 2*p.remember:
		return given{previous: g.current, since: g.since.Add(p.remember)}
	}
	return given{since: now}
}

func (p *Pool) addLocked(owner string, n int64) {
	p.taken += n
	if p.by[owner] += n; p.by[owner] == 0 {
		delete(p.by, owner)
	}
}

func (p *Pool) takenBy(owner string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.by[owner]
}

// Taken returns how much all owners have, and the limit.
func (p *Pool) Taken() (taken, limit int64) {
	limit = p.limit()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken, limit
}
