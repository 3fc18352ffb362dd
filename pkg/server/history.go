package server

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/klog/v2"

	"metrics-server/pkg/api/resource"
	"metrics-server/pkg/history"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/store"
)

// MaxHistory is the longest history that a server keeps.
const MaxHistory = history.MaxRetention

// recorder fills a history once a minute with what lists would serve.
type recorder struct {
	history *history.History
	store   *store.Store
	nodes   iter.Seq[sample.Object]                     // all that exist
	pods    iter.Seq2[sample.Object, sample.Controller] // all that are running
	synced  func() error                                // nil once all nodes and pods are known
	metrics *historyMetrics

	leavesOut bool // the last minute had series that are not kept
}

type historyMetrics struct {
	kept, leftOut prometheus.Gauge
	duration      prometheus.Gauge
}

// newRecorder returns a recorder of a server that keeps a history, nil for others.
func newRecorder(c Config, s *Server) *recorder {
	if c.History == 0 {
		return nil
	}
	instance, _ := os.Hostname() // the name of the pod; without one, clients cannot tell replicas
	m := &historyMetrics{
		kept: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "metrics_server_history_series",
			Help: "With --history: number of nodes, namespaces and workloads whose past usage is kept.",
		}),
		leftOut: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "metrics_server_history_left_out_series",
			Help: "With --history: number of nodes, namespaces and workloads whose usage is not kept, because there are " +
				"too many.",
		}),
		duration: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "metrics_server_history_record_duration_seconds",
			Help: "With --history: how long it took to record the last minute.",
		}),
	}
	s.metrics.MustRegister(m.kept, m.leftOut, m.duration)
	return &recorder{
		history: history.New(history.Config{Retention: c.History, Instance: instance}, time.Now()),
		store:   s.store,
		nodes:   s.inventory.Nodes().All("", nil),
		pods:    s.inventory.Pods().Managed(),
		synced:  s.synced,
		metrics: m,
	}
}

// run records at each full minute until ctx ends.
func (r *recorder) run(ctx context.Context) error {
	for {
		now := time.Now()
		timer := time.NewTimer(now.Truncate(time.Minute).Add(time.Minute).Sub(now))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case now = <-timer.C:
			r.record(ctx, now)
		}
	}
}

// record records the present minute, unless not all nodes and pods are known: the sums would be too
// low without saying so.
func (r *recorder) record(ctx context.Context, now time.Time) {
	if r.synced() != nil {
		return
	}
	began := time.Now()
	report := r.history.Record(now, r.minute(now))
	r.metrics.duration.Set(time.Since(began).Seconds())
	r.report(ctx, report)
}

// report publishes how many series there are, and logs when some begin to be left out and when none
// is any more.
func (r *recorder) report(ctx context.Context, report history.Report) {
	r.metrics.kept.Set(float64(report.Kept))
	r.metrics.leftOut.Set(float64(report.LeftOut))
	switch logger := klog.FromContext(ctx); {
	case report.LeftOut > 0 && !r.leavesOut:
		logger.Info("Warning: There are too many workloads for the history, so some have none; those that have one keep it",
			"kept", report.Kept, "leftOut", report.LeftOut, "example", report.Example,
			"remedy", "look for pods that nothing manages, each of which is a workload of its own")
	case report.LeftOut == 0 && r.leavesOut:
		logger.Info("All workloads have a history again", "kept", report.Kept)
	}
	r.leavesOut = report.LeftOut > 0
}

// minute returns the usage of everything at now.
func (r *recorder) minute(now time.Time) *history.Minute {
	m := &history.Minute{}
	for n := range r.nodes {
		if u, ok := r.store.Node(n.Name, now); ok {
			m.Node(n.Name, u.Usage)
		}
	}
	// Usages are looked up in batches because the cache misses of a batch overlap.
	var (
		pods        [32]sample.Object
		controllers [32]sample.Controller
		usages      [32]sample.PodUsage
		n           int
	)
	flush := func() {
		r.store.Pods(pods[:n], now, usages[:n])
		for i := range n {
			p := &pods[i]
			m.Pod(history.WorkloadOf(p.Namespace, p.Name, p.Labels, controllers[i]), usages[i].Containers)
		}
		n = 0
	}
	for pods[n], controllers[n] = range r.pods {
		if n++; n == len(pods) {
			flush()
		}
	}
	flush()
	return m
}

