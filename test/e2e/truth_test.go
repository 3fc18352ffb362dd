//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
)

// cgroupSample is the content of a container's cgroup files at one moment.
type cgroupSample struct {
	Time       time.Time
	CPU        uint64 // nanoseconds so far
	WorkingSet uint64 // bytes
}

// cgroupSamples are in the order of time, ten a second.
type cgroupSamples []cgroupSample

// cover reports whether the samples cover all the time from begin to end.
func (s cgroupSamples) cover(begin, end time.Time) bool {
	return len(s) > 0 && s[0].Time.Before(begin) && s[len(s)-1].Time.After(end)
}

// cpu returns the CPU time used until t, in nanoseconds, interpolated between two samples.
func (s cgroupSamples) cpu(t time.Time) float64 {
	i := sort.Search(len(s), func(i int) bool { return s[i].Time.After(t) })
	a, b := s[i-1], s[i]
	return float64(a.CPU) + float64(b.CPU-a.CPU)*float64(t.Sub(a.Time))/float64(b.Time.Sub(a.Time))
}

// judge returns how a container's served usage differs from the samples. The timestamp of the API
// is in whole seconds: the served usage must be true for a moment of that second.
func (s cgroupSamples) judge(m *metricsv1.PodMetrics, usage corev1.ResourceList) error {
	// The time between reading a file and reading the clock, on both sides, at both ends of the window.
	const clock = 150 * time.Millisecond
	cpuLow, cpuHigh := 1e18, 0.0
	first, last := m.Timestamp.Add(-clock), m.Timestamp.Add(time.Second+clock)
	for end := first; end.Before(last); end = end.Add(50 * time.Millisecond) {
		for _, off := range []time.Duration{-clock, clock} {
			cores := (s.cpu(end) - s.cpu(end.Add(off-m.Window.Duration))) / float64(m.Window.Nanoseconds())
			cpuLow, cpuHigh = min(cpuLow, cores), max(cpuHigh, cores)
		}
	}
	memoryLow, memoryHigh := 1e18, 0.0
	begin, end := m.Timestamp.Add(-clock), m.Timestamp.Add(time.Second+clock)
	for i, c := range s[:len(s)-1] { // with the last one before that second and the first one after it
		if s[i+1].Time.After(begin) && (i == 0 || s[i-1].Time.Before(end)) {
			memoryLow, memoryHigh = min(memoryLow, float64(c.WorkingSet)), max(memoryHigh, float64(c.WorkingSet))
		}
	}
	const (
		cpuShare, cpuLeast       = 0.02, 0.0001    // 2 %, but a tenth of a millicore of an idle container is not an error
		memoryShare, memoryLeast = 0.01, 512 << 10 // the kernel counts memory in batches of 128 KiB for each CPU
	)
	cpu, memory := usage.Cpu().AsApproximateFloat64(), usage.Memory().AsApproximateFloat64()
	var errs []error
	if cpu < cpuLow*(1-cpuShare)-cpuLeast || cpu > cpuHigh*(1+cpuShare)+cpuLeast {
		errs = append(
			errs,
			fmt.Errorf("CPU %.3fm is served, but the cgroup says %.3fm to %.3fm", cpu*1e3, cpuLow*1e3, cpuHigh*1e3),
		)
	}
	if memory < memoryLow*(1-memoryShare)-memoryLeast || memory > memoryHigh*(1+memoryShare)+memoryLeast {
		errs = append(
			errs, fmt.Errorf("memory %.0f is served, but the cgroup says %.0f to %.0f", memory, memoryLow, memoryHigh),
		)
	}
	return errors.Join(errs...)
}

// observers runs an observer on every node, and returns the name of each by its node.
func observers(t *testing.T, namespace string) map[string]string {
	t.Helper()
	const port = 8080
	c := workload("observer", fmt.Sprintf("-listen=:%d", port), "-cgroups=/cgroups")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "cgroups", MountPath: "/cgroups", ReadOnly: true}}
	c.ReadinessProbe = httpProbe()
	pod := podOf("observer", c)
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "cgroups", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/sys/fs/cgroup"}}},
	}
	pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	sets := cluster.client.AppsV1().DaemonSets(namespace)
	_, err := sets.Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an observer runs on every node", func() error {
		s, err := sets.Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err == nil && (s.Status.DesiredNumberScheduled == 0 || s.Status.NumberReady < s.Status.DesiredNumberScheduled) {
			err = fmt.Errorf("%d of %d are ready", s.Status.NumberReady, s.Status.DesiredNumberScheduled)
		}
		return err
	})
	pods, err := cluster.client.CoreV1().Pods(namespace).List(
		t.Context(), metav1.ListOptions{LabelSelector: "app=observer"},
	)
	if err != nil {
		t.Fatal(err)
	}
	byNode := map[string]string{}
	for _, p := range pods.Items {
		byNode[p.Spec.NodeName] = p.Name
	}
	return byNode
}

