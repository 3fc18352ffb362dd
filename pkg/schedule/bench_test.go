package schedule

import (
	"context"
	"runtime"
	"testing"

	"metrics-server/pkg/sharedtest"
)

// One scrape allocates its goroutine, its context with a timer and its place in the lane.
func TestAllocationsOfAScrape(t *testing.T) {
	const budget = 13 // 12, and with the race detector pools forget at random
	s := idle(t.Context(), 1)
	if got := testing.AllocsPerRun(1000, func() { scrapeNext(s) }); got > budget {
		t.Errorf("%v allocations, at most %d expected", got, budget)
	}
}

// BenchmarkSlotOf15000 scrapes the targets of one slot, which are 37 or 38 of 15,000.
func BenchmarkSlotOf15000(b *testing.B) {
	const nodes = 15000
	s := idle(b.Context(), nodes)
	for range nodes { // their first scrapes come one after the other
		scrapeNext(s)
	}
	b.ReportAllocs()
	for b.Loop() {
		scrapeNext(s)
	}
}

func BenchmarkStatusOf15000(b *testing.B) {
	s := idle(b.Context(), 15000)
	b.ReportAllocs()
	for b.Loop() {
		s.Status()
	}
}

// BenchmarkMemoryOfATarget reports what a target costs that has been scraped once.
func BenchmarkMemoryOfATarget(b *testing.B) {
	const nodes = 15000
	for b.Loop() {
		before := sharedtest.Heap()
		s := idle(b.Context(), nodes)
		for range nodes {
			scrapeNext(s)
		}
		b.ReportMetric(float64(sharedtest.Heap()-before)/nodes, "heap-B/target")
		runtime.KeepAlive(s)
	}
}

// quick is a Target that answers at once.
type quick struct{}

func (quick) Scrape(context.Context) Result { return Result{Settled: true} }

// idle is a Scheduler without a goroutine that starts scrapes.
func idle(ctx context.Context, nodes int) *Scheduler {
	s := New(Config{})
	for _, name := range names(nodes) {
		s.Add(name, quick{})
	}
	s.begin(ctx)
	return s
}

// scrapeNext starts the next scrape before it is due and waits for its end.
func scrapeNext(s *Scheduler) {
	s.mu.Lock()
	next := s.healthy.calendar[0].due
	s.mu.Unlock()
	s.dispatch(next)
	s.flights.Wait()
}
