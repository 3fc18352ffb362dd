package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
)

const (
	// A kubelet takes a sample every 10 to 20 s, and the API server's clock is known to half a
	// second.
	aheadTolerance = 5 * time.Second
	oldTolerance   = 90 * time.Second

	// expirySoon is how long before its expiry a certificate should have been renewed, unless a tenth of its
	// lifetime is less: kubelets renew theirs when 10 to 30 % of its lifetime are left.
	expirySoon = 7 * 24 * time.Hour
)

// finding is what was found about one node. Findings of several nodes that differ only in detail
// become one line.
type finding struct {
	status        Status
	summary       string
	cause, remedy string
	detail        string // specific to this node
	detailIsCause bool   // detail is the cause, and cause is empty
}

func (v *visit) found(f finding) {
	v.findings = append(v.findings, f)
	v.Status = Worse(v.Status, f.status)
}

func (v *visit) certificate(c *x509.Certificate, trusted bool, now time.Time) {
	if c == nil {
		return
	}
	v.Certificate = &Certificate{
		Issuer: c.Issuer.String(), Names: slices.Clone(c.DNSNames), NotAfter: c.NotAfter.UTC(), Trusted: trusted,
	}
	for _, ip := range c.IPAddresses {
		v.Certificate.Names = append(v.Certificate.Names, ip.String())
	}
	if left := c.NotAfter.Sub(now); left > 0 && left < min(expirySoon, c.NotAfter.Sub(c.NotBefore)/10) {
		v.found(finding{
			status: Warning, summary: "the kubelet's serving certificate expires within a week", cause: "it was not renewed",
			remedy: "enable rotation in the kubelet's configuration (rotateCertificates, serverTLSBootstrap), and approve its " +
				"requests (kubectl get csr)",
			detail: "valid until " + c.NotAfter.UTC().Format(time.RFC3339),
		})
	}
}

const certificateBy = "certificate by "

func (c *Certificate) String() string {
	names := "no name"
	if len(c.Names) > 0 {
		names = strings.Join(c.Names, ", ")
	}
	return fmt.Sprintf(certificateBy+"%s for %s, valid until %s", c.Issuer, names, c.NotAfter.Format(time.DateOnly))
}

// Causes that a kubelet.Error does not tell apart.
const (
	causeAnnotation kubelet.Cause = "annotation"
	causeClock      kubelet.Cause = "clock"
)

var (
	// causesOfAccess are those of a kubelet that is there but does not serve the API server.
	causesOfAccess = []kubelet.Cause{kubelet.CauseUnauthorized, kubelet.CauseForbidden, kubelet.CauseX509}
	// causesOfDownNodes are the causes that are also seen if the whole node is down.
	causesOfDownNodes = []kubelet.Cause{kubelet.CauseTimeout, kubelet.CauseRefused, kubelet.CauseNoRoute}
)

// summaries describes the causes of a kubelet.Error, and those that explain adds.
var summaries = map[kubelet.Cause]string{
	kubelet.CauseX509:            "the kubelet's serving certificate is not accepted",
	kubelet.CauseUnauthorized:    "the kubelet does not accept the credentials (401)",
	kubelet.CauseForbidden:       "the kubelet denies access to its metrics (403)",
	kubelet.CauseNotFound:        "the kubelet has no /metrics/resource (404)",
	kubelet.CauseTooManyRequests: "the kubelet gets too many requests (429)",
	kubelet.CauseServerError:     "the kubelet fails (5xx)",
	kubelet.CauseStatus:          "the kubelet rejects the request",
	kubelet.CauseNoToken:         "there is no token to show to the kubelet",
	kubelet.CauseNotKubelet:      "something other than a kubelet answers",
	kubelet.CauseContentType:     "something other than a kubelet answers",
	kubelet.CauseRedirect:        "the kubelet's address redirects elsewhere",
	kubelet.CauseTimeout:         "the kubelet does not answer in time",
	kubelet.CauseRefused:         "nothing listens at the kubelet's address and port",
	kubelet.CauseNoRoute:         "there is no route to the kubelet",
	kubelet.CauseReset:           "the connection to the kubelet breaks",
	kubelet.CauseProxy:           "the proxy configured for this container cannot reach the kubelet",
	kubelet.CauseDNS:             "the node's name cannot be resolved",
	kubelet.CauseNoAddress:       "the node has no address of the requested types",
	kubelet.CauseTooLarge:        "the kubelet's answer is too large",
	causeAnnotation:              "the node's annotation " + kubeapi.PathAnnotation + " is not a path",
	kubelet.CauseNoSamples:       "the kubelet's answer has no usable sample",
	causeClock:                   "all samples are refused because of the node's clock",
	kubelet.CauseIncomplete:      "the kubelet's answer is incomplete",
	kubelet.CauseKubeletError:    "the kubelet cannot collect its metrics",
}

