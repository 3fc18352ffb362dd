package backend

import (
	"fmt"
	"unicode/utf8"
)

// Cause is why there is no value.
type Cause string

// The causes.
const (
	BadExpression Cause = "expression"         // not valid PromQL, or not allowed
	BadFile       Cause = "credentials file"   // a file with credentials or authorities cannot be used
	Unresolved    Cause = "unknown host"       // the URL's host has no address
	Refused       Cause = "connection refused" // nothing listens there
	Unreachable   Cause = "unreachable"        // another failure to connect, or the connection ended early
	Timeout       Cause = "timeout"            // no complete answer in time
	Busy          Cause = "busy"               // too many queries, by the limit of the Client or of the server
	TLSFailed     Cause = "tls"                // the TLS handshake failed
	Unauthorized  Cause = "401"
	Denied        Cause = "403"
	NotFound      Cause = "404"
	Redirect      Cause = "redirect"
	BadQuery      Cause = "query refused" // the server refuses or cannot evaluate the query
	ServerError   Cause = "5xx"
	BadStatus     Cause = "status" // any other status
	TooLarge      Cause = "too large"
	NotPrometheus Cause = "not the Prometheus API"
	Warned        Cause = "warning" // the answer has warnings
	Partial       Cause = "partial" // the answer is said to be incomplete
	WrongType     Cause = "wrong type"
	NoValue       Cause = "no value"
	Ambiguous     Cause = "more than one value"
	NotFinite     Cause = "not finite"
	NotAsked      Cause = "not asked yet"
	Expired       Cause = "expired"    // the last answer is too old
	OverShare     Cause = "over share" // the namespace has used up its share of the memory for answers
)

// Error says why there is no value. Its text changes only if the situation does.
type Error struct {
	cause        Cause
	text, remedy string
	err          error
}

func newError(cause Cause, remedy, format string, args ...any) *Error {
	return &Error{cause: cause, text: fmt.Sprintf(format, args...), remedy: remedy}
}

// because adds the error of a library, which may name hosts and addresses.
func (e *Error) because(err error) *Error {
	e.err = err
	return e
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

// Unwrap returns the error behind it, nil if there is none. It may name hosts and addresses, and has no
// credentials.
func (e *Error) Unwrap() error { return e.err }

// shorten returns s, or its beginning and "..." if it is longer than an error should quote.
func shorten(s string) string {
	limit := 300
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}
