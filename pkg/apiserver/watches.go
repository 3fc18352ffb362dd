package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
)

// maxWatches is the maximum number of watches, of which one user has at most three quarters. Each has
// a connection of its own, since HTTP/1.1 is served.
const maxWatches = 1500

// watches are the watches in flight. They last for hours, so they take neither the places of other
// requests nor those of their connections.
type watches struct {
	places      inFlight
	connections *connections    // nil: not limited
	ending      context.Context // done when all watches end
	end         context.CancelFunc
}

func newWatches(limit int, c *connections) *watches {
	w := &watches{places: inFlight{limit: limit, byUser: map[string]int{}}, connections: c}
	w.ending, w.end = context.WithCancel(context.Background())
	return w
}

// place is the place of a request in flight, which a watch exchanges for one among the watches.
type place struct {
	user  string
	leave func()
}

type placeKey struct{}

// serve returns a handler that counts watches and ends them, and rejects those over WebSocket. It must run after
// authorization, so that watches that are not allowed count as ordinary requests.
func (s *watches) serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok || info.Verb != "watch" {
			next.ServeHTTP(w, r)
			return
		}
		// The generic API server would take over the connection and write to it without a deadline.
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			http.Error(w, "Watches are not served over WebSocket: omit the Upgrade header, and read the events from "+
				"the response body.", http.StatusBadRequest)
			return
		}
		if p, ok := r.Context().Value(placeKey{}).(place); ok {
			if !s.places.enter(p.user) {
				w.Header().Set("Retry-After", "1")
				http.Error(w, fmt.Sprintf("Too many watches of user %q are open: watch more objects with one watch, "+
					"or try again later.", p.user), http.StatusTooManyRequests)
				return
			}
			defer s.places.leave(p.user)
			p.leave()
		}
		if s.connections != nil {
			defer s.connections.watch(r.RemoteAddr)()
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.ending, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// patientWriter gives a client that watches timeout for reading each piece, instead of a deadline for the whole
// answer.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func withPatience(w http.ResponseWriter, timeout time.Duration) http.ResponseWriter {
	return responsewriter.WrapForHTTP1Or2(&patientWriter{w, http.NewResponseController(w), timeout})
}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements http.ResponseWriter. The deadline holds for the flush that follows, too.
func (w *patientWriter) Write(b []byte) (int, error) {
	// Only the response writers of tests do not support deadlines.
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout))
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher. It removes the deadline: over HTTP/2, a deadline that passes ends the stream, even if
// nothing is being written.
func (w *patientWriter) Flush() {
	_ = w.control.Flush()
	_ = w.control.SetWriteDeadline(time.Time{})
}
