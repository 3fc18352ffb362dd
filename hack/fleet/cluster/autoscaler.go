package cluster

import (
	"cmp"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Autoscaler is a HorizontalPodAutoscaler. It has the namespace and the name of the workload that it scales.
type Autoscaler struct {
	*Workload
	Metrics     []autoscalingv2.MetricSpec
	Annotations map[string]string
	Version     uint64
}

func (a *Autoscaler) compare(b *Autoscaler) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// Workloads returns all workloads that have pods, sorted by namespace and name.
func (s *Cluster) Workloads() []*Workload {
	seen := map[*Workload]bool{}
	var all []*Workload
	pods, _ := s.Pods("")
	for _, p := range pods {
		if !seen[p.Workload] {
			seen[p.Workload] = true
			all = append(all, p.Workload)
		}
	}
	slices.SortFunc(all, func(a, b *Workload) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return all
}

// AddAutoscaler adds an autoscaler with one metric of type Pods for w, which has none.
func (s *Cluster) AddAutoscaler(w *Workload, metric string) {
	s.AddAutoscalerWith(w, nil, PodsMetric(metric))
}

// PodsMetric returns a metric of type Pods.
func PodsMetric(name string) autoscalingv2.MetricSpec {
	average := resource.MustParse("100")
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.PodsMetricSourceType,
		Pods: &autoscalingv2.PodsMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: name},
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &average},
		},
	}
}

// AddAutoscalerWith adds an autoscaler with annotations for w, which has none.
func (s *Cluster) AddAutoscalerWith(
	w *Workload, annotations map[string]string, metrics ...autoscalingv2.MetricSpec,
) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	a := &Autoscaler{Workload: w, Metrics: metrics, Annotations: annotations, Version: s.version}
	i, _ := slices.BinarySearchFunc(s.autoscalers, a, (*Autoscaler).compare)
	s.autoscalers = slices.Insert(slices.Clone(s.autoscalers), i, a)
	s.AutoscalerLog.add(Event{Type: "ADDED", Version: s.version, Object: a})
}

// RemoveAutoscaler removes the autoscaler of w.
func (s *Cluster) RemoveAutoscaler(w *Workload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := slices.BinarySearchFunc(s.autoscalers, &Autoscaler{Workload: w}, (*Autoscaler).compare)
	if !ok {
		return
	}
	s.version++
	gone := *s.autoscalers[i]
	gone.Version = s.version
	s.autoscalers = slices.Delete(slices.Clone(s.autoscalers), i, i+1)
	s.AutoscalerLog.add(Event{Type: "DELETED", Version: s.version, Object: &gone})
}

// Autoscalers returns the autoscalers of a namespace, or of all if it is empty, sorted, and the version that this is.
func (s *Cluster) Autoscalers(in string) ([]*Autoscaler, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if in == "" {
		return s.autoscalers, s.version
	}
	var some []*Autoscaler
	for _, a := range s.autoscalers {
		if a.Namespace == in {
			some = append(some, a)
		}
	}
	return some, s.version
}

// Autoscaler returns an autoscaler, or nil.
func (s *Cluster) Autoscaler(in, name string) *Autoscaler {
	s.mu.RLock()
	defer s.mu.RUnlock()
	want := &Autoscaler{Workload: &Workload{Namespace: in, Name: name}}
	if i, ok := slices.BinarySearchFunc(s.autoscalers, want, (*Autoscaler).compare); ok {
		return s.autoscalers[i]
	}
	return nil
}
