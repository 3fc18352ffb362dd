package ui

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sharedtest"
)

// fakeExplainer counts what is explained.
type fakeExplainer struct {
	*explainer[string]
	takes time.Duration
	begin time.Time

	counts sync.Mutex // guards the fields that follow
	starts []time.Duration
	most   int // at once
	now    int
	ended  []error
}

func (f *fakeExplainer) count(change func()) {
	f.counts.Lock()
	defer f.counts.Unlock()
	change()
}

func startExplainer(t *testing.T, takes time.Duration) (f *fakeExplainer, stop func()) {
	f = &fakeExplainer{takes: takes, begin: time.Now()}
	f.explainer = newExplainer(func(ctx context.Context, of Object) (string, error) {
		f.count(func() {
			f.now++
			f.most = max(f.most, f.now)
			f.starts = append(f.starts, time.Since(f.begin))
		})
		defer f.count(func() { f.now-- })
		select {
		case <-ctx.Done():
			f.count(func() { f.ended = append(f.ended, ctx.Err()) })
			return "", ctx.Err()
		case <-time.After(f.takes):
			return of.Name + " is fine", nil
		}
	})
	stop = sharedtest.Start(t, t.Context(), func(ctx context.Context) error { f.run(ctx); return nil })
	synctest.Wait()
	return f, stop
}

// An object is explained every 15 seconds while somebody asks for it.
func TestExplainedWhileAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := startExplainer(t, time.Second)
		defer stop()
		of := hpaObject("team", "web")
		if got := f.get(of); got.version != 0 || got.err != nil {
			t.Errorf("at first: %+v", got)
		}
		var versions []uint64
		for range 40 {
			time.Sleep(time.Second)
			synctest.Wait()
			got := f.get(of)
			if got.result != "web is fine" {
				t.Fatalf("later: %+v", got)
			}
			if n := len(versions); n == 0 || versions[n-1] != got.version {
				versions = append(versions, got.version)
			}
		}
		time.Sleep(time.Minute) // nobody asks
		f.get(of)
		synctest.Wait()
		want := []time.Duration{0, 15 * time.Second, 30 * time.Second, 100 * time.Second}
		if diff := cmp.Diff(want, f.starts); diff != "" {
			t.Errorf("starts, -want +got:\n%s", diff)
		}
		if diff := cmp.Diff([]uint64{1, 2, 3}, versions); diff != "" {
			t.Errorf("versions, -want +got:\n%s", diff)
		}
	})
}

// What nobody waits for any more is not explained, whether it has begun or waits for its turn.
func TestExplanationIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := startExplainer(t, 50*time.Second)
		defer stop()
		for _, name := range []string{"a", "b", "c", "d"} {
			f.get(hpaObject("team", name))
			synctest.Wait() // they begin in this order
		}
		ask := func(seconds int, names ...string) {
			for range seconds {
				time.Sleep(time.Second)
				synctest.Wait()
				for _, name := range names {
					f.get(hpaObject("team", name))
				}
			}
		}
		kept := func() int {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.entries)
		}
		ask(20, "a", "b")
		if len(f.starts) != 2 || f.most != 2 || len(f.ended) != 0 || kept() != 2 {
			t.Errorf("%d of 4 began, %d at once, %v were cancelled, %d are kept", len(f.starts), f.most, f.ended, kept())
		}
		ask(20, "b")
		if len(f.starts) != 2 || len(f.ended) != 1 || !errors.Is(f.ended[0], context.Canceled) || kept() != 1 {
			t.Errorf("%d began, %v were cancelled, %d are kept", len(f.starts), f.ended, kept())
		}
		ask(11, "b")
		if got := f.get(hpaObject("team", "b")); got.result != "b is fine" {
			t.Errorf("the one that is asked for: %+v", got)
		}
	})
}

// Run ends what is being explained, and nothing begins afterwards.
func TestExplainerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := startExplainer(t, time.Minute)
		f.get(hpaObject("team", "a"))
		synctest.Wait()
		stop()
		if len(f.ended) != 1 {
			t.Errorf("%d were cancelled", len(f.ended))
		}
		f.get(hpaObject("team", "b"))
		synctest.Wait()
		if len(f.starts) != 1 {
			t.Errorf("%d began", len(f.starts))
		}
		time.Sleep(time.Minute) // nothing is left that could wake up
	})
}
