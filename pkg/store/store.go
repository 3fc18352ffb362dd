// Package store keeps the recent samples of nodes and containers and computes their usage by the rules
// of docs/semantics.md. It is pure: it does no I/O, logs nothing and has no clock; the time is always
// an argument. All methods of Store may be called concurrently. Each node has its own lock, which a
// reader holds while it copies one usage. A reader never waits for the scrape of another node, except
// for the microsecond in which that updates the index.
package store

import (
	"sync"
	"sync/atomic"
	"time"

	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// Config is the configuration of a Store. A zero field means its default.
type Config struct {
	Resolution time.Duration // what the other two follow from; default 15 s
	Window     time.Duration // over which CPU is averaged; at least and by default Resolution
	Expiry     time.Duration // how long an answer is valid; default 4 Resolutions, at least a minute

	// Capacity returns how much CPU and memory a node has. It is called for each answer of the node and
	// must be fast. Default: unknown for every node.
	Capacity func(node string) sample.Capacity

	// Clock makes the revisions of changes. Default: one of the Store's own.
	Clock *revision.Clock
	// OnPodUnlisted is called with a pod when the last node that listed it does so no longer. It must be
	// fast and must not call the Store. Default: nothing.
	OnPodUnlisted func(namespace, name string)
}

func (c *Config) setDefaults() {
	if c.Resolution == 0 {
		c.Resolution = 15 * time.Second
	}
	if c.Window == 0 {
		c.Window = c.Resolution
	}
	if c.Expiry == 0 {
		c.Expiry = max(4*c.Resolution, time.Minute)
	}
	if c.Capacity == nil {
		c.Capacity = func(string) sample.Capacity { return sample.Capacity{} }
	}
	if c.Clock == nil {
		c.Clock = revision.NewClock(time.Unix(0, 0))
	}
	if c.OnPodUnlisted == nil {
		c.OnPodUnlisted = func(string, string) {}
	}
}

// Store keeps samples and serves usage. Make it with New.
type Store struct {
	limits   limits
	capacity func(node string) sample.Capacity
	clock    *revision.Clock
	index    podIndex
	points   atomic.Int64 // samples of containers
	owns     atomic.Int64 // samples of nodes

	mu    sync.RWMutex // guards the map only, never held while a node's lock is waited for
	nodes map[string]*node
}

// New returns an empty Store.
func New(c Config) *Store {
	c.setDefaults()
	s := &Store{limits: newLimits(c), capacity: c.Capacity, clock: c.Clock, nodes: map[string]*node{}}
	s.index.init(c.Expiry, c.Clock, c.OnPodUnlisted)
	return s
}

// Report describes how one answer was recorded.
type Report struct {
	// Settled: every pod that is listed has a usage, unless one of its containers is at most a minute
	// old, and so has the node, unless the answer lacks the node's own CPU or memory.
	Settled bool
	// Refused are the samples that the store refused.
	Refused sample.Refusals
	// Conflicts are pods that another node claims too, and about which the API server has to be
	// asked now: each is reported once, when this node begins to claim it or does so again.
	Conflicts []PodClaim
}

// PodClaim names a pod that several nodes claim.
type PodClaim struct {
	Namespace, Pod string
	Rival          string // a node that claimed the pod before
}

// Record stores an answer of a node's kubelet. received is when the answer arrived by this
// server's clock. b is not kept; its ContainerIDs are.
func (s *Store) Record(name string, b *sample.Batch, received time.Time) Report {
	n := s.lock(name, received)
	defer n.mu.Unlock()
	points, own := n.points, n.own.points.Len()
	r := n.record(b, s.capacity(name), received, &s.index, s.clock)
	s.count(n, points, own)
	return r
}

// count brings the counters up to date after n's samples have changed.
func (s *Store) count(n *node, points, own int) {
	if d := n.points - points; d != 0 {
		s.points.Add(int64(d))
	}
	if d := int64(n.own.points.Len() - own); d != 0 {
		s.owns.Add(d)
	}
}

// lock returns a node with its lock held. An unknown one is added.
func (s *Store) lock(name string, received time.Time) *node {
	for {
		n := s.node(name)
		if n == nil {
			s.mu.Lock()
			if n = s.nodes[name]; n == nil {
				n = newNode(name, s.limits, received)
				s.nodes[name] = n
			}
			s.mu.Unlock()
		}
		if n.lock() {
			return n
		}
	}
}

func (s *Store) node(name string) *node {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[name]
}

// RemoveNode forgets a node that left the cluster: its samples and its pods are gone at once.
func (s *Store) RemoveNode(name string) {
	s.mu.Lock()
	n := s.nodes[name]
	delete(s.nodes, name)
	s.mu.Unlock()
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removed = true
	points, own := n.points, n.own.points.Len()
	n.forget(&s.index, time.Time{})
	s.count(n, points, own)
}

// RemovePod drops the samples and claims of a pod that left the cluster or was replaced by a new one of
// the same name. A node that still lists it claims it again with its next answer; a container that a
// node only remembers is told from its successor by the start time (see layout.align).
func (s *Store) RemovePod(namespace, name string) {
	k := podKey{namespace, name}
	for _, p := range s.index.claims(k) {
		s.removePod(p.node(), k)
	}
}

// PodAppeared gives a pod's usage a new revision, if there is one: nobody could know it before, because
// only now the API server says that the pod exists.
func (s *Store) PodAppeared(namespace, name string, now time.Time) {
	k := podKey{namespace, name}
	for _, p := range s.index.claims(k) {
		p.touch(k, s.clock.Next(now))
	}
}

func (s *Store) removePod(n *node, k podKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	points := n.points
	n.removePod(k, &s.index)
	s.count(n, points, n.own.points.Len())
}

// Node returns the usage of a node, and whether there is one to be served. The revision says since when
// it is as it is, also if there is none; it is zero if the Store does not know.
func (s *Store) Node(name string, now time.Time) (sample.NodeUsage, bool) {
	n := s.node(name)
	if n == nil {
		return sample.NodeUsage{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.own.usable(n.since(now), &n.limits) {
		return sample.NodeUsage{Revision: n.revision(&n.own, now, s.clock)}, false
	}
	return sample.NodeUsage{
		Time: n.own.time, Window: n.own.span(), Usage: n.own.sample(), Revision: n.own.changed,
	}, true
}

// Pod fills into with the usage of a pod, its containers sorted by name, and reports whether there
// is one to be served. It reuses the memory of into.Containers. The revision says since when the usage
// is as it is, also if there is none; it is zero if the Store does not know.
func (s *Store) Pod(namespace, name string, now time.Time, into *sample.PodUsage) bool {
	k := podKey{namespace, name}
	p, since := s.index.place(k, now)
	return s.pod(p, since, k, now, into)
}

// batch is how many pods are looked up at once.
const batch = 16

// Pods fills into, which has the length of pods, with the usages of pods, as Pod does. A pod that cannot
// be served has no containers afterwards. It takes two thirds of the time of as many calls of Pod:
// look-ups are bound by cache misses, which overlap within a batch.
func (s *Store) Pods(pods []sample.Object, now time.Time, into []sample.PodUsage) {
	var places [batch]place
	var since [batch]sample.Revision
	for len(pods) > 0 {
		n := min(len(pods), batch)
		s.index.places(pods[:n], now, places[:n], since[:n])
		for i, p := range places[:n] {
			if !s.pod(p, since[i], keyOfPod(&pods[i]), now, &into[i]) {
				into[i] = sample.PodUsage{Containers: into[i].Containers[:0], Revision: into[i].Revision}
			}
		}
		pods, into = pods[n:], into[n:]
	}
}

// SetOwner records on which node the API server sees a pod that was reported in Report.Conflicts,
// "" if it cannot say. This holds until the next call, or until no node claims the pod any more.
func (s *Store) SetOwner(namespace, pod, node string) {
	s.index.setOwner(podKey{namespace, pod}, node, true)
}

// NoOwner notes that the API server was asked about a pod and did not say on which node it is. A former
// answer still counts.
func (s *Store) NoOwner(namespace, pod string) {
	s.index.setOwner(podKey{namespace, pod}, "", false)
}

// Disputed reports whether the API server has to be asked about a pod: several nodes claim it, or the
// API server named another node than the only one that does.
func (s *Store) Disputed(namespace, pod string) bool {
	return s.index.disputed(podKey{namespace, pod})
}

// Points returns how many samples of nodes and of containers are stored.
func (s *Store) Points() (nodes, containers int) {
	return int(s.owns.Load()), int(s.points.Load())
}
