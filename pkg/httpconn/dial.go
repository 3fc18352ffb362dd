package httpconn

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/proxy"
)

// dialer opens TCP connections, through a proxy where one is configured.
type dialer struct {
	dial  func(ctx context.Context, network, addr string) (net.Conn, error)
	proxy func(*http.Request) (*url.URL, error) // nil: none
}

// first dials the addresses in turn and returns the first connection, its address, and the errors of
// the addresses before it. The connection is nil if no address can be dialled. Each attempt gets an
// equal share of the remaining time, so that an address that drops packets leaves some for the next.
func (d *dialer) first(ctx context.Context, scheme string, addrs []string) (net.Conn, string, DialErrors) {
	var failed DialErrors
	for i, addr := range addrs {
		conn, err := d.one(ctx, scheme, addr, len(addrs)-i)
		if err == nil {
			return conn, addr, failed
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, "", failed
}

func (d *dialer) one(ctx context.Context, scheme, addr string, remaining int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && remaining > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(remaining))
		defer cancel()
	}
	if d.proxy == nil {
		return d.dial(ctx, "tcp", addr)
	}
	via, err := d.proxy(&http.Request{URL: &url.URL{Scheme: scheme, Host: addr}})
	if err != nil {
		return nil, err
	}
	if via == nil {
		return d.dial(ctx, "tcp", addr)
	}
	conn, err := d.through(ctx, via, addr)
	if err != nil {
		return nil, &ProxyError{via: via.Host, addr: addr, err: err}
	}
	return conn, nil
}

// DialContext makes d a proxy.ContextDialer that uses no proxy itself.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.dial(ctx, network, addr)
}

// Dial makes d a proxy.Dialer.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	return d.dial(context.Background(), network, addr)
}

// through asks the proxy at via for a tunnel to addr.
func (d *dialer) through(ctx context.Context, via *url.URL, addr string) (net.Conn, error) {
	switch via.Scheme {
	case "http", "https":
	default:
		socks, err := proxy.FromURL(via, d)
		if err != nil {
			return nil, err
		}
		return socks.(proxy.ContextDialer).DialContext(ctx, "tcp", addr)
	}

	host := via.Host
	if via.Port() == "" {
		host = net.JoinHostPort(via.Hostname(), map[string]string{"http": "80", "https": "443"}[via.Scheme])
	}
	conn, err := d.dial(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	if via.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: via.Hostname(), MinVersion: tls.VersionTLS12})
	}
	if err := connect(ctx, conn, via, addr); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// connect sends the CONNECT request for addr and reads the answer to it.
func connect(ctx context.Context, conn net.Conn, via *url.URL, addr string) error {
	stop := interruptible(ctx, conn)
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if u := via.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	err := req.Write(conn)
	if err == nil {
		var resp *http.Response
		// The reader reads no further than this answer, because a server waits for the client to
		// speak.
		answer := bufio.NewReader(io.LimitReader(conn, maxHeader))
		resp, err = http.ReadResponse(answer, req) //nolint:bodyclose // its body is the tunnel
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("it answers %s", resp.Status)
		}
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	return err
}

// interruptible makes the end of ctx interrupt reads and writes of conn. The function that it
// returns ends that, and reports whether conn can still be used.
func interruptible(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// ProxyError is a failure of a proxy or on the way to it, and not of the server.
type ProxyError struct {
	via, addr string
	err       error
}

func (e *ProxyError) Error() string {
	return fmt.Sprintf("dial %s through the proxy %s: %v", e.addr, e.via, e.err)
}

func (e *ProxyError) Unwrap() error { return e.err }

// DialErrors are the errors of a target's addresses, in the order in which they were tried.
type DialErrors []error

func (e DialErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e DialErrors) Unwrap() []error { return e }

// FallbackError is the failure of a handshake at an address that was only tried because the addresses
// before it could not be dialled. Its text has their errors too: they may be the reason why an address
// that the server's certificate does not name was tried at all.
type FallbackError struct {
	failed DialErrors
	err    error
}

func (e *FallbackError) Error() string { return e.failed.Error() + "; " + e.err.Error() }
func (e *FallbackError) Unwrap() error { return e.err }

// MostTelling returns the error of the first address that could at least be resolved, or else the
// first error.
func (e DialErrors) MostTelling() error {
	isDNS := func(err error) bool {
		var dns *net.DNSError
		return errors.As(err, &dns)
	}
	if i := slices.IndexFunc(e, func(err error) bool { return !isDNS(err) }); i >= 0 {
		return e[i]
	}
	return e[0]
}
