package doctor

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestAPIServiceIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
		"not installed": {broken: func(c *fakeCluster) {
			delete(c.objects, pathV1)
			delete(c.objects, pathV1beta1)
		}, want: Line{
			Check: checkAPIService, Status: Problem, Message: "no APIService", Cause: "not installed",
			Remedy: "apply all manifests",
		}},
		"manifest of the incumbent": {
			broken: func(c *fakeCluster) { delete(c.objects, pathV1) },
			want: Line{
				Check: checkAPIService, Status: Warning, Message: "v1.metrics.k8s.io is not registered",
				Cause: "only v1beta1", Remedy: "apply the APIService v1.",
			},
		},
		"v1 only": {
			broken: func(c *fakeCluster) { delete(c.objects, pathV1beta1) },
			want: Line{
				Check: checkAPIService, Status: Problem, Message: "v1beta1.metrics.k8s.io is not registered",
				Cause: "only in part", Remedy: "apply the APIService v1beta1.",
			},
		},
		"two owners": {broken: func(c *fakeCluster) {
			c.objects[pathV1beta1].(*apiService).Spec.Service.Name = "old-metrics-server"
		}, want: Line{
			Check: checkAPIService, Status: Problem, Message: "different Services", Cause: "two programs",
			Remedy: "point both APIServices to the same Service",
		}},
		"foreign owner": {broken: func(c *fakeCluster) {
			c.objects[pathV1beta1].(*apiService).Spec.Service.Name = "prometheus-adapter"
		}, want: Line{
			Check: checkAPIService, Status: Warning,
			Message: "v1beta1.metrics.k8s.io points to the Service kube-system/prometheus-adapter",
			Cause:   "a program other than metrics-server", Remedy: "find out who changed the APIService",
		}},
		"local APIService": {broken: func(c *fakeCluster) { c.objects[pathV1].(*apiService).Spec.Service = nil }, want: Line{
			Check: checkAPIService, Status: Problem, Message: "points to no Service", Cause: "itself serves",
			Remedy: "kubectl delete apiservice v1.metrics.k8s.io",
		}},
		"aggregator does not run": {broken: func(c *fakeCluster) {
			c.objects[pathV1].(*apiService).Status.Conditions = nil
		}, want: Line{
			Check: checkAPIService, Status: Problem, Message: "no condition Available", Cause: "aggregator does not run",
			Remedy: "API server's log",
		}},
		"expired caBundle": {broken: func(c *fakeCluster) {
			c.objects[pathV1].(*apiService).Spec.InsecureSkipTLSVerify = false
			c.objects[pathV1].(*apiService).Spec.CABundle = []byte("expired")
		}, want: Line{
			Check: checkAPIService, Status: Problem, Message: "caBundle without a valid certificate", Cause: "expired",
			Remedy: remedyTrust + "With your own --tls-cert-file: put the authority",
		}},
		"missing endpoints": {
			broken: apiServiceUnavailable("MissingEndpoints",
				`endpointslices for service/metrics-server in "kube-system" have no addresses with port name "https"`),
			want: Line{
				Check: checkAPIService, Status: Problem, Message: "MissingEndpoints",
				Cause: "no pod of the server is ready", Remedy: "service and pods",
			},
		},
		"discovery: no route": {
			broken: apiServiceUnavailable("FailedDiscoveryCheck", "failing or missing response from https://"+
				"10.88.0.65:10250/apis/metrics.k8s.io/v1: Get ...: dial tcp 10.88.0.65:10250: connect: no route to host"),
			want: Line{
				Check: checkAPIService, Status: Problem, Message: "no route to host",
				Cause: "the control plane cannot reach the address", Remedy: "hostNetwork: true",
			},
		},
		"discovery: no network": {
			broken: apiServiceUnavailable("FailedDiscoveryCheck", "failing or missing response from https://"+
				"10.88.0.65:10250/apis/metrics.k8s.io/v1: Get ...: dial tcp 10.88.0.65:10250: connect: network is unreachable"),
			want: Line{
				Check: checkAPIService, Status: Problem, Message: "network is unreachable",
				Cause: "the control plane cannot reach the address", Remedy: "hostNetwork: true",
			},
		},
		"discovery: timeout": {
			broken: apiServiceUnavailable("FailedDiscoveryCheck", "failing or missing response from https://"+
				"10.96.0.9:443/apis/metrics.k8s.io/v1: context deadline exceeded"),
			want: Line{
				Check: checkAPIService, Status: Problem, Cause: "the control plane cannot reach the address",
				Remedy: "firewalls, network policies",
			},
		},
		"discovery: proxy": {
			broken: apiServiceUnavailable("FailedDiscoveryCheck", "failing or missing response from https://"+
				"10.96.0.9:443/apis/metrics.k8s.io/v1: proxyconnect tcp: dial tcp 10.1.1.1:3128: connect: connection refused"),
			want: Line{Check: checkAPIService, Status: Problem, Cause: "through a proxy (HTTPS_PROXY)", Remedy: "NO_PROXY"},
		},
		"discovery: refused": {
			broken: apiServiceUnavailable("FailedDiscoveryCheck", "failing or missing response from https://"+
				"10.88.0.65:4443/apis/metrics.k8s.io/v1: dial tcp 10.88.0.65:4443: connect: connection refused"),
			want: Line{Check: checkAPIService, Status: Problem, Cause: "nothing listens", Remedy: "the same"},
		},
		"discovery: certificate": {
			broken: apiServiceUnavailable("FailedDiscoveryCheck", "failing or missing response from https://"+
				"10.88.0.65:443/apis/metrics.k8s.io/v1: tls: failed to verify certificate: "+
				"x509: certificate is valid for localhost, not metrics-server.kube-system.svc"),
			want: Line{
				Check: checkAPIService, Status: Problem, Cause: "caBundle",
				Remedy: "pass --serving-certificate-secret=metrics-server-serving (a patch that replaces all args drops it)",
			},
		},
		"discovery: old certificate": {
			broken: apiServiceUnavailable("FailedDiscoveryCheck", "failing or missing response from https://"+
				"10.88.0.65:443/apis/metrics.k8s.io/v1: tls: failed to verify certificate: x509: certificate has expired or is "+
				"not yet valid: current time 2026-11-30T23:00:00Z is after 2026-11-29T12:00:00Z"),
			want: Line{
				Check: checkAPIService, Status: Problem, Cause: "has expired or is not valid yet", Remedy: "renew it",
			},
		},
		"discovery: identity": {
			broken: apiServiceUnavailable("FailedDiscoveryCheck", "failing or missing response from https://"+
				"10.96.0.9:443/apis/metrics.k8s.io/v1beta1: "+
				"bad status from https://10.96.0.9:443/apis/metrics.k8s.io/v1beta1: 401"),
			want: Line{
				Check: checkAPIService, Status: Problem, Cause: "does not trust the client certificate",
				Remedy: "requestheader-client-ca-file",
			},
		},
		"service not found": {
			broken: apiServiceUnavailable("ServiceNotFound", `service/metrics-server in "monitoring" is not present`),
			want: Line{
				Check: checkAPIService, Status: Problem, Cause: "another installation", Remedy: "delete the APIService",
			},
		},
		"service port": {
			broken: apiServiceUnavailable("ServicePortError",
				`service/metrics-server in "kube-system" is not listening on port 4443`),
			want: Line{
				Check: checkAPIService, Status: Problem, Cause: "the Service does not have", Remedy: "spec.service.port",
			},
		},
		"unheard of": {
			broken: apiServiceUnavailable("Strange", "never seen"),
			want: Line{
				Check: checkAPIService, Status: Problem, Message: "Strange: never seen",
				Cause: "no reason beyond this message", Remedy: "logs of the API server",
			},
		},
	})
}

