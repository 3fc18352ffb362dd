package hpa

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	scalefake "k8s.io/client-go/scale/fake"
	clienttesting "k8s.io/client-go/testing"
	defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	metricsclient "k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalv1beta1 "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclientset "k8s.io/metrics/pkg/client/clientset/versioned"
	"k8s.io/metrics/pkg/client/custom_metrics"
	"k8s.io/metrics/pkg/client/external_metrics"

	"metrics-server/pkg/doctor/hpa"
)

var seed = flag.Uint64("seed", 1, "of the random cases")

// cases is how many HorizontalPodAutoscalers are compared, each in a namespace of its own.
const cases = 500

// TestController compares what metrics-server doctor hpa says of random HorizontalPodAutoscalers, pods and values
// with what the HPA controller does when it first sees them: the values of metrics, which of them fail, and the
// replicas. Stabilization is left out, because it depends on the past.
func TestController(t *testing.T) {
	random := rand.New(rand.NewPCG(*seed, 0))
	api := &apiServer{t: t, objects: map[string]any{
		"/api":    &metav1.APIVersions{Versions: []string{"v1"}},
		"/apis":   &metav1.APIGroupList{Groups: []metav1.APIGroup{group("apps", "v1")}},
		"/api/v1": resources("v1", metav1.APIResource{Name: "services", Kind: "Service", Namespaced: true}),
		"/apis/apps/v1": resources("apps/v1",
			metav1.APIResource{Name: "deployments", Kind: "Deployment", Namespaced: true}),
	}}
	for _, name := range []string{"v1beta2.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"} {
		api.objects["/apis/apiregistration.k8s.io/v1/apiservices/"+name] = map[string]any{
			"metadata": map[string]string{"name": name},
			"spec":     map[string]any{"service": map[string]string{"namespace": "kube-system", "name": "metrics"}},
		}
	}
	now := time.Now().Truncate(time.Second) // as the API server sends times
	worlds := make([]*world, cases)
	var objects []runtime.Object
	for i := range worlds {
		w := newWorld(fmt.Sprintf("n%d", i), random, now)
		worlds[i] = w
		w.serve(api)
		objects = append(objects, w.hpa)
		for i := range w.pods {
			objects = append(objects, &w.pods[i])
		}
	}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL, QPS: -1}

	seen := observe(t, config, worlds, objects)
	acted, failed, limited := 0, 0, 0
	for _, w := range worlds {
		r, err := hpa.Run(t.Context(), hpa.Config{Rest: config, Namespace: w.namespace, Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		for _, difference := range compare(w, seen[w.namespace], r.Autoscaler) {
			spec, _ := json.Marshal(w.hpa.Spec)
			explained := &strings.Builder{}
			_ = r.WriteText(explained)
			t.Errorf("%s: %s\n%s\n%+v\n%s", w.namespace, difference, spec, seen[w.namespace].status.Conditions, explained)
		}
		if t.Failed() {
			t.FailNow() // one difference is enough to read
		}
		for _, m := range r.Autoscaler.Metrics {
			if m.Calculation == nil {
				failed++
			}
		}
		if d := r.Autoscaler.Decision; d.Replicas != w.scale.Spec.Replicas {
			acted++
			if len(d.Steps) > 0 {
				limited++
			}
		}
	}
	if acted < cases/5 || failed < cases/10 || limited < cases/10 {
		t.Errorf("the cases say little: %d scale, %d of these are limited, %d metrics fail", acted, limited, failed)
	}
}

// outcome is what the controller did with one HorizontalPodAutoscaler.
type outcome struct {
	replicas int32
	status   *autoscalingv2.HorizontalPodAutoscalerStatus
}

// observe runs the controller until it has seen all worlds once.
func observe(t *testing.T, config *rest.Config, worlds []*world, objects []runtime.Object) map[string]*outcome {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	seen := map[string]*outcome{}
	for _, w := range worlds {
		seen[w.namespace] = &outcome{replicas: w.scale.Spec.Replicas}
	}
	left := len(worlds)
	all := make(chan struct{})
	client := fake.NewClientset(objects...)
	client.PrependReactor("update", "horizontalpodautoscalers", func(a clienttesting.Action) (bool, runtime.Object,
		error,
	) {
		h := a.(clienttesting.UpdateAction).GetObject().(*autoscalingv2.HorizontalPodAutoscaler)
		mu.Lock()
		defer mu.Unlock()
		if o := seen[h.Namespace]; o.status == nil {
			o.status = h.Status.DeepCopy()
			if left--; left == 0 {
				close(all)
			}
		}
		return true, h, nil
	})
	scales := &scalefake.FakeScaleClient{}
	byNamespace := map[string]*world{}
	for _, w := range worlds {
		byNamespace[w.namespace] = w
	}
	scales.AddReactor("get", "deployments", func(a clienttesting.Action) (bool, runtime.Object, error) {
		return true, byNamespace[a.GetNamespace()].scale.DeepCopy(), nil
	})
	scales.AddReactor("update", "deployments", func(a clienttesting.Action) (bool, runtime.Object, error) {
		s := a.(clienttesting.UpdateAction).GetObject().(*autoscalingv1.Scale)
		mu.Lock()
		defer mu.Unlock()
		if o := seen[a.GetNamespace()]; o.status == nil {
			o.replicas = s.Spec.Replicas
		}
		return true, s, nil
	})
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Group: "apps", Version: "v1"}, {Version: "v1"}})
	mapper.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, meta.RESTScopeNamespace)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Service"}, meta.RESTScopeNamespace)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, meta.RESTScopeNamespace)
	resources, err := metricsclientset.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	custom, err := custom_metrics.NewForVersionForConfig(rest.CopyConfig(config), mapper,
		customv1beta2.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	external, err := external_metrics.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	shared := informers.NewSharedInformerFactory(client, 0)
	controller := podautoscaler.NewHorizontalController(ctx, client.CoreV1(), scales, client.AutoscalingV2(), mapper,
		metricsclient.NewRESTMetricsClient(resources.MetricsV1beta1(), custom, external),
		shared.Autoscaling().V2().HorizontalPodAutoscalers(), shared.Core().V1().Pods(),
		100*time.Millisecond, 0, 0.1, 5*time.Minute, 30*time.Second) // the defaults, without stabilization
	shared.Start(ctx.Done())
	var wg sync.WaitGroup
	wg.Go(func() { controller.Run(ctx, 4) })
	defer wg.Wait()
	defer cancel()
	select {
	case <-all:
	case <-time.After(time.Minute):
		t.Fatalf("the controller has not looked at %d HorizontalPodAutoscalers", left)
	}
	return seen
}

