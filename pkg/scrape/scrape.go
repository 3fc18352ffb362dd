// Package scrape decides when each node's kubelet is asked, how many are asked at once, for how long,
// and how soon a node that fails is tried again. What asking means is the caller's Fetcher; what
// becomes of the samples is the caller's Sink.
//
// Every node has a schedule of its own: one slot in each period, at a phase that depends on its name and on
// roughly how many nodes there are, so that nodes are spread evenly and a restart changes nothing. Two lanes bound
// the scrapes in flight, one for nodes that answer and one for nodes whose last scrape failed: however many
// nodes hang, those that answer are asked on time.
//
// One goroutine (Run) starts scrapes, each scrape runs in a goroutine of its own, and one mutex guards
// the schedule. It is never held while a node is asked, a sample is stored or a line is logged. All methods of
// Scraper are safe for concurrent use.
package scrape

import (
	"cmp"
	"container/heap"
	"container/list"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"metrics-server/pkg/sample"
)

// Fetcher asks one node. At most one Fetch of a Fetcher runs at a time.
type Fetcher interface {
	// Fetch fills into, which is empty, belongs to the Scraper and must not be kept. It returns soon after
	// ctx ends. If an error has the methods Cause() string (a few stable words, for a metric's label)
	// and Remedy() string (what an administrator can do), they are counted, logged and shown.
	Fetch(ctx context.Context, into *sample.Batch) error
}

// Sink receives what nodes said.
type Sink interface {
	// Record stores b, which is valid during the call only. received is when the answer was complete, by this
	// server's clock. It reports whether everything that the node listed has a usage: while something has
	// not, the node's first scrapes follow each other quickly. Calls for one node never overlap.
	Record(node string, b *sample.Batch, received time.Time) (settled bool)
	// Refused counts the samples of an answer that were refused when none could be accepted: the scrape
	// has failed, and Record is not called.
	Refused(r *sample.Refusals)
}

// Config says how to scrape. A zero field means its default.
type Config struct {
	// Period is the time between two scrapes of a node. Default 15 s.
	Period time.Duration
	// Timeout bounds one scrape; it should be less than the Period. Default 10 s, or nine tenths of a
	// shorter Period.
	Timeout time.Duration
	// MaxInFlight bounds the scrapes in flight of nodes that answer; half as many more may be in flight to nodes
	// that fail. Default 1024: of 15,000 nodes 150 are asked at the same time; the rest is for slow
	// ones and for the moment when many begin to hang. One in flight costs 12 KB (stack, context, a batch of 60
	// containers) and what the Fetcher holds: 18 MB if both lanes are full, and the answers that are being read.
	MaxInFlight int
	// Sink is where samples go. Required.
	Sink Sink
	// OnFailing is told of a node that has failed twice in a row, and then of each other cause for which it fails; OnRecovered of
	// one that answers again after that, and for how long it failed. They are called by the goroutine of the scrape, which waits. Default: nobody is told.
	OnFailing   func(node string, s NodeStatus)
	OnRecovered func(node string, after time.Duration)
	// Registerer exports the metrics. Default: they are counted but not exported.
	Registerer prometheus.Registerer
}

func (c *Config) setDefaults() {
	c.Period = cmp.Or(c.Period, 15*time.Second)
	c.Timeout = cmp.Or(c.Timeout, min(10*time.Second, c.Period*9/10))
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 1024)
	if c.OnFailing == nil {
		c.OnFailing = func(string, NodeStatus) {}
	}
	if c.OnRecovered == nil {
		c.OnRecovered = func(string, time.Duration) {}
	}
}

// Scraper scrapes nodes. Make it with New.
type Scraper struct {
	cfg     Config
	plan    plan
	metrics *metrics
	batches sync.Pool      // of *sample.Batch
	wake    chan struct{}  // tells Run that the soonest scrape may have changed
	flights sync.WaitGroup // goroutines of scrapes
	stack   sync.Once      // logs the stack of the first panic

	mu               sync.Mutex
	promised         time.Time       // when Run is to look again at the latest; zero before it has looked
	ctx              context.Context // of Run; nil before it
	nodes            map[string]*node
	healthy, failing lane
	paced            time.Time     // when the last first scrape is due
	typical          time.Duration // moving average of how long a scrape takes that succeeds
	tally            tally
}

