//go:build integration

package integration

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// releases is a namespace for releases of this server's chart and of the incumbent's, by the Helm of hack/helm.
// No pod runs in it: there is no controller.
type releases struct {
	t         *testing.T
	namespace string
	helm      string // program
	ours      string // directory of the chart
	theirs    string
}

// newReleases makes the namespace. The APIServices, which all tests share, are absent until t ends.
func newReleases(t *testing.T, namespace string) *releases {
	t.Helper()
	aggregator.Lock()
	t.Cleanup(aggregator.Unlock)
	apiServices := "../../deploy/kustomize/base/apiservices.yaml"
	kubectl(t, "delete", "-f", apiServices)
	t.Cleanup(func() {
		kubectl(t, "delete", "-f", apiServices, "--ignore-not-found")
		kubectl(t, "apply", "-f", apiServices)
	})
	_, err := cluster.client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	for _, variable := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		t.Setenv(variable, home)
	}
	t.Setenv("KUBECONFIG", cluster.path("admin.kubeconfig"))
	r := &releases{t: t, namespace: namespace, helm: filepath.Join(home, "helm"), ours: "../../deploy/helm/metrics-server"}
	r.run("../../hack/helm", "go", "build", "-o", r.helm, "helm.sh/helm/v4/cmd/helm")
	incumbent := moduleDir(t, "../../hack/incumbent", "sigs.k8s.io/metrics-server")
	r.theirs = filepath.Join(incumbent, "charts", "metrics-server")
	return r
}

func (r *releases) run(dir, program string, args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), program, args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("%s %q: %v", filepath.Base(program), args, err)
	}
	return string(out)
}

// try runs Helm in the namespace, as at a terminal.
func (r *releases) try(args ...string) error {
	r.t.Helper()
	args = append(args, "--namespace", r.namespace)
	out, err := exec.CommandContext(r.t.Context(), r.helm, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("helm %q: %w\n%s", args, err, out)
	}
	return err
}

// must runs Helm, which has to succeed.
func (r *releases) must(args ...string) {
	r.t.Helper()
	if err := r.try(args...); err != nil {
		r.t.Fatal(err)
	}
}

// left returns the existing objects of release.
func (r *releases) left(release string) []string {
	r.t.Helper()
	const kinds = "apiservices,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts," +
		"secrets,configmaps,services,deployments"
	out := kubectl(r.t, "get", kinds, "-A", "-l", "app.kubernetes.io/instance="+release, "-o",
		`jsonpath={range .items[*]}{.kind}/{.metadata.name}{"\n"}{end}`)
	return strings.Fields(out)
}

// verify does what the server does: it writes a caBundle where nothing forbids it.
func (r *releases) verify(caBundle string, apiServices ...string) {
	r.t.Helper()
	for _, name := range apiServices {
		kubectl(r.t, "patch", "apiservice", name, "--type=merge", "-p", `{"spec":{"caBundle":"`+caBundle+`"}}`)
	}
}

