package appmetrics

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// at returns a moment of a test, in seconds after its start.
func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// world is a store with pods "a", "b" and so on, for tests.
type world struct {
	t     *testing.T
	store *Store
	query *Query
	kept  *Kept
}

func newWorld(t *testing.T, d Definition) *world {
	t.Helper()
	q, err := Compile(d)
	if err != nil {
		t.Fatal(err)
	}
	// No machine is so busy that it reaches the timeout.
	return &world{t: t, store: New(Config{Timeout: time.Minute}), query: q, kept: Keep(q)}
}

// page records a page of a pod.
func (w *world) page(pod string, seconds float64, lines ...string) {
	w.t.Helper()
	if err := w.try(pod, seconds, lines...); err != nil {
		w.t.Fatalf("page of pod %s at %v s: %v", pod, seconds, err)
	}
}

func (w *world) try(pod string, seconds float64, lines ...string) error {
	body := strings.Join(lines, "\n") + "\n"
	return w.store.Record("uid-"+pod, w.kept, Page{Namespace: "shop", Pod: pod, At: at(seconds), Body: []byte(body)})
}

// answer evaluates the query over pods.
func (w *world) answer(seconds float64, pods ...string) *Answer {
	all := make([]Pod, 0, len(pods))
	for _, p := range pods {
		all = append(all, Pod{UID: "uid-" + p, Name: p})
	}
	return w.store.Evaluate(w.t.Context(), w.query, all, at(seconds))
}

// want checks an answer: its values and the causes of pods without one, as in "a=1.5 b:no answer", or
// cause and text of the error.
func (w *world) want(a *Answer, want string) {
	w.t.Helper()
	var got []string
	for _, v := range a.Values {
		got = append(got, fmt.Sprintf("%s=%g", v.Pod, math.Round(v.Value*1e6)/1e6))
	}
	for _, m := range a.Missing {
		if len(a.Values) > 0 {
			got = append(got, fmt.Sprintf("%s:%s", m.Pod, m.Err.Cause))
		}
	}
	if err := a.Err(); err != nil {
		got = append(got, causeOf(err).String()+": "+err.Error())
	}
	if text := strings.Join(got, " "); text != want {
		w.t.Errorf("\ngot  %s\nwant %s", text, want)
	}
}

func causeOf(err error) Cause {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own.Cause
	}
	return 0
}

const counterType = "# TYPE http_requests_total counter\n"

func TestDefaultExpressions(t *testing.T) {
	type page struct {
		at    float64
		lines string
	}
	histogram := func(a, b, sum int) string {
		return fmt.Sprintf("# TYPE latency histogram\nlatency_bucket{le=\"0.1\"} %d\nlatency_bucket{le=\"1\"} %d\n"+
			"latency_bucket{le=\"+Inf\"} %d\nlatency_sum %d\nlatency_count %d", a, b, b, sum, b)
	}
	quantile := func(q string) []Requirement {
		return []Requirement{{Label: "quantile", Operator: In, Values: []string{q}}}
	}
	requests := []page{
		{0, counterType + "http_requests_total{code=\"200\"} 1000\nhttp_requests_total{code=\"500\"} 100"},
		{15, counterType + "http_requests_total{code=\"200\"} 1150\nhttp_requests_total{code=\"500\"} 115"},
	}
	for _, tt := range []struct {
		name       string
		definition Definition
		pages      []page
		want       string
		expression string
	}{
		{
			"rate of a counter, summed over series",
			Definition{Name: "http_requests_total"},
			requests,
			"a=11", "sum by (pod) (rate(http_requests_total[30s]))",
		},
		{
			"selector",
			Definition{Name: "http_requests_total", Selector: []Requirement{{"code", In, []string{
				"500",
				"503",
			}}}},
			requests,
			"a=1", `sum by (pod) (rate(http_requests_total{code=~"500|503"}[30s]))`,
		},
		{
			"dashes and per second",
			Definition{Name: "packets-per-second"},
			[]page{{0, "packets_total 20000"}, {15, "packets_total 35000"}},
			"a=1000", "sum by (pod) (rate(packets_total[30s]))",
		},
		{
			"per second of an untyped family without _total",
			Definition{Name: "packets_per_second"},
			[]page{{0, "packets 20000"}, {15, "packets 35000"}},
			"a=1000", "sum by (pod) (rate(packets[30s]))",
		},
		{
			"a family that is called per second",
			Definition{Name: "packets_per_second"},
			[]page{{0, "packets_per_second 7\npackets_total 15000"}},
			"a=7", "sum by (pod) (packets_per_second)",
		},
		{
			"gauge",
			Definition{Name: "queue_depth"},
			[]page{{0, "# TYPE queue_depth gauge\nqueue_depth{queue=\"x\"} 3\nqueue_depth{queue=\"y\"} 4"}},
			"a=7", "sum by (pod) (queue_depth)",
		},
		{
			"untyped with a name in _total",
			Definition{Name: "jobs_total"},
			[]page{{0, "jobs_total 50"}, {15, "jobs_total 80"}},
			"a=2", "sum by (pod) (rate(jobs_total[30s]))",
		},
		{
			"a gauge with a name in _total is a gauge",
			Definition{Name: "jobs_total"},
			[]page{{0, "# TYPE jobs_total gauge\njobs_total 10"}},
			"a=10", "sum by (pod) (jobs_total)",
		},
		{
			"rate of a counter with the name of a part",
			Definition{Name: "jobs_count_per_second"},
			[]page{{0, "# TYPE jobs_count counter\njobs_count 50"}, {15, "# TYPE jobs_count counter\njobs_count 80"}},
			"a=2", "sum by (pod) (rate(jobs_count[30s]))",
		},
		{
			"a family with the name of a part of a gauge",
			Definition{Name: "jobs_count"},
			[]page{{0, "# TYPE jobs gauge\njobs 1\njobs_count 5"}},
			"a=5", "sum by (pod) (jobs_count)",
		},
		{
			"mean of a histogram",
			Definition{Name: "latency"},
			[]page{{0, histogram(100, 200, 100)}, {15, histogram(150, 300, 150)}},
			"a=0.5", "sum by (pod) (rate(latency_sum[30s])) / sum by (pod) (rate(latency_count[30s]))",
		},
		{
			"quantile of a histogram",
			Definition{Name: "latency", Selector: quantile("0.5")},
			[]page{{0, histogram(0, 0, 0)}, {15, histogram(50, 100, 50)}},
			"a=0.1", "histogram_quantile(0.5, sum by (pod, le) (rate(latency_bucket[30s])))",
		},
		{
			"quantile of a summary",
			Definition{Name: "latency", Selector: quantile("0.99")},
			[]page{{0, "# TYPE latency summary\nlatency{quantile=\"0.5\"} 0.2\nlatency{quantile=\"0.99\"} " +
				"0.9\nlatency_sum 1\nlatency_count 2"}},
			"a=0.9", `max by (pod) (latency{quantile="0.99"})`,
		},
		{
			"count of a histogram is a counter",
			Definition{Name: "latency_count"},
			[]page{{0, histogram(100, 200, 100)}, {15, histogram(150, 350, 150)}},
			"a=10", "sum by (pod) (rate(latency_count[30s]))",
		},
		{
			"a gauge with a label called quantile",
			Definition{Name: "depth", Selector: quantile("0.5")},
			[]page{{0, "# TYPE depth gauge\ndepth{quantile=\"0.5\"} 4\ndepth{quantile=\"1\"} 8"}},
			"a=4", `sum by (pod) (depth{quantile="0.5"})`,
		},
		{
			"name that PromQL has to quote",
			Definition{Name: "http.requests", Selector: []Requirement{{"app.kubernetes.io/name", DoesNotExist, nil}}},
			[]page{{0, "# TYPE \"http.requests\" gauge\n{\"http.requests\",x=\"1\"} 3"}},
			"a=3", `sum by (pod) ({"app.kubernetes.io/name"="",__name__="http.requests"})`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.definition)
			end := 0.0
			for _, p := range tt.pages {
				w.page("a", p.at, p.lines)
				end = p.at
			}
			a := w.answer(end+1, "a")
			w.want(a, tt.want)
			if a.Expression != tt.expression {
				t.Errorf("the expression is %s, want %s", a.Expression, tt.expression)
			}
			tt.definition.Shape = Single
			single := newWorld(t, tt.definition)
			single.store = w.store
			single.want(single.answer(end+1, "a"), strings.TrimPrefix(tt.want, "a"))
		})
	}
}

