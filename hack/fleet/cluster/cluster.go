// Package cluster is the state of a simulated cluster: its nodes and pods, those that were deleted recently,
// and each change as an event. The API server and the kubelets serve it; the checker compares answers with it.
//
// All that is reachable from a Pod or a Node is immutable: a change makes a new one. A Cluster's methods may be
// called from any goroutine; only Churn and Heartbeats change it.
package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
)

// Config describes a Cluster. Nodes, Pods and Containers must be set.
type Config struct {
	Nodes      int
	Pods       int // on each node
	Containers int // in each pod
	Replicas   int // of each workload; 10 by default
	Faulty     int // percent of the nodes
	Port       int // of all kubelets
	Now        time.Time
	Away       time.Duration // between the end of a pod and the start of its replacement, at least
}

// Machine is the part of a node that never changes.
type Machine struct {
	Index  int
	Name   string
	Addr   netip.AddrPort // of its kubelet
	Seed   uint64
	Boot   time.Time
	Faulty bool
	Fault  int // counts the faulty nodes
}

// Node is a node as the API server knows it.
type Node struct {
	*Machine
	Joined    time.Time // zero if it existed from the beginning
	Version   uint64
	Heartbeat time.Time
}

// Workload is an owner of pods: a Deployment, or a StatefulSet.
type Workload struct {
	Namespace, Name string
	Stateful        bool
	Hash            string            // of its pods' template
	Labels          map[string]string // of its pods; the pods of a StatefulSet have two more
}

// Pod is a pod. All its containers run.
type Pod struct {
	*Workload
	Name     string
	Ordinal  int
	Seed     uint64
	Machine  *Machine
	Created  time.Time
	Started  []time.Time // of each container
	Restarts int         // of container 0
	Version  uint64
}

// Simulated returns p as its kubelet needs to know it.
func (p *Pod) Simulated() kubelettest.Pod {
	return kubelettest.Pod{Namespace: p.Namespace, Name: p.Name, Seed: p.Seed, Started: p.Started}
}

// IP returns the pod's address: 10.0.0.0/8 with the last 24 bits of its seed.
func (p *Pod) IP() netip.Addr { return IP(p.Seed) }

// IP returns the address of a pod with that seed.
func IP(seed uint64) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(seed >> 16), byte(seed >> 8), byte(seed)})
}

// UID returns the pod's UID.
func (p *Pod) UID() string { return uid(p.Seed) }

// UID returns the node's UID.
func (m *Machine) UID() string { return uid(m.Seed) }

func uid(seed uint64) string {
	a, b := hash(seed, 1), hash(seed, 2)
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0xfff, b&0xffffffffffff)
}

// Past is an earlier state of a pod.
type Past struct {
	*Pod
	Until time.Time
}

// PastNode is a node that left.
type PastNode struct {
	*Node
	Until time.Time
}

// Cluster is the cluster. Make one with New.
type Cluster struct {
	config Config

	mu         sync.RWMutex
	version    uint64
	nodes      []*Node        // sorted by name
	position   map[string]int // in nodes, by name
	running    [][]*Pod       // by Machine.Index
	namespaces []*namespace
	byName     map[string]*namespace
	past       map[string][]Past   // by namespace and name
	pastNodes  map[string]PastNode // the last one of each name
	NodeLog    Log
	PodLog     Log

	autoscalers   []*Autoscaler // sorted by namespace and name
	AutoscalerLog Log
}

type namespace struct {
	name string
	pods []*Pod // sorted by name
}

const (
	// perNamespace is how many workloads a namespace has.
	perNamespace = 20
	// remembered is how long a deleted pod is remembered.
	remembered = 5 * time.Minute
)

