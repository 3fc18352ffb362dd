// Package measure starts a metrics server with a simulated cluster and measures it from outside:
// its resource usage according to /proc, the answers of its API, and whether they are correct.
package measure

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/kubelets"
	"metrics-server/hack/fleet/proc"
	"metrics-server/hack/fleet/truth"
	"metrics-server/pkg/kubelet/kubelettest"
)

// Options configure a measurement.
type Options struct {
	Binary     string
	Flags      []string // additional ones for the binary
	Nodes      int
	Pods       int // per node
	Containers int // per pod
	Resolution time.Duration
	For        time.Duration // how long to measure, not counting the start
	Churn      float64       // pod changes per second
	Faulty     int           // percent of the nodes
	Watches    int           // how many watches are open, at the end
	Profiles   string        // a directory for profiles of the binary, or empty
}

// run is a measurement in progress.
type run struct {
	Options
	*testbed
	kubelets *kubelets.Processes
	client   *binary.Client
	checker  *truth.Checker
	excused  func(node string, since, asked time.Time) bool // see truth.Config
	samples  []string                                       // namespaces that stand for all
	report   *Report

	profiling sync.Mutex // one profile at a time
}

// Run measures. It stops everything that it started before it returns, and writes a line for each step to progress.
func Run(ctx context.Context, o Options, progress io.Writer) (*Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := newRun(o, progress)
	if err != nil {
		return nil, err
	}
	defer r.end()
	if err := r.take(ctx, r.setUp, r.untilServed, r.steady, r.age, r.requests, r.lists, r.profiles, r.watches,
		r.final); err != nil {
		return nil, err
	}
	r.end()
	if err := r.yardstick(ctx); err != nil {
		return nil, err
	}
	r.report.finish(r.checker.Verdict())
	return r.report, nil
}

// newRun returns a measurement for which nothing has been started yet. The caller must call end.
func newRun(o Options, progress io.Writer) (*run, error) {
	bed, err := newTestbed(progress)
	return &run{Options: o, testbed: bed, report: newReport(o)}, err
}

// setUp starts the cluster and the binary.
func (r *run) setUp(ctx context.Context) error {
	groups, err := filesAllow(r.Nodes + r.Watches)
	if err != nil {
		return err
	}
	port, err := kubelets.FreePort()
	if err != nil {
		return err
	}
	r.cluster = cluster.New(cluster.Config{
		Nodes: r.Nodes, Pods: r.Pods, Containers: r.Containers, Faulty: r.Faulty,
		Port: port, Now: time.Now(), Away: 2 * time.Second,
	})
	r.checker = truth.New(truth.Config{
		Cluster: r.cluster, Resolution: r.Resolution, Excused: r.excused,
	})
	r.samples = spread(r.cluster.Namespaces(), 10)
	if r.kubelets, err = kubelets.Start(ctx, groups,
		kubelets.Config{Token: binary.ServerToken}); err != nil {
		return err
	}
	nodes, _ := r.cluster.Nodes()
	const batch = 200
	for len(nodes) > 0 {
		n := min(batch, len(nodes))
		var specs []kubelets.Spec
		for _, node := range nodes[:n] {
			specs = append(specs, r.spec(node.Machine, r.cluster.On(node.Machine)))
		}
		if err := r.kubelets.Add(specs...); err != nil {
			return err
		}
		if nodes = nodes[n:]; ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := r.startAPIServer(ctx); err != nil {
		return err
	}
	r.say("%d kubelets and the API server are up", r.Nodes)
	before, err := proc.MachineNow()
	if err != nil {
		return err
	}
	if err := wait(ctx, time.Second); err != nil {
		return err
	}
	after, err := proc.MachineNow()
	if err != nil {
		return err
	}
	r.report.Machine.BusyBefore = after.Since(before)
	if r.server, err = binary.Start(&binary.Config{
		Path: r.Binary, Dir: r.dir, Resolution: r.Resolution, Flags: r.Flags,
		APIServer: r.api.URL(), APIServerCA: r.api.CA(), KubeletCA: r.kubelets.CA(),
	}); err != nil {
		return err
	}
	r.client = binary.NewClient(r.server.URL)
	r.live(r.profileStart)
	return nil
}

// faults has the faults of the faulty nodes, which get them in turn.
var faults = []string{"hang", "drip", "500", "half"}

// spec returns the kubelet of m.
func (r *run) spec(m *cluster.Machine, pods []kubelettest.Pod) kubelets.Spec {
	s := kubelets.Spec{Addr: m.Addr, Seed: m.Seed, Boot: m.Boot, Pods: pods}
	if m.Faulty {
		s.Fault = faults[m.Fault%len(faults)]
	}
	return s
}

// end stops what setUp started; it may be called twice.
func (r *run) end() {
	if r.client != nil {
		r.client.Close()
		r.client = nil
	}
	r.testbed.end()
	if r.kubelets != nil {
		r.kubelets.Close()
		r.kubelets = nil
	}
}

// reserve is how many files a process has open besides those for nodes.
const reserve = 500

// filesAllow raises the limit of open files and returns how many processes the kubelets need.
func filesAllow(connections int) (int, error) {
	limit, err := proc.RaiseFiles(uint64(2*connections + reserve))
	if err != nil {
		return 0, err
	}
	if limit < uint64(connections+reserve) {
		return 0, fmt.Errorf("the binary needs a connection to each node and for each watch, %d in total, but a process "+
			"may open only %d files: raise the limit (ulimit -Hn, LimitNOFILE of systemd) to %d",
			connections, limit, connections+reserve)
	}
	// A listener and a connection for each node.
	perProcess := int(limit-reserve) / 2
	return (connections + perProcess - 1) / perProcess, nil
}

// spread returns about n evenly spaced elements of all.
func spread[T any](all []T, n int) []T {
	if len(all) <= n {
		return all
	}
	var some []T
	for i := range n {
		some = append(some, all[i*len(all)/n])
	}
	return some
}

// wait waits for a time, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
