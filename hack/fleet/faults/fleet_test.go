//go:build faults

package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"metrics-server/hack/fleet/apiserver"
	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/kubelets"
	"metrics-server/hack/fleet/pods"
	"metrics-server/hack/fleet/proc"
	"metrics-server/hack/fleet/truth"
)

// program is the binary under test, built by TestMain.
var program string

// programVariable is the variable with program in the environment of tests that run in a network of their own.
const programVariable = "FLEET_PROGRAM"

func TestMain(m *testing.M) {
	// The processes that tests start are this program, too.
	for argument, main := range map[string]func(io.Reader, io.Writer) error{
		kubelets.Argument: kubelets.Main, pods.Argument: pods.Main,
	} {
		if len(os.Args) == 2 && os.Args[1] == argument {
			if err := main(os.Stdin, os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	if program = os.Getenv(programVariable); program != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "metrics-server-faults-")
	if err == nil {
		program = filepath.Join(dir, "metrics-server")
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags=grpcnotrace", "-o", program,
			"./cmd/metrics-server")
		build.Dir = "../../.." // the root of the repository
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		err = errors.Join(build.Run(), os.Setenv(programVariable, program))
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// fleet is a cluster and the binary. Everything that the binary serves is checked all the time.
type fleet struct {
	resolution time.Duration
	cluster    *cluster.Cluster
	kubelets   *kubelets.Server
	machines   []*cluster.Machine // by index
	server     *binary.Server
	client     *binary.Client

	mu      sync.Mutex
	checker *truth.Checker
	looks   []look
	broken  error // that ended the looking
	excused map[string]time.Time
}

// look is what was served at one moment: the timestamp of each pod.
type look struct {
	asked, answered time.Time
	pods            map[string]time.Time // by namespace/name
}

// expiry is how long something is served after it was received, at resolutions up to 15 s.
const expiry = time.Minute

func start(t *testing.T, nodes, pods int, resolution time.Duration) *fleet {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	port, err := kubelets.FreePort()
	must(err)
	f := &fleet{resolution: resolution, excused: map[string]time.Time{}}
	f.cluster = cluster.New(cluster.Config{Nodes: nodes, Pods: pods, Containers: 1, Port: port, Now: time.Now()})
	f.kubelets = kubelets.Serve(kubelets.Config{Token: binary.ServerToken})
	t.Cleanup(func() { f.kubelets.Close() })
	f.machines = make([]*cluster.Machine, nodes)
	all, _ := f.cluster.Nodes()
	for _, n := range all {
		f.machines[n.Index] = n.Machine
		must(f.kubelets.Add(f.spec(n.Machine)))
	}
	api, err := apiserver.Start(apiserver.Config{
		Cluster: f.cluster, Token: binary.ServerToken,
		LoadToken: binary.LoadToken,
	})
	must(err)
	t.Cleanup(func() { api.Close() })
	f.server, err = binary.Start(&binary.Config{
		Path: program, Dir: t.TempDir(), Resolution: resolution,
		APIServer: api.URL(), APIServerCA: api.CA(), KubeletCA: f.kubelets.CA(),
	})
	must(err)
	t.Cleanup(f.server.Stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", f.server.Tail())
		}
	})
	f.client = binary.NewClient(f.server.URL)
	t.Cleanup(f.client.Close)
	f.checker = truth.New(truth.Config{
		Cluster: f.cluster, Resolution: resolution,
		Excused: func(node string, _, asked time.Time) bool {
			from, ok := f.excused[node]
			return ok && asked.After(from)
		},
	})

	f.eventually(t, "all pods are served", func() error {
		l, err := f.look(t.Context(), nil)
		if err == nil && len(l.pods) != nodes*pods {
			err = fmt.Errorf("%d of %d", len(l.pods), nodes*pods)
		}
		return err
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.watch(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return f
}

func (f *fleet) spec(m *cluster.Machine) kubelets.Spec {
	return kubelets.Spec{Addr: m.Addr, Seed: m.Seed, Boot: m.Boot, Pods: f.cluster.On(m)}
}

// look asks for all pods, and has them checked if there is a checker.
func (f *fleet) look(ctx context.Context, c *truth.Checker) (look, error) {
	if c == nil {
		c = truth.New(truth.Config{Cluster: f.cluster, Resolution: f.resolution})
	}
	l := look{asked: time.Now(), pods: map[string]time.Time{}}
	list := c.Pods("")
	b, err := f.client.Get(ctx, binary.Request{Path: binary.Group + "/pods", Accept: binary.Protobuf})
	if err != nil {
		return l, f.server.Failure(err)
	}
	l.answered = time.Now()
	return l, list.AllPods(b, func(m *metricsv1beta1.PodMetrics) {
		l.pods[m.Namespace+"/"+m.Name] = m.Timestamp.Time
	})
}

// watch looks until ctx ends.
func (f *fleet) watch(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.mu.Lock()
		l, err := f.look(ctx, f.checker)
		if err == nil {
			f.looks = append(f.looks, l)
		} else if ctx.Err() == nil {
			f.broken = errors.Join(f.broken, err)
		}
		f.mu.Unlock()
	}
}

// excuse allows the pods and the usage of m to be missing from then on.
func (f *fleet) excuse(m *cluster.Machine, from time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.excused[m.Name] = from
}

func (f *fleet) excuseNone() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.excused)
}

// seen is what looks found between two moments.
func (f *fleet) seen(from, to time.Time) []look {
	f.mu.Lock()
	defer f.mu.Unlock()
	var some []look
	for _, l := range f.looks {
		if l.asked.After(from) && l.asked.Before(to) {
			some = append(some, l)
		}
	}
	return some
}

// right fails the test if something that was served until now was not true, or something was missing.
func (f *fleet) right(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := f.checker.Verdict(); !v.OK() || f.broken != nil {
		t.Errorf("%d wrong and %d missing of %d numbers in %d lists, %v: %s", v.Wrong, v.Missing, v.Numbers, v.Lists,
			f.broken, strings.Join(v.Examples, "; "))
	}
}

// ages are how old the pods on some nodes are, sorted.
type ages []time.Duration

func (f *fleet) ages(looks []look, of []*cluster.Machine, but ...string) ages {
	pods := f.podsOn(of...)
	var all ages
	for _, l := range looks {
		for _, p := range pods {
			if at, ok := l.pods[p]; ok && !slices.Contains(but, p) {
				all = append(all, l.answered.Sub(at))
			}
		}
	}
	slices.Sort(all)
	return all
}

func (a ages) quantile(q float64) time.Duration {
	if len(a) == 0 {
		return 0
	}
	return a[min(int(q*float64(len(a))), len(a)-1)]
}

func (a ages) String() string {
	return fmt.Sprintf("p50 %.1f s, p99 %.1f s of %d", a.quantile(0.5).Seconds(), a.quantile(0.99).Seconds(), len(a))
}

// podsOn are the pods on nodes, as namespace/name.
func (f *fleet) podsOn(of ...*cluster.Machine) []string {
	var pods []string
	for _, m := range of {
		for _, p := range f.cluster.On(m) {
			pods = append(pods, p.Namespace+"/"+p.Name)
		}
	}
	return pods
}

// peak returns the most memory that the binary used since the last call.
func (f *fleet) peak(t *testing.T) int64 {
	t.Helper()
	m, err := proc.MemoryOf(f.server.PID())
	if err == nil {
		err = proc.ResetPeak(f.server.PID())
	}
	if err != nil {
		t.Fatal(err)
	}
	return m.Peak
}

// log returns the log since an offset, of lines that name a node.
func (f *fleet) log(since int, m *cluster.Machine) []string {
	var lines []string
	for line := range strings.Lines(f.server.Log()[since:]) {
		if strings.Contains(line, `node="`+m.Name+`"`) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// eventually waits until f returns nil.
func (f *fleet) eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for begun := time.Now(); time.Since(begun) < 2*time.Minute; time.Sleep(100 * time.Millisecond) {
		if err = f.server.Failure(nil); err != nil {
			break
		}
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("not so: %s: %v", what, err)
}
