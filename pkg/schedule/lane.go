package schedule

import (
	"cmp"
	"container/heap"
	"container/list"
	"maps"
	"slices"
	"time"
)

// lane limits the scrapes in flight of one kind of target. While it is full, targets that are due wait. A place that
// becomes free goes to the owner that has the fewest, and there to the target that has been due longest.
//
// So that targets which hang or are slow cannot block a full lane, the oldest scrape is given up if another one of the
// same owner waits and the oldest has lasted longer than the owner's patience. If the one that waits belongs to an
// owner with less than half as many places as another, that other owner gives up its oldest one, after a tenth
// of the time-out at the latest. With such a patience, a lane of 1024 has room even while all of 10,000 targets begin
// to hang.
type lane struct {
	kind     kind
	size     int
	timeout  time.Duration     // of a scrape
	owners   map[string]*owner // all of them
	calendar calendar          // entries that were not due at the last check
	waiting  int               // entries in lines
	inFlight int               // flights in lines
}

type kind int

const (
	healthy kind = iota // the last scrape succeeded, or there was none yet
	failing             // the last scrape failed
	kinds
)

// owner is an owner of targets, such as a namespace.
type owner struct {
	name    string
	targets int
	typical time.Duration // moving average of the duration of successful scrapes; zero before the first one
	lines   [kinds]line   // by the kind of the lane
}

// line is the part of an owner in a lane.
type line struct {
	waiting []*entry  // entries that are due, in the order of their due times
	flights list.List // *flight, the oldest first
}

// answered records how long a successful scrape took.
func (o *owner) answered(after time.Duration) {
	if o.typical == 0 {
		o.typical = after
		return
	}
	o.typical += (after - o.typical) / 16
}

func (l *lane) full() bool { return l.inFlight >= l.size }

// next takes the next entry whose scrape may start at now out of l. If there is none, it returns when there may be one
// even if no scrape ends and nothing is added: zero for never.
func (l *lane) next(now time.Time) (e *entry, until time.Time) {
	for len(l.calendar) > 0 {
		if until = l.calendar[0].due; until.After(now) {
			break
		}
		until = time.Time{}
		e := heap.Pop(&l.calendar).(*entry)
		if l.waiting == 0 && !l.full() {
			return e, until
		}
		line := &e.owner.lines[l.kind]
		line.waiting = append(line.waiting, e)
		l.waiting++
	}
	if l.waiting == 0 {
		return nil, until
	}
	if l.full() {
		room := l.makeRoom(now)
		if room.After(now) {
			if until.IsZero() || room.Before(until) {
				until = room
			}
			return nil, until
		}
	}
	return l.take(l.first()), time.Time{}
}

// take takes the first waiting entry out of the line of o.
func (l *lane) take(o *owner) *entry {
	line := &o.lines[l.kind]
	e := line.waiting[0]
	line.waiting[0] = nil
	line.waiting = line.waiting[1:]
	l.waiting--
	return e
}

// first returns the owner with the fewest places among those with waiting entries. If there are
// several, it returns the one whose entry has been due longest.
func (l *lane) first() *owner {
	var first *owner
	for _, o := range l.owners {
		if len(o.lines[l.kind].waiting) > 0 && (first == nil || l.before(o, first)) {
			first = o
		}
	}
	return first
}

func (l *lane) before(a, b *owner) bool {
	x, y := &a.lines[l.kind], &b.lines[l.kind]
	return cmp.Or(cmp.Compare(x.flights.Len(), y.flights.Len()), x.waiting[0].due.Compare(y.waiting[0].due),
		cmp.Compare(a.name, b.name)) < 0
}

// makeRoom gives up a scrape so that another one may start. If none has lasted long enough at now, it returns when
// one will have.
func (l *lane) makeRoom(now time.Time) (until time.Time) {
	from, patience := l.first(), l.timeout/10
	most := slices.MaxFunc(slices.Collect(maps.Values(l.owners)), func(a, b *owner) int {
		x, y := &a.lines[l.kind], &b.lines[l.kind]
		return cmp.Or(cmp.Compare(x.flights.Len(), y.flights.Len()), cmp.Compare(a.name, b.name))
	})
	if 2*from.lines[l.kind].flights.Len() < most.lines[l.kind].flights.Len() {
		from = most
	} else {
		patience = from.patience(l.timeout)
	}
	oldest := from.lines[l.kind].flights.Front().Value.(*flight)
	if until = oldest.started.Add(patience); until.After(now) {
		return until
	}
	oldest.givenUp = true
	l.remove(oldest)
	oldest.cancel()
	return until
}

// patience returns how long a scrape may take while others of its owner wait for its place. It grows with the
// typical duration: when this process is short of CPU every scrape is slow, and giving some up would
// only add work.
func (o *owner) patience(timeout time.Duration) time.Duration {
	return min(max(timeout/10, 4*o.typical), timeout/2)
}

func (l *lane) add(f *flight) {
	f.element = f.owner.lines[l.kind].flights.PushBack(f)
	l.inFlight++
}

// remove takes f out of the lane, if it is still there.
func (l *lane) remove(f *flight) {
	if f.element != nil {
		f.owner.lines[l.kind].flights.Remove(f.element)
		f.element = nil
		l.inFlight--
	}
}

// drop removes e, which is not in flight, from the lane.
func (l *lane) drop(e *entry) {
	if l.calendar.remove(e) {
		return
	}
	line := &e.owner.lines[l.kind]
	i := slices.Index(line.waiting, e)
	line.waiting = slices.Delete(line.waiting, i, i+1)
	l.waiting--
}

// calendar is a heap of entries, with the one that is due first at the top.
type calendar []appointment

// appointment stores the due time inline, so that heap comparisons do not touch cold entries.
type appointment struct {
	due   time.Time
	entry *entry
}

func (c *calendar) remove(e *entry) bool {
	i := slices.IndexFunc(*c, func(a appointment) bool { return a.entry == e })
	if i >= 0 {
		heap.Remove(c, i)
	}
	return i >= 0
}

func (c calendar) Len() int           { return len(c) }
func (c calendar) Less(i, j int) bool { return c[i].due.Before(c[j].due) }
func (c calendar) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }

// Push implements heap.Interface.
func (c *calendar) Push(x any) {
	e := x.(*entry)
	*c = append(*c, appointment{e.due, e})
}

// Pop implements heap.Interface.
func (c *calendar) Pop() any {
	old := *c
	last := len(old) - 1
	e := old[last].entry
	old[last] = appointment{}
	*c = old[:last]
	return e
}