// TestHelmReleases goes from the incumbent's chart to this one and back, and removes both: what an upgrade made is gone
// after a rollback and after the release, and no upgrade fails or takes away what the server wrote.
func TestHelmReleases(t *testing.T) {
	const v1, v1beta1 = "v1.metrics.k8s.io", "v1beta1.metrics.k8s.io"
	r := newReleases(t, "releases")
	ca, err := os.ReadFile("../../hack/helm/testdata/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	bundle := base64.StdEncoding.EncodeToString(ca)
	const added = "ClusterRole/system:server-metrics-server-kubelets"
	upgrade := []string{"upgrade", "server", r.ours, "--set", "args={--kubelet-insecure-tls}"}
	gone := func(after string) {
		t.Helper()
		left := r.left("server")
		if slices.Contains(left, added) || slices.Contains(left, "APIService/"+v1) ||
			!slices.Contains(left, "APIService/"+v1beta1) {
			t.Fatalf("after %s there are %q", after, left)
		}
	}

	r.must("install", "server", r.theirs)
	r.must(upgrade...)
	if left := r.left("server"); !slices.Contains(left, added) {
		t.Fatalf("%s is not part of the release: %q", added, left)
	}
	r.verify(bundle, v1)
	r.must("rollback", "server", "1")
	gone("a rollback")

	// Revisions 4 and 5. From here on both APIServices are verified.
	r.must(upgrade...)
	r.must(append(upgrade, "--set", "apiService.insecureSkipTLSVerify=false")...)
	r.verify(bundle, v1, v1beta1)
	r.must(upgrade...)
	got := kubectl(t, "get", "apiservice", v1, v1beta1, "-o", "jsonpath={.items[*].spec.caBundle}")
	if got != bundle+" "+bundle {
		t.Fatalf("an upgrade took the caBundle away: %q", got)
	}

	// The API server refuses the incumbent's insecureSkipTLSVerify together with it. The chart's README has the remedy.
	err = r.try("rollback", "server", "1")
	if err == nil || !strings.Contains(err.Error(), "may not be true if caBundle is present") {
		t.Fatalf("a rollback over a caBundle: %v", err)
	}
	r.must("rollback", "server", "6")
	for _, name := range []string{v1, v1beta1} {
		kubectl(t, "patch", "apiservice", name, "--type=merge", "-p",
			`{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`)
	}
	r.must("rollback", "server", "1")
	gone("a rollback after one that was refused")

	r.must(upgrade...)
	r.must("uninstall", "server")
	if left := r.left("server"); len(left) > 0 {
		t.Errorf("the release left %q", left)
	}
}

// TestHelmTakesOwnership has a release take over what kubectl applied under the same names, as docs/install.md has it.
func TestHelmTakesOwnership(t *testing.T) {
	r := newReleases(t, "owned")
	applied := filepath.Join(t.TempDir(), "applied.yaml")
	// The selectors are those of the incumbent's manifest, which differ from those of the charts.
	if err := os.WriteFile(applied, []byte(strings.ReplaceAll(unverifiedManifest, "kube-system", "owned")+`---
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: owned}
spec:
  selector: {k8s-app: metrics-server}
  ports: [{name: https, port: 443, targetPort: https}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: metrics-server, namespace: owned}
spec:
  selector: {matchLabels: {k8s-app: metrics-server}}
  template:
    metadata: {labels: {k8s-app: metrics-server}}
    spec: {containers: [{name: metrics-server, image: incumbent, args: [--secure-port=10250]}]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-f", applied)
	install := []string{
		"upgrade", "--install", "metrics-server", r.ours, "--set", "rbac.create=false", "--set", "tls.type=self-managed",
		"--take-ownership", "--force-conflicts",
	}
	if err := r.try(install...); err == nil || !strings.Contains(err.Error(), "field is immutable") {
		t.Errorf("the Deployment need not be deleted (%v): the documents need not say so", err)
	}
	kubectl(t, "delete", "deployment", "-n", "owned", "metrics-server")
	r.must(install...)
	got := kubectl(t, "get", "service", "-n", "owned", "metrics-server", "-o", "jsonpath={.spec.selector}")
	if !strings.Contains(got, `"app.kubernetes.io/name":"metrics-server"`) || strings.Contains(got, "k8s-app") {
		t.Errorf("the Service selects %s", got)
	}
	r.must("uninstall", "metrics-server")
	if left := r.left("metrics-server"); len(left) > 0 {
		t.Errorf("the release left %q", left)
	}
}

// TestHelmKeepsAPIServices removes a release without its APIServices, which point to another server by then, as
// docs/install.md has it.
func TestHelmKeepsAPIServices(t *testing.T) {
	const v1, v1beta1 = "v1.metrics.k8s.io", "v1beta1.metrics.k8s.io"
	r := newReleases(t, "kept")
	r.must("install", "server", r.ours)
	for _, name := range []string{v1, v1beta1} {
		kubectl(t, "patch", "apiservice", name, "--type=merge", "-p",
			`{"spec":{"service":{"namespace":"default","name":"another"},"insecureSkipTLSVerify":true,"caBundle":null}}`)
	}
	kubectl(t, "annotate", "apiservice", v1, v1beta1, "helm.sh/resource-policy=keep")
	r.must("upgrade", "server", r.ours, "--reuse-values", "--set", "apiService.create=false")
	r.must("uninstall", "server")
	got := kubectl(t, "get", "apiservice", v1, v1beta1, "-o",
		"jsonpath={range .items[*]}{.spec.service.namespace}/{.spec.service.name} {end}")
	if got != "default/another default/another " {
		t.Errorf("the APIServices point to %q", got)
	}
	for _, object := range r.left("server") {
		if !strings.HasPrefix(object, "APIService/") {
			t.Errorf("the release left %s", object)
		}
	}
}
