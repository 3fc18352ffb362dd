package appmetrics

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// querier shows the engine the series of the pods of one evaluation, and of no others. It is for one
// evaluation at the time now, in milliseconds.
type querier struct {
	storage.LabelQuerier // which the engine does not use
	pods                 []*state
	now                  int64
	selected             int // series so far
}

var errSelected = errors.New("too many series are selected")

// Querier implements storage.Queryable.
func (q *querier) Querier(int64, int64) (storage.Querier, error) { return q, nil }

// Select implements storage.Querier. The engine does not need sorted series, and sorting them would take a quarter of
// an evaluation. They come in the order of the pods and of their pages, so that a sum is the same each time.
func (q *querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints,
	matchers ...*labels.Matcher,
) storage.SeriesSet {
	oldest, newest := int64(0), q.now
	if hints != nil {
		oldest, newest = hints.Start, hints.End
	}
	set := &seriesSet{next: -1}
	for _, p := range q.pods {
		set.series = p.appendTo(ctx, set.series, q.now, oldest, newest, matchers)
		if ctx.Err() != nil {
			return storage.ErrSeriesSet(ctx.Err())
		}
		if q.selected+len(set.series) > maxSelected {
			return storage.ErrSeriesSet(errSelected)
		}
	}
	q.selected += len(set.series)
	if sorted {
		slices.SortFunc(set.series, func(a, b shown) int { return labels.Compare(a.labels, b.labels) })
	}
	return set
}

// appendTo appends the series of t that match and have a sample within a time. The last page is shown as if it had
// arrived now. It ends early with ctx, because a pattern may take milliseconds for a series.
func (c *snapshot) appendTo(ctx context.Context, all []shown, now, oldest, newest int64, matchers []*labels.Matcher,
) []shown {
	for i := range c.series { // if there are any, there are pages
		if ctx.Err() != nil {
			return all
		}
		s := shown{series: &c.series[i], times: c.times, shift: now - c.times[len(c.times)-1]}
		if matchAll(s.labels, matchers) && s.hasSample(oldest, newest) {
			all = append(all, s)
		}
	}
	return all
}

// seriesSet implements storage.SeriesSet.
type seriesSet struct {
	series []shown
	next   int
}

func (s *seriesSet) Next() bool {
	s.next++
	return s.next < len(s.series)
}
func (s *seriesSet) At() storage.Series              { return &s.series[s.next] }
func (*seriesSet) Err() error                        { return nil }
func (*seriesSet) Warnings() annotations.Annotations { return nil }

// shown is a series as the engine sees it. It implements storage.Series.
type shown struct {
	*series
	times []int64
	shift int64 // is added to times
}

// at returns the time of the sample with index i.
func (s *shown) at(i int) int64 { return s.times[i] + s.shift }

// hasSample reports whether there is a sample within a time, which may be one that marks the series as stale.
func (s *shown) hasSample(oldest, newest int64) bool {
	for i, v := range s.values {
		if at := s.at(i); !isHole(v) && at >= oldest && at <= newest {
			return true
		}
	}
	return false
}

func (s *shown) Labels() labels.Labels { return s.labels }

// Iterator implements storage.Series. It may reuse the iterator of another series, which is no longer needed.
func (s *shown) Iterator(used chunkenc.Iterator) chunkenc.Iterator {
	it, ok := used.(*iterator)
	if !ok {
		it = &iterator{}
	}
	it.of, it.i = s, -1
	return it
}

// iterator implements chunkenc.Iterator.
type iterator struct {
	of *shown
	i  int // of the current sample: -1 before the first one, len(of.values) after the last one
}

func (it *iterator) Next() chunkenc.ValueType {
	for it.i < len(it.of.values) {
		if it.i++; it.i < len(it.of.values) && !isHole(it.of.values[it.i]) {
			return chunkenc.ValFloat
		}
	}
	return chunkenc.ValNone
}

// milliseconds is an alias only to keep go vet from taking iterator for an incorrect io.Seeker.
type milliseconds = int64

func (it *iterator) Seek(at milliseconds) chunkenc.ValueType {
	for it.i < 0 || it.i < len(it.of.values) && it.AtT() < at {
		it.Next()
	}
	if it.i == len(it.of.values) {
		return chunkenc.ValNone
	}
	return chunkenc.ValFloat
}

func (it *iterator) At() (int64, float64) { return it.AtT(), it.of.values[it.i] }
func (it *iterator) AtT() int64           { return it.of.at(it.i) }
func (*iterator) AtST() int64             { return 0 }
func (*iterator) Err() error              { return nil }

// AtHistogram implements chunkenc.Iterator. No sample is a histogram.
func (*iterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) { return 0, nil }

// AtFloatHistogram implements chunkenc.Iterator. No sample is a histogram.
func (*iterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return 0, nil
}
