package customserver

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"k8s.io/klog/v2"

	"metrics-server/pkg/schedule"
)

// scrapes counts and logs the scrapes of pods.
type scrapes struct {
	succeeded, failed prometheus.Counter
	failures          *prometheus.CounterVec
	duration          prometheus.Histogram
}

func newScrapes(r prometheus.Registerer) *scrapes {
	auto := promauto.With(r)
	requests := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "metrics_server_pod_scrapes_total",
		Help: "Number of scrapes of pods, by whether they succeeded.",
	}, []string{"success"})
	return &scrapes{
		succeeded: requests.WithLabelValues("true"),
		failed:    requests.WithLabelValues("false"),
		failures: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "metrics_server_pod_scrape_failures_total",
			Help: "Number of failed scrapes of pods, by cause.",
		}, []string{"cause"}),
		duration: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "metrics_server_pod_scrape_duration_seconds",
			Help:    "Time from the moment a scrape of a pod is due until its series are stored.",
			Buckets: prometheus.DefBuckets,
		}),
	}
}

// report counts a scrape, lets its page know how it ended, and logs when a pod begins to fail and when it recovers. The
// causes of all failures are in the answers to autoscalers; the log of a cluster in which many pods restart must not be
// flooded with them.
func (s *scrapes) report(ctx context.Context, r schedule.Report) {
	p := r.Target.(*page)
	p.note(r.After.Err)
	if r.After.Failing() {
		s.failed.Inc()
		s.failures.WithLabelValues(r.After.Cause).Inc()
	} else {
		s.succeeded.Inc()
		s.duration.Observe(r.Ended.Sub(r.Due).Seconds())
	}
	log := klog.FromContext(ctx)
	pod := klog.KRef(p.namespace, p.name)
	switch {
	case isOverShare(r.After.Err): // limits.refuse logs it once for the whole namespace
	case r.After.Failures == 2: // a single failure may be a pod that starts
		log.Info("Warning: Scrapes of a pod fail", "pod", pod, "cause", r.After.Cause, "err", r.After.Err)
	case r.After.Failures > 2 && r.NewCause:
		log.Info("Warning: Scrapes of a pod fail for a new reason", "pod", pod, "cause", r.After.Cause, "err", r.After.Err)
	case r.Before.Failures >= 2 && !r.After.Failing():
		log.Info("A pod is scraped again", "pod", pod, "after", r.Ended.Sub(r.Before.FailingSince))
	}
	if r.Stack != nil {
		log.Error(r.After.Err, "A scrape panicked", "pod", pod, "stack", string(r.Stack))
	}
}

// queries counts and logs the queries of backends.
type queries struct {
	total, failures *prometheus.CounterVec
	duration        *prometheus.HistogramVec

	mu     sync.Mutex // guards the field that follows
	logged map[failure]time.Time
}

// failure is why queries of a backend fail.
type failure struct{ backend, cause string }

func newQueries(r prometheus.Registerer) *queries {
	auto := promauto.With(r)
	return &queries{
		total: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "metrics_server_backend_queries_total",
			Help: "Number of queries of backends, by backend and by whether they succeeded.",
		}, []string{"backend", "success"}),
		failures: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "metrics_server_backend_query_failures_total",
			Help: "Number of failed queries of backends, by backend and cause.",
		}, []string{"backend", "cause"}),
		duration: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "metrics_server_backend_query_duration_seconds",
			Help:    "Time from the moment a query of a backend is due until its answer is stored, by backend.",
			Buckets: prometheus.DefBuckets,
		}, []string{"backend"}),
		logged: map[failure]time.Time{},
	}
}

// reporter returns what counts and logs the queries of a backend.
func (q *queries) reporter(name string) func(context.Context, schedule.Report) {
	return func(ctx context.Context, r schedule.Report) { q.report(ctx, name, r) }
}

// report counts a query, and logs why queries of a backend fail: each cause once in quietAfter, with details that
// autoscalers do not get, such as addresses.
func (q *queries) report(ctx context.Context, name string, r schedule.Report) {
	if !r.After.Failing() {
		q.total.WithLabelValues(name, "true").Inc()
		q.duration.WithLabelValues(name).Observe(r.Ended.Sub(r.Due).Seconds())
		return
	}
	q.total.WithLabelValues(name, "false").Inc()
	q.failures.WithLabelValues(name, r.After.Cause).Inc()
	log := klog.FromContext(ctx)
	if r.Stack != nil {
		log.Error(r.After.Err, "A query of a backend panicked", "backend", name, "stack", string(r.Stack))
	}
	f := failure{name, r.After.Cause}
	q.mu.Lock()
	defer q.mu.Unlock()
	if last, known := q.logged[f]; known && r.Ended.Sub(last) < quietAfter {
		return
	}
	q.logged[f] = r.Ended
	log.Info("Warning: Queries of a backend fail", "backend", name, "cause", r.After.Cause, "err", r.After.Err,
		"detail", errors.Unwrap(r.After.Err))
}

