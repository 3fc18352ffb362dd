package cluster

import (
	"math"
	"slices"
	"time"
)

// tape keeps the past of many objects. At each tick it gets a column with one value for each slot. Columns do not
// change once they are added, so that views can share them; a revision replaces them. Slots of deleted objects are used
// again, and still have the values of these objects at the ticks before Past.since.
type tape struct {
	view
	long  bool
	slots int32             // how many there are
	free  map[int16][]int32 // slots that are not in use, by width
}

// view is a tape at a moment.
type view struct {
	step time.Duration
	// last is the tick of the last column. The time of a tick is its number times step since 1970.
	last    int64
	columns [][]float32 // one for each tick; nil if nothing is known of it
}

// newTape returns a tape that begins at the tick after now.
func newTape(step time.Duration, long bool, now time.Time) *tape {
	return &tape{view: view{step: step, last: tickAt(now, step)}, long: long, free: map[int16][]int32{}}
}

// tickAt returns the last tick that is not after t.
func tickAt(t time.Time, step time.Duration) int64 { return t.UnixNano() / int64(step) }

func (v view) timeOf(tick int64) time.Time { return time.Unix(0, tick*int64(v.step)) }

func (t *tape) length() int {
	if t.long {
		return LongPast
	}
	return ShortPast
}

// take returns the past of a new object that has width values.
func (t *tape) take(width int) Past {
	p := Past{long: t.long, width: int16(width), since: t.last + 1}
	if free := t.free[p.width]; len(free) > 0 {
		p.slot, t.free[p.width] = free[len(free)-1], free[:len(free)-1]
		return p
	}
	p.slot = t.slots
	t.slots += int32(p.width)
	return p
}

// give takes back the past of a deleted object.
func (t *tape) give(p Past) { t.free[p.width] = append(t.free[p.width], p.slot) }

// column returns a column of unknown values.
func (t *tape) column() []float32 {
	c := make([]float32, t.slots)
	for i := range c {
		c[i] = float32(math.NaN())
	}
	return c
}

// add adds the column of a tick. Nothing is known of the ticks that were left out since the last one.
func (t *tape) add(tick int64, column []float32) {
	if tick-t.last > int64(t.length()) {
		t.columns, t.last = nil, tick-1
	}
	// The list is copied: views share it, and one that grew would keep what is no longer in it.
	columns := slices.Concat(t.columns, make([][]float32, tick-1-t.last), [][]float32{column})
	t.columns, t.last = slices.Clone(columns[max(len(columns)-t.length(), 0):]), tick
}

// recorded reports whether the tape has the column of a tick that is not after the last one.
func (t *tape) recorded(tick int64) bool {
	i := tick - (t.last + 1 - int64(len(t.columns)))
	return i >= 0 && t.columns[i] != nil
}

// revision changes columns that a tape already has. It copies those that it changes, because views share them.
type revision struct {
	tape    *tape
	first   int64       // the tick of columns[0]
	columns [][]float32 // as many as the tape can have
	copied  []bool      // the columns that no view shares
}

// revise returns a revision, which changes the tape once it is applied. The tape must not change before.
func (t *tape) revise() *revision {
	n := t.length()
	r := &revision{
		tape: t, first: t.last + 1 - int64(n), columns: make([][]float32, n), copied: make([]bool, n),
	}
	copy(r.columns[n-len(t.columns):], t.columns)
	return r
}

// column returns column i, to be changed.
func (r *revision) column(i int) []float32 {
	if !r.copied[i] {
		c := r.tape.column()
		copy(c, r.columns[i])
		r.columns[i], r.copied[i] = c, true
	}
	return r.columns[i]
}

// fill sets the values of p at the ticks before p begins and at those that the tape did not record, and makes p begin
// at the first tick. valuesAt returns nothing for a time of which it knows nothing; then the values become unknown,
// because the slot of p may still have those of a deleted object.
func (r *revision) fill(p *Past, valuesAt func(time.Time) []float64) {
	for i := range r.columns {
		tick := r.first + int64(i)
		if tick >= p.since && r.tape.recorded(tick) {
			continue
		}
		values := valuesAt(r.tape.timeOf(tick))
		if len(values) == 0 && r.columns[i] == nil {
			continue
		}
		column := r.column(i)
		for q := range Quantity(p.width) {
			value := math.NaN()
			if int(q) < len(values) {
				value = values[q]
			}
			p.put(column, q, value)
		}
	}
	p.since = min(p.since, r.first)
}

// apply replaces the columns of the tape.
func (r *revision) apply() {
	begin := len(r.columns) - len(r.tape.columns)
	if i := slices.IndexFunc(r.columns[:begin], func(c []float32) bool { return c != nil }); i >= 0 {
		begin = i
	}
	r.tape.columns = r.columns[begin:]
}

// put writes a value into a column of the tape that p is from.
func (p Past) put(column []float32, q Quantity, value float64) {
	column[p.slot+int32(q)] = float32(value)
}

// series returns the last n values.
func (v view) series(p Past, q Quantity, n int) Series {
	begin := v.last + 1 - int64(len(v.columns))
	first := max(p.since, begin, v.last+1-int64(n))
	s := Series{Start: v.timeOf(first), Step: v.step}
	for tick := first; tick <= v.last; tick++ {
		value := float32(math.NaN())
		if column, i := v.columns[tick-begin], int(p.slot)+int(q); i < len(column) && q < Quantity(p.width) {
			value = column[i]
		}
		s.Values = append(s.Values, value)
	}
	return s
}
