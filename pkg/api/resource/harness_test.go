package resource

import (
	"cmp"
	"context"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/compatibility"
	restclient "k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/metrics"

	"metrics-server/pkg/api"
	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

func TestMain(m *testing.M) {
	// The second handler limits the rate of errors. It would sleep for 26 years in the first synctest
	// bubble after an error outside, because the clock of a bubble starts in the year 2000.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1] //nolint:reassign // there is no other way
	m.Run()
}

// fakeObjects are sorted by namespace and name.
type fakeObjects struct {
	list   []sample.Object
	walked atomic.Int64 // objects that All has yielded
	each   func()       // called for each object that All looks at, unless nil
}

func (f *fakeObjects) find(namespace, name string) (int, bool) {
	return slices.BinarySearchFunc(f.list, sample.Object{Namespace: namespace, Name: name}, func(a, b sample.Object) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

func (f *fakeObjects) Get(namespace, name string) (sample.Object, bool) {
	i, ok := f.find(namespace, name)
	if !ok {
		return sample.Object{}, false
	}
	return f.list[i], true
}

func (f *fakeObjects) All(namespace string, selects func(sample.Labels) bool) iter.Seq[sample.Object] {
	return func(yield func(sample.Object) bool) {
		i, _ := f.find(namespace, "")
		for _, o := range f.list[i:] {
			if namespace != "" && o.Namespace != namespace {
				return
			}
			if f.each != nil {
				f.each()
			}
			if selects != nil && !selects(o.Labels) {
				continue
			}
			f.walked.Add(1)
			if !yield(o) {
				return
			}
		}
	}
}

// podKey is the namespace and name of a pod.
type podKey struct{ namespace, name string }

type fakeUsage struct {
	nodes   map[string]sample.NodeUsage
	pods    map[podKey]sample.PodUsage
	scrapes map[string]sample.Scrape
	why     map[string]string // by name
	reads   atomic.Int64
}

func (f *fakeUsage) Scrape(node string) sample.Scrape { return f.scrapes[node] }

func (f *fakeUsage) Node(name string, _ time.Time) (sample.NodeUsage, bool) {
	f.reads.Add(1)
	u, ok := f.nodes[name]
	return u, ok
}

func (f *fakeUsage) WhyNoNode(name string, _ time.Time) string { return f.why[name] }

func (f *fakeUsage) Pods(pods []sample.Object, _ time.Time, into []sample.PodUsage) {
	f.reads.Add(int64(len(pods)))
	for i := range pods {
		u := f.pods[podKey{pods[i].Namespace, pods[i].Name}] // without containers if there is none
		u.Containers = append(into[i].Containers[:0], u.Containers...)
		into[i] = u
	}
}

func (f *fakeUsage) WhyNoPod(_, name string, _ time.Time) string { return f.why[name] }

// cluster is what the fake readers know.
type cluster struct {
	nodes, pods *fakeObjects
	usage       *fakeUsage
	registry    *prometheus.Registry
	clock       *revision.Clock
	gone        *api.Deletions
}

// testTime is the time of the newest sample: 2026-08-01 12:00:00.250 UTC.
const testTime sample.Time = 1785585600250

// newCluster returns two nodes and four pods. One node and one pod have no usage.
func newCluster() *cluster {
	label := func(kv ...string) (l sample.Labels) {
		for i := 0; i < len(kv); i += 2 {
			l = append(l, sample.Label{Key: kv[i], Value: kv[i+1]})
		}
		return l
	}
	c := &cluster{
		nodes: &fakeObjects{list: []sample.Object{
			{Name: "n1", Labels: label("os", "linux", "zone", "east")},
			{Name: "n2", Labels: label("os", "linux")},
		}},
		pods: &fakeObjects{list: []sample.Object{
			{Namespace: "a", Name: "new", Labels: label("app", "web")},
			{Namespace: "a", Name: "web-1", Labels: label("app", "web", "tier", "front")},
			{Namespace: "a", Name: "web-2", Labels: label("app", "web")},
			{Namespace: "b", Name: "db", Labels: nil},
		}},
		usage: &fakeUsage{
			nodes: map[string]sample.NodeUsage{
				"n1": {
					Time: testTime, Window: 10 * time.Second,
					Usage: sample.Usage{CPU: 1_234_567_890, Memory: 6 << 30, Swap: 4096, HasSwap: true},
				},
			},
			pods: map[podKey]sample.PodUsage{
				{"a", "web-1"}: {
					Node: "n1", Time: testTime - 5000, Window: 15034*time.Millisecond + 400*time.Microsecond,
					Containers: []sample.ContainerUsage{
						{Name: "app", Usage: sample.Usage{CPU: 12345678, Memory: 104232 << 10, Swap: 0, HasSwap: true}},
						{Name: "proxy", Usage: sample.Usage{CPU: 237_700_000, Memory: 1 << 20}},
					},
				},
				{"a", "web-2"}: {Node: "n2", Time: testTime, Window: 15 * time.Second, Containers: []sample.ContainerUsage{
					{Name: "app", Usage: sample.Usage{CPU: 0, Memory: 500 << 10}},
				}},
				{"b", "db"}: {Node: "n1", Time: testTime, Window: 15 * time.Second, Containers: []sample.ContainerUsage{
					{Name: "db", Usage: sample.Usage{CPU: 2_000_000_000, Memory: 2 << 30}},
				}},
			},
			scrapes: map[string]sample.Scrape{
				"n1": {Success: testTime.Std(), Duration: 8*time.Millisecond + 400*time.Microsecond},
				"n2": {Duration: 10 * time.Second, Err: "timeout: check the node"},
			},
			why: map[string]string{
				"new": `container "app" was first seen 3s ago and needs a second sample`,
				"n2":  "its last answer was received 2m ago",
			},
		},
		registry: prometheus.NewRegistry(),
	}
	c.clock = revision.NewClock(testTime.Std())
	c.gone = api.NewDeletions(c.clock)
	c.stamp()
	return c
}

// stamp gives every usage a revision of its own.
func (c *cluster) stamp() {
	for name, u := range c.usage.nodes {
		u.Revision = c.clock.Next(testTime.Std())
		c.usage.nodes[name] = u
	}
	for k, u := range c.usage.pods {
		u.Revision = c.clock.Next(testTime.Std())
		c.usage.pods[k] = u
	}
}

func (c *cluster) config() Config {
	return Config{
		Nodes: c.nodes, Pods: c.pods, NodeUsage: c.usage, PodUsage: c.usage, Scrapes: c.usage,
		Registerer: c.registry, Clock: c.clock, NodesGone: c.gone, PodsGone: c.gone,
	}
}

// podStorage returns the storage of pods alone.
func (c *cluster) podStorage(tb testing.TB) *podStorage {
	tb.Helper()
	storages, err := Storages(c.config())
	if err != nil {
		tb.Fatal(err)
	}
	return storages["pods"].(*podStorage)
}

type podStorage = api.Storage[metrics.PodMetrics, sample.PodUsage, *metrics.PodMetrics]

// outputContext returns a context for which storages write lists as the engine negotiates for accept.
func outputContext(ctx context.Context, accept string) context.Context {
	var negotiated *http.Request
	h := api.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { negotiated = r }), Group)
	r := httptest.NewRequestWithContext(request.WithRequestInfo(ctx, &request.RequestInfo{
		IsResourceRequest: true, Verb: "list", APIGroup: Group.Name, APIVersion: "v1", Resource: "pods",
	}), http.MethodGet, group+"v1/pods", http.NoBody)
	r.Header.Set("Accept", accept)
	h.ServeHTTP(httptest.NewRecorder(), r)
	return negotiated.Context()
}

// handler returns the whole handler chain of a generic API server that serves c to everybody.
func (c *cluster) handler(tb testing.TB) http.Handler {
	tb.Helper()
	return c.handlerOf(tb, c.config(), withEngine)
}

// standardHandler returns one that leaves every answer to the generic server. Its metrics are not in
// c's registry.
func (c *cluster) standardHandler(tb testing.TB) http.Handler {
	tb.Helper()
	served := c.config()
	served.Registerer = nil
	return c.handlerOf(tb, served, withoutEngine)
}

func withEngine(next http.Handler) http.Handler    { return api.Handler(next, Group) }
func withoutEngine(next http.Handler) http.Handler { return next }

func (c *cluster) handlerOf(
	tb testing.TB, served Config, before func(http.Handler) http.Handler, more ...func(*genericapiserver.Config),
) http.Handler {
	tb.Helper()
	config := genericapiserver.NewConfig(Group.Codecs)
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	config.ExternalAddress = "127.0.0.1:443"
	config.LoopbackClientConfig = &restclient.Config{}
	authenticate := func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: &user.DefaultInfo{Name: "test"}}, true, nil
	}
	config.Authentication.Authenticator = authenticator.RequestFunc(authenticate)
	config.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	api.Configure(config, "metrics-server", "v1.2.3", Group)
	for _, f := range more {
		f(config)
	}
	storages, err := Storages(served)
	if err != nil {
		tb.Fatal(err)
	}
	build := config.BuildHandlerChainFunc
	config.BuildHandlerChainFunc = func(next http.Handler, c *genericapiserver.Config) http.Handler {
		return build(before(next), c)
	}
	s, err := config.Complete(nil).New("test", genericapiserver.NewEmptyDelegate())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Destroy)
	if err := Group.Install(s, storages); err != nil {
		tb.Fatal(err)
	}
	s.PrepareRun()
	return s.Handler
}

// testServer is a server of a cluster that tests send requests to.
type testServer struct {
	*cluster
	t   *testing.T
	url string
}

func newTestServer(t *testing.T) *testServer {
	c := newCluster()
	s := httptest.NewServer(c.handler(t))
	t.Cleanup(s.Close)
	return &testServer{cluster: c, t: t, url: s.URL}
}

// do sends a request and returns the code, the content type and the body of the answer.
func (s *testServer) do(method, path, accept string) (int, string, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(body)
}

var resourceVersions = regexp.MustCompile(`,?"resourceVersion":"[0-9]+"`)

// get returns the body of an answer that must be 200, without the resourceVersions if it is JSON.
func (s *testServer) get(path, accept string) string {
	s.t.Helper()
	body := s.getAll(path, accept)
	if strings.HasPrefix(body, "{") {
		body = resourceVersions.ReplaceAllString(body, "")
	}
	return body
}

// getAll returns the body of an answer that must be 200.
func (s *testServer) getAll(path, accept string) string {
	s.t.Helper()
	code, _, body := s.do(http.MethodGet, path, accept)
	if code != http.StatusOK {
		s.t.Fatalf("GET %s: %d %s", path, code, body)
	}
	return body
}