// apiServiceUnavailable sets the condition Available of the APIServices to false.
func apiServiceUnavailable(reason, message string) func(*fakeCluster) {
	return func(c *fakeCluster) { c.unavailable(reason, message) }
}

func TestServiceIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
		"no service": {
			broken: func(c *fakeCluster) { delete(c.objects, pathService) },
			want: Line{
				Check: checkService, Status: Problem, Message: "does not exist", Cause: "not installed there",
				Remedy: "--namespace",
			},
		},
		"no endpoints": {
			broken: func(c *fakeCluster) { c.objects[pathSlices] = &discoveryv1.EndpointSliceList{} },
			want: Line{
				Check: checkService, Status: Problem, Message: "no endpoint for port https", Cause: "selector",
				Remedy: "pods' labels",
			},
		},
		"no ready endpoints": {broken: func(c *fakeCluster) {
			c.objects[pathSlices].(*discoveryv1.EndpointSliceList).Items[0].Endpoints[0].Conditions.Ready = new(false)
		}, want: Line{
			Check: checkService, Status: Problem, Message: "no ready endpoint", Cause: "1 endpoint, none of them ready",
			Remedy: "check pods",
		}},
		"no such port": {
			broken: func(c *fakeCluster) { c.objects[pathService].(*corev1.Service).Spec.Ports[0].Port = 8443 },
			want: Line{
				Check: checkService, Status: Problem, Message: "has no port 443", Cause: "APIService names",
				Remedy: "spec.service.port",
			},
		},
		"port is not named": {
			broken: func(c *fakeCluster) { c.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }) },
			want: Line{
				Check: checkService, Status: Problem, Message: `port "https", which the pods do not have`,
				Cause: "no container", Remedy: "give the container's port the name",
			},
		},
		"another secure port": {broken: func(c *fakeCluster) {
			c.objects[pathService].(*corev1.Service).Spec.Ports[0].TargetPort = intstr.FromInt32(4443)
		}, want: Line{
			Check: checkService, Status: Problem, Message: "sends to port 4443, but the server listens on 10250",
			Cause: "--secure-port", Remedy: "the same",
		}},
	})
}

// TestAnotherProgram checks that a program such as prometheus-adapter is not said to lack what only metrics-server
// needs.
func TestAnotherProgram(t *testing.T) {
	c := newCluster(t)
	delete(c.objects, pathV1)
	c.objects[pathV1beta1].(*apiService).Spec.Service.Name = "prometheus-adapter"
	c.objects["/api/v1/namespaces/kube-system/services/prometheus-adapter"] = c.objects[pathService]
	c.pod(func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "prometheus-adapter"
		s := &p.Spec.Containers[0]
		s.Name, s.Image = "prometheus-adapter", "registry.k8s.io/prometheus-adapter/prometheus-adapter:v0.12.0"
		s.Args = []string{"--config=/etc/config.yaml", "--prometheus-url=http://prometheus:9090", "--secure-port=6443"}
		s.Ports[0].ContainerPort = 6443
	})
	c.flags.Port = 6443
	r := c.run()
	unchecked := Line{
		Check: checkAccess, Status: Unknown, Message: "the rights of pod kube-system/metrics-server-1", Remedy: "none",
	}
	if r.Status != Warning || len(find(r, unchecked)) != 1 || strings.Contains(text(t, r), "-- /metrics-server doctor") {
		t.Error(text(t, r))
	}
}
