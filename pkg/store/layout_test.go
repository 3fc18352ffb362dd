package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"metrics-server/pkg/sample"
)

// listing is a batch of pods x 2 containers in the kubelet's order: by container, then pod.
func listing(node string, pods int) *sample.Batch {
	b := &sample.Batch{Node: machine(0, 0)}
	for _, name := range []string{"app", "proxy"} {
		for i := range pods {
			c := started(ctr(name, 0, 0), -1000)
			c.ID = new(sample.NewContainerID("load", fmt.Sprintf("%s-%d", node, i), name))
			b.Containers = append(b.Containers, c)
		}
	}
	return b
}

// advance makes b the answer of s seconds later, in which everything ran at 100 millicores.
func advance(b *sample.Batch, s float64) {
	step := func(x *sample.Sample) { x.Time, x.CPU = x.Time+sample.Time(s*1000), x.CPU+uint64(s*1e8) }
	step(&b.Node)
	for i := range b.Containers {
		step(&b.Containers[i].Sample)
	}
}

// In whatever order an answer is, everything in it is found.
func TestAnyOrderOfContainers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	copied := func(b *sample.Batch) { // new pointers, same names
		for i := range b.Containers {
			id := *b.Containers[i].ID
			b.Containers[i].ID = &id
		}
	}
	for name, change := range map[string]func(*sample.Batch){
		"unchanged":    func(*sample.Batch) {},
		"new pointers": copied,
		"shuffled": func(b *sample.Batch) {
			r.Shuffle(len(b.Containers), func(i, j int) {
				b.Containers[i], b.Containers[j] = b.Containers[j], b.Containers[i]
			})
		},
		"reversed, new pointers": func(b *sample.Batch) { copied(b); slices.Reverse(b.Containers) },
		"duplicates: the first wins": func(b *sample.Batch) {
			for i, c := range slices.Clone(b.Containers) {
				c.CPU = 1 << 60
				b.Containers = append(b.Containers, c)
				if i%2 == 0 {
					b.Containers = slices.Insert(b.Containers, i+1, c)
				}
			}
			seen := map[*sample.ContainerID]bool{}
			for i := range b.Containers { // the first of each must be the true one
				c := &b.Containers[i]
				if !seen[c.ID] {
					c.CPU = uint64(c.Time-ms(0)) * 1e5
				}
				seen[c.ID] = true
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{})
			b := listing("n", 20)
			for i := range 4 {
				now := at(float64(15 * i))
				c := &sample.Batch{Node: b.Node, Containers: slices.Clone(b.Containers)}
				change(c)
				s.Record("n", c, now)
				for _, id := range b.Containers {
					var u sample.PodUsage
					ok := s.Pod("load", id.ID.Pod(), now, &u)
					if ok != (i > 0) || ok && (len(u.Containers) != 2 || u.Containers[0].CPU != 1e8 || u.Containers[1].CPU != 1e8) {
						t.Fatalf("answer %d: %s: %v %+v", i, id.ID.Pod(), ok, u)
					}
				}
				advance(b, 15)
			}
		})
	}
}

func TestPointersAreTakenOver(t *testing.T) {
	s := New(Config{})
	s.Record("n", listing("n", 3), at(0))
	b := listing("n", 3)
	s.Record("n", b, at(1))
	n := s.node("n")
	for i, at := range n.layout.order {
		if n.layout.containers[at].id != b.Containers[i].ID {
			t.Errorf("container %d: the pointer of an older answer is kept", i)
		}
	}
}

func TestRecordOfAnUnchangedLayoutAllocatesNothing(t *testing.T) {
	s := New(Config{})
	b := listing("n", 30)
	now := at(0)
	if n := testing.AllocsPerRun(100, func() {
		advance(b, 15)
		now = now.Add(15e9)
		s.Record("n", b, now)
	}); n != 0 {
		t.Errorf("%v allocations per scrape, want none", n)
	}
}

func TestReadsAllocateNothing(t *testing.T) {
	s := New(Config{})
	b := listing("n", 30)
	s.Record("n", b, at(0))
	advance(b, 15)
	s.Record("n", b, at(15))
	var u sample.PodUsage
	s.Pod("load", "n-7", at(15), &u)
	pods, usages := []sample.Object{
		{Namespace: "load", Name: "n-7"},
		{Namespace: "load", Name: "n-8"},
	}, make([]sample.PodUsage, 2)
	s.Pods(pods, at(15), usages)
	if n := testing.AllocsPerRun(100, func() {
		if s.Pods(pods, at(15), usages); len(usages[1].Containers) != 2 {
			t.Fatal("not served")
		}
		if _, ok := s.Node("n", at(15)); !ok || !s.Pod("load", "n-7", at(15), &u) {
			t.Fatal("not served")
		}
	}); n != 0 {
		t.Errorf("%v allocations per read, want none", n)
	}
}

