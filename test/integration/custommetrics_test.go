//go:build integration

package integration

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"metrics-server/pkg/kubeapi"
)

// customServer names the objects of deploy/kustomize/custom-metrics.
const customServer = "custom-metrics-server"

// installCustomMetrics applies deploy/kustomize/custom-metrics until the test ends, with options for kubectl, and
// returns a fleet without nodes that has the service account of the custom metrics server.
func installCustomMetrics(t *testing.T, options ...string) *fleet {
	t.Helper()
	return installCustom(t, "custom-metrics", options...)
}

// installCustom is installCustomMetrics with another kustomization.
func installCustom(t *testing.T, kustomization string, options ...string) *fleet {
	t.Helper()
	manifest := "../../deploy/kustomize/" + kustomization
	kubectl(t, append([]string{"apply", "-k", manifest}, options...)...)
	t.Cleanup(func() { kubectl(t, "delete", "-k", manifest, "--ignore-not-found") })
	aggregateScales(t)
	return &fleet{
		name: label(t.Name()), token: token(t, "kube-system", customServer), api: cluster.admin.Host,
		env: []string{"POD_NAMESPACE=kube-system"},
	}
}

// aggregateScales does the work of kube-controller-manager, which does not run here: it fills in
// the rules of the ClusterRole that aggregates others.
func aggregateScales(t *testing.T) {
	t.Helper()
	roles := cluster.client.RbacV1().ClusterRoles()
	parts, err := roles.List(t.Context(), metav1.ListOptions{LabelSelector: kubeapi.ScaleReaderLabel + "=true"})
	if err != nil {
		t.Fatal(err)
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		whole, err := roles.Get(t.Context(), "system:custom-metrics-server-scales", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, part := range parts.Items {
			whole.Rules = append(whole.Rules, part.Rules...)
		}
		_, err = roles.Update(t.Context(), whole, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCustomMetricsRights checks that the custom metrics server asks of the API server everything that deploy/ gives
// it the right to, and nothing else. The rights are read from the API server, to which deploy/ is applied;
// hack/manifests has them one by one.
func TestCustomMetricsRights(t *testing.T) {
	const namespace = "custom-metrics-rights"
	f := installCustomMetrics(t)
	kubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--wait=false") })
	autoscalers := cluster.client.AutoscalingV2().HorizontalPodAutoscalers(namespace)
	for kind, apiVersion := range map[string]string{
		"Deployment": "apps/v1", "ReplicaSet": "apps/v1", "StatefulSet": "apps/v1", "ReplicationController": "v1",
	} {
		target := resource.MustParse("1")
		hpa := &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(kind)},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: apiVersion, Kind: kind, Name: "web"},
				MaxReplicas:    2,
				Metrics: []autoscalingv2.MetricSpec{
					{
						Type: autoscalingv2.PodsMetricSourceType,
						Pods: &autoscalingv2.PodsMetricSource{
							Metric: autoscalingv2.MetricIdentifier{Name: "requests"},
							Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &target},
						},
					},
					{
						Type: autoscalingv2.ObjectMetricSourceType,
						Object: &autoscalingv2.ObjectMetricSource{
							DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "web"},
							Metric:          autoscalingv2.MetricIdentifier{Name: "requests"},
							Target:          autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: &target},
						},
					},
				},
			},
		}
		if _, err := autoscalers.Create(t.Context(), hpa, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = autoscalers.Delete(context.Background(), hpa.Name, metav1.DeleteOptions{}) })
	}
	s := f.start(t, "custom-metrics", "--serving-certificate-secret="+customServer+"-serving")
	s.ready(t)
	// The server asks who the client is, and what it may do.
	path := "/apis/custom.metrics.k8s.io/v1beta2/namespaces/" + namespace + "/pods/*/requests"
	if code, body, err := s.get(path, token(t, "default", "stranger")); err != nil || code != 403 {
		t.Errorf("a stranger asks for a metric: %d %s %v, want 403", code, body, err)
	}

	want := granted(t, []string{
		"system:custom-metrics-server", "system:custom-metrics-server-scales", "system:auth-delegator",
	}, [][2]string{{"kube-system", customServer + "-serving"}})
	// These are used only where watches do not begin with a list.
	streamed := []string{"list horizontalpodautoscalers", "list pods", "list services", "list configmaps"}
	for _, right := range streamed {
		delete(want, right)
	}
	eventually(t, "the rights that are used are those that are given", func() error {
		used := asked(t, customServer)
		for _, right := range streamed {
			delete(used, right)
		}
		// Everybody may read what the API server serves.
		maps.DeleteFunc(used, func(right string, _ bool) bool {
			return strings.HasPrefix(right, "get /api") || right == "get /version" ||
				right == "create selfsubjectaccessreviews"
		})
		if diff := cmp.Diff(want, used); diff != "" {
			return fmt.Errorf("rights (-given +used):\n%s", diff)
		}
		return nil
	})
}

// registerProgram registers a program that serves v1beta1 of an API group, which is also the name of its Service and of
// the only resource in discovery, until the test ends.
func registerProgram(t *testing.T, group, name string) {
	t.Helper()
	program := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"%s/v1beta1",`+
			`"resources":[{"name":%q,"kind":"MetricValueList","namespaced":true,"verbs":["get"]}]}`, group, name)
	}))
	t.Cleanup(program.Close)
	_, port, err := net.SplitHostPort(program.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "create", "service", "externalname", name, "--external-name=localhost")
	t.Cleanup(func() { kubectl(t, "delete", "service", name) })
	file := filepath.Join(t.TempDir(), "apiservice.yaml")
	err = os.WriteFile(file, []byte(`
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.`+group+`}
spec:
  group: `+group+`
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: `+name+`, namespace: default, port: `+port+`}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-f", file)
	t.Cleanup(func() { kubectl(t, "delete", "-f", file, "--ignore-not-found") })
}

// askAPI sends a request to the API server as an administrator. The path may have parameters.
func askAPI(path string) (string, error) {
	body, err := cluster.client.Discovery().RESTClient().Get().RequestURI(path).DoRaw(context.Background())
	return string(body), err
}

// leadCustom has the Service of the custom metrics server lead to this process: that of deploy/ selects pods, of which
// there are none here.
func leadCustom(t *testing.T) {
	t.Helper()
	kubectl(t, "delete", "service", "-n", "kube-system", customServer)
	kubectl(t, "create", "service", "externalname", "-n", "kube-system", customServer, "--external-name=localhost")
}
