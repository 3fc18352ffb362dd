package demand

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/workqueue"
)

// First reads and repeated ones have workers and a rate limit of their own, so that no number of
// targets that fail delays a new one. One resource gets half of the workers at most, and most
// targets are Deployments: at 80 ms a request, their 8 first workers still read 100 of them a
// second.
const (
	firstWorkers   = 16
	firstPerSecond = 100 // with a burst of as many: 1,000 targets are read within 10 s of a start
	againWorkers   = 8
	againPerSecond = 50
)

// A target whose last read timed out, because of a conversion webhook that hangs, for example, gets
// less time, but all of it in one of every patientReads, so that a slow answer is seen
// nevertheless.
const (
	scaleTimeout     = 10 * time.Second
	scaleTimeoutSlow = 2 * time.Second
	patientReads     = 4
)

const (
	// scaleRefresh is how long a selector is trusted. Selectors hardly ever change: Deployments,
	// StatefulSets and ReplicaSets do not allow it. But a target can be deleted and created again
	// with another selector, and a custom resource may change its own. On the following signs of
	// that, the scale is read earlier, though not more often than every scaleReread:
	//
	//   - the controller, which reads the scale at each sync, asks for a metric of other pods
	//   - the scale has replicas, but none of its pods exists any more
	//   - the controller asks for a metric of type Object, which does not say of which pods, and the selector
	//     was read scaleConfirm ago
	scaleRefresh = 2 * time.Minute
	scaleConfirm = 30 * time.Second
	scaleReread  = 5 * time.Second

	// A failed request is repeated after scaleRetry, then after twice that, and so on up to scaleRetryMax,
	// or up to noTargetRetryMax if the target does not exist: an HPA may be created before its target. All
	// targets together are retried retriesPerSecond times in the long run, so with more than 150 of them,
	// each waits longer.
	scaleRetry       = time.Second / 2
	scaleRetryMax    = time.Minute
	noTargetRetryMax = 10 * time.Second
	retriesPerSecond = 15
)

// resolver resolves targets when they are first used, and again every scaleRefresh, after failures, and when
// there are signs of a change.
type resolver struct {
	scales   scaleReader
	onChange func(namespace string) // called without locks

	first, again *fairQueue
	later        workqueue.TypedDelayingInterface[target] // what it holds goes to again

	mu       sync.Mutex
	known    map[target]*knownTarget
	retrying int // how many known targets have a delay
}

// knownTarget is a target that is used. resolver.mu guards its fields.
type knownTarget struct {
	found   *resolved     // nil: it is yet to be resolved
	asked   time.Time     // when it was last read, or queued to be read out of turn
	podless bool          // none of its pods exists
	delay   time.Duration // until the last retry; 0 if the last read needs none
	late    int           // how many reads in a row have timed out
}

func newResolver(c Config, onChange func(string)) *resolver {
	return &resolver{
		scales: scaleReader{dynamic: c.Dynamic, mapper: c.Mapper}, onChange: onChange, known: map[target]*knownTarget{},
		first: newFairQueue(firstWorkers), again: newFairQueue(againWorkers),
		later: workqueue.NewTypedDelayingQueue[target](),
	}
}

// get returns what is known of t, nil if nothing is yet, and sees to it that it will be.
func (r *resolver) get(t target) *resolved {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.known[t]
	if known == nil {
		known = &knownTarget{}
		r.known[t] = known
		r.first.add(t)
	}
	return known.found
}

// contradict has t read again because the controller asks for other pods than the known selector
// selects. The controller reads the scale before it asks, so a target that was missing may exist
// now.
func (r *resolver) contradict(t target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.known[t]
	if known != nil && known.found != nil && (known.found.err == nil || known.found.err.cause == NoTarget) {
		r.rereadLocked(t, known, scaleReread)
	}
}

// confirm has t read again if its selector is old, because the controller asks for a metric that depends on it.
func (r *resolver) confirm(t target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.known[t]; known != nil && known.found != nil && known.found.err == nil {
		r.rereadLocked(t, known, scaleConfirm)
	}
}

// setPodless says whether the selector of t selects no pods. The scale is then read again, and as long as it has
// replicas, t is retried as if it were missing.
func (r *resolver) setPodless(t target, podless bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.known[t]
	if known == nil || known.podless == podless {
		return
	}
	if known.podless = podless; podless {
		r.later.AddAfter(t, max(0, scaleReread-time.Since(known.asked)))
	}
}

