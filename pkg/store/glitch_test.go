package store

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"metrics-server/pkg/sample"
)

// glitches are what kubelets do to a container or node that works at a steady rate. Each changes
// one sample, or those from one on: it is told the sample and how often it was asked since it
// began.
var glitches = map[string]func(r *rand.Rand, s *sample.Sample, again int){
	"start moves near": func(_ *rand.Rand, s *sample.Sample, _ int) { s.Start = s.Time - 8_000 },
	"start drifts":     func(_ *rand.Rand, s *sample.Sample, again int) { s.Start += sample.Time(again) * 1500 },
	"start is a day":   func(_ *rand.Rand, s *sample.Sample, _ int) { s.Start -= 86_400_000 },
	"start vanishes":   func(_ *rand.Rand, s *sample.Sample, _ int) { s.Start, s.Given = 0, s.Given&^sample.Start },
	"start is ahead":   func(_ *rand.Rand, s *sample.Sample, _ int) { s.Start = s.Time + 600_000 },
	"slips once":       once(func(_ *rand.Rand, s *sample.Sample) { s.CPU -= 7_000 }),
	"falls once":       once(func(r *rand.Rand, s *sample.Sample) { s.CPU -= 300e9 + r.Uint64N(100e9) }),
	"slips each time":  func(_ *rand.Rand, s *sample.Sample, again int) { s.CPU -= uint64(7_000 * (again + 1)) },
	"a part has gone":  func(_ *rand.Rand, s *sample.Sample, _ int) { s.CPU -= 1e12 },
	"another counter":  func(_ *rand.Rand, s *sample.Sample, _ int) { s.CPU += 1e15 },
	"jumps once":       once(func(_ *rand.Rand, s *sample.Sample) { s.CPU += 1e15 }),
	"zero once":        once(func(_ *rand.Rand, s *sample.Sample) { s.CPU = 0 }),
	"too much memory":  once(func(_ *rand.Rand, s *sample.Sample) { s.Memory = 1 << 50 }),
	"more than there":  once(func(_ *rand.Rand, s *sample.Sample) { s.Memory = 1050 * mib }),
}

func once(f func(*rand.Rand, *sample.Sample)) func(*rand.Rand, *sample.Sample, int) {
	return func(r *rand.Rand, s *sample.Sample, again int) {
		if again == 0 {
			f(r, s)
		}
	}
}

// Whatever glitches follow each other, a usage that was served once remains served, is never more
// than the truth nor than the node has, and is the truth again when the last glitch is some samples
// ago.
func TestGlitches(t *testing.T) {
	const (
		cores  = 4
		memory = 100 * mib
		every  = 10.0 // s between samples
		pause  = 8    // samples between glitches that change one sample
	)
	names := make([]string, 0, len(glitches))
	for name := range glitches {
		names = append(names, name)
	}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		s := New(Config{Capacity: capacity(cores, 1024)})
		milli := []uint64{0, 1, 100, 500, 3999}[r.IntN(5)] // the rate in thousandths of a CPU
		start, began := -3600.0, 0
		active, history := "", ""
		for i := range 200 {
			now := float64(i) * every
			if i > 2 && i%pause == 0 {
				active, began = names[r.IntN(len(names))], i
				history += fmt.Sprintf(" %d: %s;", i, active)
			}
			c := started(ctr("a", now, 0), start)
			c.CPU, c.Memory = 3600e9+milli*uint64(now*1e6), memory
			own := c.Sample
			own.Start, own.Given = 0, whole
			if glitch := glitches[active]; glitch != nil {
				glitch(r, &c.Sample, i-began)
				glitch(r, &own, i-began)
				own.Start, own.Given = 0, whole
			}
			s.Record("n", &sample.Batch{Node: own, Containers: []sample.Container{c}}, at(now+1))

			var pod sample.PodUsage
			node, nodeOK := s.Node("n", at(now+11))
			podOK := s.Pod("ns", "p", at(now+11), &pod)
			if i == 0 {
				continue
			}
			if !nodeOK || !podOK {
				t.Fatalf("seed %d, sample %d, at %d m: node %v %s, pod %v %s\nglitches:%s", seed, i, milli, nodeOK,
					s.WhyNoNode("n", at(now+11)),
					podOK, s.WhyNoPod("ns", "p", at(now+11)), history)
			}
			for what, u := range map[string]sample.Usage{"node": node.Usage, "pod": pod.Containers[0].Usage} {
				settled := i-began >= 4 && active != "slips each time"
				const tolerance = 20_000 // nanocores: some 7 µs in a window
				if truth := milli * 1e6; u.CPU > truth+tolerance || settled && u.CPU+tolerance < truth || u.CPU > cores*1e9 {
					t.Fatalf("seed %d, sample %d: %s is served with %d nanocores, truth is %d\nglitches:%s", seed, i, what, u.CPU,
						truth, history)
				}
				if u.Memory > 1024*mib || settled && u.Memory != memory {
					t.Fatalf("seed %d, sample %d: %s is served with %d bytes\nglitches:%s", seed, i, what, u.Memory, history)
				}
			}
		}
	}
}
