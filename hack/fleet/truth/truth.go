// Package truth compares what a metrics server serves with what is true of the simulated cluster.
//
// Everything that is served must be true at the time that it is served for; what runs must be served. How old
// it may be is not judged here.
package truth

import (
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/pkg/kubelet/kubelettest"
)

// Config is what a Checker needs.
type Config struct {
	Cluster     *cluster.Cluster
	Resolution  time.Duration // of the server
	RequestTime bool          // of the kubelets
	// Excused says whether something that has been on a node since then may be missing from a list that was asked for then,
	// because of what its kubelet did. Nil: only what is on faulty nodes.
	Excused func(node string, since, asked time.Time) bool
}

// Checker checks lists. It is for one goroutine.
type Checker struct {
	config  Config
	verdict Verdict
}

// Verdict is what all checks until now found.
type Verdict struct {
	Lists    int      `json:"lists"`
	Numbers  int      `json:"numbers"` // that were compared: CPU, memory, timestamps and windows
	Wrong    int      `json:"wrong"`   // objects with a number that is not true, or that should not be there
	Missing  int      `json:"missing"` // objects that should be there
	Examples []string `json:"examples,omitempty"`
}

// OK reports whether all that was served is true and nothing is missing.
func (v *Verdict) OK() bool { return v.Wrong == 0 && v.Missing == 0 }

const (
	examples = 10
	// deletedGrace is how long a pod may be served after it was deleted.
	deletedGrace = 5 * time.Second
)

// New returns a Checker.
func New(c Config) *Checker { return &Checker{config: c} }

// Verdict is what all checks until now found.
func (c *Checker) Verdict() Verdict { return c.verdict }

// Settle is how old a container must be before it must be served: two samples that are at most 20 s apart,
// each seen a resolution later at most, and a scrape that failed.
func Settle(resolution time.Duration) time.Duration { return 45*time.Second + 3*resolution }

func (c *Checker) settle() time.Duration { return Settle(c.config.Resolution) }

// List is a list of pods or nodes that was asked for and answered then.
type List struct {
	*Checker
	asked, answered time.Time
	namespace       string
	before          []*cluster.Pod
	served          map[string]bool
}

// Pods begins the check of a list of a namespace's pods, or of all if it is empty. It is called before the list is
// asked for.
func (c *Checker) Pods(namespace string) *List {
	c.verdict.Lists++
	l := &List{Checker: c, asked: time.Now(), namespace: namespace, served: map[string]bool{}}
	l.before, _ = c.config.Cluster.Pods(namespace)
	return l
}

// Nodes begins the check of a list of all nodes.
func (c *Checker) Nodes() *List {
	c.verdict.Lists++
	return &List{Checker: c, asked: time.Now(), served: map[string]bool{}}
}

// Answered says that the list has come.
func (l *List) Answered(at time.Time) { l.answered = at }

// Pod checks one pod of the list.
func (l *List) Pod(m *metricsv1beta1.PodMetrics) {
	key := m.Namespace + "/" + m.Name
	if l.served[key] {
		l.wrong("pod %s is served twice", key)
		return
	}
	l.served[key] = true
	l.verdict.Numbers += 2 + 2*len(m.Containers)

	// A pod may have changed since it was asked for: each of what it was lately will do.
	err := errors.New("there is no such pod")
	try := func(p *cluster.Pod) bool {
		err = l.pod(p, m)
		return err == nil
	}
	now := l.config.Cluster.Pod(m.Namespace, m.Name)
	if now != nil && try(now) {
		return
	}
	past := l.config.Cluster.Past(m.Namespace, m.Name)
	ended := map[uint64]time.Time{} // pods by seed: several of past may be one, before and after a restart
	for _, p := range past {
		ended[p.Seed] = p.Until // later ones come later
	}
	for _, p := range past {
		// The sample from before a restart is served until there is a newer one. A pod that was deleted is not.
		same := now != nil && now.Seed == p.Seed
		if (same || ended[p.Seed].Add(deletedGrace).After(l.asked)) && p.Until.Unix() >= m.Timestamp.Unix() && try(p.Pod) {
			return
		}
	}
	l.wrong("pod %s: %v", key, err)
}

