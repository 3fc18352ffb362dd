//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"

	"metrics-server/test/realcluster"
)

// TestAutoscaling checks that the cluster's own controller scales by the usage that the server
// serves.
func TestAutoscaling(t *testing.T) {
	t.Run("v1", autoscaleV1)
	t.Run("utilization", autoscaleUtilization)
	t.Run("average-value", autoscaleAverageValue)
	t.Run("container", autoscaleContainer)
	t.Run("memory", autoscaleMemory)
	t.Run("largest", autoscaleLargest)
	t.Run("tolerance", autoscaleTolerance)
	t.Run("unready", autoscaleUnready)
	t.Run("missing", autoscaleMissing)
	t.Run("deleted", autoscaleDeleted)
	t.Run("no-request", autoscaleNoRequest)
	t.Run("none-ready", autoscaleNoneReady)
}

// The classic: php-apache with 200m requested and 50 % as the target, by autoscaling/v1.
func autoscaleV1(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createWeb(t, ns, "200m")
	target := int32(50)
	_, err := cluster.client.AutoscalingV1().HorizontalPodAutoscalers(ns).Create(
		t.Context(),
		&autoscalingv1.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: "web"},
			Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
				MinReplicas:    new(int32(1)), MaxReplicas: 10, TargetCPUUtilizationPercentage: &target,
			},
		},
		metav1.CreateOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	upAndDown(t, ns, 340, 3, 5) // 340m and what serving costs, at 100m a pod
}

func autoscaleUtilization(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createWeb(t, ns, "40m")
	createHPA(t, ns, "web", 10, cpuUtilization(50))
	upAndDown(t, ns, 60, 3, 5) // at 20m a pod
}

func autoscaleAverageValue(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createWeb(t, ns, "10m")
	createHPA(t, ns, "web", 10, average(corev1.ResourceCPU, "20m"))
	upAndDown(t, ns, 60, 3, 5)
}

// The other container uses more than all the load, and must not count.
func autoscaleContainer(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	noise := workload("noise", "-cpu=40")
	noise.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")}
	createWeb(t, ns, "40m", noise)
	createHPA(t, ns, "web", 10, autoscalingv2.MetricSpec{
		Type: autoscalingv2.ContainerResourceMetricSourceType,
		ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
			Name: corev1.ResourceCPU, Container: "web",
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(50))},
		},
	})
	upAndDown(t, ns, 60, 3, 5)
}

