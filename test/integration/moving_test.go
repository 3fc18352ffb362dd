//go:build integration

package integration

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/restmapper"
	"k8s.io/metrics/pkg/client/custom_metrics"
	"k8s.io/metrics/pkg/client/external_metrics"
)

// adapterName is what prometheus-adapter's chart calls its objects by default.
const adapterName = "prometheus-adapter"

// adapterConfig is the configuration that an installation of prometheus-adapter has, and keeps.
const adapterConfig = `
rules:
- seriesQuery: '{__name__=~"^.*_total$",namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {matches: "^(.*)_total$", as: "${1}_per_second"}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)
- seriesQuery: 'request_seconds_bucket{namespace!="",pod!=""}'
  resources: {template: <<.Resource>>}
  name: {as: request_p90}
  metricsQuery: histogram_quantile(0.9, sum(rate(<<.Series>>{<<.LabelMatchers>>}[1m])) by (le, <<.GroupBy>>))
- seriesQuery: '{__name__=~"^queue_.*",namespace!=""}'
  seriesFilters: [{isNot: "_age$"}]
  resources: {template: <<.Resource>>}
  metricsQuery: <<.Series>>{<<.LabelMatchers>>}
- seriesQuery: 'busy{namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {as: busy_share}
  metricsQuery: sum(busy{<<.LabelMatchers>>}) by (<<.GroupBy>>) / scalar(sum(busy{<<.LabelMatchers>>}))
- seriesQuery: 'mesh_requests{to_namespace!=""}'
  resources:
    overrides:
      to_namespace: {resource: namespace}
      to_service: {resource: service}
      to_workload: {resource: deployment}
  name: {as: mesh_rate}
  metricsQuery: >-
    sum(rate(<<.Series>>{to_namespace="<<index .LabelValuesByName "to_namespace">>"}[2m]))
    by (<<range $i, $label := .GroupBySlice>><<if $i>>,<<end>><<$label>><<end>>)
externalRules:
- seriesQuery: 'backlog{namespace!=""}'
  resources: {overrides: {namespace: {resource: namespace}}}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (partition)
- seriesQuery: '{__name__="stream_lag",group!=""}'
  resources: {namespaced: false}
  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
`

// adapterSeries are the series in Prometheus. Those of other namespaces must not be found.
const adapterSeries = `
http_requests_total{namespace="moving",pod="web-0",code="200"} 0 1.5
http_requests_total{namespace="moving",pod="web-0",code="500"} 0 0.5
http_requests_total{namespace="moving",pod="web-1",code="200"} 0 3
http_requests_total{namespace="other",pod="web-1",code="200"} 0 70
http_requests_total{namespace="moving",pod="job-0",code="200"} 0 80
request_seconds_bucket{namespace="moving",pod="web-0",le="1"} 0 1
request_seconds_bucket{namespace="moving",pod="web-0",le="2"} 0 2
request_seconds_bucket{namespace="moving",pod="web-0",le="+Inf"} 0 2
request_seconds_bucket{namespace="moving",pod="web-1",le="1"} 5 0
request_seconds_bucket{namespace="moving",pod="web-1",le="2"} 5 0
request_seconds_bucket{namespace="moving",pod="web-1",le="+Inf"} 5 0
queue_length{namespace="moving",pod="web-0",queue="mail"} 7 0
queue_length{namespace="moving",pod="web-0",queue="sms"} 1 0
queue_length{namespace="moving",pod="web-1",queue="mail"} 9.5 0
queue_age{namespace="moving",pod="web-0",queue="mail"} 60 0
busy{namespace="moving",pod="web-0"} 1 0
busy{namespace="moving",pod="web-1"} 3 0
busy{namespace="moving",pod="job-0"} 4 0
mesh_requests{to_namespace="moving",to_service="web",to_workload="web",namespace="mesh"} 0 20
mesh_requests{to_namespace="moving",to_service="api",to_workload="api",namespace="mesh"} 0 30
backlog{namespace="moving",topic="orders",partition="0"} 3 0
backlog{namespace="moving",topic="orders",partition="1"} 4 0
backlog{namespace="moving",topic="mails",partition="0"} 50 0
backlog{namespace="other",topic="orders",partition="0"} 60 0
stream_lag{group="orders"} 12 0
`

