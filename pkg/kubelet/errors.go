package kubelet

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"

	"metrics-server/pkg/httpconn"
)

// Error says why a kubelet gave no samples.
type Error struct {
	Node string
	URL  string // "" if the node has no address to ask
	Err  error

	cause  Cause
	remedy string
}

func (e *Error) Error() string {
	if e.URL == "" {
		return fmt.Sprintf("kubelet of node %q: %v", e.Node, e.Err)
	}
	return fmt.Sprintf("kubelet of node %q: GET %s: %v", e.Node, e.URL, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Cause returns the Cause as a string, for those who know no kubelet.
func (e *Error) Cause() string { return string(e.cause) }

// Remedy is what an administrator can do about it: a sentence without a full stop.
func (e *Error) Remedy() string { return e.remedy }

func (f *fetch) failure(ctx context.Context, err error) *Error {
	e := &Error{Node: f.node, Err: f.http.FitForLogs(err)}
	if f.exchange.URL.Host != "" {
		e.URL = f.exchange.URL.String()
	}
	done := ctx.Err()
	canceled := errors.Is(done, context.Canceled)
	_, refused := errors.AsType[*statusError](err) // then the kubelet has answered, even if the body did not end
	if done != nil && !refused {
		if !addsToTimeout(err) {
			e.Err = done // it surfaces as various errors
		}
		how := "timed out"
		if canceled {
			how = "canceled"
		}
		e.Err = fmt.Errorf("%s while %s: %w", how, f.exchange.Step, e.Err)
	}
	e.cause, e.remedy = explain(e.Err)
	if canceled && e.cause == CauseTimeout {
		e.remedy = remedyNoAnswer // more time would not have helped
	}
	switch {
	case f.reachedItself(err):
		e.cause, e.remedy = CauseOwnPort, RemedyOwnPort
	case done != nil && f.exchange.Step == waitingForCPU:
		e.remedy = "this server has too little CPU: raise the request and the limit of its container"
	case done != nil && f.exchange.Step == httpconn.WaitingForTurn:
		e.remedy = remedyTurn
	case f.virtual && slices.Contains(causesOfVirtual, e.cause):
		e.remedy = RemedyVirtual
	case e.cause == CauseUnauthorized, e.cause == CauseForbidden:
		e.remedy = f.remedyOfAccess(err)
	case f.shared.config.PlainHTTP && (e.cause == CauseStatus || isTLSAlert(err)):
		e.remedy = "this kubelet most likely speaks TLS only: " + remedyPlainHTTP + "; on the host network also check that " +
			"the server itself does not listen there: its --secure-port must not be the kubelet's port"
	}
	return e
}

// causesOfVirtual are the causes by which a virtual node shows that it has no metrics.
var causesOfVirtual = []Cause{
	CauseNotFound, CauseServerError, CauseStatus, CauseNotKubelet, CauseContentType, CauseNoSamples, CauseNoAddress,
	CauseDNS, CauseRefused, CauseNoRoute, CauseReset, CauseTimeout,
}

// reachedItself reports whether this server itself answered: the peer has the key of the
// certificate that it serves.
func (f *fetch) reachedItself(err error) bool {
	own := f.shared.config.ServingCertificate
	if own == nil {
		return false
	}
	peer := f.exchange.Peer
	untrusted, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if ok && len(untrusted.UnverifiedCertificates) > 0 {
		peer = untrusted.UnverifiedCertificates[0]
	}
	if peer == nil {
		return false
	}
	block, _ := pem.Decode(own())
	if block == nil {
		return false
	}
	c, err := x509.ParseCertificate(block.Bytes)
	// Keys are compared because the certificate may have been renewed since the handshake.
	return err == nil && bytes.Equal(c.RawSubjectPublicKeyInfo, peer.RawSubjectPublicKeyInfo)
}

// addsToTimeout reports whether err says more than that the time is up: which addresses failed
// before, or that a token, a proxy or DNS was waited for.
func addsToTimeout(err error) bool {
	if dials, ok := errors.AsType[httpconn.DialErrors](err); ok && len(dials) > 1 {
		return true
	}
	_, fallback := errors.AsType[*httpconn.FallbackError](err)
	_, tokenless := errors.AsType[*noTokenError](err)
	_, proxied := errors.AsType[*httpconn.ProxyError](err)
	_, named := errors.AsType[*net.DNSError](err)
	return fallback || tokenless || proxied || named
}

type contentTypeError struct{ got string }

func (e *contentTypeError) Error() string {
	return fmt.Sprintf("answer is %q, not metrics in the Prometheus text format", e.got)
}
