package cluster

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
)

// HeartbeatPeriod is how often the status of a node is written although nothing changed, as kubelets do.
const HeartbeatPeriod = 5 * time.Minute

// Heartbeats writes the status of each node every HeartbeatPeriod until ctx ends.
func (s *Cluster) Heartbeats(ctx context.Context) {
	tick := time.NewTicker(max(HeartbeatPeriod/time.Duration(s.config.Nodes), time.Millisecond))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.Heartbeat(i%s.config.Nodes, now)
		}
	}
}

// Heartbeat writes the status of the i-th node by name.
func (s *Cluster) Heartbeat(i int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i < len(s.nodes) { // some may have left
		s.status(i, s.nodes[i].Machine, now)
	}
}

// status writes the status of m, the i-th node. mu is held.
func (s *Cluster) status(i int, m *Machine, now time.Time) {
	s.version++
	n := &Node{Machine: m, Joined: s.nodes[i].Joined, Version: s.version, Heartbeat: now}
	s.nodes[i] = n
	s.NodeLog.add(Event{Type: "MODIFIED", Version: s.version, Object: n})
}

// Tell tells the kubelet of m its pods.
type Tell func(m *Machine, pods []kubelettest.Pod) error

// Churn restarts containers and replaces pods, rate of them a second, until ctx ends or tell fails.
// The kubelet knows of a change before the API server does, because it starts and ends the
// containers.
func (s *Cluster) Churn(ctx context.Context, rate float64, tell Tell) error {
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	c := s.NewChurner(tell)
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := c.Step(now); err != nil {
				return err
			}
		}
	}
}

// Churner changes a cluster step by step. Only one goroutine may use it, and a cluster may have
// only one.
type Churner struct {
	cluster *Cluster
	tell    Tell
	random  *rand.Rand
	steps   int
	waiting []deleted // to be replaced
}

type deleted struct {
	*Pod
	at time.Time
}

// NewChurner returns a Churner that tells the kubelets by tell.
func (s *Cluster) NewChurner(tell Tell) *Churner {
	return &Churner{cluster: s, tell: tell, random: rand.New(rand.NewPCG(1, 2))}
}

// Step restarts a container, deletes a pod, or starts the replacements of pods that were deleted
// some time ago, in turn.
func (c *Churner) Step(now time.Time) error {
	defer func() { c.steps++ }()
	switch c.steps % 3 {
	case 0:
		return c.cluster.Restart(c.cluster.any(c.random), now, c.tell)
	case 1:
		p := c.cluster.any(c.random)
		c.waiting = append(c.waiting, deleted{p, now})
		return c.cluster.Delete(p, now, c.tell)
	}
	return c.replace(now, c.cluster.config.Away)
}

// Leave removes a node from the cluster and starts its pods on other nodes.
func (c *Churner) Leave(m *Machine, now time.Time) {
	for _, p := range c.cluster.RemoveNode(m, now) {
		c.waiting = append(c.waiting, deleted{p, now})
	}
}

// Settle starts all replacements that are still due.
func (c *Churner) Settle(now time.Time) error { return c.replace(now, 0) }

func (c *Churner) replace(now time.Time, away time.Duration) error {
	for len(c.waiting) > 0 && now.Sub(c.waiting[0].at) >= away {
		p := c.waiting[0].Pod
		c.waiting = c.waiting[1:]
		if err := c.cluster.Replace(p, c.random.Int(), c.random.Uint64(), now, c.tell); err != nil {
			return err
		}
	}
	return nil
}

// any returns some pod.
func (s *Cluster) any(random *rand.Rand) *Pod {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for {
		if pods := s.running[random.IntN(len(s.running))]; len(pods) > 0 {
			return pods[random.IntN(len(pods))]
		}
	}
}

// Restart restarts the first container of p.
func (s *Cluster) Restart(p *Pod, now time.Time, tell Tell) error {
	restarted := *p
	restarted.Started = slices.Clone(p.Started)
	restarted.Started[0] = now.Truncate(time.Millisecond)
	restarted.Restarts++
	return s.change(p, &restarted, now, tell)
}

// Delete deletes p.
func (s *Cluster) Delete(p *Pod, now time.Time, tell Tell) error { return s.change(p, nil, now, tell) }

