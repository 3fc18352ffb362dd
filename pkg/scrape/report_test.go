package scrape

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/schedule"
)

// The second failure in a row is reported, once, and so is the recovery. A single failure is not.
func TestFailingNodesAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failing atomic.Bool
		var reported []string
		s := run(t, Config{
			Sink: &store{},
			OnFailing: func(node string, s schedule.TargetStatus) {
				reported = append(reported, fmt.Sprint(node, " fails: ", s.Err))
			},
			OnRecovered: func(node string, after time.Duration) {
				reported = append(reported, fmt.Sprint(node, " recovered: ", after > 2*period))
			},
		})
		once := true
		s.Add("blinks", &kubelet{t: t, fault: func() error {
			defer func() { once = false }()
			if once {
				return refusedError{"blinks"}
			}
			return nil
		}})
		s.Add("down", &kubelet{t: t, fault: func() error {
			if failing.Load() {
				return refusedError{"down"}
			}
			return nil
		}})
		wait(time.Minute)
		failing.Store(true)
		wait(5 * time.Minute)
		failing.Store(false)
		wait(5 * time.Minute)
		want := []string{"down fails: node down: connection refused", "down recovered: true"}
		if d := cmp.Diff(want, reported); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// Each further cause of a failing node is reported, once.
func TestNewCausesAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, lines := logged(t, "0")
		var reported []string
		s := New(Config{Sink: &store{}, OnFailing: func(_ string, s schedule.TargetStatus) {
			reported = append(reported, s.Cause)
		}})
		runScraper(t, ctx, s)
		tries := 0
		s.Add("node-a", &kubelet{t: t, fault: func() error {
			tries++
			switch {
			case tries < 5, tries > 20 && tries < 25:
				return nil
			case tries%2 == 1 || tries > 20:
				return refusedError{"node-a"}
			}
			return errors.New("boom")
		}})
		wait(20 * time.Minute)
		if d := cmp.Diff([]string{"other", "connection refused"}, reported); d != "" {
			t.Errorf("reported causes (-want +got):\n%s", d)
		}
		var got []string
		for _, e := range lines() {
			got = append(got, fmt.Sprint(e.Message, ": ", field(e, "cause")))
		}
		want := []string{
			"Scraping a node begins to fail: connection refused", "Scraping a node fails for another cause: other",
			"Scraping a node works again: <nil>", "Scraping a node begins to fail: connection refused",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("log (-want +got):\n%s", d)
		}
	})
}
