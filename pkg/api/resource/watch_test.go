package resource

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	"k8s.io/metrics/pkg/client/clientset/versioned"

	"metrics-server/pkg/api"
	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// replica is what one process knows, which changes while it is watched.
type replica struct {
	clock               *revision.Clock
	nodesGone, podsGone *api.Deletions
	handler             http.Handler
	broken              context.Context // of the requests in flight
	breakOff            context.CancelFunc

	reads     atomic.Int64
	onReadAll atomic.Pointer[func()] // called the next time before all objects are read
	onRead    atomic.Pointer[func()] // called the next time after usages of pods have been read

	mu      sync.Mutex
	objects map[podKey]sample.Object
	usage   map[podKey]sample.PodUsage
}

// newReplica returns a process that has just started and knows nothing.
func newReplica(t *testing.T) *replica {
	r := &replica{
		clock: revision.NewClock(time.Now()), objects: map[podKey]sample.Object{}, usage: map[podKey]sample.PodUsage{},
	}
	r.nodesGone, r.podsGone = api.NewDeletions(r.clock), api.NewDeletions(r.clock)
	r.broken, r.breakOff = context.WithCancel(t.Context())
	c := Config{
		Nodes: kind{r, false}, Pods: kind{r, true}, NodeUsage: r, PodUsage: r, Scrapes: r,
		Clock: r.clock, NodesGone: r.nodesGone, PodsGone: r.podsGone,
	}
	r.handler = newCluster().handlerOf(t, c, withEngine)
	return r
}

// kind is the objects of one resource. Nodes have no namespace.
type kind struct {
	*replica
	pods bool
}

func (k kind) Get(namespace, name string) (sample.Object, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o, ok := k.objects[podKey{namespace, name}]
	return o, ok
}

