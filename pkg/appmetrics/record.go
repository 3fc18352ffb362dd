package appmetrics

import (
	"bytes"
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Page is a pod's answer.
type Page struct {
	Namespace, Pod string
	// At is when the answer arrived.
	At time.Time
	// Started is when the container started, zero if that is not known. It is used if the page does
	// not say when the process started.
	Started time.Time
	// ContentType is the Content-Type of the answer.
	ContentType string
	// Body is the answer, decompressed. Record keeps nothing of it.
	Body []byte
	// Filtered says that the pod was asked for the names of Kept only. If such a page lacks what a query
	// needs, Record returns ErrFiltered, because the pod may have it under another name.
	Filtered bool
}

// ErrFiltered says that a page may lack something only because it was filtered by name. Had it been
// recorded, a counter on the next page that is not filtered would seem to be new, and to count from zero.
var ErrFiltered = errors.New("the page lacks what is wanted, perhaps because it was filtered by name")

// PartialError says that a page was recorded without the series of some queries, for which there was no room.
// Until there is, Evaluate gives them this reason.
type PartialError struct{ Reason *Error }

func (e *PartialError) Error() string { return "a part of the page was not recorded: " + e.Reason.Text }

// record stores a page that arrived at now. It changes no value if it returns an error other than a
// *PartialError.
func (t *target) record(now int64, k *Kept, p *Page, c *Config) error {
	if len(p.Body) > c.MaxPage {
		return Errorf(OverLimit, "its page has more than %d bytes", c.MaxPage)
	}
	f, err := formatOf(p.ContentType)
	if err != nil {
		return notExposition(p, err)
	}
	x := scratches.Get().(*scratch)
	defer x.release()
	if x.filtered, err = filter(x.filtered[:0], f, p.Body, k); err != nil {
		if own := (*Error)(nil); errors.As(err, &own) {
			return own
		}
		return notExposition(p, err)
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.forgotten || len(t.times) > 0 && now <= t.times[len(t.times)-1] {
		return nil // nobody wants it any more, or a later page was recorded first
	}
	t.namespace = p.Namespace
	previous := t.kept
	if t.kept != k {
		t.rows = nil // what is kept has changed: match all series again
	}
	x.t, x.k, x.pod, x.format, x.work = t, k, p, f, work{left: freeSteps}
	if err := parse(f, x.filtered, x); err != nil {
		if own := (*Error)(nil); errors.As(err, &own) {
			return own
		}
		return notExposition(p, err)
	}
	if p.Filtered && x.lacks() {
		return cmp.Or(x.work.err(), ErrFiltered)
	}
	if err := t.take(x, now, previous, c); err != nil {
		return err
	}
	t.explain(now, f, p.Body, x, c)
	for _, q := range k.queries {
		if reason := t.leftOut[q]; reason != nil {
			return &PartialError{reason}
		}
	}
	return nil
}

// take stores the page in x. It changes no value if it returns an error.
func (t *target) take(x *scratch, now int64, previous *Kept, c *Config) error {
	added := 0
	started := 0.0
	for i := range x.hits {
		h := &x.hits[i]
		if h.series == nil && !h.labels.IsEmpty() {
			added++
		}
		if h.start && !math.IsNaN(h.value) && !math.IsInf(h.value, 0) {
			started = h.value
		}
	}
	if added > 0 {
		added = t.resolve(x)
	}
	room := t.fits(x, added, c)
	for !room && t.makeRoom(x) {
		room = t.fits(x, added, c)
	}
	if room {
		t.leftOut = nil
	} else if err := t.fit(x, now, c); err != nil {
		return err
	}

	slices.SortFunc(x.families, func(a, b Family) int { return strings.Compare(a.Name, b.Name) })
	restarted := t.restarted(started, x.pod.Started) && x.fell()
	t.trim(now, x.k, c)
	zeroAt := len(t.times) - 1 // index of the time at which new counters were zero, -1 if unknown
	if restarted && zeroAt >= 0 {
		t.addTime(t.restartTime(now, started, x.pod))
		zeroAt++
	}
	t.addTime(now)
	if t.kept != nil && t.kept != x.k {
		t.noteAdded(x.k)
	}
	last := len(t.times) - 1

	for i := range x.hits {
		h := &x.hits[i]
		if h.series == nil {
			if h.labels.IsEmpty() {
				continue
			}
			// Parsed on this page for the first time, and not the text of a known series.
			h.series = &series{labels: h.labels, values: make([]float64, last+1, last+2)}
			for j := range h.series.values {
				h.series.values[j] = hole
			}
			h.series.values[last] = stale
			h.series.counter = isCounter(h.series.name(), x.families)
			t.series = append(t.series, h.series)
		}
		s := h.series
		if s.now() {
			continue // the same series twice: the first one counts, as for Prometheus
		}
		// A counter that was missing for a while and has not fallen is not new.
		isNew := s.seen == 0 || h.value < s.last
		s.values[last], s.last, s.seen = h.value, h.value, now
		if zeroAt < 0 || !s.counter {
			continue
		}
		absent := !isValue(s.values[zeroAt])
		if absent && (restarted || isNew && previous.keeps(s.labels, &x.work)) {
			s.values[zeroAt] = 0
		}
	}

	if !slices.Equal(t.families, x.families) {
		t.families = slices.Clone(x.families)
		for _, s := range t.series {
			s.counter = isCounter(s.name(), t.families)
		}
	}
	rows := x.hits
	if x.partial {
		rows = nil // whatever was left out has to be matched again
	}
	x.changed = t.setRows(rows) || t.kept != x.k || x.partial
	forgot := (len(t.series) > len(t.rows) || x.changed) && t.forget(now-remembered, nil)
	t.kept, t.started, t.at = x.k, started, x.pod.At
	if forgot || x.changed {
		t.resize(min(t.sizeOf(c), t.size), c)
	}
	return nil
}

// resolve finds the series of lines whose text is new, and returns how many have no series yet.
func (t *target) resolve(x *scratch) (added int) {
	known := make(map[string]*series, len(t.series))
	key := func(l labels.Labels) string { return string(l.Bytes(nil)) }
	for _, s := range t.series {
		known[key(s.labels)] = s
	}
	for i := range x.hits {
		h := &x.hits[i]
		if h.series != nil || h.labels.IsEmpty() {
			continue
		}
		k := key(h.labels)
		s, ok := known[k]
		if !ok {
			added++
			known[k] = nil
			continue
		}
		if s == nil { // twice on this page: the first one counts, and the text of the other must be parsed again
			h.row, h.labels = row{}, labels.EmptyLabels()
			continue
		}
		h.series = s
	}
	return added
}

// setRows remembers the page's rows, and reports whether they have changed.
func (t *target) setRows(hits []hit) (changed bool) {
	if slices.EqualFunc(hits, t.rows, func(h hit, r row) bool { return h.row == r }) {
		return false
	}
	if cap(t.rows) < len(hits) || cap(t.rows) > 2*len(hits)+8 {
		t.rows = make([]row, 0, len(hits))
	}
	t.rows = t.rows[:0]
	for i := range hits {
		t.rows = append(t.rows, hits[i].row)
	}
	return true
}

// trim drops the times that are no longer needed, and the last page if it came too soon after the
// one before it: a range with points at very uneven distances gives a wrong rate.
func (t *target) trim(now int64, k *Kept, c *Config) {
	interval := k.Interval(c.Interval)
	if n := len(t.times); n >= 2 && t.times[n-1]-t.times[n-2] < interval.Milliseconds()/3 && !t.firstSeen(n-1) {
		t.times = t.times[:n-1]
		for _, s := range t.series {
			s.values = s.values[:n-1]
		}
	}
	// One more time than the span needs, so that it is known when a new series was zero.
	oldest := now - k.span.Milliseconds() - interval.Milliseconds()/2
	drop := 0
	for drop < len(t.times)-1 && t.times[drop+1] < oldest {
		drop++
	}
	if drop > 0 {
		t.times = slices.Delete(t.times, 0, drop)
		for _, s := range t.series {
			s.values = slices.Delete(s.values, 0, drop)
		}
		t.added = slices.DeleteFunc(t.added, func(a addition) bool { return a.since <= t.times[0] })
		if len(t.added) == 0 {
			t.added = nil // for the garbage collector
		}
	}
}

// firstSeen reports whether a series has its first value at the time with index i: without it, the
// series would seem to have been absent then.
func (t *target) firstSeen(i int) bool {
	return slices.ContainsFunc(t.series, func(s *series) bool { return isHole(s.values[i-1]) && !isHole(s.values[i]) })
}

// addTime adds a time at which no series has a value yet.
func (t *target) addTime(at int64) {
	t.times = append(t.times, at)
	for _, s := range t.series {
		s.values = append(s.values, stale)
	}
}

// remembered is for how long the last value of a series that is gone is kept, in milliseconds. If
// the series comes back, this value tells whether it has restarted.
const remembered = int64(10 * time.Minute / time.Millisecond)

// makeRoom drops half of the series that are gone, and are not on the page in x either, without waiting any longer for
// them to come back: those that have been gone for longest. It reports whether it dropped any.
func (t *target) makeRoom(x *scratch) bool {
	back := make(map[*series]bool, len(x.hits))
	for i := range x.hits {
		back[x.hits[i].series] = true
	}
	var seen []int64
	for _, s := range t.series {
		if !s.needed() && !back[s] {
			seen = append(seen, s.seen)
		}
	}
	if len(seen) == 0 {
		return false
	}
	slices.Sort(seen)
	return t.forget(seen[(len(seen)-1)/2], back)
}

// forget drops the series that came last at before or earlier and have no value that is still needed, except those in
// but. It reports whether it dropped any.
func (t *target) forget(before int64, but map[*series]bool) bool {
	count := len(t.series)
	t.series = slices.DeleteFunc(t.series, func(s *series) bool { return s.seen <= before && !s.needed() && !but[s] })
	return len(t.series) < count
}

// needed reports whether s has a value that a range may hold.
func (s *series) needed() bool {
	return slices.ContainsFunc(s.values, isValue)
}

// restarted reports whether the process seems to have started since the last good page. The start time on the
// page decides, or, if there is none, that of the container, which becomes known late. Some
// libraries compute their start time, so it may vary by jitter, and by up to skew if the clock of
// the node is set. If that clock is fast, the container seems to have just started on several pages in a row.
func (t *target) restarted(started float64, container time.Time) bool {
	const jitter, skew = 2, 60 // seconds
	if started != 0 && t.started != 0 {
		return started > t.started+jitter && started > float64(t.at.Unix())-skew
	}
	return container.After(t.at) && !t.at.IsZero()
}

// restartTime returns the moment between the last good page and now at which counters were zero:
// when the process started, or else right after that page.
func (t *target) restartTime(now int64, started float64, p *Page) int64 {
	before := t.times[len(t.times)-1]
	if started == 0 && !p.Started.IsZero() {
		started = float64(p.Started.Unix())
	}
	if zero := now - (p.At.UnixMilli() - int64(started*1000)); started != 0 && zero > before && zero < now {
		return zero
	}
	return min(before+1, now-1)
}

// notExposition explains a page that cannot be parsed.
func notExposition(p *Page, err error) *Error {
	kind := "its Content-Type is missing"
	if p.ContentType != "" {
		kind = "its Content-Type is " + strconv.Quote(shorten(p.ContentType))
	}
	if start := bytes.TrimLeft(p.Body, " \t\r\n"); len(start) > 0 && start[0] == '<' {
		return Errorf(NotExposition, "its page is HTML and not in an exposition format (%s): the path or the port "+
			"is wrong", kind)
	}
	return Errorf(NotExposition, "its page is not in an exposition format (%s): %s", kind, shorten(err.Error()))
}
