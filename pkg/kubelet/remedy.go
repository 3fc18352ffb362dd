package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/httpconn"
	"metrics-server/pkg/kubeapi"
)

const (
	// RemedyNoSamples is the remedy for an answer without usable samples.
	RemedyNoSamples = "look at the answer with kubectl get --raw /api/v1/nodes/NODE/proxy" + kubeapi.KubeletPath +
		": the container runtime may give the kubelet no metrics, or something other than a kubelet may answer at this path"
	// RemedyPath is the remedy for a node whose annotation is not a path.
	RemedyPath = "set the node's annotation " + kubeapi.PathAnnotation + " to a path such as " +
		kubeapi.KubeletPath + ", or remove it"
	// RemedyIncomplete is the remedy for an answer that ends in the middle of a line.
	RemedyIncomplete = "the kubelet, or a proxy in front of it, stopped in the middle of its answer: see the kubelet's " +
		"log on the node, and check that nothing on the way limits the size of answers"
	// RemedyClock is the remedy for samples that are refused because of their timestamps.
	RemedyClock = "synchronize the clocks (NTP) of this node and of the node on which metrics-server runs: samples " +
		"that are more than an hour from the server's time are refused"
	// RemedyKubeletError is the remedy for an answer in which the kubelet reports an error of its
	// own.
	RemedyKubeletError = "see the kubelet's log on the node: it cannot get metrics from the container runtime or the " +
		"system"
	// RemedyOwnPort is the remedy for a node at whose kubelet's address this server itself listens.
	RemedyOwnPort = "this is the server itself, not a kubelet: set --secure-port, containerPort and the Service's " +
		"targetPort to a port other than the kubelet's, such as 4443"
	// RemedyVirtual is the remedy for a virtual node without metrics.
	RemedyVirtual = "this is a virtual node (virtual-kubelet), and most of those have no resource metrics: leave it out " +
		"with " + leaveOut + "; if its provider has metrics, see the provider's log"
	// RemedyNotFound is the remedy for a 404.
	RemedyNotFound = "nothing is at this path: check the node's annotation " + kubeapi.PathAnnotation +
		", if it has one; a kubelet older than 1.19 may not have " + kubeapi.KubeletPath +
		"; a virtual node (virtual-kubelet) has none: leave it out with " + leaveOut
	// RemedyNotImplemented is the remedy for a 501.
	RemedyNotImplemented = "a kubelet never answers with 501, but a virtual node (virtual-kubelet) without metrics " +
		"does: leave it out with " + leaveOut

	leaveOut  = "--node-selector=type!=virtual-kubelet, or another label that such nodes have"
	checkPort = "check the kubelet's address and port (--kubelet-preferred-address-types, " +
		"--kubelet-use-node-status-port, --kubelet-port)"
	notKubelet     = "what answers there is not a kubelet: " + checkPort
	newCertificate = "set serverTLSBootstrap: true in its configuration and approve its request (kubectl get csr), or " +
		"issue the certificate of its tlsCertFile again with the node's addresses"

	remedyNoAnswer = "check that no firewall or network policy drops the traffic to the kubelet's port, and that the " +
		"node is not overloaded"
	remedyTurn = "other nodes send answers of more than 1 MiB slowly, and only a few such answers are read at a time: " +
		"find those nodes by the column DURATION in kubectl get nodes.metrics.k8s.io -o wide, and check why they list so much"
	remedyPlainHTTP = "remove --deprecated-kubelet-completely-insecure"
	remedyWebhook   = "set authentication.webhook.enabled: true in the kubelet's configuration " +
		"(--authentication-token-webhook), or give --kubelet-client-certificate"
	remedyClientCert = "the kubelet does not accept this server's client certificate: it must be valid, and signed by " +
		"the authority in the kubelet's authentication.x509.clientCAFile"
	remedyOwnRight = "the kubelet accepts this server's credentials, but they lack a right: the ClusterRole " +
		"system:metrics-server needs the verb get on nodes/metrics, and its ClusterRoleBinding must name the account in " +
		"the message"
	remedyAccount = "the kubelet accepts the token of --kubelet-service-account, but that account lacks a right: the " +
		"ClusterRole system:metrics-server-kubelets needs the verb get on nodes/metrics, and its ClusterRoleBinding must " +
		"name the account in the message"
)