func (k kind) All(namespace string, selects func(sample.Labels) bool) iter.Seq[sample.Object] {
	if f := k.onReadAll.Swap(nil); f != nil {
		(*f)()
	}
	k.mu.Lock()
	all := slices.SortedFunc(maps.Values(k.objects), func(a, b sample.Object) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	k.mu.Unlock()
	return func(yield func(sample.Object) bool) {
		for _, o := range all {
			if (o.Namespace != "") != k.pods || namespace != "" && o.Namespace != namespace ||
				selects != nil && !selects(o.Labels) {
				continue
			}
			if !yield(o) {
				return
			}
		}
	}
}

func (r *replica) Scrape(string) sample.Scrape { return sample.Scrape{} }

func (r *replica) Node(name string, _ time.Time) (sample.NodeUsage, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.usage[podKey{"", name}]
	n := sample.NodeUsage{Time: u.Time, Window: u.Window, Revision: u.Revision}
	if len(u.Containers) == 0 {
		return n, false
	}
	n.Usage = u.Containers[0].Usage
	return n, true
}

func (r *replica) Pods(pods []sample.Object, _ time.Time, into []sample.PodUsage) {
	r.reads.Add(1)
	r.mu.Lock()
	for i := range pods {
		into[i] = r.usage[podKey{pods[i].Namespace, pods[i].Name}]
	}
	r.mu.Unlock()
	if f := r.onRead.Swap(nil); f != nil {
		(*f)()
	}
}

func (r *replica) WhyNoNode(string, time.Time) string        { return "test" }
func (r *replica) WhyNoPod(string, string, time.Time) string { return "test" }

// scrape gives an object a new usage.
func (r *replica) scrape(namespace, name string, cpu uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.usage[podKey{namespace, name}] = sample.PodUsage{
		Node: "n1", Time: sample.TimeOf(time.Now()), Window: 15 * time.Second, Revision: r.clock.Next(time.Now()),
		Containers: []sample.ContainerUsage{{Name: "app", Usage: sample.Usage{CPU: cpu, Memory: 1 << 20}}},
	}
}

// scrapeTogether gives objects a new usage by one answer of their kubelet.
func (r *replica) scrapeTogether(namespace string, cpu uint64, names ...string) {
	for _, name := range names {
		r.scrape(namespace, name, cpu)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range names {
		k := podKey{namespace, name}
		u := r.usage[k]
		u.Revision = r.clock.Last()
		r.usage[k] = u
	}
}

// names returns the names of all objects, sorted.
func (r *replica) names() (all []string) {
	for k := range r.objects {
		all = append(all, k.name)
	}
	slices.Sort(all)
	return all
}

// move lets a pod be served from another node, whose last sample is older.
func (r *replica) move(namespace, name, node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := podKey{namespace, name}
	u := r.usage[k]
	u.Node, u.NodeSince = node, r.clock.Next(time.Now())
	u.Revision = u.NodeSince
	r.usage[k] = u
}

// lose takes an object's usage away.
func (r *replica) lose(namespace, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.usage[podKey{namespace, name}] = sample.PodUsage{Revision: r.clock.Next(time.Now())}
}

// put adds an object or changes its labels.
func (r *replica) put(namespace, name, app string) {
	o := sample.Object{Namespace: namespace, Name: name, Labels: sample.Labels{{Key: "app", Value: app}}}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.objects[podKey{namespace, name}]; known {
		o.Changed = r.clock.Next(time.Now())
	}
	r.objects[podKey{namespace, name}] = o
}

// remove removes an object. Its kubelet may have told before that it has ended.
func (r *replica) remove(namespace, name string, toldFirst bool) {
	k := podKey{namespace, name}
	gone := r.podsGone
	if namespace == "" {
		gone = r.nodesGone
	}
	r.mu.Lock()
	o := r.objects[k]
	if toldFirst {
		delete(r.usage, k)
		gone.Add(sample.Object{Namespace: namespace, Name: name})
	}
	delete(r.objects, k)
	r.mu.Unlock()
	gone.Add(o)
	r.mu.Lock()
	delete(r.usage, k)
	r.mu.Unlock()
}

// interrupt breaks off all requests in flight.
func (r *replica) interrupt(t *testing.T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.breakOff()
	r.broken, r.breakOff = context.WithCancel(t.Context())
}

// stream is the body of an answer that is read while it is written.
type stream struct {
	*io.PipeWriter
	header  http.Header
	started chan int // the code
	once    sync.Once
}

func (s *stream) CloseNotify() <-chan bool { return nil }
func (s *stream) Header() http.Header      { return s.header }
func (s *stream) WriteHeader(code int)     { s.once.Do(func() { s.started <- code }) }
func (s *stream) Flush()                   { s.WriteHeader(http.StatusOK) }
func (s *stream) Write(b []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return s.PipeWriter.Write(b)
}

// RoundTrip implements http.RoundTripper without a network, so that time can be simulated.
func (r *replica) RoundTrip(q *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(q.Context())
	r.mu.Lock()
	stop := context.AfterFunc(r.broken, cancel)
	r.mu.Unlock()
	out, in := io.Pipe()
	s := &stream{PipeWriter: in, header: http.Header{}, started: make(chan int, 1)}
	q = q.Clone(ctx)
	q.RemoteAddr, q.RequestURI = "192.0.2.1:1", q.URL.RequestURI()
	q.Body = http.NoBody
	go func() {
		defer stop()
		r.handler.ServeHTTP(s, q)
		s.WriteHeader(http.StatusOK)
		_ = in.Close()
	}()
	select {
	case code := <-s.started:
		return &http.Response{
			StatusCode: code, Status: http.StatusText(code), Header: s.header, Request: q,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: body{out, cancel},
		}, nil
	case <-ctx.Done():
		_ = out.Close() // or a write that has begun would wait for ever
		return nil, ctx.Err()
	}
}

type body struct {
	*io.PipeReader
	cancel func()
}

func (b body) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// watchText returns everything that a watch sends until it ends.
func (r *replica) watchText(t *testing.T, path, accept string) string {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://test"+group+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Accept", accept)
	a, err := r.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// open begins a watch, or another request, whose answer is read step by step.
func (r *replica) open(t *testing.T, path string) (events *json.Decoder, end func()) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://test"+group+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.RoundTrip(q) //nolint:bodyclose // end closes it
	if err != nil {
		t.Fatal(err)
	}
	return json.NewDecoder(a.Body), func() { _ = a.Body.Close() }
}

// next returns the next event in short, and its resourceVersion.
func next(t *testing.T, events *json.Decoder) (text, version string) {
	t.Helper()
	var e event
	if err := events.Decode(&e); err != nil {
		t.Fatal(err)
	}
	return string(e.Type) + " " + e.Object.Name, e.Object.ResourceVersion
}

// listVersion returns the resourceVersion of a list of all pods.
func (r *replica) listVersion(t *testing.T) string {
	t.Helper()
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal([]byte(r.watchText(t, "v1/pods", mediaJSON)), &list); err != nil {
		t.Fatal(err)
	}
	return list.ResourceVersion
}

type event struct {
	Type   watch.EventType
	Object struct {
		metav1.PartialObjectMetadata `json:",inline"`
		Rows                         []struct{ Cells []any }
		Code                         int
		Reason                       metav1.StatusReason
	}
}

// events returns the events of a watch in short: type, name, and what is remarkable.
func (r *replica) events(t *testing.T, path string) []string {
	t.Helper()
	var all []string
	d := json.NewDecoder(strings.NewReader(r.watchText(t, path, mediaJSON)))
	for {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if e.Type == "" { // a Status
			all = append(all, "refused")
			continue
		}
		if e.Object.ResourceVersion == "" {
			t.Errorf("%s: an event has no resourceVersion: %+v", path, e)
		}
		text := string(e.Type) + " " + e.Object.Name
		if e.Object.Annotations[metav1.InitialEventsAnnotationKey] == "true" {
			text += "end of initial events"
		}
		all = append(all, text)
	}
}

// script makes an object appear, change, and leave in several ways.
func script(r *replica) {
	after := func(d time.Duration, f func()) { time.AfterFunc(d, f) }
	r.put("a", "p1", "web")
	r.scrape("a", "p1", 1)
	r.put("a", "p2", "web")
	r.scrape("a", "p2", 1)
	r.put("a", "waiting", "web")
	r.put("b", "other", "db")
	r.scrape("b", "other", 1)
	after(2500*time.Millisecond, func() { r.scrape("a", "p2", 2) })
	after(4500*time.Millisecond, func() { r.scrape("a", "waiting", 1); r.lose("a", "p1") })
	after(6500*time.Millisecond, func() { r.put("a", "p2", "changed"); r.scrape("a", "p1", 1) })
	after(8500*time.Millisecond, func() { r.remove("a", "waiting", true); r.remove("b", "other", false) })
}

func TestWatch(t *testing.T) {
	const initial = "&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&allowWatchBookmarks=true"
	for query, want := range map[string]string{
		"/namespaces/a/pods?watch=1": "ADDED p1,ADDED p2,MODIFIED p2,DELETED p1,ADDED waiting,MODIFIED p2,ADDED p1," +
			"DELETED waiting",
		"/pods?watch=1&resourceVersion=0": "ADDED p1,ADDED p2,ADDED other,MODIFIED p2,DELETED p1,ADDED waiting," +
			"MODIFIED p2,ADDED p1,DELETED waiting,DELETED other",
		"/pods?watch=1" + initial: "ADDED p1,ADDED p2,ADDED other,BOOKMARK end of initial events,MODIFIED p2,DELETED p1," +
			"ADDED waiting,MODIFIED p2,ADDED p1,DELETED waiting,DELETED other",
		"/pods?watch=1&resourceVersionMatch=NotOlderThan&sendInitialEvents=false": "MODIFIED p2,DELETED p1," +
			"ADDED waiting,MODIFIED p2,ADDED p1,DELETED waiting,DELETED other",
		"/pods?watch=1&labelSelector=app=web": "ADDED p1,ADDED p2,MODIFIED p2,DELETED p1,ADDED waiting," +
			"DELETED p2,ADDED p1,DELETED waiting",
		"/pods?watch=1&labelSelector=app=changed":                   "ADDED p2",
		"/pods?watch=1&fieldSelector=metadata.name=p2":              "ADDED p2,MODIFIED p2,MODIFIED p2",
		"/pods?watch=1&fieldSelector=metadata.namespace=b":          "ADDED other,DELETED other",
		"/pods?watch=1&fieldSelector=spec.nodeName=n2":              "",
		"/namespaces/b/pods?watch=1&fieldSelector=spec.nodeName=n1": "ADDED other,DELETED other",
		"/watch/namespaces/b/pods":                                  "ADDED other,DELETED other",
		"/nodes?watch=1" + initial:                                  "BOOKMARK end of initial events",
		"/pods?watch=1&resourceVersion=12":                          "refused",
		"/pods?watch=1&resourceVersion=x":                           "refused",
		"/pods?watch=1&resourceVersion=99999999999999999":           "refused",
		"/namespaces/c/pods?watch=1":                                "",
		"/namespaces/a/pods?watch=1&allowWatchBookmarks=true&long": "ADDED p1,ADDED p2,BOOKMARK end of initial events," +
			"MODIFIED p2,DELETED p1,ADDED waiting,MODIFIED p2,ADDED p1,DELETED waiting,BOOKMARK ,BOOKMARK ",
	} {
		t.Run(query, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReplica(t)
				script(r)
				seconds := "&timeoutSeconds=10"
				if strings.HasSuffix(query, "&long") {
					seconds = "&timeoutSeconds=130"
				}
				if !strings.Contains(query, "?") {
					seconds = "?" + seconds
				}
				if got := strings.Join(r.events(t, "v1"+query+seconds), ","); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		})
	}
}

// A client that does not read for a while skips values, and nothing is read when nobody watches.
func TestSlowWatch(t *testing.T) {
	for _, accept := range []string{mediaJSON, mediaJSON + ";as=Table;g=meta.k8s.io;v=v1"} {
		synctest.Test(t, func(t *testing.T) {
			r := newReplica(t)
			r.put("a", "p", "web")
			r.scrape("a", "p", 1)
			q, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
				"http://test"+group+"v1/pods?watch=1&timeoutSeconds=60", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("Accept", accept)
			a, err := r.RoundTrip(q)
			if err != nil {
				t.Fatal(err)
			}
			d := json.NewDecoder(a.Body)
			read := func() (text string) {
				var e struct{ Object json.RawMessage }
				if err := d.Decode(&e); err != nil {
					t.Fatal(err)
				}
				return string(e.Object)
			}
			if first := read(); !strings.Contains(first, `"1n"`) {
				t.Errorf("the first event is %s", first)
			}
			for cpu := range uint64(20) {
				time.Sleep(2 * time.Second)
				r.scrape("a", "p", 100+cpu)
			}
			skipped := 0
			for text := read(); !strings.Contains(text, `"119n"`); text = read() {
				if skipped++; skipped > 2 {
					t.Fatalf("events of old values are sent: %s", text)
				}
			}
			_ = a.Body.Close()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			before := r.reads.Load()
			time.Sleep(time.Minute)
			if now := r.reads.Load(); now != before || before == 0 {
				t.Errorf("usages are read without a watch: %d, and then %d", before, now)
			}
			r.breakOff()
		})
	}
}

// Events have the same bytes as those that the generic server makes of standard objects.
func TestWatchEncodings(t *testing.T) {
	for _, accept := range []string{
		mediaJSON, runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf + ";stream=watch",
	} {
		for _, path := range []string{"v1/pods", "v1beta1/pods", "v1/nodes", "v1beta1/nodes"} {
			t.Run(path+" as "+accept, func(t *testing.T) {
				var texts []string
				for _, before := range []func(http.Handler) http.Handler{withEngine, withoutEngine} {
					synctest.Test(t, func(t *testing.T) {
						r := newReplica(t)
						r.clock = revision.NewClock(time.Now())
						c := Config{
							Nodes: kind{r, false}, Pods: kind{r, true}, NodeUsage: r, PodUsage: r, Scrapes: r,
							Clock: r.clock, NodesGone: r.nodesGone, PodsGone: r.podsGone,
						}
						r.handler = newCluster().handlerOf(t, c, before)
						script(r)
						r.put("", "n1", "node")
						r.scrape("", "n1", 1)
						time.AfterFunc(2500*time.Millisecond, func() { r.scrape("", "n1", 2) })
						time.AfterFunc(5500*time.Millisecond, func() { r.remove("", "n1", false) })
						text := r.watchText(t, path+"?watch=1&timeoutSeconds=10", accept)
						texts = append(texts, sameOrigin(text))
					})
				}
				if d := gocmp.Diff(texts[1], texts[0]); d != "" || len(texts[0]) < 400 {
					t.Errorf("%d bytes (-standard +engine):\n%s", len(texts[0]), d)
				}
			})
		}
	}
}

var version = regexp.MustCompile(`[0-9]{17,20}`)

// sameOrigin replaces the resourceVersions of a process, whose last digits are random, by ones that do
// not depend on it.
func sameOrigin(text string) string { return version.ReplaceAllString(text, "VERSION") }

// An informer has an exact copy of what its server lists, whatever happens.
func TestInformer(t *testing.T) {
	for _, accept := range []string{mediaJSON, runtime.ContentTypeProtobuf} {
		for seed := range uint64(10) {
			for _, selector := range []string{"", "app=web"} {
				t.Run(fmt.Sprint(accept, seed, selector), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testInformer(t, accept, selector, rand.New(rand.NewPCG(seed, 1))) })
				})
			}
		}
	}
}

