package customserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apilabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/backend"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sharedtest"
)

// fakeServer is a backend. It answers a query with the values of its series, by pod.
type fakeServer struct {
	mu     sync.Mutex
	values map[string]float64 // by the value of the label pod; with "" for a series without it
	twice  bool               // each series is there twice
	// samples are the answers to certain expressions instead.
	samples map[string][]backend.Sample
	partial bool // what samples has is only a part
	err     error
	gate    chan struct{}  // until it is closed, queries wait; nil if they do not
	asked   map[string]int // by expression
	closed  bool
}

func (f *fakeServer) Query(_ context.Context, e backend.Expression) (*backend.Answer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == nil {
		f.asked = map[string]int{}
	}
	f.asked[e.String()]++
	if gate := f.gate; gate != nil {
		f.mu.Unlock()
		<-gate
		f.mu.Lock()
	}
	if f.err != nil {
		return nil, f.err
	}
	a := &backend.Answer{Received: time.Now()}
	if own, ok := f.samples[e.String()]; ok {
		a.Samples, a.Partial = own, f.partial
		return a, nil
	}
	for pod, value := range f.values {
		of := labels.EmptyLabels()
		if pod != "" {
			of = labels.FromStrings("pod", pod)
		}
		a.Samples = append(a.Samples, backend.Sample{Labels: of, Value: value})
		if f.twice {
			a.Samples = append(a.Samples, backend.Sample{Labels: of, Value: value})
		}
	}
	return a, nil
}

func (*fakeServer) CheckFiles() error { return nil }

func (f *fakeServer) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// queries returns how often f was asked, by expression.
func (f *fakeServer) queries() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.asked)
}

func (f *fakeServer) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

func (f *fakeServer) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// polling calls f with a system whose backends run.
func polling(t *testing.T, f func(*testing.T, *system, map[string]*fakeServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		fakes := map[string]*fakeServer{} // by URL
		s.backends.connect = func(c backend.Config) (client, error) {
			if fakes[c.URL] == nil {
				fakes[c.URL] = &fakeServer{}
			}
			return fakes[c.URL], nil
		}
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "one"}}, nil); err != nil {
			t.Fatal(err)
		}
		sharedtest.Start(t, t.Context(), func(ctx context.Context) error {
			s.backends.run(ctx, reloadEvery, func() {})
			return nil
		})
		f(t, s, fakes)
	})
}

// poll adds a Want to a backend.
func (s *system) poll(w *demand.Want) *demand.Want {
	s.current[w.Request] = w
	s.backends.set(w)
	return w
}

func inBackend(w *demand.Want) *demand.Want {
	w.Backend = "main"
	return w
}

