package cluster

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	restwatch "k8s.io/client-go/rest/watch"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"

	"metrics-server/pkg/history"
	"metrics-server/pkg/sharedtest"
)

func metaOf(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID(namespace + name),
		CreationTimestamp: metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second)),
	}
}

func apiNode(name string) *corev1.Node {
	return &corev1.Node{
		TypeMeta: metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}, ObjectMeta: metaOf("", name),
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
}

func apiPod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metaOf(namespace, name),
		Spec:   corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

func apiHPA(namespace, name string) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta:   metav1.TypeMeta{Kind: "HorizontalPodAutoscaler", APIVersion: "autoscaling/v2"},
		ObjectMeta: metaOf(namespace, name),
	}
}

func apiNodeMetrics(name, cpu string) *metricsv1.NodeMetrics {
	return &metricsv1.NodeMetrics{
		TypeMeta: metav1.TypeMeta{Kind: "NodeMetrics", APIVersion: "metrics.k8s.io/v1"}, ObjectMeta: metaOf("", name),
		Timestamp: metav1.Now(), Window: metav1.Duration{Duration: time.Minute}, Usage: list(cpu, "1Mi"),
	}
}

func apiPodMetrics(namespace, name, cpu string) *metricsv1.PodMetrics {
	return &metricsv1.PodMetrics{
		TypeMeta: metav1.TypeMeta{Kind: "PodMetrics", APIVersion: "metrics.k8s.io/v1"}, ObjectMeta: metaOf(namespace, name),
		Timestamp: metav1.Now(), Window: metav1.Duration{Duration: time.Minute},
		Containers: []metricsv1.ContainerMetrics{{Name: "c", Usage: list(cpu, "1Mi")}},
	}
}

// fill puts a node, three pods, an autoscaler and their usage into a.
func fill(a *api) {
	a.put(nodesPath, apiNode("n1"))
	a.put(podsPath, apiPod("shop", "a"), apiPod("shop", "b"), apiPod("bank", "c"))
	a.put(hpasPath, apiHPA("shop", "web"))
	a.put(nodeMetricsPath, apiNodeMetrics("n1", "2"))
	a.put(podMetricsPath, apiPodMetrics("shop", "a", "1"), apiPodMetrics("shop", "b", "500m"))
}

// start runs a Cluster that reads a.
func start(t *testing.T, a *api, c Config) (_ *Cluster, stop func()) {
	t.Helper()
	c.Rest = a.config()
	cluster, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return cluster, sharedtest.Start(t, t.Context(), cluster.Run)
}

// after lets time pass in a bubble.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *Snapshot) source(name SourceName) Source {
	for _, of := range s.Sources {
		if of.Name == name {
			return of
		}
	}
	return Source{}
}

// states returns the states of all sources except History.
func (s *Snapshot) states() string {
	var states []string
	for _, of := range s.Sources {
		if of.Name != History {
			states = append(states, string(of.State))
		}
	}
	return strings.Join(states, " ")
}

// pods returns the names of the pods and their CPU.
func (s *Snapshot) pods() string {
	var pods []string
	for _, p := range s.Pods {
		pods = append(pods, fmt.Sprint(p.Namespace, "/", p.Name, "=", p.Usage.Used.CPU))
	}
	return strings.Join(pods, " ")
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func contains(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: %q, want %q in it", what, got, want)
	}
}

