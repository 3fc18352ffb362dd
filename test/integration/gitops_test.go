//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// unverifiedManifest is an APIService as users keep it in their own repository.
const unverifiedManifest = `
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata:
  name: v1beta1.metrics.k8s.io
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service:
    name: metrics-server
    namespace: kube-system
`

// TestManifestsGoOn applies manifests again and again, as tools do, over what the server wrote: a manifest that was
// accepted before is accepted again, and the server fights with none. The server runs without
// --serving-certificate-secret, as after a patch of all its arguments. The Secret of deploy/ is there, so the API is
// available all the same.
func TestManifestsGoOn(t *testing.T) {
	t.Parallel() // the server looks once a minute
	aggregator.Lock()
	t.Cleanup(aggregator.Unlock)
	const v1, v1beta1 = "v1.metrics.k8s.io", "v1beta1.metrics.k8s.io"
	ours := "../../deploy/kustomize/base/apiservices.yaml"
	theirs := filepath.Join(t.TempDir(), "apiservice.yaml")
	if err := os.WriteFile(theirs, []byte(unverifiedManifest), 0o600); err != nil {
		t.Fatal(err)
	}
	apply := func(file string) {
		t.Helper()
		// As kubectl, Flux and Argo CD do it.
		kubectl(t, "apply", "-f", file)
		kubectl(t, "apply", "-f", file, "--server-side", "--force-conflicts", "--field-manager=kustomize-controller")
		kubectl(t, "apply", "-f", file, "--server-side", "--force-conflicts", "--field-manager=argocd-controller")
	}
	// The server's port is that of this process, not 443.
	again := func(s *metricsServer) { patchAPIServices(t, `"service":{"port":`+s.port+`}`) }
	unverified := func() error {
		got := kubectl(t, "get", "apiservice", v1beta1, "-o", "jsonpath={.spec.insecureSkipTLSVerify} {.spec.caBundle}")
		if strings.TrimSpace(got) != "true" {
			return fmt.Errorf("%s has insecureSkipTLSVerify and caBundle %q, want true and none", v1beta1, got)
		}
		return nil
	}

	changeSecret(t, func(s *corev1.Secret) { s.Data = nil })
	kubectl(t, "delete", "-f", ours)
	t.Cleanup(func() {
		kubectl(t, "delete", "apiservice", v1, v1beta1)
		kubectl(t, "apply", "-f", ours)
	})
	kubectl(t, "apply", "-f", ours)
	apply(theirs)
	f := newFleet(t, 1, 1)
	f.env = append(f.env, "POD_NAMESPACE=kube-system")
	s := startServer(t, f)
	s.ready(t)
	s.lead(t)
	said := func(want ...string) func() error {
		return func() error {
			for _, text := range want {
				if !strings.Contains(s.output(), text) {
					return fmt.Errorf("the log does not say %q", text)
				}
			}
			return nil
		}
	}

	// Verification is off because a manifest says so, and stays off.
	eventually(t, "the log names who set the field",
		said("does not verify this server", "kustomize-controller", "kubectl patch apiservice "+v1beta1))
	if _, err := s.presentsTo(t.Context(), v1); err != nil {
		t.Errorf("without the flag, the other APIService: %v", err)
	}
	apply(theirs)
	if err := unverified(); err != nil {
		t.Error(err)
	}

	// Once no manifest says so, the server turns it on, and our manifest leaves what it wrote.
	kubectl(t, "patch", "apiservice", v1beta1, "--type=merge", "-p", `{"spec":{"insecureSkipTLSVerify":null}}`)
	eventually(t, "both APIServices are verified", func() error {
		_, err := s.presentsTo(t.Context(), v1)
		_, errBeta := s.presentsTo(t.Context(), v1beta1)
		return errors.Join(err, errBeta)
	})
	apply(ours)
	again(s)
	for _, api := range []string{v1, v1beta1} {
		if _, err := s.presentsTo(t.Context(), api); err != nil {
			t.Errorf("after our manifest was applied: %v", err)
		}
	}

	// The way back, as docs/install.md describes it.
	out, err := cluster.kubectl("apply", "-f", theirs)
	if err == nil || !strings.Contains(out, "may not be true if caBundle is present") {
		t.Errorf("the other manifest is taken over a caBundle (%v): the documents need not speak of it\n%s", err, out)
	}
	kubectl(t, "patch", "apiservice", v1beta1, "--type=merge",
		"-p", `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`)
	apply(theirs)
	again(s)

	// An APIService that points elsewhere is left alone, but reported.
	kubectl(t, "patch", "apiservice", v1, "--type=merge", "-p",
		`{"spec":{"service":{"namespace":"default","name":"evil"},"insecureSkipTLSVerify":true,"caBundle":null}}`)
	eventually(t, "the log says that an APIService was led elsewhere", said(
		"An APIService that pointed to this server points to another one", "service default/evil", `setBy="kubectl-patch`,
		"kubectl patch apiservice "+v1))
	if err := unverified(); err != nil {
		t.Errorf("a minute after the way back: %v", err)
	}
	got := kubectl(t, "get", "apiservice", v1, "-o", "jsonpath={.spec.service.namespace}/{.spec.service.name}")
	if got != "default/evil" {
		t.Errorf("%s was led to %s", v1, got)
	}
	remedy := lastRemedy(t, s.output(), v1)
	kubectl(t, remedy...)
	eventually(t, "the remedy in the log leads it back", func() error {
		_, err := s.presentsTo(t.Context(), v1)
		return err
	})
}

// lastRemedy returns the arguments of the kubectl command in the last remedy of the log for an APIService.
func lastRemedy(t *testing.T, log, api string) []string {
	t.Helper()
	command := "kubectl patch apiservice " + api + " --type=merge -p '"
	i := strings.LastIndex(log, command)
	if i < 0 {
		t.Fatalf("no remedy for %s in the log", api)
	}
	patch, _, _ := strings.Cut(log[i+len(command):], "'")
	return []string{"patch", "apiservice", api, "--type=merge", "-p", strings.ReplaceAll(patch, `\"`, `"`)}
}
