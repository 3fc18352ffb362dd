package appmetrics

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// work limits what matching the series of one page, or explaining one evaluation, may take. It counts steps, of which
// a pattern takes at most as many for each byte of a value as it has instructions: 10 ns each at most, and far less in
// most patterns. Only after freeSteps does it look at the clock, so a server that is short of CPU refuses no page that
// is easy to match.
type work struct {
	left  int64           // steps until it looks at the clock
	until time.Time       // zero until it looks for the first time
	done  <-chan struct{} // when it is closed, no more may be taken; nil without effect
	over  bool            // no more may be taken
}

const (
	// maxMatching is how long matching may go on after freeSteps.
	maxMatching = time.Second
	freeSteps   = 10_000_000
	// moreSteps is how many steps are taken between two looks at the clock.
	moreSteps = 1_000_000
	// costlySteps is how many steps a page may take that does not count as Costly.
	costlySteps = 1_000_000
	// matcherSteps is what a matcher takes in addition to its pattern, to find the label.
	matcherSteps = 4
	// shortLine is the assumed length of short lines of a page, in bytes.
	shortLine = 20
)

// matches reports whether s selects l, a series of its name. It returns false once w is over.
func (w *work) matches(s *selector, l labels.Labels) bool {
	for i, m := range s.matchers {
		if !w.match(m, s.steps[i], l.Get(m.Name)) {
			return false
		}
	}
	return true
}

// match reports whether m, which takes that many steps for a byte, matches a value; false once w is over.
func (w *work) match(m *labels.Matcher, steps int, value string) bool {
	w.left -= matcherSteps + int64(steps*len(value))
	return (w.left >= 0 || !w.isOver()) && m.Matches(value)
}

// isOver looks at the clock.
func (w *work) isOver() bool {
	now := time.Now()
	if w.until.IsZero() {
		w.until = now.Add(maxMatching)
	}
	select {
	case <-w.done:
		w.over = true
	default:
		w.over = w.over || now.After(w.until)
	}
	if !w.over {
		w.left = moreSteps
	}
	return w.over
}

// err returns an error once w is over.
func (w *work) err() error {
	if !w.over {
		return nil
	}
	return Errorf(OverLimit, "its series take longer than %v to match with the selectors of the metrics that refer to "+
		"it: use = instead of =~ in expressions, fewer or shorter patterns, or fewer selectors", maxMatching)
}

// Costly reports whether Record may take long to match the series of a page of so many bytes. Let a namespace record
// only one such page at a time.
func (k *Kept) Costly(page int) bool {
	return int64(page)*(k.steps+k.matchers*matcherSteps/shortLine) > costlySteps
}
