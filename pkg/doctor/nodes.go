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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
)

// concurrency is how many kubelets are asked at once.
const concurrency = 32

// visit is a node and what is found there.
type visit struct {
	*Node
	ready    bool
	endpoint kubelet.Endpoint
	findings []finding
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
