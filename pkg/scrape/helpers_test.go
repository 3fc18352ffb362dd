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
	"metrics-server/pkg/sharedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const period = 15 * time.Second

// fetchFunc is a Fetcher.
type fetchFunc func(context.Context, *sample.Batch) error

func (f fetchFunc) Fetch(ctx context.Context, b *sample.Batch) error { return f(ctx, b) }

// quick is a Sink and a Fetcher that do nothing.
type quick struct{}

func (quick) Fetch(context.Context, *sample.Batch) error        { return nil }
func (quick) Record(string, *sample.Batch, time.Time) (ok bool) { return true }
func (quick) Refused(*sample.Refusals)                          {}

// refusedError is an error with a cause and a remedy.
type refusedError struct{ node string }

func (e refusedError) Error() string  { return "node " + e.node + ": connection refused" }
func (e refusedError) Cause() string  { return "connection refused" }
func (e refusedError) Remedy() string { return "start the kubelet of " + e.node }

var errHang = errors.New("hang")

// kubelet is a Fetcher that answers after delay, unless fault says otherwise, and records when it was
// asked.
type kubelet struct {
	t     *testing.T
	delay time.Duration
	fault func() error // may be nil; errHang hangs until the context ends

	sampled []sample.Time // when the containers were, besides one that has no sample; never changes

	mu    sync.Mutex // guards asked
	asked []time.Time
}

func (k *kubelet) Fetch(ctx context.Context, into *sample.Batch) error {
	k.mu.Lock()
	k.asked = append(k.asked, time.Now())
	k.mu.Unlock()
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
		c := sample.Container{ID: &sample.ContainerID{}, Sample: sample.Sample{Time: at}}
		into.Containers = append(into.Containers, c)
	}
	return err
}

func (k *kubelet) times() []time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.asked)
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
	t.Helper()
	sharedtest.Start(t, ctx, s.Run)
	synctest.Wait()
}

// bubble is a test in virtual time.
func bubble(name string, t *testing.T, f func(*testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Helper()
		synctest.Test(t, f)
	})
}

// wait lets d pass.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

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
