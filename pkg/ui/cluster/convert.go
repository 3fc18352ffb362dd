package cluster

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unique"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"

	"metrics-server/pkg/history"
	"metrics-server/pkg/sample"
)

// shared returns s in the memory of an equal string, for strings that many objects have.
func shared(s string) string { return unique.Make(s).Value() }

// nodeOf returns n without its usage, its sums and its past.
func nodeOf(n *corev1.Node) *Node {
	row := &Node{
		Name: n.Name, uid: uidOf(n.UID), Created: n.CreationTimestamp.Time,
		Ready: ReadyUnknown, Cordoned: n.Spec.Unschedulable,
		KubeletVersion: shared(n.Status.NodeInfo.KubeletVersion),
		Allocatable:    amountOf(n.Status.Allocatable), Usage: noUsage,
	}
	for _, a := range n.Status.Addresses {
		if !slices.Contains(row.Addresses, a.Address) {
			row.Addresses = append(row.Addresses, a.Address)
		}
	}
	for _, c := range n.Status.Conditions {
		row.Conditions = append(row.Conditions,
			Condition{shared(string(c.Type)), shared(string(c.Status)), shared(c.Reason), shared(c.Message)})
		if c.Type == corev1.NodeReady {
			switch c.Status {
			case corev1.ConditionTrue:
				row.Ready = Ready
			case corev1.ConditionFalse:
				row.Ready = NotReady
			}
		}
	}
	return row
}

// podOf returns p without its usage and its past.
func podOf(p *corev1.Pod) *Pod {
	row := &Pod{
		Namespace: shared(p.Namespace), Name: p.Name, uid: uidOf(p.UID), Created: p.CreationTimestamp.Time,
		Node: shared(p.Spec.NodeName), Status: shared(statusOf(p)), IP: p.Status.PodIP,
		Running: p.Status.Phase == corev1.PodRunning, Ended: ended(p), Ready: isTrue(p, corev1.PodReady), Usage: noUsage,
	}
	k := history.WorkloadOf(p.Namespace, p.Name, hashOf(p.Labels), controllerOf(p))
	row.Workload = history.Key{Kind: shared(k.Kind), Namespace: row.Namespace, Name: shared(k.Name)}
	for _, c := range p.Status.Conditions {
		row.Conditions = append(row.Conditions,
			Condition{shared(string(c.Type)), shared(string(c.Status)), shared(c.Reason), shared(c.Message)})
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; sidecar(c) {
			row.addContainer(c, p.Status.InitContainerStatuses)
		}
	}
	for i := range p.Spec.Containers {
		row.addContainer(&p.Spec.Containers[i], p.Status.ContainerStatuses)
	}
	row.Requests, row.Limits = unknown, unknown
	for i, c := range row.Containers {
		row.Restarts += c.Restarts
		row.Requests = row.Requests.plusKnown(c.Requests)
		if i == 0 {
			row.Limits = c.Limits
		} else {
			row.Limits = row.Limits.plus(c.Limits)
		}
	}
	if status, restarts := initStatusOf(p); status != "" {
		row.Restarts = restarts
	}
	if r := p.Spec.Resources; r != nil {
		row.Requests = amountOf(r.Requests).or(row.Requests)
		row.Limits = amountOf(r.Limits).or(row.Limits)
	}
	return row
}

// controllerOf returns the controller in the owner references of p.
func controllerOf(p *corev1.Pod) sample.Controller {
	if o := metav1.GetControllerOf(p); o != nil {
		return sample.Controller{Kind: o.Kind, Name: o.Name}
	}
	return sample.Controller{}
}

// hashOf returns the only label that history.WorkloadOf reads.
func hashOf(labels map[string]string) sample.Labels {
	const key = "pod-template-hash"
	if v, ok := labels[key]; ok {
		return sample.Labels{{Key: key, Value: v}}
	}
	return nil
}

// addContainer adds a container of the specification.
func (p *Pod) addContainer(c *corev1.Container, statuses []corev1.ContainerStatus) {
	row := Container{
		Name: shared(c.Name), State: "Waiting", Used: unknown,
		Requests: amountOf(c.Resources.Requests), Limits: amountOf(c.Resources.Limits),
	}
	if i := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == c.Name }); i >= 0 {
		row.Restarts = int(statuses[i].RestartCount)
		switch s := statuses[i].State; {
		case s.Running != nil:
			row.State = "Running"
			if t := s.Running.StartedAt.Time; t.After(p.Started) {
				p.Started = t
			}
		case s.Terminated != nil:
			row.State = shared(endOf(s.Terminated))
		case s.Waiting != nil && s.Waiting.Reason != "":
			row.State = shared(s.Waiting.Reason)
		}
	}
	p.Containers = append(p.Containers, row)
}

