//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/test/realcluster"
)

const (
	customName = "custom-metrics-server"

	// customLimit is how long it may take from the load to the first replica that is added for it.
	customLimit = 45 * time.Second

	queriesAnnotation = "metrics-server/queries"
	targetsAnnotation = "metrics-server/targets"
	windowAnnotation  = "metrics-server/window"
)

// TestCustomMetrics checks that the cluster's own controller scales by the metrics of pods, and
// that it gets the reason where a metric has no value. It installs the server and removes it
// afterwards.
func TestCustomMetrics(t *testing.T) {
	amidFailingNodes.join(t)
	nodesToAdd.Wait()
	t.Run("not-installed", customNotInstalled)
	if os.Getenv("E2E_BACKENDS") == "none" {
		t.Log("E2E_BACKENDS=none: backends are not tested here")
		installCustomMetrics(t)
	} else {
		backends := startBackends(t)
		installCustomMetrics(t, "custom-metrics-backends")
		for _, c := range backendCases() {
			t.Run("backend-"+c.name, c.test)
		}
		for _, m := range backendMistakes() {
			t.Run("mistake-"+m.name, m.test)
		}
		t.Run("named-metric", func(t *testing.T) { namedMetric(t, backends) })
		t.Run("backend-stops", func(t *testing.T) { backendStops(t, backends) })
	}
	for _, c := range zeroCases() {
		t.Run("from-zero-"+c.name, c.test)
	}
	for _, c := range scalingCases() {
		t.Run(c.name, c.test)
	}
	t.Run("one-of-two-fails", customOneFails)
	t.Run("two-that-conflict", customConflict)
	t.Run("example", customExample)
	t.Run("custom-resource", customResource)
	t.Run("replicas", customReplicas)
	for _, m := range mistakes() {
		t.Run("mistake-"+m.name, m.test)
	}
}

// installCustomMetrics installs two replicas of the custom metrics server, with external metrics, further components of
// deploy/, and the image of the installed server.
func installCustomMetrics(t *testing.T, components ...string) {
	t.Helper()
	server, err := cluster.client.AppsV1().Deployments(serverNamespace).Get(t.Context(), serverName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	image := "image: " + server.Spec.Template.Spec.Containers[0].Image + "\n"
	components = append(components, "custom-metrics-high-availability", "custom-metrics-external")
	manifest := mustKubectl(t, "kustomize", kustomization(t, "custom-metrics", components...))
	installed := strings.Replace(manifest, "image: localhost/metrics-server:dev\n", image, 1)
	if !strings.Contains(installed, image) {
		t.Fatalf("the manifest has no image to replace:\n%s", manifest)
	}
	file := filepath.Join(t.TempDir(), "custom-metrics.yaml")
	if err := os.WriteFile(file, []byte(installed), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := kubectl("-n", serverNamespace, "logs", "-l", "k8s-app="+customName, "--tail=200")
			t.Logf("log of %s:\n%s", customName, log)
		}
		mustKubectl(t, "delete", "-f", file)
	})
	mustKubectl(t, "apply", "-f", file)
	eventually(t, "custom metrics are available", func() error {
		d, err := cluster.client.AppsV1().Deployments(serverNamespace).Get(t.Context(), customName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return errors.Join(realcluster.RolledOut(d), available("v1beta1.custom"), available("v1beta2.custom"),
			available("v1beta1.external"))
	})
}

