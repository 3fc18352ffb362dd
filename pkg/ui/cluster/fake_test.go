package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/history"
)

// The paths of what is read of all namespaces.
const (
	nodesPath       = "/api/v1/nodes"
	podsPath        = "/api/v1/pods"
	hpasPath        = "/apis/autoscaling/v2/horizontalpodautoscalers"
	groupPath       = "/apis/metrics.k8s.io/v1"
	nodeMetricsPath = groupPath + "/nodes"
	podMetricsPath  = groupPath + "/pods"
)

// api is an API server in memory, with lists in pages and watches. It is reached through pipes, so that it can be used
// in a bubble of testing/synctest.
type api struct {
	http.Server
	connections chan net.Conn

	mu       sync.Mutex
	down     bool
	verbs    []string // of metrics.k8s.io
	history  *history.Answer
	answers  map[string]http.HandlerFunc         // instead of the usual ones, by path; may end in ?watch
	objects  map[string]map[string]metav1.Object // by path and name
	events   []apiEvent
	version  int
	oldest   int            // versions before it are expired
	changed  chan struct{}  // closed with the next event
	requests map[string]int // by path; that of a watch ends in ?watch
	open     map[net.Conn]bool
}

type apiEvent struct {
	version int
	path    string
	kind    string
	object  metav1.Object
}

func newAPI(t *testing.T) *api {
	a := &api{
		connections: make(chan net.Conn),
		verbs:       []string{"get", "list", "watch"},
		answers:     map[string]http.HandlerFunc{},
		objects:     map[string]map[string]metav1.Object{},
		changed:     make(chan struct{}),
		requests:    map[string]int{},
		open:        map[net.Conn]bool{},
		version:     1000,
	}
	a.Handler = http.HandlerFunc(a.serve)
	a.ConnState = func(c net.Conn, s http.ConnState) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.open[c] = s != http.StateClosed
	}
	go func() { _ = a.Serve(listener{a.connections}) }()
	t.Cleanup(func() { a.Close() })
	return a
}

type listener struct{ connections chan net.Conn }

func (l listener) Accept() (net.Conn, error) {
	if c, ok := <-l.connections; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l listener) Close() error { close(l.connections); return nil }
func (listener) Addr() net.Addr { return &net.TCPAddr{} }

var errRefused = errors.New("connection refused")

func (a *api) config() *rest.Config {
	// A timeout, as kubectl's --request-timeout, must not end watches.
	return &rest.Config{Host: "http://api", Timeout: time.Second, Dial: a.dial}
}

func (a *api) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a.mu.Lock()
	down := a.down
	a.mu.Unlock()
	if down {
		return nil, errRefused
	}
	client, server := net.Pipe()
	select {
	case a.connections <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// setDown ends all connections, and refuses others until it is up again.
func (a *api) setDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
	for c, open := range a.open {
		if open && down {
			c.Close()
		}
	}
}

// connected returns the number of open connections.
func (a *api) connected() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, open := range a.open {
		if open {
			n++
		}
	}
	return n
}

// asked returns the number of requests since the last call of forget.
func (a *api) asked(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests[path]
}

func (a *api) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.requests)
}

func (a *api) answer(path string, h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[path] = h
}

// status returns a handler that answers with an error.
func status(code int, reason metav1.StatusReason, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, code, &metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
		})
	}
}

func writeJSON(w http.ResponseWriter, code int, of any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(of)
}

// put adds or changes objects.
func (a *api) put(path string, objects ...metav1.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range objects {
		kind, k := "ADDED", o.GetNamespace()+"/"+o.GetName()
		if a.objects[path] == nil {
			a.objects[path] = map[string]metav1.Object{}
		}
		if a.objects[path][k] != nil {
			kind = "MODIFIED"
		}
		a.objects[path][k] = o
		a.eventLocked(path, kind, o)
	}
}

func (a *api) delete(path, namespace, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := namespace + "/" + name
	last, err := meta.Accessor(a.objects[path][k].(runtime.Object).DeepCopyObject())
	if err != nil {
		panic(err)
	}
	a.eventLocked(path, "DELETED", last)
	delete(a.objects[path], k)
}

