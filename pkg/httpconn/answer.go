package httpconn

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Answer is what a server answers. It is valid until the function that reads it returns. If that
// function does not read the body to its end, the connection is closed.
type Answer struct {
	Status   int
	Header   http.Header // without echoed credentials
	Received time.Time   // when the header was complete

	resp    *http.Response
	drained bool // the body was read to its end
	secret  string
	owner   string
	pool    *Pool
	x       *Exchange
	body    *body // nil until Bytes is called
}

// Read reads the body as the server sent it, possibly compressed. It is limited only by Config.MaxBody
// plus some framing.
func (a *Answer) Read(p []byte) (n int, err error) {
	n, err = a.resp.Body.Read(p)
	a.drained = a.drained || err == io.EOF // exactly: an error that wraps it is a failure
	return n, err
}

// Redact removes the credentials of the request from s.
func (a *Answer) Redact(s string) string { return redact(s, a.secret) }

// Bytes reads the whole body, decompressed. Call it once. The limit applies both to the bytes on the wire and to
// the decompressed bytes.
func (a *Answer) Bytes(ctx context.Context) ([]byte, error) {
	a.x.Step = readingAnswer
	limit := a.pool.config.MaxBody
	if a.resp.ContentLength > limit {
		return nil, &TooLargeError{limit: limit, size: a.resp.ContentLength}
	}
	wire := &io.LimitedReader{R: a, N: limit + 1} // a gzip stream may be endless and yield nothing
	a.body = bodyPool.Get().(*body)
	from, err := a.decoded(wire)
	if err != nil {
		return nil, err
	}
	b := a.body.bytes[:0]
	for {
		if len(b) == cap(b) {
			if err := a.takeTurn(ctx, cap(b)); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, min(2*cap(b), int(limit)+1)), b...)
			a.body.bytes = b
		}
		n, err := from.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit, wire.N <= 0:
			a.drained = false // in case that this was the last byte
			return nil, &TooLargeError{limit: limit}
		case err == io.EOF: // exactly, as above
			return b, nil
		case err != nil:
			return nil, err
		}
	}
}

// decoded returns a reader of wire, decompressed if that was asked for.
func (a *Answer) decoded(wire io.Reader) (io.Reader, error) {
	switch encoding := strings.Join(a.Header["Content-Encoding"], ", "); {
	case encoding == "" || strings.EqualFold(encoding, "identity"):
		return wire, nil
	case strings.EqualFold(encoding, "gzip") && a.pool.config.Gzip:
		if a.body.gzip == nil {
			a.body.gzip = new(gzip.Reader)
		}
		return a.body.gzip, a.body.gzip.Reset(wire)
	default:
		return nil, &EncodingError{encoding}
	}
}

// takeTurn waits until a buffer of size bytes may grow.
func (a *Answer) takeTurn(ctx context.Context, size int) error {
	var need *Turns
	for _, t := range a.pool.config.Turns {
		if size >= t.size {
			need = t
		}
	}
	if need == a.body.turns {
		return nil
	}
	step := a.x.Step
	a.x.Step = WaitingForTurn
	if err := need.turns.Take(ctx, a.owner); err != nil {
		return err
	}
	a.x.Step = step
	a.body.giveTurn()
	a.body.turns, a.body.owner = need, a.owner
	return nil
}

// body is the buffer of one answer.
type body struct {
	bytes []byte
	gzip  *gzip.Reader // nil until needed
	turns *Turns       // where owner has a turn for this answer; nil if it needs none
	owner string
}

const (
	// maxKept is the largest buffer that is reused: three times the answer of a node with 250 pods.
	maxKept = 1 << 20
	// maxLarge is how many answers larger than maxKept are read at once, unless Config.Turns says otherwise.
	maxLarge = 4
)

var bodyPool = sync.Pool{New: func() any { return &body{bytes: make([]byte, 0, 64<<10)} }}

// free gives the buffer back. A buffer that took a turn is large and is not reused, because an
// answer that needs no turn could get it.
func (b *body) free() {
	switch {
	case b == nil:
	case b.turns != nil:
		b.giveTurn()
	case cap(b.bytes) <= maxKept:
		bodyPool.Put(b) // from now on, another answer may have it
	}
}

func (b *body) giveTurn() {
	if b.turns != nil {
		b.turns.turns.Give(b.owner)
		b.turns = nil
	}
}

// EncodingError is the error of an answer with a content encoding that was not requested.
type EncodingError struct{ Encoding string }

func (e *EncodingError) Error() string {
	return fmt.Sprintf("answer is encoded as %s, which was not requested", e.Encoding)
}

// TooLargeError is the error of an answer that exceeds the limit.
type TooLargeError struct {
	limit int64
	size  int64 // 0: not known
}

func (e *TooLargeError) Error() string {
	if e.size == 0 {
		return fmt.Sprintf("answer is too large: it has more than %d bytes, which is the limit", e.limit)
	}
	return fmt.Sprintf("answer is too large: it has %d bytes, and the limit is %d", e.size, e.limit)
}
