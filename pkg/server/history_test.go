package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"metrics-server/pkg/history"
	"metrics-server/pkg/inventory"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
	"metrics-server/pkg/store"
)

// historyServer returns a server whose users are the tokens, and who may do what allow says.
func historyServer(t *testing.T, keep time.Duration, allow func(a authorizer.Attributes) bool) *Server {
	t.Helper()
	return newServerWith(t, func(c *Config) {
		c.History = keep
		c.Generic.Authentication.Authenticator = authenticator.RequestFunc(
			func(r *http.Request) (*authenticator.Response, bool, error) {
				return &authenticator.Response{User: &user.DefaultInfo{Name: r.Header.Get("Authorization")}}, true, nil
			})
		c.Generic.Authorization.Authorizer = authorizer.AuthorizerFunc(
			func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if allow(a) {
					return authorizer.DecisionAllow, "", nil
				}
				return authorizer.DecisionDeny, "it is not allowed", nil
			})
	})
}

// ask returns the answer of s to a GET of path in metrics.k8s.io.
func (s *Server) ask(path, who string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/apis/metrics.k8s.io/"+path, http.NoBody)
	r.Header.Set("Authorization", who)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.serving.Handler.ServeHTTP(w, r)
	return w
}

// fill records a minute with two namespaces.
func (s *Server) fill() {
	m := &history.Minute{}
	m.Node("n1", sample.Usage{CPU: 1e9, Memory: 1024})
	for _, namespace := range []string{"shop", "test"} {
		m.Pod(history.Key{Kind: "Deployment", Namespace: namespace, Name: "web"},
			[]sample.ContainerUsage{{Usage: sample.Usage{CPU: 1e9, Memory: 1024}}})
	}
	s.recorder.history.Record(time.Now(), m)
}

// Who may list may read the history of the same objects, and nobody else.
func TestHistoryRights(t *testing.T) {
	s := historyServer(t, time.Hour, func(a authorizer.Attributes) bool {
		selected, err := a.GetFieldSelector()
		switch who := a.GetUser().GetName(); {
		case a.GetVerb() != "list" || err != nil:
			return who == "getter" && a.GetVerb() == "get" || who == "watcher" && a.GetVerb() == "watch"
		case who == "admin":
			return true
		case who == "shop": // a Role in a namespace, also for nodes
			return a.GetNamespace() == "shop"
		case who == "one": // resourceNames
			return a.GetName() == "n1" || len(selected) > 0
		}
		return false
	})
	s.fill()
	const (
		nodes     = "Node n1"
		shop      = "Namespace shop, Deployment shop/web"
		all       = "Namespace shop, Namespace test, Deployment shop/web, Deployment test/web"
		forbidden = "403"
		wrong     = "400"
	)
	for _, tt := range []struct{ who, path, want string }{
		{"admin", "v1/nodes?history=1h", nodes},
		{"admin", "v1beta1/nodes?history=1h", nodes},
		{"admin", "v1/pods?history=1h", all},
		{"admin", "v1beta1/pods?history=1h&step=10m", all},
		{"admin", "v1/namespaces/shop/pods?history=1h", shop},
		{"admin", "v1/namespaces/none/pods?history=1h", ""},
		{"shop", "v1/namespaces/shop/pods?history=1h", shop},
		{"shop", "v1/namespaces/test/pods?history=1h", forbidden},
		{"shop", "v1/pods?history=1h", forbidden},
		{"shop", "v1/nodes?history=1h", forbidden},
		{"shop", "v1/namespaces/shop/nodes?history=1h", wrong}, // nodes are in no namespace
		{"one", "v1/nodes?history=1h", forbidden},
		{"one", "v1/nodes?history=1h&fieldSelector=metadata.name%3Dn1", wrong},
		{"one", "v1/nodes?history=1h&fieldSelector=metadata.name=n1", wrong},
		{"getter", "v1/nodes?history=1h", forbidden},
		{"getter", "v1/nodes/n1?history=1h", wrong},
		{"getter", "v1/namespaces/shop/pods/web?history=1h", wrong},
		{"watcher", "v1/nodes?history=1h", forbidden},
		{"watcher", "v1/nodes?history=1h&watch=1", wrong},
		{"watcher", "v1/watch/pods?history=1h", wrong},
		{"nobody", "v1/pods?history=1h", forbidden},
	} {
		w := s.ask(tt.path, tt.who)
		got := fmt.Sprint(w.Code)
		if w.Code == http.StatusOK {
			a, err := history.Decode(w.Body)
			if err != nil {
				t.Errorf("%s: %s: %v", tt.who, tt.path, err)
				continue
			}
			var names []string
			for _, series := range a.Series {
				names = append(names, series.Kind+" "+strings.TrimPrefix(series.Namespace+"/"+series.Name, "/"))
			}
			got = strings.Join(names, ", ")
		}
		if got != tt.want {
			t.Errorf("%s: %s: %s, want %s", tt.who, tt.path, got, tt.want)
		}
	}
}