func settled(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestBackendPods checks the values of pods: one query for all, joined with the pods that exist and were ready.
func TestBackendPods(t *testing.T) {
	polling(t, func(t *testing.T, s *system, fakes map[string]*fakeServer) {
		one, all := fakes["one"], pods(3)
		all[2].WasReady = false
		one.change(func() { one.values = map[string]float64{"web-0": 0, "web-2": 7, "web-9": 9} })
		w := inBackend(ofPods("queue", all))
		s.current[w.Request] = w
		s.check(w, "error: the metric is new and its backend has not been queried yet: retry in a moment")
		s.poll(w)
		settled(time.Second)
		s.check(w, "web-0 0")
		if len(one.queries()) != 1 || one.queries()[`sum by (pod) (queue{namespace="shop"})`] != 1 {
			t.Errorf("queries: %v", one.queries())
		}
		one.change(func() { one.values = map[string]float64{"web-0": math.NaN(), "web-1": 1e20} })
		settled(20 * time.Second)
		got := s.served(w)
		for _, part := range []string{
			`metric "queue" in backend "main": the expression returned NaN for web-0`, "outside of ±2^50",
			"pod web-2 has not been ready yet",
		} {
			if !strings.Contains(got, part) {
				t.Errorf("%q lacks %q", got, part)
			}
		}
		one.change(func() { one.values, one.twice = map[string]float64{"web-0": 1}, true })
		settled(20 * time.Second)
		s.check(w, `error: metric "queue" in backend "main": the expression returned more than one series for web-0: `+
			"aggregate them, as in sum by (pod) (...)")
		one.change(func() { one.values, one.twice = map[string]float64{"": 1}, false })
		settled(20 * time.Second)
		if got := s.served(w); !strings.Contains(got, `have no label "pod"`) {
			t.Error(got)
		}

		// A pod that comes is looked for in the answer that is there.
		one.change(func() { one.values = map[string]float64{"web-0": 1, "web-1": 2} })
		settled(20 * time.Second)
		s.check(w, "web-0 1, web-1 2")
		fewer := inBackend(ofPods("queue", all[1:2]))
		before := one.queries()[`sum by (pod) (queue{namespace="shop"})`]
		s.poll(fewer)
		s.check(fewer, "web-1 2")
		if n := one.queries()[`sum by (pod) (queue{namespace="shop"})`]; n != before {
			t.Error("a new pod causes another query")
		}
		s.backends.remove(w.Request)
		settled(time.Minute)
		if n := one.queries()[`sum by (pod) (queue{namespace="shop"})`]; n != before {
			t.Error("the removed metric is still queried")
		}
		if taken, _ := s.backends.limits.memory.Taken(); taken != 0 {
			t.Errorf("%d bytes are still taken, want none", taken)
		}
	})
}

// TestBackendSingle checks single values, of types Object and External.
func TestBackendSingle(t *testing.T) {
	polling(t, func(t *testing.T, s *system, fakes map[string]*fakeServer) {
		one := fakes["one"]
		one.change(func() { one.values = map[string]float64{"": 42} })
		ingress := schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"}
		object := s.poll(inBackend(&demand.Want{
			Request: demand.ObjectRequest("shop", ingress, "front", "requests", apilabels.Everything()), Name: "requests",
			Type:       autoscalingv2.ObjectMetricSourceType,
			Definition: demand.Definition{Expression: `sum(rate(hits{ingress="front"}[2m]))`},
			Describes:  demand.Reference{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "front"},
		}))
		external := s.poll(inBackend(&demand.Want{
			Request: demand.ExternalRequest("shop", "Depth", apilabels.Everything()), Name: "Depth",
			Type: autoscalingv2.ExternalMetricSourceType, Definition: demand.Definition{Window: demand.RemoteWindow},
		}))
		settled(time.Second)
		v, err := s.Object(t.Context(), "shop", ingress, "front", object.Metric, apilabels.Everything())
		if err != nil || v.Number != 42 || v.Of.Kind != "Ingress" || v.Of.Name != "front" ||
			time.Since(v.Time) > time.Second {
			t.Errorf("got %+v, %v, want 42 of Ingress front, at most a second old", v, err)
		}
		e, err := s.External(t.Context(), "shop", external.Metric, apilabels.Everything())
		if err != nil || e.Number != 42 {
			t.Errorf("got %+v, %v, want 42", e, err)
		}
		for _, want := range []string{
			`sum(rate(hits{ingress="front",namespace="shop"}[2m]))`, `sum(Depth{namespace="shop"})`,
		} {
			if one.queries()[want] != 1 {
				t.Errorf("queries: %v, want %s", one.queries(), want)
			}
		}
		for want, values := range map[string]map[string]float64{
			`metric "Depth" in backend "main": the expression returned no series: check`: {},
			"more than one series where one value is needed: write sum(...)":             {"": 1, "a": 2},
			"outside of ±2^50": {"": -2 * appmetrics.MaxValue},
		} {
			one.change(func() { one.values = values })
			settled(20 * time.Second)
			_, err := s.External(t.Context(), "shop", external.Metric, apilabels.Everything())
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		}
	})
}

// TestBackendDown checks that the last values are served for four intervals, and then the reason.
func TestBackendDown(t *testing.T) {
	polling(t, func(t *testing.T, s *system, fakes map[string]*fakeServer) {
		one := fakes["one"]
		one.change(func() { one.values = map[string]float64{"web-0": 3} })
		w := s.poll(inBackend(ofPods("queue", pods(1))))
		settled(time.Second)
		one.change(func() { one.err = errors.New("it is down") })
		settled(58 * time.Second)
		s.check(w, "web-0 3")
		settled(17 * time.Second)
		got := s.served(w)
		if !strings.Contains(got, `the last good answer of backend "main" is more than 1m0s old`) {
			t.Error(got)
		}
		server := &Server{collector: s.collector, backends: s.backends}
		if err := server.asked(); err != nil {
			t.Errorf("a backend that is down keeps the server from being ready: %v", err)
		}
		if err := server.timely(); err != nil {
			t.Error(err)
		}
		one.change(func() { one.err = nil })
		settled(30 * time.Second)
		s.check(w, "web-0 3")
	})
}

// TestBackendsChange checks what becomes of metrics when backends come, go and get other settings.
func TestBackendsChange(t *testing.T) {
	polling(t, func(t *testing.T, s *system, fakes map[string]*fakeServer) {
		one := fakes["one"]
		one.change(func() { one.values = map[string]float64{"web-0": 3} })
		w := s.poll(inBackend(ofPods("queue", pods(1))))
		settled(time.Second)
		apply := func(all ...backend.Config) {
			t.Helper()
			if err := s.backends.apply(all, nil); err != nil {
				t.Fatal(err)
			}
		}
		const query = `sum by (pod) (queue{namespace="shop"})`
		apply(backend.Config{Name: "other", URL: "three"}, backend.Config{Name: "main", URL: "one"})
		settled(time.Second)
		if n := one.queries()[query]; n != 1 || one.isClosed() {
			t.Errorf("a backend with the same settings was disturbed: it got %d queries, want 1", n)
		}

		// Other settings: the old answer is served as long as there is no other.
		fakes["two"] = &fakeServer{err: errors.New("not yet")}
		apply(backend.Config{Name: "main", URL: "two", Headers: map[string]string{"X-Scope-OrgID": "team"}})
		s.check(w, "web-0 3")
		settled(40 * time.Second) // while its queries fail, too
		s.check(w, "web-0 3")
		settled(40 * time.Second)
		s.check(w, `error: a query of backend "main" failed`)
		fakes["two"].change(func() { fakes["two"].err, fakes["two"].values = nil, map[string]float64{"web-0": 4} })
		settled(35 * time.Second)
		s.check(w, "web-0 4")
		if !one.isClosed() || !fakes["three"].isClosed() {
			t.Error("connections of backends that are gone stay open")
		}

		for want, all := range map[string][]backend.Config{
			`names backend "main", which does not exist: the custom metrics server has none`: nil,
			`which does not exist: did you mean "maine"?`:                                    {{Name: "maine", URL: "four"}},
			`which does not exist: use one of a, b`: {
				{Name: "b", URL: "five"}, {Name: "a", URL: "six"},
			},
		} {
			apply(all...)
			settled(time.Second)
			got := s.served(w)
			if !strings.Contains(got, `error: HorizontalPodAutoscaler "web" `) || !strings.Contains(got, want) {
				t.Errorf("%q, want %s", got, want)
			}
		}
		if good, bad := s.backends.counts(); good != 0 || bad != 1 {
			t.Errorf("%d metrics are polled and %d cannot be, want none and one", good, bad)
		}
		apply(backend.Config{Name: "main", URL: "two"})
		settled(time.Second)
		s.check(w, "web-0 4")

		// How long an old answer is held depends on how often it was asked for, not on the new interval.
		fakes["never"] = &fakeServer{err: errors.New("no")}
		apply(backend.Config{Name: "main", URL: "never", Interval: time.Hour})
		settled(50 * time.Second)
		s.check(w, "web-0 4")
		settled(20 * time.Second)
		s.check(w, `error: a query of backend "main" failed`)
	})
}

// TestBackendMemory checks that a namespace which has used up its share gets no more queries until it has room.
func TestBackendMemory(t *testing.T) {
	polling(t, func(t *testing.T, s *system, fakes map[string]*fakeServer) {
		l := s.backends.limits
		_, limit := l.memory.Taken()
		if !l.memory.Take("shop", limit/4*3-queryMemory/2) {
			t.Fatal("the memory for the test cannot be taken")
		}
		fakes["one"].change(func() { fakes["one"].values = map[string]float64{"web-0": 3} })
		w := s.poll(inBackend(ofPods("queue", pods(1))))
		settled(time.Minute)
		if got := s.served(w); !strings.Contains(got, `namespace "shop" `+appmetrics.ShareUsedUp) {
			t.Error(got)
		}
		l.memory.Give("shop", limit/4*3-queryMemory/2)
		settled(20 * time.Second)
		s.check(w, "web-0 3")
	})
}

// loads calls load, and returns what it applied, nil if nothing.
func (s *settings) loads() (applied *loaded, restored bool, err error) {
	restored, err = s.load(func(l *loaded) error {
		applied = l
		return nil
	})
	return applied, restored, err
}

// TestSettings checks that the file is read again, and that a mistake is reported once and changes nothing.
func TestSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &settings{path: file}
	check := func(backends int, undone bool, problem string) {
		t.Helper()
		f, restored, err := s.loads()
		switch {
		case problem != "" && (err == nil || !strings.Contains(err.Error(), problem)):
			t.Errorf("%v, want %s", err, problem)
		case problem == "" && err != nil:
			t.Error(err)
		case backends < 0 != (f == nil) || f != nil && len(f.Backends) != backends:
			t.Errorf("%+v, want %d backends", f, backends)
		case restored != undone:
			t.Errorf("restored: %v, want %v", restored, undone)
		}
	}
	const good = "backends: [{name: main, url: https://prometheus.example}]"
	check(-1, false, "no such file")
	check(-1, false, "")
	write(good)
	check(1, false, "")
	check(-1, false, "")
	write("backends: [{name: main}]")
	check(-1, false, fmt.Sprintf("file %s:\nline 1: backend %q: the URL has to begin", file, "main"))
	check(-1, false, "")
	if s.state().valid {
		t.Error("a file with a mistake is valid")
	}
	write(good)
	check(-1, true, "") // it is in use
	check(-1, false, "")
	write("backends: []")
	check(0, false, "")

	// What cannot be applied is tried again, and reported once.
	write(good)
	for _, want := range []string{"no room", "<nil>"} {
		_, err := s.load(func(*loaded) error { return errors.New("no room") })
		if fmt.Sprint(err) != want || s.state().valid {
			t.Errorf("%v, valid: %v; want %s", err, s.state().valid, want)
		}
	}
	check(1, false, "")
	if !s.state().valid {
		t.Error("a file that was applied is not valid")
	}
}