// movingHPA refers to the metrics of adapterConfig. It is the same before and after the move.
const movingHPA = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: moving}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 9
  metrics:
  - type: Pods
    pods: {metric: {name: http_requests_per_second}, target: &average {type: AverageValue, averageValue: "1"}}
  - {type: Pods, pods: {metric: {name: request_p90}, target: *average}}
  - type: Pods
    pods: {metric: {name: queue_length, selector: {matchLabels: {queue: mail}}}, target: *average}
  - {type: Pods, pods: {metric: {name: busy_share}, target: *average}}
  - type: Object
    object:
      metric: {name: mesh_rate}
      describedObject: {apiVersion: v1, kind: Service, name: web}
      target: &value {type: Value, value: "1"}
  - type: Object
    object:
      metric: {name: mesh_rate}
      describedObject: {apiVersion: apps/v1, kind: Deployment, name: web}
      target: *value
  - type: Object
    object:
      metric: {name: mesh_rate}
      describedObject: {apiVersion: v1, kind: Namespace, name: moving}
      target: *value
  - type: External
    external: {metric: {name: backlog, selector: {matchLabels: {topic: orders}}}, target: *average}
  - type: External
    external: {metric: {name: stream_lag}, target: *average}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: moving}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: none}]}
`

// movingRequests are those of the HPA controller for movingHPA, without the version, and the values by object, or ""
// for an external metric.
var movingRequests = map[string]map[string]float64{
	"custom|/namespaces/moving/pods/*/http_requests_per_second?labelSelector=app%3Dweb": {"web-0": 2, "web-1": 3},
	"custom|/namespaces/moving/pods/*/request_p90?labelSelector=app%3Dweb":              {"web-0": 1.8, "web-1": 0},
	"custom|/namespaces/moving/pods/*/queue_length?labelSelector=app%3Dweb&metricLabelSelector=queue%3Dmail": {
		"web-0": 7, "web-1": 9.5,
	},
	"custom|/namespaces/moving/pods/*/busy_share?labelSelector=app%3Dweb": {"web-0": 0.25, "web-1": 0.75},
	"custom|/namespaces/moving/services/web/mesh_rate":                    {"web": 20},
	"custom|/namespaces/moving/deployments.apps/web/mesh_rate":            {"web": 20},
	"custom|/namespaces/moving/metrics/mesh_rate":                         {"moving": 50},
	"external|/namespaces/moving/backlog?labelSelector=topic%3Dorders":    {"": 7},
	"external|/namespaces/moving/stream_lag":                              {"": 12},
}

// movingAnswer returns the values in an answer, by object. Those of an external metric are added up, as the HPA
// controller does.
func movingAnswer(body string) (map[string]float64, error) {
	var list struct {
		Items []struct {
			DescribedObject struct{ Name string }
			Value           resource.Quantity
		}
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for _, item := range list.Items {
		values[item.DescribedObject.Name] += item.Value.AsApproximateFloat64()
	}
	return values, nil
}

// sameAnswer returns an error if an answer has other values. prometheus-adapter cuts off the fourth decimal, and this
// server rounds.
func sameAnswer(body string, err error, want map[string]float64) error {
	if err != nil {
		return err
	}
	got, err := movingAnswer(body)
	if err != nil {
		return err
	}
	if !maps.EqualFunc(got, want, func(a, b float64) bool { return math.Abs(a-b) < 0.0011 }) {
		return fmt.Errorf("values %v, want %v", got, want)
	}
	return nil
}

// movingPath returns the path of a key of movingRequests.
func movingPath(request, version string) string {
	group, rest, _ := strings.Cut(request, "|")
	if group == "external" {
		version = "v1beta1"
	}
	return "/apis/" + group + ".metrics.k8s.io/" + version + rest
}

// startAdapter builds and starts prometheus-adapter, and registers it as its chart does, until the test ends. It
// returns the program and its port.
func startAdapter(t *testing.T, prometheus, config string) (p *process, port string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "adapter")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "sigs.k8s.io/prometheus-adapter/cmd/adapter")
	build.Dir, build.Env = "../../hack/prometheus-adapter", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build prometheus-adapter: %v\n%s", err, out)
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	admin := cluster.path("admin.kubeconfig")
	p, err = cluster.run(adapterName, program, "--lister-kubeconfig="+admin, "--authentication-kubeconfig="+admin,
		"--authorization-kubeconfig="+admin, "--secure-port="+ports[0], "--bind-address=127.0.0.1", "--cert-dir="+dir,
		"--prometheus-url="+prometheus, "--config="+config, "--metrics-relist-interval=5s", "--metrics-max-age=1m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.kill()
		if t.Failed() {
			t.Log(p.tail())
		}
	})
	objects := filepath.Join(dir, "objects.yaml")
	text := `
