//go:build backends

package backends

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/hack/fleet/apiserver"
	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/pkg/adminfile"
	"metrics-server/pkg/backend"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet/kubelettest"
)

// replicas is how many pods each workload has.
const replicas = 2

// server is the custom metrics server, with a cluster of its own.
type server struct {
	*binary.Server
	client   *binary.Client
	cluster  *cluster.Cluster
	exporter *exporter

	mu     sync.Mutex // guards the field that follows
	unused []*cluster.Workload
}

// serve starts the custom metrics server with an administrator's file.
func serve(t testing.TB, e *exporter, file *adminfile.File, workloads, pods int) *server {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	text, err := yaml.Marshal(file)
	must(err)
	config := filepath.Join(dir, "backends.yaml")
	must(os.WriteFile(config, text, 0o600))
	s := &server{
		exporter: e,
		cluster: cluster.New(cluster.Config{
			Nodes: pods, Pods: workloads, Containers: 1, Replicas: pods, Port: 10250, Now: time.Now(),
		}),
	}
	s.unused = s.cluster.Workloads()
	api, err := apiserver.Start(apiserver.Config{
		Cluster: s.cluster, Token: binary.ServerToken, LoadToken: binary.LoadToken,
	})
	must(err)
	t.Cleanup(func() { _ = api.Close() })
	path, err := filepath.Abs(filepath.Join(programs, "metrics-server"))
	must(err)
	s.Server, err = binary.Start(&binary.Config{
		Path: path, Custom: true, Dir: dir, Flags: []string{"--external-metrics", "--config=" + config},
		APIServer: api.URL(), APIServerCA: api.CA(),
	})
	must(err)
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", s.Tail())
		}
	})
	s.client = binary.NewClient(s.URL)
	t.Cleanup(s.client.Close)
	return s
}

// metric is what an HPA says of a metric. $APP stands for the name of its workload.
type metric struct {
	kind       autoscalingv2.MetricSourceType
	name       string
	expression string            // "" to go by name
	selector   map[string]string // of the metric
	window     string            // "" for the default
	backend    string            // "" for the default
}

// declared is a metric of an HPA.
type declared struct {
	*server
	*cluster.Workload
	path string // of the HPA controller's request
}

// declare adds an HPA with a metric, for a workload of its own.
func (s *server) declare(t testing.TB, m metric) *declared {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unused) == 0 {
		t.Fatal("the cluster has too few workloads")
	}
	d := &declared{server: s, Workload: s.unused[0]}
	s.unused = s.unused[1:]
	identifier := autoscalingv2.MetricIdentifier{Name: m.name}
	query := url.Values{}
	if m.selector != nil {
		selector := map[string]string{}
		for name, v := range m.selector {
			selector[name] = d.named(v)
		}
		identifier.Selector = &metav1.LabelSelector{MatchLabels: selector}
	}
	labels := metav1.FormatLabelSelector(identifier.Selector)
	one := resource.MustParse("1")
	target := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &one}
	spec := autoscalingv2.MetricSpec{Type: m.kind}
	api, of := "custom.metrics.k8s.io/v1beta2", ""
	switch m.kind {
	case autoscalingv2.PodsMetricSourceType:
		spec.Pods = &autoscalingv2.PodsMetricSource{Metric: identifier, Target: target}
		of = "pods/*/"
		query.Set("labelSelector", "app="+d.Name)
		if m.selector != nil {
			query.Set("metricLabelSelector", labels)
		}
	case autoscalingv2.ObjectMetricSourceType:
		service := "front-of-" + d.Name
		spec.Object = &autoscalingv2.ObjectMetricSource{
			Metric: identifier, Target: target,
			DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: service},
		}
		of = "services/" + service + "/"
	default:
		spec.External = &autoscalingv2.ExternalMetricSource{Metric: identifier, Target: target}
		api = "external.metrics.k8s.io/v1beta1"
		if m.selector != nil {
			query.Set("labelSelector", labels)
		}
	}
	d.path = "/apis/" + api + "/namespaces/" + d.Namespace + "/" + of + m.name + "?" + query.Encode()
	annotations := map[string]string{}
	if m.backend != "" {
		annotations[kubeapi.BackendAnnotation] = m.backend
	}
	if m.window != "" {
		annotations[kubeapi.WindowAnnotation] = m.window
	}
	if m.expression != "" {
		annotations[kubeapi.QueriesAnnotation] = m.name + ": |-\n  " + d.named(m.expression)
	}
	s.cluster.AddAutoscalerWith(d.Workload, annotations, spec)
	return d
}

// named replaces $APP.
func (d *declared) named(s string) string { return strings.ReplaceAll(s, "$APP", d.Name) }

