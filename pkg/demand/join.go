package demand

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
)

// join reports what has changed since the last call, and adjusts what is watched.
func (d *Demand) join(ctx context.Context, wg *sync.WaitGroup) {
	d.mu.Lock()
	dirty := slices.Sorted(maps.Keys(d.dirty))
	clear(d.dirty)
	d.watchLocked(ctx, wg)
	joined := make(map[string]map[Request]*Want, len(dirty))
	left := make(map[string]*unread, len(dirty))
	for _, name := range dirty {
		n := d.namespaces[name]
		if n == nil {
			joined[name], left[name] = nil, &unread{joined: true}
			continue
		}
		joined[name], left[name] = d.joinLocked(name, n)
		if len(n.hpas)+len(n.pods)+len(n.services)+len(joined[name]) == 0 {
			delete(d.namespaces, name)
		}
	}
	d.mu.Unlock()

	var changed []*Want
	var gone []Request
	d.published.Lock()
	for _, name := range dirty {
		old, wants := d.wants[name], joined[name]
		for r := range old {
			if wants[r] == nil {
				gone = append(gone, r)
			}
		}
		for r, w := range wants {
			if before := old[r]; before != nil && before.equal(w) {
				wants[r] = before
			} else {
				changed = append(changed, w)
			}
		}
		if d.wants[name] = wants; len(wants) == 0 {
			delete(d.wants, name)
		}
	}
	d.published.Unlock()
	for _, r := range gone {
		d.config.OnGone(r)
	}
	for _, w := range changed {
		d.config.OnWant(w)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, u := range left {
		d.shrinkLocked(name, u)
	}
}

// watchLocked watches pods and Services where they are needed.
func (d *Demand) watchLocked(ctx context.Context, wg *sync.WaitGroup) {
	pods, services := map[string]bool{}, map[string]bool{}
	for name, n := range d.namespaces {
		for _, h := range n.hpas {
			for i := range h.Metrics {
				if h.Metrics[i].Err != nil {
					continue
				}
				pods[name] = true
				if _, ok := serviceOf(&h.Metrics[i]); ok {
					services[name] = true
				}
			}
		}
		for u := range n.uses {
			if u.Service != "" {
				pods[u.Namespace], services[u.Namespace] = true, true
			}
		}
	}
	d.pods.needLocked(ctx, wg, pods)
	d.services.needLocked(ctx, wg, services)
}

// joinLocked returns what the HPAs of a namespace want, and what was not read yet.
func (d *Demand) joinLocked(name string, n *namespace) (map[Request]*Want, *unread) {
	j := joiner{
		Demand: d, namespace: n, name: name, used: map[target]bool{},
		left: &unread{joined: true, targets: map[target]bool{}},
		uses: map[use][]metav1.LabelSelectorRequirement{},
	}
	for _, s := range n.selections {
		s.used = false
	}
	wants := map[Request]*Want{}
	for _, hpa := range slices.Sorted(maps.Keys(n.hpas)) {
		h := n.hpas[hpa]
		for i := range h.Metrics {
			w := j.wantLocked(h, &h.Metrics[i])
			if first := wants[w.Request]; first != nil {
				first.merge(w)
			} else {
				wants[w.Request] = w
			}
		}
	}
	j.setUsesLocked()
	j.seriesLocked(wants)
	maps.DeleteFunc(n.selections, func(_ string, s *selection) bool { return !s.used })
	d.targets.retain(name, j.used)
	return wants, j.left
}

// joiner joins what is known of one namespace. Demand.mu is held.
type joiner struct {
	*Demand
	*namespace
	name string
	used map[target]bool
	left *unread

	uses      map[use][]metav1.LabelSelectorRequirement
	selectors int // how many of uses have one
}

func (j *joiner) wantLocked(h *HPA, m *Metric) *Want {
	w := &Want{
		Request: Request{Namespace: j.name, Resource: podsResource, Metric: m.Name, Selector: m.selector},
		Name:    m.Name, HPAs: []string{h.Name}, Type: m.Type, Requirements: m.Selector, Definition: m.Definition,
		ExpressionAt: m.ExpressionAt, Describes: m.Object, Err: m.Err, Undeclared: m.Undeclared,
	}
	if m.Type == autoscalingv2.ExternalMetricSourceType {
		w.Resource, w.Metric = schema.GroupResource{}, strings.ToLower(m.Name)
	}
	if j.namedLocked(h, m, w) {
		return w
	}
	if w.Backend = m.Source(j.defaultBackend); w.Backend != "" {
		j.remote(m, w)
	}
	if m.unrequested {
		w.Unresolved = h.Name
	}
	var unlisted *Error
	if m.Err == nil && (w.Backend == "" || m.Type == autoscalingv2.PodsMetricSourceType) { // else they are not needed
		if _, byService := serviceOf(m); byService {
			_ = j.failureLocked(j.Demand.services) // even if podsLocked returns before it asks
		}
		unlisted = j.failureLocked(j.Demand.pods)
	}
	pods, err := j.podsLocked(h, m, w)
	w.Err = cmp.Or(w.Err, err, unlisted)
	if w.Err == nil && len(pods) > j.config.MaxPods {
		w.Err = newError(OverLimit, "use a target with fewer pods, or raise --max-pods-per-metric",
			"%s has more than %d pods, which is the limit", w, j.config.MaxPods)
	}
	if w.Err == nil {
		w.Pods = pods
	}
	return w
}

// remote adjusts the Want of a metric that comes from a backend, so what the HPA says about scraping does not matter.
func (j *joiner) remote(m *Metric, w *Want) {
	w.Err = m.ErrIn(w.Backend)
	w.Undeclared = false
	w.Ask = sample.Ask{}
	if w.Expression == "" && !m.ownWindow {
		w.Window = RemoteWindow
	}
}

// podsLocked returns the pods of a metric, nil for a single value from a backend, and completes the Request of w.
func (j *joiner) podsLocked(h *HPA, m *Metric, w *Want) ([]*sample.Pod, *Error) {
	ref := h.Target
	if m.Type == autoscalingv2.ObjectMetricSourceType {
		ref, w.Object = m.Object, m.Object.Name
		if isCore(ref, "Namespace") {
			w.Object = j.name // the controller asks for its own namespace, whatever the name
		}
	}
	_, byService := serviceOf(m)
	single := w.Backend != "" && m.Type != autoscalingv2.PodsMetricSourceType // of a backend
	switch {
	case m.Type == autoscalingv2.ExternalMetricSourceType: // its value does not depend on the scale target
	case m.Type == autoscalingv2.ObjectMetricSourceType && isCore(ref, "Service"):
		w.Resource = schema.GroupResource{Resource: "services"}
	case m.Type == autoscalingv2.ObjectMetricSourceType && isCore(ref, "Pod"):
		if !byService && !single {
			return j.onlyPod(ref.Name)
		}
	default:
		t := target{namespace: j.name, Reference: ref, scale: !byService && !single}
		j.used[t] = true
		found := j.targets.get(t)
		switch {
		case found == nil:
			j.left.targets[t] = true
			w.Unresolved = h.Name
			return nil, newError(NotRead, "retry in a moment", "%s %q is still being read", ref.Kind, ref.Name)
		case found.resource.Empty():
			w.Unresolved = h.Name
		case m.Type == autoscalingv2.ObjectMetricSourceType:
			w.Resource = found.resource
		case found.err != nil:
			w.Unresolved = h.Name
		default:
			w.Request.Pods = canonical(found.selector)
		}
		if err := found.err; err != nil {
			hint := j.hintLocked(m.Name, found.resource)
			switch {
			case m.Type != autoscalingv2.ObjectMetricSourceType:
			case err.cause == NoScale:
				err = newError(NoScale, "name the Service whose pods to scrape in annotation "+kubeapi.TargetsAnnotation+
					", with a line "+strconv.Quote(m.Name+": service/NAME:PORT")+hint, "%s", err.text)
			case err.cause == Forbidden && hint != "":
				err = newError(Forbidden, err.remedy+hint, "%s", err.text)
			}
			return nil, err
		}
		if t.scale {
			pods := j.selected(found.selector)
			j.targets.setPodless(t, len(pods) == 0 && j.Demand.pods.failureLocked(j.name) == nil)
			return pods, nil
		}
	}
	if single {
		return nil, nil
	}
	return j.serviceLocked(m, w)
}

// failureLocked returns why the objects of from are not all known in the namespace, nil if they are.
func (j *joiner) failureLocked(from *scopes) *Error {
	err := from.failureLocked(j.name)
	if err != nil && err.cause == NotRead {
		j.left.watches = true
	}
	return err
}

func (j *joiner) onlyPod(name string) ([]*sample.Pod, *Error) {
	if p := j.namespace.pods[name]; p != nil {
		return []*sample.Pod{p}, nil
	}
	return nil, newError(NoTarget, "correct spec.metrics of the HorizontalPodAutoscaler",
		"pod %q does not exist or has ended", name)
}

// serviceLocked returns the pods of a Service, and gives w its port.
func (j *joiner) serviceLocked(m *Metric, w *Want) ([]*sample.Pod, *Error) {
	name, _ := serviceOf(m)
	if err := j.Demand.services.failureLocked(j.name); err != nil {
		return nil, err
	}
	s := j.namespace.services[name]
	switch {
	case s == nil:
		return nil, newError(NoTarget, "create it or correct the reference", "Service %q does not exist", name)
	case len(s.selector) == 0:
		return nil, newError(NoSelector, "use a Service that has one; annotation "+kubeapi.TargetsAnnotation+" can name it",
			"Service %q has no pod selector", name)
	}
	if m.Service != "" {
		port, err := s.port(name, m.ServicePort)
		if err != nil {
			return nil, err
		}
		w.Ask.Port = port
	}
	return j.selected(labels.SelectorFromSet(s.selector)), nil
}

// serviceOf returns the Service that selects the pods of m, if a Service does.
func serviceOf(m *Metric) (name string, ok bool) {
	if m.Service != "" {
		return m.Service, true
	}
	return m.Object.Name, isCore(m.Object, "Service")
}

// isCore reports whether r is of a kind of the core group. As to the HPA controller, the version does not matter.
func isCore(r Reference, kind string) bool {
	return r.Kind == kind && schema.FromAPIVersionAndKind(r.APIVersion, r.Kind).Group == ""
}