// configMap is a directory as the kubelet mounts a ConfigMap: the files are links into a directory that is
// replaced as a whole.
type configMap struct {
	t       *testing.T
	dir     string
	version int
}

// update replaces the content, by file name.
func (c *configMap) update(content map[string]string) {
	c.t.Helper()
	c.version++
	data := fmt.Sprintf("..%d", c.version)
	must := func(err error) {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(c.dir, data), 0o700))
	for name, text := range content {
		must(os.WriteFile(filepath.Join(c.dir, data, name), []byte(text), 0o600))
		if c.version == 1 {
			must(os.Symlink(filepath.Join("..data", name), filepath.Join(c.dir, name)))
		}
	}
	must(os.Symlink(data, filepath.Join(c.dir, "..data_tmp")))
	must(os.Rename(filepath.Join(c.dir, "..data_tmp"), filepath.Join(c.dir, "..data")))
	if c.version > 1 {
		must(os.RemoveAll(filepath.Join(c.dir, fmt.Sprintf("..%d", c.version-1))))
	}
}

// TestReload checks that a server takes over the file, and the rules of prometheus-adapter, when the ConfigMap in which
// they are changes; that it keeps the previous version otherwise; and that metrics and log say so.
func TestReload(t *testing.T) {
	m := &configMap{t: t, dir: t.TempDir()}
	file, adapter := filepath.Join(m.dir, "backends.yaml"), filepath.Join(m.dir, "config.yaml")
	files := func(backends, rules string) map[string]string {
		return map[string]string{
			"backends.yaml": "adapter: {file: " + adapter + "}\ndefault: main\nbackends: " + backends, "config.yaml": rules,
		}
	}
	const main, other = "{name: main, url: http://127.0.0.1:1}", "{name: other, url: http://127.0.0.1:2}"
	m.update(files("["+main+"]", someRules))
	s, err := newServerWith(t, file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.serving.Destroy)
	var said []string
	ctx := klog.NewContext(t.Context(), funcr.New(func(_, args string) { said = append(said, args) }, funcr.Options{}))
	check := func(backends, metrics, log string) {
		t.Helper()
		said = nil
		s.reload(ctx)
		s.reload(ctx)
		if got := strings.Join(slices.Sorted(maps.Keys(s.backends.statuses())), " "); got != backends {
			t.Errorf("backends %q, want %q", got, backends)
		}
		var got []string
		for _, name := range []string{"config_last_reload_successful", "adapter_rules left_out", "adapter_rules used"} {
			got = append(got, fmt.Sprint(gaugeOf(t, s, name)))
		}
		if values := strings.Join(got, " "); values != metrics {
			t.Errorf("metrics %q, want %q", values, metrics)
		}
		if text := strings.Join(said, "\n"); (text == "") != (log == "") || !strings.Contains(text, log) || len(said) > 1 {
			t.Errorf("the log says %q, want %q once", text, log)
		}
	}
	check("main", "1 0 5", "")
	m.update(files("["+main+", "+other+"]", someRules+"- seriesQuery: '{'\n"))
	check("main other", "1 1 5", "")
	m.update(files("["+main+", {name: other}]", someRules))
	check("main other", "0 1 5",
		`The administrator's file (--config) cannot be used, so the previous version stays in effect`)
	m.update(files("["+main+", "+other+"]", someRules+"- seriesQuery: '{'\n"))
	check("main other", "1 1 5", "matches the version in effect again")
	m.update(files("["+other+"]", someRules))
	check("main other", "0 1 5", `there is no backend \"main\"`)
	m.update(files("["+main+"]", someRules))
	check("main", "1 0 5", "")
}

