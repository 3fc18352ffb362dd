package store

import (
	"time"

	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// shown tells what is served of a series from what was served before: CPU, memory and swap are only ever
// set together with the time.
type shown struct {
	state        state
	usable       bool
	time, window sample.Time
}

func (s *series) shown(now time.Duration, l *limits) shown {
	return shown{s.state, s.usable(now, l), s.time, s.window}
}

// track is record, and notes the revision if it changes what is served.
func (s *series) track(b *sample.Sample, now time.Duration, l *limits, revision sample.Revision) bool {
	before := s.shown(now, l)
	accepted := s.record(b, now, l)
	if s.shown(now, l) != before {
		s.changed = revision
	}
	return accepted
}

// revision returns since when s is as it is at now: its last change, or when its usage expired.
func (n *node) revision(s *series, now time.Time, clock *revision.Clock) sample.Revision {
	if s.window > 0 {
		if expired := n.since(now) - s.received - n.limits.expiry; expired > 0 {
			return max(s.changed, clock.Ago(now, expired))
		}
	}
	return s.changed
}

// pod fills into with the usage of the pod k and reports whether there is one to be served. p and since
// are what podIndex.place returned.
func (s *Store) pod(p place, since sample.Revision, k podKey, now time.Time, into *sample.PodUsage) bool {
	if p.layout == nil {
		into.Revision = since
		return false
	}
	served := p.pod(k, now, into)
	into.Revision, into.NodeSince = max(into.Revision, since), since
	if served {
		return true
	}
	n := p.node()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, to := p.run(k); i < to; i++ {
		into.Revision = max(into.Revision, n.revision(&n.layout.containers[i], now, s.clock))
	}
	return false
}
