package hpa

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"metrics-server/pkg/kubeapi"
)

// now is the time of all examinations here.
var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// fakeCluster is an API server whose answers are objects by their paths. It has the Deployment web with three pods,
// and an HPA web for it.
type fakeCluster struct {
	t *testing.T

	mu       sync.Mutex
	objects  map[string]any // by path; a *metav1.Status is an error, a page what a pod answers
	hpa      *autoscalingv2.HorizontalPodAutoscaler
	file     string // the administrator's file
	pods     []*corev1.Pod
	requests []string // path and query
	busy     int      // concurrent requests to pods: current, and highest
	most     int
	host     string
	onHang   func()         // called when a page that hangs is requested
	patience time.Duration  // for a page
	notes    *kubeapi.Notes // of the custom metrics server; nil if there are none
	// discovered is the only resource in the discovery document of custom.metrics.k8s.io. "" stands for one that fits the
	// name of the Service.
	discovered string
}

// page is an answer that is passed on from a pod.
type page struct {
	code        int
	contentType string
	body        string
	hangs       bool
}

const (
	pathHPA     = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/web"
	pathHPAs    = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
	pathAllHPAs = "/apis/autoscaling/v2/horizontalpodautoscalers"
	pathScale   = "/apis/apps/v1/namespaces/default/deployments/web/scale"
	pathPods    = "/api/v1/namespaces/default/pods"
	pathCustom  = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta2.custom.metrics.k8s.io"
	pathCustom1 = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.custom.metrics.k8s.io"
	pathValue   = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/packets-per-second"
	pathValue1  = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/packets-per-second"
	pathUsage   = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"
)

func pageOf(pod string) string { return pathPods + "/" + pod + ":9090/proxy/metrics" }

const customRoot = "/apis/" + kubeapi.CustomMetricsGroup

const goodPage = "# TYPE packets_total counter\npackets_total{direction=\"in\"} 7\npackets_total{direction=\"out\"} " +
	"9\n" +
	"# TYPE queue_length gauge\nqueue_length 3\n"

func registered(version, service string) *apiService {
	s := &apiService{Metadata: metav1.ObjectMeta{Name: version + ".custom.metrics.k8s.io"}}
	namespace, name, _ := strings.Cut(service, "/")
	s.Spec.Service = &struct{ Namespace, Name string }{namespace, name}
	s.Status.Conditions = []metav1.Condition{{Type: "Available", Status: "True", Reason: "Passed"}}
	return s
}

// unavailable is registered for a Service that is not there.
func unavailable(version, service string) *apiService {
	s := registered(version, service)
	s.Status.Conditions = []metav1.Condition{{
		Type: "Available", Status: "False", Reason: "ServiceNotFound",
		Message: "service " + service + " is not present",
	}}
	return s
}

// workPod is a pod of a ReplicaSet that has been ready for an hour.
func workPod(name, replicaSet string, labels map[string]string) *corev1.Pod {
	started := metav1.NewTime(now.Add(-time.Hour))
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID("uid-" + name), Labels: labels,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: replicaSet, Controller: new(true),
			}},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {
				Name:          "metrics",
				ContainerPort: 9090,
			}},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
			}},
		}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &started,
			Conditions: []corev1.PodCondition{{
				Type: corev1.PodReady, Status: corev1.ConditionTrue,
				LastTransitionTime: metav1.NewTime(started.Add(10 * time.Second)),
			}},
		},
	}
}

func replicaSet(deployment string) *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{
		APIVersion: "meta.k8s.io/v1",
		Kind:       "PartialObjectMetadata",
	}}
	if deployment != "" {
		m.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "Deployment", Name: deployment, Controller: new(true),
		}}
	}
	return m
}

