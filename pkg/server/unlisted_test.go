package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/rest"

	"metrics-server/pkg/api/resource"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// runningPods is an API server that has no node and one pod, a/p, and streams lists. Pods of namespace a that
// it receives appear later.
type runningPods chan string

func (later runningPods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	kind := `"kind":"Node","apiVersion":"v1"`
	pods := r.URL.Path == "/api/v1/pods"
	add := func(name string) {
		fmt.Fprintf(w, `{"type":"ADDED","object":{%s,"metadata":{"namespace":"a","name":%q,"uid":%q,`+
			`"resourceVersion":"1"}}}`+"\n", kind, name, name)
	}
	if pods {
		kind = `"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1"`
		add("p")
	}
	fmt.Fprintf(w, `{"type":"BOOKMARK","object":{%s,"metadata":{"resourceVersion":"1","annotations":`+
		`{"k8s.io/initial-events-end":"true"}}}}`+"\n", kind)
	w.(http.Flusher).Flush()
	if !pods {
		later = nil
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case name := <-later:
			add(name)
			w.(http.Flusher).Flush()
		}
	}
}

// newServerOf returns a server whose inventory of pods is that of an API server.
func newServerOf(t *testing.T, pods runningPods) *Server {
	t.Helper()
	apiServer := httptest.NewServer(pods)
	t.Cleanup(apiServer.Close)
	s := newServerWith(t, func(c *Config) { c.Rest.Host = apiServer.URL })
	sharedtest.Start(t, t.Context(), s.inventory.Run)
	for s.inventory.PodsSynced() != nil {
		time.Sleep(time.Millisecond)
	}
	return s
}

// resume returns a watch of the pods of s that is resumed at a resourceVersion.
func resume(t *testing.T, s *Server, at sample.Revision) watch.Interface {
	t.Helper()
	storages, err := resource.Storages(resource.Config{
		NodeUsage: s.store, PodUsage: s.store, Scrapes: scrapes{s.scraper, s.sink}, Nodes: s.inventory.Nodes(),
		Pods: s.inventory.Pods(), Clock: s.clock, NodesGone: s.nodesGone, PodsGone: s.podsGone,
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := storages["pods"].(rest.Watcher).Watch(t.Context(), &internalversion.ListOptions{
		ResourceVersion: strconv.FormatUint(uint64(at), 10),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// A watch that is interrupted before the API server tells of a pod, but after its kubelet has, gets the pod
// when it is resumed.
func TestPodsThatAppearLate(t *testing.T) {
	pods := runningPods(make(chan string))
	s := newServerOf(t, pods)
	now := time.Now()
	for i := range 2 {
		c := sample.Container{ID: new(sample.NewContainerID("a", "late", "c"))}
		c.Time, c.CPU, c.Memory = sample.TimeOf(now), uint64(i)*1e9, 1<<20
		c.Given = sample.CPU | sample.Memory
		s.store.Record("n", &sample.Batch{Node: sample.Sample{Time: c.Time}, Containers: []sample.Container{c}}, now)
		now = now.Add(12 * time.Second)
	}
	known := s.clock.Next(now)
	pods <- "late"
	for s.inventory.Pods().Len() < 2 {
		time.Sleep(time.Millisecond)
	}
	select {
	case e := <-resume(t, s, known).ResultChan():
		if o, err := meta.Accessor(e.Object); err != nil || e.Type != watch.Modified || o.GetName() != "late" {
			t.Errorf("%v %v, want the pod", e.Type, e.Object)
		}
	case <-time.After(5 * time.Second):
		t.Error("the pod is not sent")
	}
}

// A pod that kubelets list no longer is remembered for watches that are resumed, unless it does not
// exist: a kubelet must not be able to fill that memory with names that it invents.
func TestUnlistedPods(t *testing.T) {
	s := newServerOf(t, nil)
	now := time.Now()
	answer := func(namespace string, pods int) {
		b := &sample.Batch{Node: sample.Sample{Time: sample.TimeOf(now)}}
		for i := range pods {
			name := "p"
			if i > 0 {
				name += strconv.Itoa(i)
			}
			b.Containers = append(b.Containers, sample.Container{ID: new(sample.NewContainerID(namespace, name, "c"))})
		}
		s.store.Record("n", b, now)
		now = now.Add(12 * time.Second)
	}
	before := s.clock.Last()

	for range 2 {
		answer("invented", 8192)
		answer("", 0)
	}
	resume(t, s, before)

	answer("a", 1)
	answer("", 0)
	e := <-resume(t, s, before).ResultChan()
	if o, err := meta.Accessor(e.Object); err != nil || e.Type != watch.Deleted || o.GetName() != "p" {
		t.Errorf("%v %v, want that p is deleted", e.Type, e.Object)
	}
}
