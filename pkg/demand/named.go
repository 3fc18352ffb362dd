package demand

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/near"
	"metrics-server/pkg/sample"
)

// Named is a metric of type Object that an administrator names. One expression over the series of all namespaces has
// the values of all objects, and two of its labels say to which object a value belongs.
type Named struct {
	Name     string
	Resource schema.GroupResource // of the objects
	// Backend is the name of the backend that has the series. If it is empty, the pods of a Service expose them.
	Backend                         string
	Namespace, Service, ServicePort string     // of the pods; empty with Backend
	Ask                             sample.Ask // path and scheme at which the pods are scraped

	Expression                string
	NamespaceLabel, NameLabel string // the labels that have namespace and name of the object
	// MissingIsZero says that the value of an object without a series is 0 if others have one.
	MissingIsZero bool
}

// NamedInFile is a phrase in all errors of metrics that an administrator names.
const NamedInFile = "named in the administrator's file"

// Definition returns the definition of the Want that has the values of all objects.
func (n *Named) Definition() Definition {
	return Definition{
		Named: n, Expression: n.Expression, Service: n.Service, ServicePort: n.ServicePort, Ask: n.Ask, Backend: n.Backend,
	}
}

// By returns the labels that tell objects apart.
func (n *Named) By() []string { return []string{n.NamespaceLabel, n.NameLabel} }

// series returns the Request of the Want that has the values of all objects.
func (n *Named) series(selector string) Request {
	return Request{Namespace: n.Namespace, Resource: n.Resource, Metric: n.Name, Selector: selector, Series: true}
}

// SeriesOf returns the Request of the Want that has the values of all objects, for a Want with Named.
func (w *Want) SeriesOf() Request { return w.Named.series(w.Selector) }

// maxSelectors is how many selectors a namespace may add to metrics that an administrator names. A selector counts once
// for each metric, because each takes another evaluation over all series of the metric.
const maxSelectors = 5

// use is a Named metric that HPAs refer to, and their metric.selector.
type use struct {
	*Named
	selector string
}

// SetNamed sets the metrics that an administrator names. No two of them have the same Name and Resource.
func (d *Demand) SetNamed(all []Named) {
	named, sources := map[string][]*Named{}, map[string]bool{}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range all {
		n := &all[i]
		if same := slices.IndexFunc(d.named[n.Name], func(old *Named) bool { return *old == *n }); same >= 0 {
			n = d.named[n.Name][same] // so that what uses it does not change
		}
		named[n.Name] = append(named[n.Name], n)
		sources[n.Namespace] = true
	}
	if !maps.EqualFunc(d.named, named, slices.Equal) {
		d.named, d.sources = named, sources
		d.allDirtyLocked("")
	}
}

// mayBeNamed reports whether a metric may be one that an administrator names: its HPA itself says neither what it means
// nor where it comes from.
func (m *Metric) mayBeNamed() bool {
	return m.Type == autoscalingv2.ObjectMetricSourceType && m.Err == nil && m.Service == "" && m.Backend == "" &&
		m.Expression == "" && !isCore(m.Object, "Pod")
}

// NamedAs returns the element of all that defines m, whose object is of the given resource, or nil.
func (m *Metric) NamedAs(all []*Named, resource schema.GroupResource) *Named {
	i := slices.IndexFunc(all, func(n *Named) bool { return n.Name == m.Name && n.Resource == resource })
	if i < 0 || !m.mayBeNamed() {
		return nil
	}
	return all[i]
}

