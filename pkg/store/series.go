package store

import (
	"math"
	"math/bits"
	"time"
	"unique"

	"metrics-server/pkg/sample"
)

const (
	// ringSize samples are enough, however often a kubelet is asked: samples before the newest are
	// kept at least a third of the window apart (see series.push), so the oldest of four is always
	// at least two thirds of a window older than the newest, which is all that is ever looked for.
	ringSize = 4

	minWindow    = sample.Time(5_000)  // a shorter window says more about rounding than about usage
	startSlack   = sample.Time(1_000)  // a start time that moves less is the same start told less exactly
	freshStart   = sample.Time(60_000) // see limits.lifetime
	youngSettled = sample.Time(60_000) // a younger container may lack a usage in a settled answer

	// maxStale is how much older than the answer it comes in a sample may be: kubelets take one every 10 to 20 s.
	maxStale = 30 * time.Second
)

// limits are the lengths of time that rules depend on.
type limits struct {
	apart    sample.Time   // a third of the target window: least distance of kept samples
	near     sample.Time   // two thirds of it: least window when there is a choice
	lifetime sample.Time   // greatest window that may begin at a container's start
	expiry   time.Duration // how long something is believed after it was received
}

func newLimits(window, expiry time.Duration) limits {
	w := sample.Time(window.Milliseconds())
	return limits{apart: w / 3, near: 2 * (w / 3), lifetime: max(freshStart, 2*w), expiry: expiry}
}

// state says what the last answer that listed a container made of it.
type state uint8

const (
	ended    state = iota // neither CPU nor memory, or both zero: it ended or never ran
	noCPU                 // memory only: its pod cannot be served
	noMemory              // CPU only: its pod cannot be served
	running               // it must have a usage for its pod to be served; also if what the kubelet gave was refused
)

func stateOf(s *sample.Sample) state {
	switch {
	case s.Given.Has(sample.CPU | sample.Memory):
		if s.CPU == 0 && s.Memory == 0 { // how some runtimes list a dying container
			return ended
		}
		return running
	case s.Given.Has(sample.Refused):
		return running
	case s.Given.Has(sample.CPU):
		return noMemory
	case s.Given.Has(sample.Memory):
		return noCPU
	}
	return ended
}

// series is one container or node: its recent past within one epoch, and the usage that follows from it. The two are kept
// apart because a list of everything reads all usages and nothing else.
// Moments of this server's clock are time.Durations since the node was born (see node.since).
type series struct {
	*past
	*usage
}

// past is what a series knows beside its usage.
type past struct {
	id *sample.ContainerID // nil for a node

	t     [ringSize]sample.Time // newest first
	cpu   [ringSize]uint64
	start sample.Time   // the latest start time given, 0 if none
	first time.Duration // when the newest sample was received first
}

// usage is what readers look at: 64 bytes.
type usage struct {
	name unique.Handle[string] // of the container, immutable; there are few names, so they are in the caches
	reading
}

// reading is a usage but for what never changes.
type reading struct {
	n       uint8 // how many samples there are
	hasSwap bool
	noZero  bool // start is not the counter's zero: the counter went down, or the clock is another one since
	turned  bool // a sample was refused as older than the newest one, so the clock was set back
	listed  bool // of a container: the last answer has it
	state   state

	received time.Duration // when the newest sample was received last

	// The usage; none if window is 0. It may be older than the newest sample.
	at, window         sample.Time
	rate, memory, swap uint64
}

// record takes what an answer received at now says. It returns false if the sample is refused as
// older than the newest one.
func (s series) record(b *sample.Sample, now time.Duration, l *limits) bool {
	s.state = stateOf(b)
	if s.state != running || !b.Given.Has(sample.CPU|sample.Memory) {
		return true
	}
	if s.n > 0 && now-s.received > l.expiry {
		s.restart() // also how a kubelet whose clock was set back recovers
	}
	if b.Time <= 0 {
		return false
	}
	if s.n > 0 && b.Time < s.t[0] {
		s.turned = true
		return false
	}
	if s.n == 0 || b.Time > s.t[0] {
		s.add(b, now, l)
	}
	s.received = now
	return true
}