func TestOpenMetricsCounter(t *testing.T) {
	for _, name := range []string{
		"http_requests", "http_requests_total", "http_requests_per_second",
		"http-requests-per-second",
	} {
		w := newWorld(t, Definition{Name: name})
		for i, v := range []string{"50", "80"} {
			body := "# TYPE http_requests counter\n# HELP http_requests x\n" +
				"http_requests_total " + v + "\nhttp_requests_created 1\n# EOF\n"
			p := Page{
				Pod: "a", At: at(15 * float64(i)), ContentType: "application/openmetrics-text; version=1.0.0",
				Body: []byte(body),
			}
			if err := w.store.Record("uid-a", w.kept, p); err != nil {
				t.Fatal(err)
			}
		}
		a := w.answer(16, "a")
		w.want(a, "a=2")
		if want := []Family{{"http_requests_total", "counter"}}; !slices.Equal(a.Families, want) {
			t.Errorf("the families are %v, want %v", a.Families, want)
		}
	}
}

// TestRule1 checks that a sample's time is when its page arrived.
func TestRule1(t *testing.T) {
	w := newWorld(t, Definition{Name: "jobs_total"})
	w.page("a", 0, "jobs_total 50 1600000000000")
	w.page("a", 15, "jobs_total 80 1600000000000")
	a := w.answer(16, "a")
	w.want(a, "a=2")
	if got := a.Values[0].Time; !got.Equal(at(15)) {
		t.Errorf("the time is %v, want %v", got, at(15))
	}
	if got := a.Values[0].Window; got != DefaultWindow {
		t.Errorf("the window is %v, want %v", got, DefaultWindow)
	}
	w.page("a", 14, "jobs_total 0") // an answer that was overtaken
	w.want(w.answer(16, "a"), "a=2")
}

func TestRule2(t *testing.T) {
	const process = "process_start_time_seconds %d\n"
	began := start.Unix() - 3600
	const once = "too few points: the pod has been scraped only once for this metric; a rate needs two scrapes: " +
		"retry in a few seconds"
	t.Run("a series that is new counted from zero", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs_total"})
		w.page("a", 0, "jobs_total{x=\"1\"} 10")
		w.page("a", 15, "jobs_total{x=\"1\"} 10")
		w.page("a", 30, "jobs_total{x=\"1\"} 10", "jobs_total{x=\"2\"} 60")
		w.want(w.answer(31, "a"), "a=2") // 60 in a window of 30 s
	})
	t.Run("a family that is new counted from zero", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs_total"})
		w.page("a", 0, "other 1")
		w.page("a", 15, "other 1", "jobs_total 60")
		w.want(w.answer(16, "a"), "a=3.999733") // 60 in 15 s
	})
	t.Run("a gauge that is new did not", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "x", Expression: "sum by (pod) (avg_over_time(x[30s]))"})
		w.page("a", 0, "other 1")
		w.page("a", 15, "# TYPE x gauge", "x 60")
		w.want(w.answer(16, "a"), "a=60")
	})
	t.Run("a series that is asked for only now did not", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs_total"})
		jobs := w.kept
		other, err := Compile(Definition{Name: "other"})
		if err != nil {
			t.Fatal(err)
		}
		w.kept = Keep(other)
		w.page("a", 0, "other 1", "jobs_total 1000000")
		w.kept = jobs
		w.page("a", 15, "other 1", "jobs_total 1000015")
		w.want(w.answer(16, "a"), once)
		w.page("a", 30, "other 1", "jobs_total 1000030")
		w.want(w.answer(31, "a"), "a=1")
		w.kept = Keep(other)
		w.page("a", 45, "other 1", "jobs_total 1000045")
		w.kept = jobs
		w.page("a", 60, "other 1", "jobs_total 1000060")
		w.page("a", 75, "other 1", "jobs_total 1000075")
		w.want(w.answer(76, "a"), "a=1")
	})
	t.Run("a series that vanished is stale at once", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "depth"})
		w.page("a", 0, "depth{x=\"1\"} 10", "depth{x=\"2\"} 5")
		w.page("a", 15, "depth{x=\"1\"} 10")
		w.want(w.answer(16, "a"), "a=10")
		w.page("a", 30, "other 1")
		w.want(w.answer(31, "a"), "no family: the pod exposes no metric depth: check the name")
		w.page("a", 45, "depth{x=\"1\"} 7")
		w.want(w.answer(46, "a"), "a=7")
	})
	t.Run("reset by value", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs_total"})
		w.page("a", 0, "jobs_total 1000")
		w.page("a", 15, "jobs_total 15")
		w.want(w.answer(16, "a"), "a=1")
	})
	t.Run("restart by start time", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs_total"})
		w.page("a", 0, fmt.Sprintf(process, began)+"jobs_total{x=\"1\"} 100\njobs_total{x=\"2\"} 100")
		w.page("a", 15, fmt.Sprintf(process, start.Unix()+5)+"jobs_total{x=\"1\"} 15\njobs_total{x=\"2\"} 130")
		w.want(w.answer(16, "a"), "a=9.666667") // 15 and 130 in 15 s, not 15 and 30
	})
	t.Run("an exporter restarts, but not what it reads", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs_total"})
		w.page("a", 0, fmt.Sprintf(process, began)+"jobs_total 1000000")
		w.page("a", 15, fmt.Sprintf(process, start.Unix()+5)+"jobs_total 1000030")
		w.want(w.answer(16, "a"), "a=2")
		w.page("a", 30, fmt.Sprintf(process, start.Unix()+25)+"up 0") // it cannot read
		w.page("a", 45, fmt.Sprintf(process, start.Unix()+25)+"jobs_total 1000090")
		w.want(w.answer(46, "a"), "a=2")
	})
	t.Run("a start time that is computed may jitter", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs_total"})
		w.page("a", 0, fmt.Sprintf(process, began)+"jobs_total 100")
		w.page("a", 15, fmt.Sprintf(process, began+1)+"jobs_total 130")
		w.want(w.answer(16, "a"), "a=2")
	})
	for name, tc := range map[string]struct {
		started float64 // when the container did, as the API server says from the second page on
		values  []int
		want    string
	}{
		"restart of a container":         {5, []int{100, 90, 130}, "a=4.333333"}, // 130 in 25 s, of a range of 30 s
		"restart of an exporter":         {5, []int{1000, 1030, 1060}, "a=2"},
		"its start is told too late":     {-1, []int{1000, 1030, 1060}, "a=2"}, // the first page was after it
		"its start is not known (yet)":   {-3600, []int{1000, 1030, 1060}, "a=2"},
		"the clock of its node is ahead": {60, []int{10, 40, 70}, "a=2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Definition{Name: "jobs_total"})
			for i, v := range tc.values {
				p := Page{Pod: "a", At: at(15 * float64(i)), Body: fmt.Appendf(nil, "jobs_total %d\n", v)}
				if p.Started = at(-3600); i > 0 {
					p.Started = at(tc.started)
				}
				if err := w.store.Record("uid-a", w.kept, p); err != nil {
					t.Fatal(err)
				}
			}
			w.want(w.answer(31, "a"), tc.want)
		})
	}
	t.Run("the clock of the node is set", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs_total"})
		w.page("a", 0, fmt.Sprintf(process, began)+"jobs_total 100")
		w.page("a", 15, fmt.Sprintf(process, began+30)+"jobs_total 130")
		w.want(w.answer(16, "a"), "a=2")
	})
	t.Run("a counter that is missing on one page", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs_total"})
		w.page("a", 0, "jobs_total 1000000")
		w.page("a", 10, "up 1")
		w.page("a", 20, "jobs_total 1000040")
		w.want(w.answer(21, "a"), "a=2")
		w.page("a", 30, "up 1")
		w.page("a", 40, "jobs_total 10") // another process
		w.want(w.answer(41, "a"), "a=0.5")
	})
}

