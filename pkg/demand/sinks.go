package demand

import (
	"maps"
	"reflect"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"metrics-server/pkg/sample"
)

type hpaSink struct{ *Demand }

// parsed is what is kept of an HPA.
type parsed struct {
	from digest
	hpa  *HPA
}

// read returns nil if only the status has changed, as it does every few seconds.
func (d hpaSink) read(object runtime.Object) any {
	o, ok := object.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return nil
	}
	reduce(o, d.config.External)
	from := digestOf(o)
	if d.knows(o.Namespace, o.Name, from) {
		return nil
	}
	return parsed{from, Parse(o, d.config.External)}
}

// knows reports whether the known state of an HPA was parsed from an object with this digest.
func (d hpaSink) knows(namespace, name string, from digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.namespaces[namespace]
	return n != nil && n.hpas[name] != nil && n.from[name] == from
}

func (d hpaSink) setLocked(namespace, name string, kept any) {
	if p, ok := kept.(parsed); ok {
		n := d.namespaceLocked(namespace)
		n.from[name], n.hpas[name] = p.from, p.hpa
		d.dirtyLocked(namespace)
	}
}

func (d hpaSink) removeLocked(namespace, name string) {
	n := d.namespaceLocked(namespace)
	delete(n.from, name)
	delete(n.hpas, name)
	d.dirtyLocked(namespace)
}

func (hpaSink) namesLocked(n *namespace) []string { return slices.Collect(maps.Keys(n.hpas)) }

type podSink struct{ *Demand }

func (podSink) read(object runtime.Object) any {
	if o, ok := object.(*corev1.Pod); ok {
		reduce(o, false)
		return Pod(o)
	}
	return nil
}

func (d podSink) setLocked(namespace, name string, kept any) {
	p, _ := kept.(*sample.Pod)
	if p == nil { // it is being deleted or has ended
		d.removeLocked(namespace, name)
		return
	}
	n := d.namespaceLocked(namespace)
	old := n.pods[name]
	p.WasReady = p.WasReady || old != nil && old.UID == p.UID && old.WasReady
	if old != nil && reflect.DeepEqual(old, p) {
		return
	}
	n.pods[name] = p
	changed := len(n.hpas) > 0 && n.describesPod(name)
	for _, s := range n.selections {
		changed = s.set(p) || changed
	}
	if changed {
		d.dirtyLocked(namespace)
	}
}

func (d podSink) removeLocked(namespace, name string) {
	n := d.namespaces[namespace]
	if n == nil || n.pods[name] == nil {
		return
	}
	delete(n.pods, name)
	d.dirtyLocked(namespace)
	for _, s := range n.selections {
		s.remove(name)
	}
}

func (podSink) namesLocked(n *namespace) []string { return slices.Collect(maps.Keys(n.pods)) }

type serviceSink struct{ *Demand }

func (serviceSink) read(object runtime.Object) any {
	if o, ok := object.(*corev1.Service); ok {
		return newService(o)
	}
	return nil
}

func (d serviceSink) setLocked(namespace, name string, kept any) {
	s, ok := kept.(*service)
	if !ok {
		return
	}
	n := d.namespaceLocked(namespace)
	if old := n.services[name]; old != nil && reflect.DeepEqual(old, s) {
		return
	}
	n.services[name] = s
	d.dirtyLocked(namespace)
}

func (d serviceSink) removeLocked(namespace, name string) {
	if n := d.namespaces[namespace]; n != nil {
		delete(n.services, name)
		d.dirtyLocked(namespace)
	}
}

func (serviceSink) namesLocked(n *namespace) []string { return slices.Collect(maps.Keys(n.services)) }
