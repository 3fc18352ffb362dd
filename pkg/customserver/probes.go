package customserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/klog/v2"

	"metrics-server/pkg/schedule"
)

const (
	// startGrace is how long readiness, once it knows the pods, waits for those that were not scraped twice.
	startGrace = 30 * time.Second
	// lateLimit is the delay of the schedulers above which the process is considered stuck. It does not
	// depend on pods, which are scraped in other goroutines.
	lateLimit = time.Minute
	// readyLogPeriod is how often readiness is checked for the log.
	readyLogPeriod = time.Second
)

func (s *Server) addChecks() error {
	check := func(name string, f func() error) healthz.HealthChecker {
		return healthz.NamedCheck(name, func(*http.Request) error { return f() })
	}
	return errors.Join(
		s.serving.AddLivezChecks(0, check("metric-collection-timely", s.timely)),
		s.serving.AddReadyzChecks(
			check("autoscalers-read", s.readiness.autoscalersRead),
			check("pods-asked", s.readiness.podsAsked),
		),
	)
}

// readiness decides whether a server that starts is ready. Once it is ready, it stays so: a new
// autoscaler, or an API server that cannot be reached, is no reason to stop answering all others.
type readiness struct {
	read  func() error // why autoscalers, their targets and pods are not known yet
	asked func() error // why the known pods were not scraped often enough
	ready atomic.Bool
	known sync.Once // sets since
	since time.Time // when podsAsked first found that the pods are known
}

func (r *readiness) autoscalersRead() error {
	if r.ready.Load() {
		return nil
	}
	return r.read()
}

// podsAsked returns nil once the known pods were scraped often enough, or when they have been known for startGrace. A
// server that is ready earlier would answer that metrics have no value, and autoscalers would stop.
func (r *readiness) podsAsked() error {
	if r.ready.Load() {
		return nil
	}
	if err := r.read(); err != nil {
		return err // until then it is not known which pods there are
	}
	r.known.Do(func() { r.since = time.Now() })
	if err := r.asked(); err != nil && time.Since(r.since) < startGrace {
		return err
	}
	r.ready.Store(true)
	return nil
}

// timely fails when a scheduler is stuck.
func (s *Server) timely() error {
	for _, one := range s.collector.schedulers() {
		if late := one.Status().Late; late > lateLimit {
			return fmt.Errorf("the scheduler of scrapes is %v late: the process is stuck", late.Round(time.Second))
		}
	}
	for _, st := range s.backends.statuses() {
		if st.Late > lateLimit {
			return fmt.Errorf("the scheduler of queries is %v late: the process is stuck", st.Late.Round(time.Second))
		}
	}
	return nil
}

// asked returns nil once every endpoint has given two pages or failed twice and every query of a backend has succeeded
// once or failed twice.
func (s *Server) asked() error {
	for _, one := range s.collector.schedulers() {
		if st := one.Status(); !complete(&st) {
			return fmt.Errorf("%d endpoints of pods: %d not scraped yet, %d not scraped twice yet, %d failed once", st.Targets,
				st.Waiting, st.Answered-st.Settled, st.Doubtful)
		}
	}
	for name, st := range s.backends.statuses() {
		if !complete(&st) {
			return fmt.Errorf("%d queries of backend %q: %d not sent yet, %d failed once", st.Targets, name, st.Waiting,
				st.Doubtful)
		}
	}
	return s.backends.discovering()
}

func complete(st *schedule.Status) bool {
	return st.Waiting == 0 && st.Doubtful == 0 && st.Settled == st.Answered
}

// logReadiness logs when the server becomes ready and, if that takes longer than startGrace, the cause,
// which the answer of the probe withholds. A cause that changes is logged again, at most once per startGrace.
func (s *Server) logReadiness(ctx context.Context) error {
	log := klog.FromContext(ctx)
	reason, since := "", s.start
	_ = wait.PollUntilContextCancel(ctx, readyLogPeriod, false, func(context.Context) (done bool, err error) {
		switch err := s.readiness.podsAsked(); {
		case err == nil:
			log.Info("Ready", "endpoints", s.collector.size())
			return true, nil
		case err.Error() != reason && time.Since(since) >= startGrace:
			reason, since = err.Error(), time.Now()
			log.Info("Warning: The server is not ready", "reason", reason)
		}
		return false, nil
	})
	return nil
}
