package appmetrics

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// scratch is the working memory of Record.
type scratch struct {
	filtered []byte
	hits     []hit
	families []Family
	byHash   map[uint64]int32
	builder  *labels.Builder
	// The fields that follow are for one page.
	t       *target
	k       *Kept
	pod     *Page
	format  format
	next    int  // index of the row that is expected
	indexed bool // whether byHash has the rows
	changed bool // whether the page has other rows than the last one
	partial bool // whether there was no room for all of the page: see target.fit
	work    work // what matching its series may still take
}

// hit is one line of a page.
type hit struct {
	row
	labels labels.Labels // of a series that is new
	value  float64
}

// seriesLabels returns the labels of the series that h has a value of; none if it is not kept.
func (h *hit) seriesLabels() labels.Labels {
	if h.series != nil {
		return h.series.labels
	}
	return h.labels
}

// maxScratch is the largest buffer, in bytes, that a scratch may keep for its next use.
const maxScratch = 1 << 18

var scratches = sync.Pool{New: func() any {
	return &scratch{byHash: map[uint64]int32{}, builder: labels.NewBuilder(labels.EmptyLabels())}
}}

func (x *scratch) release() {
	if cap(x.filtered) > maxScratch || len(x.byHash) > 1000 || cap(x.hits) > 1000 {
		return // dropped
	}
	clear(x.hits)
	x.hits, x.families, x.filtered = x.hits[:0], x.families[:0], x.filtered[:0]
	clear(x.byHash)
	x.t, x.k, x.pod, x.next, x.indexed, x.changed, x.partial = nil, nil, nil, 0, false, false, false
	scratches.Put(x)
}

// seed is the seed of the hashes of series' texts. It is random, so that pods cannot make two texts
// collide on purpose.
var seed = maphash.MakeSeed()

// family implements visitor.
func (x *scratch) family(name []byte, t model.MetricType) {
	f, ok := x.k.families[string(name)]
	if !ok {
		return
	}
	if x.format == openMetrics && t == model.MetricTypeCounter && !strings.HasSuffix(f.name, "_total") {
		f.name = f.total
	}
	for i := range x.families {
		if x.families[i].Name == f.name {
			x.families[i].Type = typeName(t)
			return
		}
	}
	x.families = append(x.families, Family{Name: f.name, Type: typeName(t)})
}

// typeName returns the type as users know it. Types of OpenMetrics that are read like a gauge are
// called one.
func typeName(t model.MetricType) string {
	switch t {
	case model.MetricTypeCounter, model.MetricTypeHistogram, model.MetricTypeSummary:
		return string(t)
	case model.MetricTypeGauge, model.MetricTypeGaugeHistogram, model.MetricTypeInfo, model.MetricTypeStateset:
		return string(model.MetricTypeGauge)
	}
	return "untyped"
}

// sample implements visitor.
func (x *scratch) sample(text []byte, v float64, read func(*labels.Labels)) error {
	if len(x.hits) == maxLines {
		return Errorf(OverLimit, "its page has more than %d series of the families that metrics refer to: expose fewer",
			maxLines)
	}
	h := maphash.Bytes(seed, text)
	if r := x.lookup(h); r != nil {
		x.hits = append(x.hits, hit{row: *r, value: v})
		return nil
	}
	var l labels.Labels
	read(&l)
	name := l.Get(model.MetricNameLabel)
	selectors, wanted := x.k.selectors[name]
	if !wanted { // the first sample of a page is always parsed
		x.hits = append(x.hits, hit{row: row{hash: h}})
		return nil
	}
	if err := checkLabels(name, l); err != nil {
		return err
	}
	start := name == startTime && l.Len() == 1
	if len(selectors) > 0 {
		l = x.withTarget(l)
	}
	if !x.k.keeps(l, &x.work) {
		l = labels.EmptyLabels()
	}
	if err := x.work.err(); err != nil {
		return err
	}
	x.hits = append(x.hits, hit{row: row{hash: h, start: start}, labels: l, value: v})
	return nil
}

// lookup returns the row of the last page that has a hash, or nil.
func (x *scratch) lookup(h uint64) *row {
	rows := x.t.rows
	if x.next < len(rows) && rows[x.next].hash == h {
		x.next++
		return &rows[x.next-1]
	}
	if !x.indexed {
		x.indexed = true
		for i := range rows {
			x.byHash[rows[i].hash] = int32(i)
		}
	}
	i, ok := x.byHash[h]
	if !ok {
		return nil
	}
	x.next = int(i) + 1
	return &rows[i]
}

func checkLabels(name string, l labels.Labels) error {
	if dup, ok := l.HasDuplicateLabelNames(); ok {
		return Errorf(NotExposition, "its page is not valid: a series of %s has the label %q twice", name, dup)
	}
	if l.Len() > maxLabels {
		return Errorf(OverLimit, "a series of %s has more than %d labels: expose fewer", name, maxLabels)
	}
	return l.Validate(func(l labels.Label) error {
		if len(l.Name) > maxName || len(l.Value) > maxValue {
			return Errorf(OverLimit, "a series of %s has a label value of more than %d bytes, or a label name of more than "+
				"%d: shorten it", name, maxValue, maxName)
		}
		return nil
	})
}

// withTarget returns the labels with those of the pod, which win, and without empty ones.
func (x *scratch) withTarget(l labels.Labels) labels.Labels {
	b := x.builder
	b.Reset(l)
	for _, own := range [...]labels.Label{{Name: "namespace", Value: x.pod.Namespace}, {Name: "pod", Value: x.pod.Pod}} {
		if v := l.Get(own.Name); v != "" {
			exported := "exported_" + own.Name
			for l.Get(exported) != "" {
				exported = "exported_" + exported
			}
			b.Set(exported, v)
		}
		b.Set(own.Name, own.Value)
	}
	return b.Labels()
}

// fell reports whether a counter is lower than when it was last seen. If none is, the process that counts has not
// restarted, whatever the start time says: it may be the start time of an exporter.
func (x *scratch) fell() bool {
	return slices.ContainsFunc(x.hits, func(h hit) bool {
		return h.series != nil && h.series.counter && h.value < h.series.last
	})
}

// lacks reports whether the page has nothing for a need; true once x.work is over.
func (x *scratch) lacks() bool {
	return slices.ContainsFunc(x.k.needs, func(n need) bool {
		return !slices.ContainsFunc(x.hits, func(h hit) bool {
			l := h.seriesLabels()
			return !l.IsEmpty() && slices.ContainsFunc(n.anyOf, func(s selector) bool {
				return s.name == l.Get(model.MetricNameLabel) && x.work.matches(&s, l)
			})
		})
	})
}
