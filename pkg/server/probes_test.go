package server

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"metrics-server/pkg/schedule"
)

type (
	scraping    = schedule.Status
	scrapeCause = schedule.Cause
)

func TestReadiness(t *testing.T) {
	refused := scrapeCause{Cause: "connection refused", Targets: 2, Message: `kubelet of node "b": dial tcp`}
	for name, tc := range map[string]struct {
		synced   error
		unsynced time.Duration // for how long after the start nodes are unknown
		selector string
		status   schedule.Status
		serves   bool
		reached  bool          // was ready before
		age      time.Duration // since nodes are known
		want     []string      // in the reason; nil: ready
	}{
		"nodes unknown": {
			synced: errors.New("no list of nodes yet"),
			want:   []string{"no list of nodes yet"},
		},
		"no nodes": {},
		"no nodes that are selected": {
			selector: "pool=web", age: time.Hour,
			want: []string{"no node matches --node-selector=pool=web: ", "kubectl get nodes --show-labels"},
		},
		"once ready, no nodes that are selected": {selector: "pool=web", reached: true},
		"not asked yet": {
			status: scraping{Targets: 2, Waiting: 2},
			want:   []string{"0 of 2 nodes answered", "2 not asked yet"},
		},
		"all settled": {status: scraping{Targets: 2, Answered: 2, Settled: 2}, serves: true},
		"one not settled": {
			status: scraping{Targets: 2, Answered: 2, Settled: 1}, serves: true,
			age: startGrace - time.Second, want: []string{"2 of 2 nodes answered, 1 complete"},
		},
		"one not settled, nodes were unknown for long": {
			unsynced: 50 * time.Second, status: scraping{Targets: 2, Answered: 2, Settled: 1}, serves: true,
			age: startGrace - time.Second, want: []string{"2 of 2 nodes answered, 1 complete"},
		},
		"one not settled for long, nodes were unknown for long": {
			unsynced: 50 * time.Second, status: scraping{Targets: 2, Answered: 2, Settled: 1}, serves: true,
			age: startGrace,
		},
		"one whose idle containers were sampled 30 s apart": {
			status: scraping{Targets: 2, Answered: 2, Settled: 1}, serves: true,
			age: 35 * time.Second, want: []string{"2 of 2 nodes answered, 1 complete"},
		},
		"one not settled for long": {
			status: scraping{Targets: 2, Answered: 2, Settled: 1}, serves: true,
			age: startGrace,
		},
		"nothing to serve for long": {
			status: scraping{Targets: 2, Answered: 2}, age: time.Hour,
			want: []string{"answered, 0 complete"},
		},
		"the ones that answer are settled": {status: scraping{
			Targets: 3, Answered: 1, Settled: 1, Failing: 2,
			Causes: []scrapeCause{refused},
		}, serves: true},
		"one failed once": {
			status: scraping{
				Targets: 3, Answered: 1, Settled: 1, Failing: 2, Doubtful: 1,
				Causes: []scrapeCause{refused},
			}, serves: true, age: startGrace - time.Second,
			want: []string{"1 of 3 nodes answered", "1 to be asked again"},
		},
		"one failed once for long": {
			status: scraping{Targets: 2, Answered: 1, Settled: 1, Failing: 1, Doubtful: 1},
			serves: true, age: startGrace,
		},
		"none answers": {
			status: scraping{Targets: 2, Failing: 2, Causes: []scrapeCause{refused}},
			want:   []string{"0 of 2 nodes answered", `failing: connection refused on 2 (kubelet of node "b": dial tcp)`},
		},
		"two causes": {
			status: scraping{Targets: 3, Failing: 3, Causes: []scrapeCause{refused, {Cause: "x509", Targets: 1, Message: "m"}}},
			want:   []string{"; failing: connection refused on 2 (", "; x509 on 1 (m)"},
		},
		"once ready, a node not settled": {
			status: scraping{Targets: 2, Answered: 2, Settled: 1}, serves: true,
			reached: true,
		},
		"once ready, all fail, still fresh": {status: scraping{Targets: 2, Failing: 2}, serves: true, reached: true},
		"once ready, all fail, nothing fresh": {
			status: scraping{Targets: 2, Failing: 2}, reached: true,
			want: []string{"0 of 2 nodes answered"},
		},
		"once ready, settled answers of nodes": {status: scraping{Targets: 2, Answered: 2, Settled: 2}, reached: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				r := &readiness{
					synced: func() error {
						if time.Since(start) < tc.unsynced {
							return errors.New("no list of nodes yet")
						}
						return tc.synced
					},
					status:   func() schedule.Status { return tc.status },
					serves:   func() bool { return tc.serves },
					start:    start,
					selector: tc.selector,
				}
				r.reached.Store(tc.reached)
				for range (tc.unsynced + tc.age) / readyLogPeriod { // as run does
					_ = r.check()
					time.Sleep(readyLogPeriod)
				}
				err := r.check()
				if (err == nil) != (tc.want == nil) {
					t.Fatalf("check: %v, want %q", err, tc.want)
				}
				for _, want := range tc.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("check: %v, want %q in it", err, want)
					}
				}
				if err == nil && !r.reached.Load() {
					t.Error("being ready is not remembered")
				}
			})
		})
	}
}

