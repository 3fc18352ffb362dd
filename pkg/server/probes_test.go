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

	"metrics-server/pkg/scrape"
)

func TestFirstScrapes(t *testing.T) {
	for name, tc := range map[string]struct {
		known, asked, ends time.Duration // when the nodes are known, were asked once, and the server ends; 0: never
		want               time.Duration
	}{
		"all asked":       {known: time.Second, asked: 2 * time.Second, want: 2 * time.Second},
		"asked before":    {known: time.Second, asked: 1, want: time.Second},
		"nodes unknown":   {asked: 1, want: podsPatience},
		"one never ends":  {known: time.Second, want: podsPatience},
		"the server does": {ends: 3 * time.Second, want: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				past := func(d time.Duration) bool { return d != 0 && time.Since(start) >= d }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.ends != 0 {
					time.AfterFunc(tc.ends, cancel)
				}
				firstScrapes(ctx, func() error {
					if !past(tc.known) {
						return errors.New("no list of nodes yet")
					}
					return nil
				}, func() scrape.Status {
					st := scrape.Status{Nodes: 2, Answered: 1, Waiting: 1}
					if past(tc.asked) {
						st = scrape.Status{Nodes: 2, Answered: 2}
					}
					return st
				})
				if took := time.Since(start); took != tc.want {
					t.Errorf("returned after %v, want %v", took, tc.want)
				}
			})
		})
	}
}

func TestReadiness(t *testing.T) {
	refused := scrape.Cause{Cause: "connection refused", Nodes: 2, Message: `kubelet of node "b": dial tcp`}
	for name, tc := range map[string]struct {
		synced  error
		status  scrape.Status
		serves  bool
		reached bool          // was ready before
		age     time.Duration // since the start
		want    []string      // in the reason; nil: ready
	}{
		"nodes unknown":                    {synced: errors.New("no list of nodes yet"), want: []string{"no list of nodes yet"}},
		"no nodes":                         {},
		"not asked yet":                    {status: scrape.Status{Nodes: 2, Waiting: 2}, want: []string{"0 of 2 nodes answered", "2 not asked yet"}},
		"all settled":                      {status: scrape.Status{Nodes: 2, Answered: 2, Settled: 2}, serves: true},
		"one not settled":                  {status: scrape.Status{Nodes: 2, Answered: 2, Settled: 1}, serves: true, age: 29 * time.Second, want: []string{"2 of 2 nodes answered, 1 of them with every usage"}},
		"one not settled for long":         {status: scrape.Status{Nodes: 2, Answered: 2, Settled: 1}, serves: true, age: 30 * time.Second},
		"nothing to serve for long":        {status: scrape.Status{Nodes: 2, Answered: 2}, age: time.Hour, want: []string{"0 of them with every usage"}},
		"the ones that answer are settled": {status: scrape.Status{Nodes: 3, Answered: 1, Settled: 1, Failing: 2, Causes: []scrape.Cause{refused}}, serves: true},
		"one failed once": {
			status: scrape.Status{Nodes: 3, Answered: 1, Settled: 1, Failing: 2, Doubtful: 1, Causes: []scrape.Cause{refused}}, serves: true, age: 29 * time.Second,
			want: []string{"1 of 3 nodes answered", "1 to be asked again"},
		},
		"one failed once for long": {status: scrape.Status{Nodes: 2, Answered: 1, Settled: 1, Failing: 1, Doubtful: 1}, serves: true, age: 30 * time.Second},
		"none answers": {
			status: scrape.Status{Nodes: 2, Failing: 2, Causes: []scrape.Cause{refused}},
			want:   []string{"0 of 2 nodes answered", `failing: connection refused on 2 (kubelet of node "b": dial tcp)`},
		},
		"two causes": {
			status: scrape.Status{Nodes: 3, Failing: 3, Causes: []scrape.Cause{refused, {Cause: "x509", Nodes: 1, Message: "m"}}},
			want:   []string{"; failing: connection refused on 2 (", "; x509 on 1 (m)"},
		},
		"once ready, a node not settled":       {status: scrape.Status{Nodes: 2, Answered: 2, Settled: 1}, serves: true, reached: true},
		"once ready, all fail, still fresh":    {status: scrape.Status{Nodes: 2, Failing: 2}, serves: true, reached: true},
		"once ready, all fail, nothing fresh":  {status: scrape.Status{Nodes: 2, Failing: 2}, reached: true, want: []string{"0 of 2 nodes answered"}},
		"once ready, settled answers of nodes": {status: scrape.Status{Nodes: 2, Answered: 2, Settled: 2}, reached: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &readiness{
					synced: func() error { return tc.synced },
					status: func() scrape.Status { return tc.status },
					serves: func() bool { return tc.serves },
					start:  time.Now(),
				}
				r.reached.Store(tc.reached)
				time.Sleep(tc.age)
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

// The log says once when readiness comes, goes, or does not come at all, and why.
func TestReadinessIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var status atomic.Pointer[scrape.Status]
		var serves atomic.Bool
		status.Store(&scrape.Status{Nodes: 1, Waiting: 1})
		r := &readiness{
			synced: func() error { return nil },
			status: func() scrape.Status { return *status.Load() },
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
			if r, n := strings.Count(said(), "INFO ready"), strings.Count(said(), "INFO not ready"); r != ready || n != notReady {
				t.Fatalf("%d lines of being ready, %d of not: want %d and %d\n%s", r, n, ready, notReady, said())
			}
		}
		check(29*time.Second, 0, 0) // it takes its time
		check(2*time.Second, 0, 1)
		check(time.Hour, 0, 1)
		status.Store(&scrape.Status{Nodes: 1, Answered: 1, Settled: 1})
		serves.Store(true)
		check(2*time.Second, 1, 1)
		check(time.Hour, 1, 1)
		serves.Store(false)
		status.Store(&scrape.Status{Nodes: 1, Failing: 1, Causes: []scrape.Cause{{Cause: "timeout", Nodes: 1}}})
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
