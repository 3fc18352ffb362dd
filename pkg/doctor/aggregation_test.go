package doctor

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubeapi"
)

func TestAggregationIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
		"no flags of the aggregator": {
			broken: func(c *fakeCluster) { c.objects[pathConfig] = &corev1.ConfigMap{} },
			want: Line{
				Check: checkAggregation, Status: Problem, Message: "has no requestheader-client-ca-file",
				Cause: "without the flags", Remedy: "--requestheader-client-ca-file",
			},
		},
		"no ConfigMap": {
			broken: func(c *fakeCluster) { delete(c.objects, pathConfig) },
			want: Line{
				Check: checkAggregation, Status: Problem, Message: "has no requestheader-client-ca-file",
				Cause: "without the flags", Remedy: "--proxy-client-cert-file",
			},
		},
		"front proxy without a valid certificate": {
			broken: func(c *fakeCluster) { c.objects[pathConfig].(*corev1.ConfigMap).Data[kubeapi.FrontProxyCAKey] = "old" },
			want: Line{
				Check: checkAggregation, Status: Problem, Message: "has no valid certificate", Cause: "it is not PEM",
				Remedy: "renew",
			},
		},
		"own front proxy authority": {broken: func(c *fakeCluster) {
			c.objects[pathConfig] = &corev1.ConfigMap{}
			c.flags.RequestHeaderCA = true
		}, want: Line{Check: checkAggregation, Status: OK, Message: "its own --requestheader-client-ca-file"}},
		"front proxy is not believed": {
			broken: func(c *fakeCluster) { c.refuse(pathNodeUsage, 401, metav1.StatusReasonUnauthorized, "Unauthorized") },
			want: Line{
				Check: checkAggregation, Status: Problem, Message: "Unauthorized",
				Cause: "does not trust the client certificate", Remedy: "requestheader-client-ca-file",
			},
		},
		"front proxy's name is not allowed": {broken: func(c *fakeCluster) {
			c.objects[pathConfig].(*corev1.ConfigMap).Data[allowedNamesKey] = `["front-proxy-client","aggregator"]`
			c.refuse(pathNodeUsage, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
		}, want: Line{
			Check: checkAggregation, Status: Problem, Message: "Unauthorized",
			Cause:  "only the common names front-proxy-client, aggregator are allowed",
			Remedy: "--requestheader-allowed-names",
		}},
		"front proxy is anonymous": {broken: func(c *fakeCluster) {
			c.refuse(pathNodeUsage, 403, metav1.StatusReasonForbidden,
				`nodes.metrics.k8s.io is forbidden: User "system:anonymous" cannot list`)
		}, want: Line{Check: checkAggregation, Status: Problem, Cause: "anonymous", Remedy: "--proxy-client-cert-file"}},
		"unable to handle the request": {
			broken: apiServiceUnavailable("MissingEndpoints", "none"),
			want: Line{
				Check: checkAggregation, Status: Problem, Message: "unable to handle the request",
				Cause: "cannot forward the request", Remedy: "apiservice",
			},
		},
	})
}

// TestOneVersionServed checks that a leftover APIService, for example after a return to another server, does not keep
// the other version from being checked: autoscalers read that one.
func TestOneVersionServed(t *testing.T) {
	c := newCluster(t)
	c.objects[pathDiscovery+"/nodes"] = c.objects[pathNodeUsage]
	c.objects[pathDiscovery+"/pods"] = c.objects[pathPodUsage]
	c.refuse(pathNodeUsage, 503, metav1.StatusReasonServiceUnavailable, "the server is currently unable to handle the "+
		"request")
	r := c.run()
	for _, want := range []Line{
		{Check: checkAggregation, Status: Problem, Message: "a request for " + pathNodeUsage, Cause: "cannot forward"},
		{Check: checkAggregation, Status: OK, Message: pathDiscovery + "/nodes is served"},
		{Check: checkServed, Status: OK, Message: "2 of 2 nodes have metrics"},
		{Check: checkServed, Status: OK, Message: "1 of 2 running pods have metrics"},
	} {
		if len(find(r, want)) != 1 {
			t.Errorf("no line like %+v in\n%s", want, text(t, r))
		}
	}
}
