package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"metrics-server/pkg/sharedtest"
)

// fake is a backend. It answers each query with how often it was asked, or hangs for 10 s.
type fake struct {
	mu     sync.Mutex
	err    error
	hangs  bool
	counts map[Expression]int
}

func (f *fake) Query(ctx context.Context, e Expression) (*Answer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = map[Expression]int{}
	}
	f.counts[e]++
	if f.hangs {
		f.mu.Unlock()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		<-ctx.Done()
		cancel()
		f.mu.Lock()
		return nil, newError(Timeout, "check it", "backend %q did not answer in time", "main")
	}
	if f.err != nil {
		return nil, f.err
	}
	return &Answer{Samples: []Sample{{Value: float64(f.counts[e])}}, Received: time.Now()}, nil
}

func (f *fake) set(err error, hangs bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.hangs = err, hangs
}

func (f *fake) count(e Expression) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[e]
}

// polling calls f with a running Poller.
func polling(t *testing.T, f func(*testing.T, *Poller, *fake)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		backend := &fake{}
		p := NewPoller(PollerConfig{Config: Config{Name: "main"}, Backend: backend})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = p.Run(ctx)
		}()
		f(t, p, backend)
		cancel()
		<-done
	})
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func single(t *testing.T, s *Subscription) float64 {
	t.Helper()
	a, err := s.Answer(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v, err := a.Single()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPoller(t *testing.T) {
	polling(t, func(t *testing.T, p *Poller, backend *fake) {
		e := trusted(t, "up")
		s := p.Subscribe(e)
		_, err := s.Answer(time.Now())
		wantError(t, err, NotAsked, "retry in a moment")
		wait(time.Second)
		if single(t, s) != 1 {
			t.Error("the query is not sent at once")
		}
		wait(10 * 15 * time.Second)
		if n := backend.count(e); n < 10 || n > 12 {
			t.Errorf("%d queries in 150 s, want one in 15 s", n)
		}
		if st := p.Status(); st.Targets != 1 || st.Answered != 1 {
			t.Errorf("status %+v, want one target, which has answered", st)
		}
	})
}

// TestShared checks that the same expression is queried once, as long as somebody wants it.
func TestShared(t *testing.T) {
	polling(t, func(t *testing.T, p *Poller, backend *fake) {
		e := trusted(t, "up")
		first, second, other := p.Subscribe(e), p.Subscribe(e), p.Subscribe(trusted(t, "down"))
		wait(time.Second)
		if n := backend.count(e); n != 1 {
			t.Errorf("%d queries for two subscriptions, want 1", n)
		}
		if single(t, first) != single(t, second) || single(t, other) != 1 {
			t.Error("the answers differ")
		}
		first.Close()
		first.Close() // does not take the other's
		wait(20 * time.Second)
		if single(t, second) < 2 {
			t.Error("the query is no longer sent, although one subscription is left")
		}
		second.Close()
		before := backend.count(e)
		wait(time.Minute)
		if n := backend.count(e); n != before {
			t.Errorf("%d more queries, which nobody wants", n-before)
		}
		again := p.Subscribe(e)
		_, err := again.Answer(time.Now())
		wantError(t, err, NotAsked)
	})
}

// TestHeld checks that the last answer is held for four intervals, and then is not, until there is a new one.
func TestHeld(t *testing.T) {
	refused := newError(Refused, "check that it runs", "backend %q refused the connection", "main")
	for name, fail := range map[string]func(*fake){
		"down":  func(f *fake) { f.set(refused, false) },
		"hangs": func(f *fake) { f.set(nil, true) },
	} {
		t.Run(name, func(t *testing.T) {
			polling(t, func(t *testing.T, p *Poller, backend *fake) {
				s := p.Subscribe(trusted(t, "up"))
				wait(time.Second)
				a, err := s.Answer(time.Now())
				if err != nil {
					t.Fatal(err)
				}
				fail(backend)
				wait(time.Until(a.Received.Add(HeldPolls * 15 * time.Second)))
				if held, err := s.Answer(time.Now()); err != nil || held != a {
					t.Fatalf("%v, %v, want the last answer", held, err)
				}
				wait(time.Nanosecond)
				_, err = s.Answer(time.Now())
				wantError(t, err, Expired, `backend "main" is more than 1m0s old; the last query failed: backend "main"`, ": check")
				text := err.Error()
				wait(5 * time.Minute)
				if _, err = s.Answer(time.Now()); err == nil || err.Error() != text {
					t.Errorf("%v, want still %s", err, text)
				}
				backend.set(nil, false)
				wait(30 * time.Second)
				single(t, s)
			})
		})
	}
}

// slow answers every query after a second.
type slow struct{}

func (slow) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(time.Second):
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(up))}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// TestOverload checks that each query is still answered, only less often, if a backend cannot answer all of them in
// an interval.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, Config{URL: "http://main", Parallel: 1})
		transport, err := client.current()
		if err != nil {
			t.Fatal(err)
		}
		transport.RegisterProtocol("http", slow{})
		p := NewPoller(PollerConfig{Config: client.config, Backend: client})
		sharedtest.Start(t, t.Context(), p.Run)
		var all []*Subscription
		for i := range 25 { // 15 can be answered
			all = append(all, p.Subscribe(trusted(t, fmt.Sprintf("x%d", i))))
		}
		wait(time.Minute)
		for range 60 {
			wait(5 * time.Second)
			for i, s := range all {
				if _, err := s.Answer(time.Now()); err != nil {
					t.Fatalf("query %d: %v", i, err)
				}
			}
		}
	})
}

