package demand

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sharedtest"
)

// cluster is an API server as far as a Demand sees it, and the Demand.
type cluster struct {
	*Demand
	t      *testing.T
	client *fake.Clientset

	mu     sync.Mutex
	scales map[string]any // by RESOURCE/NAME: a selector, a scaledTo, slowly or an error
	asked  []string       // keys of scales
	delay  chan struct{}  // until it is closed, requests for scales wait; nil if they do not
	known  map[Request]*Want
	calls  int // of OnWant
}

// scaledTo is a scale.
type scaledTo struct {
	replicas int64
	selector string
}

func (s scaledTo) object() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{"replicas": s.replicas}, "status": map[string]any{"selector": s.selector},
	}}
}

// newMapper knows Deployments, Namespaces, Ingresses and two custom kinds.
func newMapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper([]schema.GroupVersion{
		{Version: "v1"},
		{Group: "apps", Version: "v1"},
		{Group: "example.com", Version: "v1"},
		{Group: "networking.k8s.io", Version: "v1"},
	})
	m.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, meta.RESTScopeNamespace)
	m.Add(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Farm"}, meta.RESTScopeNamespace)
	m.Add(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Planet"}, meta.RESTScopeRoot)
	m.Add(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, meta.RESTScopeRoot)
	m.Add(schema.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"}, meta.RESTScopeNamespace)
	return m
}

// start runs a Demand in a synctest bubble until the test ends.
func start(t *testing.T, change func(*Config), objects ...runtime.Object) *cluster {
	t.Helper()
	return startWith(t, change, map[string]any{"deployments/web": "app=web"}, objects...)
}

// startWith is start with other scales.
func startWith(t *testing.T, change func(*Config), scales map[string]any, objects ...runtime.Object) *cluster {
	t.Helper()
	return startNamed(t, change, nil, scales, objects...)
}

// startNamed is startWith with metrics that an administrator names.
func startNamed(t *testing.T, change func(*Config), named []Named, scales map[string]any, objects ...runtime.Object,
) *cluster {
	t.Helper()
	c := &cluster{t: t, client: fake.NewClientset(objects...), known: map[Request]*Want{}, scales: scales}
	client := dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
	client.PrependReactor("get", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		get := a.(clienttesting.GetAction)
		key := get.GetResource().Resource + "/" + get.GetName()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = append(c.asked, key)
		if get.GetSubresource() != "scale" {
			return true, nil, errors.New("not the scale")
		}
		switch s := c.scales[key].(type) {
		case string:
			return true, scaledTo{1, s}.object(), nil
		case scaledTo:
			return true, s.object(), nil
		case slowly:
			return true, scaledTo{1, "app=web"}.object(), nil
		case error:
			return true, nil, s
		}
		return true, nil, apierrors.NewNotFound(get.GetResource().GroupResource(), get.GetName())
	})
	config := Config{
		Client: c.client, Dynamic: slowDynamic{client, c.wait}, Mapper: newMapper(),
		OnWant: func(w *Want) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.known[w.Request] = w
			c.calls++
		},
		OnGone: func(r Request) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.known[r] == nil {
				t.Errorf("%v is gone, but was never there", r)
			}
			delete(c.known, r)
		},
	}
	if change != nil {
		change(&config)
	}
	c.Demand = New(config)
	c.SetNamed(named)
	sharedtest.Start(t, t.Context(), c.Run)
	settle()
	return c
}

// slowly is how long requests for a scale with selector app=web take.
type slowly time.Duration

// hanging is longer than any request.
const hanging = slowly(time.Hour)

// wait waits until c.delay is closed, and as long as requests for the scale of key take.
func (c *cluster) wait(ctx context.Context, key string) error {
	c.mu.Lock()
	delay := c.delay
	s, slow := c.scales[key].(slowly)
	c.mu.Unlock()
	if delay != nil {
		<-delay
	}
	if !slow {
		return nil
	}
	select {
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = append(c.asked, key)
		return ctx.Err()
	case <-time.After(time.Duration(s)):
		return nil
	}
}

// slowDynamic, slowResource and slowNamespaced are a dynamic client whose Get calls wait first. A reactor of the fake
// client must not wait, because the client holds a lock then.
type slowDynamic struct {
	dynamic.Interface
	wait func(ctx context.Context, key string) error
}