// TestRule3 checks that a failed scrape hides nothing for four intervals, at least a minute.
func TestRule3(t *testing.T) {
	w := newWorld(t, Definition{Name: "jobs_total"})
	w.page("a", 0, "jobs_total 50")
	w.page("a", 15, "jobs_total 80")
	w.want(w.answer(75, "a"), "a=2")
	if err := w.try("a", 30, "<html>"); err == nil {
		t.Error("HTML was taken for a page")
	}
	w.want(w.answer(75, "a"), "a=2")
	w.want(w.answer(75.1, "a"), "expired: the pod has not answered a scrape for a minute or longer: see its log and "+
		"kubectl describe pod")
	w.want(w.answer(75, "b"), "no answer: the pod has not answered a scrape yet: retry in a few seconds")
	a := w.store.Evaluate(t.Context(), w.query, []Pod{{
		UID: "uid-b", Name: "b",
		Problem: errors.New("connection refused"),
	}}, at(75))
	w.want(a, "no answer: connection refused")

	slow := New(Config{Interval: 30 * time.Second})
	p := Page{Pod: "a", At: at(0), Body: []byte("depth 1\n")}
	q, err := Compile(Definition{Name: "depth"})
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Record("uid-a", Keep(q), p); err != nil {
		t.Fatal(err)
	}
	if a := slow.Evaluate(t.Context(), q, []Pod{{UID: "uid-a", Name: "a"}}, at(120)); a.Err() != nil {
		t.Errorf("after four intervals: %v", a.Err())
	}
}

// TestRule3NotFinite checks that NaN and infinities are refused, and are never 0.
func TestRule3NotFinite(t *testing.T) {
	for _, v := range []string{"NaN", "+Inf", "-Inf"} {
		w := newWorld(t, Definition{Name: "depth"})
		w.page("a", 0, "depth "+v)
		w.page("b", 0, "depth 3")
		w.want(w.answer(1, "a", "b"), "b=3 a:not finite")
		what := "infinite"
		if v == "NaN" {
			what = "NaN, which is not a number"
		}
		w.want(w.answer(1, "a"), `not finite: the value of metric "depth" is `+what)
	}
	w := newWorld(t, Definition{Name: "ratio", Expression: "sum by (pod) (x) / sum by (pod) (y)"})
	w.page("a", 0, "x 0\ny 0")
	w.want(w.answer(1, "a"), `not finite: the value of metric "ratio" is NaN, which is not a number; a division `+
		`by zero gives such a value: exclude it with "> 0" on the divisor, and say with "or" what applies instead`)

	// Only a division gets the hint, and only for values that it can give.
	for expression, want := range map[string]string{
		`sum by (pod) (big{path="/api"})`:     "outside of ±2^50, the largest value served",
		`sum by (pod) (big{path="/api"}) / 2`: "outside of ±2^50, the largest value served",
		`sum by (pod) (odd{path="/api"})`:     "NaN, which is not a number",
		`sum by (pod) (top{path="/api"})`:     "infinite",
		`sum by (pod) (top{path="/api"} / 2)`: "infinite; a division by zero gives such a value",
	} {
		w := newWorld(t, Definition{Name: "x", Expression: expression})
		w.page("a", 0, "big{path=\"/api\"} 1e300\nodd{path=\"/api\"} NaN\ntop{path=\"/api\"} +Inf")
		err := w.answer(1, "a").Err()
		if err == nil {
			t.Errorf("%s has a value", expression)
			continue
		}
		got := err.Error()
		want = `the value of metric "x" is ` + want
		if hinted := strings.Contains(want, "division"); !strings.HasPrefix(got, want) || !hinted && got != want {
			t.Errorf("%s: got %s, want %s", expression, got, want)
		}
	}
}

// TestRule4 checks that only pods that are handed to Evaluate count.
func TestRule4(t *testing.T) {
	w := newWorld(t, Definition{Name: "total", Expression: "sum(depth)", Shape: Single})
	w.page("a", 0, "depth 1")
	w.page("b", 0, "depth 2")
	w.page("c", 0, "depth 4")
	w.want(w.answer(1, "a", "c"), "=5")
	w.store.Forget("uid-c")
	w.want(w.answer(1, "a", "b"), "=3")
	if got := w.store.Size(); got != (Size{Pods: 2, Series: 2, Samples: 2}) {
		t.Errorf("the store holds %+v", got)
	}
}

// TestRule5 checks what a single value does with pods that are missing.
func TestRule5(t *testing.T) {
	pods := []string{"a", "b", "c", "d", "e"}
	const tooMany = `incomplete: more than a fifth of the pods have no value for metric "depth": the pod has ` +
		`not answered a scrape yet: retry in a few seconds`
	const kind = `incomplete: the expression of metric "depth" needs a value from every pod, because only a sum over ` +
		`pods, and a ratio, mean, minimum, maximum or quantile that does not grow with their number, tolerate missing ` +
		`pods: the pod has not answered a scrape yet: retry in a few seconds`
	for _, tt := range []struct {
		name, expression string
		answering        int
		want             string
	}{
		{"complete", "", 5, "=50"},
		{"a fifth is filled in", "", 4, "=50 e:no answer"},
		{"more is not", "", 3, tooMany},
		{"own sum", "sum(depth)", 4, "=50 e:no answer"},
		{"own mean", "avg(depth)", 4, "=10 e:no answer"},
		{"own ratio", "sum(depth) / sum(depth)", 4, "=1 e:no answer"},
		{"own ratio with too few", "sum(depth) / sum(depth)", 3, tooMany},
		{"own ratio of a sum and a maximum", "sum(depth) / max(depth)", 4, kind},
		{"own maximum of sums over pods", "max(sum by (q) (depth))", 4, kind},
		{"own maximum of sums by pod", "max(sum by (pod, q) (depth))", 4, "=10 e:no answer"},
		{"own count", "count(depth)", 5, "=5"},
		{"own count is wrong without a pod", "count(depth)", 4, kind},
		{"scalar", "scalar(sum(depth))", 5, "=50"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Definition{Name: "depth", Expression: tt.expression, Shape: Single})
			for _, p := range pods[:tt.answering] {
				w.page(p, 0, "depth 10")
			}
			a := w.answer(1, pods...)
			w.want(a, tt.want)
			if filled := a.Err() == nil && tt.answering < 5; filled != (a.Filled == 1) || filled != (len(a.Warnings) == 1) {
				t.Errorf("%d pods are filled in, with the warnings %v, want one of each exactly if a pod is missing",
					a.Filled, a.Warnings)
			}
		})
	}
}