// TestNeverAnswered checks that the reason is reported if there never was an answer.
func TestNeverAnswered(t *testing.T) {
	polling(t, func(t *testing.T, p *Poller, backend *fake) {
		backend.set(newError(Denied, "let it", "backend %q denied the query", "main"), false)
		denied := p.Subscribe(trusted(t, "up"))
		wait(time.Second)
		_, err := denied.Answer(time.Now())
		wantError(t, err, Denied)
		backend.set(errors.New("secret detail"), false)
		other := p.Subscribe(trusted(t, "down"))
		wait(time.Second)
		_, err = other.Answer(time.Now())
		wantError(t, err, Unreachable, `a query of backend "main" failed`)
	})
}

// TestNotRun checks that a Poller which does not run says so once its answers are too old.
func TestNotRun(t *testing.T) {
	p := NewPoller(PollerConfig{Config: Config{Name: "main", Interval: time.Second}, Backend: &fake{}})
	s := p.Subscribe(trusted(t, "up"))
	now := time.Now()
	s.poll.answer = &Answer{Received: now}
	if _, err := s.Answer(now.Add(4 * time.Second)); err != nil {
		t.Error(err)
	}
	_, err := s.Answer(now.Add(4*time.Second + 1))
	wantError(t, err, Expired, "has not been queried for more than 4s")
}

// memory counts what is taken, up to a limit.
type memory struct {
	mu           sync.Mutex
	taken, limit int64
}

func (m *memory) Take(namespace string, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.taken+n > m.limit {
		return errors.New("namespace " + namespace + " has used up its share")
	}
	m.taken += n
	return nil
}

func (m *memory) Give(_ string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken -= n
}

// TestMemory checks that an answer for which there is no room is an error, and that what was taken is given back.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{limit: 1 << 10}
		p := NewPoller(PollerConfig{Config: Config{Name: "main"}, Backend: &fake{}, Memory: m})
		sharedtest.Start(t, t.Context(), p.Run)
		e, err := Confine("up", "namespace", "shop")
		if err != nil {
			t.Fatal(err)
		}
		s := p.Subscribe(e)
		wait(time.Minute)
		before := single(t, s)
		m.mu.Lock()
		taken := m.taken
		m.mu.Unlock()
		if taken == 0 || taken > 500 {
			t.Errorf("%d bytes are taken after several answers, want those of one, at most 500", taken)
		}
		s.Close()
		wait(time.Minute)
		if m.taken != 0 || before < 3 {
			t.Errorf("%d bytes are still taken after %v answers, want none after three or more", m.taken, before)
		}
		m.limit = 10
		s = p.Subscribe(e)
		wait(time.Minute)
		_, err = s.Answer(time.Now())
		wantError(t, err, OverShare, "namespace shop has used up its share")
	})
}
