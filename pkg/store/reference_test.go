package store

import (
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
)

// reference is the rules once more, as slowly and obviously as possible: every sample of an epoch
// is kept for ever in a list, names are looked up in maps, and everything is worked out when asked.
type reference struct {
	window, expiry time.Duration
	nodes          map[string]*refNode
}

type refNode struct {
	last       time.Time
	own        *refSeries
	containers map[sample.ContainerID]*refSeries
	listed     map[sample.ContainerID]sample.Fields // in the last answer; Start alone stands for ended
}

type refSeries struct {
	noZero   bool            // the epoch began because the counter went down, or with a jump of the clock
	turned   bool            // a sample was older than the newest one
	before   sample.Time     // the start time that this contradicted
	epoch    []sample.Sample // oldest first
	first    time.Time       // when the newest one was received first
	received time.Time       // and last
	usage    *refUsage
}

func (s *refSeries) start() sample.Time {
	start := s.before
	for _, e := range s.epoch {
		start = max(start, e.Start)
	}
	return start
}

type refUsage struct {
	of     sample.Sample
	window sample.Time
	rate   uint64
}

func newReference(resolution time.Duration) *reference {
	return &reference{resolution, max(4*resolution, time.Minute), map[string]*refNode{}}
}

func (r *reference) expired(then, now time.Time) bool { return now.Sub(then) > r.expiry }

func (r *reference) record(node string, b *sample.Batch, received time.Time) (old int) {
	n := r.nodes[node]
	if n == nil || r.expired(n.last, received) { // decision (d)
		n = &refNode{own: &refSeries{}, containers: map[sample.ContainerID]*refSeries{}}
		r.nodes[node] = n
	}
	n.last = received
	if b.Node.Given.Has(whole) && (b.Node.CPU > 0 || b.Node.Memory > 0) && !r.take(n.own, b.Node, received) {
		old++
	}
	n.listed = map[sample.ContainerID]sample.Fields{}
	for _, c := range b.Containers {
		if _, again := n.listed[*c.ID]; again {
			continue
		}
		n.listed[*c.ID] = c.Given & whole
		if c.Given.Has(whole) && c.CPU == 0 && c.Memory == 0 {
			n.listed[*c.ID] = 0
		}
		s := n.containers[*c.ID]
		if s == nil {
			s = &refSeries{}
			n.containers[*c.ID] = s
		}
		if n.listed[*c.ID] == whole && !r.take(s, c.Sample, received) {
			old++
		}
	}
	maps.DeleteFunc(n.containers, func(id sample.ContainerID, s *refSeries) bool { // decision (c)
		_, listed := n.listed[id]
		return !listed && (s.start() == 0 || r.expired(s.received, received))
	})
	return old
}

// removePod forgets a pod wherever it is listed.
func (r *reference) removePod(namespace, name string) {
	for _, n := range r.nodes {
		of := func(id sample.ContainerID) bool { return id.Namespace() == namespace && id.Pod() == name }
		if slices.ContainsFunc(slices.Collect(maps.Keys(n.listed)), of) {
			maps.DeleteFunc(n.listed, func(id sample.ContainerID, _ sample.Fields) bool { return of(id) })
			maps.DeleteFunc(n.containers, func(id sample.ContainerID, _ *refSeries) bool { return of(id) })
		}
	}
}

// take returns false if b is refused.
func (r *reference) take(s *refSeries, b sample.Sample, received time.Time) bool {
	if len(s.epoch) > 0 && r.expired(s.received, received) { // decision (d)
		*s = refSeries{}
	}
	if n := len(s.epoch); n > 0 {
		newest := s.epoch[n-1]
		if b.Time < newest.Time {
			s.turned = true
			return false
		}
		if b.Time == newest.Time { // decision (f)
			s.received = received
			return true
		}
		if start := s.start(); start > 0 && (b.Start > start+1000 || b.Start > max(start, newest.Time)) {
			*s = refSeries{}
		} else if b.CPU < newest.CPU {
			*s = refSeries{noZero: true, before: start}
		} else if s.turned || b.Time.Sub(newest.Time) > received.Sub(s.first)+30*time.Second { // decision (i)
			again := s.noZero && n == 1
			*s = refSeries{noZero: true, before: start, usage: s.usage}
			if again {
				s.usage = nil
			}
		}
	}
	s.first, s.received = received, received
	s.epoch = append(s.epoch, b)
	r.use(s)
	return true
}

