//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// prometheus is a server with the part of the Prometheus API that prometheus-adapter and backends use. Prometheus' own
// engine evaluates the queries. Its series have had a sample every 5 s since 1970: a gauge its start, and a counter its
// slope more for each second.
type prometheus struct {
	engine *promql.Engine
	parser parser.Parser
	series []timeSeries
}

// timeSeries is a series.
type timeSeries struct {
	labels       labels.Labels
	start, slope float64
}

// newPrometheus starts a server until the test ends, and returns its URL. A line of text has a series, its start and
// its slope.
func newPrometheus(t *testing.T, text string) string {
	t.Helper()
	p := &prometheus{parser: parser.NewParser(parser.Options{})}
	p.engine = promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: 10 * time.Second, Parser: p.parser})
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		of, err := p.parser.ParseMetric(fields[0])
		if err != nil || len(fields) != 3 {
			t.Fatalf("%q: %v", line, err)
		}
		s := timeSeries{labels: of}
		for i, field := range []*float64{&s.start, &s.slope} {
			if *field, err = strconv.ParseFloat(fields[i+1], 64); err != nil {
				t.Fatal(err)
			}
		}
		p.series = append(p.series, s)
	}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return server.URL
}

// ServeHTTP implements http.Handler.
func (p *prometheus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var data any
	var err error
	switch r.URL.Path {
	case "/api/v1/series":
		data, err = p.find(r)
	case "/api/v1/query":
		data, err = p.query(r)
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "error", "errorType": "execution", "error": err.Error()})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data})
}

// find returns the labels of the series that a request selects.
func (p *prometheus) find(r *http.Request) ([]labels.Labels, error) {
	matchers, err := p.parser.ParseMetricSelector(r.FormValue("match[]"))
	if err != nil {
		return nil, err
	}
	found := []labels.Labels{}
	for _, s := range p.series {
		if s.matches(matchers) {
			found = append(found, s.labels)
		}
	}
	return found, nil
}

// query returns the result of a request, at present.
func (p *prometheus) query(r *http.Request) (any, error) {
	q, err := p.engine.NewInstantQuery(r.Context(), p, nil, r.FormValue("query"), time.Now())
	if err != nil {
		return nil, err
	}
	defer q.Close()
	result := q.Exec(r.Context())
	if result.Err != nil {
		return nil, result.Err
	}
	pair := func(at int64, value float64) []any {
		return []any{float64(at) / 1000, strconv.FormatFloat(value, 'f', -1, 64)}
	}
	switch v := result.Value.(type) {
	case promql.Scalar:
		return map[string]any{"resultType": "scalar", "result": pair(v.T, v.V)}, nil
	case promql.Vector:
		vector := make([]map[string]any, len(v))
		for i, s := range v {
			vector[i] = map[string]any{"metric": s.Metric, "value": pair(s.T, s.F)}
		}
		return map[string]any{"resultType": "vector", "result": vector}, nil
	default:
		return map[string]any{"resultType": string(v.Type())}, nil
	}
}

func (s *timeSeries) matches(matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) })
}

// timeQuerier implements storage.Querier for a range of time, in milliseconds.
type timeQuerier struct {
	*prometheus
	from, to int64
}

// Querier implements storage.Queryable.
func (p *prometheus) Querier(from, to int64) (storage.Querier, error) {
	return &timeQuerier{p, from, to}, nil
}

// Close implements storage.Querier.
func (*timeQuerier) Close() error { return nil }

// LabelValues implements storage.Querier. The engine does not need it.
func (*timeQuerier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) (
	[]string, annotations.Annotations, error,
) {
	return nil, nil, nil
}

// LabelNames implements storage.Querier. The engine does not need it.
func (*timeQuerier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) (
	[]string, annotations.Annotations, error,
) {
	return nil, nil, nil
}

// Select implements storage.Querier.
func (q *timeQuerier) Select(
	_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	const step = 5000
	set := &timeSeriesSet{}
	for _, s := range q.series {
		if !s.matches(matchers) {
			continue
		}
		var samples []chunks.Sample
		for at := (q.from + step - 1) / step * step; at <= q.to; at += step {
			samples = append(samples, timeSample{at, s.start + s.slope*float64(at)/1000})
		}
		set.series = append(set.series, storage.NewListSeries(s.labels, samples))
	}
	return set
}

// timeSeriesSet implements storage.SeriesSet.
type timeSeriesSet struct {
	series []storage.Series
	next   int
}

func (s *timeSeriesSet) Next() bool                      { s.next++; return s.next <= len(s.series) }
func (s *timeSeriesSet) At() storage.Series              { return s.series[s.next-1] }
func (*timeSeriesSet) Err() error                        { return nil }
func (*timeSeriesSet) Warnings() annotations.Annotations { return nil }

// timeSample implements chunks.Sample.
type timeSample struct {
	at    int64
	value float64
}

func (s timeSample) T() int64                    { return s.at }
func (timeSample) ST() int64                     { return 0 }
func (s timeSample) F() float64                  { return s.value }
func (timeSample) H() *histogram.Histogram       { return nil }
func (timeSample) FH() *histogram.FloatHistogram { return nil }
func (timeSample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s timeSample) Copy() chunks.Sample         { return s }
