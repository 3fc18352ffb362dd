package appmetrics

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Cause says why there is no value, in the order in which causes are reported: the first ones are
// mistakes that somebody has to mend, the last ones pass by themselves.
type Cause uint8

// The causes.
const (
	// BadExpression: the expression is not valid PromQL, or uses what is refused.
	BadExpression Cause = iota + 1
	// WrongShape: the expression does not return what the metric needs.
	WrongShape
	// OverLimit: the expression or the page is larger than the limits allow.
	OverLimit
	// OverShare: the namespace has used up its share of a limit, or the pod has reached a limit of its own.
	OverShare
	// NotExposition: the page is not in an exposition format.
	NotExposition
	// NoFamily: the page has no family of this name.
	NoFamily
	// WrongType: the family's type rules the question out.
	WrongType
	// NoBuckets: a quantile was asked for, and the histogram has no buckets.
	NoBuckets
	// NoMatch: the page has the family, and the label filter matches none of its series.
	NoMatch
	// NotFinite: the value is NaN or infinite.
	NotFinite
	// NoObservations: nothing was observed in the window, so there is no mean and no quantile.
	NoObservations
	// NoResult: the series are there, and the expression returns nothing for the pod.
	NoResult
	// Incomplete: too many pods are missing for a single value.
	Incomplete
	// NoAnswer: the pod has not answered yet.
	NoAnswer
	// Expired: the pod's last good answer is too old.
	Expired
	// TooFewPoints: a range needs two answers, and there was only one so far.
	TooFewPoints
	// Canceled: the evaluation was ended from outside.
	Canceled
)

// causeNames are the causes in logs and in the labels of metrics.
var causeNames = [...]string{
	BadExpression: "bad expression", WrongShape: "wrong shape", OverLimit: "over limit", OverShare: "over share",
	NotExposition: "not an exposition", NoFamily: "no family", WrongType: "wrong type", NoBuckets: "no buckets",
	NoMatch: "no match", NotFinite: "not finite", NoObservations: "no observations", NoResult: "no result",
	Incomplete: "incomplete", NoAnswer: "no answer", Expired: "expired", TooFewPoints: "too few points",
	Canceled: "canceled",
}

// String returns the cause's name.
func (c Cause) String() string {
	if int(c) < len(causeNames) && causeNames[c] != "" {
		return causeNames[c]
	}
	return fmt.Sprintf("Cause(%d)", c)
}

// Error is a typed cause with a text for users. The text does not change as long as the situation
// does not.
type Error struct {
	Cause Cause
	// Position is where in the expression the mistake is: a byte offset, -1 if there is none.
	Position int
	Text     string
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// Errorf returns an Error without a position.
func Errorf(c Cause, format string, args ...any) *Error {
	return &Error{Cause: c, Position: -1, Text: fmt.Sprintf(format, args...)}
}

// summarize returns one error for many pods: its cause is the first of theirs, its text has the first three
// different texts, and whether there are more.
func summarize(missing []Missing) *Error {
	if len(missing) == 0 {
		return Errorf(NoAnswer, "there are no pods to ask")
	}
	errs := make([]*Error, 0, len(missing))
	for i := range missing {
		errs = append(errs, missing[i].Err)
	}
	slices.SortStableFunc(errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Text, b.Text))
	})
	errs = slices.CompactFunc(errs, func(a, b *Error) bool { return a.Text == b.Text })
	const shown = 3
	texts := make([]string, 0, shown)
	for _, e := range errs[:min(len(errs), shown)] {
		texts = append(texts, e.Text)
	}
	if len(errs) > shown {
		texts = append(texts, "and others") // not how many: a text that changes from call to call makes many Events
	}
	return &Error{Cause: errs[0].Cause, Position: errs[0].Position, Text: strings.Join(texts, "; ")}
}

// maxListed is how many names list shows.
const maxListed = 10

// list joins names for a text. It ends in "..." if there are more than maxListed.
func list(names []string) string {
	if len(names) > maxListed {
		return strings.Join(names[:maxListed], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}

// shorten cuts a text that a pod can make long.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
