package schedule

import (
	"hash/fnv"
	"math/bits"
	"time"
)

// firstPace is the time between the first scrapes of two targets, each of which may take a TLS
// handshake. After 2.3 s, 5,000 targets have been asked. If the CPU cannot keep that pace, the lane
// of healthy targets fills up and slows it down.
const firstPace = 450 * time.Microsecond

// plan computes when to scrape. It is a pure function of the period, the target's name, the number of
// targets and the past.
type plan struct{ period time.Duration }

// slots returns the number of slots in a period. Of 200 to 80,000 targets, twenty to fifty share a
// slot and are scraped together: a processor that sleeps between any two scrapes takes several times
// as long for one. With more targets in a slot, requests would wait longer, because whatever arrives
// while all processors are busy is served after the scrapes that are ready.
func slots(targets int) int {
	for _, n := range [...]int{5, 10, 20, 50, 100, 200, 400, 800} {
		if targets <= 50*n {
			return n
		}
	}
	return 1600
}

// phase returns the offset of a target's slot in each period: in [0, period), evenly spread. When the
// number of targets changes, it moves by less than the distance between two slots.
func (p plan) phase(name string, targets int) time.Duration {
	n := slots(targets)
	i, _ := bits.Mul64(hash(name), uint64(n))
	return time.Duration(i) * (p.period / time.Duration(n))
}

func hash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return mix(h.Sum64())
}

// gap returns the least time between a target's regular slot and its previous scrape.
func (p plan) gap() time.Duration { return min(p.period/6, 2500*time.Millisecond) }

// hasteGap returns the least time between two hastened scrapes of a target.
func (p plan) hasteGap() time.Duration { return p.period / 3 }

// slot returns the first regular slot that is not before earliest. Slots are tied to the wall
// clock; if that is set, the slot moves once, and no scrape is late by more than a period.
func (p plan) slot(phase time.Duration, earliest time.Time) time.Time {
	into := time.Duration(earliest.UnixNano()) % p.period
	wait := phase - into
	if wait < 0 {
		wait += p.period
	}
	return earliest.Add(wait)
}

// followUpGap is the least time between a follow-up and the target's previous scrape.
const followUpGap = 500 * time.Millisecond

// retry returns the time of the attempt after the second or a later consecutive failure. Attempts
// are at most 11/6 periods apart, so that the answer of a target that has recovered comes within
// two. The jitter depends on the name and the number of failures.
func (p plan) retry(name string, started time.Time, failures int) time.Time {
	wait := p.period * 11 / 6
	if failures <= 2 {
		wait = p.period * 3 / 2
	}
	jitter, _ := bits.Mul64(mix(hash(name)+uint64(failures)), uint64(p.period/4))
	return started.Add(wait - time.Duration(jitter))
}

// next returns when to scrape e, one of so many targets, after a scrape that began at started and
// ended at now. followUps are those of its Result. A target that fails once after it had settled is
// tried again at its regular slot, because its last answer is used meanwhile.
func (p plan) next(e *entry, targets int, followUps []time.Duration, started, now time.Time) time.Time {
	earliest := later(started.Add(p.gap()), now)
	switch {
	case e.status.Failures > 1:
		return later(p.retry(e.name, started, e.status.Failures), now)
	case e.status.doubtful():
		return earliest
	case e.status.Failures == 0 && !e.status.Settled:
		for _, d := range followUps {
			if t := e.firstSuccess.Add(d); !t.Before(later(started.Add(followUpGap), now)) {
				return t
			}
		}
	}
	return p.slot(p.phase(e.name, targets), earliest)
}

// mix spreads differences in a few bits of x over all bits (the finaliser of MurmurHash3): the high
// bits of FNV are not evenly distributed for names that differ in their last letters.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
