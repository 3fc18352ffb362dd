package cluster

import (
	"fmt"
	"testing"
	"time"

	"metrics-server/pkg/history"
	"metrics-server/pkg/sharedtest"
)

// BenchmarkSnapshot measures a snapshot of 5,000 nodes with 30 pods each, in 15,000 workloads, after a second in which
// one pod in 60 has a new sample, and how much memory all of it takes for each pod, with an hour of past.
func BenchmarkSnapshot(b *testing.B) {
	const nodes, podsPerNode, pods = 5000, 30, 5000 * 30
	before := sharedtest.Heap()
	m := modelAt(epoch)
	now := epoch
	usage := func(i int) *measured {
		u := usageAt("shop", fmt.Sprintf("web-%06d-abcde", i), now, float64(i))
		u.containers[0].name = shared("c")
		return u
	}
	for i := range nodes {
		m.all(node(fmt.Sprintf("node-%05d", i)), usageAt("", fmt.Sprintf("node-%05d", i), now, 1))
	}
	for i := range pods {
		p := pod(fmt.Sprintf("web-%06d-abcde", i), shared(fmt.Sprintf("node-%05d", i/podsPerNode)))
		p.IP = fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)
		p.Workload = history.Key{
			Kind: "Deployment", Namespace: "shop", Name: shared(fmt.Sprintf("web-%05d", i/10)),
		}
		for _, kind := range []string{
			"Initialized", "Ready", "ContainersReady", "PodScheduled", "PodReadyToStartContainers",
		} {
			p.Conditions = append(p.Conditions, Condition{Type: kind, Status: "True"})
		}
		m.all(p, usage(i))
	}
	s := m.snapshot(now)
	for range LongPast {
		now = now.Add(15 * time.Second)
		s.At = now
		m.tick(s)
	}
	s = m.snapshot(now)
	size := sharedtest.Heap() - before
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		now = now.Add(time.Second)
		for j := i % 60; j < pods; j += 60 {
			m.all(usage(j))
		}
		b.StartTimer()
		s = m.snapshot(now)
	}
	b.ReportMetric(float64(size)/pods, "B/pod")
	if len(s.Pods) != pods {
		b.Fatalf("%d pods", len(s.Pods))
	}
}
