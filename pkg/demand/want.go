package demand

import (
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/near"
	"metrics-server/pkg/sample"
)

// Request is what the HPA controller asks for. It is all that tells metrics apart.
type Request struct {
	Namespace string
	// Resource and Object name what the metric describes. For metrics of type Pods, Resource is pods,
	// Object is empty and Pods the canonical selector of the pods. For metrics of type External, all three
	// are empty.
	Resource schema.GroupResource
	Object   string
	Pods     string
	Metric   string // in lower case for metrics of type External, as clients ask for them
	Selector string // metric.selector, canonical
	// Series says that it is for the values of all objects of a Named metric. Only this program makes such a request.
	Series bool

	// Unresolved is empty in requests of the controller. In a Want, it is the name of the HPA if it is not known what the
	// controller will request: the pods or the Resource were not read yet, or metric.selector is invalid. Want.Err says
	// which.
	Unresolved string
}

var podsResource = schema.GroupResource{Resource: "pods"}

// String describes the request for errors.
func (r Request) String() string { return r.describe(r.Metric) }

// describe is String with another spelling of the metric's name.
func (r Request) describe(metric string) string {
	s := "metric " + metric
	if r.external() {
		s = "external " + s
	}
	if r.Selector != "" {
		s += " with selector " + r.Selector
	}
	switch {
	case r.Series:
		return s + " of all " + r.Resource.String()
	case r.Object != "":
		return s + " of " + r.Resource.String() + " " + r.Object
	case r.Pods != "":
		return s + " of pods with " + r.Pods
	}
	return s
}

// external reports whether the request is for a metric of type External.
func (r Request) external() bool { return r.Resource.Empty() }

// Want is a metric that is wanted of pods. It is immutable.
type Want struct {
	Request
	Name         string   // of the metric, as the first of HPAs spells it
	HPAs         []string // the names of those that refer to it, sorted
	Type         autoscalingv2.MetricSourceType
	Requirements []metav1.LabelSelectorRequirement // metric.selector
	Definition
	ExpressionAt string
	Describes    Reference // the object of a metric of type Object
	// Pods are the pods that have it, sorted by name: those that exist, are not being deleted and have
	// not ended. Some may not have started yet.
	Pods []*sample.Pod
	Err  *Error // why it cannot be served; Pods is then empty. Nil if nothing is known to be wrong
	// Undeclared says that Metric.Undeclared is set in all HPAs that refer to the metric.
	Undeclared bool
}

// String describes w for errors, with the name as an HPA spells it.
func (w *Want) String() string { return w.describe(w.Name) }

func (w *Want) equal(o *Want) bool {
	return w.Request == o.Request && w.SameQuery(o) && w.Describes == o.Describes && w.Err.equal(o.Err) &&
		w.Undeclared == o.Undeclared && slices.Equal(w.HPAs, o.HPAs) && slices.Equal(w.Pods, o.Pods)
}

// SameQuery reports whether the queries of w and o, which have the same Request, are the same, and their errors too.
func (w *Want) SameQuery(o *Want) bool {
	return w.Name == o.Name && w.Definition == o.Definition && w.ExpressionAt == o.ExpressionAt
}

// sameMeaning reports whether w and o, which have the same Request, mean the same. An expression means the same
// whatever the metric is called; the default is chosen by the name.
func (w *Want) sameMeaning(o *Want) bool {
	return w.Definition == o.Definition && (w.Name == o.Name || w.Expression != "")
}

// meaning describes what w means for errors about conflicts.
func (w *Want) meaning() string {
	var s []string
	add := func(format, value string) {
		if value != "" {
			s = append(s, fmt.Sprintf(format, sample.Quotable(value)))
		}
	}
	switch {
	case w.Named != nil:
		s = append(s, "as the administrator names it")
	case w.Expression != "":
		add("the expression %s", strings.Join(strings.Fields(w.Expression), " "))
	case w.external():
		s = append(s, fmt.Sprintf("the default of %s over %v", sample.Quotable(w.Name), w.Window))
	default:
		s = append(s, fmt.Sprintf("the default over %v", w.Window))
	}
	add("from backend %s", w.Backend)
	add("from service/%s", w.Service)
	add("on port %s", w.ServicePort)
	add("on port %s", w.Ask.Port)
	add("at %s", w.Ask.Path)
	add("by %s", w.Ask.Scheme)
	return strings.Join(s, " ")
}

// merge adds o, which another HPA means by the same request, to w. Mistakes win over everything, because one
// cannot tell what they were meant to say.
func (w *Want) merge(o *Want) {
	switch {
	case w.Err != nil && w.Err.cause != Conflict:
	case o.Err != nil:
		w.Err, w.Pods = o.Err, nil
	case w.Err == nil && !w.sameMeaning(o):
		w.Err = newError(Conflict, "make them agree, or give the metric another name in one of them, with an entry in "+
			kubeapi.QueriesAnnotation, "HorizontalPodAutoscalers %q and %q define %s differently (%s; %s), and a request "+
			"does not say which one it is for", w.HPAs[0], o.HPAs[0], w, w.meaning(), o.meaning())
		w.Pods = nil
	}
	w.Undeclared = w.Undeclared && o.Undeclared
	if last := len(w.HPAs) - 1; w.HPAs[last] != o.HPAs[0] {
		w.HPAs = append(w.HPAs, o.HPAs[0])
	}
}

// findIn returns the Want of wants, those of a namespace, that r asks for, or else why there is none.
func findIn(wants map[Request]*Want, r Request) (*Want, *Error) {
	if w := wants[r]; w != nil {
		return w, nil
	}
	var unresolved *Want
	var names, selectors, others []string
	for _, w := range wants {
		same := w.Resource == r.Resource && w.Object == r.Object
		switch {
		case w.external() != r.external(), w.Series:
		case w.Metric != r.Metric:
			names = append(names, w.Name)
		case w.Unresolved != "":
			if unresolved == nil || w.Unresolved < unresolved.Unresolved {
				unresolved = w
			}
		case same && w.Selector == r.Selector:
			others = append(others, w.HPAs...) // only the selectors of pods differ
		case same:
			selectors = append(selectors, w.HPAs...)
		default:
			others = append(others, w.HPAs...)
		}
	}
	if unresolved != nil {
		return nil, unresolved.Err
	}
	text := fmt.Sprintf("no HorizontalPodAutoscaler in namespace %q refers to %s", r.Namespace, r)
	switch similar := near.Nearest(r.Metric, slices.Sorted(slices.Values(names))); {
	case len(selectors) > 0:
		return nil, newError(Unwanted, "use its selector", "%s; HorizontalPodAutoscaler %q refers to it with another "+
			"metric selector", text, slices.Min(selectors))
	case len(others) > 0:
		return nil, newError(Unwanted, "request the pods or object that it names", "%s; HorizontalPodAutoscaler %q "+
			"refers to this metric of other pods or another object", text, slices.Min(others))
	case similar != "":
		return nil, newError(Unwanted, fmt.Sprintf("did you mean %s?", similar), "%s", text)
	}
	return nil, newError(Unwanted, "create a HorizontalPodAutoscaler that uses it; one that was created just now "+
		"takes effect within a second", "%s", text)
}