// compare returns what differs between the controller and the doctor.
func compare(w *world, did *outcome, said *hpa.Autoscaler) (differences []string) {
	differ := func(format string, args ...any) { differences = append(differences, fmt.Sprintf(format, args...)) }
	if said.Decision == nil {
		return []string{"no decision"}
	}
	if said.Decision.Replicas != did.replicas {
		differ("the controller scales from %d to %d, the doctor says %d", w.scale.Spec.Replicas, did.replicas,
			said.Decision.Replicas)
	}
	for i, status := range did.status.CurrentMetrics {
		c := said.Metrics[i].Calculation
		if (c == nil) != (status.Type == "") {
			differ("metric %d: the controller has %+v, the doctor %+v", i, status, c)
		}
		if c == nil || status.Type == "" {
			continue
		}
		current, value := valueOf(&status), c.Value
		want := current.Value
		if want == nil {
			want = current.AverageValue
			if status.Object != nil || status.External != nil {
				value = int64(math.Ceil(float64(value) / float64(w.scale.Status.Replicas)))
			}
		}
		if w.scale.Status.Replicas > 0 && want.MilliValue() != value {
			differ("metric %d: the controller reads %d, the doctor %d", i, want.MilliValue(), value)
		}
		if u := current.AverageUtilization; u != nil && (c.Utilization == nil || *u != *c.Utilization) {
			differ("metric %d: the controller calculates %d %%, the doctor %v", i, *u, c.Utilization)
		}
	}
	return differences
}

func valueOf(s *autoscalingv2.MetricStatus) *autoscalingv2.MetricValueStatus {
	switch {
	case s.Resource != nil:
		return &s.Resource.Current
	case s.ContainerResource != nil:
		return &s.ContainerResource.Current
	case s.Pods != nil:
		return &s.Pods.Current
	case s.Object != nil:
		return &s.Object.Current
	}
	return &s.External.Current
}

