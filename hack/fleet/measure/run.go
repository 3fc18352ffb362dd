// Package measure starts a metrics server beside a simulated cluster and measures it from outside: what /proc says
// of its process, what its API answers, and whether that is true.
package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"metrics-server/hack/fleet/apiserver"
	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/kubelets"
	"metrics-server/hack/fleet/proc"
	"metrics-server/hack/fleet/truth"
	"metrics-server/pkg/kubelet/kubelettest"
)

// Options say what to measure.
type Options struct {
	Binary      string
	Flags       []string // more of them for the binary
	Nodes       int
	Pods        int // of each node
	Containers  int // of each pod
	Resolution  time.Duration
	For         time.Duration // how long to measure, beside the start
	Churn       float64       // changes of pods a second
	Faulty      int           // percent of the nodes
	HTTP2       int           // percent of the nodes
	RequestTime bool          // kubelets sample when they are asked
	Profiles    string        // a directory for profiles of the binary, or empty
}

// run is one measurement under way.
type run struct {
	Options
	say      func(format string, args ...any) // progress
	cluster  *cluster.Cluster
	kubelets *kubelets.Processes
	api      *apiserver.Server
	server   *binary.Server
	client   *binary.Client
	checker  *truth.Checker
	excused  func(node string, since, asked time.Time) bool // see truth.Config
	samples  []string                                       // namespaces that stand for all
	report   *Report
	live     func(func(context.Context)) // runs what changes the cluster, until endLife
	life     sync.WaitGroup
	endLife  context.CancelFunc
	broken   chan error // of what changes it

	profiling sync.Mutex // one profile at once
}

// Run measures. What it started has ended when it returns. Progress goes to progress, a line for each step.
func Run(ctx context.Context, o Options, progress io.Writer) (*Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRun(o, progress)
	dir, err := os.MkdirTemp("", "metrics-server-fleet-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	defer r.end()

	steps := []func(context.Context) error{
		func(ctx context.Context) error { return r.setUp(ctx, dir) },
		r.untilServed, r.steady, r.age, r.requests, r.lists, r.profiles, r.final,
	}
	for _, step := range steps {
		err := step(ctx)
		select {
		case broken := <-r.broken:
			err = errors.Join(broken, err)
		default:
		}
		if err != nil {
			return nil, err
		}
	}
	r.end()
	if err := r.yardstick(ctx); err != nil {
		return nil, err
	}
	r.report.finish(r.checker.Verdict())
	return r.report, nil
}

func newRun(o Options, progress io.Writer) *run {
	begin := time.Now()
	return &run{Options: o, broken: make(chan error, 1), report: newReport(o), say: func(format string, args ...any) {
		fmt.Fprintf(progress, "%7.1fs  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}}
}

// setUp starts the cluster and the binary.
func (r *run) setUp(ctx context.Context, dir string) error {
	groups, err := filesAllow(r.Nodes)
	if err != nil {
		return err
	}
	port, err := kubelets.FreePort()
	if err != nil {
		return err
	}
	r.cluster = cluster.New(cluster.Config{
		Nodes: r.Nodes, Pods: r.Pods, Containers: r.Containers, Faulty: r.Faulty, HTTP2: r.HTTP2, Port: port, Now: time.Now(), Away: 2 * time.Second,
	})
	r.checker = truth.New(truth.Config{Cluster: r.cluster, Resolution: r.Resolution, RequestTime: r.RequestTime, Excused: r.excused})
	r.samples = spread(r.cluster.Namespaces(), 10)
	if r.kubelets, err = kubelets.Start(ctx, groups, kubelets.Config{Token: binary.ServerToken, RequestTime: r.RequestTime}); err != nil {
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
	if r.api, err = apiserver.Start(apiserver.Config{Cluster: r.cluster, Token: binary.ServerToken, LoadToken: binary.LoadToken}); err != nil {
		return err
	}
	life, endLife := context.WithCancel(ctx)
	r.endLife = endLife
	r.live = func(f func(context.Context)) { r.life.Go(func() { f(life) }) }
	r.live(r.cluster.Heartbeats)
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
		Path: r.Binary, Dir: dir, Resolution: r.Resolution, Flags: r.Flags,
		APIServer: r.api.URL(), APIServerCA: r.api.CA(), KubeletCA: r.kubelets.CA(),
	}); err != nil {
		return err
	}
	r.client = binary.NewClient(r.server.URL)
	r.live(r.profileStart)
	return nil
}

// faults are what the faulty nodes of a measurement do, by turns.
var faults = []string{"hang", "drip", "500", "half"}

// spec is the kubelet of m.
func (r *run) spec(m *cluster.Machine, pods []kubelettest.Pod) kubelets.Spec {
	s := kubelets.Spec{Addr: m.Addr, Seed: m.Seed, Boot: m.Boot, HTTP2: m.HTTP2, Pods: pods}
	if m.Faulty {
		s.Fault = faults[m.Fault%len(faults)]
	}
	return s
}

// end ends what setUp started; it may be called twice.
func (r *run) end() {
	if r.client != nil {
		r.client.Close()
		r.client = nil
	}
	if r.endLife != nil {
		r.endLife()
		r.life.Wait()
		r.endLife = nil
	}
	if r.server != nil {
		r.server.Stop()
		r.server = nil
	}
	if r.api != nil {
		if paths := r.api.Unknown(); len(paths) > 0 {
			r.say("the API server was asked in vain for %q", paths)
		}
		_ = r.api.Close()
		r.api = nil
	}
	if r.kubelets != nil {
		r.kubelets.Close()
		r.kubelets = nil
	}
}

// reserve is how many files a process has open beside those for nodes.
const reserve = 500

// filesAllow raises the limit of open files and returns in how many processes the kubelets must be.
func filesAllow(nodes int) (int, error) {
	limit, err := proc.RaiseFiles(uint64(2*nodes + reserve))
	if err != nil {
		return 0, err
	}
	if limit < uint64(nodes+reserve) {
		return 0, fmt.Errorf("the binary needs a connection to each of %d nodes, but a process may have only %d files open: raise the limit (ulimit -Hn, LimitNOFILE of systemd) to %d",
			nodes, limit, nodes+reserve)
	}
	// A listener and a connection for each node.
	perProcess := int(limit-reserve) / 2
	return (nodes + perProcess - 1) / perProcess, nil
}

// spread returns about n of names, evenly spread.
func spread(names []string, n int) []string {
	if len(names) <= n {
		return names
	}
	var some []string
	for i := range n {
		some = append(some, names[i*len(names)/n])
	}
	return some
}

// wait waits unless ctx ends before.
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
