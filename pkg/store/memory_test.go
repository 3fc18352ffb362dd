package store

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"metrics-server/pkg/ring"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// fleet returns the first answers of many nodes.
func fleet(nodes, pods int) []*sample.Batch {
	bs := make([]*sample.Batch, nodes)
	for i := range bs {
		bs[i] = listing(fmt.Sprintf("node-%d", i), pods)
	}
	return bs
}

// bytesPerContainer is what a Store of the fleet adds to the heap once its rings are full, for
// each container: without the names, which it shares with the kubelet clients.
func bytesPerContainer(nodes, pods int) float64 {
	bs := fleet(nodes, pods)
	before := sharedtest.Heap()
	s := New(Config{})
	for i := range 5 {
		for j, b := range bs {
			s.Record(fmt.Sprintf("node-%d", j), b, at(float64(15*i)))
			advance(b, 15)
		}
	}
	used := sharedtest.Heap() - before
	_, points := s.Points()
	runtime.KeepAlive(bs)
	return float64(used) / (float64(points) / ring.Size)
}

func TestMemoryPerContainer(t *testing.T) {
	const budget = 228 // 68 MB for 150,000 pods of 2 containers
	if got := bytesPerContainer(500, 30); got > budget {
		t.Errorf("%.0f bytes per container, want at most %d", got, budget)
	}
}

func BenchmarkMemory5000x30x2(b *testing.B) {
	for b.Loop() {
		n := bytesPerContainer(5000, 30)
		b.ReportMetric(n, "B/container")
		b.ReportMetric(n*300_000/1e6, "MB")
	}
}

func BenchmarkRecord30x2(b *testing.B) {
	s := New(Config{})
	batch := listing("n", 30)
	now := at(0)
	b.ReportAllocs()
	for b.Loop() {
		advance(batch, 15)
		now = now.Add(15e9)
		s.Record("n", batch, now)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/60, "ns/sample")
}

// BenchmarkRecordCold is a scrape as it happens: the node's samples have left the caches.
func BenchmarkRecordCold30x2(b *testing.B) {
	bs := fleet(1000, 30)
	names := make([]string, len(bs))
	s := New(Config{})
	now := at(0)
	for i := range bs {
		names[i] = fmt.Sprintf("node-%d", i)
		s.Record(names[i], bs[i], now)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		j := i % len(bs)
		i++
		advance(bs[j], 15)
		s.Record(names[j], bs[j], now.Add(15e9))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/60, "ns/sample")
}

// BenchmarkRecordChanged30x2 is the worst that an answer can do: another order every time.
func BenchmarkRecordChanged30x2(b *testing.B) {
	s := New(Config{})
	batch := listing("n", 30)
	now := at(0)
	b.ReportAllocs()
	for b.Loop() {
		advance(batch, 15)
		now = now.Add(15e9)
		batch.Containers = append(batch.Containers[1:], batch.Containers[0])
		s.Record("n", batch, now)
	}
}

// BenchmarkPods looks pods up as a list of all pods does: by name, which is a random order of
// nodes, so that nothing about a pod is in the caches.
func BenchmarkPods(b *testing.B) {
	const nodes = 3000
	s := New(Config{})
	for i, batch := range fleet(nodes, 30) {
		name := fmt.Sprintf("node-%d", i)
		s.Record(name, batch, at(0))
		advance(batch, 15)
		s.Record(name, batch, at(15))
	}
	pods := make([]sample.Object, nodes*30)
	// the names themselves are in order, as those of a list are
	for at, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(pods)) {
		pods[at] = sample.Object{Namespace: "load", Name: fmt.Sprintf("node-%d-%d", i/30, i%30)}
	}
	for _, n := range []int{1, batch} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			usages := make([]sample.PodUsage, n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i += n
				if i+n > len(pods) {
					i = 0
				}
				s.Pods(pods[i:i+n], at(15), usages)
				if len(usages[n-1].Containers) != 2 {
					b.Fatal("not served")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/pod")
		})
	}
}
