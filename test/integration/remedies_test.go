//go:build integration

package integration

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// documented checks that docs/troubleshooting.md quotes the messages of other programs.
func documented(t *testing.T, says string) {
	t.Helper()
	doc, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), says) {
		t.Errorf("docs/troubleshooting.md does not have %q", says)
	}
}

// The message of kubectl top without metrics depends on the age of a pod, which only a fake API
// server can choose.
func TestKubectlTopWithoutMetrics(t *testing.T) {
	for _, tc := range []struct {
		age  time.Duration
		says string
	}{
		{3 * time.Minute, "error: Metrics not available for pod default/web, age: 3m"},
		{10 * time.Second, "error: metrics not available yet"},
	} {
		pod := corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace:         "default",
				Name:              "web",
				CreationTimestamp: metav1.NewTime(time.Now().Add(-tc.age)),
			},
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			object := any(
				metav1.Status{Code: http.StatusNotFound, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound},
			)
			switch r.URL.Path {
			case "/api":
				object = metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}}
			case "/apis":
				version := metav1.GroupVersionForDiscovery{GroupVersion: "metrics.k8s.io/v1beta1", Version: "v1beta1"}
				object = metav1.APIGroupList{
					TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"},
					Groups: []metav1.APIGroup{
						{Name: "metrics.k8s.io", Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version},
					},
				}
			case "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods":
				object = map[string]any{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "items": []any{}}
			case "/api/v1/namespaces/default/pods":
				object = corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{pod}}
			default:
				w.WriteHeader(http.StatusNotFound)
			}
			if err := json.NewEncoder(w).Encode(object); err != nil {
				t.Error(err)
			}
		}))
		cmd := exec.Command(
			filepath.Join(cluster.assets, "kubectl"), "--server="+server.URL, "--cache-dir="+t.TempDir(), "top", "pods",
			"-n", "default",
		)
		cmd.Env = append(os.Environ(), "KUBECONFIG=/dev/null")
		out, err := cmd.CombinedOutput()
		server.Close()
		if err == nil || !strings.Contains(string(out), tc.says) {
			t.Errorf("kubectl top says %q (%v), want %q", out, err, tc.says)
		}
		documented(t, tc.says)
	}
}

// A manifest with insecureSkipTLSVerify cannot be applied to an APIService that is verified, unless
// verification was turned off before, as the document says.
func TestUnverifiedOverVerified(t *testing.T) {
	const name = "v1.verified.example"
	manifest := func(trust string) string {
		path := filepath.Join(t.TempDir(), "apiservice.yaml")
		err := os.WriteFile(
			path,
			[]byte("apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: "+name+"}\nspec:\n"+
				"  group: verified.example\n  version: v1\n  groupPriorityMinimum: 100\n  versionPriority: 100\n"+
				"  service: {namespace: kube-system, name: nobody}\n"+
				"  "+trust+"\n"),
			0o600,
		)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	unverified := manifest("insecureSkipTLSVerify: true")
	kubectl(t, "apply", "--server-side", "--field-manager=server", "-f", manifest("caBundle: aGVsbG8="))
	t.Cleanup(func() { kubectl(t, "delete", "--ignore-not-found", "apiservice", name) })
	const says = "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"
	if out, err := cluster.kubectl("apply", "-f", unverified); err == nil || !strings.Contains(out, says) {
		t.Errorf("kubectl apply says %q (%v), want %q", out, err, says)
	}
	documented(t, says)
	const off = `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`
	documented(t, off)
	kubectl(t, "patch", "apiservice", name, "--type=merge", "-p", off)
	kubectl(t, "apply", "-f", unverified)
}
