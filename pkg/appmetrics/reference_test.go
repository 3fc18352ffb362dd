package appmetrics

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// reference is a Prometheus that scraped the same pages: it parses them as a whole, keeps every
// series at the times of the wall clock, and marks those that vanished as stale.
type reference struct {
	series map[string]*referenceSeries
	now    int64
	pod    string
}

type referenceSeries struct {
	labels labels.Labels
	points []chunks.Sample
}

// point is a sample, and implements chunks.Sample.
type point struct {
	at    int64
	value float64
}

func (p point) T() int64                    { return p.at }
func (point) ST() int64                     { return 0 }
func (p point) F() float64                  { return p.value }
func (point) H() *histogram.Histogram       { return nil }
func (point) FH() *histogram.FloatHistogram { return nil }
func (point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample         { return p }

func (r *reference) family([]byte, model.MetricType) {}

func (r *reference) sample(_ []byte, v float64, read func(*labels.Labels)) error {
	var l labels.Labels
	read(&l)
	l = labels.NewBuilder(l).Set("namespace", "shop").Set("pod", r.pod).Labels()
	r.push(l, v)
	return nil
}

func (r *reference) push(l labels.Labels, v float64) {
	s := r.series[l.String()]
	if s == nil {
		s = &referenceSeries{labels: l}
		r.series[l.String()] = s
	}
	s.points = append(s.points, point{r.now, v})
}

func (r *reference) record(t *testing.T, pod string, at time.Time, page []byte) {
	t.Helper()
	r.pod, r.now = pod, at.UnixMilli()
	if err := parse(textFormat, append([]byte(nil), page...), r); err != nil {
		t.Fatal(err)
	}
	for _, s := range r.series {
		last := s.points[len(s.points)-1]
		if s.labels.Get("pod") == pod && last.T() != r.now && !value.IsStaleNaN(last.F()) {
			s.points = append(s.points, point{r.now, math.Float64frombits(value.StaleNaN)})
		}
	}
}

func (r *reference) Querier(int64, int64) (storage.Querier, error) { return r, nil }
func (r *reference) Close() error                                  { return nil }

func (r *reference) LabelValues(context.Context, string, *storage.LabelHints,
	...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (r *reference) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string,
	annotations.Annotations, error,
) {
	return nil, nil, nil
}

func (r *reference) Select(_ context.Context, _ bool, _ *storage.SelectHints,
	matchers ...*labels.Matcher,
) storage.SeriesSet {
	var all []storage.Series
	for _, s := range r.series {
		if matchAll(s.labels, matchers) {
			all = append(all, storage.NewListSeries(s.labels, s.points))
		}
	}
	slices.SortFunc(all, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &listed{SeriesSet: storage.EmptySeriesSet(), series: all}
}

// listed implements storage.SeriesSet.
type listed struct {
	storage.SeriesSet // that has neither errors nor warnings
	series            []storage.Series
	next              int
}

func (l *listed) Next() bool {
	l.next++
	return l.next <= len(l.series)
}
func (l *listed) At() storage.Series { return l.series[l.next-1] }

// TestReference compares with Prometheus' engine over everything that was on the pages: what is not
// kept changes no result.
func TestReference(t *testing.T) {
	expressions := []string{
		"sum by (pod) (rate(requests_total[1m]))",
		"sum by (pod) (rate(requests_total{code=~\"5..\"}[1m])) / sum by (pod) (rate(requests_total[1m]))",
		"sum by (pod) (increase(requests_total[2m]))",
		"histogram_quantile(0.9, sum by (pod, le) (rate(latency_bucket[1m])))",
		"sum by (pod) (rate(latency_sum[45s])) / sum by (pod) (rate(latency_count[45s]))",
		"sum by (pod) (depth)", "max by (pod) (depth{queue!=\"a\"})",
		"max by (pod) (max_over_time(depth[1m]))", "avg by (pod) (avg_over_time(depth[2m]))",
		"sum by (pod) (deriv(depth[1m]))",
		"max_over_time(sum by (pod) (rate(requests_total[1m]))[1m:15s])",
		"sum by (pod) (depth) > 10 or sum by (pod) (irate(requests_total[1m]))",
		"sum by (pod) (changes(depth[1m]))", "sum by (pod) (resets(requests_total[2m]))", "topk(1, depth)",
		"sum by (pod) (depth) * on (pod) group_left () (count by (pod) (requests_total))",
		"quantile by (pod) (0.5, depth)", "sum by (pod) (depth) - sum by (pod) (depth) % 3",
		"absent(depth{queue=\"nosuch\"})",
	}
	const window = "sum by (pod) (rate(requests_total[30s]))" // compared with the default expression
	r := rand.New(rand.NewPCG(3, 4))
	var queries []*Query
	for _, e := range expressions {
		queries = append(queries, compileB(t, Definition{Name: "m", Expression: e}))
	}
	byDefault := compileB(t, Definition{Name: "requests_total"})
	kept := Keep(append(queries, byDefault)...)
	for range 10 {
		s := New(Config{})
		ref := &reference{series: map[string]*referenceSeries{}}
		counts := map[string]int{}
		pods := []Pod{{UID: "0", Name: "a"}, {UID: "1", Name: "b"}}
		for step := range 14 {
			now := at(15 * float64(step))
			for _, p := range pods {
				page := referencePage(r, counts, p.Name)
				ref.record(t, p.Name, now, page)
				if err := s.Record(p.UID, kept, Page{Namespace: "shop", Pod: p.Name, At: now, Body: page}); err != nil {
					t.Fatal(err)
				}
			}
			if step < 12 {
				continue
			}
			for _, q := range append(queries, byDefault) {
				expression := q.Expression()
				if q == byDefault {
					expression = window
				}
				e := &evaluation{s: s, q: q, now: now, answer: &Answer{}, epoch: s.epoch}
				e.collect(pods)
				got, failed := e.run(t.Context(), expression, e.live)
				if failed != nil {
					t.Fatal(failed)
				}
				query, err := s.engine.NewInstantQuery(t.Context(), ref, nil, expression, now)
				if err != nil {
					t.Fatal(err)
				}
				want, err := query.Exec(t.Context()).Vector()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(text(want), text(got), cmpopts.SortSlices(strings.Compare)); diff != "" {
					t.Errorf("%s (-Prometheus +store):\n%s", expression, diff)
				}
				query.Close()
				if q == byDefault {
					a := s.Evaluate(t.Context(), q, pods, now)
					for i, v := range a.Values {
						if math.Abs(v.Value-got[i].F) > 1e-9 {
							t.Errorf("the default is %v, want %v", v, got[i])
						}
					}
				}
			}
		}
	}
}

func text(v promql.Vector) (all []string) {
	for _, s := range v {
		all = append(all, fmt.Sprintf("%s %.9g", s.Metric, s.F))
	}
	return all
}

// referencePage returns a page with counters that sometimes restart, gauges that come and go, and a
// histogram, among much else.
func referencePage(r *rand.Rand, counts map[string]int, pod string) []byte {
	var b strings.Builder
	b.WriteString("# TYPE requests_total counter\n")
	for _, code := range []string{"200", "404", "500"} {
		key := pod + code
		counts[key] += r.IntN(100)
		if r.IntN(10) == 0 {
			counts[key] = r.IntN(10)
		}
		fmt.Fprintf(&b, "requests_total{code=%q} %d\n", code, counts[key])
	}
	b.WriteString("# TYPE depth gauge\ndepth 1\n# HELP other depth 1\nother{depth=\"\n\"} 1\n")
	for _, queue := range []string{"a", "b", "c"} {
		if r.IntN(5) > 0 {
			fmt.Fprintf(&b, "depth{queue=%q} %d\n", queue, r.IntN(20))
		}
	}
	b.WriteString("# TYPE latency histogram\n")
	sum := 0
	for _, le := range []string{"0.1", "1", "+Inf"} {
		key := pod + "le" + le
		counts[key] += r.IntN(10)
		sum += counts[key]
		fmt.Fprintf(&b, "latency_bucket{le=%q} %d\n", le, sum)
	}
	fmt.Fprintf(&b, "latency_sum %d\nlatency_count %d\n", 2*sum, sum)
	return []byte(b.String())
}
