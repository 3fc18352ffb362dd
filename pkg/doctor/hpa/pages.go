package hpa

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/doctor"
	"metrics-server/pkg/podtarget"
	"metrics-server/pkg/sample"
)

const (
	maxPages    = 20 // of one metric
	maxParallel = 8
	pageTimeout = 5 * time.Second

	// acceptPage prefers the same formats as the custom metrics server.
	acceptPage = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.8, */*;q=0.1"
)

// fetched is the page of a pod, or why there is none.
type fetched struct {
	*answer
	at    time.Time
	fault *fault
}

// fault is why a pod gives no metrics.
type fault struct {
	text, cause, remedy string
	unknown             bool // it could not be checked
	reach               bool // the API server cannot reach the page; the custom metrics server may be able to
}

func newFault(text, cause, remedy string) *fault {
	return &fault{text: text, cause: cause, remedy: remedy}
}

func unknownFault(text, cause, remedy string) *fault {
	return &fault{text: text, cause: cause, remedy: remedy, unknown: true}
}

func reachFault(text, cause, remedy string) *fault {
	return &fault{text: text, cause: cause, remedy: remedy, reach: true}
}

// confirmed reports whether f seems to affect the custom metrics server, too. It does not if the pod has a value, or if
// answer, the error in place of values, is about something else.
func (f *fault) confirmed(m *Metric, pod string, answer error) bool {
	switch {
	case !f.reach:
		return true
	case len(m.Values) == 0:
		return answer != nil && unreached(answer)
	case m.Type != string(autoscalingv2.PodsMetricSourceType):
		return false
	}
	return !slices.ContainsFunc(m.Values, func(v Value) bool { return v.Of == pod })
}

// explains reports whether answer, the error in place of values, says no more than f.
func (f *fault) explains(answer error) bool {
	return !f.unknown && (!f.reach || strings.Contains(fmt.Sprint(answer), strings.TrimPrefix(f.text, "HTTP ")))
}

// asked is a pod that is scraped for a metric.
type asked struct {
	pod     *sample.Pod
	address podtarget.Address
	key     string
	fault   *fault // why it is not known where to ask
}

// ask reads the pages of pods, at most maxPages, and reports what they are. service is the Service that the metric
// names, if it names one: the port in where is then a target port of it.
func (e *examination) ask(ctx context.Context, pods []*corev1.Pod, where sample.Ask, service string) (
	all []*asked, omitted int,
) {
	for _, p := range pods {
		known := demand.Pod(p)
		if known == nil {
			continue // it is going away
		}
		if len(all) == maxPages {
			omitted++
			continue
		}
		a := &asked{pod: known}
		all = append(all, a)
		address, err := podtarget.Resolve(known, where, service)
		if err != nil {
			a.fault = explainAddress(err)
			continue
		}
		a.address, a.key = address, known.UID+" "+address.URL.String()
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxParallel)
	for _, a := range all {
		if a.fault != nil || e.pages[a.key] != nil {
			continue
		}
		f := &fetched{}
		e.pages[a.key] = f
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			*f = *e.fetch(ctx, a)
		})
	}
	wg.Wait()
	return all, omitted
}

// fetch reads a page through the API server.
func (e *examination) fetch(ctx context.Context, a *asked) *fetched {
	limited, cancel := context.WithTimeout(ctx, e.pageTimeout)
	defer cancel()
	u := a.address.URL
	got, err := e.api.do(limited, proxyPath(a.pod.Namespace, a.pod.Name, &u), u.Query(),
		http.Header{"Accept": {acceptPage}})
	f := &fetched{answer: got, at: e.now}
	switch {
	case err != nil && ctx.Err() != nil:
		f.fault = unknownFault("not scraped", doctor.CauseDeadline, doctor.RemedyDeadline)
	case err != nil:
		f.fault = explainNoAnswer(err, e.pageTimeout)
	default:
		f.fault = explainAnswer(got)
	}
	return f
}

const remedyMesh = "if a service mesh requires mTLS, " + podtarget.RemedyMesh

// explainAddress explains an error of podtarget.Resolve.
func explainAddress(err error) *fault {
	f := newFault(err.Error(), "it is not known where to scrape the pod", podtarget.RemedyPath)
	if known, ok := errors.AsType[*podtarget.Error](err); ok {
		f.text, f.remedy = split(known, "correct the annotation")
	}
	return f
}

// explainNoAnswer explains an error of a request to the API server.
func explainNoAnswer(err error, timeout time.Duration) *fault {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return reachFault(fmt.Sprintf("no answer within %v", timeout), "the pod is slow, or packets to the port are dropped",
			"check the port, and that a NetworkPolicy lets the API server reach it; make the endpoint faster")
	case errors.Is(err, errTooLarge):
		return newFault(err.Error(), "the page is larger than the custom metrics server reads", "expose fewer series")
	}
	return unknownFault("the API server did not answer", err.Error(), "try again; see the API server's log")
}

// unreachable lists why the API server could not reach a pod, by parts of its message. The first entry that matches
// applies.
var unreachable = []struct {
	says  []string
	fault *fault
}{
	{[]string{"connection refused"}, reachFault("connection refused", "nothing listens on the port at the pod's address",
		"check that the container listens on that port, and not only on localhost")},
	{[]string{"server gave http response to https client"}, newFault("the scheme is https, and the port speaks plain HTTP",
		"the scheme is wrong", podtarget.RemedyScheme+": use http")},
	{[]string{`malformed http response "\x15`}, speaksTLS},
	{[]string{"malformed http"}, newFault("the port does not speak HTTP/1.1", "it is the port of something else",
		podtarget.RemedyPath)},
	{[]string{"timeout", "deadline exceeded"}, reachFault("the connection is not accepted in time",
		"packets to the port are dropped", "check the port, and that a NetworkPolicy lets the API server reach it")},
	{[]string{"no route to host", "unreachable"}, reachFault("the API server has no route to the pod",
		"the network between them fails", "check the network")},
	{[]string{"certificate"}, reachFault("the TLS handshake fails", "the pod rejected the TLS handshake of the API server",
		remedyMesh)},
	{[]string{"tls:"}, reachFault("the TLS handshake fails", "the TLS settings of the API server and the pod do not fit",
		remedyMesh)},
	{[]string{"reset", "eof"}, reachFault("the connection was closed before the answer was complete",
		"the pod, or a sidecar, closed it", remedyMesh)},
}

var speaksTLS = newFault("the scheme is http, and the port speaks TLS", "the scheme is wrong",
	podtarget.RemedyScheme+": use https")

// explainAnswer returns what is wrong with an answer of the pod or of the API server, nil if it may be a page.
func explainAnswer(got *answer) *fault {
	text := strings.ToLower(string(got.body[:min(len(got.body), 4<<10)]))
	status := got.apiStatus()
	says := fmt.Sprintf("HTTP %d %s", got.status, http.StatusText(got.status))
	switch code := got.status; {
	case status != nil && code == http.StatusForbidden && strings.Contains(text, "pods/proxy"):
		return unknownFault("cannot be scraped through the API server",
			"the right to get pods/proxy is missing", "run doctor with credentials that may get pods/proxy in the namespace")
	case status != nil && code == http.StatusNotFound && strings.Contains(text, "pods \\\""):
		return unknownFault("pod deleted", "the pod was deleted while doctor ran", "run doctor again")
	case code >= 500 && strings.Contains(text, "error trying to reach service"):
		for _, u := range unreachable {
			if slices.ContainsFunc(u.says, func(s string) bool { return strings.Contains(unquoted(text), s) }) {
				return u.fault
			}
		}
		return reachFault("the API server cannot reach the pod",
			doctor.OneLine(got.apiMessage()), "check the port, and the network between the API server and the pod")
	case code == http.StatusBadRequest && strings.Contains(text, "http request"):
		return speaksTLS
	case code == http.StatusUnauthorized:
		return reachFault(says, "the page is protected, and the custom metrics server sends no credentials",
			"serve the metrics without authentication, for example on a port of their own")
	case code == http.StatusForbidden:
		return reachFault(says, "the pod, or its sidecar, denies access to the page",
			"allow requests without credentials there, for example on a port of their own")
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed:
		return newFault(says, "the metrics are on another path, or another port", podtarget.RemedyPath)
	case code >= 300 && code < 400:
		return newFault(says,
			"redirects are not followed", "give the final path and scheme: "+podtarget.RemedyPath+"; "+podtarget.RemedyScheme)
	case code >= 500:
		return newFault(says, "the pod fails", "see the log of the pod")
	case code != http.StatusOK:
		return newFault(says, "this is not the metrics page", podtarget.RemedyPath)
	case strings.HasPrefix(strings.TrimSpace(text), "<"):
		return newFault("the answer is HTML or XML",
			"this is not a metrics format, so it is not the metrics page", podtarget.RemedyPath)
	}
	return nil
}

// unquoted undoes what JSON does to a backslash.
func unquoted(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, `\\`, `\`), `\"`, `"`)
}

func (g *answer) apiMessage() string {
	if s := g.apiStatus(); s != nil {
		return s.Message
	}
	return string(g.body[:min(len(g.body), 500)])
}

// lacks has the cause and the remedy for a page that lacks what a query needs.
var lacks = map[appmetrics.Cause][2]string{
	appmetrics.NotExposition: {"this is not the metrics page, or it is broken", podtarget.RemedyPath},
	appmetrics.NoFamily: {
		"the pods do not expose this metric, or only after the first event",
		"correct the name; if the pods have another page, correct its port or path",
	},
	appmetrics.WrongType: {
		"the name or the expression does not fit the type of the metric, or the pods give it different types",
		"use the name that the message suggests, or expose the metric with one type",
	},
	appmetrics.NoBuckets: {"a quantile needs buckets", "ask for the mean, or let the application use a classic histogram"},
	appmetrics.NoMatch: {
		"the label filter and the labels of the pods differ", "correct metric.selector or the expression",
	},
	appmetrics.NotFinite: {"NaN and infinities are refused", "fix the application, or guard the expression against them"},
	appmetrics.NoObservations: {
		"nothing was observed, so there is neither mean nor quantile", "wait for traffic, or add a metric that is never " +
			"empty",
	},
	appmetrics.OverLimit: {
		"the metric exceeds a limit of the custom metrics server", "expose fewer series, or select fewer",
	},
}

func remedyOf(err *appmetrics.Error) (cause, remedy string) {
	if known, ok := lacks[err.Cause]; ok {
		return known[0], known[1]
	}
	return "the name or the expression of the metric does not fit the series of the pods",
		"correct metric.name or the expression"
}

// read evaluates a query over the pages of pods, and completes m with what was found. answer is the error that the
// request for the value gave, nil if there was none.
func (e *examination) read(ctx context.Context, m *Metric, q *appmetrics.Query, all []*asked, answer error) {
	store, kept := appmetrics.New(appmetrics.Config{}), appmetrics.Keep(q)
	var pods []appmetrics.Pod
	faults := map[string]*fault{}
	for _, a := range all {
		page := Page{Pod: a.pod.Name, Why: a.address.Why}
		f := a.fault
		if f == nil {
			page.URL = a.address.URL.String()
			got := e.pages[a.key]
			if f = got.fault; f == nil {
				page.Bytes = len(got.body)
				f = record(store, kept, a, got)
			}
		}
		switch {
		case f == nil:
			pods = append(pods, appmetrics.Pod{UID: a.key, Name: a.pod.Name})
		case !f.confirmed(m, a.pod.Name, answer):
			cause := "only the API server may be unable to reach the page: the custom metrics server reports no such error"
			if m.Type != string(autoscalingv2.PodsMetricSourceType) && len(m.Values) > 0 {
				cause += ", though it may have calculated the value without this pod"
			}
			faults[a.pod.Name] = unknownFault(f.text, cause,
				"nothing, if only the custom metrics server may reach the pods; otherwise, "+f.remedy)
		default:
			faults[a.pod.Name] = f
		}
		m.Pages = append(m.Pages, page)
	}
	got := store.Evaluate(ctx, q, pods, e.now)
	if m.Expression = got.Expression; m.Expression == "" {
		m.Expression = q.Expression()
	}
	for _, f := range got.Families {
		m.Families = append(m.Families, f.Type+" "+f.Name)
	}
	for _, missing := range got.Missing {
		if c := missing.Err.Cause; c == appmetrics.TooFewPoints || c == appmetrics.Canceled {
			continue
		}
		f := &fault{text: missing.Err.Text}
		f.cause, f.remedy = remedyOf(missing.Err)
		faults[missing.Pod] = f
	}
	for i := range m.Pages {
		if f := faults[m.Pages[i].Pod]; f != nil {
			m.Pages[i].Error = f.text
		}
	}
	m.clean = len(all) > 0 && len(faults) == 0 && m.Omitted == 0
	e.add(judgePages(m, all, faults, answer)...)
	e.add(judgeWarnings(m, got)...)
}

// judgeWarnings returns the lines for the warnings of an evaluation. If values were Filled, one of them is about that,
// and the others are about the expression.
func judgeWarnings(m *Metric, got *appmetrics.Answer) (lines []doctor.Line) {
	const pods = "see why these pods have no value"
	cause, remedy := "the metric is served, but probably not as it was meant", "change the expression, or ignore this"
	switch {
	case got.Filled > 0 && len(got.Warnings) == 1:
		cause, remedy = "the value is an estimate", pods
	case got.Filled > 0: // which of them it is, only their texts say
		cause = "the value is an estimate, and probably not as it was meant"
		remedy = "if the message is about pods, " + pods + "; otherwise " + remedy
	}
	for _, w := range got.Warnings {
		lines = append(lines, doctor.NewLine(checkMetric, doctor.Warning, m.title()+": "+w, cause, remedy))
	}
	return lines
}

func record(store *appmetrics.Store, kept *appmetrics.Kept, a *asked, got *fetched) *fault {
	err := store.Record(a.key, kept, appmetrics.Page{
		Namespace: a.pod.Namespace, Pod: a.pod.Name, At: got.at, Started: a.address.Started(a.pod),
		ContentType: got.contentType, Body: got.body,
	})
	known, ok := errors.AsType[*appmetrics.Error](err)
	if !ok {
		return nil // there is none
	}
	f := &fault{text: known.Text}
	f.cause, f.remedy = remedyOf(known)
	return f
}

// judgePages makes one line of all pods with the same fault. answer is that of read.
func judgePages(m *Metric, all []*asked, faults map[string]*fault, answer error) []doctor.Line {
	names := map[fault][]string{}
	var order []fault
	for _, a := range all {
		f := faults[a.pod.Name]
		if f == nil {
			continue
		}
		key := *f
		key.text = strings.ReplaceAll(key.text, "pod "+a.pod.Name+" ", "the pod ")
		if names[key] == nil {
			order = append(order, key)
		}
		names[key] = append(names[key], a.pod.Name)
	}
	var lines []doctor.Line
	for _, f := range order {
		l := doctor.NewLine(checkPages, doctor.Warning, fmt.Sprintf("%s: %d of %s (%s): %s", m.title(), len(names[f]),
			doctor.Plural(len(all), "pod"), doctor.Some(names[f]), f.text), f.cause, f.remedy)
		if len(names[f]) == len(all) && (!f.reach || len(m.Values) == 0) {
			l.Status = doctor.Problem
			m.explained = m.explained || f.explains(answer)
		}
		if f.unknown {
			l.Status = doctor.Unknown
		}
		lines = append(lines, l)
	}
	slices.SortStableFunc(lines, func(a, b doctor.Line) int { return strings.Compare(string(a.Status), string(b.Status)) })
	return lines
}

// queryOf returns the query string of a request to a metrics API.
func queryOf(labelSelector, metricSelector string) url.Values {
	q := url.Values{}
	if labelSelector != "" {
		q.Set("labelSelector", labelSelector)
	}
	if metricSelector != "" {
		q.Set("metricLabelSelector", metricSelector)
	}
	return q
}
