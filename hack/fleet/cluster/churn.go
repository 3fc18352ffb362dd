package cluster

import (
	"context"
	"math/rand/v2"
	"slices"
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
	s.version++
	n := &Node{Machine: s.nodes[i].Machine, Version: s.version, Heartbeat: now}
	s.nodes[i] = n
	s.NodeLog.add(Event{Type: "MODIFIED", Version: s.version, Object: n})
}

// Tell tells the kubelet of m its pods.
type Tell func(m *Machine, pods []kubelettest.Pod) error

// Churn restarts containers and replaces pods, rate of them a second, until ctx ends or tell fails. The kubelet
// knows of a change before the API server does, for it is what starts and ends containers.
func (s *Cluster) Churn(ctx context.Context, rate float64, tell Tell) error {
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	type deleted struct {
		*Pod
		at time.Time
	}
	var waiting []deleted // to be replaced
	random := rand.New(rand.NewPCG(1, 2))
	for i := 0; ; i++ {
		var now time.Time
		select {
		case <-ctx.Done():
			return nil
		case now = <-tick.C:
		}
		// One restart, one deletion and one start by turns.
		var err error
		switch {
		case i%3 == 0:
			err = s.Restart(s.any(random), now, tell)
		case i%3 == 1:
			p := s.any(random)
			if err = s.Delete(p, now, tell); err == nil {
				waiting = append(waiting, deleted{p, now})
			}
		case len(waiting) > 0 && now.Sub(waiting[0].at) >= s.config.Away:
			err = s.Replace(waiting[0].Pod, random.IntN(s.config.Nodes), random.Uint64(), now, tell)
			waiting = waiting[1:]
		}
		if err != nil {
			return err
		}
	}
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

// Replace starts what the owner of p makes in its place: on the same node, if it is a StatefulSet and the
// seed is even, or on the node with that index.
func (s *Cluster) Replace(p *Pod, node int, seed uint64, now time.Time, tell Tell) error {
	fresh := *p
	fresh.Seed = seed | 1<<63 // the first pods have small ones
	fresh.Created = now.Truncate(time.Second)
	fresh.Name = p.podName(p.Ordinal, fresh.Seed)
	fresh.Started = starts(now, len(p.Started))
	fresh.Restarts = 0
	if !p.Stateful || seed%2 == 1 {
		fresh.Machine = s.machine(node)
	}
	return s.change(nil, &fresh, now, tell)
}

func (s *Cluster) machine(i int) *Machine {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[i].Machine
}

// change makes before after: one of the two may be nil.
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

func (s *Cluster) remember(p *Pod, now time.Time) {
	key := p.Namespace + "/" + p.Name
	s.past[key] = append(s.past[key], Past{Pod: p, Until: now})
	// The others that are too old are forgotten now and then.
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
