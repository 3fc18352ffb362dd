package appmetrics

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// grows is the page at a moment of a pod whose counter and gauge grow by 10 a second.
func grows(at float64) string {
	return fmt.Sprintf("# TYPE jobs_total counter\njobs_total %g\n# TYPE depth gauge\ndepth %g", 1e6+10*at, 1e6+10*at)
}

// every15 returns moments that are 15 s apart.
func every15(from, to float64) (all []float64) {
	for at := from; at <= to; at += 15 {
		all = append(all, at)
	}
	return all
}

// TestRateAfterALongGap checks that pages from before a gap do not count as covering the range: the pod is like a new
// one.
func TestRateAfterALongGap(t *testing.T) {
	w := newWorld(t, Definition{Name: "jobs", Expression: "sum by (pod) (rate(jobs_total[5m]))"})
	for _, at := range every15(0, 300) {
		w.page("a", at, grows(at))
	}
	w.want(w.answer(301, "a"), "a=10")
	for _, at := range every15(660, 1200) {
		w.page("a", at, grows(at))
		w.page("new", at, grows(at))
		a := w.answer(at+1, "a", "new")
		if at < 660+285 {
			w.want(a, "too few points: the scrapes of the pod do not cover the ranges of the expression of metric \"jobs\" "+
				"yet: wait until they do")
			continue
		}
		w.want(a, "a=10 new=10")
	}
}

// TestRateAfterAnyGap lets scrapes fail and checks that no value is more than a tenth too low, neither in the gap nor
// after it, and that there is a value again once the gap is out of the range.
func TestRateAfterAnyGap(t *testing.T) {
	for _, tt := range []struct {
		expression string
		seconds    float64 // of the range
		want       float64
	}{
		{"rate(jobs_total[30s])", 30, 10},
		{"rate(jobs_total[1m])", 60, 10},
		{"rate(jobs_total[5m])", 300, 10},
		{"irate(jobs_total[30s])", 30, 10},
		{"irate(jobs_total[1m])", 60, 10},
		{"increase(jobs_total[1m])", 60, 600},
		{"delta(depth[1m])", 60, 600},
		{"idelta(depth[1m]) / idelta(depth[1m])", 60, 1},
		{"deriv(depth[30s])", 30, 10},
		{"deriv(depth[1m])", 60, 10},
		{"rate(jobs_total[5m]) + rate(jobs_total[30s])", 300, 20},
		{"rate(jobs_total[30s]) + 0 * max_over_time(depth[5m])", 300, 10},
		{"max_over_time(rate(jobs_total[1m])[5m:15s])", 360, 10},
		{"ceil(changes(jobs_total[30s]) / 10)", 30, 1},
	} {
		for _, early := range []float64{-0.01, 0, 0.01} { // a page at the start of a range is in it, or not
			for failures := range 8 {
				w := newWorld(t, Definition{Name: "m", Expression: "sum by (pod) (" + tt.expression + ")"})
				back := 600 + 15*float64(failures+1)
				for _, at := range slices.Concat(every15(0, 600), every15(back, back+2*tt.seconds)) {
					if at > 600 {
						at -= early
					}
					w.page("a", at, grows(at))
					a := w.answer(at, "a")
					if at >= back+tt.seconds && len(a.Values) == 0 {
						t.Errorf("%s, %d failures: no value %g s later: %v", tt.expression, failures, at-back, a.Err())
					}
					for _, v := range a.Values {
						if v.Value < tt.want*0.9 || v.Value > tt.want*1.1 {
							t.Errorf("%s, %d failures: %g at %g s, want %g", tt.expression, failures, v.Value, at-600, tt.want)
						}
					}
					if err := a.Err(); err != nil && causeOf(err) != TooFewPoints {
						t.Errorf("%s, %d failures: %v", tt.expression, failures, err)
					}
				}
			}
		}
	}
}

// TestRateAfterAnOutage checks that no mean over an outage is served: it describes past load, and in a mean or quantile
// over all pods it would outweigh the values of the other pods.
func TestRateAfterAnOutage(t *testing.T) {
	w := newWorld(t, Definition{Name: "jobs_total"})
	for _, at := range every15(0, 60) {
		w.page("a", at, grows(100*at)) // 1,000 a second
	}
	w.want(w.answer(61, "a"), "a=1000")
	w.page("a", 3600, grows(360_000))
	w.want(w.answer(3601, "a"), "too few points: the pod has been scraped only once for this metric; a rate needs two "+
		"scrapes: retry in a few seconds")
	w.page("a", 3615, grows(360_015))
	w.want(w.answer(3616, "a"), "a=10")
}