func (d slowDynamic) Resource(r schema.GroupVersionResource) dynamic.NamespaceableResourceInterface {
	return slowResource{d.Interface.Resource(r), func(ctx context.Context, name string) error {
		return d.wait(ctx, r.Resource+"/"+name)
	}}
}

type slowResource struct {
	dynamic.NamespaceableResourceInterface
	wait func(ctx context.Context, name string) error
}

func (r slowResource) Namespace(name string) dynamic.ResourceInterface {
	return slowNamespaced{r.NamespaceableResourceInterface.Namespace(name), r.wait}
}

type slowNamespaced struct {
	dynamic.ResourceInterface
	wait func(ctx context.Context, name string) error
}

func (n slowNamespaced) Get(ctx context.Context, name string, o metav1.GetOptions, subresources ...string,
) (*unstructured.Unstructured, error) {
	if err := n.wait(ctx, name); err != nil {
		return nil, err
	}
	return n.ResourceInterface.Get(ctx, name, o, subresources...)
}

// settle waits as long as a change may take.
func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// wants returns all Wants that were reported, as lines, and checks that Wants says the same once
// nothing is in progress: what is published is reported a moment later.
func (c *cluster) wants() []string {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for _, w := range c.known {
		pods := make([]string, len(w.Pods))
		for i, p := range w.Pods {
			pods[i] = p.Name
		}
		line := fmt.Sprintf("%s by %s: %s", w.Request, strings.Join(w.HPAs, ","), strings.Join(pods, " "))
		if w.Err != nil {
			line += "! " + w.Err.Error()
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	namespaces := map[string]bool{}
	for r := range c.known {
		namespaces[r.Namespace] = true
	}
	for namespace := range namespaces {
		for _, w := range c.Wants(namespace) {
			if c.known[w.Request] != w {
				c.t.Errorf("%s was not reported", w.Request)
			}
		}
	}
	return lines
}

func (c *cluster) expect(want ...string) {
	c.t.Helper()
	got := c.wants()
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && strings.Contains(got[i], want[i])
	}
	if !ok {
		c.t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (c *cluster) must(_ any, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	settle()
}

func pod(name, app string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("uid of " + name),
			Labels: map[string]string{"app": app},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func TestPodsMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := metav1.Now()
		c := start(t, nil, testHPA("web", metrics(podsMetric("requests"))), pod("web-2", "web"), pod("web-1", "web"),
			pod("db-1", "db"),
			pod("web-3", "web", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
			pod("web-4", "web", func(p *corev1.Pod) { p.DeletionTimestamp, p.Finalizers = &gone, []string{"x/y"} }))
		c.expect("metric requests of pods with app=web by web: web-1 web-2")
		if err := c.Synced(); err != nil {
			t.Error(err)
		}
		web := labels.SelectorFromSet(labels.Set{"app": "web"})
		w, err := c.Find(PodsRequest("shop", web, "requests", labels.Everything()))
		if err != nil || len(w.Pods) != 2 || w.Definition.Window != DefaultWindow {
			t.Errorf("got %+v, %v, want two pods and the default window", w, err)
		}
		if _, err := c.Find(PodsRequest("shop", web, "request", labels.Everything())); err == nil ||
			!strings.Contains(err.Error(), "did you mean requests?") {
			t.Error(err)
		}

		// Pods come, change and go.
		pods := c.client.CoreV1().Pods("shop")
		c.must(pods.Create(t.Context(), pod("web-0", "web"), metav1.CreateOptions{}))
		c.expect("web-0 web-1 web-2")
		c.must(pods.Update(t.Context(), pod("web-1", "other"), metav1.UpdateOptions{}))
		c.expect("web-0 web-2")
		c.must(nil, pods.Delete(t.Context(), "web-0", metav1.DeleteOptions{}))
		c.expect(": web-2")
		calls := c.calls
		c.must(pods.Create(t.Context(), pod("db-2", "db"), metav1.CreateOptions{}))
		c.must(pods.Update(t.Context(), pod("web-2", "web", func(p *corev1.Pod) { p.Status.Message = "is not kept" }),
			metav1.UpdateOptions{}))
		if c.calls != calls {
			t.Error("a change that does not matter is reported")
		}

		// The HPA changes and goes.
		hpas := c.client.AutoscalingV2().HorizontalPodAutoscalers("shop")
		c.must(hpas.Update(t.Context(), testHPA("web", metrics(podsMetric("a"), podsMetric("b"))), metav1.UpdateOptions{}))
		c.expect("metric a of pods with app=web by web: web-2", "metric b of pods with app=web by web: web-2")
		status := testHPA("web", metrics(podsMetric("a"), podsMetric("b")))
		status.Status.CurrentReplicas = 7
		calls = c.calls
		c.must(hpas.Update(t.Context(), status, metav1.UpdateOptions{}))
		if c.calls != calls {
			t.Error("a change of the status is reported")
		}
		c.must(nil, hpas.Delete(t.Context(), "web", metav1.DeleteOptions{}))
		c.expect()
		c.mu.Lock()
		defer c.mu.Unlock()
		if !slices.Equal(c.asked, []string{"deployments/web"}) {
			t.Errorf("scales asked for: %v", c.asked)
		}
		c.Demand.mu.Lock()
		defer c.Demand.mu.Unlock()
		if len(c.namespaces) != 0 || len(c.pods.each) != 0 || len(c.targets.known) != 0 || c.targets.retrying != 0 {
			t.Errorf("left behind: %d namespaces, %d watches, %d targets", len(c.namespaces), len(c.pods.each),
				len(c.targets.known))
		}
	})
}

func TestPodIsKept(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	started := metav1.NewTime(time.Unix(1e9, 0))
	p := pod("web-1", "web", func(p *corev1.Pod) {
		p.Annotations = map[string]string{
			kubeapi.PodPortAnnotation: "9000", kubeapi.PodPathAnnotation: "/m",
			kubeapi.PodSchemeAnnotation: "https", "x": "y",
		}
		p.Spec = corev1.PodSpec{
			NodeName: "n", HostNetwork: true,
			Containers: []corev1.Container{{Name: "a", Image: "i", Ports: []corev1.ContainerPort{{
				Name:          "http",
				ContainerPort: 80,
			}, {ContainerPort: 53, Protocol: "UDP"}}}},
			InitContainers: []corev1.Container{
				{Name: "once", Ports: []corev1.ContainerPort{{ContainerPort: 1}}},
				{Name: "sidecar", RestartPolicy: &always, Ports: []corev1.ContainerPort{{ContainerPort: 2, Protocol: "TCP"}}},
			},
		}
		p.Status.StartTime = &started
		running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Unix(1, 0)}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", RestartCount: 3, State: running}}
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "sidecar", RestartCount: 4}}
	})
	want := Pod(p)
	reduced := p.DeepCopy()
	reduce(reduced, false)
	if got := Pod(reduced); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%+v is reduced to %+v", want, got)
	}
	if reduced.Spec.NodeName != "" || reduced.Annotations["x"] != "" || reduced.Spec.Containers[0].Image != "" {
		t.Errorf("not reduced: %+v", reduced)
	}
	text := "{Object:{Namespace:shop Name:web-1 Labels:[{Key:app Value:web}] Changed:0} UID:uid of web-1 IP:10.0.0.1 " +
		"Ready:false WasReady:false " +
		"HostNetwork:true Containers:[{Name:a Started:" + time.Unix(1, 0).String() + " Ports:[http=80 53/UDP]} " +
		"{Name:sidecar Started:" + time.Time{}.String() + " Ports:[2]}] " +
		"Ask:{Port:9000 Path:/m Scheme:https}}"
	if got := fmt.Sprintf("%+v", *want); got != text {
		t.Errorf("%s\nwant\n%s", got, text)
	}
	for _, tt := range []struct {
		status          corev1.ConditionStatus
		after           time.Duration
		ready, wasReady bool
	}{
		{corev1.ConditionTrue, 0, true, true},
		{corev1.ConditionFalse, initialReadiness, false, false},
		{corev1.ConditionFalse, initialReadiness + time.Second, false, true},
	} {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodReady, Status: tt.status, LastTransitionTime: metav1.NewTime(started.Add(tt.after)),
		}}
		if got := Pod(p); got.Ready != tt.ready || got.WasReady != tt.wasReady {
			t.Errorf("%+v: got ready %v, was ready %v", tt, got.Ready, got.WasReady)
		}
	}
}

