//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
)

// told wants users to see that a node cannot be scraped, in the table of nodes, on the Node, and by the doctor.
func told(t *testing.T, node string) error {
	t.Helper()
	table := mustKubectl(t, "get", "nodes.metrics.k8s.io", node, "-o", "wide")
	if !strings.Contains(table, "connection refused") || !strings.Contains(table, "ERROR") {
		return errors.New(table)
	}
	out := mustKubectl(t, "describe", "node", node)
	if events := out[max(0, strings.Index(out, "Events:")):]; !strings.Contains(events, "MetricsScrapeFailing") || !strings.Contains(events, "connection refused") {
		return errors.New(events)
	}
	return doctor(t).finds("nodes", node)
}

// How long a usage is served after the last answer of its kubelet: rule 6 of docs/semantics.md.
const expiry = time.Minute

// TestNodes adds a node, has its kubelet hang and end, ends the node, and deletes it.
func TestNodes(t *testing.T) {
	switch {
	case len(cluster.node) == 0:
		t.Fatal("E2E_NODE is not set: give the command that changes nodes, or say E2E_NODE=none if there is none")
	case cluster.node[0] == "none":
		t.Log("E2E_NODE=none: nothing is tested here")
		return
	}
	ns := namespace(t)
	others, err := cluster.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSpace(changeNode(t, "add"))
	name = name[strings.LastIndexByte(name, '\n')+1:]
	deleted := false
	t.Cleanup(func() {
		if !deleted {
			changeNode(t, "delete", name)
		}
	})
	mustKubectl(t, "cordon", name) // only for what is put there on purpose
	eventually(t, "the new node is served", func() error { _, err := nodeUsage(name); return err })
	pod := podOf("there", workload("c", "-cpu=30"))
	pod.Spec.NodeName = name
	pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	createPod(t, ns, pod)
	waitServed(t, ns, "there", "c")
	// Both of the node, with numbers that can be.
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
	// silent wants both to be served for most of the time that they may be, and then not to be.
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
	t.Run("kubelet-ends", func(t *testing.T) {
		changeNode(t, "stop", name)
		always(t, "failed scrapes hide nothing", expiry/2, func() error { return errors.Join(there(), fresh()) })
		eventually(t, "it is said that the node cannot be scraped, and why", func() error { return told(t, name) })
		changeNode(t, "start", name)
		eventually(t, "it is said that it can again", func() error {
			out := mustKubectl(t, "describe", "node", name)
			if !strings.Contains(out, "MetricsScrapeRecovered") {
				return errors.New(out[max(0, strings.Index(out, "Events:")):])
			}
			return nil
		})
		always(t, "nor does the restart of the kubelet", expiry/2, there)
		eventually(t, "there is a new sample", func() error {
			m, err := nodeUsage(name)
			if err == nil && time.Since(m.Timestamp.Time) > 30*time.Second {
				err = fmt.Errorf("it is %v old", time.Since(m.Timestamp.Time))
			}
			return err
		})
	})
	t.Run("power-cut", func(t *testing.T) {
		changeNode(t, "kill", name)
		silent(t)
		changeNode(t, "start", name)
		eventually(t, "it is served again", there)
	})
	t.Run("deleted", func(t *testing.T) {
		changeNode(t, "delete", name)
		deleted = true
		err := poll(5*time.Second, func() error {
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

// changeNode runs the command of E2E_NODE and returns what it printed.
func changeNode(t *testing.T, args ...string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 2*patience)
	defer stop()
	cmd := exec.CommandContext(ctx, cluster.node[0], append(cluster.node[1:len(cluster.node):len(cluster.node)], args...)...)
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
