package cluster

import "sync"

// Event is a change of a node or a pod.
type Event struct {
	Type    string // as in a watch: ADDED, MODIFIED, DELETED
	Version uint64
	Object  any // a *Node or *Pod
}

// Log has the recent events of a kind of object.
type Log struct {
	mu      sync.Mutex
	events  []Event
	since   uint64 // all events after this version are there
	changed chan struct{}
}

// kept is the least number of events that are remembered.
const kept = 50_000

func (l *Log) init(version uint64) {
	l.since = version
	l.changed = make(chan struct{})
}

func (l *Log) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == 2*kept {
		l.since = l.events[kept-1].Version
		n := copy(l.events, l.events[kept:])
		clear(l.events[n:])
		l.events = l.events[:n]
	}
	l.events = append(l.events, e)
	close(l.changed)
	l.changed = make(chan struct{})
}

// Since returns the events after version, and a channel that is closed at the next one. It returns
// false if some of the events were forgotten.
func (l *Log) Since(version uint64) ([]Event, <-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if version < l.since {
		return nil, nil, false
	}
	i := len(l.events)
	for i > 0 && l.events[i-1].Version > version {
		i--
	}
	return append([]Event(nil), l.events[i:]...), l.changed, true
}