// TestWasReady checks that a pod which was ready once stays so, and that its successor does not.
func TestWasReady(t *testing.T) {
	ready := func(status corev1.ConditionStatus) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, testHPA("web", metrics(podsMetric("x"))), pod("web-1", "web", ready(corev1.ConditionTrue)))
		wasReady := func() bool { return slices.Collect(maps.Values(c.known))[0].Pods[0].WasReady }
		pods := c.client.CoreV1().Pods("shop")
		c.must(pods.Update(t.Context(), pod("web-1", "web", ready(corev1.ConditionFalse)), metav1.UpdateOptions{}))
		if !wasReady() {
			t.Error("a pod that is not ready now has lost that it was ready once")
		}
		c.must(pods.Update(t.Context(), pod("web-1", "web", func(p *corev1.Pod) { p.UID = "another" }),
			metav1.UpdateOptions{}))
		if wasReady() {
			t.Error("a new pod has inherited that its predecessor was ready")
		}
	})
}

func testService(name, app string, ports ...corev1.ServicePort) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.ServiceSpec{Ports: ports},
	}
	if app != "" {
		s.Spec.Selector = map[string]string{"app": app}
	}
	return s
}

func TestObjectMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil,
			testHPA("web", metrics(
				objectMetric("a", "v1", "Service", "front"),
				objectMetric("b", "v1", "Pod", "db-1"),
				objectMetric("c", "apps/v1", "Deployment", "web"),
				objectMetric("d", "example.com/v1", "Planet", "earth"),
				objectMetric("e", "v1", "Service", "absent"),
				objectMetric("f", "v1", "Service", "headless"),
				objectMetric("g", "v1", "Pod", "absent"),
				objectMetric("h", "v1", "Service", "front"),
				objectMetric("i", "v1", "Namespace", "other"),
				objectMetric("j", "/v1", "Namespace", "other"), // the controller takes it for the same kind
			), "targets", "d: service/db:metrics\nh: service/db:81\ni: service/db:metrics\nj: service/db:metrics"),
			pod("web-1", "web"), pod("db-1", "db"),
			testService("front", "web"), testService("headless", ""),
			testService("db", "db", corev1.ServicePort{Name: "metrics", Port: 80, TargetPort: intstr.FromString("http")},
				corev1.ServicePort{Port: 82}))
		c.expect(
			"metric a of services front by web: web-1",
			"metric b of pods db-1 by web: db-1",
			"metric c of deployments.apps web by web: web-1",
			"metric d of planets.example.com earth by web: db-1",
			`metric e of services absent by web: ! Service "absent" does not exist: create it`,
			`metric f of services headless by web: ! Service "headless" has no pod selector`,
			`metric g of pods absent by web: ! pod "absent" does not exist`,
			`metric h of services front by web: ! Service "db" has no TCP port 81, only metrics=80, 82`,
			"metric i of namespaces shop by web: db-1",
			"metric j of namespaces shop by web: db-1",
		)
		w, err := c.Find(ObjectRequest("shop", schema.GroupResource{Group: "example.com", Resource: "planets"}, "earth",
			"d", labels.Nothing()))
		if err != nil || w.Ask.Port != "http" {
			t.Errorf("got %+v, %v, want the port http", w, err)
		}
		// The controller ignores the name of a Namespace.
		if w, err = c.Find(ObjectRequest("shop", schema.GroupResource{Resource: "namespaces"}, "shop", "i",
			labels.Everything())); err != nil || w.Err != nil || len(w.Pods) != 1 {
			t.Errorf("got %+v, %v, want one pod", w, err)
		}
		// A Service changes.
		c.must(c.client.CoreV1().Services("shop").Update(t.Context(), testService("front", "db"), metav1.UpdateOptions{}))
		if got := c.wants()[0]; got != "metric a of services front by web: db-1" {
			t.Error(got)
		}
	})
}

func TestConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, pod("web-1", "web"),
			testHPA("a", metrics(podsMetric("x"))),
			testHPA("b", metrics(podsMetric("x"), podsMetric("y"))),
			testHPA("c", metrics(podsMetric("x"), podsMetric("y"), podsMetric("y"))))
		c.expect("metric x of pods with app=web by a,b,c: web-1", "metric y of pods with app=web by b,c: web-1")
		hpas := c.client.AutoscalingV2().HorizontalPodAutoscalers("shop")
		c.must(hpas.Update(t.Context(), testHPA("b", metrics(podsMetric("x"), podsMetric("y")), "queries",
			"x: sum by (pod) (z)"), metav1.UpdateOptions{}))
		c.expect(`metric x of pods with app=web by a,b,c: ! HorizontalPodAutoscalers "a" and "b" define `+
			`metric x of pods with app=web differently (the default over 30s; the expression sum by (pod) (z)), `+
			`and a request does not say which one it is for: make them agree`,
			"metric y of pods with app=web by b,c: web-1")
		// A mistake hides what is meant, so it wins.
		c.must(hpas.Update(t.Context(), testHPA("c", metrics(podsMetric("x")), "window", "1s"), metav1.UpdateOptions{}))
		c.expect(`metric x of pods with app=web by a,b,c: ! annotation metrics-server/window of HorizontalPodAutoscaler "c"`,
			"metric y of pods with app=web by b: web-1")
		// Another selector of pods is another request.
		c.mu.Lock()
		c.scales["deployments/db"] = "app=db"
		c.mu.Unlock()
		other := testHPA("c", metrics(podsMetric("x")), "window", "1m")
		other.Spec.ScaleTargetRef.Name = "db"
		c.must(hpas.Update(t.Context(), other, metav1.UpdateOptions{}))
		c.must(hpas.Update(t.Context(), testHPA("b", metrics(podsMetric("x"))), metav1.UpdateOptions{}))
		c.expect("metric x of pods with app=db by c: ", "metric x of pods with app=web by a,b: web-1")
	})
}

