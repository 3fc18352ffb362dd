package appmetrics

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/fairshare"
)

const (
	jobsOfA = `sum(rate(jobs_total{queue="a"}[5m]))`
	jobsOfB = `sum(rate(jobs_total{queue="b"}[5m]))`
)

// addedTo returns a world in which a pod has pages of several minutes that are kept for d alone. The counters of
// queue a grow by 10 a second, those of queue b by 20.
func addedTo(t *testing.T, d Definition) *world {
	t.Helper()
	w := newWorld(t, d)
	for at := 0.0; at <= 330; at += 15 {
		w.jobs(at)
	}
	return w
}

// jobs records a page.
func (w *world) jobs(seconds float64) {
	w.t.Helper()
	w.page("a", seconds, "# TYPE jobs_total counter", fmt.Sprintf("jobs_total{queue=\"a\"} %g\njobs_total{queue=\"b\"} %g",
		1e6+10*seconds, 1e7+20*seconds))
}

// of returns the answer of another query over the same pages.
func (w *world) of(q *Query, seconds float64, pods ...string) *Answer {
	other := *w
	other.query = q
	return other.answer(seconds, pods...)
}

// TestRateOfAnAddedMetric adds a metric to a pod whose series of the same name have been kept for minutes: its rate
// is missing until its own series cover the range, and then right. The older metric keeps its value all the time.
func TestRateOfAnAddedMetric(t *testing.T) {
	const once = "too few points: the pod has been scraped only once for this metric; a rate needs two scrapes: " +
		"retry in a few seconds"
	for name, tt := range map[string]struct {
		expression, want string
	}{
		"disjoint":    {jobsOfB, "=20"},
		"overlapping": {`sum(rate(jobs_total[5m]))`, "=30"},
		"both":        {`sum(rate(jobs_total{queue="b"}[5m])) + sum(rate(jobs_total{queue="a"}[5m]))`, "=30"},
	} {
		t.Run(name, func(t *testing.T) {
			w := addedTo(t, Definition{Name: "jobs", Expression: jobsOfA, Shape: Single})
			w.want(w.answer(331, "a"), "=10")
			added := compileB(t, Definition{Name: "added", Expression: tt.expression, Shape: Single})
			w.kept = Keep(w.query, added)
			for at := 345.0; at <= 1000; at += 15 {
				w.jobs(at)
				w.want(w.answer(at+1, "a"), "=10")
				a := w.of(added, at+1, "a")
				if at >= 345+285 {
					w.want(a, tt.want)
				} else if causeOf(a.Err()) != TooFewPoints {
					t.Errorf("%g s after it was added: %v, %v", at-345, a.Values, a.Err())
				}
			}
			if n := len(w.store.targets["uid-a"].added); n > 0 {
				t.Errorf("%d moments are remembered longer than the series", n)
			}
		})
	}
	t.Run("default expression", func(t *testing.T) {
		of := func(queue string) Definition {
			return Definition{Name: "jobs_total", Selector: []Requirement{{"queue", In, []string{queue}}}}
		}
		w := addedTo(t, of("a"))
		added := compileB(t, of("b"))
		w.kept = Keep(w.query, added)
		w.jobs(345)
		w.want(w.of(added, 346, "a"), once)
		for _, at := range []float64{350, 365, 380, 395, 410} {
			w.jobs(at)
			w.want(w.of(added, at+1, "a"), "a=20")
			w.want(w.answer(at+1, "a"), "a=10")
		}
	})
	t.Run("the same metric, compiled again", func(t *testing.T) {
		d := Definition{Name: "jobs", Expression: jobsOfA, Shape: Single}
		w := addedTo(t, d)
		for at := 345.0; at <= 700; at += 15 {
			w.query = compileB(t, d)
			w.want(w.answer(at-1, "a"), "=10")
			w.kept = Keep(w.query)
			w.jobs(at)
			w.want(w.answer(at+1, "a"), "=10")
		}
	})
	t.Run("removed and added again", func(t *testing.T) {
		w := addedTo(t, Definition{Name: "jobs", Expression: jobsOfA, Shape: Single})
		other := compileB(t, Definition{Name: "other", Expression: jobsOfB, Shape: Single})
		both := Keep(w.query, other)
		for at := 345.0; at <= 1200; at += 15 {
			w.kept = both
			if at >= 720 && at < 750 {
				w.kept = Keep(w.query)
			}
			w.jobs(at)
			a := w.of(other, at+1, "a")
			if len(a.Values) > 0 {
				w.want(a, "=20")
			}
			if served, want := len(a.Values) > 0, at >= 630 && at < 720 || at >= 750+285; served != want {
				t.Errorf("at %g s: %v, %v", at, a.Values, a.Err())
			}
			w.want(w.answer(at+1, "a"), "=10")
		}
	})
}

