package doctor

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sharedtest"
)

func TestDirectIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
		"unknown authority": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.server["n2"].SetCertificate(kubelettest.NewCA("other").Server("127.0.0.1"))
		}, want: Line{
			Check: checkNodes, Status: Problem,
			Message: "1 of 2 nodes: the kubelet's serving certificate is not accepted: n2",
			Cause:   "certificate by CN=other for 127.0.0.1, valid until", Remedy: "serverTLSBootstrap",
		}},
		"no IP SANs": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.server["n2"].SetCertificate(c.ca.Server("n2.example"))
		}, want: Line{
			Check: checkNodes, Status: Problem, Message: "not accepted", Cause: "doesn't contain any IP SANs",
			Remedy: "--kubelet-preferred-address-types",
		}},
		"expired": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.server["n2"].SetCertificate(c.ca.Expired("127.0.0.1"))
		}, want: Line{Check: checkNodes, Status: Problem, Message: "not accepted", Cause: "expired", Remedy: "renew it"}},
		"insecure": {direct: true, broken: func(c *fakeCluster) {
			c.flags.Kubelet.Insecure, c.flags.Kubelet.CAData = true, nil
		}, want: Line{
			Check: checkNodes, Status: Warning, Message: "not verified", Cause: "--kubelet-insecure-tls",
			Remedy: "--kubelet-certificate-authority",
		}},
		"webhook authentication is off": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) { c.kubelet["n2"].SetToken("another") },
			want: Line{
				Check: checkNodes, Status: Problem, Message: "credentials (401)", Cause: "401",
				Remedy: "authentication.webhook.enabled",
			},
		},
		"kubelet forbids": {
			direct: true, nodes: []string{"n1", "n2"}, broken: func(c *fakeCluster) {
				c.kubelet["n1"].Forbidden, c.kubelet["n2"].Forbidden = "token", "token"
			},
			want: Line{
				Check: checkNodes, Status: Problem,
				Message: "2 of 2 nodes: the kubelet denies access to its metrics (403): n1, n2", Cause: "for example n1: ",
				Remedy: "nodes/metrics",
			},
		},
		"no such host": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.nodes[1].Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "n2.invalid"}}
		}, want: Line{
			Check: checkNodes, Status: Problem, Message: "cannot be resolved", Cause: "n2.invalid",
			Remedy: "InternalIP",
		}},
		"name is tried first": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.flags.Kubelet.AddressTypes = []string{"Hostname", "InternalIP"}
			c.nodes[1].Status.Addresses = append(c.nodes[1].Status.Addresses,
				corev1.NodeAddress{Type: corev1.NodeHostName, Address: "n2.invalid"})
		}, want: Line{
			Check: checkNodes, Status: Warning, Message: "not at n2.invalid:", Cause: "preferred address",
			Remedy: "--kubelet-preferred-address-types",
		}},
		"no address": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.nodes[1].Status.Addresses[0].Type = corev1.NodeExternalDNS
		}, want: Line{
			Check: checkNodes, Status: Problem, Message: "no address of the requested types", Cause: "ExternalDNS",
			Remedy: "--kubelet-preferred-address-types",
		}},
		"connection refused": {
			direct: true, nodes: []string{"n2"}, broken: nothingListens,
			want: Line{
				Check: checkNodes, Status: Problem, Message: "nothing listens", Cause: "connection refused",
				Remedy: "--kubelet-port",
			},
		},
		"node is down": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			nothingListens(c)
			c.nodes[1].Status.Conditions[0].Status = corev1.ConditionUnknown
		}, want: Line{
			Check: checkNodes, Status: Problem, Message: "nothing listens", Cause: "refused",
			Remedy: "the node is not ready",
		}},
		"firewall": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				fault(kubelettest.Hang)(c)
				c.flags.Timeout = 5 * time.Second
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "does not answer in time", Cause: "timed out",
				Remedy: "firewall",
			},
		},
		"no /metrics/resource": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) { c.kubelet["n2"].Path = "/stats" },
			want: Line{Check: checkNodes, Status: Problem, Message: "no /metrics/resource (404)", Cause: "404", Remedy: "1.19"},
		},
		"common name only": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.server["n2"].SetCertificate(c.ca.Server())
		}, want: Line{
			Check: checkNodes, Status: Problem, Message: "not accepted", Cause: "for no name",
			Remedy: "Give the kubelet a certificate with SANs",
		}},
		"kubelet fails": {
			direct: true, nodes: []string{"n2"}, broken: fault(kubelettest.Status(500, kubeletFails)),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "the kubelet fails (5xx)",
				Cause: "collected before with the same name and label values", Remedy: "see its log on the node",
			},
		},
		"virtual node": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.nodes[1].Status.NodeInfo.KubeletVersion = "v1.15.2-vk-1.9.0"
				c.nodes[1].Labels = map[string]string{"type": "virtual-kubelet"}
				c.kubelet["n2"].SetFault(kubelettest.Status(501, "not implemented"))
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "the kubelet fails (5xx)", Cause: "not implemented",
				Remedy: "leave it out with --node-selector=type!=virtual-kubelet",
			},
		},
		"own port": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.kubelet["n2"].Forbidden = "token"
				c.listensAt("n2")
			},
			want: Line{
				Check: checkNodes, Status: Problem,
				Message: "metrics-server itself listens at the kubelet's address and port",
				Cause:   "pod kube-system/metrics-server-1 listens there: ",
				Remedy:  "this is the server itself, not a kubelet: set --secure-port",
			},
		},
		"own port, with a certificate that is not accepted": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.server["n2"].SetCertificate(kubelettest.SelfSigned("localhost"))
				c.listensAt("n2")
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "metrics-server itself listens", Cause: "x509",
				Remedy: "this is the server itself",
			},
		},
		"own endpoint": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.kubelet["n2"].SetFault(kubelettest.Status(404, ""))
				slice := &c.objects[pathSlices].(*discoveryv1.EndpointSliceList).Items[0]
				slice.Endpoints[0].Addresses = []string{c.server["n2"].Host()}
				slice.Ports[0].Port = new(int32(c.server["n2"].Port()))
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "metrics-server itself listens",
				Cause:  "an endpoint of Service kube-system/metrics-server listens there",
				Remedy: "this is the server itself",
			},
		},
		"own port, by another of the pod's addresses": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.kubelet["n2"].Forbidden = "token"
				c.listensAt("n2")
				c.pod(func(p *corev1.Pod) {
					p.Status.PodIPs = []corev1.PodIP{{IP: "fd00::9"}, {IP: p.Status.PodIP}}
					p.Status.PodIP = "fd00::9"
				})
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "metrics-server itself listens",
				Cause: "pod kube-system/metrics-server-1 listens there", Remedy: "this is the server itself",
			},
		},
		"own port, over plain HTTP": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.flags.Kubelet.CAData, c.flags.Kubelet.PlainHTTP = nil, true
				c.listensAt("n2")
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "metrics-server itself listens", Cause: "400 Bad Request",
				Remedy: "this is the server itself",
			},
		},
		"plain HTTP": {
			direct: true, nodes: []string{"n1", "n2"}, broken: func(c *fakeCluster) {
				c.flags.Kubelet.CAData, c.flags.Kubelet.PlainHTTP = nil, true
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "the kubelet rejects the request", Cause: "400 Bad Request",
				Remedy: "remove --deprecated-kubelet-completely-insecure",
			},
		},
		"annotation is no path": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.nodes[1].Annotations = map[string]string{kubeapi.PathAnnotation: "http://elsewhere.example/"}
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "the node's annotation " + kubeapi.PathAnnotation + " is not a path",
				Cause: "elsewhere.example", Remedy: "set the node's annotation",
			},
		},
		"clock hours ahead, asked directly": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.kubelet["n2"].Answer = func(b []byte, _ time.Time) []byte {
					return append(b, at(3*time.Hour, nodeAnswer+answer)...)
				}
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "all samples are refused because of the node's clock",
				Cause: "3h0m0s ahead", Remedy: "NTP",
			},
		},
		"an API server answers": {
			direct: true, nodes: []string{"n2"}, broken: fault(kubelettest.Status(403, "{\n  \"kind\": \"Status\",\n  "+
				"\"message\": \"may not\"\n}")),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "something other than a kubelet answers", Cause: `"may not"`,
				Remedy: "an API server answers here",
			},
		},
		"two nodes at one address": {
			direct: true, nodes: []string{"n1", "n2"}, broken: func(c *fakeCluster) { c.nodes[1].Status = c.nodes[0].Status },
			want: Line{
				Check: checkNodes, Status: Warning, Message: "another node has the same kubelet address: n1 (127.0.0.1:",
				Cause: "the same machine", Remedy: "kubectl delete node",
			},
		},
		"certificate files are elsewhere": {direct: true, broken: func(c *fakeCluster) {
			c.flags.Kubelet.CAData, c.flags.Kubelet.CAFile = nil, "/nowhere/ca.crt"
		}, want: Line{
			Check: checkNodes, Status: Unknown, Message: "cannot be asked", Cause: "/nowhere/ca.crt",
			Remedy: "in the server's pod",
		}},
	})
}

