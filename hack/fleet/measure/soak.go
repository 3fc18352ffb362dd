package measure

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/kubelets"
	"metrics-server/hack/fleet/proc"
	"metrics-server/hack/fleet/truth"
	"metrics-server/pkg/kubelet/kubelettest"
)

// What a kubelet can do wrong in a soak beside kubelets.Faults.
const (
	restarts = "restart" // with another certificate
	claims   = "claim"   // it lists pods of another node, too
)

// SoakKinds is in how many ways nodes fail in a soak, if it is long enough.
var SoakKinds = len(kubelets.Faults) + 2

// soak is a run in which nodes fail and recover, and pods and nodes come and go, while everything that is served is checked.
type soak struct {
	*run
	percent int        // of the nodes fail
	rate    float64    // changes of pods a second
	random  *rand.Rand // of what changes the cluster
	churner *cluster.Churner
	away    []left                      // nodes that are to come back
	gone    []string                    // names of nodes that never come back
	lies    map[string]*cluster.Machine // whose pods a kubelet claims, by the name of its node
	kinds   int                         // how many faults there were
	next    int                         // index of the node that fails next
	ages    durations
	report  *SoakReport

	mu     sync.Mutex
	spells map[string][]spell // in which nodes fail, by name
}

type left struct {
	*cluster.Machine
	at time.Time
}

// spell is a time in which a node fails, until now if it has no end.
type spell struct{ from, to time.Time }

// Soak lets o.Faulty percent of the nodes fail by turns, in every way that there is, o.Churn pods a second change, and nodes leave
// and join, for o.For. It checks all that is served, and compares what the binary holds after a third of the time with what it
// holds at the end, both times with a cluster of the same size in which nothing fails. If ctx ends before, the report is of
// what was until then.
func Soak(ctx context.Context, o Options, progress io.Writer) (*SoakReport, error) {
	s := &soak{
		percent: o.Faulty, rate: o.Churn, random: rand.New(rand.NewPCG(3, 4)),
		lies: map[string]*cluster.Machine{}, spells: map[string][]spell{},
		report: &SoakReport{Options: o, Faults: map[string]int{}},
	}
	o.Faulty, o.Churn = 0, 0 // neither always the same nodes, nor by somebody else
	s.run = newRun(o, progress)
	s.run.excused = s.excused
	dir, err := os.MkdirTemp("", "metrics-server-soak-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	defer s.end()
	// What is started must not end by itself when ctx does: the report is still to be written.
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.setUp(lasting, dir); err != nil {
		return nil, err
	}
	s.churner = s.cluster.NewChurner(s.tellLies)
	begun := time.Now()
	for _, step := range []func(context.Context) error{
		s.untilServed,
		func(ctx context.Context) error { return s.spend(ctx, o.For/3) },
		s.calm,
		func(ctx context.Context) (err error) { s.report.Before, err = s.holds(ctx); return err },
		func(ctx context.Context) error { return s.spend(ctx, o.For-o.For/3) },
		s.calm,
		s.compare,
	} {
		if err = step(ctx); err != nil {
			break
		}
	}
	s.report.Took, s.report.Verdict, s.report.Ages = time.Since(begun), s.checker.Verdict(), s.ages
	s.report.Interrupted = ctx.Err() != nil
	if !s.report.Interrupted && err != nil {
		s.report.Broken = err.Error()
	}
	return s.report, nil
}

// spend lets things go wrong for some time.
func (s *soak) spend(ctx context.Context, d time.Duration) error {
	living, stop := context.WithCancel(ctx)
	defer stop()
	broken := make(chan error, 1)
	go func() { broken <- s.changes(living) }()
	end, told := time.Now().Add(d), time.Now()
	var err error
	for err == nil && time.Now().Before(end) {
		if _, _, err = s.look(ctx); err == nil {
			err = wait(ctx, 500*time.Millisecond)
		}
		if time.Since(told) >= time.Minute {
			told = time.Now()
			s.tellProgress()
		}
		select {
		case err = <-broken:
			return cmp.Or(err, ctx.Err())
		default:
		}
	}
	stop()
	return cmp.Or(err, <-broken)
}

func (s *soak) tellProgress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.checker.Verdict()
	m, _ := proc.MemoryOf(s.server.PID())
	s.say("%d changes of pods, %d nodes left, %d faults; %d lists, %d numbers, %d wrong, %d missing; %d MiB",
		s.report.Changes, s.report.Joined, s.kinds, v.Lists, v.Numbers, v.Wrong, v.Missing, m.RSS>>20)
}

