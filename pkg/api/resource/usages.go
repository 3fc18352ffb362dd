package resource

import (
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/metrics/pkg/apis/metrics"

	"metrics-server/pkg/sample"
)

// swap is the resource name that kubectl top --show-swap reads.
const swap corev1.ResourceName = "swap"

// usages are the values of both resources. The usage of a node is represented as that of a pod with
// one container, so that one type serves both.
type usages struct{ metrics *ownMetrics }

// Exists implements api.ItemEncoder.
func (usages) Exists(u *sample.PodUsage) bool { return len(u.Containers) > 0 }

// Revision implements api.ItemEncoder.
func (usages) Revision(u *sample.PodUsage) sample.Revision { return u.Revision }

// Time implements api.ItemEncoder. The creation timestamp is the time of the sample rather than of
// the request, so equal samples produce equal responses.
func (usages) Time(u *sample.PodUsage) time.Time { return timeOf(u) }

func timeOf(u *sample.PodUsage) time.Time {
	if len(u.Containers) == 0 { // the object was deleted
		return time.Time{}
	}
	return u.Time.Std()
}

// NodeOf implements api.Resource.
func (usages) NodeOf(u *sample.PodUsage) (string, sample.Revision) { return u.Node, u.NodeSince }

// Served implements api.Resource.
func (u usages) Served(of *sample.PodUsage, now time.Time) { u.metrics.served(of.Time, now) }

// StandardSize implements api.Resource.
func (usages) StandardSize(u *sample.PodUsage) int64 { return 4<<10 + int64(len(u.Containers))*2<<10 }

// GetSingularName implements rest.SingularNameProvider for both resources. Without a singular name,
// clients use the lower-case kind, so kubectl get podmetrics and kubectl describe nodemetrics work.
// With one, only the singular name would work.
func (usages) GetSingularName() string { return "" }

// nodes is the cluster-scoped resource nodes. It implements api.Resource.
type nodes struct {
	usages
	NodeReader
	ScrapeReader
}

func (nodes) GroupResource() schema.GroupResource { return metrics.Resource("nodes") }
func (nodes) Kind() string                        { return "NodeMetrics" }
func (nodes) NamespaceScoped() bool               { return false }

func (n nodes) Read(of []sample.Object, now time.Time, into []sample.PodUsage) {
	for i := range of {
		containers := into[i].Containers[:0]
		u, ok := n.Node(of[i].Name, now)
		if ok {
			containers = append(containers, sample.ContainerUsage{Usage: u.Usage})
		}
		into[i] = sample.PodUsage{
			Node: of[i].Name, Time: u.Time, Window: u.Window, Containers: containers, Revision: u.Revision,
		}
	}
}

func (n nodes) Why(o *sample.Object, now time.Time) string {
	why := n.WhyNoNode(o.Name, now)
	switch s := n.Scrape(o.Name); {
	case why == "":
	case s.Err != "":
		why += "; the last scrape failed: " + s.Err
	case s.Lacks != "":
		why += "; " + s.Lacks
	}
	return why
}

func (nodes) Fill(into *metrics.NodeMetrics, o *sample.Object, u *sample.PodUsage) {
	into.ObjectMeta, into.Timestamp, into.Window = header(o, u)
	if into.Usage = (corev1.ResourceList{}); len(u.Containers) > 0 {
		into.Usage = resourceList(&u.Containers[0].Usage)
	}
}

func (nodes) List(items []metrics.NodeMetrics) runtime.Object {
	return &metrics.NodeMetricsList{Items: items}
}

func (nodes) Items(list runtime.Object) []metrics.NodeMetrics {
	return list.(*metrics.NodeMetricsList).Items
}

// pods is the namespaced resource pods. It implements api.Resource.
type pods struct {
	usages
	PodReader
}

func (pods) GroupResource() schema.GroupResource { return metrics.Resource("pods") }
func (pods) Kind() string                        { return "PodMetrics" }
func (pods) NamespaceScoped() bool               { return true }

func (p pods) Read(of []sample.Object, now time.Time, into []sample.PodUsage) { p.Pods(of, now, into) }

func (p pods) Why(o *sample.Object, now time.Time) string {
	return p.WhyNoPod(o.Namespace, o.Name, now)
}

func (pods) Fill(into *metrics.PodMetrics, o *sample.Object, u *sample.PodUsage) {
	into.ObjectMeta, into.Timestamp, into.Window = header(o, u)
	into.Containers = make([]metrics.ContainerMetrics, len(u.Containers))
	for i := range u.Containers {
		c := &u.Containers[i]
		into.Containers[i] = metrics.ContainerMetrics{Name: c.Name, Usage: resourceList(&c.Usage)}
	}
}

func (pods) List(items []metrics.PodMetrics) runtime.Object {
	return &metrics.PodMetricsList{Items: items}
}

func (pods) Items(list runtime.Object) []metrics.PodMetrics {
	return list.(*metrics.PodMetricsList).Items
}

// header builds the fields that nodes and pods have in common.
func header(o *sample.Object, u *sample.PodUsage) (metav1.ObjectMeta, metav1.Time, metav1.Duration) {
	t := metav1.Time{Time: timeOf(u)}
	meta := metav1.ObjectMeta{
		Namespace: o.Namespace, Name: o.Name, Labels: o.Labels.Map(), CreationTimestamp: t,
	}
	return meta, t, metav1.Duration{Duration: roundWindow(u.Window)}
}

func roundWindow(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// resourceList builds a usage with the quantity formats that clients rely on: CPU in nanocores,
// memory in binary units.
func resourceList(u *sample.Usage) corev1.ResourceList {
	l := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(signed(u.CPU), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(signed(u.Memory), resource.BinarySI),
	}
	if u.HasSwap {
		l[swap] = *resource.NewQuantity(signed(u.Swap), resource.BinarySI)
	}
	return l
}

// signed converts v to int64, saturating at math.MaxInt64.
func signed(v uint64) int64 { return int64(min(v, math.MaxInt64)) }
