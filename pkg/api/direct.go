package api

import (
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	endpointmetrics "k8s.io/apiserver/pkg/endpoints/metrics"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/metrics/pkg/apis/metrics"
)

// direct answers what autoscalers ask for, and reports whether r is that: one object, or a list with no more than a label selector, as
// plain JSON or protobuf. The answer is the one that the generic server would give. Its way there, through a router, options by
// reflection, and traces, is most of the work of a small request.
func (a *API) direct(w http.ResponseWriter, r *http.Request, f *form, media string) bool {
	if f.standard || f.table != "" || r.Method != http.MethodGet {
		return false
	}
	info, _ := genericapirequest.RequestInfoFrom(r.Context()) // without it the form is standard
	resource, version := a.resources[info.Resource], schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}
	encoder := encoders[format{media, version.String()}]
	if resource == nil || encoder == nil || !isPathOf(r.URL, info, resource.NamespaceScoped()) {
		return false
	}
	var read func() (runtime.Object, error)
	switch info.Verb {
	case "get":
		if r.URL.RawQuery != "" {
			return false
		}
		read = func() (runtime.Object, error) { return resource.get(info.Namespace, info.Name, f) }
	case "list":
		selector, ok := onlySelector(r.URL.RawQuery)
		if !ok {
			return false
		}
		q, err := newQuery(info.Namespace, &internalversion.ListOptions{LabelSelector: selector})
		if err != nil {
			return false
		}
		read = func() (runtime.Object, error) { return resource.answer(r.Context(), q, f) }
	default:
		return false
	}
	endpointmetrics.InstrumentHandlerFunc(strings.ToUpper(info.Verb), info.APIGroup, info.APIVersion, info.Resource, "",
		endpointmetrics.CleanScope(info), endpointmetrics.APIServerComponent, false, "",
		func(w http.ResponseWriter, r *http.Request) {
			object, err := read()
			if err != nil {
				responsewriters.ErrorNegotiated(err, Codecs, version, w, r)
				return
			}
			audit.LogResponseObject(r.Context(), object, version, Codecs)
			genericapirequest.TrackSerializeResponseObjectLatency(r.Context(), func() {
				responsewriters.SerializeObject(media, encoder, w, r, http.StatusOK, object)
			})
		})(w, r)
	return true
}

// isPathOf reports whether u is the path of what info says, and of nothing else: there are paths that info reads but nobody serves,
// such as that of a node in a namespace.
func isPathOf(u *url.URL, info *genericapirequest.RequestInfo, namespaced bool) bool {
	path := "/apis/" + metrics.GroupName + "/" + info.APIVersion
	if info.Namespace != "" {
		path += "/namespaces/" + info.Namespace
	}
	path += "/" + info.Resource
	if info.Name != "" {
		path += "/" + info.Name
	}
	if namespaced {
		return u.Path == path && (info.Namespace != "" || info.Name == "")
	}
	return u.Path == path && info.Namespace == ""
}

// onlySelector returns the label selector of a query that has nothing else; nil is for all.
func onlySelector(query string) (labels.Selector, bool) {
	if query == "" {
		return nil, true
	}
	escaped, ok := strings.CutPrefix(query, "labelSelector=")
	if !ok || strings.ContainsAny(escaped, "&;") {
		return nil, false
	}
	s, err := url.QueryUnescape(escaped)
	if err != nil {
		return nil, false
	}
	selector, err := labels.Parse(s)
	return selector, err == nil
}
