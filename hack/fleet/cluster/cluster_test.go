package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/pkg/kubelet/kubelettest"
)

func TestCluster(t *testing.T) {
	c := cluster.New(cluster.Config{Nodes: 100, Pods: 30, Containers: 2, Faulty: 10, Port: 10250, Now: time.Now()})
	nodes, _ := c.Nodes()
	faulty := 0
	seen := map[string]bool{}
	for _, n := range nodes {
		if n.Faulty {
			faulty++
		}
		addr := n.Addr.String()
		if seen[addr] || !n.Addr.Addr().IsLoopback() {
			t.Errorf("address %s", addr)
		}
		seen[addr] = true
		if got := len(c.On(n.Machine)); got != 30 {
			t.Errorf("%d pods on a node", got)
		}
	}
	if faulty != 10 {
		t.Errorf("%d of 100 nodes are faulty, want 10", faulty)
	}
	pods, _ := c.Pods("")
	names := map[string]bool{}
	stateful := 0
	for _, p := range pods {
		if key := p.Namespace + "/" + p.Name; names[key] {
			t.Errorf("two pods are %s", key)
		} else {
			names[key] = true
		}
		if p.Stateful {
			stateful++
		}
		if c.Pod(p.Namespace, p.Name) != p {
			t.Fatalf("%s is not found", p.Name)
		}
	}
	if len(pods) != 3000 || stateful < 300 || stateful > 450 {
		t.Errorf("%d pods, %d of them of StatefulSets", len(pods), stateful)
	}
}

// TestChurn follows the events and compares with the existing objects, also on the kubelets.
func TestChurn(t *testing.T) {
	c := cluster.New(cluster.Config{Nodes: 5, Pods: 30, Containers: 2, Port: 10250, Now: time.Now()})
	pods, version := c.Pods("")
	known := map[string]*cluster.Pod{}
	for _, p := range pods {
		known[p.Namespace+"/"+p.Name] = p
	}
	told := map[string]int{} // pods by node
	ctx, cancel := context.WithCancel(t.Context())
	changes := 0
	if err := c.Churn(ctx, 2000, func(m *cluster.Machine, pods []kubelettest.Pod) error {
		told[m.Name] = len(pods)
		if changes++; changes == 300 {
			cancel()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	events, _, ok := c.PodLog.Since(version)
	if !ok || len(events) < 300 {
		t.Fatalf("%d events, %t", len(events), ok)
	}
	kinds, again := map[string]int{}, 0
	deleted := map[string]bool{}
	for _, e := range events {
		p := e.Object.(*cluster.Pod)
		key := p.Namespace + "/" + p.Name
		if kinds[e.Type]++; e.Type == "DELETED" {
			delete(known, key)
			deleted[key] = true
			continue
		}
		if (known[key] == nil) != (e.Type == "ADDED") || p.Version != e.Version {
			t.Fatalf("%s of %s at %d", e.Type, key, e.Version)
		}
		if e.Type == "ADDED" && deleted[key] {
			again++
		}
		known[key] = p
	}
	if kinds["ADDED"] == 0 || kinds["DELETED"] == 0 || kinds["MODIFIED"] == 0 || again == 0 {
		t.Errorf("events %v, %d names that were used again", kinds, again)
	}
	now, _ := c.Pods("")
	got := map[string]*cluster.Pod{}
	on := map[string]int{}
	for _, p := range now {
		got[p.Namespace+"/"+p.Name] = p
		on[p.Machine.Name]++
	}
	if len(got) != len(known) {
		t.Errorf("%d pods, but %d by the events", len(got), len(known))
	}
	for key, p := range known {
		if got[key] != p {
			t.Errorf("%s differs from its last event", key)
		}
	}
	for node, n := range told {
		if on[node] != n {
			t.Errorf("the kubelet of %s has %d pods, want %d", node, n, on[node])
		}
	}
}

func TestLog(t *testing.T) {
	c := cluster.New(cluster.Config{Nodes: 1, Pods: 1, Containers: 1, Now: time.Now()})
	version := c.Version()
	_, changed, ok := c.NodeLog.Since(version)
	if !ok {
		t.Fatal("the present is forgotten")
	}
	for range 3 {
		c.Heartbeat(0, time.Now())
	}
	<-changed
	var versions []uint64
	events, _, _ := c.NodeLog.Since(version + 1)
	for _, e := range events {
		versions = append(versions, e.Version)
	}
	if d := cmp.Diff([]uint64{version + 2, version + 3}, versions); d != "" {
		t.Error(d)
	}
	for range 110_000 {
		c.Heartbeat(0, time.Now())
	}
	if _, _, ok := c.NodeLog.Since(version); ok {
		t.Error("nothing is ever forgotten")
	}
	if events, _, ok := c.NodeLog.Since(c.Version() - 50_000); !ok || len(events) != 50_000 {
		t.Errorf("%d events are remembered", len(events))
	}
}
