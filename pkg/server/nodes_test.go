package server

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"metrics-server/pkg/inventory"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/scrape"
	"metrics-server/pkg/store"
)

// The usage of a node is bounded by its capacity, from its first answer on, according to its status
// at that time.
func TestCapacityBoundsUsage(t *testing.T) {
	kubelets, err := kubelet.New(kubelet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var n *nodes
	s := store.New(store.Config{Capacity: func(node string) sample.Capacity { return n.capacity(node) }})
	to := newSink(s, nil, prometheus.NewRegistry())
	n = newNodes(kubelets, scrape.New(scrape.Config{Sink: to}), to)
	has := func(cores, memory uint64) {
		n.set(inventory.Node{Object: sample.Object{Name: "a"}, Capacity: sample.Capacity{CPU: cores * 1e9, Memory: memory}})
	}
	begin := time.Now()
	answer := func(after time.Duration, cpu, memory uint64) (sample.NodeUsage, bool) {
		at := begin.Add(after)
		to.Record("a", &sample.Batch{Node: sample.Sample{
			Time: sample.TimeOf(at), CPU: cpu, Memory: memory,
			Given: sample.CPU | sample.Memory,
		}}, at)
		return s.Node("a", at)
	}
	has(2, 1000)
	answer(0, 0, 100)
	if u, ok := answer(10*time.Second, 30e9, 100); ok {
		t.Errorf("3 CPUs of 2: %+v", u)
	}
	if u, ok := answer(20*time.Second, 50e9, 2000); ok {
		t.Errorf("2000 bytes of 1000: %+v", u)
	}
	has(8, 4000)
	if u, ok := answer(30*time.Second, 90e9, 2000); !ok || u.CPU != 3e9 || u.Memory != 2000 {
		t.Errorf("served %v, %+v", ok, u)
	}
	n.remove("a")
	if got := n.capacity("a"); got != (sample.Capacity{}) || len(n.capacities) > 0 {
		t.Errorf("a node that left has %+v", got)
	}
}

// Two nodes at one address are noticed when the second one appears, and forgotten when one of them
// leaves.
func TestPlaces(t *testing.T) {
	p := newPlaces()
	for i, step := range []struct {
		node, place string
		want        []string
	}{
		{"b", "10.0.0.1:10250", []string{"b"}},
		{"b", "10.0.0.1:10250", nil},
		{"c", "", nil},
		{"a", "10.0.0.1:10250", []string{"a", "b"}},
		{"a", "10.0.0.1:10250", nil}, // not twice
		{"a", "10.0.0.1:10250/of/a", []string{"a"}},
		{"a", "10.0.0.2:10250", []string{"a"}},
		{"b", "10.0.0.2:10250", []string{"a", "b"}},
		{"a", "", nil},
		{"a", "", nil},
		{"c", "10.0.0.2:10250", []string{"b", "c"}},
		{"b", "", nil},
		{"c", "", nil},
	} {
		if got := p.set(step.node, step.place); !slices.Equal(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	if len(p.of)+len(p.at) > 0 {
		t.Errorf("nodes that left are remembered: %+v", p)
	}
}
