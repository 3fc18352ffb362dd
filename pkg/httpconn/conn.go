package httpconn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
)

const (
	maxHeader = 64 << 10 // bytes of an answer's header; kubelets send 250
	readAhead = 64 << 10 // bytes read from the kernel at once: the whole answer of a node with 40 pods

	// maxInformational is how many 1xx answers may precede the answer. Kubelets send none, proxies
	// one.
	maxInformational = 8
)

// ErrHeaderTooLarge is the error of an answer whose header exceeds the limit.
var ErrHeaderTooLarge = errors.New("the answer's header has more than 64 KiB")

var errInformational = fmt.Errorf("more than %d informational answers (1xx) precede the answer", maxInformational)

// conn is one open connection. Only close may be called concurrently with other methods.
type conn struct {
	addr string
	set  *credentialSet // that it was made with; nil for plain HTTP
	sock *socket        // the TCP connection
	rw   net.Conn       // TLS over sock, or sock itself

	bare   bool // the Authorization header must not be sent
	kept   bool // it has carried an exchange before
	secret string
	limit  int64 // of the bytes of one answer after its header, with the framing of HTTP/1.1

	http1 *http1 // during an exchange
	stop  func() bool
}

// http1 is the memory of one exchange over HTTP/1.1.
type http1 struct {
	request bytes.Buffer
	limit   io.LimitedReader
	reader  *bufio.Reader
	rest    [1]byte // a byte that came after the answer
}

var http1Pool = sync.Pool{New: func() any { return &http1{reader: bufio.NewReader(nil)} }}

// handshake prepares sock, a new connection to addr, for exchanges. It closes sock on failure.
func (as *Credentials) handshake(ctx context.Context, sock net.Conn, addr string, set *credentialSet,
	session tls.ClientSessionCache, limit int64,
) (*conn, error) {
	k := &conn{addr: addr, set: set, sock: &socket{Conn: sock}, limit: limit}
	k.rw = k.sock
	if set == nil {
		k.bare = true
		return k, nil
	}
	config := set.config.Clone()
	config.ServerName, _, _ = net.SplitHostPort(addr)
	k.bare = config.GetClientCertificate != nil
	if as.trust.plugin != nil {
		shown, err := as.trust.plugin()
		if err != nil {
			sock.Close()
			return nil, err
		}
		if k.bare = shown != nil; k.bare {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
		}
	} else {
		config.ClientSessionCache = session // not with a plug-in: the session would outlive its certificate
	}
	k.sock.record = new(recordReader)
	secured := tls.Client(k.sock, config)
	k.rw = secured
	if err := secured.HandshakeContext(ctx); err != nil {
		sock.Close()
		return nil, err
	}
	return k, nil
}

// alive reports whether k looks able to carry another exchange. If anything arrived since the last
// answer, the server has closed the connection or is about to (408); in any case it is not the
// answer to the next request.
func (k *conn) alive() bool { return silent(k.sock.Conn) }

// certificate returns the certificate of the peer; nil for plain HTTP.
func (k *conn) certificate() *x509.Certificate {
	if secured, ok := k.rw.(*tls.Conn); ok {
		return secured.ConnectionState().PeerCertificates[0]
	}
	return nil
}

func (k *conn) close() { k.rw.Close() }

// maxFramed returns how many bytes an answer of at most limit bytes may take on the wire. Kubelets
// send chunks of 4 KiB, each with 7 bytes of framing; a chunk of one byte may have 22.
func maxFramed(limit int64) int64 { return limit + limit/8 + maxHeader }

func (h *http1) roundTrip(rw io.ReadWriter, req *http.Request, limit int64) (*http.Response, error) {
	h.request.Reset()
	if err := req.Write(&h.request); err != nil {
		return nil, err
	}
	if _, err := rw.Write(h.request.Bytes()); err != nil {
		return nil, err
	}
	h.limit = io.LimitedReader{R: rw, N: maxHeader}
	h.reader.Reset(&h.limit)
	for range 1 + maxInformational {
		resp, err := http.ReadResponse(h.reader, req)
		switch {
		case err != nil && h.limit.N <= 0:
			return nil, ErrHeaderTooLarge
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			resp.Close = true
		case resp.StatusCode < http.StatusOK:
			continue // the answer is still to come: RFC 9110, section 15.2
		}
		h.limit.N = limit
		return resp, nil
	}
	return nil, errInformational
}

// flooded reports whether the answer exceeds maxFramed.
func (k *conn) flooded() bool { return k.http1.limit.N <= 0 }

// begin prepares k for one exchange, which the end of ctx interrupts.
func (k *conn) begin(ctx context.Context) {
	k.http1 = http1Pool.Get().(*http1)
	k.sock.mode = waiting
	k.stop = interruptible(ctx, k.sock.Conn)
}

// end ends the exchange and reports whether k can carry another. The body of the answer must have
// been closed.
func (k *conn) end() (reusable bool) {
	k.kept = true
	// Anything after the answer is unsolicited: the connection is not used again.
	reusable = k.stop() && k.http1.reader.Buffered() == 0 && len(k.sock.unread) == 0 && k.exhausted()
	k.http1.reader.Reset(nil)
	k.http1.limit.R = nil
	http1Pool.Put(k.http1)
	k.http1 = nil
	k.sock.rest()
	return reusable
}

// exhausted reports whether everything received on k was read. crypto/tls may hold the rest of a
// record.
func (k *conn) exhausted() bool {
	k.sock.mode = shut
	n, err := k.rw.Read(k.http1.rest[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// socket reads from a connection in large pieces while an answer arrives. crypto/tls alone reads
// little more than a record at a time, and kubelets write records of 4 KiB. The first read of an
// exchange, which may wait until the time-out, uses no buffer, and neither does an idle connection.
type socket struct {
	net.Conn
	mode   mode
	buffer *[readAhead]byte
	unread []byte // of buffer

	// record, if not nil, stops each Read at the end of a TLS record. Otherwise crypto/tls would
	// keep the excess in a buffer that grows to three times a record and lasts as long as the
	// connection.
	record *recordReader
}

type mode uint8

const (
	direct  mode = iota
	waiting      // for the first byte of an answer
	ahead
	shut // nothing more is read from the kernel
)

var readAheadPool = sync.Pool{New: func() any { return new([readAhead]byte) }}

func (s *socket) Read(p []byte) (n int, err error) {
	if len(s.unread) == 0 {
		if s.mode == shut {
			return 0, os.ErrDeadlineExceeded // crypto/tls can go on after a time-out
		}
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

// recordReader tracks the position in a stream of TLS records.
type recordReader struct {
	header [5]byte // type, version, length of the rest: RFC 8446, section 5.1
	have   int     // bytes of header
	left   int     // bytes of the record after the header
}

// limit returns the prefix of p that the next Read may fill. It ends with the record or, as long as
// ready, the bytes that come next, lacks a part of the record's header, with that header.
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

// advance moves the position past b, which was read within the limit.
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

// rest returns the buffer to the pool, unless it holds unread bytes.
func (s *socket) rest() {
	s.mode = direct
	if s.buffer != nil && len(s.unread) == 0 {
		readAheadPool.Put(s.buffer)
		s.buffer, s.unread = nil, nil
	}
}
