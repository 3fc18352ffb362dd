package hpa

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// noOwner stands for the owner of a pod that no workload created.
const noOwner = "nobody"

// maxOwners is how many objects may be between a pod and the target: two for a Deployment.
const maxOwners = 5

type ownerKey struct{ apiVersion, kind, name string }

func (k ownerKey) String() string { return k.kind + " " + k.name }

// owner is what was read of an object that controls others.
type owner struct {
	refs []metav1.OwnerReference // of the object
	err  error                   // why they are not known
}

// overlap notes which pods do not belong to the target. A pod whose owners cannot be read
// is taken to belong to it.
func (e *examination) overlap(ctx context.Context) {
	for i, p := range e.pods {
		e.out.Pods[i].Owner = e.otherOwner(ctx, p.OwnerReferences)
	}
	// The program behind a custom resource need not name it as an owner of what it creates.
	belongs := func(p Pod) bool { return p.Owner == "" }
	if g := group(e.hpa.Spec.ScaleTargetRef.APIVersion); g != "" && g != "apps" &&
		!slices.ContainsFunc(e.out.Pods, belongs) {
		for i := range e.out.Pods {
			e.out.Pods[i].Owner = ""
		}
	}
}

// otherOwner returns what owns an object with these references, "" if that is the target or unknown.
func (e *examination) otherOwner(ctx context.Context, refs []metav1.OwnerReference) string {
	name := noOwner
	for range maxOwners {
		// A custom resource may own objects without being their controller.
		if slices.ContainsFunc(refs, e.isTarget) {
			return ""
		}
		key := controllerOf(refs)
		if key == nil {
			return name
		}
		o := e.owner(ctx, *key)
		if o.err != nil {
			return ""
		}
		name, refs = key.String(), o.refs
	}
	return ""
}

func (e *examination) isTarget(r metav1.OwnerReference) bool {
	ref := e.hpa.Spec.ScaleTargetRef
	return r.Kind == ref.Kind && r.Name == ref.Name && group(r.APIVersion) == group(ref.APIVersion)
}

func group(apiVersion string) string {
	v, _ := schema.ParseGroupVersion(apiVersion) // of an object that exists, so it is valid
	return v.Group
}

func controllerOf(refs []metav1.OwnerReference) *ownerKey {
	for _, r := range refs {
		if r.Controller != nil && *r.Controller {
			return &ownerKey{r.APIVersion, r.Kind, r.Name}
		}
	}
	return nil
}

// owner reads which object controls another one.
func (e *examination) owner(ctx context.Context, key ownerKey) *owner {
	if known := e.owners[key]; known != nil {
		return known
	}
	o := &owner{}
	e.owners[key] = o
	// The version may not be served any more.
	m, err := e.api.mapper.RESTMapping(schema.GroupKind{Group: group(key.apiVersion), Kind: key.kind})
	if err != nil {
		o.err = err
		return o
	}
	object, err := e.api.metadata.Resource(m.Resource).Namespace(e.hpa.Namespace).Get(ctx, key.name, metav1.GetOptions{})
	if err != nil {
		o.err = err
		return o
	}
	o.refs = object.OwnerReferences
	return o
}
