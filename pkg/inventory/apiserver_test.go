package inventory

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
)

// apiServer implements the part of an API server that an inventory uses: lists in pages, watches
// with a history that is compacted, watch-list, label selectors of nodes. It is reached through
// in-memory pipes, so that a synctest bubble knows when everything is idle.
type apiServer struct {
	conns chan net.Conn

	mu       sync.Mutex
	streams  bool // whether it knows watch-list
	down     bool // connections are refused
	fault    func(resource string, query url.Values) (status int)
	version  int
	compact  int // the oldest version that a watch may begin after
	objects  map[string]map[string]metav1.Object
	history  []change
	changed  chan struct{} // closed when the history grows or watches are to end
	epoch    int           // watches of an older epoch end
	lastWord int           // the status of an error that a watch ends with; 0: it just ends
	requests []request
	open     map[net.Conn]bool

	// How lists and watches fail, for TestStreams and its neighbours.
	streamFault string        // how a streamed list does not end: see watch
	pause       time.Duration // before each object of a streamed list
	short       bool          // watches end at once, except for streams
	noVersion   bool          // lists have no resourceVersion
	endless     bool          // a list in pages begins again and again
}

type change struct {
	version  int
	resource string
	old, new metav1.Object
}

type request struct {
	resource, accept string
	query            url.Values
	items            int // of a list's page
}

// newAPIServer returns a server that runs until the test ends, and an inventory's Config that leads to it.
func newAPIServer(t *testing.T) (*apiServer, Config) {
	s := &apiServer{
		conns: make(chan net.Conn), streams: true, version: 1, changed: make(chan struct{}), open: map[net.Conn]bool{},
		objects: map[string]map[string]metav1.Object{"nodes": {}, "pods": {}},
	}
	closed := make(chan struct{})
	server := &http.Server{Handler: s}
	go func() { _ = server.Serve(pipeListener{s, closed}) }()
	transport := &http.Transport{DialContext: s.dial}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		close(closed)
		_ = server.Close()
	})
	config := &rest.Config{Host: "http://apiserver", QPS: -1}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	httpClient := &http.Client{Transport: transport}
	client, err := NewClient(config, httpClient, true)
	if err != nil {
		t.Fatal(err)
	}
	return s, Config{Client: client}
}

