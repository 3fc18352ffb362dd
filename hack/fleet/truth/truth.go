// Package truth compares what a metrics server serves with the true state of the simulated cluster.
//
// Every number must be right for the time that it is served for, and everything that runs must be served. The age of
// numbers is not judged here.
package truth

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/pkg/kubelet/kubelettest"
)

// Config is what a Checker needs.
type Config struct {
	Cluster    *cluster.Cluster
	Resolution time.Duration // of the server
	// Excused says whether something that has been on a node since then may be missing from a list requested at asked,
	// because of what its kubelet did. Nil: only what is on faulty nodes.
	Excused func(node string, since, asked time.Time) bool
}

// Checker checks lists. It is not safe for concurrent use.
type Checker struct {
	config  Config
	verdict Verdict
}

// Verdict is the result of all checks so far.
type Verdict struct {
	Lists   int `json:"lists"`
	Numbers int `json:"numbers"` // that were compared: CPU, memory, timestamps and windows
	Wrong   int `json:"wrong"`   // objects with a wrong number, or that should not be there
	Missing int `json:"missing"` // objects that should be there
	// Understated counts usages that were too low across restarts, as rule 3 allows.
	Understated int      `json:"understated"`
	Examples    []string `json:"examples,omitempty"` // distinct examples of wrong and missing objects
}

// OK reports whether everything served was correct and nothing was missing.
func (v *Verdict) OK() bool { return v.Wrong == 0 && v.Missing == 0 }

const (
	examples = 10
	// deletedGrace is how long a pod may be served after it was deleted.
	deletedGrace = 5 * time.Second
	// clock is the format of times in examples.
	clock = "15:04:05.000"
)

// New returns a Checker.
func New(c Config) *Checker { return &Checker{config: c} }

// Verdict returns the result of all checks so far.
func (c *Checker) Verdict() Verdict { return c.verdict }

// Settle is how old a container must be before it must be served: two samples that are at most 20 s apart,
// each seen a resolution later at most, and a scrape that failed.
func Settle(resolution time.Duration) time.Duration { return 45*time.Second + 3*resolution }

func (c *Checker) settle() time.Duration { return Settle(c.config.Resolution) }

// List is a list of pods or nodes, with the times of its request and its answer.
type List struct {
	*Checker
	asked, answered time.Time
	namespace       string
	before          []*cluster.Pod
	served          map[string]bool
}

// Pods begins the check of a list of the pods of a namespace, or of all namespaces if it is empty.
// Call it before the request.
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

// Answered records that the list has arrived.
func (l *List) Answered(at time.Time) { l.answered = at }

// Pod checks one pod of the list.
func (l *List) Pod(m *metricsv1beta1.PodMetrics) {
	key := m.Namespace + "/" + m.Name
	if l.served[key] {
		l.verdict.wrong("pod %s is served twice", key)
		return
	}
	l.served[key] = true
	l.verdict.Numbers += 2 + 2*len(m.Containers)

	// A pod may have changed since the request: each of its recent states is accepted.
	err := errors.New("no such pod exists")
	try := func(p *cluster.Pod) bool {
		err = l.pod(p, m)
		return err == nil
	}
	now := l.config.Cluster.Pod(m.Namespace, m.Name)
	if now != nil && try(now) {
		return
	}
	past := l.config.Cluster.Past(m.Namespace, m.Name)
	ended := map[uint64]time.Time{} // pods by seed: several of past may be the same pod, before and after a restart
	for _, p := range past {
		ended[p.Seed] = p.Until // later ones follow
	}
	for _, p := range past {
		// The sample from before a restart is served until there is a newer one. A pod that was deleted is not.
		same := now != nil && now.Seed == p.Seed
		if (same || ended[p.Seed].Add(deletedGrace).After(l.asked)) && p.Until.Unix() >= m.Timestamp.Unix() && try(p.Pod) {
			return
		}
	}
	starts := make([]string, 0, len(past)+1) // of its first container, the only one that restarts
	for _, p := range past {
		starts = append(starts, p.Started[0].UTC().Format(clock))
	}
	if now != nil {
		starts = append(starts, now.Started[0].UTC().Format(clock))
	}
	l.verdict.wrong("pod %s at %s, window %v, started %s: %v",
		key, m.Timestamp.UTC().Format(clock), m.Window.Duration, strings.Join(starts, " "), err)
}

