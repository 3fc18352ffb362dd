package server

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"metrics-server/pkg/inventory"
	"metrics-server/pkg/kubeapi"
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

// Two Nodes of one machine share a place even if they are asked at their names first.
func TestTwoNamesOfOneMachine(t *testing.T) {
	kubelets, err := kubelet.New(kubelet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer kubelets.Close()
	to := newSink(store.New(store.Config{}), nil, prometheus.NewRegistry())
	n := newNodes(kubelets, scrape.New(scrape.Config{Sink: to}), to)
	for _, name := range []string{"a", "b"} {
		n.set(inventory.Node{
			Object:    sample.Object{Name: name},
			Addresses: []inventory.Address{{Type: "Hostname", Address: name}, {Type: "InternalIP", Address: "10.0.0.1"}},
		})
	}
	const place = "10.0.0.1:10250" + kubeapi.KubeletPath
	if got := n.places.at[place]; !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("nodes at %s: %q", place, got)
	}
	n.remove("a")
	n.remove("b")
	if len(n.places.of)+len(n.places.at) > 0 {
		t.Errorf("nodes that left are remembered: %+v", n.places)
	}
}

// Two nodes at one place are noticed when the second one appears there, once for each pair, and forgotten when one of
// them leaves.
func TestPlaces(t *testing.T) {
	const name1, name2, ip1, ip2 = "n1:10250", "n2:10250", "10.0.0.1:10250", "10.0.0.2:10250"
	p := newPlaces()
	for i, step := range []struct {
		node   string
		places []string
		shared string
		want   []string
	}{
		{"b", []string{ip1}, "", nil},
		{"b", []string{ip1}, "", nil},
		{"c", nil, "", nil},
		{"a", []string{ip1}, ip1, []string{"a", "b"}},
		{"a", []string{ip1}, "", nil}, // not twice
		{"c", []string{ip1}, "", nil}, // nor for a third
		{"c", nil, "", nil},
		{"a", []string{ip1 + "/of/a"}, "", nil},
		{"a", []string{ip2}, "", nil},
		{"b", []string{ip2}, ip2, []string{"a", "b"}},
		{"a", nil, "", nil},
		{"a", nil, "", nil},
		{"c", []string{ip2}, ip2, []string{"b", "c"}},
		{"b", nil, "", nil},
		{"c", []string{name1, ip1}, "", nil},
		{"b", []string{name2, ip2}, "", nil},
		{"b", []string{name2, ip2, ip1}, ip1, []string{"b", "c"}},
		{"b", []string{name1, ip2, ip1}, name1, []string{"b", "c"}},
		{"b", []string{ip2}, "", nil},
		{"b", []string{name1, ip1}, name1, []string{"b", "c"}}, // once, although they share both
		{"b", nil, "", nil},
		{"c", nil, "", nil},
	} {
		if place, got := p.set(step.node, step.places); place != step.shared || !slices.Equal(got, step.want) {
			t.Errorf("step %d: %q with %v, want %q with %v", i, place, got, step.shared, step.want)
		}
	}
	if len(p.of)+len(p.at) > 0 {
		t.Errorf("nodes that left are remembered: %+v", p)
	}
}