// What cannot be answered is an error that says why.
func TestHistoryErrors(t *testing.T) {
	all := func(authorizer.Attributes) bool { return true }
	with, without := historyServer(t, time.Hour, all), historyServer(t, 0, all)
	for _, tt := range []struct {
		s    *Server
		path string
		code int32
		want string
	}{
		{with, "v1/nodes?history=", 400, "history=: give how far back to go"},
		{with, "v1/nodes?history=2", 400, "history=2: give how far back to go"},
		{with, "v1/nodes?history=2h&step=1s", 400, "step=1s: give whole minutes"},
		{with, "v1/pods?history=2h&labelSelector=app%3Dweb", 400, "and labelSelector= cannot be combined: leave one out"},
		{with, "v1/pods?history=2h&fieldSelector=spec.nodeName%3Dn1", 400, "history= and fieldSelector= cannot be combined"},
		{with, "v1/pods?history=2h&continue=x", 400, "history= and continue= cannot be combined"},
		{with, "v1/pods?history=2h&watch=1", 400, "history= is for lists of all nodes"},
		{without, "v1/nodes?history=2h", 404, "no history is kept: start metrics-server with --history=DURATION"},
		{without, "v1beta1/namespaces/shop/pods?history=2h", 404, "no history is kept"},
	} {
		w := tt.s.ask(tt.path, "")
		var status metav1.Status
		err := json.Unmarshal(w.Body.Bytes(), &status)
		if err != nil || w.Code != int(tt.code) || status.Code != tt.code || !strings.Contains(status.Message, tt.want) {
			t.Errorf("%s: %d %+v, %v, want %d %s", tt.path, w.Code, status, err, tt.code, tt.want)
		}
	}
	// Other requests are not touched.
	for _, path := range []string{"v1/nodes", "v1/nodes?labelSelector=history", "v1/pods?prehistory=2h"} {
		for _, s := range []*Server{with, without} {
			if w := s.ask(path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), "MetricsList") {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
	}
}

func TestHistoryCompression(t *testing.T) {
	s := historyServer(t, time.Hour, func(authorizer.Attributes) bool { return true })
	s.fill()
	for accept, want := range map[string]string{
		"": "", "gzip": "gzip", "deflate, gzip;q=1.0": "gzip", "gzip;q=0": "", "br": "",
	} {
		w := s.ask("v1/pods?history=1h", "", "Accept-Encoding", accept, "Accept", "application/vnd.kubernetes.protobuf")
		var body io.Reader = w.Body
		if want != "" {
			var err error
			if body, err = gzip.NewReader(w.Body); err != nil {
				t.Errorf("%q: %v", accept, err)
				continue
			}
		}
		a, err := history.Decode(body)
		if err != nil || len(a.Series) != 4 || w.Header().Get("Content-Encoding") != want ||
			w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%q: %v, %+v, %v", accept, err, a, w.Header())
		}
	}
}

// A request whose client has gone ends.
func TestHistoryOfACanceledRequest(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	var b bytes.Buffer
	w := whileActive{ctx, &b}
	if _, err := w.Write([]byte("1")); err != nil || b.Len() != 1 {
		t.Error(err)
	}
	cancel(errors.New("gone"))
	if _, err := w.Write([]byte("2")); err == nil || b.Len() != 1 {
		t.Errorf("%v, %q", err, b.String())
	}
}

// A minute is recorded when everything is known, at each full minute, with the workloads of pods.
func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known atomic.Bool
		s := idleServer()
		r := newRecorder(Config{History: time.Hour}, s)
		r.synced = func() error {
			if !known.Load() {
				return errors.New("pods are not listed yet")
			}
			return nil
		}
		time.Sleep(17 * time.Second)
		stop := sharedtest.Start(t, t.Context(), r.run)
		read := func() *history.Answer {
			t.Helper()
			var b bytes.Buffer
			if err := r.history.Write(&b, history.Query{Last: time.Hour}, time.Now()); err != nil {
				t.Fatal(err)
			}
			a, err := history.Decode(&b)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if a := read(); a.Points != 0 {
			t.Errorf("%d points before the pods are known", a.Points)
		}
		known.Store(true)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		now := time.Now().Truncate(time.Minute)
		if a := read(); a.Points != 3 || !a.Start.Equal(now.Add(-2*time.Minute)) {
			t.Errorf("%d points from %v at %v, want 3", a.Points, a.Start, now)
		}
		stop()
	})
}

