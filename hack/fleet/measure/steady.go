package measure

import (
	"context"
	"fmt"
	"time"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/proc"
	"metrics-server/pkg/kubelet/kubelettest"
)

// setPods sets the pods of a kubelet.
func (r *run) setPods(m *cluster.Machine, pods []kubelettest.Pod) error {
	return r.kubelets.Add(r.spec(m, pods))
}

// steady measures while no requests are made.
func (r *run) steady(ctx context.Context) error {
	settle := 2 * r.Resolution
	r.say("settle for %v", settle)
	if err := wait(ctx, settle); err != nil {
		return err
	}
	// A multiple of the resolution, so that each node is scraped about equally often, however the binary interprets the
	// flag.
	span := max((r.For/2 + r.Resolution - 1).Truncate(r.Resolution), 2*r.Resolution)
	r.say("steady for %v", span)
	late, stop := watchLateness(ctx)
	defer stop()
	before, err := r.read()
	if err != nil {
		return err
	}
	memory, most, err := watchMemory(ctx, r.server.PID(), before.at.Add(span))
	if err != nil {
		return r.server.Failure(err)
	}
	after, err := r.read()
	if err != nil {
		return err
	}
	stop()
	w := after.since(before)
	if w.answers == 0 {
		return fmt.Errorf("the binary scraped no kubelet in %v\n%s", w.wall, r.server.Tail())
	}
	s := &r.report.Steady
	s.RSS, s.Anonymous, s.MostRSS = memory.RSS, memory.Anonymous, most
	s.Seconds, s.Answers = seconds(w.wall), w.answers
	s.Refused = after.kubelets.Refused
	s.ScrapesPerSecond = float64(w.answers) / w.wall.Seconds()
	s.AnswerBytes = (after.kubelets.Bytes - before.kubelets.Bytes) / w.answers
	s.MilliCores = 1000 * w.cores(w.server)
	s.CPUPerScrape = micros(w.server) / float64(w.answers)
	m := &r.report.Machine
	m.Busy, m.FleetMilliCores = w.busy, 1000*w.cores(w.fleet)
	m.FleetPerAnswer = micros(w.answering) / float64(w.answers)
	m.LateP99 = seconds(late().quantile(0.99))
	if s.Files, err = proc.Files(r.server.PID()); err != nil {
		return err
	}
	s.Threads, err = proc.Threads(r.server.PID())
	for _, pid := range append(r.kubelets.PIDs(), self) {
		p, err := proc.MemoryOf(pid)
		if err != nil {
			return err
		}
		m.FleetRSS += p.RSS
	}
	return err
}

// watchLateness measures how late this process is woken up, until stop is called, which may happen
// twice.
func watchLateness(ctx context.Context) (result func() durations, stop func()) {
	ctx, stop = context.WithCancel(ctx)
	done := make(chan durations, 1)
	go func() { done <- late(ctx) }()
	return func() durations { return <-done }, stop
}

// age measures the age of served samples, and checks their values.
func (r *run) age(ctx context.Context) error {
	span := max(r.For/4, 2*r.Resolution)
	r.say("age of served samples, for %v", span)
	var ages durations
	const looks = 15
	for i := range looks {
		ns := r.samples[i%len(r.samples)]
		l := r.checker.Pods(ns)
		list, err := r.namespace(ctx, ns)
		if err != nil {
			return r.server.Failure(err)
		}
		now := time.Now()
		l.Answered(now)
		for i := range list.Items {
			l.Pod(&list.Items[i])
			ages = append(ages, now.Sub(list.Items[i].Timestamp.Time))
		}
		l.EndPods()
		// Each look is at another fraction of a second, because timestamps are truncated to seconds.
		if err := wait(ctx, (span+time.Second)/looks); err != nil {
			return err
		}
	}
	a := &r.report.Age
	a.Samples = len(ages)
	a.P50, a.P90, a.P99 = seconds(ages.quantile(0.5)), seconds(ages.quantile(0.9)), seconds(ages.quantile(0.99))
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