// pod says what of m is not true of p.
func (l *List) pod(p *cluster.Pod, m *metricsv1beta1.PodMetrics) error {
	node := kubelettest.NewNode(kubelettest.NodeConfig{List: []kubelettest.Pod{p.Simulated()}, RequestTime: l.config.RequestTime})
	stamped := false
	served := map[string]bool{}
	for i := range m.Containers {
		u := &m.Containers[i]
		served[u.Name] = true
		at := -1
		for j, c := range node.Containers() {
			if c.Name == u.Name {
				at = j
			}
		}
		if at < 0 {
			return fmt.Errorf("there is no container %q", u.Name)
		}
		if err := cpu(u.Usage, node.Containers()[at].NanoCores); err != nil {
			return fmt.Errorf("container %s: %w", u.Name, err)
		}
		ok, err := l.container(node, at, m, u.Usage)
		if err != nil {
			return fmt.Errorf("container %s: %w", u.Name, err)
		}
		stamped = stamped || ok
	}
	if !stamped && !l.config.RequestTime {
		return fmt.Errorf("timestamp %s and window %v are not those of any of its containers", m.Timestamp.UTC().Format(time.RFC3339), m.Window.Duration)
	}
	for _, c := range node.Containers() {
		if !served[c.Name] && l.asked.Sub(c.Start) > l.settle() {
			return fmt.Errorf("container %s is missing", c.Name)
		}
	}
	return nil
}

// container looks for the sample of a container that is served, and says whether the timestamp and the window of
// the pod are its.
func (l *List) container(node *kubelettest.Node, i int, m *metricsv1beta1.PodMetrics, u corev1.ResourceList) (stamped bool, err error) {
	memory := u.Memory().Value()
	if l.config.RequestTime {
		// When it was sampled is not known, so only that the memory can be.
		if s, ok := node.Container(i, l.answered); !ok || math.Abs(float64(memory)-float64(s.Memory)) > 1<<20 {
			return false, fmt.Errorf("memory %d is not near %d", memory, s.Memory)
		}
		return false, nil
	}
	found := false
	for s, ok := node.Container(i, l.answered); ok && s.Time.Unix() >= m.Timestamp.Unix(); s, ok = node.Container(i, s.Time.Add(-time.Millisecond)) {
		found = found || memory == int64(s.Memory)
		if s.Time.Unix() == m.Timestamp.Unix() {
			stamped = stamped || began(node, i, s.Time.Add(-m.Window.Duration))
		}
	}
	if !found {
		return false, fmt.Errorf("memory %d is that of no sample since %s", memory, m.Timestamp.UTC().Format(time.RFC3339))
	}
	return stamped, nil
}

// began reports whether a window of a container can begin at t: at a sample of it, or at its start.
func began(node *kubelettest.Node, i int, t time.Time) bool {
	near := func(o time.Time) bool { return o.Sub(t).Abs() <= time.Millisecond }
	s, ok := node.Container(i, t.Add(time.Millisecond))
	return ok && near(s.Time) || near(node.Containers()[i].Start)
}

// cpu compares a usage with the true one. It is off by a nanocore if it was rounded, or by what counters in floating
// point can be.
func cpu(u corev1.ResourceList, want uint64) error {
	got := u.Cpu().ScaledValue(-9)
	if math.Abs(float64(got)-float64(want)) > 1+float64(want)/1e6 {
		return fmt.Errorf("CPU %dn, want %dn", got, want)
	}
	return nil
}

