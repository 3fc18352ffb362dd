package cluster_test

import (
	"net/netip"
	"testing"
	"time"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/pkg/kubelet/kubelettest"
)

// TestNodes checks that a node can leave, its pods start elsewhere, the node return and its kubelet
// move.
func TestNodes(t *testing.T) {
	now := time.Now()
	c := cluster.New(cluster.Config{Nodes: 3, Pods: 20, Containers: 1, Port: 10250, Now: now})
	told := map[string]int{}
	tell := func(m *cluster.Machine, pods []kubelettest.Pod) error {
		told[m.Name] = len(pods)
		return nil
	}
	nodes, version := c.Nodes()
	gone := nodes[1].Machine
	churner := c.NewChurner(tell)
	churner.Leave(gone, now)
	if past, ok := c.PastNode(gone.Name); c.Node(gone.Name) != nil || !ok || past.Until != now {
		t.Error("the node is still there, or forgotten")
	}
	if pods, _ := c.Pods(""); len(pods) != 40 || len(c.On(gone)) != 0 {
		t.Errorf("%d pods while a third is away, %d of them on the node that left", len(pods), len(c.On(gone)))
	}
	if err := churner.Settle(now); err != nil {
		t.Fatal(err)
	}
	pods, _ := c.Pods("")
	for _, p := range pods {
		if p.Machine.Name == gone.Name {
			t.Errorf("pod %s is on the node that left", p.Name)
		}
	}
	if len(pods) != 60 {
		t.Errorf("%d pods, want 60", len(pods))
	}
	if err := c.AddNode(gone, now, tell); err != nil {
		t.Fatal(err)
	}
	back := c.Node(gone.Name)
	if n, called := told[gone.Name]; back == nil || back.UID() == gone.UID() || !called || n != 0 {
		t.Errorf("the node that came back: %+v", back)
	}
	to := netip.MustParseAddrPort("127.16.9.9:1")
	c.MoveNode(back.Machine, to, now)
	if got := c.Node(gone.Name).Addr; got != to {
		t.Errorf("the kubelet moved to %v, want %v", got, to)
	}
	var kinds string
	events, _, _ := c.NodeLog.Since(version)
	for _, e := range events {
		kinds += e.Type + " "
	}
	if kinds != "DELETED ADDED MODIFIED " {
		t.Errorf("events %s", kinds)
	}
}

// TestReplaceOnAnotherMachine has a node come back as another machine before its pods are replaced: those of
// StatefulSets that stay on the node are told to the kubelet of the new one.
func TestReplaceOnAnotherMachine(t *testing.T) {
	now := time.Now()
	c := cluster.New(cluster.Config{Nodes: 3, Pods: 100, Containers: 1, Port: 10250, Now: now})
	gone := c.Node("ip-127-16-0-1.fleet.internal").Machine
	told := 0
	tell := func(m *cluster.Machine, _ []kubelettest.Pod) error {
		if m.Name == gone.Name {
			told++
			if m.UID() != c.Node(m.Name).UID() {
				t.Errorf("the kubelet of %s is told as that of the machine that left", m.Name)
			}
		}
		return nil
	}
	churner := c.NewChurner(tell)
	churner.Leave(gone, now)
	if err := c.AddNode(gone, now, func(*cluster.Machine, []kubelettest.Pod) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := churner.Settle(now); err != nil {
		t.Fatal(err)
	}
	if told == 0 {
		t.Error("no pod returned to the node")
	}
}