const allWatched = "watching watching watching watching watching"

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		c, stop := start(t, a, Config{})
		equal(t, "at the start", c.Snapshot().states(), "waiting waiting waiting waiting waiting")
		after(3 * time.Second)
		s := c.Snapshot()
		equal(t, "states", s.states(), allWatched)
		equal(t, "history", s.source(History).State, Absent)
		equal(t, "pods", s.pods(), "bank/c=NaN shop/a=1 shop/b=0.5")
		equal(t, "nodes", len(s.Nodes), 1)
		equal(t, "usage of the node", s.Nodes[0].Usage.Used, Amount{2, 1 << 20})
		equal(t, "pods without usage", s.Nodes[0].PodsMissing, 1)
		equal(t, "autoscalers", len(s.HPAs), 1)
		equal(t, "pages of pods", a.asked(podsPath), 2)
		equal(t, "watches of pods", a.asked(podsPath+"?watch"), 1)
		a.forget()
		after(2 * time.Second)
		equal(t, "the same snapshot while nothing changes", c.Snapshot(), s)

		a.put(podMetricsPath, apiPodMetrics("shop", "a", "3"), apiPodMetrics("bank", "c", "0"))
		a.put(podsPath, apiPod("shop", "d"))
		a.delete(podsPath, "shop", "b")
		after(time.Second)
		next := c.Snapshot()
		equal(t, "pods", next.pods(), "bank/c=0 shop/a=3 shop/d=NaN")
		equal(t, "the old snapshot", s.pods(), "bank/c=NaN shop/a=1 shop/b=0.5")
		equal(t, "lists of pods", a.asked(podsPath), 0)
		equal(t, "a second snapshot within a second", c.Snapshot(), next)
		a.delete(podMetricsPath, "shop", "a")
		after(time.Second)
		equal(t, "pods", c.Snapshot().pods(), "bank/c=0 shop/a=NaN shop/d=NaN")

		after(time.Minute)
		equal(t, "the past", len(c.Snapshot().Series(c.Snapshot().Nodes[0].Past, CPU, 100).Values), 4)
		after(time.Hour) // watches end and begin again
		equal(t, "states after an hour", c.Snapshot().states(), allWatched)
		equal(t, "lists of pods in an hour", a.asked(podsPath), 0)
		stop()
		synctest.Wait()
		equal(t, "connections after Run", a.connected(), 0)
	})
}

func TestDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		denied := status(http.StatusForbidden, metav1.StatusReasonForbidden, `User "eve" cannot list resource`)
		a.answer(podsPath, denied)
		a.answer(hpasPath+"?watch", denied)
		c, _ := start(t, a, Config{})
		after(3 * time.Second)
		s := c.Snapshot()
		equal(t, "states", s.states(), "watching denied polling watching watching")
		equal(t, "nodes", len(s.Nodes), 1)
		contains(t, "error", s.source(Pods).Error, `User "eve" cannot list`)
		contains(t, "remedy", s.source(Pods).Remedy, "list and watch pods in all namespaces, or give --namespace")

		a.put(hpasPath, apiHPA("shop", "other"))
		after(15 * time.Second)
		equal(t, "autoscalers that are polled", len(c.Snapshot().HPAs), 2)

		a.answer(podsPath, nil)
		a.answer(hpasPath+"?watch", nil)
		after(refusedRetry)
		equal(t, "states once pods are allowed", c.Snapshot().states(), "watching watching polling watching watching")
		equal(t, "error", c.Snapshot().source(Pods).Error, "")
		equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=1 shop/b=0.5")
		after(watchRetry)
		equal(t, "states when a watch was tried again", c.Snapshot().states(), allWatched)

		// The right is taken away: what is known stays.
		a.answer(podsPath, denied)
		a.answer(podsPath+"?watch", denied)
		a.setDown(true)
		a.setDown(false)
		after(time.Minute)
		equal(t, "states", c.Snapshot().states(), "watching denied watching watching watching")
		equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=1 shop/b=0.5")
	})
}

