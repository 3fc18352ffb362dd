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

// query says which objects a list wants. It is for one request, so not for concurrent use.
type query struct {
	namespace string               // the only one wanted; empty for all
	name      string               // the only one wanted; empty for all
	labels    labels.Selector      // nil for all
	fields    []fields.Requirement // all must hold

	asked sample.Labels // those that labels is asked about, here because an interface needs a pointer to them
}

// newQuery reads the options of a list in namespace, which is empty for all of them. The fields
// that a selector may name were checked by the Scheme.
func newQuery(namespace string, options *internalversion.ListOptions) (*query, error) {
	q := &query{namespace: namespace}
	if options == nil {
		return q, nil
	}
	if options.Continue != "" {
		// Nobody got this token here. "Expired" is the answer from which client-go's pager recovers
		// by itself, with a full list; to ignore the token would give it some objects twice.
		return nil, apierrors.NewResourceExpired("the continue token is not of this server, which answers every list in one piece: list again without it")
	}
	if s := options.LabelSelector; s != nil && !s.Empty() {
		q.labels = s
	}
	if s := options.FieldSelector; s != nil {
		q.fields = s.Requirements()
		q.name, _ = s.RequiresExactMatch(fieldName)
		if ns, ok := s.RequiresExactMatch(fieldNamespace); ok && namespace == "" {
			q.namespace = ns
		}
	}
	return q, nil
}

// candidates yields the objects whose labels q selects: among all, or just the one that q names.
func (q *query) candidates(objects Objects, namespaced bool) iter.Seq[sample.Object] {
	if q.name == "" || namespaced && q.namespace == "" {
		if q.labels == nil {
			return objects.All(q.namespace, nil)
		}
		return objects.All(q.namespace, q.selectsLabels)
	}
	return func(yield func(sample.Object) bool) {
		if o, ok := objects.Get(q.namespace, q.name); ok && q.selectsLabels(o.Labels) {
			yield(o)
		}
	}
}

func (q *query) selectsLabels(l sample.Labels) bool {
	q.asked = l
	return q.labels == nil || q.labels.Matches(&q.asked)
}

// selectsName reports whether q selects an object by its name and namespace.
func (q *query) selectsName(o *sample.Object) bool {
	return q.holds(fieldName, o.Name) && q.holds(fieldNamespace, o.Namespace)
}

// selectsNode reports whether q selects what runs on node.
func (q *query) selectsNode(node string) bool { return q.holds(fieldNodeName, node) }

// holds reports whether everything that q requires of field is true of value.
func (q *query) holds(field, value string) bool {
	for i := range q.fields {
		r := &q.fields[i]
		if r.Field == field && (r.Value == value) == (r.Operator == selection.NotEquals) {
			return false
		}
	}
	return true
}