// restart begins an epoch without samples.
func (s series) restart() {
	*s.past = past{id: s.id}
	s.reading = reading{listed: s.listed, state: s.state}
}

// add makes b the newest sample and works out its usage, or keeps the last one of the epoch.
func (s series) add(b *sample.Sample, now time.Duration, l *limits) {
	start := sample.Time(0)
	if b.Given.Has(sample.Start) {
		start = max(b.Start, 0)
	}
	switch {
	case s.start > 0 && (start-s.start > startSlack || s.n > 0 && start > max(s.start, s.t[0])):
		s.restart()
	case b.CPU < s.cpu[0]:
		known := s.start
		s.restart()
		s.start, s.noZero = known, true
	case s.turned, s.n > 0 && b.Time.Sub(s.t[0]) > now-s.first+maxStale:
		// The kubelet's clock was set back, or forward, as more time cannot have passed. A window across that would
		// be too short or too long. The last usage stays until there are two samples by the new clock, but not if the clock
		// was set again before that.
		if s.n == 1 && s.noZero {
			s.window = 0
		}
		s.n, s.noZero, s.turned = 0, true, false
	}
	s.first = now
	s.start = max(s.start, start)
	s.push(b.Time, b.CPU, l)
	if t, cpu, ok := s.older(l); ok {
		s.at, s.window = b.Time, b.Time-t
		s.rate = nanocores(b.CPU-cpu, s.window)
		s.memory, s.swap, s.hasSwap = b.Memory, b.Swap, b.Given.Has(sample.Swap)
	}
}

// push adds a sample to the ring. It takes the place of the newest one if that is too close to the
// one before: only the newest and the oldest sample may have a neighbour closer than l.apart.
func (s series) push(t sample.Time, cpu uint64, l *limits) {
	if s.n < 2 || s.t[0]-s.t[1] >= l.apart {
		copy(s.t[1:], s.t[:])
		copy(s.cpu[1:], s.cpu[:])
		s.n = min(s.n+1, ringSize)
	}
	s.t[0], s.cpu[0] = t, cpu
}

// older returns the sample that the newest one is compared with.
func (s series) older(l *limits) (t sample.Time, cpu uint64, ok bool) {
	for i := 1; i < int(s.n); i++ {
		if s.t[0]-s.t[i] >= l.near {
			return s.t[i], s.cpu[i], true
		}
	}
	if last := s.n - 1; last > 0 {
		return s.t[last], s.cpu[last], s.t[0]-s.t[last] >= minWindow
	}
	// The only sample: the counter was zero when the container started.
	age := s.t[0] - s.start
	return s.start, 0, s.start > 0 && !s.noZero && age >= minWindow && age <= l.lifetime
}

// usable reports whether there is a usage that may still be served at now.
func (u *usage) usable(now time.Duration, l *limits) bool {
	return u.window > 0 && now-u.received <= l.expiry
}

// counts reports whether a container must have a usage for its pod to be served.
func (u *usage) counts() bool { return u.listed && u.state != ended }

// serves reports whether a container that counts has what its pod needs of it.
func (u *usage) serves(now time.Duration, l *limits) bool {
	return u.state == running && u.usable(now, l)
}

// span is the length of the usage's window.
func (u *usage) span() time.Duration { return u.at.Sub(u.at - u.window) }

func (u *usage) sample() sample.Usage {
	return sample.Usage{CPU: u.rate, Memory: u.memory, Swap: u.swap, HasSwap: u.hasSwap}
}

// nanocores returns the rate of cpu nanoseconds in window, at most what a signed number can hold.
func nanocores(cpu uint64, window sample.Time) uint64 {
	hi, lo := bits.Mul64(cpu, 1000) // window is in milliseconds
	if hi >= uint64(window) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(window))
	return min(q, math.MaxInt64)
}
