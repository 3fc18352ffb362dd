package cluster

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"

	"metrics-server/pkg/history"
)

func list(cpu, memory string) corev1.ResourceList {
	l := corev1.ResourceList{}
	if cpu != "" {
		l[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func terminated(reason string, code, signal int32) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason: reason, ExitCode: code, Signal: signal,
	}}
}

var running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}

func TestStatus(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	yes := true
	status := func(name string, ready bool, s corev1.ContainerState) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, Ready: ready, State: s}
	}
	condition := func(kind corev1.PodConditionType, is corev1.ConditionStatus) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: is}
	}
	for _, tt := range []struct {
		name string
		pod  corev1.Pod
		want string
	}{
		{"phase", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}, "Pending"},
		{"evicted", corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}}, "Evicted"},
		{
			"gated", corev1.Pod{Status: corev1.PodStatus{
				Phase: corev1.PodPending,
				Conditions: []corev1.PodCondition{{
					Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
				}},
			}}, "SchedulingGated",
		},
		{
			"running", corev1.Pod{Status: corev1.PodStatus{
				Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{status("a", true, running)},
			}}, "Running",
		},
		{
			"the first container decides", corev1.Pod{Status: corev1.PodStatus{
				Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
					status("a", false, waiting("CrashLoopBackOff")), status("b", false, waiting("ImagePullBackOff")),
				},
			}}, "CrashLoopBackOff",
		},
		{
			"killed", corev1.Pod{Status: corev1.PodStatus{
				Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{status("a", false, terminated("", 137, 9))},
			}}, "Signal:9",
		},
		{
			"exit code", corev1.Pod{Status: corev1.PodStatus{
				Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{status("a", false, terminated("", 2, 0))},
			}}, "ExitCode:2",
		},
		{
			"one completed, one runs", corev1.Pod{Status: corev1.PodStatus{
				Phase:      corev1.PodRunning,
				Conditions: []corev1.PodCondition{condition(corev1.PodReady, corev1.ConditionTrue)},
				ContainerStatuses: []corev1.ContainerStatus{
					status("a", false, terminated("Completed", 0, 0)), status("b", true, running),
				},
			}}, "Running",
		},
		{
			"one completed, one runs, not ready", corev1.Pod{Status: corev1.PodStatus{
				Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
					status("a", false, terminated("Completed", 0, 0)), status("b", true, running),
				},
			}}, "NotReady",
		},
		{
			"one completed, one failed", corev1.Pod{Status: corev1.PodStatus{
				Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{
					status("a", false, terminated("Completed", 0, 0)), status("b", false, terminated("OOMKilled", 137, 0)),
				},
			}}, "OOMKilled",
		},
		{
			"all completed", corev1.Pod{Status: corev1.PodStatus{
				Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{
					status("a", false, terminated("Completed", 0, 0)),
				},
			}}, "Completed",
		},
		{
			"second init container", corev1.Pod{
				Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i"}, {Name: "j"}}},
				Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{
					status("i", true, terminated("Completed", 0, 0)), status("j", false, running),
				}},
			}, "Init:1/2",
		},
		{
			"init container fails", corev1.Pod{
				Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i"}}},
				Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{
					status("i", false, terminated("Error", 1, 0)),
				}},
			}, "Init:Error",
		},
		{
			"init container backs off", corev1.Pod{
				Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i"}}},
				Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{
					status("i", false, waiting("CrashLoopBackOff")),
				}},
			}, "Init:CrashLoopBackOff",
		},
		{
			"a sidecar that runs holds up nothing", corev1.Pod{
				Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i", RestartPolicy: &always}}},
				Status: corev1.PodStatus{
					Phase:                 corev1.PodRunning,
					InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", Started: &yes, State: running}},
					ContainerStatuses:     []corev1.ContainerStatus{status("a", true, running)},
				},
			}, "Running",
		},
		{
			"initialized", corev1.Pod{
				Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "i"}}},
				Status: corev1.PodStatus{
					Phase:                 corev1.PodRunning,
					Conditions:            []corev1.PodCondition{condition(corev1.PodInitialized, corev1.ConditionTrue)},
					InitContainerStatuses: []corev1.ContainerStatus{status("i", false, waiting("PodInitializing"))},
					ContainerStatuses:     []corev1.ContainerStatus{status("a", false, waiting("ContainerCreating"))},
				},
			}, "ContainerCreating",
		},
		{
			"deleted", corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}},
				Status:     corev1.PodStatus{Phase: corev1.PodRunning},
			}, "Terminating",
		},
		{
			"deleted, on a lost node", corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}},
				Status:     corev1.PodStatus{Phase: corev1.PodRunning, Reason: "NodeLost"},
			}, "Unknown",
		},
	} {
		if got := statusOf(&tt.pod); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPodOf(t *testing.T) {
	yes, always := true, corev1.ContainerRestartPolicyAlways
	created, started := time.Unix(1000, 0), time.Unix(2000, 0)
	got := podOf(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-5d-x", UID: "u", CreationTimestamp: metav1.NewTime(created),
			Labels:          map[string]string{"app": "web", "pod-template-hash": "5d"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-5d", Controller: &yes}},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1",
			InitContainers: []corev1.Container{
				{Name: "setup", Resources: corev1.ResourceRequirements{Requests: list("8", "8Gi")}},
				{
					Name: "proxy", RestartPolicy: &always,
					Resources: corev1.ResourceRequirements{Requests: list("100m", ""), Limits: list("1", "1Ki")},
				},
			},
			Containers: []corev1.Container{
				{Name: "web", Resources: corev1.ResourceRequirements{Requests: list("250m", "1Mi"), Limits: list("", "2Ki")}},
				{Name: "late"},
			},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.0.0.1",
			Conditions: []corev1.PodCondition{{
				Type: corev1.PodReady, Status: corev1.ConditionTrue, Reason: "r", Message: "m",
			}},
			InitContainerStatuses: []corev1.ContainerStatus{
				{Name: "setup", RestartCount: 5, State: terminated("Completed", 0, 0)},
				{Name: "proxy", RestartCount: 1, State: running, Started: &yes},
			},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "web", RestartCount: 2, Ready: true,
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(started)}},
			}},
		},
	})
	want := &Pod{
		Namespace: "shop", Name: "web-5d-x", uid: uidOf("u"), Created: created, Node: "n1", IP: "10.0.0.1", Started: started,
		Workload: history.Key{Kind: "Deployment", Namespace: "shop", Name: "web"},
		Status:   "Running", Running: true, Ready: true, Restarts: 3,
		Conditions: []Condition{{"Ready", "True", "r", "m"}},
		Containers: []Container{
			{"proxy", "Running", 1, unknown, Amount{0.1, nan}, Amount{1, 1024}},
			{"web", "Running", 2, unknown, Amount{0.25, 1 << 20}, Amount{nan, 2048}},
			{"late", "Waiting", 0, unknown, unknown, unknown},
		},
		Usage: noUsage, Requests: Amount{0.35, 1 << 20}, Limits: unknown,
	}
	if d := diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestRestarts checks that restarts are counted as kubectl get does.