func isPathError(err error) bool {
	_, ok := errors.AsType[*kubelet.PathError](err)
	return ok
}

// explain returns the finding for a kubelet that gave no samples.
func (e *examination) explain(ctx context.Context, v *visit, err error) finding {
	f := finding{status: Problem, detail: err.Error(), detailIsCause: true}
	var failed *kubelet.Error
	var cause kubelet.Cause // one of summaries
	switch {
	case ctx.Err() != nil:
		return finding{
			status: Unknown, summary: "the request did not finish", cause: CauseDeadline, remedy: RemedyDeadline,
		}
	case errors.As(err, &failed):
		cause, f.remedy = kubelet.Cause(failed.Cause()), failed.Remedy()
		switch {
		case errors.Is(err, exposition.ErrClock):
			cause = causeClock
		case isPathError(err):
			cause = causeAnnotation
		}
		f.detail = failed.Err.Error()
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "nodes/"):
		return finding{
			status: Unknown, summary: "the kubelet cannot be asked through the API server",
			cause:  "the right to get nodes/proxy is missing",
			remedy: "run doctor with credentials that may get nodes/proxy, or in the server's pod",
		}
	case isPathError(err):
		cause, f.remedy = causeAnnotation, kubelet.RemedyPath
	case errors.Is(err, exposition.ErrKubelet):
		cause, f.remedy = kubelet.CauseKubeletError, kubelet.RemedyKubeletError
	case errors.Is(err, exposition.ErrTruncated):
		cause, f.remedy = kubelet.CauseIncomplete, kubelet.RemedyIncomplete
	case errors.Is(err, exposition.ErrClock):
		cause, f.remedy = causeClock, kubelet.RemedyClock
	case errors.Is(err, exposition.ErrNoSamples):
		cause, f.remedy = kubelet.CauseNoSamples, kubelet.RemedyNoSamples
	default:
		cause, f.remedy = explainProxied(err)
		if v.endpoint.Virtual && !slices.Contains(causesOfAccess, cause) {
			f.remedy = kubelet.RemedyVirtual
		}
	}
	f.summary = cmp.Or(summaries[cause], "the kubelet gives no samples")
	if !v.ready && slices.Contains(causesOfDownNodes, cause) {
		f.remedy = "the node is not ready and may be down: repair the node first (kubectl describe node NODE)"
	}
	if v.Certificate != nil {
		f.detail += "; " + v.Certificate.String()
	}
	return f
}

