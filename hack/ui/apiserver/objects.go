package apiserver

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

const kubernetesVersion = "v1.37.2"

// booted is when the nodes, and pods that are there from the beginning, started.
func booted(n *node) time.Time { return time.Unix(1_700_000_000+int64(n.index)*3600, 0) }

func nodeLabels(n *node) map[string]string {
	return map[string]string{
		"kubernetes.io/hostname": n.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
		"topology.kubernetes.io/zone": fmt.Sprintf("zone-%c", 'a'+n.index%3),
	}
}

func nodeIP(n *node) string { return fmt.Sprintf("10.%d.%d.10", n.index/250, n.index%250) }

func nodeObject(n *node, version uint64) *corev1.Node {
	o := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metaOf(key{name: n.name}, version, booted(n), nodeLabels(n)),
	}
	o.UID = types.UID("node-" + n.name)
	o.Spec.Unschedulable = n.index%50 == 49
	o.Status = corev1.NodeStatus{
		Capacity: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("128Gi"),
			corev1.ResourcePods: resource.MustParse("110"),
		},
		Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("31500m"), corev1.ResourceMemory: resource.MustParse("124Gi"),
			corev1.ResourcePods: resource.MustParse("110"),
		},
		Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientMemory"},
			{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
				Message: "kubelet is posting ready status",
			},
		},
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: nodeIP(n)}, {Type: corev1.NodeHostName, Address: n.name},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: 10250}},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: kubernetesVersion, OperatingSystem: "linux", Architecture: "amd64",
			ContainerRuntimeVersion: "containerd://2.2.0",
		},
	}
	return o
}

func podLabels(p *pod) map[string]string {
	w := p.workload
	l := map[string]string{"app": w.name}
	if w.kind == "Deployment" {
		l["pod-template-hash"] = w.hash
	}
	if w.name == serverName {
		l["k8s-app"] = serverName
	}
	return l
}

// containers returns the names of the containers of p, and which part of the pod's usage each has.
func containers(p *pod) (names []string, shares []float64) {
	switch {
	case p.namespace == serverNamespace:
		return []string{p.workload.name}, []float64{1}
	case p.namespace != shop && hashOf(p.workload.name)%3 == 0:
		return []string{"app", "sidecar"}, []float64{0.875, 0.125}
	}
	return []string{"app"}, []float64{1}
}

const metricsPort = 9090

func podObject(p *pod, version uint64) *corev1.Pod {
	w := p.workload
	o := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metaOf(p.key, version, p.created, podLabels(p)),
	}
	o.UID = types.UID(fmt.Sprintf("%016x", p.seed))
	owner := metav1.OwnerReference{
		APIVersion: "apps/v1", Kind: w.kind, Name: w.name, UID: types.UID(w.name), Controller: new(true),
	}
	switch w.kind {
	case "Deployment":
		owner.Kind, owner.Name = "ReplicaSet", w.name+"-"+w.hash
	case "Pod":
		owner.APIVersion, owner.Kind, owner.Name = "v1", "Node", p.node.name
	}
	o.OwnerReferences = []metav1.OwnerReference{owner}
	o.Spec.NodeName = p.node.name
	started := metav1.NewTime(p.created.Add(2 * time.Second))
	ready, state := corev1.ConditionTrue, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}
	restarts := int32(p.seed % 40 / 38)
	if p.crashed {
		ready, restarts = corev1.ConditionFalse, restarts+7
		state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
			Reason: "CrashLoopBackOff", Message: "back-off 5m0s restarting failed container",
		}}
	}
	o.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBurstable, StartTime: &started, HostIP: nodeIP(p.node),
		PodIP: fmt.Sprintf("172.%d.%d.%d", 16+p.seed%16, p.seed>>8%256, p.seed>>16%256),
	}
	for _, t := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		o.Status.Conditions = append(o.Status.Conditions, corev1.PodCondition{
			Type: t, Status: ready, LastTransitionTime: metav1.NewTime(started.Add(10 * time.Second)),
		})
	}
	names, _ := containers(p)
	for _, name := range names {
		c := corev1.Container{
			Name: name, Image: "registry.example.com/" + w.name + ":1.4",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU:    *resource.NewMilliQuantity(w.cpuMilli/int64(len(names)), resource.DecimalSI),
				corev1.ResourceMemory: *resource.NewQuantity(w.memoryMiB<<20/int64(len(names)), resource.BinarySI),
			}},
		}
		if p.seed%2 == 0 {
			c.Resources.Limits = corev1.ResourceList{
				corev1.ResourceMemory: *resource.NewQuantity(w.memoryMiB<<21/int64(len(names)), resource.BinarySI),
			}
		}
		if w.scaler != nil && w.scaler.packets > 0 {
			c.Ports = []corev1.ContainerPort{{Name: "metrics", ContainerPort: metricsPort}}
		}
		o.Spec.Containers = append(o.Spec.Containers, c)
		o.Status.ContainerStatuses = append(o.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: name, Image: c.Image, Ready: !p.crashed, Started: new(!p.crashed), RestartCount: restarts, State: state,
			ContainerID: "containerd://" + strings.Repeat(fmt.Sprintf("%016x", p.seed), 4),
		})
	}
	if w.name == serverName {
		serverSpec(&o.Spec)
	}
	return o
}

