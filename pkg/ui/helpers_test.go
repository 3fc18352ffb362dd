package ui

import (
	"context"
	"encoding/json"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/history"
	"metrics-server/pkg/ui/cluster"
)

var epoch = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeSource has the snapshot that a test gives it.
type fakeSource struct {
	atomic.Pointer[cluster.Snapshot]
}

func (f *fakeSource) Snapshot() *cluster.Snapshot { return f.Load() }

func (f *fakeSource) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (f *fakeSource) Reason(_ context.Context, _, pod string) string { return pod + " has no sample" }

// fixture is a server that a test asks, with a session if cookie is set.
type fixture struct {
	*Server
	t      *testing.T
	source *fakeSource
	host   string
	cookie *http.Cookie
}

var testFiles = fstest.MapFS{
	"index.html":        {Data: []byte("<!doctype html><title>page</title>")},
	"app.js":            {Data: []byte("console.log(1)")},
	"app.css":           {Data: []byte("body{}")},
	"third/LICENSE.txt": {Data: []byte("MIT")},
	"data.bin":          {Data: []byte{1}},
}

// newFixture returns a server of a snapshot.
func newFixture(t *testing.T, snapshot *cluster.Snapshot) *fixture {
	t.Helper()
	l, err := listen("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f := &fixture{t: t, source: &fakeSource{}, host: l.Addr().String()}
	f.source.Store(snapshot)
	config := Config{Rest: &rest.Config{Host: "https://api.example"}, Version: "v1.0.0", Context: "test"}
	if f.Server, err = newServer(config, l, f.source, testFiles); err != nil {
		t.Fatal(err)
	}
	return f
}

// enter opens the printed URL.
func (f *fixture) enter() *fixture {
	f.t.Helper()
	w := f.do("GET", "/?token="+f.session.token, nil)
	if cookies := w.Result().Cookies(); len(cookies) == 1 {
		f.cookie = cookies[0]
		return f
	}
	f.t.Fatalf("no cookie for the token: %d %s", w.Code, w.Body)
	return nil
}

// do sends a request. Headers override those of an ordinary request; Host is one of them.
func (f *fixture) do(method, target string, headers map[string]string) *httptest.ResponseRecorder {
	f.t.Helper()
	r := httptest.NewRequestWithContext(f.t.Context(), method, target, http.NoBody)
	r.Host = f.host
	if f.cookie != nil {
		r.AddCookie(f.cookie)
	}
	for name, value := range headers {
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

// get decodes the answer to a GET, which must succeed.
func get[T any](f *fixture, target string) (answer T) {
	f.t.Helper()
	w := f.do("GET", target, nil)
	if w.Code != http.StatusOK {
		f.t.Fatalf("GET %s: %d %s", target, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		f.t.Fatalf("GET %s: %v", target, err)
	}
	return answer
}

// problem decodes the answer to a GET that must fail.
func (f *fixture) problem(target string, code int) Problem {
	f.t.Helper()
	w := f.do("GET", target, nil)
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != code || p.Error == "" || p.Remedy == "" {
		f.t.Errorf("GET %s: %d %s (%v), want %d with an error and a remedy", target, w.Code, w.Body, err, code)
	}
	return p
}

// found lets the doctor have found lines in a cluster of so many nodes.
func (f *fixture) found(nodes int, lines ...doctor.Line) {
	before := f.findings.current.Load()
	d := diagnose(examined{lines: lines, nodes: nodes}, epoch, before.nextID)
	d.version = before.version + 1
	f.findings.current.Store(&d)
}

func amountOf(cpu, memory float64) cluster.Amount { return cluster.Amount{CPU: cpu, Memory: memory} }

func usageOf(cpu, memory float64) cluster.Usage {
	return cluster.Usage{Used: amountOf(cpu, memory), Sampled: epoch, Window: 15 * time.Second}
}

func testNode(name string, cpu float64) *cluster.Node {
	n := &cluster.Node{
		Name: name, Created: epoch.Add(-time.Hour), Ready: cluster.Ready, Allocatable: amountOf(4, 1<<30),
		Usage: cluster.Usage{Used: nothing}, Missing: "the kubelet does not answer", Overdue: true,
		Requests: amountOf(1, 1<<20), Limits: nothing, Pods: 2, Addresses: []string{"10.0.0.1"},
		Conditions: []cluster.Condition{{Type: "Ready", Status: "True", Reason: "KubeletReady", Message: "it is"}},
	}
	if !math.IsNaN(cpu) {
		n.Usage, n.Missing, n.Overdue = usageOf(cpu, 1<<20), "", false
	}
	return n
}

func testPod(namespace, name string, cpu float64) *cluster.Pod {
	p := &cluster.Pod{
		Namespace: namespace, Name: name, Created: epoch.Add(-time.Hour), Node: "n1", Status: "Running", Running: true,
		Ready: true, IP: "10.1.0.1", Workload: history.Key{Kind: "Deployment", Namespace: namespace, Name: "web"},
		Usage: cluster.Usage{Used: nothing}, Missing: "it has no sample yet", Requests: amountOf(0.1, 1<<20), Limits: nothing,
		Containers: []cluster.Container{{
			Name: "app", State: "Running", Used: amountOf(cpu, 1<<20), Requests: nothing, Limits: nothing,
		}},
	}
	if !math.IsNaN(cpu) {
		p.Usage, p.Missing = usageOf(cpu, 1<<20), ""
	}
	return p
}

func testHPA(namespace, name string, conditions ...autoscalingv2.HorizontalPodAutoscalerCondition) *cluster.HPA {
	return &cluster.HPA{
		Object: &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web", APIVersion: "apps/v1"},
				MaxReplicas:    10,
			},
			Status: autoscalingv2.HorizontalPodAutoscalerStatus{CurrentReplicas: 2, DesiredReplicas: 3, Conditions: conditions},
		},
		Metrics: []cluster.Metric{{
			Type: autoscalingv2.ResourceMetricSourceType, Name: "cpu", TargetType: autoscalingv2.UtilizationMetricType,
			Target: 60, Current: 90,
		}},
	}
}

func condition(kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus,
	message string,
) autoscalingv2.HorizontalPodAutoscalerCondition {
	return autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind, Status: status, Message: message}
}

// testSnapshot has something of every kind.
func testSnapshot() *cluster.Snapshot {
	bad := testPod("shop", "web-2", math.NaN())
	bad.Status, bad.Ready, bad.Node, bad.Restarts = "CrashLoopBackOff", false, "n2", 7
	done := testPod("team", "job-1", math.NaN())
	done.Status, done.Ready, done.Running, done.Ended, done.Missing = "Completed", false, false, true, ""
	done.Workload = history.Key{Kind: "Job", Namespace: "team", Name: "job"}
	down := testNode("n3", math.NaN())
	down.Ready, down.Cordoned = cluster.NotReady, true
	return &cluster.Snapshot{
		Version: 1, At: epoch,
		Sources: []cluster.Source{
			{Name: cluster.Nodes, State: cluster.Watching, Updated: epoch, Objects: 3},
			{Name: cluster.Pods, State: cluster.Watching, Updated: epoch, Objects: 4},
			{Name: cluster.HPAs, State: cluster.Polling, Updated: epoch, Objects: 2},
			{Name: cluster.PodMetrics, State: cluster.Denied, Error: "forbidden", Remedy: "grant list on pods.metrics.k8s.io"},
		},
		Nodes: []*cluster.Node{testNode("n1", 1), testNode("n2", 2), down},
		Pods:  []*cluster.Pod{testPod("shop", "web-1", 0.5), bad, testPod("team", "api-1", 0.25), done},
		Workloads: []*cluster.Workload{
			{
				Key: history.Key{Kind: "Deployment", Namespace: "shop", Name: "web"}, Pods: 2, Missing: 1, Overdue: 1,
				Used: amountOf(0.5, 1<<20), Requests: amountOf(0.2, 2<<20), Limits: nothing, Sampled: epoch,
			},
			{
				Key: history.Key{Kind: "Deployment", Namespace: "team", Name: "web"}, Pods: 1,
				Used: amountOf(0.25, 1<<20), Requests: amountOf(0.1, 1<<20), Limits: nothing, Sampled: epoch,
			},
		},
		HPAs: []*cluster.HPA{
			testHPA("shop", "web", condition(autoscalingv2.ScalingLimited, corev1.ConditionTrue, "at the maximum")),
			testHPA("team", "web"),
		},
	}
}

// port returns the port of a host with a port.
func port(host string) string {
	_, p, err := net.SplitHostPort(host)
	if err != nil {
		return ""
	}
	return p
}

// names returns the names of rows.
func names[Row any](rows []Row, name func(Row) string) string {
	var all []string
	for _, r := range rows {
		all = append(all, name(r))
	}
	return strings.Join(all, " ")
}
