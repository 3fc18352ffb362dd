package scrape

import (
	"hash/fnv"
	"math/bits"
	"time"

	"metrics-server/pkg/sample"
)

// firstPace is the time between the first scrapes of two nodes, each of which costs a TLS handshake. 5,000
// nodes have been asked after 2.3 s, so the last of their follow-ups comes before second 23. If the CPU cannot keep
// that pace, the lane of healthy nodes fills and slows it down.
const firstPace = 450 * time.Microsecond

// followUps are the scrapes after a node's first success, while the Sink says that something still has
// no usage. A usage needs two samples at least 5 s apart, so the first is for kubelets that sample when they are asked,
// and for no others. Those sample a node every 10 s and a container every 10 to 20 s: at the second follow-up half of the pods with
// two containers have been sampled anew, at the fourth one all, and the last is for samples that took the kubelet a while.
var followUps = [...]time.Duration{
	5100 * time.Millisecond, 10800 * time.Millisecond, 15500 * time.Millisecond, 20050 * time.Millisecond, 20600 * time.Millisecond,
}

// plan computes when to scrape. It is a pure function of the period, the node's name, how many nodes there are and the past.
type plan struct{ period time.Duration }

// slots is how many there are in a period for so many nodes. Twenty to fifty nodes have the same one in a cluster of 200 to 5,000, more in
// a larger one, and are asked together: a processor that sleeps between any two scrapes needs several times the time for one.
func slots(nodes int) int {
	for _, n := range [...]int{5, 10, 20, 50} {
		if nodes <= 50*n {
			return n
		}
	}
	return 100
}

// phase is the place of a node's slot in each period, among so many nodes: in [0, period), evenly spread. As more nodes come, it moves
// by less than the distance of two slots.
func (p plan) phase(name string, nodes int) time.Duration {
	n := slots(nodes)
	i, _ := bits.Mul64(hash(name), uint64(n))
	return time.Duration(i) * (p.period / time.Duration(n))
}

func hash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return mix(h.Sum64())
}

// gap is how long after any other scrape of the same node its regular slot is, at least.
func (p plan) gap() time.Duration { return min(p.period/6, 2500*time.Millisecond) }

// slot is the first regular slot that is not before earliest. Slots are tied to the wall clock; if that is
// set, the slot moves once, and no scrape is more than a period late.
func (p plan) slot(phase time.Duration, earliest time.Time) time.Time {
	into := time.Duration(earliest.UnixNano()) % p.period
	wait := phase - into
	if wait < 0 {
		wait += p.period
	}
	return earliest.Add(wait)
}

// followUpGap is how long after any other scrape of the same node a follow-up is, at least.
const followUpGap = 500 * time.Millisecond

// followUp is the first follow-up that is not before earliest, if there is one. A period as short as the
// spacing of follow-ups needs none.
func (p plan) followUp(fresh, earliest time.Time, clocked bool) (time.Time, bool) {
	if p.period < 6*time.Second {
		return time.Time{}, false
	}
	due := followUps[:]
	if clocked {
		due = due[1:]
	}
	for _, d := range due {
		if t := fresh.Add(d); !t.Before(earliest) {
			return t, true
		}
	}
	return time.Time{}, false
}

// clocked reports whether a kubelet samples containers on clocks of their own, not when it is asked: then the samples of an
// answer are not all of one moment. It does not look at the node's, which may have a clock all the same.
func clocked(b *sample.Batch) bool {
	var first, last sample.Time
	for i := range b.Containers {
		if t := b.Containers[i].Time; t != 0 {
			if first == 0 {
				first = t
			}
			first, last = min(first, t), max(last, t)
		}
	}
	return last.Sub(first) > time.Second
}

// retry is the try after the second or a later failure in a row. Tries are at most 11/6 periods apart, so that
// a node that answers again is seen, and its answer stored, within two. The jitter depends on the node and the number
// of failures.
func (p plan) retry(name string, started time.Time, failures int) time.Time {
	wait := p.period * 11 / 6
	if failures <= 2 {
		wait = p.period * 3 / 2
	}
	jitter, _ := bits.Mul64(mix(hash(name)+uint64(failures)), uint64(p.period/4))
	return started.Add(wait - time.Duration(jitter))
}

// next is when to scrape n, one of so many nodes, after a scrape that began at started and ended at now. A node that fails once and has
// settled before is tried again at its regular slot: what it said is served meanwhile.
func (p plan) next(n *node, nodes int, started, now time.Time) time.Time {
	earliest := later(started.Add(p.gap()), now)
	switch {
	case n.status.Failures > 1:
		return later(p.retry(n.name, started, n.status.Failures), now)
	case n.status.doubtful():
		return earliest
	case n.status.Failures == 0 && !n.status.Settled:
		if t, ok := p.followUp(n.fresh, later(started.Add(followUpGap), now), n.clocked); ok {
			return t
		}
	}
	return p.slot(p.phase(n.name, nodes), earliest)
}

// mix spreads what differs in a few bits of x over all of them (the finaliser of MurmurHash3): FNV of names that
// differ in the last letters is not evenly spread in its high bits.
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