// Memory does not get less with more pods: up to the limit, and down when it is given back, after the time that
// the scale-down window says.
func autoscaleMemory(t *testing.T) {
	t.Parallel()
	const window = 30 * time.Second
	ns := namespace(t)
	createWeb(t, ns, "10m")
	hold(t, ns, 40)
	createHPA(t, ns, "web", 3, average(corev1.ResourceMemory, "25Mi"))
	patchHPA(
		t, ns, "web",
		fmt.Sprintf(`{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":%d}}}}`, int(window.Seconds())),
	)
	waitReplicas(t, ns, "web", 2, 2) // 40 of 25 MiB
	hold(t, ns, 40)
	waitReplicas(t, ns, "web", 3, 3)
	hold(t, ns, 2)
	eventually(t, "all pods are served with little memory", func() error {
		list, err := cluster.metrics.MetricsV1().PodMetricses(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, m := range list.Items {
			if used := m.Containers[0].Usage.Memory(); used.Value() > 20<<20 {
				return fmt.Errorf("%s has %s", m.Name, used)
			}
		}
		return nil
	})
	low := time.Now()
	waitReplicas(t, ns, "web", 1, 1)
	// Before, the average may have been below the target already, with one pod of three not seen yet.
	if waited := time.Since(low); waited < window/2 {
		t.Errorf("scaled down %v after the memory was low: the window is %v", waited, window)
	}
}

// Of several metrics, the one that asks for the most pods wins, in both directions.
func autoscaleLargest(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createWeb(t, ns, "10m", workload("steady", "-cpu=30"))
	hold(t, ns, 40)
	createHPA(t, ns, "web", 3,
		average(corev1.ResourceCPU, "32m"), // is about right already, regardless of the number of pods
		average(corev1.ResourceMemory, "15Mi"))
	waitReplicas(t, ns, "web", 3, 3)
	hold(t, ns, 2) // now memory alone would leave one pod
	eventually(t, "memory is far below its target", func() error {
		if v := seesAverage(getHPA(t, ns, "web"), corev1.ResourceMemory); v == 0 || v > 8<<20 {
			return fmt.Errorf("it is %.0f", v)
		}
		return nil
	})
	always(t, "CPU keeps the pods", 30*time.Second, replicasAre(t, ns, "web", 3, 3))
}

// Within 10 % of the target nothing changes; beyond it something does. This is tested with memory,
// which is constant even on a busy machine.
func autoscaleTolerance(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createDeployment(t, ns, "steady", workload("steady", "-memory=50"))
	scale(t, ns, "steady", 2)
	waitReplicas(t, ns, "steady", 2, 2)
	createHPA(t, ns, "steady", 3, average(corev1.ResourceMemory, "48Mi"))
	seen := func() float64 { return seesAverage(getHPA(t, ns, "steady"), corev1.ResourceMemory) }
	eventually(t, "the autoscaler sees some 50 MiB a pod", func() error {
		if v := seen() / (1 << 20); v < 44 || v > 52 {
			return fmt.Errorf("it sees %.1f MiB", v)
		}
		return nil
	})
	setTarget := func(bytes float64) {
		patchHPA(
			t, ns, "steady",
			fmt.Sprintf(
				`{"spec":{"metrics":[{"type":"Resource","resource":`+
					`{"name":"memory","target":{"type":"AverageValue","averageValue":"%.0f"}}}]}}`,
				bytes,
			),
		)
	}
	used := seen()
	for _, ratio := range []float64{1.06, 0.94} {
		setTarget(used / ratio)
		always(t, fmt.Sprintf("nothing moves at %v of the target", ratio), 20*time.Second, func() error {
			if v := seen(); v < used*0.965 || v > used*1.035 {
				return fmt.Errorf("it sees %.0f, which was %.0f", v, used)
			}
			return replicasAre(t, ns, "steady", 2, 2)()
		})
	}
	setTarget(used / 1.2)
	waitReplicas(t, ns, "steady", 3, 3)
}

// The CPU of a pod that is still starting does not count, no matter how much it is.
func autoscaleUnready(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	c := workload("web", "-listen=:8080", "-cpu=50", "-unready")
	c.ReadinessProbe = httpProbe()
	createDeployment(t, ns, "web", c)
	createHPA(t, ns, "web", 2, average(corev1.ResourceCPU, "30m"))
	var pod string
	eventually(t, "the pod that is not ready is served", func() error {
		list, err := cluster.metrics.MetricsV1().PodMetricses(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(list.Items) == 0 || list.Items[0].Containers[0].Usage.Cpu().MilliValue() < 45 {
			return fmt.Errorf("served is %v", list.Items)
		}
		pod = list.Items[0].Name
		return nil
	})
	always(t, "it does not count", 20*time.Second, func() error {
		d, err := cluster.client.AppsV1().Deployments(ns).Get(t.Context(), "web", metav1.GetOptions{})
		if err == nil && *d.Spec.Replicas != 1 {
			err = fmt.Errorf("%d replicas are wanted", *d.Spec.Replicas)
		}
		return err
	})
	if _, err := podHTTP(t.Context(), ns, pod, "/ready", map[string]string{"is": "true"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "once it is ready, it counts", func() error {
		d, err := cluster.client.AppsV1().Deployments(ns).Get(t.Context(), "web", metav1.GetOptions{})
		if err == nil && *d.Spec.Replicas != 2 {
			err = fmt.Errorf("%d replicas are wanted", *d.Spec.Replicas)
		}
		return err
	})
}

// A pod without metrics dampens scaling: for scaling up it counts as using nothing, for scaling
// down as being exactly at the target.
func autoscaleMissing(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createDeployment(t, ns, "steady", workload("steady", "-memory=50"))
	scale(t, ns, "steady", 2)
	waitReplicas(t, ns, "steady", 2, 2)
	// It has the labels, and its status says that it runs. No kubelet knows it.
	missing := podOf("steady", workload("steady"))
	missing.Spec.SchedulerName = "nobody"
	createPod(t, ns, missing)
	missing = getPod(t, ns, missing.Name)
	missing.Status.Phase = corev1.PodRunning
	if _, err := cluster.client.CoreV1().Pods(ns).UpdateStatus(t.Context(), missing, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	createHPA(t, ns, "steady", 4, average(corev1.ResourceMemory, "40Mi"))
	target := func(mib int) {
		patchHPA(
			t, ns, "steady",
			fmt.Sprintf(
				`{"spec":{"metrics":[{"type":"Resource","resource":`+
					`{"name":"memory","target":{"type":"AverageValue","averageValue":"%dMi"}}}]}}`,
				mib,
			),
		)
	}
	eventually(t, "the autoscaler sees the two that are served", func() error {
		if v := seesAverage(getHPA(t, ns, "steady"), corev1.ResourceMemory) / (1 << 20); v < 45 || v > 55 {
			return fmt.Errorf("it sees %.1f MiB", v)
		}
		return nil
	})
	always(t, "50 MiB of 40, but one pod is unknown", 20*time.Second, replicasAre(t, ns, "steady", 2, 2))
	target(100)
	const longer = 35 * time.Second // than the scale-down window
	always(t, "50 MiB of 100, but one pod is unknown", longer, replicasAre(t, ns, "steady", 2, 2))
	if err := cluster.client.CoreV1().Pods(ns).Delete(t.Context(), missing.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitReplicas(t, ns, "steady", 1, 1)
	target(40)
	waitReplicas(t, ns, "steady", 2, 2)
}

// A pod that was deleted and still runs is served, but does not count.
func autoscaleDeleted(t *testing.T) {
	t.Parallel()
	const linger = 50 * time.Second
	ns := namespace(t)
	createDeployment(t, ns, "steady", workload("steady", "-memory=30"))
	waitReplicas(t, ns, "steady", 1, 1)
	leaving := podOf("leaving", workload("c", "-memory=200", "-linger="+linger.String()))
	leaving.Labels["app"] = "steady"
	leaving.Spec.TerminationGracePeriodSeconds = new(int64(2 * linger.Seconds()))
	createPod(t, ns, leaving)
	waitServed(t, ns, leaving.Name, "c")
	begun := time.Now()
	if err := cluster.client.CoreV1().Pods(ns).Delete(t.Context(), leaving.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	createHPA(t, ns, "steady", 3, average(corev1.ResourceMemory, "40Mi"))
	eventually(t, "the autoscaler sees the pod that stays", func() error {
		if v := seesAverage(getHPA(t, ns, "steady"), corev1.ResourceMemory) / (1 << 20); v < 25 || v > 40 {
			return fmt.Errorf("it sees %.1f MiB", v)
		}
		return nil
	})
	always(t, "the pod that goes does not count", linger-time.Since(begun)-5*time.Second, func() error {
		if err := servedWith(t, ns, leaving.Name, "c"); err != nil {
			return fmt.Errorf("the pod that goes still runs, but: %w", err)
		}
		return replicasAre(t, ns, "steady", 1, 1)()
	})
}

// Without a request there is no percentage to scale by. The autoscaler says so, and the doctor says
// that the server is not at fault.
func autoscaleNoRequest(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createDeployment(t, ns, "web", workload("web"))
	createHPA(t, ns, "web", 2, cpuUtilization(50))
	const says = "missing request for cpu in container "
	eventually(t, "the autoscaler says that there is no request", func() error {
		err := hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue)
		if err == nil {
			return errors.New("it scales")
		}
		return has(err.Error(), "FailedGetResourceMetric", says+"web of Pod web-")
	})
	documented(t, says)
	// A finding names only three autoscalers, and other tests may briefly have autoscalers with the same problem.
	eventually(t, "the doctor warns of it", func() error {
		return doctor(t).warns(
			"autoscalers", ns+"/web", "a container has no request", "metrics-server is not at fault", "set requests",
		)
	})
}

// Pods that are not ready do not count either, although the server has their usage.
func autoscaleNoneReady(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	never := workload("web")
	never.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")}
	never.ReadinessProbe = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(9)}},
	}
	createDeployment(t, ns, "web", never)
	createHPA(t, ns, "web", 2, cpuUtilization(50))
	const says = "did not receive metrics for targeted pods (pods might be unready)"
	eventually(t, "the autoscaler says that the pods might be unready", func() error {
		err := hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue)
		if err == nil {
			return errors.New("it scales")
		}
		return has(err.Error(), "FailedGetResourceMetric", says)
	})
	documented(t, says)
	eventually(t, "the doctor warns of it", func() error {
		return doctor(t).warns("autoscalers", ns+"/web", "its pods have no metrics", "none of its pods is ready")
	})
}

// createWeb creates a Deployment and a Service of a web server, to which load sends requests.
func createWeb(t *testing.T, namespace, cpu string, others ...corev1.Container) {
	t.Helper()
	web := workload("web", "-listen=:8080")
	web.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	web.ReadinessProbe = httpProbe()
	web.ReadinessProbe.PeriodSeconds = 5
	createDeployment(t, namespace, "web", append([]corev1.Container{web}, others...)...)
	_, err := cluster.client.CoreV1().Services(namespace).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 8080}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitReplicas(t, namespace, "web", 1, 1)
}

