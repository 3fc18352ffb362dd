package history

import (
	"maps"
	"slices"
	"sync"
	"time"

	"metrics-server/pkg/fairshare"
)

// MaxRetention is how far back a History reaches at most.
const MaxRetention = 24 * time.Hour

// MaxSeries is how many series a History keeps, unless its Config says otherwise. Each takes about
// 0.55 KiB an hour, so 30,000 take 390 MiB over 24 hours.
const MaxSeries = 30_000

// fairPart limits what the nodes, or one namespace with its workloads, may have to three quarters of
// all series, so that some always remain for others.
const fairPart = 3

// Config configures a History.
type Config struct {
	// Retention is how long points are kept, in whole minutes: at least one and at most MaxRetention.
	Retention time.Duration
	// Series is how many series are kept; default MaxSeries.
	Series int
	// Instance is sent to clients, who can tell replicas by it.
	Instance string
}

// History keeps points. Make it with New.
type History struct {
	config  Config
	since   time.Time
	minutes int64 // Retention
	shares  *fairshare.Pool

	mu sync.RWMutex // guards the fields that follow
	// first and last are the oldest minute that is kept and that of the last Record, since 1970. Valid
	// iff recorded.
	first, last int64
	recorded    bool
	series      map[Key]*series
	keys        []Key // of series, sorted; replaced, never changed in place
	leftOut     int   // how many series the last Record had that are not kept
}

// New returns an empty History that begins now.
func New(c Config, now time.Time) *History {
	if c.Series == 0 {
		c.Series = MaxSeries
	}
	return &History{
		config: c, since: now, minutes: int64(c.Retention / time.Minute),
		shares: fairshare.New(fairPart, fairshare.Fixed(int64(c.Series))),
		series: map[Key]*series{},
	}
}

// Report describes a Record.
type Report struct {
	Kept    int // how many series there are, with those whose last point is older
	LeftOut int // how many series of the Minute are not kept, because there are too many
	Example Key // one of the latter
}

// minuteOf returns the full minute that is nearest to t, in minutes since 1970. A timer may fire a
// little early by the wall clock.
func minuteOf(t time.Time) int64 { return (t.Unix() + 30) / 60 }

// Record stores m as the point of the full minute that is nearest to now. The second point of a
// minute replaces the first. If the clock has been set back, the points from now on are dropped.
//
// Series that exist have precedence over new ones when there are too many, and nodes and namespaces
// over workloads.
func (h *History) Record(now time.Time, m *Minute) Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	minute := minuteOf(now)
	if h.recorded && minute <= h.last {
		for _, s := range h.series {
			s.dropFrom(minute)
		}
	}
	if !h.recorded || minute < h.first {
		h.first, h.recorded = minute, true
	}
	h.first, h.last = max(h.first, minute-h.minutes+1), minute

	var added []Key
	points := map[Key]point{} // of added
	add := func(k Key, p point) {
		if s := h.series[k]; s != nil {
			s.set(minute, p)
			return
		}
		added, points[k] = append(added, k), p
	}
	for name, u := range m.nodes {
		add(Key{Kind: KindNode, Name: name}, point{columnCPU: encode(u.CPU), columnMemory: encode(u.Memory)})
	}
	for k, s := range m.sums {
		add(k, s.point())
	}
	gone := h.expireLocked()
	r := Report{}
	slices.SortFunc(added, Key.compare)
	for _, k := range added {
		if !h.shares.Take(ownerOf(k), 1) {
			r.LeftOut++
			r.Example = k
			continue
		}
		s := newSeries(k)
		s.set(minute, points[k])
		h.series[k] = s
	}
	if gone > 0 || len(added) > r.LeftOut {
		h.keys = slices.SortedFunc(maps.Keys(h.series), Key.compare)
	}
	h.leftOut, r.Kept = r.LeftOut, len(h.series)
	return r
}

// expireLocked drops the points that are older than the retention, and returns how many series had
// no others.
func (h *History) expireLocked() (gone int) {
	for k, s := range h.series {
		if s.dropBefore(h.first); len(s.blocks) == 0 {
			delete(h.series, k)
			h.shares.Give(ownerOf(k), 1)
			gone++
		}
	}
	return gone
}

// ownerOf returns the owner of a series: its namespace, "" for nodes.
func ownerOf(k Key) string {
	if k.Kind == KindNamespace && k.Namespace == "" {
		return k.Name
	}
	return k.Namespace
}