// service sends requests to one of two replicas.
type service struct {
	t        *testing.T
	replicas [2]*replica

	mu      sync.Mutex
	current int
}

func (s *service) RoundTrip(q *http.Request) (*http.Response, error) {
	s.mu.Lock()
	r := s.replicas[s.current]
	s.mu.Unlock()
	return r.RoundTrip(q)
}

func (s *service) switchOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = 1 - s.current
}

// inform starts an informer of the pods that a selector selects, until the end of the test. It returns
// what the informer lists and watches, and its copy.
func inform(t *testing.T, service http.RoundTripper, accept, selector string) (*cache.ListWatch, cache.Store) {
	t.Helper()
	clients, err := versioned.NewForConfigAndClient(
		&restclient.Config{Host: "http://test", ContentConfig: restclient.ContentConfig{ContentType: accept}, QPS: -1},
		&http.Client{Transport: service})
	if err != nil {
		t.Fatal(err)
	}
	pods := cache.NewFilteredListWatchFromClient(clients.MetricsV1().RESTClient(), "pods", "",
		func(o *metav1.ListOptions) { o.LabelSelector = selector })
	copied := cache.NewStore(cache.MetaNamespaceKeyFunc)
	reflector := cache.NewReflector(pods, &metricsv1.PodMetrics{}, copied, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { reflector.RunWithContext(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return pods, copied
}

// compareCopy fails the test unless the copy of an informer is what is listed.
func compareCopy(t *testing.T, pods *cache.ListWatch, copied cache.Store) {
	t.Helper()
	list, err := pods.ListWithContext(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]*metricsv1.PodMetrics{}, map[string]*metricsv1.PodMetrics{}
	for _, p := range list.(*metricsv1.PodMetricsList).Items {
		want[p.Name] = &p
	}
	for _, o := range copied.List() {
		got[o.(*metricsv1.PodMetrics).Name] = o.(*metricsv1.PodMetrics)
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Fatalf("(-list +informer):\n%s", d)
	}
}

func testInformer(t *testing.T, accept, selector string, random *rand.Rand) {
	s := &service{t: t, replicas: [2]*replica{newReplica(t), newReplica(t)}}
	time.Sleep(15 * time.Second) // or nothing of before could be resumed
	pods, copied := inform(t, s, accept, selector)

	both := func(f func(r *replica)) {
		for _, r := range s.replicas {
			f(r)
		}
	}
	for range 12 {
		for range random.IntN(40) {
			name := fmt.Sprintf("p%d", random.IntN(8))
			known := s.replicas[0].objects[podKey{"a", name}].Name != ""
			one := s.replicas[random.IntN(2)]
			told := random.IntN(2) == 0
			switch op := random.IntN(12); {
			case op == 0 && known:
				both(func(r *replica) { r.remove("a", name, told) })
			case op == 1 && known:
				app := []string{"web", "db"}[random.IntN(2)]
				both(func(r *replica) { r.put("a", name, app) })
			case op == 2 && known:
				one.lose("a", name)
			case op == 3:
				one.interrupt(t)
			case op == 4:
				synctest.Wait() // or a request that is on its way to the old replica would not be interrupted
				s.switchOver()
				both(func(r *replica) { r.interrupt(t) })
			case op == 5 && known:
				one.scrapeTogether("a", random.Uint64N(1e9), one.names()...)
			case known:
				one.scrape("a", name, random.Uint64N(1e9))
			default:
				both(func(r *replica) { r.put("a", name, "web") })
			}
			if random.IntN(3) == 0 {
				time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			}
		}
		if random.IntN(6) == 0 { // one process is replaced, and knows what exists, but no usages
			synctest.Wait() // as above
			old := s.replicas[0]
			r := newReplica(t)
			maps.Copy(r.objects, old.objects)
			s.mu.Lock()
			s.replicas[0] = r
			s.mu.Unlock()
			old.breakOff()
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		compareCopy(t, pods, copied)
	}
	both(func(r *replica) { r.breakOff() })
}

// A pod that is deleted while a watch is being resumed is not lost.
func TestDeletionDuringResumption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t)
		for _, name := range []string{"p1", "p2"} {
			r.put("a", name, "web")
			r.scrape("a", name, 1)
		}
		version := r.listVersion(t)
		r.onReadAll.Store(new(func() { r.remove("a", "p1", false) }))
		got := r.events(t, "v1/pods?watch=1&timeoutSeconds=5&resourceVersion="+version)
		// The list has the revision of p2, and other objects with the same one might be missing.
		if d := gocmp.Diff([]string{"DELETED p1", "MODIFIED p2"}, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// A pod that is recreated under its name is gone for a client whose selector matches only the labels of the
// old one.
func TestResumptionAfterRecreation(t *testing.T) {
	for query, want := range map[string]string{
		"":                        "MODIFIED p1",
		"&labelSelector=app=db":   "MODIFIED p1",
		"&labelSelector=app=web":  "DELETED p1",
		"&labelSelector=app=mail": "",
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newReplica(t)
			r.put("a", "p1", "web")
			r.scrape("a", "p1", 1)
			r.lose("b", "other") // a later change, without which the pod would be sent again
			version := r.listVersion(t)
			r.remove("a", "p1", false)
			r.put("a", "p1", "db")
			r.scrape("a", "p1", 1)
			got := strings.Join(r.events(t, "v1/pods?watch=1&timeoutSeconds=5&resourceVersion="+version+query), ",")
			if got != want {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		})
	}
}

// A pod that is served from another node is gone for a client that selects the former node. Other pods
// of that other node, which have just been scraped, are not sent.
func TestResumptionAfterAnotherNodeIsTrusted(t *testing.T) {
	for query, want := range map[string]string{
		"":                                "MODIFIED p1,MODIFIED p2",
		"&fieldSelector=spec.nodeName=n1": "DELETED p1",
		"&fieldSelector=spec.nodeName=n1&labelSelector=app=web": "DELETED p1",
		"&fieldSelector=spec.nodeName=n2":                       "MODIFIED p1,MODIFIED p2",
		"&fieldSelector=spec.nodeName=n2,metadata.name=p1":      "MODIFIED p1",
		"&fieldSelector=spec.nodeName=n1,metadata.name=p2":      "",
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newReplica(t)
			for _, name := range []string{"p1", "p2"} {
				r.put("a", name, "web")
				r.scrape("a", name, 1)
			}
			r.move("a", "p2", "n2")
			r.lose("b", "other") // a later change, without which a pod would be sent again
			version := r.listVersion(t)
			r.move("a", "p1", "n2")
			r.mu.Lock()
			u := r.usage[podKey{"a", "p2"}]
			u.Revision = r.clock.Next(time.Now()) // scraped again
			r.usage[podKey{"a", "p2"}] = u
			r.mu.Unlock()
			got := strings.Join(r.events(t, "v1/pods?watch=1&timeoutSeconds=5&resourceVersion="+version+query), ",")
			if got != want {
				t.Errorf("%s: got %q, want %q", query, got, want)
			}
		})
	}
}

// The pods in one answer of a kubelet change with the same revision. A watch that is interrupted after
// some of them continues with the others.
func TestResumptionWithinAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t)
		for _, name := range []string{"other", "p1", "p2"} {
			r.put("a", name, "web")
			r.scrape("a", name, 1)
		}
		version := r.listVersion(t)
		r.scrapeTogether("a", 2, "p1", "p2")
		events, end := r.open(t, "v1/pods?watch=1&resourceVersion="+version)
		text := ""
		for text != "MODIFIED p1" {
			text, version = next(t, events)
		}
		r.interrupt(t)
		end()
		got := strings.Join(r.events(t, "v1/pods?watch=1&timeoutSeconds=5&resourceVersion="+version), ",")
		if want := "MODIFIED p1,MODIFIED p2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// Of what a client knows already, a watch that is resumed repeats one answer of a kubelet at most, also
