package customserver

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/backend"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/schedule"
)

// TestReadyWhenPodsWereAsked checks that a server is ready once each pod has given two pages or failed twice, or
// when the pods have been known for half a minute, however late that was.
func TestReadyWhenPodsWereAsked(t *testing.T) {
	hanging := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for name, tc := range map[string]struct {
		pod      http.Handler // nil: nobody listens
		no, then time.Duration
	}{
		"answers": {packets(100), 4 * time.Second, 6 * time.Second},
		"refuses": {nil, 4 * time.Second, 6 * time.Second},
		"hangs":   {hanging, 12 * time.Second, 31 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, all := start(t), pods(2)
				server := &Server{collector: s.collector, backends: s.backends}
				if err := server.asked(); err != nil {
					t.Errorf("without pods: %v", err)
				}
				unread := errors.New("not read yet")
				read := unread
				server.readiness.read, server.readiness.asked = func() error { return read }, server.asked
				time.Sleep(time.Minute)
				if err := server.readiness.podsAsked(); !errors.Is(err, unread) {
					t.Errorf("before pods are known: %v", err)
				}
				read = nil
				s.listen(all[0], packets(100))
				if tc.pod != nil {
					s.listen(all[1], tc.pod)
				}
				s.want(ofPods("queue", all))
				for range tc.no / time.Second { // as logReadiness does
					_ = server.readiness.podsAsked()
					time.Sleep(time.Second)
				}
				if err := server.readiness.podsAsked(); err == nil {
					t.Errorf("ready after %v", tc.no)
				}
				time.Sleep(tc.then - tc.no)
				if err := server.readiness.podsAsked(); err != nil {
					t.Errorf("not ready after %v: %v", tc.then, err)
				}
				if err := server.timely(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// newServer returns a server that is connected to nothing.
func newServer(t *testing.T) *Server {
	t.Helper()
	s, err := newServerWith(t, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.serving.Destroy)
	return s
}

// TestFile checks that a server does not start with a file that has mistakes, and takes over one that has changed.
func TestFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "backends.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("backends: [{name: main}]\ndefault: other")
	if _, err := newServerWith(t, file); err == nil || !strings.Contains(err.Error(), `there is no backend "other"`) {
		t.Errorf("%v, want the mistakes in the file", err)
	}
	write("backends: [{name: main, url: http://127.0.0.1:1}]\ndefault: main")
	s, err := newServerWith(t, file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.serving.Destroy)
	w := ofPods("queue", pods(1))
	check := func(backend string, polled, collected bool) {
		t.Helper()
		w := *w
		w.Backend = backend
		s.set(&w)
		if p, c := s.backends.find(w.Request), s.collector.find(w.Request); p != nil != polled || c != nil != collected {
			t.Errorf("with backend %q, polled: %v, collected: %v", backend, p != nil, c != nil)
		}
	}
	check("main", true, false)
	check("", false, true)
	check("main", true, false)
	if p := s.backends.find(w.Request); p.err != nil {
		t.Error(p.err)
	}
	write("backends: []")
	s.reload(t.Context())
	if p := s.backends.find(w.Request); p.err == nil {
		t.Error("a backend that is gone is still polled")
	}
	s.remove(w.Request)
	if good, bad := s.backends.counts(); good+bad > 0 {
		t.Errorf("%d metrics are polled after the last one is gone", good+bad)
	}
}

// newServerWith returns a server with an administrator's file.
func newServerWith(t *testing.T, file string) (*Server, error) {
	t.Helper()
	generic := NewGenericConfig("v1.2.3", true)
	generic.ExternalAddress = "127.0.0.1:443"
	generic.LoopbackClientConfig = &rest.Config{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	generic.SecureServing = &genericapiserver.SecureServingInfo{Listener: listener}
	return New(Config{
		Generic: generic, Rest: &rest.Config{Host: "127.0.0.1:1"}, MaxPods: 10, External: true, File: file,
		ServingSecret: types.NamespacedName{Namespace: "kube-system", Name: "serving"},
	})
}

// TestProbes checks that a server that cannot read what is wanted lives, but is not ready, and says so.
func TestProbes(t *testing.T) {
	s := newServer(t)
	s.serving.PrepareRun()
	h := s.serving.UnprotectedHandler()
	for path, want := range map[string]string{
		"/livez/metric-collection-timely": "ok",
		"/readyz/autoscalers-read":        "the horizontalpodautoscalers are still being read",
		"/readyz/pods-asked":              "the horizontalpodautoscalers are still being read",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %q, want %q", path, w.Body, want)
		}
	}
	if s.demand.Synced() == nil {
		t.Error("synced with nothing")
	}
}

// TestMetrics checks that docs/custom-metrics.md names exactly the server's own metrics.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := startWith(t, maxEndpoints, maxMemory), pods(2)
		s.listen(all[0], packets(100))
		r := prometheus.NewRegistry()
		scrapes := newScrapes(r)
		file := filepath.Join(t.TempDir(), "backends.yaml")
		if err := os.WriteFile(file, []byte("backends: []"), 0o600); err != nil {
			t.Fatal(err)
		}
		of := &settings{path: file}
		if _, _, err := of.loads(); err != nil {
			t.Fatal(err)
		}
		r.MustRegister(&stateCollector{collector: s.collector, backends: s.backends, settings: of})
		scrapes.failures.WithLabelValues("timeout").Inc() // a vector without series is not gathered
		if err := s.backends.apply([]backend.Config{{Name: "main", URL: "http://127.0.0.1:1"}}, nil); err != nil {
			t.Fatal(err)
		}
		q := newQueries(r)
		q.report(t.Context(), "main", schedule.Report{})
		q.report(t.Context(), "main", schedule.Report{
			After: schedule.TargetStatus{Err: errors.New("it is down"), Cause: "other"},
		})
		s.want(ofPods("queue", all))
		wrong := ofPods("load", nil)
		wrong.Definition = demand.Definition{Expression: "("}
		s.want(wrong)
		time.Sleep(10 * time.Second)
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		doc, err := os.ReadFile("../../docs/custom-metrics.md")
		if err != nil {
			t.Fatal(err)
		}
		var names, values []string
		for _, f := range families {
			names = append(names, f.GetName())
			var of []string
			for _, l := range f.GetMetric()[0].GetLabel() {
				of = append(of, "`"+l.GetName()+"`")
			}
			label := cmp.Or(strings.Join(of, ", "), "-")
			row := fmt.Sprintf("| %#q | %s | %s |", f.GetName(), strings.ToLower(f.GetType().String()), label)
			if !strings.Contains(string(doc), row) {
				t.Errorf("docs/custom-metrics.md has no row %s", row)
			}
			for _, m := range f.GetMetric() {
				if m.GetGauge() != nil {
					var labels []string
					for _, l := range m.GetLabel() {
						labels = append(labels, l.GetValue())
					}
					values = append(values, strings.TrimPrefix(f.GetName(), "metrics_server_")+" "+strings.Join(labels, " ")+" "+
						strconv.FormatFloat(m.GetGauge().GetValue(), 'g', 1, 64))
				}
			}
		}
		if d := gocmp.Diff([]string{
			"adapter_rules left_out 0", "adapter_rules used 0", "autoscaler_metrics error 1", "autoscaler_metrics ok 1",
			"backend_queries main answered 0", "backend_queries main failing 0", "backend_queries main waiting 0",
			"config_last_reload_success_timestamp_seconds  9e+08", "config_last_reload_successful  1",
			"limited_namespaces endpoints 0",
			"limited_namespaces memory 0", "pod_series  1", "scraped_pods answered 1", "scraped_pods failing 1",
			"scraped_pods waiting 0", "shared_limit_used_ratio endpoints 2e-05", "shared_limit_used_ratio memory 3e-05",
			"storage_points pod 2",
		}, values); d != "" {
			t.Errorf("gauges (-want +got)\n%s", d)
		}
		var documented []string
		between := func(r rune) bool { return strings.ContainsRune("`{ \n", r) }
		for _, word := range strings.FieldsFunc(string(doc), between) {
			if strings.HasPrefix(word, "metrics_server_") && !slices.Contains(documented, word) {
				documented = append(documented, word)
			}
		}
		slices.Sort(documented)
		if d := gocmp.Diff(documented, names); d != "" {
			t.Errorf("metrics (-docs/custom-metrics.md +registered)\n%s", d)
		}
	})
}
