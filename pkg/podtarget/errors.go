package podtarget

import "fmt"

// Cause is why a pod gave no metrics.
type Cause string

// The causes.
const (
	NoIP          Cause = "no address"         // the pod has no IP address yet
	BadAddress    Cause = "address refused"    // its address is one that is never asked
	NoPort        Cause = "no port"            // it is not known which port to ask
	BadAnnotation Cause = "annotation"         // an annotation of the pod is wrong
	Refused       Cause = "connection refused" // nothing listens there
	Timeout       Cause = "timeout"            // there was no answer in time
	Unreachable   Cause = "unreachable"        // no route to the pod, or another failure to connect
	Reset         Cause = "reset"              // the connection ended before the answer was complete
	PlainPort     Cause = "plain http"         // the scheme is https, and the port speaks http
	TLSPort       Cause = "https"              // the scheme is http, and the port speaks TLS
	ClientCert    Cause = "client certificate" // the server wants a client certificate, as a mesh's sidecar does
	TLSFailed     Cause = "tls"                // any other failure of a TLS handshake
	Unauthorized  Cause = "401"
	Denied        Cause = "403"
	NotFound      Cause = "404"
	Redirect      Cause = "redirect"
	ServerError   Cause = "5xx"
	BadStatus     Cause = "status" // any other status
	TooLarge      Cause = "too large"
	NotMetrics    Cause = "not an exposition"
	Other         Cause = "other"
)

// Error says why a pod gave no metrics.
type Error struct {
	cause        Cause
	text, remedy string
	err          error
}

func (e *Error) Error() string {
	if e.remedy == "" {
		return e.text
	}
	return e.text + ": " + e.remedy
}

// Unwrap returns the error of the connection, nil if there is none.
func (e *Error) Unwrap() error { return e.err }

// Cause returns the kind of the error.
func (e *Error) Cause() string { return string(e.cause) }

// Remedy returns what can be done about it: a clause without a full stop.
func (e *Error) Remedy() string { return e.remedy }

func newError(cause Cause, remedy, format string, args ...any) *Error {
	return &Error{cause: cause, text: fmt.Sprintf(format, args...), remedy: remedy}
}
