package hpa

import (
	"context"

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
	controller *ownerKey // of the object; nil if it has none
	err        error     // why that is not known
}

// overlap notes which pods do not belong to the target. A pod whose owners cannot be read
// is taken to belong to it.
func (e *examination) overlap(ctx context.Context) {
	ref := e.hpa.Spec.ScaleTargetRef
	for i, p := range e.pods {
		key := controllerOf(p.OwnerReferences)
		if key == nil {
			e.out.Pods[i].Owner = noOwner
			continue
		}
		for range maxOwners {
			if key.kind == ref.Kind && key.name == ref.Name && group(key.apiVersion) == group(ref.APIVersion) {
				break
			}
			next := e.owner(ctx, *key)
			if next.err != nil {
				break
			}
			if next.controller == nil {
				e.out.Pods[i].Owner = key.String()
				break
			}
			key = next.controller
		}
	}
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
	o.controller = controllerOf(object.OwnerReferences)
	return o
}
