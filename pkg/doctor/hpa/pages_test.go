package hpa

import (
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/doctor"
)

// TestUnreachablePages checks what is said of pages that the API server cannot reach. The custom metrics server has a
// path of its own to the pods, so its values and errors decide.
func TestUnreachablePages(t *testing.T) {
	const notAccepted = "the connection is not accepted in time"
	all := func(c *fakeCluster) {
		for _, p := range c.pods {
			c.unreachable(p.Name, "dial tcp 10.0.0.1:9090: i/o timeout")
		}
	}
	unknown := doctor.Line{
		Check: checkPages, Status: doctor.Unknown, Message: "3 of 3 pods (web-a, web-b, web-c): " + notAccepted,
		Cause:  "only the API server may be unable to reach the page",
		Remedy: "only the custom metrics server may reach the pods",
	}
	condition := doctor.Line{Check: checkController, Status: doctor.Problem}
	for name, tc := range map[string]struct {
		change func(*fakeCluster)
		want   []doctor.Line // all that are not OK
	}{
		"all pods have values": {all, []doctor.Line{unknown}},
		"access is denied, and all pods have values": {
			func(c *fakeCluster) { c.eachPage(page{403, "text/plain", "RBAC: access denied", false}) },
			[]doctor.Line{{Check: checkPages, Status: doctor.Unknown, Message: "3 of 3 pods (web-a, web-b, web-c): HTTP 403"}},
		},
		"one pod has no value": {
			func(c *fakeCluster) {
				all(c)
				c.objects[pathValue] = values(map[string]string{"web-a": "1k", "web-b": "1k"})
			},
			[]doctor.Line{
				{Check: checkPages, Status: doctor.Unknown, Message: "2 of 3 pods (web-a, web-b): " + notAccepted},
				{Check: checkPages, Status: doctor.Warning, Message: "1 of 3 pods (web-c): " + notAccepted},
			},
		},
		"an object has a value": {
			func(c *fakeCluster) {
				all(c)
				c.hpa.Spec.Metrics[0] = objectMetric("queue_length",
					autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
					autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("2"))})
				const path = customRoot + "/v1beta2/namespaces/default/deployments.apps/web/queue_length"
				c.objects[path] = values(map[string]string{"web": "2"})
			},
			[]doctor.Line{unknown},
		},
		"no value, for a reason on the page": {
			func(c *fakeCluster) {
				all(c)
				c.unserved("the pod exposes no metric packets-per-second; did you mean packets?")
			},
			[]doctor.Line{
				unknown, condition,
				{Check: checkServed, Status: doctor.Problem, Message: "did you mean packets?", Remedy: "do what the message says"},
			},
		},
		"no value, for the same reason": {
			func(c *fakeCluster) {
				all(c)
				c.unserved("pod web-a at http://10.0.0.1:9090/metrics: " + notAccepted + ": check that a NetworkPolicy lets ...")
			},
			[]doctor.Line{condition, {Check: checkPages, Status: doctor.Problem, Message: "3 of 3 pods"}},
		},
		"no value, because access is denied to both": {
			func(c *fakeCluster) {
				c.eachPage(page{401, "text/plain", "", false})
				c.unserved("pod web-a at http://10.0.0.1:9090/metrics: it answers 401 Unauthorized: serve the metrics without ...")
			},
			[]doctor.Line{condition, {Check: checkPages, Status: doctor.Problem, Message: "HTTP 401 Unauthorized"}},
		},
		"no value, for another reason on the way": {
			func(c *fakeCluster) {
				all(c)
				c.unserved("pod web-a at http://10.0.0.1:9090/metrics: it answers 404 Not Found")
			},
			[]doctor.Line{
				condition,
				{Check: checkPages, Status: doctor.Problem, Message: "3 of 3 pods"},
				{Check: checkServed, Status: doctor.Problem, Message: "404 Not Found"},
			},
		},
		"the value cannot be read": {
			func(c *fakeCluster) {
				all(c)
				c.refuse(pathValue, 403, metav1.StatusReasonForbidden, "no right")
			},
			[]doctor.Line{unknown, {Check: checkServed, Status: doctor.Unknown}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			tc.change(c)
			checkFindings(t, c.run(), tc.want)
		})
	}
}
