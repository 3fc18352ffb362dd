//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// withoutKinds are objects of kinds that this API server does not have.
var withoutKinds = regexp.MustCompile(`(?m)^apiVersion: (cert-manager\.io|monitoring\.coreos\.com)/`)

// TestChart has the API server take all that the Helm chart renders to, short of keeping it: its defaulting, its
// validation and its admission see what no decoder does.
func TestChart(t *testing.T) {
	files, err := filepath.Glob("../../hack/helm/testdata/golden/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	// What is dry-run is compared with what is there: the APIServices must be as new as the rest.
	aggregator.Lock()
	t.Cleanup(aggregator.Unlock)
	apiServices := "../../deploy/kustomize/base/apiservices.yaml"
	kubectl(t, "delete", "-f", apiServices)
	t.Cleanup(func() { kubectl(t, "apply", "-f", apiServices) })
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "metrics"}}
	if _, err := cluster.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}

	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var known []string
			for document := range strings.SplitSeq(string(b), "\n---\n") {
				if !withoutKinds.MatchString(document) {
					known = append(known, document)
				}
			}
			manifest := filepath.Join(t.TempDir(), "manifest.yaml")
			if err := os.WriteFile(manifest, []byte(strings.Join(known, "\n---\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			out := kubectl(t, "apply", "--dry-run=server", "--validate=strict", "-f", manifest)
			if want := "deployment.apps/"; !strings.Contains(out, want) || !strings.Contains(out, "(server dry run)") {
				t.Errorf("kubectl does not say %q and that it was a dry run:\n%s", want, out)
			}
		})
	}
}
