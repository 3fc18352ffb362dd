// Package store keeps the recent samples of nodes and containers and works out their usage from
// them, by the rules of docs/semantics.md. It is pure: it does no I/O, logs nothing and has no
// clock; the time is an argument everywhere. All methods of Store may be called concurrently.
// Every node has a lock of its own that a reader holds as long as it takes to copy one usage; a
// reader never waits for the scrape of a node that it does not ask for, but for the microsecond in which that notes a pod that came or
// went (see index).
package store

import (
	"sync"
	"sync/atomic"
	"time"

	"metrics-server/pkg/sample"
)

// Config is what a Store is made of. A zero field means its default.
type Config struct {
	Resolution time.Duration // what the other two follow from; default 15 s
	Window     time.Duration // the window that a usage aims at; default Resolution
	Expiry     time.Duration // how long an answer is believed; default 4 Resolutions, at least a minute
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
}

// Store keeps samples and serves usage. Make it with New.
type Store struct {
	limits limits
	index  index
	points atomic.Int64 // samples of containers
	owns   atomic.Int64 // samples of nodes

	mu    sync.RWMutex // guards the map only, never held while a node's lock is waited for
	nodes map[string]*node
}

// New returns an empty Store.
func New(c Config) *Store {
	c.setDefaults()
	s := &Store{limits: newLimits(c.Window, c.Expiry), nodes: map[string]*node{}}
	s.index.init(c.Expiry)
	return s
}

// Report says what became of one answer.
type Report struct {
	// Settled: every pod that is listed has a usage, unless one of its containers is at most a minute
	// old, and so has the node, unless the answer lacks the node's own CPU or memory.
	Settled bool
	// Old is how many samples were refused as sample.TimestampOld.
	Old int
	// Excess is how many containers were left out because of MaxContainers.
	Excess int
	// Conflicts are pods that another node claims too, and about which the API server has to be
	// asked now: each is reported once, when this node begins to claim it or does so again.
	Conflicts []PodClaim
}

// PodClaim names a pod that several nodes claim.
type PodClaim struct{ Namespace, Pod string }

// Record stores an answer of a node's kubelet. received is when the answer arrived by this
// server's clock. b is not kept; its ContainerIDs are.
func (s *Store) Record(name string, b *sample.Batch, received time.Time) Report {
	b, excess := capped(b)
	n := s.lock(name, received)
	defer n.mu.Unlock()
	points, own := n.points, n.own.n
	r := n.record(b, received, &s.index)
	r.Excess = excess
	s.count(n, points, own)
	return r
}

// count brings the counters up to date after n's samples have changed.
func (s *Store) count(n *node, points int, own uint8) {
	if d := n.points - points; d != 0 {
		s.points.Add(int64(d))
	}
	if d := int64(n.own.n) - int64(own); d != 0 {
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
				n = newNode(name, &s.limits, received)
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
	points, own := n.points, n.own.n
	n.forget(&s.index, time.Time{})
	s.count(n, points, own)
}

// RemovePod forgets what nodes have said of a pod so far, because it left the cluster or was made
// anew under its name. A node that still lists it claims it anew with its next answer; what a node only
// remembers of it is told from a successor by the start time (see layout.align).
func (s *Store) RemovePod(namespace, name string) {
	k := podKey{namespace, name}
	for _, p := range s.index.claims(k) {
		s.removePod(p.node, k)
	}
}

func (s *Store) removePod(n *node, k podKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	points := n.points
	n.removePod(k, &s.index)
	s.count(n, points, n.own.n)
}

// Node returns the usage of a node, and whether there is one to be served.
func (s *Store) Node(name string, now time.Time) (sample.NodeUsage, bool) {
	n := s.node(name)
	if n == nil {
		return sample.NodeUsage{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.own.usable(n.since(now), n.limits) {
		return sample.NodeUsage{}, false
	}
	return sample.NodeUsage{Time: n.own.at, Window: n.own.span(), Usage: n.own.sample()}, true
}

// Pod fills into with the usage of a pod, its containers sorted by name, and reports whether there
// is one to be served. It reuses the memory of into.Containers.
func (s *Store) Pod(namespace, name string, now time.Time, into *sample.PodUsage) bool {
	k := podKey{namespace, name}
	p := s.index.place(k, now)
	return p.layout != nil && p.pod(k, now, into)
}

// Pods fills into, which is as long as pods, with the usages of pods as Pod does. One that has none to be served has no containers
// afterwards. It takes half the time of as many calls of Pod: each waits for memory again and again, as pods that follow one
// another by name are anywhere by node, and here the waits overlap.
func (s *Store) Pods(pods []sample.Object, now time.Time, into []sample.PodUsage) {
	var (
		keys   [together]podKey
		places [together]place
	)
	for len(pods) > 0 {
		n := min(len(pods), together)
		for i := range n {
			keys[i] = podKey{pods[i].Namespace, pods[i].Name}
		}
		s.index.places(keys[:n], now, places[:n])
		for _, p := range places[:n] {
			p.fetch()
		}
		for i, p := range places[:n] {
			if p.layout == nil || !p.pod(keys[i], now, &into[i]) {
				into[i] = sample.PodUsage{Containers: into[i].Containers[:0]}
			}
		}
		pods, into = pods[n:], into[n:]
	}
}

// SetOwner says on which node the API server sees a pod that was reported in Report.Conflicts, ""
// if it cannot say. It is heeded until it says something else, or no node claims the pod any more.
func (s *Store) SetOwner(namespace, pod, node string) {
	s.index.setOwner(podKey{namespace, pod}, node, true)
}

// NoOwner says that the API server was asked about a pod and did not say whose it is: what it said before, if anything, still
// counts.
func (s *Store) NoOwner(namespace, pod string) {
	s.index.setOwner(podKey{namespace, pod}, "", false)
}

// Points returns how many samples of nodes and of containers are stored.
func (s *Store) Points() (nodes, containers int) {
	return int(s.owns.Load()), int(s.points.Load())
}