// use works out the usage of the newest sample. If there is none, the last one stays.
func (r *reference) use(s *refSeries) {
	b := s.epoch[len(s.epoch)-1]
	third := r.window.Milliseconds() / 3
	// Decision (a): a sample that was followed by another while it was closer than a third to the
	// one before it does not serve as a.
	kept := []sample.Sample{s.epoch[0]}
	for _, e := range s.epoch[1:] {
		if k := len(kept); k > 1 && int64(kept[k-1].Time-kept[k-2].Time) < third {
			kept = kept[:k-1]
		}
		kept = append(kept, e)
	}
	older := kept[:len(kept)-1]
	var a *sample.Sample
	for i := range older { // the newest of those that are old enough comes last
		if int64(b.Time-older[i].Time) >= 2*third {
			a = &older[i]
		}
	}
	if a == nil && len(older) > 0 && b.Time-older[0].Time >= 5000 {
		a = &older[0]
	}
	if len(older) == 0 && b.Start > 0 && !s.noZero {
		age := b.Time.Sub(b.Start)
		if age >= 5*time.Second && age <= max(time.Minute, 2*r.window) {
			a = &sample.Sample{Time: b.Start}
		}
	}
	if a == nil {
		return
	}
	rate := new(big.Int).SetUint64(b.CPU - a.CPU)
	rate.Mul(rate, big.NewInt(1000)).Quo(rate, big.NewInt(int64(b.Time-a.Time)))
	s.usage = &refUsage{of: b, window: b.Time - a.Time, rate: rate.Uint64()}
}

func (u *refUsage) out() sample.Usage {
	return sample.Usage{CPU: u.rate, Memory: u.of.Memory, Swap: u.of.Swap, HasSwap: u.of.Given.Has(sample.Swap)}
}

func (r *reference) node(name string, now time.Time) (u sample.NodeUsage, ok bool) {
	n := r.nodes[name]
	if n == nil || n.own.usage == nil || r.expired(n.own.received, now) {
		return u, false
	}
	v := n.own.usage
	return sample.NodeUsage{Time: v.of.Time, Window: time.Duration(v.window) * time.Millisecond, Usage: v.out()}, true
}

// pod returns what each node that may be believed by rule 7, as long as the API server has said
// nothing, has to say of a pod; nil if it claims it, but has no usage.
func (r *reference) pod(namespace, name string, now time.Time) map[string]*sample.PodUsage {
	newest := sample.Time(-1)
	all := map[string]*sample.PodUsage{}
	for node, n := range r.nodes {
		if r.expired(n.last, now) {
			continue
		}
		claims, start, u := false, sample.Time(0), &sample.PodUsage{Node: node}
		for _, id := range slices.SortedFunc(maps.Keys(n.listed), func(a, b sample.ContainerID) int {
			return slices.Compare([]string{a.Container()}, []string{b.Container()})
		}) {
			if id.Namespace() != namespace || id.Pod() != name {
				continue
			}
			claims = true
			if n.listed[id] == 0 {
				continue // ended
			}
			s := n.containers[id]
			start = max(start, s.start())
			if u == nil || n.listed[id] != whole || s.usage == nil || r.expired(s.received, now) {
				u = nil
				continue
			}
			if len(u.Containers) == 0 || s.usage.of.Time < u.Time {
				u.Time, u.Window = s.usage.of.Time, time.Duration(s.usage.window)*time.Millisecond
			}
			u.Containers = append(u.Containers, sample.ContainerUsage{Name: id.Container(), Usage: s.usage.out()})
		}
		if !claims || start < newest {
			continue
		}
		if start > newest {
			clear(all)
			newest = start
		}
		if u != nil && len(u.Containers) == 0 {
			u = nil
		}
		all[node] = u
	}
	return all
}

// world makes up what kubelets say: containers with clocks of their own that start, restart, end,
// move, flap and are told badly.
type world struct {
	*rand.Rand
	now     float64
	nodes   []string
	running map[string]map[sample.ContainerID]*sample.Sample // by node
	own     map[string]*sample.Sample
}

func newWorld(seed uint64) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 0)), nodes: []string{"x", "y", "z"},
		running: map[string]map[sample.ContainerID]*sample.Sample{}, own: map[string]*sample.Sample{},
	}
	for _, n := range w.nodes {
		w.running[n] = map[sample.ContainerID]*sample.Sample{}
		w.own[n] = &sample.Sample{Time: ms(-10), Given: whole}
	}
	return w
}

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

func (w *world) id() sample.ContainerID {
	return sample.NewContainerID([]string{"a", "b"}[w.IntN(2)], fmt.Sprint("p", w.IntN(3)), fmt.Sprint("c", w.IntN(3)))
}

// tick moves one series on, mostly by a kubelet's pace, sometimes not at all, quickly or back.
func (w *world) tick(s *sample.Sample) {
	latest := ms(w.now)
	switch {
	case w.chance(20):
		return
	case w.chance(5):
		s.Time -= sample.Time(w.IntN(20_000))
		return
	}
	t := latest - sample.Time(w.IntN(12_000))
	if w.chance(30) {
		t = latest
	}
	if t > s.Time {
		s.CPU += uint64(w.IntN(2_000_000)) * uint64(t-max(s.Time, s.Start, 0)) % 1e12
		s.Time = t
	}
	s.Memory = uint64(w.IntN(100))
	if w.chance(2) {
		s.CPU /= 2
	}
}

