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

// reference implements the rules a second time, as slowly and obviously as possible: every sample
// of an epoch is kept for ever in a list, names are looked up in maps, and everything is computed
// on request.
type reference struct {
	resolution, window, expiry time.Duration
	capacity                   map[string]sample.Capacity
	nodes                      map[string]*refNode
}

type refNode struct {
	last       time.Time
	own        *refSeries
	containers map[sample.ContainerID]*refSeries
	listed     map[sample.ContainerID]sample.Fields // in the last answer; Start alone stands for ended
}

type refSeries struct {
	noZero   bool            // the epoch began because the counter was set, or with a jump of the clock
	moved    bool            // the epoch began with what may have been a restart
	turned   bool            // a sample was older than the newest one
	start    sample.Time     // as first reported in this epoch
	epoch    []sample.Sample // oldest first
	odd      *sample.Sample  // does not follow from the newest one
	first    time.Time       // when the newest one was received first
	received time.Time       // and last
	usage    *refUsage
}

type refUsage struct {
	of     sample.Sample
	window sample.Time
	rate   uint64
}

func newReference(resolution, window time.Duration) *reference {
	return &reference{
		resolution, window, max(4*resolution, time.Minute), map[string]sample.Capacity{}, map[string]*refNode{},
	}
}

func (r *reference) expired(then, now time.Time) bool { return now.Sub(then) > r.expiry }

