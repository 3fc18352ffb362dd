package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/common/model"

	"metrics-server/pkg/fairshare"
)

// Client queries one server. Make it with New.
type Client struct {
	config Config
	url    string
	form   url.Values // sent with every query; without the query
	turns  *fairshare.Turns

	mu        sync.Mutex // guards the fields that follow
	pem       pemFiles   // the files that transport was made with
	transport *http.Transport
}

// turnPart divides the queries in flight among namespaces: one gets three quarters of them at most.
const turnPart = 3

// New returns a Client, or every mistake in c. It neither connects nor reads files: see CheckFiles.
func New(c Config) (*Client, error) {
	c = c.WithDefaults()
	u, errs := c.validate()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	form := url.Values{"timeout": {model.Duration(c.Timeout).String()}}
	for name, value := range c.Parameters {
		form.Set(name, value)
	}
	return &Client{config: c, url: u.String(), form: form, turns: fairshare.NewTurns(turnPart, int64(c.Parallel))}, nil
}

// CheckFiles returns why the files of the Config cannot be used at present.
func (c *Client) CheckFiles() error {
	_, err := c.config.authorize(http.Header{})
	_, tlsErr := c.current()
	return errors.Join(err, tlsErr)
}

// Close closes idle connections. The Client can still be used.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
}

// current returns the transport for the present contents of the files. When they change, there is a new transport, so
// that no connection outlives the files that it was made with.
func (c *Client) current() (*http.Transport, error) {
	p, err := c.config.readPEM()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport != nil && c.pem.equal(&p) {
		return c.transport, nil
	}
	config, err := c.config.tls(&p)
	if err != nil {
		return nil, err
	}
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
	dialer := &net.Dialer{Timeout: c.config.Timeout, KeepAlive: 30 * time.Second}
	c.pem, c.transport = p, &http.Transport{
		Proxy:                  nil, // not even from the environment: credentials are for one destination
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config,
		MaxIdleConnsPerHost:    c.config.Parallel,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return c.transport, nil
}

// Query evaluates e as soon as it has a turn. The error is an *Error.
//
// The wait for a turn does not count against the timeout of the query. Otherwise, if a backend cannot answer all
// queries in time, each would wait for so long that no time would be left for its answer.
func (c *Client) Query(ctx context.Context, e Expression) (*Answer, error) {
	if e.text == "" {
		return nil, newError(BadExpression, "", "there is no expression")
	}
	if err := c.wait(ctx, e.owner); err != nil {
		return nil, newError(Busy, "raise parallel or interval of the backend in the administrator's file, or find out why "+
			"queries take so long", "too many queries wait for backend %q, which is sent at most %d at a time", c.config.Name,
			c.config.Parallel).because(err)
	}
	defer c.turns.Give(e.owner)
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	return c.send(ctx, e)
}

func (c *Client) wait(ctx context.Context, owner string) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.patience())
	defer cancel()
	return c.turns.Take(ctx, owner)
}

func (c *Client) send(ctx context.Context, e Expression) (*Answer, error) {
	transport, err := c.current()
	if err != nil {
		return nil, err
	}
	form := maps.Clone(c.form)
	form.Set("query", e.text)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, c.failed(err)
	}
	for name, value := range c.config.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// Lets net/http repeat the query if the server closes a kept connection: a query changes nothing. The header is
	// not sent.
	req.Header["Idempotency-Key"] = nil
	secrets, err := c.config.authorize(req.Header)
	if err != nil {
		return nil, err
	}

	resp, err := transport.RoundTrip(req) // which follows no redirects and keeps no cookies
	if err != nil {
		return nil, c.failed(err)
	}
	defer resp.Body.Close()
	limit, _ := c.limits(e)
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, c.failed(err)
	case int64(len(body)) > limit:
		return nil, c.tooLarge(e, limit, "bytes", "maxBodyBytes")
	}
	return c.read(resp.StatusCode, body, secrets, e)
}

// The lowest limits of an answer that lists names of series. A name takes about 100 bytes.
const (
	maxNames     = 50_000
	maxNamesBody = 8 << 20
)

// limits returns how many bytes and series an answer to e may have.
func (c *Client) limits(e Expression) (bytes int64, series int) {
	if e.names {
		return max(c.config.MaxBody, maxNamesBody), max(c.config.MaxSeries, maxNames)
	}
	return c.config.MaxBody, c.config.MaxSeries
}

// tooLarge returns the error of an answer that exceeds a limit, which is in a unit and set by a field.
func (c *Client) tooLarge(e Expression, limit int64, unit, field string) *Error {
	if e.names {
		return newError(TooLarge, "have an administrator let seriesQuery select fewer series, or raise "+field,
			"backend %q has too many names of series: more than %d %s", c.config.Name, limit, unit).because(errors.New(e.text))
	}
	return newError(TooLarge, "aggregate more in the expression, as in sum by (pod) (...), or have an administrator "+
		"raise "+field, "backend %q sent an answer of more than %d %s", c.config.Name, limit, unit)
}

// failed returns the error of a query without an answer.
func (c *Client) failed(err error) *Error {
	name := c.config.Name
	var e *Error
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || isTimeout(err):
		e = newError(Timeout, "check its load, the cost of the expression, and that a NetworkPolicy allows the connection",
			"backend %q did not answer in time", name)
	case errors.Is(err, syscall.ECONNREFUSED):
		e = newError(Refused, "check that it runs, and the port in its URL", "backend %q refused the connection", name)
	case isTLS(err):
		e = newError(TLSFailed, "check the scheme in its URL, its certificate, caFile, and the client certificate",
			"no TLS connection could be made to backend %q", name)
	case isUnresolved(err):
		e = newError(Unresolved, "check the host in its URL", "the host of backend %q cannot be resolved", name)
	default:
		e = newError(Unreachable, "check that it runs and that the network lets the custom metrics server reach it",
			"the connection to backend %q failed", name)
	}
	return e.because(err)
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func isUnresolved(err error) bool {
	_, ok := errors.AsType[*net.DNSError](err)
	return ok
}

func isTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	return strings.HasPrefix(err.Error(), "tls: ") || strings.Contains(err.Error(), "remote error: tls: ") ||
		errors.Is(err, http.ErrSchemeMismatch)
}