func TestRestarts(t *testing.T) {
	always, yes := corev1.ContainerRestartPolicyAlways, true
	pod := &corev1.Pod{
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "done"}, {Name: "proxy", RestartPolicy: &always}, {Name: "setup"}},
			Containers:     []corev1.Container{{Name: "web"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodPending,
			InitContainerStatuses: []corev1.ContainerStatus{
				{Name: "done", RestartCount: 1, State: terminated("Completed", 0, 0)},
				{Name: "proxy", RestartCount: 2, State: running, Started: &yes},
				{Name: "setup", RestartCount: 12, State: waiting("CrashLoopBackOff")},
			},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "web", RestartCount: 40, State: waiting("PodInitializing")}},
		},
	}
	if p := podOf(pod); p.Restarts != 15 || p.Status != "Init:CrashLoopBackOff" {
		t.Errorf("while it initializes: %d restarts, %s", p.Restarts, p.Status)
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}}
	if p := podOf(pod); p.Restarts != 42 {
		t.Errorf("once it is initialized: %d restarts", p.Restarts)
	}
}

// diff compares values in which NaN is NaN.
func diff(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateNaNs(), cmpopts.EquateApprox(1e-9, 0),
		cmp.AllowUnexported(Past{}, Node{}, Pod{}))
}

