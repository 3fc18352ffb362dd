package podtarget

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/transport"

	"metrics-server/pkg/httpconn"
	"metrics-server/pkg/kubeapi"
)

const (
	// MaxPage is how many bytes an answer may have, decompressed.
	MaxPage = 8 << 20

	// accept prefers the Prometheus text format, the cheapest to read. A pod that offers only protobuf
	// may send that.
	accept = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.8, " +
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.1, */*;q=0.05"

	// gzipFrom is the size of an answer from which on the next one is requested compressed. Below it,
	// the traffic that is saved is not worth the CPU time on both ends.
	gzipFrom = 128 << 10

	// How many answers of more than a size are read at once, from all pods by both pools. With what
	// is parsed from them, they take at most 320 MiB. A namespace has at most half of the turns,
	// and fewer if others need them.
	mediumPage, mediumTurns = 64 << 10, 64
	largePage, largeTurns   = 1 << 20, 8

	// maxFilter is how long a filter by names may be: many servers accept 8 KiB of header in all.
	maxFilter = 4 << 10
)

// Config configures Targets. A zero field means its default.
type Config struct {
	// Dial opens connections to addresses that are not refused. Default: a net.Dialer with probes for
	// idle connections.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Targets makes the Target of each pod.
type Targets struct {
	plain, zipped pool
}

// pool is an httpconn.Pool with its credentials, which are none.
type pool struct {
	*httpconn.Pool
	http, https *httpconn.Credentials
}

// New returns Targets. It does not open connections.
func New(c Config) (*Targets, error) {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	guarded := func(ctx context.Context, network, addr string) (net.Conn, error) {
		ip, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, fmt.Errorf("%s is not the address of a pod", addr)
		}
		if kind := refused(ip.Addr()); kind != "" {
			return nil, fmt.Errorf("%s is a %s address", addr, kind)
		}
		return c.Dial(ctx, network, addr)
	}
	turns := []*httpconn.Turns{
		httpconn.NewTurns(mediumPage, mediumTurns), httpconn.NewTurns(largePage, largeTurns),
	}
	open := func(gzip bool) (pool, error) {
		p := pool{Pool: httpconn.New(httpconn.Config{
			Servers: "pods", Accept: accept, Gzip: gzip, MaxBody: MaxPage, Dial: guarded, Turns: turns,
		})}
		var plainErr, tlsErr error
		p.http, plainErr = p.NewCredentials(&transport.Config{}, true)
		p.https, tlsErr = p.NewCredentials(&transport.Config{TLS: transport.TLSConfig{Insecure: true}}, false)
		return p, errors.Join(plainErr, tlsErr)
	}
	plain, plainErr := open(false)
	zipped, zippedErr := open(true)
	if err := errors.Join(plainErr, zippedErr); err != nil {
		return nil, err
	}
	return &Targets{plain: plain, zipped: zipped}, nil
}

// Close closes every Target.
func (s *Targets) Close() {
	s.plain.Close()
	s.zipped.Close()
}

// Target is one pod that is scraped at one Address.
type Target struct {
	shared    *Targets
	namespace string
	pod       string
	url       url.URL

	// Only Scrape uses these.
	large bool // the last answer was, so the next one is requested compressed

	mu         sync.Mutex
	client     *httpconn.Client // nil before the first scrape
	zipped     bool             // client belongs to Targets.zipped
	closed     bool
	unfiltered bool // the pod does not cope with filters by name
}

// Target returns a target for the pod of that name. Close it when the pod is gone or its address changes.
func (s *Targets) Target(namespace, pod string, a Address) *Target {
	return &Target{shared: s, namespace: namespace, pod: pod, url: a.URL}
}

// Close closes the connection. A Scrape in progress fails, and so does every later one.
func (t *Target) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.client != nil {
		t.client.Close()
	}
}

// Page is an answer. Its body is valid until the function that reads it returns.
type Page struct {
	At          time.Time // when it arrived
	ContentType string
	Body        []byte // decompressed
	// Filtered says that the pod was asked for some names only. A family that is missing may then exist
	// under another name, or the pod may misunderstand filters: see Target.NoFilter.
	Filtered bool
}

// NoFilter has t ask for everything from now on, because a filtered answer lacked what the pod has.
func (t *Target) NoFilter() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unfiltered = true
}

// Scrape asks the pod once, and calls read with the answer. The error is an *Error, that of read, or net.ErrClosed
// after Close. If the caller cancels ctx, it is the *Error of a time-out, which says how far the Scrape got.
func (t *Target) Scrape(ctx context.Context, filter Filter, read func(Page) error) error {
	t.mu.Lock()
	if t.unfiltered {
		filter = Filter{}
	}
	t.mu.Unlock()
	err := t.get(ctx, filter.query, read)
	refused, ok := errors.AsType[*Error](err)
	if filter.query == "" || !ok || !slices.Contains([]Cause{NotFound, Redirect, ServerError, BadStatus}, refused.cause) {
		return err
	}
	// Perhaps it does not like the filter.
	if err = t.get(ctx, "", read); err == nil {
		t.NoFilter()
	}
	return err
}

// suffixes are those of the series of one family. Some clients filter by family, some by series.
var suffixes = []string{"_total", "_bucket", "_sum", "_count"}

// Filter says which series are wanted. Clients that know the parameter name[] send only those. The zero value asks for
// everything.
type Filter struct{ query string }

// NewFilter returns a filter for the series with these names. It asks for everything if there are no names, or if the
// filter would be longer than maxFilter.
func NewFilter(names []string) Filter {
	if len(names) == 0 {
		return Filter{}
	}
	// The start of the process tells restarts from jumps of a counter.
	wanted := map[string]bool{"process_start_time_seconds": true}
	for _, name := range names {
		wanted[name] = true
		for _, s := range suffixes {
			if family, ok := strings.CutSuffix(name, s); ok && family != "" {
				wanted[family] = true
			}
		}
	}
	all := make([]string, 0, len(wanted))
	for name := range wanted {
		all = append(all, "name[]="+url.QueryEscape(name))
	}
	slices.Sort(all)
	if query := strings.Join(all, "&"); len(query) <= maxFilter {
		return Filter{query}
	}
	return Filter{}
}

// connection returns the client to use, and its pool.
func (t *Target) connection() (*httpconn.Client, *pool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, nil, net.ErrClosed
	}
	if t.client != nil && t.zipped != t.large {
		t.client.Close()
		t.client = nil
	}
	p := &t.shared.plain
	if t.zipped = t.large; t.zipped {
		p = &t.shared.zipped
	}
	if t.client == nil {
		t.client = p.Client(t.namespace)
	}
	return t.client, p, nil
}

func (t *Target) get(ctx context.Context, filter string, read func(Page) error) error {
	client, p, err := t.connection()
	if err != nil {
		return err
	}
	as := p.http
	if t.url.Scheme == "https" {
		as = p.https
	}
	x := &httpconn.Exchange{Addrs: []string{t.url.Host}, URL: t.url}
	if filter != "" && x.URL.RawQuery != "" {
		filter = x.URL.RawQuery + "&" + filter
	}
	if filter != "" {
		x.URL.RawQuery = filter
	}
	readErr := error(nil)
	err = client.Get(ctx, as, "", x, func(a *httpconn.Answer) error {
		if a.Status != http.StatusOK {
			return t.statusError(a)
		}
		contentType := a.Header.Get("Content-Type")
		media := mediaType(contentType)
		if !mayBeMetrics(media) {
			return t.fail(NotMetrics, RemedyPath, nil, "the answer has content type %q, which is not a metrics format",
				httpconn.Shorten(contentType, 100))
		}
		body, err := a.Bytes(ctx)
		if err != nil {
			return err
		}
		t.large = len(body) >= gzipFrom
		start := bytes.TrimSpace(body[:min(len(body), 64)])
		if media != protobuf && len(start) > 0 && start[0] == '<' {
			return t.fail(NotMetrics, RemedyPath, nil, "the answer is HTML or XML, which is not a metrics format")
		}
		readErr = read(Page{At: a.Received, ContentType: contentType, Body: body, Filtered: filter != ""})
		return readErr
	})
	switch {
	case err == nil:
		return nil
	case readErr != nil:
		return readErr
	}
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	return t.explain(ctx, err, x.Step)
}

// mediaType returns a content type without its parameters.
func mediaType(contentType string) string {
	name, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(name))
}

// protobuf is the media type of a binary page, which may begin with any byte.
const protobuf = "application/vnd.google.protobuf"

// mayBeMetrics reports whether an answer of that media type is worth reading. Exporters that state none send text.
func mayBeMetrics(media string) bool {
	switch media {
	case "", "text/plain", "application/openmetrics-text", protobuf, "application/octet-stream":
		return true
	}
	return false
}

const (
	// RemedyPath is what to do about a wrong port or path. It lists all places where one may be from, because metrics that
	// find it in different places share the Target of a pod.
	RemedyPath = "correct the port, or the path that annotation " + kubeapi.HPAPathAnnotation +
		" of the HorizontalPodAutoscaler, annotation " + kubeapi.PodPathAnnotation + " of the pod or the administrator's " +
		"file sets"
	// RemedyScheme is the same for a wrong scheme.
	RemedyScheme = "correct the scheme that annotation " + kubeapi.SchemeAnnotation + " of the HorizontalPodAutoscaler, " +
		"annotation " + kubeapi.PodSchemeAnnotation + " of the pod or the administrator's file sets"
	// RemedyMesh is what to do if a service mesh requires mTLS.
	RemedyMesh = "exclude the port from the mesh, or allow plain HTTP on it"
)

func (t *Target) fail(cause Cause, remedy string, err error, format string, args ...any) *Error {
	return &Error{
		cause: cause, remedy: remedy, err: err,
		text: fmt.Sprintf("pod %s at %s: ", t.pod, t.url.String()) + fmt.Sprintf(format, args...),
	}
}

func (t *Target) statusError(a *httpconn.Answer) error {
	mesh := strings.Contains(strings.ToLower(a.Header.Get("Server")), "envoy")
	text := fmt.Sprintf("it answers %d %s", a.Status, http.StatusText(a.Status))
	switch code := a.Status; {
	case code == http.StatusBadRequest && t.url.Scheme == "http" && t.saysTLS(a):
		return t.fail(TLSPort, RemedyScheme+": use https", nil, "the scheme is http, and the port speaks TLS")
	case code == http.StatusUnauthorized:
		return t.fail(Unauthorized, "serve the metrics without authentication, for example on a port of their own: "+
			"the custom metrics server sends no credentials", nil, "%s", text)
	case code == http.StatusForbidden && mesh:
		return t.fail(Denied, "allow the custom metrics server in the authorization policy of the mesh, or exclude the port "+
			"from it", nil, "%s, from the sidecar of a service mesh", text)
	case code == http.StatusForbidden:
		return t.fail(Denied, "allow requests without credentials there, for example on a port of their own", nil, "%s", text)
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed:
		return t.fail(NotFound, RemedyPath, nil, "%s", text)
	case code >= 300 && code < 400:
		return t.fail(Redirect, "give the final path and scheme: redirects are not followed", nil, "%s", text)
	case code >= 500:
		return t.fail(ServerError, "see the log of the pod", nil, "%s", text)
	}
	return t.fail(BadStatus, RemedyPath, nil, "%s", text)
}

// saysTLS reports whether a is what Go, nginx and others answer to HTTP on a port that speaks TLS.
func (t *Target) saysTLS(a *httpconn.Answer) bool {
	text, _ := io.ReadAll(io.LimitReader(a, 1<<10))
	return bytes.Contains(bytes.ToLower(text), []byte("http request"))
}

// explain makes err, of a connection or of reading an answer, an Error. It quotes nothing that changes from
// call to call, such as local ports.
func (t *Target) explain(ctx context.Context, err error, step string) error {
	network, _ := errors.AsType[*net.OpError](err)
	alert, _ := errors.AsType[tls.AlertError](err)
	record, isRecord := errors.AsType[tls.RecordHeaderError](err)
	_, tooLarge := errors.AsType[*httpconn.TooLargeError](err)
	_, encoding := errors.AsType[*httpconn.EncodingError](err)
	text := err.Error()
	dialing := network != nil && network.Op == "dial"
	switch {
	case errors.Is(err, net.ErrClosed):
		return err
	case ctx.Err() != nil && step == "connecting":
		return t.fail(Timeout, "check that a NetworkPolicy lets the custom metrics server reach the pod, and that the port "+
			"is right", err, "the connection is not accepted in time")
	case ctx.Err() != nil && step == httpconn.WaitingForTurn:
		return t.fail(Timeout, "make the pages smaller or faster", err, "too many large answers of namespace %q, or of all "+
			"namespaces together, are read at once", t.namespace)
	case ctx.Err() != nil:
		return t.fail(Timeout, "make the endpoint faster, or expose fewer series", err, "the answer is not complete in time")
	case tooLarge:
		return t.fail(TooLarge, "expose fewer series", err, "the page has more than %d MiB, which is the limit", MaxPage>>20)
	case encoding, strings.HasPrefix(text, "gzip: "):
		return t.fail(NotMetrics, "let the application send the answer without compression", err,
			"the compression of the answer is invalid, or was not requested")
	case errors.Is(err, syscall.ECONNREFUSED):
		return t.fail(Refused, "check that the container listens on that port, and not only on localhost", err,
			"connection refused")
	case isRecord && bytes.HasPrefix(record.RecordHeader[:], []byte("HTTP")):
		return t.fail(PlainPort, RemedyScheme+": use http", err, "the scheme is https, and the port speaks plain HTTP")
	case isRecord:
		return t.fail(TLSFailed, RemedyScheme, err, "the scheme is https, and the port does not speak TLS")
	case wantsCertificate(text):
		return t.fail(ClientCert, RemedyMesh, err, "it asks for a client certificate, as the sidecar of a service mesh does")
	case alert != 0 || step == "shaking hands" && !isReset(err):
		return t.fail(TLSFailed, "if it requires a client certificate, as the sidecar of a service mesh does, "+RemedyMesh+
			"; otherwise see the TLS settings of the pod", err, "the TLS handshake fails")
	case strings.Contains(text, `"\x15\x03`):
		return t.fail(TLSPort, RemedyScheme+": use https", err, "the scheme is http, and the port speaks TLS")
	case strings.HasPrefix(text, "malformed "):
		return t.fail(NotMetrics, RemedyPath, err, "the port does not speak HTTP/1.1")
	case errors.Is(err, httpconn.ErrHeaderTooLarge):
		return t.fail(TooLarge, "let the application send a smaller header", err,
			"the header of the answer has more than 64 KiB, which is the limit")
	case isReset(err) && !dialing:
		return t.fail(Reset, "if a service mesh requires mTLS, "+RemedyMesh+"; otherwise see the log of the pod", err,
			"the connection was closed before the answer was complete")
	}
	errno, _ := errors.AsType[syscall.Errno](err)
	const remedyNetwork = "check the network between the custom metrics server and the pod"
	switch {
	case errno != 0:
		return t.fail(Unreachable, remedyNetwork, err, "cannot connect: %v", errno)
	case dialing || step == "connecting":
		return t.fail(Unreachable, remedyNetwork, err, "cannot connect")
	}
	return t.fail(Other, "see the log of the pod", err, "the request failed")
}

// wantsCertificate reports whether a TLS alert says that a client certificate is missing. Go has no type
// for the alerts of the other side.
func wantsCertificate(text string) bool {
	return strings.Contains(text, "remote error: tls: certificate required") ||
		strings.Contains(text, "remote error: tls: bad certificate")
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