// if that is the last change for long.
func TestResumptionRepeatsOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t)
		for n := range 20 {
			names := []string{fmt.Sprint("a", n), fmt.Sprint("b", n)}
			r.put("a", names[0], "web")
			r.put("a", names[1], "web")
			r.scrapeTogether("a", 1, names...)
		}
		for range 3 {
			path := "v1/pods?watch=1&timeoutSeconds=5&resourceVersion=" + r.listVersion(t)
			if got := strings.Join(r.events(t, path), ","); got != "MODIFIED a19,MODIFIED b19" {
				t.Errorf("after a list: %s, want one answer", got)
			}
			if got := r.watchText(t, path, mediaJSON+";as=Table;g=meta.k8s.io;v=v1"); got != "" {
				t.Errorf("people see again what is in the list: %s", got)
			}
		}
		events, end := r.open(t, "v1/pods?watch=1&allowWatchBookmarks=true&resourceVersion="+r.listVersion(t))
		text, version := "", ""
		for !strings.HasPrefix(text, "BOOKMARK") {
			text, version = next(t, events)
		}
		end()
		got := strings.Join(r.events(t, "v1/pods?watch=1&timeoutSeconds=5&resourceVersion="+version), ",")
		if got != "MODIFIED a19,MODIFIED b19" {
			t.Errorf("after a bookmark: %s, want one answer", got)
		}
		r.breakOff()
	})
}

