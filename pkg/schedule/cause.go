package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrGivenUp is in the chain of the error of a scrape that was given up to make room for another. Its text is
// always the same.
var ErrGivenUp = errors.New("given up without an answer, because too many others do not answer")

// crowdedError is an ErrGivenUp that says how long the scrape lasted, and how far it got.
type crowdedError struct {
	after time.Duration
	err   error // of the scrape
}

func (e *crowdedError) Error() string {
	return fmt.Sprintf("given up after %v, because too many others do not answer: %v",
		e.after.Round(time.Millisecond), e.err)
}

func (*crowdedError) Unwrap() error { return ErrGivenUp }

// Cause returns the cause of the scrape's own error, if it has one: while all targets hang, most scrapes are given up,
// and nothing else says why.
func (e *crowdedError) Cause() string {
	if own, ok := errors.AsType[explained](e.err); ok {
		return own.Cause()
	}
	return causeTimeout
}

func (e *crowdedError) Remedy() string {
	if own, ok := errors.AsType[explained](e.err); ok {
		return own.Remedy()
	}
	return remedyCrowded
}

type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }
func (*panicError) Cause() string   { return causePanic }
func (*panicError) Remedy() string {
	return "this is a bug in metrics-server: report it with the stack trace in its log"
}

// explained is an error with a cause and a remedy.
type explained interface {
	error
	Cause() string
	Remedy() string
}

const (
	causeTimeout = "timeout"
	causeOther   = "other"
	causePanic   = "panic"

	remedyTimeout = "check that it is up and that the network lets this server reach it"
	remedyCrowded = "first repair those that the log of this server names"
)

// explain returns the cause and the remedy of err, or "" for nil.
func explain(err error) (cause, remedy string) {
	if e, ok := errors.AsType[explained](err); ok {
		return cmp.Or(e.Cause(), causeOther), e.Remedy()
	}
	switch {
	case err == nil:
		return "", ""
	case errors.Is(err, context.DeadlineExceeded):
		return causeTimeout, remedyTimeout
	default:
		return causeOther, ""
	}
}
