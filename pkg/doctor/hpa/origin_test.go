package hpa

import (
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
)

// TestOtherProgram checks that metrics which another program serves are not judged by the rules of this project.
func TestOtherProgram(t *testing.T) {
	looks := doctor.Line{Check: checkAPIService, Status: doctor.Warning, Message: "does not look like this project's"}
	mistake := doctor.Line{
		Check: checkHPA, Status: doctor.Warning, Message: "metrics-server/windows", Cause: "this has no effect",
	}
	ingress := func(c *fakeCluster) {
		c.hpa.Spec.Metrics[0] = objectMetric("requests-per-second", autoscalingv2.CrossVersionObjectReference{
			APIVersion: "example.com/v1", Kind: "Widget", Name: "front",
		}, autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("10"))})
		const path = customRoot + "/v1beta2/namespaces/default/widgets.example.com/front/requests-per-second"
		c.objects[path] = values(map[string]string{"front": "10"})
	}
	for name, tc := range map[string]struct {
		change   func(*fakeCluster)
		want     []doctor.Line
		overview doctor.Status // of the line about the HPA
	}{
		"a metric whose name is from a rule": {
			func(c *fakeCluster) { c.eachPage(page{200, "text/plain", "# TYPE other gauge\nother 1\n", false}) },
			[]doctor.Line{looks},
			doctor.OK,
		},
		"an object without a scale": {ingress, []doctor.Line{looks}, doctor.OK},
		"an expression that the custom metrics server would refuse": {
			func(c *fakeCluster) { c.hpa.Annotations[kubeapi.QueriesAnnotation] = "packets-per-second: sum(" },
			[]doctor.Line{looks, {
				Check: checkMetric, Status: doctor.Warning, Message: "what the annotations say of it has no effect",
				Cause: "custom.metrics.k8s.io is served by the Service " + adapter, Remedy: "(docs/moving.md)",
			}},
			doctor.OK,
		},
		"an unknown annotation": {
			func(c *fakeCluster) { c.hpa.Annotations["metrics-server/windows"] = "30s" },
			[]doctor.Line{looks, mistake},
			doctor.Warning,
		},
		"an unknown annotation, and an external metric of the custom metrics server": {
			func(c *fakeCluster) {
				pods := c.hpa.Spec.Metrics[0]
				c.serveExternal(ourService, kubeapi.AnyResource)
				c.hpa.Spec.Metrics = append(c.hpa.Spec.Metrics, pods)
				c.hpa.Annotations["metrics-server/windows"] = "30s"
			},
			[]doctor.Line{looks, {Check: checkHPA, Status: doctor.Problem, Message: "metrics-server/windows"}},
			doctor.Problem,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.objects[pathCustom], c.objects[pathCustom1] = registered("v1beta2", adapter), registered("v1beta1", adapter)
			tc.change(c)
			checkFindings(t, c.run(), tc.want)
			r, err := Run(t.Context(), Config{Rest: &rest.Config{Host: c.host}})
			if err != nil {
				t.Fatal(err)
			}
			if len(find(r, doctor.Line{Check: "default/web", Status: tc.overview})) != 1 {
				t.Errorf("the overview does not have status %s:\n%s", tc.overview, text(t, r))
			}
		})
	}
}
