package cluster

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"metrics-server/pkg/history"
)

var epoch = time.Unix(1_800_000_000, 0)

// modelAt returns a model whose sources all work.
func modelAt(now time.Time) *model {
	m := newModel(15*time.Second, now)
	for _, s := range m.sources {
		s.State, s.Updated, s.listed = Watching, now, true
	}
	return m
}

func (m *model) all(items ...item) {
	for _, i := range items {
		i.put(m)
	}
}

// replace makes items all that a source says, as a list does.
func (m *model) replace(name SourceName, items ...item) {
	present := map[types.NamespacedName]struct{}{}
	for _, i := range items {
		present[i.key()] = struct{}{}
		i.put(m)
	}
	m.keep(name, present)
}

func node(name string) *Node {
	return &Node{Name: name, uid: uidOf(types.UID(name)), Created: epoch.Add(-time.Hour), Ready: Ready, Usage: noUsage}
}

// pod returns a pod of the Deployment web, with one container, that has run for long.
func pod(name, node string) *Pod {
	return &Pod{
		Namespace: "shop", Name: name, uid: uidOf(types.UID(name)), Node: node,
		Created: epoch.Add(-time.Hour), Started: epoch.Add(-time.Hour),
		Workload: history.Key{Kind: "Deployment", Namespace: "shop", Name: "web"},
		Status:   "Running", Running: true, Conditions: []Condition{{Type: "Ready"}}, Usage: noUsage,
		Requests: Amount{1, nan}, Limits: Amount{2, 200},
		Containers: []Container{{Name: "c", Used: unknown}},
	}
}

func usageAt(namespace, name string, at time.Time, cpu float64) *measured {
	used := Amount{cpu, 100 * cpu}
	return &measured{
		namespace: namespace, name: name, usage: Usage{used, at, time.Minute},
		containers: []measuredContainer{{"c", used}},
	}
}

