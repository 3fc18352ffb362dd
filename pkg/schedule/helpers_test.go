package schedule

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

	"metrics-server/pkg/sharedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const period = 15 * time.Second

// targetFunc is a Target that is settled when it succeeds.
type targetFunc func(context.Context) error

func (f targetFunc) Scrape(ctx context.Context) Result { return Result{Err: f(ctx), Settled: true} }

// refusedError is an error with a cause and a remedy.
type refusedError struct{ node string }

func (e refusedError) Error() string  { return "node " + e.node + ": connection refused" }
func (e refusedError) Cause() string  { return "connection refused" }
func (e refusedError) Remedy() string { return "start the kubelet of " + e.node }

var errHang = errors.New("hang")

// followUps are those of a target that does not settle.
var followUps = []time.Duration{
	5100 * time.Millisecond, 10800 * time.Millisecond, 15500 * time.Millisecond, 20050 * time.Millisecond,
	20600 * time.Millisecond,
}

// target is a Target that answers after delay, unless fault says otherwise, and records when it was
// scraped.
type target struct {
	t       *testing.T
	delay   time.Duration
	fault   func() error // nil: none; errHang hangs until the context ends
	settled func() bool  // nil: always

	mu       sync.Mutex
	scraped  []time.Time
	inFlight bool
}

// never is for target.settled.
func never() bool { return false }

func (k *target) Scrape(ctx context.Context) Result {
	k.enter()
	defer k.leave()
	var err error
	if k.fault != nil {
		err = k.fault()
	}
	if errors.Is(err, errHang) {
		<-ctx.Done()
		return Result{Err: fmt.Errorf("asking: %w", ctx.Err())}
	}
	time.Sleep(k.delay)
	return Result{Err: err, Settled: k.settled == nil || k.settled(), FollowUps: followUps}
}

func (k *target) enter() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inFlight {
		k.t.Error("two scrapes of one target at once")
	}
	k.inFlight = true
	k.scraped = append(k.scraped, time.Now())
}

func (k *target) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inFlight = false
}

func (k *target) times() []time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.scraped)
}

// since returns the times at which k was scraped, from the first one at or after start, relative to
// start.
func (k *target) since(start time.Time) (ds []time.Duration) {
	for _, t := range k.times() {
		if !t.Before(start) {
			ds = append(ds, t.Sub(start))
		}
	}
	return ds
}

// answers records when targets answered.
type answers struct {
	mu sync.Mutex
	at map[string][]time.Time
}

// onResult is for Config.OnResult.
func (a *answers) onResult(_ context.Context, r Report) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at == nil {
		a.at = map[string][]time.Time{}
	}
	if !r.After.Failing() {
		a.at[r.Name] = append(a.at[r.Name], r.Ended)
	}
}

func (a *answers) of(name string) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.at[name])
}

// run starts a Scheduler in a bubble and stops it at the test's end.
func run(t *testing.T, c Config) *Scheduler {
	t.Helper()
	s := New(c)
	runScheduler(t, s)
	return s
}

// runScheduler is run for a test that needs targets before Run.
func runScheduler(t *testing.T, s *Scheduler) {
	t.Helper()
	sharedtest.Start(t, t.Context(), s.Run)
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

// inFlight is the number of places in the lane of healthy targets that are taken.
func inFlight(s *Scheduler) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.healthy.inFlight
}

// wait lets d pass.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// toward waits until just before t.
func toward(t time.Time) { wait(time.Until(t) - time.Nanosecond) }

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("node-%05d", i)
	}
	return all
}