func TestPodResources(t *testing.T) {
	with := func(requests, limits corev1.ResourceList) corev1.Container {
		return corev1.Container{Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
	}
	for _, tt := range []struct {
		name             string
		pod              *corev1.ResourceRequirements
		containers       []corev1.Container
		requests, limits Amount
	}{
		{"none", nil, []corev1.Container{{}}, unknown, unknown},
		{
			"all", nil,
			[]corev1.Container{with(list("1", "1"), list("2", "2")), with(list("1", "1"), list("2", "2"))},
			Amount{2, 2},
			Amount{4, 4},
		},
		{
			"some", nil,
			[]corev1.Container{with(list("1", ""), list("2", "2")), with(nil, list("", "3"))},
			Amount{1, nan},
			Amount{nan, 5},
		},
		{
			"of the pod", &corev1.ResourceRequirements{Requests: list("5", ""), Limits: list("", "9")},
			[]corev1.Container{with(list("1", "1"), nil)},
			Amount{5, 1},
			Amount{nan, 9},
		},
	} {
		p := podOf(&corev1.Pod{Spec: corev1.PodSpec{Containers: tt.containers, Resources: tt.pod}})
		if d := diff([]Amount{tt.requests, tt.limits}, []Amount{p.Requests, p.Limits}); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
	}
}

func TestNodeOf(t *testing.T) {
	got := nodeOf(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u", CreationTimestamp: metav1.NewTime(time.Unix(1000, 0))},
		Spec:       corev1.NodeSpec{Unschedulable: true},
		Status: corev1.NodeStatus{
			Allocatable: list("3500m", "1Gi"), NodeInfo: corev1.NodeSystemInfo{KubeletVersion: "v1.36.0"},
			Addresses: []corev1.NodeAddress{{Address: "10.0.0.1"}, {Address: "n1"}, {Address: "10.0.0.1"}},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "r", Message: "m",
			}},
		},
	})
	want := &Node{
		Name: "n1", uid: uidOf("u"), Created: time.Unix(1000, 0), Ready: NotReady, Cordoned: true,
		KubeletVersion: "v1.36.0",
		Addresses:      []string{"10.0.0.1", "n1"}, Conditions: []Condition{{"Ready", "False", "r", "m"}},
		Allocatable: Amount{3.5, 1 << 30}, Usage: noUsage,
	}
	if d := diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestPodUsageOf(t *testing.T) {
	at := time.Unix(1000, 0)
	metrics := func(containers ...metricsv1.ContainerMetrics) *metricsv1.PodMetrics {
		return &metricsv1.PodMetrics{
			Timestamp: metav1.NewTime(at), Window: metav1.Duration{Duration: time.Minute}, Containers: containers,
		}
	}
	for _, tt := range []struct {
		name string
		of   *metricsv1.PodMetrics
		want Usage
	}{
		{"the object of a deletion", metrics(), noUsage},
		{
			"two containers", metrics(
				metricsv1.ContainerMetrics{Usage: list("1", "10")}, metricsv1.ContainerMetrics{Usage: list("0", "20")}),
			Usage{Amount{1, 30}, at, time.Minute},
		},
		{
			"a sum that is not known", metrics(
				metricsv1.ContainerMetrics{Usage: list("1", "10")}, metricsv1.ContainerMetrics{Usage: list("", "20")}),
			Usage{Amount{nan, 30}, at, time.Minute},
		},
	} {
		if d := diff(tt.want, podUsageOf(tt.of).usage); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
	}
}