// changes changes the cluster until ctx ends.
func (s *soak) changes(ctx context.Context) error {
	tick := time.NewTicker(time.Duration(float64(time.Second) / s.rate))
	defer tick.Stop()
	var leaves, fails time.Time // when that is next
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		errs := []error{s.churner.Step(now), s.comeBack(now, 5*time.Second)}
		s.count(func() { s.report.Changes++ })
		if now.After(leaves) {
			leaves = now.Add(10 * time.Second)
			errs = append(errs, s.leave(now))
		}
		if now.After(fails) {
			fails = now.Add(4 * s.Resolution)
			errs = append(errs, s.heal(now), s.fail(now))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
}

func (s *soak) count(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// leave has a node that does not fail leave the cluster.
func (s *soak) leave(now time.Time) error {
	m := s.healthy()
	if m == nil {
		return nil
	}
	pods := len(s.cluster.On(m))
	if err := s.kubelets.Remove(m.Addr); err != nil {
		return err
	}
	s.churner.Leave(m, now)
	s.away = append(s.away, left{m, now})
	s.count(func() { s.report.Joined++; s.report.Gone += pods })
	return nil
}

// healthy is some node that neither fails nor is lied about.
func (s *soak) healthy() *cluster.Machine {
	nodes, _ := s.cluster.Nodes()
	for range 20 {
		m := nodes[s.random.IntN(len(nodes))].Machine
		lied := false
		for _, other := range s.lies {
			lied = lied || other == m
		}
		if !lied && !s.fails(m.Name) {
			return m
		}
	}
	return nil
}

func (s *soak) fails(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.spells[node], func(p spell) bool { return p.to.IsZero() })
}

// comeBack has nodes join that have been away that long: one of two under a name that there never was.
func (s *soak) comeBack(now time.Time, away time.Duration) error {
	for len(s.away) > 0 && now.Sub(s.away[0].at) >= away {
		m := *s.away[0].Machine
		s.away = s.away[1:]
		if s.random.IntN(2) == 0 {
			s.gone = append(s.gone, m.Name)
			m.Name = fmt.Sprintf("soak-%d", now.UnixNano())
		}
		if err := s.cluster.AddNode(&m, now, s.tellLies); err != nil {
			return err
		}
	}
	return nil
}

// fail has the next nodes fail, each in the next way.
func (s *soak) fail(now time.Time) error {
	nodes, _ := s.cluster.Nodes()
	for range max(1, len(nodes)*s.percent/100) {
		m := nodes[s.next%len(nodes)].Machine
		s.next++
		kind := claims
		switch n := s.kinds % SoakKinds; {
		case n < len(kubelets.Faults):
			kind = kubelets.Faults[n].Name
		case n == len(kubelets.Faults):
			kind = restarts
		}
		s.count(func() {
			s.kinds++
			s.report.Faults[kind]++
			s.spells[m.Name] = append(s.spells[m.Name], spell{from: now})
		})
		if err := s.inflict(m, kind); err != nil {
			return err
		}
	}
	return nil
}

func (s *soak) inflict(m *cluster.Machine, kind string) error {
	switch kind {
	case restarts:
		if err := s.kubelets.Remove(m.Addr); err != nil {
			return err
		}
	case claims:
		s.lies[m.Name] = s.healthy()
	default:
		return s.kubelets.SetFault(m.Addr, kind)
	}
	return s.tellLies(m, s.cluster.On(m))
}

// heal ends all that fails.
func (s *soak) heal(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, spells := range s.spells {
		spells = slices.DeleteFunc(spells, func(p spell) bool { return !p.to.IsZero() && now.Sub(p.to) > truth.Settle(s.Resolution) })
		if len(spells) == 0 {
			delete(s.spells, name)
			continue
		}
		s.spells[name] = spells
		last := &spells[len(spells)-1]
		if !last.to.IsZero() {
			continue
		}
		last.to = now
		m := s.cluster.Node(name).Machine
		delete(s.lies, name)
		if err := errors.Join(s.kubelets.SetFault(m.Addr, ""), s.tellLies(m, s.cluster.On(m))); err != nil {
			return err
		}
	}
	return nil
}

// tellLies tells a kubelet its pods, and those that it lies about. They belong to Deployments: a pod that is made anew under its
// name is for a moment listed by nobody else, and then nobody else is believed.
func (s *soak) tellLies(m *cluster.Machine, pods []kubelettest.Pod) error {
	if other := s.lies[m.Name]; other != nil {
		for _, p := range s.cluster.On(other) {
			if of := s.cluster.Pod(p.Namespace, p.Name); of == nil || of.Stateful {
				continue
			}
			p.Seed += 1 << 40
			p.Started = []time.Time{time.Now().Add(-30 * time.Minute)}
			pods = append(pods, p)
		}
	}
	return s.tell(m, pods)
}

// excused says whether something that has been on a node since then may be missing, because the node fails or did so
// lately. What was served before it failed may not, until that has expired.
func (s *soak) excused(node string, since, asked time.Time) bool {
	settle := truth.Settle(s.Resolution)
	expiry := max(4*s.Resolution, time.Minute)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.spells[node], func(p spell) bool {
		recovered := asked.After(p.to.Add(settle)) && !p.to.IsZero()
		kept := since.Before(p.from.Add(-settle)) && asked.Before(p.from.Add(expiry-2*s.Resolution))
		return !asked.Before(p.from) && !recovered && !kept
	})
}

