//go:build e2e

package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"metrics-server/test/realcluster"
)

// TestIncumbentManifest replaces an incumbent that was installed from its own manifest, in the ways
// that docs/install.md describes, and goes back to it.
func TestIncumbentManifest(t *testing.T) {
	leavesNothing(t)
	theirs := filepath.Join(cluster.incumbent, "manifests", "overlays", "release")
	ours := filepath.Join(cluster.dist, "components.yaml")
	t.Cleanup(func() {
		if t.Failed() {
			_, _ = kubectl("delete", "-f", ours, "--ignore-not-found")
		}
	})
	incumbent := func(t *testing.T) {
		mustKubectl(t, "apply", "-k", theirs)
		realcluster.Within(t, patience, "the incumbent serves", func() error {
			return errors.Join(rolledOut(incumbentImage(), 1), usable(serverPods, "v1beta1"), allNodes())
		})
	}

	incumbent(t)
	t.Run("image", func(t *testing.T) {
		args := []string{
			"get", "deployment", "-n", namespace, deployment, "-o", "jsonpath={.spec.template.spec.containers[0].args}",
		}
		before := mustKubectl(t, args...)
		end := ask(t)
		mustKubectl(t, "set", "image", "-n", namespace, "deployment/"+deployment, "metrics-server="+cluster.image)
		realcluster.Within(t, patience, "this server serves", func() error {
			return errors.Join(rolledOut(cluster.image, 1), usable(serverPods, "v1beta1"))
		})
		end(momentary)
		if after := mustKubectl(t, args...); after != before {
			t.Errorf("the flags were %s and are %s", before, after)
		}
		healthy(t)
	})
	t.Run("back-from-image", incumbent)
	t.Run("file", func(t *testing.T) {
		end := ask(t)
		mustKubectl(t, "apply", "-f", ours)
		realcluster.Within(t, patience, "this server serves", func() error {
			return errors.Join(rolledOut(cluster.image, 1), usable(serverPods, bothVersions...))
		})
		end(30 * time.Second)
		healthy(t)
	})
	t.Run("back-from-file", func(t *testing.T) {
		mustKubectl(t, "delete", "apiservice", "v1.metrics.k8s.io")
		mustKubectl(
			t, "patch", "apiservice", "v1beta1.metrics.k8s.io", "--type=merge", "-p",
			`{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`,
		)
		incumbent(t)
	})
	t.Run("file-without-apiservices", func(t *testing.T) {
		end := ask(t)
		mustKubectl(t, "apply", "-f", ours, "-l", "app.kubernetes.io/component!=apiservice")
		realcluster.Within(t, patience, "this server serves", func() error {
			return errors.Join(rolledOut(cluster.image, 1), usable(serverPods, "v1beta1"))
		})
		mustKubectl(t, "apply", "-f", ours)
		realcluster.Within(t, patience, "both APIServices are verified", func() error {
			out, err := kubectl("get", "apiservice", "v1.metrics.k8s.io", "v1beta1.metrics.k8s.io",
				"-o", "jsonpath={.items[*].spec.caBundle}")
			if bundles := strings.Fields(out); err == nil && len(bundles) != 2 {
				err = fmt.Errorf("%d of the two have a caBundle", len(bundles))
			}
			return errors.Join(err, usable(serverPods, bothVersions...))
		})
		end(momentary)
		healthy(t)
	})
	mustKubectl(t, "delete", "-f", ours)
}

// TestIncumbentChart upgrades the release of the incumbent's chart to this one's, with the same values.
func TestIncumbentChart(t *testing.T) {
	leavesNothing(t)
	t.Cleanup(func() {
		if t.Failed() {
			_, _ = realcluster.Run(cluster.helm, "uninstall", "metrics-server", "-n", namespace)
		}
	})
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(
		values,
		[]byte("args: [--v=2]\npodLabels: {team: infrastructure}\nresources: {requests: {cpu: 50m, memory: 100Mi}}\n"),
		0o600,
	); err != nil {
		t.Fatal(err)
	}
	_, tag, _ := strings.Cut(incumbentImage(), ":")
	mustHelm(
		t, "install", "metrics-server", filepath.Join(cluster.incumbent, "charts", "metrics-server"), "-f", values,
		"--set", "image.tag="+tag,
	)
	realcluster.Within(t, patience, "the incumbent serves", func() error {
		return errors.Join(rolledOut(incumbentImage(), 1), usable(chartPods, "v1beta1"), allNodes())
	})

	end := ask(t)
	mustHelm(t, "upgrade", "metrics-server", chart(t), "-f", values)
	realcluster.Within(t, patience, "this server serves", func() error {
		return errors.Join(rolledOut(cluster.image, 1), usable(chartPods+",team=infrastructure", bothVersions...))
	})
	end(momentary)
	healthy(t)

	mustHelm(t, "uninstall", "metrics-server")
}

// incumbentImage is the image that the incumbent's manifest names.
func incumbentImage() string {
	_, version, _ := strings.Cut(filepath.Base(cluster.incumbent), "@")
	return "registry.k8s.io/metrics-server/metrics-server:" + version
}
