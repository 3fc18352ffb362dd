package store

import (
	"slices"
	"sync"
	"time"

	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// podIndex knows which nodes claim a pod, that is, list it in their last answer. A scrape locks it only
// when a pod appears, moves or leaves, and a reader for some microseconds. While its lock is held, no
// other lock of this package is taken.
type podIndex struct {
	expiry     time.Duration
	clock      *revision.Clock
	onUnlisted func(namespace, name string)

	mu       sync.RWMutex
	pods     placeMap // of each pod, in the only node that claims it or in one of them
	contests map[podKey]*contest
}

// contest is a conflict of rule 7: several nodes claim one pod. It outlives a short interruption, so
// that a flapping list does not change which node is served. Once the API server has answered, it lasts
// as long as any node claims the pod: pods never move, and a wrong claim must not succeed by waiting.
type contest struct {
	claims     []place   // of the nodes that claim the pod now; replaced, never changed in place
	owner      string    // whose it is according to the API server, "" if unknown
	pick       *node     // who was chosen last
	until      *node     // trusted until the API server was asked; nil once it was
	quietSince time.Time // since when no two claim it; zero if they do

	// Another speaker is a change of the pod. Many things lead to one, also time alone, so it gets its
	// revision when it is first seen: nobody can know it before.
	speaker *node           // the node from which the pod was served last, nil if none was trusted
	changed sample.Revision // when the speaker changed, zero if it has not
}

func (x *podIndex) init(expiry time.Duration, clock *revision.Clock, onUnlisted func(namespace, name string)) {
	x.expiry, x.clock, x.onUnlisted = expiry, clock, onUnlisted
	x.pods = placeMap{}
	x.contests = map[podKey]*contest{}
}

// claim notes that a node now lists the pod, at p, and returns one of the other nodes that list it, nil
// if there is none. If there is one, the API server must be asked, even if the node claimed the pod
// before, because the pod may have moved back.
func (x *podIndex) claim(k podKey, p place, received time.Time) (rival *node) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.pods.get(k).layout == nil {
		x.pods.set(k, p)
		return nil
	}
	others, c := x.without(k, p.node())
	if c == nil {
		c = &contest{speaker: x.pods.get(k).node()}
		x.contests[k] = c
	} else if c.owner == "" && !c.quietSince.IsZero() && received.Sub(c.quietSince) > x.expiry {
		c.reset()
	}
	// A node that has not answered for long counts too: no other node may speak for its pods.
	c.claims = append(others, p)
	if len(others) == 0 {
		if c.quietSince.IsZero() {
			c.quietSince = received
		}
		return nil
	}
	c.quietSince = time.Time{}
	if c.until = c.pick; c.until == nil {
		c.until = others[0].node()
	}
	return others[0].node()
}

// reset forgets everything except what the revision of the pod depends on.
func (c *contest) reset() { *c = contest{claims: c.claims, speaker: c.speaker, changed: c.changed} }

// move notes that the pod is at p now, in the node that claims it.
func (x *podIndex) move(k podKey, p place) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if q := x.pods.get(k); q.layout != nil && q.node() == p.node() {
		x.pods.set(k, p)
	}
	if others, c := x.without(k, p.node()); c != nil {
		c.claims = append(others, p)
	}
}

// unclaim notes that n no longer lists the pod; a zero received says that n or the pod left the
// cluster.
func (x *podIndex) unclaim(k podKey, n *node, received time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	others, c := x.without(k, n)
	if len(others) == 0 {
		x.pods.delete(k)
		delete(x.contests, k)
		x.onUnlisted(k.namespace, k.name)
		return
	}
	x.pods.set(k, others[0])
	if c == nil {
		return
	}
	c.claims = others
	if len(others) > 1 {
		return
	}
	if received.IsZero() && c.owner == "" {
		c.reset()
	} else if c.quietSince.IsZero() {
		c.quietSince = received
	}
}

// claims returns those of all nodes that claim the pod.
func (x *podIndex) claims(k podKey) []place {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all, _ := x.without(k, nil)
	return all
}

