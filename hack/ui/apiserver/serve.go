package apiserver

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"metrics-server/pkg/kubeapi"
)

// request is a request for a resource.
type request struct {
	group, version, namespace, resource, name string
	sub                                       string // what follows the name
}

// parse parses a path: api/VERSION[/namespaces/N]/RESOURCE[/NAME[/...]], or with apis/GROUP before the version.
func parse(path string) (q request, ok bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		q.version, parts = parts[1], parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		q.group, q.version, parts = parts[1], parts[2], parts[3:]
	default:
		return q, false
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		q.namespace, parts = parts[1], parts[2:]
	}
	q.resource = parts[0]
	if len(parts) > 1 {
		q.name = parts[1]
		q.sub = strings.Join(parts[2:], "/")
	}
	return q, true
}

// right is what a request needs, as Deny takes it.
func (q *request) right() string {
	name := q.resource
	if sub, _, _ := strings.Cut(q.sub, "/"); sub != "" && q.group != kubeapi.CustomMetricsGroup {
		name += "/" + sub
	}
	return resourceOf(q.group, name)
}

// forbidden returns why a request is not allowed, "" if it is.
func (s *Server) forbidden(q *request) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.denied[q.right()] && (s.confined == "" || s.confined == q.namespace) {
		return ""
	}
	verb, where := "list", "at the cluster scope"
	if q.name != "" {
		verb = "get"
	}
	if q.namespace != "" {
		where = fmt.Sprintf("in the namespace %q", q.namespace)
	}
	resource, _, _ := strings.Cut(q.right(), ".")
	return fmt.Sprintf("%s is forbidden: User %q cannot %s resource %q in API group %q %s", q.right(), "fake", verb,
		resource, q.group, where)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, isResource := parse(r.URL.Path)
	if isResource {
		if why := s.forbidden(&q); why != "" {
			fail(w, http.StatusForbidden, metav1.StatusReasonForbidden, why)
			return
		}
	}
	if o, ok := s.fixed[strings.TrimSuffix(r.URL.Path, "/")]; ok {
		send(w, http.StatusOK, o)
		return
	}
	if !isResource {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
		return
	}
	if s.special(w, r, &q) {
		return
	}
	all := s.collections()
	i := slices.IndexFunc(all, func(c *collection) bool {
		return c.group == q.group && c.version == q.version && c.name == q.resource
	})
	if i < 0 || q.sub != "" || r.Method != http.MethodGet {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
		return
	}
	o, err := parseOptions(r, all[i], q.namespace)
	switch {
	case err != nil:
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
	case q.name != "":
		s.get(w, o, q)
	case o.watch && o.listOnly:
		fail(w, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed,
			"the server does not allow this method on the requested resource")
	case o.watch:
		s.watch(w, r, o)
	default:
		s.list(w, o)
	}
}

// options are those of a list or a watch.
type options struct {
	*collection
	namespace string
	labels    labels.Selector
	fields    fields.Selector
	protobuf  bool // instead of JSON
	partial   bool // metadata only
	watch     bool
	initial   bool // events for what there is, and a bookmark
	bookmarks bool
	since     uint64 // of a watch
	limit     int
	after     key
	timeout   time.Duration
}

func parseOptions(r *http.Request, c *collection, namespace string) (*options, error) {
	v := r.URL.Query()
	o := &options{
		collection: c, namespace: namespace, watch: v.Get("watch") == "true" || v.Get("watch") == "1",
		initial: v.Get("sendInitialEvents") == "true", bookmarks: v.Get("allowWatchBookmarks") == "true",
		protobuf: strings.Contains(r.Header.Get("Accept"), protobufType),
		partial:  strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata"), limit: 1 << 30, timeout: time.Hour,
	}
	var err error
	if o.labels, err = labels.Parse(v.Get("labelSelector")); err != nil {
		return nil, err
	}
	if o.fields, err = fields.ParseSelector(v.Get("fieldSelector")); err != nil {
		return nil, err
	}
	if text := v.Get("limit"); text != "" && text != "0" {
		if o.limit, err = strconv.Atoi(text); err != nil {
			return nil, err
		}
	}
	if text := v.Get("timeoutSeconds"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		o.timeout = time.Duration(seconds) * time.Second
	}
	if text := v.Get("resourceVersion"); text != "" && o.watch {
		if o.since, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, err
		}
	}
	o.after.namespace, o.after.name, _ = strings.Cut(v.Get("continue"), "/")
	return o, nil
}

func (o *options) selects(it *item) bool {
	return (o.namespace == "" || it.namespace == o.namespace) && o.labels.Matches(labels.Set(it.labels)) &&
		o.fields.Matches(it.fields)
}

// object makes the object of an item, in the form that was asked for. mu must be held.
func (o *options) object(it *item) object {
	version := it.version
	if o.listOnly {
		version = 0
	}
	made := it.make(o.apiVersion(), version)
	if o.partial {
		return &metav1.PartialObjectMetadata{
			TypeMeta:   metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"},
			ObjectMeta: *made.GetObjectMeta().(*metav1.ObjectMeta),
		}
	}
	return made
}