func (r *reference) record(node string, b *sample.Batch, received time.Time) (refused sample.Refusals) {
	n := r.nodes[node]
	if n == nil || r.expired(n.last, received) { // decision (d)
		n = &refNode{own: &refSeries{}, containers: map[sample.ContainerID]*refSeries{}}
		r.nodes[node] = n
	}
	n.last = received
	has := r.capacity[node]
	if has.CPU == 0 {
		has.CPU = 1024e9
	}
	if has.Memory == 0 {
		has.Memory = 64 << 40
	}
	take := func(s *refSeries, b sample.Sample) {
		if why, ok := r.take(s, b, has, received); !ok {
			refused[why]++
		}
	}
	if b.Node.Given.Has(whole) && (b.Node.CPU > 0 || b.Node.Memory > 0) {
		take(n.own, b.Node)
	}
	before := n.listed
	n.listed = map[sample.ContainerID]sample.Fields{}
	for _, c := range b.Containers {
		if _, again := n.listed[*c.ID]; again {
			continue
		}
		n.listed[*c.ID] = c.Given & whole
		if c.CPU == 0 && c.Memory == 0 {
			n.listed[*c.ID] = 0
		}
		s := n.containers[*c.ID]
		_, was := before[*c.ID]
		start := refStart(c.Sample)
		if s == nil || !was && len(s.epoch) > 0 && start > s.newest().Time &&
			possible(int64(c.CPU), c.Time-start, has) { // decision (c)
			s = &refSeries{}
			n.containers[*c.ID] = s
		}
		if n.listed[*c.ID] == whole {
			take(s, c.Sample)
		}
	}
	maps.DeleteFunc(n.containers, func(id sample.ContainerID, s *refSeries) bool { // decision (c)
		_, listed := n.listed[id]
		return !listed && (s.start == 0 || r.expired(s.received, received))
	})
	return refused
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

// refStart returns the start time that b reports, if it can be true.
func refStart(b sample.Sample) sample.Time {
	if b.Start > b.Time {
		return 0
	}
	return max(b.Start, 0)
}

func (s *refSeries) newest() sample.Sample { return s.epoch[len(s.epoch)-1] }

// possible reports whether that much CPU time can have been used in d on a node with that capacity,
// if timestamps are off by a second at most.
func possible(cpu int64, d sample.Time, has sample.Capacity) bool {
	most := new(big.Int).Mul(big.NewInt(int64(has.CPU/1000)), big.NewInt(int64(d+1000)))
	return cpu >= 0 && most.Cmp(big.NewInt(cpu)) >= 0
}

// take returns false if b is refused, and why.
func (r *reference) take(s *refSeries, b sample.Sample, has sample.Capacity, received time.Time) (sample.Reason, bool) {
	if len(s.epoch) > 0 && b.Time == s.newest().Time { // decision (f)
		if received.Sub(s.first) > max(4*time.Minute, r.expiry) {
			return sample.Frozen, false
		}
		s.received = received
		return 0, true
	}
	if len(s.epoch) > 0 && r.expired(s.received, received) { // decision (d)
		*s = refSeries{noZero: s.turned} // decision (i)
	}
	if len(s.epoch) > 0 && b.Time < s.newest().Time {
		s.turned = true
		return sample.TimestampOld, false
	}
	if b.Memory > has.Memory+has.Memory/10 {
		return sample.OverCapacity, false
	}
	start := refStart(b)
	if n := len(s.epoch); n > 0 {
		newest := s.newest()
		fall := int64(newest.CPU) - int64(b.CPU)
		since := b.Time - newest.Time
		switch {
		case fall > 0 && start > newest.Time-1000 && possible(int64(b.CPU), b.Time-start, has) &&
			(b.Time-start >= 1000 || fall > int64(since)*10_000): // rule 3
			*s = refSeries{}
		case s.turned || b.Time.Sub(newest.Time) > received.Sub(s.first)+30*time.Second: // decision (i)
			again := s.noZero && n == 1
			*s = refSeries{noZero: true, start: s.start, usage: s.usage}
			if again {
				s.usage = nil
			}
		case fall <= 0 && start != s.start && start > newest.Time-1000 && b.Time-start >= 1000 &&
			possible(int64(b.CPU), b.Time-start, has) && (!s.moved || n > 1): // rule 3: perhaps a restart
			*s = refSeries{noZero: true, moved: true, start: s.start, usage: s.usage}
		case !possible(-fall, since, has): // decision (j)
			switch {
			case fall > 0 && fall <= int64(since)*10_000: // a hundredth of a CPU
				if since <= 60_000 {
					if received.Sub(s.first) > max(4*time.Minute, r.expiry) { // decision (f)
						return sample.Frozen, false
					}
					s.received = received
					return 0, true
				}
				b.CPU = newest.CPU
			case s.odd != nil && s.odd.Time < b.Time && (possible(int64(b.CPU)-int64(s.odd.CPU), b.Time-s.odd.Time, has) ||
				b.CPU < s.odd.CPU && s.odd.CPU-b.CPU <= uint64(b.Time-s.odd.Time)*10_000):
				b.CPU = max(b.CPU, s.odd.CPU)
				*s = refSeries{noZero: true, start: start, usage: s.usage, epoch: []sample.Sample{*s.odd}}
			default:
				again := s.odd != nil && s.odd.Time == b.Time && s.odd.CPU == b.CPU
				s.odd = &b
				return sample.OverCapacity, fall > 0 || again
			}
		}
	}
	if s.start == 0 {
		s.start = start
	}
	s.first, s.received, s.odd = received, received, nil
	s.epoch = append(s.epoch, b)
	r.use(s, has)
	return 0, true
}

// use computes the usage of the newest sample. If there is none, the last one stays.
func (r *reference) use(s *refSeries, has sample.Capacity) {
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
	if a == nil && len(older) > 0 && int64(b.Time-older[0].Time) >= min(5000, r.resolution.Milliseconds()/3*2) {
		a = &older[0]
	}
	if len(older) == 0 && s.start > 0 && !s.noZero {
		age := b.Time.Sub(s.start)
		if age >= 5*time.Second && age <= max(time.Minute, 2*r.resolution) && possible(int64(b.CPU), b.Time-s.start, has) {
			a = &sample.Sample{Time: s.start}
		}
	}
	if a == nil {
		return
	}
	rate := new(big.Int).SetUint64(b.CPU - a.CPU)
	rate.Mul(rate, big.NewInt(1000)).Quo(rate, big.NewInt(int64(b.Time-a.Time)))
	b.Memory = min(b.Memory, has.Memory)
	s.usage = &refUsage{of: b, window: b.Time - a.Time, rate: min(rate.Uint64(), has.CPU)}
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

// pod returns the usage of a pod from each node that may be trusted by rule 7, as long as the API
// server has not answered; nil if a node claims the pod, but has no usage.
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
			start = max(start, s.start)
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

// world generates the answers of kubelets: containers with clocks of their own that start, restart,
// end, move, flap and are reported wrongly.
type world struct {
	*rand.Rand
	now     float64
	nodes   []string
	running map[string]map[sample.ContainerID]*sample.Sample // by node
	own     map[string]*sample.Sample
	frozen  map[*sample.Sample]bool
}

func newWorld(seed uint64) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 0)), nodes: []string{"x", "y", "z"},
		running: map[string]map[sample.ContainerID]*sample.Sample{}, own: map[string]*sample.Sample{},
		frozen: map[*sample.Sample]bool{},
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
	if w.chance(1) {
		w.frozen[s] = !w.frozen[s]
	}
	switch {
	case w.frozen[s]:
		return
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
	switch {
	case w.chance(2): // a part of what is counted has gone
		s.CPU /= 2
	case w.chance(2):
		s.CPU += 1e13
	case w.chance(3) && s.Given.Has(sample.Start): // a restart
		s.Start = s.Time - sample.Time(w.IntN(8000))
		s.CPU = uint64(w.IntN(4e9))
	case w.chance(5) && s.Given.Has(sample.Start):
		s.Start += sample.Time(w.IntN(30_000) - 10_000)
	}
}

