package demand

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
)

// initialReadiness is how long after the start of a pod a change of its condition Ready may be the first
// report of the kubelet. The HPA controller assumes the same.
const initialReadiness = 30 * time.Second

// reduce removes from an object what Pod, newService and Parse do not read, so that the objects of a list
// that is still incomplete take little memory. With external, metrics of type External are served.
func reduce(object any, external bool) {
	switch o := object.(type) {
	case *corev1.Pod:
		reduceMeta(&o.ObjectMeta, podAnnotations)
		containers := func(from []corev1.Container) (to []corev1.Container) {
			for _, c := range from {
				to = append(to, corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
			}
			return to
		}
		o.Spec = corev1.PodSpec{
			Containers: containers(o.Spec.Containers), InitContainers: containers(o.Spec.InitContainers),
			HostNetwork: o.Spec.HostNetwork,
		}
		statuses := func(from []corev1.ContainerStatus) (to []corev1.ContainerStatus) {
			for _, c := range from {
				kept := corev1.ContainerStatus{Name: c.Name}
				if r := c.State.Running; r != nil {
					kept.State.Running = &corev1.ContainerStateRunning{StartedAt: r.StartedAt}
				}
				to = append(to, kept)
			}
			return to
		}
		o.Status = corev1.PodStatus{
			Phase: o.Status.Phase, PodIP: o.Status.PodIP, StartTime: o.Status.StartTime,
			Conditions: slices.DeleteFunc(o.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type != corev1.PodReady
			}),
			ContainerStatuses:     statuses(o.Status.ContainerStatuses),
			InitContainerStatuses: statuses(o.Status.InitContainerStatuses),
		}
	case *corev1.Service:
		reduceMeta(&o.ObjectMeta, nil)
		o.Spec = corev1.ServiceSpec{Selector: o.Spec.Selector, Ports: o.Spec.Ports}
		o.Status = corev1.ServiceStatus{}
	case *autoscalingv2.HorizontalPodAutoscaler:
		reduceMeta(&o.ObjectMeta, autoscalerAnnotations(o.Annotations))
		o.Labels = nil
		o.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: o.Spec.ScaleTargetRef, Metrics: reduceMetrics(o.Spec.Metrics, external),
		}
		if sizeOfReference(o.Spec.ScaleTargetRef) > maxMetric {
			o.Spec.ScaleTargetRef = Reference{Name: tooLong}
		}
		o.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
	}
}

// reduceMeta removes annotations that are not in limits, and cuts values to one byte more than
// their limit, so that it is still known that they exceed it.
func reduceMeta(o *metav1.ObjectMeta, limits map[string]int) {
	o.ManagedFields, o.OwnerReferences, o.Finalizers = nil, nil, nil
	for key, value := range o.Annotations {
		limit, known := limits[key]
		switch {
		case known:
			o.Annotations[key] = cut(value, limit+1)
		case key != metav1.InitialEventsAnnotationKey: // this one ends a streamed list
			delete(o.Annotations, key)
		}
	}
}

var podAnnotations = map[string]int{
	kubeapi.PodPortAnnotation: maxAsk, kubeapi.PodPathAnnotation: maxAsk, kubeapi.PodSchemeAnnotation: maxAsk,
}

// autoscalerAnnotations returns the limits of those annotations of an HPA that Parse reads. Of
// those that it does not know, the first ones are enough to find the mistake, and their values are
// not needed.
func autoscalerAnnotations(all map[string]string) map[string]int {
	limits := map[string]int{}
	for _, key := range annotations {
		limits[key] = maxAnnotation
	}
	var unknown []string
	for key := range all {
		if _, known := limits[key]; !known && strings.HasPrefix(key, kubeapi.AutoscalerPrefix) {
			unknown = append(unknown, key)
		}
	}
	slices.Sort(unknown)
	for _, key := range unknown[:min(len(unknown), maxMistakes)] {
		limits[key] = 0
	}
	return limits
}

// tooLong and tooLarge take the place of what exceeds maxMetric, and exceed it, too.
var (
	tooLong  = strings.Repeat(" ", maxMetric+1)
	tooLarge = &metav1.LabelSelector{MatchLabels: map[string]string{"": tooLong}}
)

// reduceMetrics removes from the metrics of an HPA what Parse does not read. One more than each
// limit allows is kept, so that it is still known that the limit is exceeded. Metrics of type External
// count towards maxEntries only: whether they count towards MaxMetrics depends on an annotation.
func reduceMetrics(all []autoscalingv2.MetricSpec, external bool) (kept []autoscalingv2.MetricSpec) {
	matching := 0
	for _, m := range all[:min(len(all), maxEntries+1)] {
		k := autoscalingv2.MetricSpec{Type: m.Type} // even if it is of another type: the index counts
		switch {
		case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
			matching++
			id, _ := reduceMetric(m.Pods.Metric, Reference{})
			k.Pods = &autoscalingv2.PodsMetricSource{Metric: id}
		case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
			matching++
			id, object := reduceMetric(m.Object.Metric, m.Object.DescribedObject)
			k.Object = &autoscalingv2.ObjectMetricSource{Metric: id, DescribedObject: object}
		case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil && external:
			id, _ := reduceMetric(m.External.Metric, Reference{})
			k.External = &autoscalingv2.ExternalMetricSource{Metric: id}
		case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
			k.External = &autoscalingv2.ExternalMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: cut(m.External.Metric.Name, maxName)},
			}
		}
		kept = append(kept, k)
		if matching > MaxMetrics {
			break
		}
	}
	return kept
}

