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
	"slices"
	"strings"
	"testing"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	metrics "k8s.io/metrics/pkg/client/clientset/versioned"

	"metrics-server/test/realcluster"
)

const patience = realcluster.Patience

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
	kubectls []string // the first one is used where the version does not matter
	cache    string   // of kubectl
	image    string   // of ./workload
	node     []string // command that stops and starts nodes, if there is one
}

func TestMain(m *testing.M) { os.Exit(realcluster.Main(m, connect)) }

// connect finds the cluster and waits until the server serves.
func connect(cache string) (err error) {
	cluster.cache = cache
	if cluster.config, err = realcluster.Config(); err != nil {
		return err
	}
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
	return realcluster.Poll(patience, func() error { return allWell(context.Background()) })
}

// allWell returns what is missing: of the server, of what it serves, and of what the API server
// publishes about it.
func allWell(ctx context.Context) error {
	return errors.Join(serverReady(ctx), nodesServed(ctx), discovered(ctx), described(ctx))
}

// serverReady returns what is missing in the server's installation.
func serverReady(ctx context.Context) error {
	d, err := cluster.client.AppsV1().Deployments(serverNamespace).Get(ctx, serverName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := realcluster.RolledOut(d); err != nil {
		return err
	}
	return errors.Join(available("v1"), available("v1beta1"))
}

// available returns why the APIService of a version is not Available.
func available(version string) error { return theKubectl().Available(version + ".metrics.k8s.io") }

// nodesServed returns which node has no usage.
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

// discovered returns how the aggregated discovery differs from both versions, v1 first. The API
// server fetches it after an APIService was added or changed.
func discovered(ctx context.Context) error {
	var list apidiscoveryv2.APIGroupDiscoveryList
	err := cluster.client.Discovery().RESTClient().Get().AbsPath("/apis").
		SetHeader("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").Do(ctx).Into(&list)
	if err != nil {
		return err
	}
	var got []string
	for _, g := range list.Items {
		if g.Name != metricsv1.GroupName {
			continue
		}
		for _, v := range g.Versions {
			for _, r := range v.Resources {
				got = append(got, fmt.Sprint(v.Version, " ", v.Freshness, " ", r.Resource, " ", r.ResponseKind.Kind, " ",
					r.Scope, " ", r.Verbs))
			}
		}
	}
	want := []string{
		"v1 Current nodes NodeMetrics Cluster [get list watch]", "v1 Current pods PodMetrics Namespaced [get list watch]",
		"v1beta1 Current nodes NodeMetrics Cluster [get list watch]",
		"v1beta1 Current pods PodMetrics Namespaced [get list watch]",
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("discovery says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return nil
}

// described returns the version of which the API server has no OpenAPI document. It downloads them
// a second after an APIService was added, and again a minute after that failed.
func described(context.Context) error {
	paths, err := cluster.client.Discovery().OpenAPIV3().Paths()
	if err != nil {
		return err
	}
	for _, version := range []string{"v1", "v1beta1"} {
		if path := "apis/" + metricsv1.GroupName + "/" + version; paths[path] == nil {
			return fmt.Errorf("OpenAPI has no %s", path)
		}
	}
	return nil
}

// theKubectl returns the kubectl that is used where the version does not matter.
func theKubectl() realcluster.Kubectl { return kubectlOf(cluster.kubectls[0]) }

func kubectlOf(program string) realcluster.Kubectl {
	return realcluster.Kubectl{Program: program, Cache: cluster.cache}
}

func kubectl(args ...string) (string, error) { return theKubectl().Run(args...) }

func mustKubectl(t *testing.T, args ...string) string {
	t.Helper()
	return theKubectl().MustRun(t, args...)
}

// eventually fails t if f does not return nil in time.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	realcluster.Within(t, patience, what, f)
}

// always fails t if f returns an error within the time.
func always(t *testing.T, what string, period time.Duration, f func() error) {
	t.Helper()
	for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(time.Second) {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// namespace creates a namespace for t and removes it after t. Its pods may do anything.
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
		if err := namespaces.Delete(context.Background(), n.Name, metav1.DeleteOptions{}); err != nil &&
			!apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return n.Name
}

// workload is a container of ./workload's image.
func workload(name string, args ...string) corev1.Container {
	return corev1.Container{Name: name, Image: cluster.image, ImagePullPolicy: corev1.PullIfNotPresent, Args: args}
}

// podOf returns a pod that can be created. Its label app is name.
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

// createDeployment creates a Deployment of one replica, whose name is also the label app of its
// pods.
func createDeployment(t *testing.T, namespace, name string, containers ...corev1.Container) {
	t.Helper()
	deploy(t, namespace, podOf(name, containers...))
}

// deploy creates a Deployment of one replica with the name of pod, which is its template.
func deploy(t *testing.T, namespace string, pod *corev1.Pod) {
	t.Helper()
	_, err := cluster.client.AppsV1().Deployments(namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// patchServer changes the server's Deployment and waits until that is rolled out.
func patchServer(t *testing.T, patch string) {
	t.Helper()
	_, err := cluster.client.AppsV1().Deployments(serverNamespace).Patch(
		context.Background(), serverName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	err = realcluster.Poll(patience, func() error {
		d, err := cluster.client.AppsV1().Deployments(serverNamespace).Get(
			context.Background(), serverName, metav1.GetOptions{},
		)
		if err != nil {
			return err
		}
		return realcluster.RolledOut(d)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// scaleServer scales the server to n replicas and waits until they exist.
func scaleServer(t *testing.T, n int) {
	t.Helper()
	patchServer(t, fmt.Sprintf(`{"spec":{"replicas":%d}}`, n))
	if n > 0 {
		eventually(t, "the server is back", func() error { return allWell(context.Background()) })
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

// servedWith returns how the served usage of a pod differs from these containers.
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

// podHTTP sends a request to port 8080 of a pod through the API server.
func podHTTP(ctx context.Context, namespace, pod, path string, params map[string]string) ([]byte, error) {
	return cluster.client.CoreV1().Pods(namespace).ProxyGet("http", pod, "8080", path, params).DoRaw(ctx)
}

// rawGet sends a request to the API server with credentials other than the administrator's, and
// returns status and body.
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