// TestMeanOverYoungPods checks that a pod which was scraped only once is missing in a mean or quantile over all pods,
// and that a pod without the family is not.
func TestMeanOverYoungPods(t *testing.T) {
	const page = "# TYPE latency histogram\nlatency_bucket{le=\"1\"} %[1]d\nlatency_bucket{le=\"+Inf\"} %[1]d\n" +
		"latency_sum %[1]d\nlatency_count %[1]d"
	const tooMany = `incomplete: more than a fifth of the pods have no value for metric "latency": the pod has been ` +
		"scraped only once for this metric; a rate needs two scrapes: retry in a few seconds"
	for _, tt := range []struct {
		quantile, known, young string
		want                   string
	}{
		{"", "abcd", "", "=1"},
		{"", "abcd", "e", "=1 e:too few points"},
		{"", "abc", "de", tooMany},
		{"", "a", "bcdefgh", tooMany},
		{"0.5", "abcd", "e", "=0.5 e:too few points"},
		{"0.5", "abc", "de", tooMany},
	} {
		d := Definition{Name: "latency", Shape: Single}
		if tt.quantile != "" {
			d.Selector = []Requirement{{"quantile", In, []string{tt.quantile}}}
		}
		w := newWorld(t, d)
		w.page("other", 15, "up 1")
		pods := []string{"other"}
		for _, pod := range tt.known + tt.young {
			pods = append(pods, string(pod))
			if strings.ContainsRune(tt.known, pod) {
				w.page(string(pod), 0, fmt.Sprintf(page, 100))
			}
			w.page(string(pod), 15, fmt.Sprintf(page, 200))
		}
		w.want(w.answer(16, pods...), tt.want)
	}
}

// TestRule8 checks that the pod's own names win over labels of a page.
func TestRule8(t *testing.T) {
	w := newWorld(t, Definition{Name: "depth", Expression: `sum by (pod, exported_pod, exported_namespace, ` +
		`exported_exported_pod) (depth)`})
	w.page("a", 0, `depth{pod="x",namespace="y",exported_pod="z"} 1`)
	e := &evaluation{s: w.store, q: w.query, now: at(1)}
	var a state
	a.snapshot = w.store.targets["uid-a"].snapshot(w.query)
	v, err := e.run(t.Context(), w.query.Expression(), []*state{&a})
	if err != nil {
		t.Fatal(err)
	}
	want := `{exported_exported_pod="x", exported_namespace="y", exported_pod="z", pod="a"}`
	if len(v) != 1 || v[0].Metric.String() != want {
		t.Errorf("got %v, want %s", v, want)
	}
	// Selectors see the pod's names, too.
	w = newWorld(t, Definition{Name: "depth", Selector: []Requirement{{"namespace", In, []string{"shop"}}}})
	w.page("a", 0, `depth{namespace="y"} 1`)
	w.want(w.answer(1, "a"), "a=1")
}

// TestRulesOfPrometheusAdapter checks the translations in docs/moving.md of rules of prometheus-adapter: what
// each says is evaluated over pages that the rule is for.
func TestRulesOfPrometheusAdapter(t *testing.T) {
	doc, err := os.ReadFile("../../docs/moving.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		documented string
		definition Definition
		page       string // with %d, which grows by 15 each 15 s
		want       string
	}{
		{
			"`http_requests_per_second` is the rate of `http_requests_total`",
			Definition{Name: "http_requests_per_second", Window: 2 * time.Minute},
			"http_requests_total %d", "a=1",
		},
		{
			"`http_requests` is the rate of `http_requests_total` if there is no family `http_requests`",
			Definition{Name: "http_requests"},
			"http_requests_total %d", "a=1",
		},
		{
			"`http_requests` is the rate of `http_requests_total` if there is no family `http_requests`",
			Definition{Name: "http_requests"},
			"http_requests_total %d\nhttp_requests 7", "a=7",
		},
		{
			"`work: sum by (pod) (rate(work_seconds_total[2m]))`",
			Definition{Name: "work", Expression: "sum by (pod) (rate(work_seconds_total[2m]))"},
			"work_seconds_total %d", "a=1",
		},
		{"nothing for a gauge", Definition{Name: "queue"}, "# TYPE queue gauge\nqueue{a=\"1\"} 2\nqueue{a=\"2\"} 3", "a=5"},
		{
			"For a counter, this sum is its level, and the name alone would mean its rate",
			Definition{Name: "jobs_total"},
			"# TYPE jobs_total counter\njobs_total %d", "a=1",
		},
		{
			"For a counter, this sum is its level, and the name alone would mean its rate",
			Definition{Name: "jobs_total", Expression: "sum by (pod) (jobs_total)"},
			"# TYPE jobs_total counter\njobs_total %d", "a=120",
		},
		{
			"`queue: sum by (pod) (queue_length)`",
			Definition{Name: "queue", Expression: "sum by (pod) (queue_length)"},
			"queue_length 4", "a=4",
		},
		{
			"`sum(...)` for type `Object` in place of `sum(...) by (<<.GroupBy>>)`",
			Definition{
				Name: "share", Shape: Single,
				Expression: `sum(rate(hits_total{code="500"}[1m])) / sum(rate(hits_total[1m]))`,
			},
			"hits_total{code=\"500\"} %d\nhits_total{code=\"200\"} %[1]d", "=0.5",
		},
		{
			"`metric.selector` of the HPA filters series here, too",
			Definition{
				Name: "queue", Expression: "sum by (pod) (queue_length)", Selector: []Requirement{{"kind", In, []string{"mail"}}},
			},
			"queue_length{kind=\"mail\"} 1\nqueue_length{kind=\"sms\"} 2", "a=1",
		},
		{
			"select the object's series in `metrics-server/queries`",
			Definition{Name: "rps", Shape: Single, Expression: `sum(rate(requests_total{ingress="shop"}[1m]))`},
			"requests_total{ingress=\"shop\"} %d\nrequests_total{ingress=\"other\"} %[1]d", "=1",
		},
		{
			"such as `job` and `instance`, do not exist here",
			Definition{Name: "queue", Expression: `sum by (pod) (queue_length{job="web"})`},
			"queue_length 1",
			`no match: no series matches queue_length{job="web"}: there is no label job`,
		},
	} {
		if !strings.Contains(string(doc), tt.documented) {
			t.Errorf("docs/moving.md does not say %s", tt.documented)
		}
		w := newWorld(t, tt.definition)
		for i := range 9 {
			page := tt.page
			if strings.Contains(page, "%d") {
				page = fmt.Sprintf(page, 15*i)
			}
			w.page("a", float64(15*i), page)
		}
		w.want(w.answer(121, "a"), tt.want)
	}
}