// upAndDown loads the web server with so many millicores until there are least to most pods for a
// while, and then waits for one. The controller may create more pods at first, because its data is
// half a minute old.
func upAndDown(t *testing.T, namespace string, millicores, least, most int) {
	t.Helper()
	waitActive(t, namespace)
	stop := load(t, namespace, millicores)
	settled, since := replicasAre(t, namespace, "web", least, most), time.Now()
	err := realcluster.Poll(2*patience, func() error {
		if err := settled(); err != nil {
			since = time.Now()
			return err
		}
		if d := time.Since(since); d < 20*time.Second {
			return fmt.Errorf("so for %v", d)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%d to %d pods for 20 s: %v", least, most, err)
	}
	h := getHPA(t, namespace, "web")
	t.Logf("%s: %d replicas, wants %d", hpaSays(h), h.Status.CurrentReplicas, h.Status.DesiredReplicas)
	if ok, failed := stop(); ok == 0 || failed > ok/10 {
		t.Errorf("%d requests answered, %d not: that is no load", ok, failed)
	}
	waitReplicas(t, namespace, "web", 1, 1)
}

func waitActive(t *testing.T, namespace string) {
	t.Helper()
	eventually(
		t, "the autoscaler has metrics",
		func() error { return hpaCondition(getHPA(t, namespace, "web"), corev1.ConditionTrue) },
	)
}

// hpaCondition returns why the condition ScalingActive is not as wanted.
func hpaCondition(h *autoscalingv2.HorizontalPodAutoscaler, want corev1.ConditionStatus) error {
	for _, c := range h.Status.Conditions {
		if c.Type == autoscalingv2.ScalingActive {
			if c.Status == want {
				return nil
			}
			return fmt.Errorf("ScalingActive is %s: %s: %s", c.Status, c.Reason, c.Message)
		}
	}
	return errors.New("no condition ScalingActive")
}

func hpaSays(h *autoscalingv2.HorizontalPodAutoscaler) string {
	var s string
	for _, m := range h.Status.CurrentMetrics {
		var current autoscalingv2.MetricValueStatus
		switch {
		case m.Resource != nil:
			current = m.Resource.Current
			s += string(m.Resource.Name)
		case m.ContainerResource != nil:
			current = m.ContainerResource.Current
			s += m.ContainerResource.Container
		}
		s += " " + current.AverageValue.String()
		if current.AverageUtilization != nil {
			s += fmt.Sprintf(" = %d %%", *current.AverageUtilization)
		}
	}
	return s
}

func cpuUtilization(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
		},
	}
}