// nothingListens has connections to the kubelet of n2 refused.
func nothingListens(c *fakeCluster) {
	addr := netip.MustParseAddrPort(sharedtest.RefusingAddr(c.t)) // on the host of all kubelets here
	c.nodes[1].Status.DaemonEndpoints.KubeletEndpoint.Port = int32(addr.Port())
}

// fault gives the kubelet of n2 a fault.
func fault(f kubelettest.Fault) func(*fakeCluster) {
	return func(c *fakeCluster) { c.kubelet["n2"].SetFault(f) }
}

func TestProxyIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
		"proxy: refused": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach "+
				"service: dial tcp 10.0.0.2:10250: connect: connection refused"),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "nothing listens", Cause: "connection refused",
				Remedy: "the API server cannot connect to the kubelet (metrics-server itself was not tested)",
			},
		},
		"proxy: firewall": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach "+
				"service: dial tcp 10.0.0.2:10250: i/o timeout"),
			want: Line{Check: checkNodes, Status: Problem, Message: "in time", Cause: "i/o timeout", Remedy: "firewall"},
		},
		"proxy: certificate": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach "+
				"service: tls: failed to verify certificate: x509: certificate signed by unknown authority"),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "certificate is not accepted", Cause: "x509",
				Remedy: "--kubelet-certificate-authority",
			},
		},
		"proxy: certificate for other names": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach "+
				"service: tls: failed to verify certificate: x509: certificate is valid for 10.0.0.9, not 10.0.0.2"),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "certificate is not accepted", Cause: "not 10.0.0.2",
				Remedy: "serverTLSBootstrap",
			},
		},
		"proxy: certificate without addresses": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach "+
				"service: tls: failed to verify certificate: x509: cannot validate certificate for 10.0.0.2 because "+
				"it doesn't contain any IP SANs"),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "certificate is not accepted", Cause: "IP SANs",
				Remedy: "serverTLSBootstrap",
			},
		},
		"proxy: 401": {
			nodes: []string{"n2"}, broken: proxyFails(401, metav1.StatusReasonUnauthorized, "Unauthorized"),
			want: Line{Check: checkNodes, Status: Problem, Message: "401", Cause: "Unauthorized", Remedy: "clientCAFile"},
		},
		"proxy: 403": {
			nodes: []string{"n2"}, broken: proxyFails(403, metav1.StatusReasonForbidden, "Forbidden (user=kube-apiserver, "+
				"verb=get, resource=nodes, subresource=metrics)"),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "403", Cause: "kube-apiserver",
				Remedy: "system:kubelet-api-admin",
			},
		},
		"proxy: 404": {
			nodes: []string{"n2"}, broken: func(c *fakeCluster) { delete(c.objects, proxyPath("n2")) },
			want: Line{Check: checkNodes, Status: Problem, Message: "404", Cause: "not found", Remedy: "1.19"},
		},
		"proxy: common name only": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach "+
				"service: tls: failed to verify certificate: x509: certificate relies on legacy Common Name field, "+
				"use SANs instead"),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "certificate is not accepted", Cause: "legacy Common Name",
				Remedy: "serverTLSBootstrap",
			},
		},
		"proxy: kubelet fails": {
			nodes: []string{"n2"}, broken: fails(500, kubeletFails),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "the kubelet fails (5xx)",
				Cause: "collected before with the same name and label values", Remedy: "kubelet's log",
			},
		},
		"proxy: virtual node": {
			nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.nodes[1].Labels = map[string]string{"type": "virtual-kubelet"}
				fails(404, "404 page not found")(c)
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "404", Cause: "could not find",
				Remedy: "--node-selector=type!=virtual-kubelet",
			},
		},
		"proxy: 501": {
			nodes: []string{"n2"}, broken: fails(501, "not implemented"),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "(5xx)", Cause: "not implemented",
				Remedy: "a virtual node (virtual-kubelet) without metrics does: leave it out with --node-selector",
			},
		},
		"proxy: own port": {
			nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				proxyFails(403, metav1.StatusReasonForbidden, "forbidden: User \"kube-apiserver\" cannot get path "+
					"\"/metrics/resource\"")(c)
				c.listensAt("n2")
			},
			want: Line{
				Check: checkNodes, Status: Problem, Message: "metrics-server itself listens", Cause: "listens there",
				Remedy: "this is the server itself",
			},
		},
		"proxy: no right": {
			nodes: []string{"n1", "n2"}, broken: func(c *fakeCluster) { c.forbid(proxyPath("n1"), proxyPath("n2")) },
			want: Line{
				Check: checkNodes, Status: Unknown, Message: "2 of 2 nodes", Cause: "get nodes/proxy",
				Remedy: "may get nodes/proxy",
			},
		},
	})
}