// A client may know a pod that has appeared since the other watches looked last. If the pod is deleted
// while the client resumes its watch, the client learns of it.
func TestResumptionAfterALaterList(t *testing.T) {
	appear := func(r *replica) {
		r.put("a", "p2", "web")
		r.scrape("a", "p2", 1)
	}
	for name, list := range map[string]func(t *testing.T, r *replica) (version string){
		"the list is later": func(t *testing.T, r *replica) string {
			time.Sleep(100 * time.Millisecond)
			appear(r)
			return r.listVersion(t)
		},
		// The list has the version of its beginning, and values that are read later.
		"the list ends later": func(t *testing.T, r *replica) string {
			r.onReadAll.Store(new(func() {
				time.Sleep(2 * time.Second)
				synctest.Wait() // for the other watch
				appear(r)
			}))
			return r.listVersion(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReplica(t)
				r.put("a", "p1", "web")
				r.scrape("a", "p1", 1)
				other, end := r.open(t, "v1/pods?watch=1")
				defer end()
				if text, _ := next(t, other); text != "ADDED p1" {
					t.Fatal(text)
				}
				version := list(t, r)
				time.AfterFunc(50*time.Millisecond, func() { r.remove("a", "p2", false) })
				got := r.events(t, "v1/pods?watch=1&timeoutSeconds=5&resourceVersion="+version)
				if !slices.Contains(got, "DELETED p2") {
					t.Errorf("got %s, want that p2 is deleted", got)
				}
			})
		})
	}
}

