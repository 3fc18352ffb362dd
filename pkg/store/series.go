package store

import (
	"cmp"
	"math/bits"
	"time"
	"unique"

	"metrics-server/pkg/ring"
	"metrics-server/pkg/sample"
)

const (
	minWindow    = sample.Time(5_000)  // see limits.least
	imprecision  = sample.Time(1_000)  // how far a timestamp or a start time may be off
	freshStart   = sample.Time(60_000) // see limits.lifetime
	youngSettled = sample.Time(60_000) // an answer is settled although a younger container has no usage

	// maxStale is how much older than the answer it comes in a sample may be: kubelets take one
	// every 10 to 20 s.
	maxStale = 30 * time.Second

	// A counter that falls by at most 1/slip of one CPU's time since the last sample has slipped:
	// the kubelet adds up counters that are not read at one moment.
	slip = 100
	// maxSlipped is for how long a slipped counter may stay below its old value before that counts
	// as standing still.
	maxSlipped = sample.Time(60_000)

	// The capacity of a node whose capacity is unknown: more than any node has.
	mostCores  = 1024
	mostMemory = 64 << 40
)

// limits are the constants of the rules. Only node ever changes.
type limits struct {
	apart    sample.Time   // a third of the target window: least distance of kept samples
	near     sample.Time   // two thirds of it: least window when there is a choice
	least    sample.Time   // least window at all: a shorter one says more about rounding than about usage
	lifetime sample.Time   // longest window that may begin at a container's start
	expiry   time.Duration // how long a sample counts after it was received
	frozen   time.Duration // for how long a sample may be repeated before it is refused

	node sample.Capacity // what the node has; neither is 0
}

// newLimits expects that c's defaults are set. Only apart and near follow from the window: it must
// not change which samples are accepted, nor when a usage is first served.
func newLimits(c Config) limits {
	w, r := sample.Time(c.Window.Milliseconds()), sample.Time(c.Resolution.Milliseconds())
	l := limits{
		apart: w / 3, near: 2 * (w / 3), least: min(minWindow, 2*(r/3)), lifetime: max(freshStart, 2*r),
		expiry: c.Expiry, frozen: max(sample.FrozenAfter, c.Expiry),
	}
	l.setCapacity(sample.Capacity{})
	return l
}

func (l *limits) setCapacity(c sample.Capacity) {
	l.node = sample.Capacity{CPU: cmp.Or(c.CPU, mostCores*1e9), Memory: cmp.Or(c.Memory, mostMemory)}
}

// fits reports whether a counter can have gone from a to b: it did not fall, and the node's CPUs can
// have done that much work in the time between, plus imprecision.
func (l *limits) fits(a, b ring.Point) bool {
	if b.Value < a.Value {
		return false
	}
	// A CPU does 1e6 ns of work per ms.
	hi, most := bits.Mul64(l.node.CPU/1000, uint64(b.Time-a.Time+imprecision))
	return hi > 0 || b.Value-a.Value <= most
}

// slipped reports whether a counter that went from a to b has fallen by no more than imprecise
// reading explains.
func slipped(a, b ring.Point) bool {
	return b.Value < a.Value && a.Value-b.Value <= uint64(b.Time-a.Time)*1e6/slip
}

// restarted reports whether a counter began again at start, between a and b: it fell, and cannot be
// further than what is possible since. Of a counter that may have slipped, a start that is no earlier
// than b is no evidence: some kubelets give the time of the answer as the start.
func restarted(a, b ring.Point, start sample.Time, l *limits) bool {
	if b.Value >= a.Value || start <= a.Time-imprecision || slipped(a, b) && b.Time-start < imprecision {
		return false
	}
	return l.fits(ring.Point{Time: start}, b)
}

// mayHaveRestarted reports whether a counter that did not fall may nevertheless have begun again at
// start, between a and b, and passed its old value since. Nothing tells such a restart from a start
// time that jumped.
func mayHaveRestarted(a, b ring.Point, start sample.Time, l *limits) bool {
	return start > a.Time-imprecision && b.Time-start >= imprecision && b.Value >= a.Value &&
		l.fits(ring.Point{Time: start}, b)
}

// tooMuch reports whether the node cannot have so much memory in use, nor a tenth less.
func (l *limits) tooMuch(memory uint64) bool {
	return memory > l.node.Memory && memory-l.node.Memory > l.node.Memory/10
}

