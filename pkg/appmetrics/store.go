package appmetrics

import (
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
)

// Store keeps the series of pods.
type Store struct {
	config Config
	engine *promql.Engine
	slots  chan *Slot // those that are free

	mu      sync.RWMutex // guards the fields that follow
	targets map[string]*target
	epoch   time.Time // what the times of samples are relative to; zero until the first page
}

// New returns an empty store.
func New(c Config) *Store {
	c = c.withDefaults()
	s := &Store{
		config:  c,
		slots:   make(chan *Slot, c.Parallel),
		targets: map[string]*target{},
		engine: promql.NewEngine(promql.EngineOpts{
			MaxSamples:               c.MaxSamples,
			Timeout:                  c.Timeout,
			NoStepSubqueryIntervalFn: func(int64) int64 { return c.Interval.Milliseconds() },
			Parser:                   promQL,
		}),
	}
	for range c.Parallel {
		s.slots <- &Slot{store: s}
	}
	return s
}

// Record takes in a page of the pod with this UID and keeps the series that k wants. If the error is an
// *Error, the page was refused, and the last values are held, which is what a failed scrape means. If it is a
// *PartialError, the page counts, but some queries have no value.
func (s *Store) Record(uid string, k *Kept, p Page) error {
	t, now := s.target(uid, p.At)
	return t.record(now, k, &p, &s.config)
}

// target returns the pod's target, which is made if there is none, and t on the store's clock.
func (s *Store) target(uid string, at time.Time) (*target, int64) {
	s.mu.RLock()
	t, epoch := s.targets[uid], s.epoch
	s.mu.RUnlock()
	if t == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.epoch.IsZero() {
			s.epoch = at.Add(-time.Hour)
		}
		epoch = s.epoch
		if t = s.targets[uid]; t == nil {
			t = &target{}
			s.targets[uid] = t
		}
	}
	return t, at.Sub(epoch).Milliseconds()
}

// Forget drops everything of a pod that no longer exists, or that no query wants.
func (s *Store) Forget(uid string) {
	s.mu.Lock()
	t := s.targets[uid]
	delete(s.targets, uid)
	s.mu.Unlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgotten = true // for a page that is about to be recorded
	t.resize(0, &s.config)
}

// Size is how much a store keeps.
type Size struct{ Pods, Series, Samples int }

// Size counts what the store keeps.
func (s *Store) Size() Size {
	s.mu.RLock()
	targets := make([]*target, 0, len(s.targets))
	for _, t := range s.targets {
		targets = append(targets, t)
	}
	s.mu.RUnlock()
	n := Size{Pods: len(targets)}
	for _, t := range targets {
		t.mu.Lock()
		n.Series += len(t.series)
		n.Samples += len(t.series) * len(t.times)
		t.mu.Unlock()
	}
	return n
}
