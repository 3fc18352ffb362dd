package measure

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/pods"
	"metrics-server/hack/fleet/proc"
	"metrics-server/hack/fleet/truth"
)

// HPAOptions configure a measurement of the custom metrics server. It needs the addresses of package network.
type HPAOptions struct {
	Binary     string
	Flags      []string // additional ones for the binary
	HPAs       int
	Pods       int           // of each
	For        time.Duration // how long to measure, not counting the start and the changes at the end
	Churn      float64       // pods replaced per second
	Faulty     int           // percent of the pods
	Fault      string        // of these; empty: all of pods.Faults by turns
	Prometheus string        // the program, to be measured on the same pods; empty: it is not
	Profiles   string        // a directory for profiles of the binary, or empty
}

const (
	// podInterval is how often the server, and Prometheus, scrape pods.
	podInterval = 15 * time.Second
	// controllerPeriod is how often the HPA controller asks for a metric, and controllerWorkers is its
	// number of concurrent requests.
	controllerPeriod  = 15 * time.Second
	controllerWorkers = 5
)

// hpaRun is a measurement in progress.
type hpaRun struct {
	HPAOptions
	*testbed
	workloads []*workload // workloads with an autoscaler from the beginning
	spare     []*workload // workloads that get an autoscaler later
	pods      *pods.Process
	truth     *truth.Custom
	report    *HPAReport
	seeds     uint64 // of the last pod that was started

	changing sync.Mutex // one change of pods at a time
}

// newHPARun returns a measurement for which nothing has been started yet. The caller must call end.
func newHPARun(o HPAOptions, progress io.Writer) (*hpaRun, error) {
	bed, err := newTestbed(progress)
	return &hpaRun{HPAOptions: o, testbed: bed, truth: truth.NewCustom(), report: newHPAReport(o)}, err
}

// workload is one scale target.
type workload struct {
	*cluster.Workload
	number int
	kind   pods.Kind
	steps  []pods.Step
}

// path returns the path that the HPA controller requests.
func (w *workload) path() string {
	return fmt.Sprintf("/apis/custom.metrics.k8s.io/v1beta2/namespaces/%s/pods/*/%s?labelSelector=%s", w.Namespace,
		w.kind.Metric(), url.QueryEscape("app="+w.Name))
}

// RunHPAs measures. It stops everything that it started before it returns.
func RunHPAs(ctx context.Context, o HPAOptions, progress io.Writer) (*HPAReport, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := newHPARun(o, progress)
	if err != nil {
		return nil, err
	}
	defer r.end()
	return r.report, r.take(ctx, r.setUp, r.untilServed, r.steady, r.controlled, r.changes, r.finish, r.prometheus)
}

// setUp starts the pods, the API server and the binary.
func (r *hpaRun) setUp(ctx context.Context) error {
	// The server has a connection to each pod, and uses at most three quarters of its files for them;
	// the pods' process has the other ends.
	want := uint64(r.HPAs*r.Pods*3/2 + reserve)
	if limit, err := proc.RaiseFiles(want); err != nil {
		return err
	} else if limit < want {
		return fmt.Errorf("%d pods need %d open files, but a process may have only %d: raise the limit", r.HPAs*r.Pods, want,
			limit)
	}
	now := time.Now()
	r.cluster = cluster.New(cluster.Config{
		Nodes: r.Pods, Pods: r.HPAs, Containers: 1, Replicas: r.Pods, Port: 10250, Now: now,
	})
	r.seeds = uint64(r.HPAs * r.Pods)
	kinds := []pods.Kind{pods.Counter, pods.Gauge, pods.Counter, pods.Histogram}
	of := map[*cluster.Workload]*workload{}
	spares := min(max(r.HPAs/20, 1), 20)
	for i, w := range r.cluster.Workloads() {
		k := &workload{Workload: w, number: i, kind: kinds[i%len(kinds)]}
		of[w] = k
		if i%(r.HPAs/spares) == 0 && len(r.spare) < spares && r.HPAs > 1 {
			r.spare = append(r.spare, k)
			continue
		}
		r.workloads = append(r.workloads, k)
		r.cluster.AddAutoscaler(w, k.kind.Metric())
	}
	var err error
	if r.pods, err = pods.Start(ctx); err != nil {
		return err
	}
	all, _ := r.cluster.Pods("")
	for chunk := range slices.Chunk(all, 5000) {
		specs := make([]pods.Spec, len(chunk))
		for i, p := range chunk {
			k := of[p.Workload]
			specs[i] = specOf(k, p.Seed, p.Started[0])
			if n := int(p.Seed); n*r.Faulty/100 != (n+1)*r.Faulty/100 {
				specs[i] = specs[i].With(cmp.Or(r.Fault, pods.Faults[n*r.Faulty/100%len(pods.Faults)].Name), now)
			}
			r.truth.Set(p, k.kind, specs[i], now)
		}
		if err := r.pods.Add(specs...); err != nil {
			return err
		}
	}
	if err := r.startAPIServer(ctx); err != nil {
		return err
	}
	r.live(r.reportLateness)
	r.say("%d pods of %d workloads and the API server are up", len(all), r.HPAs)
	r.server, err = binary.Start(&binary.Config{
		Path: r.Binary, Custom: true, Dir: r.dir, Flags: r.Flags, APIServer: r.api.URL(), APIServerCA: r.api.CA(),
	})
	return err
}

