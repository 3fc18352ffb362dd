package demand

import (
	"maps"
	"time"
)

// targetGrace is how long after the first list of HPAs Synced waits for their targets. Otherwise a
// namespace with 20,000 of them, or a webhook that does not answer for 1,000, would delay it by
// minutes.
const targetGrace = time.Minute

// unread is what Synced waits for in a namespace that had HPAs in the first complete list. It only
// shrinks.
type unread struct {
	joined  bool // the namespace was joined once; the other fields are set then
	watches bool // pods or Services are not listed yet
	targets map[target]bool
}

// listedLocked starts what Synced waits for. It is called after each complete list of HPAs.
func (d *Demand) listedLocked() {
	if !d.listed.IsZero() {
		return
	}
	d.listed, d.unread = time.Now(), map[string]*unread{}
	for name, n := range d.namespaces {
		if len(n.hpas) > 0 {
			d.unread[name] = &unread{}
		}
	}
}

// shrinkLocked takes what a join of a namespace has read from what Synced waits for. left is what
// it has not read.
func (d *Demand) shrinkLocked(namespace string, left *unread) {
	u := d.unread[namespace]
	switch {
	case u == nil:
		return
	case !u.joined:
		*u = *left
	default:
		u.watches = u.watches && left.watches
		maps.DeleteFunc(u.targets, func(t target, _ bool) bool { return !left.targets[t] })
	}
	if !u.watches && len(u.targets) == 0 {
		delete(d.unread, namespace)
	}
}