// TestDuplicateSeries checks that the first of two equal series on a page counts, even if the next pages have other
// lines, or the same lines in another order.
func TestDuplicateSeries(t *testing.T) {
	const one, again, other = `depth{x="1",y="2"} 3`, `depth{y="2",x="1"} 5`, `depth{x="2"} 4`
	w := newWorld(t, Definition{Name: "depth"})
	for i, tt := range []struct {
		lines []string
		want  string
	}{
		{[]string{"up 1", one, one, again, other}, "a=7"},
		{[]string{one, one, other}, "a=7"},
		{[]string{other, one, one}, "a=7"},
		{[]string{again, other}, "a=9"},
		{[]string{again, one, other}, "a=9"},
		{[]string{other}, "a=4"},
		{[]string{"up 1", one, one, again, other}, "a=7"},
	} {
		at := 15 * float64(i)
		w.page("a", at, tt.lines...)
		w.want(w.answer(at+1, "a"), tt.want)
	}
}

// TestOnlyItsPods checks that an expression sees no series of pods other than those that it is evaluated over, not even
// if it asks for them by name.
func TestOnlyItsPods(t *testing.T) {
	for _, expression := range []string{
		"sum(depth)", `sum(depth{pod=~".*"})`, `sum(depth or {namespace="other",__name__="depth"})`,
		"sum by (namespace) (max_over_time(depth[1m]))",
	} {
		w := newWorld(t, Definition{Name: "depth", Shape: Single, Expression: expression})
		w.page("a", 0, "depth 1")
		w.page("b", 0, "depth 10")
		w.want(w.answer(1, "a"), "=1")
	}
	// Two pods of the same name in two namespaces, which only their UIDs tell apart.
	w := newWorld(t, Definition{Name: "depth"})
	w.page("a", 0, "depth 1")
	err := w.store.Record("uid-other", w.kept, Page{Namespace: "other", Pod: "a", At: at(0), Body: []byte("depth 10\n")})
	if err != nil {
		t.Fatal(err)
	}
	w.want(w.answer(1, "a"), "a=1")
}

// TestTwoPoints checks that a range of two intervals holds two points, also when scrapes come late.
func TestTwoPoints(t *testing.T) {
	for _, jitter := range []float64{-1, -0.1, 0, 0.1, 1, 5} {
		w := newWorld(t, Definition{Name: "jobs_total"})
		for i := range 20 {
			when := 15*float64(i) + jitter*float64(i%2)
			w.page("a", when, fmt.Sprintf("jobs_total %g", 1000+2*when))
			if i == 0 {
				continue
			}
			for _, later := range []float64{0, 1, 14, 40} {
				a := w.answer(when+later, "a")
				if len(a.Values) != 1 || math.Abs(a.Values[0].Value-2) > 0.01 {
					t.Fatalf("jitter %v, page %d, %v s later: got %+v, %v, want a rate of 2", jitter, i, later, a.Values, a.Err())
				}
			}
		}
	}
}

// TestYoungPod checks that the rate of a pod that was asked for the first time a moment ago is right.
func TestYoungPod(t *testing.T) {
	for _, times := range [][]float64{
		{0, 1, 15, 30}, {0, 2, 15, 30, 45}, {0, 2, 4, 15, 30}, {0, 6, 21, 36}, {0, 7, 14, 29}, {0, 14, 29}, {0, 3, 18},
	} {
		for _, window := range []time.Duration{0, 20 * time.Second, time.Minute} {
			w := newWorld(t, Definition{Name: "jobs_total", Window: window})
			for i, when := range times {
				w.page("a", when, fmt.Sprintf("jobs_total %g", 1000+2*when))
				if i == 0 {
					continue
				}
				a := w.answer(when, "a")
				if len(a.Values) != 1 || math.Abs(a.Values[0].Value-2) > 0.3 {
					t.Errorf("window %v, pages at %v: got %+v, %v, want a rate of 2", window, times[:i+1], a.Values, a.Err())
				}
			}
		}
	}
}

// paths returns a page with a series for each of n values of the label path.
func paths(n int) string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf(`jobs{path="/%c"} 1`, 'a'+i))
	}
	return strings.Join(lines, "\n")
}

