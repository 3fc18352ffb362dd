package appmetrics

import (
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// stale marks a page that lacks a series. hole marks a time before a series was first seen. Both are
// NaNs that no page can bring.
var (
	stale = math.Float64frombits(value.StaleNaN)
	hole  = math.Float64frombits(value.StaleNaN + 1)
)

func isStale(v float64) bool { return math.Float64bits(v) == value.StaleNaN }
func isHole(v float64) bool  { return math.Float64bits(v) == value.StaleNaN+1 }
func isValue(v float64) bool { return !isStale(v) && !isHole(v) }

// target is what is kept of one pod.
type target struct {
	mu   sync.Mutex // guards the fields that follow
	kept *Kept      // nil until the first good page
	// rows are the lines of wanted families on the last page, in its order. Pages keep their order,
	// so a row is nearly always found where it was, and its labels are parsed only once.
	rows []row
	// times are when the pages arrived that are still needed, in milliseconds of the store's clock,
	// in ascending order. The last one is that of the last good page.
	times []int64
	// series are those of which at least one value is kept. Invariant: each has as many values as
	// there are times.
	series   []*series
	families []Family  // sorted by name
	at       time.Time // when the last good page arrived
	started  float64   // process_start_time_seconds, 0 if not on the last page
	found    *found    // nil unless the last page lacked something
	// leftOut are the queries for whose series there was no room on the last page, and why. It is never changed.
	leftOut map[*Query]*Error
	// added are the selectors whose series have been kept only since a later page than the first one of times.
	added []addition

	namespace string // of the pod
	size      int64  // bytes that count against Config.Memory
	forgotten bool   // no longer in the store
}

// addition says since when the series of a selector have been kept.
type addition struct {
	selector string // its text, which stays the same when a query is compiled again
	since    int64  // when the first page came of which they were kept
}

// row is one line of a wanted family.
type row struct {
	hash   uint64  // of the series' text
	series *series // nil if it is not kept
	start  bool    // whether it says when the process started
}

// series is one kept series.
type series struct {
	labels  labels.Labels
	values  []float64 // one for each time of the target; may be stale or hole
	counter bool      // whether it only grows
	last    float64   // the newest value
	seen    int64     // when it came; 0 before the first one
}

func (s *series) name() string { return s.labels.Get(model.MetricNameLabel) }

// satisfies reports whether the last page had the series and x selects it; false once w is over.
func (s *series) satisfies(x *selector, w *work) bool {
	return s.now() && s.name() == x.name && w.matches(x, s.labels)
}

// now reports whether the last page had the series.
func (s *series) now() bool { return isValue(s.values[len(s.values)-1]) }

// noteAdded remembers since when the series of each selector of k have been kept, if there are older pages. The last
// page is the first one of k.
func (t *target) noteAdded(k *Kept) {
	before := t.added
	t.added = nil
	for _, selectors := range k.selectors {
		for _, s := range selectors {
			since := t.times[len(t.times)-1]
			if t.kept.knows(s) {
				since = sinceOf(before, s.text)
			}
			if since > t.times[0] {
				t.added = append(t.added, addition{s.text, since})
			}
		}
	}
}

// sinceOf returns since when the series of a selector have been kept, 0 if that is not known to be recent.
func sinceOf(added []addition, selector string) int64 {
	for i := range added {
		if added[i].selector == selector {
			return added[i].since
		}
	}
	return 0
}

// Family is a family that a page has, under the name that its samples have.
type Family struct {
	Name string
	Type string // "counter", "gauge", "histogram", "summary" or "untyped"
}

// familyType returns the type of the family that a series belongs to.
func familyType(name string, families []Family) string {
	base, part := cutSuffix(name)
	kind := "untyped"
	for i := range families {
		switch f := &families[i]; {
		case f.Name == name:
			kind = f.Type
		case part && f.Name == base && (f.Type == "histogram" || f.Type == "summary"):
			return f.Type
		}
	}
	return kind
}

// isCounter reports whether a series only grows, except for restarts.
func isCounter(name string, families []Family) bool {
	switch familyType(name, families) {
	case "counter":
		return true
	case "histogram", "summary":
		_, part := cutSuffix(name)
		return part
	case "untyped":
		return strings.HasSuffix(name, "_total")
	}
	return false
}
