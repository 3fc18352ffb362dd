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

// Faults of a soak besides kubelets.Faults.
const (
	restarts = "restart" // with another certificate
	claims   = "claim"   // it lists pods of another node, too
)

// SoakKinds is the number of kinds of faults in a soak that is long enough.
var SoakKinds = len(kubelets.Faults) + 2

// soak is a run in which nodes fail and recover, and pods and nodes come and go, while everything
// that is served is checked.
type soak struct {
	*run
	percent int        // of the nodes fail
	rate    float64    // changes of pods a second
	random  *rand.Rand // of what changes the cluster
	churner *cluster.Churner
	away    []left                      // nodes that are to rejoin
	gone    []string                    // names of nodes that never rejoin
	claimed map[string]*cluster.Machine // the pods that a kubelet claims falsely, by the name of its node
	kinds   int                         // the number of faults
	next    int                         // index of the node that fails next
	ages    durations
	report  *SoakReport

	mu      sync.Mutex
	outages map[string][]outage // by the name of the node
}

type left struct {
	*cluster.Machine
	at time.Time
}

// outage is a time in which a node fails; without an end, it lasts until now.
type outage struct{ from, to time.Time }

// Soak runs for o.For. Meanwhile, o.Faulty percent of the nodes fail, in turn and with every kind
// of fault, o.Churn pods a second change, and nodes leave and join. It checks everything that is
// served, and compares what the binary holds after a third of the time with what it holds at the
// end, both times with a cluster of the same size without faults. If ctx ends earlier, the report
// covers the time until then.
func Soak(ctx context.Context, o Options, progress io.Writer) (*SoakReport, error) {
	s := &soak{
		percent: o.Faulty, rate: o.Churn, random: rand.New(rand.NewPCG(3, 4)),
		claimed: map[string]*cluster.Machine{}, outages: map[string][]outage{},
		report: &SoakReport{Options: o, Faults: map[string]int{}},
	}
	o.Faulty, o.Churn = 0, 0 // not always the same nodes, and only the soak makes them fail
	var err error
	if s.run, err = newRun(o, progress); err != nil {
		return nil, err
	}
	s.run.excused = s.excused
	defer s.end()
	// The end of ctx must not end what is started here, because the report has yet to be written.
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.setUp(lasting); err != nil {
		return nil, err
	}
	s.churner = s.cluster.NewChurner(s.setPods)
	begun := time.Now()
	for _, step := range []func(context.Context) error{
		s.untilServed,
		func(ctx context.Context) error { return s.spend(ctx, o.For/3) },
		s.restore,
		func(ctx context.Context) (err error) { s.report.Before, err = s.holds(ctx); return err },
		func(ctx context.Context) error { return s.spend(ctx, o.For-o.For/3) },
		s.restore,
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

// spend injects faults and churn for some time.
func (s *soak) spend(ctx context.Context, d time.Duration) error {
	living, stop := context.WithCancel(ctx)
	defer stop()
	broken := make(chan error, 1)
	go func() { broken <- s.changes(living) }()
	end, said := time.Now().Add(d), time.Now()
	var err error
	for err == nil && time.Now().Before(end) {
		if _, _, err = s.look(ctx); err == nil {
			err = wait(ctx, 500*time.Millisecond)
		}
		if time.Since(said) >= time.Minute {
			said = time.Now()
			s.sayProgress()
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

func (s *soak) sayProgress() {
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
		errs := []error{s.churner.Step(now), s.rejoin(now, 5*time.Second)}
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

// leave removes a healthy node from the cluster.
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

// healthy returns a node that neither fails nor is the victim of a false claim.
func (s *soak) healthy() *cluster.Machine {
	nodes, _ := s.cluster.Nodes()
	for range 20 {
		m := nodes[s.random.IntN(len(nodes))].Machine
		victim := false
		for _, other := range s.claimed {
			victim = victim || other == m
		}
		if !victim && !s.fails(m.Name) {
			return m
		}
	}
	return nil
}

func (s *soak) fails(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.outages[node], func(o outage) bool { return o.to.IsZero() })
}

// rejoin adds nodes that have been away that long, half of them under a new name.
func (s *soak) rejoin(now time.Time, away time.Duration) error {
	for len(s.away) > 0 && now.Sub(s.away[0].at) >= away {
		m := *s.away[0].Machine
		s.away = s.away[1:]
		if s.random.IntN(2) == 0 {
			s.gone = append(s.gone, m.Name)
			m.Name = fmt.Sprintf("soak-%d", now.UnixNano())
		}
		if err := s.cluster.AddNode(&m, now, s.setPods); err != nil {
			return err
		}
	}
	return nil
}

// fail makes the next nodes fail, each with the next kind of fault.
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
			s.outages[m.Name] = append(s.outages[m.Name], outage{from: now})
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
		s.claimed[m.Name] = s.healthy()
	default:
		return s.kubelets.SetFault(m.Addr, kind)
	}
	return s.setPods(m, s.cluster.On(m))
}

// heal ends all faults.
func (s *soak) heal(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, outages := range s.outages {
		outages = slices.DeleteFunc(outages, func(o outage) bool {
			return !o.to.IsZero() && now.Sub(o.to) > truth.Settle(s.Resolution)
		})
		if len(outages) == 0 {
			delete(s.outages, name)
			continue
		}
		s.outages[name] = outages
		last := &outages[len(outages)-1]
		if !last.to.IsZero() {
			continue
		}
		last.to = now
		m := s.cluster.Node(name).Machine
		delete(s.claimed, name)
		if err := errors.Join(s.kubelets.SetFault(m.Addr, ""), s.setPods(m, s.cluster.On(m))); err != nil {
			return err
		}
	}
	return nil
}

// setPods sets the pods of a kubelet, and those that it claims falsely. It claims only pods that their own
// kubelets have listed: rule 7 of docs/semantics.md lets a kubelet speak for any other. So they belong to
// Deployments, whose pods never return under the same name, and are old enough to have been listed.
func (s *soak) setPods(m *cluster.Machine, pods []kubelettest.Pod) error {
	if other := s.claimed[m.Name]; other != nil {
		for _, p := range s.cluster.On(other) {
			of := s.cluster.Pod(p.Namespace, p.Name)
			if of == nil || of.Stateful || time.Since(of.Created) < truth.Settle(s.Resolution) {
				continue
			}
			p.Seed += 1 << 40
			p.Started = []time.Time{time.Now().Add(-30 * time.Minute)}
			pods = append(pods, p)
		}
	}
	return s.run.setPods(m, pods)
}

// excused reports whether something that has been on a node since then may be missing, because the
// node fails or failed recently. What was served before the failure may be missing only when it has
// expired.
func (s *soak) excused(node string, since, asked time.Time) bool {
	settle := truth.Settle(s.Resolution)
	expiry := max(4*s.Resolution, time.Minute)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.outages[node], func(o outage) bool {
		recovered := asked.After(o.to.Add(settle)) && !o.to.IsZero()
		kept := since.Before(o.from.Add(-settle)) && asked.Before(o.from.Add(expiry-2*s.Resolution))
		return !asked.Before(o.from) && !recovered && !kept
	})
}

// look asks for all pods and all nodes by one of the versions, and for the pods of one namespace.
// It returns how many pods and nodes are served.
func (s *soak) look(ctx context.Context) (pods, nodes int, err error) {
	group := binary.Group
	if s.checker.Verdict().Lists%2 == 0 {
		group = strings.TrimSuffix(group, "beta1")
	}
	// A new connection, as kubectl would make.
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

// restore ends all faults, restores the size of the cluster, and waits until everything is served.
func (s *soak) restore(ctx context.Context) error {
	now := time.Now()
	if err := errors.Join(s.heal(now), s.rejoin(now, 0), s.churner.Settle(now)); err != nil {
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
			return fmt.Errorf("%d of %d pods and %d of %d nodes are served %v after all is well: %s", pods, s.Nodes*s.Pods,
				nodes, s.Nodes, limit, s.whyNot(ctx))
		}
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
	}
}

// whyNot returns the binary's reason for not serving a pod.
func (s *soak) whyNot(ctx context.Context) string {
	pods, _ := s.cluster.Pods("")
	for _, p := range pods {
		var b bytes.Buffer
		_, err := s.client.Do(ctx, binary.Request{
			Path:   binary.Group + "/namespaces/" + p.Namespace + "/pods/" + p.Name,
			Accept: binary.JSON,
		}, &b)
		if err != nil {
			return fmt.Sprintf("pod %s/%s on node %s: %s", p.Namespace, p.Name, p.Machine.Name, b.Bytes())
		}
	}
	return "it says that all are"
}

// compare reads what the binary holds until that is as little as before, for at most as long as
// something may be remembered.
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

// holds returns what the binary keeps in memory after a garbage collection.
func (s *soak) holds(ctx context.Context) (Holding, error) {
	h, series, err := holds(ctx, s.server, s.client)
	for name := range series {
		if slices.ContainsFunc(s.gone, func(node string) bool { return strings.Contains(name, `"`+node+`"`) }) {
			h.Stale++
		}
	}
	return h, err
}

// holds returns what a server keeps in memory after a garbage collection, and its metrics.
func holds(ctx context.Context, server *binary.Server, client *binary.Client) (Holding, map[string]float64, error) {
	for range 2 { // the second collection empties pools
		if _, err := client.Get(ctx, binary.Request{Path: profileHeap}); err != nil {
			return Holding{}, nil, server.Failure(err)
		}
	}
	series, err := client.Metrics(ctx)
	if err != nil {
		return Holding{}, nil, server.Failure(err)
	}
	m, err := proc.MemoryOf(server.PID())
	if err != nil {
		return Holding{}, nil, server.Failure(err)
	}
	files, err := proc.Files(server.PID())
	h := Holding{
		Heap: int64(series["go_memstats_heap_alloc_bytes"]), RSS: m.RSS,
		Goroutines: int64(series["go_goroutines"]), Files: int64(files), Series: int64(len(series)),
	}
	for name, n := range series {
		if strings.HasPrefix(name, "metrics_server_storage_points{") {
			h.Samples += int64(n)
		}
	}
	return h, series, err
}
