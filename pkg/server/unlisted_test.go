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

// oneRunningPod is an API server that has no node and one pod, a/p, and streams lists.
func oneRunningPod(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	kind := `"kind":"Node","apiVersion":"v1"`
	if r.URL.Path == "/api/v1/pods" {
		kind = `"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1"`
		fmt.Fprintf(w, `{"type":"ADDED","object":{%s,"metadata":{"namespace":"a","name":"p","uid":"1",`+
			`"resourceVersion":"1"}}}`+"\n", kind)
	}
	fmt.Fprintf(w, `{"type":"BOOKMARK","object":{%s,"metadata":{"resourceVersion":"1","annotations":`+
		`{"k8s.io/initial-events-end":"true"}}}}`+"\n", kind)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// A pod that kubelets list no longer is remembered for watches that are resumed, unless it does not
// exist: a kubelet must not be able to fill that memory with names that it invents.
func TestUnlistedPods(t *testing.T) {
	apiServer := httptest.NewServer(http.HandlerFunc(oneRunningPod))
	t.Cleanup(apiServer.Close)
	s := newServerWith(t, func(c *Config) { c.Rest.Host = apiServer.URL })
	sharedtest.Start(t, t.Context(), s.inventory.Run)
	for s.inventory.PodsSynced() != nil {
		time.Sleep(time.Millisecond)
	}

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
	storages, err := resource.Storages(resource.Config{
		NodeUsage: s.store, PodUsage: s.store, Scrapes: scrapes{s.scraper, s.sink}, Nodes: s.inventory.Nodes(),
		Pods: s.inventory.Pods(), Clock: s.clock, NodesGone: s.nodesGone, PodsGone: s.podsGone,
	})
	if err != nil {
		t.Fatal(err)
	}
	before := strconv.FormatUint(uint64(s.clock.Last()), 10)
	resume := func() watch.Interface {
		t.Helper()
		w, err := storages["pods"].(rest.Watcher).Watch(t.Context(), &internalversion.ListOptions{ResourceVersion: before})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
		return w
	}

	for range 2 {
		answer("invented", 8192)
		answer("", 0)
	}
	resume()

	answer("a", 1)
	answer("", 0)
	e := <-resume().ResultChan()
	if o, err := meta.Accessor(e.Object); err != nil || e.Type != watch.Deleted || o.GetName() != "p" {
		t.Errorf("%v %v, want that p is deleted", e.Type, e.Object)
	}
}
