package resource

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/runtime"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"

	"metrics-server/pkg/sample"
)

// random makes clusters with values that a careless parser, or one of another version, would let
// through.
type random struct{ *rand.Rand }

func pick[T any](r random, of ...T) T { return of[r.IntN(len(of))] }

func (r random) text() string {
	parts := []string{
		"", "a", "web-1", "0", `"`, `\`, "<", ">", "&", "'", "/", "\u2028", "\u2029", "\x00", "\x1f", "\x7f", "\t", "\n",
		"\r", "\b", "\f",
		"é", "世", "😀", "\xff", "\xc3", "\xe2\x80", "\xed\xa0\x80", "\ufffd", string(bytes.Repeat([]byte("long"), 40)),
	}
	s := ""
	for range r.IntN(5) {
		s += pick(r, parts...)
	}
	return s
}

func (r random) number() uint64 {
	return pick(
		r, 0, 1, 999, 1000, 1001, 1023, 1024, 1025, 1_000_000, 237_700_000, 2_000_000_000, 2_000_000_000_000,
		1_000_000_000_000_000_000,
		1<<20, 1000<<20, 3<<30, 1<<40, 5<<50, 7<<60, math.MaxInt64-1, math.MaxInt64, math.MaxInt64+1, math.MaxUint64,
		r.Uint64(), r.Uint64()>>r.IntN(64), r.Uint64()>>r.IntN(64)/1024*1024, r.Uint64N(1e6)*1000,
	)
}

func (r random) usage() sample.Usage {
	u := sample.Usage{CPU: r.number(), Memory: r.number(), HasSwap: r.IntN(2) == 0}
	if u.HasSwap {
		u.Swap = r.number()
	}
	return u
}

func (r random) time() sample.Time {
	zero := sample.TimeOf(time.Time{}) // which is not served as a time
	return pick(r, testTime, testTime+sample.Time(r.IntN(1e6)), 0, 1, -1, zero, zero+1, zero-1, 253402300800_000,
		sample.Time(r.Int64()>>r.IntN(64)))
}

func (r random) window() time.Duration {
	return pick(
		r, 0, 15*time.Second, time.Duration(r.Int64N(60e9)), time.Duration(r.Int64N(60))*time.Second,
		time.Duration(r.Int64N(600))*100*time.Millisecond,
		time.Duration(r.Int64N(2e9)), time.Duration(r.Int64()>>r.IntN(64)), -time.Second, 59999499999, 59999500000,
		999499999, 999500000, math.MaxInt64, math.MinInt64,
	)
}

func (r random) labels() sample.Labels {
	l := make(sample.Labels, r.IntN(4))
	for i := range l {
		l[i] = sample.Label{Key: r.text(), Value: r.text()}
	}
	slices.SortFunc(l, func(a, b sample.Label) int { return cmp.Compare(a.Key, b.Key) })
	return slices.CompactFunc(l, func(a, b sample.Label) bool { return a.Key == b.Key })
}

// objects returns at most n objects, some with the same labels as their neighbours, and one to ask for by name.
func (r random) objects(n int, namespace func() string) []sample.Object {
	var all []sample.Object
	labels := r.labels()
	for range n {
		if r.IntN(2) == 0 {
			labels = r.labels()
		}
		name := r.text()
		if len(all) == 0 {
			name = "target"
		}
		all = append(all, sample.Object{Namespace: namespace(), Name: name, Labels: labels})
	}
	compare := func(a, b sample.Object) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}
	slices.SortFunc(all, compare)
	return slices.CompactFunc(all, func(a, b sample.Object) bool { return compare(a, b) == 0 })
}

// fill puts other nodes and pods into c.
func (r random) fill(c *cluster) {
	none := func() string { return "" }
	c.nodes.list = r.objects(pick(r, 0, 1, 2, 10), none)
	clear(c.usage.nodes)
	clear(c.usage.scrapes)
	for _, o := range c.nodes.list {
		c.usage.scrapes[o.Name] = sample.Scrape{Success: r.time().Std(), Duration: r.window(), Err: r.text(), Lacks: r.text()}
		c.usage.nodes[o.Name] = sample.NodeUsage{Time: r.time(), Window: r.window(), Usage: r.usage()}
	}
	first := true
	c.pods.list = r.objects(pick(r, 0, 1, 2, 30), func() string {
		if first {
			first = false
			return "a"
		}
		return pick(r, "a", "b", r.text())
	})
	clear(c.usage.pods)
	for _, o := range c.pods.list {
		if o.Name != "target" && r.IntN(8) == 0 {
			continue // it has no usage
		}
		u := sample.PodUsage{Node: "n1", Time: r.time(), Window: r.window()}
		for range 1 + r.IntN(3) {
			u.Containers = append(u.Containers, sample.ContainerUsage{Name: r.text(), Usage: r.usage()})
		}
		c.usage.pods[podKey{o.Namespace, o.Name}] = u
	}
}

// answer is a handler's response to a GET.
func answer(tb testing.TB, h http.Handler, path, accept, encoding string) (code int, header http.Header, body []byte) {
	tb.Helper()
	req := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, path, http.NoBody)
	req.Header.Set("Accept", accept)
	if encoding != "" {
		req.Header.Set("Accept-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	w.Header().Del("Audit-Id")
	return w.Code, w.Header(), w.Body.Bytes()
}

// What this package writes itself is byte for byte the output of the generic server.
func TestEncodingsEqualStandard(t *testing.T) {
	const table = mediaJSON + ";as=Table;g=meta.k8s.io;v="
	queries := []struct{ query, accept string }{
		{"", mediaJSON},
		{"", runtime.ContentTypeProtobuf},
		{"", runtime.ContentTypeProtobuf + "," + mediaJSON},
		{"", ""},
		{"", table + "v1," + table + "v1beta1," + mediaJSON},
		{"", table + "v1beta1"},
		{"?includeObject=None", table + "v1"},
		{"?includeObject=Metadata", table + "v1"},
		{"?includeObject=Object", table + "v1"},
		{"?includeObject=Object", table + "v1beta1"},
		{"?includeObject=Nonsense", table + "v1," + mediaJSON},
		// What is left to the generic server.
		{"", mediaJSON + ";pretty=1"},
		{"?pretty=true", mediaJSON},
		{"?pretty=true", table + "v1"},
		{"", "application/yaml"},
		{"", "application/yaml;as=Table;g=meta.k8s.io;v=v1"},
		{"", runtime.ContentTypeProtobuf + ";as=Table;g=meta.k8s.io;v=v1,application/json"},
		{"", mediaJSON + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"},
		{"", runtime.ContentTypeProtobuf + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
		{"", table + "v2," + mediaJSON},
	}
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	c := newCluster()
	lazy, standard := c.handler(t), c.standardHandler(t)
	for round := range rounds {
		random{rand.New(rand.NewPCG(uint64(round), 0))}.fill(c)
		for _, version := range []string{"v1", "v1beta1"} {
			for _, path := range []string{
				"/nodes", "/pods", "/namespaces/a/pods", "/nodes/target",
				"/namespaces/a/pods/target",
			} {
				for _, q := range queries {
					path := group + version + path + q.query
					gotCode, gotHeader, got := answer(t, lazy, path, q.accept, "")
					wantCode, wantHeader, want := answer(t, standard, path, q.accept, "")
					if gotCode != wantCode || !bytes.Equal(got, want) {
						t.Fatalf("round %d: %s as %q: got %d\n%q\nwant %d\n%q", round, path, q.accept, gotCode, got, wantCode, want)
					}
					if diff := gocmp.Diff(wantHeader, gotHeader); diff != "" {
						t.Errorf("round %d: %s as %q: header (-want +got):\n%s", round, path, q.accept, diff)
					}
				}
			}
		}
	}
}

// A list that is longer than a buffer, and long enough to be compressed.
func TestLongLists(t *testing.T) {
	c := bigCluster()
	lazy, standard := c.handler(t), c.standardHandler(t)
	for _, path := range []string{
		"/pods",
		"/namespaces/namespace-42/pods?labelSelector=app.kubernetes.io%2Fname%3Ddeployment-07", // too short to be compressed
	} {
		for _, accept := range []string{mediaJSON, runtime.ContentTypeProtobuf, mediaJSON + ";as=Table;g=meta.k8s.io;v=v1"} {
			for _, encoding := range []string{"", "gzip"} {
				_, gotHeader, got := answer(t, lazy, group+"v1"+path, accept, encoding)
				_, wantHeader, want := answer(t, standard, group+"v1"+path, accept, encoding)
				if diff := gocmp.Diff(wantHeader, gotHeader); diff != "" {
					t.Errorf("%s as %s, %q: header (-want +got):\n%s", path, accept, encoding, diff)
				}
				if gotHeader.Get("Content-Encoding") == "gzip" {
					got, want = unzip(t, got), unzip(t, want)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s as %s, %q: got %d bytes that differ from the %d that are wanted", path, accept, encoding, len(got),
						len(want))
				}
			}
		}
	}
}

func unzip(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	b, err = io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLazyForOtherEncoders checks that an encoder that the engine does not replace gets the standard
// object.
func TestLazyForOtherEncoders(t *testing.T) {
	c := newCluster()
	s := c.podStorage(t)
	list, err := s.List(outputContext(t.Context(), mediaJSON), nil)
	if err != nil {
		t.Fatal(err)
	}
	standard, err := s.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	encoder := encoderFor(t, "application/yaml")
	got, err := runtime.Encode(encoder, list)
	if err != nil {
		t.Fatal(err)
	}
	want, err := runtime.Encode(encoder, standard)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// brokenPipe accepts so many bytes and no more.
type brokenPipe int

var errBrokenPipe = errors.New("broken pipe")

func (p *brokenPipe) Write(b []byte) (int, error) {
	if *p -= brokenPipe(len(b)); *p < 0 {
		return 0, errBrokenPipe
	}
	return len(b), nil
}

// TestClientGone checks that the walk ends when the client is gone.
func TestClientGone(t *testing.T) {
	c := bigCluster()
	s := c.podStorage(t)
	for _, l := range lists {
		for _, room := range []brokenPipe{0, 10, 2 * bufferSize} {
			list, err := s.List(outputContext(t.Context(), l.accept), nil)
			if err != nil {
				t.Fatal(err)
			}
			c.usage.reads.Store(0)
			if err := encoderFor(t, l.accept).Encode(list, &room); !errors.Is(err, errBrokenPipe) {
				t.Errorf("%s: got %v, want %v", l.name, err, errBrokenPipe)
			}
			if reads := c.usage.reads.Load(); l.name != "protobuf" && reads > 1000 {
				t.Errorf("%s: %d usages were read for a client that was gone", l.name, reads)
			}
		}
	}
}

// TestListEndsWithItsRequest checks that a list that is held in memory stops soon if its client has
// already given up.
func TestListEndsWithItsRequest(t *testing.T) {
	c := bigCluster()
	s := c.podStorage(t)
	for _, accept := range []string{runtime.ContentTypeProtobuf, "application/yaml"} {
		ctx, cancel := context.WithCancel(outputContext(t.Context(), accept))
		cancel()
		c.usage.reads.Store(0)
		if _, err := s.List(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want %v", accept, err, context.Canceled)
		}
		if reads := c.usage.reads.Load(); reads > 1000 {
			t.Errorf("%s: %d usages were read for a client that was gone", accept, reads)
		}
	}
}

// A walk ends soon after its request, in every format, even if it selects nothing and therefore
// writes nothing. The answer is then an error, never a list that looks complete.
func TestWalkEndsWithItsRequest(t *testing.T) {
	synctest.Test(t, testWalkEndsWithItsRequest)
}

func testWalkEndsWithItsRequest(t *testing.T) {
	const pods = 5000
	var selectors []string
	{
		var b strings.Builder
		for i := range 20000 {
			fmt.Fprintf(&b, ",%05d", i)
		}
		var names, missing strings.Builder
		for i := range 2000 {
			fmt.Fprintf(&names, ",metadata.name!=n%05d", i)
			fmt.Fprintf(&missing, ",!k%05d", i)
		}
		selectors = []string{
			"labelSelector=a+in+(" + b.String()[1:] + ")", "labelSelector=" + missing.String()[1:] + ",b",
			"fieldSelector=" + names.String()[1:] +
				",spec.nodeName=none", "fieldSelector=spec.nodeName=none", "limit=1&labelSelector=a=x", "",
		}
	}
	c := newCluster()
	c.pods.list = nil
	for i := range pods {
		o := sample.Object{
			Namespace: "z", Name: fmt.Sprintf("p%06d", i),
			Labels: sample.Labels{{Key: "a", Value: fmt.Sprintf("z%d", i)}},
		}
		c.pods.list = append(c.pods.list, o)
		c.usage.pods[podKey{o.Namespace, o.Name}] = sample.PodUsage{
			Node: "n1", Time: testTime, Window: time.Second,
			Containers: []sample.ContainerUsage{{Name: "c"}},
		}
	}
	var ctx context.Context
	var end context.CancelFunc
	var limit time.Duration
	h := c.handlerOf(t, c.config(), func(next http.Handler) http.Handler {
		h := withEngine(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requested, cancel := context.WithCancel(r.Context())
			defer cancel()
			ctx, end = requested, cancel //nolint:fatcontext // read by each: there is one request at a time
			if limit != 0 {
				timed, cancel := context.WithTimeout(requested, limit)
				defer cancel()
				ctx = timed
			}
			h.ServeHTTP(w, r.WithContext(ctx))
		})
	})
	test := func(accept, selector string) {
		const after = 100 // objects
		looked := 0
		c.pods.each = func() {
			if looked++; looked != after {
				return
			}
			if limit == 0 {
				end()
			}
			<-ctx.Done()
			time.Sleep(time.Millisecond) // until the contexts derived from it have ended, too
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, group+"v1/namespaces/z/pods?"+selector, http.NoBody)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		time.Sleep(time.Second) // until the walk has ended, which a timeout does not wait for
		synctest.Wait()
		what := fmt.Sprintf("%s, %.40s, limit %v", accept, selector, limit)
		if looked > after+1 {
			t.Errorf("%s: the walk went on for %d objects after the request had ended", what, looked-after)
		}
		if w.Code == http.StatusOK || limit > 0 && w.Code != http.StatusGatewayTimeout {
			t.Errorf("%s: got %d %.300s, want a failure, with a limit 504", what, w.Code, w.Body)
		}
	}
	for _, accept := range []string{
		mediaJSON, runtime.ContentTypeProtobuf, "application/yaml", mediaJSON + ";pretty=1",
		mediaJSON + ";as=Table;g=meta.k8s.io;v=v1",
		mediaJSON + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
	} {
		for _, selector := range selectors {
			for _, limit = range []time.Duration{0, time.Minute} { // the client leaves, or the request times out
				test(accept, selector)
			}
		}
	}
}

// Every object is counted once, in every form of the answer.
func TestFreshnessOfEveryForm(t *testing.T) {
	s := newTestServer(t)
	want := uint64(0)
	for _, accept := range []string{
		mediaJSON, runtime.ContentTypeProtobuf, "application/yaml",
		mediaJSON + ";as=Table;g=meta.k8s.io;v=v1",
	} {
		s.get(group+"v1/pods", accept)
		s.get(group+"v1/namespaces/a/pods/web-1", accept)
		want += 4
	}
	if got := s.freshness(t).GetSampleCount(); got != want {
		t.Errorf("got %d observations, want %d", got, want)
	}
}

// freshness returns the histogram of the ages of what was served.
func (c *cluster) freshness(t *testing.T) *dto.Histogram {
	t.Helper()
	families, err := c.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool {
		return f.GetName() == "metrics_server_api_metric_freshness_seconds"
	})
	return families[i].GetMetric()[0].GetHistogram()
}

// A selector that was evaluated for an object's labels is not evaluated again for the same labels,
// but for others it is.
func TestSelectNeighbours(t *testing.T) {
	web, db := sample.Labels{{Key: "app", Value: "web"}}, sample.Labels{{Key: "app", Value: "db"}}
	c := newCluster()
	c.pods.list = nil
	for i, l := range []sample.Labels{nil, web, web, db, nil, nil, web, {{Key: "app", Value: "web"}}, db, db} {
		o := sample.Object{Namespace: "a", Name: fmt.Sprint(i), Labels: l}
		c.pods.list = append(c.pods.list, o)
		c.usage.pods[podKey{o.Namespace, o.Name}] = c.usage.pods[podKey{"b", "db"}]
	}
	h := c.handler(t)
	for selector, want := range map[string]string{
		"app=web": "1 2 6 7 ", "app=db": "3 8 9 ", "!app": "0 4 5 ",
		"app": "1 2 3 6 7 8 9 ",
	} {
		code, _, body := answer(t, h, group+"v1/pods?labelSelector="+selector, mediaJSON, "")
		list, _, err := Group.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			t.Fatal(code, err)
		}
		got := ""
		for _, o := range list.(*metricsv1.PodMetricsList).Items {
			got += o.Name + " "
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", selector, got, want)
		}
	}
}