func average(name corev1.ResourceName, value string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name: name,
			Target: autoscalingv2.MetricTarget{
				Type:         autoscalingv2.AverageValueMetricType,
				AverageValue: new(resource.MustParse(value)),
			},
		},
	}
}

func createHPA(t *testing.T, namespace, deployment string, most int32, metrics ...autoscalingv2.MetricSpec) {
	t.Helper()
	_, err := cluster.client.AutoscalingV2().HorizontalPodAutoscalers(namespace).Create(
		t.Context(),
		&autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: deployment},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{
					APIVersion: "apps/v1",
					Kind:       "Deployment",
					Name:       deployment,
				},
				MaxReplicas: most, Metrics: metrics,
			},
		},
		metav1.CreateOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
}

func getHPA(t *testing.T, namespace, name string) *autoscalingv2.HorizontalPodAutoscaler {
	t.Helper()
	h, err := cluster.client.AutoscalingV2().HorizontalPodAutoscalers(namespace).Get(
		t.Context(), name, metav1.GetOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func patchHPA(t *testing.T, namespace, name, patch string) {
	t.Helper()
	_, err := cluster.client.AutoscalingV2().HorizontalPodAutoscalers(namespace).Patch(
		t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
}

func scale(t *testing.T, namespace, deployment string, n int) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)
	_, err := cluster.client.AppsV1().Deployments(namespace).Patch(
		t.Context(), deployment, types.MergePatchType, patch, metav1.PatchOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
}

// seesAverage returns the autoscaler's average of a resource, 0 if it sees none.
func seesAverage(h *autoscalingv2.HorizontalPodAutoscaler, name corev1.ResourceName) float64 {
	for _, m := range h.Status.CurrentMetrics {
		if m.Resource != nil && m.Resource.Name == name {
			return m.Resource.Current.AverageValue.AsApproximateFloat64()
		}
	}
	return 0
}

// replicasAre returns a function that says why a Deployment does not have, or want, least to most
// replicas.
func replicasAre(t *testing.T, namespace, name string, least, most int) func() error {
	return func() error {
		d, err := cluster.client.AppsV1().Deployments(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if want := int(*d.Spec.Replicas); want < least || want > most {
			return fmt.Errorf("%d replicas are wanted, not %d to %d", want, least, most)
		}
		return realcluster.RolledOut(d)
	}
}

func waitReplicas(t *testing.T, namespace, name string, least, most int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s has %d to %d replicas", name, least, most), replicasAre(t, namespace, name, least, most))
}

// hold makes every pod of the web server use so many MiB.
func hold(t *testing.T, namespace string, mib int) {
	t.Helper()
	pods, err := cluster.client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		if _, err := podHTTP(
			t.Context(), namespace, p.Name, "/hold", map[string]string{"mib": strconv.Itoa(mib)},
		); err != nil {
			t.Fatal(err)
		}
	}
}

// load makes the web server's pods use so many millicores in total, until stop, which returns how
// many requests were answered and how many were not.
func load(t *testing.T, namespace string, millicores int) (stop func() (ok, failed int64)) {
	t.Helper()
	config := rest.CopyConfig(cluster.config)
	config.Timeout = 10 * time.Second
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	const each = 20 // millicores of CPU time a second: at 20 ms each, one request a second
	ms := 20
	perSecond := millicores / each
	if perSecond < 10 {
		ms, perSecond = millicores/10, 10
	}
	url := fmt.Sprintf("%s/api/v1/namespaces/%s/services/web:8080/proxy/work?ms=%d", config.Host, namespace, ms)

	ctx, cancel := context.WithCancel(context.Background())
	var ok, failed atomic.Int64
	var asking sync.WaitGroup
	ask := func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			failed.Add(1)
			return
		}
		resp, err := client.Do(req)
		if err != nil {
			failed.Add(1)
			return
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			ok.Add(1)
		} else {
			failed.Add(1)
		}
	}
	asking.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				asking.Go(ask)
			case <-ctx.Done():
				return
			}
		}
	})
	var once sync.Once
	stop = func() (int64, int64) {
		answered, lost := ok.Load(), failed.Load()
		once.Do(cancel)
		asking.Wait()
		return answered, lost
	}
	t.Cleanup(func() { stop() })
	return stop
}
