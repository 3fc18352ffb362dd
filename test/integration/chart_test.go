//go:build integration

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// withoutKinds matches objects of kinds that this API server does not have.
var withoutKinds = regexp.MustCompile(`(?m)^apiVersion: (cert-manager\.io|monitoring\.coreos\.com)/`)

// objectKind matches the kind of each object of a manifest.
var objectKind = regexp.MustCompile(`(?m)^kind: `)

// TestChart dry-runs every object that the Helm chart renders on the API server, whose defaulting,
// validation and admission find errors that no decoder does. Golden files other than default.yaml
// have only the objects that differ from it.
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
	if _, err := cluster.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil &&
		!apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}

	examples, err := filepath.Glob("../../examples/values/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no values files in examples: %v", err)
	}
	for _, values := range examples {
		files = append(files, renderChart(t, values))
	}

	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var known []string
			for document := range strings.SplitSeq(string(b), "\n---\n") {
				if objectKind.MatchString(document) && !withoutKinds.MatchString(document) {
					known = append(known, document)
				}
			}
			if len(known) == 0 {
				t.Fatal("no object of a kind that the API server has")
			}
			manifest := filepath.Join(t.TempDir(), "manifest.yaml")
			if err := os.WriteFile(manifest, []byte(strings.Join(known, "\n---\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			out := kubectl(t, "apply", "--dry-run=server", "--validate=strict", "-f", manifest)
			if got := strings.Count(out, "(server dry run)"); got != len(known) {
				t.Errorf("kubectl reports dry runs of %d objects, want %d:\n%s", got, len(known), out)
			}
		})
	}
}

// renderChart renders the chart with a values file, for the same release as testdata/golden, into a
// file named after the values file, and returns its path.
func renderChart(t *testing.T, values string) string {
	t.Helper()
	values, err := filepath.Abs(values)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "tool", "helm", "template", "test", "../../deploy/helm/metrics-server",
		"--namespace", "metrics", "--values", values)
	cmd.Dir = "../../hack/helm"
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "example-"+filepath.Base(values))
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
