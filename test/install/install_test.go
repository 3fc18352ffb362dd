//go:build e2e

package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/test/realcluster"
)

var bothVersions = []string{"v1", "v1beta1"}

// TestOneFile installs components.yaml, upgrades to high-availability.yaml, and removes everything.
func TestOneFile(t *testing.T) {
	leavesNothing(t)
	components := filepath.Join(cluster.dist, "components.yaml")
	highAvailability := filepath.Join(cluster.dist, "high-availability.yaml")
	t.Cleanup(func() {
		if t.Failed() {
			_, _ = kubectl("delete", "-f", highAvailability, "--ignore-not-found")
		}
	})
	mustKubectl(t, "apply", "-f", components)
	realcluster.Within(t, firstNumbers, "all is served", func() error { return usable(serverPods, bothVersions...) })
	healthy(t)

	end := ask(t)
	mustKubectl(t, "apply", "-f", highAvailability)
	realcluster.Within(t, patience, "two replicas run, on two nodes", func() error {
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
			_, _ = realcluster.Run(cluster.helm, "uninstall", "metrics-server", "-n", namespace)
		}
	})
	upgrade := []string{"upgrade", "--install", "metrics-server", chart(t)}
	mustHelm(t, upgrade...)
	realcluster.Within(t, firstNumbers, "all is served", func() error { return usable(chartPods, bothVersions...) })
	healthy(t)

	end := ask(t)
	mustHelm(t, append(upgrade, "--set", "podLabels.release=second")...)
	realcluster.Within(t, patience, "the second release runs", func() error {
		return errors.Join(rolledOut(cluster.image, 1), usable(chartPods+",release=second", bothVersions...))
	})
	end(0)

	mustHelm(t, "uninstall", "metrics-server")
}

// chart is the file of this server's chart.
func chart(t *testing.T) string {
	t.Helper()
	charts, err := filepath.Glob(filepath.Join(cluster.dist, "metrics-server-*.tgz"))
	if err != nil || len(charts) != 1 {
		t.Fatalf("charts %q in %s (%v), want one", charts, cluster.dist, err)
	}
	return charts[0]
}

// TestOverlays applies each overlay as users do, in a dry run of the API server: to an empty
// cluster, with kubectl's own kustomize, and with the image set.
func TestOverlays(t *testing.T) {
	leavesNothing(t)
	overlays, err := os.ReadDir(filepath.Join("..", "..", "deploy", "kustomize", "overlays"))
	if err != nil || len(overlays) == 0 {
		t.Fatalf("no overlays: %v", err)
	}
	for _, o := range overlays {
		t.Run(o.Name(), func(t *testing.T) {
			dir := kustomization(t, filepath.Join("overlays", o.Name()))
			out := mustKubectl(t, "apply", "--dry-run=server", "--validate=strict", "-o", "yaml", "-k", dir)
			if !strings.Contains(out, "image: "+cluster.image+"\n") {
				t.Errorf("the image is not %s:\n%s", cluster.image, out)
			}
		})
	}
}

// TestHostNetwork installs the server on the nodes' network.
func TestHostNetwork(t *testing.T) {
	leavesNothing(t)
	dir := kustomization(t, "base", "host-network")
	removed := installed(t, dir)
	realcluster.Within(t, firstNumbers, "all is served", func() error {
		return errors.Join(rolledOut(cluster.image, 1), usable(serverPods, bothVersions...))
	})
	addresses := mustKubectl(
		t, "get", "pods", "-n", namespace, "-l", serverPods, "-o",
		"jsonpath={range .items[*]}{.status.podIP}={.status.hostIP}{end}",
	)
	if !equalPair(addresses) {
		t.Errorf("the pod does not have its node's address: %s", addresses)
	}
	healthy(t)
	removed()
}

func equalPair(s string) bool {
	a, b, ok := strings.Cut(s, "=")
	return ok && a != "" && a == b
}

// TestVerifiedKubelets installs the server with the wrong authority for the kubelets' certificates,
// and gives it the right one while it runs.
func TestVerifiedKubelets(t *testing.T) {
	leavesNothing(t)
	const name = "metrics-server-kubelet-ca"
	authority := func(from, key string) {
		m, err := cluster.client.CoreV1().ConfigMaps(namespace).Get(t.Context(), from, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "ca.crt")
		if err := os.WriteFile(file, []byte(m.Data[key]), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = kubectl("delete", "configmap", "-n", namespace, name, "--ignore-not-found")
		mustKubectl(t, "create", "configmap", "-n", namespace, name, "--from-file="+file)
	}
	removed := installed(t, kustomization(t, "base", "verified-kubelets"))
	t.Cleanup(func() { _, _ = kubectl("delete", "configmap", "-n", namespace, name, "--ignore-not-found") })
	authority("extension-apiserver-authentication", "requestheader-client-ca-file")
	realcluster.Within(t, patience, "the server believes no kubelet", func() error {
		log, err := kubectl("logs", "-n", namespace, "deployment/"+deployment)
		if err == nil && !strings.Contains(log, "x509: certificate signed by unknown authority") {
			err = fmt.Errorf("its log: %s", log)
		}
		return err
	})
	authority("kube-root-ca.crt", "ca.crt")
	// The kubelet takes a minute or two until it has the new one in the pod.
	realcluster.Within(t, 2*patience, "all is served", func() error {
		return errors.Join(rolledOut(cluster.image, 1), usable(serverPods, bothVersions...))
	})
	healthy(t)
	removed()
}

// installed applies a kustomization, and returns what removes it again. That is also done if t fails before.
func installed(t *testing.T, dir string) (removed func()) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			_, _ = kubectl("delete", "-k", dir, "--ignore-not-found")
		}
	})
	mustKubectl(t, "apply", "-k", dir)
	return func() {
		t.Helper()
		mustKubectl(t, "delete", "-k", dir)
	}
}

// kustomization returns the directory of a kustomization as users write it: it is based on resource
// in deploy/kustomize, adds components, and sets the image.
func kustomization(t *testing.T, resource string, components ...string) string {
	t.Helper()
	// Kustomize takes no absolute paths, and resolves symbolic links before it looks.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(elements ...string) string {
		root, err := filepath.Abs(filepath.Join("..", "..", "deploy", "kustomize"))
		if err != nil {
			t.Fatal(err)
		}
		path, err := filepath.Rel(dir, filepath.Join(root, filepath.Join(elements...)))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	var paths []string
	for _, c := range components {
		paths = append(paths, at("components", c))
	}
	name, tag, _ := strings.Cut(cluster.image, ":")
	text := fmt.Sprintf(
		"resources: [%s]\ncomponents: [%s]\nimages: [{name: localhost/metrics-server, newName: %s, newTag: %s}]\n",
		at(resource), strings.Join(paths, ", "), name, tag,
	)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