func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		c, _ := start(t, a, Config{})
		after(3 * time.Second)
		a.forget()
		a.setDown(true)
		after(2 * time.Minute)
		s := c.Snapshot()
		equal(t, "states", s.states(), "failed failed failed failed failed")
		contains(t, "error", s.source(Pods).Error, "connection refused")
		contains(t, "remedy", s.source(Pods).Remedy, "check that the API server runs")
		equal(t, "pods that were known", s.pods(), "bank/c=NaN shop/a=1 shop/b=0.5")
		if age := time.Since(s.source(Pods).Updated); age < time.Minute {
			t.Errorf("pods were updated %v ago", age)
		}
		if v := s.Series(s.Nodes[0].Past, CPU, 1).Values[0]; !math.IsNaN(float64(v)) {
			t.Errorf("the past goes on with %v", v)
		}
		a.delete(podsPath, "shop", "b")
		a.setDown(false)
		after(lastRetry)
		after(2 * time.Second)
		equal(t, "states", c.Snapshot().states(), allWatched)
		equal(t, "error", c.Snapshot().source(Pods).Error, "")
		equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=1")
		equal(t, "lists of pods", a.asked(podsPath), 0)
	})
}

// TestUnauthorized checks that expired credentials have a remedy for the page: nothing reads the kubeconfig again, and
// it is seldom in a pod.
func TestUnauthorized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		for _, path := range []string{hpasPath, groupPath} {
			a.answer(path, status(http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized"))
		}
		c, _ := start(t, a, Config{})
		after(3 * time.Second)
		for _, name := range []SourceName{HPAs, PodMetrics, History} {
			s := c.Snapshot().source(name)
			equal(t, "state of "+string(name), s.State, Failed)
			contains(t, "remedy of "+string(name), s.Remedy, "renew them, then run metrics-server ui again")
		}
	})
}

// TestExpired checks that objects are listed when a watch cannot go on.
func TestExpired(t *testing.T) {
	for _, tt := range []struct {
		name   string
		expire func(*api)
	}{
		{"the request is refused", func(a *api) { a.expire() }},
		{"an event says so", func(a *api) {
			once := true
			a.answer(podsPath+"?watch", func(w http.ResponseWriter, r *http.Request) {
				if once {
					once = false
					writeJSON(w, http.StatusOK, map[string]any{"type": "ERROR", "object": &metav1.Status{
						TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
						Status:   metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired,
					}})
					return
				}
				a.watch(w, r, podsPath, "")
			})
		}},
		{"the version is of the future", func(a *api) {
			a.answer(podsPath+"?watch", func(w http.ResponseWriter, r *http.Request) {
				if a.asked(podsPath) == 0 {
					status(http.StatusGatewayTimeout, metav1.StatusReasonTimeout, "Too large resource version")(w, r)
					return
				}
				a.answer(podsPath+"?watch", nil)
				a.watch(w, r, podsPath, "")
			})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				fill(a)
				c, _ := start(t, a, Config{})
				after(3 * time.Second)
				a.forget()
				a.setDown(true)
				a.delete(podsPath, "shop", "b")
				a.put(podsPath, apiPod("shop", "d"))
				tt.expire(a)
				a.setDown(false)
				after(time.Minute)
				equal(t, "states", c.Snapshot().states(), allWatched)
				equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=1 shop/d=NaN")
				equal(t, "pages of pods", a.asked(podsPath), 2)
			})
		})
	}
}