// TestExternalMetrics checks that the pods of metrics of type External are those of a Service, whatever
// the scale target has; that requests are in lower case; and that names which then collide are a conflict,
// unless they mean the same.
func TestExternalMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		external := func(c *Config) { c.External = true }
		hpa := func(name string, metric string, annotations ...string) *autoscalingv2.HorizontalPodAutoscaler {
			h := testHPA(name, metrics(externalMetric(metric)), annotations...)
			h.Spec.ScaleTargetRef.Name = "worker" // which does not exist
			return h
		}
		c := start(t, external, pod("redis-0", "redis"), pod("web-1", "web"),
			testService("exporter", "redis", corev1.ServicePort{Port: 9121, TargetPort: intstr.FromInt32(8080)}),
			hpa("a", "queueDepth", "targets", "queueDepth: service/exporter:9121"), hpa("nowhere", "other"))
		c.expect(`external metric other by nowhere: ! annotation metrics-server/targets of HorizontalPodAutoscaler `+
			`"nowhere" does not say which pods have external metric other: add the line "other: service/NAME:PORT"`,
			"external metric queuedepth by a: redis-0")
		if err := c.Synced(); err != nil {
			t.Error(err)
		}
		w, err := c.Find(ExternalRequest("shop", "queuedepth", labels.Everything()))
		if err != nil || w.Name != "queueDepth" || w.Ask.Port != "8080" {
			t.Errorf("got %+v, %v, want queueDepth on port 8080", w, err)
		}

		hpas := c.client.AutoscalingV2().HorizontalPodAutoscalers("shop")
		c.must(nil, hpas.Delete(t.Context(), "nowhere", metav1.DeleteOptions{}))
		b := hpa("b", "queuedepth", "targets", "queuedepth: service/exporter:9121")
		c.must(hpas.Create(t.Context(), b, metav1.CreateOptions{}))
		c.expect(`external metric queuedepth by a,b: ! HorizontalPodAutoscalers "a" and "b" define external metric ` +
			`queueDepth differently (the default of queueDepth over 30s from service/exporter on port 9121`)
		for _, same := range []*autoscalingv2.HorizontalPodAutoscaler{
			hpa("a", "queueDepth", "targets", "queueDepth: service/exporter:9121", "queries", "queueDepth: sum(x)"),
			hpa("b", "queuedepth", "targets", "queuedepth: service/exporter:9121", "queries", "queuedepth: sum(x)"),
		} {
			c.must(hpas.Update(t.Context(), same, metav1.UpdateOptions{}))
		}
		c.expect("external metric queuedepth by a,b: redis-0")

		c.must(nil, c.client.CoreV1().Services("shop").Delete(t.Context(), "exporter", metav1.DeleteOptions{}))
		c.expect(`external metric queuedepth by a,b: ! Service "exporter" does not exist: create it`)
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.asked) > 0 {
			t.Errorf("scales asked for: %v", c.asked)
		}
	})
}