// values is an answer of custom.metrics.k8s.io: the value of each pod.
func values(of map[string]string) *customv1beta2.MetricValueList {
	list := &customv1beta2.MetricValueList{}
	for name, v := range of {
		list.Items = append(list.Items, customv1beta2.MetricValue{
			DescribedObject: corev1.ObjectReference{Kind: "Pod", Name: name, Namespace: "default"},
			Timestamp:       metav1.NewTime(now.Add(-7 * time.Second)), Value: resource.MustParse(v),
		})
	}
	slices.SortFunc(list.Items, func(a, b customv1beta2.MetricValue) int {
		return strings.Compare(a.DescribedObject.Name, b.DescribedObject.Name)
	})
	return list
}

func usage(of map[string]string) *metricsv1beta1.PodMetricsList {
	list := &metricsv1beta1.PodMetricsList{}
	for name, v := range of {
		list.Items = append(list.Items, metricsv1beta1.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Timestamp:  metav1.NewTime(now.Add(-9 * time.Second)), Window: metav1.Duration{Duration: 15 * time.Second},
			Containers: []metricsv1beta1.ContainerMetrics{{Name: "app", Usage: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse(v), corev1.ResourceMemory: resource.MustParse("64Mi"),
			}}},
		})
	}
	slices.SortFunc(list.Items, func(a, b metricsv1beta1.PodMetrics) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func conditions(active bool, reason, message string) []autoscalingv2.HorizontalPodAutoscalerCondition {
	status := corev1.ConditionTrue
	if !active {
		status = corev1.ConditionFalse
	}
	return []autoscalingv2.HorizontalPodAutoscalerCondition{
		{
			Type: autoscalingv2.AbleToScale, Status: corev1.ConditionTrue, Reason: "ReadyForNewScale",
			Message: "recommended size matches current size",
		},
		{Type: autoscalingv2.ScalingActive, Status: status, Reason: reason, Message: message},
	}
}

func podsMetric(name, average string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: name},
			Target: autoscalingv2.MetricTarget{
				Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse(average)),
			},
		},
	}
}

func cpuMetric(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{
				Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent,
			},
		},
	}
}

func objectMetric(name string, of autoscalingv2.CrossVersionObjectReference, target autoscalingv2.MetricTarget,
) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: name}, DescribedObject: of, Target: target,
		},
	}
}

// newCluster is a cluster in which all is well, and nothing has to be scaled.
func newCluster(t *testing.T) *fakeCluster {
	t.Helper()
	web := map[string]string{"app": "web"}
	c := &fakeCluster{t: t, onHang: func() {}, patience: time.Minute}
	for i, name := range []string{"web-a", "web-b", "web-c"} {
		p := workPod(name, "web-1", web)
		p.Status.PodIP = fmt.Sprintf("10.0.0.%d", i+1)
		c.pods = append(c.pods, p)
	}
	c.hpa = &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{}},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MinReplicas:    new(int32(1)), MaxReplicas: 10,
			Metrics: []autoscalingv2.MetricSpec{podsMetric("packets-per-second", "1k")},
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			CurrentReplicas: 3, DesiredReplicas: 3, LastScaleTime: new(metav1.NewTime(now.Add(-time.Hour))),
			Conditions: conditions(true, "ValidMetricFound",
				"the HPA was able to successfully calculate a replica count from pods metric packets-per-second"),
		},
	}
	c.objects = map[string]any{
		"/api":  &metav1.APIVersions{Versions: []string{"v1"}},
		"/apis": &metav1.APIGroupList{Groups: []metav1.APIGroup{apiGroup("apps", "v1"), apiGroup("example.com", "v1")}},
		"/api/v1": resources("v1",
			metav1.APIResource{Name: "pods", Kind: "Pod", Namespaced: true},
			metav1.APIResource{Name: "services", Kind: "Service", Namespaced: true},
			metav1.APIResource{Name: "namespaces", Kind: "Namespace"}),
		"/apis/apps/v1": resources("apps/v1",
			metav1.APIResource{Name: "deployments", Kind: "Deployment", Namespaced: true},
			metav1.APIResource{Name: "deployments/scale", Kind: "Scale", Namespaced: true},
			metav1.APIResource{Name: "replicasets", Kind: "ReplicaSet", Namespaced: true}),
		"/apis/example.com/v1": resources("example.com/v1",
			metav1.APIResource{Name: "widgets", Kind: "Widget", Namespaced: true}),
		pathScale: &autoscalingv1.Scale{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec:       autoscalingv1.ScaleSpec{Replicas: 3},
			Status:     autoscalingv1.ScaleStatus{Replicas: 3, Selector: "app=web"},
		},
		"/apis/apps/v1/namespaces/default/replicasets/web-1": replicaSet("web"),
		pathCustom:  registered("v1beta2", "custom-metrics/custom-metrics-server"),
		pathCustom1: registered("v1beta1", "custom-metrics/custom-metrics-server"),
		pathValue:   values(map[string]string{"web-a": "1k", "web-b": "950", "web-c": "1050"}),
		pathUsage:   usage(map[string]string{"web-a": "50m", "web-b": "50m", "web-c": "50m"}),
	}
	for _, p := range c.pods {
		c.objects[pageOf(p.Name)] = page{200, "text/plain; version=0.0.4", goodPage, false}
	}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	c.host = s.URL
	return c
}

