package resource

import (
	"fmt"
	"io"
	"net/http"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"

	"metrics-server/pkg/sample"
)

// bigCluster has 5,000 nodes, and 10,000 pods of 2 containers in 100 namespaces, 10 pods to an HPA target.
func bigCluster() *cluster {
	c := newCluster()
	c.nodes.list, c.pods.list = nil, nil
	for n := range 5000 {
		o := sample.Object{Name: fmt.Sprintf("node-%04d", n), Labels: sample.Labels{
			{Key: "kubernetes.io/arch", Value: "amd64"},
			{Key: "kubernetes.io/hostname", Value: fmt.Sprintf("node-%04d", n)},
			{Key: "kubernetes.io/os", Value: "linux"},
		}}
		c.nodes.list = append(c.nodes.list, o)
		c.usage.nodes[o.Name] = sample.NodeUsage{
			Time: testTime, Window: 10 * time.Second,
			Usage: sample.Usage{CPU: 1_234_567_890 + uint64(n), Memory: 6<<30 + uint64(n)<<12},
		}
	}
	for ns := range 100 {
		var l sample.Labels
		for n := range 100 {
			if n%10 == 0 { // the pods of a ReplicaSet share their labels
				l = sample.Labels{
					{Key: "app.kubernetes.io/name", Value: fmt.Sprintf("deployment-%02d", n/10)},
					{Key: "pod-template-hash", Value: "7c9f8d6b5"},
					{Key: "tier", Value: "backend"},
				}
			}
			k := podKey{fmt.Sprintf("namespace-%02d", ns), fmt.Sprintf("deployment-%02d-7c9f8d6b5-%05d", n/10, n)}
			c.pods.list = append(c.pods.list, sample.Object{Namespace: k.namespace, Name: k.name, Labels: l})
			c.usage.pods[k] = sample.PodUsage{
				Node: "n1", Time: testTime, Window: 15034 * time.Millisecond,
				Containers: []sample.ContainerUsage{
					{Name: "app", Usage: sample.Usage{
						CPU: 12_345_678 + uint64(n), Memory: 104_857_600 + uint64(n)<<12,
						HasSwap: true,
					}},
					{Name: "proxy", Usage: sample.Usage{CPU: 1_234_567 + uint64(n), Memory: 20_857_600}},
				},
			}
		}
	}
	return c
}

// discard is a response writer that discards everything.
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
	c.refresh()
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
		{"nodes/json", group + "v1beta1/nodes", mediaJSON},
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

// bufferSize is that of the engine.
const bufferSize = 64 << 10

const mediaTable = mediaJSON + ";as=Table;g=meta.k8s.io;v=v1"

// listEncoder returns a function that lists pods with options and encodes the list as the media type
// accept, or fails tb.
func listEncoder(tb testing.TB, s *podStorage, accept string, options *internalversion.ListOptions) func() {
	tb.Helper()
	encoder := encoderFor(tb, accept)
	ctx := outputContext(tb.Context(), accept)
	return func() {
		list, err := s.List(ctx, options)
		if err != nil {
			tb.Fatal(err)
		}
		if err := encoder.Encode(list, io.Discard); err != nil {
			tb.Fatal(err)
		}
	}
}

// encoderFor returns the standard encoder of a media type, for v1.
func encoderFor(tb testing.TB, accept string) runtime.Encoder {
	tb.Helper()
	mediaType, _, _ := strings.Cut(accept, ";")
	info, ok := runtime.SerializerInfoForMediaType(Group.Codecs.SupportedMediaTypes(), mediaType)
	if !ok {
		tb.Fatalf("no serializer for %s", accept)
	}
	return Group.Codecs.EncoderForVersion(info.Serializer, metricsv1.SchemeGroupVersion)
}

// lists are the lists that are written without building them.
var lists = []struct{ name, accept string }{
	{"json", mediaJSON},
	{"protobuf", runtime.ContentTypeProtobuf},
	{"table", mediaTable},
}

// BenchmarkList measures what this package does for a list of 10,000 pods, and for lists that
// select a tenth and none of them.
func BenchmarkList(b *testing.B) {
	c := bigCluster()
	c.refresh()
	s := c.podStorage(b)
	for _, l := range lists {
		b.Run("all/"+l.name, func(b *testing.B) {
			list := listEncoder(b, s, l.accept, nil)
			b.ReportAllocs()
			for b.Loop() {
				list()
			}
		})
	}
	for name, selected := range map[string]labels.Set{
		"tenth":   {"app.kubernetes.io/name": "deployment-07"},
		"nothing": {"tier": "none"},
	} {
		b.Run(name, func(b *testing.B) {
			list := listEncoder(b, s, runtime.ContentTypeProtobuf,
				&internalversion.ListOptions{LabelSelector: labels.SelectorFromSet(selected)})
			b.ReportAllocs()
			for b.Loop() {
				list()
			}
		})
	}
}

// refresh makes the pods' usages new: the age of an old one is printed as in kubectl, which
// allocates.
func (c *cluster) refresh() {
	for k, u := range c.usage.pods {
		u.Time = sample.TimeOf(time.Now())
		c.usage.pods[k] = u
	}
}

// TestAllocsOfLists checks that no memory is allocated for a pod, whether it is listed or skipped.
func TestAllocsOfLists(t *testing.T) {
	thousand := bigCluster()
	thousand.pods.list = thousand.pods.list[:1000]
	thousand.refresh()
	s := thousand.podStorage(t)
	for _, l := range lists {
		for name, options := range map[string]*internalversion.ListOptions{
			"all":     nil,
			"nothing": {LabelSelector: labels.SelectorFromSet(labels.Set{"tier": "none"})},
		} {
			list := listEncoder(t, s, l.accept, options)
			if allocs := testing.AllocsPerRun(20, list); allocs > 50 {
				t.Errorf("%s of 1,000 pods as %s made %v allocations", name, l.name, allocs)
			}
		}
	}
}

// A list in JSON and a Table take the same memory however long they are. A list in protobuf is held
// while it is encoded, mostly in the buffers of the previous one.
func TestMemoryOfLists(t *testing.T) {
	c := bigCluster()
	c.refresh()
	s := c.podStorage(t)
	for _, l := range lists {
		limit := uint64(4 * bufferSize)
		list := listEncoder(t, s, l.accept, nil)
		if l.accept == runtime.ContentTypeProtobuf {
			limit = 2 << 20 // of nearly three: with the race detector, pools lose a quarter of what they are given, by chance
			list()
		}
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		list()
		goruntime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > limit {
			t.Errorf("10,000 pods as %s took %d KiB, want at most %d", l.name, n>>10, limit>>10)
		}
	}
}