// TestCountsNeedTheirRange checks that functions whose early results would be too low or unreliable return no value
// until the pages cover their range.
func TestCountsNeedTheirRange(t *testing.T) {
	for expression, want := range map[string]float64{
		"count_over_time(depth[5m])":             20,
		"count_over_time((depth > 0)[5m:15s])":   20,
		"sum_over_time(depth[5m]) / depth":       20,
		"changes(jobs_total[5m])":                19,
		"predict_linear(depth[5m], 600) - depth": 6000,
		"deriv(depth[5m])":                       10,
	} {
		w := newWorld(t, Definition{Name: "m", Expression: "sum by (pod) (" + expression + ")"})
		for _, at := range every15(0, 600) {
			w.page("a", at, grows(at))
			a := w.answer(at, "a")
			if at >= 300 && len(a.Values) == 0 {
				t.Errorf("%s: no value after %g s: %v", expression, at, a.Err())
			}
			for _, v := range a.Values {
				if v.Value < want*0.9 || v.Value > want*1.1 {
					t.Errorf("%s: %g after %g s, want %g", expression, v.Value, at, want)
				}
			}
		}
	}
}

// TestLatePages checks that a page that comes a little late takes no value away.
func TestLatePages(t *testing.T) {
	w := newWorld(t, Definition{Name: "jobs", Expression: "sum by (pod) (rate(jobs_total[30s]))"})
	for i, at := range every15(0, 300) {
		at += float64(i%2) * 1.5
		w.page("a", at, grows(at))
		if a := w.answer(at, "a"); i > 1 && len(a.Values) == 0 {
			t.Errorf("at %g s: %v", at, a.Err())
		}
	}
}

// TestSumAfterAFailedScrape checks that a pod with too few pages in a range counts as missing, not as nothing.
func TestSumAfterAFailedScrape(t *testing.T) {
	pods := []string{"a", "b", "c", "d", "e", "f"}
	for expression, want := range map[string]string{
		"sum(rate(jobs_total[30s]))":                                 "=60 f:too few points",
		"sum(irate(jobs_total[30s]))":                                "=60 f:too few points",
		"sum(deriv(depth[30s]))":                                     "=60 f:too few points",
		"avg(rate(jobs_total[30s]))":                                 "=10 f:too few points",
		"sum(max_over_time(depth[30s])/2)":                           "=3.0009e+06",
		"sum(irate(none[30s])) or vector(0) + 0 * sum(depth)":        "=0",
		"sum(rate(jobs_total[30s]) or rate(depth{x=\"none\"}[30s]))": "=60 f:too few points",
		"sum(rate(jobs_total{x=\"none\"}[30s])) or sum(depth / 1e6)": "=6.0018",
	} {
		w := newWorld(t, Definition{Name: "m", Expression: expression, Shape: Single})
		for _, at := range every15(0, 30) {
			for _, pod := range pods {
				if pod != "f" || at != 15 {
					w.page(pod, at, grows(at))
				}
			}
		}
		w.want(w.answer(31, pods...), want)
	}
}

// TestGroupedAfterFailedScrapes checks the same for the pods of a gateway.
func TestGroupedAfterFailedScrapes(t *testing.T) {
	const expression = `sum by (exported_namespace, ingress) (rate(hits[1m]))`
	pods := []string{"a", "b", "c", "d", "e"}
	w := newWorld(t, groupedBy(expression))
	for _, at := range every15(0, 240) {
		for _, pod := range pods {
			if failed := pod == "e" && at > 60 && at <= 105; !failed {
				w.page(pod, at, "# TYPE hits counter", fmt.Sprintf(`hits{namespace="a",ingress="x"} %g`, 1e6+10*at))
			}
		}
		if at < 60 {
			continue
		}
		a := w.answer(at, pods...)
		if len(a.Values) != 1 || math.Abs(a.Values[0].Value-50) > 0.1 {
			t.Errorf("at %g s: %s, %v; want 50", at, byLabels(a), a.Err())
		}
		if filled := at >= 120 && at < 165; filled != (a.Filled == 1) {
			t.Errorf("at %g s: %d pods are filled in", at, a.Filled)
		}
	}
}
