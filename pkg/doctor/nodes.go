package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
)

const (
	// concurrency is how many kubelets are asked at once.
	concurrency = 32

	// A kubelet samples every 10 to 20 seconds, and the API server's clock is known to half a second.
	aheadTolerance = 5 * time.Second
	oldTolerance   = 90 * time.Second

	// expirySoon is when a certificate should have been renewed: kubelets do so when a tenth to a third of a year is left.
	expirySoon = 7 * 24 * time.Hour
)

// visit is a node and what is found there.
type visit struct {
	*Node
	ready    bool
	endpoint kubelet.Endpoint
	findings []finding
}

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

// listNodes returns the nodes that the server serves, without what is not needed of them.
func (e *examination) listNodes(ctx context.Context) ([]*visit, error) {
	var nodes []*visit
	err := pages(func(o metav1.ListOptions) (string, error) {
		o.LabelSelector = e.flags.NodeSelector
		list, err := e.api.CoreV1().Nodes().List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			nodes = append(nodes, newVisit(&list.Items[i]))
		}
		return list.Continue, nil
	})
	return nodes, err
}

func newVisit(n *corev1.Node) *visit {
	v := &visit{
		Node: &Node{Name: n.Name, Status: OK, KubeletVersion: n.Status.NodeInfo.KubeletVersion},
		ready: slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}),
		endpoint: kubelet.Endpoint{
			Node: n.Name,
			Port: n.Status.DaemonEndpoints.KubeletEndpoint.Port,
			Path: n.Annotations[kubelet.PathAnnotation],
		},
	}
	for _, a := range n.Status.Addresses {
		v.endpoint.Addresses = append(v.endpoint.Addresses, kubelet.Address{Type: string(a.Type), Address: a.Address})
	}
	return v
}

// nodes asks every kubelet.
func (e *examination) nodes(ctx context.Context, visits []*visit) {
	if len(visits) == 0 {
		e.report.add(Line{
			Check: checkNodes, Status: Warning, Message: "there are no nodes", Cause: "the cluster has none, or none matches --node-selector",
			Remedy: "compare --node-selector with the nodes' labels (kubectl get nodes --show-labels)",
		})
		return
	}
	clients, err := kubelet.New(e.flags.Kubelet)
	switch {
	case err == nil:
		defer clients.Close()
	case e.config.Direct:
		e.report.add(Line{
			Check: checkNodes, Status: Unknown, Message: "kubelets cannot be asked", Cause: err.Error(),
			Remedy: "give the --kubelet-* flags that hold here, or run doctor in the server's pod",
		})
		return
	default: // files of the server's pod: only the order of the addresses matters here
		k := e.flags.Kubelet
		clients, err = kubelet.New(kubelet.Config{Insecure: true, Port: k.Port, UseNodeStatusPort: k.UseNodeStatusPort, AddressTypes: k.AddressTypes})
		if err != nil {
			e.report.add(Line{Check: checkNodes, Status: Unknown, Message: "kubelets cannot be asked", Cause: err.Error(), Remedy: "correct the --kubelet-* flags"})
			return
		}
		defer clients.Close()
	}

	var group errgroup.Group
	group.SetLimit(concurrency)
	for _, v := range visits {
		group.Go(func() error {
			e.visit(ctx, clients, v)
			return nil
		})
	}
	_ = group.Wait() // no visit returns an error
	e.report.add(e.summarize(visits)...)
	for _, v := range visits {
		e.report.Nodes = append(e.report.Nodes, *v.Node)
	}
}

// visit asks one kubelet and judges what it says.
func (e *examination) visit(ctx context.Context, clients *kubelet.Clients, v *visit) {
	client := clients.Client(v.endpoint)
	defer client.Close()
	v.Addresses = client.Addresses()
	if ctx.Err() != nil {
		v.found(finding{status: Unknown, summary: "not asked", cause: "the time was up", remedy: "give a longer --timeout"})
		return
	}
	one, cancel := context.WithTimeout(ctx, e.flags.Timeout)
	defer cancel()
	batch := &sample.Batch{}
	var err error
	if e.config.Direct {
		err = client.Fetch(one, batch)
		var cert *x509.Certificate
		v.Address, cert = client.Peer()
		if untrusted, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(untrusted.UnverifiedCertificates) > 0 {
			cert = untrusted.UnverifiedCertificates[0]
		}
		v.certificate(cert, err == nil && !e.flags.Kubelet.Insecure, e.api.clock.now())
	} else {
		err = e.fetchThroughAPI(one, v, batch)
	}
	if err != nil {
		v.Error = err.Error()
		v.found(e.explain(ctx, v, err))
		return
	}
	v.judge(batch, e.api.clock.now())
}