// apiServer answers with objects by their paths.
type apiServer struct {
	t       *testing.T
	objects map[string]any
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	object := s.objects[r.URL.Path]
	if object == nil {
		w.WriteHeader(http.StatusNotFound)
		object = &metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
			Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: "not found",
		}
	}
	if err := json.NewEncoder(w).Encode(object); err != nil {
		s.t.Error(err)
	}
}

func group(name, version string) metav1.APIGroup {
	v := metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + version, Version: version}
	return metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v}
}

func resources(version string, r metav1.APIResource) *metav1.APIResourceList {
	r.Verbs = metav1.Verbs{"get", "list"}
	return &metav1.APIResourceList{GroupVersion: version, APIResources: []metav1.APIResource{r}}
}

// world is a HorizontalPodAutoscaler and everything that it depends on.
type world struct {
	*rand.Rand
	namespace string
	now       time.Time
	hpa       *autoscalingv2.HorizontalPodAutoscaler
	scale     *autoscalingv1.Scale
	pods      []corev1.Pod
	usage     *metricsv1beta1.PodMetricsList
	custom    map[string]*customv1beta2.MetricValueList // by path in the namespace
	external  map[string]*externalv1beta1.ExternalMetricValueList
}

func (w *world) serve(api *apiServer) {
	in := "/namespaces/" + w.namespace
	api.objects["/apis/autoscaling/v2"+in+"/horizontalpodautoscalers/web"] = w.hpa
	api.objects["/apis/apps/v1"+in+"/deployments/web/scale"] = w.scale
	api.objects["/api/v1"+in+"/pods"] = &corev1.PodList{Items: w.pods}
	if w.usage != nil {
		api.objects["/apis/metrics.k8s.io/v1beta1"+in+"/pods"] = w.usage
	}
	for path, list := range w.custom {
		api.objects["/apis/custom.metrics.k8s.io/v1beta2"+in+path] = list
	}
	for name, list := range w.external {
		api.objects["/apis/external.metrics.k8s.io/v1beta1"+in+"/"+name] = list
	}
}

// in reports true in percent of all cases.
func (w *world) in(percent int) bool { return w.IntN(100) < percent }

// around returns a value for a target of 1000: often at, near or far from it.
func (w *world) around() int64 {
	if w.in(40) {
		return []int64{0, 500, 899, 900, 901, 1000, 1100, 1101, 2000}[w.IntN(9)]
	}
	return w.Int64N(2500)
}

func milli(v int64) *resource.Quantity { return resource.NewMilliQuantity(v, resource.DecimalSI) }

func newWorld(namespace string, random *rand.Rand, now time.Time) *world {
	w := &world{
		Rand: random, namespace: namespace, now: now, custom: map[string]*customv1beta2.MetricValueList{},
		external: map[string]*externalv1beta1.ExternalMetricValueList{},
	}
	replicas := int32(w.IntN(12))
	if w.in(10) {
		replicas = 0
	}
	w.scale = &autoscalingv1.Scale{
		TypeMeta:   metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
		Spec:       autoscalingv1.ScaleSpec{Replicas: replicas},
		Status:     autoscalingv1.ScaleStatus{Replicas: max(0, replicas+int32(w.IntN(3))-1), Selector: "app=web"},
	}
	noisy, unrequested := w.in(50), w.in(10)
	for i := range max(0, int(replicas)+w.IntN(4)-1) {
		w.pods = append(w.pods, w.pod(fmt.Sprintf("web-%d", i), noisy, unrequested))
	}
	w.measure(noisy)
	w.autoscaler()
	return w
}

