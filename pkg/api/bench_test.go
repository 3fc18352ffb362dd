package api

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"metrics-server/pkg/sample"
)

// bigCluster has 10,000 pods of 2 containers in 100 namespaces, 10 pods to an HPA target.
func bigCluster() *cluster {
	c := newCluster()
	c.pods.list = nil
	for ns := range 100 {
		for n := range 100 {
			k := podKey{fmt.Sprintf("namespace-%02d", ns), fmt.Sprintf("deployment-%02d-7c9f8d6b5-%05d", n/10, n)}
			c.pods.list = append(c.pods.list, sample.Object{Namespace: k.namespace, Name: k.name, Labels: sample.Labels{
				{Key: "app.kubernetes.io/name", Value: fmt.Sprintf("deployment-%02d", n/10)},
				{Key: "pod-template-hash", Value: "7c9f8d6b5"},
				{Key: "tier", Value: "backend"},
			}})
			c.usage.pods[k] = sample.PodUsage{Node: "n1", Time: testTime, Window: 15034 * time.Millisecond, Containers: []sample.ContainerUsage{
				{Name: "app", Usage: sample.Usage{CPU: 12_345_678 + uint64(n), Memory: 104_857_600 + uint64(n)<<12, HasSwap: true}},
				{Name: "proxy", Usage: sample.Usage{CPU: 1_234_567 + uint64(n), Memory: 20_857_600}},
			}}
		}
	}
	return c
}

// discard is a response that goes nowhere.
type discard struct {
	header http.Header
	code   int
	bytes  int64
}

func (d *discard) Header() http.Header  { return d.header }
func (d *discard) WriteHeader(code int) { d.code = code }
func (d *discard) Flush()               {}

func (d *discard) Write(b []byte) (int, error) {
	d.bytes += int64(len(b))
	return len(b), nil
}

// BenchmarkRequest measures requests from the generic server's first filter to the last byte written.
func BenchmarkRequest(b *testing.B) {
	c := bigCluster()
	h := c.handler(b)
	const (
		all    = group + "v1beta1/pods"
		target = group + "v1beta1/namespaces/namespace-42/pods?labelSelector=app.kubernetes.io%2Fname%3Ddeployment-07"
		one    = group + "v1beta1/namespaces/namespace-42/pods/deployment-07-7c9f8d6b5-00075"
	)
	for _, bm := range []struct{ name, path, accept string }{
		{"all/json", all, mediaJSON},
		{"all/protobuf", all, runtime.ContentTypeProtobuf},
		{"all/table", all, "application/json;as=Table;g=meta.k8s.io;v=v1"},
		{"target/protobuf", target, runtime.ContentTypeProtobuf},
		{"target/json", target, mediaJSON},
		{"one/protobuf", one, runtime.ContentTypeProtobuf},
		{"one/json", one, mediaJSON},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, bm.path, http.NoBody)
				if err != nil {
					b.Fatal(err)
				}
				req.RequestURI = bm.path
				req.Header.Set("Accept", bm.accept)
				w := &discard{header: http.Header{}}
				h.ServeHTTP(w, req)
				if w.code != http.StatusOK {
					b.Fatalf("code %d", w.code)
				}
				b.SetBytes(w.bytes)
			}
		})
	}
}

// BenchmarkStorage measures what this package does of a request: building the objects.
func BenchmarkStorage(b *testing.B) {
	c := bigCluster()
	s := c.podStorage(b)
	one := labels.SelectorFromSet(labels.Set{"app.kubernetes.io/name": "deployment-07"})
	for _, bm := range []struct {
		name    string
		options *internalversion.ListOptions
	}{
		{"all", nil},
		{"labels", &internalversion.ListOptions{LabelSelector: one}},
		{"nothing", &internalversion.ListOptions{LabelSelector: labels.SelectorFromSet(labels.Set{"tier": "none"})}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.List(b.Context(), bm.options); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAllocsOfSelection holds the promise that an object that a list does not want costs no memory.
func TestAllocsOfSelection(t *testing.T) {
	c := bigCluster()
	s := c.podStorage(t)
	options := &internalversion.ListOptions{LabelSelector: labels.SelectorFromSet(labels.Set{"tier": "none"})}
	allocs := testing.AllocsPerRun(10, func() {
		if _, err := s.List(t.Context(), options); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 20 {
		t.Errorf("a list that wants none of 10,000 pods made %v allocations", allocs)
	}
}
