// Package revision numbers the changes of what one process serves, so that a client can say up to
// which change it knows everything (see sample.Revision).
//
// A revision is the time of the change in milliseconds, followed by a counter of 6 bits, and by 16 random
// bits that identify the process. It runs ahead of the time only while there are more than 64 changes in a
// millisecond. Revisions of one process always rise, whatever is done to the wall clock; those of the
// other replica can be compared as far as the two clocks agree. All methods of Clock may be called
// concurrently.
package revision

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"metrics-server/pkg/sample"
)

// Clock makes revisions. Make it with NewClock.
type Clock struct {
	origin uint16 // not 0, which is no process's
	start  sample.Revision

	mu     sync.Mutex
	anchor time.Time   // a moment, by the monotonic clock,
	at     sample.Time // and the time that it counts as
	latest sample.Time // the latest moment at which a revision was made
	last   sample.Revision
	lead   sample.Revision // the most that last was ever ahead of latest
}

// NewClock returns a Clock whose first revision is that of now.
func NewClock(now time.Time) *Clock {
	c := &Clock{origin: uint16(1 + rand.Uint32N(math.MaxUint16)), anchor: now, at: sample.TimeOf(now)}
	c.start = sample.NewRevision(c.at, c.origin)
	c.last = c.start
	return c
}

// Next returns the revision of a change at now, which is higher than all before.
func (c *Clock) Next(now time.Time) sample.Revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nextLocked(now)
}

// Publish calls change with the revision that Next would return. Last does not return that revision, nor
// a later one, before change has returned: whoever knows it finds what change made visible. change must
// be fast and must not use c.
func (c *Clock) Publish(now time.Time, change func(sample.Revision)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.nextLocked(now))
}

func (c *Clock) nextLocked(now time.Time) sample.Revision {
	c.latest = max(c.latest, c.timeLocked(now))
	at := sample.NewRevision(c.latest, c.origin)
	c.last = max(at, c.last+sample.RevisionStep)
	c.lead = max(c.lead, c.last-at)
	return c.last
}

// Last returns the last revision that was made. The changes up to it that were made with Publish are
// visible. Those that were made under a lock which was held during Next are visible to whoever takes that
// lock afterwards.
func (c *Clock) Last() sample.Revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Ago returns the revision of what time alone changed before now by d, without making one. It is higher
// than all that Last returned until then.
func (c *Clock) Ago(now time.Time, d time.Duration) sample.Revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return sample.NewRevision(c.timeLocked(now).Add(-d), c.origin) + c.lead + sample.RevisionStep
}

// timeLocked converts t. A wall clock that was set forward is followed at once, so that replicas
// agree; one that was set back is not, and time goes on as if it had not been.
func (c *Clock) timeLocked(t time.Time) sample.Time {
	at := c.at.Add(t.Sub(c.anchor))
	if wall := sample.TimeOf(t); wall > at {
		c.anchor, c.at = t, wall
		return wall
	}
	return at
}

// Own reports whether r is a revision that this process has made, or that of its start.
func (c *Clock) Own(r sample.Revision) bool {
	return r.Origin() == c.origin && c.start <= r && r <= c.Last()
}

// Start returns the revision of the process's start.
func (c *Clock) Start() sample.Revision { return c.start }