// Node checks one node of the list.
func (l *List) Node(m *metricsv1beta1.NodeMetrics) {
	l.served[m.Name] = true
	l.verdict.Numbers += 3
	n := l.config.Cluster.Node(m.Name)
	if n != nil && l.node(n, m) == nil {
		return
	}
	if past, ok := l.config.Cluster.PastNode(m.Name); ok && past.Until.Add(deletedGrace).After(l.asked) {
		n = past.Node
	}
	if n == nil {
		l.wrong("node %s does not exist", m.Name)
		return
	}
	if err := l.node(n, m); err != nil {
		l.wrong("node %s: %v", m.Name, err)
	}
}

// node says what of m is not true of n.
func (l *List) node(n *cluster.Node, m *metricsv1beta1.NodeMetrics) error {
	node := kubelettest.NewNode(kubelettest.NodeConfig{Seed: n.Seed, Boot: n.Boot, List: []kubelettest.Pod{}, RequestTime: l.config.RequestTime})
	s := node.Self(m.Timestamp.Add(999 * time.Millisecond))
	memory := m.Usage.Memory().Value()
	switch err := cpu(m.Usage, node.NanoCores()); {
	case err != nil:
		return err
	case memory != int64(s.Memory):
		return fmt.Errorf("memory %d, want %d", memory, s.Memory)
	case s.Time.Unix() != m.Timestamp.Unix() && !l.config.RequestTime, m.Timestamp.After(l.answered):
		return fmt.Errorf("timestamp %s is not that of a sample", m.Timestamp.UTC().Format(time.RFC3339))
	}
	return nil
}

// EndPods counts what is not in a list of pods and should be.
func (l *List) EndPods() {
	for _, p := range l.before {
		if l.served[p.Namespace+"/"+p.Name] {
			continue
		}
		newest := p.Created
		for _, t := range p.Started {
			if t.After(newest) {
				newest = t
			}
		}
		if l.asked.Sub(newest) > l.settle() && !l.excused(p.Machine, newest) && l.config.Cluster.Pod(p.Namespace, p.Name) == p {
			l.missing("pod %s/%s on node %s is not served", p.Namespace, p.Name, p.Machine.Name)
		}
	}
}

// EndNodes is to nodes what EndPods is to pods.
func (l *List) EndNodes() {
	nodes, _ := l.config.Cluster.Nodes()
	for _, n := range nodes {
		if !l.served[n.Name] && l.asked.Sub(n.Joined) > l.settle() && !l.excused(n.Machine, n.Joined) {
			l.missing("node %s is not served", n.Name)
		}
	}
}

// excused reports whether something that has been on m since then may be missing.
func (l *List) excused(m *cluster.Machine, since time.Time) bool {
	if l.config.Excused == nil {
		return m.Faulty
	}
	return l.config.Excused(m.Name, since, l.asked)
}

// AllPods checks a list of pods in protobuf, which has come, and calls each, if there is one, with each of them.
func (l *List) AllPods(list []byte, each func(*metricsv1beta1.PodMetrics)) error {
	l.Answered(time.Now())
	err := EachItem(list, func(item []byte) error {
		var m metricsv1beta1.PodMetrics
		if err := m.Unmarshal(item); err != nil {
			return err
		}
		if l.Pod(&m); each != nil {
			each(&m)
		}
		return nil
	})
	l.EndPods()
	return err
}

// AllNodes is to nodes what AllPods is to pods.
func (l *List) AllNodes(list []byte) error {
	l.Answered(time.Now())
	err := EachItem(list, func(item []byte) error {
		var m metricsv1beta1.NodeMetrics
		if err := m.Unmarshal(item); err != nil {
			return err
		}
		l.Node(&m)
		return nil
	})
	l.EndNodes()
	return err
}

func (l *List) wrong(format string, args ...any) {
	l.verdict.Wrong++
	l.example(format, args)
}

func (l *List) missing(format string, args ...any) {
	l.verdict.Missing++
	l.example(format, args)
}

func (l *List) example(format string, args []any) {
	if len(l.verdict.Examples) < examples {
		l.verdict.Examples = append(l.verdict.Examples, fmt.Sprintf(format, args...))
	}
}