// TestPageFails checks that one page that cannot be read does not make a list begin again.
func TestPageFails(t *testing.T) {
	tooMany := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	}
	reset := func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush() // else the client would repeat the request by itself
		panic(http.ErrAbortHandler)
	}
	for _, tt := range []struct {
		name string
		fail http.HandlerFunc
		wait time.Duration // before the page is requested again
	}{
		{"too many requests", tooMany, 7 * time.Second},
		{"an internal error", status(http.StatusInternalServerError, metav1.StatusReasonInternalError, "no"), firstRetry / 2},
		{"a reset", reset, firstRetry / 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				fill(a)
				var continued []time.Time
				first := 0
				a.answer(podsPath, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Query().Get("continue") == "" {
						first++
					} else if continued = append(continued, time.Now()); len(continued) == 1 {
						tt.fail(w, r)
						return
					}
					a.list(w, r, podsPath, "")
				})
				c, _ := start(t, a, Config{})
				after(2 * time.Second)
				s := c.Snapshot().source(Pods)
				if tt.wait > 2*time.Second && (s.State != Failed || s.Error == "" || s.Remedy == "") {
					t.Errorf("before the page is requested again: %+v", s)
				}
				after(10 * time.Second)
				equal(t, "states", c.Snapshot().states(), allWatched)
				equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=1 shop/b=0.5")
				equal(t, "requests for the first page", first, 1)
				if len(continued) != 2 {
					t.Fatalf("%d requests for the second page, want 2", len(continued))
				}
				if waited := continued[1].Sub(continued[0]); waited < tt.wait || waited > tt.wait+firstRetry {
					t.Errorf("the page is requested again after %v, want %v", waited, tt.wait)
				}
			})
		})
	}
}

// TestPagesExpire checks that a list whose pages take longer than the API server keeps their version is complete.
func TestPagesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		c, _ := start(t, a, Config{})
		after(3 * time.Second)
		a.setDown(true)
		a.delete(podsPath, "bank", "c")
		a.put(podsPath, apiPod("shop", "d"))
		a.expire()
		a.answer(podsPath, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("continue") != "" {
				status(http.StatusGone, metav1.StatusReasonExpired, "the continue token is too old")(w, r)
				return
			}
			a.list(w, r, podsPath, "")
		})
		a.forget()
		a.setDown(false)
		after(time.Minute)
		equal(t, "states", c.Snapshot().states(), allWatched)
		equal(t, "pods", c.Snapshot().pods(), "shop/a=1 shop/b=0.5 shop/d=NaN")
		equal(t, "requests: two pages and all pods at once", a.asked(podsPath), 3)
	})
}

func TestWatchRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		refuse func(*api)
		states string
	}{
		{"not offered, and only v1beta1", func(a *api) {
			a.verbs = []string{"get", "list"}
			a.answer(groupPath, status(http.StatusNotFound, metav1.StatusReasonNotFound, "no v1"))
		}, "watching watching watching polling polling"},
		{"not supported", func(a *api) {
			for _, path := range []string{nodeMetricsPath, podMetricsPath} {
				a.answer(path+"?watch", status(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "watch"))
			}
		}, "watching watching watching polling polling"},
		{"ended at once", func(a *api) {
			for _, path := range []string{nodeMetricsPath, podMetricsPath} {
				a.answer(path+"?watch", func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
				})
			}
		}, "watching watching watching polling polling"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				fill(a)
				tt.refuse(a)
				c, _ := start(t, a, Config{})
				after(30 * time.Second)
				equal(t, "states", c.Snapshot().states(), tt.states)
				equal(t, "error", c.Snapshot().source(PodMetrics).Error, "")
				equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=1 shop/b=0.5")
				a.put(podMetricsPath, apiPodMetrics("shop", "a", "3"))
				a.delete(podMetricsPath, "shop", "b")
				after(16 * time.Second)
				equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=3 shop/b=NaN")
			})
		})
	}
}

// TestWatchOffered checks that a server which replaces one without watches is watched at once.
func TestWatchOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		a.answer(hpasPath+"?watch", status(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "watch"))
		c, _ := start(t, a, Config{})
		after(3 * time.Second)
		equal(t, "states", c.Snapshot().states(), "watching watching polling watching watching")
		a.setDown(true)
		after(time.Minute)
		a.answer(hpasPath+"?watch", nil)
		a.setDown(false)
		after(lastRetry + 2*time.Second)
		equal(t, "states", c.Snapshot().states(), allWatched)
	})
}