// serverSpec makes a pod that of metrics-server, as deploy/ installs it.
func serverSpec(spec *corev1.PodSpec) {
	spec.ServiceAccountName = serverName
	spec.Containers[0].Args = []string{
		"--secure-port=10250", "--serving-certificate-secret=metrics-server-serving",
		"--kubelet-service-account=metrics-server-kubelets",
	}
	spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "https", ContainerPort: 10250}}
}

func (u usage) list(share float64) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(math.Round(u.cpu*share*1e9)), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(u.memory*share)>>10<<10, resource.BinarySI),
	}
}

func (s *Server) nodeUsageObject(n *node, apiVersion string, version uint64) *metricsv1beta1.NodeMetrics {
	return &metricsv1beta1.NodeMetrics{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiVersion, Kind: "NodeMetrics"},
		ObjectMeta: metaOf(key{name: n.name}, version, n.sampled, nodeLabels(n)),
		Timestamp:  metav1.NewTime(n.sampled), Window: metav1.Duration{Duration: s.config.Period},
		Usage: s.nodeUsage(n).list(1),
	}
}

func (s *Server) podUsageObject(p *pod, apiVersion string, version uint64) *metricsv1beta1.PodMetrics {
	o := &metricsv1beta1.PodMetrics{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiVersion, Kind: "PodMetrics"},
		ObjectMeta: metaOf(p.key, version, p.node.sampled, podLabels(p)),
		Timestamp:  metav1.NewTime(p.node.sampled), Window: metav1.Duration{Duration: s.config.Period},
	}
	u := s.usage(p, p.node.sampled)
	names, shares := containers(p)
	for i, name := range names {
		o.Containers = append(o.Containers, metricsv1beta1.ContainerMetrics{Name: name, Usage: u.list(shares[i])})
	}
	return o
}

func scalerObject(h *scaler, version uint64) *autoscalingv2.HorizontalPodAutoscaler {
	o := &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta:   metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"},
		ObjectMeta: metaOf(h.key, version, time.Unix(1_700_000_000, 0), nil),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{
				APIVersion: "apps/v1", Kind: h.workload.kind, Name: h.workload.name,
			},
			MinReplicas: &h.min, MaxReplicas: h.max,
			Metrics: []autoscalingv2.MetricSpec{{
				Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
					Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{
						Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &h.percent,
					},
				},
			}},
		},
		Status: h.status,
	}
	if h.packets > 0 {
		o.Spec.Metrics = append(o.Spec.Metrics, autoscalingv2.MetricSpec{
			Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: packetsMetric}, Target: autoscalingv2.MetricTarget{
					Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(h.packets, resource.DecimalSI),
				},
			},
		})
	}
	o.UID = types.UID("hpa-" + h.name)
	return o
}

const packetsMetric = "packets-per-second"

