package measure

import (
	"context"
	"fmt"
	"time"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/proc"
	"metrics-server/pkg/kubelet/kubelettest"
)

// tell tells a kubelet its pods.
func (r *run) tell(m *cluster.Machine, pods []kubelettest.Pod) error {
	return r.kubelets.Add(r.spec(m, pods))
}

// steady measures while nothing is asked.
func (r *run) steady(ctx context.Context) error {
	settle := 2 * r.Resolution
	r.say("settle for %v", settle)
	if err := wait(ctx, settle); err != nil {
		return err
	}
	// A whole number of resolutions: about as many scrapes as there are nodes in each, whatever a binary makes of the flag.
	span := max((r.For/2 + r.Resolution - 1).Truncate(r.Resolution), 2*r.Resolution)
	r.say("steady for %v", span)
	late, stop := watchLateness(ctx)
	defer stop()
	before, err := r.read()
	if err != nil {
		return err
	}
	s := &r.report.Steady
	for end := before.at.Add(span); time.Now().Before(end); {
		if err := wait(ctx, min(time.Second, time.Until(end))); err != nil {
			return err
		}
		m, err := proc.MemoryOf(r.server.PID())
		if err != nil {
			return r.server.Failure(err)
		}
		s.RSS, s.Anonymous = m.RSS, m.Anonymous
		s.MostRSS = max(s.MostRSS, m.RSS)
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

// watchLateness measures how late this process is until stop, which may be called twice.
func watchLateness(ctx context.Context) (result func() durations, stop func()) {
	ctx, stop = context.WithCancel(ctx)
	done := make(chan durations, 1)
	go func() { done <- late(ctx) }()
	return func() durations { return <-done }, stop
}

// age measures how old what is served is, and checks it on the way.
func (r *run) age(ctx context.Context) error {
	span := max(r.For/4, 2*r.Resolution)
	r.say("age of what is served, for %v", span)
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
		// Each is at another fraction of a second, because timestamps are cut to seconds.
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