func TestMetrics(t *testing.T) {
	percent := int32(60)
	now := int32(90)
	one, two := resource.MustParse("1k"), resource.MustParse("1500m")
	utilization := autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent}
	average := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &one}
	value := autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: &one}
	queue := autoscalingv2.MetricIdentifier{Name: "queue"}
	ingress := autoscalingv2.CrossVersionObjectReference{Kind: "Ingress", Name: "main"}
	specs := []autoscalingv2.MetricSpec{
		{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu", Target: utilization}},
		{Type: "ContainerResource", ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
			Name: "memory", Container: "web", Target: average,
		}},
		{Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{Metric: queue, Target: average}},
		{Type: "Object", Object: &autoscalingv2.ObjectMetricSource{Metric: queue, DescribedObject: ingress, Target: value}},
		{Type: "External", External: &autoscalingv2.ExternalMetricSource{Metric: queue, Target: value}},
	}
	statuses := []autoscalingv2.MetricStatus{
		{Type: "Resource", Resource: &autoscalingv2.ResourceMetricStatus{
			Name: "cpu", Current: autoscalingv2.MetricValueStatus{AverageUtilization: &now, AverageValue: &two},
		}},
		{Type: "ContainerResource", ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{
			Name: "memory", Container: "web", Current: autoscalingv2.MetricValueStatus{AverageValue: &two},
		}},
		{Type: ""}, // the controller has no value
		{Type: "Object", Object: &autoscalingv2.ObjectMetricStatus{
			Metric: queue, DescribedObject: ingress, Current: autoscalingv2.MetricValueStatus{Value: &two},
		}},
		{Type: "External", External: &autoscalingv2.ExternalMetricStatus{
			Metric: queue, Current: autoscalingv2.MetricValueStatus{Value: &two},
		}},
	}
	want := []Metric{
		{Type: "Resource", Name: "cpu", TargetType: "Utilization", Target: 60, Current: 90},
		{Type: "ContainerResource", Name: "memory", Container: "web", TargetType: "AverageValue", Target: 1000, Current: 1.5},
		{Type: "Pods", Name: "queue", TargetType: "AverageValue", Target: 1000, Current: nan},
		{Type: "Object", Name: "queue", Object: "Ingress/main", TargetType: "Value", Target: 1000, Current: 1.5},
		{Type: "External", Name: "queue", TargetType: "Value", Target: 1000, Current: 1.5},
	}
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{}},
		},
		Spec:   autoscalingv2.HorizontalPodAutoscalerSpec{Metrics: specs},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{CurrentMetrics: statuses},
	}
	row := hpaOf(h)
	if d := diff(want, row.Metrics); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if row.Object.Annotations != nil || row.Object.ManagedFields != nil || h.Annotations == nil {
		t.Errorf("annotations and managed fields: %+v of %+v", row.Object.ObjectMeta, h.ObjectMeta)
	}
	if r := row.Metrics[0].Ratio(); r != 1.5 {
		t.Errorf("ratio: %v, want 1.5", r)
	}

	// The status is of an older specification.
	h.Status.CurrentMetrics = statuses[3:]
	for i := range want[:3] {
		want[i].Current = nan
	}
	if d := diff(want, hpaOf(h).Metrics); d != "" {
		t.Errorf("an older status: (-want +got)\n%s", d)
	}
}

