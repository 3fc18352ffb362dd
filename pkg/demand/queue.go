package demand

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/fairshare"
)

// fairQueue is a queue of targets for a number of workers. Namespaces take turns, and within each
// of them resources do. The targets of one namespace, and those of one resource, may occupy half of
// the workers that are free. So neither a namespace with many targets nor a resource whose scale
// hangs delays others.
//
// A target is queued once, and one that is added while a worker has it is queued when that worker
// is done.
type fairQueue struct {
	namespaces, resources *fairshare.Pool // of workers

	mu      sync.Mutex // guards the fields that follow
	changed *sync.Cond // there may be a target for a worker
	lines   turns[turns[[]target]]
	waiting map[target]bool
	taken   map[target]bool // by workers
	closed  bool
}

func newFairQueue(workers int64) *fairQueue {
	q := &fairQueue{
		namespaces: fairshare.New(1, fairshare.Fixed(workers)), resources: fairshare.New(1, fairshare.Fixed(workers)),
		waiting: map[target]bool{}, taken: map[target]bool{},
	}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// resourceOf returns the group and kind of t, without the version.
func resourceOf(t target) string {
	return schema.FromAPIVersionAndKind(t.APIVersion, t.Kind).GroupKind().String()
}

func (q *fairQueue) add(t target) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting[t] {
		return
	}
	q.waiting[t] = true
	if !q.taken[t] {
		q.enqueueLocked(t)
	}
}

func (q *fairQueue) enqueueLocked(t target) {
	targets := q.lines.line(t.namespace).line(resourceOf(t))
	*targets = append(*targets, t)
	q.changed.Signal()
}

// get waits for a target that a worker may take, which must call done then. It returns false after
// close.
func (q *fairQueue) get() (target, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed {
		if t, ok := q.takeLocked(); ok {
			delete(q.waiting, t)
			q.taken[t] = true
			return t, true
		}
		q.changed.Wait()
	}
	return target{}, false
}

// takeLocked takes the next target whose namespace and resource may have another worker. Few of
// those that it tries may not: only those that have a worker already.
func (q *fairQueue) takeLocked() (t target, ok bool) {
	ok = q.lines.next(func(namespace string, resources *turns[[]target]) (taken, empty bool) {
		if !q.namespaces.Take(namespace, 1) {
			return false, false
		}
		taken = resources.next(func(resource string, targets *[]target) (taken, empty bool) {
			if !q.resources.Take(resource, 1) {
				return false, false
			}
			t, *targets = (*targets)[0], (*targets)[1:]
			return true, len(*targets) == 0
		})
		if !taken {
			q.namespaces.Give(namespace, 1)
		}
		return taken, len(resources.order) == 0
	})
	return t, ok
}

// done gives back the worker that has t.
func (q *fairQueue) done(t target) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.namespaces.Give(t.namespace, 1)
	q.resources.Give(resourceOf(t), 1)
	delete(q.taken, t)
	if q.waiting[t] {
		q.enqueueLocked(t)
	}
	q.changed.Broadcast() // shares have grown
}

// close ends all calls of get.
func (q *fairQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// turns are lines that take turns. The zero value has none.
type turns[Line any] struct {
	lines map[string]*Line
	order []string // the names of lines, the next first
}

// line returns a line, which is the last one if it is new.
func (t *turns[Line]) line(name string) *Line {
	l := t.lines[name]
	if l == nil {
		if t.lines == nil {
			t.lines = map[string]*Line{}
		}
		l = new(Line)
		t.lines[name] = l
		t.order = append(t.order, name)
	}
	return l
}

// next calls take for each line until one has taken something. That line then becomes the last one,
// or is removed if it is empty. The lines before it keep their turn.
func (t *turns[Line]) next(take func(name string, l *Line) (taken, empty bool)) bool {
	for i, name := range t.order {
		taken, empty := take(name, t.lines[name])
		if !taken {
			continue
		}
		copy(t.order[1:], t.order[:i])
		t.order = t.order[1:]
		if empty {
			delete(t.lines, name)
		} else {
			t.order = append(t.order, name)
		}
		return true
	}
	return false
}