// proxied lists the failures of requests that the API server forwards to a kubelet, by a part of
// their message.
var proxied = []struct {
	says   string
	cause  kubelet.Cause
	remedy string
}{
	{"certificate is valid for", kubelet.CauseX509, remedyNames},
	{"doesn't contain any IP SANs", kubelet.CauseX509, remedyNames},
	{"relies on legacy Common Name field", kubelet.CauseX509, remedyNames},
	{"x509:", kubelet.CauseX509, "the API server does not accept the kubelet's certificate" + untested + ": renew the " +
		"certificate, or correct the API server's --kubelet-certificate-authority"},
	{"connection refused", kubelet.CauseRefused, "the API server cannot connect to the kubelet" + untested + ": check " +
		"that the kubelet runs, and on which port it listens"},
	{"no such host", kubelet.CauseDNS, "the API server cannot resolve the node's name" + untested + ": its " +
		"--kubelet-preferred-address-types should prefer InternalIP"},
	{"no route to host", kubelet.CauseNoRoute, remedyProxiedRoute},
	{"network is unreachable", kubelet.CauseNoRoute, remedyProxiedRoute},
	{"timeout", kubelet.CauseTimeout, remedyProxiedTimeout},
	{"deadline exceeded", kubelet.CauseTimeout, remedyProxiedTimeout},
	{"Timeout exceeded", kubelet.CauseTimeout, remedyProxiedTimeout},
}

const (
	// untested says what a request through the API server leaves open: metrics-server has its own network and flags.
	untested = " (metrics-server itself was not tested)"

	remedyNames = "the API server does not accept the kubelet's certificate, as it does not name the address at which " +
		"the kubelet is asked" + untested + ": set serverTLSBootstrap in the kubelet's configuration, which requests a " +
		"certificate with the node's addresses, and approve the request (kubectl get csr)"
	remedyProxiedRoute   = "the API server has no route to the node" + untested + ": check the network between them"
	remedyProxiedTimeout = "the API server gets no answer from the kubelet" + untested + ": check that the node is up " +
		"and that no firewall blocks the kubelet's port (10250)"
)

func explainProxied(err error) (cause kubelet.Cause, remedy string) {
	for _, p := range proxied {
		if strings.Contains(err.Error(), p.says) {
			return p.cause, p.remedy
		}
	}
	switch {
	case apierrors.IsUnauthorized(err):
		return kubelet.CauseUnauthorized, "the kubelet does not accept the API server's client certificate: the kubelet's " +
			"authentication.x509.clientCAFile must have the authority that signed --kubelet-client-certificate"
	case apierrors.IsForbidden(err):
		return kubelet.CauseForbidden, "the kubelet denies the API server access to its metrics: bind the ClusterRole " +
			"system:kubelet-api-admin to the user of the API server's --kubelet-client-certificate"
	case apierrors.IsNotFound(err):
		return kubelet.CauseNotFound, kubelet.RemedyNotFound
	}
	switch code := codeOf(err); {
	case code == http.StatusNotImplemented:
		return kubelet.CauseServerError, kubelet.RemedyNotImplemented
	case code >= http.StatusInternalServerError:
		return kubelet.CauseServerError,
			"the kubelet fails, or the connection from the API server to it: see the kubelet's log on the node, and the API " +
				"server's log"
	}
	return kubelet.CauseOther, "the message gives no further reason; see the logs of the API server and of the kubelet"
}

// codeOf returns the HTTP status of an error, 0 if there was no answer.
func codeOf(err error) int {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return int(status.Status().Code)
	}
	return 0
}

// refused adds a finding for each cause for which samples of b are refused.
func (v *visit) refused(b *sample.Batch) {
	type refusal struct {
		cause, remedy string
		samples       sample.Refusals
	}
	var all []*refusal
	for reason, n := range b.Refused {
		if n == 0 {
			continue
		}
		cause, remedy := kubelet.ExplainRefused(sample.Reason(reason))
		i := slices.IndexFunc(all, func(r *refusal) bool { return r.cause == cause })
		if i < 0 {
			i, all = len(all), append(all, &refusal{cause: cause, remedy: remedy})
		}
		all[i].samples[reason] = n
	}
	for _, r := range all {
		f := finding{
			status: Warning, summary: "the kubelet's answer has unusable samples", cause: r.cause, detail: r.samples.String(),
			remedy: r.remedy + ". To see the answer: kubectl get --raw /api/v1/nodes/NODE/proxy/metrics/resource",
		}
		if r.remedy == kubelet.RemedyClock && b.Clock() != "" {
			f.detail += "; " + b.Clock()
		}
		v.found(f)
	}
}

