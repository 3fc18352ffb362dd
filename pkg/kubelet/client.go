package kubelet

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/sample"
)

const (
	acceptText     = "text/plain;version=0.0.4, */*;q=0.1"
	protobufType   = "application/vnd.google.protobuf"
	protobufFamily = "io.prometheus.client.MetricFamily"
)

// Client asks the kubelet of one node. Get one from Clients.
type Client struct {
	shared *Clients
	target atomic.Pointer[target]

	// Only Fetch uses these.
	layout  exposition.Layout
	working string         // the address that was last dialled with success
	resume  *session       // offered to the kubelet when a new connection is needed
	set     *credentialSet // that resume is of: with another one it would be somebody else's session

	mu     sync.Mutex
	conn   *conn // nil: none open
	closed bool
}

// SetEndpoint changes where the kubelet is. A Fetch under way goes on where it is.
func (c *Client) SetEndpoint(e Endpoint) { c.target.Store(c.shared.target(&e)) }

// Addresses are where Fetch looks for the kubelet, as host:port, in order of preference.
func (c *Client) Addresses() []string { return slices.Clone(c.target.Load().addrs) }

// Peer is the address and the serving certificate of the kubelet with which a connection is open: "" and nil if none is,
// and nil for plain HTTP.
func (c *Client) Peer() (addr string, cert *x509.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return "", nil
	}
	if secured, ok := c.conn.rw.(*tls.Conn); ok {
		cert = secured.ConnectionState().PeerCertificates[0]
	}
	return c.conn.addr, cert
}

// Close closes the connection; a Fetch under way or later fails.
func (c *Client) Close() {
	c.shared.forget(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn != nil {
		c.conn.close()
		c.conn = nil
	}
}

// Fetch asks the kubelet for its samples and fills into with them, which stays the caller's. It
// takes as long as ctx allows. The error is an *Error, or the context's own if the caller cancelled
// it; what into holds is then of no use.
func (c *Client) Fetch(ctx context.Context, into *sample.Batch) error {
	f := fetch{Client: c, target: c.target.Load()}
	err := f.do(ctx, into)
	if err == nil {
		return nil
	}
	if done := ctx.Err(); done != nil && !errors.Is(done, context.DeadlineExceeded) {
		return done
	}
	return f.failure(ctx, err)
}

// waitingForTurn is what an answer that is larger than any of a kubelet does while maxLarge others are being read.
const waitingForTurn = "waiting for a turn to read more than 1 MiB"

// waitingForCPU is the only thing a Fetch does that is not the kubelet's doing.
const waitingForCPU = "waiting for a processor to parse the answer"

// fetch is one Fetch.
type fetch struct {
	*Client
	*target
	addr  string // that was last spoken to
	doing string // for the error of a time-out
}

func (f *fetch) do(ctx context.Context, into *sample.Batch) error {
	if f.target.err != nil {
		return f.target.err
	}
	f.addr = f.addrs[0]
	for {
		k, err := f.connection(ctx)
		if err != nil {
			return err
		}
		f.addr, f.doing = k.addr, "waiting for the answer"
		kept := k.kept
		answered, reusable, err := f.exchange(ctx, k, into)
		if !reusable {
			f.drop(k)
		}
		// The kubelet may have closed a kept connection in the meantime: that says nothing of the kubelet.
		if !answered && kept && ctx.Err() == nil {
			continue
		}
		return err
	}
}

// exchange does one request on k. It says whether there was an answer at all and whether k can be used again.
func (f *fetch) exchange(ctx context.Context, k *conn, into *sample.Batch) (answered, reusable bool, err error) {
	k.begin(ctx)
	req := &http.Request{
		Method:     http.MethodGet,
		URL:        f.url(f.shared.scheme, k.addr),
		Host:       k.addr,
		Header:     http.Header{"Accept": {acceptText}},
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
	}
	if f.shared.config.Compress {
		req.Header["Accept-Encoding"] = []string{"gzip"}
	}
	resp, err := f.shared.auth.RoundTrip(req.WithContext(context.WithValue(ctx, connKey{}, k)))
	if err != nil {
		k.end()
		return false, false, err
	}
	// The kubelet has taken its samples by now; what the body takes to arrive does not make them younger.
	received := time.Now()
	drained, err := f.read(ctx, resp, k.secret, received, into)
	if !drained {
		f.drop(k) // before Close, which would read the rest
	}
	resp.Body.Close()
	return true, k.end() && drained && !resp.Close, fitForLogs(err, k.secret)
}

// read reads the answer and parses it. It says whether the body was read to its end.
func (f *fetch) read(ctx context.Context, resp *http.Response, secret string, received time.Time, into *sample.Batch) (drained bool, err error) {
	if resp.StatusCode != http.StatusOK {
		return readRefusal(resp, secret)
	}
	parse, err := parserFor(resp.Header)
	if err != nil {
		return false, err
	}
	f.doing = "reading the answer"
	b := bodyPool.Get().(*body)
	defer b.free()
	if err := b.read(ctx, resp, f); err != nil {
		return false, err
	}

	f.doing = waitingForCPU
	select {
	case p := <-f.shared.parsers:
		defer func() { f.shared.parsers <- p }()
		return true, parse(p, b.bytes, received, &f.layout, into)
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

// connection returns the open connection if it may still be used, or else a new one.
func (f *fetch) connection(ctx context.Context) (*conn, error) {
	f.doing = "connecting"
	var set *credentialSet
	if f.shared.tls != nil {
		set = f.shared.tls.get(ctx, checkFiles)
	}
	f.mu.Lock()
	k, closed := f.conn, f.closed
	f.mu.Unlock()
	switch {
	case closed:
		return nil, net.ErrClosed
	case k == nil:
	case k.set == set && slices.Contains(f.addrs, k.addr) && k.alive():
		return k, nil
	default:
		f.drop(k)
	}

	for {
		k, err := f.dial(ctx, set)
		if err == nil {
			return k, f.keep(k)
		}
		// Perhaps the file with the right authority has come a moment ago.
		if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); !untrusted {
			return nil, err
		}
		fresh := f.shared.tls.get(ctx, time.Second)
		if fresh == set {
			return nil, err
		}
		set = fresh
	}
}

func (f *fetch) dial(ctx context.Context, set *credentialSet) (*conn, error) {
	addrs := f.addrs
	if i := slices.Index(addrs, f.working); i > 0 {
		addrs = slices.Insert(slices.Delete(slices.Clone(addrs), i, i+1), 0, f.working)
	}
	sock, addr, err := f.shared.dialer.first(ctx, f.shared.scheme, addrs)
	f.working = addr // "" after a failure: then the preferred one is the first again
	if err != nil {
		return nil, err
	}
	f.addr, f.doing = addr, "shaking hands"
	if f.resume == nil || f.set != set {
		f.resume, f.set = &session{}, set
	}
	return f.shared.handshake(ctx, sock, addr, set, f.resume)
}

func (c *Client) keep(k *conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		k.close()
		return net.ErrClosed
	}
	c.conn = k
	return nil
}

func (c *Client) drop(k *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.close()
	if c.conn == k {
		c.conn = nil
	}
}

// parserFor returns the parser for an answer with header h.
func parserFor(h http.Header) (func(*exposition.Parser, []byte, time.Time, *exposition.Layout, *sample.Batch) error, error) {
	contentType := h.Get("Content-Type")
	name, _, _ := strings.Cut(contentType, ";") // mime.ParseMediaType allocates a map
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "text/plain":
		return (*exposition.Parser).ParseText, nil
	case protobufType:
		_, params, err := mime.ParseMediaType(contentType)
		if err == nil && params["encoding"] == "delimited" && params["proto"] == protobufFamily {
			return (*exposition.Parser).ParseProtobuf, nil
		}
	}
	return nil, &contentTypeError{contentType}
}

