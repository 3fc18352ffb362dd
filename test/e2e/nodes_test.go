//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"

	"metrics-server/test/realcluster"
)

// scrapeFailureShown returns an error unless users see that a node cannot be scraped, and what to
// do, in the table of nodes, in the events of the Node, and in the log.
func scrapeFailureShown(node string, says ...string) error {
	row, err := nodeRow(node)
	out, err2 := kubectl("describe", "node", node)
	log, err3 := kubectl("logs", "-n", serverNamespace, "deploy/"+serverName)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	events := out[max(0, strings.Index(out, "Events:")):]
	errs := []error{has(row, says...), has(events, append(says, "MetricsScrapeFailing")...)}
	named := func(line string) bool { return has(line, append(says, "Scraping a node", node)...) == nil }
	if !slices.ContainsFunc(strings.Split(log, "\n"), named) {
		errs = append(errs, fmt.Errorf("no line of the log says %q of %s", says, node))
	}
	return errors.Join(errs...)
}

// nodeRow returns a node's row in the table of nodes, which also has rows for nodes without usage.
func nodeRow(node string) (string, error) {
	table, err := kubectl("get", "nodes.metrics.k8s.io", "-o", "wide")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, node+" ") {
			return line, nil
		}
	}
	return "", fmt.Errorf("%s has no row in\n%s", node, table)
}

// scraped checks that a node has no error in the table of nodes.
func scraped(t *testing.T, node string) {
	t.Helper()
	eventually(t, node+" does not fail", func() error {
		row, err := nodeRow(node)
		if err == nil && !strings.HasSuffix(strings.TrimSpace(row), "<none>") {
			err = fmt.Errorf("its row is %q", row)
		}
		return err
	})
}

// noneFails checks that no node has an error in the table of nodes.
func noneFails(t *testing.T) {
	t.Helper()
	eventually(t, "no node fails", func() error {
		table, err := kubectl("get", "nodes.metrics.k8s.io", "-o", "wide", "--no-headers")
		if err != nil {
			return err
		}
		for line := range strings.Lines(table) {
			if !strings.HasSuffix(strings.TrimSpace(line), "<none>") {
				return errors.New(table)
			}
		}
		return nil
	})
}

// How long a usage is served after the last answer of its kubelet: rule 6 of docs/semantics.md.
const expiry = time.Minute

