package server

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/scrape"
	"metrics-server/pkg/store"
)

// The log says when samples of a node begin to be refused, and when that has been over for a while.
func TestRefusalsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newSink(store.New(store.Config{}), nil, prometheus.NewRegistry())
		check := func(after time.Duration, node string, refused, begins, ends bool) {
			t.Helper()
			time.Sleep(after)
			if got, _ := k.note(node, refused, "", time.Now()); got != (transition{begins, ends}) {
				t.Errorf("%+v; want %t, %t", got, begins, ends)
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

// The status has the series that a node's answers lack, for as long as they lack them. The log
// reports when that begins, and when it has been over for a while.
func TestLackingSeriesAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const cpu, memory = "container_cpu_usage_seconds_total", "container_memory_working_set_bytes"
		k := newSink(store.New(store.Config{}), nil, prometheus.NewRegistry())
		answer := func(given sample.Fields) *sample.Batch {
			return &sample.Batch{Node: sample.Sample{Given: sample.CPU | sample.Memory}, Containers: []sample.Container{{
				ID: new(sample.NewContainerID("ns", "p", "c")), Sample: sample.Sample{Given: given},
			}}}
		}
		scraper := scrape.New(scrape.Config{Sink: k})
		check := func(after time.Duration, given sample.Fields, want string) {
			t.Helper()
			time.Sleep(after)
			k.Record("a", answer(given), time.Now())
			if got := (scrapes{scraper, k}).Scrape("a").Lacks; want == "" && got != "" || !strings.Contains(got, want) ||
				want != "" && !strings.Contains(got, ": "+kubelet.RemedyRuntime) {
				t.Errorf("says %q, want %q and the remedy", got, want)
			}
		}
		check(0, sample.CPU|sample.Memory, "")
		check(0, sample.Memory, "lacks "+cpu)
		check(30*time.Second, sample.CPU, "lacks "+memory)
		if _, lack := k.note("a", false, cpu, time.Now()); lack.begins {
			t.Error("a lack that goes on is reported as new")
		}
		check(30*time.Second, sample.CPU|sample.Memory, "")
		if _, lack := k.note("a", false, "", time.Now().Add(31*time.Second)); !lack.ends {
			t.Error("the end of a lack is not reported")
		}
		check(0, sample.CPU, "lacks "+memory)
		k.forget("a")
		if len(k.lacking)+len(k.lacks) > 0 {
			t.Errorf("nodes that left are remembered: %v, %v", k.lacking, k.lacks)
		}
	})
}