// gaugeOf returns the value of a gauge of s: the end of its name, and its label.
func gaugeOf(t *testing.T, s *Server, of string) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(&stateCollector{collector: s.collector, backends: s.backends, settings: s.settings})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	name, label, _ := strings.Cut(of, " ")
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "metrics_server_"+name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("there is no gauge %s", of)
	return 0
}

// TestNotes checks what the server says besides its answers.
func TestNotes(t *testing.T) {
	withRules(t, func(t *testing.T, s *system, one *fakeServer, _ *rules) {
		server := &Server{backends: s.backends, settings: &settings{path: filepath.Join(t.TempDir(), "absent")}}
		s.values.state = server.note
		one.change(func() {
			one.samples = map[string][]backend.Sample{
				`group by (__name__) ({__name__="http_requests_total",namespace!="",pod!="",pod!=""})`: {
					series(1, "__name__", "http_requests_total"),
				},
			}
		})
		byRule := s.poll(inBackend(ofPods("http_requests_per_second", pods(1))))
		byName := s.poll(inBackend(ofPods("queue", pods(1))))
		scraped := ofPods("other", pods(1))
		settled(time.Second)
		healthy := kubeapi.Notes{}
		if server.note(&healthy); healthy.FailingBackends != nil {
			t.Errorf("%+v, want no failing backend", healthy)
		}
		one.change(func() { one.err = context.DeadlineExceeded })
		settled(20 * time.Second)
		state := kubeapi.Notes{
			InvalidFile: true, FailingBackends: []kubeapi.BackendNote{{Name: "main", Queries: 2, Failing: 2}},
		}
		if _, _, err := server.settings.loads(); err == nil {
			t.Error("a file that does not exist was read")
		}
		for name, tt := range map[string]struct {
			want *demand.Want
			says func(*kubeapi.Notes)
		}{
			"nobody wants it": {nil, func(*kubeapi.Notes) {}},
			"scraped":         {scraped, func(*kubeapi.Notes) {}},
			"by a rule":       {byRule, func(n *kubeapi.Notes) { n.Backend, n.Ruled = "main", true }},
			"named": {
				&demand.Want{Definition: demand.Definition{Named: &demand.Named{Expression: "x"}, Backend: "main"}},
				func(n *kubeapi.Notes) { n.Backend, n.Named = "main", true },
			},
			"by name": {byName, func(n *kubeapi.Notes) {
				n.Backend, n.Expression = "main", `sum by (pod) (queue{namespace="shop"})`
			}},
		} {
			want, got := state, kubeapi.Notes{}
			tt.says(&want)
			s.values.note(&got, tt.want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got)\n%s", name, d)
			}
		}
		s.values.note(nil, byName) // nobody asks for notes
	})
}
