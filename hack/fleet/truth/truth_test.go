package truth_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/truth"
	"metrics-server/pkg/kubelet/kubelettest"
)

func newCluster() *cluster.Cluster {
	return cluster.New(cluster.Config{Nodes: 5, Pods: 4, Containers: 2, Port: 10250, Faulty: 20, Now: time.Now()})
}

func usage(nanoCores, memory uint64) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(nanoCores), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(memory), resource.BinarySI),
	}
}

// served is what a server serves of p that knows all samples until now.
func served(p *cluster.Pod, now time.Time) *metricsv1beta1.PodMetrics {
	node := simulated(p)
	m := &metricsv1beta1.PodMetrics{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}}
	for i, c := range node.Containers() {
		b, _ := node.Container(i, now)
		a, ok := node.Container(i, b.Time.Add(-time.Millisecond))
		if !ok {
			a.Time = c.Start // the first sample since a restart
		}
		m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{
			Name:  c.Name,
			Usage: usage(c.NanoCores, b.Memory),
		})
		if m.Timestamp.IsZero() || b.Time.Before(m.Timestamp.Time) {
			m.Timestamp, m.Window.Duration = metav1.NewTime(b.Time), b.Time.Sub(a.Time)
		}
	}
	m.Timestamp = metav1.NewTime(m.Timestamp.Truncate(time.Second)) // as the API encodes it
	return m
}

func servedNode(n *cluster.Node, now time.Time) *metricsv1beta1.NodeMetrics {
	node := kubelettest.NewNode(kubelettest.NodeConfig{Seed: n.Seed, Boot: n.Boot, List: []kubelettest.Pod{}})
	s := node.Self(now)
	return &metricsv1beta1.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name},
		Timestamp:  metav1.NewTime(s.Time.Truncate(time.Second)),
		Usage:      usage(node.NanoCores(), s.Memory),
	}
}

// check serves all pods and nodes, except that change may change each, or leave it out by returning false.
func check(c *cluster.Cluster, checker *truth.Checker, change func(*metricsv1beta1.PodMetrics) bool,
	changeNode func(*metricsv1beta1.NodeMetrics) bool,
) truth.Verdict {
	pods := checker.Pods("")
	now := time.Now()
	pods.Answered(now)
	all, _ := c.Pods("")
	for _, p := range all {
		if m := served(p, now); !p.Machine.Faulty && (change == nil || change(m)) {
			pods.Pod(m)
		}
	}
	pods.EndPods()
	nodes := checker.Nodes()
	nodes.Answered(now)
	machines, _ := c.Nodes()
	for _, n := range machines {
		if m := servedNode(n, now); !n.Faulty && (changeNode == nil || changeNode(m)) {
			nodes.Node(m)
		}
	}
	nodes.EndNodes()
	return checker.Verdict()
}

func TestTrue(t *testing.T) {
	c := newCluster()
	v := check(c, truth.New(truth.Config{Cluster: c, Resolution: 15 * time.Second}), nil, nil)
	if !v.OK() || v.Lists != 2 || v.Numbers != 16*6+4*3 {
		t.Errorf("%+v", v)
	}
}