func explain(err error) (cause Cause, remedy string) {
	var (
		tokenless *noTokenError
		dials     httpconn.DialErrors
		status    *statusError
		path      *PathError
		noAddr    *noAddressError
		ctype     *contentTypeError
		encoded   *httpconn.EncodingError
		tooBig    *httpconn.TooLargeError
		dns       *net.DNSError
		timeout   net.Error
		proxied   *httpconn.ProxyError
	)
	if errors.As(err, &tokenless) { // first, because it wraps errors of the API server
		return CauseNoToken, tokenless.remedy()
	}
	dialling := errors.As(err, &dials)
	if dialling {
		err = dials.MostTelling()
	}
	if errors.As(err, &proxied) {
		return CauseProxy,
			"kubelets are asked through this proxy because HTTPS_PROXY is set in this container's environment " +
				"(or proxy-url in its kubeconfig): " + kubeapi.RemedyProxy
	}
	if cause, remedy := explainTLS(err); cause != "" {
		return cause, remedy
	}
	switch {
	case errors.As(err, &status):
		return status.explain()
	case errors.As(err, &path):
		return CauseOther, RemedyPath
	case errors.As(err, &noAddr):
		return CauseNoAddress, "name a type of address that the node has in --kubelet-preferred-address-types; if the node " +
			"has no address at all, its kubelet or the cloud provider has not set one yet"
	case errors.As(err, &ctype), errors.As(err, &encoded):
		return CauseContentType, notKubelet + " and the node's annotation " + kubeapi.PathAnnotation
	case errors.As(err, &tooBig):
		return CauseTooLarge, "look at what the node lists at this path: a kubelet with 100 pods answers with about 150 KB"
	case errors.Is(err, httpconn.ErrHeaderTooLarge), isMalformed(err):
		return CauseOther, notKubelet
	case errors.Is(err, exposition.ErrTruncated):
		return CauseIncomplete, RemedyIncomplete
	case errors.Is(err, exposition.ErrClock):
		return CauseNoSamples, RemedyClock
	case errors.Is(err, exposition.ErrNoSamples):
		return CauseNoSamples, RemedyNoSamples
	case errors.Is(err, exposition.ErrKubelet):
		return CauseKubeletError, RemedyKubeletError
	case errors.Is(err, syscall.ECONNREFUSED):
		return CauseRefused, "check that the kubelet runs and listens at this address and port; if its port is " +
			"another one, give it with --kubelet-use-node-status-port or --kubelet-port"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		dialling && errors.Is(err, fs.ErrPermission): // policies enforced by eBPF; IPv6 firewalls that reject
		return CauseNoRoute, "check that pods can reach the nodes' network, that no firewall or network policy rejects the " +
			"connection, and that --kubelet-preferred-address-types prefers addresses that can be reached"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return CauseOther, "raise the limit of open files of this process: it keeps one connection open to each node"
	case errors.As(err, &dns):
		return CauseDNS, "prefer addresses that need no DNS: --kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname"
	case errors.Is(err, context.Canceled): // the caller did not wait any longer
		return CauseTimeout, remedyNoAnswer
	case isTimeout(err), errors.As(err, &timeout) && timeout.Timeout():
		return CauseTimeout, remedyNoAnswer + "; --kubelet-request-timeout gives it longer"
	case isReset(err):
		return CauseReset, "the kubelet, or something between it and this server, closed the connection: see the kubelet's " +
			"log on the node"
	}
	return CauseOther, "the message gives no further detail; the kubelet's log on the node may say more"
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// isMalformed reports whether an answer is not HTTP. net/http does not export these errors.
func isMalformed(err error) bool { return strings.HasPrefix(err.Error(), "malformed ") }

// isTLSAlert reports whether the answer to a request over plain HTTP begins as a TLS alert does.
func isTLSAlert(err error) bool {
	return isMalformed(err) && strings.Contains(err.Error(), `"\x15\x03`)
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// explainTLS explains err if it comes from TLS; otherwise cause is "".
func explainTLS(err error) (cause Cause, remedy string) {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		other    *tls.CertificateVerificationError
		record   tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknown):
		return CauseX509,
			"the kubelet's serving certificate is self-signed or signed by an authority that this server does not " +
				"know: set serverTLSBootstrap: true in the kubelet's configuration, approve its request (kubectl get csr), and " +
				"give the cluster's CA with --kubelet-certificate-authority; or, on a test cluster, give --kubelet-insecure-tls"
	case errors.As(err, &hostname) && namesNothing(hostname.Certificate):
		return CauseX509, "the kubelet's serving certificate names no address at all: it has no subject alternative names " +
			"(SANs), and a common name does not count. Give the kubelet a certificate with SANs: " + newCertificate
	case errors.As(err, &hostname):
		return CauseX509, "the kubelet's serving certificate does not name the address at which the kubelet is asked: give " +
			"the kubelet a certificate that names it: " + newCertificate + "; or prefer a type of address that the " +
			"certificate names, with --kubelet-preferred-address-types"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return CauseX509,
			"the kubelet's serving certificate is not valid at this time: renew it, and compare the clocks of the two machines"
	case errors.As(err, &invalid):
		return CauseX509,
			"the message says why the kubelet's serving certificate is not valid for a server: " + newCertificate
	case errors.As(err, &other):
		return CauseX509,
			"give the authority of the kubelets' serving certificates with --kubelet-certificate-authority; or, " +
				"on a test cluster, give --kubelet-insecure-tls"
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		return CauseOther, "something speaks plain HTTP on this port, which a kubelet does not: " + checkPort
	case errors.As(err, &record):
		return CauseOther, notKubelet
	}
	_, alert, _ := strings.Cut(err.Error(), "remote error: tls: ") // crypto/tls does not export these errors
	switch {
	case alert == "internal error":
		return CauseX509, "the kubelet most likely has no serving certificate: approve its request (kubectl get csr, then " +
			"kubectl certificate approve NAME), or see the kubelet's log on the node"
	case alert == "handshake failure", alert == "protocol version not supported", alert == "insufficient security level":
		return CauseOther,
			"the kubelet and this server have no TLS version or cipher suite in common: see tlsMinVersion and " +
				"tlsCipherSuites in the kubelet's configuration; this server speaks TLS 1.2 and 1.3"
	case alert == "access denied", strings.Contains(alert, "certificate"):
		return CauseX509, remedyClientCert
	}
	return "", ""
}

