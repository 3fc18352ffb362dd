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

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/klog/v2"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/scrape"
)

const (
	// startGrace is how long readiness waits for the slowest node and pod before it is content
	// with whatever can be served.
	startGrace = 30 * time.Second
	// lateLimit is how late the scheduler may be before the process is taken for stuck. It says
	// nothing of kubelets: their scrapes run beside it.
	lateLimit = time.Minute
	// podsPatience is how long the first list of pods waits for the first scrapes.
	podsPatience = 5 * time.Second
	// podsPoll is how often it looks whether they are done.
	podsPoll = 50 * time.Millisecond
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

// isProbe reports whether a request is for a health path.
func isProbe(info *request.RequestInfo) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(info.Path, "/"), "/")
	return !info.IsResourceRequest && (first == "livez" || first == "readyz" || first == "healthz")
}

// synced returns nil once it is known which nodes and pods there are.
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

// firstScrapes returns when every node was asked once, after podsPatience at the latest. The pods of a large cluster are hundreds of
// megabytes, and to receive them meanwhile would delay the first scrapes. Little is lost by it: all but young containers need two samples,
// 5 s apart at least, before there is a usage to serve.
func firstScrapes(ctx context.Context, nodesSynced func() error, status func() scrape.Status) {
	_ = wait.PollUntilContextTimeout(ctx, podsPoll, podsPatience, true, func(context.Context) (bool, error) {
		return nodesSynced() == nil && status().Waiting == 0, nil
	})
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
	synced func() error         // nil once it is known which nodes and pods there are
	status func() scrape.Status // of scraping
	serves func() bool          // whether the usage of any node or pod can be served now
	start  time.Time

	reached atomic.Bool // was ready once
}

// check returns nil when ready, and else why not. The first time takes a usage of every node that
// answers, or fails but once, and of every pod that has run for a minute there, so that a roll-out leaves no gap, or
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
	complete := st.Waiting == 0 && st.Doubtful == 0 && st.Settled == st.Answered && st.Answered > 0
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
	if st.Doubtful > 0 {
		fmt.Fprintf(&b, ", %d to be asked again", st.Doubtful)
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

// run logs when readiness comes and goes, and why, as the probe's answer withholds it. The first
// time it has until startGrace; a reason that changes is logged again, but not more often than that.
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
			log.Info("ready", "nodes", st.Nodes, "answered", st.Answered, "failing", st.Failing)
			ready, reason = true, ""
			freeOnce.Do(debug.FreeOSMemory) // the garbage of the first lists, more than there will be again
		case err != nil && (ready || err.Error() != reason && time.Since(since) >= startGrace):
			log.Info("not ready", "reason", err.Error())
			ready, reason, since = false, err.Error(), time.Now()
		}
	}
}
