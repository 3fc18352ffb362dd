package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
)

const (
	// A kubelet samples every 10 to 20 seconds, and the API server's clock is known to half a second.
	aheadTolerance = 5 * time.Second
	oldTolerance   = 90 * time.Second

	// expirySoon is when a certificate should have been renewed: kubelets do so when a tenth to a third of a year is left.
	expirySoon = 7 * 24 * time.Hour
)

// finding is something about a node. Those of several nodes that differ in detail only are one line.
type finding struct {
	status         Status
	summary        string
	cause, remedy  string
	detail         string // of this node
	detailIsTheWhy bool   // then it stands for the cause
}

func (v *visit) found(f finding) {
	v.findings = append(v.findings, f)
	v.Status = worse(v.Status, f.status)
}

func (v *visit) certificate(c *x509.Certificate, trusted bool, now time.Time) {
	if c == nil {
		return
	}
	v.Certificate = &Certificate{Issuer: c.Issuer.String(), Names: slices.Clone(c.DNSNames), NotAfter: c.NotAfter.UTC(), Trusted: trusted}
	for _, ip := range c.IPAddresses {
		v.Certificate.Names = append(v.Certificate.Names, ip.String())
	}
	if left := c.NotAfter.Sub(now); left > 0 && left < expirySoon {
		v.found(finding{
			status: Warning, summary: "the kubelet's serving certificate expires within a week", cause: "it was not renewed",
			remedy: "see that rotation is on (rotateCertificates, serverTLSBootstrap) and that its requests are approved: kubectl get csr",
			detail: "it is valid until " + c.NotAfter.UTC().Format(time.RFC3339),
		})
	}
}

func (c *Certificate) String() string {
	names := "no name"
	if len(c.Names) > 0 {
		names = strings.Join(c.Names, ", ")
	}
	return fmt.Sprintf("certificate by %s for %s, valid until %s", c.Issuer, names, c.NotAfter.Format(time.DateOnly))
}

// summaries say what the causes of a kubelet.Error mean.
var summaries = map[string]string{
	"x509":               "the kubelet's serving certificate is not accepted",
	"401":                "the kubelet does not accept the credentials (401)",
	"403":                "the kubelet forbids to read its metrics (403)",
	"404":                "the kubelet has no /metrics/resource (404)",
	"timeout":            "the kubelet does not answer in time",
	"connection refused": "nothing listens at the kubelet's address and port",
	"no route":           "there is no route to the kubelet",
	"proxy":              "the proxy that is set for this container does not lead to the kubelet",
	"dns":                "the node's name cannot be looked up",
	"no address":         "the node has no address of the types that are wanted",
	"no samples":         "the kubelet's answer has no sample that can be used",
	"kubelet error":      "the kubelet itself cannot get at its metrics",
}

// explain makes a finding of an answer that did not come.
func (e *examination) explain(ctx context.Context, v *visit, err error) finding {
	f := finding{status: Problem, detail: err.Error(), detailIsTheWhy: true}
	var failed *kubelet.Error
	var word string
	switch {
	case ctx.Err() != nil:
		return finding{status: Unknown, summary: "not asked to the end", cause: "the time was up", remedy: "give a longer --timeout"}
	case errors.As(err, &failed):
		word, f.remedy = failed.Cause(), failed.Remedy()
		f.detail = failed.Err.Error()
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "nodes/"):
		return finding{
			status: Unknown, summary: "kubelets cannot be asked through the API server", cause: "the right to get nodes/proxy is missing",
			remedy: "run doctor with credentials that may get nodes/proxy, or in the server's pod",
		}
	case errors.Is(err, exposition.ErrKubelet):
		word, f.remedy = "kubelet error", "see the kubelet's log on the node: it cannot get metrics from the container runtime or the system"
	case errors.Is(err, exposition.ErrNoSamples):
		word, f.remedy = "no samples", "the container runtime may give the kubelet no metrics, or another exporter may answer at this path"
	default:
		word, f.remedy = explainProxied(err)
	}
	f.summary = cmp.Or(summaries[word], "the kubelet gives no samples ("+word+")")
	if !v.ready && (word == "timeout" || word == "connection refused" || word == "no route") {
		f.remedy = "the node is not ready: look after the node first (kubectl describe node), it may be down"
	}
	if v.Certificate != nil {
		f.detail += "; " + v.Certificate.String()
	}
	return f
}

