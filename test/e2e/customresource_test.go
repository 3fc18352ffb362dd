//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// fleets are custom resources with a scale. No controller acts on them: the pods belong to a
// Deployment.
const fleets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.e2e.example.com}
spec:
  group: e2e.example.com
  scope: Namespaced
  names: {kind: Fleet, plural: fleets}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources:
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .spec.selector}
`

const fleet = `
apiVersion: e2e.example.com/v1
kind: Fleet
metadata: {name: web}
spec: {replicas: 1, selector: app=web}
status: {replicas: 1}
`

// The target is a custom resource. The autoscaler reports that the server lacks the right to read
// its scale, and scales it once the server has the right that the documents describe.
func customResource(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	applyText(t, fleets)
	mustKubectl(t, "wait", "--for=condition=Established", "crd/fleets.e2e.example.com")
	createMetered(t, ns, nil, "-rate=packets_total=2500")
	applyText(t, fleet, "-n", ns)
	h := customHPA("web", nil, podsMetric("packets-per-second", "1k"))
	h.Spec.ScaleTargetRef.APIVersion, h.Spec.ScaleTargetRef.Kind = "e2e.example.com/v1", "Fleet"
	createCustom(t, ns, h)
	const says = "has no right to get"
	eventually(t, "the autoscaler says which right is missing", func() error {
		if err := hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue); err != nil {
			return has(err.Error(), says, "fleets.e2e.example.com/scale", "metrics-server/aggregate-to-custom-metrics")
		}
		return errors.New("it scales")
	})
	documented(t, says)
	eventually(t, "the doctor finds it", func() error { return doctorHPA(t, ns, "web").finds("served", says) })

	install, err := os.ReadFile(filepath.Join("..", "..", "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	role := regexp.MustCompile("(?s)```yaml\n([^`]*aggregate-to-custom-metrics[^`]*)```").FindSubmatch(install)
	if role == nil {
		t.Fatal("docs/install.md has no ClusterRole for custom resources")
	}
	applyText(t, strings.NewReplacer("argoproj.io", "e2e.example.com", "rollouts", "fleets").Replace(string(role[1])))
	eventually(t, "the fleet has 3 replicas", func() error {
		out, err := kubectl("get", "fleets.e2e.example.com", "web", "-n", ns, "-o", "jsonpath={.spec.replicas}")
		if err == nil && out != "3" {
			err = errors.Join(fmt.Errorf("%s replicas", out), hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue))
		}
		return err
	})
}

// applyText applies a manifest, and deletes what is in it after the test.
func applyText(t *testing.T, manifest string, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mustKubectl(t, append([]string{"delete", "--ignore-not-found", "--wait=false", "-f", file}, args...)...)
	})
	mustKubectl(t, append([]string{"apply", "-f", file}, args...)...)
}