// glitch is a bad reading of s.
func (w *world) glitch(s *sample.Sample) {
	switch {
	case w.chance(5):
		s.CPU -= min(s.CPU, uint64(w.IntN(2e8)))
	case w.chance(3):
		s.CPU -= min(s.CPU, uint64(w.IntN(1e12)))
	case w.chance(3):
		s.CPU += uint64(w.IntN(1e12))
	case w.chance(3) && s.Given.Has(sample.Start):
		s.Start = s.Time - sample.Time(w.IntN(90_000)-10_000)
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
	w.glitch(&b.Node)
	if w.chance(5) {
		b.Node.Given = sample.Fields(w.IntN(4))
	}
	for _, id := range slices.SortedFunc(maps.Keys(cs), func(a, b sample.ContainerID) int {
		return slices.Compare([]string{a.Container(), a.Namespace(), a.Pod()},
			[]string{b.Container(), b.Namespace(), b.Pod()})
	}) {
		s := cs[id]
		w.tick(s)
		c := sample.Container{ID: &id, Sample: *s}
		w.glitch(&c.Sample)
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

// The store and the reference serve the same, whatever happens, and there is always a reason if
// nothing is served.
func TestStoreEqualsReference(t *testing.T) {
	var nodes, pods, none, contested int
	var refused sample.Refusals
	for seed := range uint64(40) {
		w := newWorld(seed)
		resolution := []time.Duration{time.Second, 10 * time.Second, 15 * time.Second, time.Minute}[seed%4]
		window := resolution * time.Duration([]int{1, 1, 2, 8, 20}[seed%5])
		ref := newReference(resolution, window)
		s := New(Config{
			Resolution: resolution, Window: window,
			Capacity: func(node string) sample.Capacity { return ref.capacity[node] },
		})
		for step := range 250 {
			w.now += w.Float64() * resolution.Seconds()
			if w.chance(1) {
				w.now += 1.5 * ref.expiry.Seconds()
			}
			node, now := w.nodes[w.IntN(3)], at(w.now)
			if w.chance(2) {
				ref.capacity[node] = sample.Capacity{CPU: uint64(w.IntN(9)) * 1e9, Memory: uint64(w.IntN(120))}
			}
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
				if want := ref.record(node, b, now); got.Refused != want {
					t.Fatalf("seed %d, step %d: %d samples refused, want %d", seed, step, got.Refused, want)
				}
				refused.Add(&got.Refused)
				for _, c := range got.Conflicts {
					s.NoOwner(c.Namespace, c.Pod)
				}
			}
			now = now.Add(time.Duration(w.IntN(20)) * time.Second)

			for _, n := range w.nodes {
				got, ok := s.Node(n, now)
				got.Revision = 0
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
				u.Revision, u.NodeSince = 0, 0
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
					t.Fatalf("seed %d, step %d: pod %s/%s is not served: %s\nwant %v", seed, step, namespace, name,
						s.WhyNoPod(namespace, name, now), want)
				}
			}
		}
	}
	// A test that compares nothing proves nothing.
	for _, why := range []sample.Reason{sample.TimestampOld, sample.OverCapacity, sample.Frozen} {
		if refused[why] < 100 {
			t.Errorf("refused: %v", &refused)
		}
	}
	if nodes < 10_000 || pods < 10_000 || none < 10_000 || contested < 100 {
		t.Errorf("compared %d nodes, %d pods that are served, %d that are not, %d with several that may be believed", nodes,
			pods, none, contested)
	}
}