// pod returns an error if m is not correct for p.
func (l *List) pod(p *cluster.Pod, m *metricsv1beta1.PodMetrics) error {
	node := kubelettest.NewNode(kubelettest.NodeConfig{
		List: []kubelettest.Pod{p.Simulated()},
	})
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
			return fmt.Errorf("no container %q exists", u.Name)
		}
		if err := cpu(u.Usage, node.Containers()[at].NanoCores); err != nil {
			if !l.acrossRestart(p, node, at, m, u.Usage) {
				return fmt.Errorf("container %s: %w", u.Name, err)
			}
			l.verdict.Understated++
			stamped = true
		}
		ok, err := l.container(node, at, m, u.Usage)
		if err != nil {
			return fmt.Errorf("container %s: %w", u.Name, err)
		}
		stamped = stamped || ok
	}
	if !stamped {
		return fmt.Errorf("timestamp %s and window %v match none of its containers",
			m.Timestamp.UTC().Format(time.RFC3339), m.Window.Duration)
	}
	for _, c := range node.Containers() {
		if !served[c.Name] && l.asked.Sub(c.Start) > l.settle() {
			return fmt.Errorf("container %s is missing", c.Name)
		}
	}
	return nil
}

// acrossRestart reports whether a usage may be too low according to rule 3 of docs/semantics.md: it
// is exactly the difference between two samples across a restart that the server cannot distinguish
// from a start time that jumped. Either the later sample was taken within a second of the restart,
// or the earlier one had itself followed a restart.
func (l *List) acrossRestart(
	p *cluster.Pod, node *kubelettest.Node, i int, m *metricsv1beta1.PodMetrics, u corev1.ResourceList,
) bool {
	start := node.Containers()[i].Start
	var before []*kubelettest.Node // earlier runs of the container
	for _, past := range l.config.Cluster.Past(p.Namespace, p.Name) {
		if past.Seed == p.Seed && past.Started[i].Before(start) {
			before = append(before, kubelettest.NewNode(kubelettest.NodeConfig{List: []kubelettest.Pod{past.Simulated()}}))
		}
	}
	for b := range samples(node, i, l.answered) {
		if b.Time.Unix() < m.Timestamp.Unix() {
			return false
		}
		if int64(b.Memory) != u.Memory().Value() {
			continue
		}
		for _, run := range before {
			began := run.Containers()[i].Start
			followed := slices.ContainsFunc(before, func(o *kubelettest.Node) bool {
				return o.Containers()[i].Start.Before(began)
			})
			for a := range samples(run, i, start.Add(-time.Millisecond)) {
				// Scrapes that fail may hide the first sample of a run, but hardly two.
				again := followed && a.Time.Sub(began) < 40*time.Second
				if (again || b.Time.Sub(start) < time.Second) && a.CPU <= b.CPU && cpu(u, rate(a, b)) == nil {
					return true
				}
			}
		}
	}
	return false
}

// rate is the CPU usage between two samples, in nanocores.
func rate(a, b kubelettest.Sample) uint64 {
	return uint64(float64(b.CPU-a.CPU) / b.Time.Sub(a.Time).Seconds())
}

// samples yields the samples of a container until then, newest first.
func samples(node *kubelettest.Node, i int, then time.Time) iter.Seq[kubelettest.Sample] {
	return func(yield func(kubelettest.Sample) bool) {
		for s, ok := node.Container(i, then); ok && yield(s); s, ok = node.Container(i, s.Time.Add(-time.Millisecond)) {
		}
	}
}