// pipeListener accepts what apiServer.dial connects.
type pipeListener struct {
	*apiServer
	closed chan struct{}
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (pipeListener) Close() error   { return nil }
func (pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (s *apiServer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.mu.Lock()
	down := s.down
	near, far := net.Pipe()
	s.open[far] = true
	s.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	select {
	case s.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// do runs f with the server's state locked.
func (s *apiServer) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// setDown makes the server go away, connections and all, or come back.
func (s *apiServer) setDown(down bool) {
	s.do(func() {
		s.down = down
		if down {
			s.wake(true)
			for c := range s.open {
				_ = c.Close()
			}
			clear(s.open)
		}
	})
}

// wake makes watches look at the history, or end them.
func (s *apiServer) wake(end bool) {
	if end {
		s.epoch++
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// endWatches ends all watches. With forget, it also removes the events so far from the history.
func (s *apiServer) endWatches(forget bool) {
	s.do(func() {
		if forget {
			s.version++
			s.compact = s.version
		}
		s.wake(true)
	})
}

// set adds or changes an object, remove removes one.
func (s *apiServer) set(o metav1.Object) { s.do(func() { s.change(o, false) }) }

func (s *apiServer) remove(o metav1.Object) { s.do(func() { s.change(o, true) }) }

func (s *apiServer) change(o metav1.Object, remove bool) {
	resource, key := "pods", o.GetNamespace()+"/"+o.GetName()
	if _, ok := o.(*corev1.Node); ok {
		resource = "nodes"
	}
	s.version++
	c := change{version: s.version, resource: resource, old: s.objects[resource][key]}
	if remove {
		delete(s.objects[resource], key)
	} else {
		c.new = o
		s.objects[resource][key] = o
	}
	s.history = append(s.history, c)
	s.wake(false)
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource, query := strings.TrimPrefix(r.URL.Path, "/api/v1/"), r.URL.Query()
	selector, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		writeStatus(w, http.StatusBadRequest, err.Error())
		return
	}
	s.mu.Lock()
	at := len(s.requests)
	s.requests = append(s.requests, request{resource: resource, accept: r.Header.Get("Accept"), query: query})
	status := 0
	if s.fault != nil {
		status = s.fault(resource, query)
	}
	streams := s.streams
	s.mu.Unlock()
	streaming := query.Get("sendInitialEvents") == "true"
	switch {
	case status != 0:
		writeStatus(w, status, "the test says so")
	case streaming && !streams:
		writeStatus(w, http.StatusUnprocessableEntity,
			"sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
	case query.Get("watch") != "":
		s.watch(w, r, resource, selector, streaming)
	default:
		s.list(w, resource, query, selector, at)
	}
}

// matching returns the selected objects of a resource in order of their names.
func (s *apiServer) matching(resource string, selector labels.Selector) []metav1.Object {
	all := slices.SortedFunc(maps.Values(s.objects[resource]), func(a, b metav1.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return slices.DeleteFunc(all, func(o metav1.Object) bool { return !selector.Matches(labels.Set(o.GetLabels())) })
}

func (s *apiServer) list(w http.ResponseWriter, resource string, query url.Values, selector labels.Selector, at int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items, version, offset := s.matching(resource, selector), s.version, 0
	if token := query.Get("continue"); token != "" {
		if _, err := fmt.Sscanf(token, "%d-%d", &version, &offset); err != nil || version < s.compact {
			writeStatus(w, http.StatusGone, "the provided continue parameter is too old")
			return
		}
	}
	items = items[min(offset, len(items)):]
	if s.endless {
		items = s.matching(resource, selector)
	}
	meta := map[string]any{"resourceVersion": strconv.Itoa(version)}
	if s.noVersion {
		delete(meta, "resourceVersion")
	}
	// Like an API server, it ignores the limit if an answer from its cache would do.
	if limit, _ := strconv.Atoi(query.Get("limit")); limit > 0 && limit < len(items) &&
		query.Get("resourceVersion") != "0" {
		items = items[:limit]
		meta["continue"] = fmt.Sprintf("%d-%d", version, offset+limit)
	}
	answer := map[string]any{"apiVersion": "v1", "kind": "NodeList", "metadata": meta, "items": items}
	if resource == "pods" {
		answer["apiVersion"], answer["kind"] = "meta.k8s.io/v1", "PartialObjectMetadataList"
	}
	s.requests[at].items = len(items)
	writeJSON(w, answer)
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, resource string, selector labels.Selector,
	streaming bool,
) {
	s.mu.Lock()
	epoch, next, query := s.epoch, s.version, r.URL.Query()
	switch {
	case streaming:
		all, fault, pause, lastWord := s.matching(resource, selector), s.streamFault, s.pause, s.lastWord
		mark := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: strconv.Itoa(s.version), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}}
		s.mu.Unlock()
		if fault == "header" { // it does not come
			<-r.Context().Done()
			return
		}
		for i, o := range all {
			time.Sleep(pause)
			if i == len(all)/2 && (fault == "hangs" || fault == "cut" || fault == "error") {
				break
			}
			writeEvent(w, "ADDED", o)
			w.(http.Flusher).Flush()
		}
		switch fault {
		case "hangs":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		case "cut":
			return
		case "error":
			writeEvent(w, "ERROR", status(lastWord, "the test ends this stream"))
			return
		case "no annotation":
			mark.Annotations = nil
			fallthrough
		case "":
			writeEvent(w, "BOOKMARK", typed(resource, mark))
		case "busy":
			for i := 0; r.Context().Err() == nil; i++ {
				writeEvent(w, "MODIFIED", withVersion(all[i%len(all)], 1000+i))
				w.(http.Flusher).Flush()
				time.Sleep(time.Second)
			}
			return
		}
		s.mu.Lock()
	case s.short:
		lastWord := s.lastWord
		s.mu.Unlock()
		if lastWord != 0 {
			writeEvent(w, "ERROR", status(lastWord, "the test ends this watch"))
		}
		return
	case query.Get("resourceVersion") == "":
		for _, o := range s.matching(resource, selector) {
			writeEvent(w, "ADDED", o)
		}
	default:
		next, _ = strconv.Atoi(query.Get("resourceVersion"))
		if next < s.compact {
			s.mu.Unlock()
			writeEvent(w, "ERROR", status(http.StatusGone, "too old resource version"))
			return
		}
	}
	for s.epoch == epoch {
		for _, c := range s.history {
			if c.version <= next || c.resource != resource {
				continue
			}
			next = c.version
			had := c.old != nil && selector.Matches(labels.Set(c.old.GetLabels()))
			has := c.new != nil && selector.Matches(labels.Set(c.new.GetLabels()))
			switch {
			case has && had:
				writeEvent(w, "MODIFIED", withVersion(c.new, c.version))
			case has:
				writeEvent(w, "ADDED", withVersion(c.new, c.version))
			case had:
				writeEvent(w, "DELETED", withVersion(c.old, c.version))
			}
		}
		changed := s.changed
		s.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		s.mu.Lock()
	}
	lastWord := s.lastWord
	s.mu.Unlock()
	if lastWord != 0 {
		writeEvent(w, "ERROR", status(lastWord, "the test ends this watch"))
	}
}

// typed gives an object of a bookmark the type that a watch of resource sends.
func typed(resource string, m *metav1.PartialObjectMetadata) metav1.Object {
	if resource == "nodes" {
		return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: m.ObjectMeta}
	}
	m.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}
	return m
}

func withVersion(o metav1.Object, version int) metav1.Object {
	switch o := o.(type) {
	case *corev1.Node:
		o = o.DeepCopy()
		o.ResourceVersion = strconv.Itoa(version)
		return o
	case *metav1.PartialObjectMetadata:
		o = o.DeepCopy()
		o.ResourceVersion = strconv.Itoa(version)
		return o
	default:
		panic(fmt.Sprintf("%T", o))
	}
}

func status(code int, message string) *metav1.Status {
	reason := map[int]metav1.StatusReason{
		http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusUnauthorized: metav1.StatusReasonUnauthorized,
		http.StatusGone: metav1.StatusReasonExpired, http.StatusTooManyRequests: metav1.StatusReasonTooManyRequests,
		http.StatusInternalServerError: metav1.StatusReasonInternalError,
		http.StatusUnprocessableEntity: metav1.StatusReasonInvalid,
	}[code]
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	}
}

func writeStatus(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	if code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(status(code, message))
}

func writeEvent(w http.ResponseWriter, kind string, object any) {
	writeJSON(w, map[string]any{"type": kind, "object": object})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
