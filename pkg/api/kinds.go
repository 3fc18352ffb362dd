package api

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

// swap is what kubectl top --show-swap looks for in a usage.
const swap corev1.ResourceName = "swap"

// nodes is the kind of the cluster-scoped resource nodes.
type nodes struct {
	NodeReader
	ScrapeReader
}

func (nodes) resource() schema.GroupResource { return metrics.Resource("nodes") }
func (nodes) GetSingularName() string        { return "node" }
func (nodes) kindName() string               { return "NodeMetrics" }
func (nodes) NamespaceScoped() bool          { return false }

func (n nodes) read(of []sample.Object, now time.Time, into []sample.PodUsage) {
	for i := range of {
		containers := into[i].Containers[:0]
		u, ok := n.Node(of[i].Name, now)
		if ok {
			containers = append(containers, sample.ContainerUsage{Usage: u.Usage})
		}
		into[i] = sample.PodUsage{Node: of[i].Name, Time: u.Time, Window: u.Window, Containers: containers}
	}
}

func (n nodes) why(o *sample.Object, now time.Time) string {
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

func (nodes) fill(into *metrics.NodeMetrics, o *sample.Object, u *sample.PodUsage) {
	into.ObjectMeta, into.Timestamp, into.Window = header(o, u)
	into.Usage = resourceList(&u.Containers[0].Usage)
}

func (nodes) list(items []metrics.NodeMetrics) runtime.Object {
	return &metrics.NodeMetricsList{Items: items}
}

func (nodes) items(list runtime.Object) []metrics.NodeMetrics {
	return list.(*metrics.NodeMetricsList).Items
}

func (nodes) cells(of *metrics.NodeMetrics) cells {
	c := cells{known: true, at: of.Timestamp.Time, window: of.Window.Duration}
	c.add(of.Usage)
	return c
}

// pods is the kind of the namespaced resource pods.
type pods struct{ PodReader }

func (pods) resource() schema.GroupResource { return metrics.Resource("pods") }
func (pods) GetSingularName() string        { return "pod" }
func (pods) kindName() string               { return "PodMetrics" }
func (pods) NamespaceScoped() bool          { return true }

func (p pods) read(of []sample.Object, now time.Time, into []sample.PodUsage) { p.Pods(of, now, into) }

func (p pods) why(o *sample.Object, now time.Time) string {
	return p.WhyNoPod(o.Namespace, o.Name, now)
}

func (pods) fill(into *metrics.PodMetrics, o *sample.Object, u *sample.PodUsage) {
	into.ObjectMeta, into.Timestamp, into.Window = header(o, u)
	into.Containers = make([]metrics.ContainerMetrics, len(u.Containers))
	for i := range u.Containers {
		c := &u.Containers[i]
		into.Containers[i] = metrics.ContainerMetrics{Name: c.Name, Usage: resourceList(&c.Usage)}
	}
}

func (pods) list(items []metrics.PodMetrics) runtime.Object {
	return &metrics.PodMetricsList{Items: items}
}

func (pods) items(list runtime.Object) []metrics.PodMetrics {
	return list.(*metrics.PodMetricsList).Items
}

func (pods) cells(of *metrics.PodMetrics) cells {
	c := cells{known: true, at: of.Timestamp.Time, window: of.Window.Duration}
	for i := range of.Containers {
		c.add(of.Containers[i].Usage)
	}
	return c
}

// header builds what nodes and pods have in common. The creation timestamp is the sample's time,
// not the request's: equal samples make equal answers.
func header(o *sample.Object, u *sample.PodUsage) (metav1.ObjectMeta, metav1.Time, metav1.Duration) {
	t := metav1.Time{Time: u.Time.Std()}
	meta := metav1.ObjectMeta{
		Namespace: o.Namespace, Name: o.Name, Labels: o.Labels.Map(), CreationTimestamp: t,
	}
	return meta, t, metav1.Duration{Duration: roundWindow(u.Window)}
}

func roundWindow(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// resourceList builds a usage with the quantities that clients have always got: CPU in nanocores,
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

// signed converts v, or gives the largest value there is if v is larger.
func signed(v uint64) int64 { return int64(min(v, math.MaxInt64)) }
