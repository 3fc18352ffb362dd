//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	metrics "k8s.io/metrics/pkg/client/clientset/versioned"
)

// patience is how long anything here may take that has no shorter limit: machines are shared and slow.
const patience = 2 * time.Minute

// Where the server is, as deploy/ has it.
const (
	serverNamespace = "kube-system"
	serverName      = "metrics-server"
	serverLabel     = "k8s-app=metrics-server"
)

// cluster is the one under test, as its administrator sees it.
var cluster struct {
	config   *rest.Config
	client   kubernetes.Interface
	metrics  metrics.Interface
	kubectls []string // the first is used where it does not matter which
	cache    string   // of kubectl
	image    string   // of ./workload
	node     []string // command that stops and starts nodes, if there is one
}

func TestMain(m *testing.M) {
	code := 1
	err := connect()
	if err == nil {
		code = m.Run()
		err = os.RemoveAll(cluster.cache)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// connect finds the cluster and waits until the server serves.
func connect() error {
	kubeconfig := os.Getenv("KUBECONFIG")
	if kubeconfig == "" {
		return errors.New("KUBECONFIG is not set: run these tests by `make e2e`, or see README.md")
	}
	var err error
	if cluster.config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return err
	}
	cluster.config.QPS = -1 // no limit
	if cluster.client, err = kubernetes.NewForConfig(cluster.config); err != nil {
		return err
	}
	if cluster.metrics, err = metrics.NewForConfig(cluster.config); err != nil {
		return err
	}
	cluster.image = cmp.Or(os.Getenv("E2E_IMAGE"), "localhost/metrics-server-e2e:dev")
	cluster.kubectls = filepath.SplitList(cmp.Or(os.Getenv("E2E_KUBECTL"), "kubectl"))
	for _, k := range cluster.kubectls {
		if _, err := exec.LookPath(k); err != nil {
			return fmt.Errorf("E2E_KUBECTL: %w", err)
		}
	}
	cluster.node = strings.Fields(os.Getenv("E2E_NODE"))
	if cluster.cache, err = os.MkdirTemp("", "metrics-server-e2e-"); err != nil {
		return err
	}
	return poll(patience, func() error {
		return errors.Join(serverReady(context.Background()), nodesServed(context.Background()))
	})
}

// serverReady says what is missing of the server's installation.
func serverReady(ctx context.Context) error {
	d, err := cluster.client.AppsV1().Deployments(serverNamespace).Get(ctx, serverName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := rolledOut(d); err != nil {
		return err
	}
	return errors.Join(available("v1"), available("v1beta1"))
}

// available says why the APIService of a version is not Available.
func available(version string) error {
	out, err := kubectl("get", "apiservice", version+".metrics.k8s.io", "-o",
		`jsonpath={range .status.conditions[?(@.type=="Available")]}{.status} {.reason}: {.message}{end}`)
	if err != nil || strings.HasPrefix(out, "True") {
		return err
	}
	return fmt.Errorf("APIService of %s: Available is %s", version, out)
}

// nodesServed says which node has no usage.
func nodesServed(ctx context.Context) error {
	nodes, err := cluster.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		if _, err := cluster.metrics.MetricsV1().NodeMetricses().Get(ctx, n.Name, metav1.GetOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// kubectl runs the first kubectl and returns what it printed.
func kubectl(args ...string) (string, error) { return runKubectl(cluster.kubectls[0], args...) }

func runKubectl(program string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, program, append([]string{"--cache-dir=" + cluster.cache}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %q: %w\n%s", program, args, err, out)
	}
	return string(out), err
}

// mustKubectl is kubectl for what has to succeed.
func mustKubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := kubectl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// poll calls f until it returns nil, or returns its last error when the limit is over.
func poll(limit time.Duration, f func() error) error {
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		if err = f(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("still not so after %v: %w", limit, err)
}

// eventually fails t if f does not return nil in time.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	begun := time.Now()
	if err := poll(patience, f); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	t.Logf("%5.1f s until %s", time.Since(begun).Seconds(), what)
}

// always fails t if f returns an error within the time.
func always(t *testing.T, what string, period time.Duration, f func() error) {
	t.Helper()
	for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// namespace makes a namespace for t and removes it after it. What runs in it may do anything.
func namespace(t *testing.T) string {
	t.Helper()
	namespaces := cluster.client.CoreV1().Namespaces()
	n, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + "-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "privileged"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			objects, _ := kubectl("get", "pods,hpa", "-n", n.Name)
			t.Logf("what there was in %s:\n%s", n.Name, objects)
		}
		if err := namespaces.Delete(context.Background(), n.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return n.Name
}

// workload is a container of ./workload's image.
func workload(name string, args ...string) corev1.Container {
	return corev1.Container{Name: name, Image: cluster.image, ImagePullPolicy: corev1.PullIfNotPresent, Args: args}
}

// podOf is a pod that can be created. Labels: app is name.
func podOf(name string, containers ...corev1.Container) *corev1.Pod {
	now := int64(0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: containers, TerminationGracePeriodSeconds: &now},
	}
}

func createPod(t *testing.T, namespace string, pod *corev1.Pod) {
	t.Helper()
	if _, err := cluster.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// getPod returns a pod as it is now.
func getPod(t *testing.T, namespace, name string) *corev1.Pod {
	t.Helper()
	p, err := cluster.client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// createDeployment makes a Deployment of one replica, whose name is also the label app of its pods.
func createDeployment(t *testing.T, namespace, name string, containers ...corev1.Container) {
	t.Helper()
	pod := podOf(name, containers...)
	_, err := cluster.client.AppsV1().Deployments(namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// rolledOut says why the newest template of d does not run, and nothing else, in all its replicas.
func rolledOut(d *appsv1.Deployment) error {
	s := d.Status
	if want := *d.Spec.Replicas; s.ObservedGeneration < d.Generation || s.Replicas != want || s.UpdatedReplicas != want || s.AvailableReplicas != want {
		return fmt.Errorf("deployment %s: %d replicas wanted, %d there, %d of them new, %d available", d.Name, want, s.Replicas, s.UpdatedReplicas, s.AvailableReplicas)
	}
	return nil
}

// patchServer changes the server's Deployment and waits until that is rolled out.
func patchServer(t *testing.T, patch string) {
	t.Helper()
	_, err := cluster.client.AppsV1().Deployments(serverNamespace).Patch(context.Background(), serverName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = poll(patience, func() error {
		d, err := cluster.client.AppsV1().Deployments(serverNamespace).Get(context.Background(), serverName, metav1.GetOptions{})
		return errors.Join(err, rolledOut(d))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// scaleServer gives the server n replicas and waits until they are there.
func scaleServer(t *testing.T, n int) {
	t.Helper()
	patchServer(t, fmt.Sprintf(`{"spec":{"replicas":%d}}`, n))
	if n > 0 {
		eventually(t, "the server is back", func() error { return errors.Join(serverReady(context.Background()), nodesServed(context.Background())) })
	}
}

// podUsage returns what is served of a pod.
func podUsage(t *testing.T, namespace, name string) (*metricsv1.PodMetrics, error) {
	return cluster.metrics.MetricsV1().PodMetricses(namespace).Get(t.Context(), name, metav1.GetOptions{})
}

// waitServed waits until a pod is served with these containers.
func waitServed(t *testing.T, namespace, name string, containers ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is served with %q", name, containers), func() error {
		return servedWith(t, namespace, name, containers...)
	})
}

// servedWith says how what is served of a pod differs from these containers.
func servedWith(t *testing.T, namespace, name string, containers ...string) error {
	m, err := podUsage(t, namespace, name)
	if err != nil {
		return err
	}
	var names []string
	for _, c := range m.Containers {
		names = append(names, c.Name)
	}
	if got, want := strings.Join(names, " "), strings.Join(containers, " "); got != want {
		return fmt.Errorf("it is served with %q", got)
	}
	return nil
}

// podHTTP asks a pod's port 8080 by way of the API server.
func podHTTP(ctx context.Context, namespace, pod, path string, params map[string]string) ([]byte, error) {
	return cluster.client.CoreV1().Pods(namespace).ProxyGet("http", pod, "8080", path, params).DoRaw(ctx)
}

// rawGet asks the API server with other credentials than the administrator's, and returns status and body.
func rawGet(config *rest.Config, path string, header http.Header) (int, string, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return 0, "", err
	}
	req, err := http.NewRequest(http.MethodGet, config.Host+path, nil)
	if err != nil {
		return 0, "", err
	}
	maps.Copy(req.Header, header)
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
