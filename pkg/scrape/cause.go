package scrape

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// crowdedError is a scrape that was given up for another one.
type crowdedError struct{ after time.Duration }

func (e *crowdedError) Error() string {
	return fmt.Sprintf("no answer within %v, given up then because too many nodes did not answer", e.after.Round(time.Millisecond))
}
func (*crowdedError) Cause() string  { return causeTimeout }
func (*crowdedError) Remedy() string { return remedyTimeout }

// panicError is a panic of a Fetcher or a Sink.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }
func (*panicError) Cause() string   { return "panic" }
func (*panicError) Remedy() string {
	return "this is a bug of metrics-server: report it with the stack in its log"
}

// explained is an error that says its cause and what can be done.
type explained interface {
	error
	Cause() string
	Remedy() string
}

const (
	causeTimeout = "timeout"
	causeOther   = "other"

	remedyTimeout = "check that the node is up and that the network lets this server reach it"
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