// state is how the last answer that listed a container described it.
type state uint8

const (
	ended    state = iota // neither CPU nor memory, or nothing but zeros: it ended or never ran
	noCPU                 // memory only: its pod cannot be served
	noMemory              // CPU only: its pod cannot be served
	running               // both, or something was refused: it must have a usage for its pod to be served
)

func stateOf(s *sample.Sample) state {
	switch {
	case s.Given.Has(sample.Refused):
		return running
	case s.CPU == 0 && s.Memory == 0: // a value that is not given is zero, too
		return ended
	case s.Given.Has(sample.CPU | sample.Memory):
		return running
	case s.Given.Has(sample.CPU):
		return noMemory
	}
	return noCPU
}

// origin says why the samples of a series begin where they do.
type origin uint8

const (
	atStart origin = iota // the container started: its counter was zero then
	atSet                 // the counter or the clock was set
	atMove                // the start time moved: there may have been a restart
)

// series is the data of one container or node: its recent samples within one epoch, and the usage
// computed from them. Moments by this server's clock are time.Durations since the node's first answer
// (see node.since).
type series struct {
	id   *sample.ContainerID   // nil for a node
	name unique.Handle[string] // of the container, immutable; few names exist, so they stay in CPU caches

	state        state
	listed       bool          // of a container: it is in the last answer
	refused      bool          // the last sample was
	reason       sample.Reason // valid iff refused
	origin       origin
	clockSetBack bool // a sample was refused as older than the newest one
	hasSwap      bool

	// The usage; none if window is 0. It may be older than the newest sample.
	time, window       sample.Time
	rate, memory, swap uint64

	received time.Duration // when the newest sample was last received
	first    time.Duration // when the newest sample was first received
	start    sample.Time   // the first start time reported in this epoch, 0 if there was none
	points   ring.Ring     // the samples
	setAside *ring.Point   // a later sample that does not continue the counter; nil if none

	changed sample.Revision // of the last change of what is served
}

// record adds a sample that was received at now. It returns false if the store refuses the sample;
// s.reason is then why.
func (s *series) record(b *sample.Sample, now time.Duration, l *limits) bool {
	if !s.points.Empty() && s.disprovesNewest(b) {
		s.restart()
	}
	s.state, s.refused, s.reason = stateOf(b), b.Given.Has(sample.Refused), b.Why
	if s.state != running || !b.Given.Has(sample.CPU|sample.Memory) {
		return true
	}
	if b.Time == s.points[0].Time && b.Time > 0 {
		if now-s.first > l.frozen {
			return s.refuse(sample.Frozen)
		}
		s.received = now
		return true
	}
	if !s.points.Empty() && now-s.received > l.expiry {
		clockSetBack := s.clockSetBack
		s.restart() // also how a kubelet whose clock was set back recovers
		if clockSetBack {
			s.origin = atSet // the start may have been reported by the other clock
		}
	}
	switch {
	case b.Time <= 0:
		return s.refuse(sample.TimestampOld)
	case b.Time < s.points[0].Time:
		s.clockSetBack = true
		return s.refuse(sample.TimestampOld)
	case l.tooMuch(b.Memory):
		return s.refuse(sample.OverCapacity)
	}
	return s.add(b, now, l)
}

// disprovesNewest reports whether b was refused because of a zero that the newest sample has, too: it
// came before there was a sign that the zero is false.
func (s *series) disprovesNewest(b *sample.Sample) bool {
	if !b.Given.Has(sample.Refused) || b.Why != sample.Contradicted {
		return false
	}
	return !b.Given.Has(sample.CPU) && s.points[0].Value == 0 ||
		!b.Given.Has(sample.Memory) && s.window > 0 && s.memory == 0
}

func (s *series) refuse(reason sample.Reason) bool {
	s.refused, s.reason = true, reason
	return false
}

// restart begins an epoch without samples. If that takes the usage away, track notes it.
func (s *series) restart() {
	*s = series{id: s.id, name: s.name, listed: s.listed, state: s.state, changed: s.changed}
}

// distrustStart begins an epoch without samples, in which the start time does not serve as one. It
// keeps the usage.
func (s *series) distrustStart(why origin) {
	s.points, s.origin = ring.Ring{}, why
}

