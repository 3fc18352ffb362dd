//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"metrics-server/test/realcluster"
)

// backendProgram is a program with the Prometheus API. The nodes have its image.
type backendProgram struct {
	name, image string
	port        int32
	args        []string // It finds the file with what it scrapes in /etc/backend, and stores in /data.
}

var (
	prometheus = backendProgram{
		"prometheus", "localhost/metrics-server-e2e-prometheus:dev", 9090,
		[]string{"--config.file=/etc/backend/scrape.yaml", "--storage.tsdb.path=/data"},
	}
	victoriaMetrics = backendProgram{
		"victoriametrics", "localhost/metrics-server-e2e-victoriametrics:dev", 8428,
		// By default, it answers without the samples of the last 30 s.
		[]string{"-promscrape.config=/etc/backend/scrape.yaml", "-storageDataPath=/data", "-search.latencyOffset=1s"},
	}
)

const (
	backendAnnotation = "metrics-server/backend"

	// stopping is the backend that a test stops and starts again.
	stopping = "stopping"

	// backendInterval is how often backends scrape the pods, and are asked.
	backendInterval = 5 * time.Second

	// scrapeConfig lets a backend scrape the container ports named metrics in every namespace.
	scrapeConfig = `
global: {scrape_interval: 5s, scrape_timeout: 4s}
scrape_configs:
- job_name: pods
  kubernetes_sd_configs: [{role: pod}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_pod_container_port_name], regex: metrics, action: keep}
  - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
`
	// adapterConfig is a configuration of prometheus-adapter.
	adapterConfig = `
rules:
- seriesQuery: 'queue_length{namespace!="",pod!=""}'
  resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
  name: {as: queue_size}
  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
`
)

// startBackends starts the backends and a gateway in a namespace of their own, creates the ConfigMap with the file that
// names them for the custom metrics server, and returns the namespace.
func startBackends(t *testing.T) string {
	t.Helper()
	ns := namespace(t)
	createMayListPods(t, ns)
	configMaps := cluster.client.CoreV1().ConfigMaps
	_, err := configMaps(ns).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "scrape"}, Data: map[string]string{"scrape.yaml": scrapeConfig},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file := "adapter: {file: /etc/backends/adapter.yaml, backend: prometheus}\nbackends:\n"
	for name, program := range map[string]backendProgram{
		prometheus.name: prometheus, victoriaMetrics.name: victoriaMetrics, stopping: prometheus,
	} {
		file += fmt.Sprintf("- {name: %s, url: 'http://%s', interval: %s}\n", name, program.start(t, ns, name), backendInterval)
	}
	gateway := workload("gateway", "-listen=:8080")
	gateway.ReadinessProbe = httpProbe()
	createDeployment(t, ns, "gateway", gateway)
	createService(t, ns, "gateway")
	file += "metrics:\n" +
		"- name: requests_waiting\n" +
		"  service: service/" + ns + "/gateway:8080\n" +
		"  resource: ingresses.networking.k8s.io\n" +
		"  query: sum by (exported_namespace, ingress) (queue_length{ingress!=\"\"})\n" +
		"  namespaceLabel: exported_namespace\n" +
		"  nameLabel: ingress\n"
	const inServer = "custom-metrics-backends"
	_, err = configMaps(serverNamespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: inServer},
		Data:       map[string]string{"backends.yaml": file, "adapter.yaml": adapterConfig},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustKubectl(t, "delete", "configmap", inServer, "-n", serverNamespace) })
	return ns
}

// createMayListPods lets the default service account of a namespace list and watch all pods.
func createMayListPods(t *testing.T, namespace string) {
	t.Helper()
	roles := cluster.client.RbacV1()
	meta := metav1.ObjectMeta{Name: namespace}
	_, err := roles.ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "watch"}},
	}}, metav1.CreateOptions{})
	_, err2 := roles.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: namespace},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "default"}},
	}, metav1.CreateOptions{})
	t.Cleanup(func() { mustKubectl(t, "delete", "clusterrole,clusterrolebinding", namespace, "--ignore-not-found") })
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
}

// start starts p under a name, and returns its address. It is that of the Service, because not every cluster has DNS.
func (p *backendProgram) start(t *testing.T, namespace, name string) string {
	t.Helper()
	pod := podOf(name, corev1.Container{
		Name: p.name, Image: p.image, ImagePullPolicy: corev1.PullIfNotPresent, Args: p.args,
		VolumeMounts: []corev1.VolumeMount{{Name: "scrape", MountPath: "/etc/backend"}, {Name: "data", MountPath: "/data"}},
		ReadinessProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(p.port)}},
			PeriodSeconds: 1,
		},
	})
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "scrape", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "scrape"},
		}}},
		{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	deploy(t, namespace, pod)
	service, err := cluster.client.CoreV1().Services(namespace).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: pod.Labels, Ports: []corev1.ServicePort{{Port: p.port}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(p.port))
}

