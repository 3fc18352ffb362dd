package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
)

// longWindow returns a fixture whose CPU is averaged over two minutes, at the default resolution.
func longWindow(t *testing.T) fixture {
	t.Helper()
	return fixture{t, New(Config{Window: 2 * time.Minute})}
}

func TestLongWindowGrowsFromTheFirstSample(t *testing.T) {
	f := longWindow(t)
	// A container that burns a CPU for every other 30 s.
	cpu := func(s float64) float64 {
		period := float64(int(s) / 60)
		return 30*period + min(s-60*period, 30)
	}
	windows := map[float64]float64{}
	for s := 0.0; s <= 600; s += 15 {
		f.answer(s, ctr("a", s, cpu(s)))
		u, ok := f.get(s)
		if !ok {
			if s > 0 {
				t.Fatalf("at %v: not served", s)
			}
			continue
		}
		w := u.Window.Seconds()
		windows[s] = w
		if want := uint64((cpu(s) - cpu(s-w)) / w * 1e9); u.Time != ms(s) || u.Containers[0].CPU-want+1 > 2 {
			t.Errorf("at %v: timestamp %v, window %v: CPU %d, want %d", s, u.Time-ms(0), w, u.Containers[0].CPU, want)
		}
		if s >= 80 && (w < 80 || w > 135) {
			t.Errorf("at %v: window %v, want two thirds of 2m to 2m and a sample", s, w)
		}
	}
	for s, want := range map[float64]float64{15: 15, 30: 30, 60: 60, 90: 90} {
		if windows[s] != want {
			t.Errorf("at %v: window %v, want %v", s, windows[s], want)
		}
	}
}

// Memory is not averaged, and a container that starts or restarts is served as early as ever.
func TestLongWindowOfYoungContainers(t *testing.T) {
	f := longWindow(t)
	f.answer(112, started(ctr("a", 112, 2.4), 100))
	f.want(112, served{T: 112, Window: 12, Milli: 200, MiB: 10, Names: "a"})
	b := started(ctr("a", 122, 5.4), 100)
	b.Memory = 20 * mib
	f.answer(122, b)
	f.want(122, served{T: 122, Window: 10, Milli: 300, MiB: 20, Names: "a"})
	f.answer(132, started(ctr("a", 132, 8.4), 100))
	f.want(132, served{T: 132, Window: 20, Milli: 300, MiB: 10, Names: "a"})
	f.answer(142, started(ctr("a", 142, 0.6), 136)) // a restart begins a new window
	f.want(142, served{T: 142, Window: 6, Milli: 100, MiB: 10, Names: "a"})

	// A longer window is no reason to average over a container's whole life.
	f = longWindow(t)
	f.answer(200, started(ctr("a", 200, 50), 100))
	f.wantNone(200, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at `+
		`least 5s apart`)
}

func TestLongWindowDoesNotProlongExpiry(t *testing.T) {
	f := longWindow(t)
	for s := 0.0; s <= 150; s += 15 {
		f.answer(s, ctr("a", s, s))
	}
	f.want(210, served{T: 150, Window: 105, Milli: 1000, MiB: 10, Names: "a"})
	f.wantNone(210.001, `the last answer of node "n" was received 1m0s ago`)
}

// Whatever happens, a longer window changes CPU and window of what is served, and nothing else: not
// whether it is served, nor its timestamp, memory and node, nor what is refused.
func TestWindowChangesOnlyCPU(t *testing.T) {
	var compared, longer int
	for seed := range uint64(24) {
		var rest [2]string
		for i, window := range []int{1, 12} {
			rest[i] = exceptCPU(seed, window, &compared, &longer)
		}
		if rest[0] != rest[1] {
			d := cmp.Diff(strings.Split(rest[0], "\n"), strings.Split(rest[1], "\n"))
			t.Fatalf("seed %d: with a window of one resolution and of twelve (-one +twelve):\n%s", seed, d)
		}
	}
	if compared < 10_000 || longer < 1000 {
		t.Errorf("%d usages were served, %d with a window longer than two resolutions", compared, longer)
	}
}

// exceptCPU returns everything that a store with a window of so many resolutions does in a world, except
// for CPU and windows, and the revisions, which say when these changed.
func exceptCPU(seed uint64, window int, servedPods, longer *int) string {
	var all strings.Builder
	w := newWorld(seed)
	resolution := []time.Duration{time.Second, 10 * time.Second, 15 * time.Second, time.Minute}[seed%4]
	s := New(Config{Resolution: resolution, Window: time.Duration(window) * resolution, Capacity: capacity(4, 1)})
	for step := range 250 {
		w.now += w.Float64() * resolution.Seconds()
		node, now := w.nodes[w.IntN(3)], at(w.now)
		r := s.Record(node, w.answer(node), now)
		fmt.Fprintf(&all, "%d: %+v\n", step, r)
		for _, c := range r.Conflicts {
			s.NoOwner(c.Namespace, c.Pod)
		}
		now = now.Add(time.Duration(rand.New(rand.NewPCG(seed, uint64(step))).IntN(20)) * time.Second)
		for _, n := range w.nodes {
			u, ok := s.Node(n, now)
			u.CPU, u.Window, u.Revision = 0, 0, 0
			fmt.Fprintln(&all, n, u, ok, s.WhyNoNode(n, now))
		}
		for i := range 6 {
			namespace, name := []string{"a", "b"}[i%2], fmt.Sprint("p", i/2)
			var u sample.PodUsage
			ok := s.Pod(namespace, name, now, &u)
			if ok {
				*servedPods++
			}
			if u.Window > 2*resolution+time.Minute {
				*longer++
			}
			u.Window, u.Revision, u.NodeSince = 0, 0, 0
			for i := range u.Containers {
				u.Containers[i].CPU = 0
			}
			fmt.Fprintln(&all, namespace, name, u, ok, s.WhyNoPod(namespace, name, now))
		}
	}
	return all.String()
}
