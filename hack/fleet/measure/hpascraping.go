package measure

import (
	"context"
	"fmt"
	"time"

	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/proc"
)

// untilServed waits until the server is ready and serves a sample completely.
func (r *hpaRun) untilServed(ctx context.Context) error {
	begin := time.Now()
	limit := 2*time.Minute + time.Duration(r.HPAs)*100*time.Millisecond
	c := binary.NewClient(r.server.URL)
	defer c.Close()
	s := &r.report.Start
	left := spread(r.workloads, 20)
	for s.Ready == 0 || s.All == 0 {
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		if err := r.server.Failure(nil); err != nil {
			return err
		}
		if _, err := c.Get(ctx, binary.Request{Path: "/readyz"}); err == nil && s.Ready == 0 {
			s.Ready = seconds(time.Since(begin))
			r.say("/readyz is ok")
		}
		for len(left) > 0 {
			values, err := r.values(ctx, c, left[0])
			if err != nil || len(values) < len(r.working(left[0])) {
				break
			}
			left = left[1:]
		}
		if len(left) == 0 && s.All == 0 {
			s.All = seconds(time.Since(begin))
			r.say("all pods of a sample of HPAs are served")
		}
		if time.Since(begin) > limit {
			return fmt.Errorf("not ready, or not everything is served, after %v\n%s", limit, r.server.Tail())
		}
	}
	if r.Churn > 0 {
		r.liveOrFail(r.churn)
	}
	m, err := proc.MemoryOf(r.server.PID())
	s.Peak = m.Peak
	if err != nil {
		return err
	}
	s.CPU, err = cpuSeconds(r.server.PID())
	return err
}

func cpuSeconds(pid int) (float64, error) {
	d, err := proc.CPU(pid)
	return seconds(d), err
}

// during measures the process pid, which scrapes the pods of r.scraped, and those pods, for about a time.
func (r *hpaRun) during(ctx context.Context, pid int, d time.Duration) (Scraping, error) {
	s := Scraping{Pods: len(r.scraped())}
	span := max(d.Truncate(podInterval), 2*podInterval) // each pod is scraped equally often
	late, stop := watchLateness(ctx)
	defer stop()
	before, err := read(pid, r.pods.PID())
	if err != nil {
		return s, err
	}
	answers, err := r.pods.Stats()
	if err != nil {
		return s, err
	}
	memory, most, err := watchMemory(ctx, pid, before.at.Add(span))
	if err != nil {
		return s, err
	}
	s.RSS, s.Anonymous, s.MostRSS = memory.RSS, memory.Anonymous, most
	after, err := read(pid, r.pods.PID())
	if err != nil {
		return s, err
	}
	stats, err := r.pods.Stats()
	if err != nil {
		return s, err
	}
	stop()
	w := after.since(before)
	s.Seconds, s.Pages = seconds(w.wall), stats.Answers-answers.Answers
	s.Cores, s.FleetCores = w.cores(w.server), w.cores(w.fleet)
	if s.Pages > 0 {
		s.CPUPerPage = micros(w.server) / float64(s.Pages)
		s.FleetPerPage = micros(w.answering) / float64(s.Pages)
		s.PageBytes = (stats.Bytes - answers.Bytes) / s.Pages
	}
	s.Busy, s.LateP99 = w.busy, seconds(late().quantile(0.99))
	r.report.Overloaded = r.report.Overloaded || s.Busy > tooBusy || s.LateP99 > tooLate
	return s, nil
}

// steady measures while no requests are made.
func (r *hpaRun) steady(ctx context.Context) error {
	r.say("settle for %v", 2*podInterval)
	if err := wait(ctx, 2*podInterval); err != nil {
		return err
	}
	r.say("scrapes only")
	s, err := r.during(ctx, r.server.PID(), r.For/4)
	if err != nil {
		return r.server.Failure(err)
	}
	r.report.Scraping = s
	r.report.Files, err = proc.Files(r.server.PID())
	return err
}