func reduceMetric(id autoscalingv2.MetricIdentifier, object Reference) (autoscalingv2.MetricIdentifier, Reference) {
	if sizeOf(id, object) > maxMetric {
		return autoscalingv2.MetricIdentifier{Name: cut(id.Name, maxName), Selector: tooLarge}, Reference{}
	}
	return id, object
}

// digest is what is kept of an HPA to see whether what Parse reads of it has changed.
type digest [sha256.Size]byte

// digestOf returns the digest of an HPA that is reduced.
func digestOf(o *autoscalingv2.HorizontalPodAutoscaler) digest {
	hash := sha256.New()
	// Neither the hash nor the encoder can fail: JSON has all types of an HPA.
	_ = json.NewEncoder(hash).Encode([]any{o.Annotations, o.Spec})
	return digest(hash.Sum(nil))
}

// ServicePort returns the name or number of the port of the pods behind a port of s, which is given by name or
// number. The error is an *Error.
func ServicePort(s *corev1.Service, want string) (string, error) {
	port, err := newService(s).port(s.Name, want)
	if err != nil {
		return "", err
	}
	return port, nil
}

// Pod returns what must be known of p to scrape it, nil if it is being deleted or has ended.
func Pod(p *corev1.Pod) *sample.Pod {
	if p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	pod := &sample.Pod{
		Object:      sample.Object{Namespace: p.Namespace, Name: p.Name},
		UID:         string(p.UID),
		IP:          p.Status.PodIP,
		HostNetwork: p.Spec.HostNetwork,
		Ask: sample.Ask{
			Port: p.Annotations[kubeapi.PodPortAnnotation], Path: p.Annotations[kubeapi.PodPathAnnotation],
			Scheme: p.Annotations[kubeapi.PodSchemeAnnotation],
		},
	}
	for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
		pod.Labels = append(pod.Labels, sample.Label{Key: key, Value: p.Labels[key]})
	}
	for _, c := range p.Status.Conditions {
		if c.Type != corev1.PodReady {
			continue
		}
		pod.Ready = c.Status == corev1.ConditionTrue
		pod.WasReady = pod.Ready ||
			p.Status.StartTime != nil && c.LastTransitionTime.After(p.Status.StartTime.Add(initialReadiness))
	}
	add := func(containers []corev1.Container, statuses []corev1.ContainerStatus, sidecars bool) {
		for _, c := range containers {
			if sidecars && (c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways) {
				continue
			}
			k := sample.PodContainer{Name: c.Name}
			for _, s := range statuses {
				if s.Name == c.Name && s.State.Running != nil {
					k.Started = s.State.Running.StartedAt.Time
				}
			}
			for _, port := range c.Ports {
				protocol := string(port.Protocol)
				if protocol == "" {
					protocol = string(corev1.ProtocolTCP)
				}
				k.Ports = append(k.Ports, sample.ContainerPort{Name: port.Name, Number: port.ContainerPort, Protocol: protocol})
			}
			pod.Containers = append(pod.Containers, k)
		}
	}
	add(p.Spec.Containers, p.Status.ContainerStatuses, false)
	add(p.Spec.InitContainers, p.Status.InitContainerStatuses, true)
	return pod
}

// service is what is kept of a Service. It is immutable.
type service struct {
	selector map[string]string
	ports    []corev1.ServicePort
}

// port returns the port of the pods behind a port of s, which is given by name or number.
func (s *service) port(name, want string) (string, *Error) {
	declared := make([]string, len(s.ports))
	for i, p := range s.ports {
		number := strconv.Itoa(int(p.Port))
		if (p.Name == want || number == want) && (p.Protocol == "" || p.Protocol == corev1.ProtocolTCP) {
			if p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal == 0 {
				return number, nil
			}
			return p.TargetPort.String(), nil
		}
		declared[i] = number
		if p.Name != "" {
			declared[i] = p.Name + "=" + number
		}
	}
	return "", newError(NoPort, "use one of its ports in annotation "+kubeapi.TargetsAnnotation,
		"Service %q has no TCP port %s, only %s", name, want, strings.Join(declared, ", "))
}

func newService(s *corev1.Service) *service {
	return &service{selector: s.Spec.Selector, ports: s.Spec.Ports}
}