func TestJoin(t *testing.T) {
	m := modelAt(epoch)
	pending, ended := pod("pending", ""), pod("ended", "n1")
	pending.Running, pending.Requests = false, Amount{8, 8}
	ended.Running, ended.Ended = false, true
	other := pod("other", "n1")
	other.Workload, other.Limits = history.Key{Kind: "Pod", Namespace: "shop", Name: "other"}, unknown
	m.all(
		usageAt("", "n1", epoch, 3), usageAt("shop", "a", epoch, 0.5), usageAt("shop", "b", epoch.Add(-9*time.Second), 0.25),
		usageAt("", "n9", epoch, 9), usageAt("shop", "nobody", epoch, 9), // of what does not exist
		node("n2"), node("n1"), pod("c", "n2"), pod("b", "n1"), pod("a", "n1"), pending, ended, other,
	)
	s := m.snapshot(epoch)

	if &s.Pods[0].Conditions[0] != &s.Pods[1].Conditions[0] {
		t.Error("the pods of a workload do not share their conditions")
	}

	var nodes []string
	for _, n := range s.Nodes {
		nodes = append(nodes, fmt.Sprintf("%s %v %v %v %v %v",
			n.Name, n.Usage.Used, n.Requests, n.Limits, n.Pods, n.PodsMissing))
	}
	if d := diff([]string{"n1 {3 300} {3 NaN} {4 400} 3 1", "n2 {NaN NaN} {1 NaN} {2 200} 1 1"}, nodes); d != "" {
		t.Errorf("nodes: (-want +got)\n%s", d)
	}
	var pods []string
	for _, p := range s.Pods {
		pods = append(pods, fmt.Sprintf("%s %v %v", p.Name, p.Usage.Used, p.Containers[0].Used))
	}
	if d := diff([]string{
		"a {0.5 50} {0.5 50}", "b {0.25 25} {0.25 25}", "c {NaN NaN} {NaN NaN}", "ended {NaN NaN} {NaN NaN}",
		"other {NaN NaN} {NaN NaN}", "pending {NaN NaN} {NaN NaN}",
	}, pods); d != "" {
		t.Errorf("pods: (-want +got)\n%s", d)
	}
	want := []*Workload{
		{
			Key:  history.Key{Kind: "Deployment", Namespace: "shop", Name: "web"},
			Pods: 3, Pending: 1, Missing: 1, Overdue: 1, Used: Amount{0.75, 75}, Requests: Amount{3, nan},
			Limits:  Amount{6, 600},
			Sampled: epoch.Add(-9 * time.Second), Past: s.Workloads[0].Past,
		},
		{
			Key:  history.Key{Kind: "Pod", Namespace: "shop", Name: "other"},
			Pods: 1, Missing: 1, Overdue: 1, Used: unknown, Requests: Amount{1, nan}, Limits: unknown, Past: s.Workloads[1].Past,
		},
	}
	if d := diff(want, s.Workloads); d != "" {
		t.Errorf("workloads: (-want +got)\n%s", d)
	}
	objects := map[SourceName]int{}
	for _, source := range s.Sources {
		objects[source.Name] = source.Objects
	}
	if d := diff(map[SourceName]int{
		Nodes: 2, Pods: 6, HPAs: 0, NodeMetrics: 1, PodMetrics: 2, History: 0,
	}, objects); d != "" {
		t.Errorf("objects: (-want +got)\n%s", d)
	}

	// Another sample changes the rows that it is about, in the next snapshot only.
	m.all(usageAt("shop", "a", epoch.Add(time.Minute), 1), usageAt("shop", "b", epoch.Add(-9*time.Second), 0.25))
	next := m.snapshot(epoch)
	if next.Pods[0].Usage.Used.CPU != 1 || s.Pods[0].Usage.Used.CPU != 0.5 || s.Pods[0].Containers[0].Used.CPU != 0.5 {
		t.Errorf("a new sample: %+v and %+v", next.Pods[0], s.Pods[0])
	}
	if next.Pods[1] != s.Pods[1] || next.Pods[4] != s.Pods[4] || next.Version <= s.Version {
		t.Error("the row of a pod has changed that is still the same")
	}

	// Everything goes, in both orders.
	m.drop(PodMetrics, types.NamespacedName{Namespace: "shop", Name: "a"})
	m.drop(NodeMetrics, types.NamespacedName{Name: "n1"})
	if s := m.snapshot(epoch); !s.Pods[0].Usage.Sampled.IsZero() || !s.Nodes[0].Usage.Sampled.IsZero() {
		t.Errorf("a usage that was deleted: %+v, %+v", s.Pods[0], s.Nodes[0])
	}
	m.replace(Pods)
	m.replace(Nodes)
	m.replace(PodMetrics)
	m.replace(NodeMetrics)
	s = m.snapshot(epoch)
	if len(s.Nodes)+len(s.Pods)+len(s.Workloads)+len(m.pods)+len(m.nodes) != 0 {
		t.Errorf("something is left: %+v", s)
	}
}

// TestUnreadPods checks that the pods of a node are not counted before pods are read.
func TestUnreadPods(t *testing.T) {
	m := newModel(15*time.Second, epoch)
	m.all(node("n1"))
	m.sources[Nodes].Updated = epoch
	s := m.snapshot(epoch)
	if n := s.Nodes[0]; !math.IsNaN(n.Pods) || !math.IsNaN(n.PodsMissing) {
		t.Errorf("before pods were read: %v pods, %v without usage", n.Pods, n.PodsMissing)
	}
	if !s.WasRead(Nodes) || s.WasRead(Pods) {
		t.Errorf("nodes were read: %v, pods were read: %v", s.WasRead(Nodes), s.WasRead(Pods))
	}
	m.sources[Pods].Updated = epoch
	if n := m.snapshot(epoch).Nodes[0]; n.Pods != 0 || n.PodsMissing != 0 {
		t.Errorf("without pods: %v pods, %v without usage", n.Pods, n.PodsMissing)
	}
}

