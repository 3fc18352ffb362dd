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

// crowdedError is an ErrGivenUp that says how long the scrape lasted.
type crowdedError struct{ after time.Duration }

func (e *crowdedError) Error() string {
	return fmt.Sprintf("given up after %v without an answer, because too many others do not answer",
		e.after.Round(time.Millisecond))
}
func (*crowdedError) Unwrap() error  { return ErrGivenUp }
func (*crowdedError) Cause() string  { return causeTimeout }
func (*crowdedError) Remedy() string { return remedyCrowded }

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