// TestReadinessIsLogged checks that each change of readiness is logged once, with the cause.
func TestReadinessIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var status atomic.Pointer[schedule.Status]
		var serves atomic.Bool
		status.Store(&scraping{Targets: 1, Waiting: 1})
		r := &readiness{
			synced: func() error { return nil },
			status: func() schedule.Status { return *status.Load() },
			serves: serves.Load,
			start:  time.Now(),
		}
		logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
		ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logger))
		done := make(chan error)
		go func() { done <- r.run(ctx) }()
		said := func() string {
			return logger.GetSink().(ktesting.Underlier).GetBuffer().String()
		}
		check := func(after time.Duration, ready, notReady int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			r, n := strings.Count(said(), "INFO Ready"), strings.Count(said(), "INFO Warning: The server is not ready")
			if r != ready || n != notReady {
				t.Fatalf("%d lines say Ready and %d Not ready, want %d and %d:\n%s", r, n, ready, notReady, said())
			}
		}
		check(29*time.Second, 0, 0) // it takes its time
		check(2*time.Second, 0, 1)
		check(time.Hour, 0, 1)
		status.Store(&scraping{Targets: 1, Answered: 1, Settled: 1})
		serves.Store(true)
		check(2*time.Second, 1, 1)
		check(time.Hour, 1, 1)
		serves.Store(false)
		status.Store(&scraping{Targets: 1, Failing: 1, Causes: []scrapeCause{{Cause: "timeout", Targets: 1}}})
		check(2*time.Second, 1, 2)
		if !strings.Contains(said(), "failing: timeout on 1") {
			t.Errorf("the log does not say why:\n%s", said())
		}
		check(time.Hour, 1, 2)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A server that starts is not ready while its selector matches no node. The first node that does is waited for as at
// any other start, and once the server was ready, it remains so without nodes.
func TestReadinessOfSelectedNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var status schedule.Status
		r := &readiness{
			synced: func() error { return nil },
			status: func() schedule.Status { return status },
			serves: func() bool { return true },
			start:  time.Now(), selector: "pool=web",
		}
		for _, step := range []struct {
			name   string
			status schedule.Status
			lasts  time.Duration
			ready  bool
		}{
			{"no node is selected", schedule.Status{}, time.Hour, false},
			{"one joins", schedule.Status{Targets: 1, Answered: 1}, startGrace - time.Second, false},
			{"it is waited for no longer", schedule.Status{Targets: 1, Answered: 1}, time.Second, true},
			{"it leaves", schedule.Status{}, time.Hour, true},
		} {
			status = step.status
			_ = r.check()
			time.Sleep(step.lasts)
			if err := r.check(); (err == nil) != step.ready {
				t.Errorf("%s: %v, want ready: %v", step.name, err, step.ready)
			}
		}
	})
}

// However often readiness is requested while nothing is served, and by how many clients, all pods
// are read at most once a second.
func TestReadinessIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var walks atomic.Int64
		var serves atomic.Bool
		r := &readiness{
			synced: func() error { return nil },
			status: func() schedule.Status { return scraping{Targets: 1, Failing: 1} },
			serves: func() bool {
				walks.Add(1)
				return serves.Load()
			},
			start: time.Now(),
		}
		_ = r.check()
		time.Sleep(time.Hour)
		walks.Store(0)
		ask := func() (ready int) {
			answers := make(chan error)
			for range 100 {
				go func() { answers <- r.check() }()
			}
			for range 100 {
				if <-answers == nil {
					ready++
				}
			}
			return ready
		}
		for range 50 { // 100 at a time, for 10 s
			if n := ask(); n != 0 {
				t.Errorf("%d of 100 find it ready", n)
			}
			time.Sleep(200 * time.Millisecond)
		}
		if n := walks.Load(); n != 10 {
			t.Errorf("all pods were looked at %d times in 10 s, want 10", n)
		}
		serves.Store(true)
		time.Sleep(readyLogPeriod)
		if n := ask(); n != 100 {
			t.Errorf("%d of 100 find it ready", n)
		}
	})
}