// staticPod makes a node's kubelet run a pod from a file, and returns the pod as it appears in the
// API server. The file exists for as long as another pod does.
func staticPod(t *testing.T, namespace, node string, c corev1.Container) *corev1.Pod {
	t.Helper()
	b, err := cluster.client.CoreV1().RESTClient().Get().
		Resource("nodes").Name(node).SubResource("proxy").Suffix("configz").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		KubeletConfig struct{ StaticPodPath string }
	}
	if err := json.Unmarshal(b, &config); err != nil || config.KubeletConfig.StaticPodPath == "" {
		t.Fatalf("the kubelet of %s says no staticPodPath: %v\n%s", node, err, b)
	}
	pod := podOf("static", c)
	pod.APIVersion, pod.Kind, pod.Namespace = "v1", "Pod", namespace
	if b, err = json.Marshal(pod); err != nil {
		t.Fatal(err)
	}
	const dir = "/static-pods"
	writer := podOf("writer", workload("c", "-file="+dir+"/"+namespace+".json", "-content="+string(b)))
	writer.Spec.NodeName = node
	writer.Spec.TerminationGracePeriodSeconds = nil // it has something to remove
	writer.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(0))}
	writer.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	writer.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "static", MountPath: dir}}
	writer.Spec.Volumes = []corev1.Volume{
		{Name: "static", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
			Path: config.KubeletConfig.StaticPodPath, Type: new(corev1.HostPathDirectory),
		}}},
	}
	createPod(t, namespace, writer)
	mirror := podOf(pod.Name+"-"+node, c)
	eventually(t, "the API server knows the static pod", func() error {
		_, err := cluster.client.CoreV1().Pods(namespace).Get(t.Context(), mirror.Name, metav1.GetOptions{})
		return err
	})
	return mirror
}

func httpProbe() *corev1.Probe {
	p := &corev1.Probe{PeriodSeconds: 1}
	p.HTTPGet = &corev1.HTTPGetAction{Path: "/healthz"}
	p.HTTPGet.Port.IntVal = 8080
	return p
}

// running waits until a pod runs and returns it, with the id of its first container.
func running(t *testing.T, namespace, name string) (p *corev1.Pod, id string) {
	t.Helper()
	eventually(t, name+" runs", func() error {
		p = getPod(t, namespace, name)
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Running == nil {
			return fmt.Errorf("phase %s", p.Status.Phase)
		}
		_, id, _ = strings.Cut(p.Status.ContainerStatuses[0].ContainerID, "://")
		return nil
	})
	return p, id
}

// TestTruth compares what is served with the cgroups' own files, which an independent program reads
// at the same time.
func TestTruth(t *testing.T) {
	allNodesWell.join(t)
	ns := namespace(t)
	hostNetwork := podOf("host-network", workload("c", "-cpu=20"))
	hostNetwork.Spec.HostNetwork = true
	pods := []*corev1.Pod{
		podOf("ten", workload("c", "-cpu=10", "-memory=30")),
		podOf("two-hundred", workload("c", "-cpu=200")),
		podOf("fifteen-hundred", workload("c", "-cpu=1500")),
		podOf("bursty", workload("c", "-cpu=150", "-period=7s")),
		podOf("idle", workload("c")),
		podOf("stepping", workload("c", "-listen=:8080", "-memory=20")),
		hostNetwork,
	}
	for _, p := range pods {
		createPod(t, ns, p)
	}
	byNode := observers(t, ns)
	pods = append(pods, staticPod(t, ns, slices.Sorted(maps.Keys(byNode))[0], workload("c", "-cpu=15", "-memory=25")))
	const period = 100 * time.Second
	samples := map[string]cgroupSamples{}
	var mu sync.Mutex
	var observing sync.WaitGroup
	for _, p := range pods {
		p, id := running(t, ns, p.Name)
		observing.Go(func() {
			var s cgroupSamples
			b, err := podHTTP(
				t.Context(), ns, byNode[p.Spec.NodeName], "/cgroup", map[string]string{"id": id, "for": period.String()},
			)
			if err == nil {
				err = json.Unmarshal(b, &s)
			}
			if err != nil {
				t.Errorf("observe %s: %v", p.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			samples[p.Name] = s
		})
	}
	served := map[string][]metricsv1.PodMetrics{}
	stepped := false
	begun := time.Now()
	for ; time.Since(begun) < period; time.Sleep(time.Second) {
		if !stepped && time.Since(begun) > period*6/10 {
			stepped = true
			if _, err := podHTTP(t.Context(), ns, "stepping", "/hold", map[string]string{"mib": "50"}); err != nil {
				t.Error(err)
			}
		}
		list, err := cluster.metrics.MetricsV1().PodMetricses(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list.Items {
			if before := served[m.Name]; len(before) == 0 || !before[len(before)-1].Timestamp.Equal(&m.Timestamp) {
				served[m.Name] = append(before, m)
			}
		}
	}
	observing.Wait()

	for _, p := range pods {
		judged := 0
		for _, m := range served[p.Name] {
			if !samples[p.Name].cover(m.Timestamp.Add(-m.Window.Duration-time.Second), m.Timestamp.Add(2*time.Second)) {
				continue
			}
			judged++
			// A window may be as short as 5 s while it begins with the first sample. That is where the first window ends, if it
			// began when the container did.
			sinceFirst := m.Timestamp.Add(-m.Window.Duration).Sub(served[p.Name][0].Timestamp.Time)
			if m.Window.Duration < 10*time.Second && sinceFirst > 1500*time.Millisecond || m.Window.Duration > 40*time.Second {
				t.Errorf(
					"%s: a window of %v at a resolution of 15 s, which begins %v after the first one ended", p.Name,
					m.Window.Duration, sinceFirst,
				)
			}
			usage := m.Containers[0].Usage
			t.Logf(
				"%-15s at %s window %-8v cpu %-12s memory %s", p.Name, m.Timestamp.Format("05"), m.Window.Duration,
				usage.Cpu(), usage.Memory(),
			)
			if err := samples[p.Name].judge(&m, usage); err != nil {
				t.Errorf("%s at %v, window %v: %v", p.Name, m.Timestamp, m.Window.Duration, err)
			}
		}
		if judged < 2 {
			t.Errorf("%s: %d of %d answers could be judged, want 2 at least", p.Name, judged, len(served[p.Name]))
		}
	}
}