// serveHistory makes c answer lists with the parameter of a history, behind all filters: who may
// list may read the history of the same objects. Without a recorder, such a request is an error.
func (r *recorder) serveHistory(c *genericapiserver.Config) {
	build := c.BuildHandlerChainFunc
	c.BuildHandlerChainFunc = func(next http.Handler, c *genericapiserver.Config) http.Handler {
		return build(r.handler(next), c)
	}
}

func (r *recorder) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		info, ok := request.RequestInfoFrom(req.Context())
		if !ok || req.Method != http.MethodGet || !strings.Contains(req.URL.RawQuery, history.ParameterHistory) ||
			!resource.Group.Has(info) || !req.URL.Query().Has(history.ParameterHistory) {
			next.ServeHTTP(w, req)
			return
		}
		serve := func(w http.ResponseWriter, req *http.Request) { r.serve(w, req, info) }
		metrics.InstrumentHandlerFunc(strings.ToUpper(info.Verb), info.APIGroup, info.APIVersion, info.Resource,
			info.Subresource, scopeOf(info), metrics.APIServerComponent, false, "", serve)(w, req)
	})
}

func scopeOf(info *request.RequestInfo) string {
	switch {
	case info.Name != "":
		return "resource"
	case info.Namespace != "":
		return "namespace"
	}
	return "cluster"
}

func (r *recorder) serve(w http.ResponseWriter, req *http.Request, info *request.RequestInfo) {
	fail := func(err error) {
		version := schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
		responsewriters.ErrorNegotiated(err, resource.Group.Codecs, version, w, req)
	}
	if r == nil {
		err := apierrors.NewNotFound(schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}, "")
		err.ErrStatus.Message = "no history is kept: start metrics-server with --history=DURATION, such as --history=2h"
		fail(err)
		return
	}
	q, err := queryOf(info, req.URL.Query())
	if err != nil {
		fail(apierrors.NewBadRequest(err.Error()))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Add("Vary", "Accept-Encoding")
	// An error means that the client has gone. What it has is not complete JSON.
	if !acceptsGzip(req) {
		_ = r.history.Write(whileActive{req.Context(), w}, q, time.Now())
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is valid
	_ = r.history.Write(whileActive{req.Context(), z}, q, time.Now())
	_ = z.Close()
}

// queryOf returns the query of a request that is authorized for a list. Selectors are errors, not
// ignored: they may be all that the client is authorized for.
func queryOf(info *request.RequestInfo, parameters url.Values) (history.Query, error) {
	q := history.Query{Nodes: info.Resource == "nodes", Namespace: info.Namespace}
	switch {
	case info.Verb != "list" || info.Name != "" || q.Nodes && q.Namespace != "":
		return q, fmt.Errorf("%s= is for lists of all nodes, or of the pods of one or all namespaces",
			history.ParameterHistory)
	default:
		for _, other := range []string{"labelSelector", "fieldSelector", "continue"} {
			if parameters.Get(other) != "" {
				return q, fmt.Errorf("%s= and %s= cannot be combined: leave one out", history.ParameterHistory, other)
			}
		}
	}
	return q, q.ParseDurations(parameters)
}

// acceptsGzip reports whether the client accepts gzip. pkg/api has removed the header if too many
// answers are being compressed.
func acceptsGzip(r *http.Request) bool {
	for one := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(one, ";")
		if strings.TrimSpace(name) == "gzip" && strings.TrimSpace(q) != "q=0" {
			return true
		}
	}
	return false
}

// whileActive writes to w until the request of ctx ends.
type whileActive struct {
	ctx context.Context
	w   io.Writer
}

func (w whileActive) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(b)
}
