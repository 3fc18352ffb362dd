package appmetrics

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Estimated sizes in bytes, which count against Config.Memory. TestMemory compares them with the
// heap.
const (
	targetBytes   = 450
	rowBytes      = 24
	seriesBytes   = 140 // without labels and values
	queryBytes    = 2 << 10
	selectorBytes = 200
	// instructionBytes is what an instruction of a pattern takes in all of its compiled forms
	// together.
	instructionBytes = 100
	// keptBytes is what a page's Kept takes for a default expression, and keptSelectorBytes what it
	// takes for each selector of other expressions, including what target.added takes. Most pages
	// share their Kept, so the average is lower.
	keptBytes         = 1 << 10
	keptSelectorBytes = 256
)

// Size estimates how many bytes a query takes.
func (q *Query) Size() int64 {
	n := queryBytes + 3*len(q.expression) + instructionBytes*q.instructions
	for i := range q.selectors {
		n += selectorBytes + 3*len(q.selectors[i].text)
	}
	return int64(n)
}

// KeptSize estimates how many bytes a query takes for each page of which it has something kept,
// without the series.
func (q *Query) KeptSize() int64 {
	if q.expression == "" {
		return keptBytes
	}
	return int64(keptSelectorBytes * len(q.selectors))
}

// ShareUsedUp is a phrase in the errors of all limits that namespaces share.
const ShareUsedUp = "has used up its share of"

// OverShareError is the error of a namespace that has used up its share of the memory already.
func OverShareError(namespace string) *Error {
	return Errorf(OverShare, "namespace %q "+ShareUsedUp+" the memory for custom metrics: let its "+
		"HorizontalPodAutoscalers select fewer series by label, shorten the ranges of expressions, or remove metrics",
		namespace)
}

// points is how many values a series may have with k: one for each page that the longest range
// needs, and one for each restart between two of these pages.
func (k *Kept) points(usual time.Duration) int64 {
	interval := k.Interval(usual)
	return 2 * (int64((k.span+interval/2)/interval) + 2)
}

func sizeOfSeries(l labels.Labels, points int64) int64 {
	return seriesBytes + int64(l.ByteSize()) + sizeOfPoints(points)
}

func sizeOfPoints(points int64) int64 { return 8 * points }

// sizeWith estimates what t takes once the page in x is stored, if no older series is forgotten.
func (t *target) sizeWith(x *scratch, c *Config) int64 {
	points := x.k.points(c.Interval)
	n := int64(targetBytes + rowBytes*len(x.hits))
	for _, s := range t.series {
		n += sizeOfSeries(s.labels, points)
	}
	for i := range x.hits {
		if h := &x.hits[i]; h.series == nil && !h.labels.IsEmpty() {
			n += sizeOfSeries(h.labels, points)
		}
	}
	return n
}

// sizeOf estimates what t takes.
func (t *target) sizeOf(c *Config) int64 {
	points := t.kept.points(c.Interval)
	n := int64(targetBytes + rowBytes*len(t.rows))
	for _, s := range t.series {
		n += sizeOfSeries(s.labels, points)
	}
	return n + t.found.size()
}

// size estimates what f takes.
func (f *found) size() (n int64) {
	if f == nil {
		return 0
	}
	const header = 16
	for _, name := range f.names {
		n += header + int64(len(name))
	}
	for k, values := range f.values {
		n += 4*header + int64(len(k.name)+len(k.label))
		for _, v := range values {
			n += header + int64(len(v))
		}
	}
	return n
}

// resize takes or gives back memory so that t has n bytes of Config.Memory. It reports whether the
// namespace may have that much; if not, nothing changes.
func (t *target) resize(n int64, c *Config) bool {
	if c.Memory != nil {
		if n > t.size && !c.Memory.Take(t.namespace, n-t.size) {
			return false
		}
		if n < t.size {
			c.Memory.Give(t.namespace, t.size-n)
		}
	}
	t.size = n
	return true
}
