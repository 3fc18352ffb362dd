package kubelet

import (
	"context"
	"crypto/x509"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/httpconn"
	"metrics-server/pkg/sample"
)

// accept asks for the only format that is read. Any other format is refused, and so is a content
// encoding that was not asked for: a kubelet must not choose which decoder reads its answer. The
// wildcard is for routes that would send text but do not declare it, such as the kubelet's /logs/:
// without it they answer 406.
const accept = "text/plain;version=0.0.4, */*;q=0.1"

// Client asks the kubelet of one node. Clients.Client returns one.
type Client struct {
	shared *Clients
	http   *httpconn.Client
	target atomic.Pointer[target]
	layout exposition.Layout // only Fetch uses it
}

// SetEndpoint changes where the kubelet is. It does not affect a Fetch in progress.
func (c *Client) SetEndpoint(e Endpoint) { c.target.Store(c.shared.target(&e)) }

// Addresses returns the addresses that Fetch tries, as host:port, in order of preference.
func (c *Client) Addresses() []string { return slices.Clone(c.target.Load().addrs) }

// Peer returns the address and the serving certificate of the kubelet at the other end of the open
// connection: "" and nil if no connection is open, and a nil certificate for plain HTTP.
func (c *Client) Peer() (addr string, cert *x509.Certificate) { return c.http.Peer() }

// Close closes the connection. A Fetch in progress fails, and so does every later one.
func (c *Client) Close() { c.http.Close() }

// Fetch asks the kubelet for its samples and fills into with them; into stays the caller's. It
// takes at most as long as ctx allows. The error is an *Error even if the caller cancelled ctx, and then
// says how far the Fetch got. The contents of into are undefined after an error.
func (c *Client) Fetch(ctx context.Context, into *sample.Batch) error {
	f := fetch{Client: c, target: c.target.Load()}
	err := f.do(ctx, into)
	if err == nil {
		return nil
	}
	failed := f.failure(ctx, err)
	if f.token != "" && (failed.cause == CauseUnauthorized || failed.cause == CauseForbidden) {
		f.shared.config.Tokens.Refused(f.token)
	}
	return failed
}

// waitingForCPU is the only step of a Fetch in which a delay is this server's fault.
const waitingForCPU = "waiting for a processor to parse the answer"

// fetch is one Fetch.
type fetch struct {
	*Client
	*target
	*identity
	token    string // from Config.Tokens; "": identity has the credentials
	exchange httpconn.Exchange
}

func (f *fetch) do(ctx context.Context, into *sample.Batch) error {
	if f.target.err != nil {
		return f.target.err
	}
	f.exchange = httpconn.Exchange{Addrs: f.addrs, URL: f.url, Step: "waiting for a token to show to kubelets"}
	f.exchange.URL.Host = f.addrs[0]
	if err := f.identify(ctx); err != nil {
		return err
	}
	return f.http.Get(ctx, f.credentials, f.token, &f.exchange, func(a *httpconn.Answer) error {
		return f.read(ctx, a, into)
	})
}

func (f *fetch) read(ctx context.Context, a *httpconn.Answer, into *sample.Batch) error {
	if a.Status != http.StatusOK {
		return readRefusal(a)
	}
	if err := checkType(a.Header); err != nil {
		return err
	}
	b, err := a.Bytes(ctx)
	if err != nil {
		return err
	}
	f.exchange.Step = waitingForCPU
	select {
	case p := <-f.shared.parsers:
		defer func() { f.shared.parsers <- p }()
		// The kubelet had taken its samples when the header arrived: the time that the body takes
		// does not count.
		return p.ParseText(b, a.Received, &f.layout, into)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// checkType returns an error unless h says that the answer is text.
func checkType(h http.Header) error {
	contentType := h.Get("Content-Type")
	name, _, _ := strings.Cut(contentType, ";") // mime.ParseMediaType allocates a map
	if !strings.EqualFold(strings.TrimSpace(name), "text/plain") {
		return &contentTypeError{contentType}
	}
	return nil
}