// Events come in the order of their revisions, even if something changes while a watch looks
// what has changed.
func TestChangesDuringResumption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t)
		for i := range 40 { // more than are read together
			name := fmt.Sprintf("p%02d", i)
			r.put("a", name, "web")
			r.scrape("a", name, 1)
		}
		r.lose("b", "other") // a later change, without which a pod would be sent again
		version := r.listVersion(t)
		r.onRead.Store(new(func() {
			r.scrape("a", "p00", 2)
			r.scrape("a", "p39", 2)
		}))
		got := strings.Join(r.events(t, "v1/pods?watch=1&timeoutSeconds=5&resourceVersion="+version), ",")
		if want := "MODIFIED p00,MODIFIED p39"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// A watch that is interrupted among its first events, with which it sends everything, continues with the
// others, and with what has changed since.
func TestResumptionAmongInitialEvents(t *testing.T) {
	const pods = 40 // more than are read together
	for last := range pods {
		synctest.Test(t, func(t *testing.T) {
			r := newReplica(t)
			for i := range pods {
				name := fmt.Sprintf("p%02d", (i*7+3)%pods)
				r.put("a", name, "web")
				r.scrape("a", name, 1)
			}
			events, end := r.open(t, "v1/pods?watch=1")
			has := map[string]uint64{}
			version := ""
			note := func() {
				var e struct {
					Object struct {
						Metadata   metav1.ObjectMeta
						Containers []metricsv1.ContainerMetrics
					}
				}
				if err := events.Decode(&e); errors.Is(err, io.EOF) {
					version = ""
					return
				} else if err != nil {
					t.Fatal(err)
				}
				has[e.Object.Metadata.Name] = uint64(e.Object.Containers[0].Usage.Cpu().ScaledValue(resource.Nano))
				version = e.Object.Metadata.ResourceVersion
			}
			for i := range last + 1 {
				if note(); i == 0 {
					for i := range pods {
						r.scrape("a", fmt.Sprintf("p%02d", i), 2)
					}
				}
			}
			r.interrupt(t)
			end()
			events, end = r.open(t, "v1/pods?watch=1&timeoutSeconds=5&resourceVersion="+version)
			for version != "" {
				note()
			}
			end()
			for i := range pods {
				if name := fmt.Sprintf("p%02d", i); has[name] != 2 {
					t.Errorf("interrupted after %d events: the client has %dn of %s, want 2n", last+1, has[name], name)
				}
			}
		})
	}
}

