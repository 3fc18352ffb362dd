package kubelet

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

// dialer opens TCP connections to kubelets, through a proxy where one is configured.
type dialer struct {
	dial  func(ctx context.Context, network, addr string) (net.Conn, error)
	proxy func(*http.Request) (*url.URL, error)
}

// first dials the addresses in turn until one answers, and says which. Each may take its share of
// the time that ctx leaves, so that one that swallows packets leaves some for the next.
func (d *dialer) first(ctx context.Context, scheme string, addrs []string) (net.Conn, string, error) {
	var failed dialErrors
	for i, addr := range addrs {
		conn, err := d.one(ctx, scheme, addr, len(addrs)-i)
		if err == nil {
			return conn, addr, nil
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
	via, err := d.proxy(&http.Request{URL: &url.URL{Scheme: scheme, Host: addr}})
	if err != nil {
		return nil, err
	}
	if via == nil {
		return d.dial(ctx, "tcp", addr)
	}
	conn, err := d.through(ctx, via, addr)
	if err != nil {
		return nil, &proxyError{via: via.Host, addr: addr, err: err}
	}
	return conn, nil
}

// DialContext makes d a proxy.Dialer that uses no proxy itself.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.dial(ctx, network, addr)
}

// Dial is there for proxy.Dialer's sake.
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
		// What the reader reads ahead is never more than this answer: the kubelet waits to be spoken to.
		resp, err = http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHeader)), req) //nolint:bodyclose // its body is the tunnel
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("it answers %s", resp.Status)
		}
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	return err
}

// interruptible lets the end of ctx interrupt whatever waits for conn. The function that it
// returns ends that, and says whether conn can still be used.
func interruptible(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// proxyError is the failure of a proxy, or of the way to it: it says nothing of the kubelet.
type proxyError struct {
	via, addr string
	err       error
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("dial %s through the proxy %s: %v", e.addr, e.via, e.err)
}

func (e *proxyError) Unwrap() error { return e.err }

// dialErrors are the failures of all addresses of a node, in the order in which they were tried.
type dialErrors []error

func (e dialErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e dialErrors) Unwrap() []error { return e }

// telling returns the failure that says most: one of an address that could at least be resolved,
// if there is one.
func (e dialErrors) telling() error {
	isDNS := func(err error) bool {
		var dns *net.DNSError
		return errors.As(err, &dns)
	}
	if i := slices.IndexFunc(e, func(err error) bool { return !isDNS(err) }); i >= 0 {
		return e[i]
	}
	return e[0]
}
