package store

import (
	"fmt"
	"time"
)

const (
	noAnswer  = "its kubelet has not answered yet"
	noMetrics = "the container runtime there gives the kubelet no metrics"
)

// WhyNoNode explains why Node returns false; it returns "" if Node returns true.
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
	if n.own.points.Empty() && !n.own.refused {
		return "its kubelet answers, but without the node's own CPU and memory"
	}
	return n.whyNot(&n.own, "the node", now)
}

// WhyNoPod explains why Pod returns false; it returns "" if Pod returns true.
func (s *Store) WhyNoPod(namespace, name string, now time.Time) string {
	k := podKey{namespace, name}
	p, _ := s.index.place(k, now)
	if p.layout == nil {
		if owner := s.index.owner(k); owner != "" {
			return fmt.Sprintf("it runs on node %q, whose kubelet does not list it, and other nodes that list it are ignored",
				owner)
		}
		return "no kubelet lists it: it has just started or ended, its node has not answered yet, " +
			"or --node-selector leaves its node out" + s.idle(now)
	}
	n := p.node()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.silent(now) {
		return fmt.Sprintf("the last answer of node %q was received %s ago", n.name, n.ago(now, time.Duration(n.last.Load())))
	}
	counted := false
	for i, to := p.run(k); i < to; i++ {
		c := &n.layout.containers[i]
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

// idle returns another possible cause for a pod that no kubelet lists: nodes that list no running
// container.
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
	return fmt.Sprintf("; or it runs on one of the nodes that list no running container (%d, such as %q), and %s",
		idle, example, noMetrics)
}

// whyNot explains why a series of n, which the text calls what, has no usage; "" if it has one.
func (n *node) whyNot(s *series, what string, now time.Time) string {
	last, refused := "last", ""
	if s.refused {
		last, refused = "last valid", fmt.Sprintf("; the last sample was refused as %v: %s", s.reason, s.reason.Meaning())
	}
	switch {
	case s.usable(n.since(now), &n.limits):
		return ""
	case s.points.Empty():
		return what + " has no valid sample yet" + refused
	case n.since(now)-s.received > n.limits.expiry:
		return fmt.Sprintf("the %s sample of %s was received %s ago%s", last, what, n.ago(now, s.received), refused)
	}
	need := fmt.Sprintf("a usage needs two that are at least %v apart", n.limits.least.Sub(0))
	newest, oldest := s.points[0], s.points[s.points.Len()-1]
	if newest == oldest {
		age := round(now.Sub(newest.Time.Std()))
		return fmt.Sprintf("%s has one sample so far, taken %s ago: %s%s", what, age, need, refused)
	}
	return fmt.Sprintf("the samples of %s so far are only %s apart: %s%s",
		what, newest.Time.Sub(oldest.Time), need, refused)
}

func (n *node) ago(now time.Time, then time.Duration) time.Duration {
	return round(n.since(now) - then)
}

func round(d time.Duration) time.Duration { return max(d, 0).Round(time.Second) }