func (s *Server) get(w http.ResponseWriter, o *options, q request) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for it := range o.items(q.namespace, key{}, 0) {
		if it.name == q.name {
			sendBytes(w, http.StatusOK, o.contentType(), o.encode(o.object(&it)))
			return
		}
	}
	text := fmt.Sprintf("%s %q not found", o.resource(), q.name)
	if q.group == kubeapi.MetricsGroup {
		text = fmt.Sprintf("%s %q has no usage: the last scrape failed: connection refused", o.resource(), q.name)
	}
	fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, text)
}

// chunk is how many objects of a list are made under one lock, during which changes have to wait.
const chunk = 500

// list serves a list. Objects may change while it is made; a watch from its version on delivers these changes.
func (s *Server) list(w http.ResponseWriter, o *options) {
	s.mu.RLock()
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatUint(s.version, 10)}
	s.mu.RUnlock()
	if o.listOnly {
		meta.ResourceVersion = ""
	}
	list := newList(o)
	for more := true; more; {
		var items []object
		items, more = s.chunk(o, min(chunk, o.limit-list.items))
		for _, item := range items {
			list.add(item)
		}
		if more && list.items >= o.limit {
			meta.Continue = o.after.namespace + "/" + o.after.name
			break
		}
	}
	sendBytes(w, http.StatusOK, o.contentType(), list.end(&meta))
}

// chunk makes at most n objects after o.after, which it moves on, and reports whether there are more.
func (s *Server) chunk(o *options, n int) (objects []object, more bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for it := range o.items(o.namespace, o.after, 0) {
		if !o.selects(&it) {
			continue
		}
		if len(objects) == n {
			return objects, true
		}
		objects = append(objects, o.object(&it))
		o.after = it.key
	}
	return objects, false
}

// watch serves a watch.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, o *options) {
	ctx, cancel := context.WithTimeout(r.Context(), o.timeout)
	defer cancel()
	s.mu.RLock()
	last, expired := o.since, o.since != 0 && o.since < s.oldest
	if o.initial {
		last, expired = 0, false
	}
	s.mu.RUnlock()
	if expired {
		fail(w, http.StatusGone, metav1.StatusReasonExpired, tooOld)
		return
	}
	w.Header().Set("Content-Type", o.contentType())
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	send := func(t eventType, of encodable) error {
		_, err := w.Write(o.event(t, of))
		return err
	}
	bookmark := func(annotations map[string]string) error {
		// Clients decode a bookmark as an object of the kind that they watch, and read only its metadata.
		return send(bookmarked, &metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{APIVersion: o.apiVersion(), Kind: o.kind},
			ObjectMeta: metav1.ObjectMeta{
				ResourceVersion: strconv.FormatUint(last, 10), Annotations: annotations,
			},
		})
	}
	if last == 0 {
		s.mu.RLock()
		last = s.version
		s.mu.RUnlock()
		for more := true; more; {
			var objects []object
			objects, more = s.chunk(o, chunk)
			for _, object := range objects {
				if send(added, object) != nil {
					return
				}
			}
		}
		if o.initial && bookmark(map[string]string{metav1.InitialEventsAnnotationKey: "true"}) != nil {
			return
		}
	}
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		s.mu.RLock()
		changed, expired := s.changed, last < s.oldest
		var events []event
		if !expired {
			events = s.since(o, last)
			last = s.version
		}
		s.mu.RUnlock()
		if expired {
			_ = send(failed, status(http.StatusGone, metav1.StatusReasonExpired, tooOld))
			return
		}
		for _, e := range events {
			if send(e.eventType, e.object) != nil {
				return
			}
		}
		if flush.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-minute.C:
			if o.bookmarks && bookmark(nil) != nil {
				return
			}
		}
	}
}

const tooOld = "too old resource version: list again"

// event is an event of a watch.
type event struct {
	eventType
	object
}

// since returns the events after a version. mu must be held.
func (s *Server) since(o *options, last uint64) (events []event) {
	from, _ := slices.BinarySearchFunc(s.log, last+1, func(c change, v uint64) int { return cmp.Compare(c.version, v) })
	for i := range s.log[from:] {
		if c := &s.log[from+i]; c.of == o.resource() && o.selects(&c.item) {
			events = append(events, event{c.eventType, o.object(&c.item)})
		}
	}
	if o.group == kubeapi.MetricsGroup {
		for it := range o.items(o.namespace, key{}, last) {
			if o.selects(&it) {
				events = append(events, event{modified, o.object(&it)})
			}
		}
	}
	return events
}

func send(w http.ResponseWriter, code int, o any) {
	if text, ok := o.(string); ok {
		sendBytes(w, code, "text/plain; version=0.0.4; charset=utf-8", []byte(text))
		return
	}
	sendBytes(w, code, "application/json", mustJSON(o))
}

func sendBytes(w http.ResponseWriter, code int, contentType string, b []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(code)
	_, _ = w.Write(b)
}

func fail(w http.ResponseWriter, code int32, reason metav1.StatusReason, message string) {
	send(w, int(code), status(code, reason, message))
}

func status(code int32, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: code,
		Reason: reason, Message: message,
	}
}
