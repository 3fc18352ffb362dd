package customserver

import (
	"context"
	"sync"
)

// turns lets one task per namespace run at a time, so that the long tasks of a namespace occupy no more than one CPU.
// The zero value is ready for use.
type turns struct {
	mu sync.Mutex       // guards the field that follows
	of map[string]*turn // by namespace
}

type turn struct {
	free  chan struct{} // has an element while nobody has the turn
	users int
}

// take waits for the turn of a namespace, and returns the function that ends it.
func (t *turns) take(ctx context.Context, namespace string) (end func(), err error) {
	t.mu.Lock()
	if t.of == nil {
		t.of = map[string]*turn{}
	}
	own := t.of[namespace]
	if own == nil {
		own = &turn{free: make(chan struct{}, 1)}
		own.free <- struct{}{}
		t.of[namespace] = own
	}
	own.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(t.of, namespace)
		}
	}
	select {
	case <-own.free:
		return func() {
			own.free <- struct{}{}
			leave()
		}, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