// namesNothing reports whether c names no address: it has no subject alternative names of hosts.
func namesNothing(c *x509.Certificate) bool { return len(c.DNSNames)+len(c.IPAddresses) == 0 }

// explain returns the cause of e and its remedy. The remedy for 401 and 403 depends on what the
// kubelet was shown: see remedyOfAccess.
func (e *statusError) explain() (cause Cause, remedy string) {
	code := e.code
	switch {
	case code >= 300 && code < 400:
		return CauseRedirect, "redirects are not followed, because they could take this server's credentials elsewhere: " +
			checkPort + " and the node's annotation " + kubeapi.PathAnnotation
	case e.from == fromAPIServer:
		return CauseNotKubelet, "an API server answers here instead of a kubelet: " + checkPort + "; if it is another " +
			"metrics-server, set its --secure-port and containerPort to a port other than the kubelet's; if it stands " +
			"in for kubelets on purpose, its message says what it lacks"
	case e.from == fromWebServer:
		return CauseNotKubelet, "a web server or a proxy answers here instead of a kubelet: " + checkPort +
			", and that nothing between the two redirects the connection"
	case code == http.StatusUnauthorized:
		return CauseUnauthorized, ""
	case code == http.StatusForbidden:
		return CauseForbidden, ""
	case code == http.StatusNotFound:
		return CauseNotFound, RemedyNotFound
	case code == http.StatusTooManyRequests:
		return CauseTooManyRequests,
			"the kubelet gets too many requests: find out from whom, or give a longer --metric-resolution"
	case code == http.StatusNotImplemented:
		return CauseServerError, RemedyNotImplemented
	case strings.HasPrefix(e.text, "Authorization error"):
		return CauseServerError,
			"the kubelet cannot ask the API server what this server may do: see the kubelet's log on the node; " +
				"its own account must be able to reach the API server and to create subjectaccessreviews"
	case code >= 500:
		return CauseServerError, "the kubelet itself fails: see its log on the node"
	}
	if code == http.StatusNotAcceptable {
		return CauseStatus, "what is at this path does not send metrics as text: check the node's annotation " +
			kubeapi.PathAnnotation
	}
	return CauseStatus, "check that a kubelet listens on this port, and that it speaks TLS if this server does"
}

// remedyOfAccess returns the remedy for err, a 401 or 403 of a kubelet.
func (f *fetch) remedyOfAccess(err error) string {
	status, _ := errors.AsType[*statusError](err)
	forbidden := status.code == http.StatusForbidden
	// A kubelet that admits anonymous users and does not check tokens answers 403 instead of 401.
	authenticated := forbidden && !strings.Contains(status.text, "system:anonymous")
	required := requiredSubresources.FindString(status.text)
	switch {
	case authenticated && required != "" && !strings.Contains(required, "metrics"):
		return "the kubelet requires a right other than nodes/metrics at this path: set the node's annotation " +
			kubeapi.PathAnnotation + " to a path below /metrics, or remove it"
	case authenticated && f.token != "":
		return remedyAccount
	case authenticated:
		return remedyOwnRight
	case f.shared.config.PlainHTTP:
		return "this kubelet requires credentials, and none are sent over plain HTTP: " + remedyPlainHTTP
	case f.identity.certified:
		return remedyClientCert
	}
	access := f.ownAccess()
	switch {
	case access == kubeapi.Unauthorized:
		return "the API server does not accept this server's token either: " + kubeapi.RemedyOldToken
	case forbidden:
		return "the kubelet does not check this server's token and treats it as an anonymous user, who must not be granted " +
			"anything: " + remedyWebhook
	}
	if access == kubeapi.Unreachable || access == kubeapi.Failing {
		return "the kubelet cannot ask the API server about this server's token, because requests to the API server " +
			"fail, including this server's own: repair the API server first"
	}
	return "the kubelet does not accept this server's token: " + remedyWebhook + "; if that is set, the kubelet could " +
		"not ask the API server about the token: see the kubelet's log on the node"
}

// ownAccess returns why a recent request to the API server with this server's credentials failed; "" if it succeeded or
// if that is not known.
func (f *fetch) ownAccess() kubeapi.Cause {
	if f.shared.config.OwnAccess == nil {
		return ""
	}
	err := f.shared.config.OwnAccess()
	if err == nil {
		return ""
	}
	return kubeapi.CauseOf(err)
}

// requiredSubresources matches the subresources of nodes that a kubelet requires, in the text of
// its 403.
var requiredSubresources = regexp.MustCompile(`\bsubresource(\(s\))?=\[?[\w /-]+`)
