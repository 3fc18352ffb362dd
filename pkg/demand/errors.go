package demand

import "fmt"

// Cause is why a metric cannot be served.
type Cause string

// The causes.
const (
	BadAnnotation Cause = "annotation"   // an annotation of the HPA is wrong or unknown
	BadMetric     Cause = "metric"       // spec.metrics of the HPA has an entry that cannot be served
	OverLimit     Cause = "limit"        // the HPA has too many metrics, or its metric too many pods
	Conflict      Cause = "conflict"     // two HPAs mean different things by one request
	NoTarget      Cause = "no target"    // the target, a kind or a Service does not exist
	NoScale       Cause = "no scale"     // the target has no scale subresource
	NoSelector    Cause = "no selector"  // the target or the Service does not say which pods belong to it
	NoPort        Cause = "no port"      // the Service has no such port
	Forbidden     Cause = "forbidden"    // this server lacks a right
	NotRead       Cause = "not read yet" // the state of the API server has not been read yet
	Failing       Cause = "failing"      // the API server fails or cannot be reached
	Unwanted      Cause = "unwanted"     // no HPA refers to the metric
)

// Error says why a metric cannot be served. Its text is stable: it changes only if the situation does.
type Error struct {
	cause        Cause
	text, remedy string
}

func (e *Error) Error() string {
	if e.remedy == "" {
		return e.text
	}
	return e.text + ": " + e.remedy
}

// Cause returns the kind of the error.
func (e *Error) Cause() string { return string(e.cause) }

// Remedy returns what can be done about it: a clause without a full stop.
func (e *Error) Remedy() string { return e.remedy }

// newError returns an Error whose text is formatted.
func newError(cause Cause, remedy, format string, args ...any) *Error {
	return &Error{cause: cause, text: fmt.Sprintf(format, args...), remedy: remedy}
}

// equal reports whether a and b say the same. Either may be nil.
func (e *Error) equal(o *Error) bool {
	return e == o || e != nil && o != nil && *e == *o
}