func apiGroup(name, version string) metav1.APIGroup {
	v := metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + version, Version: version}
	return metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v}
}

func resources(version string, all ...metav1.APIResource) *metav1.APIResourceList {
	for i := range all {
		all[i].Verbs = metav1.Verbs{"get", "list"}
	}
	return &metav1.APIResourceList{GroupVersion: version, APIResources: all}
}

// refuse makes the API server answer with an error at path.
func (c *fakeCluster) refuse(path string, code int32, reason metav1.StatusReason, message string) {
	c.objects[path] = &metav1.Status{Code: code, Reason: reason, Message: message}
}

func (c *fakeCluster) unreachable(pod, message string) {
	c.refuse(pageOf(pod), 503, metav1.StatusReasonServiceUnavailable, "error trying to reach service: "+message)
}

// eachPage makes all pods answer the same.
func (c *fakeCluster) eachPage(p page) {
	for _, pod := range c.pods {
		c.objects[pageOf(pod.Name)] = p
	}
}

// unserved makes custom.metrics.k8s.io and the condition of the HPA say why there is no value.
func (c *fakeCluster) unserved(text string) {
	c.refuse(pathValue, 404, metav1.StatusReasonNotFound, text)
	c.hpa.Status.Conditions = conditions(false, "FailedGetPodsMetric", "the HPA was unable to compute the replica count: "+
		"unable to get metric packets-per-second: unable to fetch metrics from custom metrics API: "+text)
}

func (c *fakeCluster) scale(spec, status int32) {
	s := c.objects[pathScale].(*autoscalingv1.Scale)
	s.Spec.Replicas, s.Status.Replicas = spec, status
	c.hpa.Status.CurrentReplicas = spec
}

