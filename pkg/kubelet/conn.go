package kubelet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
)

const (
	maxHeader = 64 << 10 // bytes of an answer's header; a kubelet's has 250
	readAhead = 64 << 10 // bytes taken from the kernel at once: a node with 40 pods in one piece
)

var errHeaderTooLarge = errors.New("the answer's header has more than 64 KiB")

// conn is a connection to a kubelet. Only close may be called by others than its owner.
type conn struct {
	addr string
	set  *credentialSet   // that it was made with; nil for plain HTTP
	sock *socket          // the TCP connection
	rw   net.Conn         // TLS over sock, or sock itself
	h2   *http.ClientConn // over rw, if HTTP/2 was negotiated

	bare   bool // no credential in a header may be sent
	kept   bool // it has carried an exchange before
	secret string

	http1 *http1 // during an exchange over HTTP/1.1
	stop  func() bool
}

// http1 is the memory of one exchange over HTTP/1.1.
type http1 struct {
	request bytes.Buffer
	limit   io.LimitedReader
	reader  *bufio.Reader
}

var http1Pool = sync.Pool{New: func() any { return &http1{reader: bufio.NewReader(nil)} }}

// handshake makes sock, a new connection to addr, ready for exchanges. It closes sock if it fails.
func (s *Clients) handshake(ctx context.Context, sock net.Conn, addr string, set *credentialSet, resume *session) (*conn, error) {
	k := &conn{addr: addr, set: set, sock: &socket{Conn: sock}}
	k.rw = k.sock
	if set == nil {
		k.bare = true
		return k, nil
	}
	config := set.config.Clone()
	config.ServerName, _, _ = net.SplitHostPort(addr)
	k.bare = config.GetClientCertificate != nil
	if s.tls.plugin != nil {
		shown, err := s.tls.plugin()
		if err != nil {
			sock.Close()
			return nil, err
		}
		if k.bare = shown != nil; k.bare {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
		}
	} else {
		config.ClientSessionCache = resume // not with a plugin: the session would outlive its certificate
	}
	k.sock.record = new(recordReader)
	secured := tls.Client(k.sock, config)
	k.rw = secured
	err := secured.HandshakeContext(ctx)
	if err == nil && secured.ConnectionState().NegotiatedProtocol == "h2" {
		k.sock.record = nil
		k.h2, err = s.h2.NewClientConn(context.WithValue(ctx, securedKey{}, secured), "https", addr)
	}
	if err != nil {
		sock.Close()
		return nil, err
	}
	return k, nil
}

type securedKey struct{}

// newHTTP2 returns a transport that makes the *tls.Conn which it finds in the context an HTTP/2
// connection.
func newHTTP2() *http.Transport {
	t := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(securedKey{}).(*tls.Conn), nil
		},
		Protocols:              new(http.Protocols),
		DisableCompression:     true, // Client asks and decodes itself, to limit what comes out
		MaxResponseHeaderBytes: maxHeader,
	}
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(true)
	return t
}

// alive says whether k can carry another exchange, as far as is known without trying.
func (k *conn) alive() bool { return k.h2 == nil || k.h2.Available() > 0 }

func (k *conn) close() {
	if k.h2 != nil {
		k.h2.Close()
	}
	k.rw.Close()
}

// connKey is the key of the context's value by which a request finds its connection.
type connKey struct{}

// wire is the end of the chain of round trippers that add credentials. Nothing else sends requests.
type wire struct{}

// RoundTrip sends req on the connection in its context. What a server echoes of a credential stops here: client-go, which is on the way
// up, logs the header of an answer at high verbosity.
func (wire) RoundTrip(req *http.Request) (*http.Response, error) {
	k := req.Context().Value(connKey{}).(*conn)
	if k.bare {
		req.Header.Del("Authorization")
	}
	k.secret = req.Header.Get("Authorization")
	resp, err := k.roundTrip(req)
	if err != nil {
		return nil, fitForLogs(err, k.secret)
	}
	for _, values := range resp.Header {
		for i := range values {
			values[i] = redact(values[i], k.secret)
		}
	}
	return resp, nil
}

func (k *conn) roundTrip(req *http.Request) (*http.Response, error) {
	if k.h2 != nil {
		return k.h2.RoundTrip(req)
	}
	return k.http1.roundTrip(k.rw, req)
}

