package fairshare

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurns checks that however many tasks of one owner there are, and however slow they are, those of others do not
// wait.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(1, 8)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var got atomic.Int64
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if turns.Take(ctx, "slow") == nil {
					got.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := got.Load(); n != 4 {
			t.Errorf("one owner has %d of 8 turns, want half of them", n)
		}
		for _, owner := range []string{"a", "a", "b", "c"} {
			began := time.Now()
			if err := turns.Take(ctx, owner); err != nil || time.Since(began) > 0 {
				t.Errorf("owner %s waits for a turn", owner)
			}
		}
		waiting := make(chan error)
		go func() { waiting <- turns.Take(t.Context(), "late") }()
		synctest.Wait()
		turns.Give("slow") // which then has three, and more would be more than are left
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		wg.Wait()
		if n, waiting := got.Load(), len(turns.waiting); n != 4 || waiting != 0 {
			t.Errorf("%d turns for the one that waited longest, and %d wait after their time-out", n, waiting)
		}
		for range 3 {
			turns.Give("slow")
		}
		for _, owner := range []string{"a", "a", "b", "c", "late"} {
			turns.Give(owner)
		}
		if taken, _ := turns.pool.Taken(); taken != 0 {
			t.Errorf("%d turns are lost", taken)
		}
	})
}

// TestTurnsOfMany checks that the first task of an owner does not wait for those that other owners queued before.
func TestTurnsOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(3, 8)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, owner := range []string{"a", "b", "c", "d"} {
			for range 50 {
				wg.Go(func() {
					if turns.Take(ctx, owner) == nil {
						time.Sleep(time.Second)
						turns.Give(owner)
					}
				})
			}
		}
		time.Sleep(time.Second / 2)
		began := time.Now()
		if err := turns.Take(t.Context(), "late"); err != nil || time.Since(began) > time.Second {
			t.Errorf("%v after %v, want a turn as soon as one is free", err, time.Since(began))
		}
		turns.Give("late")
		cancel()
		wg.Wait()
		if taken, _ := turns.pool.Taken(); taken != 0 || len(turns.waiting) != 0 {
			t.Errorf("%d turns are lost, %d owners wait", taken, len(turns.waiting))
		}
	})
}