// node is one node's schedule and state. Scraper.mu guards all but the first and the last group.
type node struct {
	name string

	fetcher Fetcher
	due     time.Time // of the next scrape, or of the one in flight
	lane    *lane     // where it waits or is in flight; nil before Run
	flight  *flight   // nil while it waits
	fresh   time.Time // first success since it was added or failed
	clocked bool      // its kubelet samples on clocks of its own, as of the last answer
	status  NodeStatus
	listed  *list.Element // in tally, while it fails
	told    []string      // causes for which it has failed since it answered last
	seen    durations

	gate sync.Mutex // held while the Sink is called
	gone bool       // guarded by gate: the Sink must not be called any more
}

// New returns a Scraper without nodes. It panics if its metrics are registered already.
func New(c Config) *Scraper {
	c.setDefaults()
	s := &Scraper{
		cfg:  c,
		plan: plan{period: c.Period},
		// Most nodes list fewer containers than that: the memory of most batches is made at once.
		batches: sync.Pool{New: func() any { return &sample.Batch{Containers: make([]sample.Container, 0, 64)} }},
		wake:    make(chan struct{}, 1),
		nodes:   map[string]*node{},
		healthy: lane{size: c.MaxInFlight},
		failing: lane{size: max(1, c.MaxInFlight/2)},
		tally:   tally{causes: map[string]*list.List{}},
	}
	s.metrics = newMetrics(c.Registerer, s)
	return s
}

// Run scrapes until ctx ends and every scrape in flight has returned. It returns nil. Call it once.
func (s *Scraper) Run(ctx context.Context) error {
	s.begin(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flights.Wait()
			return nil
		case <-timer.C:
		case <-s.wake:
		}
		timer.Reset(s.dispatch(time.Now()))
	}
}

// begin schedules the nodes that were added before Run, by name, so that a restart has the same order.
func (s *Scraper) begin(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		s.scheduleFirst(s.nodes[name])
	}
}

// Add starts to scrape node by means of f. A node that is there already keeps its schedule and its state,
// and the next scrape uses f.
func (s *Scraper) Add(name string, f Fetcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[name]; n != nil {
		n.fetcher = f
		return
	}
	n := &node{name: name, fetcher: f}
	s.nodes[name] = n
	if s.ctx != nil {
		s.scheduleFirst(n)
	}
}

// Remove forgets node and cancels its scrape in flight, without waiting for that to return. Once
// Remove has returned the Sink is not called for the node; it waits for a call that is under way. A node that comes
// back needs a new Fetcher, because the old one's Fetch may still be returning.
func (s *Scraper) Remove(name string) {
	n := s.forget(name)
	if n == nil {
		return
	}
	n.gate.Lock()
	defer n.gate.Unlock()
	n.gone = true
}

func (s *Scraper) forget(name string) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[name]
	if n == nil {
		return nil
	}
	delete(s.nodes, name)
	s.tally.move(n, &n.status, &NodeStatus{})
	switch {
	case n.flight != nil:
		s.land(n)
		n.flight.cancel()
	case n.lane != nil:
		n.lane.calendar.remove(n)
	}
	return n
}

// scheduleFirst puts the first scrape of n as soon as the pace of first scrapes allows.
func (s *Scraper) scheduleFirst(n *node) {
	now := time.Now()
	s.paced = later(s.paced.Add(firstPace), now)
	s.schedule(n, s.paced)
}

// schedule puts the next scrape of n, which is not in flight, at due.
func (s *Scraper) schedule(n *node, due time.Time) {
	n.due, n.lane = due, &s.healthy
	if n.status.Failing() {
		n.lane = &s.failing
	}
	heap.Push(&n.lane.calendar, n)
	if n.lane.calendar[0].node == n {
		s.poke()
	}
}

// poke makes Run look again.
func (s *Scraper) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// dispatch starts what is due and returns how long to wait for what comes next.
func (s *Scraper) dispatch(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := s.cfg.Period // or until poked
	for _, l := range [...]*lane{&s.healthy, &s.failing} {
		for len(l.calendar) > 0 {
			if d := l.calendar[0].due.Sub(now); d > 0 {
				wait = min(wait, d)
				break
			}
			if d := l.makeRoom(now, s.patience()); d > 0 {
				wait = min(wait, d)
				break
			}
			s.start(heap.Pop(&l.calendar).(*node), now)
		}
	}
	s.promised = now.Add(wait)
	return wait
}

// patience is how long a scrape may take while others wait for its place. When this server is short of CPU
// every scrape is slow, and giving some up would only add to the work: patience grows with what is typical.
func (s *Scraper) patience() time.Duration {
	return min(max(s.cfg.Timeout/10, 4*s.typical), s.cfg.Timeout/2)
}