// pods returns the pods of the workload.
func (d *declared) pods() []*cluster.Pod {
	all, _ := d.cluster.Pods(d.Namespace)
	return slices.DeleteFunc(all, func(p *cluster.Pod) bool { return p.Workload != d.Workload })
}

// of returns the name of a series of a pod.
func of(name string, p *cluster.Pod, more string) string {
	return fmt.Sprintf("%s{namespace=%q,pod=%q,app=%q%s}", name, p.Namespace, p.Name, p.Workload.Name, more)
}

// export adds series for the pods: queue is 10 for the first and 11 for the second, backlog has two series for each,
// requests_total grows by 5 and 10 a second, and gateway has no pod. Besides, there are series of a pod that does not
// exist, and of pods of these names in another namespace.
func (d *declared) export() {
	for i, p := range d.pods() {
		n := float64(i)
		d.exporter.set(of("queue", p, ""), value{first: 10 + n})
		d.exporter.set(of("backlog", p, `,topic="a"`), value{first: 1})
		d.exporter.set(of("backlog", p, `,topic="b"`), value{first: 2})
		d.exporter.set(of("requests_total", p, ""), value{perSecond: 5 * (n + 1)})
		elsewhere := *p
		elsewhere.Workload = &cluster.Workload{Namespace: "elsewhere", Name: d.Name}
		d.exporter.set(of("queue", &elsewhere, ""), value{first: 1000})
	}
	d.exporter.set(fmt.Sprintf("gateway{namespace=%q,app=%q}", d.Namespace, d.Name), value{first: 7})
	ghost := *d.pods()[0]
	ghost.Name = "ghost"
	d.exporter.set(of("queue", &ghost, `,gone="yes"`), value{first: 500})
}

// ask returns what the server answers to the HPA controller: values by pod, or one of the name "".
func (d *declared) ask() (map[string]float64, error) {
	body, err := d.client.Get(context.Background(), binary.Request{Path: d.path})
	if err != nil {
		var status metav1.Status
		if json.Unmarshal(body, &status) == nil && status.Message != "" {
			return nil, errors.New(status.Message)
		}
		return nil, d.Failure(err)
	}
	var list struct {
		Items []struct {
			DescribedObject autoscalingv2.CrossVersionObjectReference
			Value           resource.Quantity
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for i := range list.Items {
		name := ""
		if of := &list.Items[i].DescribedObject; of.Kind == "Pod" {
			name = of.Name
		}
		if _, ok := values[name]; ok {
			return nil, fmt.Errorf("there are two values for %q: %s", name, body)
		}
		values[name] = list.Items[i].Value.AsApproximateFloat64()
	}
	return values, nil
}

// has returns an error unless the server serves the values in want: one for each present pod, in their order, or a
// single one. NaN means that the pod must have no value. Values may differ by a tenth: the programs estimate rates.
func (d *declared) has(want ...float64) error {
	got, err := d.ask()
	if err != nil {
		return err
	}
	expected := map[string]float64{}
	if strings.Contains(d.path, "/pods/") {
		pods := d.pods()
		if len(pods) != len(want) {
			return fmt.Errorf("there are %d pods, not %d", len(pods), len(want))
		}
		for i, p := range pods {
			if !math.IsNaN(want[i]) {
				expected[p.Name] = want[i]
			}
		}
	} else {
		expected[""] = want[0]
	}
	for name, v := range expected {
		if g, ok := got[name]; !ok || math.Abs(g-v) > 0.1*math.Abs(v) {
			return fmt.Errorf("values are %v, want %v", got, expected)
		}
	}
	if len(got) != len(expected) {
		return fmt.Errorf("values are %v, want %v", got, expected)
	}
	return nil
}

// fails returns an error unless the server answers with an error that contains text.
func (d *declared) fails(text string) error {
	got, err := d.ask()
	if err == nil || !strings.Contains(err.Error(), text) {
		return fmt.Errorf("values are %v, and the error %w; want the error %q", got, err, text)
	}
	return nil
}

// patience is how long anything may take here, because machines are shared and slow.
const patience = 90 * time.Second

// eventually fails t if f does not return nil in time.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: still not so after %v: %v", what, patience, err)
}

// stays fails t if f returns an error in a period.
func stays(t testing.TB, what string, period time.Duration, f func() error) {
	t.Helper()
	for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// interval is how often the server asks the programs.
const interval = 2 * time.Second

// settings returns those of a program as a backend.
func (p *program) settings(name string) backend.Config {
	return backend.Config{Name: name, URL: p.url, Interval: interval, Parameters: p.parameters}
}

// noKubelet stands for the simulated kubelets, which do not run here.
func noKubelet(*cluster.Machine, []kubelettest.Pod) error { return nil }