func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// statusOf returns the status of a pod in one word, the same as kubectl get.
func statusOf(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil && !ended(p) {
		if p.Status.Reason == "NodeLost" {
			return "Unknown"
		}
		return "Terminating"
	}
	if s, _ := initStatusOf(p); s != "" {
		return s
	}
	status := cmp.Or(p.Status.Reason, string(p.Status.Phase))
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			status = c.Reason
		}
	}
	running, failure := false, ""
	for _, c := range slices.Backward(p.Status.ContainerStatuses) { // the first container decides
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			status = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			status = endOf(c.State.Terminated)
			if c.State.Terminated.ExitCode != 0 {
				failure = status
			}
		case c.State.Running != nil && c.Ready:
			running = true
		}
	}
	if status != "Completed" {
		return status
	}
	switch {
	case running && isTrue(p, corev1.PodReady):
		return "Running"
	case failure != "":
		return failure
	case running:
		return "NotReady"
	}
	return status
}

// isTrue reports whether a condition of p is true.
func isTrue(p *corev1.Pod, kind corev1.PodConditionType) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue
	})
}

// initStatusOf returns the status of the first init container that holds up a pod, and the restarts of the init
// containers up to that one, as kubectl get counts them; "" if none does.
func initStatusOf(p *corev1.Pod) (status string, restarts int) {
	if isTrue(p, corev1.PodInitialized) {
		return "", 0
	}
	for i, s := range p.Status.InitContainerStatuses {
		restarts += int(s.RestartCount)
		j := slices.IndexFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == s.Name })
		started := j >= 0 && sidecar(&p.Spec.InitContainers[j]) && s.Started != nil && *s.Started
		switch t, w := s.State.Terminated, s.State.Waiting; {
		case t != nil && t.ExitCode == 0, started:
		case t != nil:
			return "Init:" + endOf(t), restarts
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing":
			return "Init:" + w.Reason, restarts
		default:
			return fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers)), restarts
		}
	}
	return "", 0
}

