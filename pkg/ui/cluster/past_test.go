package cluster

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var nan = math.NaN()

func TestPast(t *testing.T) {
	const step = 15 * time.Second
	start := time.Unix(1_800_000_000, 0)
	tape := newTape(step, false, start)
	tick := tape.last
	add := func(values map[Past]float64) {
		t.Helper()
		tick++
		c := tape.column()
		for p, v := range values {
			p.put(c, Memory, v)
		}
		tape.add(tick, c)
	}
	check := func(v view, p Past, n int, want ...float32) {
		t.Helper()
		s := v.series(p, Memory, n)
		if d := cmp.Diff(want, s.Values, cmpopts.EquateNaNs()); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		if end := s.Start.Add(time.Duration(len(s.Values)) * step); !end.Equal(tape.timeOf(v.last + 1)) {
			t.Errorf("the series ends at %v, want %v", end, tape.timeOf(v.last+1))
		}
	}
	unknown := float32(nan)

	a := tape.take(2)
	check(tape.view, a, 10)
	add(map[Past]float64{a: 1})
	b := tape.take(2)
	add(map[Past]float64{a: 2, b: 20})
	check(tape.view, a, 10, 1, 2)
	check(tape.view, a, 1, 2)
	check(tape.view, b, 10, 20)

	// Another object takes the place of a: it sees nothing of a, and who has a still sees it.
	old := tape.view
	tape.give(a)
	c := tape.take(2)
	if c.slot != a.slot {
		t.Errorf("slot %d is not used again: %d", a.slot, c.slot)
	}
	check(tape.view, c, 10)
	add(map[Past]float64{c: 30})
	check(tape.view, c, 10, 30)
	check(old, a, 10, 1, 2)
	if wide := tape.take(3); wide.slot < 4 {
		t.Errorf("%+v is in the slots of another", wide)
	}

	// Left out, and a value that the object does not have.
	tick += 2
	add(map[Past]float64{b: 21})
	check(tape.view, b, 10, 20, unknown, unknown, unknown, 21)
	if v := tape.series(b, FirstMetric, 1).Values[0]; !math.IsNaN(float64(v)) {
		t.Errorf("a value that no object has: %v", v)
	}

	// Before the first tick, and where ticks were left out. The old view stays as it is.
	old = tape.view
	r := tape.revise()
	end := tape.timeOf(tape.last)
	r.fill(&b, func(at time.Time) []float64 {
		switch end.Sub(at) / step {
		case 6:
			return []float64{1, 19}
		case 0, 1, 4, 5:
			return []float64{2, 22}
		}
		return nil
	})
	r.apply()
	check(tape.view, b, 10, 19, 22, 20, unknown, unknown, 22, 21)
	check(old, b, 10, unknown, 20, unknown, unknown, unknown, 21)

	for range 2 * ShortPast {
		add(map[Past]float64{b: 1})
	}
	if n := len(tape.columns); n != ShortPast {
		t.Errorf("%d columns are kept, want %d", n, ShortPast)
	}
	tick += 10 * ShortPast
	add(map[Past]float64{b: 1})
	check(tape.view, b, 10, 1)
}