// TestBackends checks which metrics a backend has, that only metrics of type Pods need pods then, and that a new
// default takes effect.
func TestBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(c *Config) { c.External = true }, pod("web-1", "web"), pod("q-1", "q"),
			testService("q", "q", corev1.ServicePort{Port: 80}),
			testHPA("named", metrics(podsMetric("a"), externalMetric("b"), objectMetric("c", "example.com/v1", "Farm", "f"),
				objectMetric("d", "v1", "Service", "none"), objectMetric("e", "v1", "Pod", "none"),
				externalMetric("f")), "backend", "main", "targets", "f: service/q:80"),
			testHPA("silent", metrics(podsMetric("a"), externalMetric("g")), "window", "1m"),
			testHPA("scraped", metrics(podsMetric("h")), "backend", "pods"),
			testHPA("elsewhere", metrics(podsMetric("i")), "path", "/x"))
		ofPods := "of pods with app=web"
		rest := []string{
			"external metric b by named: ", "external metric f by named: q-1", "", // g
			"", // a
			"metric c of farms.example.com f by named: ", "metric d of services none by named: ",
			"metric e of pods none by named: ", "metric h " + ofPods + " by scraped: web-1",
			"metric i " + ofPods + " by elsewhere: web-1",
		}
		rest[2], rest[3] = `external metric g by silent: ! annotation metrics-server/targets`, "metric a "+ofPods+
			" by named,silent: ! HorizontalPodAutoscalers \"named\" and \"silent\" define metric a "+ofPods+
			" differently (the default over 2m0s from backend main; the default over 1m0s)"
		c.expect(rest...)
		for metric, want := range map[string]string{"b": "main", "f": "", "c": "main"} {
			for r, w := range c.known {
				if r.Metric == metric && (w.Backend != want || w.Err != nil) {
					t.Errorf("%s: backend %q, %v, want %q", metric, w.Backend, w.Err, want)
				}
			}
		}

		c.SetDefaultBackend("main")
		settle()
		rest[2] = "external metric g by silent: "
		rest[3] = "metric a " + ofPods + " by named,silent: ! HorizontalPodAutoscalers"
		c.expect(rest...)
		c.must(c.client.AutoscalingV2().HorizontalPodAutoscalers("shop").Update(t.Context(),
			testHPA("silent", metrics(podsMetric("a"))), metav1.UpdateOptions{}))
		rest[3] = "metric a " + ofPods + " by named,silent: web-1"
		c.expect(append(rest[:2:2], rest[3:]...)...)

		c.SetDefaultBackend("")
		settle()
		rest[3] = "metric a " + ofPods + " by named,silent: ! HorizontalPodAutoscalers"
		c.expect(append(rest[:2:2], rest[3:]...)...)
	})
}

// TestOthersServeExternal checks that metrics of type External are not looked at unless they are served.
func TestOthersServeExternal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, pod("web-1", "web"),
			testHPA("web", metrics(externalMetric("queue"), podsMetric("x")), "targets", "queue: service/exporter:80"))
		c.expect("metric x of pods with app=web by web: web-1")
	})
}