func TestReplace(t *testing.T) {
	m := modelAt(epoch)
	names := func() (names []string) {
		for _, p := range m.snapshot(epoch).Pods {
			names = append(names, p.Name)
		}
		return names
	}
	m.replace(Pods, pod("b", ""), pod("a", ""), pod("d", ""))
	m.replace(PodMetrics, usageAt("shop", "a", epoch, 1), usageAt("shop", "c", epoch, 2))
	first := m.pods[types.NamespacedName{Namespace: "shop", Name: "a"}].row.Past
	m.replace(Pods, pod("c", ""), pod("a", ""))
	if d := diff([]string{"a", "c"}, names()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	s := m.snapshot(epoch)
	if s.Pods[0].Past != first {
		t.Error("a pod that stays has lost its past")
	}
	if s.Pods[1].Usage.Used.CPU != 2 {
		t.Error("the usage that was there before the pod is lost")
	}
	m.replace(PodMetrics, usageAt("shop", "c", epoch, 2))
	if s := m.snapshot(epoch); !s.Pods[0].Usage.Sampled.IsZero() || s.Pods[1].Usage.Sampled.IsZero() {
		t.Errorf("usage after a list: %+v, %+v", s.Pods[0], s.Pods[1])
	}
}

// TestRecreated checks that nothing of a pod or node is said of another one of the same name.
func TestRecreated(t *testing.T) {
	m := modelAt(epoch)
	m.all(node("n1"), pod("a", "n1"), usageAt("shop", "a", epoch, 1), usageAt("", "n1", epoch, 1))
	m.tick(m.snapshot(epoch.Add(15 * time.Second)))
	again, newNode := pod("a", "n1"), node("n1")
	again.uid, again.Created = uidOf("another"), epoch.Add(20*time.Second)
	newNode.uid, newNode.Created = uidOf("another"), epoch.Add(20*time.Second)
	m.all(again, newNode)
	s := m.snapshot(epoch.Add(20 * time.Second))
	if p := s.Pods[0]; !p.Usage.Sampled.IsZero() || len(s.Series(p.Past, CPU, 10).Values) != 0 {
		t.Errorf("a new pod has the usage or the past of the old one: %+v", p)
	}
	if n := s.Nodes[0]; !n.Usage.Sampled.IsZero() || len(s.Series(n.Past, CPU, 10).Values) != 0 {
		t.Errorf("a new node has the usage or the past of the old one: %+v", n)
	}
	m.all(usageAt("shop", "a", epoch.Add(40*time.Second), 3))
	m.tick(m.snapshot(epoch.Add(45 * time.Second)))
	s = m.snapshot(epoch.Add(45 * time.Second))
	if d := diff([]float32{float32(nan), 3}, s.Series(s.Pods[0].Past, CPU, 10).Values); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestMissing(t *testing.T) {
	for _, tt := range []struct {
		name      string
		change    func(*model, *Node, *Pod)
		node, pod string
		overdue   [2]bool // the node, the pod
	}{
		{"has usage", func(m *model, _ *Node, _ *Pod) {
			m.all(usageAt("", "n1", epoch, 1), usageAt("shop", "a", epoch, 1))
		}, "", "", [2]bool{}},
		{
			"nothing", func(*model, *Node, *Pod) {},
			"the metrics server has no usage of it", "its node has no usage either",
			[2]bool{true, true},
		},
		{"not ready", func(_ *model, n *Node, _ *Pod) {
			n.Ready = ReadyUnknown
		}, "the node is not ready", "its node is not ready", [2]bool{true, true}},
		{"its own words", func(m *model, _ *Node, _ *Pod) {
			m.nodes["n1"] = &nodeEntry{reason: "the last scrape failed"}
		}, "the last scrape failed", "its node has no usage either", [2]bool{true, true}},
		{"new node", func(_ *model, n *Node, _ *Pod) {
			n.Created = epoch.Add(-time.Minute)
		}, "the node has just joined: its first usage follows within two minutes", "its node has no usage either", [2]bool{}},
		{"only the pod", func(m *model, _ *Node, _ *Pod) {
			m.all(usageAt("", "n1", epoch, 1))
		}, "", "the metrics server has no usage of it", [2]bool{false, true}},
		{"new pod", func(m *model, _ *Node, p *Pod) {
			m.all(usageAt("", "n1", epoch, 1))
			p.Started = epoch.Add(-time.Minute)
		}, "", "it has just started: its first usage follows within two minutes", [2]bool{}},
		{"no container runs", func(m *model, _ *Node, p *Pod) {
			m.all(usageAt("", "n1", epoch, 1))
			p.Started = time.Time{}
		}, "", "none of its containers runs", [2]bool{false, true}},
		{"pending", func(m *model, _ *Node, p *Pod) {
			m.all(usageAt("", "n1", epoch, 1))
			p.Running = false
		}, "", "it has not started", [2]bool{}},
		{"unscheduled", func(m *model, _ *Node, p *Pod) {
			m.all(usageAt("", "n1", epoch, 1))
			p.Running, p.Node = false, ""
		}, "", "it is not scheduled to a node", [2]bool{}},
		{"ended", func(m *model, _ *Node, p *Pod) {
			m.all(usageAt("", "n1", epoch, 1))
			p.Running, p.Ended = false, true
		}, "", "", [2]bool{}},
		{"denied", func(m *model, _ *Node, _ *Pod) {
			m.sources[NodeMetrics].State, m.sources[PodMetrics].State = Denied, Absent
		}, "the metrics of nodes cannot be read", "the metrics of pods cannot be read", [2]bool{}},
		{"at the start", func(m *model, _ *Node, _ *Pod) {
			m.sources[NodeMetrics].State, m.sources[PodMetrics].State = Waiting, Waiting
		}, "", "", [2]bool{}},
		{"only nodes denied", func(m *model, _ *Node, _ *Pod) {
			m.sources[NodeMetrics].State = Denied
		}, "the metrics of nodes cannot be read", "the metrics server has no usage of it", [2]bool{false, true}},
	} {
		m := modelAt(epoch)
		n, p := node("n1"), pod("a", "n1")
		tt.change(m, n, p)
		m.all(n, p)
		s := m.snapshot(epoch)
		if got := [2]string{s.Nodes[0].Missing, s.Pods[0].Missing}; got != [2]string{tt.node, tt.pod} {
			t.Errorf("%s: %q, want %q", tt.name, got, [2]string{tt.node, tt.pod})
		}
		n, p = s.Nodes[0], s.Pods[0]
		if got := [2]bool{n.Overdue, p.Overdue}; got != tt.overdue {
			t.Errorf("%s: overdue is %v, want %v", tt.name, got, tt.overdue)
		}
		if p.Overdue && (n.PodsOverdue != 1 || s.Workloads[0].Overdue != 1) || !p.Overdue && n.PodsOverdue != 0 {
			t.Errorf("%s: its node has %d overdue pods", tt.name, n.PodsOverdue)
		}
		if strings.Contains(tt.pod, "just started") {
			p := m.snapshot(epoch.Add(time.Hour)).Pods[0]
			if p.Missing != "the metrics server has no usage of it" || !p.Overdue {
				t.Errorf("%s: later: %q, overdue is %v", tt.name, p.Missing, p.Overdue)
			}
		}
	}
}

// TestClockBehind checks that a usage dated before its pod was created, as on a node whose clock is behind, is not
// shown and has a reason, and that a later usage is shown.
func TestClockBehind(t *testing.T) {
	m := modelAt(epoch)
	n, p := node("n1"), pod("a", "n1")
	m.all(n, p, usageAt("", "n1", epoch, 1), usageAt("shop", "a", p.Created.Add(-time.Minute), 1))
	check := func(what, want string) {
		t.Helper()
		p := m.snapshot(epoch).Pods[0]
		if !p.Usage.Sampled.IsZero() || p.Missing != want || !p.Overdue {
			t.Errorf("%s: usage %+v, missing because %q, overdue is %v", what, p.Usage, p.Missing, p.Overdue)
		}
	}
	const clock = "the timestamp of its usage is before the pod was created: check the node's clock"
	check("at first", clock)
	m.all(pod("a", "n1"))
	check("once the pod has changed", clock)
	m.replace(PodMetrics)
	check("without usage", "the metrics server has no usage of it")
	m.all(usageAt("shop", "a", p.Created, 1))
	if p := m.snapshot(epoch).Pods[0]; p.Usage.Used.CPU != 1 || p.Missing != "" {
		t.Errorf("a usage dated after the pod was created: %+v, missing because %q", p.Usage, p.Missing)
	}
	m.all(usageAt("", "n1", n.Created.Add(-time.Minute), 1))
	if n := m.snapshot(epoch).Nodes[0]; n.Missing !=
		"the timestamp of its usage is before the node was created: check the node's clock" || !n.Overdue {
		t.Errorf("a node: missing because %q, overdue is %v", n.Missing, n.Overdue)
	}
}

func autoscaler(name string, current int32, values ...float64) *HPA {
	h := &HPA{Object: &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Status:     autoscalingv2.HorizontalPodAutoscalerStatus{CurrentReplicas: current, DesiredReplicas: current + 1},
	}}
	for i, v := range values {
		h.Metrics = append(h.Metrics, Metric{Name: fmt.Sprint("m", i), Current: v})
	}
	return h
}

func TestTicks(t *testing.T) {
	m := modelAt(epoch)
	now := epoch
	tick := func(change func()) {
		now = now.Add(15 * time.Second)
		change()
		m.tick(m.snapshot(now))
		m.tick(m.snapshot(now)) // at the same time: nothing
	}
	tick(func() {
		m.all(node("n1"), pod("a", "n1"), usageAt("", "n1", now, 4), usageAt("shop", "a", now, 1))
		m.all(autoscaler("web", 2, 60, 5))
	})
	tick(func() { m.all(pod("b", "n1"), autoscaler("web", 3, 61, nan)) })
	tick(func() {
		for _, s := range m.sources {
			s.State = Failed
		}
	})
	tick(func() {
		for _, s := range m.sources {
			s.State = Polling
		}
		m.drop(PodMetrics, types.NamespacedName{Namespace: "shop", Name: "a"})
	})
	s := m.snapshot(now)
	check := func(what string, p Past, q Quantity, want ...float32) {
		t.Helper()
		if d := diff(want, s.Series(p, q, 100).Values); d != "" {
			t.Errorf("%s: (-want +got)\n%s", what, d)
		}
	}
	unknown := float32(nan)
	check("a node", s.Nodes[0].Past, CPU, 4, 4, unknown, 4)
	check("a pod", s.Pods[0].Past, Memory, 100, 100, unknown, unknown)
	check("a new pod", s.Pods[1].Past, Memory, unknown, unknown, unknown)
	check("a workload", s.Workloads[0].Past, CPU, 1, 1, unknown, unknown)
	check("its pods", s.Workloads[0].Past, RunningPods, 1, 2, unknown, 2)
	check("its missing pods", s.Workloads[0].Past, MissingPods, 0, 1, unknown, 2)
	check("replicas", s.HPAs[0].Past, Current, 2, 3, unknown, 3)
	check("desired", s.HPAs[0].Past, Desired, 3, 4, unknown, 4)
	check("the first metric", s.HPAs[0].Past, FirstMetric, 60, 61, unknown, 61)
	check("the second metric", s.HPAs[0].Past, FirstMetric+1, 5, unknown, unknown, unknown)

	tick(func() { m.all(node("n2"), usageAt("", "n2", now, 3)) })
	s = m.snapshot(now)
	if d := diff([]float32{4, unknown, 4, 7}, s.NodesSeries(CPU, 4).Values); d != "" {
		t.Errorf("all nodes: (-want +got)\n%s", d)
	}
	// The past stays as it was when a node goes.
	tick(func() { m.drop(Nodes, types.NamespacedName{Name: "n1"}) })
	s = m.snapshot(now)
	if d := diff([]float32{4, unknown, 4, 7, 3}, s.NodesSeries(CPU, 5).Values); d != "" {
		t.Errorf("all nodes, after one has gone: (-want +got)\n%s", d)
	}

	// With other metrics, its past begins again.
	tick(func() { m.all(autoscaler("web", 4, 1)) })
	s = m.snapshot(now)
	check("other metrics", s.HPAs[0].Past, FirstMetric, 1)
	tick(func() { m.drop(HPAs, types.NamespacedName{Namespace: "shop", Name: "web"}) })
	if s := m.snapshot(now); len(s.HPAs) != 0 {
		t.Errorf("an autoscaler that was deleted: %+v", s.HPAs)
	}
}

// TestWorkloadOutlastsPods checks that a workload keeps its past while its only pod is replaced, and not for ever.
func TestWorkloadOutlastsPods(t *testing.T) {
	m := modelAt(epoch)
	now := epoch
	ticks := func(n int) *Snapshot {
		for range n {
			now = now.Add(15 * time.Second)
			m.tick(m.snapshot(now))
		}
		return m.snapshot(now)
	}
	m.all(pod("a", ""))
	ticks(2)
	m.drop(Pods, types.NamespacedName{Namespace: "shop", Name: "a"})
	if s := ticks(1); len(s.Workloads) != 0 {
		t.Errorf("a workload without pods is listed: %+v", s.Workloads)
	}
	m.all(pod("b", ""))
	s := ticks(1)
	want := []float32{1, 1, float32(nan), 1}
	if d := diff(want, s.Series(s.Workloads[0].Past, RunningPods, 10).Values); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	m.drop(Pods, types.NamespacedName{Namespace: "shop", Name: "b"})
	ticks(forgetAfter)
	m.all(pod("c", ""))
	s = ticks(1)
	if d := diff([]float32{1}, s.Series(s.Workloads[0].Past, RunningPods, 10).Values); d != "" {
		t.Errorf("after it was forgotten: (-want +got)\n%s", d)
	}
	if names := slices.Collect(maps.Keys(m.workloads)); len(names) != 1 {
		t.Errorf("workloads: %v", names)
	}
}

func TestBackfill(t *testing.T) {
	m := modelAt(epoch)
	m.all(node("n1"), node("n2"), pod("a", "n1"))
	m.tick(m.snapshot(epoch.Add(15 * time.Second)))
	series := func(kind, namespace, name string, first int, cpu ...history.Value) history.Series {
		s := history.Series{Key: history.Key{Kind: kind, Namespace: namespace, Name: name}, First: first, CPU: cpu}
		for _, v := range cpu {
			s.Memory = append(s.Memory, 10*v)
			if namespace != "" {
				s.Pods = append(s.Pods, 0*v+2)
			}
		}
		return s
	}
	answer := &history.Answer{
		Header: history.Header{Step: 60, Start: epoch.Add(-2 * time.Minute), Points: 3},
		Series: []history.Series{
			series("Node", "", "n1", 0, 1, history.Value(nan), 3),
			series("Node", "", "unknown", 0, 9, 9, 9),
			series("Deployment", "shop", "web", 1, 5),
			series("Namespace", "", "shop", 0, 9, 9, 9),
		},
	}
	m.backfill(answer, &history.Answer{Series: answer.Series}) // without a step it has no times
	s := m.snapshot(epoch.Add(20 * time.Second))
	unknown := float32(nan)
	n1 := s.Series(s.Nodes[0].Past, CPU, 100)
	if d := diff([]float32{1, 1, 1, 1, unknown, unknown, unknown, unknown, 3, unknown}, n1.Values); d != "" {
		t.Errorf("n1: (-want +got)\n%s", d)
	}
	if !n1.Start.Equal(epoch.Add(-2 * time.Minute)) {
		t.Errorf("it begins at %v, want %v", n1.Start, epoch.Add(-2*time.Minute))
	}
	if d := diff([]float32{unknown}, s.Series(s.Nodes[1].Past, CPU, 100).Values); d != "" {
		t.Errorf("n2: (-want +got)\n%s", d)
	}
	all := s.NodesSeries(CPU, 100).Values // also of the node that is not there any more
	if d := diff([]float32{10, 10, 10, 10, 9, 9, 9, 9, 12, unknown}, all); d != "" {
		t.Errorf("all nodes: (-want +got)\n%s", d)
	}
	web := s.Workloads[0].Past
	for q, want := range map[Quantity]float32{CPU: 5, Memory: 50, RunningPods: 2, MissingPods: 0} {
		now := map[Quantity]float32{CPU: unknown, Memory: unknown, RunningPods: 1, MissingPods: 1}[q]
		values := []float32{unknown, unknown, unknown, unknown, want, want, want, want, unknown, now}
		if d := diff(values, s.Series(web, q, 100).Values); d != "" {
			t.Errorf("web, %d: (-want +got)\n%s", q, d)
		}
	}
}

// TestBackfillOfTotals checks that the history replaces sums that were recorded before all nodes were known.
func TestBackfillOfTotals(t *testing.T) {
	m := modelAt(epoch)
	m.sources[Nodes].listed = false
	m.all(node("n1"), usageAt("", "n1", epoch, 1))
	m.tick(m.snapshot(epoch.Add(15 * time.Second)))
	m.sources[Nodes].listed = true
	m.all(node("n2"), usageAt("", "n2", epoch, 2))
	m.tick(m.snapshot(epoch.Add(30 * time.Second)))
	ofNode := func(name string, v history.Value) history.Series {
		values := []history.Value{v, v, v}
		return history.Series{Key: history.Key{Kind: "Node", Name: name}, CPU: values, Memory: values}
	}
	m.backfill(&history.Answer{
		Header: history.Header{Step: 15, Start: epoch, Points: 3},
		Series: []history.Series{ofNode("n1", 10), ofNode("n2", 20)},
	})
	got := m.snapshot(epoch.Add(31*time.Second)).NodesSeries(CPU, 100).Values
	if d := diff([]float32{30, 30, 3}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestBackfillLate checks that a history that is read late shows no object the past of another one, whose slot it has.
func TestBackfillLate(t *testing.T) {
	m := modelAt(epoch)
	now := epoch
	tick := func(change func()) {
		now = now.Add(15 * time.Second)
		change()
		m.tick(m.snapshot(now))
	}
	for range 2 {
		tick(func() { m.all(node("n1"), usageAt("", "n1", now, 7), autoscaler("web", 7, 7, 7)) })
	}
	before := m.snapshot(now)
	m.drop(Nodes, types.NamespacedName{Name: "n1"})
	m.drop(HPAs, types.NamespacedName{Namespace: "shop", Name: "web"})
	tick(func() {
		m.all(node("n2"), usageAt("", "n2", now, 3), pod("a", "n2"), usageAt("shop", "a", now, 4))
	})
	now = now.Add(15 * time.Second) // a tick is left out
	tick(func() { m.all(usageAt("", "n2", now, 5)) })

	gap := history.Value(nan)
	m.backfill(&history.Answer{
		Header: history.Header{Step: 15, Start: epoch, Points: 6},
		Series: []history.Series{
			{
				Key: history.Key{Kind: "Node", Name: "n2"},
				CPU: []history.Value{1, gap, 2, 9, 6, 9}, Memory: []history.Value{1, gap, 2, 9, 6, 9},
				Pods: []history.Value{9, 9, 9, 9, 9, 9}, // nodes have none
			},
			{
				Key:   history.Key{Kind: "Deployment", Namespace: "shop", Name: "web"},
				First: 2, CPU: []history.Value{2}, Memory: []history.Value{2},
			},
		},
	})
	unknown := float32(nan)
	check := func(what string, s *Snapshot, p Past, q Quantity, want ...float32) {
		t.Helper()
		if d := diff(want, s.Series(p, q, 100).Values); d != "" {
			t.Errorf("%s: (-want +got)\n%s", what, d)
		}
	}
	s := m.snapshot(now)
	n1, n2, web := before.Nodes[0].Past, s.Nodes[0].Past, s.Workloads[0].Past
	if n1.slot != n2.slot || before.HPAs[0].Past.slot != web.slot {
		t.Errorf("no slot is used again: %+v, %+v", n2, web)
	}
	check("n2", s, n2, CPU, 1, unknown, 2, 3, 6, 5)
	check("CPU of web", s, web, CPU, unknown, unknown, 2, 4, unknown, 4)
	check("pods of web", s, web, RunningPods, unknown, unknown, unknown, 1, unknown, 1)
	check("n1 in an old snapshot", before, n1, CPU, 7, 7)
	check("an autoscaler in an old snapshot", before, before.HPAs[0].Past, FirstMetric, 7, 7)
}