// reportLateness tells the checker how late this machine was in the last minute, until ctx ends.
func (r *hpaRun) reportLateness(ctx context.Context) {
	const period = 5 * time.Second
	var recent durations // at most, of each period
	for ctx.Err() == nil {
		during, stop := context.WithTimeout(ctx, period)
		recent = append(recent, late(during).quantile(1))
		stop()
		recent = recent[max(0, len(recent)-int(time.Minute/period)):]
		r.truth.Late(recent.quantile(1))
	}
}

// specOf returns the Spec of a pod of w. The load differs from pod to pod, so that a mix-up is
// noticed.
func specOf(w *workload, seed uint64, started time.Time) pods.Spec {
	return pods.Spec{
		Addr: cluster.IP(seed), Level: 200 + float64(seed*7919%2000)/10, Started: started, Steps: w.steps,
	}
}

// end stops what setUp started; it may be called twice.
func (r *hpaRun) end() {
	r.testbed.end()
	if r.pods != nil {
		r.pods.Close()
		r.pods = nil
	}
}

// present returns the pods of w.
func (r *hpaRun) present(w *workload) []*cluster.Pod {
	all, _ := r.cluster.Pods(w.Namespace)
	return slices.DeleteFunc(all, func(p *cluster.Pod) bool { return p.Workload != w.Workload })
}

// scraped returns the pods of the workloads that have an autoscaler from the beginning.
func (r *hpaRun) scraped() []*cluster.Pod {
	wanted := map[*cluster.Workload]bool{}
	for _, w := range r.workloads {
		wanted[w.Workload] = true
	}
	all, _ := r.cluster.Pods("")
	return slices.DeleteFunc(all, func(p *cluster.Pod) bool { return !wanted[p.Workload] })
}

// working returns the pods of w that have a value.
func (r *hpaRun) working(w *workload) []*cluster.Pod {
	return slices.DeleteFunc(r.present(w), func(p *cluster.Pod) bool {
		spec, _ := r.truth.Spec(p.Namespace, p.Name)
		return spec.Missing(w.kind)
	})
}

// finish stops the server and completes the report.
func (r *hpaRun) finish(context.Context) error {
	r.report.Truth, r.report.Deviation = r.truth.Verdict(), r.truth.Deviation()
	r.profile("heap", profileHeap).Wait()
	return r.server.Failure(nil)
}

// profile saves a profile of the binary in the background.
func (r *hpaRun) profile(name, path string) *sync.WaitGroup {
	var wg sync.WaitGroup
	if r.Profiles == "" {
		return &wg
	}
	file, url := filepath.Join(r.Profiles, fmt.Sprintf("hpas-%dx%d-%s.pprof", r.HPAs, r.Pods, name)), r.server.URL
	wg.Go(func() {
		if err := saveProfile(context.Background(), url, path, file); err != nil {
			r.say("%v", err)
		}
	})
	return &wg
}