// TestExternalOfOthersNeedsNothing checks that metrics of type External that another program may serve make the server
// watch neither pods nor Services, do not delay it, and are told from those of which an HPA says which pods have them.
func TestExternalOfOthersNeedsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hpa := func(name string, annotations ...string) *autoscalingv2.HorizontalPodAutoscaler {
			return testHPA(name, metrics(externalMetric("queue"), externalMetric("other")), annotations...)
		}
		c := start(t, func(c *Config) { c.External = true }, pod("web-1", "web"), hpa("a"))
		if err := c.Synced(); err != nil {
			t.Error(err)
		}
		watched := func() (resources []string) {
			for _, a := range c.client.Actions() {
				if a.GetVerb() == "list" {
					resources = append(resources, a.GetResource().Resource)
				}
			}
			return resources
		}
		if got := watched(); !slices.Equal(got, []string{"horizontalpodautoscalers"}) {
			t.Errorf("watched are %v", got)
		}
		undeclared := func(metric string) bool {
			t.Helper()
			w, err := c.Find(ExternalRequest("shop", metric, labels.Everything()))
			if err != nil || w.Err == nil {
				t.Fatalf("got %+v, %v, want a Want with an error", w, err)
			}
			return w.Undeclared
		}
		if !undeclared("queue") || !undeclared("other") {
			t.Error("a metric of which no HPA says which pods have it is not undeclared")
		}
		hpas := c.client.AutoscalingV2().HorizontalPodAutoscalers("shop")
		c.must(hpas.Create(t.Context(), hpa("b", "targets", "queue: service/exporter:80"), metav1.CreateOptions{}))
		settle()
		if undeclared("queue") || !undeclared("other") {
			t.Error("it is undeclared although an HPA says which pods have it, or the other one is not")
		}
		if got := watched(); !slices.Contains(got, "pods") || !slices.Contains(got, "services") {
			t.Errorf("watched are %v", got)
		}
	})
}

// TestInvalidSelector checks that a metric with an invalid selector spoils no other one: neither that without a
// selector of another HPA, nor that with a valid one.
func TestInvalidSelector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		invalid, valid := podsMetric("x"), podsMetric("x")
		invalid.Pods.Metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"path": "/search"}}
		valid.Pods.Metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"code": "500"}}
		c := start(t, nil, pod("web-1", "web"), testHPA("a", metrics(invalid)),
			testHPA("b", metrics(podsMetric("x"), valid)))
		c.expect("metric x of pods with app=web by a: ! metric.selector of spec.metrics[0] of HorizontalPodAutoscaler \"a\"",
			"metric x of pods with app=web by b: web-1", "metric x with selector code=500 of pods with app=web by b: web-1")
		web := labels.SelectorFromSet(labels.Set{"app": "web"})
		if w, err := c.Find(PodsRequest("shop", web, "x", labels.Everything())); err != nil || w.Err != nil {
			t.Errorf("got %+v, %v, want a Want without an error", w, err)
		}
	})
}

func TestTooManyPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(c *Config) { c.MaxPods = 1 }, testHPA("web", metrics(podsMetric("x"))), pod("web-1", "web"))
		c.expect(": web-1")
		c.must(c.client.CoreV1().Pods("shop").Create(t.Context(), pod("web-2", "web"), metav1.CreateOptions{}))
		c.expect(": ! metric x of pods with app=web has more than 1 pods, which is the limit: use a target with fewer " +
			"pods, or raise --max-pods-per-metric")
	})
}

// TestManyNamespaces checks that one watch replaces many, and that no pod is lost then.
func TestManyNamespaces(t *testing.T) {
	in := func(namespace string, o metav1.Object) runtime.Object {
		o.SetNamespace(namespace)
		return o.(runtime.Object)
	}
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(c *Config) { c.MaxWatches = 2 },
			in("a", testHPA("web", metrics(podsMetric("x")))), in("b", testHPA("web", metrics(podsMetric("x")))),
			in("a", pod("web-1", "web")), in("b", pod("web-2", "web")), in("c", pod("web-3", "web")))
		watched := func() (namespaces []string) {
			for _, a := range c.client.Actions() {
				if a.GetVerb() == "list" && a.GetResource().Resource == "pods" {
					namespaces = append(namespaces, a.GetNamespace())
				}
			}
			slices.Sort(namespaces)
			return slices.Compact(namespaces)
		}
		c.expect("web-1", "web-2")
		if got := watched(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("pods are listed in namespaces %q, want a and b", got)
		}
		c.must(c.client.AutoscalingV2().HorizontalPodAutoscalers("c").Create(t.Context(), in("c", testHPA("web",
			metrics(podsMetric("x")))).(*autoscalingv2.HorizontalPodAutoscaler), metav1.CreateOptions{}))
		c.expect("web-1", "web-2", "web-3")
		if got := watched(); !slices.Equal(got, []string{"", "a", "b"}) {
			t.Errorf("pods are listed in namespaces %q, want the whole cluster, too", got)
		}
		c.Demand.mu.Lock()
		each := len(c.pods.each)
		c.Demand.mu.Unlock()
		if each != 0 {
			t.Errorf("%d watches of single namespaces are left, want none", each)
		}
		c.must(c.client.CoreV1().Pods("a").Create(t.Context(), in("a", pod("web-4", "web")).(*corev1.Pod),
			metav1.CreateOptions{}))
		c.expect("web-1 web-4", "web-2", "web-3")
		c.must(nil, c.client.AutoscalingV2().HorizontalPodAutoscalers("a").Delete(t.Context(), "web", metav1.DeleteOptions{}))
		c.expect("web-2", "web-3")
	})
}