// forget forgets a backend that is no longer configured.
func (q *queries) forget(name string) {
	of := prometheus.Labels{"backend": name}
	q.total.DeletePartialMatch(of)
	q.failures.DeletePartialMatch(of)
	q.duration.DeletePartialMatch(of)
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.DeleteFunc(q.logged, func(f failure, _ time.Time) bool { return f.backend == name })
}

// stateCollector reports what is wanted, asked and stored.
type stateCollector struct {
	collector *collector
	backends  *backends
	settings  *settings // nil without a file
}

var (
	wantsDesc = prometheus.NewDesc("metrics_server_autoscaler_metrics",
		"Number of metrics that autoscalers refer to, by state: ok, or error if they cannot be collected as they are "+
			"declared. External metrics are not counted if the autoscaler does not say where they come from, because "+
			"another program may serve them.", []string{"state"}, nil)
	podsDesc = prometheus.NewDesc("metrics_server_scraped_pods",
		"Number of scraped endpoints, each a pod at a URL, by how the last scrape went: waiting for the first one, "+
			"answered or failing.", []string{"state"}, nil)
	queriesDesc = prometheus.NewDesc("metrics_server_backend_queries",
		"Number of different queries that are sent to a backend again and again, by backend and by result of the last "+
			"attempt: waiting for the first one, answered or failing.", []string{"backend", "state"}, nil)
	reloadDesc = prometheus.NewDesc("metrics_server_config_last_reload_successful",
		"Whether the present version of the administrator's file (--config) is in effect: 1, or 0 if it cannot be used, so "+
			"that the previous version stays in effect. Absent without --config.", nil, nil)
	reloadedDesc = prometheus.NewDesc("metrics_server_config_last_reload_success_timestamp_seconds",
		"Time at which the version of the administrator's file (--config) that is in effect was loaded, in seconds since "+
			"1970. Absent without --config.", nil, nil)
	rulesDesc = prometheus.NewDesc("metrics_server_adapter_rules",
		"Number of rules in the configuration of prometheus-adapter, by state: used, or left_out if a rule cannot be "+
			"used. Absent without --config.", []string{"state"}, nil)
	seriesDesc = prometheus.NewDesc("metrics_server_pod_series", "Number of series of pods that are stored.", nil, nil)
	usedDesc   = prometheus.NewDesc("metrics_server_shared_limit_used_ratio",
		"Used fraction of each limit that all namespaces share: scraped endpoints, or memory for series and "+
			"expressions.", []string{"limit"}, nil)
	limitedDesc = prometheus.NewDesc("metrics_server_limited_namespaces",
		"Number of namespaces that have used up their share of a limit and wanted more in the last 5 minutes, by limit. "+
			"The selectors that autoscalers add to metrics of the administrator's file, and the metrics of that file that "+
			"come from backends, have a share of the memory of their own, and count as a namespace each.",
		[]string{"limit"}, nil)
	pointsDesc = prometheus.NewDesc("metrics_server_storage_points",
		"Number of samples stored, by type of object.", []string{"type"}, nil)
)

// Describe implements prometheus.Collector.
func (*stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		wantsDesc, podsDesc, queriesDesc, reloadDesc, reloadedDesc, rulesDesc, seriesDesc, usedDesc, limitedDesc, pointsDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *stateCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	good, bad := s.collector.counts()
	polled, unpolled := s.backends.counts()
	gauge(wantsDesc, good+polled, "ok")
	gauge(wantsDesc, bad+unpolled, "error")
	for name, st := range s.backends.statuses() {
		gauge(queriesDesc, st.Waiting, name, "waiting")
		gauge(queriesDesc, st.Answered, name, "answered")
		gauge(queriesDesc, st.Failing, name, "failing")
	}
	if s.settings != nil {
		of := s.settings.state()
		valid := 0
		if of.valid {
			valid = 1
		}
		gauge(reloadDesc, valid)
		gauge(reloadedDesc, int(of.since.Unix()))
		gauge(rulesDesc, of.rules, "used")
		gauge(rulesDesc, of.leftOut, "left_out")
	}
	var all schedule.Status
	for _, one := range s.collector.schedulers() {
		st := one.Status()
		all.Waiting += st.Waiting
		all.Answered += st.Answered
		all.Failing += st.Failing
	}
	gauge(podsDesc, all.Waiting, "waiting")
	gauge(podsDesc, all.Answered, "answered")
	gauge(podsDesc, all.Failing, "failing")
	size := s.collector.store.Size()
	gauge(seriesDesc, size.Series)
	gauge(pointsDesc, size.Samples, "pod")
	for _, of := range []limit{endpointLimit, memoryLimit} {
		taken, limit := s.collector.limits.pool(of).Taken()
		ratio := float64(taken) / float64(max(limit, 1))
		out <- prometheus.MustNewConstMetric(usedDesc, prometheus.GaugeValue, ratio, string(of))
		gauge(limitedDesc, s.collector.limits.limited(of), string(of))
	}
}
