package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
)

// concurrency is how many kubelets are asked at a time.
const concurrency = 32

// visit is a node and what was found there.
type visit struct {
	*Node
	created  time.Time
	ready    bool
	memory   int64 // the node's memory in bytes; 0 if unknown
	endpoint kubelet.Endpoint
	findings []finding
}

// listNodes returns the nodes that the server serves.
func (e *examination) listNodes(ctx context.Context) ([]*visit, error) {
	var nodes []*visit
	err := Pages(func(o metav1.ListOptions) (string, error) {
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
		Node:    &Node{Name: n.Name, Status: OK, KubeletVersion: n.Status.NodeInfo.KubeletVersion},
		created: n.CreationTimestamp.Time,
		ready: slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}),
		memory: n.Status.Capacity.Memory().Value(),
		endpoint: kubelet.Endpoint{
			Node:    n.Name,
			Port:    n.Status.DaemonEndpoints.KubeletEndpoint.Port,
			Path:    n.Annotations[kubeapi.PathAnnotation],
			Virtual: kubelet.IsVirtual(n.Status.NodeInfo.KubeletVersion, n.Labels),
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
		e.report.add(NewLine(checkNodes, Warning, "there are no nodes",
			"the cluster has no nodes, or none matches --node-selector",
			"compare --node-selector with the nodes' labels (kubectl get nodes --show-labels)"))
		return
	}
	if e.config.Direct && e.tokensOf.Name != "" {
		tokens, err := e.tokens(ctx)
		if err != nil {
			e.report.add(NewLine(checkNodes, Unknown, "kubelets cannot be asked", err.Error(), err.Remedy()))
			return
		}
		e.flags.Kubelet.Tokens = tokens
	}
	clients, err := kubelet.New(e.flags.Kubelet)
	switch {
	case err == nil:
		defer clients.Close()
	case e.config.Direct:
		e.report.add(NewLine(checkNodes, Unknown, "kubelets cannot be asked",
			err.Error(), "give --kubelet-* flags that are valid here, or run doctor in the server's pod"))
		return
	default: // flags name files of the server's pod; only the order of the addresses matters here
		k := e.flags.Kubelet
		clients, err = kubelet.New(kubelet.Config{
			Insecure: true, Port: k.Port, UseNodeStatusPort: k.UseNodeStatusPort, AddressTypes: k.AddressTypes,
		})
		if err != nil {
			e.report.add(NewLine(checkNodes, Unknown, "kubelets cannot be asked", err.Error(), "correct the --kubelet-* flags"))
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
	compare(clients, visits)
	e.report.add(e.summarize(visits)...)
	for _, v := range visits {
		e.report.Nodes = append(e.report.Nodes, *v.Node)
	}
}

// visit asks one kubelet and checks its answer.
func (e *examination) visit(ctx context.Context, clients *kubelet.Clients, v *visit) {
	client := clients.Client(v.endpoint)
	defer client.Close()
	v.Addresses = client.Addresses()
	if ctx.Err() != nil {
		v.found(finding{
			status: Unknown, summary: "the kubelet was not asked", cause: CauseDeadline, remedy: RemedyDeadline,
		})
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
		untrusted, ok := errors.AsType[*tls.CertificateVerificationError](err)
		if ok && len(untrusted.UnverifiedCertificates) > 0 {
			cert = untrusted.UnverifiedCertificates[0]
		}
		v.certificate(cert, err == nil && !e.flags.Kubelet.Insecure, e.api.clock.now())
	} else {
		err = e.fetchThroughAPI(one, v, batch)
	}
	if err != nil {
		v.Error = err.Error()
		if own := e.ownAddress(v); own != "" {
			v.found(finding{
				status: Problem, summary: "metrics-server itself listens at the kubelet's address and port",
				detail: own + " listens there: " + v.Error, detailIsCause: true, remedy: kubelet.RemedyOwnPort,
			})
			return
		}
		v.found(e.explain(ctx, v, err))
		return
	}
	v.judge(batch, e.api.clock.now())
}

// ownAddress names the pod or the endpoint of the server that listens where v's kubelet should, ""
// if none does.
func (e *examination) ownAddress(v *visit) string {
	for _, addr := range v.Addresses {
		if own := e.own[addr]; own != "" {
			return own
		}
	}
	return ""
}

// fetchThroughAPI asks the kubelet through the API server.
func (e *examination) fetchThroughAPI(ctx context.Context, v *visit, into *sample.Batch) error {
	body, err := e.api.nodeMetrics(ctx, v.Name, v.endpoint.Path)
	if err != nil {
		return err
	}
	return new(exposition.Parser).ParseText(body, e.api.clock.now(), new(exposition.Layout), into)
}

// compare finds nodes that have the same kubelet.
func compare(clients *kubelet.Clients, visits []*visit) {
	at := map[string][]*visit{}
	for _, v := range visits {
		for _, place := range clients.Places(v.endpoint) {
			at[place] = append(at[place], v)
		}
	}
	for _, v := range visits {
		places := clients.Places(v.endpoint)
		i := slices.IndexFunc(places, func(place string) bool { return len(at[place]) > 1 })
		if i < 0 {
			continue
		}
		sharing := at[places[i]]
		other := sharing[(slices.Index(sharing, v)+1)%len(sharing)].Name
		v.found(finding{
			status: Warning, summary: "another node has the same kubelet address",
			cause: "one kubelet answers there, so all these nodes are served the usage of the same machine",
			remedy: "if a node no longer exists, delete its Node (kubectl delete node NAME); otherwise give each kubelet its " +
				"own address (--node-ip)",
			detail: places[i] + ", as " + other,
		})
	}
}
