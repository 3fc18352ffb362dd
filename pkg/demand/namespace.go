package demand

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"metrics-server/pkg/sample"
)

type namespace struct {
	hpas       map[string]*HPA   // those with metrics for this server
	from       map[string]digest // of what each of hpas was parsed from
	pods       map[string]*sample.Pod
	services   map[string]*service
	selections map[string]*selection // by the canonical text of their selector
	// uses are the Named metrics that hpas refer to, with the selectors of these.
	uses map[use][]metav1.LabelSelectorRequirement
}

func (d *Demand) namespaceLocked(name string) *namespace {
	n := d.namespaces[name]
	if n == nil {
		n = &namespace{
			hpas: map[string]*HPA{}, from: map[string]digest{},
			pods: map[string]*sample.Pod{}, services: map[string]*service{}, selections: map[string]*selection{},
		}
		d.namespaces[name] = n
	}
	return n
}

// selected returns the pods that s selects. Demand.mu is held.
func (n *namespace) selected(s labels.Selector) []*sample.Pod {
	key := canonical(s)
	known := n.selections[key]
	if known == nil {
		known = &selection{selector: s, pods: map[string]*sample.Pod{}}
		for _, p := range n.pods {
			known.set(p)
		}
		n.selections[key] = known
	}
	known.used = true
	return known.list()
}

// describesPod reports whether a metric of type Object is about the pod.
func (n *namespace) describesPod(name string) bool {
	for _, h := range n.hpas {
		for i := range h.Metrics {
			if o := h.Metrics[i].Object; isCore(o, "Pod") && o.Name == name {
				return true
			}
		}
	}
	return false
}

// selection is the set of pods that a selector selects.
type selection struct {
	selector labels.Selector
	pods     map[string]*sample.Pod
	sorted   []*sample.Pod // pods by name; nil after a change. Never changed, as Wants have it
	used     bool
}

// set adds, replaces or removes p, and reports whether that changed anything.
func (s *selection) set(p *sample.Pod) bool {
	if !s.selector.Matches(p.Labels) {
		return s.remove(p.Name)
	}
	s.pods[p.Name], s.sorted = p, nil
	return true
}

func (s *selection) remove(name string) bool {
	if s.pods[name] == nil {
		return false
	}
	delete(s.pods, name)
	s.sorted = nil
	return true
}

func (s *selection) list() []*sample.Pod {
	if s.sorted == nil {
		s.sorted = make([]*sample.Pod, 0, len(s.pods))
		for _, name := range slices.Sorted(maps.Keys(s.pods)) {
			s.sorted = append(s.sorted, s.pods[name])
		}
	}
	return s.sorted
}
