package measure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/pods"
	"metrics-server/pkg/kubelet/kubelettest"
)

const (
	// changesAtOnce is the largest number of changes of one kind that are measured. They begin at
	// different moments of an interval.
	changesAtOnce = 50
	// lookPeriod is how often a value that a change should change is checked.
	lookPeriod = 250 * time.Millisecond
	// giveUp is how long a change is waited for.
	giveUp = 90 * time.Second
	// jump is the factor by which a burst changes the load.
	jump = 3
)

// changes measures how long changes take until they are served, while the controller goes on.
func (r *hpaRun) changes(ctx context.Context) error {
	r.say("bursts, new pods and new HPAs")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- r.controller(ctx, func(ctx context.Context, c *binary.Client, w *workload) error {
			_, err := r.ask(ctx, c, w)
			return err
		})
	}()
	var moved, complete, newPods, newHPAs, newHPAsComplete durations
	third := len(r.workloads) / 3
	err := errors.Join(
		r.each(ctx, spread(r.workloads[:third], changesAtOnce), func(ctx context.Context, w *workload) error {
			times, err := r.burst(ctx, w)
			moved, complete = append(moved, times[0]), append(complete, times[1])
			return err
		}),
		r.each(ctx, spread(r.workloads[third:], changesAtOnce), func(ctx context.Context, w *workload) error {
			took, err := r.newPod(ctx, w)
			newPods = append(newPods, took)
			return err
		}),
		r.each(ctx, r.spare, func(ctx context.Context, w *workload) error {
			times, err := r.newHPA(ctx, w)
			newHPAs, newHPAsComplete = append(newHPAs, times[0]), append(newHPAsComplete, times[1])
			return err
		}),
	)
	cancel()
	if err := errors.Join(err, <-done); err != nil {
		return r.server.Failure(err)
	}
	c := &r.report.Changes
	c.BurstHalf, c.Burst = delaysOf(moved), delaysOf(complete)
	c.NewPod, c.NewHPA, c.NewHPAComplete = delaysOf(newPods), delaysOf(newHPAs), delaysOf(newHPAsComplete)
	return nil
}

func delaysOf(d durations) Delays {
	return Delays{Count: len(d), P50: seconds(d.quantile(0.5)), P99: seconds(d.quantile(0.99))}
}

// each calls f for some of the workloads in parallel, beginning at moments that are spread over an
// interval. Only one f runs at a time, except while it waits in until.
func (r *hpaRun) each(ctx context.Context, some []*workload, f func(context.Context, *workload) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, w := range some {
		g.Go(func() error {
			if err := wait(ctx, podInterval*time.Duration(i)/time.Duration(len(some))); err != nil {
				return err
			}
			r.changing.Lock()
			defer r.changing.Unlock()
			return f(ctx, w)
		})
	}
	return g.Wait()
}

// until checks the served values of w until each condition in reached has been true, and returns
// how long after begin that was.
func (r *hpaRun) until(ctx context.Context, w *workload, begin time.Time, reached ...func(map[string]float64) bool,
) ([]time.Duration, error) {
	r.changing.Unlock()
	defer r.changing.Lock()
	c := binary.NewClient(r.server.URL)
	defer c.Close()
	var times []time.Duration
	for len(times) < len(reached) {
		if err := wait(ctx, lookPeriod); err != nil {
			return make([]time.Duration, len(reached)), err
		}
		values, err := r.values(ctx, c, w)
		if failure := r.server.Failure(nil); failure != nil {
			return make([]time.Duration, len(reached)), failure
		}
		since := time.Since(begin)
		for len(times) < len(reached) && (err == nil && reached[len(times)](values) || since > giveUp) {
			times = append(times, since)
		}
	}
	return times, nil
}

// burst changes the load of all pods of w at once, and returns when half of the change and nearly
// all of it are served.
func (r *hpaRun) burst(ctx context.Context, w *workload) ([]time.Duration, error) {
	at := time.Now().Add(time.Second)
	w.steps = append(w.steps, pods.Step{At: at, Factor: jump})
	var specs []pods.Spec
	before := 0.0
	for _, p := range r.present(w) {
		s, _ := r.truth.Spec(p.Namespace, p.Name)
		s.Steps = w.steps
		specs = append(specs, s)
		r.truth.Set(p, w.kind, s, time.Now())
		if !s.Missing(w.kind) {
			before += s.Level
		}
	}
	if w.kind == pods.Histogram {
		before /= 1000
	}
	if err := r.pods.Add(specs...); err != nil {
		return make([]time.Duration, 2), err
	}
	grown := func(part float64) func(map[string]float64) bool {
		return func(values map[string]float64) bool {
			sum := 0.0
			for _, v := range values {
				sum += v
			}
			return sum >= before*(1+(jump-1)*part)
		}
	}
	return r.until(ctx, w, at, grown(0.5), grown(0.95))
}

// newPod replaces a pod of w, and returns when the new one is served.
func (r *hpaRun) newPod(ctx context.Context, w *workload) (time.Duration, error) {
	all := r.present(w)
	name, err := r.replace(w, all[len(all)/2])
	if err != nil {
		return 0, err
	}
	times, err := r.until(ctx, w, time.Now(), func(values map[string]float64) bool {
		_, ok := values[name]
		return ok
	})
	return times[0], err
}

// newHPA creates an autoscaler for w, and returns when a value and when all values are served.
func (r *hpaRun) newHPA(ctx context.Context, w *workload) ([]time.Duration, error) {
	begin := time.Now()
	r.cluster.AddAutoscaler(w.Workload, w.kind.Metric())
	want := len(r.working(w))
	return r.until(ctx, w, begin,
		func(values map[string]float64) bool { return len(values) > 0 },
		func(values map[string]float64) bool { return len(values) >= want },
	)
}

// replace deletes p, starts another pod in its place, and returns the name of that pod.
func (r *hpaRun) replace(w *workload, p *cluster.Pod) (name string, err error) {
	now := time.Now()
	quiet := func(*cluster.Machine, []kubelettest.Pod) error { return nil }
	if err := r.cluster.Delete(p, now, quiet); err != nil {
		return "", err
	}
	r.truth.End(p.Namespace, p.Name, now)
	if err := r.pods.Remove(p.IP()); err != nil {
		return "", err
	}
	r.seeds++
	seed := r.seeds
	started := time.Now()
	spec := specOf(w, seed, started)
	if err := r.pods.Add(spec); err != nil {
		return "", err
	}
	// The seed of the replacement has a bit set that is not part of its address.
	err = r.cluster.Replace(p, int(seed), seed, started, func(_ *cluster.Machine, all []kubelettest.Pod) error {
		for i := range all {
			if cluster.IP(all[i].Seed) == spec.Addr {
				name = all[i].Name
				fresh := &cluster.Pod{Workload: w.Workload, Name: name, Seed: all[i].Seed, Created: started}
				r.truth.Set(fresh, w.kind, spec, started)
				return nil
			}
		}
		return fmt.Errorf("the cluster did not start the pod at %v", spec.Addr)
	})
	return name, err
}

// churn replaces pods until ctx ends.
func (r *hpaRun) churn(ctx context.Context) error {
	tick := time.NewTicker(time.Duration(float64(time.Second) / r.Churn))
	defer tick.Stop()
	random := rand.New(rand.NewPCG(1, 2))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		w := r.workloads[random.IntN(len(r.workloads))]
		err := func() error {
			r.changing.Lock()
			defer r.changing.Unlock()
			all := r.present(w)
			_, err := r.replace(w, all[random.IntN(len(all))])
			return err
		}()
		if err != nil {
			return err
		}
	}
}