// body is the memory of one answer.
type body struct {
	bytes []byte
	gzip  *gzip.Reader  // nil until needed
	turns chan struct{} // of Clients, while this answer has one; else nil
}

const (
	// maxKept is how large a buffer may be to be used again: three times the answer of a node with 250 pods.
	maxKept = 1 << 20
	// maxLarge is how many larger ones there may be at once: however many kubelets flood, and however slowly, all of them
	// together take a few times the limit of an answer, and no answer that is as large as a kubelet's waits for them.
	maxLarge = 4
)

var bodyPool = sync.Pool{New: func() any { return &body{bytes: make([]byte, 0, 64<<10)} }}

func (b *body) free() {
	if b.turns != nil {
		<-b.turns
		b.turns = nil
	}
	if cap(b.bytes) <= maxKept {
		bodyPool.Put(b)
	}
}

// read reads the whole body of resp, which f is to get, decompressed, unless it has more than the limit.
func (b *body) read(ctx context.Context, resp *http.Response, f *fetch) error {
	limit := f.shared.config.MaxBody
	var from io.Reader = resp.Body
	switch encoding := resp.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		if resp.ContentLength > limit {
			return &tooLargeError{limit: limit, size: resp.ContentLength}
		}
	case "gzip":
		if b.gzip == nil {
			b.gzip = new(gzip.Reader)
		}
		if err := b.gzip.Reset(resp.Body); err != nil {
			return err
		}
		from = b.gzip
	default:
		return &contentTypeError{"encoded as " + encoding}
	}
	b.bytes = b.bytes[:0]
	for {
		if len(b.bytes) == cap(b.bytes) {
			if err := b.turn(ctx, f); err != nil {
				return err
			}
			b.bytes = append(b.bytes, 0)[:len(b.bytes)]
		}
		n, err := from.Read(b.bytes[len(b.bytes):cap(b.bytes)])
		b.bytes = b.bytes[:len(b.bytes)+n]
		switch {
		case int64(len(b.bytes)) > limit:
			return &tooLargeError{limit: limit}
		case err == io.EOF: // exactly: an error that wraps it is a failure
			return nil
		case err != nil:
			return err
		}
	}
}

// turn waits until b may grow.
func (b *body) turn(ctx context.Context, f *fetch) error {
	if b.turns != nil || cap(b.bytes) < maxKept {
		return nil
	}
	doing := f.doing
	f.doing = waitingForTurn
	select {
	case f.shared.large <- struct{}{}:
		b.turns, f.doing = f.shared.large, doing
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
