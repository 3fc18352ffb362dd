// Package pods simulates the metrics pages of applications: about 30 KB as the Go client writes them, of which
// autoscalers want one family. Every value of a wanted family is a function of the pod's Spec and the time, so that
// whoever has the Spec knows what may be served.
//
// A Server answers for any number of pods on one port, each at an address of its own. Processes run it in a process
// of its own.
package pods

import (
	"math"
	"net/netip"
	"time"
)

// Kind is a kind of metric that an autoscaler wants. Every pod has all of them.
type Kind int

// The kinds, each with one family.
const (
	Counter   Kind = iota // its rate per second is the pod's load
	Gauge                 // its sum is the pod's load
	Histogram             // its mean is a thousandth of the pod's load
)

// Kinds are all kinds.
var Kinds = []Kind{Counter, Gauge, Histogram}

// Metric is the name of the family.
func (k Kind) Metric() string {
	return [...]string{"http_requests_total", "worker_queue_length", "http_request_duration_seconds"}[k]
}

// Spec is one pod. It is immutable.
type Spec struct {
	Addr      netip.Addr
	Level     float64   // its load, while no step changes it
	Started   time.Time // when its process started; with the fault Restarts, for the first time
	Restarted bool      // counted by an earlier process before Started
	Steps     []Step    // in order of time
	Fault     string    // the name of one of Faults; empty: none
}

// With returns s with another fault, or with none, from a time on.
func (s Spec) With(fault string, now time.Time) Spec {
	switch {
	case s.Fault == Restarts:
		s.Started = s.process(now)
	case fault == Restarts:
		s.Started, s.Restarted = now, true
	}
	s.Fault = fault
	return s
}

// process returns the start time of the process that runs at a time.
func (s *Spec) process(at time.Time) time.Time {
	if s.Fault != Restarts {
		return s.Started
	}
	return at.Add(-at.Sub(s.Started) % restartPeriod)
}

// Step changes the load of a pod: from At on, the load is multiplied by Factor.
type Step struct {
	At     time.Time
	Factor float64
}

// segments calls f for each time of constant load between the pod's start and t, with its end and its load.
func (s *Spec) segments(started, t time.Time, f func(from, to time.Time, load float64)) {
	from, factor := started, 1.0
	for _, step := range s.Steps {
		if step.At.After(t) {
			break
		}
		if step.At.After(from) {
			f(from, step.At, s.Level*factor)
			from = step.At
		}
		factor = step.Factor
	}
	if t.After(from) {
		f(from, t, s.Level*factor)
	}
}

// Loads returns the lowest and the highest load between two times, also before the process started.
func (s *Spec) Loads(from, to time.Time) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	s.segments(s.Started.Add(-time.Hour), to, func(_, end time.Time, load float64) {
		if !end.Before(from) {
			low, high = min(low, load), max(high, load)
		}
	})
	return low, high
}

// Tolerance is the relative error that a served rate may have. A page counts until it is written,
// but the server uses the time of arrival: over the 5 s between the first two pages, this allows
// for a quarter of a second on a busy machine.
const Tolerance = 0.05

// Deviation returns the relative error of a served value. The value covers a window that begins and
// ends at the given times, and need not belong to one moment of it. A deviation of up to Tolerance
// is correct.
func (s *Spec) Deviation(k Kind, value float64, from, to time.Time) float64 {
	low, high := s.Loads(from, to)
	exact := 0.0
	switch k {
	case Counter:
		if s.Restarted && s.process(to).After(from) {
			low = 0 // what was counted between the last page and the restart is lost
		}
	case Gauge:
		exact = 0.001 // three decimals are served
	case Histogram:
		low, high = low/1000, high/1000
		exact = 0.001
	}
	off := max(low-value, value-high, 0)
	switch {
	case math.IsNaN(off):
		return math.Inf(1)
	case off <= exact:
		return 0
	case k != Counter: // these do not depend on when a page arrives
		return math.Inf(1)
	}
	return off / max(high, 1)
}

// Missing reports whether the fault of s leaves nothing to serve for an autoscaler that wants k.
func (s *Spec) Missing(k Kind) bool {
	f := fault(s.Fault)
	return f != nil && f.missing(k)
}