// New returns a cluster whose pods have run for some time.
func New(c Config) *Cluster {
	replicas := cmp.Or(c.Replicas, 10)
	s := &Cluster{
		config:    c,
		version:   1000,
		position:  make(map[string]int, c.Nodes),
		running:   make([][]*Pod, c.Nodes),
		byName:    map[string]*namespace{},
		past:      map[string][]Past{},
		pastNodes: map[string]PastNode{},
	}
	s.NodeLog.init(s.version)
	s.PodLog.init(s.version)
	s.AutoscalerLog.init(s.version)
	machines := make([]*Machine, c.Nodes)
	faults := 0
	for i := range machines {
		m := newMachine(i, c)
		if m.Faulty {
			m.Fault = faults
			faults++
		}
		machines[i] = m
		// Heartbeats are spread over their period.
		at := c.Now.Add(-HeartbeatPeriod * time.Duration(i) / time.Duration(c.Nodes))
		s.nodes = append(s.nodes, &Node{Machine: m, Version: s.version, Heartbeat: at})
	}
	slices.SortFunc(s.nodes, func(a, b *Node) int { return strings.Compare(a.Name, b.Name) })
	s.renumberNodes()

	var w *Workload
	for g := range c.Nodes * c.Pods {
		if g%replicas == 0 {
			w = newWorkload(g / replicas)
		}
		// Neighbours are on different nodes, as a scheduler spreads the pods of a workload.
		m := machines[g%c.Nodes]
		h := hash(uint64(g), 7)
		created := c.Now.Add(-time.Hour - time.Duration(h%(240*3600))*time.Second)
		p := &Pod{Workload: w, Ordinal: g % replicas, Seed: uint64(g) + 1, Machine: m, Created: created, Version: s.version}
		p.Name = w.podName(p.Ordinal, h)
		p.Started = starts(created, c.Containers)
		s.running[m.Index] = append(s.running[m.Index], p)
		ns := s.byName[w.Namespace]
		if ns == nil {
			ns = &namespace{name: w.Namespace}
			s.byName[w.Namespace] = ns
			s.namespaces = append(s.namespaces, ns)
		}
		ns.pods = append(ns.pods, p)
	}
	slices.SortFunc(s.namespaces, func(a, b *namespace) int { return strings.Compare(a.name, b.name) })
	for _, ns := range s.namespaces {
		slices.SortFunc(ns.pods, func(a, b *Pod) int { return strings.Compare(a.Name, b.Name) })
	}
	return s
}

func newMachine(i int, c Config) *Machine {
	n := uint32(i + 1)
	ip := netip.AddrFrom4([4]byte{127, 16 + byte(n>>16), byte(n >> 8), byte(n)})
	return &Machine{
		Index:  i,
		Name:   fmt.Sprintf("ip-127-%d-%d-%d.fleet.internal", ip.As4()[1], ip.As4()[2], ip.As4()[3]),
		Addr:   netip.AddrPortFrom(ip, uint16(c.Port)),
		Seed:   hash(uint64(i), 11),
		Boot:   c.Now.Add(-300 * time.Hour),
		Faulty: i*c.Faulty/100 != (i+1)*c.Faulty/100, // evenly among the others
	}
}

func newWorkload(w int) *Workload {
	h := hash(uint64(w), 13)
	first := []string{"cart", "auth", "mail", "feed", "shop", "geo", "jobs", "media", "pay", "chat"}
	second := []string{"api", "web", "db", "cache", "queue", "sync", "ui"}
	name := fmt.Sprintf("%s-%s-%d", first[h%10], second[h>>8%7], w%perNamespace)
	s := &Workload{
		Namespace: fmt.Sprintf("team-%04d", w/perNamespace),
		Name:      name,
		Stateful:  w%8 == 7,
		Hash:      fmt.Sprintf("%08x", uint32(h>>16)),
	}
	s.Labels = map[string]string{
		"app":                          name,
		"app.kubernetes.io/name":       name,
		"app.kubernetes.io/instance":   s.Namespace + "-" + name,
		"app.kubernetes.io/managed-by": "Helm",
		"helm.sh/chart":                name + "-1.4.2",
	}
	if s.Stateful {
		s.Labels["controller-revision-hash"] = name + "-" + s.Hash
	} else {
		s.Labels["pod-template-hash"] = s.Hash
	}
	return s
}