// TestTargets checks that a target is the one that the controller goes by, whatever its type says.
func TestTargets(t *testing.T) {
	number := func(n int32) *int32 { return &n }
	amount := func(s string) *resource.Quantity { return new(resource.MustParse(s)) }
	type target = autoscalingv2.MetricTarget
	type value = autoscalingv2.MetricValueStatus
	for _, tt := range []struct {
		source   autoscalingv2.MetricSourceType
		target   target
		current  value
		want     autoscalingv2.MetricTargetType
		at, goal float64
	}{
		{
			"Resource",
			target{Type: "AverageValue", AverageUtilization: number(60)},
			value{AverageUtilization: number(90), AverageValue: amount("2")},
			"Utilization", 90, 60,
		},
		{
			"Resource",
			target{Type: "Value", AverageUtilization: number(60), Value: amount("5")},
			value{AverageUtilization: number(90), AverageValue: amount("2")},
			"Utilization", 90, 60,
		},
		{
			"Resource",
			target{Type: "Utilization", AverageValue: amount("100m")},
			value{AverageValue: amount("2")},
			"AverageValue", 2, 0.1,
		},
		{
			"ContainerResource",
			target{Type: "Value", AverageValue: amount("100m")},
			value{AverageValue: amount("2")},
			"AverageValue", 2, 0.1,
		},
		{
			"Pods",
			target{Type: "Value", AverageValue: amount("1k"), Value: amount("5")},
			value{AverageValue: amount("2")},
			"AverageValue", 2, 1000,
		},
		{
			"Pods",
			target{Type: "Utilization", AverageValue: amount("1k"), AverageUtilization: number(60)},
			value{AverageValue: amount("2")},
			"AverageValue", 2, 1000,
		},
		{
			"External",
			target{Type: "Value", AverageValue: amount("1k")},
			value{AverageValue: amount("2")},
			"AverageValue", 2, 1000,
		},
		{
			"External",
			target{Type: "AverageValue", Value: amount("1k"), AverageUtilization: number(60)},
			value{Value: amount("2")},
			"Value", 2, 1000,
		},
		{
			"Object",
			target{Type: "AverageValue", AverageValue: amount("1k"), Value: amount("5")},
			value{AverageValue: amount("2")},
			"AverageValue", 2, 1000,
		},
		{
			"Object",
			target{Type: "Value", AverageValue: amount("1k"), Value: amount("5")},
			value{Value: amount("2")},
			"Value", 2, 5,
		},
		// Of an Object metric, the controller does not use a value that does not match the type.
		{"Object", target{Type: "Value", AverageValue: amount("1k")}, value{}, "Value", nan, nan},
		{"Object", target{Type: "AverageValue", Value: amount("5")}, value{}, "AverageValue", nan, nan},
		{"Object", target{Type: "Utilization", Value: amount("5")}, value{}, "Utilization", nan, nan},
		{"Unheard", target{}, value{}, "", nan, nan},
	} {
		spec, status := autoscalingv2.MetricSpec{Type: tt.source}, autoscalingv2.MetricStatus{Type: tt.source}
		switch tt.source {
		case "Resource":
			spec.Resource = &autoscalingv2.ResourceMetricSource{Target: tt.target}
			status.Resource = &autoscalingv2.ResourceMetricStatus{Current: tt.current}
		case "ContainerResource":
			spec.ContainerResource = &autoscalingv2.ContainerResourceMetricSource{Target: tt.target}
			status.ContainerResource = &autoscalingv2.ContainerResourceMetricStatus{Current: tt.current}
		case "Pods":
			spec.Pods = &autoscalingv2.PodsMetricSource{Target: tt.target}
			status.Pods = &autoscalingv2.PodsMetricStatus{Current: tt.current}
		case "Object":
			spec.Object = &autoscalingv2.ObjectMetricSource{Target: tt.target}
			status.Object = &autoscalingv2.ObjectMetricStatus{Current: tt.current}
		case "External":
			spec.External = &autoscalingv2.ExternalMetricSource{Target: tt.target}
			status.External = &autoscalingv2.ExternalMetricStatus{Current: tt.current}
		}
		h := &autoscalingv2.HorizontalPodAutoscaler{
			Spec:   autoscalingv2.HorizontalPodAutoscalerSpec{Metrics: []autoscalingv2.MetricSpec{spec}},
			Status: autoscalingv2.HorizontalPodAutoscalerStatus{CurrentMetrics: []autoscalingv2.MetricStatus{status}},
		}
		m := metricOf(h, 0)
		got := []any{m.TargetType, m.Current, m.Target}
		if d := diff([]any{tt.want, tt.at, tt.goal}, got); d != "" {
			t.Errorf("%s, %+v: type, current and target (-want +got)\n%s", tt.source, tt.target, d)
		}
	}
}