// fetchThroughAPI has the API server ask the kubelet.
func (e *examination) fetchThroughAPI(ctx context.Context, v *visit, into *sample.Batch) error {
	body, err := e.api.nodeMetrics(ctx, v.Name, cmp.Or(v.endpoint.Path, "/metrics/resource"))
	if err != nil {
		return err
	}
	return new(exposition.Parser).ParseText(body, time.Now(), new(exposition.Layout), into)
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

// summarize makes lines of the findings, the worst first.
func (e *examination) summarize(visits []*visit) []Line {
	type key struct {
		status                 Status
		summary, cause, remedy string
	}
	type set struct {
		finding
		nodes []string
	}
	sets := map[key]*set{}
	var order []*set
	answered, elsewhere := 0, set{}
	for _, v := range visits {
		if v.Error == "" && v.NewestSample != nil {
			answered++
		}
		if v.Address != "" && v.Address != v.Addresses[0] {
			if elsewhere.nodes == nil {
				elsewhere.detail = "at " + v.Address + ", not at " + v.Addresses[0]
			}
			elsewhere.nodes = append(elsewhere.nodes, v.Name)
		}
		for _, f := range v.findings {
			k := key{f.status, f.summary, f.cause, f.remedy}
			s := sets[k]
			if s == nil {
				s = &set{finding: f}
				sets[k] = s
				order = append(order, s)
			}
			s.nodes = append(s.nodes, v.Name)
		}
	}
	if len(elsewhere.nodes) > 0 {
		elsewhere.finding = finding{
			status: Warning, summary: "the kubelet answers, but not at the preferred address", cause: "the preferred address cannot be looked up or reached from here, and the next one is tried",
			remedy: "name the type of the address that answers first in --kubelet-preferred-address-types", detail: elsewhere.detail,
		}
		order = append(order, &elsewhere)
	}
	slices.SortStableFunc(order, func(a, b *set) int {
		return cmp.Or(slices.Index(severity, b.status)-slices.Index(severity, a.status), len(b.nodes)-len(a.nodes))
	})

	lines := []Line{e.way(answered, len(visits))}
	if e.config.Direct {
		lines = append(lines, e.certificates(visits)...)
	} else {
		lines = append(lines, Line{
			Check: checkNodes, Status: Unknown, Message: "TLS, network and rights between the server's pod and the kubelets were not checked",
			Cause:  "the kubelets were asked through the API server",
			Remedy: fmt.Sprintf("kubectl -n %s exec service/%s -- /metrics-server doctor", e.where.Namespace, e.where.Name),
		})
	}
	for _, s := range order {
		slices.Sort(s.nodes)
		l := Line{
			Check: checkNodes, Status: s.status, Cause: s.cause, Remedy: s.remedy, Nodes: s.nodes,
			Message: fmt.Sprintf("%d of %s: %s: %s", len(s.nodes), plural(len(visits), "node"), s.summary, some(s.nodes)),
		}
		switch {
		case s.detailIsTheWhy:
			l.Cause = s.detail
		case s.detail != "":
			l.Message += " (" + s.detail + ")"
		}
		if len(s.nodes) > 1 && s.detail != "" && s.detailIsTheWhy {
			l.Cause = "for example " + s.nodes[0] + ": " + l.Cause
		}
		lines = append(lines, l)
	}
	return lines
}

// way says how kubelets were asked, and how many answered.
func (e *examination) way(answered, all int) Line {
	k := e.flags.Kubelet
	how := "through the API server (nodes/proxy)"
	if e.config.Direct {
		port := fmt.Sprintf("port %d", k.Port)
		if k.UseNodeStatusPort {
			port = "the port of the node's status"
		}
		how = fmt.Sprintf("directly, at addresses of type %s and %s", strings.Join(k.AddressTypes, ", "), port)
	}
	l := Line{Check: checkNodes, Status: OK, Message: fmt.Sprintf("%d of %d kubelets give samples, asked %s", answered, all, how)}
	if answered < all {
		l.Status = Warning
		l.Cause, l.Remedy = "see the lines of nodes below", "see the lines of nodes below"
	}
	return l
}

// certificates says how the kubelets' certificates are verified.
func (e *examination) certificates(visits []*visit) []Line {
	k := e.flags.Kubelet
	switch {
	case k.PlainHTTP:
		return []Line{{
			Check: checkNodes, Status: Warning, Message: "kubelets are spoken to in plain HTTP", Cause: "--deprecated-kubelet-completely-insecure is set",
			Remedy: "remove it: then TLS and credentials are used",
		}}
	case k.Insecure:
		return []Line{{
			Check: checkNodes, Status: Warning, Message: "the kubelets' certificates are not verified", Cause: "--kubelet-insecure-tls is set",
			Remedy: "set serverTLSBootstrap in the kubelets' configuration, approve their requests, and give --kubelet-certificate-authority instead",
		}}
	}
	issuers := map[string]bool{}
	var first *Certificate
	for _, v := range visits {
		if c := v.Certificate; c != nil && c.Trusted {
			issuers[c.Issuer] = true
			if first == nil || c.NotAfter.Before(first.NotAfter) {
				first = c
			}
		}
	}
	if first == nil {
		return nil
	}
	return []Line{{
		Check: checkNodes, Status: OK,
		Message: fmt.Sprintf("the kubelets' certificates are verified: %s, the first expires on %s", plural(len(issuers), "issuer"), first.NotAfter.Format(time.DateOnly)),
	}}
}
