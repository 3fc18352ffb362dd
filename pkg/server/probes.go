package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/klog/v2"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/schedule"
)

const (
	// startGrace is how long readiness, once it knows the nodes, waits for the slowest node and pod
	// before it accepts any usage that can be served. A usage takes two samples, and cAdvisor samples
	// an idle container every 15 s plus up to as much jitter (housekeeping in its manager/container.go),
	// so the second one may come more than 30 s after the first scrape.
	startGrace = 40 * time.Second
	// causePeriod is how long after the start a cause is first logged, and then until another one is.
	causePeriod = 30 * time.Second
	// lateLimit is the delay of the scheduler above which the process is considered stuck. It does
	// not depend on kubelets, which are scraped in other goroutines.
	lateLimit = time.Minute
	// readyLogPeriod is how often readiness is checked for the log, and the shortest interval
	// between searches for a usage that can be served.
	readyLogPeriod = time.Second
)

// addChecks adds the checks of the probes, under the names of kubernetes-sigs/metrics-server.
func (s *Server) addChecks() error {
	check := func(name string, f func() error) healthz.HealthChecker {
		return healthz.NamedCheck(name, func(*http.Request) error { return f() })
	}
	return errors.Join(
		s.serving.AddLivezChecks(0, check("metric-collection-timely", s.timely)),
		s.serving.AddReadyzChecks(
			check("metric-storage-ready", s.readiness.check),
			check("metric-informer-sync", s.inventory.NodesSynced),
			check("metadata-informer-sync", s.inventory.PodsSynced),
		),
	)
}

// synced returns nil once the nodes and pods have been listed.
func (s *Server) synced() error {
	return errors.Join(s.inventory.NodesSynced(), s.inventory.PodsSynced())
}

// serves reports whether the usage of any node or pod can be served now.
func (s *Server) serves() bool {
	now := time.Now()
	for n := range s.inventory.Nodes().All("", nil) {
		if _, ok := s.store.Node(n.Name, now); ok {
			return true
		}
	}
	var u sample.PodUsage
	for p := range s.inventory.Pods().All("", nil) {
		if s.store.Pod(p.Namespace, p.Name, now, &u) {
			return true
		}
	}
	return false
}

// timely fails when the scrape scheduler is stuck.
func (s *Server) timely() error {
	if late := s.scraper.Status().Late; late > lateLimit {
		return fmt.Errorf("the scheduler of scrapes is %v late: the process is stuck", late.Round(time.Second))
	}
	return nil
}

// readiness decides whether the usage that can be served is complete enough for traffic.
type readiness struct {
	synced func() error           // nil once nodes and pods have been listed
	status func() schedule.Status // of scraping
	serves func() bool            // whether any usage can be served now
	start  time.Time
	// selector selects the nodes; "": all.
	selector string

	reached atomic.Bool // has been ready before
	known   sync.Once   // sets since
	since   time.Time   // when check first found that nodes and pods had been listed and that there was a node

	mu sync.Mutex // guards the fields that follow
	// served is the result of serves at the time looked. While nothing can be served, serves reads
	// every pod, which takes 0.1 s for 150,000, and anybody may request /readyz. So it is called at
	// most once per readyLogPeriod, and never concurrently.
	served bool
	looked time.Time
}

// servesNow returns the result of serves, at most readyLogPeriod old.
func (r *readiness) servesNow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.looked.IsZero() || time.Since(r.looked) >= readyLogPeriod {
		r.served = r.serves()
		r.looked = time.Now()
	}
	return r.served
}

// check returns nil when ready, otherwise the cause. To become ready for the first time takes a
// usage of every node that answers, and of every pod that has run there for a minute, so that a
// roll-out leaves no gap; a node that has failed only once is given a second scrape. When the nodes
// have been known for startGrace, or once ready, any fresh usage is enough.
//
// Without a selector, a server is ready if the cluster has no nodes. A selector that matches no node is
// probably wrong, so a server that starts is not ready. One that is already ready stays ready, because
// the nodes may have been scaled to zero.
func (r *readiness) check() error {
	if err := r.synced(); err != nil {
		return err
	}
	st := r.status()
	if st.Targets == 0 {
		if r.selector != "" && !r.reached.Load() {
			return fmt.Errorf("no node matches --node-selector=%s: compare it with the nodes' labels "+
				"(kubectl get nodes --show-labels)", r.selector)
		}
		r.reached.Store(true)
		return nil
	}
	r.known.Do(func() { r.since = time.Now() })
	complete := st.Waiting == 0 && st.Doubtful == 0 && st.Settled == st.Answered && st.Answered > 0
	enough := r.reached.Load() || time.Since(r.since) >= startGrace
	if complete || enough && r.servesNow() {
		r.reached.Store(true)
		return nil
	}
	return errors.New(describe(st))
}

// describe summarizes the progress of scraping in st and the most common causes of failure.
func describe(st schedule.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d nodes answered, %d complete", st.Answered, st.Targets, st.Settled)
	if st.Waiting > 0 {
		fmt.Fprintf(&b, ", %d not asked yet", st.Waiting)
	}
	if st.Doubtful > 0 {
		fmt.Fprintf(&b, ", %d to be asked again", st.Doubtful)
	}
	for i, c := range st.Causes {
		sep := "; "
		if i == 0 {
			sep = "; failing: "
		}
		fmt.Fprintf(&b, "%s%s on %d (%s)", sep, c.Cause, c.Targets, c.Message)
	}
	return b.String()
}

// run logs when readiness changes, and the cause, which the response of the probe withholds. A
// cause is first logged causePeriod after the start; one that changes is logged again, at most once
// per causePeriod.
func (r *readiness) run(ctx context.Context) error {
	log := klog.FromContext(ctx)
	ticker := time.NewTicker(readyLogPeriod)
	defer ticker.Stop()
	ready, reason, since := false, "", r.start
	var freeOnce sync.Once
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		switch err := r.check(); {
		case err == nil && !ready:
			st := r.status()
			log.Info("Ready", "nodes", st.Targets, "answered", st.Answered, "failing", st.Failing)
			ready, reason = true, ""
			freeOnce.Do(debug.FreeOSMemory) // the first lists leave more garbage than any later work
		case err != nil && (ready || err.Error() != reason && time.Since(since) >= causePeriod):
			log.Info("Warning: The server is not ready", "reason", err.Error())
			ready, reason, since = false, err.Error(), time.Now()
		}
	}
}
