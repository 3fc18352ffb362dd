//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"metrics-server/test/realcluster"
)

// recommenderImage has the recommender of the VerticalPodAutoscaler that hack/vpa pins.
const recommenderImage = "localhost/metrics-server-e2e-vpa:dev"

// recommenderLabel is what the VerticalPodAutoscaler's own manifest calls the recommender's pods.
const recommenderLabel = "app=vpa-recommender"

// TestVerticalPodAutoscaler checks that the real recommender, installed from its own manifests,
// recommends by the usage that the server serves.
func TestVerticalPodAutoscaler(t *testing.T) {
	allNodesWell.join(t)
	module := os.Getenv("E2E_VPA")
	switch module {
	case "":
		t.Fatal(
			"E2E_VPA is not set: set it to the directory of the VerticalPodAutoscaler's Go module, whose recommender " +
				"the nodes have as " + recommenderImage + ", or to \"none\" to leave this test out",
		)
	case "none":
		t.Log("E2E_VPA=none: nothing is tested here")
		return
	}

	// The requests are a fraction of the usage, so a recommendation near them would not follow the
	// usage.
	ns := namespace(t)
	busy, large := workload("busy", "-cpu=200", "-memory=60"), workload("large", "-cpu=50", "-memory=112")
	for _, c := range []*corev1.Container{&busy, &large} {
		c.Resources.Requests = corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("20m"),
			corev1.ResourceMemory: resource.MustParse("10Mi"),
		}
	}
	createDeployment(t, ns, "web", busy, large)
	// The recommender keeps the highest usages, and starting a container costs more than it uses then.
	eventually(t, "the containers' start has left the window", func() error {
		pods, err := cluster.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
		list, err2 := cluster.metrics.MetricsV1().PodMetricses(ns).List(t.Context(), metav1.ListOptions{})
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if len(pods.Items) != 1 || len(list.Items) != 1 || len(list.Items[0].Containers) != 2 {
			return fmt.Errorf("%d pods, served are %v", len(pods.Items), list.Items)
		}
		begin := list.Items[0].Timestamp.Add(-list.Items[0].Window.Duration)
		for _, c := range pods.Items[0].Status.ContainerStatuses {
			if c.State.Running == nil || begin.Before(c.State.Running.StartedAt.Add(2*time.Second)) {
				return fmt.Errorf("the window begins at %v, container %s is %v", begin, c.Name, c.State)
			}
		}
		return nil
	})

	runRecommender(t, filepath.Join(module, "deploy"))
	file := filepath.Join(t.TempDir(), "vpa.yaml")
	if err := os.WriteFile(file, []byte(`
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata: {name: web}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  updatePolicy: {updateMode: "Off"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	mustKubectl(t, "apply", "-n", ns, "-f", file)

	var got string
	follow := func() error {
		targets, err := recommendations(t, ns, "web")
		if err != nil {
			return err
		}
		got = fmt.Sprintf("busy %s, large %s", says(targets["busy"]), says(targets["large"]))
		if err := errors.Join(
			follows(targets["busy"], 0.200, 60<<20),
			follows(targets["large"], 0.050, 112<<20),
		); err != nil {
			return fmt.Errorf("recommended are %s: %w", got, err)
		}
		return nil
	}
	eventually(t, "the recommendations follow from the usage", follow)
	always(t, "the next usages do not change that", 20*time.Second, follow)
	t.Log("recommended are", got)

	// What the recommender says of the server's answers, in its log and in its count of them.
	log, metrics := recommenderSays(t)
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "E") &&
			(strings.Contains(line, "metrics.k8s.io") || strings.Contains(line, "MetricsClient")) {
			t.Errorf("the recommender's log says: %s", line)
		}
	}
	var answers []string
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "vpa_recommender_metric_server_responses{") {
			answers = append(answers, strings.TrimSpace(line))
		}
	}
	if len(answers) != 1 || !strings.Contains(answers[0], `is_error="false"`) {
		t.Errorf("the recommender counts %q: want good answers and no others", answers)
	}
	t.Log("the recommender counts", answers)
}

// runRecommender installs what the recommender needs and the recommender by the VerticalPodAutoscaler's own manifests,
// waits until it runs, and removes all of it after t.
func runRecommender(t *testing.T, manifests string) {
	t.Helper()
	definitions := filepath.Join(manifests, "vpa-v1-crd-gen.yaml")
	rbac := filepath.Join(manifests, "vpa-rbac.yaml")
	deployment := filepath.Join(manifests, "recommender-deployment.yaml")
	all := []string{"--ignore-not-found", "-f", deployment, "-f", rbac, "-f", definitions}
	if there := mustKubectl(t, append([]string{"get", "-o", "name"}, all...)...); there != "" {
		t.Fatalf(
			"the cluster has a VerticalPodAutoscaler that this test would remove: say E2E_VPA=none, or remove it:\n%s",
			there,
		)
	}
	t.Cleanup(func() {
		if t.Failed() {
			pods, _ := kubectl("get", "pods", "-o", "wide", "-n", "kube-system", "-l", recommenderLabel)
			log, _ := kubectl("logs", "--tail=60", "-n", "kube-system", "-l", recommenderLabel)
			t.Logf("the recommender:\n%s%s", pods, log)
		}
		if _, err := kubectl(append([]string{"delete"}, all...)...); err != nil {
			t.Error(err)
		}
	})
	mustKubectl(t, "apply", "-f", definitions, "-f", rbac)
	mustKubectl(t, "wait", "--for=condition=Established", "--timeout=60s", "-f", definitions)

	f, err := os.Open(deployment)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var d appsv1.Deployment
	if err := yaml.NewYAMLOrJSONDecoder(f, 4096).Decode(&d); err != nil {
		t.Fatalf("%s: %v", deployment, err)
	}
	c := &d.Spec.Template.Spec.Containers[0]
	c.Image = recommenderImage
	c.Args = []string{
		"--recommender-interval=5s", // instead of a minute
		// Else it is these that are recommended for pods as small as ours: 25 m and 250 MiB.
		"--pod-recommendation-min-cpu-millicores=1", "--pod-recommendation-min-memory-mb=1",
	}
	deployments := cluster.client.AppsV1().Deployments(d.Namespace)
	if _, err := deployments.Create(t.Context(), &d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the recommender runs", func() error {
		d, err := deployments.Get(t.Context(), d.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return realcluster.RolledOut(d)
	})
}

// recommendations returns the targets that a VerticalPodAutoscaler recommends, by container.
func recommendations(t *testing.T, namespace, name string) (map[string]corev1.ResourceList, error) {
	path := fmt.Sprintf("/apis/autoscaling.k8s.io/v1/namespaces/%s/verticalpodautoscalers/%s", namespace, name)
	b, err := cluster.client.CoreV1().RESTClient().Get().AbsPath(path).DoRaw(t.Context())
	if err != nil {
		return nil, err
	}
	var v struct {
		Status struct {
			Conditions     []metav1.Condition
			Recommendation struct {
				ContainerRecommendations []struct {
					ContainerName string
					Target        corev1.ResourceList
				}
			}
		}
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, err
	}
	targets := map[string]corev1.ResourceList{}
	for _, r := range v.Status.Recommendation.ContainerRecommendations {
		targets[r.ContainerName] = r.Target
	}
	if len(targets) != 2 {
		return nil, fmt.Errorf("recommendations for %d containers, conditions %v", len(targets), v.Status.Conditions)
	}
	return targets, nil
}

func says(target corev1.ResourceList) string {
	return fmt.Sprintf("%s and %.1f MiB", target.Cpu(), target.Memory().AsApproximateFloat64()/(1<<20))
}

// follows returns why a target does not fit a container that always uses so many cores and bytes.
// On a busy machine, the usage may be 10 % below to 5 % above that.
func follows(target corev1.ResourceList, cores, bytes float64) error {
	var errs []error
	for _, r := range []struct {
		name        corev1.ResourceName
		used, first float64
	}{
		{corev1.ResourceCPU, cores, 0.01},
		{corev1.ResourceMemory, bytes, 1e7},
	} {
		got := target.Name(r.name, resource.DecimalSI).AsApproximateFloat64()
		least, most := recommended(r.used*0.9, r.first), recommended(r.used*1.05, r.first)
		if got < least*0.97 || got > most*1.03 { // it computes in whole millicores
			errs = append(
				errs,
				fmt.Errorf("%s of %.3f does not follow from a usage of %.3f: want %.3f to %.3f", r.name, got, r.used, least, most),
			)
		}
	}
	return errors.Join(errs...)
}

// recommended returns the recommendation for a constant usage: the upper end of its bucket in a
// histogram whose first bucket has this width and whose other buckets are each 5 % wider than the
// one before, plus a margin of 15 %.
func recommended(usage, first float64) float64 {
	width, end := first, first
	for end <= usage {
		width *= 1.05
		end += width
	}
	return end * 1.15
}

// recommenderSays returns the recommender's log and metrics.
func recommenderSays(t *testing.T) (log, metrics string) {
	t.Helper()
	pods := cluster.client.CoreV1().Pods("kube-system")
	list, err := pods.List(t.Context(), metav1.ListOptions{LabelSelector: recommenderLabel})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 {
		t.Fatalf("%d pods of the recommender", len(list.Items))
	}
	p := list.Items[0]
	if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
		t.Errorf("the recommender was restarted %d times", n)
	}
	l, err := pods.GetLogs(p.Name, &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := pods.ProxyGet("http", p.Name, "8942", "metrics", nil).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(l), string(m)
}