// kustomization returns the directory of a kustomization with an installation of deploy/ and components.
func kustomization(t *testing.T, resource string, components ...string) string {
	t.Helper()
	deploy, err := filepath.Abs(filepath.Join("..", "..", "deploy", "kustomize"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	from, err := filepath.Rel(dir, deploy) // kustomize takes no absolute paths
	if err != nil {
		t.Fatal(err)
	}
	text := "resources:\n- " + filepath.Join(from, resource) + "\ncomponents:\n"
	for _, c := range components {
		text += "- " + filepath.Join(from, "components", c) + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// scalingCase is a metric by which a Deployment is scaled up under load, and down afterwards.
type scalingCase struct {
	name        string
	annotations map[string]string // of the HPA
	metric      autoscalingv2.MetricSpec
	args        []string     // of the workload, without load
	load, rest  []podRequest // of the first pod; of all pods, to end the load
	requests    int          // a second to the Service, instead of load and rest
	replicas    [2]int       // under load: least and most
}

// podRequest tells a pod's workload: a path, and the query that it gets.
type podRequest struct{ path, series, value string }

func rate(series, perSecond string) podRequest { return podRequest{"/rate", series, perSecond} }
func set(series, value string) podRequest      { return podRequest{"/set", series, value} }

func scalingCases() []scalingCase {
	const (
		fast, slow = `request_duration_seconds{le="0.1"}`, `request_duration_seconds{le="1"}`
		good, bad  = `http_requests_total{code="200",path="/"}`, `http_requests_total{code="500",path="/"}`
	)
	packets, noPackets := []podRequest{rate("packets_total", "2500")}, []podRequest{rate("packets_total", "0")}
	exact, most := [2]int{3, 3}, [2]int{4, 4}
	return []scalingCase{
		{
			// The user writes only an HPA. 2,500 packets per second need three pods for 1,000 each.
			name: "packets", metric: podsMetric("packets-per-second", "1k"),
			load: packets, rest: noPackets, replicas: exact,
		},
		{
			// Real requests, which the pods share: 10 per second.
			name: "requests", metric: podsMetric("http_requests_total", "3600m"), requests: 10, replicas: [2]int{3, 4},
		},
		{
			name: "selector", metric: withSelector(podsMetric("http_requests_total", "10"), "code", "500"),
			args: []string{"-rate=" + good + "=1000", "-rate=" + bad + "=0"},
			load: []podRequest{rate(bad, "25")}, rest: []podRequest{rate(bad, "0")}, replicas: exact,
		},
		{
			name: "gauge", metric: podsMetric("queue_length", "10"),
			load: []podRequest{set("queue_length", "25")}, rest: []podRequest{set("queue_length", "0")}, replicas: exact,
		},
		{
			// All pods have observations of 0.1 s at rest, and the first has those of 1 s under load.
			name: "mean", metric: podsMetric("request_duration_seconds", "200m"), args: []string{"-rate=" + fast + "=5"},
			load: []podRequest{rate(fast, "0"), rate(slow, "5")}, rest: []podRequest{rate(slow, "0"), rate(fast, "5")},
			replicas: most,
		},
		{
			name: "quantile", metric: withSelector(podsMetric("request_duration_seconds", "200m"), "quantile", "0.99"),
			args: []string{"-rate=" + fast + "=5"},
			load: []podRequest{rate(slow, "5")}, rest: []podRequest{rate(slow, "0")}, replicas: most,
		},
		{
			name: "expression", metric: podsMetric("error-share", "100m"),
			annotations: map[string]string{queriesAnnotation: "error-share: |\n" +
				"  sum by (pod) (rate(http_requests_total{code=~\"5..\"}[30s]))\n" +
				"  / (sum by (pod) (rate(http_requests_total[30s])) > 0)\n" +
				"  or 0 * sum by (pod) (rate(http_requests_total[30s]))\n"},
			args: []string{"-rate=" + good + "=10"},
			load: []podRequest{rate(bad, "90")}, rest: []podRequest{rate(bad, "0")}, replicas: most,
		},
		{
			// A Value does not get smaller with more pods, so this goes to the limit.
			name: "service-value", metric: objectMetric("v1", "Service", "packets-per-second", value("1k")),
			load: packets, rest: noPackets, replicas: most,
		},
		{
			name: "service-average", metric: objectMetric("v1", "Service", "packets-per-second", averageValue("1k")),
			load: packets, rest: noPackets, replicas: exact,
		},
		{
			name: "deployment", metric: objectMetric("apps/v1", "Deployment", "packets-per-second", averageValue("1k")),
			load: packets, rest: noPackets, replicas: exact,
		},
		{
			// A kind that has no pods of its own.
			name:        "ingress",
			metric:      objectMetric("networking.k8s.io/v1", "Ingress", "packets-per-second", averageValue("1k")),
			annotations: map[string]string{targetsAnnotation: "packets-per-second: service/web:8080\n"},
			load:        packets, rest: noPackets, replicas: exact,
		},
	}
}

func (c *scalingCase) test(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createMetered(t, ns, nil, c.args...)
	createCustomHPA(t, ns, c.annotations, c.metric)
	waitActive(t, ns)

	stop := func() {}
	if c.requests > 0 {
		end := load(t, ns, c.requests) // of 1 ms
		stop = func() {
			if ok, failed := end(); ok == 0 || failed > ok/10 {
				t.Errorf("%d requests answered, %d not: that is no load", ok, failed)
			}
		}
	}
	tell(t, ns, 1, c.load...)
	begun := time.Now()
	if err := realcluster.Poll(customLimit, wanted(t, ns, 2)); err != nil {
		t.Fatalf("a replica is added under load: %v\n%v", err, hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue))
	}
	t.Logf("%5.1f s until a replica is added", time.Since(begun).Seconds())
	settled, since := replicasAre(t, ns, "web", c.replicas[0], c.replicas[1]), time.Now()
	eventually(t, fmt.Sprintf("there are %d to %d replicas for 15 s", c.replicas[0], c.replicas[1]), func() error {
		if err := settled(); err != nil {
			since = time.Now()
			return err
		}
		if d := time.Since(since); d < 15*time.Second {
			return fmt.Errorf("so for %v", d)
		}
		return nil
	})

	stop()
	tell(t, ns, 0, c.rest...)
	waitReplicas(t, ns, "web", 1, 1)
}

// wanted returns a function that says why the web server should have fewer replicas than least.
func wanted(t *testing.T, namespace string, least int32) func() error {
	return func() error {
		d, err := cluster.client.AppsV1().Deployments(namespace).Get(t.Context(), "web", metav1.GetOptions{})
		if err == nil && *d.Spec.Replicas < least {
			err = fmt.Errorf("%d replicas are wanted, not %d", *d.Spec.Replicas, least)
		}
		return err
	}
}

// Of two metrics one has no value: the other still scales up. Nothing scales down, because nobody
// knows what the first would ask for.
func customOneFails(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createMetered(t, ns, nil)
	createCustomHPA(t, ns, nil, podsMetric("queue_size", "10"), podsMetric("packets-per-second", "1k"))
	const says = "the pod exposes no metric"
	failed := func() error {
		if err := hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue); err != nil {
			return has(err.Error(), says)
		}
		return errors.New("it does not say so")
	}
	eventually(t, "the autoscaler says what is wrong with one of them", failed)
	tell(t, ns, 1, rate("packets_total", "2500"))
	waitReplicas(t, ns, "web", 3, 3)
	tell(t, ns, 0, rate("packets_total", "0"))
	eventually(t, "the autoscaler says again what is wrong", failed)
	always(t, "nothing scales down", 20*time.Second, replicasAre(t, ns, "web", 3, 3))
}

// Two HPAs mean different things by the same metric of one Service. Each of them says so, and names the other.
func customConflict(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createMetered(t, ns, nil)
	createDeployment(t, ns, "other", workload("other"))
	metric := objectMetric("v1", "Service", "packets-per-second", value("1k"))
	createCustom(t, ns, customHPA("web", map[string]string{windowAnnotation: "30s"}, metric))
	createCustom(t, ns, customHPA("other", map[string]string{windowAnnotation: "1m"}, metric))
	for _, name := range []string{"web", "other"} {
		eventually(t, name+" names both autoscalers", func() error {
			if err := hpaCondition(getHPA(t, ns, name), corev1.ConditionTrue); err != nil {
				return has(err.Error(), "define metric packets-per-second", `"other"`, `"web"`, "over 30s", "over 1m0s")
			}
			return errors.New("it scales")
		})
		eventually(t, "the doctor finds it", func() error {
			return doctorHPA(t, ns, name).finds("served", "define metric", `"other"`, `"web"`)
		})
	}
	patchHPA(t, ns, "other", `{"metadata":{"annotations":{"metrics-server/window":"30s"}}}`)
	waitActive(t, ns)
}

// customExample applies the example of the documents, with an image whose counters the test
// controls.
func customExample(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	example, err := os.ReadFile(filepath.Join("..", "..", "examples", "hpa-custom-metrics.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	image := regexp.MustCompile(`(?m)^( +)image: .*$`)
	manifest := image.ReplaceAllString(string(example), "${1}image: "+cluster.image+"\n${1}args: [-listen=:8080]")
	file := filepath.Join(t.TempDir(), "example.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	mustKubectl(t, "apply", "-n", ns, "-f", file)
	waitReplicas(t, ns, "web", 1, 1)
	waitActive(t, ns)
	tell(t, ns, 1, rate(`http_requests_total{code="200",path="/"}`, "25"))
	waitReplicas(t, ns, "web", 3, 3)
	if err := has(mustKubectl(t, "describe", "hpa", "web", "-n", ns), `"http_requests_total" on pods:`,
		"ValidMetricFound", "calculate a replica count from pods metric http_requests_total"); err != nil {
		t.Error(err)
	}
	if err := has(mustKubectl(t, "get", "--raw", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/"+ns+
		"/pods/*/http_requests_total?labelSelector=app%3Dweb"), `"MetricValueList"`, `"kind":"Pod"`); err != nil {
		t.Error(err)
	}
}

// Without the API, the autoscaler says so.
func customNotInstalled(t *testing.T) {
	ns := namespace(t)
	createMetered(t, ns, nil)
	createDeployment(t, ns, "other", workload("other"))
	createCustom(t, ns, customHPA("web", nil, podsMetric("packets-per-second", "1k")))
	createCustom(t, ns, customHPA("other", nil, externalMetric("queue_length", averageValue("10"))))
	for name, says := range map[string]string{
		"web":   "no custom metrics API (custom.metrics.k8s.io) registered",
		"other": "the server could not find the requested resource",
	} {
		eventually(t, "the autoscaler says that there is no API", func() error {
			if err := hpaCondition(getHPA(t, ns, name), corev1.ConditionTrue); err != nil {
				return has(err.Error(), says)
			}
			return errors.New("it scales")
		})
		documented(t, says)
	}
	if err := doctorHPA(t, ns, "other").finds("apiservice", "no APIService of external.metrics.k8s.io"); err != nil {
		t.Error(err)
	}
}

// mistake is a mistake of users, and what the HPA's condition says about it.
type mistake struct {
	name        string
	annotations map[string]string // of the HPA
	metric      autoscalingv2.MetricSpec
	args        []string
	ports       []corev1.ContainerPort // nil: metrics on 8080
	says        []string               // the first is in docs/troubleshooting.md
	check       string                 // of doctor hpa that finds it
	advice      string                 // in what doctor hpa says about it
}

func mistakes() []mistake {
	packets := podsMetric("packets-per-second", "1k")
	ofService := func(name string) autoscalingv2.MetricSpec {
		m := objectMetric("v1", "Service", "packets-per-second", value("1k"))
		m.Object.DescribedObject.Name = name
		return m
	}
	expression := func(text string) map[string]string {
		return map[string]string{queriesAnnotation: "packets-per-second: " + text}
	}
	port := func(name string, number int32) corev1.ContainerPort {
		return corev1.ContainerPort{Name: name, ContainerPort: number}
	}
	return []mistake{
		{
			name: "family", metric: podsMetric("packet-per-second", "1k"),
			says:  []string{"the pod exposes no metric", "did you mean packets_total?"},
			check: "pages", advice: "did you mean packets_total?",
		},
		{
			name: "label", metric: withSelector(podsMetric("http_requests_total", "1"), "code", "503"),
			says:  []string{"no series matches", `label code has only "200"`},
			check: "pages", advice: "correct metric.selector",
		},
		{
			name: "type", metric: podsMetric("queue_length_per_second", "1"),
			says:  []string{"is a gauge and not a counter", "use queue_length to get its value"},
			check: "pages", advice: "use the name that the message suggests",
		},
		{
			name: "ports", metric: packets, ports: []corev1.ContainerPort{port("web", 8080), port("admin", 8081)},
			says:  []string{"has more than one port that could have its metrics", "8080", "8081", "name the container port"},
			check: "pages", advice: "name the container port",
		},
		{
			name: "no-port", metric: packets, ports: []corev1.ContainerPort{},
			says:  []string{"does not say on which port its metrics are", "no ports", "metrics-server/port"},
			check: "pages", advice: "metrics-server/port",
		},
		{
			name: "refused", metric: packets, ports: []corev1.ContainerPort{port("metrics", 8081)},
			says:  []string{"connection refused", ":8081/metrics", "not only on localhost"},
			check: "pages", advice: "not only on localhost",
		},
		{
			name: "404", metric: packets, args: []string{"-fail=404"},
			says:  []string{"it answers 404 Not Found", ":8080/metrics", "metrics-server/path"},
			check: "pages", advice: "metrics-server/path",
		},
		{
			name: "500", metric: packets, args: []string{"-fail=500"}, says: []string{"it answers 500 Internal Server Error"},
			check: "pages", advice: "see the log of the pod",
		},
		{
			name: "html", metric: packets, args: []string{"-fail=html"},
			says:  []string{`the answer has content type "text/html"`},
			check: "pages", advice: "not a metrics format",
		},
		{
			name: "hang", metric: packets, args: []string{"-fail=hang"}, says: []string{"the answer is not complete in time"},
			check: "pages", advice: "make the endpoint faster",
		},
		{
			name: "unready", metric: packets, args: []string{"-unready"},
			says:  []string{"has not been ready yet", "pod web-"},
			check: "served", advice: "has not been ready yet",
		},
		{
			name: "no-pods", metric: ofService("nobody"), says: []string{"no pods for", "services nobody"},
			check: "metric", advice: "its selector matches their labels",
		},
		{
			name: "annotation", metric: packets, annotations: map[string]string{"metrics-server/query": "x"},
			says: []string{
				`annotation metrics-server/query of HorizontalPodAutoscaler "web" is unknown`,
				"did you mean metrics-server/queries?",
			},
			check: "hpa", advice: "did you mean metrics-server/queries?",
		},
		{
			name: "entry", metric: packets, annotations: map[string]string{queriesAnnotation: "packets-per-minute: x"},
			says:  []string{"has no metric", "packets-per-minute", "line 1"},
			check: "hpa", advice: "packets-per-minute",
		},
		{
			name: "syntax", metric: packets, annotations: expression("sum by (pod) (rate(packets_total[1m])"),
			says:  []string{"not valid PromQL", "line 1", "is wrong at character 38"},
			check: "metric", advice: "correct the expression",
		},
		{
			name: "shape", metric: packets, annotations: expression("sum(rate(packets_total[1m]))"),
			says:  []string{`its result has no label "pod"`, "is wrong at character 1", `write "by (pod)"`},
			check: "metric", advice: "write \"by (pod)\"",
		},
		{
			name: "service", metric: ofService("web"),
			annotations: map[string]string{targetsAnnotation: "packets-per-second: service/web:9"},
			says:        []string{`Service "web" has no TCP port`, "8080"},
			check:       "metric", advice: "use one of its ports",
		},
		{
			name: "external-target", metric: externalMetric("queue_length", averageValue("10")),
			says:  []string{"does not say which pods have external metric", `add the line "queue_length: service/NAME:PORT"`},
			check: "metric", advice: "add the line",
		},
		{
			name: "external-service", metric: externalMetric("queue_length", averageValue("10")),
			annotations: map[string]string{targetsAnnotation: "queue_length: service/absent:8080"},
			says:        []string{`Service "absent" does not exist`},
			check:       "metric", advice: "create it or correct the name",
		},
		{
			name: "external-family", metric: externalMetric("queueLength", averageValue("10")),
			annotations: map[string]string{targetsAnnotation: "queueLength: service/web:8080"},
			says:        []string{"the pod exposes no metric", "queueLength", "did you mean queue_length?"},
			check:       "pages", advice: "did you mean queue_length?",
		},
	}
}

func (m *mistake) test(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createMetered(t, ns, m.ports, m.args...)
	createCustomHPA(t, ns, m.annotations, m.metric)
	said := ""
	eventually(t, "the autoscaler says what is wrong", func() error {
		err := hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue)
		if err == nil {
			return errors.New("it scales")
		}
		said = err.Error()
		return has(said, m.says...)
	})
	t.Log(said)
	documented(t, m.says[0])
	// It reads the pods later than the server, so it may see a pod that has only begun to start.
	eventually(t, "doctor hpa finds it", func() error { return doctorHPA(t, ns, "web").finds(m.check, m.advice) })
	always(t, "the text stays the same", 15*time.Second, func() error {
		if err := hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue); fmt.Sprint(err) != said {
			return fmt.Errorf("it says now: %w", err)
		}
		return nil
	})
}

// createMetered creates a Deployment and Services of a web server, with a container port named
// metrics unless others are given.
func createMetered(t *testing.T, namespace string, ports []corev1.ContainerPort, args ...string) {
	t.Helper()
	if ports == nil {
		ports = []corev1.ContainerPort{{Name: "metrics", ContainerPort: 8080}}
	}
	web := workload("web", append([]string{"-listen=:8080"}, args...)...)
	web.ReadinessProbe = httpProbe()
	web.Ports = ports
	createDeployment(t, namespace, "web", web)
	createService(t, namespace, "web")
	createService(t, namespace, "nobody") // there are no pods with app=nobody
	if !slices.Contains(args, "-unready") {
		waitReplicas(t, namespace, "web", 1, 1)
	}
}

// createService makes a Service for the pods whose label app is its name.
func createService(t *testing.T, namespace, name string) {
	t.Helper()
	_, err := cluster.client.CoreV1().Services(namespace).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 8080}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// createCustomHPA creates the HPA of the web server.
func createCustomHPA(
	t *testing.T, namespace string, annotations map[string]string, metrics ...autoscalingv2.MetricSpec,
) {
	t.Helper()
	createCustom(t, namespace, customHPA("web", annotations, metrics...))
}

// customHPA returns an HPA for the Deployment of its name, of 1 to 4 replicas, that scales down at
// once.
func customHPA(
	name string, annotations map[string]string, metrics ...autoscalingv2.MetricSpec,
) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: maps.Clone(annotations)},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
			MaxReplicas:    4, Metrics: metrics,
			Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{
				ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32(0))},
			},
		},
	}
}

