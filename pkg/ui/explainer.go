package ui

import (
	"context"
	"sync"
	"time"
)

const (
	// explainInterval is the minimum time between two explanations of an object. An object that nobody asks for during
	// this time is forgotten.
	explainInterval = 15 * time.Second
	explainTimeout  = time.Minute
	maxExplained    = 2 // at once: for an autoscaler, pages of pods are read through the API server
)

// explainer explains objects while somebody asks for them. It is safe for concurrent use.
type explainer[T any] struct {
	explain func(context.Context, Object) (T, error)
	slots   chan struct{}

	mu      sync.Mutex // guards the fields that follow
	ctx     context.Context
	entries map[Object]*entry[T]
	version uint64
	running sync.WaitGroup
}

// entry is an object that somebody asks for.
type entry[T any] struct {
	explanation[T]
	started time.Time
	running bool
	cancel  context.CancelFunc
	idle    *time.Timer // ends the entry
}

// explanation is the latest result for an object. version is 0 iff there is none, and changes with each result.
type explanation[T any] struct {
	result  T
	err     error
	version uint64
}

func newExplainer[T any](explain func(context.Context, Object) (T, error)) *explainer[T] {
	return &explainer[T]{explain: explain, slots: make(chan struct{}, maxExplained), entries: map[Object]*entry[T]{}}
}

// run lets get start explanations until ctx ends, and then waits for the last ones.
func (e *explainer[T]) run(ctx context.Context) {
	e.mu.Lock()
	e.ctx = ctx
	e.mu.Unlock()
	<-ctx.Done()
	e.mu.Lock()
	for _, one := range e.entries {
		one.idle.Stop()
	}
	e.mu.Unlock()
	e.running.Wait()
}

// get returns the latest explanation of an object, and starts another if that is old.
func (e *explainer[T]) get(of Object) explanation[T] {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx == nil || e.ctx.Err() != nil {
		return explanation[T]{}
	}
	one := e.entries[of]
	if one == nil {
		one = &entry[T]{cancel: func() {}}
		one.idle = time.AfterFunc(explainInterval, func() { e.forget(of, one) })
		e.entries[of] = one
	}
	one.idle.Reset(explainInterval)
	if !one.running && time.Since(one.started) >= explainInterval {
		e.startLocked(of, one)
	}
	return one.explanation
}

func (e *explainer[T]) forget(of Object, one *entry[T]) {
	e.mu.Lock()
	defer e.mu.Unlock()
	one.cancel()
	if e.entries[of] == one {
		delete(e.entries, of)
	}
}

func (e *explainer[T]) startLocked(of Object, one *entry[T]) {
	ctx, cancel := context.WithCancel(e.ctx)
	one.started, one.running, one.cancel = time.Now(), true, cancel
	e.running.Go(func() {
		defer cancel()
		result, err := e.once(ctx, of)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.version++
		one.explanation, one.running = explanation[T]{result, err, e.version}, false
	})
}

// once waits for a slot, and explains an object.
func (e *explainer[T]) once(ctx context.Context, of Object) (result T, err error) {
	select {
	case <-ctx.Done():
		return result, ctx.Err()
	case e.slots <- struct{}{}:
	}
	defer func() { <-e.slots }()
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	return e.explain(ctx, of)
}