// answer is what a node says now.
func (w *world) answer(node string) *sample.Batch {
	cs := w.running[node]
	for range w.IntN(3) { // come and go
		id := w.id()
		if cs[id] == nil && w.chance(60) || w.chance(10) {
			start := ms(w.now) - sample.Time(w.IntN(90_000))
			cs[id] = &sample.Sample{Time: start, Start: start, Given: whole | sample.Fields(w.IntN(4))<<2}
			if !cs[id].Given.Has(sample.Start) {
				cs[id].Start = 0
			}
		} else if w.chance(20) {
			delete(cs, id)
		}
	}
	b := &sample.Batch{}
	w.tick(w.own[node])
	b.Node = *w.own[node]
	if w.chance(5) {
		b.Node.Given = sample.Fields(w.IntN(4))
	}
	for _, id := range slices.SortedFunc(maps.Keys(cs), func(a, b sample.ContainerID) int {
		return slices.Compare([]string{a.Container(), a.Namespace(), a.Pod()}, []string{b.Container(), b.Namespace(), b.Pod()})
	}) {
		s := cs[id]
		w.tick(s)
		c := sample.Container{ID: &id, Sample: *s}
		switch {
		case w.chance(3):
			continue // flaps
		case w.chance(3):
			c.Sample = sample.Sample{Start: s.Start, Given: s.Given & sample.Start}
		case w.chance(3):
			c.CPU, c.Memory = 0, 0
		case w.chance(3):
			c.CPU, c.Given = 0, c.Given&^sample.CPU
		case w.chance(3):
			c.Memory, c.Given = 0, c.Given&^sample.Memory
		}
		b.Containers = append(b.Containers, c)
		if w.chance(1) {
			c.CPU += 1e9
			b.Containers = append(b.Containers, c)
		}
	}
	if w.chance(5) {
		w.Shuffle(len(b.Containers), func(i, j int) {
			b.Containers[i], b.Containers[j] = b.Containers[j], b.Containers[i]
		})
	}
	return b
}

// The store and the reference serve the same, whatever happens, and it is always known why not.
func TestStoreIsTheReferenceButFaster(t *testing.T) {
	var nodes, pods, none, contested int
	for seed := range uint64(24) {
		w := newWorld(seed)
		resolution := []time.Duration{time.Second, 10 * time.Second, 15 * time.Second, time.Minute}[seed%4]
		s, ref := New(Config{Resolution: resolution}), newReference(resolution)
		for step := range 250 {
			w.now += w.Float64() * resolution.Seconds()
			if w.chance(1) {
				w.now += 1.5 * ref.expiry.Seconds()
			}
			node, now := w.nodes[w.IntN(3)], at(w.now)
			switch id := w.id(); {
			case w.chance(1):
				s.RemoveNode(node)
				delete(ref.nodes, node)
			case w.chance(3):
				s.RemovePod(id.Namespace(), id.Pod())
				ref.removePod(id.Namespace(), id.Pod())
			default:
				b := w.answer(node)
				got := s.Record(node, b, now)
				if want := ref.record(node, b, now); got.Old != want {
					t.Fatalf("seed %d, step %d: %d samples refused, want %d", seed, step, got.Old, want)
				}
				for _, c := range got.Conflicts {
					s.NoOwner(c.Namespace, c.Pod)
				}
			}
			now = now.Add(time.Duration(w.IntN(20)) * time.Second)

			for _, n := range w.nodes {
				got, ok := s.Node(n, now)
				want, wantOK := ref.node(n, now)
				if d := cmp.Diff(want, got); ok != wantOK || d != "" {
					t.Fatalf("seed %d, step %d: node %q: served %v, want %v (-want +got):\n%s", seed, step, n, ok, wantOK, d)
				}
				if why := s.WhyNoNode(n, now); ok != (why == "") {
					t.Fatalf("seed %d, step %d: node %q: served %v, but why is %q", seed, step, n, ok, why)
				}
				nodes++
			}
			for i := range 6 {
				namespace, name := []string{"a", "b"}[i%2], fmt.Sprint("p", i/2)
				want := ref.pod(namespace, name, now)
				var u sample.PodUsage
				ok := s.Pod(namespace, name, now, &u)
				if why := s.WhyNoPod(namespace, name, now); ok != (why == "") {
					t.Fatalf("seed %d, step %d: pod %s/%s: served %v, but why is %q", seed, step, namespace, name, ok, why)
				}
				if len(want) > 1 {
					contested++
				}
				if ok {
					pods++
					if d := cmp.Diff(want[u.Node], &u); d != "" {
						t.Fatalf("seed %d, step %d: pod %s/%s of %v (-want +got):\n%s", seed, step, namespace, name, want, d)
					}
					continue
				}
				none++
				if len(want) > 0 && !slices.Contains(slices.Collect(maps.Values(want)), nil) {
					t.Fatalf("seed %d, step %d: pod %s/%s is not served: %s\nwant %v", seed, step, namespace, name, s.WhyNoPod(namespace, name, now), want)
				}
			}
		}
	}
	// A test that compares nothing proves nothing.
	if nodes < 10_000 || pods < 10_000 || none < 10_000 || contested < 100 {
		t.Errorf("compared %d nodes, %d pods that are served, %d that are not, %d with several that may be believed", nodes, pods, none, contested)
	}
}
