package demand

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"metrics-server/pkg/kubeapi"
)

// target is an object that must be resolved: to its resource and, with scale, to the selector of its pods.
type target struct {
	namespace string
	Reference
	scale bool
}

// resolved is what is known of a target. It is immutable.
type resolved struct {
	resource schema.GroupResource // empty if err says that the kind is unknown
	selector labels.Selector
	scale    bool // the scale was read, so that spec and status are its replicas
	spec     int64
	status   int64
	err      *Error
}

// Scale is what the scale of an object says.
type Scale struct {
	Resource     schema.GroupResource // of the object; empty if its kind is unknown
	Selector     labels.Selector      // of its pods
	Spec, Status int64                // spec.replicas and status.replicas
	Read         bool                 // whether the scale was read: Spec and Status are known then
}

// ReadScale reads the scale of an object once, as a Demand does. If there is an error, it is an *Error, and Scale
// has what is known nevertheless.
func ReadScale(ctx context.Context, client dynamic.Interface, mapper meta.RESTMapper, namespace string, of Reference,
) (Scale, error) {
	r := &scaleReader{dynamic: client, mapper: mapper}
	found := r.resolve(ctx, target{namespace: namespace, Reference: of, scale: true})
	s := Scale{
		Resource: found.resource, Selector: found.selector, Spec: found.spec, Status: found.status, Read: found.scale,
	}
	if found.err != nil {
		return s, found.err
	}
	return s, nil
}

// ReadResource returns the resource of an object. The error is an *Error.
func ReadResource(mapper meta.RESTMapper, of Reference) (schema.GroupResource, error) {
	m, err := (&scaleReader{mapper: mapper}).mapping(target{Reference: of})
	if err != nil {
		return schema.GroupResource{}, err
	}
	return m.Resource.GroupResource(), nil
}

// mapperRefresh is the least time between two reads of the discovery information. It is read again
// when a kind is unknown, because its definition may have been installed since, and when a kind has no
// scale, because the version in which it was read may have been removed since.
const mapperRefresh = 30 * time.Second

// scaleReader reads scales, and finds the resources of kinds.
type scaleReader struct {
	dynamic dynamic.Interface
	mapper  meta.RESTMapper

	mu      sync.Mutex
	refresh time.Time // of the mapper
}

func (r *scaleReader) resolve(ctx context.Context, t target) *resolved {
	found := r.resolveOnce(ctx, t)
	if found.err != nil && found.err.cause == NoScale && r.refreshMapper() {
		found = r.resolveOnce(ctx, t)
	}
	return found
}

func (r *scaleReader) resolveOnce(ctx context.Context, t target) *resolved {
	mapping, err := r.mapping(t)
	if err != nil {
		return &resolved{err: err}
	}
	found := &resolved{resource: mapping.Resource.GroupResource()}
	if !t.scale {
		return found
	}
	subject := fmt.Sprintf("%s %q", t.Kind, t.Name)
	object, getErr := r.dynamic.Resource(mapping.Resource).Namespace(t.namespace).Get(ctx, t.Name, metav1.GetOptions{},
		"scale")
	if getErr != nil {
		found.err = scaleError(getErr, subject, found.resource)
		return found
	}
	found.scale = true
	found.spec, _, _ = unstructured.NestedInt64(object.Object, "spec", "replicas")
	found.status, _, _ = unstructured.NestedInt64(object.Object, "status", "replicas")
	text, _, nestedErr := unstructured.NestedString(object.Object, "status", "selector")
	selector, parseErr := labels.Parse(text)
	switch {
	case nestedErr != nil || text == "" || parseErr == nil && selector.Empty():
		found.err = newError(NoSelector, "its controller must set status.selector, and its CustomResourceDefinition "+
			"must name the field in labelSelectorPath", "the scale of %s has no pod selector", subject)
	case parseErr != nil:
		found.err = newError(NoSelector, "its controller must set a valid one", "the scale of %s has an invalid pod "+
			"selector", subject)
	default:
		found.selector = selector
	}
	return found
}

func scaleError(err error, subject string, resource schema.GroupResource) *Error {
	status, isStatus := errors.AsType[*apierrors.StatusError](err)
	switch {
	case apierrors.IsForbidden(err):
		return newError(Forbidden, fmt.Sprintf("create a ClusterRole that allows it, with label %s=true",
			kubeapi.ScaleReaderLabel),
			"the custom metrics server has no right to get %s/scale, so the pods of %s are not known", resource, subject)
	case apierrors.IsNotFound(err) && isStatus && (status.Status().Details == nil || status.Status().Details.Name == "" ||
		len(status.Status().Details.Causes) > 0):
		return newError(NoScale, "use a target that has one; for a custom resource, add subresources.scale to its "+
			"CustomResourceDefinition", "%s has no scale subresource", resource)
	case apierrors.IsNotFound(err):
		return newError(NoTarget, "create it or correct the reference", "%s does not exist", subject)
	}
	return apiError(err, "get", resource.String()+"/scale")
}

// mapping returns the resource of t in the version that the API server prefers, as the HPA controller does: it ignores
// the version of a reference, which may not be served any more.
func (r *scaleReader) mapping(t target) (*meta.RESTMapping, *Error) {
	subject := fmt.Sprintf("%s in %s", t.Kind, t.APIVersion)
	version, err := schema.ParseGroupVersion(t.APIVersion)
	if err != nil {
		return nil, newError(NoTarget, "correct the apiVersion", "%q is not an API version", t.APIVersion)
	}
	kind := schema.GroupKind{Group: version.Group, Kind: t.Kind}
	mapping, err := r.mapper.RESTMapping(kind)
	if meta.IsNoMatchError(err) && r.refreshMapper() {
		mapping, err = r.mapper.RESTMapping(kind)
	}
	switch {
	case meta.IsNoMatchError(err):
		return nil, newError(NoTarget, "correct apiVersion and kind, or install its CustomResourceDefinition",
			"the API server has no kind %s", subject)
	case err != nil:
		return nil, apiError(err, "discover", "kind "+subject)
	case mapping.Scope.Name() != meta.RESTScopeNameNamespace && t.scale:
		return nil, newError(NoTarget, "use an object in the namespace of the HorizontalPodAutoscaler",
			"kind %s is cluster-scoped", subject)
	}
	return mapping, nil
}

// refreshMapper makes the mapper read the discovery information again, unless it did so lately.
func (r *scaleReader) refreshMapper() bool {
	resettable, ok := r.mapper.(meta.ResettableRESTMapper)
	r.mu.Lock()
	due := time.Since(r.refresh) >= mapperRefresh
	if ok && due {
		r.refresh = time.Now()
	}
	r.mu.Unlock()
	if ok && due {
		resettable.Reset()
	}
	return ok && due
}
