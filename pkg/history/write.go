package history

import (
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
)

// bufferSize is how many bytes are written at once.
const bufferSize = 64 << 10

// Write writes the answer to q as JSON. It holds one buffer, however long the history is, and fails when
// w does.
func (h *History) Write(w io.Writer, q Query, now time.Time) error {
	head, keys, from := h.begin(q, now)
	b, err := json.Marshal(head)
	if err != nil {
		return err
	}
	b = append(b[:len(b)-1], `,"series":[`...)
	e := encoder{step: head.Step / 60, buckets: make([]bucket, head.Points)}
	before := ""
	for _, k := range keys {
		if !q.selects(k) || !h.merge(k, from, &e) {
			continue
		}
		if b, err = e.append(append(b, before...), k); err != nil {
			return err
		}
		before = ","
		if len(b) >= bufferSize {
			if _, err := w.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	_, err = w.Write(append(b, "]}\n"...))
	return err
}

// begin returns the header of an answer, the keys of all series, and the minute of point 0.
func (h *History) begin(q Query, now time.Time) (head Header, keys []Key, from int64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	last, step := q.minutes(h.minutes)
	from = now.Unix() / 60
	points := int64(0)
	if h.recorded {
		if from <= h.last+1 {
			from = h.last // the point of this minute may not be recorded yet
		}
		from = max(h.first, from-last+1)
		from -= from % step
		points = max(0, (h.last-from+step)/step)
		keys = h.keys
	}
	return Header{
		Kind: AnswerKind, Version: AnswerVersion, Instance: h.config.Instance, Since: h.since.UTC().Truncate(time.Second),
		Retention: h.minutes * 60, Step: step * 60, Start: time.Unix(from*60, 0).UTC(), Points: int(points),
		LeftOut: h.leftOut,
	}, keys, from
}

// merge fills e with the points of a series, and reports whether there are any.
func (h *History) merge(k Key, from int64, e *encoder) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	s := h.series[k]
	if s == nil {
		return false // it has left since the keys were read
	}
	clear(e.buckets)
	e.columns = s.columns
	to := from + int64(len(e.buckets))*e.step
	for _, b := range s.blocks {
		for minute := max(from, h.first, b.start); minute < min(to, b.start+blockMinutes); minute++ {
			e.buckets[(minute-from)/e.step].add(s, b, int(minute-b.start))
		}
	}
	return slices.ContainsFunc(e.buckets, bucket.known)
}

// bucket merges the points of one step.
type bucket struct {
	cpu, memory   float64 // sums over used points
	used          int     // points with a usage
	counted       int     // points with a number of pods
	pods, missing float64 // the largest
}

func (k bucket) known() bool { return k.used+k.counted > 0 }

// add adds the point at an offset in a block.
func (k *bucket) add(s *series, b block, at int) {
	if c := b.codes[columnCPU*blockMinutes+at]; c != gap {
		k.cpu += c.value()
		k.memory += b.codes[columnMemory*blockMinutes+at].value()
		k.used++
	}
	if s.columns == nodeColumns {
		return
	}
	if c := b.codes[columnPods*blockMinutes+at]; c != gap {
		k.pods = max(k.pods, c.value())
		k.missing = max(k.missing, b.codes[columnMissing*blockMinutes+at].value())
		k.counted++
	}
}

// encoder appends one series after another.
type encoder struct {
	step    int64 // minutes
	columns int   // of the present series
	buckets []bucket
}

// append appends the series k, whose points are in e.buckets.
func (e *encoder) append(b []byte, k Key) ([]byte, error) {
	first := slices.IndexFunc(e.buckets, bucket.known)
	all := e.buckets[first:]
	for !all[len(all)-1].known() {
		all = all[:len(all)-1]
	}
	key, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	b = append(append(b, key[:len(key)-1]...), `,"first":`...)
	b = strconv.AppendInt(b, int64(first), 10)
	used := func(k *bucket) bool { return k.used > 0 }
	counted := func(k *bucket) bool { return k.counted > 0 }
	b = column(b, "cpu", all, used, func(b []byte, k *bucket) []byte {
		return strconv.AppendFloat(b, k.cpu/float64(k.used)/1e9, 'g', digits, 64)
	})
	b = column(b, "memory", all, used, func(b []byte, k *bucket) []byte {
		return strconv.AppendFloat(b, math.Round(k.memory/float64(k.used)), 'g', digits, 64)
	})
	if e.columns == numColumns {
		b = column(b, "pods", all, counted, func(b []byte, k *bucket) []byte { return appendCount(b, k.pods) })
		if slices.ContainsFunc(all, func(k bucket) bool { return k.missing > 0 }) {
			b = column(b, "missing", all, counted, func(b []byte, k *bucket) []byte { return appendCount(b, k.missing) })
		}
	}
	return append(b, '}'), nil
}

// digits is how many significant digits are sent. A code has no more.
const digits = 4

func appendCount(b []byte, v float64) []byte { return strconv.AppendInt(b, int64(math.Round(v)), 10) }

// column appends a column. value appends the value of a bucket that is known.
func column(
	b []byte, name string, all []bucket, known func(*bucket) bool, value func([]byte, *bucket) []byte,
) []byte {
	b = append(append(append(b, `,"`...), name...), `":[`...)
	for i := range all {
		if i > 0 {
			b = append(b, ',')
		}
		if known(&all[i]) {
			b = value(b, &all[i])
		} else {
			b = append(b, "null"...)
		}
	}
	return append(b, ']')
}
