package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"metrics-server/pkg/exposition"
)

// Error says why a kubelet gave no samples.
type Error struct {
	Node string
	URL  string // "" if there is nowhere to ask
	Err  error

	cause, remedy string
}

func (e *Error) Error() string {
	if e.URL == "" {
		return fmt.Sprintf("kubelet of node %q: %v", e.Node, e.Err)
	}
	return fmt.Sprintf("kubelet of node %q: GET %s: %v", e.Node, e.URL, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Cause is the kind of failure in a word or two: x509, 401, 403, 404, 429, 5xx, redirect, http (any
// other status), timeout, connection refused, no route, proxy, dns, no address, reset, body too large,
// no samples, kubelet error, content type, other.
func (e *Error) Cause() string { return e.cause }

// Remedy is what an administrator can do about it: a sentence without a full stop.
func (e *Error) Remedy() string { return e.remedy }

// failure makes err an *Error.
func (f *fetch) failure(ctx context.Context, err error) *Error {
	e := &Error{Node: f.node, Err: err}
	if f.addr != "" {
		e.URL = f.url(f.shared.scheme, f.addr).String()
	}
	if ctx.Err() != nil {
		if !tellsMore(err) {
			err = context.DeadlineExceeded // by whatever error it showed
		}
		e.Err = fmt.Errorf("timed out while %s: %w", f.doing, err)
	}
	e.cause, e.remedy = explain(e.Err)
	if ctx.Err() != nil && f.doing == waitingForCPU {
		e.remedy = "this server has too little CPU: raise the request and the limit of its container"
	}
	switch {
	case e.cause == "401" && f.shared.certified:
		e.remedy = remedyClientCert
	case e.cause == "http" && f.shared.tls == nil:
		e.remedy = "this kubelet most likely speaks TLS only: remove --deprecated-kubelet-completely-insecure"
	}
	return e
}

// tellsMore says whether err tells more than that the time is up: of addresses that failed before, of a proxy, or of names.
func tellsMore(err error) bool {
	if dials, ok := errors.AsType[dialErrors](err); ok && len(dials) > 1 {
		return true
	}
	_, proxied := errors.AsType[*proxyError](err)
	_, named := errors.AsType[*net.DNSError](err)
	return proxied || named
}

type statusError struct {
	code     int
	line     string // first line of the body
	location string // of a redirect
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("answer is %d %s", e.code, http.StatusText(e.code))
	if e.location != "" {
		s += fmt.Sprintf(" to %q", e.location)
	}
	if e.line != "" {
		s += fmt.Sprintf(": %q", e.line)
	}
	return s
}

type contentTypeError struct{ got string }

func (e *contentTypeError) Error() string {
	return fmt.Sprintf("answer is %q, not metrics in Prometheus text or delimited protobuf format", e.got)
}

type tooLargeError struct {
	limit int64
	size  int64 // 0: not known
}

func (e *tooLargeError) Error() string {
	if e.size == 0 {
		return fmt.Sprintf("answer is too large: it has more than %d bytes, which is the limit", e.limit)
	}
	return fmt.Sprintf("answer is too large: it has %d bytes, the limit is %d", e.size, e.limit)
}

const (
	maxRefusal = 1 << 10 // bytes of the body of an answer that is not 200
	maxLine    = 200     // bytes of it that are shown
	maxError   = 400     // bytes of what is said of an exchange that failed
)

// readRefusal turns an answer that is not 200 into an error, without secret if the answer echoes it.
func readRefusal(resp *http.Response, secret string) (drained bool, err error) {
	b, rerr := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	// A body of exactly maxRefusal bytes costs a connection, which does not matter.
	drained = rerr == nil && len(b) < maxRefusal && resp.StatusCode >= http.StatusOK

	e := &statusError{code: resp.StatusCode}
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	e.line = shorten(redact(strings.TrimSpace(line), secret), maxLine)
	if resp.StatusCode/100 == 3 {
		e.location = shorten(redact(resp.Header.Get("Location"), secret), maxLine)
	}
	return drained, e
}

// redact removes the value of an Authorization header, with and without its scheme, from s, and the beginning of it where s was cut off.
func redact(s, secret string) string {
	const removed = "[redacted]"
	_, token, ok := strings.Cut(secret, " ")
	if !ok || token == "" {
		return s
	}
	s = strings.ReplaceAll(s, token, removed)
	for n := min(len(s), len(token)-1); n >= minPrefix; n-- {
		if strings.HasSuffix(s, token[:n]) {
			return s[:len(s)-n] + removed
		}
	}
	return s
}

// minPrefix is how much of a secret tells something of it, and is no coincidence.
const minPrefix = 8

// fitForLogs returns err with a text that is not too long and does not show secret, whatever a server made of it: some errors quote its
// header.
func fitForLogs(err error, secret string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if fit := shorten(redact(text, secret), maxError); fit != text {
		return &quotingError{err, fit}
	}
	return err
}

// quotingError is err with another text.
type quotingError struct {
	err  error
	text string
}

func (e *quotingError) Error() string { return e.text }
func (e *quotingError) Unwrap() error { return e.err }

func shorten(s string, limit int) string {
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}

// explain returns the cause of err and its remedy.
func explain(err error) (cause, remedy string) {
	var (
		dials   dialErrors
		status  *statusError
		path    *pathError
		noAddr  *noAddressError
		ctype   *contentTypeError
		tooBig  *tooLargeError
		dns     *net.DNSError
		timeout net.Error
		proxied *proxyError
	)
	if errors.As(err, &dials) {
		err = dials.telling()
	}
	if errors.As(err, &proxied) {
		return "proxy", "kubelets are asked through this proxy because HTTPS_PROXY is set in this container's environment (or proxy-url in its kubeconfig): add the nodes' addresses to NO_PROXY, one by one or as ranges such as 10.0.0.0/8, or remove HTTPS_PROXY"
	}
	if cause, remedy := explainTLS(err); cause != "" {
		return cause, remedy
	}
	switch {
	case errors.As(err, &status):
		return explainStatus(status.code)
	case errors.As(err, &path):
		return "other", "set the node's annotation " + PathAnnotation + " to an absolute path such as " + defaultPath + ", or remove it"
	case errors.As(err, &noAddr):
		return "no address", "name an address type that the node has in --kubelet-preferred-address-types, or let the kubelet or the cloud provider set the node's addresses"
	case errors.As(err, &ctype):
		return "content type", "something else than a kubelet answers: check the kubelet's port and the node's annotation " + PathAnnotation
	case errors.As(err, &tooBig):
		return "body too large", "look what the node lists at this path: a kubelet with 100 pods answers with about 150 KB"
	case errors.Is(err, errHeaderTooLarge):
		return "other", "something else than a kubelet answers: check the kubelet's port"
	case errors.Is(err, exposition.ErrNoSamples):
		return "no samples", "look at the answer with kubectl get --raw /api/v1/nodes/NODE/proxy/metrics/resource: the container runtime may give the kubelet no metrics, or another exporter may answer at this path; samples refused as timestamp_ahead mean that the clocks of the node and of this server are more than an hour apart"
	case errors.Is(err, exposition.ErrKubelet):
		return "kubelet error", "see the kubelet's log on the node: it cannot get metrics from the container runtime or the system"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", "check that the kubelet runs and listens on this address and port (--kubelet-use-node-status-port, --kubelet-port)"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route", "check that pods can reach the nodes' network, and that --kubelet-preferred-address-types prefers addresses that can be reached"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "other", "raise the limit of open files of this process: it keeps one connection open to each node"
	case errors.As(err, &dns):
		return "dns", "prefer addresses that need no DNS: --kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout", "check that no firewall or network policy drops the traffic to the kubelet's port, and that the node is not overloaded; --kubelet-request-timeout gives it longer"
	case isReset(err):
		return "reset", "the kubelet or something between ended the connection in the middle: see the kubelet's log on the node"
	}
	return "other", "the message is all that is known here; the kubelet's log on the node may say more"
}

func isReset(err error) bool {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	text := err.Error() // net/http does not export the errors of its HTTP/2
	return strings.Contains(text, "stream error: ") || strings.Contains(text, "server sent GOAWAY")
}

func explainStatus(code int) (cause, remedy string) {
	switch {
	case code == http.StatusUnauthorized:
		return "401", "the kubelet does not accept our credentials: set authentication.webhook.enabled in its configuration (--authentication-token-webhook), or give --kubelet-client-certificate"
	case code == http.StatusForbidden:
		return "403", "the kubelet may not serve us: the ClusterRole system:metrics-server needs the verb get on nodes/metrics, and its ClusterRoleBinding must name our service account"
	case code == http.StatusNotFound:
		return "404", "nothing is at this path: check the node's annotation " + PathAnnotation + "; a kubelet older than 1.19 may not have " + defaultPath
	case code == http.StatusTooManyRequests:
		return "429", "the kubelet is asked too often: find out by whom, or give a longer --metric-resolution"
	case code >= 500:
		return "5xx", "see the kubelet's log on the node"
	case code >= 300 && code < 400:
		return "redirect", "redirects are not followed, as they could take our credentials elsewhere: check the kubelet's port and the node's annotation " + PathAnnotation
	}
	return "http", "check that a kubelet listens on this port, and that it speaks TLS if we do"
}

const remedyClientCert = "the kubelet does not accept our client certificate: it must be valid and signed by the authority in the kubelet's authentication.x509.clientCAFile"

// explainTLS explains err if it has to do with TLS.
func explainTLS(err error) (cause, remedy string) {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		other    *tls.CertificateVerificationError
		record   tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknown):
		return "x509", "the kubelet's serving certificate is self-signed, or by another authority: set serverTLSBootstrap in the kubelet's configuration, approve its requests, and give the cluster's CA with --kubelet-certificate-authority; or, on a test cluster, --kubelet-insecure-tls"
	case errors.As(err, &hostname):
		return "x509", "the kubelet's serving certificate does not name the address that we dialled: prefer a type that it does name, with --kubelet-preferred-address-types, or set serverTLSBootstrap in the kubelet's configuration for a certificate with the node's addresses"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "x509", "the kubelet's serving certificate is not valid at this time: renew it, and compare the clocks of the two machines"
	case errors.As(err, &other):
		return "x509", "give the authority of the kubelets' serving certificates with --kubelet-certificate-authority; or, on a test cluster, --kubelet-insecure-tls"
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		return "other", "plain HTTP is spoken on this port: check the kubelet's port"
	case strings.Contains(err.Error(), "remote error: tls: ") && strings.Contains(err.Error(), "certificate"):
		return "x509", remedyClientCert
	}
	return "", ""
}