apiVersion: v1
kind: Service
metadata: {name: ` + adapterName + `, namespace: default, labels: {app.kubernetes.io/name: ` + adapterName + `}}
spec: {type: ExternalName, externalName: localhost}
`
	for _, group := range []string{"custom", "external"} {
		text += `---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.` + group + `.metrics.k8s.io, labels: {app.kubernetes.io/name: ` + adapterName + `}}
spec:
  group: ` + group + `.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: ` + adapterName + `, namespace: default, port: ` + ports[0] + `}
`
	}
	if err := os.WriteFile(objects, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-f", objects)
	t.Cleanup(func() { kubectl(t, "delete", "-f", objects, "--ignore-not-found") })
	return p, ports[0]
}

// runWeb creates the objects of movingHPA and their pods until the test ends.
func runWeb(t *testing.T) {
	t.Helper()
	kubectl(t, "create", "namespace", "moving")
	t.Cleanup(func() { kubectl(t, "delete", "namespace", "moving", "--wait=false") })
	file := filepath.Join(t.TempDir(), "hpa.yaml")
	if err := os.WriteFile(file, []byte(movingHPA), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-f", file)
	t.Cleanup(func() { kubectl(t, "delete", "-f", file, "--ignore-not-found") })
	kubectl(t, "create", "service", "clusterip", "web", "-n", "moving", "--tcp=80")
	pods := cluster.client.CoreV1().Pods("moving")
	for name, app := range map[string]string{"web-0": "web", "web-1": "web", "job-0": "job"} {
		pod, err := pods.Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { deletePod("moving", name) })
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// autoscaler requests metrics of movingHPA through the aggregator without a pause. It uses the HPA controller's
// clients, which look up the preferred version before each request, and also requests the version v1beta1.
type autoscaler struct {
	mu       sync.Mutex // guards the fields that follow
	asked    int
	versions map[string]int // how often each was preferred
	failures []error
}

// state returns how often a has asked, and which versions it has preferred.
func (a *autoscaler) state() (asked int, versions []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked, slices.Sorted(maps.Keys(a.versions))
}

// start starts the requests. The returned function stops them, and waits until the last one has ended.
func (a *autoscaler) start(t *testing.T) (stop func()) {
	t.Helper()
	client, err := discovery.NewDiscoveryClientForConfig(cluster.admin)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(client)
	if err != nil {
		t.Fatal(err)
	}
	versions := custom_metrics.NewAvailableAPIsGetter(client)
	custom := custom_metrics.NewForConfig(cluster.admin, restmapper.NewDiscoveryRESTMapper(groups), versions)
	external, err := external_metrics.NewForConfig(cluster.admin)
	if err != nil {
		t.Fatal(err)
	}
	const request = "custom|/namespaces/moving/pods/*/http_requests_per_second?labelSelector=app%3Dweb"
	web := labels.SelectorFromSet(labels.Set{"app": "web"})
	orders := labels.SelectorFromSet(labels.Set{"topic": "orders"})
	ask := func() (version string, err error) {
		versions.Invalidate()
		list, err := custom.NamespacedMetrics("moving").GetForObjects(
			schema.GroupKind{Kind: "Pod"}, web, "http_requests_per_second", labels.Everything())
		if err != nil {
			return "", fmt.Errorf("custom metrics: %w", err)
		}
		if len(list.Items) != 2 {
			return "", fmt.Errorf("custom metrics: %v", list)
		}
		of, err := external.NamespacedMetrics("moving").List("backlog", orders)
		if err != nil {
			return "", fmt.Errorf("external metrics: %w", err)
		}
		if len(of.Items) == 0 {
			return "", errors.New("external metrics: the list is empty")
		}
		body, err := askAPI(movingPath(request, "v1beta1"))
		if err := sameAnswer(body, err, movingRequests[request]); err != nil {
			return "", fmt.Errorf("v1beta1: %w", err)
		}
		preferred, err := versions.PreferredVersion() // of the first request
		return preferred.Version, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for ctx.Err() == nil {
			version, err := ask()
			a.mu.Lock()
			if a.asked++; err != nil {
				a.failures = append(a.failures, fmt.Errorf("%s: %w", time.Now().Format(time.StampMilli), err))
			} else {
				a.versions[version]++
			}
			a.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return func() {
		cancel()
		<-stopped
	}
}

// more waits until another 100 requests of each kind have been sent, and for at least three seconds, in which the
// aggregator checks the APIServices again.
func (a *autoscaler) more(t *testing.T) {
	t.Helper()
	before, _ := a.state()
	time.Sleep(3 * time.Second)
	eventually(t, "the autoscaler asks", func() error {
		if n, _ := a.state(); n-before < 100 {
			return fmt.Errorf("%d times", n-before)
		}
		return nil
	})
}

// TestMoveFromPrometheusAdapter follows docs/moving.md. The real prometheus-adapter serves custom and external metrics.
// This server gets its configuration, gives the same answers to the same requests, takes over, hands back and takes
// over again. Meanwhile no request of a client that sends them without a pause fails.
func TestMoveFromPrometheusAdapter(t *testing.T) {
	dir := t.TempDir()
	config, backends := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "backends.yaml")
	url := newPrometheus(t, adapterSeries)
	for file, text := range map[string]string{
		config: adapterConfig,
		backends: "backends: [{name: prometheus, url: '" + url + "', interval: 1s}]\ndefault: prometheus\nadapter: {file: '" +
			config + "', nanAsZero: true}\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runWeb(t)
	adapter, adapterPort := startAdapter(t, url, config)
	compare := func(who string, ask func(path string) (string, error), versions ...string) {
		t.Helper()
		for request, want := range movingRequests {
			for _, version := range versions {
				path := movingPath(request, version)
				eventually(t, who+" answers "+path, func() error {
					body, err := ask(path)
					return sameAnswer(body, err, want)
				})
			}
		}
	}
	compare("prometheus-adapter", askAPI, "v1beta1")
	client := &autoscaler{versions: map[string]int{}}
	stopClient := sync.OnceFunc(client.start(t))
	defer stopClient()

	// The file is checked, and the server installed without APIServices.
	check := exec.CommandContext(t.Context(), cluster.binary, "custom-metrics", "--check-config", backends)
	out, err := check.CombinedOutput()
	if err != nil || strings.Contains(string(out), "warning") || strings.Contains(string(out), "not served") {
		t.Fatalf("%v\n%s", err, out)
	}
	f := installCustom(t, externalOverlay, "-l", "app.kubernetes.io/component!=apiservice")
	s := f.start(t, "custom-metrics", "--external-metrics", "--config="+backends,
		"--serving-certificate-secret="+customServer+"-serving")
	s.ready(t)
	leadCustom(t)

	// Side by side: the same requests have the same answers.
	controller := token(t, "kube-system", "horizontal-pod-autoscaler")
	compare("the custom metrics server", func(path string) (string, error) {
		code, body, err := s.get(path, controller)
		if err == nil && code != 200 {
			err = fmt.Errorf("%d %s", code, body)
		}
		return body, err
	}, "v1beta1", "v1beta2")
	services := []string{"v1beta1.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"}
	for _, name := range services {
		if to := kubectl(t, "get", "apiservice", name, "-o", "jsonpath={.spec.service.name} {.spec.caBundle}"); to !=
			adapterName+" " {
			t.Errorf("%s leads to %q before anybody has switched it", name, to)
		}
	}
	client.more(t)

	// leads waits until the aggregator sends requests to the custom metrics server, or to the adapter: only the adapter's
	// discovery has the names of metrics.
	leads := func(here bool, services ...string) {
		t.Helper()
		for _, name := range services {
			version, group, _ := strings.Cut(name, ".")
			eventually(t, fmt.Sprintf("%s leads here: %v", name, here), func() error {
				body, err := askAPI("/apis/" + group + "/" + version)
				if err == nil && strings.Contains(body, `"*/*"`) != here {
					err = errors.New(body)
				}
				return err
			})
		}
	}
	ca := kubectl(t, "get", "secret", "-n", "kube-system", customServer+"-serving", "-o", `jsonpath={.data.ca\.crt}`)
	if pem, err := base64.StdEncoding.DecodeString(ca); err != nil || len(pem) == 0 {
		t.Fatalf("the Secret has no authority: %q, %v", ca, err)
	}
	service := `{"name":"custom-metrics-server","namespace":"kube-system","port":` + s.port + `}`
	forth := func() {
		t.Helper()
		for _, name := range services {
			kubectl(t, "patch", "apiservice", name, "--type=merge",
				"-p", `{"spec":{"insecureSkipTLSVerify":null,"caBundle":"`+ca+`","service":`+service+`}}`)
		}
		leads(true, services...)
		client.more(t)
	}
	forth()

	// The version that the adapter did not register comes with a low priority, so that nobody prefers it before it is
	// available. The manifest raises it.
	second := filepath.Join(dir, "v1beta2.json")
	err = os.WriteFile(second, []byte(`{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService",`+
		`"metadata":{"name":"v1beta2.custom.metrics.k8s.io"},"spec":{"group":"custom.metrics.k8s.io","version":"v1beta2",`+
		`"groupPriorityMinimum":100,"versionPriority":1,"caBundle":"`+ca+`","service":`+service+`}}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "create", "-f", second)
	t.Cleanup(func() { kubectl(t, "delete", "-f", second, "--ignore-not-found") })
	kubectl(t, "wait", "--for=condition=Available", "apiservice/v1beta2.custom.metrics.k8s.io", "--timeout=2m")
	client.more(t)
	if _, versions := client.state(); !slices.Equal(versions, []string{"v1beta1"}) {
		t.Errorf("the client preferred the versions %v while v1beta2 had a lower priority", versions)
	}
	manifest := filepath.Join(dir, "apiservices.yaml")
	all := kubectl(t, "kustomize", "../../deploy/kustomize/"+externalOverlay)
	all = strings.ReplaceAll(all, "port: 443\n", "port: "+s.port+"\n")
	if err := os.WriteFile(manifest, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-f", manifest, "-l", "app.kubernetes.io/component=apiservice")
	services = append(services, "v1beta2.custom.metrics.k8s.io")
	leads(true, services...)
	client.more(t)
	for _, name := range services {
		if bundle := kubectl(t, "get", "apiservice", name, "-o", "jsonpath={.spec.caBundle}"); bundle != ca {
			t.Errorf("applying the manifest took the caBundle of %s away", name)
		}
	}
	compare("the custom metrics server behind the aggregator", askAPI, "v1beta1", "v1beta2")

	// Back to the adapter, which serves both versions, and forth again.
	before := `{"name":"` + adapterName + `","namespace":"default","port":` + adapterPort + `}`
	for _, name := range services {
		kubectl(t, "patch", "apiservice", name, "--type=merge",
			"-p", `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true,"service":`+before+`}}`)
	}
	leads(false, services...)
	client.more(t)
	forth()

	// The adapter goes by its labels, without its APIServices.
	select {
	case <-adapter.done:
		t.Errorf("prometheus-adapter has ended: %v", adapter.err)
	default:
		_ = adapter.kill()
	}
	kubectl(t, "delete", "deployment,service,configmap,serviceaccount,poddisruptionbudget", "-n", "default",
		"-l", "app.kubernetes.io/name=prometheus-adapter")
	client.more(t)
	stopClient()
	t.Logf("%d rounds of requests", client.asked)
	if len(client.failures) > 0 {
		t.Errorf("%d of %d requests failed, at first: %v", len(client.failures), client.asked, client.failures[0])
	}
	if _, versions := client.state(); !slices.Equal(versions, []string{"v1beta1", "v1beta2"}) {
		t.Errorf("versions that the client preferred: %v", client.versions)
	}
	if said := linesWith(s.output(), "points to another server and is left alone"); len(said) == 0 {
		t.Error("the log does not say that APIServices point to another server")
	}
}
