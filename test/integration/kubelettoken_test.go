//go:build integration

package integration

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet/kubelettest"
)

// kubeletAccount is the service account of deploy/ whose tokens kubelets are shown.
const kubeletAccount = "metrics-server-kubelets"

// thief is a node that records what its kubelet is shown.
type thief struct {
	*fakeNode
	mu    sync.Mutex
	shown []string // what was new of the Authorization header
	other []string // headers that have no business there, and certificates
}

// newThief adds a node to f that records what its kubelet is shown.
func newThief(t *testing.T, f *fleet, c kubelettest.ServerConfig) *thief {
	t.Helper()
	n := &thief{fakeNode: f.node(1)}
	n.kubelet.OnRequest = func(r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); !slices.Contains(n.shown, token) {
			n.shown = append(n.shown, token)
		}
		for key := range r.Header {
			if !slices.Contains([]string{"Accept", "Authorization", "User-Agent"}, key) {
				n.other = append(n.other, key)
			}
		}
		for _, c := range r.TLS.PeerCertificates {
			n.other = append(n.other, "certificate of "+c.Subject.CommonName)
		}
	}
	f.add(t, n.fakeNode, c)
	return n
}

func (n *thief) stolen() (shown, other []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.shown), slices.Clone(n.other)
}

// as returns a client that has only a token.
func as(t *testing.T, token string) kubernetes.Interface {
	t.Helper()
	c := rest.AnonymousClientConfig(cluster.admin)
	c.BearerToken = token
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// mayDo returns what the API server says that a client may do in a namespace, a line for each
// right.
func mayDo(t *testing.T, client kubernetes.Interface, namespace string) []string {
	t.Helper()
	r, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}},
		metav1.CreateOptions{})
	if err != nil || r.Status.Incomplete {
		t.Fatalf("rules review: %v, %+v", err, r)
	}
	var all []string
	for _, rule := range r.Status.ResourceRules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s.%s %s", verb, resource, group,
						strings.Join(rule.ResourceNames, ","))))
				}
			}
		}
	}
	for _, rule := range r.Status.NonResourceRules {
		for _, url := range rule.NonResourceURLs {
			for _, verb := range rule.Verbs {
				all = append(all, verb+" "+url)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestCredentialsShownToKubelets takes what kubelets were shown and asks the API server for its
// rights: only nodes/metrics, in addition to the rights of every service account of the cluster.
func TestCredentialsShownToKubelets(t *testing.T) {
	f := newFleet(t, 0, 0)
	f.env = append(f.env, "POD_NAMESPACE=kube-system")
	thieves := []*thief{
		newThief(t, f, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1")}),
		newThief(t, f, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1"), HTTP2: true}),
	}
	s := startServer(t, f, "--kubelet-service-account="+kubeletAccount)
	s.ready(t)
	var stolen string
	for _, n := range thieves {
		shown, other := n.stolen()
		if len(shown) != 1 || shown[0] == "" || shown[0] == f.token || len(other) > 0 {
			t.Fatalf("the kubelet of %s was shown %d tokens, the server's own among them: %v, and %q", n.name, len(shown),
				slices.Contains(shown, f.token), other)
		}
		stolen = shown[0]
	}
	if code, body, err := s.get("/metrics", monitor(t)); err != nil || code != http.StatusOK ||
		!strings.Contains(body, "\nmetrics_server_kubelet_own_credentials 0\n") {
		t.Errorf("/metrics: %d %v, want metrics_server_kubelet_own_credentials 0", code, err)
	}

	var claims struct{ Exp, Iat int64 }
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(stolen, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Exp-claims.Iat > 3600 {
		t.Errorf("the token lives %d s (%v), want an hour at most", claims.Exp-claims.Iat, err)
	}
	client := as(t, stolen)
	who, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(),
		&authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || who.Status.UserInfo.Username != "system:serviceaccount:kube-system:"+kubeletAccount {
		t.Fatalf("the token is that of %+v (%v)", who, err)
	}
	bystander := as(t, token(t, "kube-system", "bystander"))
	for _, namespace := range []string{"kube-system", "default", "kube-public"} {
		want := append(mayDo(t, bystander, namespace), "get nodes/metrics.")
		slices.Sort(want)
		if diff := cmp.Diff(want, mayDo(t, client, namespace)); diff != "" {
			t.Errorf("rights in %s (-want +got):\n%s", namespace, diff)
		}
	}
	// The comparison proves something only if additional rights would show.
	if own := mayDo(t, as(t, f.token), "kube-system"); !slices.Contains(own, "update secrets. "+servingSecret) ||
		!slices.Contains(own, "create serviceaccounts/token. "+kubeletAccount) {
		t.Errorf("the server's own rights: %q", own)
	}

	for right, allowed := range map[authorizationv1.ResourceAttributes]bool{
		{Verb: "get", Resource: "nodes", Subresource: "metrics"}:  true,
		{Verb: "get", Resource: "nodes", Subresource: "proxy"}:    false,
		{Verb: "create", Resource: "nodes", Subresource: "proxy"}: false,
		{Verb: "get", Resource: "nodes", Subresource: "stats"}:    false,
		{Verb: "get", Resource: "nodes", Subresource: "log"}:      false,
		{Verb: "list", Resource: "nodes"}:                         false,
		{Verb: "list", Resource: "pods"}:                          false,
		{
			Verb: "get", Resource: "secrets", Namespace: "kube-system",
			Name: servingSecret,
		}: false,
		{
			Verb: "patch", Group: "apiregistration.k8s.io", Resource: "apiservices",
			Name: "v1.metrics.k8s.io",
		}: false,
		{
			Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "kube-system",
			Name: kubeletAccount,
		}: false,
		{
			Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: "kube-system",
			Name: "metrics-server",
		}: false,
		{
			Verb: "create", Group: "authentication.k8s.io",
			Resource: "tokenreviews",
		}: false,
		{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"}: false,
		{
			Verb: "get", Resource: "configmaps", Namespace: "kube-system",
			Name: "extension-apiserver-authentication",
		}: false,
		{Verb: "create", Resource: "events", Namespace: "default"}: false,
		{
			Verb: "get", Group: "metrics.k8s.io", Resource: "pods",
			Namespace: "default",
		}: false,
		{Verb: "impersonate", Resource: "users", Name: "admin"}: false,
	} {
		r, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(),
			&authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right},
			}, metav1.CreateOptions{})
		if err != nil || r.Status.Allowed != allowed {
			t.Errorf("%+v: allowed %v (%v), want %v", right, r.Status.Allowed, err, allowed)
		}
	}

	// What an attacker would do.
	_, err = client.CoreV1().Secrets("kube-system").Get(t.Context(), servingSecret, metav1.GetOptions{})
	tries := map[string]error{"read the authority's key": err}
	tries["lead the API elsewhere"] = client.CoreV1().RESTClient().Patch(types.MergePatchType).
		AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/v1.metrics.k8s.io").
		Body([]byte(`{"spec":{"service":{"namespace":"default","name":"evil","port":443}}}`)).Do(t.Context()).Error()
	for _, account := range []string{kubeletAccount, "metrics-server"} {
		_, err = client.CoreV1().ServiceAccounts("kube-system").CreateToken(t.Context(), account,
			&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		tries["get a token of "+account] = err
	}
	_, err = client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	tries["list pods"] = err
	for what, err := range tries {
		if !apierrors.IsForbidden(err) {
			t.Errorf("with what a kubelet was shown one may %s: %v", what, err)
		}
	}
	for _, secret := range []string{stolen, f.token} {
		if part := partOf(secret, s.output()); part != "" {
			t.Errorf("the log shows a token: %s", part)
		}
	}
}

// TestWithoutKubeletAccount starts the server as the manifests of kubernetes-sigs/metrics-server
// do: its own token is shown, as before, and it says so.
func TestWithoutKubeletAccount(t *testing.T) {
	f := newFleet(t, 0, 0)
	n := newThief(t, f, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1")})
	s := startServer(t, f)
	s.ready(t)
	if shown, _ := n.stolen(); !slices.Equal(shown, []string{f.token}) {
		t.Errorf("the kubelet was shown %d tokens, want the server's own", len(shown))
	}
	lines := linesWith(s.output(), "Warning: Kubelets are shown this server's own credentials")
	if len(lines) != 1 || !strings.Contains(lines[0], "--kubelet-service-account") || !strings.Contains(lines[0],
		"remedy") {
		t.Errorf("log lines %q, want one with cause and remedy", lines)
	}
	if code, body, err := s.get("/metrics", monitor(t)); err != nil || code != http.StatusOK ||
		!strings.Contains(body, "\nmetrics_server_kubelet_own_credentials 1\n") {
		t.Errorf("/metrics: %d %v, want metrics_server_kubelet_own_credentials 1", code, err)
	}
}

// TestFallbackFromKubeletAccount names an account that does not exist and whose tokens the server
// may not request, and repairs one after the other: the server starts to use its tokens without a
// restart.
func TestFallbackFromKubeletAccount(t *testing.T) {
	t.Parallel() // the server looks once a minute
	ctx := t.Context()
	f := newFleet(t, 0, 0)
	f.env = append(f.env, "POD_NAMESPACE=kube-system")
	n := newThief(t, f, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1")})
	name := f.name
	start := time.Now()
	// Other tests own the APIServices at the same time, and without the flag this server would publish its authority.
	s := startServer(t, f, "--kubelet-service-account="+name, "--serving-certificate-secret=")
	s.ready(t)
	if waited := time.Since(start); waited < 10*time.Second {
		t.Errorf("the server showed its own token after %v: a refusal is believed after 10 s", waited)
	}
	if shown, _ := n.stolen(); !slices.Equal(shown, []string{f.token}) {
		t.Errorf("the kubelet was shown %d tokens, want the server's own", len(shown))
	}
	if lines := linesWith(s.output(), "Warning: Kubelets are shown this server's own credentials"); len(lines) != 1 ||
		!strings.Contains(lines[0], "kube-system/"+name) || !strings.Contains(lines[0], "forbidden") ||
		!strings.Contains(lines[0], "apply the Role") {
		t.Errorf("log lines %q, want one with account, cause and remedy", lines)
	}

	rbac := cluster.client.RbacV1()
	meta := metav1.ObjectMeta{Name: name, Namespace: "kube-system"}
	_, err := rbac.Roles("kube-system").Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{
			APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{name},
			Verbs: []string{"create"},
		},
	}}, metav1.CreateOptions{})
	if err == nil {
		_, err = rbac.RoleBindings("kube-system").Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: "metrics-server"}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log says what is missing next", func() error {
		if lines := linesWith(s.output(), "create this service account"); len(lines) != 1 {
			return fmt.Errorf("%q", lines)
		}
		return nil
	})
	if _, err := cluster.client.CoreV1().ServiceAccounts("kube-system").Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log says what is missing next", func() error {
		if lines := linesWith(s.output(), "bind the ClusterRole system:metrics-server-kubelets"); len(lines) != 1 {
			return fmt.Errorf("%q", lines)
		}
		return nil
	})
	if shown, _ := n.stolen(); !slices.Equal(shown, []string{f.token}) {
		t.Errorf("the kubelet was shown %d tokens, want only the server's own", len(shown))
	}
	if _, err := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{
			APIGroup: rbacv1.GroupName,
			Kind:     "ClusterRole", Name: "system:metrics-server-kubelets",
		},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: name}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the account's token is shown", func() error {
		if shown, _ := n.stolen(); len(shown) != 2 {
			return fmt.Errorf("%d tokens were shown", len(shown))
		}
		return nil
	})
	if code, body, err := s.get("/metrics", monitor(t)); err != nil || code != http.StatusOK ||
		!strings.Contains(body, "\nmetrics_server_kubelet_own_credentials 0\n") {
		t.Errorf("/metrics: %d %v, want metrics_server_kubelet_own_credentials 0", code, err)
	}
}