func TestExplanations(t *testing.T) {
	quantile := []Requirement{{"quantile", In, []string{"0.9"}}}
	const bare = "# TYPE latency histogram\nlatency_bucket{le=\"+Inf\"} %[1]d\nlatency_sum %[1]d\nlatency_count %[1]d"
	for _, tt := range []struct {
		name       string
		definition Definition
		pages      []string // 15 s apart
		want       string
	}{
		{
			"no such family",
			Definition{Name: "x", Expression: "sum by (pod) (rate(http_request_total[1m]))"},
			[]string{"http_requests_total 1\nhttp_requests_failed 1\ngo_goroutines 7"},
			"no family: the pod exposes no metric http_request_total; did you mean http_requests_total?",
		},
		{
			"no such family for a rate",
			Definition{Name: "packet-per-second"},
			[]string{"packets_total 1\ngo_goroutines 7"},
			`no family: the pod exposes no metric for "packet-per-second": tried packet-per-second, ` +
				`packet_per_second, packet_total, packet` +
				"; did you mean packets_total?",
		},
		{
			"misspelt family of a rate",
			Definition{Name: "htpt-requests-per-second"},
			[]string{"http_requests_total 1\ngo_goroutines 7"},
			`no family: the pod exposes no metric for "htpt-requests-per-second": tried htpt-requests-per-second, ` +
				`htpt_requests_per_second, htpt_requests_total, htpt_requests` +
				"; did you mean http_requests_total?",
		},
		{
			"misspelt family without _total",
			Definition{Name: "mesage-recieved"},
			[]string{"message_received_total 1\ngo_goroutines 7"},
			`no family: the pod exposes no metric for "mesage-recieved": tried mesage-recieved, mesage_recieved, ` +
				"mesage_recieved_total; did you mean message_received_total?",
		},
		{
			"misspelt gauge that is a rate",
			Definition{Name: "reqest-per-second"},
			[]string{"# TYPE requests_per_second gauge\nrequests_per_second 1\ngo_goroutines 7"},
			`no family: the pod exposes no metric for "reqest-per-second": tried reqest-per-second, ` +
				"reqest_per_second, reqest_total, reqest; did you mean requests_per_second?",
		},
		{
			"rate of a family in an expression",
			Definition{Name: "x", Expression: "sum by (pod) (http_requests_per_second)"},
			[]string{"http_requests_total 1\ngo_goroutines 7"},
			"no family: the pod exposes no metric http_requests_per_second; did you mean http_requests_total?",
		},
		{
			"misspelt suffix",
			Definition{Name: "x", Expression: "sum by (pod) (rate(aa_totl[1m]))"},
			[]string{"aa_total 1\ngo_goroutines 7"},
			"no family: the pod exposes no metric aa_totl; did you mean aa_total?",
		},
		{
			"no such family, and none like it",
			Definition{Name: "jobs", Expression: "sum by (pod) (jobs)"},
			[]string{"http_requests_total 1"},
			"no family: the pod exposes no metric jobs: check the name",
		},
		{
			"label filter",
			Definition{Name: "jobs", Selector: []Requirement{{"queue", In, []string{"mails"}}}},
			[]string{"jobs{queue=\"mail\"} 1\njobs{queue=\"sms\"} 2"},
			`no match: no series matches jobs{queue="mails"}: label queue has only "mail", "sms"`,
		},
		{
			"label that does not exist",
			Definition{Name: "jobs", Expression: `sum by (pod) (jobs{queu=~"m.*"})`},
			[]string{"jobs{queue=\"mail\"} 1"},
			`no match: no series matches jobs{queu=~"m.*"}: there is no label queu`,
		},
		{
			"as many values as are listed",
			Definition{Name: "jobs", Expression: `sum by (pod) (jobs{path="/api"})`},
			[]string{paths(maxListed)},
			`no match: no series matches jobs{path="/api"}: label path has only "/a", "/b", "/c", "/d", "/e", "/f", "/g", ` +
				`"/h", "/i", "/j"`,
		},
		{
			"more values than are listed",
			Definition{Name: "jobs", Expression: `sum by (pod) (jobs{path="/api"})`},
			[]string{paths(maxListed + 5)},
			`no match: no series matches jobs{path="/api"}: label path has the values "/a", "/b", "/c", "/d", "/e", "/f", ` +
				`"/g", "/h", "/i", "/j", ...`,
		},
		{
			"combination of labels",
			Definition{Name: "jobs", Expression: `sum by (pod) (jobs{a="1",b="2"})`},
			[]string{"jobs{a=\"1\",b=\"1\"} 1\njobs{a=\"2\",b=\"2\"} 1"},
			`no match: no series matches jobs{a="1",b="2"}: each value exists, but not in this combination`,
		},
		{
			"family without series",
			Definition{Name: "jobs_total"},
			[]string{"# TYPE jobs_total counter\nother 1"},
			"no match: the pod declares metric jobs_total, but exposes no series of it yet: wait until it has counted something",
		},
		{
			"gauge without series",
			Definition{Name: "jobs"},
			[]string{"# TYPE jobs gauge\nother 1"},
			"no match: the pod declares metric jobs, but exposes no series of it yet: wait until the application sets it",
		},
		{
			"histogram in an expression",
			Definition{Name: "x", Expression: "sum by (pod) (latency)"},
			[]string{fmt.Sprintf(bare, 1)},
			"wrong type: latency is a histogram, so its series have names such as latency_sum and latency_count: " +
				"use such a name in the expression",
		},
		{
			"rate of a gauge by name",
			Definition{Name: "depth_per_second"},
			[]string{"# TYPE depth gauge\ndepth 1"},
			`wrong type: the name of metric "depth_per_second" asks for a rate, but depth is a gauge and not a counter: ` +
				`use depth to get its value`,
		},
		{
			"histogram without buckets",
			Definition{Name: "latency", Selector: quantile},
			[]string{fmt.Sprintf(bare, 1), fmt.Sprintf(bare, 2)},
			"no buckets: latency is a histogram without buckets, so it has no quantiles: remove quantile from " +
				"metric.selector to get the mean",
		},
		{
			"summary without the quantile",
			Definition{Name: "latency", Selector: quantile},
			[]string{"# TYPE latency summary\nlatency{quantile=\"0.5\"} 1\nlatency{quantile=\"0.99\"} 1\nlatency_sum " +
				"1\nlatency_count 1"},
			"no match: latency is a summary without the quantile 0.9: it has 0.5, 0.99",
		},
		{
			"summary without quantiles",
			Definition{Name: "latency", Selector: quantile},
			[]string{"# TYPE latency summary\nlatency_sum 1\nlatency_count 1"},
			"no buckets: latency is a summary without quantiles: remove quantile from metric.selector to get the mean",
		},
		{
			"no observations",
			Definition{Name: "latency"},
			[]string{fmt.Sprintf(bare, 1), fmt.Sprintf(bare, 1)},
			"no observations: latency has no observations in the window, so there is neither a mean nor a quantile: " +
				"wait for some, set a longer window, or scale by a rate",
		},
		{
			"parts without a type",
			Definition{Name: "latency"},
			[]string{"latency_sum 1\nlatency_count 2"},
			`no family: the pod exposes latency_sum, latency_count, but no metric latency, and no type that makes ` +
				`latency a histogram or summary: add a line "# TYPE latency histogram", or "summary", or ` +
				`use latency_count_per_second to get its rate`,
		},
		{
			"parts without a type, twice",
			Definition{Name: "latency"},
			[]string{"latency_sum 1\nlatency_count 2", "latency_sum 2\nlatency_count 4"},
			`no family: the pod exposes latency_sum, latency_count, but no metric latency, and no type that makes ` +
				`latency a histogram or summary: add a line "# TYPE latency histogram", or "summary", or ` +
				`use latency_count_per_second to get its rate`,
		},
		{
			"a counter with the name of a part",
			Definition{Name: "jobs"},
			[]string{"# TYPE jobs_count counter\njobs_count 1"},
			`no family: the pod exposes jobs_count, but no metric jobs, and no type that makes jobs a histogram or ` +
				`summary: add a line "# TYPE jobs histogram", or "summary", or use ` +
				`jobs_count_per_second to get its rate`,
		},
		{
			"a counter with the name of a part, twice",
			Definition{Name: "jobs", Shape: Single},
			[]string{"# TYPE jobs_count counter\njobs_count 1", "# TYPE jobs_count counter\njobs_count 9"},
			`no family: the pod exposes jobs_count, but no metric jobs, and no type that makes jobs a histogram or ` +
				`summary: add a line "# TYPE jobs histogram", or "summary", or use ` +
				`jobs_count_per_second to get its rate`,
		},
		{
			"a sum without a type",
			Definition{Name: "latency-seconds"},
			[]string{"latency_seconds_sum 1"},
			`no family: the pod exposes latency_seconds_sum, but no metric latency_seconds, and no type that makes ` +
				`latency_seconds a histogram or summary: add a line "# TYPE latency_seconds histogram", or "summary"`,
		},
		{
			"buckets without a type",
			Definition{Name: "latency", Selector: quantile},
			[]string{"latency_bucket{le=\"1\"} 1\nlatency_bucket{le=\"+Inf\"} 1"},
			`no family: the pod exposes latency_bucket, but no metric latency, and no type that makes latency a ` +
				`histogram or summary: add a line "# TYPE latency histogram", or "summary"`,
		},
		{
			"a declared counter without series, and another with the name of a part",
			Definition{Name: "jobs"},
			[]string{"# TYPE jobs counter\n# TYPE jobs_count counter\njobs_count 1"},
			"no match: the pod declares metric jobs, but exposes no series of it yet: wait until it has counted something",
		},
		{
			"a gauge that is declared as a histogram",
			Definition{Name: "queue"},
			[]string{"# TYPE queue histogram\nqueue 5", "# TYPE queue histogram\nqueue 6"},
			"wrong type: the type of queue asks for the series queue_sum, queue_count, but the pod exposes only queue: " +
				"correct the # TYPE line, or expose these series",
		},
		{
			"a histogram that is declared as a counter",
			Definition{Name: "latency"},
			[]string{strings.Replace(fmt.Sprintf(bare, 1), "histogram", "counter", 1)},
			"wrong type: the type of latency asks for the series latency, but the pod exposes only latency_sum, " +
				"latency_count: correct the # TYPE line, or expose these series",
		},
		{
			"one point",
			Definition{Name: "jobs_total"},
			[]string{"jobs_total 1"},
			"too few points: the pod has been scraped only once for this metric; a rate needs two scrapes: " +
				"retry in a few seconds",
		},
		{
			"nothing",
			Definition{Name: "x", Expression: "sum by (pod) (depth > 10)"},
			[]string{"depth 1"},
			`no result: the expression of metric "x" returns nothing for the pod, although the pod exposes the series that ` +
				`it selects: check its comparisons, and the labels by which it matches series with others`,
		},
		{
			"several values",
			Definition{Name: "x", Expression: "sum by (pod, code, method) (depth)"},
			[]string{"depth{code=\"1\",method=\"x\"} 1\ndepth{code=\"2\",method=\"x\"} 1"},
			`wrong shape: the expression of metric "x" returns several values for a pod, which differ in the labels code: ` +
				"write sum by (pod) (...)",
		},
		{
			"several single values",
			Definition{Name: "x", Expression: "sum by (code) (depth)", Shape: Single},
			[]string{"depth{code=\"1\"} 1\ndepth{code=\"2\"} 1"},
			`wrong shape: the expression of metric "x" returns several values, which differ in the labels code; ` +
				`metrics of types Object and External need a single one: write sum(...)`,
		},
		{
			"no label pod",
			Definition{Name: "x", Expression: `label_replace(sum(depth), "x", "y", "", "")`},
			[]string{"depth 1"},
			`wrong shape: the expression of metric "x" returns a value without the label "pod": write sum by (pod) (...)`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.definition)
			end := 0.0
			for i, p := range tt.pages {
				end = 15 * float64(i)
				w.page("a", end, p)
			}
			first := w.answer(end+1, "a")
			w.want(first, tt.want)
			w.want(w.answer(end+31, "a"), tt.want)
		})
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct{ expression, want string }{
		{"sum by (pod) (jobs_total)", "jobs_total is a counter, so its value only grows: write rate(jobs_total[1m])"},
		{`sum by (pod) (jobs_total{x="1"} / 2)`, `jobs_total is a counter, so its value only grows: write ` +
			`rate(jobs_total{x="1"}[1m])`},
		{"sum by (pod) (rate(jobs_total[1m]))", ""},
		{"sum by (pod) (rate(jobs_total[1m]) > 1 and on (pod) depth)", ""},
		{"count by (pod) (jobs_total)", ""},
		{"sum by (pod) (rate(depth[1m]))", "depth is a gauge, and rate is for counters: use the value itself, or deriv"},
		{"sum by (pod) (deriv(depth[1m]))", ""},
		{"max by (pod) (max_over_time(depth[1m]))", ""},
	} {
		w := newWorld(t, Definition{Name: "x", Expression: tt.expression})
		for i := range 3 {
			w.page("a", 15*float64(i), "# TYPE jobs_total counter\njobs_total{x=\"1\"} 1\n# TYPE depth gauge\ndepth 1")
		}
		a := w.answer(31, "a")
		if got := strings.Join(a.Warnings, "; "); got != tt.want {
			t.Errorf("%s: the warning is %q, want %q", tt.expression, got, tt.want)
		}
	}
}

