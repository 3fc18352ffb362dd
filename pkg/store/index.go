package store

import (
	"slices"
	"sync"
	"time"
)

// numTables is into how many tables the pods are divided: to make one of them larger takes less than a millisecond.
const numTables = 64

// index says which nodes claim a pod, that is, list it in their last answer. A scrape touches it
// only when a pod appears, moves or leaves, and a reader for some microseconds. Its lock is a leaf: no other lock is taken under it.
type index struct {
	expiry time.Duration

	mu sync.RWMutex
	// Where the pod of a hash is, in a node that claims it; the only one if there is no contest. With names for keys, a look-up would
	// wait for the names. That two of a million pods have one hash is as likely as 1 in 40 million.
	pods     [numTables]table
	contests map[podKey]*contest
}

// contest is a conflict of rule 7: several nodes claim one pod. It outlives a short calm, so that
// a list that flaps changes nothing about who is served. With the API server's word it lasts as long
// as a node claims the pod: a pod never moves, and whoever claimed it wrongly must not get it by
// waiting.
type contest struct {
	claims []place   // of the nodes that claim the pod now; replaced, never changed in place
	owner  string    // whose it is according to the API server, "" if unknown
	pick   *node     // who was chosen last
	until  *node     // who is believed until the API server was asked; nil once it was
	calm   time.Time // since when no two claim it; zero if they do
}

func (x *index) init(expiry time.Duration) {
	x.expiry = expiry
	x.contests = map[podKey]*contest{}
}

func (x *index) table(hash uint64) *table { return &x.pods[hash%numTables] }

// claim notes that a node now lists the pod, at p, and reports whether others do so too: the API server has to
// be asked, also if the node claimed the pod before, for it may have moved back.
func (x *index) claim(k podKey, p place, received time.Time) (conflict bool) {
	hash := k.hash()
	t := x.table(hash)
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.get(hash).layout == nil {
		t.set(hash, p)
		return false
	}
	others, c := x.without(k, hash, p.node)
	if c == nil || c.owner == "" && !c.calm.IsZero() && received.Sub(c.calm) > x.expiry {
		c = &contest{}
		x.contests[k] = c
	}
	// A node that has long not answered counts too: its pods are not for others to speak for.
	c.claims = append(others, p)
	if len(others) > 0 {
		c.calm = time.Time{}
		if c.until = c.pick; c.until == nil {
			c.until = others[0].node
		}
	} else if c.calm.IsZero() {
		c.calm = received
	}
	return len(others) > 0
}

// move notes that the pod is at p now, in the node that claims it.
func (x *index) move(k podKey, p place) {
	hash := k.hash()
	t := x.table(hash)
	x.mu.Lock()
	defer x.mu.Unlock()
	if q := t.get(hash); q.layout != nil && q.node == p.node {
		t.set(hash, p)
	}
	if others, c := x.without(k, hash, p.node); c != nil {
		c.claims = append(others, p)
	}
}

// unclaim notes that n no longer lists the pod; a zero received says that n or the pod left the
// cluster.
func (x *index) unclaim(k podKey, n *node, received time.Time) {
	hash := k.hash()
	t := x.table(hash)
	x.mu.Lock()
	defer x.mu.Unlock()
	others, c := x.without(k, hash, n)
	if len(others) == 0 {
		t.delete(hash)
		delete(x.contests, k)
		return
	}
	t.set(hash, others[0])
	if c == nil {
		return
	}
	c.claims = others
	if len(others) > 1 {
		return
	}
	if received.IsZero() && c.owner == "" {
		delete(x.contests, k)
	} else if c.calm.IsZero() {
		c.calm = received
	}
}

// claims returns those of all nodes that claim the pod.
func (x *index) claims(k podKey) []place {
	hash := k.hash()
	x.mu.RLock()
	defer x.mu.RUnlock()
	all, _ := x.without(k, hash, nil)
	return all
}

// without returns the claims of the pod except for that of gone, and the contest if any.
func (x *index) without(k podKey, hash uint64, gone *node) ([]place, *contest) {
	if c := x.contests[k]; c != nil {
		return slices.DeleteFunc(slices.Clone(c.claims), func(p place) bool { return p.node == gone }), c
	}
	if p := x.table(hash).get(hash); p.layout != nil && p.node != gone {
		return []place{p}, nil
	}
	return nil, nil
}

// setOwner notes what the API server said, if it has, or that it was asked in vain.
func (x *index) setOwner(k podKey, owner string, said bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.contests[k]
	if c == nil {
		return
	}
	if c.until = nil; said {
		c.owner = owner
	}
}

// owner returns what the API server said, "" if it was not asked or could not say.
func (x *index) owner(k podKey) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if c := x.contests[k]; c != nil {
		return c.owner
	}
	return ""
}

// place returns where the pod is, in the node whose word about it counts: nowhere if no node lists it or none that may.
func (x *index) place(k podKey, now time.Time) place {
	hash := k.hash()
	x.mu.RLock()
	p, c := x.table(hash).get(hash), x.contests[k]
	if c == nil || len(c.claims) < 2 && c.owner == "" {
		x.mu.RUnlock()
		return p
	}
	claims, owner, pick, until := c.claims, c.owner, c.pick, c.until
	x.mu.RUnlock()

	if owner != "" {
		if i := slices.IndexFunc(claims, func(p place) bool { return p.node.name == owner }); i >= 0 {
			return claims[i]
		}
		return place{}
	}
	best := choose(k, claims, pick, until, now)
	if best.node != pick && until == nil {
		x.mu.Lock()
		if c.pick == pick {
			c.pick = best.node
		}
		x.mu.Unlock()
	}
	return best
}

// together is how many pods are looked up at once. The waits for memory overlap.
const together = 16

// places fills into with what place returns for each key. There are together at most.
func (x *index) places(keys []podKey, now time.Time, into []place) {
	var hashes [together]uint64
	for i, k := range keys {
		hashes[i] = k.hash()
	}
	if !x.uncontested(keys, hashes[:len(keys)], into) {
		for i, k := range keys {
			into[i] = x.place(k, now)
		}
	}
}

// uncontested is places if there is no contest about any of the pods, and says so.
func (x *index) uncontested(keys []podKey, hashes []uint64, into []place) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, hash := range hashes {
		x.table(hash).fetch(hash)
	}
	for i, hash := range hashes {
		into[i] = x.table(hash).get(hash)
	}
	return len(x.contests) == 0 || !slices.ContainsFunc(keys, func(k podKey) bool { return x.contests[k] != nil })
}

// choose applies what rule 7 says of the time before the API server's word. With equal starts the
// last choice stays: two nodes that take turns in having the newer sample must not take turns in
// being served.
func choose(k podKey, claims []place, pick, until *node, now time.Time) place {
	var best, believed place
	var of claim
	for _, p := range claims {
		if p.node.silent(now) {
			continue
		}
		if p.node == until {
			believed = p
		}
		if c := p.claim(k, now); best.layout == nil || c.beats(of, p.node, best.node, pick) {
			best, of = p, c
		}
	}
	switch {
	case believed.layout != nil:
		return believed
	case best.layout == nil:
		return claims[0] // all are silent: any can say so
	}
	return best
}