// roundTripper is a function that implements http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

// So many deletions are remembered that a watch can be resumed after them. After one more it is refused,
// and an informer begins again.
func TestDeletionsThatAreRemembered(t *testing.T) {
	const remembered = 8192
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t)
		for _, name := range []string{"stays", "goes", "goes-later"} {
			r.put("a", name, "web")
			r.scrape("a", name, 1)
		}
		r.lose("b", "other") // a later change, without which a pod would be sent again
		end := func(pods int) {
			for i := range pods {
				r.podsGone.Add(sample.Object{Namespace: "jobs", Name: fmt.Sprintf("job-%d", i)})
			}
		}
		var refused atomic.Int64
		pods, copied := inform(t, roundTripper(func(q *http.Request) (*http.Response, error) {
			a, err := r.RoundTrip(q)
			if err == nil && a.StatusCode == http.StatusGone {
				refused.Add(1)
			}
			return a, err
		}), mediaJSON, "")
		time.Sleep(time.Minute)
		compareCopy(t, pods, copied)
		list, err := pods.ListWithContext(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		resume := "v1/namespaces/a/pods?watch=1&timeoutSeconds=3&resourceVersion=" +
			list.(*metricsv1.PodMetricsList).ResourceVersion

		r.remove("a", "goes", false)
		end(remembered - 1)
		if got := strings.Join(r.events(t, resume), ","); got != "DELETED goes" {
			t.Errorf("after %d deletions: %.300s, want that of a pod in the namespace", remembered, got)
		}
		end(1)
		got := r.watchText(t, resume, mediaJSON)
		if !strings.Contains(got, `"code":410`) || !strings.Contains(got, "too many objects have ended since: list again") {
			t.Errorf("after one more: %.300s, want a refusal", got)
		}

		time.Sleep(time.Minute)
		compareCopy(t, pods, copied)
		if n := refused.Load(); n != 0 {
			t.Errorf("the informer's watch was refused %d times, although it was not interrupted", n)
		}
		r.remove("a", "goes-later", false)
		end(remembered)
		r.interrupt(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		compareCopy(t, pods, copied)
		if pods, n := len(copied.List()), refused.Load(); pods != 1 || n != 1 {
			t.Errorf("an informer has %d pods after %d refusals, want 1 after 1", pods, n)
		}
		r.breakOff()
	})
}