// proxied are the failures of a request that the API server should pass on to a kubelet, by what the message has.
var proxied = []struct{ says, word, remedy string }{
	{"certificate is valid for", "x509", remedyNames},
	{"doesn't contain any IP SANs", "x509", remedyNames},
	{"x509:", "x509", "the API server does not accept the kubelet's certificate either: renew it, or correct the API server's --kubelet-certificate-authority"},
	{"connection refused", "connection refused", "see that the kubelet runs, and at which port: the API server does not get through to it either"},
	{"no such host", "dns", "the API server cannot look the name up either: see its --kubelet-preferred-address-types, which should prefer InternalIP"},
	{"no route to host", "no route", "the API server has no way to the node either: see the network between them"},
	{"network is unreachable", "no route", "the API server has no way to the node either: see the network between them"},
	{"timeout", "timeout", "the API server gets no answer from the kubelet either: see that the node is up and that no firewall is between (port 10250)"},
	{"deadline exceeded", "timeout", "the API server gets no answer from the kubelet either: see that the node is up and that no firewall is between (port 10250)"},
	{"Timeout exceeded", "timeout", "the API server gets no answer from the kubelet either: see that the node is up and that no firewall is between (port 10250)"},
}

const remedyNames = "the kubelet's serving certificate does not name the address at which the API server asks either: set serverTLSBootstrap in the kubelet's configuration for a certificate with the node's addresses, and approve its request (kubectl get csr)"

func explainProxied(err error) (word, remedy string) {
	for _, p := range proxied {
		if strings.Contains(err.Error(), p.says) {
			return p.word, p.remedy
		}
	}
	switch {
	case apierrors.IsUnauthorized(err):
		return "401", "the kubelet does not accept the API server's client certificate: its authentication.x509.clientCAFile must be the authority of --kubelet-client-certificate"
	case apierrors.IsForbidden(err):
		return "403", "the kubelet does not let the API server read its metrics: see the ClusterRoleBinding of its client certificate's user (system:kubelet-api-admin)"
	case apierrors.IsNotFound(err):
		return "404", "nothing is at this path: check the node's annotation " + kubelet.PathAnnotation + "; a kubelet older than 1.19 may not have /metrics/resource"
	}
	return "other", "the message is all that is known here; the logs of the API server and of the kubelet may say more"
}

// judge looks at what a kubelet said.
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
	const runtime = "an old or broken container runtime, or cgroups that this kubelet does not support (v2 needs Kubernetes 1.22 or newer)"
	if lacking := kubelet.Lacking(b); lacking != "" {
		v.found(finding{
			status: Problem, summary: "the kubelet's answer lacks " + lacking,
			cause: runtime, remedy: kubelet.RemedyRuntime,
		})
	}
	if !runs {
		v.found(finding{
			status: Warning, summary: "the kubelet lists no container that runs",
			cause: "no pod runs there, or the container runtime gives the kubelet no metrics", remedy: "if pods run there (kubectl get pods -A --field-selector spec.nodeName=NODE): " + kubelet.RemedyRuntime,
		})
	}
	if n := b.Refused.Total(); n > 0 {
		v.found(finding{
			status: Warning, summary: "the kubelet's answer has samples that cannot be used", cause: "the kubelet or its container runtime gave values that make no sense",
			remedy: "look at the answer with kubectl get --raw /api/v1/nodes/NODE/proxy/metrics/resource", detail: b.Refused.String(),
		})
	}
	if newest == 0 {
		return
	}
	at := newest.Std()
	v.NewestSample = &at
	switch age := now.Sub(at); {
	case age < -aheadTolerance:
		v.found(finding{
			status: Warning, summary: "the kubelet's timestamps are ahead of the API server's clock", cause: "the node's clock is wrong; samples more than an hour ahead are refused",
			remedy: "synchronise the clocks of the nodes and the control plane (NTP)", detail: "by " + (-age).Round(time.Second).String(),
		})
	case age > oldTolerance:
		v.found(finding{
			status: Warning, summary: "the kubelet's newest sample is old", cause: "the node's clock is behind that of the API server, or the kubelet has stopped to sample",
			remedy: "synchronise the clocks of the nodes and the control plane (NTP); if they are right, see the kubelet's log", detail: age.Round(time.Second).String() + " old",
		})
	}
}