// podName returns the name of a pod. In a Deployment, seed makes the names differ.
func (w *Workload) podName(ordinal int, seed uint64) string {
	if w.Stateful {
		return fmt.Sprintf("%s-%d", w.Name, ordinal)
	}
	return fmt.Sprintf("%s-%s-%05x", w.Name, w.Hash, hash(seed, 17)&0xfffff)
}

// PodLabels returns the labels of p. They must not be changed.
func (p *Pod) PodLabels() map[string]string {
	if !p.Stateful {
		return p.Labels
	}
	l := maps.Clone(p.Labels)
	l["statefulset.kubernetes.io/pod-name"] = p.Name
	l["apps.kubernetes.io/pod-index"] = fmt.Sprint(p.Ordinal)
	return l
}

func starts(at time.Time, containers int) []time.Time {
	s := make([]time.Time, containers)
	for i := range s {
		s[i] = at.Add(time.Duration(i+1) * 1300 * time.Millisecond).Truncate(time.Millisecond)
	}
	return s
}

// Config returns the Config of the cluster.
func (s *Cluster) Config() Config { return s.config }

// Nodes returns all nodes, sorted by name, and the version that this is.
func (s *Cluster) Nodes() ([]*Node, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.nodes), s.version
}

// Node returns the node of that name, or nil.
func (s *Cluster) Node(name string) *Node {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if i, ok := s.position[name]; ok {
		return s.nodes[i]
	}
	return nil
}

// PastNode returns the node that had that name and left, if there was one.
func (s *Cluster) PastNode(name string) (PastNode, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.pastNodes[name]
	return p, ok
}

// Pods returns the pods of a namespace, or of all if it is empty, sorted, and the version that this is.
func (s *Cluster) Pods(in string) ([]*Pod, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if in != "" {
		if ns := s.byName[in]; ns != nil {
			return slices.Clone(ns.pods), s.version
		}
		return nil, s.version
	}
	n := 0
	for _, ns := range s.namespaces {
		n += len(ns.pods)
	}
	all := make([]*Pod, 0, n)
	for _, ns := range s.namespaces {
		all = append(all, ns.pods...)
	}
	return all, s.version
}

// Namespaces returns the names of all namespaces that have pods.
func (s *Cluster) Namespaces() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, len(s.namespaces))
	for i, ns := range s.namespaces {
		names[i] = ns.name
	}
	return names
}

// Pod returns a pod, or nil.
func (s *Cluster) Pod(in, name string) *Pod {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ns := s.byName[in]; ns != nil {
		if i, ok := ns.find(name); ok {
			return ns.pods[i]
		}
	}
	return nil
}

// Past returns the recent earlier pods of that name, and earlier states of the current one.
func (s *Cluster) Past(in, name string) []Past {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.past[in+"/"+name])
}

// Version returns the version of the last change.
func (s *Cluster) Version() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version
}

// On returns the pods on a node as its kubelet needs to know them.
func (s *Cluster) On(m *Machine) []kubelettest.Pod {
	s.mu.RLock()
	defer s.mu.RUnlock()
	pods := make([]kubelettest.Pod, 0, len(s.running[m.Index])) // not nil, because that means something else
	for _, p := range s.running[m.Index] {
		pods = append(pods, p.Simulated())
	}
	return pods
}

// Runs reports whether p runs unchanged, as far as its kubelet knows: it is the first to know of a change.
func (s *Cluster) Runs(p *Pod) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Contains(s.running[p.Machine.Index], p)
}

func (ns *namespace) find(name string) (int, bool) {
	return slices.BinarySearchFunc(ns.pods, name, func(p *Pod, name string) int { return cmp.Compare(p.Name, name) })
}

// hash hashes its arguments to reproducible numbers that look random.
func hash(a, b uint64) uint64 {
	h := a*0x9e3779b97f4a7c15 ^ (b+1)*0xd6e8feb86659fd93
	for range 3 {
		h ^= h >> 32
		h *= 0xd6e8feb86659fd93
	}
	return h ^ h>>32
}