// endOf returns in one word how a container ended.
func endOf(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

// amountOf returns the CPU and memory in r.
func amountOf(r corev1.ResourceList) Amount {
	a := unknown
	if q, ok := r[corev1.ResourceCPU]; ok {
		a.CPU = q.AsApproximateFloat64()
	}
	if q, ok := r[corev1.ResourceMemory]; ok {
		a.Memory = q.AsApproximateFloat64()
	}
	return a
}

// plus returns a + b, unknown if either is.
func (a Amount) plus(b Amount) Amount { return Amount{a.CPU + b.CPU, a.Memory + b.Memory} }

// plusKnown returns a + b, unknown only if both are.
func (a Amount) plusKnown(b Amount) Amount {
	return Amount{plusKnown(a.CPU, b.CPU), plusKnown(a.Memory, b.Memory)}
}

func plusKnown(a, b float64) float64 {
	switch {
	case math.IsNaN(a):
		return b
	case math.IsNaN(b):
		return a
	}
	return a + b
}

// or returns a, and b where a is unknown.
func (a Amount) or(b Amount) Amount {
	if math.IsNaN(a.CPU) {
		a.CPU = b.CPU
	}
	if math.IsNaN(a.Memory) {
		a.Memory = b.Memory
	}
	return a
}

// measured is the usage of a node, or of a pod and its containers.
type measured struct {
	namespace, name string // no namespace: a node
	usage           Usage
	containers      []measuredContainer
}

type measuredContainer struct {
	name string
	used Amount
}

func nodeUsageOf(m *metricsv1.NodeMetrics) *measured {
	return &measured{name: m.Name, usage: usageOf(amountOf(m.Usage), m.Timestamp.Time, m.Window.Duration)}
}

func podUsageOf(m *metricsv1.PodMetrics) *measured {
	row := &measured{
		namespace: shared(m.Namespace), name: m.Name, containers: make([]measuredContainer, len(m.Containers)),
	}
	sum := Amount{}
	if len(m.Containers) == 0 {
		sum = unknown
	}
	for i, c := range m.Containers {
		used := amountOf(c.Usage)
		row.containers[i] = measuredContainer{shared(c.Name), used}
		sum = sum.plus(used)
	}
	row.usage = usageOf(sum, m.Timestamp.Time, m.Window.Duration)
	return row
}

// usageOf returns a usage, unless neither CPU nor memory is known.
func usageOf(used Amount, sampled time.Time, window time.Duration) Usage {
	if math.IsNaN(used.CPU) && math.IsNaN(used.Memory) {
		return noUsage
	}
	return Usage{Used: used, Sampled: sampled, Window: window}
}

// hpaOf returns h without its past.
func hpaOf(h *autoscalingv2.HorizontalPodAutoscaler) *HPA {
	o := *h
	o.ManagedFields, o.Annotations = nil, nil
	row := &HPA{Object: &o, Metrics: make([]Metric, len(o.Spec.Metrics))}
	for i := range o.Spec.Metrics {
		row.Metrics[i] = metricOf(&o, i)
	}
	return row
}

// metricOf returns metric i of the specification. The status lists the metrics in the same order. An entry is empty if
// the controller could not read the metric, and the list is shorter until the controller has seen a new specification.
func metricOf(h *autoscalingv2.HorizontalPodAutoscaler, i int) Metric {
	m, target := wanted(&h.Spec.Metrics[i])
	m.TargetType = targetType(m.Type, target)
	m.Target = valueOf(m.TargetType, target.Value, target.AverageValue, target.AverageUtilization)
	m.Current = math.NaN()
	same := func(s *autoscalingv2.MetricStatus) (autoscalingv2.MetricValueStatus, bool) {
		o, value := reported(s)
		return value, o.Type == m.Type && o.Name == m.Name && o.Container == m.Container && o.Object == m.Object
	}
	value, ok := autoscalingv2.MetricValueStatus{}, false
	if current := h.Status.CurrentMetrics; len(current) == len(h.Spec.Metrics) {
		value, ok = same(&current[i])
	} else {
		for j := 0; j < len(current) && !ok; j++ {
			value, ok = same(&current[j])
		}
	}
	if ok {
		m.Current = valueOf(m.TargetType, value.Value, value.AverageValue, value.AverageUtilization)
	}
	return m
}

// targetType returns the type of the target that the controller compares a metric with. Except for Object metrics, the
// controller goes by the value that is set. The API server accepts values that do not match t.Type.
func targetType(source autoscalingv2.MetricSourceType, t autoscalingv2.MetricTarget) autoscalingv2.MetricTargetType {
	switch source {
	case autoscalingv2.ResourceMetricSourceType, autoscalingv2.ContainerResourceMetricSourceType:
		if t.AverageValue == nil {
			return autoscalingv2.UtilizationMetricType
		}
		return autoscalingv2.AverageValueMetricType
	case autoscalingv2.PodsMetricSourceType:
		return autoscalingv2.AverageValueMetricType
	case autoscalingv2.ExternalMetricSourceType:
		if t.AverageValue == nil {
			return autoscalingv2.ValueMetricType
		}
		return autoscalingv2.AverageValueMetricType
	}
	return t.Type
}

// valueOf returns the value of a target, or of a status, that belongs to a type of target; NaN if it is not set.
func valueOf(of autoscalingv2.MetricTargetType, value, averageValue *resource.Quantity, utilization *int32) float64 {
	switch {
	case of == autoscalingv2.UtilizationMetricType && utilization != nil:
		return float64(*utilization)
	case of == autoscalingv2.AverageValueMetricType && averageValue != nil:
		return averageValue.AsApproximateFloat64()
	case of == autoscalingv2.ValueMetricType && value != nil:
		return value.AsApproximateFloat64()
	}
	return math.NaN()
}

// wanted returns the metric of s and its target.
func wanted(s *autoscalingv2.MetricSpec) (Metric, autoscalingv2.MetricTarget) {
	m := Metric{Type: s.Type}
	switch {
	case s.Resource != nil:
		m.Name = string(s.Resource.Name)
		return m, s.Resource.Target
	case s.ContainerResource != nil:
		m.Name, m.Container = string(s.ContainerResource.Name), s.ContainerResource.Container
		return m, s.ContainerResource.Target
	case s.Pods != nil:
		m.Name = s.Pods.Metric.Name
		return m, s.Pods.Target
	case s.Object != nil:
		m.Name, m.Object = s.Object.Metric.Name, objectName(s.Object.DescribedObject)
		return m, s.Object.Target
	case s.External != nil:
		m.Name = s.External.Metric.Name
		return m, s.External.Target
	}
	return m, autoscalingv2.MetricTarget{}
}

// reported returns the metric of s and its value.
func reported(s *autoscalingv2.MetricStatus) (Metric, autoscalingv2.MetricValueStatus) {
	m := Metric{Type: s.Type}
	switch {
	case s.Resource != nil:
		m.Name = string(s.Resource.Name)
		return m, s.Resource.Current
	case s.ContainerResource != nil:
		m.Name, m.Container = string(s.ContainerResource.Name), s.ContainerResource.Container
		return m, s.ContainerResource.Current
	case s.Pods != nil:
		m.Name = s.Pods.Metric.Name
		return m, s.Pods.Current
	case s.Object != nil:
		m.Name, m.Object = s.Object.Metric.Name, objectName(s.Object.DescribedObject)
		return m, s.Object.Current
	case s.External != nil:
		m.Name = s.External.Metric.Name
		return m, s.External.Current
	}
	return m, autoscalingv2.MetricValueStatus{}
}

func objectName(o autoscalingv2.CrossVersionObjectReference) string {
	return strings.Join([]string{o.Kind, o.Name}, "/")
}
