package fairshare

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

// Turns limits how many tasks of all owners run at once, and divides these turns among the owners as a Pool does.
// Tasks that get no turn wait. A turn that becomes free goes to the owner that has the fewest, so many owners with
// many waiting tasks delay no other. Tasks of one owner, and owners with equally many turns, take turns in the order in
// which they came.
type Turns struct {
	pool *Pool

	mu      sync.Mutex           // guards the fields that follow
	waiting map[string][]*waiter // by owner, in the order in which they came; no list is empty
	came    uint64               // how many have waited
}

// waiter is a task that waits for its turn.
type waiter struct {
	owner  string
	number uint64        // in the order in which they came
	ready  chan struct{} // closed when it has its turn
}

// NewTurns returns count turns, divided with a part as New describes it.
func NewTurns(part, count int64) *Turns {
	return &Turns{pool: New(part, Fixed(count)), waiting: map[string][]*waiter{}}
}

// Take waits for a turn of owner. The error is that of ctx.
func (t *Turns) Take(ctx context.Context, owner string) error {
	t.mu.Lock()
	if t.waiting[owner] == nil && t.pool.Take(owner, 1) {
		t.mu.Unlock()
		return nil
	}
	t.came++
	w := &waiter{owner: owner, number: t.came, ready: make(chan struct{})}
	t.waiting[owner] = append(t.waiting[owner], w)
	t.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.dropLocked(w) {
		return nil // it got its turn just before
	}
	return ctx.Err()
}

// Give gives back a turn of owner, and gives turns to those who wait.
func (t *Turns) Give(owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pool.Give(owner, 1)
	for w := t.firstLocked(); w != nil && t.pool.Take(w.owner, 1); w = t.firstLocked() {
		t.dropLocked(w)
		close(w.ready)
	}
}

// firstLocked returns who is next, nil if nobody waits. If that one gets no turn, no other does.
func (t *Turns) firstLocked() (first *waiter) {
	least := int64(0)
	for owner, waiting := range t.waiting {
		w, has := waiting[0], t.pool.takenBy(owner)
		if first == nil || cmp.Or(cmp.Compare(has, least), cmp.Compare(w.number, first.number)) < 0 {
			first, least = w, has
		}
	}
	return first
}

// dropLocked lets w wait no longer, and reports whether it still waited.
func (t *Turns) dropLocked(w *waiter) bool {
	all := t.waiting[w.owner]
	i := slices.Index(all, w)
	switch {
	case i < 0:
		return false
	case len(all) == 1:
		delete(t.waiting, w.owner)
	default:
		t.waiting[w.owner] = slices.Delete(all, i, i+1)
	}
	return true
}