func createCustom(t *testing.T, namespace string, h *autoscalingv2.HorizontalPodAutoscaler) {
	t.Helper()
	hpas := cluster.client.AutoscalingV2().HorizontalPodAutoscalers(namespace)
	if _, err := hpas.Create(t.Context(), h, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// tell makes requests of the first n pods of the web server, or of all if n is 0.
func tell(t *testing.T, namespace string, n int, requests ...podRequest) {
	t.Helper()
	tellApp(t, namespace, "web", n, requests...)
}

// tellApp is tell for the pods of another Deployment. It waits until they answer: one may have just been created.
func tellApp(t *testing.T, namespace, app string, n int, requests ...podRequest) {
	t.Helper()
	eventually(t, "pods of "+app+" are told", func() error {
		labelled := metav1.ListOptions{LabelSelector: "app=" + app}
		pods, err := cluster.client.CoreV1().Pods(namespace).List(t.Context(), labelled)
		if err != nil {
			return err
		}
		for i, p := range pods.Items {
			if n > 0 && i >= n || p.DeletionTimestamp != nil {
				continue
			}
			for _, r := range requests {
				if _, err := podHTTP(t.Context(), namespace, p.Name, r.path, map[string]string{r.series: r.value}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func value(v string) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse(v))}
}

func averageValue(v string) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: new(resource.MustParse(v))}
}

func podsMetric(name, average string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: name}, Target: averageValue(average),
	}}
}

// objectMetric returns a metric of the object named web.
func objectMetric(version, kind, name string, target autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
		DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: version, Kind: kind, Name: "web"},
		Metric:          autoscalingv2.MetricIdentifier{Name: name}, Target: target,
	}}
}

// externalMetric is a metric of type External.
func externalMetric(name string, target autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ExternalMetricSourceType,
		External: &autoscalingv2.ExternalMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: name}, Target: target,
		},
	}
}

// withSelector adds a metric.selector to a metric of type Pods.
func withSelector(m autoscalingv2.MetricSpec, label, value string) autoscalingv2.MetricSpec {
	m.Pods.Metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{label: value}}
	return m
}
