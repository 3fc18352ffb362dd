package scrape

import (
	"container/heap"
	"container/list"
	"slices"
	"time"
)

// lane bounds the scrapes in flight of one kind of node. What is due while it is full waits in order of
// its due time. So that nodes that begin to hang cannot hold a full lane, the longest in flight is given up when
// another waits and patience is over: with a patience of a tenth of the time-out a lane of 1024 has room even while all
// of 10,000 nodes begin to hang.
type lane struct {
	size     int
	calendar calendar  // nodes that are not in flight
	flights  list.List // *flight, the longest first
}

func (l *lane) full() bool { return l.flights.Len() >= l.size }

// makeRoom makes sure that another scrape may start, giving up the longest in flight if it has lasted for
// patience. If there is no room yet it returns how long to wait for it, unless a scrape ends earlier.
func (l *lane) makeRoom(now time.Time, patience time.Duration) time.Duration {
	if !l.full() {
		return 0
	}
	oldest := l.flights.Front().Value.(*flight)
	if wait := oldest.started.Add(patience).Sub(now); wait > 0 {
		return wait
	}
	oldest.givenUp = true
	l.remove(oldest)
	oldest.cancel()
	return 0
}

func (l *lane) add(f *flight) { f.element = l.flights.PushBack(f) }

// remove takes f out of the lane, if it is still there.
func (l *lane) remove(f *flight) {
	if f.element != nil {
		l.flights.Remove(f.element)
		f.element = nil
	}
}

// calendar is a heap of nodes, the one that is due first on top.
type calendar []appointment

// appointment has the node's due time beside it: to compare nodes that have not been looked at for long would be to wait for memory.
type appointment struct {
	due  time.Time
	node *node
}

// remove takes n out, if it is there.
func (c *calendar) remove(n *node) {
	if i := slices.IndexFunc(*c, func(a appointment) bool { return a.node == n }); i >= 0 {
		heap.Remove(c, i)
	}
}

func (c calendar) Len() int           { return len(c) }
func (c calendar) Less(i, j int) bool { return c[i].due.Before(c[j].due) }
func (c calendar) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }

// Push is for container/heap.
func (c *calendar) Push(x any) {
	n := x.(*node)
	*c = append(*c, appointment{n.due, n})
}

// Pop is for container/heap.
func (c *calendar) Pop() any {
	old := *c
	last := len(old) - 1
	n := old[last].node
	old[last] = appointment{}
	*c = old[:last]
	return n
}