func TestManyPodsOneText(t *testing.T) {
	w := newWorld(t, Definition{Name: "jobs_totl"})
	w.page("a", 0, "jobs_total 1")
	w.page("b", 0, "jobs_total 1")
	w.want(w.answer(1, "a", "b", "c"), "no family: the pod exposes no metric jobs_totl; did you mean jobs_total?; "+
		"the pod has not answered a scrape yet: retry in a few seconds")
}

// TestMoreReasons checks that a text for many pods says that it leaves out some, but not how many.
func TestMoreReasons(t *testing.T) {
	for n, want := range map[int]string{
		3: "connection 0; connection 1; connection 2",
		4: "connection 0; connection 1; connection 2; and others",
		6: "connection 0; connection 1; connection 2; and others",
	} {
		w := newWorld(t, Definition{Name: "depth"})
		var pods []Pod
		for i := range 2 * n { // each reason twice
			pods = append(pods, Pod{
				UID: fmt.Sprint("uid-", i), Name: fmt.Sprint(i), Problem: fmt.Errorf("connection %d", i/2),
			})
		}
		w.want(w.store.Evaluate(t.Context(), w.query, pods, at(1)), "no answer: "+want)
	}
}

// TestPagesDuringAnEvaluation records pages while the query is evaluated: each answer is that of some moment.
func TestPagesDuringAnEvaluation(t *testing.T) {
	w := newWorld(t, Definition{Name: "requests_total"})
	distances := []float64{5, 2, 5, 3, 15, 15, 7}
	now := 0.0
	page := func(i int) {
		now += distances[i%len(distances)]
		line := fmt.Sprintf("requests_total %g", 1e6+100*now)
		if err := w.try("a", now, "# TYPE requests_total counter", line); err != nil {
			t.Error(err)
		}
	}
	page(0)
	page(1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 20_000 {
			page(i)
		}
	}()
	for evaluations := 0; ; evaluations++ {
		for _, v := range w.answer(0, "a").Values { // the last page is always recent: time stands still for the reader
			if math.Abs(v.Value-100) > 1e-6 {
				t.Fatalf("evaluation %d: %g a second, want 100", evaluations, v.Value)
			}
		}
		select {
		case <-done:
			if evaluations < 10 {
				t.Errorf("%d evaluations, want at least 10", evaluations)
			}
			return
		default:
		}
	}
}

// TestRateAfterAFailedScrape checks that one page that failed takes no value away.
func TestRateAfterAFailedScrape(t *testing.T) {
	w := newWorld(t, Definition{Name: "jobs_total"})
	w.page("a", 0, "jobs_total 1000")
	w.page("a", 15, "jobs_total 1030")
	w.page("a", 45, "jobs_total 1090") // the one at 30 s failed
	w.want(w.answer(46, "a"), "a=2")
}

// TestRateOfANewProcess checks that the rate of a counter that began at zero is not divided by more than it covers.
func TestRateOfANewProcess(t *testing.T) {
	w := newWorld(t, Definition{Name: "jobs_total"})
	for _, at := range []float64{0, 5, 20, 35, 50, 65} {
		w.page("a", at, fmt.Sprintf("jobs_total %g", 10*at))
		for _, v := range w.answer(at, "a").Values {
			if v.Value < 9.9 || v.Value > 10.1 {
				t.Errorf("after %g s: %g a second, want 10", at, v.Value)
			}
		}
	}
}

// TestOwnRateNeedsItsRange checks that a rate over minutes is not served before there are pages of minutes.
func TestOwnRateNeedsItsRange(t *testing.T) {
	w := newWorld(t, Definition{Name: "jobs", Expression: "sum by (pod) (rate(jobs_total[1m]))"})
	for at := 0.0; at <= 60; at += 15 {
		w.page("a", at, fmt.Sprintf("jobs_total %g", 1e6+10*at))
		switch a := w.answer(at, "a"); {
		case at < 45 && len(a.Values) > 0:
			t.Errorf("after %g s: %v", at, a.Values)
		case at >= 45:
			w.want(a, "a=10")
		}
	}
}

// TestDeltaNeedsItsRange is the same for delta, which extrapolates as little.
func TestDeltaNeedsItsRange(t *testing.T) {
	for _, expression := range []string{
		"sum by (pod) (delta(depth[1m]))", "sum by (pod) (max_over_time(delta(depth[1m])[30s:]))",
	} {
		w := newWorld(t, Definition{Name: "grown", Expression: expression})
		for at := 0.0; at <= 150; at += 15 {
			w.page("a", at, fmt.Sprintf("depth %g", 10*at))
			if a := w.answer(at, "a"); len(a.Values) > 0 || at == 150 {
				w.want(a, "a=600")
			}
		}
	}
}

