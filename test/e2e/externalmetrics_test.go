//go:build e2e

package e2e

import (
	"errors"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"metrics-server/test/realcluster"
)

// zeroCase is a metric by which a worker is scaled from zero and back to it: the length of a queue, which the pods of
// another Deployment have.
type zeroCase struct {
	name        string
	metric      autoscalingv2.MetricSpec
	annotations map[string]string // of the HPA
	replicas    int               // for a queue of 25
}

func zeroCases() []zeroCase {
	object := func(kind, version string) autoscalingv2.MetricSpec {
		m := objectMetric(version, kind, "queue_length", averageValue("10"))
		m.Object.DescribedObject.Name = "queue"
		return m
	}
	of := func(metric string) map[string]string {
		return map[string]string{targetsAnnotation: metric + ": service/queue:8080\n"}
	}
	expression := of("waitingOrders")
	expression[queriesAnnotation] = "waitingOrders: max(queue_length) / 5\n"
	return []zeroCase{
		{"external", externalMetric("queue_length", averageValue("10")), of("queue_length"), 3},
		{"external-value", externalMetric("queue_length", value("20")), of("queue_length"), 2},
		// Clients ask for it in lower case.
		{"external-expression", externalMetric("waitingOrders", averageValue("2")), expression, 3},
		{"object", object("Service", "v1"), nil, 3},
		{"object-target", object("ConfigMap", "v1"), of("queue_length"), 3},
	}
}

// test fills the queue and empties it, twice: the controller scales the worker from zero and back to it.
func (c *zeroCase) test(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	queue := workload("queue", "-listen=:8080")
	queue.ReadinessProbe = httpProbe()
	queue.Ports = []corev1.ContainerPort{{Name: "metrics", ContainerPort: 8080}}
	createDeployment(t, ns, "queue", queue)
	createService(t, ns, "queue")
	createDeployment(t, ns, "web", workload("web"))
	waitReplicas(t, ns, "queue", 1, 1)
	h := customHPA("web", c.annotations, c.metric)
	h.Spec.MinReplicas = new(int32(0))
	createCustom(t, ns, h)
	for range 2 {
		waitReplicas(t, ns, "web", 0, 0)
		tellApp(t, ns, "queue", 1, set("queue_length", "25"))
		begun := time.Now()
		if err := realcluster.Poll(customLimit, wanted(t, ns, 1)); err != nil {
			t.Fatalf("the worker is scaled from zero: %v\n%v", err, getHPA(t, ns, "web").Status.Conditions)
		}
		t.Logf("%5.1f s until the worker is scaled from zero", time.Since(begun).Seconds())
		if c.metric.External != nil && c.metric.External.Target.Value != nil {
			// A Value does not get smaller with more pods, so this goes on from the first replicas.
			waitReplicas(t, ns, "web", c.replicas, 4)
		} else {
			waitReplicas(t, ns, "web", c.replicas, c.replicas)
		}
		waitActive(t, ns)
		tellApp(t, ns, "queue", 1, set("queue_length", "0"))
	}
	waitReplicas(t, ns, "web", 0, 0)
	if d := doctorHPA(t, ns, "web"); d.code != 0 {
		t.Errorf("the doctor finds a problem with a worker at zero: %+v", d)
	}

	// An exporter that goes away is no reason to scale: nobody knows how long the queue is.
	mustKubectl(t, "scale", "-n", ns, "deployment/queue", "--replicas=0")
	eventually(t, "the autoscaler says that the metric has no pods", func() error {
		if err := hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue); err != nil {
			return has(err.Error(), "no pods for", "metric")
		}
		return errors.New("it has a value")
	})
	always(t, "the worker stays at zero", 10*time.Second, replicasAre(t, ns, "web", 0, 0))
}
