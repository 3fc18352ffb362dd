package apiserver

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/doctor/hpa"
	"metrics-server/pkg/history"
	"metrics-server/pkg/history/historyclient"
	"metrics-server/pkg/kubelet"
)

// patience is how long a test waits for what takes a moment.
const patience = 20 * time.Second

// start serves a cluster until the test ends.
func start(t *testing.T, c Config) (*Server, *rest.Config) {
	t.Helper()
	s, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	config, err := clientcmd.RESTConfigFromKubeConfig(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return s, config
}

// accepting returns config for a client that asks for a type of content.
func accepting(config *rest.Config, contentType string) *rest.Config {
	config = rest.CopyConfig(config)
	config.AcceptContentTypes = contentType + ",application/json"
	return config
}

func clients(t *testing.T, config *rest.Config) (*kubernetes.Clientset, *metricsclient.Clientset) {
	t.Helper()
	core, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := metricsclient.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return core, metrics
}

// eventually waits until done reports true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(patience); !done(); <-ticker.C {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// TestLists reads all lists, in pieces and whole, and checks that they have everything once.
func TestLists(t *testing.T) {
	_, config := start(t, Config{Nodes: 30, PodsPerNode: 40, HPAs: 5})
	core, metrics := clients(t, accepting(config, protobufType))
	seen := map[string]bool{}
	err := doctor.Pages(func(o metav1.ListOptions) (string, error) {
		list, err := core.CoreV1().Pods("").List(t.Context(), o)
		if err != nil {
			return "", err
		}
		if len(list.Items) > int(o.Limit) {
			t.Errorf("%d pods, more than the limit", len(list.Items))
		}
		for i := range list.Items {
			seen[list.Items[i].Namespace+"/"+list.Items[i].Name] = true
		}
		return list.Continue, nil
	})
	if err != nil || len(seen) != 1200 {
		t.Errorf("%d pods, want 1200: %v", len(seen), err)
	}
	pods, err := metrics.MetricsV1beta1().PodMetricses("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 1200 || pods.ResourceVersion == "" {
		t.Errorf("%d pods with usage, want 1200: %v", len(pods.Items), err)
	}
	for _, p := range pods.Items {
		if !seen[p.Namespace+"/"+p.Name] || p.Containers[0].Usage.Cpu().IsZero() {
			t.Errorf("%s/%s does not exist or has no usage", p.Namespace, p.Name)
		}
	}
	shopPods, err := core.CoreV1().Pods(shop).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web-3"})
	if err != nil || len(shopPods.Items) != scaledReplicas {
		t.Errorf("%d pods of web-3: %v", len(shopPods.Items), err)
	}
	nodes, err := metrics.MetricsV1beta1().NodeMetricses().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 30 {
		t.Errorf("%d nodes with usage, want 30: %v", len(nodes.Items), err)
	}
	hpas, err := core.AutoscalingV2().HorizontalPodAutoscalers("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(hpas.Items) != 5 || len(hpas.Items[0].Status.CurrentMetrics) == 0 {
		t.Errorf("%d autoscalers, want 5: %v", len(hpas.Items), err)
	}
}

// TestInformer follows changes with an informer, also after the connection was lost and after a watch expired.
func TestInformer(t *testing.T) {
	for _, contentType := range []string{"application/json", protobufType} {
		t.Run(contentType, func(t *testing.T) { testInformer(t, contentType) })
	}
}

func testInformer(t *testing.T, contentType string) {
	s, config := start(t, Config{Nodes: 2, PodsPerNode: 5, HPAs: 1})
	core, _ := clients(t, accepting(config, contentType))
	factory := informers.NewSharedInformerFactory(core, 0)
	pods := factory.Core().V1().Pods()
	informer := pods.Informer()
	factory.Start(t.Context().Done())
	t.Cleanup(factory.Shutdown)
	if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
		t.Fatal("no list was received")
	}
	count := func(n int) func() bool {
		return func() bool { return len(informer.GetStore().ListKeys()) == n }
	}
	eventually(t, "10 pods", count(10))
	if err := s.ScaleHPA("web-0", 5); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two pods more", count(12))
	s.Expire()
	if err := s.DeletePod(shop, s.Pods("Deployment", shop, "web-0")[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one pod less, after the watch expired", count(11))
	s.Break()
	if err := s.ScaleHPA("web-0", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := core.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("a broken server answers")
	}
	if err := s.Mend(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two pods less, after the connection was lost", count(9))
}

// TestUsage watches the usage of a pod that is set, and of a node that stops.
func TestUsage(t *testing.T) {
	for _, contentType := range []string{"application/json", protobufType} {
		t.Run(contentType, func(t *testing.T) { testUsage(t, contentType) })
	}
}

func testUsage(t *testing.T, contentType string) {
	s, config := start(t, Config{Nodes: 3, PodsPerNode: 4, HPAs: 1})
	_, metrics := clients(t, accepting(config, contentType))
	list, err := metrics.MetricsV1beta1().PodMetricses("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := metrics.MetricsV1beta1().PodMetricses("").Watch(t.Context(),
		metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	name := s.Pods("Deployment", shop, "web-0")[0]
	if err := s.SetUsage(shop, name, 1.5, 1<<30); err != nil {
		t.Fatal(err)
	}
	next := func(what string, is func(watch.Event, *metricsv1beta1.PodMetrics) bool) {
		t.Helper()
		timeout := time.After(patience)
		for {
			select {
			case e := <-w.ResultChan():
				if p, ok := e.Object.(*metricsv1beta1.PodMetrics); ok && is(e, p) {
					return
				}
			case <-timeout:
				t.Fatalf("no event: %s", what)
			}
		}
	}
	next("the usage was set", func(e watch.Event, p *metricsv1beta1.PodMetrics) bool {
		return e.Type == watch.Modified && p.Name == name && p.Containers[0].Usage.Cpu().MilliValue() == 1500
	})
	if err := s.StopNode("node-0001"); err != nil {
		t.Fatal(err)
	}
	next("the usage of a pod of a stopped node goes", func(e watch.Event, _ *metricsv1beta1.PodMetrics) bool {
		return e.Type == watch.Deleted
	})
	_, err = metrics.MetricsV1beta1().NodeMetricses().Get(t.Context(), "node-0001", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "has no usage") {
		t.Errorf("usage of a stopped node: %v", err)
	}
	if err := s.StartNode("node-0001"); err != nil {
		t.Fatal(err)
	}
	next("it returns", func(e watch.Event, _ *metricsv1beta1.PodMetrics) bool { return e.Type == watch.Modified })
}

// TestIncumbent checks what kubernetes-sigs/metrics-server does not have: v1, watches, resourceVersions and a history.
func TestIncumbent(t *testing.T) {
	_, config := start(t, Config{Incumbent: true, History: time.Hour})
	core, metrics := clients(t, config)
	list, err := metrics.MetricsV1beta1().NodeMetricses().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.ResourceVersion != "" || list.Items[0].ResourceVersion != "" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := metrics.MetricsV1beta1().NodeMetricses().Watch(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("a watch is served")
	}
	if _, err := core.Discovery().ServerResourcesForGroupVersion("metrics.k8s.io/v1"); !apierrors.IsNotFound(err) {
		t.Errorf("v1 is served: %v", err)
	}
	_, err = historyclient.Fetch(t.Context(), core.CoreV1().RESTClient(), "v1beta1",
		history.Query{Nodes: true, Last: time.Hour})
	if _, ok := errors.AsType[*history.NoHistoryError](err); !ok {
		t.Errorf("history: %v", err)
	}
}

func TestHistory(t *testing.T) {
	_, config := start(t, Config{Nodes: 2, PodsPerNode: 20, HPAs: 1, History: 2 * time.Hour})
	core, _ := clients(t, config)
	for _, nodes := range []bool{true, false} {
		a, err := historyclient.Fetch(t.Context(), core.CoreV1().RESTClient(), "v1",
			history.Query{Nodes: nodes, Last: time.Hour})
		if err != nil || a.Points != 60 || len(a.Series) < 2 || len(a.Series[0].CPU) != 60 || !(a.Series[0].CPU[7] > 0) {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

// TestRights denies requests and allows them again.
func TestRights(t *testing.T) {
	s, config := start(t, Config{HPAs: 1, PodsPerNode: 5})
	core, metrics := clients(t, config)
	s.Deny("pods.metrics.k8s.io")
	usages := metrics.MetricsV1beta1().PodMetricses("")
	if _, err := usages.List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("denied: %v", err)
	}
	s.Allow("pods.metrics.k8s.io")
	if _, err := usages.List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("allowed: %v", err)
	}
	s.Confine(shop)
	if _, err := core.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("all namespaces: %v", err)
	}
	if list, err := core.CoreV1().Pods(shop).List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 3 {
		t.Errorf("one namespace: %v", err)
	}
}

// TestDoctor lets the doctor find nothing in a healthy cluster, and the node that does not answer.
func TestDoctor(t *testing.T) {
	s, config := start(t, Config{Nodes: 12, PodsPerNode: 10, HPAs: 2})
	run := func() *doctor.Report {
		r, err := doctor.Run(t.Context(), doctor.Config{
			Rest: config, Version: "v1", Namespace: serverNamespace, Service: serverName,
			Flags: func([]string) (doctor.Flags, error) {
				return doctor.Flags{
					Kubelet: kubelet.Config{
						Rest: config, Port: 10250, UseNodeStatusPort: true, AddressTypes: []string{string(corev1.NodeInternalIP)},
					},
					Timeout: time.Minute, Resolution: 15 * time.Second, Port: 10250,
				}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, l := range run().Checks {
		if l.Status == doctor.Problem || l.Status == doctor.Warning {
			t.Errorf("a healthy cluster: %+v", l)
		}
	}
	if err := s.StopNode("node-0004"); err != nil {
		t.Fatal(err)
	}
	found := slices.ContainsFunc(run().Checks, func(l doctor.Line) bool {
		return l.Check == "nodes" && slices.Equal(l.Nodes, []string{"node-0004"})
	})
	if !found {
		t.Error("the stopped node is not found")
	}
}

// TestAutoscaler has the doctor come to the same replicas as the fake controller.
func TestAutoscaler(t *testing.T) {
	s, config := start(t, Config{Nodes: 2, PodsPerNode: 10, HPAs: 2})
	for _, name := range []string{"web-0", "web-1"} {
		if err := s.SetLoad(name, 0.9); err != nil {
			t.Fatal(err)
		}
		r, err := hpa.Run(t.Context(), hpa.Config{Rest: config, Version: "v1", Namespace: shop, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		if err := r.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text.String(), "the controller decided the same (6)") {
			t.Errorf("%s", text.String())
		}
		for _, l := range r.Checks {
			if l.Status == doctor.Problem || l.Status == doctor.Warning {
				t.Errorf("%s: %+v", name, l)
			}
		}
	}
}