// Pods are found at the place in the index and, after the node's list has changed, at the new
// place. A removed pod is not found.
func TestPodsOfAnOlderLayout(t *testing.T) {
	s := New(Config{})
	b := listing("n", 30)
	record := func(at15 int, b *sample.Batch) {
		advance(b, 15)
		s.Record("n", b, at(float64(15*at15)))
	}
	record(1, b)
	record(2, b)
	var keys []podKey
	var places []place
	for i := range 30 {
		k := podKey{"load", fmt.Sprintf("n-%d", i)}
		p, _ := s.index.place(k, at(30))
		keys, places = append(keys, k), append(places, p)
	}
	b.Containers = b.Containers[7:] // a pod of one container then
	record(3, b)
	s.RemovePod("load", "n-13")
	for i, k := range keys {
		want := 2
		switch {
		case i < 7:
			want = 1
		case i == 13:
			want = 0
		}
		now, _ := s.index.place(k, at(45))
		for _, p := range []place{places[i], now} {
			var u sample.PodUsage
			if p.layout == nil {
				if want != 0 {
					t.Errorf("%v is not in the index", k)
				}
				continue
			}
			if ok := p.pod(k, at(45), &u); ok != (want > 0) || len(u.Containers) != want {
				t.Errorf("%v: %v with %d containers, want %d", k, ok, len(u.Containers), want)
			}
			if want > 0 && u.Time != ms(45) {
				t.Errorf("%v: of %v, want %v", k, u.Time, ms(45))
			}
		}
	}
}

// Pods returns the same as Pod, for any number of pods.
func TestPods(t *testing.T) {
	s := New(Config{})
	var objects []sample.Object
	for n := range 7 {
		name := fmt.Sprintf("node-%d", n)
		b := listing(name, 9)
		for i := range 1 + n%3 { // of every third node there is no usage yet
			advance(b, 15)
			s.Record(name, b, at(float64(15*i)))
		}
		for i := range 10 { // of which the last does not exist
			objects = append(objects, sample.Object{Namespace: "load", Name: fmt.Sprintf("%s-%d", name, i)})
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
	for n := range len(objects) + 1 {
		into := make([]sample.PodUsage, n)
		for i := range into { // of a call before
			into[i] = sample.PodUsage{Node: "before", Containers: make([]sample.ContainerUsage, 1)}
		}
		s.Pods(objects[:n], at(30), into)
		for i, o := range objects[:n] {
			var want sample.PodUsage
			s.Pod(o.Namespace, o.Name, at(30), &want)
			if d := cmp.Diff(want, into[i], cmpopts.EquateEmpty()); d != "" &&
				(len(want.Containers) > 0 || len(into[i].Containers) > 0) {
				t.Fatalf("%d of %d, %s (-Pod +Pods):\n%s", i, n, o.Name, d)
			}
		}
	}
}

// If more containers vanished than may be remembered, the last ones to vanish are remembered.
func TestLastVanishedPodsAreRemembered(t *testing.T) {
	const pods = 1500 // with two containers
	l, _ := (&layout{}).align(listing("n", pods).Containers, 0, time.Hour)
	latest := 0
	for i := range l.containers {
		c := &l.containers[i]
		c.start, c.received = 1, time.Second
		if i%2 == 1 {
			c.received, latest = 2*time.Second, latest+1
		}
	}
	next, _ := l.align(nil, 3*time.Second, time.Hour)
	if len(next.containers) != minRemembered {
		t.Errorf("%d containers are remembered, want %d", len(next.containers), minRemembered)
	}
	for i := range next.containers {
		if next.containers[i].received == 2*time.Second {
			latest--
		}
	}
	if latest != 0 {
		t.Errorf("%d that vanished last are forgotten", latest)
	}
}

// If half of a pod is remembered, the pod has no usage when it returns until the other half has a second sample.
func TestPodsAreRememberedInWhole(t *testing.T) {
	const pods, together = 3000, 7 // with two containers
	l, _ := (&layout{}).align(listing("n", pods).Containers, 0, time.Hour)
	for i := range l.containers {
		l.containers[i].start, l.containers[i].received = 1, time.Duration(i/2%together)*time.Second
	}
	next, _ := l.align(nil, 10*time.Second, time.Hour)
	halves := 0
	for i := 0; i < len(next.containers); {
		from, to := next.find(next.key(i))
		halves += to - from - 2
		i = to
	}
	if len(next.containers) != minRemembered || halves < -1 {
		t.Errorf("%d containers are remembered, want %d, and half of %d pods, want of one at most", len(next.containers),
			minRemembered, -halves)
	}
}