// TestPodsThatHaveNothing checks that pods which answer, and have nothing that the expression selects, count as
// nothing in a single value.
func TestPodsThatHaveNothing(t *testing.T) {
	for expression, want := range map[string]string{
		"sum(queue > 10)":                    "=20 b:no result c:no result",
		"sum(topk(1, queue))":                "=20",
		"sum(errors) / sum(queue)":           "=0.083333",
		"count(queue)":                       "=3",
		"sum(queue{state=\"none\"})":         "no family: ",
		"max(queue) - on () sum(queue) / 24": "=19",
	} {
		w := newWorld(t, Definition{Name: "m", Expression: expression, Shape: Single})
		w.page("a", 0, "queue 20", "errors 2")
		w.page("b", 0, "queue 3")
		w.page("c", 0, "queue 1")
		a := w.answer(1, "a", "b", "c")
		if want == "no family: " {
			if len(a.Values) > 0 {
				t.Errorf("%s: got %v, want no value", expression, a.Values)
			}
			continue
		}
		w.want(a, want)
	}
}

// TestNamesThatDiffer has a pod whose page has another of the families that a metric's name may mean: what it means on
// most pages counts, whichever comes first, and no counter is served as a level because of one page.
func TestNamesThatDiffer(t *testing.T) {
	const (
		histogram = "# TYPE latency histogram\nlatency_bucket{le=\"+Inf\"} %[1]d\nlatency_sum 1\nlatency_count %[1]d\n"
		total     = "# TYPE http_requests_total counter\nhttp_requests_total %d\n"
	)
	for _, c := range []struct{ metric, most, other, want, says string }{
		{
			"latency_count", histogram, "# TYPE latency_count gauge\nlatency_count %d\n", "a=10 b=10 c=10 d:wrong type",
			"pod d exposes latency_count with the type gauge, but most pods expose it with the type counter: " +
				"expose it with one type",
		},
		{"latency_count", histogram, "latency_count %d\n", "a=10 b=10 c=10 d=10", ""},
		{
			"http_requests", total, "# TYPE http_requests gauge\nhttp_requests %d\n", "a=10 b=10 c=10 d:wrong type",
			"pod d exposes http_requests, but most pods expose http_requests_total: expose it under one name",
		},
		{"http_requests", total, total + "# TYPE http_requests gauge\nhttp_requests 7\n", "a=10 b=10 c=10 d=10", ""},
		{"http_requests", total, "up %d\n", "a=10 b=10 c=10 d:no family", "the pod exposes no metric http_requests"},
		{
			"http_requests", total, "http_requests_count %d\n", "a=10 b=10 c=10 d:no family",
			"the pod exposes http_requests_count, but no metric http_requests, and no type",
		},
		{"latency", histogram, "latency_sum 1\nlatency_count %d\n", "a=0 b=0 c=0 d=0", ""},
		{
			"latency", histogram, "latency %d\n", "a=0 b=0 c=0 d:wrong type",
			"the type of latency asks for the series latency_sum, latency_count, but the pod exposes only latency",
		},
		{
			"latency", "# TYPE latency gauge\nlatency %d\n", "latency_sum 1\nlatency_count %d\n",
			"a=1150 b=1150 c=1150 d:no family", "the pod exposes latency_sum, latency_count, but no metric latency",
		},
		{
			"http-requests-per-second", total, "# TYPE http_requests counter\nhttp_requests %d\n",
			"a=10 b=10 c=10 d:wrong type", "under one name",
		},
		{
			"jobs_total", "jobs_total %d\n", "# TYPE jobs_total gauge\njobs_total %d\n",
			"a=10 b=10 c=10 d:wrong type", "the type gauge",
		},
	} {
		w := newWorld(t, Definition{Name: c.metric, Window: 30 * time.Second})
		for i, at := range []int{0, 15} {
			for _, pod := range []string{"a", "b", "c"} {
				w.page(pod, float64(at), fmt.Sprintf(c.most, 1000+150*i))
			}
			w.page("d", float64(at), fmt.Sprintf(c.other, 1000+150*i))
		}
		a := w.answer(16, "a", "b", "c", "d")
		w.want(a, c.want)
		for _, m := range a.Missing {
			if !strings.Contains(m.Err.Text, c.says) {
				t.Errorf("%s: %s, want %s", c.metric, m.Err.Text, c.says)
			}
		}
	}
}

// A sum is not that of the pods whose pages happen to have the likelier name.
func TestSumOfNamesThatDiffer(t *testing.T) {
	w := newWorld(t, Definition{Name: "http_requests", Window: 30 * time.Second, Shape: Single})
	for i, at := range []float64{0, 15} {
		for _, pod := range []string{"a", "b", "c"} {
			w.page(pod, at, fmt.Sprintf("# TYPE http_requests_total counter\nhttp_requests_total %d", 1000+150*i))
		}
		w.page("d", at, "# TYPE http_requests gauge\nhttp_requests 7")
	}
	err := w.answer(16, "a", "b", "c", "d").Err()
	const want = "pod d exposes http_requests, but most pods expose http_requests_total"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %s", err, want)
	}
	const mostly = 40.0 // of a, b, c and e at 10 each, and d at their mean
	for _, at := range []float64{0, 15} {
		w.page("e", at, fmt.Sprintf("# TYPE http_requests_total counter\nhttp_requests_total %v", 1000+10*at))
	}
	if a := w.answer(16, "a", "b", "c", "d", "e"); len(a.Values) != 1 || a.Values[0].Value != mostly+10 || a.Filled != 1 {
		t.Errorf("got %+v, %v, want %v, with one pod filled in", a.Values, a.Err(), mostly+10)
	}
}

// TestTypesThatDiffer has pods that give a family a type of their own, as in a rollout that corrects it: what most pods
// say counts, and no pod's series are read as something that they are not.
func TestTypesThatDiffer(t *testing.T) {
	page := func(kind string, value int) string {
		text := fmt.Sprintf("x %d\n", value)
		if kind != "untyped" {
			text = "# TYPE x " + kind + "\n" + text
		}
		return text
	}
	for _, c := range []struct {
		types []string // of pods a, b, c and d
		want  string
	}{
		{[]string{"gauge", "gauge", "gauge", "counter"}, "a=1150 b=1150 c=1150 d:wrong type"},
		{[]string{"counter", "counter", "gauge", "counter"}, "a=10 b=10 d=10 c:wrong type"},
		{[]string{"counter", "untyped", "untyped", "untyped"}, "b=1150 c=1150 d=1150 a:wrong type"},
		{[]string{"counter", "counter", "counter", "untyped"}, "a=10 b=10 c=10 d=10"},
		{[]string{"gauge", "untyped", "counter", "gauge"}, "a=1150 b=1150 d=1150 c:wrong type"},
		{[]string{"gauge", "counter", "gauge", "counter"}, "b=10 d=10 a:wrong type c:wrong type"},
		{[]string{"gauge", "histogram", "gauge", "gauge"}, "a=1150 c=1150 d=1150 b:wrong type"},
	} {
		w := newWorld(t, Definition{Name: "x", Window: 30 * time.Second})
		pods := []string{"a", "b", "c", "d"}
		for i, pod := range pods {
			if c.types[i] == "histogram" {
				w.page(pod, 0, "# TYPE x histogram\nx_sum 1\nx_count 2")
				w.page(pod, 15, "# TYPE x histogram\nx_sum 2\nx_count 4")
				continue
			}
			w.page(pod, 0, page(c.types[i], 1000))
			w.page(pod, 15, page(c.types[i], 1150))
		}
		a := w.answer(16, pods...)
		w.want(a, c.want)
		for _, m := range a.Missing {
			if !strings.Contains(m.Err.Text, "pod "+m.Pod+" exposes x with the type ") {
				t.Errorf("%v: got %q, want it to name the pod and the type", c.types, m.Err.Text)
			}
		}
	}
}