// TestWatchFails checks that missing rights are explained, and that the last known state outlasts failures.
func TestWatchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denied := true
		var mu sync.Mutex
		c := start(t, func(config *Config) {
			config.Client.(*fake.Clientset).PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object,
				error,
			) {
				mu.Lock()
				defer mu.Unlock()
				return denied, nil, apierrors.NewForbidden(podsResource, "", errors.New("no"))
			})
		}, testHPA("web", metrics(podsMetric("x"))), pod("web-1", "web"))
		c.expect(": ! the custom metrics server has no right to list and watch pods: grant it")
		mu.Lock()
		denied = false
		mu.Unlock()
		time.Sleep(time.Minute)
		c.expect(": web-1")
	})
}

// TestNothingIsKnown checks that it is not mistaken for nothing that is wanted.
func TestNothingIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, func(config *Config) {
			config.Client.(*fake.Clientset).PrependReactor("list", "horizontalpodautoscalers",
				func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, errors.New("connection from port 4711")
				})
		})
		const want = "the API server cannot be asked to list and watch horizontalpodautoscalers"
		if err := c.Synced(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Synced: got %v, want %q", err, want)
		}
		_, err := c.Find(PodsRequest("shop", labels.Everything(), "x", labels.Everything()))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Find: got %v, want %q", err, want)
		}
	})
	if err := New(Config{}).Synced(); err == nil {
		t.Error("synced before Run")
	}
}

// unlocked is a sink that checks that the Demand is not locked while an object is read.
type unlocked struct {
	sink
	t     *testing.T
	d     *Demand
	reads int
}

func (u *unlocked) read(object runtime.Object) any {
	if u.reads++; !u.d.mu.TryLock() {
		u.t.Error("the Demand is locked while an object is read")
		return nil
	}
	u.d.mu.Unlock()
	return u.sink.read(object)
}

// Reading an HPA can take long, because its annotations are YAML. Nothing waits for it.
func TestReadingLocksNothing(t *testing.T) {
	d := New(Config{})
	spy := &unlocked{sink: d.hpas.into, t: t, d: d}
	d.hpas.into = spy
	first := testHPA("web", metrics(podsMetric("a")), "queries", "a: sum by (pod) (a)")
	second := testHPA("api", metrics(podsMetric("b")))
	if err := d.hpas.Replace([]any{first, second}, ""); err != nil {
		t.Fatal(err)
	}
	if err := d.hpas.Update(testHPA("api", metrics(podsMetric("c")))); err != nil {
		t.Fatal(err)
	}
	hpas := d.namespaces[first.Namespace].hpas
	if spy.reads != 3 || len(hpas) != 2 || hpas["web"].Metrics[0].Expression == "" || hpas["api"].Metrics[0].Name != "c" {
		t.Errorf("%d reads, %d HPAs, want 3 and 2: %+v", spy.reads, len(hpas), hpas)
	}
	if err := d.hpas.Replace([]any{second}, ""); err != nil {
		t.Fatal(err)
	}
	if hpas := d.namespaces[first.Namespace].hpas; len(hpas) != 1 || hpas["api"].Metrics[0].Name != "b" {
		t.Errorf("after a new list: %+v", hpas)
	}
}