// look asks for all pods and all nodes by one of the versions, and for the pods of one namespace. It returns how many pods and nodes
// are served.
func (s *soak) look(ctx context.Context) (pods, nodes int, err error) {
	group := binary.Group
	if s.checker.Verdict().Lists%2 == 0 {
		group = strings.TrimSuffix(group, "beta1")
	}
	// A connection of its own, as kubectl's is.
	client := binary.NewClient(s.server.URL)
	defer client.Close()

	list := s.checker.Pods("")
	b, err := client.Get(ctx, binary.Request{Path: group + "/pods", Accept: binary.Protobuf})
	if err != nil {
		return 0, 0, s.server.Failure(err)
	}
	now := time.Now()
	if err := list.AllPods(b, func(m *metricsv1beta1.PodMetrics) {
		pods++
		if p := s.cluster.Pod(m.Namespace, m.Name); p != nil && !s.excused(p.Machine.Name, now, now) {
			s.ages = append(s.ages, now.Sub(m.Timestamp.Time))
		}
	}); err != nil {
		return 0, 0, err
	}

	list = s.checker.Nodes()
	if b, err = client.Get(ctx, binary.Request{Path: group + "/nodes", Accept: binary.JSON}); err != nil {
		return 0, 0, s.server.Failure(err)
	}
	list.Answered(time.Now())
	var all metricsv1beta1.NodeMetricsList
	if err := json.Unmarshal(b, &all); err != nil {
		return 0, 0, err
	}
	for i := range all.Items {
		list.Node(&all.Items[i])
	}
	list.EndNodes()

	ns := s.samples[rand.IntN(len(s.samples))]
	list = s.checker.Pods(ns)
	some, err := s.namespace(ctx, ns)
	if err != nil {
		return 0, 0, s.server.Failure(err)
	}
	list.Answered(time.Now())
	for i := range some.Items {
		list.Pod(&some.Items[i])
	}
	list.EndPods()
	return pods, len(all.Items), nil
}

// calm brings the cluster back to its size, with no fault, and waits until all is served.
func (s *soak) calm(ctx context.Context) error {
	now := time.Now()
	if err := errors.Join(s.heal(now), s.comeBack(now, 0), s.churner.Settle(now)); err != nil {
		return err
	}
	limit := truth.Settle(s.Resolution)
	s.say("nothing fails any more, and nothing changes")
	for begun := time.Now(); ; {
		pods, nodes, err := s.look(ctx)
		if err != nil {
			return err
		}
		if pods == s.Nodes*s.Pods && nodes == s.Nodes {
			return nil
		}
		if time.Since(begun) > limit {
			return fmt.Errorf("%d of %d pods and %d of %d nodes are served %v after all is well: %s", pods, s.Nodes*s.Pods, nodes, s.Nodes, limit, s.whyNot(ctx))
		}
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
	}
}

// whyNot is what the binary says of a pod that it does not serve.
func (s *soak) whyNot(ctx context.Context) string {
	pods, _ := s.cluster.Pods("")
	for _, p := range pods {
		var b bytes.Buffer
		_, err := s.client.Do(ctx, binary.Request{Path: binary.Group + "/namespaces/" + p.Namespace + "/pods/" + p.Name, Accept: binary.JSON}, &b)
		if err != nil {
			return fmt.Sprintf("pod %s/%s on node %s: %s", p.Namespace, p.Name, p.Machine.Name, b.Bytes())
		}
	}
	return "it says that all are"
}

// compare looks at what the binary holds until that is as little as before, for as long as something may be remembered.
func (s *soak) compare(ctx context.Context) error {
	for begun := time.Now(); ; {
		var err error
		if s.report.After, err = s.holds(ctx); err != nil {
			return err
		}
		if len(s.report.leaks()) == 0 || time.Since(begun) > 3*time.Minute {
			return nil
		}
		if err := wait(ctx, 5*time.Second); err != nil {
			return err
		}
	}
}

// holds reads what the binary holds, after a garbage collection.
func (s *soak) holds(ctx context.Context) (Holding, error) {
	h := Holding{}
	for range 2 { // pools are emptied by the second one
		if _, err := s.client.Get(ctx, binary.Request{Path: "/debug/pprof/heap?gc=1"}); err != nil {
			return h, s.server.Failure(err)
		}
	}
	series, err := s.client.Metrics(ctx)
	if err != nil {
		return h, s.server.Failure(err)
	}
	stale := 0
	for name := range series {
		if slices.ContainsFunc(s.gone, func(node string) bool { return strings.Contains(name, `"`+node+`"`) }) {
			stale++
		}
	}
	m, err := proc.MemoryOf(s.server.PID())
	if err != nil {
		return h, s.server.Failure(err)
	}
	files, err := proc.Files(s.server.PID())
	h = Holding{
		Heap: int64(series["go_memstats_heap_alloc_bytes"]), RSS: m.RSS,
		Goroutines: int64(series["go_goroutines"]), Files: int64(files), Series: int64(len(series)), Stale: int64(stale),
		Samples: int64(series[`metrics_server_storage_points{type="container"}`] + series[`metrics_server_storage_points{type="node"}`]),
	}
	return h, err
}
