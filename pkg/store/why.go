package store

import (
	"fmt"
	"time"
)

const (
	noAnswer  = "its kubelet has not answered yet"
	noMetrics = "the container runtime there gives the kubelet no metrics"
)

// WhyNoNode says in plain words why Node returns false, "" if it returns true.
func (s *Store) WhyNoNode(name string, now time.Time) string {
	n := s.node(name)
	if n == nil {
		return noAnswer
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.silent(now) {
		return fmt.Sprintf("the last answer of its kubelet was received %s ago", n.ago(now, time.Duration(n.last.Load())))
	}
	if n.own.n == 0 {
		return "its kubelet answers, but without the node's own CPU and memory"
	}
	return n.whyNot(n.self(), "the node", now)
}

// WhyNoPod says in plain words why Pod returns false, "" if it returns true.
func (s *Store) WhyNoPod(namespace, name string, now time.Time) string {
	k := podKey{namespace, name}
	p := s.index.place(k, now)
	if p.layout == nil {
		if owner := s.index.owner(k); owner != "" {
			return fmt.Sprintf("it runs on node %q, whose kubelet does not list it, and those that do are not believed", owner)
		}
		return "no kubelet lists it: it has just started or ended, its node has not answered yet, or --node-selector leaves its node out" + s.idle(now)
	}
	n := p.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.silent(now) {
		return fmt.Sprintf("the last answer of node %q was received %s ago", n.name, n.ago(now, time.Duration(n.last.Load())))
	}
	counted := false
	for i, to := p.run(k); i < to; i++ {
		c := n.series(i)
		if !c.counts() {
			continue
		}
		counted = true
		what := fmt.Sprintf("container %q on node %q", c.id.Container(), n.name)
		switch c.state {
		case noCPU:
			return what + " is listed without CPU"
		case noMemory:
			return what + " is listed without memory"
		}
		if why := n.whyNot(c, what, now); why != "" {
			return why
		}
	}
	if !counted {
		return fmt.Sprintf("node %q lists no running container of it: all have ended, or %s", n.name, noMetrics)
	}
	return ""
}

// idle is what may also be the matter with a pod that no kubelet lists: some list none that runs.
func (s *Store) idle(now time.Time) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	idle, example := 0, ""
	for name, n := range s.nodes {
		if n.idle.Load() && !n.silent(now) {
			if idle++; example == "" || name < example {
				example = name
			}
		}
	}
	if idle == 0 {
		return ""
	}
	return fmt.Sprintf("; or it runs on one of the nodes that list no running container (%d, such as %q), and %s", idle, example, noMetrics)
}

// whyNot says why a series of n that is called what has no usage, "" if it has one.
func (n *node) whyNot(s series, what string, now time.Time) string {
	switch {
	case s.usable(n.since(now), n.limits):
		return ""
	case s.n == 0:
		return what + " has no valid sample yet"
	case n.since(now)-s.received > n.limits.expiry:
		return fmt.Sprintf("the last sample of %s was received %s ago", what, n.ago(now, s.received))
	}
	const need = "a usage needs two that are at least 5s apart"
	if s.n == 1 {
		return fmt.Sprintf("%s has one sample so far, taken %s ago: %s", what, round(now.Sub(s.t[0].Std())), need)
	}
	return fmt.Sprintf("the samples of %s so far are only %s apart: %s", what, s.t[0].Sub(s.t[s.n-1]), need)
}

func (n *node) ago(now time.Time, then time.Duration) time.Duration {
	return round(n.since(now) - then)
}

func round(d time.Duration) time.Duration { return max(d, 0).Round(time.Second) }