// namedLocked completes w if m is a metric that an administrator names, and reports whether it is or may be one.
func (j *joiner) namedLocked(h *HPA, m *Metric, w *Want) bool {
	all := j.named[m.Name]
	if len(all) == 0 || !m.mayBeNamed() {
		return false
	}
	resource := schema.GroupResource{Resource: "services"}
	if !isCore(m.Object, "Service") {
		t := target{namespace: j.name, Reference: m.Object}
		j.used[t] = true
		found := j.targets.get(t)
		if found == nil {
			j.left.targets[t] = true
			w.Object, w.Unresolved = m.Object.Name, h.Name
			w.Err = newError(NotRead, "retry in a moment", "%s %q is still being read", m.Object.Kind, m.Object.Name)
			return true
		}
		resource = found.resource
	}
	n := m.NamedAs(all, resource)
	if n == nil {
		return false
	}
	w.Resource, w.Object, w.Definition = resource, m.Object.Name, Definition{Named: n}
	u := use{n, m.selector}
	if _, known := j.uses[u]; !known {
		if m.selector != "" {
			if j.selectors == maxSelectors {
				w.Err = newError(OverLimit, "use fewer, or the metrics without a selector", "the HorizontalPodAutoscalers of "+
					"namespace %q use metrics "+NamedInFile+" with more than %d selectors, which is the limit; a selector counts "+
					"once for each metric", j.name, maxSelectors)
				return true
			}
			j.selectors++
		}
		j.uses[u] = m.Selector
	}
	return true
}

// setUsesLocked records which named metrics the HPAs of a namespace use. If that has changed, it marks the namespaces
// of the gateways' pods to be joined again.
func (j *joiner) setUsesLocked() {
	changed := func(from, to map[use][]metav1.LabelSelectorRequirement) {
		for u := range from {
			if _, same := to[u]; same {
				continue
			}
			j.namespaceLocked(u.Namespace)
			j.dirtyLocked(u.Namespace)
			if j.unread[j.name] != nil && j.unread[u.Namespace] == nil {
				j.unread[u.Namespace] = &unread{}
			}
		}
	}
	changed(j.uses, j.namespace.uses)
	changed(j.namespace.uses, j.uses)
	j.namespace.uses = j.uses
}

// seriesLocked adds the Wants with the values of all objects, of the metrics whose pods are in the namespace. The
// namespace "" has those of backends.
func (j *joiner) seriesLocked(wants map[Request]*Want) {
	if !j.sources[j.name] {
		return
	}
	for _, n := range j.namespaces {
		for u, requirements := range n.uses {
			r := u.series(u.selector)
			if u.Namespace != j.name || wants[r] != nil {
				continue
			}
			w := &Want{
				Request: r, Name: u.Name, Type: autoscalingv2.ObjectMetricSourceType, Requirements: requirements,
				Definition: u.Definition(), ExpressionAt: "the administrator's file",
			}
			wants[r] = w
			if u.Backend != "" {
				continue
			}
			_ = j.failureLocked(j.Demand.services)
			unlisted := j.failureLocked(j.Demand.pods)
			w.Pods, w.Err = j.serviceLocked(&Metric{Definition: w.Definition}, w)
			w.Err = cmp.Or(w.Err, unlisted)
			if w.Err == nil && len(w.Pods) > j.config.MaxPods {
				w.Err = newError(OverLimit, "", "the Service has more than %d pods, which is the limit", j.config.MaxPods)
			}
			if err := w.Err; err != nil {
				w.Pods = nil
				remedy := "an administrator has to correct it"
				if slices.Contains([]Cause{NotRead, Failing, Forbidden}, err.cause) {
					remedy = err.remedy // the file may be right
				}
				w.Err = newError(err.cause, remedy, "%s, "+NamedInFile+", has no values: in namespace %q, %s", w.Request,
					u.Namespace, err.text)
			}
		}
	}
}

// hintLocked returns which metrics are named for a resource, to be appended to a remedy.
func (j *joiner) hintLocked(name string, resource schema.GroupResource) string {
	var names []string
	for _, all := range j.named {
		for _, n := range all {
			if n.Resource == resource {
				names = append(names, n.Name)
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	if similar := near.Nearest(name, names); similar != "" {
		names = []string{similar}
	}
	const most = 10
	return fmt.Sprintf(", or use a metric that the administrator names for %s: %s", resource,
		strings.Join(names[:min(len(names), most)], ", "))
}
