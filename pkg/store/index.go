package store

import (
	"slices"
	"sync"
	"time"
)

const numShards = 64

// index says which nodes claim a pod, that is, list it in their last answer. A scrape touches it
// only when a pod appears or leaves. Its locks are leaves: no other lock is taken under them.
type index struct {
	expiry time.Duration
	shards [numShards]shard
}

type shard struct {
	mu sync.RWMutex
	// A node that claims the pod of that hash; the only one if there is no contest. With names for keys, the map would be three times as large,
	// and each look-up would wait for the names in it. That two of a million pods have one hash is as likely as 1 in 40 million.
	pods     map[uint64]*node
	contests map[podKey]*contest
}

// contest is a conflict of rule 7: several nodes claim one pod. It outlives a short calm, so that
// a list that flaps changes nothing about who is served. With the API server's word it lasts as long
// as a node claims the pod: a pod never moves, and whoever claimed it wrongly must not get it by
// waiting.
type contest struct {
	nodes []*node   // who claims the pod now; replaced, never changed in place
	owner string    // whose it is according to the API server, "" if unknown
	pick  *node     // who was chosen last
	until *node     // who is believed until the API server was asked; nil once it was
	calm  time.Time // since when no two claim it; zero if they do
}

func (x *index) init(expiry time.Duration) {
	x.expiry = expiry
	for i := range x.shards {
		x.shards[i].pods = map[uint64]*node{}
		x.shards[i].contests = map[podKey]*contest{}
	}
}

func (x *index) shard(hash uint64) *shard {
	return &x.shards[hash%numShards]
}

// claim notes that n now lists the pod, and reports whether others do so too: the API server has to
// be asked, also if n claimed the pod before, for it may have moved back.
func (x *index) claim(k podKey, n *node, received time.Time) (conflict bool) {
	hash := k.hash()
	sh := x.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.pods[hash] == nil {
		sh.pods[hash] = n
		return false
	}
	nodes, c := sh.without(k, hash, n)
	if c == nil || c.owner == "" && !c.calm.IsZero() && received.Sub(c.calm) > x.expiry {
		c = &contest{}
		sh.contests[k] = c
	}
	// A node that has long not answered counts too: its pods are not for others to speak for.
	c.nodes = append(nodes, n)
	if len(nodes) > 0 {
		c.calm = time.Time{}
		if c.until = c.pick; c.until == nil {
			c.until = nodes[0]
		}
	} else if c.calm.IsZero() {
		c.calm = received
	}
	return len(nodes) > 0
}

// unclaim notes that n no longer lists the pod; a zero received says that n or the pod left the
// cluster.
func (x *index) unclaim(k podKey, n *node, received time.Time) {
	hash := k.hash()
	sh := x.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	nodes, c := sh.without(k, hash, n)
	if len(nodes) == 0 {
		delete(sh.pods, hash)
		delete(sh.contests, k)
		return
	}
	sh.pods[hash] = nodes[0]
	if c == nil {
		return
	}
	c.nodes = nodes
	if len(nodes) > 1 {
		return
	}
	if received.IsZero() && c.owner == "" {
		delete(sh.contests, k)
	} else if c.calm.IsZero() {
		c.calm = received
	}
}

// claimants returns the nodes that claim the pod.
func (x *index) claimants(k podKey) []*node {
	hash := k.hash()
	sh := x.shard(hash)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	nodes, _ := sh.without(k, hash, nil)
	return nodes
}

// without returns who claims the pod except for gone, and the contest if any.
func (sh *shard) without(k podKey, hash uint64, gone *node) ([]*node, *contest) {
	if c := sh.contests[k]; c != nil {
		return slices.DeleteFunc(slices.Clone(c.nodes), func(o *node) bool { return o == gone }), c
	}
	if n := sh.pods[hash]; n != nil && n != gone {
		return []*node{n}, nil
	}
	return nil, nil
}

// setOwner notes what the API server said, if it has, or that it was asked in vain.
func (x *index) setOwner(k podKey, owner string, said bool) {
	sh := x.shard(k.hash())
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.contests[k]
	if c == nil {
		return
	}
	if c.until = nil; said {
		c.owner = owner
	}
}

// owner returns what the API server said, "" if it was not asked or could not say.
func (x *index) owner(k podKey) string {
	sh := x.shard(k.hash())
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if c := sh.contests[k]; c != nil {
		return c.owner
	}
	return ""
}

// node returns the node whose word about the pod of that hash counts, nil if no node lists it or none that may.
func (x *index) node(k podKey, hash uint64, now time.Time) *node {
	sh := x.shard(hash)
	sh.mu.RLock()
	n, c := sh.pods[hash], sh.contests[k]
	if c == nil || len(c.nodes) < 2 && c.owner == "" {
		sh.mu.RUnlock()
		return n
	}
	nodes, owner, pick, until := c.nodes, c.owner, c.pick, c.until
	sh.mu.RUnlock()

	if owner != "" {
		if i := slices.IndexFunc(nodes, func(n *node) bool { return n.name == owner }); i >= 0 {
			return nodes[i]
		}
		return nil
	}
	best := choose(k, nodes, pick, until, now)
	if best != pick && until == nil {
		sh.mu.Lock()
		if c.pick == pick {
			c.pick = best
		}
		sh.mu.Unlock()
	}
	return best
}

// choose applies what rule 7 says of the time before the API server's word. With equal starts the
// last choice stays: two nodes that take turns in having the newer sample must not take turns in
// being served.
func choose(k podKey, nodes []*node, pick, until *node, now time.Time) *node {
	var best *node
	var of claim
	stays := false
	for _, n := range nodes {
		if n.silent(now) {
			continue
		}
		stays = stays || n == until
		if c := n.claim(k, now); best == nil || c.beats(of, n, best, pick) {
			best, of = n, c
		}
	}
	switch {
	case stays:
		return until
	case best == nil:
		return nodes[0] // all are silent: any can say so
	}
	return best
}