// Replace starts what the owner of p creates in its place. It runs on the same node if that still
// exists, the owner is a StatefulSet and the seed is even; otherwise on a node that the number
// selects.
func (s *Cluster) Replace(p *Pod, node int, seed uint64, now time.Time, tell Tell) error {
	fresh := *p
	fresh.Seed = seed | 1<<63 // the first pods have small ones
	fresh.Created = now.Truncate(time.Second)
	fresh.Name = p.podName(p.Ordinal, fresh.Seed)
	fresh.Started = starts(now, len(p.Started))
	fresh.Restarts = 0
	fresh.Machine = s.machine(node)
	if same := s.Node(p.Machine.Name); same != nil && p.Stateful && seed%2 == 0 {
		fresh.Machine = same.Machine // perhaps another one under the name
	}
	return s.change(nil, &fresh, now, tell)
}

func (s *Cluster) machine(i int) *Machine {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[i%len(s.nodes)].Machine
}

// change replaces before with after, one of which may be nil.
func (s *Cluster) change(before, after *Pod, now time.Time, tell Tell) error {
	m := before
	if m == nil {
		m = after
	}
	s.mu.Lock()
	pods := slices.DeleteFunc(slices.Clone(s.running[m.Machine.Index]), func(p *Pod) bool { return p == before })
	if after != nil {
		pods = append(pods, after)
	}
	s.running[m.Machine.Index] = pods
	s.mu.Unlock()
	if err := tell(m.Machine, s.On(m.Machine)); err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	ns := s.byName[m.Namespace]
	i, _ := ns.find(m.Name)
	e := Event{Version: s.version}
	switch {
	case after == nil:
		e.Type = "DELETED"
		gone := *before
		gone.Version = s.version
		e.Object = &gone
		ns.pods = slices.Delete(ns.pods, i, i+1)
	case before == nil:
		e.Type, e.Object = "ADDED", after
		after.Version = s.version
		ns.pods = slices.Insert(ns.pods, i, after)
	default:
		e.Type, e.Object = "MODIFIED", after
		after.Version = s.version
		ns.pods[i] = after
	}
	if before != nil {
		s.remember(before, now)
	}
	s.PodLog.add(e)
	return nil
}

// RemoveNode removes a node from the cluster, and returns the pods that were on it, which are gone.
// Its kubelet must have ended.
func (s *Cluster) RemoveNode(m *Machine, now time.Time) []*Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.position[m.Name]
	gone := *s.nodes[i]
	s.nodes = slices.Delete(slices.Clone(s.nodes), i, i+1)
	s.version++
	gone.Version = s.version
	s.NodeLog.add(Event{Type: "DELETED", Version: s.version, Object: &gone})
	s.pastNodes[m.Name] = PastNode{Node: &gone, Until: now}
	s.renumberNodes()
	pods := s.running[m.Index]
	s.running[m.Index] = nil
	for _, p := range pods {
		ns := s.byName[p.Namespace]
		at, _ := ns.find(p.Name)
		ns.pods = slices.Delete(ns.pods, at, at+1)
		s.version++
		gone := *p
		gone.Version = s.version
		s.PodLog.add(Event{Type: "DELETED", Version: s.version, Object: &gone})
		s.remember(p, now)
	}
	return pods
}

// AddNode adds a node without pods. One that left returns under its name, as a new node. Its
// kubelet is told.
func (s *Cluster) AddNode(m *Machine, now time.Time, tell Tell) error {
	fresh := *m
	fresh.Seed = hash(m.Seed, 19)
	fresh.Boot = now.Add(-time.Hour)
	if err := tell(&fresh, []kubelettest.Pod{}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	n := &Node{Machine: &fresh, Joined: now, Version: s.version, Heartbeat: now}
	i, _ := slices.BinarySearchFunc(s.nodes, n.Name,
		func(n *Node, name string) int { return strings.Compare(n.Name, name) })
	s.nodes = slices.Insert(slices.Clone(s.nodes), i, n)
	s.renumberNodes()
	s.NodeLog.add(Event{Type: "ADDED", Version: s.version, Object: n})
	return nil
}

// MoveNode changes the address or port of a node's kubelet in its status.
func (s *Cluster) MoveNode(m *Machine, to netip.AddrPort, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := *m
	moved.Addr = to
	s.status(s.position[m.Name], &moved, now)
}

func (s *Cluster) renumberNodes() {
	clear(s.position)
	for i, n := range s.nodes {
		s.position[n.Name] = i
	}
}

func (s *Cluster) remember(p *Pod, now time.Time) {
	key := p.Namespace + "/" + p.Name
	s.past[key] = append(s.past[key], Past{Pod: p, Until: now})
	// From time to time, the others that are too old are forgotten.
	if s.version%1000 != 0 {
		return
	}
	for key, past := range s.past {
		past = slices.DeleteFunc(past, func(p Past) bool { return now.Sub(p.Until) > remembered })
		if len(past) == 0 {
			delete(s.past, key)
		} else {
			s.past[key] = past
		}
	}
}
