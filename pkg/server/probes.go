package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/klog/v2"

	"metrics-server/pkg/scrape"
)

const (
	// startGrace is how long readiness waits for the slowest node and pod before it is content
	// with whatever can be served.
	startGrace = 30 * time.Second
	// lateLimit is how late the scheduler may be before the process is taken for stuck. It says
	// nothing of kubelets: their scrapes run beside it.
	lateLimit = time.Minute
	// readyLogPeriod is how often the cause of not being ready is looked at for the log.
	readyLogPeriod = time.Second
)

// addChecks adds the probes' checks, under the names that administrators know.
func (s *Server) addChecks() error {
	check := func(name string, f func() error) healthz.HealthChecker {
		return healthz.NamedCheck(name, func(*http.Request) error { return f() })
	}
	return errors.Join(
		s.generic.AddLivezChecks(0, check("metric-collection-timely", s.timely)),
		s.generic.AddReadyzChecks(
			check("metric-storage-ready", s.readiness.check),
			check("metric-informer-sync", s.inventory.NodesSynced),
			check("metadata-informer-sync", s.inventory.PodsSynced),
		),
	)
}

// serves reports whether the usage of any node can be served now.
func (s *Server) serves() bool {
	now := time.Now()
	for n := range s.inventory.Nodes().All("") {
		if _, ok := s.store.Node(n.Name, now); ok {
			return true
		}
	}
	return false
}

// timely fails when the scheduler of scrapes is stuck.
func (s *Server) timely() error {
	if late := s.scraper.Status().Late; late > lateLimit {
		return fmt.Errorf("the scheduler of scrapes is %v late: the process is stuck", late.Round(time.Second))
	}
	return nil
}

// readiness tells whether what can be served is complete enough for traffic.
type readiness struct {
	synced func() error         // nil once it is known which nodes there are
	status func() scrape.Status // of scraping
	serves func() bool          // whether the usage of any node can be served now
	start  time.Time

	reached atomic.Bool // was ready once
}

// check returns nil when ready, and else why not. The first time takes a usage of every node that
// answers and of every pod that has run for a minute there, so that a roll-out leaves no gap, or
// startGrace; from then on, anything fresh will do.
func (r *readiness) check() error {
	if err := r.synced(); err != nil {
		return err
	}
	st := r.status()
	if st.Nodes == 0 {
		r.reached.Store(true)
		return nil
	}
	complete := st.Waiting == 0 && st.Settled == st.Answered && st.Answered > 0
	enough := r.reached.Load() || time.Since(r.start) >= startGrace
	if complete || enough && r.serves() {
		r.reached.Store(true)
		return nil
	}
	return errors.New(describe(st))
}

// describe says how far st is, and the commonest causes of failure.
func describe(st scrape.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d nodes answered, %d of them with every usage", st.Answered, st.Nodes, st.Settled)
	if st.Waiting > 0 {
		fmt.Fprintf(&b, ", %d not asked yet", st.Waiting)
	}
	for i, c := range st.Causes {
		sep := "; "
		if i == 0 {
			sep = "; failing: "
		}
		fmt.Fprintf(&b, "%s%s on %d (%s)", sep, c.Cause, c.Nodes, c.Message)
	}
	return b.String()
}

// run logs when readiness comes and goes, and why, as the probe's answer withholds it.
func (r *readiness) run(ctx context.Context) error {
	log := klog.FromContext(ctx)
	ticker := time.NewTicker(readyLogPeriod)
	defer ticker.Stop()
	was := false
	reported := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := r.check()
		switch {
		case err == nil && !was:
			st := r.status()
			log.Info("ready", "nodes", st.Nodes, "answered", st.Answered, "failing", st.Failing)
			was, reported = true, false
		case err != nil && (was || !reported && time.Since(r.start) >= startGrace):
			log.Info("not ready", "reason", err.Error())
			was, reported = false, true
		}
	}
}