// without returns the claims of the pod except for that of gone, and the contest if any.
func (x *podIndex) without(k podKey, gone *node) ([]place, *contest) {
	if c := x.contests[k]; c != nil {
		return slices.DeleteFunc(slices.Clone(c.claims), func(p place) bool { return p.node() == gone }), c
	}
	if p := x.pods.get(k); p.layout != nil && p.node() != gone {
		return []place{p}, nil
	}
	return nil, nil
}

// setOwner records the answer of the API server, or that it was asked without an answer.
func (x *podIndex) setOwner(k podKey, owner string, said bool) {
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

// disputed implements Store.Disputed.
func (x *podIndex) disputed(k podKey) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	c := x.contests[k]
	switch {
	case c == nil || len(c.claims) == 0:
		return false
	case len(c.claims) == 1:
		return c.owner != "" && c.owner != c.claims[0].node().name
	}
	return true
}

// owner returns what the API server said, "" if it was not asked or could not say.
func (x *podIndex) owner(k podKey) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if c := x.contests[k]; c != nil {
		return c.owner
	}
	return ""
}

// place returns the place of the pod in the node that speaks for it: nowhere if no node lists it, or
// none that is trusted. It also returns since when that node speaks for it, zero if there never was a
// conflict.
func (x *podIndex) place(k podKey, now time.Time) (place, sample.Revision) {
	x.mu.RLock()
	p, c := x.pods.get(k), x.contests[k]
	if c == nil {
		x.mu.RUnlock()
		return p, 0
	}
	seen := *c
	x.mu.RUnlock()

	p, pick := seen.decide(k, now)
	if p.node() == seen.speaker && pick == seen.pick {
		return p, seen.changed
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if c.pick == seen.pick {
		c.pick = pick
	}
	if c.speaker != seen.speaker { // another reader has seen a change meanwhile
		return p, seen.changed
	}
	if p.node() != c.speaker {
		c.speaker, c.changed = p.node(), x.clock.Next(now)
	}
	return p, c.changed
}

// places fills into and since with the results of place for pods.
func (x *podIndex) places(pods []sample.Object, now time.Time, into []place, since []sample.Revision) {
	x.mu.RLock()
	for i := range pods {
		into[i], since[i] = x.pods.get(keyOfPod(&pods[i])), 0
	}
	contested := len(x.contests) > 0
	x.mu.RUnlock()
	for i := 0; contested && i < len(pods); i++ {
		into[i], since[i] = x.place(keyOfPod(&pods[i]), now)
	}
}

// decide applies rule 7: it returns the place of the pod in the node that speaks for it, nowhere if
// that node does not list it, and who is the last choice now.
func (c *contest) decide(k podKey, now time.Time) (place, *node) {
	switch {
	case c.owner != "":
		if i := slices.IndexFunc(c.claims, func(p place) bool { return p.node().name == c.owner }); i >= 0 {
			return c.claims[i], c.pick
		}
		return place{}, c.pick
	case len(c.claims) == 1:
		return c.claims[0], c.pick
	}
	best := choose(k, c.claims, c.pick, c.until, now)
	if c.until != nil {
		return best, c.pick
	}
	return best, best.node()
}

// choose applies rule 7 as long as the API server has not answered. If the starts are equal, the
// last choice stays: two nodes that alternate in having the newer sample must not alternate in
// being served.
func choose(k podKey, claims []place, pick, until *node, now time.Time) place {
	var best, believed place
	var of claim
	for _, p := range claims {
		if p.node().silent(now) {
			continue
		}
		if p.node() == until {
			believed = p
		}
		if c := p.claim(k, now); best.layout == nil || c.beats(of, p.node(), best.node(), pick) {
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

// placeMap holds places by namespace and name. One map with both names as the key would take half as
// much memory again.
type placeMap map[string]map[string]place

// get returns the place of a pod, or nowhere.
func (m placeMap) get(k podKey) place { return m[k.namespace][k.name] }

func (m placeMap) set(k podKey, p place) {
	if m[k.namespace] == nil {
		m[k.namespace] = map[string]place{}
	}
	m[k.namespace][k.name] = p
}

func (m placeMap) delete(k podKey) {
	pods := m[k.namespace]
	if delete(pods, k.name); len(pods) == 0 {
		delete(m, k.namespace)
	}
}