// ServeHTTP answers as the API server.
func (c *fakeCluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		c.t.Errorf("%s %s: the doctor must change nothing", r.Method, r.URL)
	}
	c.mu.Lock()
	c.requests = append(c.requests, r.URL.RequestURI())
	key := r.URL.Path
	if next := r.URL.Query().Get("continue"); next != "" {
		key += "?continue=" + next
	}
	object := c.objects[key]
	switch group := c.customGroup(); {
	case key == "/apis":
		all := *object.(*metav1.APIGroupList)
		if len(group.Versions) > 0 {
			all.Groups = append(slices.Clip(all.Groups), group)
		}
		object = &all
	case strings.HasPrefix(key, customRoot+"/"):
		object = c.custom(key, group)
	case object == nil:
		switch key {
		case pathHPA:
			object = c.hpa
		case pathHPAs, pathAllHPAs:
			object = &autoscalingv2.HorizontalPodAutoscalerList{Items: []autoscalingv2.HorizontalPodAutoscaler{*c.hpa}}
		case pathPods:
			object = c.podList(r)
		}
	}
	isPage := strings.Contains(key, "/proxy/")
	if asked := r.Header.Get(kubeapi.NotesHeader) != ""; asked && isPage {
		c.t.Errorf("%s: a pod is asked for notes", r.URL)
	} else if asked && c.notes != nil {
		w.Header().Set(kubeapi.NotesHeader, c.notes.Encode())
	}
	if isPage {
		c.busy++
		c.most = max(c.most, c.busy)
	}
	c.mu.Unlock()
	if isPage {
		defer func() {
			c.mu.Lock()
			c.busy--
			c.mu.Unlock()
		}()
	}
	if p, ok := object.(page); ok {
		if p.hangs {
			c.onHang()
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", p.contentType)
		if p.code/100 == 3 {
			w.Header().Set("Location", "/api/v1/namespaces/kube-system/secrets")
		}
		w.WriteHeader(p.code)
		fmt.Fprint(w, p.body)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if object == nil {
		object = &metav1.Status{
			Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: r.URL.Path + " not found",
		}
	}
	if status, ok := object.(*metav1.Status); ok {
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		status.Status = metav1.StatusFailure
		w.WriteHeader(int(status.Code))
	}
	if s, ok := object.(*autoscalingv1.Scale); ok {
		s.TypeMeta = metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"}
	}
	if err := json.NewEncoder(w).Encode(object); err != nil {
		c.t.Error(err)
	}
}

// customGroup returns what discovery says of custom.metrics.k8s.io: the versions that are registered and available.
func (c *fakeCluster) customGroup() metav1.APIGroup {
	g := metav1.APIGroup{Name: kubeapi.CustomMetricsGroup}
	for _, version := range kubeapi.CustomMetricsVersions() {
		registered := c.objects[kubeapi.APIServicePath(version+"."+g.Name)]
		if s, ok := registered.(*apiService); registered == nil || ok && len(judgeAvailable(s)) > 0 {
			continue
		}
		g.Versions = append(g.Versions, apiGroup(g.Name, version).PreferredVersion)
	}
	if len(g.Versions) > 0 {
		g.PreferredVersion = g.Versions[0]
	}
	return g
}

// custom returns the answer at a path of custom.metrics.k8s.io, nil if its version is not in group.
func (c *fakeCluster) custom(at string, group metav1.APIGroup) any {
	version, _, isMetric := strings.Cut(strings.TrimPrefix(at, customRoot+"/"), "/")
	known := func(v metav1.GroupVersionForDiscovery) bool { return v.Version == version }
	if !slices.ContainsFunc(group.Versions, known) {
		return nil
	}
	if isMetric || c.objects[at] != nil {
		return c.objects[at]
	}
	name := kubeapi.AnyResource
	if s, ok := c.objects[kubeapi.APIServicePath(version+"."+group.Name)].(*apiService); ok && !s.ours() {
		name = "pods/packets-per-second"
	}
	name = cmp.Or(c.discovered, name)
	return resources(group.Name+"/"+version, metav1.APIResource{Name: name, Namespaced: true})
}

// podList returns the pods that a request selects.
func (c *fakeCluster) podList(r *http.Request) *corev1.PodList {
	s, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		c.t.Error(err)
	}
	list := &corev1.PodList{}
	for _, p := range c.pods {
		if s.Matches(labels.Set(p.Labels)) {
			list.Items = append(list.Items, *p)
		}
	}
	return list
}

func (c *fakeCluster) run() *Report {
	c.t.Helper()
	r, err := run(c.t.Context(), Config{
		Rest: &rest.Config{Host: c.host, BearerToken: "token"}, Version: "v1.0.0", Namespace: "default", Name: "web",
		File: c.file, pageTimeout: c.patience,
	}, now)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func text(t *testing.T, r *Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
