package apiserver

import (
	"iter"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"metrics-server/pkg/kubeapi"
)

// item is an object of a collection.
type item struct {
	key
	of      string // the resource, with its group
	version uint64
	labels  map[string]string
	fields  fields.Set
	// make makes the object, with a version of its API and a version of its own. mu must be held.
	make func(apiVersion string, version uint64) object
}

// collection is a resource that is listed and watched.
type collection struct {
	group, version, name, kind string
	short                      string
	namespaced                 bool
	listOnly                   bool // no watch, and no resourceVersion
	// items yields the items of a namespace, "" for all, after a key and newer than a version, in order. mu must be held.
	items func(namespace string, after key, since uint64) iter.Seq[item]
}

func (c *collection) resource() string { return resourceOf(c.group, c.name) }

func (c *collection) apiVersion() string { return apiVersionOf(c.group, c.version) }

func resourceOf(group, name string) string {
	if group == "" {
		return name
	}
	return name + "." + group
}

func apiVersionOf(group, version string) string {
	if group == "" {
		return version
	}
	return group + "/" + version
}

const (
	podMetrics  = "pods." + kubeapi.MetricsGroup
	nodeMetrics = "nodes." + kubeapi.MetricsGroup
)

func (s *Server) collections() []*collection {
	all := []*collection{
		{version: "v1", name: "nodes", kind: "Node", short: "no", items: s.nodeItems(func(n *node) (item, bool) {
			return nodeItem(n), true
		})},
		{
			version: "v1", name: "pods", kind: "Pod", short: "po", namespaced: true,
			items: s.podItems(func(p *pod) (item, bool) { return podItem(p), true }),
		},
		{
			group: "autoscaling", version: "v2", name: "horizontalpodautoscalers", kind: "HorizontalPodAutoscaler",
			short: "hpa", namespaced: true, items: s.scalerItems,
		},
	}
	for _, version := range s.metricsVersions() {
		all = append(all,
			&collection{
				group: kubeapi.MetricsGroup, version: version, name: "nodes", kind: "NodeMetrics", listOnly: s.config.Incumbent,
				items: s.nodeItems(func(n *node) (item, bool) { return s.nodeUsageItem(n), !n.stopped }),
			},
			&collection{
				group: kubeapi.MetricsGroup, version: version, name: "pods", kind: "PodMetrics", namespaced: true,
				listOnly: s.config.Incumbent,
				items:    s.podItems(func(p *pod) (item, bool) { return s.podUsageItem(p), p.used() }),
			},
		)
	}
	return all
}

func (s *Server) metricsVersions() []string {
	if s.config.Incumbent {
		return []string{"v1beta1"}
	}
	return []string{"v1", "v1beta1"}
}

func (s *Server) nodeItems(of func(*node) (item, bool)) func(string, key, uint64) iter.Seq[item] {
	return func(_ string, after key, since uint64) iter.Seq[item] {
		return func(yield func(item) bool) {
			for _, n := range s.nodes {
				if n.name <= after.name {
					continue
				}
				if it, ok := of(n); ok && it.version > since && !yield(it) {
					return
				}
			}
		}
	}
}

func (s *Server) podItems(of func(*pod) (item, bool)) func(string, key, uint64) iter.Seq[item] {
	return func(namespace string, after key, since uint64) iter.Seq[item] {
		if after.namespace < namespace {
			after = key{namespace, ""}
		}
		return func(yield func(item) bool) {
			from, _ := slices.BinarySearchFunc(s.pods, after, func(o *pod, k key) int { return o.compare(k) })
			for _, p := range s.pods[from:] {
				if namespace != "" && p.namespace != namespace {
					return
				}
				if p.key == after || p.version <= since && p.node.sampleVersion <= since {
					continue
				}
				if it, ok := of(p); ok && it.version > since && !yield(it) {
					return
				}
			}
		}
	}
}

func (s *Server) scalerItems(namespace string, after key, since uint64) iter.Seq[item] {
	return func(yield func(item) bool) {
		for _, h := range s.scalers {
			if h.version > since && h.compare(after) > 0 && (namespace == "" || h.namespace == namespace) &&
				!yield(scalerItem(h)) {
				return
			}
		}
	}
}

func nodeItem(n *node) item {
	return item{
		key: key{name: n.name}, of: "nodes", version: n.version, labels: nodeLabels(n),
		fields: fields.Set{"metadata.name": n.name},
		make:   func(_ string, version uint64) object { return nodeObject(n, version) },
	}
}

func podItem(p *pod) item {
	return item{
		key: p.key, of: "pods", version: p.version, labels: podLabels(p),
		fields: fields.Set{
			"metadata.name": p.name, "metadata.namespace": p.namespace, "spec.nodeName": p.node.name,
			"status.phase": string(corev1.PodRunning),
		},
		make: func(_ string, version uint64) object { return podObject(p, version) },
	}
}

func scalerItem(h *scaler) item {
	return item{
		key: h.key, of: "horizontalpodautoscalers.autoscaling", version: h.version,
		fields: fields.Set{"metadata.name": h.name, "metadata.namespace": h.namespace},
		make:   func(_ string, version uint64) object { return scalerObject(h, version) },
	}
}

func (s *Server) nodeUsageItem(n *node) item {
	return item{
		key: key{name: n.name}, of: nodeMetrics, version: n.sampleVersion, labels: nodeLabels(n),
		fields: fields.Set{"metadata.name": n.name},
		make: func(apiVersion string, version uint64) object {
			return s.nodeUsageObject(n, apiVersion, version)
		},
	}
}

func (s *Server) podUsageItem(p *pod) item {
	return item{
		key: p.key, of: podMetrics, version: p.node.sampleVersion, labels: podLabels(p),
		fields: fields.Set{"metadata.name": p.name, "metadata.namespace": p.namespace},
		make: func(apiVersion string, version uint64) object {
			return s.podUsageObject(p, apiVersion, version)
		},
	}
}

// eventType is the type of a watch event.
type eventType string

const (
	added      eventType = "ADDED"
	modified   eventType = "MODIFIED"
	deleted    eventType = "DELETED"
	bookmarked eventType = "BOOKMARK"
	failed     eventType = "ERROR"
)

// change is an event for watches. Changes of usage are not recorded: watches find them by their versions.
type change struct {
	eventType
	item
}

// maxLog is how many changes a watch may fall behind.
const maxLog = 20_000

// record notes a change, and returns the version of the object after it.
func (s *Server) record(t eventType, it item) uint64 {
	s.version++
	it.version = s.version
	s.log = append(s.log, change{t, it})
	if len(s.log) > maxLog {
		s.oldest = s.log[maxLog/2].version
		s.log = slices.Clone(s.log[maxLog/2+1:])
	}
	return s.version
}

// notifyLocked wakes the watches.
func (s *Server) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// metaOf returns the metadata of an object.
func metaOf(k key, version uint64, created time.Time, labels map[string]string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Namespace: k.namespace, Name: k.name, CreationTimestamp: metav1.NewTime(created), Labels: labels,
	}
	if version != 0 {
		m.ResourceVersion = strconv.FormatUint(version, 10)
	}
	return m
}