// TestHangingWatch checks that a request for a watch without an answer is given up.
func TestHangingWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		a.answer(podsPath+"?watch", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		c, _ := start(t, a, Config{})
		after(requestTimeout + 2*time.Second)
		equal(t, "states", c.Snapshot().states(), "watching failed watching watching watching")
		contains(t, "error", c.Snapshot().source(Pods).Error, "did not accept the watch within 1m0s")
	})
}

func TestNoMetricsServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		absent := status(http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
		a.answer(groupPath, absent)
		a.answer(groupPath+"beta1", absent)
		c, _ := start(t, a, Config{})
		after(3 * time.Second)
		s := c.Snapshot()
		equal(t, "states", s.states(), "watching watching watching absent absent")
		equal(t, "history", s.source(History).State, Absent)
		contains(t, "remedy", s.source(PodMetrics).Remedy, "install a metrics server")
		equal(t, "pods", s.pods(), "bank/c=NaN shop/a=NaN shop/b=NaN")
		equal(t, "why", s.Pods[0].Missing, "the metrics of pods cannot be read")

		a.answer(groupPath, nil)
		after(refusedRetry)
		equal(t, "states when it is installed", c.Snapshot().states(), allWatched)
		equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=1 shop/b=0.5")

		down := status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "service unavailable")
		for _, path := range []string{groupPath, nodeMetricsPath, podMetricsPath} {
			a.answer(path, down)
			a.answer(path+"?watch", down)
		}
		a.setDown(true)
		a.setDown(false)
		after(lastRetry)
		s = c.Snapshot()
		equal(t, "states while it is down", s.states(), "watching watching watching failed failed")
		contains(t, "remedy", s.source(PodMetrics).Remedy, "metrics-server doctor")
		equal(t, "pods", s.pods(), "bank/c=NaN shop/a=1 shop/b=0.5")

		for _, path := range []string{groupPath, nodeMetricsPath, podMetricsPath} {
			a.answer(path, absent)
			a.answer(path+"?watch", absent)
		}
		after(lastRetry)
		equal(t, "states when it is removed", c.Snapshot().states(), "watching watching watching absent absent")
		equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=NaN shop/b=NaN")
	})
}

func TestNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		a.put(hpasPath, apiHPA("bank", "other"))
		c, _ := start(t, a, Config{Namespace: "shop"})
		after(3 * time.Second)
		s := c.Snapshot()
		equal(t, "states", s.states(), "absent watching watching absent watching")
		contains(t, "remedy", s.source(Nodes).Remedy, "--namespace")
		equal(t, "pods", s.pods(), "shop/a=1 shop/b=0.5")
		equal(t, "autoscalers", len(s.HPAs), 1)
		a.put(podsPath, apiPod("bank", "x"), apiPod("shop", "y"))
		after(2 * time.Second)
		equal(t, "pods", c.Snapshot().pods(), "shop/a=1 shop/b=0.5 shop/y=NaN")
		a.mu.Lock()
		defer a.mu.Unlock()
		for path := range a.requests {
			if path != groupPath && !strings.Contains(path, "/namespaces/shop/") {
				t.Errorf("%s was requested", path)
			}
		}
	})
}

// nodeHistory is a history of node n1 and of pod b, which has no controller: a minute with 7 cores, and one with 8.
func nodeHistory() *history.Answer {
	return &history.Answer{
		Header: history.Header{
			Kind: history.AnswerKind, Version: history.AnswerVersion, Step: 60, Start: time.Now().Add(-time.Minute), Points: 2,
		},
		Series: []history.Series{
			{Key: history.Key{Kind: "Node", Name: "n1"}, CPU: []history.Value{7, 8}, Memory: []history.Value{1, 1}},
			{
				Key: history.Key{Kind: "Pod", Namespace: "shop", Name: "b"},
				CPU: []history.Value{7, 8}, Memory: []history.Value{1, 1},
			},
		},
	}
}

func TestReadHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		a.history = nodeHistory()
		c, _ := start(t, a, Config{})
		after(3 * time.Second)
		s := c.Snapshot()
		equal(t, "history", s.source(History).State, Read)
		equal(t, "series of two answers", s.source(History).Objects, 4)
		values := s.Series(s.Nodes[0].Past, CPU, 100).Values
		if d := diff([]float32{7, 7, 7, 7, 8}, values); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		a.forget()
		after(2 * historyRetry)
		equal(t, "requests for the history after it was read", a.asked(nodeMetricsPath), 0)
	})
}

// TestHistoryWaits checks that the history is read once the objects are known to which it adds the past, also if they
// cannot be listed at first, and that it does not wait for objects that the user may not list.
func TestHistoryWaits(t *testing.T) {
	failing := status(http.StatusInternalServerError, metav1.StatusReasonInternalError, "no")
	for _, tt := range []struct {
		name string
		fail func(*api)
		path string
	}{
		{"nodes", func(a *api) { a.answer(nodesPath, failing) }, nodesPath},
		{"the second page of pods", func(a *api) {
			a.answer(podsPath, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("continue") != "" {
					failing(w, r)
					return
				}
				a.list(w, r, podsPath, "")
			})
		}, podsPath},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				fill(a)
				a.history = nodeHistory()
				tt.fail(a)
				c, _ := start(t, a, Config{})
				after(time.Minute)
				equal(t, "history", c.Snapshot().source(History).State, Waiting)
				a.answer(tt.path, nil)
				after(lastRetry + 2*time.Second)
				s := c.Snapshot()
				equal(t, "states", s.states(), allWatched)
				equal(t, "history", s.source(History).State, Read)
				last := s.Workloads[len(s.Workloads)-1]
				equal(t, "the last workload", last.Name, "b")
				equal(t, "the first value of a node", s.Series(s.Nodes[0].Past, CPU, 100).Values[0], 7)
				equal(t, "the first value of a workload", s.Series(last.Past, CPU, 100).Values[0], 7)
			})
		})
	}
	t.Run("denied", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAPI(t)
			fill(a)
			a.history = nodeHistory()
			a.answer(podsPath, status(http.StatusForbidden, metav1.StatusReasonForbidden, "no"))
			c, _ := start(t, a, Config{})
			after(3 * time.Second)
			equal(t, "pods", c.Snapshot().source(Pods).State, Denied)
			equal(t, "history", c.Snapshot().source(History).State, Read)
		})
	})
	// Pods that were listed once are known, even if they cannot be read when nodes are listed at last.
	t.Run("lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAPI(t)
			fill(a)
			a.history = nodeHistory()
			a.answer(nodesPath, failing)
			c, _ := start(t, a, Config{})
			after(3 * time.Second)
			a.answer(podsPath, failing)
			a.answer(podsPath+"?watch", failing)
			a.setDown(true)
			a.setDown(false)
			after(time.Minute)
			equal(t, "states", c.Snapshot().states(), "failed failed watching watching watching")
			equal(t, "history", c.Snapshot().source(History).State, Waiting)
			a.answer(nodesPath, nil)
			after(lastRetry + 2*time.Second)
			equal(t, "states", c.Snapshot().states(), "watching failed watching watching watching")
			equal(t, "history", c.Snapshot().source(History).State, Read)
		})
	})
}

func TestHistoryDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.answer(nodeMetricsPath, status(http.StatusForbidden, metav1.StatusReasonForbidden, "no"))
		c, _ := start(t, a, Config{})
		after(3 * time.Second)
		equal(t, "history", c.Snapshot().source(History).State, Denied)
		contains(t, "remedy", c.Snapshot().source(History).Remedy, "allow you to list nodes and pods of metrics.k8s.io")
		a.answer(groupPath, status(http.StatusInternalServerError, metav1.StatusReasonInternalError, "no"))
		after(historyRetry)
		equal(t, "history", c.Snapshot().source(History).State, Failed)
	})
}

func TestReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		fill(a)
		a.put(nodesPath, apiNode("n2"), apiNode("n3"))
		why := func(resource, name, text string) {
			a.answer(groupPath+"/"+resource+"/"+name, status(http.StatusNotFound, metav1.StatusReasonNotFound, text))
		}
		why("nodes", "n2", `nodes.metrics.k8s.io "n2" has no usage: the last scrape failed: no route; open the port`)
		why("nodes", "n3", `nodemetrics.metrics.k8s.io "n3" not found`)
		why("namespaces/bank/pods", "c", `pods.metrics.k8s.io "c" has no usage: it has just started`)
		c, _ := start(t, a, Config{})
		after(17 * time.Second)
		s := c.Snapshot()
		equal(t, "n1", s.Nodes[0].Missing, "")
		equal(t, "n2", s.Nodes[1].Missing, "the last scrape failed: no route; open the port")
		equal(t, "n3", s.Nodes[2].Missing, "the metrics server has no usage of it")
		equal(t, "requests about n1", a.asked(nodeMetricsPath+"/n1"), 0)
		equal(t, "a pod", c.Reason(t.Context(), "bank", "c"), "it has just started")
		a.put(nodeMetricsPath, apiNodeMetrics("n2", "1"))
		after(2 * time.Second)
		equal(t, "n2 with usage", c.Snapshot().Nodes[1].Missing, "")
	})
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{}, "set Config.Rest"},
		{Config{Rest: &rest.Config{}, Interval: time.Millisecond}, "give a second or more"},
		{Config{Rest: &rest.Config{Host: "http://x:y:z"}}, "make a client of the API server"},
	} {
		if _, err := New(tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", tt.c, err, tt.want)
		}
	}
}

// TestProtobuf checks that lists and watches are read in protobuf, in both versions of metrics.k8s.io.
func TestProtobuf(t *testing.T) {
	info, ok := runtime.SerializerInfoForMediaType(codecs().SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		t.Fatal("no serializer of protobuf")
	}
	for _, version := range []string{"v1", "v1beta1"} {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t)
				fill(a)
				if version == "v1beta1" {
					a.answer(groupPath, status(http.StatusNotFound, metav1.StatusReasonNotFound, "no v1"))
				}
				gv := schema.GroupVersion{Group: "metrics.k8s.io", Version: version}
				a.answer("/apis/"+gv.String()+"/pods", func(w http.ResponseWriter, r *http.Request) {
					contains(t, "Accept", r.Header.Get("Accept"), runtime.ContentTypeProtobuf+",")
					w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
					list := &metricsv1.PodMetricsList{
						ListMeta: metav1.ListMeta{ResourceVersion: "7"},
						Items:    []metricsv1.PodMetrics{*apiPodMetrics("shop", "a", "4")},
					}
					list.SetGroupVersionKind(gv.WithKind("PodMetricsList"))
					if err := info.Serializer.Encode(list, w); err != nil {
						t.Error(err)
					}
				})
				a.answer("/apis/"+gv.String()+"/pods?watch", func(w http.ResponseWriter, r *http.Request) {
					contains(t, "the version of the watch", r.URL.RawQuery, "resourceVersion=7")
					w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
					event := apiPodMetrics("shop", "b", "5")
					event.SetGroupVersionKind(gv.WithKind("PodMetrics"))
					stream := restwatch.NewEncoder(streaming.NewEncoder(
						info.StreamSerializer.Framer.NewFrameWriter(w), info.StreamSerializer.Serializer), info.Serializer)
					if err := stream.Encode(&watch.Event{Type: watch.Added, Object: event}); err != nil {
						t.Error(err)
					}
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
				})
				c, _ := start(t, a, Config{})
				after(3 * time.Second)
				equal(t, "pods", c.Snapshot().pods(), "bank/c=NaN shop/a=4 shop/b=5")
				equal(t, "states", c.Snapshot().states(), allWatched)
			})
		})
	}
}