// idleServer returns what a recorder needs of a server that runs nothing.
func idleServer() *Server {
	return &Server{
		metrics: prometheus.NewRegistry(), store: store.New(store.Config{}), inventory: inventory.New(inventory.Config{}),
	}
}

// The sums of a minute are those of the lists, and say which pods are missing.
func TestMinute(t *testing.T) {
	s := newServerWith(t, func(c *Config) { c.History = time.Hour })
	s.recorder.nodes = slices.Values([]sample.Object{{Name: "n1"}, {Name: "silent"}})
	s.recorder.pods = func(yield func(sample.Object, sample.Controller) bool) {
		web := sample.Labels{{Key: "pod-template-hash", Value: "5d9f"}}
		replicaSet := sample.Controller{Kind: "ReplicaSet", Name: "web-5d9f"}
		_ = yield(sample.Object{Namespace: "shop", Name: "alone"}, sample.Controller{}) &&
			yield(sample.Object{Namespace: "shop", Name: "web-5d9f-a", Labels: web}, replicaSet) &&
			yield(sample.Object{Namespace: "shop", Name: "web-5d9f-b", Labels: web}, replicaSet)
		for i := range 70 { // more than two batches
			agent := sample.Controller{Kind: "DaemonSet", Name: "agent"}
			if !yield(sample.Object{Namespace: "test", Name: fmt.Sprintf("agent-%02d", i)}, agent) {
				return
			}
		}
	}
	s.recorder.synced = func() error { return nil }

	now := time.Now()
	record := func(age time.Duration, cpu uint64) {
		b := &sample.Batch{}
		at := sample.TimeOf(now.Add(-age))
		b.Node = sample.Sample{Time: at, CPU: cpu * 1e9, Memory: 4096, Given: sample.CPU | sample.Memory}
		for _, pod := range []string{"shop/alone", "shop/web-5d9f-a", "test/agent-00", "test/agent-69"} {
			namespace, name, _ := strings.Cut(pod, "/")
			b.Containers = append(b.Containers, sample.Container{
				ID:     new(sample.NewContainerID(namespace, name, "c")),
				Sample: sample.Sample{Time: at, CPU: cpu * 1e9, Memory: 1024, Given: sample.CPU | sample.Memory},
			})
		}
		s.sink.Record("n1", b, now.Add(-age))
	}
	record(20*time.Second, 100)
	record(5*time.Second, 115)

	s.recorder.record(t.Context(), now)
	var got []string
	for _, q := range []history.Query{{Nodes: true, Last: time.Hour}, {Last: time.Hour}} {
		var b bytes.Buffer
		if err := s.recorder.history.Write(&b, q, now); err != nil {
			t.Fatal(err)
		}
		a, err := history.Decode(&b)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range a.Series {
			got = append(got, fmt.Sprintln(x.Kind, x.Namespace, x.Name, x.CPU, x.Memory, x.Pods, x.Missing))
		}
	}
	want := []string{
		"Node  n1 [1] [4096] [] []\n",
		"Namespace  shop [2] [2048] [3] [1]\n", "Namespace  test [2] [2048] [70] [68]\n",
		"Deployment shop web [1] [1024] [2] [1]\n", "Pod shop alone [1] [1024] [1] []\n",
		"DaemonSet test agent [2] [2048] [70] [68]\n",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if n := testutil.ToFloat64(s.recorder.metrics.kept); n != 6 {
		t.Errorf("the metric says %v series, want 6", n)
	}
}

// The log says once that series are left out, and once that none is any more.
func TestLeftOutIsLogged(t *testing.T) {
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	ctx := klog.NewContext(t.Context(), logger)
	s := idleServer()
	r := newRecorder(Config{History: time.Minute}, s)
	r.history = history.New(history.Config{Retention: time.Minute, Series: 4}, time.Now())
	now := time.Now()
	for i, pods := range []int{9, 9, 1, 1} {
		m := &history.Minute{}
		for j := range pods {
			m.Pod(history.Key{Kind: "Pod", Namespace: "shop", Name: fmt.Sprint("p", j)}, nil)
		}
		r.report(ctx, r.history.Record(now.Add(time.Duration(i)*2*time.Hour), m))
	}
	text := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
	if strings.Count(text, "too many workloads") != 1 || strings.Count(text, "All workloads have a history again") != 1 ||
		!strings.Contains(text, "leftOut=7") {
		t.Errorf("log:\n%s", text)
	}
}
