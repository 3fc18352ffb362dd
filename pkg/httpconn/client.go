package httpconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Client sends requests to one target. Pool.Client returns one.
type Client struct {
	pool  *Pool
	owner string // whose share of Config.Turns the answers take

	// Only Get uses these.
	working string                 // the address that worked last; "" after a failure
	session tls.ClientSessionCache // with which a new connection skips most of the handshake
	set     *credentialSet         // that session was made with; another set must not resume it
	secret  string                 // Authorization header of the last request, which the server may echo

	mu     sync.Mutex // guards the fields that follow
	conn   *conn      // nil: none open. Invariant: nil if closed
	closed bool
}

// Exchange is one request, and how far it got.
type Exchange struct {
	Addrs []string // host:port, the preferred one first; at least one
	URL   url.URL  // Get sets its host: the address of the last connection or attempt

	// Step is the current step, for the error of a time-out: "connecting". Get sets it until it
	// reads the answer; the function that reads it may.
	Step string
	// Peer is the certificate of the server that was asked, if the exchange failed after a TLS
	// handshake.
	Peer *x509.Certificate
}

// Steps of an Exchange.
const (
	connecting       = "connecting"
	shakingHands     = "shaking hands"
	waitingForAnswer = "waiting for the answer"
	readingAnswer    = "reading the answer"
)

// WaitingForTurn is the Step of an Exchange that waits because large answers of others are being read: see Turns.
const WaitingForTurn = "waiting for a turn to read a large answer"

// Get sends a GET request with the credentials as, and token as a bearer token unless it is "". It
// calls read with the answer, whatever its status, and returns the error of read. It takes at most
// as long as ctx allows. Errors may quote what the server sent: see FitForLogs.
func (c *Client) Get(ctx context.Context, as *Credentials, token string, x *Exchange, read func(*Answer) error) error {
	for {
		k, err := c.connection(ctx, as, x)
		if err != nil {
			return err
		}
		x.URL.Host, x.Step = k.addr, waitingForAnswer
		kept := k.kept
		answered, reusable, err := c.exchange(ctx, k, as, token, x, read)
		if !reusable {
			c.drop(k)
		}
		switch {
		case ctx.Err() != nil: // the next request may have more time
		case kept && !answered:
			// A server may close a kept connection at any time, or answer 408 before it does. Neither is
			// a failure of the server.
			continue
		case err != nil && k.addr != x.Addrs[0]:
			c.working = "" // a fallback address may lead to something else
		}
		if err != nil {
			x.Peer = k.certificate()
		}
		return err
	}
}

// errGivenUp is a 408 on a kept connection: the server closes it and has not seen the request.
var errGivenUp = errors.New("the server closed the connection because it was idle")

// exchange sends one request on k and reads the answer. It reports whether there was an answer to
// the request at all, and whether k can be used again.
func (c *Client) exchange(ctx context.Context, k *conn, as *Credentials, token string, x *Exchange,
	read func(*Answer) error,
) (answered, reusable bool, err error) {
	kept := k.kept
	k.begin(ctx)
	ended := false
	end := func() bool {
		ended = true
		return k.end()
	}
	defer func() {
		// After a panic the state of the connection is unknown, and the end of ctx would interrupt
		// the next exchange.
		if !ended {
			c.drop(k)
			k.end()
		}
	}()
	req := &http.Request{
		Method:     http.MethodGet,
		URL:        &x.URL,
		Host:       k.addr,
		Header:     http.Header{"Accept": {c.pool.config.Accept}},
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
	}
	if token != "" {
		req.Header["Authorization"] = []string{"Bearer " + token}
	}
	if c.pool.config.Gzip {
		req.Header["Accept-Encoding"] = []string{"gzip"}
	}
	resp, err := as.auth.RoundTrip(req.WithContext(context.WithValue(ctx, connKey{}, k)))
	c.secret = k.secret
	if err == nil && kept && resp.StatusCode == http.StatusRequestTimeout {
		err = errGivenUp
	}
	if err != nil {
		c.drop(k)
		end()
		return false, false, err
	}
	a := Answer{
		Status: resp.StatusCode, Header: resp.Header, Received: time.Now(),
		resp: resp, secret: k.secret, owner: c.owner, pool: c.pool, x: x,
	}
	defer func() { a.body.free() }()
	err = read(&a)
	if !a.drained {
		c.drop(k) // before Close, which would read the rest
	}
	resp.Body.Close()
	if err != nil && k.flooded() {
		err = &TooLargeError{limit: k.limit}
	}
	return true, end() && a.drained && !resp.Close, err
}

// connection returns the open connection if it may still be used, or else a new one.
func (c *Client) connection(ctx context.Context, as *Credentials, x *Exchange) (*conn, error) {
	x.Step = connecting
	var set *credentialSet
	if as.trust != nil {
		set = as.trust.get(ctx, checkFiles)
	}
	c.mu.Lock()
	k, closed := c.conn, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return nil, net.ErrClosed
	case k == nil:
	case k.set == set && k.addr == c.working && slices.Contains(x.Addrs, k.addr) && k.alive():
		return k, nil
	default:
		c.drop(k)
	}

	for {
		k, err := c.dial(ctx, as, set, x)
		if err == nil {
			return k, c.keep(k)
		}
		// The authority in the CA file may have changed a moment ago. That file is not for proxies.
		_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
		if _, proxied := errors.AsType[*ProxyError](err); !untrusted || proxied {
			return nil, err
		}
		fresh := as.trust.get(ctx, time.Second)
		if fresh == set {
			return nil, err
		}
		set = fresh
	}
}

func (c *Client) dial(ctx context.Context, as *Credentials, set *credentialSet, x *Exchange) (*conn, error) {
	addrs := x.Addrs
	if i := slices.Index(addrs, c.working); i > 0 {
		addrs = slices.Insert(slices.Delete(slices.Clone(addrs), i, i+1), 0, c.working)
	}
	c.working = "" // after a failure, the next dial begins with the preferred address
	sock, addr, failed := c.pool.dialer.first(ctx, x.URL.Scheme, addrs)
	if sock == nil {
		return nil, failed
	}
	x.URL.Host, x.Step = addr, shakingHands
	if c.session == nil || c.set != set {
		c.session, c.set = tls.NewLRUClientSessionCache(1), set
	}
	k, err := as.handshake(ctx, sock, addr, set, c.session, maxFramed(c.pool.config.MaxBody))
	switch {
	case err == nil:
		c.working = addr
	case len(failed) > 0:
		err = &FallbackError{failed: failed, err: err}
	}
	return k, err
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

// Peer returns the address and the serving certificate of the server at the other end of the open
// connection: "" and nil if no connection is open, and a nil certificate for plain HTTP.
func (c *Client) Peer() (addr string, cert *x509.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return "", nil
	}
	return c.conn.addr, c.conn.certificate()
}

// Close closes the connection. A Get in progress fails, and so does every later one.
func (c *Client) Close() {
	c.pool.forget(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn != nil {
		c.conn.close()
		c.conn = nil
	}
}
