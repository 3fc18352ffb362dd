//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestLifecycle follows pods whose containers come and go.
func TestLifecycle(t *testing.T) {
	allNodesWell.join(t)
	ns := namespace(t)

	initialised := podOf("initialised", workload("main", "-cpu=20"))
	initialised.Spec.InitContainers = []corev1.Container{workload("init", "-cpu=100", "-memory=50", "-exit-after=15s")}
	createPod(t, ns, initialised)

	always := corev1.ContainerRestartPolicyAlways
	sidecar := workload("sidecar", "-cpu=30")
	sidecar.RestartPolicy = &always
	withSidecar := podOf("with-sidecar", workload("main", "-cpu=20"))
	withSidecar.Spec.InitContainers = []corev1.Container{sidecar}
	createPod(t, ns, withSidecar)

	createPod(
		t, ns,
		podOf("restarting", workload("restarting", "-cpu=50", "-exit-after=40s"), workload("steady", "-cpu=30")),
	)
	createPod(
		t, ns,
		podOf(
			"crash-looping", workload("crash", "-cpu=100", "-exit-after=1s", "-exit-code=1"),
			workload("steady", "-cpu=30"),
		),
	)

	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "job"}}
	job.Spec.Template.Labels = map[string]string{"app": "job"}
	job.Spec.Template.Spec = podOf("job", workload("job", "-cpu=30", "-exit-after=40s")).Spec
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	if _, err := cluster.client.BatchV1().Jobs(ns).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	t.Run("init", func(t *testing.T) {
		t.Parallel()
		waitServed(t, ns, "initialised", "main")
		follow(t, ns, "initialised", 30*time.Second, map[string]float64{"main": 20})
	})
	t.Run("sidecar", func(t *testing.T) {
		t.Parallel()
		waitServed(t, ns, "with-sidecar", "main", "sidecar")
		follow(t, ns, "with-sidecar", 30*time.Second, map[string]float64{"main": 20, "sidecar": 30})
	})
	t.Run("restarting", func(t *testing.T) {
		t.Parallel()
		waitServed(t, ns, "restarting", "restarting", "steady")
		seen := follow(t, ns, "restarting", 100*time.Second, map[string]float64{"restarting": 50, "steady": 30})
		p := getPod(t, ns, "restarting")
		if p.Status.ContainerStatuses[0].RestartCount < 1 {
			t.Error("nothing restarted: the test proves nothing")
		}
		t.Logf("%d restarts, served with %v", p.Status.ContainerStatuses[0].RestartCount, seen)
	})
	t.Run("crash-looping", func(t *testing.T) {
		t.Parallel()
		seen := follow(t, ns, "crash-looping", 120*time.Second, map[string]float64{"crash": 100, "steady": 30})
		t.Logf("served with %v", seen)
		if with := seen["steady"] + seen["crash steady"]; with < seen[""] {
			t.Errorf("the steady container is not served most of the time: %v", seen)
		}
	})
	t.Run("job", func(t *testing.T) {
		t.Parallel()
		var pod string
		eventually(t, "the job's pod is served", func() error {
			list, err := cluster.metrics.MetricsV1().PodMetricses(ns).List(
				t.Context(), metav1.ListOptions{LabelSelector: "app=job"},
			)
			if err != nil {
				return err
			}
			if len(list.Items) != 1 {
				return fmt.Errorf("%d pods", len(list.Items))
			}
			pod = list.Items[0].Name
			return nil
		})
		eventually(t, "it has finished and is not served", func() error {
			if phase := getPod(t, ns, pod).Status.Phase; phase != corev1.PodSucceeded {
				return fmt.Errorf("it is %s", phase)
			}
			if _, err := podUsage(t, ns, pod); !apierrors.IsNotFound(err) {
				return fmt.Errorf("asked for its usage: %w", err)
			}
			return nil
		})
	})
}

// follow watches what is served for a pod whose containers use at most so many millicores. It
// returns how often the pod was served with which containers; "" is not at all.
func follow(t *testing.T, namespace, name string, period time.Duration, millicores map[string]float64) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(time.Second) {
		m, err := podUsage(t, namespace, name)
		if apierrors.IsNotFound(err) {
			seen[""]++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range m.Containers {
			names = append(names, c.Name)
			used := c.Usage.Cpu().AsApproximateFloat64() * 1000
			most, known := millicores[c.Name]
			// A process needs some 20 ms to start, which counts in the first window.
			if !known || used > most*1.05+4 {
				t.Errorf(
					"%s of %s is served with %.3fm in %v at %v: more than %vm", c.Name, name, used, m.Window.Duration,
					m.Timestamp, most,
				)
			}
		}
		seen[strings.Join(names, " ")]++
	}
	return seen
}
