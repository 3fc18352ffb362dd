//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/metrics/pkg/client/external_metrics"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/doctor/hpa"
)

// externalOverlay is the installation with external metrics, below deploy/kustomize.
const externalOverlay = "overlays/custom-metrics-external"

// externalHPA creates an HPA with a metric of type External of the Service "exporter" in a namespace of its own, until
// the test ends.
func externalHPA(t *testing.T, namespace, metric string) {
	t.Helper()
	kubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() { kubectl(t, "delete", "namespace", namespace, "--wait=false") })
	target := resource.MustParse("1")
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Name: "worker", Annotations: map[string]string{"metrics-server/targets": metric + ": service/exporter:9121"},
		},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{
				APIVersion: "apps/v1", Kind: "Deployment", Name: "worker",
			},
			MinReplicas: new(int32(0)), MaxReplicas: 2,
			Metrics: []autoscalingv2.MetricSpec{{
				Type: autoscalingv2.ExternalMetricSourceType,
				External: &autoscalingv2.ExternalMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: metric},
					Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &target},
				},
			}},
		},
	}
	autoscalers := cluster.client.AutoscalingV2().HorizontalPodAutoscalers(namespace)
	if _, err := autoscalers.Create(t.Context(), hpa, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = autoscalers.Delete(context.Background(), hpa.Name, metav1.DeleteOptions{}) })
}

// aggregateCustom has the APIServices of custom and external metrics lead to s, and waits until s has made the API
// server trust it.
func (s *metricsServer) aggregateCustom(t *testing.T) {
	t.Helper()
	leadCustom(t)
	for _, name := range []string{"v1beta1.external", "v1beta1.custom", "v1beta2.custom"} {
		kubectl(t, "patch", "apiservice", name+".metrics.k8s.io", "--type=merge", "-p", `{"spec":{"service":{"port":`+
			s.port+`}}}`)
		eventually(t, "the server makes "+name+" trust it", func() error {
			bundle := kubectl(t, "get", "apiservice", name+".metrics.k8s.io", "-o", "jsonpath={.spec.caBundle}")
			if bundle == "" {
				return errors.New("there is no caBundle")
			}
			return nil
		})
	}
}

// TestExternalMetrics installs external metrics with the rights of deploy/: the server makes the API server trust it,
// is found in discovery, and answers the HPA controller's client through the aggregator.
func TestExternalMetrics(t *testing.T) {
	const namespace, version = "external-metrics", "/apis/external.metrics.k8s.io/v1beta1"
	f := installCustom(t, externalOverlay)
	externalHPA(t, namespace, "queueDepth")
	config := filepath.Join(t.TempDir(), "backends.yaml")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("backends: []")
	s := f.start(t, "custom-metrics", "--external-metrics", "--serving-certificate-secret="+customServer+"-serving",
		"--config="+config)
	s.ready(t)
	path := version + "/namespaces/" + namespace + "/queuedepth"
	if code, body, err := s.get(path, token(t, "default", "stranger")); err != nil || code != 403 {
		t.Errorf("a stranger asks for a metric: %d %s %v, want 403", code, body, err)
	}

	s.aggregateCustom(t)
	eventually(t, "discovery has the group", func() error {
		body, err := askAPI(version)
		if err == nil && !strings.Contains(body, `"name":"*/*"`) {
			err = errors.New(body)
		}
		return err
	})
	client, err := external_metrics.NewForConfig(cluster.admin)
	if err != nil {
		t.Fatal(err)
	}
	for metric, want := range map[string]string{
		"queueDepth": `Service "exporter" does not exist: create it`,
		"queue":      `no HorizontalPodAutoscaler in namespace "` + namespace + `" refers to external metric queue`,
	} {
		eventually(t, "the answer says why there is no value of "+metric, func() error {
			_, err := client.NamespacedMetrics(namespace).List(metric, labels.Everything())
			if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), want) {
				return fmt.Errorf("%w, want %s", err, want)
			}
			return nil
		})
	}

	// The aggregator passes on what the server says only to doctor.
	write("backends: [{name: main}]")
	eventually(t, "doctor says that the server cannot use the administrator's file (--config)", func() error {
		r, err := hpa.Run(t.Context(), hpa.Config{Rest: cluster.admin, Namespace: namespace})
		if err == nil && !slices.ContainsFunc(r.Checks, func(l doctor.Line) bool {
			return l.Check == "backends" && strings.Contains(l.Message, "cannot use the administrator's file (--config)")
		}) {
			err = fmt.Errorf("%+v", r.Checks)
		}
		return err
	})

	// What only external metrics need can be removed, as the document says. The rest stays.
	kubectl(t, "delete", "apiservice", "v1beta1.external.metrics.k8s.io")
	kubectl(t, "delete", "clusterrolebinding", "system:custom-metrics-server-external")
	kubectl(t, "delete", "clusterrole", "system:custom-metrics-server-external",
		"system:aggregated-external-metrics-reader")
	if _, err := askAPI("/apis/custom.metrics.k8s.io/v1beta2"); err != nil {
		t.Errorf("custom metrics are not served any more: %v", err)
	}
}

// TestExternalMetricsOfAnotherProgram checks that a program which serves external metrics already keeps its APIService,
// and is named, and that custom metrics are served all the same.
func TestExternalMetricsOfAnotherProgram(t *testing.T) {
	const program, version = "keda-operator-metrics-apiserver", "/apis/external.metrics.k8s.io/v1beta1"
	registerProgram(t, "external.metrics.k8s.io", program)
	answers := func() error {
		body, err := askAPI(version)
		if err == nil && !strings.Contains(body, program) {
			err = errors.New(body)
		}
		return err
	}
	eventually(t, "the other program answers", answers)

	f := installCustom(t, externalOverlay, "-l", "app.kubernetes.io/component!=apiservice")
	kubectl(t, "apply", "-f", "../../deploy/kustomize/custom-metrics/apiservices.yaml")
	s := f.start(t, "custom-metrics", "--external-metrics", "--serving-certificate-secret="+customServer+"-serving")
	s.ready(t)
	eventually(t, "the server has written the other two APIServices", func() error {
		for _, name := range []string{"v1beta1.custom", "v1beta2.custom"} {
			if kubectl(t, "get", "apiservice", name+".metrics.k8s.io", "-o", "jsonpath={.spec.caBundle}") == "" {
				return fmt.Errorf("%s has no caBundle", name)
			}
		}
		return nil
	})
	said := linesWith(s.output(), "An APIService points to another server and is left alone")
	if len(said) != 1 || !strings.Contains(said[0], "v1beta1.external.metrics.k8s.io") ||
		!strings.Contains(said[0], "default/"+program) || !strings.Contains(said[0], "setBy=") {
		t.Errorf("the log does not name the other program once: %q", said)
	}
	spec := kubectl(t, "get", "apiservice", "v1beta1.external.metrics.k8s.io", "-o", "jsonpath={.spec}")
	if strings.Contains(spec, "caBundle") || !strings.Contains(spec, program) {
		t.Errorf("the APIService of the other program has changed: %s", spec)
	}
	if err := answers(); err != nil {
		t.Errorf("the other program does not answer any more: %v", err)
	}
}
