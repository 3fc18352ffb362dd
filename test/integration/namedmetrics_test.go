//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// gateway creates a pod with a Service in a namespace of its own, until the test ends. This process serves its page.
// Pods at loopback addresses are not scraped, so the pod has this machine's address for outgoing connections.
func gateway(t *testing.T, namespace string, page http.Handler) {
	t.Helper()
	route, err := net.Dial("udp", "192.0.2.1:9") // sends nothing
	if err != nil {
		t.Fatal(err)
	}
	address := route.LocalAddr().(*net.UDPAddr).IP.String()
	_ = route.Close()
	s := httptest.NewUnstartedServer(page)
	_ = s.Listener.Close()
	if s.Listener, err = net.Listen("tcp", net.JoinHostPort(address, "0")); err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Close)
	port := s.Listener.Addr().(*net.TCPAddr).Port

	kubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--wait=false") })
	pods := cluster.client.CoreV1().Pods(namespace)
	p, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "gateway", Labels: map[string]string{"app": "gateway"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "gateway", Image: "gateway"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deletePod(namespace, "gateway") })
	p.Status.Phase, p.Status.PodIP = corev1.PodRunning, address
	p.Status.PodIPs = []corev1.PodIP{{IP: address}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err := pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "create", "service", "clusterip", "gateway", "-n", namespace, fmt.Sprintf("--tcp=80:%d", port))
}

// TestNamedMetrics serves a metric of Ingresses with the rights of deploy/: the pods of a gateway in another namespace
// are scraped, and each namespace gets the values of its own Ingresses.
func TestNamedMetrics(t *testing.T) {
	const edge, shop, blog = "named-edge", "named-shop", "named-blog"
	gateway(t, edge, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "# TYPE connections gauge\nconnections{namespace=%q,ingress=\"front\"} 12\n"+
			"connections{namespace=%q,ingress=\"front\"} 30\n", shop, blog)
	}))
	for _, namespace := range []string{shop, blog} {
		kubectl(t, "create", "namespace", namespace)
		t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--wait=false") })
		target := resource.MustParse("1")
		hpa := &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: "web"},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
				MaxReplicas:    2,
			},
		}
		for _, ingress := range []string{"front", "back"} {
			hpa.Spec.Metrics = append(hpa.Spec.Metrics, autoscalingv2.MetricSpec{
				Type: autoscalingv2.ObjectMetricSourceType,
				Object: &autoscalingv2.ObjectMetricSource{
					DescribedObject: autoscalingv2.CrossVersionObjectReference{
						APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: ingress,
					},
					Metric: autoscalingv2.MetricIdentifier{Name: "connections"},
					Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: &target},
				},
			})
		}
		autoscalers := cluster.client.AutoscalingV2().HorizontalPodAutoscalers(namespace)
		if _, err := autoscalers.Create(t.Context(), hpa, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = autoscalers.Delete(context.Background(), hpa.Name, metav1.DeleteOptions{}) })
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	err := os.WriteFile(file, []byte(`
metrics:
- name: connections
  resource: ingresses.networking.k8s.io
  service: service/`+edge+`/gateway:80
  query: sum by (exported_namespace, ingress) (connections)
  namespaceLabel: exported_namespace
  nameLabel: ingress
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}

	f := installCustomMetrics(t)
	s := f.start(t, "custom-metrics", "--config="+file, "--serving-certificate-secret="+customServer+"-serving")
	s.ready(t)
	admin := bound(t, "autoscaler", "cluster-admin")
	for object, want := range map[string]string{
		shop + "/ingresses.networking.k8s.io/front": `"value":"12"`,
		blog + "/ingresses.networking.k8s.io/front": `"value":"30"`,
		shop + "/ingresses.networking.k8s.io/back":  `no series has exported_namespace=\"` + shop + `\" and ingress=\"back\"`,
		edge + "/ingresses.networking.k8s.io/front": "no HorizontalPodAutoscaler in namespace",
	} {
		eventually(t, "the answer for "+object, func() error {
			code, body, err := s.get("/apis/custom.metrics.k8s.io/v1beta2/namespaces/"+object+"/connections", admin)
			if err == nil && !strings.Contains(body, want) {
				err = errors.New(body)
			}
			if err != nil {
				return fmt.Errorf("%d: %w, want %s", code, err, want)
			}
			return nil
		})
	}
}