// reconcile is one round of the HPA controller, without stabilization.
func (s *Server) reconcile(h *scaler) {
	pods := h.workload.pods
	current := int32(len(pods))
	sum, n := 0.0, 0
	for _, p := range pods {
		if p.used() {
			sum += s.usage(p, p.node.sampled).cpu
			n++
		}
	}
	status := autoscalingv2.HorizontalPodAutoscalerStatus{
		CurrentReplicas: current, DesiredReplicas: current, LastScaleTime: new(metav1.NewTime(h.scaled)),
	}
	condition := func(t autoscalingv2.HorizontalPodAutoscalerConditionType, is bool, reason, message string) {
		c := autoscalingv2.HorizontalPodAutoscalerCondition{
			Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message,
			LastTransitionTime: metav1.NewTime(h.scaled),
		}
		if is {
			c.Status = corev1.ConditionTrue
		}
		status.Conditions = append(status.Conditions, c)
	}
	condition(autoscalingv2.AbleToScale, true, "ReadyForNewScale", "recommended size matches current size")
	if n == 0 {
		condition(autoscalingv2.ScalingActive, false, "FailedGetResourceMetric", "the HPA was unable to compute the "+
			"replica count: unable to get metrics for resource cpu: no metrics returned from resource metrics API")
	} else {
		mean := sum / float64(n)
		percent := mean * 1000 / float64(h.workload.cpuMilli) * 100
		ratio := percent / float64(h.percent)
		status.CurrentMetrics = []autoscalingv2.MetricStatus{{
			Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricStatus{
				Name: corev1.ResourceCPU, Current: autoscalingv2.MetricValueStatus{
					AverageUtilization: new(int32(percent)),
					AverageValue:       resource.NewMilliQuantity(int64(mean*1000), resource.DecimalSI),
				},
			},
		}}
		if h.packets > 0 {
			average := mean * packetsPerCore
			ratio = max(ratio, average/float64(h.packets))
			status.CurrentMetrics = append(status.CurrentMetrics, autoscalingv2.MetricStatus{
				Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricStatus{
					Metric: autoscalingv2.MetricIdentifier{Name: packetsMetric}, Current: autoscalingv2.MetricValueStatus{
						AverageValue: resource.NewMilliQuantity(int64(average*1000), resource.DecimalSI),
					},
				},
			})
		}
		wanted := current
		if math.Abs(ratio-1) > 0.1 {
			wanted = int32(math.Ceil(ratio * float64(n)))
		}
		fastest := max(2*current, 4) // of one scale-up, by default
		status.DesiredReplicas = min(max(wanted, h.min), h.max, fastest)
		condition(autoscalingv2.ScalingActive, true, "ValidMetricFound",
			"the HPA was able to successfully calculate a replica count from cpu resource utilization "+
				"(percentage of request)")
		switch {
		case wanted > fastest && fastest < h.max:
			condition(autoscalingv2.ScalingLimited, true, "ScaleUpLimit",
				"the desired replica count is increasing faster than the maximum scale rate")
		case wanted > h.max:
			condition(autoscalingv2.ScalingLimited, true, "TooManyReplicas",
				"the desired replica count is more than the maximum replica count")
		case wanted < h.min:
			condition(autoscalingv2.ScalingLimited, true, "TooFewReplicas",
				"the desired replica count is less than the minimum replica count")
		default:
			condition(autoscalingv2.ScalingLimited, false, "DesiredWithinRange",
				"the desired count is within the acceptable range")
		}
	}
	h.status = status
	h.version = s.record(modified, scalerItem(h))
}

// scaleObject is the scale of a workload.
func scaleObject(w *workload) map[string]any {
	return map[string]any{
		"kind": "Scale", "apiVersion": "autoscaling/v1",
		"metadata": map[string]any{"namespace": w.namespace, "name": w.name, "resourceVersion": strconv.Itoa(w.created)},
		"spec":     map[string]any{"replicas": len(w.pods)},
		"status":   map[string]any{"replicas": len(w.pods), "selector": "app=" + w.name},
	}
}

// ownerObject is the metadata of a ReplicaSet, which controller owns, or of a workload.
func ownerObject(k key, controller *workload) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"},
		ObjectMeta: metav1.ObjectMeta{Namespace: k.namespace, Name: k.name},
	}
	if controller != nil {
		o.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: controller.kind, Name: controller.name, Controller: new(true),
		}}
	}
	return o
}

// apiService is the APIService of a version of a metrics API.
func apiService(version, group, namespace, service string) map[string]any {
	return map[string]any{
		"kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
		"metadata": map[string]any{"name": version + "." + group},
		"spec": map[string]any{
			"insecureSkipTLSVerify": true, "group": group, "version": version,
			"service": map[string]any{"namespace": namespace, "name": service, "port": 443},
		},
		"status": map[string]any{"conditions": []map[string]any{
			{"type": "Available", "status": "True", "reason": "Passed", "message": "all checks passed"},
		}},
	}
}