// container looks for the sample of a container that is served, and reports whether the timestamp
// and the window of the pod belong to it.
func (l *List) container(node *kubelettest.Node, i int, m *metricsv1beta1.PodMetrics,
	u corev1.ResourceList,
) (stamped bool, err error) {
	memory := u.Memory().Value()
	found := false
	for s, ok := node.Container(i, l.answered); ok &&
		s.Time.Unix() >= m.Timestamp.Unix(); s, ok = node.Container(i, s.Time.Add(-time.Millisecond)) {
		found = found || memory == int64(s.Memory)
		if s.Time.Unix() == m.Timestamp.Unix() {
			stamped = stamped || began(node, i, s.Time.Add(-m.Window.Duration))
		}
	}
	if !found {
		return false, fmt.Errorf("memory %d matches no sample since %s", memory, m.Timestamp.UTC().Format(time.RFC3339))
	}
	return stamped, nil
}

// began reports whether a window of a container can begin at t: at a sample of it, or at its start.
func began(node *kubelettest.Node, i int, t time.Time) bool {
	near := func(o time.Time) bool { return o.Sub(t).Abs() <= time.Millisecond }
	s, ok := node.Container(i, t.Add(time.Millisecond))
	return ok && near(s.Time) || near(node.Containers()[i].Start)
}

// cpu compares a usage with the true one. It may deviate by a nanocore due to rounding, or by the
// imprecision of counters in floating point.
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
		l.verdict.wrong("node %s does not exist", m.Name)
		return
	}
	if err := l.node(n, m); err != nil {
		l.verdict.wrong("node %s at %s, window %v: %v", m.Name, m.Timestamp.UTC().Format(clock), m.Window.Duration, err)
	}
}

// node returns an error if m is not correct for n.
func (l *List) node(n *cluster.Node, m *metricsv1beta1.NodeMetrics) error {
	node := kubelettest.NewNode(kubelettest.NodeConfig{
		Seed: n.Seed, Boot: n.Boot, List: []kubelettest.Pod{},
	})
	s := node.Self(m.Timestamp.Add(999 * time.Millisecond))
	memory := m.Usage.Memory().Value()
	switch err := cpu(m.Usage, node.NanoCores()); {
	case err != nil:
		return err
	case memory != int64(s.Memory):
		return fmt.Errorf("memory %d, want %d", memory, s.Memory)
	case s.Time.Unix() != m.Timestamp.Unix(), m.Timestamp.After(l.answered):
		return fmt.Errorf("timestamp %s matches no sample", m.Timestamp.UTC().Format(time.RFC3339))
	}
	return nil
}

// EndPods counts the pods that are missing from the list.
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
		if l.asked.Sub(newest) > l.settle() && !l.excused(p.Machine, newest) && l.config.Cluster.Runs(p) {
			l.verdict.missing("pod %s/%s on node %s is not served", p.Namespace, p.Name, p.Machine.Name)
		}
	}
}

// EndNodes counts the nodes that are missing from the list.
func (l *List) EndNodes() {
	nodes, _ := l.config.Cluster.Nodes()
	for _, n := range nodes {
		if !l.served[n.Name] && l.asked.Sub(n.Joined) > l.settle() && !l.excused(n.Machine, n.Joined) {
			l.verdict.missing("node %s is not served", n.Name)
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

// AllPods checks a list of pods in protobuf that has arrived, and calls each, if it is not nil,
// with each of them.
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

// AllNodes is AllPods for nodes.
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

func (v *Verdict) wrong(format string, args ...any) {
	v.Wrong++
	v.example(format, args)
}

func (v *Verdict) missing(format string, args ...any) {
	v.Missing++
	v.example(format, args)
}

func (v *Verdict) example(format string, args []any) {
	e := fmt.Sprintf(format, args...)
	if len(v.Examples) < examples && !slices.Contains(v.Examples, e) {
		v.Examples = append(v.Examples, e)
	}
}