// proxyFails makes the API server answer requests for the kubelet of n2 with a Status.
func proxyFails(code int32, reason metav1.StatusReason, message string) func(*fakeCluster) {
	return func(c *fakeCluster) { c.refuse(proxyPath("n2"), code, reason, message) }
}

// fails makes requests for the kubelet of n2 fail with a plain text.
func fails(code int, body string) func(*fakeCluster) {
	return func(c *fakeCluster) { c.objects[proxyPath("n2")] = plainError{code, body} }
}

// kubeletFails is the text of a kubelet that cannot serve its metrics.
const kubeletFails = "An error has occurred while serving metrics:\n\ncollected before with the same name and label " +
	"values\n"

// Nodes that share an address but not a path, as behind a gateway, have different kubelets.
func TestNodesBehindOneAddress(t *testing.T) {
	c := newCluster(t)
	c.nodes[1].Status = c.nodes[0].Status
	c.nodes[1].Annotations = map[string]string{kubeapi.PathAnnotation: "/n2/metrics/resource"}
	if r := c.run(); len(find(r, Line{Check: checkNodes, Status: Warning, Message: "same kubelet address"})) != 0 {
		t.Error(text(t, r))
	}
}

// Two Nodes of one machine are noticed even if they are asked at their names first.
func TestTwoNamesOfOneMachine(t *testing.T) {
	c := newCluster(t)
	c.flags.Kubelet.AddressTypes = []string{"Hostname", "InternalIP"}
	c.nodes[1].Status = *c.nodes[0].Status.DeepCopy()
	for _, n := range c.nodes {
		n.Status.Addresses = append(n.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.Name + ".invalid"})
	}
	warning := Line{Check: checkNodes, Status: Warning, Message: "2 of 2 nodes: another node has the same kubelet address"}
	if r := c.run(); len(find(r, warning)) != 1 {
		t.Error(text(t, r))
	}
}

