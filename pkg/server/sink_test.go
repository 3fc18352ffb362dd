package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"metrics-server/pkg/store"
)

// A node of which samples are refused is news when that begins, and when it has been over for a while.
func TestRefusalsAreNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newSink(store.New(store.Config{}), nil, prometheus.NewRegistry())
		check := func(after time.Duration, node string, refused, begins, ends bool) {
			t.Helper()
			time.Sleep(after)
			if b, e := k.note(node, refused, time.Now()); b != begins || e != ends {
				t.Errorf("begins %t, ends %t; want %t, %t", b, e, begins, ends)
			}
		}
		check(0, "a", false, false, false)
		check(0, "a", true, true, false)
		check(0, "b", true, true, false)
		for range 3 { // every other answer is right
			check(30*time.Second, "a", false, false, false)
			check(30*time.Second, "a", true, false, false)
		}
		check(61*time.Second, "a", false, false, true)
		check(0, "a", false, false, false)
		check(0, "a", true, true, false)
		k.forget("b")
		check(0, "b", true, true, false) // another node of that name
		k.forget("a")
		k.forget("b")
		if len(k.refusing) > 0 {
			t.Errorf("nodes that left are remembered: %v", k.refusing)
		}
	})
}