// pod returns a random pod: if it is noisy, one that may not be ready.
func (w *world) pod(name string, noisy, unrequested bool) corev1.Pod {
	requests := func() corev1.ResourceRequirements {
		r := corev1.ResourceList{}
		if !unrequested || w.in(80) {
			r[corev1.ResourceCPU] = *milli([]int64{0, 250, 1000, 1000}[w.IntN(4)])
		}
		if !unrequested || w.in(80) {
			r[corev1.ResourceMemory] = *milli(1000)
		}
		return corev1.ResourceRequirements{Requests: r}
	}
	always := corev1.ContainerRestartPolicyAlways
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name, Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "app", Resources: requests()}, {Name: "side", Resources: requests()},
		}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if w.in(20) {
		p.Spec.InitContainers = []corev1.Container{
			{Name: "once", Resources: requests()},
			{Name: "sidecar", RestartPolicy: &always, Resources: requests()},
		}
	}
	if w.in(15) {
		r := requests()
		if w.in(30) {
			delete(r.Requests, corev1.ResourceMemory)
		}
		p.Spec.Resources = &r
	}
	if w.in(15) {
		p.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: *milli(100)}
	}
	started := w.now.Add(-[]time.Duration{time.Minute, 3 * time.Minute, 6 * time.Minute, time.Hour}[w.IntN(4)])
	changed := started.Add([]time.Duration{time.Second, 20 * time.Second, 40 * time.Second}[w.IntN(3)])
	ready := corev1.ConditionTrue
	if noisy {
		if w.in(10) {
			p.Status.Phase = []corev1.PodPhase{corev1.PodPending, corev1.PodFailed, corev1.PodSucceeded}[w.IntN(3)]
		}
		if w.in(25) {
			ready = []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionUnknown}[w.IntN(2)]
		}
		if w.in(10) {
			p.DeletionTimestamp = &metav1.Time{Time: w.now}
			p.Finalizers = []string{"example.com/wait"}
		}
	}
	if !noisy || w.in(95) {
		p.Status.StartTime = &metav1.Time{Time: started}
	}
	if !noisy || w.in(95) {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Time{Time: changed},
		}}
	}
	return p
}

// measure gives the pods values in all APIs. The metrics are those of autoscaler.
func (w *world) measure(noisy bool) {
	if w.in(95) {
		w.usage = &metricsv1beta1.PodMetricsList{
			TypeMeta: metav1.TypeMeta{APIVersion: "metrics.k8s.io/v1beta1", Kind: "PodMetricsList"},
		}
	}
	levels := &customv1beta2.MetricValueList{
		TypeMeta: metav1.TypeMeta{APIVersion: "custom.metrics.k8s.io/v1beta2", Kind: "MetricValueList"},
	}
	names := make([]string, 0, len(w.pods)+1)
	for i := range w.pods {
		names = append(names, w.pods[i].Name)
	}
	if noisy && w.in(10) {
		names = append(names, "unknown")
	}
	equal := w.in(20)
	level := w.around()
	for _, name := range names {
		if noisy && w.in(15) {
			continue
		}
		if !equal {
			level = w.around()
		}
		if w.usage != nil {
			m := metricsv1beta1.PodMetrics{
				ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
				Timestamp:  metav1.Time{Time: w.now.Add(-25 * time.Second)},
				Window:     metav1.Duration{Duration: []time.Duration{10 * time.Second, 2 * time.Minute}[w.IntN(2)]},
			}
			for _, container := range []string{"app", "side"} {
				usage := corev1.ResourceList{corev1.ResourceCPU: *milli(level), corev1.ResourceMemory: *milli(level)}
				if noisy && w.in(5) {
					delete(usage, corev1.ResourceCPU)
				}
				if !noisy || w.in(95) {
					m.Containers = append(m.Containers, metricsv1beta1.ContainerMetrics{Name: container, Usage: usage})
				}
			}
			w.usage.Items = append(w.usage.Items, m)
		}
		levels.Items = append(levels.Items, customv1beta2.MetricValue{
			DescribedObject: corev1.ObjectReference{Kind: "Pod", Namespace: w.namespace, Name: name},
			Metric:          customv1beta2.MetricIdentifier{Name: "level"}, Value: *milli(level),
		})
	}
	if w.in(95) {
		w.custom["/pods/*/level"] = levels
	}
	scale := int64(1 + w.IntN(8))
	if w.in(90) {
		total := customv1beta2.MetricValue{
			DescribedObject: corev1.ObjectReference{Kind: "Service", Namespace: w.namespace, Name: "front"},
			Metric:          customv1beta2.MetricIdentifier{Name: "total"}, Value: *milli(w.around() * scale),
		}
		w.custom["/services/front/total"] = &customv1beta2.MetricValueList{
			TypeMeta: levels.TypeMeta, Items: []customv1beta2.MetricValue{total},
		}
	}
	if w.in(90) {
		list := &externalv1beta1.ExternalMetricValueList{
			TypeMeta: metav1.TypeMeta{APIVersion: "external.metrics.k8s.io/v1beta1", Kind: "ExternalMetricValueList"},
		}
		for range w.IntN(4) {
			list.Items = append(list.Items, externalv1beta1.ExternalMetricValue{
				MetricName: "jobs", Value: *milli(w.around() * scale),
			})
		}
		w.external["jobs"] = list
	}
}

