//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestRollout replaces servers while clients send ten requests a second and must notice nothing.
func TestRollout(t *testing.T) {
	ns := namespace(t)
	for _, name := range []string{"one", "two", "three"} {
		createPod(t, ns, podOf(name, workload("c")))
	}
	for _, name := range []string{"one", "two", "three"} {
		waitServed(t, ns, name, "c")
	}

	t.Run("one-replica", func(t *testing.T) {
		stop := ask(t, ns, 3)
		deleted := namespace(t)
		before := serverPods(t)
		mustKubectl(t, "rollout", "restart", "-n", serverNamespace, "deployment/"+serverName)
		if err := cluster.client.CoreV1().Namespaces().Delete(t.Context(), deleted, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a namespace that is deleted meanwhile is gone", func() error {
			_, err := cluster.client.CoreV1().Namespaces().Get(t.Context(), deleted, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is there (%w)", err)
		})
		eventually(t, "the new server has taken over", func() error { return replaced(t, before, 1) })
		stop()
	})

	t.Run("two-replicas", func(t *testing.T) {
		scaleServer(t, 2)
		t.Cleanup(func() { scaleServer(t, 1) })
		for _, grace := range []string{"default", "0"} {
			stop := ask(t, ns, 3)
			before := serverPods(t)
			args := []string{"delete", "pod", "-n", serverNamespace, before[0], "--wait=false"}
			if grace != "default" {
				args = append(args, "--grace-period="+grace, "--force")
			}
			mustKubectl(t, args...)
			eventually(
				t, "the killed server is replaced, grace period "+grace, func() error { return replaced(t, before[:1], 2) },
			)
			stop()
		}
	})
	t.Run("drained-node", func(t *testing.T) {
		scaleServer(t, 2)
		t.Cleanup(func() { scaleServer(t, 1) })
		budget := &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: ns},
			Spec: policyv1.PodDisruptionBudgetSpec{
				MinAvailable: new(intstr.FromInt32(1)),
				Selector:     &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": serverName}},
			},
		}
		budgets := cluster.client.PolicyV1().PodDisruptionBudgets(serverNamespace)
		if _, err := budgets.Create(t.Context(), budget, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := budgets.Delete(context.Background(), ns, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
		before := serverPods(t)
		node := getPod(t, serverNamespace, before[0]).Spec.NodeName
		stop := ask(t, ns, 3)
		t.Cleanup(func() { mustKubectl(t, "uncordon", node) })
		mustKubectl(t, "drain", node, "--pod-selector="+serverLabel, "--delete-emptydir-data", "--timeout=90s")
		mustKubectl(t, "uncordon", node) // it may be the only node
		eventually(t, "the drained server is replaced", func() error { return replaced(t, before[:1], 2) })
		stop()
	})
}

// listServerPods returns the server's pods. The chart labels them differently than the manifests.
func listServerPods() ([]corev1.Pod, error) {
	pods, err := cluster.client.CoreV1().Pods(serverNamespace).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		return p.Labels["k8s-app"] != serverName && p.Labels["app.kubernetes.io/name"] != serverName
	}), nil
}

// serverPods are the names of the server's pods.
func serverPods(t *testing.T) []string {
	t.Helper()
	pods, err := listServerPods()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	return names
}

// replaced returns which of the server's pods still exists or is ending, or that n others are not
// ready yet.
func replaced(t *testing.T, before []string, n int) error {
	ready := 0
	pods, err := listServerPods()
	if err != nil {
		return err
	}
	for _, p := range pods {
		for _, old := range before {
			if p.Name == old {
				return fmt.Errorf("%s is there", old)
			}
		}
		if p.DeletionTimestamp != nil {
			return fmt.Errorf("%s has not ended yet", p.Name)
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	if ready != n {
		return fmt.Errorf("%d of %d are ready", ready, n)
	}
	return nil
}

// ask requests the nodes and the pods of a namespace ten times a second until stop, which fails t
// if one answer was not complete.
func ask(t *testing.T, namespace string, pods int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var (
		mu       sync.Mutex
		failures []string
		asked    int
		slowest  time.Duration
	)
	one := func(begun time.Time) {
		limited, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		nodes, err := cluster.metrics.MetricsV1().NodeMetricses().List(limited, metav1.ListOptions{})
		if err == nil && len(nodes.Items) == 0 {
			err = errors.New("no node")
		}
		list, err2 := cluster.metrics.MetricsV1beta1().PodMetricses(namespace).List(limited, metav1.ListOptions{})
		if err2 == nil && len(list.Items) != pods {
			err2 = fmt.Errorf("%d of %d pods", len(list.Items), pods)
		}
		mu.Lock()
		defer mu.Unlock()
		asked++
		slowest = max(slowest, time.Since(begun))
		if err := errors.Join(err, err2); err != nil {
			failures = append(failures, fmt.Sprintf("%s: %v", begun.Format("05.000"), err))
		}
	}
	var asking sync.WaitGroup
	asking.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				asking.Go(func() { one(now) })
			case <-ctx.Done():
				return
			}
		}
	})
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			asking.Wait()
			t.Logf("%d times asked, the slowest answers took %v", asked, slowest)
			if len(failures) > 0 {
				t.Errorf(
					"%d of %d answers were not as they should be, the first: %q", len(failures), asked,
					failures[:min(5, len(failures))],
				)
			}
			if asked < 20 {
				t.Errorf("asked %d times: that proves nothing", asked)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}
