package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	custommetrics "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"

	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/truth"
)

// ask requests the metric of w, as the HPA controller does, and has the answer checked, which may
// be an error. It returns how long the request took.
func (r *hpaRun) ask(ctx context.Context, c *binary.Client, w *workload) (time.Duration, error) {
	present := r.present(w) // determined first: pods that are started later need not be served
	asked := time.Now()
	b, err := c.Get(ctx, binary.Request{Path: w.path(), Accept: binary.Protobuf})
	answered := time.Now()
	if err != nil {
		if failure := r.server.Failure(nil); failure != nil || ctx.Err() != nil {
			return 0, cmp.Or(failure, ctx.Err())
		}
		r.truth.Failed(present, fmt.Sprintf("%v: %s", err, b), asked, answered)
		return answered.Sub(asked), nil
	}
	items, err := truth.CustomItems(b)
	if err != nil {
		return 0, err
	}
	r.truth.Check(present, items, asked, answered)
	return answered.Sub(asked), nil
}

// values requests the metric of w. The answer is not checked and need not be complete.
func (r *hpaRun) values(ctx context.Context, c *binary.Client, w *workload) (map[string]float64, error) {
	b, err := c.Get(ctx, binary.Request{Path: w.path(), Accept: binary.Protobuf})
	if err != nil {
		return nil, err
	}
	items, err := truth.CustomItems(b)
	return valuesOf(items), err
}

func valuesOf(items []custommetrics.MetricValue) map[string]float64 {
	values := make(map[string]float64, len(items))
	for i := range items {
		values[items[i].DescribedObject.Name] = items[i].Value.AsApproximateFloat64()
	}
	return values
}

// controller asks the binary for each metric every controllerPeriod until ctx ends.
func (r *hpaRun) controller(ctx context.Context, ask func(context.Context, *binary.Client, *workload) error) error {
	clients := make(chan *binary.Client, controllerWorkers)
	for range controllerWorkers {
		clients <- binary.NewClient(r.server.URL)
	}
	err := r.askPeriodically(ctx, func(ctx context.Context, w *workload) error {
		c := <-clients
		defer func() { clients <- c }()
		return ask(ctx, c, w)
	})
	for range controllerWorkers {
		(<-clients).Close()
	}
	return err
}

// askPeriodically calls ask for each workload every controllerPeriod until ctx ends, for at most controllerWorkers at a
// time.
func (r *hpaRun) askPeriodically(ctx context.Context, ask func(context.Context, *workload) error) error {
	g, working := errgroup.WithContext(ctx)
	g.SetLimit(controllerWorkers)
	tick := time.NewTicker(controllerPeriod / time.Duration(len(r.workloads)))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-working.Done(): // ctx has ended, or a request failed
			if err := g.Wait(); ctx.Err() == nil {
				return err
			}
			return nil
		case <-tick.C:
		}
		g.Go(func() error { return ask(working, r.workloads[i%len(r.workloads)]) })
	}
}

// controlled measures while the HPA controller makes its requests, first alone, then with a hundred
// more requests a second.
func (r *hpaRun) controlled(ctx context.Context) error {
	var mu sync.Mutex
	var took durations
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- r.controller(ctx, func(ctx context.Context, c *binary.Client, w *workload) error {
			d, err := r.ask(ctx, c, w)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				took = append(took, d)
			}
			return err
		})
	}()
	taken := func() durations {
		mu.Lock()
		defer mu.Unlock()
		d := took
		took = nil
		return d
	}
	measured := func() error {
		r.say("the controller's requests: one per HPA every %v", controllerPeriod)
		if err := wait(ctx, 2*time.Second); err != nil { // connections and reviews
			return err
		}
		taken()
		r.truth.Ages()
		r.profile("cpu", profileCPU(r.For/2-time.Second))
		var err error
		if r.report.Controlled, err = r.during(ctx, r.server.PID(), r.For/2); err != nil {
			return r.server.Failure(err)
		}
		r.report.Answers = answersOf(taken(), r.report.Controlled.Seconds)
		ages := durations(r.truth.Ages())
		r.report.Age.P50, r.report.Age.P99 = seconds(ages.quantile(0.5)), seconds(ages.quantile(0.99))
		r.say("a hundred requests a second more")
		return r.closedLoop(ctx)
	}()
	cancel()
	return errors.Join(measured, <-done)
}

// closedLoop makes a hundred requests a second on one connection, if the server answers fast
// enough.
func (r *hpaRun) closedLoop(ctx context.Context) error {
	c := binary.NewClient(r.server.URL)
	defer c.Close()
	var took durations
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	ends := time.Now().Add(r.For / 4)
	loop := func() error {
		for i := 0; time.Now().Before(ends); i++ {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
			d, err := r.ask(ctx, c, r.workloads[i*7%len(r.workloads)])
			if err != nil {
				return err
			}
			took = append(took, d)
		}
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- loop() }()
	s, err := r.during(ctx, r.server.PID(), r.For/4)
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	r.report.Loop = answersOf(took, s.Seconds)
	if n := r.report.Loop.PerSecond; n > 0 {
		r.report.Loop.CPU = (s.Cores - r.report.Controlled.Cores) / n * 1e6
	}
	return nil
}

func answersOf(took durations, wall float64) Answers {
	return Answers{
		Count: len(took), PerSecond: float64(len(took)) / wall,
		P50: seconds(took.quantile(0.5)), P99: seconds(took.quantile(0.99)),
	}
}