// autoscaler makes a random HorizontalPodAutoscaler, as the API server would store it.
func (w *world) autoscaler() {
	h := &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta:   metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"},
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "web"},
	}
	h.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{
		APIVersion: "apps/v1", Kind: "Deployment", Name: "web",
	}
	average := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: milli(1000)}
	value := autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: milli(1000)}
	percent := autoscalingv2.MetricTarget{
		Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new([]int32{50, 100, 150}[w.IntN(3)]),
	}
	pick := func(targets ...autoscalingv2.MetricTarget) autoscalingv2.MetricTarget {
		return targets[w.IntN(len(targets))]
	}
	name := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}[w.IntN(2)]
	single := false
	for range 1 + w.IntN(3) {
		var m autoscalingv2.MetricSpec
		switch w.IntN(5) {
		case 0:
			m.Type, m.Resource = autoscalingv2.ResourceMetricSourceType, &autoscalingv2.ResourceMetricSource{
				Name: name, Target: pick(average, percent),
			}
		case 1:
			m.Type = autoscalingv2.ContainerResourceMetricSourceType
			m.ContainerResource = &autoscalingv2.ContainerResourceMetricSource{
				Name: name, Container: "app", Target: pick(average, percent),
			}
		case 2:
			m.Type, m.Pods = autoscalingv2.PodsMetricSourceType, &autoscalingv2.PodsMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "level"}, Target: average,
			}
		case 3:
			single = true
			m.Type, m.Object = autoscalingv2.ObjectMetricSourceType, &autoscalingv2.ObjectMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "total"}, Target: pick(average, value),
				DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "front"},
			}
		default:
			single = true
			m.Type, m.External = autoscalingv2.ExternalMetricSourceType, &autoscalingv2.ExternalMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "jobs"}, Target: pick(average, value),
			}
		}
		h.Spec.Metrics = append(h.Spec.Metrics, m)
	}
	least := int32(1 + w.IntN(3))
	if single && w.in(30) {
		least = 0
	}
	h.Spec.MinReplicas, h.Spec.MaxReplicas = &least, max(1, least+int32(w.IntN(20)))
	if w.in(60) {
		h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: w.rules(), ScaleDown: w.rules()}
	}
	defaults.SetDefaults_HorizontalPodAutoscaler(h)
	defaults.SetDefaults_HorizontalPodAutoscalerBehavior(h)
	if w.scale.Spec.Replicas == 0 && w.in(70) {
		h.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{
			Type: autoscalingv2.ScaledToZero, Status: corev1.ConditionTrue,
		}}
	}
	w.hpa = h
}

// rules are random rules without stabilization.
func (w *world) rules() *autoscalingv2.HPAScalingRules {
	if w.in(20) {
		return nil
	}
	r := &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32(0))}
	if w.in(40) {
		r.Tolerance = milli([]int64{0, 20, 300, 500}[w.IntN(4)])
	}
	if w.in(60) {
		r.SelectPolicy = new([]autoscalingv2.ScalingPolicySelect{
			autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect,
		}[w.IntN(3)])
	}
	for range w.IntN(3) {
		p := autoscalingv2.HPAScalingPolicy{
			Type: autoscalingv2.PodsScalingPolicy, Value: int32(1 + w.IntN(4)), PeriodSeconds: 60,
		}
		if w.in(50) {
			p.Type, p.Value = autoscalingv2.PercentScalingPolicy, []int32{10, 50, 100, 200}[w.IntN(4)]
		}
		r.Policies = append(r.Policies, p)
	}
	return r
}