// TestRateAfterRoomReturns checks that the rate of a metric that had no room on a pod's pages is missing until its
// series cover the range again, although another metric with series of the same name was kept all the time.
func TestRateAfterRoomReturns(t *testing.T) {
	for name, c := range map[string]Config{
		"memory": {Memory: fairshare.New(3, fairshare.Fixed(60_000))},
		"series": {MaxSeries: 100},
	} {
		t.Run(name, func(t *testing.T) {
			c.Timeout = time.Minute
			w := newWorld(t, Definition{Name: "small", Expression: `sum(rate(jobs_total{queue="a"}[5m]))`, Shape: Single})
			w.store = New(c)
			large := compileB(t, Definition{
				Name: "large", Expression: `sum(rate(jobs_total{queue!="a"}[5m]))`, Shape: Single,
			})
			w.kept = Keep(w.query, large)
			served := 0
			for at := 0.0; at <= 1200; at += 15 {
				series := 4
				if at >= 400 && at < 500 {
					series = 300
				}
				var b strings.Builder
				fmt.Fprintf(&b, "# TYPE jobs_total counter\njobs_total{queue=\"a\"} %g\n", 1e6+10*at)
				for i := range series {
					fmt.Fprintf(&b, "jobs_total{queue=\"%s%d\"} %g\n", strings.Repeat("x", 100), i, 1e6+10*at)
				}
				partial := (*PartialError)(nil)
				if err := w.try("a", at, b.String()); err != nil && !errors.As(err, &partial) || (partial != nil) != (series > 4) {
					t.Fatalf("page at %g s: %v", at, err)
				}
				if at >= 285 {
					w.want(w.answer(at+1, "a"), "=10")
				}
				if a := w.of(large, at+1, "a"); len(a.Values) > 0 {
					w.want(a, "=40")
					served++
				}
			}
			if served < 30 {
				t.Errorf("%d values were served, want at least 30", served)
			}
			w.store.Forget("uid-a")
			if c.Memory != nil {
				if taken, _ := c.Memory.Taken(); taken != 0 {
					t.Errorf("%d bytes were not given back", taken)
				}
			}
		})
	}
}

// TestAddedMetricHasNoPartialValue adds a metric to a pod of which a part of its series is kept, because of another
// metric: until the pod's next page, the pod has no value for it.
func TestAddedMetricHasNoPartialValue(t *testing.T) {
	const page = "# TYPE jobs gauge\njobs{queue=\"a\"} 1\njobs{queue=\"b\"} 10"
	part := compileB(t, Definition{Name: "part", Expression: `sum by (pod) (jobs{queue="a"})`})
	for _, tt := range []struct {
		expression string
		shape      Shape
		want       string
	}{
		{"", PerPod, "a=11"},
		{"", Single, "=11"},
		{"sum by (pod) (jobs)", PerPod, "a=11"},
		{"sum(jobs)", Single, "=11"},
		{"max(jobs)", Single, "=10"},
		{"max(jobs) + 1", Single, "=11"},
		{`sum(jobs{queue="a"}) + sum(jobs)`, Single, "=12"},
	} {
		t.Run(fmt.Sprint(tt.expression, tt.shape), func(t *testing.T) {
			w := newWorld(t, Definition{Name: "jobs", Expression: tt.expression, Shape: tt.shape})
			w.kept = Keep(part)
			w.page("a", 0, page)
			w.want(w.answer(1, "a"), "too few points: metric \"jobs\" was added after the pod's last scrape: retry in a few "+
				"seconds")
			w.want(w.of(part, 1, "a"), "a=1")
			failing := []Pod{{UID: "uid-a", Name: "a", Problem: errors.New("connection refused")}}
			w.want(w.store.Evaluate(t.Context(), w.query, failing, at(1)), "too few points: connection refused")
			w.kept = Keep(part, w.query)
			w.page("a", 15, page)
			w.want(w.answer(16, "a"), tt.want)
			w.want(w.of(part, 16, "a"), "a=1")
		})
	}
	t.Run("a sum over six pods", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "jobs", Expression: "sum(jobs)", Shape: Single})
		all := w.kept
		for _, pod := range []string{"a", "b", "c", "d", "e", "f"} {
			w.page(pod, 0, page)
			w.kept = Keep(part, w.query)
			if pod == "e" {
				w.kept = Keep(part)
			}
		}
		w.kept = all
		w.want(w.answer(1, "a", "b", "c", "d", "e", "f"), "=66 f:too few points")
	})
}