// waiting reports whether the epoch needs a second sample before it has a usage.
func (s *series) waiting() bool { return s.origin != atStart && s.points.Len() == 1 }

// add makes b the newest sample and computes the usage, or keeps the last one of the epoch. It returns
// false if b is refused.
func (s *series) add(b *sample.Sample, now time.Duration, l *limits) bool {
	p := ring.Point{Time: b.Time, Value: b.CPU}
	start := startOf(b)
	last := s.points[0]
	switch {
	case s.points.Empty():
	case restarted(last, p, start, l):
		s.restart()
	case s.clockSetBack, p.Time.Sub(last.Time) > now-s.first+maxStale:
		// The kubelet's clock was set back, or forward, as more time cannot have passed. A window
		// across that would be too short or too long. The last usage stays until there are two
		// samples by the new clock, but not if the clock was set again before that.
		if s.waiting() {
			s.window = 0
		}
		s.distrustStart(atSet)
		s.clockSetBack = false
	case start != s.start && (s.origin != atMove || !s.waiting()) && mayHaveRestarted(last, p, start, l):
		// A window across a restart would be too low, so wait for the next sample. That one ends the
		// wait even if the start moves again: some kubelets report another start each time.
		s.distrustStart(atMove)
	case l.fits(last, p):
	case slipped(last, p):
		if p.Time-last.Time <= maxSlipped {
			if now-s.first > l.frozen {
				return s.refuse(sample.Frozen) // the kubelet repeats b
			}
			s.received = now // a window that ended here would be too low, and the next one too high
			return true
		}
		p.Value = last.Value
	case s.setAside != nil && s.setAside.Time < p.Time && (l.fits(*s.setAside, p) || slipped(*s.setAside, p)):
		s.distrustStart(atSet) // two samples agree: the counter was set
		s.start = start
		s.points.Push(*s.setAside, l.apart)
		p.Value = max(p.Value, s.setAside.Value)
	default:
		again := s.setAside != nil && *s.setAside == p
		q := p // only this copy is allocated
		s.setAside = &q
		if p.Value > last.Value && !again {
			return s.refuse(sample.OverCapacity)
		}
		return true
	}
	s.setAside = nil
	s.first, s.received = now, now
	s.start = cmp.Or(s.start, start)
	s.points.Push(p, l.apart)
	if base, ok := s.base(l); ok {
		s.time, s.window = p.Time, p.Time-base.Time
		s.rate = min(ring.Rate(base, p), l.node.CPU)
		s.memory, s.swap, s.hasSwap = min(b.Memory, l.node.Memory), b.Swap, b.Given.Has(sample.Swap)
	}
	return true
}

// startOf returns the start time reported with b, 0 if there is none or it cannot be true.
func startOf(b *sample.Sample) sample.Time {
	if !b.Given.Has(sample.Start) || b.Start < 0 || b.Start > b.Time {
		return 0
	}
	return b.Start
}

// base returns the sample that the newest one is compared with.
func (s *series) base(l *limits) (p ring.Point, ok bool) {
	newest := s.points[0]
	if p, ok = s.points.Base(l.near); ok {
		return p, newest.Time-p.Time >= l.least
	}
	// The only sample: the counter was zero when the container started, unless it cannot have come
	// so far since.
	zero, age := ring.Point{Time: s.start}, newest.Time-s.start
	known := s.start > 0 && s.origin == atStart && age >= minWindow && age <= l.lifetime
	return zero, known && l.fits(zero, newest)
}

// usable reports whether there is a usage that may still be served at now.
func (s *series) usable(now time.Duration, l *limits) bool {
	return s.window > 0 && now-s.received <= l.expiry
}

// counts reports whether a container must have a usage for its pod to be served.
func (s *series) counts() bool { return s.listed && s.state != ended }

// serves reports whether a container that counts has what its pod needs of it.
func (s *series) serves(now time.Duration, l *limits) bool {
	return s.state == running && s.usable(now, l)
}

// span is the length of the usage's window.
func (s *series) span() time.Duration { return s.time.Sub(s.time - s.window) }

func (s *series) sample() sample.Usage {
	return sample.Usage{CPU: s.rate, Memory: s.memory, Swap: s.swap, HasSwap: s.hasSwap}
}