// rereadLocked has t read out of turn, unless it was read or queued less than age ago.
func (r *resolver) rereadLocked(t target, known *knownTarget, age time.Duration) {
	if time.Since(known.asked) >= age {
		known.asked = time.Now()
		r.again.add(t)
	}
}

// retain forgets targets of a namespace that are not in used.
func (r *resolver) retain(namespace string, used map[target]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for t, known := range r.known {
		if t.namespace == namespace && !used[t] {
			r.setDelayLocked(known, 0)
			delete(r.known, t)
		}
	}
}

// run resolves until ctx ends.
func (r *resolver) run(ctx context.Context) {
	var wg sync.WaitGroup
	work := func(workers, perSecond, burst int, queue *fairQueue, isFirst bool) {
		limit := flowcontrol.NewTokenBucketRateLimiter(float32(perSecond), burst)
		for range workers {
			wg.Go(func() {
				for r.next(ctx, queue, limit, isFirst) {
				}
			})
		}
	}
	work(firstWorkers, firstPerSecond, firstPerSecond, r.first, true)
	work(againWorkers, againPerSecond, 1, r.again, false)
	wg.Go(func() {
		for {
			t, shutdown := r.later.Get()
			if shutdown {
				return
			}
			r.again.add(t)
			r.later.Done(t)
		}
	})
	<-ctx.Done()
	r.first.close()
	r.again.close()
	r.later.ShutDown()
	wg.Wait()
}

// next resolves one target of a queue, and reports whether there may be more.
func (r *resolver) next(ctx context.Context, queue *fairQueue, limit flowcontrol.RateLimiter, isFirst bool) bool {
	t, ok := queue.get()
	if !ok {
		return false
	}
	defer queue.done(t)
	known, timeout := r.begin(t, isFirst)
	if known == nil {
		return true
	}
	if limit.Wait(ctx) != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	found := r.scales.resolve(ctx, t)
	if r.store(t, known, found, found.err != nil && ctx.Err() != nil) {
		r.onChange(t.namespace)
	}
	return true
}

// begin returns t and how long it may take if it is to be resolved, else nil: it may not be used
// any more, or be used again and wait for its first read.
func (r *resolver) begin(t target, isFirst bool) (*knownTarget, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.known[t]
	if known == nil || (known.found == nil) != isFirst {
		return nil, 0
	}
	known.asked = time.Now()
	if known.late%patientReads > 0 {
		return known, scaleTimeoutSlow
	}
	return known, scaleTimeout
}

// store stores what was found, queues the next read, and reports whether that is a change. It drops what it has if
// the target was forgotten since begin, even if it is used again.
func (r *resolver) store(t target, known *knownTarget, found *resolved, late bool) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[t] != known {
		return false
	}
	if known.late++; !late {
		known.late = 0
	}
	old := known.found
	// A known selector is kept while the API server fails or denies the request.
	if old == nil || old.err != nil || found.err == nil ||
		found.err.cause != Failing && found.err.cause != Forbidden {
		known.found = found
		changed = old == nil || !old.err.equal(found.err) || old.resource != found.resource ||
			old.err == nil && t.scale && canonical(old.selector) != canonical(found.selector)
	}
	if changed {
		known.podless = false // until the pods of the new selector are counted
	}
	if found.err == nil && (!known.podless || found.spec == 0) {
		r.setDelayLocked(known, 0)
		r.later.AddAfter(t, scaleRefresh)
		return changed
	}
	longest := scaleRetryMax
	if found.err == nil || found.err.cause == NoTarget {
		longest = noTargetRetryMax
	}
	longest = max(longest, time.Duration(r.retrying)*time.Second/retriesPerSecond)
	r.setDelayLocked(known, min(max(scaleRetry, 2*known.delay), longest))
	r.later.AddAfter(t, known.delay-rand.N(known.delay/5)) // so that those that fail together spread out
	return changed
}

func (r *resolver) setDelayLocked(known *knownTarget, delay time.Duration) {
	if known.delay > 0 {
		r.retrying--
	}
	if known.delay = delay; delay > 0 {
		r.retrying++
	}
}
