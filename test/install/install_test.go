//go:build e2e

package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var bothVersions = []string{"v1", "v1beta1"}

// TestOneFile installs one file, makes the installation highly available by the other, and removes it.
func TestOneFile(t *testing.T) {
	leavesNothing(t)
	components, highAvailability := filepath.Join(cluster.dist, "components.yaml"), filepath.Join(cluster.dist, "high-availability.yaml")
	t.Cleanup(func() {
		if t.Failed() {
			_, _ = kubectl("delete", "-f", highAvailability, "--ignore-not-found")
		}
	})
	mustKubectl(t, "apply", "-f", components)
	within(t, firstNumbers, "all is served", func() error { return usable(serverPods, bothVersions...) })
	healthy(t)

	end := ask(t)
	mustKubectl(t, "apply", "-f", highAvailability)
	within(t, patience, "two replicas run, on two nodes", func() error {
		if err := rolledOut(cluster.image, 2); err != nil {
			return err
		}
		nodes, err := kubectl("get", "pods", "-n", namespace, "-l", serverPods, "-o", "jsonpath={.items[*].spec.nodeName}")
		if err != nil {
			return err
		}
		for _, n := range cluster.nodes {
			if !strings.Contains(nodes, n) {
				return fmt.Errorf("none is on %s, but on %s", n, nodes)
			}
		}
		return usable(serverPods, bothVersions...)
	})
	end(0)
	healthy(t)

	mustKubectl(t, "delete", "-f", highAvailability)
}

// TestHelm installs the chart, upgrades the release, and uninstalls it.
func TestHelm(t *testing.T) {
	leavesNothing(t)
	t.Cleanup(func() {
		if t.Failed() {
			_, _ = run(cluster.helm, "uninstall", "metrics-server", "-n", namespace)
		}
	})
	upgrade := []string{"upgrade", "--install", "metrics-server", chart(t)}
	mustHelm(t, upgrade...)
	within(t, firstNumbers, "all is served", func() error { return usable(chartPods, bothVersions...) })
	healthy(t)

	end := ask(t)
	mustHelm(t, append(upgrade, "--set", "podLabels.release=second")...)
	within(t, patience, "the second release runs", func() error {
		return errors.Join(rolledOut(cluster.image, 1), usable(chartPods+",release=second", bothVersions...))
	})
	end(0)

	mustHelm(t, "uninstall", "metrics-server")
}

// chart is the file of this server's.
func chart(t *testing.T) string {
	t.Helper()
	charts, err := filepath.Glob(filepath.Join(cluster.dist, "metrics-server-*.tgz"))
	if err != nil || len(charts) != 1 {
		t.Fatalf("charts %q in %s (%v), want one", charts, cluster.dist, err)
	}
	return charts[0]
}

// TestOverlays has the API server take each overlay as users apply it, short of keeping it: upon an empty cluster, by kubectl's own
// kustomize, with the image set.
func TestOverlays(t *testing.T) {
	leavesNothing(t)
	root, err := filepath.Abs(filepath.Join("..", "..", "deploy", "kustomize", "overlays"))
	if err != nil {
		t.Fatal(err)
	}
	overlays, err := os.ReadDir(root)
	if err != nil || len(overlays) == 0 {
		t.Fatalf("no overlays: %v", err)
	}
	name, tag, _ := strings.Cut(cluster.image, ":")
	for _, o := range overlays {
		t.Run(o.Name(), func(t *testing.T) {
			// Kustomize takes no absolute paths, and resolves symbolic links before it looks.
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			overlay, err := filepath.Rel(dir, filepath.Join(root, o.Name()))
			if err != nil {
				t.Fatal(err)
			}
			kustomization := fmt.Sprintf("resources: [%s]\nimages: [{name: localhost/metrics-server, newName: %s, newTag: %s}]\n", overlay, name, tag)
			if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
				t.Fatal(err)
			}
			out := mustKubectl(t, "apply", "--dry-run=server", "--validate=strict", "-o", "yaml", "-k", dir)
			if !strings.Contains(out, "image: "+cluster.image+"\n") {
				t.Errorf("the image is not %s:\n%s", cluster.image, out)
			}
		})
	}
}
