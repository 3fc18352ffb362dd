//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"metrics-server/test/realcluster"
)

const apiPath = "/apis/metrics.k8s.io/v1"

// account creates a service account and returns a client configuration with its token.
func account(t *testing.T, namespace, name string) *rest.Config {
	t.Helper()
	accounts := cluster.client.CoreV1().ServiceAccounts(namespace)
	if _, err := accounts.Create(
		t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{},
	); err != nil {
		t.Fatal(err)
	}
	token, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(cluster.config)
	config.BearerToken = token.Status.Token
	return config
}

// TestAccess sends requests as various users, through the API server and directly.
func TestAccess(t *testing.T) {
	allNodesWell.join(t)
	ns, other := namespace(t), namespace(t)
	subject := func(name string) []rbacv1.Subject {
		return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: name}}
	}
	role := func(name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	}
	type request struct {
		who, path string
		want      int
	}
	inside, outside := apiPath+"/namespaces/"+ns+"/pods", apiPath+"/namespaces/"+other+"/pods"
	var requests []request
	who := map[string]*rest.Config{
		"stranger": account(t, ns, "stranger"),
		"nobody":   rest.AnonymousClientConfig(cluster.config),
		"liar":     rest.AnonymousClientConfig(cluster.config),
	}
	who["liar"].BearerToken = "not.a.token"
	for _, name := range []string{"view", "edit", "admin"} {
		who[name] = account(t, ns, name)
		_, err := cluster.client.RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: role(name), Subjects: subject(name),
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		requests = append(
			requests, request{name, inside, 200}, request{name, outside, 403}, request{name, apiPath + "/pods", 403},
			request{name, apiPath + "/nodes", 403},
		)
	}
	who["viewer of all"] = account(t, ns, "viewer")
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: ns},
		RoleRef:    role("view"),
		Subjects:   subject("viewer"),
	}
	if _, err := cluster.client.RbacV1().ClusterRoleBindings().Create(
		t.Context(), binding, metav1.CreateOptions{},
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.client.RbacV1().ClusterRoleBindings().Delete(
			context.Background(), ns, metav1.DeleteOptions{},
		); err != nil {
			t.Error(err)
		}
	})
	requests = append(
		requests, request{"viewer of all", outside, 200}, request{"viewer of all", apiPath + "/pods", 200},
		request{"viewer of all", apiPath + "/nodes", 200}, request{"stranger", inside, 403},
		request{"stranger", apiPath + "/nodes", 403}, request{"liar", apiPath + "/nodes", 401},
	)
	// Requests without credentials, regardless of what the API server allows for its own resources.
	code, _, err := rawGet(who["nobody"], "/api/v1/nodes", nil)
	if err != nil {
		t.Fatal(err)
	}
	if code != http.StatusUnauthorized && code != http.StatusForbidden {
		t.Fatalf("the API server says %d without credentials", code)
	}
	requests = append(requests, request{"nobody", apiPath + "/nodes", code}, request{"nobody", inside, code})

	forged := http.Header{"X-Remote-User": {"admin"}, "X-Remote-Group": {"system:masters"}}
	direct := forward(t)
	settled := time.Now().Add(20 * time.Second) // the aggregated roles and what is cached of them
	for _, r := range requests {
		check := func(config *rest.Config, header http.Header, way string) {
			t.Helper()
			err := realcluster.Poll(max(time.Until(settled), time.Second), func() error {
				code, body, err := rawGet(config, r.path, header)
				if err != nil {
					return err
				}
				if code != r.want {
					return &answerError{code, body}
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s, %s asks %s: want %d: %v", way, r.who, r.path, r.want, err)
			}
		}
		check(who[r.who], nil, "by the API server")
		check(who[r.who], forged, "by the API server, with forged headers")
		if r.who == "nobody" {
			continue
		}
		past := rest.CopyConfig(who[r.who])
		past.Host, past.TLSClientConfig = direct, rest.TLSClientConfig{Insecure: true}
		check(past, nil, "past the API server")
		check(past, forged, "past the API server, with forged headers")
	}

	// A user with the front proxy's name in a self-made certificate has no rights.
	for what, certificates := range map[string][]tls.Certificate{
		"no certificate": nil, "a certificate of his own": {frontProxyLike(t)},
	} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates}}
		req, err := http.NewRequest(http.MethodGet, direct+apiPath+"/nodes", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = forged
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Error(err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
			t.Errorf("past the API server, with forged headers and %s: %d", what, resp.StatusCode)
		}
	}
}

type answerError struct {
	code int
	body string
}

func (e *answerError) Error() string { return http.StatusText(e.code) + ": " + e.body }

// forward returns the URL of a port of this machine that leads to the server itself.
func forward(t *testing.T) string {
	t.Helper()
	return forwardTo(t, "service/"+serverName, ":443")
}

// forwardTo is like forward, for a port such as :443 of an object in the server's namespace.
func forwardTo(t *testing.T, object, remote string) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, cluster.kubectls[0], "port-forward", "-n", serverNamespace, object, remote)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was killed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindStringSubmatch(line)
	if port == nil {
		t.Fatalf("port-forward says %q (%v) %s", line, err, said.String())
	}
	return "https://127.0.0.1:" + port[1]
}

// frontProxyLike is a self-signed certificate with the front proxy's usual name.
func frontProxyLike(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "front-proxy-client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