// backendCases are metrics that pods have, which each backend has from scraping them, of all three types.
func backendCases() []scalingCase {
	packets, noPackets := []podRequest{rate("packets_total", "2500")}, []podRequest{rate("packets_total", "0")}
	queue, noQueue := []podRequest{set("queue_length", "25")}, []podRequest{set("queue_length", "0")}
	exact := [2]int{3, 3}
	var cases []scalingCase
	for _, name := range []string{prometheus.name, victoriaMetrics.name} {
		from := func(annotations ...string) map[string]string {
			m := map[string]string{backendAnnotation: name}
			for i := 0; i < len(annotations); i += 2 {
				m[annotations[i]] = annotations[i+1]
			}
			return m
		}
		cases = append(cases,
			scalingCase{
				name: name + "-pods", annotations: from(windowAnnotation, "30s"),
				metric: podsMetric("packets-per-second", "1k"), load: packets, rest: noPackets, replicas: exact,
			},
			scalingCase{
				name:        name + "-object",
				annotations: from(queriesAnnotation, "packets: sum(rate(packets_total[30s]))"),
				metric:      objectMetric("v1", "Service", "packets", averageValue("1k")),
				load:        packets, rest: noPackets, replicas: exact,
			},
			scalingCase{
				name: name + "-external", annotations: from(),
				metric: externalMetric("queue_length", averageValue("10")), load: queue, rest: noQueue, replicas: exact,
			},
		)
	}
	return append(cases, scalingCase{
		// The name is that of a rule of prometheus-adapter.
		name: "adapter-rule", annotations: map[string]string{backendAnnotation: prometheus.name},
		metric: podsMetric("queue_size", "10"), load: queue, rest: noQueue, replicas: exact,
	})
}

// backendMistakes are mistakes in HPAs with metrics of a backend.
func backendMistakes() []mistake {
	from := func(name, expression string) map[string]string {
		m := map[string]string{backendAnnotation: name}
		if expression != "" {
			m[queriesAnnotation] = "packets-per-second: " + expression
		}
		return m
	}
	packets := podsMetric("packets-per-second", "1k")
	return []mistake{
		{
			name: "backend-name", annotations: from("promethus", ""), metric: packets,
			says:  []string{"which does not exist", `names backend "promethus"`, `did you mean "prometheus"?`},
			check: "served", advice: `did you mean "prometheus"?`,
		},
		{
			name: "backend-series", annotations: from(prometheus.name, "sum by (pod) (absent_total)"), metric: packets,
			says:  []string{"the expression returned no series", `in backend "prometheus"`},
			check: "served", advice: "the expression returned no series",
		},
		{
			name: "backend-labels", annotations: from(victoriaMetrics.name, "max by (pod, code) (http_requests_total)"),
			metric: packets, args: []string{`-rate=http_requests_total{code="500",path="/"}=1`},
			says:  []string{"the expression returned more than one series", `in backend "victoriametrics"`},
			check: "served", advice: "the expression returned more than one series",
		},
	}
}

// namedMetric scales the web server by a metric that the administrator's file names. A gateway in another namespace
// exposes it for the Ingresses of all namespaces.
func namedMetric(t *testing.T, gateway string) {
	t.Parallel()
	ns := namespace(t)
	createMetered(t, ns, nil)
	// There is no such Ingress: only its name counts.
	createCustomHPA(t, ns, nil, objectMetric("networking.k8s.io/v1", "Ingress", "requests_waiting", averageValue("10")))
	waiting := func(namespace, number string) {
		tellApp(t, gateway, "gateway", 1, set(fmt.Sprintf("queue_length{namespace=%q,ingress=\"web\"}", namespace), number))
	}
	waiting("another", "1000")
	eventually(t, "the autoscaler says that its Ingress has no series", func() error {
		if err := hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue); err != nil {
			return has(err.Error(), "requests_waiting", "no series")
		}
		return errors.New("it scales")
	})
	waiting(ns, "25")
	waitActive(t, ns)
	waitReplicas(t, ns, "web", 3, 3)
	waiting(ns, "0")
	waitReplicas(t, ns, "web", 1, 1)
}

// backendStops ends a backend while its metric has scaled the web server up. The last value is held for four intervals.
// After that, the HPA says what is wrong, and nothing scales. The backend comes back, and the HPA goes on.
func backendStops(t *testing.T, backends string) {
	t.Parallel()
	ns := namespace(t)
	createMetered(t, ns, nil)
	createCustomHPA(t, ns, map[string]string{backendAnnotation: stopping}, podsMetric("queue_length", "10"))
	waitActive(t, ns)
	tell(t, ns, 1, set("queue_length", "25"))
	waitReplicas(t, ns, "web", 3, 3)

	scale := func(replicas int) {
		mustKubectl(t, "scale", "deployment", stopping, "-n", backends, fmt.Sprintf("--replicas=%d", replicas))
	}
	scale(0)
	stopped := time.Now()
	// The last answer may be an interval old, and the next one late.
	always(t, "the last value is held", 2*backendInterval, func() error {
		return hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue)
	})
	const says = `the last good answer of backend "stopping" is more than`
	eventually(t, "the autoscaler says what is wrong", func() error {
		if err := hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue); err != nil {
			return has(err.Error(), says)
		}
		return errors.New("it scales")
	})
	t.Logf("%5.1f s until the autoscaler says that the backend does not answer", time.Since(stopped).Seconds())
	eventually(t, "the doctor finds it", func() error { return doctorHPA(t, ns, "web").finds("served", says) })
	always(t, "nothing scales", 15*time.Second, replicasAre(t, ns, "web", 3, 3))

	scale(1)
	eventually(t, "the backend is there again", func() error {
		d, err := cluster.client.AppsV1().Deployments(backends).Get(t.Context(), stopping, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return realcluster.RolledOut(d)
	})
	waitActive(t, ns)
	tell(t, ns, 0, set("queue_length", "0"))
	waitReplicas(t, ns, "web", 1, 1)
}
