package api

import (
	"iter"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"metrics-server/pkg/sample"
)

// Fields that a field selector may name. The Scheme of a group says which of them a resource has.
const (
	FieldName      = "metadata.name"
	FieldNamespace = "metadata.namespace"
	FieldNodeName  = "spec.nodeName"
)

// query selects the objects of a list. It belongs to one request and is not safe for concurrent
// use.
type query struct {
	namespace string               // empty for all
	name      string               // empty for all
	labels    labels.Selector      // nil for all
	fields    []fields.Requirement // all must hold

	asked sample.Labels // the argument of labels.Matches; a field, because the interface takes a pointer
}

// newQuery converts the options of a list in namespace, which is empty for all namespaces. The
// Scheme has already checked the fields of the selector.
func newQuery(namespace string, options *internalversion.ListOptions) (*query, error) {
	q := &query{namespace: namespace}
	if options == nil {
		return q, nil
	}
	if options.Continue != "" {
		// This server never issues tokens. client-go's pager recovers from "Expired" with a full
		// list; if the token were ignored, it would return some objects twice.
		return nil, apierrors.NewResourceExpired("this server did not issue the continue token, " +
			"because it returns every list in one piece: list again without it")
	}
	if s := options.LabelSelector; s != nil && !s.Empty() {
		q.labels = s
	}
	if s := options.FieldSelector; s != nil {
		q.fields = s.Requirements()
		q.name, _ = s.RequiresExactMatch(FieldName)
		if ns, ok := s.RequiresExactMatch(FieldNamespace); ok && namespace == "" {
			q.namespace = ns
		}
	}
	return q, nil
}

// candidates yields the objects whose labels q selects, or only the one that q names. Once done is
// closed, it yields the next object whatever its labels are, so that the caller can end a walk that
// selects nothing.
func (q *query) candidates(objects Objects, namespaced bool, done <-chan struct{}) iter.Seq[sample.Object] {
	if q.name == "" || namespaced && q.namespace == "" {
		if q.labels == nil {
			return objects.All(q.namespace, nil)
		}
		return objects.All(q.namespace, func(l sample.Labels) bool { return closed(done) || q.selectsLabels(l) })
	}
	return func(yield func(sample.Object) bool) {
		if o, ok := objects.Get(q.namespace, q.name); ok && q.selectsLabels(o.Labels) {
			yield(o)
		}
	}
}

// closed reports whether done is closed. It takes a few nanoseconds, which is cheap enough to call
// for every object.
func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (q *query) selectsLabels(l sample.Labels) bool {
	q.asked = l
	return q.labels == nil || q.labels.Matches(&q.asked)
}

// selectsName reports whether q selects the name and namespace of o.
func (q *query) selectsName(o *sample.Object) bool {
	return q.holds(FieldName, o.Name) && q.holds(FieldNamespace, o.Namespace)
}

// selectsNode reports whether q selects objects on node.
func (q *query) selectsNode(node string) bool { return q.holds(FieldNodeName, node) }

// holds reports whether value satisfies every requirement of q on field.
func (q *query) holds(field, value string) bool {
	for i := range q.fields {
		r := &q.fields[i]
		if r.Field == field && (r.Value == value) == (r.Operator == selection.NotEquals) {
			return false
		}
	}
	return true
}