// TestNodes adds a node, makes its kubelet hang and end, ends the node, and deletes it.
func TestNodes(t *testing.T) {
	if !changesNodes(t) {
		t.Log("E2E_NODE=none: nothing is tested here")
		return
	}
	others, err := cluster.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	added := addsNode(t)
	amidFailingNodes.join(t)
	ns := namespace(t)
	name := addNode(t)
	added()
	deleted := false
	t.Cleanup(func() {
		if !deleted {
			changeNode(t, "delete", name)
		}
	})
	eventually(t, "the new node is served", func() error { _, err := nodeUsage(name); return err })
	pod := podOf("there", workload("c", "-cpu=30"))
	pod.Spec.NodeName = name
	pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	createPod(t, ns, pod)
	waitServed(t, ns, "there", "c")
	// The node and its pod are served, with plausible numbers.
	there := func() error {
		_, err := nodeUsage(name)
		m, err2 := podUsage(t, ns, "there")
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if used := m.Containers[0].Usage.Cpu().AsApproximateFloat64() * 1000; used > 30*1.05+4 {
			return fmt.Errorf("a container that uses 30m is served with %.1fm", used)
		}
		return nil
	}
	fresh := func() error {
		for _, n := range others.Items {
			m, err := nodeUsage(n.Name)
			if err != nil {
				return fmt.Errorf("another node: %w", err)
			}
			if age := time.Since(m.Timestamp.Time); age > 50*time.Second {
				return fmt.Errorf("another node, %s, is served with a sample that is %v old", n.Name, age)
			}
		}
		return nil
	}
	gone := func() error {
		_, err := nodeUsage(name)
		_, err2 := podUsage(t, ns, "there")
		for _, err := range []error{err, err2} {
			if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "was received") {
				return fmt.Errorf("the answer is %w", err)
			}
		}
		return nil
	}
	// silent checks that both are served for most of the time that they may be served, and then are
	// not.
	silent := func(t *testing.T) {
		t.Helper()
		always(t, "failed scrapes hide nothing", expiry*2/3, func() error { return errors.Join(there(), fresh()) })
		eventually(t, "what is too old is gone, and the answer says why", gone)
		if err := fresh(); err != nil {
			t.Error(err)
		}
	}

	t.Run("hangs", func(t *testing.T) {
		changeNode(t, "freeze", name)
		silent(t)
		changeNode(t, "thaw", name)
		eventually(t, "it is served again", there)
	})
	t.Run("kubelet-restarts", func(t *testing.T) {
		changeNode(t, "stop", name)
		always(t, "failed scrapes hide nothing", expiry/4, func() error { return errors.Join(there(), fresh()) })
		changeNode(t, "start", name)
		always(t, "nor does the restart of the kubelet", expiry/2, there)
		eventually(t, "there is a new sample", func() error {
			m, err := nodeUsage(name)
			if err == nil && time.Since(m.Timestamp.Time) > 30*time.Second {
				err = fmt.Errorf("it is %v old", time.Since(m.Timestamp.Time))
			}
			return err
		})
	})
	t.Run("kubelet-ends", func(t *testing.T) {
		changeNode(t, "stop", name)
		eventually(t, "it is said that the node cannot be scraped, and why", func() error {
			return errors.Join(
				scrapeFailureShown(name, "connection refused", "check that the kubelet runs"),
				doctor(t).finds("nodes", name),
			)
		})
		changeNode(t, "start", name)
		eventually(t, "it is served again", there)
		scraped(t, name)
	})
	t.Run("power-cut", func(t *testing.T) {
		// If the kubelet took long to start, the pod's last usage has expired, and it needs two more samples.
		eventually(t, "it is served again", there)
		changeNode(t, "kill", name)
		silent(t)
		changeNode(t, "start", name)
		eventually(t, "it is served again", there)
	})
	t.Run("deleted", func(t *testing.T) {
		changeNode(t, "delete", name)
		deleted = true
		err := realcluster.Poll(5*time.Second, func() error {
			list, err := cluster.metrics.MetricsV1().NodeMetricses().List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			for _, m := range list.Items {
				if m.Name == name {
					return errors.New("it is served")
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("a deleted node: %v", err)
		}
		if err := fresh(); err != nil {
			t.Error(err)
		}
	})
}

// changesNodes reports whether there is a command that changes nodes.
func changesNodes(t *testing.T) bool {
	t.Helper()
	if len(cluster.node) == 0 {
		t.Fatal("E2E_NODE is not set: give the command that changes nodes, or say E2E_NODE=none if there is none")
	}
	return cluster.node[0] != "none"
}

// addNode adds a node, which gets only pods that are placed there on purpose, and returns its name.
func addNode(t *testing.T) string {
	t.Helper()
	name := strings.TrimSpace(changeNode(t, "add"))
	name = name[strings.LastIndexByte(name, '\n')+1:]
	mustKubectl(t, "cordon", name)
	return name
}

// changeNode runs the command of E2E_NODE and returns what it printed.
func changeNode(t *testing.T, args ...string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 2*patience)
	defer stop()
	cmd := exec.CommandContext(
		ctx, cluster.node[0],
		append(cluster.node[1:len(cluster.node):len(cluster.node)], args...)...)
	var progress strings.Builder
	cmd.Stderr = &progress
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s%s", cmd.Args, err, out, progress.String())
	}
	return string(out)
}

func nodeUsage(name string) (*metricsv1.NodeMetrics, error) {
	return cluster.metrics.MetricsV1().NodeMetricses().Get(context.Background(), name, metav1.GetOptions{})
}