func (a *api) eventLocked(path, kind string, o metav1.Object) {
	a.version++
	o.SetResourceVersion(strconv.Itoa(a.version))
	a.events = append(a.events, apiEvent{a.version, path, kind, o})
	close(a.changed)
	a.changed = make(chan struct{})
}

// expire makes the API server forget all events.
func (a *api) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.oldest = a.version
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	path, namespace := r.URL.Path, ""
	if before, rest, ok := strings.Cut(path, "/namespaces/"); ok {
		var resource string
		namespace, resource, _ = strings.Cut(rest, "/")
		path = before + "/" + resource
	}
	path = strings.Replace(path, "metrics.k8s.io/v1beta1", "metrics.k8s.io/v1", 1)
	watched := r.URL.Query().Get("watch") != ""
	a.mu.Lock()
	name := r.URL.Path
	if watched {
		name += "?watch"
	}
	a.requests[name]++
	h, verbs, past := a.answers[name], a.verbs, a.history
	a.mu.Unlock()
	switch {
	case h != nil:
		h(w, r)
	case past != nil && r.URL.Query().Get("history") != "":
		writeJSON(w, http.StatusOK, past)
	case path == groupPath:
		writeJSON(w, http.StatusOK, &metav1.APIResourceList{
			TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
			GroupVersion: "metrics.k8s.io/v1",
			APIResources: []metav1.APIResource{{Name: "nodes", Verbs: verbs}, {Name: "pods", Namespaced: true, Verbs: verbs}},
		})
	case r.URL.Query().Get("history") != "" || !slices.Contains(
		[]string{nodesPath, podsPath, hpasPath, nodeMetricsPath, podMetricsPath}, path):
		status(http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find "+r.URL.Path)(w, r)
	case watched:
		a.watch(w, r, path, namespace)
	default:
		a.list(w, r, path, namespace)
	}
}

// list answers with two objects a page, or with all if there is no limit.
func (a *api) list(w http.ResponseWriter, r *http.Request, path, namespace string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	version, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/apis/"), "/api/"), "/namespaces/")
	page := map[string]any{"kind": kinds[path] + "List", "apiVersion": strings.TrimSuffix(version, "/"+lastOf(path))}
	metadata := map[string]string{"resourceVersion": strconv.Itoa(a.version)}
	items := []metav1.Object{}
	after := r.URL.Query().Get("continue")
	for _, k := range slices.Sorted(maps.Keys(a.objects[path])) {
		if o := a.objects[path][k]; k > after && (namespace == "" || o.GetNamespace() == namespace) {
			if len(items) == 2 && r.URL.Query().Get("limit") != "" {
				last := items[1]
				metadata["continue"] = last.GetNamespace() + "/" + last.GetName()
				break
			}
			items = append(items, o)
		}
	}
	page["metadata"], page["items"] = metadata, items
	writeJSON(w, http.StatusOK, page)
}

var kinds = map[string]string{
	nodesPath: "Node", podsPath: "Pod", hpasPath: "HorizontalPodAutoscaler",
	nodeMetricsPath: "NodeMetrics", podMetricsPath: "PodMetrics",
}

func lastOf(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func (a *api) watch(w http.ResponseWriter, r *http.Request, path, namespace string) {
	seen, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	end := time.After(time.Duration(seconds) * time.Second)
	a.mu.Lock()
	expired := seen < a.oldest
	a.mu.Unlock()
	if expired {
		status(http.StatusGone, metav1.StatusReasonExpired, "too old resource version")(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	for {
		a.mu.Lock()
		changed, events := a.changed, slices.Clone(a.events)
		a.mu.Unlock()
		for _, e := range events {
			if e.version <= seen || e.path != path || namespace != "" && e.object.GetNamespace() != namespace {
				continue
			}
			seen = e.version
			if json.NewEncoder(w).Encode(map[string]any{"type": e.kind, "object": e.object}) != nil {
				return
			}
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-changed:
		case <-end:
			return
		case <-r.Context().Done():
			return
		}
	}
}
