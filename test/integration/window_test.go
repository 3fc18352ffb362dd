//go:build integration

package integration

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubelet/kubelettest"
)

// flapping is the namespace of the two pods that TestWindowSteadiesAnAutoscaler scales by.
const flapping = "flapping"

// TestWindowSteadiesAnAutoscaler lets the real HPA controller scale by a load that is on for 3 s and off for 3 s, at a
// resolution of a second. With the default window it follows every peak; with a window of ten periods it stays.
//
// Every rate is exact, however late a busy machine is: kubelets stamp their samples with the time of the request, and
// the counters are a function of it. An average over at least two thirds of the window is off by at most
// 6 s / (2 x 40 s) = 7.5 %, and the controller tolerates 10 %.
func TestWindowSteadiesAnAutoscaler(t *testing.T) {
	const period, window = 6 * time.Second, time.Minute
	f := &fleet{name: label(t.Name()), token: token(t, "kube-system", "metrics-server"), api: cluster.admin.Host}
	f.labels = map[string]string{"fleet": f.name}
	boot := time.Now().Add(-time.Hour).Truncate(period)
	n := &fakeNode{name: f.name, says: kubelettest.NewNode(kubelettest.NodeConfig{
		Boot: boot, RequestTime: true, List: []kubelettest.Pod{
			{Namespace: flapping, Name: "a", Started: []time.Time{boot}},
			{Namespace: flapping, Name: "b", Started: []time.Time{boot}},
		},
	})}
	n.kubelet = &kubelettest.Kubelet{Authenticate: true, Answer: func(dst []byte, now time.Time) []byte {
		return onAndOff(dst, now, boot, period)
	}}
	n.kubelet.SetToken(f.token)
	f.add(t, n, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1")})
	t.Cleanup(func() { kubectl(t, "delete", "namespace", flapping, "--wait=false") })
	makeReady(t, boot)

	steady := startServer(t, f, "--metric-window="+window.String())
	quick := startServer(t, f)
	quick.ready(t)
	quick.aggregate(t, nil)
	createHPA(t, f.name)
	runHPAController(t)

	least, most := int32(math.MaxInt32), int32(0)
	eachDecision(t, func(h *autoscalingv2.HorizontalPodAutoscaler) bool {
		least, most = min(least, h.Status.DesiredReplicas), max(most, h.Status.DesiredReplicas)
		return least == 1 && most >= 3
	})
	t.Logf("with the default window, the controller asked for %d to %d replicas", least, most)

	reader := reader(t)
	eventually(t, "the window is filled", func() error {
		items, err := steady.items("/apis/metrics.k8s.io/v1/namespaces/"+flapping+"/pods", reader)
		for _, name := range []string{"a", "b"} {
			if w := items[flapping+"/"+name].Window.Duration; err == nil && w < 2*window/3 {
				err = fmt.Errorf("the window of pod %q is %v", name, w)
			}
		}
		return err
	})
	steady.lead(t)
	// Within its tolerance, the controller stays at the replicas that it finds.
	decisions, replicas := 0, int32(0)
	eachDecision(t, func(h *autoscalingv2.HorizontalPodAutoscaler) bool {
		used := h.Status.CurrentMetrics[0].Resource.Current.AverageValue.MilliValue()
		if decisions++; decisions <= 3 { // the first may still be by an answer of the other server
			if replicas = h.Status.DesiredReplicas; used < 90 || used > 110 {
				decisions = 0
			}
			return false
		}
		if h.Status.DesiredReplicas != replicas {
			t.Fatalf("decision %d with a window of %v: %d replicas instead of %d, for %dm", decisions, window,
				h.Status.DesiredReplicas, replicas, used)
		}
		return decisions == 20
	})
	t.Logf("with a window of %v, it stayed at %d replicas", window, replicas)
}

// onAndOff appends a kubelet's answer: both pods use 200 millicores in the first half of each period, and nothing in
// the second.
func onAndOff(dst []byte, now, boot time.Time, period time.Duration) []byte {
	age := now.Truncate(time.Millisecond).Sub(boot)
	on := age.Truncate(period)/2 + min(age%period, period/2)
	cpu, at := strconv.FormatFloat(on.Seconds()/5, 'f', 9, 64), now.UnixMilli()
	dst = fmt.Appendf(dst, "node_cpu_usage_seconds_total %s %d\nnode_memory_working_set_bytes 1e9 %[2]d\n", cpu, at)
	for _, pod := range []string{"a", "b"} {
		labels := fmt.Sprintf("{container=\"c0\",namespace=%q,pod=%q}", flapping, pod)
		dst = fmt.Appendf(dst, "container_cpu_usage_seconds_total%s %s %d\n", labels, cpu, at)
		dst = fmt.Appendf(dst, "container_memory_working_set_bytes%s 1e8 %d\n", labels, at)
	}
	return dst
}

// makeReady gives the pods the status of pods that have been ready since then.
func makeReady(t *testing.T, since time.Time) {
	t.Helper()
	pods := cluster.client.CoreV1().Pods(flapping)
	for _, name := range []string{"a", "b"} {
		p, err := pods.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		then := metav1.NewTime(since)
		p.Status.StartTime = &then
		p.Status.Conditions = []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: then},
		}
		if _, err := pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// createHPA creates a Deployment that selects the fleet's pods, and an HPA that targets 100 millicores for each. The
// Deployment has no controller, so there are always two pods.
func createHPA(t *testing.T, fleet string) {
	t.Helper()
	labels := map[string]string{"fleet": fleet}
	_, err := cluster.client.AppsV1().Deployments(flapping).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(2)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c0", Image: "none"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	target := resource.MustParse("100m")
	_, err = cluster.client.AutoscalingV2().HorizontalPodAutoscalers(flapping).Create(
		t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: "web"},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
				MaxReplicas:    10,
				Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{
					ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32(0))},
				},
				Metrics: []autoscalingv2.MetricSpec{{
					Type: autoscalingv2.ResourceMetricSourceType,
					Resource: &autoscalingv2.ResourceMetricSource{
						Name:   corev1.ResourceCPU,
						Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &target},
					},
				}},
			},
		}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// runHPAController runs kube-controller-manager until the test ends, with the HPA controller alone.
func runHPAController(t *testing.T) {
	t.Helper()
	p, err := cluster.run("kube-controller-manager", filepath.Join(cluster.assets, "kube-controller-manager"),
		"--kubeconfig="+cluster.path("admin.kubeconfig"), "--secure-port=0", "--leader-elect=false",
		"--controllers=horizontal-pod-autoscaler-controller", "--horizontal-pod-autoscaler-sync-period=1s",
		"--flex-volume-plugin-dir="+cluster.path("flexvolume"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.kill()
		if t.Failed() {
			t.Log(p.tail())
		}
	})
}

// eachDecision calls enough with each status that the controller writes and that has a metric, until it returns true.
func eachDecision(t *testing.T, enough func(*autoscalingv2.HorizontalPodAutoscaler) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w, err := cluster.client.AutoscalingV2().HorizontalPodAutoscalers(flapping).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var last *autoscalingv2.HorizontalPodAutoscaler
	for e := range w.ResultChan() {
		h, ok := e.Object.(*autoscalingv2.HorizontalPodAutoscaler)
		if !ok {
			t.Fatalf("the watch says %+v", e.Object)
		}
		if last = h; len(h.Status.CurrentMetrics) > 0 && h.Status.CurrentMetrics[0].Resource != nil && enough(h) {
			return
		}
	}
	t.Fatalf("not enough decisions within %v; the last status: %+v", patience, last)
}
