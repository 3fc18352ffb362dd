//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// backendHPA has a metric of each type, which a backend has by default.
const backendHPA = `
apiVersion: v1
kind: Namespace
metadata: {name: backends}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: backends}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: none}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: web
  namespace: backends
  annotations:
    metrics-server/queries: |
      hits: sum(ingress_hits{ingress="front"})
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 5
  metrics:
  - {type: Pods, pods: {metric: {name: queue}, target: &average {type: AverageValue, averageValue: "10"}}}
  - type: Object
    object:
      metric: {name: hits}
      describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: front}
      target: *average
  - type: External
    external: {metric: {name: backlog, selector: {matchLabels: {topic: orders}}}, target: *average}
`

// backendSeries are those of the backend.
const backendSeries = `
queue{namespace="backends",pod="web-0"} 7
queue{namespace="backends",pod="web-1"} 0
queue{namespace="backends",pod="web-9"} 9
queue{namespace="elsewhere",pod="web-0"} 100
ingress_hits{namespace="backends",ingress="front",controller="a"} 4
ingress_hits{namespace="backends",ingress="front",controller="b"} 5
ingress_hits{namespace="backends",ingress="back",controller="a"} 100
backlog{namespace="backends",topic="orders",partition="0"} 20
backlog{namespace="backends",topic="orders",partition="1"} 30
backlog{namespace="elsewhere",topic="orders",partition="0"} 100
`

// TestBackend checks that a real API server, whose HPAs refer to metrics of a real VictoriaMetrics, gets their values
// through its aggregator, with the rights of deploy/. hack/backends has more tests with Prometheus and VictoriaMetrics.
func TestBackend(t *testing.T) {
	const namespace = "backends"
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	url := "http://127.0.0.1:" + ports[0]
	victoria, err := cluster.run("victoria-metrics", "../../bin/victoria-metrics", "-httpListenAddr=127.0.0.1:"+ports[0],
		"-storageDataPath="+filepath.Join(t.TempDir(), "data"), "-memory.allowedBytes=256MiB", "-loggerLevel=WARN")
	if err != nil {
		t.Fatalf("%v: run these tests by `make test-integration`", err)
	}
	t.Cleanup(func() { _ = victoria.kill() })
	eventually(t, "VictoriaMetrics has the series", func() error {
		resp, err := http.Post(url+"/api/v1/import/prometheus", "text/plain", strings.NewReader(backendSeries))
		if err != nil {
			return err
		}
		if resp.Body.Close(); resp.StatusCode/100 != 2 {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	})
	dir := t.TempDir()
	file, hpa := filepath.Join(dir, "backends.yaml"), filepath.Join(dir, "hpa.yaml")
	for name, content := range map[string]string{
		file: "backends: [{name: main, url: " + url + ", interval: 1s, parameters: {latency_offset: 1s}}]\ndefault: main",
		hpa:  backendHPA,
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := installCustom(t, externalOverlay)
	kubectl(t, "apply", "-f", hpa)
	t.Cleanup(func() { kubectl(t, "delete", "-f", hpa, "--wait=false") })
	f.labels = map[string]string{"app": "web"}
	for _, name := range []string{"web-0", "web-1"} {
		f.addReadyPod(t, namespace, name)
	}

	s := f.start(t, "custom-metrics", "--external-metrics", "--config="+file,
		"--serving-certificate-secret="+customServer+"-serving")
	s.ready(t)
	s.aggregateCustom(t)
	const custom = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/" + namespace
	const external = "/apis/external.metrics.k8s.io/v1beta1/namespaces/" + namespace
	for path, want := range map[string]string{
		custom + "/pods/*/queue?labelSelector=app%3Dweb":   "web-0=7 web-1=0 ",
		custom + "/ingresses.networking.k8s.io/front/hits": "front=9 ",
		external + "/backlog?labelSelector=topic%3Dorders": "=50 ",
	} {
		eventually(t, path, func() error {
			out, err := cluster.kubectl("get", "--raw", path)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			if got, err := valuesIn(out); err != nil || got != want {
				return fmt.Errorf("%q (%w), want %q", got, err, want)
			}
			return nil
		})
	}

	if err := victoria.kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the answer says why there is no value any more", func() error {
		out, err := cluster.kubectl("get", "--raw", custom+"/pods/*/queue?labelSelector=app%3Dweb")
		if err == nil || !strings.Contains(out, `backend "main" refused the connection: check that it runs`) {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// addReadyPod creates a pod that runs and is ready.
func (f *fleet) addReadyPod(t *testing.T, namespace, name string) {
	t.Helper()
	f.addPod(t, namespace, name, "")
	pods := cluster.client.CoreV1().Pods(namespace)
	pod, err := pods.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.Conditions = []corev1.PodCondition{{
		Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(),
	}}
	if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// valuesIn returns the names and values of a list of custom or external metrics.
func valuesIn(body string) (string, error) {
	var list struct {
		Items []struct {
			DescribedObject struct{ Name string }
			Value           string
		}
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		return "", err
	}
	var all strings.Builder
	for _, i := range list.Items {
		fmt.Fprintf(&all, "%s=%s ", i.DescribedObject.Name, i.Value)
	}
	return all.String(), nil
}