// A request through the API server stays within the node, whatever the node's annotation says.
func TestPathOfAnnotation(t *testing.T) {
	for path, ok := range map[string]bool{
		"/metrics/resource": true, "/x?collect=cpu": true, "x": true, "http://other/metrics": false,
		"/../../../secrets": false, "../../../secrets": false, "%2e%2e/x": false,
	} {
		c := newCluster(t)
		c.objects["/api/v1/nodes/n1/proxy/x"] = c.objects[proxyPath("n1")]
		c.objects["/api/v1/secrets"] = c.objects[proxyPath("n1")]
		c.nodes[0].Annotations = map[string]string{kubeapi.PathAnnotation: path}
		r := c.run()
		if (r.Nodes[0].Error == "") != ok {
			t.Errorf("%q: error %q", path, r.Nodes[0].Error)
		}
		if !ok && !slices.ContainsFunc(r.Checks, func(l Line) bool { return l.Remedy == kubelet.RemedyPath }) {
			t.Errorf("%q: no line has the remedy %q: %+v", path, kubelet.RemedyPath, r.Checks)
		}
	}
}

// TestExpiringCertificates checks that a certificate with a short life is not said to expire soon before kubelets renew
// it.
func TestExpiringCertificates(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, tc := range []struct {
		lifetime, left time.Duration
		soon           bool
	}{
		{365 * day, 8 * day, false},
		{365 * day, 6 * day, true},
		{365 * day, -time.Second, false}, // it is not accepted
		{30 * day, 4 * day, false},
		{30 * day, 2 * day, true},
		{day, 20 * time.Hour, false},
		{day, 2 * time.Hour, true},
	} {
		v := &visit{Node: &Node{}}
		end := now.Add(tc.left)
		v.certificate(&x509.Certificate{NotBefore: end.Add(-tc.lifetime), NotAfter: end}, true, now)
		if got := len(v.findings) == 1 && v.findings[0].status == Warning; got != tc.soon || v.Certificate == nil {
			t.Errorf("%v left of %v: findings %+v", tc.left, tc.lifetime, v.findings)
		}
	}
}