func (h *http1) roundTrip(rw io.ReadWriter, req *http.Request) (*http.Response, error) {
	h.request.Reset()
	if err := req.Write(&h.request); err != nil {
		return nil, err
	}
	if _, err := rw.Write(h.request.Bytes()); err != nil {
		return nil, err
	}
	h.limit = io.LimitedReader{R: rw, N: maxHeader}
	h.reader.Reset(&h.limit)
	resp, err := http.ReadResponse(h.reader, req)
	if err != nil && h.limit.N <= 0 {
		err = errHeaderTooLarge
	}
	h.limit.N = math.MaxInt64 // whoever reads the body limits it
	return resp, err
}

// begin readies k for one exchange, which the end of ctx interrupts.
func (k *conn) begin(ctx context.Context) {
	if k.h2 != nil {
		return // net/http sees to it
	}
	k.http1 = http1Pool.Get().(*http1)
	k.sock.mode = waiting
	k.stop = interruptible(ctx, k.sock.Conn)
}

// end ends the exchange and says whether k can carry another. The answer's body must have been closed.
func (k *conn) end() (reusable bool) {
	k.kept = true
	if k.h2 != nil {
		return true
	}
	// What comes after the answer is the end of the connection, or nothing that was asked for.
	reusable = k.stop() && k.http1.reader.Buffered() == 0 && len(k.sock.unread) == 0
	k.http1.reader.Reset(nil)
	k.http1.limit.R = nil
	http1Pool.Put(k.http1)
	k.http1 = nil
	k.sock.rest()
	return reusable
}

// socket reads from a connection in large pieces while an answer comes in. crypto/tls alone asks
// for little more than a record, and a kubelet writes records of 4 KiB. The first read of an
// exchange, which may last until the time-out, does without a buffer, and so does an idle connection.
type socket struct {
	net.Conn
	mode   mode
	buffer *[readAhead]byte
	unread []byte // of buffer

	// record, if not nil, sees to it that no Read goes beyond the end of a TLS record. What is left over from one, crypto/tls
	// keeps in a buffer that grows to three times a record, for as long as the connection lasts.
	record *recordReader
}

type mode uint8

const (
	direct  mode = iota
	waiting      // for the first byte of an answer
	ahead
)

var readAheadPool = sync.Pool{New: func() any { return new([readAhead]byte) }}

func (s *socket) Read(p []byte) (n int, err error) {
	if len(s.unread) == 0 {
		if s.mode != ahead {
			p = s.record.limit(p, nil)
			if n, err = s.Conn.Read(p); s.mode == waiting && n > 0 {
				s.mode = ahead
			}
			s.record.advance(p[:n])
			return n, err
		}
		if s.buffer == nil {
			s.buffer = readAheadPool.Get().(*[readAhead]byte)
		}
		n, err = s.Conn.Read(s.buffer[:])
		s.unread = s.buffer[:n]
	}
	p = s.record.limit(p, s.unread)
	n = copy(p, s.unread)
	s.record.advance(p[:n])
	s.unread = s.unread[n:]
	return n, err
}

// recordReader knows where in a stream of TLS records the next byte is.
type recordReader struct {
	header [5]byte // type, version, length of the rest: RFC 8446, section 5.1
	have   int     // bytes of header
	left   int     // bytes of the record after the header
}

// limit returns as much of p as what comes next may fill: up to the end of the record, or of the header if there is not
// all of that in ready, the bytes that come next.
func (r *recordReader) limit(p, ready []byte) []byte {
	if r == nil {
		return p
	}
	rest := r.left
	if rest == 0 {
		rest = len(r.header) - r.have
		if r.have == 0 && len(ready) >= len(r.header) {
			rest += recordLength(ready)
		}
	}
	return p[:min(len(p), rest)]
}

// advance takes what was read within the limit.
func (r *recordReader) advance(b []byte) {
	if r == nil {
		return
	}
	if r.left == 0 {
		n := copy(r.header[r.have:], b)
		if r.have += n; r.have < len(r.header) {
			return
		}
		r.left, r.have, b = recordLength(r.header[:]), 0, b[n:]
	}
	r.left -= len(b)
}

func recordLength(header []byte) int { return int(binary.BigEndian.Uint16(header[3:])) }

// rest gives the buffer back, unless something in it came too early.
func (s *socket) rest() {
	s.mode = direct
	if s.buffer != nil && len(s.unread) == 0 {
		readAheadPool.Put(s.buffer)
		s.buffer, s.unread = nil, nil
	}
}
