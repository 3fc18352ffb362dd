package scrape

import (
	"context"
	"runtime"
	"testing"
	"time"

	"metrics-server/pkg/sample"
)

// One scrape allocates its goroutine, its context with a timer, its place in the lane, and nothing for the
// samples.
func TestAllocationsOfAScrape(t *testing.T) {
	const budget = 13 // 12, and with the race detector pools forget at random
	s := idle(t.Context(), 1)
	if got := testing.AllocsPerRun(1000, func() { scrapeNext(s) }); got > budget {
		t.Errorf("%v allocations, at most %d expected", got, budget)
	}
}

// BenchmarkSlotOf15000 scrapes the nodes of one slot, which are 150 of 15,000.
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

// BenchmarkMemoryOfANode reports what a node costs that has been scraped once.
func BenchmarkMemoryOfANode(b *testing.B) {
	const nodes = 15000
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := idle(b.Context(), nodes)
		for range nodes {
			scrapeNext(s)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/nodes, "heap-B/node")
		runtime.KeepAlive(s)
	}
}

// quick is a Sink and a Fetcher that do nothing.
type quick struct{}

func (quick) Fetch(context.Context, *sample.Batch) error        { return nil }
func (quick) Record(string, *sample.Batch, time.Time) (ok bool) { return true }
func (quick) Refused(*sample.Refusals)                          {}

// idle is a Scraper without a goroutine that starts scrapes.
func idle(ctx context.Context, nodes int) *Scraper {
	s := New(Config{Sink: quick{}})
	for _, name := range names(nodes) {
		s.Add(name, quick{})
	}
	s.begin(ctx)
	return s
}

// scrapeNext starts the scrape that is due next, as if it were that time already, and waits for its end.
func scrapeNext(s *Scraper) {
	s.mu.Lock()
	next := s.healthy.calendar[0].due
	s.mu.Unlock()
	s.dispatch(next)
	s.flights.Wait()
}
