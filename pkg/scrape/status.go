package scrape

import (
	"cmp"
	"container/list"
	"slices"
	"time"
)

// Status says how scraping goes, for probes.
type Status struct {
	Nodes    int // = Waiting + Answered + Failing
	Waiting  int // not scraped yet
	Answered int // the last scrape succeeded
	Settled  int // of those, the ones of which everything has a usage
	Failing  int // the last scrape failed
	Doubtful int // of those, the ones that failed once and whose answers before, if any, left something without a usage

	Causes      []Cause       // why nodes fail, the commonest first
	LastSuccess time.Time     // of any node, even if it has left
	Late        time.Duration // how long ago Run should have looked for what is due; says nothing of nodes
}

// Cause is why some nodes fail.
type Cause struct {
	Cause           string
	Nodes           int
	Example         string // the node that has failed for this cause for the longest
	Message, Remedy string // of the example; Remedy may be empty
}

// NodeStatus says how scraping goes for one node.
type NodeStatus struct {
	LastAttempt  time.Time     // when the last scrape that has ended began; zero before there is one
	Duration     time.Duration // of that scrape
	LastSuccess  time.Time     // when samples were last stored; zero if never
	Settled      bool          // everything in the last answer had a usage
	Err          error         // of the last scrape; nil if it succeeded
	Cause        string        // of Err, in a few stable words
	Remedy       string        // for Err; may be empty
	Failures     int           // how many scrapes have failed in a row
	FailingSince time.Time     // zero if the last scrape succeeded
}

// Failing reports whether the last scrape failed.
func (s *NodeStatus) Failing() bool { return s.Err != nil }

// doubtful reports whether the node failed once, and something of it has no usage yet: it is worth a try at once, and to be
// waited for.
func (s *NodeStatus) doubtful() bool { return s.Failures == 1 && !s.Settled }

func (s *NodeStatus) answered() bool { return !s.LastAttempt.IsZero() && !s.Failing() }

// note adds a scrape.
func (s *NodeStatus) note(started time.Time, o outcome) {
	switch {
	case o.err == nil:
		s.LastSuccess, s.Settled, s.FailingSince, s.Failures = o.ended, o.settled, time.Time{}, 0
	case !s.Failing():
		s.FailingSince, s.Failures = started, 1
	default:
		s.Failures++
	}
	s.LastAttempt, s.Duration = started, o.ended.Sub(started)
	s.Err = o.err
	s.Cause, s.Remedy = explain(o.err)
}

// Status costs the same however many nodes there are.
func (s *Scraper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Nodes:       len(s.nodes),
		Answered:    s.tally.answered,
		Settled:     s.tally.settled,
		Doubtful:    s.tally.doubtful,
		LastSuccess: s.tally.lastSuccess,
	}
	if !s.promised.IsZero() {
		st.Late = max(0, time.Since(s.promised))
	}
	for cause, nodes := range s.tally.causes {
		example := nodes.Front().Value.(*node)
		st.Failing += nodes.Len()
		st.Causes = append(st.Causes, Cause{
			Cause: cause, Nodes: nodes.Len(),
			Example: example.name, Message: example.status.Err.Error(), Remedy: example.status.Remedy,
		})
	}
	st.Waiting = st.Nodes - st.Answered - st.Failing
	slices.SortFunc(st.Causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Nodes, a.Nodes), cmp.Compare(a.Cause, b.Cause))
	})
	return st
}

// Node returns the status of one node and whether it is known.
func (s *Scraper) Node(name string) (NodeStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[name]
	if n == nil {
		return NodeStatus{}, false
	}
	return n.status, true
}

// tally keeps the sums of Status up to date, so that a probe need not walk the nodes.
type tally struct {
	answered, settled, doubtful int
	lastSuccess                 time.Time
	causes                      map[string]*list.List // of *node, in the order in which they began; no list is empty
}

// move notes that the state of n goes from one to another. A node that goes on failing for the same cause keeps
// its place, so that the example does not change with every try.
func (t *tally) move(n *node, from, to *NodeStatus) {
	t.add(from, -1)
	t.add(to, 1)
	if to.LastSuccess.After(t.lastSuccess) {
		t.lastSuccess = to.LastSuccess
	}
	if from.Cause == to.Cause {
		return
	}
	if from.Failing() {
		nodes := t.causes[from.Cause]
		if nodes.Remove(n.listed); nodes.Len() == 0 {
			delete(t.causes, from.Cause)
		}
	}
	if to.Failing() {
		if t.causes[to.Cause] == nil {
			t.causes[to.Cause] = list.New()
		}
		n.listed = t.causes[to.Cause].PushBack(n)
	}
}

func (t *tally) add(s *NodeStatus, by int) {
	if s.answered() {
		t.answered += by
		if s.Settled {
			t.settled += by
		}
	}
	if s.doubtful() {
		t.doubtful += by
	}
}
