package scrape

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"metrics-server/pkg/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const period = 15 * time.Second

// fetchFunc is a Fetcher.
type fetchFunc func(context.Context, *sample.Batch) error

func (f fetchFunc) Fetch(ctx context.Context, b *sample.Batch) error { return f(ctx, b) }

// refusedError is an error with a cause and a remedy.
type refusedError struct{ node string }

func (e refusedError) Error() string  { return "node " + e.node + ": connection refused" }
func (e refusedError) Cause() string  { return "connection refused" }
func (e refusedError) Remedy() string { return "start the kubelet of " + e.node }

var errHang = errors.New("hang")

// kubelet is a Fetcher that answers after delay, unless fault says otherwise, and notes when it was asked.
type kubelet struct {
	t     *testing.T
	delay time.Duration
	fault func() error // may be nil; errHang hangs until the context ends

	sampled []sample.Time // when the containers were, beside one that has no sample; never changes

	mu       sync.Mutex
	asked    []time.Time
	inFlight bool
}

func (k *kubelet) Fetch(ctx context.Context, into *sample.Batch) error {
	k.enter()
	defer k.leave()
	if len(into.Containers) != 0 || into.Node.Given != 0 {
		k.t.Error("the batch is not empty")
	}
	var err error
	if k.fault != nil {
		err = k.fault()
	}
	if errors.Is(err, errHang) {
		<-ctx.Done()
		return fmt.Errorf("asking: %w", ctx.Err())
	}
	time.Sleep(k.delay)
	into.Node.Given = sample.CPU
	for _, at := range append([]sample.Time{0}, k.sampled...) {
		into.Containers = append(into.Containers, sample.Container{ID: &sample.ContainerID{}, Sample: sample.Sample{Time: at}})
	}
	return err
}

func (k *kubelet) enter() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inFlight {
		k.t.Error("two scrapes of one node at once")
	}
	k.inFlight = true
	k.asked = append(k.asked, time.Now())
}

func (k *kubelet) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inFlight = false
}

func (k *kubelet) times() []time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.asked)
}

// since are the times at which k was asked, from the first one at or after start, relative to start.
func (k *kubelet) since(start time.Time) (ds []time.Duration) {
	for _, t := range k.times() {
		if !t.Before(start) {
			ds = append(ds, t.Sub(start))
		}
	}
	return ds
}

// store is a Sink.
type store struct {
	unsettled bool

	mu       sync.Mutex
	received map[string][]time.Time
	refused  sample.Refusals
}

func (s *store) Refused(r *sample.Refusals) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for reason, n := range r {
		s.refused[reason] += n
	}
}

func (s *store) Record(node string, b *sample.Batch, received time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received == nil {
		s.received = map[string][]time.Time{}
	}
	s.received[node] = append(s.received[node], received)
	return !s.unsettled && len(b.Containers) == 1
}

func (s *store) of(node string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.received[node])
}

// run starts a Scraper in a bubble and stops it at the test's end.
func run(t *testing.T, c Config) *Scraper {
	t.Helper()
	s := New(c)
	runScraper(t, quiet(t), s)
	return s
}

// runScraper is run for a test that needs nodes before Run, or the log.
func runScraper(t *testing.T, ctx context.Context, s *Scraper) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	synctest.Wait()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// bubble is a test in virtual time.
func bubble(name string, t *testing.T, f func(*testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Helper()
		synctest.Test(t, f)
	})
}

// inFlight is the number of places in the lane of healthy nodes that are taken.
func inFlight(s *Scraper) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.healthy.flights.Len()
}

// wait lets d pass.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// toward waits until just before t.
func toward(t time.Time) { wait(time.Until(t) - time.Nanosecond) }

// quiet is a context whose logger drops everything.
func quiet(t *testing.T) context.Context {
	return klog.NewContext(t.Context(), klog.New(nil))
}

// logged is a context with a logger, and a function that returns its lines up to now.
func logged(t *testing.T, verbosity string) (context.Context, func() []ktesting.LogEntry) {
	t.Helper()
	c := ktesting.NewConfig(ktesting.BufferLogs(true))
	if err := c.Verbosity().Set(verbosity); err != nil {
		t.Fatal(err)
	}
	log := ktesting.NewLogger(ktesting.NopTL{}, c)
	buffer := log.GetSink().(ktesting.Underlier).GetBuffer()
	return klog.NewContext(t.Context(), log), func() []ktesting.LogEntry { return buffer.Data() }
}

// field is the value of key in a line of the log.
func field(e ktesting.LogEntry, key string) any {
	for i := 0; i+1 < len(e.WithKVList); i += 2 {
		if e.WithKVList[i] == key {
			return e.WithKVList[i+1]
		}
	}
	for i := 0; i+1 < len(e.ParameterKVList); i += 2 {
		if e.ParameterKVList[i] == key {
			return e.ParameterKVList[i+1]
		}
	}
	return nil
}

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("node-%05d", i)
	}
	return all
}