func TestWrong(t *testing.T) {
	c := newCluster()
	all, _ := c.Pods("")
	var one *cluster.Pod
	for _, p := range all {
		if !p.Machine.Faulty {
			one = p
		}
	}
	for name, tt := range map[string]struct {
		change         func(m *metricsv1beta1.PodMetrics) bool
		wrong, missing int
		says           string
	}{
		"a CPU": {func(m *metricsv1beta1.PodMetrics) bool {
			q := m.Containers[1].Usage.Cpu()
			m.Containers[1].Usage[corev1.ResourceCPU] = *resource.NewScaledQuantity(q.ScaledValue(-9)*101/100, resource.Nano)
			return true
		}, 1, 0, "CPU"},
		"the memory of an older sample": {func(m *metricsv1beta1.PodMetrics) bool {
			m.Containers[0].Usage[corev1.ResourceMemory] = *resource.NewQuantity(
				m.Containers[0].Usage.Memory().Value()+4096*257, resource.BinarySI)
			return true
		}, 1, 0, "memory"},
		"a timestamp": {func(m *metricsv1beta1.PodMetrics) bool {
			m.Timestamp.Time = m.Timestamp.Add(-3 * time.Second)
			return true
		}, 1, 0, "timestamp"},
		"a window": {func(m *metricsv1beta1.PodMetrics) bool {
			m.Window.Duration += 100 * time.Millisecond
			return true
		}, 1, 0, "window"},
		"a container that is missing": {func(m *metricsv1beta1.PodMetrics) bool {
			m.Containers = m.Containers[:1]
			return true
		}, 1, 0, ""},
		"a container that there is not": {func(m *metricsv1beta1.PodMetrics) bool {
			m.Containers[0].Name = "x"
			return true
		}, 1, 0, "container"},
		"a pod that there is not": {func(m *metricsv1beta1.PodMetrics) bool {
			m.Name += "x"
			return true
		}, 1, 1, "no such pod exists"},
		"a pod that is missing": {func(*metricsv1beta1.PodMetrics) bool { return false }, 0, 1, "not served"},
	} {
		checker := truth.New(truth.Config{Cluster: c, Resolution: 15 * time.Second})
		v := check(c, checker, func(m *metricsv1beta1.PodMetrics) bool {
			return m.Namespace != one.Namespace || m.Name != one.Name || tt.change(m)
		}, nil)
		if v.Wrong != tt.wrong || v.Missing != tt.missing || !strings.Contains(strings.Join(v.Examples, "\n"), tt.says) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestWrongNode(t *testing.T) {
	c := newCluster()
	nodes, _ := c.Nodes()
	one := nodes[0].Name
	for name, tt := range map[string]struct {
		change         func(m *metricsv1beta1.NodeMetrics) bool
		wrong, missing int
	}{
		"CPU": {func(m *metricsv1beta1.NodeMetrics) bool {
			m.Usage = usage(1, uint64(m.Usage.Memory().Value()))
			return true
		}, 1, 0},
		"timestamp": {func(m *metricsv1beta1.NodeMetrics) bool {
			m.Timestamp.Time = m.Timestamp.Add(-time.Second)
			return true
		}, 1, 0},
		"no node": {func(m *metricsv1beta1.NodeMetrics) bool { m.Name = "x"; return true }, 1, 1},
		"missing": {func(*metricsv1beta1.NodeMetrics) bool { return false }, 0, 1},
	} {
		v := check(c, truth.New(truth.Config{Cluster: c, Resolution: 15 * time.Second}), nil,
			func(m *metricsv1beta1.NodeMetrics) bool {
				return m.Name != one || tt.change(m)
			})
		if v.Wrong != tt.wrong || v.Missing != tt.missing {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestChurn checks what a deleted, a replaced and a restarted pod may be served as.
func TestChurn(t *testing.T) {
	quiet := func(*cluster.Machine, []kubelettest.Pod) error { return nil }
	c := newCluster()
	all, _ := c.Pods("")
	healthy := all[:0:0]
	for _, p := range all {
		if !p.Machine.Faulty {
			healthy = append(healthy, p)
		}
	}
	now := time.Now()
	serveAt := func(p *cluster.Pod, at time.Time) truth.Verdict {
		checker := truth.New(truth.Config{Cluster: c, Resolution: 15 * time.Second})
		l := checker.Pods(p.Namespace)
		l.Answered(time.Now())
		l.Pod(served(p, at))
		return checker.Verdict()
	}
	serve := func(p *cluster.Pod) truth.Verdict { return serveAt(p, time.Now()) }

	long, lately := healthy[0], healthy[1]
	if err := c.Delete(long, now.Add(-time.Minute), quiet); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(lately, now, quiet); err != nil {
		t.Fatal(err)
	}
	if v := serve(long); v.Wrong != 1 {
		t.Errorf("deleted a minute ago: %+v", v)
	}
	if v := serve(lately); v.Wrong != 0 {
		t.Errorf("deleted a moment ago: %+v", v)
	}

	before := now.Add(-30 * time.Second)
	if err := c.Restart(healthy[3], before, quiet); err != nil {
		t.Fatal(err)
	}
	if v := serveAt(healthy[3], before); v.Wrong != 0 {
		t.Errorf("restarted half a minute ago, served as before: %+v", v)
	}
	if v := serve(c.Pod(healthy[3].Namespace, healthy[3].Name)); v.Wrong != 0 {
		t.Errorf("restarted half a minute ago, served as it is: %+v", v)
	}
	restarted := c.Pod(healthy[3].Namespace, healthy[3].Name)
	if restarted == healthy[3] || restarted.Restarts != 1 {
		t.Errorf("not restarted: %+v", restarted)
	}
	if err := c.Delete(restarted, now, quiet); err != nil {
		t.Fatal(err)
	}
	if v := serveAt(healthy[3], before); v.Wrong != 0 {
		t.Errorf("restarted and then deleted a moment ago, served as before: %+v", v)
	}
}

// TestDeletedMeanwhile checks that a pod may be missing once its kubelet knows that it has ended, even if the API
// server does not know yet.
func TestDeletedMeanwhile(t *testing.T) {
	c := newCluster()
	all, _ := c.Pods("")
	p := all[slices.IndexFunc(all, func(p *cluster.Pod) bool { return !p.Machine.Faulty })]
	others := func(m *metricsv1beta1.PodMetrics) bool { return m.Name != p.Name }
	missing := func() int {
		return check(c, truth.New(truth.Config{Cluster: c, Resolution: 15 * time.Second}), others, nil).Missing
	}
	if got := missing(); got != 1 {
		t.Errorf("%d pods are missing before, want 1", got)
	}
	err := c.Delete(p, time.Now(), func(*cluster.Machine, []kubelettest.Pod) error {
		if c.Pod(p.Namespace, p.Name) != p {
			t.Error("the API server knows of the end before the kubelet")
		}
		if got := missing(); got != 0 {
			t.Errorf("%d pods are missing meanwhile, want 0", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAcrossRestarts checks that a usage across a restart is wrong, except those that rule 3 allows.
func TestAcrossRestarts(t *testing.T) {
	quiet := func(*cluster.Machine, []kubelettest.Pod) error { return nil }
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		ages   []time.Duration // of the runs of a container at its newest samples, oldest first: one run for each sample
		factor float64         // of the difference between the newest two samples
		wrong  int
	}{
		"a sample half a second after a restart":     {[]time.Duration{300 * ms, 500 * ms}, 1, 0},
		"half of that difference":                    {[]time.Duration{300 * ms, 500 * ms}, 0.5, 1},
		"a sample two seconds after a restart":       {[]time.Duration{300 * ms, 2000 * ms}, 1, 1},
		"restarts between each two of three samples": {[]time.Duration{1000 * ms, 2000 * ms, 3000 * ms}, 1, 0},
		"twice that difference":                      {[]time.Duration{1000 * ms, 2000 * ms, 3000 * ms}, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			all, _ := c.Pods("")
			now := time.Now()
			if err := c.Replace(all[0], 0, 2, now.Add(-time.Hour), quiet); err != nil {
				t.Fatal(err)
			}
			after, _ := c.Pods("")
			first := after[slices.IndexFunc(after, func(p *cluster.Pod) bool { return !slices.Contains(all, p) })]
			sampled := []kubelettest.Sample{} // newest first
			for at := now; len(sampled) < len(tt.ages); at = sampled[len(sampled)-1].Time.Add(-ms) {
				s, _ := simulated(first).Container(0, at)
				sampled = append(sampled, s)
			}
			// The pod's only run so far gives way to one for each sample.
			for i, age := range tt.ages {
				began := sampled[len(sampled)-1-i].Time.Add(-age)
				if i == 0 {
					first.Started[0] = began
				} else if err := c.Restart(c.Pod(first.Namespace, first.Name), began, quiet); err != nil {
					t.Fatal(err)
				}
			}
			last := c.Pod(first.Namespace, first.Name)
			grown := (tt.ages[len(tt.ages)-1] - tt.ages[len(tt.ages)-2]).Seconds()
			window := sampled[0].Time.Sub(sampled[1].Time).Seconds()
			cores := float64(simulated(last).Containers()[0].NanoCores)
			m := served(last, now)
			m.Containers[0].Usage = usage(uint64(cores*grown/window*tt.factor), sampled[0].Memory)

			checker := truth.New(truth.Config{Cluster: c, Resolution: 15 * time.Second})
			l := checker.Pods(first.Namespace)
			l.Answered(now)
			l.Pod(m)
			if v := checker.Verdict(); v.Wrong != tt.wrong || v.Understated != 1-tt.wrong {
				t.Errorf("%+v", v)
			}
		})
	}
}

// simulated is what the kubelet of p reports of it.
func simulated(p *cluster.Pod) *kubelettest.Node {
	return kubelettest.NewNode(kubelettest.NodeConfig{List: []kubelettest.Pod{p.Simulated()}})
}

func TestEachItem(t *testing.T) {
	list := &metricsv1beta1.PodMetricsList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}}
	want := []string{"a", "b", "c"}
	for _, name := range want {
		list.Items = append(list.Items, metricsv1beta1.PodMetrics{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	raw, err := list.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	u := runtime.Unknown{Raw: raw, TypeMeta: runtime.TypeMeta{Kind: "PodMetricsList"}}
	b, err := u.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b = append([]byte("k8s\x00"), b...)
	var got []string
	item := func(raw []byte) error {
		var m metricsv1beta1.PodMetrics
		err := m.Unmarshal(raw)
		got = append(got, m.Name)
		return err
	}
	if err := truth.EachItem(b, item); err != nil || strings.Join(got, "") != strings.Join(want, "") {
		t.Errorf("%v, %v", got, err)
	}
	for i := range b {
		_ = truth.EachItem(b[:i], func([]byte) error { return nil }) // it must not panic
	}
	if err := truth.EachItem([]byte("{}"), item); err == nil {
		t.Error("JSON is taken for protobuf")
	}
}
