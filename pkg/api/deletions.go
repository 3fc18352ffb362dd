package api

import (
	"sync"
	"time"

	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// maxDeletions is how many deletions are remembered. It bounds their memory to some 2 MiB, and lets a
// watch of a cluster in which ten pods end every second be resumed after 6 minutes.
const maxDeletions = 1 << 13

// Deletions remembers the objects of a resource that ceased to exist, or to have a value, so that a
// watch which was interrupted meanwhile learns of it. All methods may be called concurrently. Make it
// with NewDeletions.
type Deletions struct {
	clock *revision.Clock

	mu    sync.Mutex      // the clock is not used while it is held: Record is called within Publish
	since sample.Revision // all later deletions are in log
	log   []deletion      // a ring once it has maxDeletions
	next  int             // the oldest deletion, which is replaced next
}

type deletion struct {
	revision sample.Revision
	object   sample.Object
}

// NewDeletions returns an empty log.
func NewDeletions(c *revision.Clock) *Deletions {
	return &Deletions{clock: c, since: c.Start()}
}

// Add records that an object is gone. The caller may leave out its labels as long as the object exists.
func (d *Deletions) Add(o sample.Object) {
	d.clock.Publish(time.Now(), func(r sample.Revision) { d.Record([]sample.Object{o}, r) })
}

// Record records, within Publish of the Clock, that objects are about to leave with revision r. A watch
// that is resumed then finds each of them either still there or here.
func (d *Deletions) Record(gone []sample.Object, r sample.Revision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range gone {
		one := deletion{r, o}
		if len(d.log) < maxDeletions {
			d.log = append(d.log, one)
			continue
		}
		d.since = d.log[d.next].revision
		d.log[d.next] = one
		d.next = (d.next + 1) % maxDeletions
	}
}

// after returns the objects that were deleted after r, and whether the log reaches back so far.
func (d *Deletions) after(r sample.Revision) (objects []sample.Object, complete bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.log {
		if one := &d.log[(d.next+i)%len(d.log)]; one.revision > r {
			objects = append(objects, one.object)
		}
	}
	return objects, r >= d.since
}