func highestMemory(b *sample.Batch) uint64 {
	most := b.Node.Memory
	for i := range b.Containers {
		most = max(most, b.Containers[i].Memory)
	}
	return most
}

// frozen names the node and the containers of b whose samples are old while others are newer; "" if
// there are none.
func frozen(b *sample.Batch, newest sample.Time) string {
	old := func(s *sample.Sample) bool {
		return s.Given&(sample.CPU|sample.Memory) != 0 && newest.Sub(s.Time) > sample.FrozenAfter
	}
	var names []string
	if old(&b.Node) {
		names = append(names, "the node itself")
	}
	for i := range b.Containers {
		if c := &b.Containers[i]; old(&c.Sample) {
			names = append(names, c.ID.Namespace()+"/"+c.ID.Pod()+"/"+c.ID.Container())
		}
	}
	return Some(names)
}

// judge checks the content of a kubelet's answer.
func (v *visit) judge(b *sample.Batch, now time.Time) {
	newest := b.Node.Time
	runs := false
	for i := range b.Containers {
		c := &b.Containers[i]
		newest = max(newest, c.Time)
		runs = runs || c.Given&(sample.CPU|sample.Memory) != 0
		if c.Given.Has(sample.CPU | sample.Memory) {
			v.Containers++
		}
	}
	if lacking := kubelet.Lacking(b); lacking != "" {
		v.found(finding{
			status: Problem, summary: "the kubelet's answer lacks " + lacking,
			cause: "the container runtime is old or broken, or the kubelet does not support the node's cgroups (v2 needs " +
				"Kubernetes 1.22 or newer)",
			remedy: kubelet.RemedyRuntime,
		})
	}
	if !runs {
		v.found(finding{
			status: Warning, summary: "the kubelet lists no running container",
			cause: "no pod runs on the node, or the container runtime gives the kubelet no metrics",
			remedy: "if pods run on the node (kubectl get pods -A --field-selector spec.nodeName=NODE): " +
				kubelet.RemedyRuntime,
		})
	}
	v.refused(b)
	if most := highestMemory(b); v.memory > 0 && most > uint64(v.memory) {
		cause, remedy := kubelet.ExplainRefused(sample.OverCapacity)
		v.found(finding{
			status: Warning, summary: "the kubelet's answer shows more memory than the node has", cause: cause, remedy: remedy,
			detail: fmt.Sprintf("%d bytes of %d", most, v.memory),
		})
	}
	if newest == 0 {
		return
	}
	if frozen := frozen(b, newest); frozen != "" {
		v.found(finding{
			status: Warning, summary: "the kubelet repeats old samples beside new ones",
			cause:  "the kubelet or the container runtime has stopped sampling them, so they have no metrics",
			remedy: "restart the kubelet; if that does not help, restart the container runtime, and see the kubelet's log",
			detail: frozen,
		})
	}
	at := newest.Std()
	v.NewestSample = &at
	switch age := now.Sub(at); {
	case age < -aheadTolerance:
		v.found(finding{
			status: Warning, summary: "the kubelet's timestamps are ahead of the API server's clock",
			cause:  "the node's clock is wrong; samples that are more than an hour ahead are refused",
			remedy: "synchronize the clocks of the nodes and the control plane (NTP)",
			detail: "by " + (-age).Round(time.Second).String(),
		})
	case age > oldTolerance:
		v.found(finding{
			status: Warning, summary: "the kubelet's newest sample is old",
			cause: "the node's clock is behind the API server's, or the kubelet has stopped sampling and repeats old samples",
			remedy: "synchronize the clocks of the nodes and the control plane (NTP); if they are right, restart the kubelet; " +
				"if that does not help, restart the container runtime",
			detail: age.Round(time.Second).String() + " old",
		})
	}
}
