package appmetrics

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// work limits what matching the series of one page may take. It counts steps, of which a pattern takes at most as many
// for each byte of a value as it has instructions: 10 ns each at most, and far less in most patterns. Only after
// freeSteps does it look at the clock, so a server that is short of CPU refuses no page that is easy to match.
type work struct {
	left  int64 // steps until it looks at the clock
	until time.Time
	over  bool // no more may be taken
}

const (
	// maxMatching is how long a page that takes more than freeSteps may take.
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

func newWork() work { return work{left: freeSteps, until: time.Now().Add(maxMatching)} }

// matches reports whether s selects l, a series of its name. It returns false once w is over.
func (w *work) matches(s *selector, l labels.Labels) bool {
	for i, m := range s.matchers {
		value := l.Get(m.Name)
		if w.left -= matcherSteps + int64(s.steps[i]*len(value)); w.left < 0 && w.isOver() || !m.Matches(value) {
			return false
		}
	}
	return true
}

// isOver looks at the clock.
func (w *work) isOver() bool {
	if w.over = w.over || time.Now().After(w.until); !w.over {
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
