//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"metrics-server/test/realcluster"
)

// Where hack/cluster keeps a node's files, on the node.
const (
	kubeletConfig = "/run/cluster/conf/kubelet.yaml"
	kubeletCert   = "/run/cluster/pki/kubelet.crt"
	kubeletKey    = "/run/cluster/pki/kubelet.key"
)

// fault is something that is wrong with one kubelet.
type fault struct {
	name string
	make func(t *testing.T, node string)
	says []string // the cause and the remedy
	// outside is what the doctor reports from a terminal, through the API server; "" if it finds nothing there.
	outside []string
	node    string
}

// TestBrokenKubelets breaks one kubelet in each way that concerns a single node, all at the same
// time. Then it makes all of them reject the server by removing its right to scrape them. Users
// must see each fault, and what to do.
func TestBrokenKubelets(t *testing.T) {
	t.Cleanup(func() {
		noneFails(t)
		mended(t)
	})
	there, err := cluster.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first, last := there.Items[0].Name, there.Items[len(there.Items)-1].Name
	faults := []*fault{{
		name: "no-such-path", node: first,
		make: func(t *testing.T, node string) {
			mustKubectl(t, "annotate", "node", node, pathAnnotation+"=/metrics/none")
		},
		says:    []string{"404", pathAnnotation},
		outside: []string{"404", pathAnnotation},
	}}
	removeAnnotation := func() { mustKubectl(t, "annotate", "node", first, pathAnnotation+"-") }
	t.Cleanup(removeAnnotation)
	if changesNodes(t) {
		faults = append(
			faults,
			&fault{name: "firewall", make: firewall, says: []string{"no firewall or network policy drops"}},
			&fault{
				name: "no-webhook",
				make: noWebhook,
				says: []string{"answer is 401 Unauthorized", "authentication.webhook.enabled"},
			},
			&fault{
				name: "other-names", make: otherNames, says: []string{"x509: ", "does not name the address", "serverTLSBootstrap"},
				outside: []string{"x509: ", "does not name the address", "serverTLSBootstrap"},
			},
		)
	}
	for _, f := range faults {
		if f.node == "" {
			f.node = addNode(t)
			t.Cleanup(func() { changeNode(t, "delete", f.node) })
		}
	}
	eventually(t, "all of them are served", func() error { return nodesServed(t.Context()) })
	for _, f := range faults {
		f.make(t, f.node)
	}
	for _, f := range faults {
		eventually(t, f.name+" is shown", func() error { return scrapeFailureShown(f.node, f.says...) })
	}
	in, out := doctorIn(t, serverPods(t)[0]), doctor(t)
	for _, f := range faults {
		if err := in.finds("nodes", append(f.says, f.node)...); err != nil {
			t.Errorf("%s, in the pod: %v", f.name, err)
		}
		if f.outside == nil {
			continue
		}
		if err := out.finds("nodes", append(f.outside, f.node)...); err != nil {
			t.Errorf("%s, at a terminal: %v", f.name, err)
		}
	}

	removeAnnotation()
	t.Run("no-right", func(t *testing.T) {
		// If only the account for kubelets lacked it, the server would show its own token to them.
		withoutRight(t, "system:metrics-server", "nodes/metrics")
		withoutRight(t, "system:metrics-server-kubelets", "nodes/metrics")
		// A kubelet caches authorization for five minutes, unless it is configured otherwise.
		says := []string{"answer is 403 Forbidden", "the ClusterRole system:metrics-server-kubelets needs the verb get on " +
			"nodes/metrics"}
		err := realcluster.Poll(5*time.Minute+patience, func() error { return scrapeFailureShown(last, says...) })
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(doctorIn(t, serverPods(t)[0]).finds("nodes", append(says, last)...),
			doctor(t).warns("access", "metrics-server-kubelets may not get nodes/metrics")); err != nil {
			t.Error(err)
		}
	})
}

// firewall blocks everything from the node to the server.
func firewall(t *testing.T, node string) {
	ip := getPod(t, serverNamespace, serverPods(t)[0]).Status.PodIP
	changeNode(t, "exec", node, "ip", "route", "add", "blackhole", ip+"/32")
}

// noWebhook makes the kubelet accept only client certificates.
func noWebhook(t *testing.T, node string) {
	changeNode(
		t, "exec", node, "sed", "-i", "s/webhook: {enabled: true, cacheTTL: 10s}/webhook: {enabled: false}/",
		kubeletConfig,
	)
	config := changeNode(t, "exec", node, "cat", kubeletConfig)
	if !strings.Contains(config, "webhook: {enabled: false}") {
		t.Fatalf("the kubelet's configuration is another one than this test knows:\n%s", config)
	}
	restartKubelet(t, node)
}

// otherNames gives the kubelet a certificate of the cluster's authority that lacks the node's
// address.
func otherNames(t *testing.T, node string) {
	cert, key := servingCertificate(t, node, "node.example")
	for file, content := range map[string]string{kubeletCert: cert, kubeletKey: key} {
		changeNode(t, "exec", node, "sh", "-c", `printf %s "$1" >"$2"`, "sh", content, file)
	}
	restartKubelet(t, node)
}

func restartKubelet(t *testing.T, node string) {
	changeNode(t, "stop", node)
	changeNode(t, "start", node)
}

// servingCertificate makes the cluster sign a certificate for a kubelet, as for kubelets with
// serverTLSBootstrap.
func servingCertificate(t *testing.T, node string, dnsNames ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	user := "system:node:" + node
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: user, Organization: []string{"system:nodes"}}, DNSNames: dnsNames,
	}, private)
	if err != nil {
		t.Fatal(err)
	}
	config := rest.CopyConfig(cluster.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:nodes", "system:authenticated"}}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := client.CertificatesV1().CertificateSigningRequests().Create(
		t.Context(),
		&certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
				SignerName: certificatesv1.KubeletServingSignerName,
				Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
			},
		},
		metav1.CreateOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	requests := cluster.client.CertificatesV1().CertificateSigningRequests()
	t.Cleanup(func() {
		if err := requests.Delete(context.Background(), csr.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	approved := csr.DeepCopy()
	approved.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test", Message: "wanted by a test",
	}}
	if _, err := requests.UpdateApproval(t.Context(), csr.Name, approved, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the certificate is signed", func() error {
		signed, err := requests.Get(t.Context(), csr.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if cert = string(signed.Status.Certificate); cert == "" {
			return fmt.Errorf("it is not: %+v", signed.Status.Conditions)
		}
		return nil
	})
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}
