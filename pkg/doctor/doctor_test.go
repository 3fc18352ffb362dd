package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/kubelet/kubelettest"
)

func TestHealthy(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%t", direct), func(t *testing.T) {
			c := newCluster(t)
			c.config.Direct = direct
			r := c.run()
			for _, l := range r.Checks {
				if l.Status != OK && (direct || l.Status != Unknown || !strings.Contains(l.Message, "were not checked")) {
					t.Errorf("%+v", l)
				}
			}
			if r.ExitCode() != 0 || len(r.Nodes) != 2 {
				t.Errorf("exit code %d, %d nodes", r.ExitCode(), len(r.Nodes))
			}
			for _, check := range []string{checkVersions, checkAPIService, checkService, checkPods, checkAggregation, checkAccess, checkNodes, checkServed, checkAutoscalers} {
				if len(find(r, Line{Check: check, Status: OK})) == 0 {
					t.Errorf("nothing is said of %s", check)
				}
			}
			if t.Failed() {
				t.Log(text(t, r))
			}
		})
	}
}

// Each known issue has its line, with cause and remedy.
func TestKnownIssues(t *testing.T) {
	waiting := func(reason, message string, last *corev1.ContainerStateTerminated) func(*fakeCluster) {
		return func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Status.Conditions = nil
				s := &p.Status.ContainerStatuses[0]
				s.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
				s.LastTerminationState.Terminated = last
				s.RestartCount = 3
			})
		}
	}
	unavailable := func(reason, message string) func(*fakeCluster) {
		return func(c *fakeCluster) { c.unavailable(reason, message) }
	}
	fault := func(f kubelettest.Fault) func(*fakeCluster) {
		return func(c *fakeCluster) { c.kubelet["n2"].SetFault(f) }
	}
	proxyFails := func(code int32, reason metav1.StatusReason, message string) func(*fakeCluster) {
		return func(c *fakeCluster) { c.refuse(proxyPath("n2"), code, reason, message) }
	}
	says := func(answer string) func(*fakeCluster) {
		return func(c *fakeCluster) { c.objects[proxyPath("n2")] = func() []byte { return []byte(answer) } }
	}
	scales := func(message string) func(*fakeCluster) {
		return func(c *fakeCluster) {
			c.objects[pathScalers] = &autoscalingv2.HorizontalPodAutoscalerList{Items: []autoscalingv2.HorizontalPodAutoscaler{scaler("web", "FailedGetResourceMetric", message), scaler("fine", "", "")}}
		}
	}
	const answer = "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1 %[1]d\ncontainer_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 1 %[1]d\n"
	const nodeAnswer = "node_cpu_usage_seconds_total 1 %[1]d\nnode_memory_working_set_bytes 1 %[1]d\n"
	at := func(d time.Duration, s string) string { return fmt.Sprintf(s, time.Now().Add(d).UnixMilli()) }

	for name, tc := range map[string]struct {
		direct bool
		broken func(*fakeCluster)
		want   Line
		nodes  []string
	}{
		// APIServices.
		"not installed": {broken: func(c *fakeCluster) {
			delete(c.objects, pathV1)
			delete(c.objects, pathV1beta1)
		}, want: Line{Check: checkAPIService, Status: Problem, Message: "no APIService", Cause: "not installed", Remedy: "apply the manifests"}},
		"manifest of the incumbent": {
			broken: func(c *fakeCluster) { delete(c.objects, pathV1) },
			want:   Line{Check: checkAPIService, Status: Warning, Message: "v1.metrics.k8s.io is not registered", Cause: "older", Remedy: "apply the APIService v1."},
		},
		"v1 only": {
			broken: func(c *fakeCluster) { delete(c.objects, pathV1beta1) },
			want:   Line{Check: checkAPIService, Status: Problem, Message: "v1beta1.metrics.k8s.io is not registered", Cause: "only a part", Remedy: "apply the APIService v1beta1."},
		},
		"two owners": {broken: func(c *fakeCluster) { c.objects[pathV1beta1].(*apiService).Spec.Service.Name = "old-metrics-server" }, want: Line{
			Check: checkAPIService, Status: Problem, Message: "different Services", Cause: "two programs", Remedy: "keep one",
		}},
		"foreign owner": {broken: func(c *fakeCluster) { c.objects[pathV1beta1].(*apiService).Spec.Service.Name = "prometheus-adapter" }, want: Line{
			Check: checkAPIService, Status: Warning, Message: "v1beta1.metrics.k8s.io leads to the Service kube-system/prometheus-adapter", Cause: "another program", Remedy: "remove the other program",
		}},
		"local APIService": {broken: func(c *fakeCluster) { c.objects[pathV1].(*apiService).Spec.Service = nil }, want: Line{
			Check: checkAPIService, Status: Problem, Message: "leads to no Service", Cause: "itself serves", Remedy: "kubectl delete apiservice v1.metrics.k8s.io",
		}},
		"aggregator does not run": {broken: func(c *fakeCluster) { c.objects[pathV1].(*apiService).Status.Conditions = nil }, want: Line{
			Check: checkAPIService, Status: Problem, Message: "no condition Available", Cause: "aggregator does not run", Remedy: "API server's log",
		}},
		"expired caBundle": {broken: func(c *fakeCluster) {
			c.objects[pathV1].(*apiService).Spec.InsecureSkipTLSVerify = false
			c.objects[pathV1].(*apiService).Spec.CABundle = []byte("expired")
		}, want: Line{Check: checkAPIService, Status: Problem, Message: "caBundle in which no certificate is valid", Cause: "expired", Remedy: remedyTrust + "with another --tls-cert-file: write the authority"}},
		"missing endpoints": {
			broken: unavailable("MissingEndpoints", `endpointslices for service/metrics-server in "kube-system" have no addresses with port name "https"`),
			want:   Line{Check: checkAPIService, Status: Problem, Message: "MissingEndpoints", Cause: "no pod of the server is ready", Remedy: "service and pods"},
		},
		"discovery: no route": {
			broken: unavailable("FailedDiscoveryCheck", "failing or missing response from https://10.88.0.65:10250/apis/metrics.k8s.io/v1: Get ...: dial tcp 10.88.0.65:10250: connect: no route to host"),
			want:   Line{Check: checkAPIService, Status: Problem, Message: "no route to host", Cause: "no way from the control plane", Remedy: "hostNetwork: true"},
		},
		"discovery: timeout": {
			broken: unavailable("FailedDiscoveryCheck", "failing or missing response from https://10.96.0.9:443/apis/metrics.k8s.io/v1: context deadline exceeded"),
			want:   Line{Check: checkAPIService, Status: Problem, Cause: "no way from the control plane", Remedy: "firewalls, network policies"},
		},
		"discovery: proxy": {
			broken: unavailable("FailedDiscoveryCheck", "failing or missing response from https://10.96.0.9:443/apis/metrics.k8s.io/v1: proxyconnect tcp: dial tcp 10.1.1.1:3128: connect: connection refused"),
			want:   Line{Check: checkAPIService, Status: Problem, Cause: "through a proxy (HTTPS_PROXY)", Remedy: "NO_PROXY"},
		},
		"discovery: refused": {
			broken: unavailable("FailedDiscoveryCheck", "failing or missing response from https://10.88.0.65:4443/apis/metrics.k8s.io/v1: dial tcp 10.88.0.65:4443: connect: connection refused"),
			want:   Line{Check: checkAPIService, Status: Problem, Cause: "nothing listens", Remedy: "the same"},
		},
		"discovery: certificate": {
			broken: unavailable("FailedDiscoveryCheck", "failing or missing response from https://10.88.0.65:443/apis/metrics.k8s.io/v1: tls: failed to verify certificate: x509: certificate is valid for localhost, not metrics-server.kube-system.svc"),
			want:   Line{Check: checkAPIService, Status: Problem, Cause: "caBundle", Remedy: remedyTrust + "else: give it a certificate"},
		},
		"discovery: identity": {
			broken: unavailable("FailedDiscoveryCheck", "failing or missing response from https://10.96.0.9:443/apis/metrics.k8s.io/v1beta1: bad status from https://10.96.0.9:443/apis/metrics.k8s.io/v1beta1: 401"),
			want:   Line{Check: checkAPIService, Status: Problem, Cause: "does not believe the certificate", Remedy: "requestheader-client-ca-file"},
		},
		"service not found": {
			broken: unavailable("ServiceNotFound", `service/metrics-server in "monitoring" is not present`),
			want:   Line{Check: checkAPIService, Status: Problem, Cause: "another installation", Remedy: "delete the APIService"},
		},
		"service port": {
			broken: unavailable("ServicePortError", `service/metrics-server in "kube-system" is not listening on port 4443`),
			want:   Line{Check: checkAPIService, Status: Problem, Cause: "another port", Remedy: "spec.service.port"},
		},
		"unheard of": {
			broken: unavailable("Strange", "never seen"),
			want:   Line{Check: checkAPIService, Status: Problem, Message: "Strange: never seen", Cause: "all that the API server says", Remedy: "API server's log"},
		},

		// Service.
		"no service": {
			broken: func(c *fakeCluster) { delete(c.objects, pathService) },
			want:   Line{Check: checkService, Status: Problem, Message: "does not exist", Cause: "not installed there", Remedy: "--namespace"},
		},
		"no endpoints": {
			broken: func(c *fakeCluster) { c.objects[pathSlices] = &discoveryv1.EndpointSliceList{} },
			want:   Line{Check: checkService, Status: Problem, Message: "no endpoint for port https", Cause: "selector", Remedy: "pods' labels"},
		},
		"no ready endpoints": {broken: func(c *fakeCluster) {
			c.objects[pathSlices].(*discoveryv1.EndpointSliceList).Items[0].Endpoints[0].Conditions.Ready = new(false)
		}, want: Line{Check: checkService, Status: Problem, Message: "no ready endpoint", Cause: "none of its 1 pod is ready", Remedy: "check of pods"}},
		"no such port": {
			broken: func(c *fakeCluster) { c.objects[pathService].(*corev1.Service).Spec.Ports[0].Port = 8443 },
			want:   Line{Check: checkService, Status: Problem, Message: "has no port 443", Cause: "APIService names", Remedy: "spec.service.port"},
		},
		"port is not named": {
			broken: func(c *fakeCluster) { c.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }) },
			want:   Line{Check: checkService, Status: Problem, Message: `port "https", which the pods do not name`, Cause: "no container", Remedy: "name the container's port"},
		},
		"another secure port": {broken: func(c *fakeCluster) {
			c.objects[pathService].(*corev1.Service).Spec.Ports[0].TargetPort = intstr.FromInt32(4443)
		}, want: Line{Check: checkService, Status: Problem, Message: "sends to port 4443, but the server listens on 10250", Cause: "--secure-port", Remedy: "the same"}},

		// Pods.
		"scaled to 0": {broken: func(c *fakeCluster) {
			c.objects[pathServerPods] = &corev1.PodList{}
			c.objects[pathDeploys] = &appsv1.DeploymentList{Items: []appsv1.Deployment{deployment(0, "")}}
		}, want: Line{Check: checkPods, Status: Problem, Message: "no pod", Cause: "scaled to 0", Remedy: "--replicas=1"}},
		"pod is forbidden": {broken: func(c *fakeCluster) {
			c.objects[pathServerPods] = &corev1.PodList{}
			c.objects[pathDeploys] = &appsv1.DeploymentList{Items: []appsv1.Deployment{deployment(1, "violates PodSecurity")}}
		}, want: Line{Check: checkPods, Status: Problem, Message: "no pod", Cause: "violates PodSecurity", Remedy: "quota"}},
		"no deployment": {
			broken: func(c *fakeCluster) { c.objects[pathServerPods] = &corev1.PodList{} },
			want:   Line{Check: checkPods, Status: Problem, Message: "no pod", Cause: "no Deployment", Remedy: "apply the manifests"},
		},
		"pending": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available: 3 Insufficient cpu."}}
			})
		}, want: Line{Check: checkPods, Status: Problem, Message: "Insufficient cpu", Cause: "no node has room", Remedy: "requests"}},
		"host port taken": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports."}}
			})
		}, want: Line{Check: checkPods, Status: Problem, Message: "free ports", Cause: "kubelets have 10250", Remedy: "4443"}},
		"host network on the kubelet's port": {
			broken: func(c *fakeCluster) { c.pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }) },
			want:   Line{Check: checkPods, Status: Problem, Message: "host network with --secure-port=10250", Cause: "kubelet listens", Remedy: "4443"},
		},
		"image": {
			broken: waiting("ImagePullBackOff", "Back-off pulling image", nil),
			want:   Line{Check: checkPods, Status: Problem, Message: "ImagePullBackOff: Back-off", Cause: "cannot get the image", Remedy: "kubectl -n kube-system describe pod metrics-server-1"},
		},
		"crash loop": {
			broken: waiting("CrashLoopBackOff", "", &corev1.ContainerStateTerminated{ExitCode: 1, Message: "unknown flag"}),
			want:   Line{Check: checkPods, Status: Problem, Message: "CrashLoopBackOff", Cause: "exit code 1: unknown flag", Remedy: "kubectl -n kube-system logs metrics-server-1 --previous"},
		},
		"out of memory": {
			broken: waiting("CrashLoopBackOff", "", &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}),
			want:   Line{Check: checkPods, Status: Problem, Cause: "more memory than its limit", Remedy: "memory limit"},
		},
		"being started": {
			broken: waiting("ContainerCreating", "", nil),
			want:   Line{Check: checkPods, Status: Warning, Message: "ContainerCreating", Cause: "being started", Remedy: "try again"},
		},
		"not ready, with a proxy": {
			broken: func(c *fakeCluster) {
				c.pod(func(p *corev1.Pod) {
					p.Status.Conditions = nil
					p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "https_proxy", Value: "http://10.1.1.1:3128"}}
				})
			},
			want: Line{Check: checkPods, Status: Problem, Message: "has https_proxy in its environment", Cause: "a proxy leads neither", Remedy: "NO_PROXY"},
		},
		"not ready": {
			broken: func(c *fakeCluster) { c.pod(func(p *corev1.Pod) { p.Status.Conditions = nil }) },
			want:   Line{Check: checkPods, Status: Problem, Message: "not ready", Cause: "kubelets do not answer", Remedy: "kubectl -n kube-system logs metrics-server-1"},
		},
		"restarted by the probe": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0].RestartCount = 2
				p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{}
			})
			c.objects[pathEvents] = &corev1.EventList{Items: []corev1.Event{{Reason: "Unhealthy", Message: "Liveness probe failed: HTTP 500"}}}
		}, want: Line{Check: checkPods, Status: Warning, Message: "restarted 2 times", Cause: "Liveness probe failed: HTTP 500", Remedy: "livenessProbe"}},
		"restarted, events unknown": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0].RestartCount = 1
				p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137}
			})
			c.forbid(pathEvents)
		}, want: Line{Check: checkPods, Status: Warning, Message: "restarted 1 time", Cause: "exit code 137", Remedy: "livenessProbe"}},
		"flags are wrong": {broken: func(c *fakeCluster) {
			c.config.Flags = func(args []string) (Flags, error) {
				if len(args) > 0 {
					return Flags{}, errors.New("bad flag")
				}
				return c.flags, nil
			}
		}, want: Line{Check: checkPods, Status: Warning, Message: "cannot be understood", Cause: "bad flag", Remedy: "--kubelet-*"}},

		// Aggregation.
		"no flags of the aggregator": {
			broken: func(c *fakeCluster) { c.objects[pathConfig] = &corev1.ConfigMap{} },
			want:   Line{Check: checkAggregation, Status: Problem, Message: "has no requestheader-client-ca-file", Cause: "without the flags", Remedy: "--requestheader-client-ca-file"},
		},
		"no ConfigMap": {
			broken: func(c *fakeCluster) { delete(c.objects, pathConfig) },
			want:   Line{Check: checkAggregation, Status: Problem, Message: "has no requestheader-client-ca-file", Cause: "without the flags", Remedy: "--proxy-client-cert-file"},
		},
		"front proxy has expired": {
			broken: func(c *fakeCluster) { c.objects[pathConfig].(*corev1.ConfigMap).Data[caKey] = "old" },
			want:   Line{Check: checkAggregation, Status: Problem, Message: "is valid now", Cause: "expired", Remedy: "renew"},
		},
		"own front proxy authority": {broken: func(c *fakeCluster) {
			c.objects[pathConfig] = &corev1.ConfigMap{}
			c.flags.RequestHeaderCA = true
		}, want: Line{Check: checkAggregation, Status: OK, Message: "its own --requestheader-client-ca-file"}},
		"front proxy is not believed": {
			broken: func(c *fakeCluster) { c.refuse(pathNodeUsage, 401, metav1.StatusReasonUnauthorized, "Unauthorized") },
			want:   Line{Check: checkAggregation, Status: Problem, Message: "Unauthorized", Cause: "does not believe", Remedy: "requestheader-client-ca-file"},
		},
		"front proxy is anonymous": {broken: func(c *fakeCluster) {
			c.refuse(pathNodeUsage, 403, metav1.StatusReasonForbidden, `nodes.metrics.k8s.io is forbidden: User "system:anonymous" cannot list`)
		}, want: Line{Check: checkAggregation, Status: Problem, Cause: "anonymous", Remedy: "--proxy-client-cert-file"}},
		"unable to handle the request": {
			broken: unavailable("MissingEndpoints", "none"),
			want:   Line{Check: checkAggregation, Status: Problem, Message: "unable to handle the request", Cause: "nobody to pass the request on to", Remedy: "apiservice"},
		},

		// Rights.
		"no nodes/metrics": {
			broken: func(c *fakeCluster) { c.denied["get nodes/metrics"] = true },
			want:   Line{Check: checkAccess, Status: Problem, Message: "may not get nodes/metrics", Cause: "403", Remedy: "ClusterRole system:metrics-server"},
		},
		"no lists": {broken: func(c *fakeCluster) { c.denied["list nodes"], c.denied["watch pods"] = true, true }, want: Line{
			Check: checkAccess, Status: Problem, Message: "may not list nodes, watch pods", Cause: "does not learn", Remedy: "ClusterRole system:metrics-server",
		}},
		"no auth-delegator": {
			broken: func(c *fakeCluster) { c.denied["create tokenreviews.authentication.k8s.io"] = true },
			want:   Line{Check: checkAccess, Status: Problem, Message: "may not create tokenreviews", Cause: "refuses everybody", Remedy: "auth-delegator"},
		},
		"no auth-reader": {
			broken: func(c *fakeCluster) {
				c.denied["get configmaps kube-system/extension-apiserver-authentication"] = true
			},
			want: Line{Check: checkAccess, Status: Problem, Message: "may not get configmaps", Cause: "front proxy", Remedy: "metrics-server-auth-reader"},
		},
		"no right to the serving Secret": {
			broken: func(c *fakeCluster) { c.denied["update secrets kube-system/metrics-server-serving"] = true },
			want:   Line{Check: checkAccess, Status: Problem, Message: "may not update secrets kube-system/metrics-server-serving", Cause: "serving certificate", Remedy: "Role kube-system/metrics-server-serving"},
		},
		"no right to the APIServices": {
			broken: func(c *fakeCluster) {
				c.denied["patch apiservices.apiregistration.k8s.io v1.metrics.k8s.io"] = true
			},
			want: Line{Check: checkAccess, Status: Problem, Message: "may not patch apiservices.apiregistration.k8s.io v1.metrics.k8s.io", Cause: "caBundle", Remedy: "ClusterRole system:metrics-server"},
		},
		"no right to events": {
			broken: func(c *fakeCluster) { c.denied["create events in default"] = true },
			want:   Line{Check: checkAccess, Status: Warning, Message: "may not create events in default", Cause: "cannot be scraped", Remedy: "or give the server --node-events=false"},
		},
		"no serving Secret": {
			broken: func(c *fakeCluster) { delete(c.objects, pathSecret) },
			want:   Line{Check: checkAccess, Status: Problem, Message: "Secret kube-system/metrics-server-serving does not exist", Cause: "may not create it", Remedy: "apply the manifest"},
		},
		"serving Secret may not be read": {
			broken: func(c *fakeCluster) { c.forbid(pathSecret) },
			want:   Line{Check: checkAccess, Status: Unknown, Message: "whether Secret kube-system/metrics-server-serving exists", Cause: "get secrets", Remedy: "get secrets in kube-system"},
		},

		// Kubelets, asked as the server asks them.
		"unknown authority": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.server["n2"].SetCertificate(kubelettest.NewCA("other").Server("127.0.0.1"))
		}, want: Line{Check: checkNodes, Status: Problem, Message: "1 of 2 nodes: the kubelet's serving certificate is not accepted: n2", Cause: "certificate by CN=other for 127.0.0.1, valid until", Remedy: "serverTLSBootstrap"}},
		"no IP SANs": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.server["n2"].SetCertificate(c.ca.Server("n2.example"))
		}, want: Line{Check: checkNodes, Status: Problem, Message: "not accepted", Cause: "doesn't contain any IP SANs", Remedy: "--kubelet-preferred-address-types"}},
		"expired": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.server["n2"].SetCertificate(c.ca.Expired("127.0.0.1"))
		}, want: Line{Check: checkNodes, Status: Problem, Message: "not accepted", Cause: "expired", Remedy: "renew it"}},
		"insecure": {direct: true, broken: func(c *fakeCluster) {
			c.flags.Kubelet.Insecure, c.flags.Kubelet.CAData = true, nil
		}, want: Line{Check: checkNodes, Status: Warning, Message: "not verified", Cause: "--kubelet-insecure-tls", Remedy: "--kubelet-certificate-authority"}},
		"webhook authentication is off": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) { c.kubelet["n2"].SetToken("another") },
			want: Line{Check: checkNodes, Status: Problem, Message: "credentials (401)", Cause: "401", Remedy: "authentication.webhook.enabled"},
		},
		"kubelet forbids": {
			direct: true, nodes: []string{"n1", "n2"}, broken: func(c *fakeCluster) { c.kubelet["n1"].Forbidden, c.kubelet["n2"].Forbidden = "token", "token" },
			want: Line{Check: checkNodes, Status: Problem, Message: "2 of 2 nodes: the kubelet forbids to read its metrics (403): n1, n2", Cause: "for example n1: ", Remedy: "nodes/metrics"},
		},
		"no such host": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.nodes[1].Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "n2.invalid"}}
		}, want: Line{Check: checkNodes, Status: Problem, Message: "cannot be looked up", Cause: "n2.invalid", Remedy: "InternalIP"}},
		"name is tried first": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.flags.Kubelet.AddressTypes = []string{"Hostname", "InternalIP"}
			c.nodes[1].Status.Addresses = append(c.nodes[1].Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: "n2.invalid"})
		}, want: Line{Check: checkNodes, Status: Warning, Message: "not at n2.invalid:", Cause: "preferred address", Remedy: "--kubelet-preferred-address-types"}},
		"no address": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.nodes[1].Status.Addresses[0].Type = corev1.NodeExternalDNS
		}, want: Line{Check: checkNodes, Status: Problem, Message: "no address of the types", Cause: "ExternalDNS", Remedy: "--kubelet-preferred-address-types"}},
		"connection refused": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) { c.server["n2"].Close() },
			want: Line{Check: checkNodes, Status: Problem, Message: "nothing listens", Cause: "connection refused", Remedy: "--kubelet-port"},
		},
		"node is down": {direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) {
			c.server["n2"].Close()
			c.nodes[1].Status.Conditions[0].Status = corev1.ConditionUnknown
		}, want: Line{Check: checkNodes, Status: Problem, Message: "nothing listens", Cause: "refused", Remedy: "the node is not ready"}},
		"firewall": {
			direct: true, nodes: []string{"n2"}, broken: fault(kubelettest.Hang),
			want: Line{Check: checkNodes, Status: Problem, Message: "does not answer in time", Cause: "timed out", Remedy: "firewall"},
		},
		"no /metrics/resource": {
			direct: true, nodes: []string{"n2"}, broken: func(c *fakeCluster) { c.kubelet["n2"].Path = "/stats" },
			want: Line{Check: checkNodes, Status: Problem, Message: "no /metrics/resource (404)", Cause: "404", Remedy: "1.19"},
		},
		"certificate files are elsewhere": {direct: true, broken: func(c *fakeCluster) {
			c.flags.Kubelet.CAData, c.flags.Kubelet.CAFile = nil, "/nowhere/ca.crt"
		}, want: Line{Check: checkNodes, Status: Unknown, Message: "cannot be asked", Cause: "/nowhere/ca.crt", Remedy: "in the server's pod"}},

		// Kubelets, asked through the API server.
		"proxy: refused": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach service: dial tcp 10.0.0.2:10250: connect: connection refused"),
			want: Line{Check: checkNodes, Status: Problem, Message: "nothing listens", Cause: "connection refused", Remedy: "API server does not get through"},
		},
		"proxy: firewall": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach service: dial tcp 10.0.0.2:10250: i/o timeout"),
			want: Line{Check: checkNodes, Status: Problem, Message: "in time", Cause: "i/o timeout", Remedy: "firewall"},
		},
		"proxy: certificate": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown authority"),
			want: Line{Check: checkNodes, Status: Problem, Message: "certificate is not accepted", Cause: "x509", Remedy: "--kubelet-certificate-authority"},
		},
		"proxy: certificate for other names": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach service: tls: failed to verify certificate: x509: certificate is valid for 10.0.0.9, not 10.0.0.2"),
			want: Line{Check: checkNodes, Status: Problem, Message: "certificate is not accepted", Cause: "not 10.0.0.2", Remedy: "serverTLSBootstrap"},
		},
		"proxy: certificate without addresses": {
			nodes: []string{"n2"}, broken: proxyFails(503, metav1.StatusReasonServiceUnavailable, "error trying to reach service: tls: failed to verify certificate: x509: cannot validate certificate for 10.0.0.2 because it doesn't contain any IP SANs"),
			want: Line{Check: checkNodes, Status: Problem, Message: "certificate is not accepted", Cause: "IP SANs", Remedy: "serverTLSBootstrap"},
		},
		"proxy: 401": {
			nodes: []string{"n2"}, broken: proxyFails(401, metav1.StatusReasonUnauthorized, "Unauthorized"),
			want: Line{Check: checkNodes, Status: Problem, Message: "401", Cause: "Unauthorized", Remedy: "clientCAFile"},
		},
		"proxy: 403": {
			nodes: []string{"n2"}, broken: proxyFails(403, metav1.StatusReasonForbidden, "Forbidden (user=kube-apiserver, verb=get, resource=nodes, subresource=metrics)"),
			want: Line{Check: checkNodes, Status: Problem, Message: "403", Cause: "kube-apiserver", Remedy: "system:kubelet-api-admin"},
		},
		"proxy: 404": {
			nodes: []string{"n2"}, broken: func(c *fakeCluster) { delete(c.objects, proxyPath("n2")) },
			want: Line{Check: checkNodes, Status: Problem, Message: "404", Cause: "not found", Remedy: "1.19"},
		},
		"proxy: no right": {
			nodes: []string{"n1", "n2"}, broken: func(c *fakeCluster) { c.forbid(proxyPath("n1"), proxyPath("n2")) },
			want: Line{Check: checkNodes, Status: Unknown, Message: "2 of 2 nodes", Cause: "get nodes/proxy", Remedy: "may get nodes/proxy"},
		},

		// What kubelets say.
		"no node CPU": {
			nodes: []string{"n2"}, broken: says(at(0, answer+"node_memory_working_set_bytes 1 %[1]d\n")),
			want: Line{Check: checkNodes, Status: Problem, Message: "lacks node_cpu_usage_seconds_total", Cause: "cgroups", Remedy: "cadvisor"},
		},
		"no container CPU": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer+"container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 1 %[1]d\n")),
			want: Line{Check: checkNodes, Status: Problem, Message: "lacks container_cpu_usage_seconds_total", Cause: "runtime", Remedy: "cadvisor"},
		},
		"no containers": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer)),
			want: Line{Check: checkNodes, Status: Warning, Message: "lists no container", Cause: "runtime gives", Remedy: "kubectl get pods"},
		},
		"no samples": {
			nodes: []string{"n2"}, broken: says("up 1\n"),
			want: Line{Check: checkNodes, Status: Problem, Message: "no sample that can be used", Cause: "no usable sample", Remedy: "another exporter"},
		},
		"kubelet error": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer+answer+"resource_scrape_error 1\n")),
			want: Line{Check: checkNodes, Status: Problem, Message: "itself cannot get at its metrics", Cause: "resource_scrape_error", Remedy: "kubelet's log"},
		},
		"refused samples": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer+answer+"node_swap_usage_bytes -1 %[1]d\n")),
			want: Line{Check: checkNodes, Status: Warning, Message: "cannot be used: n2 (negative: 1)", Cause: "make no sense", Remedy: "kubectl get --raw"},
		},
		"clock ahead": {
			nodes: []string{"n2"}, broken: says(at(10*time.Minute, nodeAnswer+answer)),
			want: Line{Check: checkNodes, Status: Warning, Message: "ahead of the API server's clock", Cause: "clock is wrong", Remedy: "NTP"},
		},
		"clock behind": {
			nodes: []string{"n2"}, broken: says(at(-10*time.Minute, nodeAnswer+answer)),
			want: Line{Check: checkNodes, Status: Warning, Message: "newest sample is old", Cause: "clock is behind", Remedy: "NTP"},
		},
		"own clock": {
			broken: func(c *fakeCluster) { c.skew = time.Hour },
			want:   Line{Check: checkClock, Status: Warning, Message: "differ by 1h0m", Cause: "wrong", Remedy: "NTP"},
		},
		"no nodes": {
			broken: func(c *fakeCluster) { c.nodes = nil },
			want:   Line{Check: checkNodes, Status: Warning, Message: "no nodes", Cause: "--node-selector", Remedy: "--show-labels"},
		},
		"old kubelet": {
			nodes: []string{"n2"}, broken: func(c *fakeCluster) { c.nodes[1].Status.NodeInfo.KubeletVersion = "v1.18.20" },
			want: Line{Check: checkVersions, Status: Warning, Message: "v1.18.20 (1), v1.37.2 (1)", Cause: "older than 1.19", Remedy: "update"},
		},

		// What is served.
		"node without metrics": {
			nodes: []string{"n3"}, broken: func(c *fakeCluster) { c.addNode("n3") },
			want: Line{Check: checkServed, Status: Problem, Message: "2 of 3 nodes have metrics", Cause: "no samples", Remedy: "/apis/metrics.k8s.io/v1beta1/nodes/NODE"},
		},
		"stale": {nodes: []string{"n1"}, broken: func(c *fakeCluster) {
			c.objects[pathNodeUsage].(map[string]any)["items"].([]any)[0].(map[string]any)["timestamp"] = metav1.NewTime(time.Now().Add(-10 * time.Minute))
		}, want: Line{Check: checkServed, Status: Warning, Message: " old in the middle, 10m", Cause: "no new sample of n1", Remedy: "server's log"}},
		"pods without metrics": {
			broken: func(c *fakeCluster) { c.objects[pathPodUsage] = map[string]any{"items": nil} },
			want:   Line{Check: checkServed, Status: Warning, Message: "0 of 2 pods that run have metrics (1 too young); none: default/web", Cause: "served whole", Remedy: "/pods/POD"},
		},

		// Autoscalers.
		"HPA: no API": {
			broken: scales("the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server is currently unable to handle the request (get pods.metrics.k8s.io)"),
			want:   Line{Check: checkAutoscalers, Status: Problem, Message: "1 of 2 HorizontalPodAutoscalers cannot scale: the resource metrics API does not answer: default/web", Cause: "nobody to pass", Remedy: "apiservice"},
		},
		"HPA: no metrics": {
			broken: scales("failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"),
			want:   Line{Check: checkAutoscalers, Status: Problem, Message: "no metrics", Cause: "has no metrics of pods", Remedy: "served"},
		},
		"HPA: no request": {
			broken: scales("failed to get cpu utilization: missing request for cpu in container c of Pod web"),
			want:   Line{Check: checkAutoscalers, Status: Warning, Message: "has no request", Cause: "no fault of metrics-server", Remedy: "set requests"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.config.Direct = tc.direct
			tc.broken(c)
			r := c.run()
			found := find(r, tc.want)
			if len(found) == 0 {
				t.Fatalf("no line like %+v in\n%s", tc.want, text(t, r))
			}
			if !slices.Equal(found[0].Nodes, tc.nodes) {
				t.Errorf("the line is of nodes %v, want %v", found[0].Nodes, tc.nodes)
			}
			for _, l := range r.Checks {
				if l.Status != OK && (l.Cause == "" || l.Remedy == "") {
					t.Errorf("a finding without cause or remedy: %+v", l)
				}
				if strings.Contains(l.Remedy, "%!") || strings.Contains(l.Remedy, "%s") {
					t.Errorf("a remedy that is not filled in: %+v", l)
				}
			}
			if want := map[Status]int{Problem: 1}[tc.want.Status]; r.ExitCode() < want {
				t.Errorf("exit code %d", r.ExitCode())
			}
		})
	}
}

func deployment(replicas int32, failure string) appsv1.Deployment {
	d := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "metrics-server"}}
	d.Spec.Replicas = &replicas
	d.Spec.Template.Labels = map[string]string{"k8s-app": "metrics-server"}
	if failure != "" {
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: failure}}
	}
	return d
}

// Where nothing says on which port the server listens, nothing is said against the Service's.
func TestPortOfTheImage(t *testing.T) {
	c := newCluster(t)
	c.flags.Port = 443
	c.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Args = nil })
	if r := c.run(); len(find(r, Line{Check: checkService, Status: OK})) != 1 {
		t.Error(text(t, r))
	}
	c.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Args = []string{"--cert-dir=/tmp"} })
	if r := c.run(); len(find(r, Line{Check: checkService, Status: Problem, Message: "listens on 443"})) != 1 {
		t.Error(text(t, r))
	}
}

// In a pod the server's account may not read metrics, but may ask whether there are any: the way is known to be free.
func TestNoRightToMetrics(t *testing.T) {
	c := newCluster(t)
	c.forbid(pathNodeUsage)
	r := c.run()
	if len(find(r, Line{Check: checkAggregation, Status: OK, Message: pathDiscovery + " is answered"})) != 1 ||
		len(find(r, Line{Check: checkServed, Status: Unknown, Cause: "list nodes.metrics.k8s.io"})) != 1 {
		t.Error(text(t, r))
	}
	c.refuse(pathDiscovery, 503, metav1.StatusReasonServiceUnavailable, "unable to handle the request")
	if r := c.run(); len(find(r, Line{Check: checkAggregation, Status: Problem, Message: "unable to handle"})) != 1 {
		t.Error(text(t, r))
	}
}

// With no rights at all everything is unknown, each line says which right is missing, and that is no failure.
func TestNoRights(t *testing.T) {
	c := newCluster(t)
	c.forbid(versionPath, pathV1, pathV1beta1, pathService, pathSlices, pathServerPods, pathDeploys, pathEvents, pathConfig, pathReviews,
		pathNodes, pathAllPods, pathNodeUsage, pathPodUsage, pathDiscovery, pathScalers)
	r := c.run()
	if r.ExitCode() != 0 || r.Status != Unknown {
		t.Errorf("exit code %d, status %s:\n%s", r.ExitCode(), r.Status, text(t, r))
	}
	for check, right := range map[string]string{
		checkAPIService:  "get apiservices.apiregistration.k8s.io",
		checkService:     "get services and list endpointslices in kube-system",
		checkPods:        "list pods in kube-system",
		checkAggregation: "get the ConfigMap kube-system/extension-apiserver-authentication",
		checkAccess:      "create subjectaccessreviews.authorization.k8s.io",
		checkNodes:       "list nodes",
		checkServed:      "list nodes.metrics.k8s.io",
		checkAutoscalers: "list horizontalpodautoscalers.autoscaling",
	} {
		if len(find(r, Line{Check: check, Status: Unknown, Cause: "the right to " + right, Remedy: "may " + right})) == 0 {
			t.Errorf("%s: no line wants %q:\n%s", check, right, text(t, r))
		}
	}
}

// What the server does only with a flag, it needs rights for only then.
func TestRightsByFlags(t *testing.T) {
	c := newCluster(t)
	c.pod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Args = []string{"--secure-port=10250", "--node-events=false"}
	})
	delete(c.objects, pathSecret)
	for _, right := range []string{
		"get secrets kube-system/metrics-server-serving", "get apiservices.apiregistration.k8s.io v1.metrics.k8s.io",
		"create events in default", "patch events in default",
	} {
		c.denied[right] = true
	}
	if r := c.run(); len(find(r, Line{Check: checkAccess, Status: OK})) != 1 {
		t.Error(text(t, r))
	}
}

func TestFlagValue(t *testing.T) {
	for _, tc := range []struct {
		args  []string
		value string
		given bool
	}{
		{nil, "", false},
		{[]string{"--flags=a", "flag", "-flag"}, "", false},
		{[]string{"--flag=a", "--flag=b=c", "--other"}, "b=c", true},
		{[]string{"--flag", "a"}, "a", true},
		{[]string{"--flag", "--other"}, "", true},
		{[]string{"--flag"}, "", true},
		{[]string{"--flag="}, "", true},
	} {
		if value, given := flagValue(tc.args, "flag"); value != tc.value || given != tc.given {
			t.Errorf("%v: %q, %t", tc.args, value, given)
		}
	}
}

// The command for the rest names the server as it is installed: a chart's release may have any name and namespace.
func TestInstructionsForPod(t *testing.T) {
	c := newCluster(t)
	c.forbid(pathV1, pathReviews) // whose account it is, is of no interest here
	c.config.Namespace, c.config.Service = "monitoring", "usage"
	want := Line{Check: checkNodes, Status: Unknown, Message: "were not checked", Remedy: "kubectl -n monitoring exec service/usage -- /metrics-server doctor"}
	if r := c.run(); len(find(r, want)) != 1 {
		t.Error(text(t, r))
	}
}

// Neither do the documents name a label that only one way of installing gives the pods.
func TestDocumentedSelectors(t *testing.T) {
	for _, file := range []string{"docs/troubleshooting.md", "docs/doctor.md", "deploy/kustomize/components/alerts/prometheusrule.yaml"} {
		b, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range selectors {
			if strings.Contains(string(b), "-l "+s) {
				t.Errorf("%s selects pods by %s", file, s)
			}
		}
	}
}

func TestCannotRun(t *testing.T) {
	t.Run("nobody there", func(t *testing.T) {
		c := newCluster(t)
		c.config.Rest = &rest.Config{Host: "http://127.0.0.1:1"}
		if _, err := Run(t.Context(), c.config); err == nil || !strings.Contains(err.Error(), "http://127.0.0.1:1") || !strings.Contains(err.Error(), "check that it runs") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("credentials", func(t *testing.T) {
		c := newCluster(t)
		c.refuse(versionPath, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
		if _, err := Run(t.Context(), c.config); err == nil || !strings.Contains(err.Error(), "credentials") {
			t.Errorf("error %v", err)
		}
	})
}

// When the time is up, the rest is unknown.
func TestTimeout(t *testing.T) {
	c := newCluster(t)
	c.delay[pathService] = true
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	r, err := Run(ctx, c.config)
	if err != nil {
		t.Fatal(err)
	}
	if r.ExitCode() != 0 || len(find(r, Line{Check: checkService, Status: Unknown, Remedy: "--timeout"})) == 0 {
		t.Errorf("exit code %d\n%s", r.ExitCode(), text(t, r))
	}
}

// Many nodes with the same cause are one line.
func TestManyNodes(t *testing.T) {
	c := newCluster(t)
	for i := range 50 {
		name := fmt.Sprintf("m%02d", i)
		n := c.nodes[0].DeepCopy()
		n.Name = name
		c.nodes = append(c.nodes, n)
		c.refuse(proxyPath(name), 503, metav1.StatusReasonServiceUnavailable, fmt.Sprintf("dial tcp 10.0.0.%d:10250: i/o timeout", i))
	}
	r := c.run()
	lines := find(r, Line{Check: checkNodes, Status: Problem})
	if len(lines) != 1 || len(lines[0].Nodes) != 50 || !strings.Contains(lines[0].Message, "50 of 52 nodes: ") || !strings.Contains(lines[0].Message, ": m00, m01, m02 and 47 more") {
		t.Errorf("%s", text(t, r))
	}
	if len(r.Nodes) != 52 {
		t.Errorf("%d nodes in the report", len(r.Nodes))
	}
}

// The JSON is a contract: testdata/report.json changes only by growing.
func TestJSON(t *testing.T) {
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	r := &Report{Schema: 1, Status: OK, Version: "v1.0.0", Via: Direct}
	r.add(
		Line{Check: checkVersions, Status: OK, Message: "metrics-server v1.0.0"},
		Line{Check: checkNodes, Status: Problem, Message: "1 of 1 node: <refused>: n1", Cause: "connection refused", Remedy: "start it", Nodes: []string{"n1"}},
	)
	r.Nodes = []Node{{
		Name: "n1", Status: Problem, KubeletVersion: "v1.37.2", Addresses: []string{"10.0.0.1:10250"}, Address: "10.0.0.1:10250", Containers: 2, NewestSample: &at,
		Certificate: &Certificate{Issuer: "CN=ca", Names: []string{"n1", "10.0.0.1"}, NotAfter: at, Trusted: true}, Error: "refused",
	}}
	var b strings.Builder
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if r.ExitCode() != 1 {
		t.Errorf("exit code %d", r.ExitCode())
	}
}

func TestText(t *testing.T) {
	r := &Report{Status: OK}
	r.add(
		Line{Check: checkVersions, Status: OK, Message: "fine"},
		Line{Check: checkNodes, Status: Problem, Message: "two\nlines\x1b[31m", Cause: "c", Remedy: "r"},
	)
	want := "ok       versions     fine\n" +
		"problem  nodes        two lines [31m\n" +
		"                      cause: c\n" +
		"                      remedy: r\n" +
		"\n1 problem, 0 warnings, 0 unknown, 1 ok\n"
	if d := cmp.Diff(want, text(t, r)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestCommandLine(t *testing.T) {
	pod := serverPod("p")
	side := corev1.Container{Name: "sidecar", Args: []string{"--other"}}
	for _, tc := range []struct {
		command, args, want []string
	}{
		{nil, []string{"--a", "--b=c"}, []string{"--a", "--b=c"}},
		{[]string{"/metrics-server", "--a", "b"}, nil, []string{"--a", "b"}},
		{[]string{"/metrics-server"}, []string{"-v", "2"}, []string{"-v", "2"}},
		{nil, nil, nil},
	} {
		pod.Spec.Containers[0].Command, pod.Spec.Containers[0].Args = tc.command, tc.args
		pod.Spec.Containers = []corev1.Container{side, pod.Spec.Containers[len(pod.Spec.Containers)-1]}
		if d := cmp.Diff(tc.want, commandLine(&pod)); d != "" {
			t.Errorf("%v %v: %s", tc.command, tc.args, d)
		}
		pod.Spec.Containers = pod.Spec.Containers[1:]
	}
}

func TestDecodeItems(t *testing.T) {
	for _, tc := range []struct {
		json string
		want []string
		ok   bool
	}{
		{`{"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}],"kind":"L"}`, []string{"a", "b"}, true},
		{`{"kind":"L","metadata":{"items":[1]},"items":[]}`, nil, true},
		{`{"items":null}`, nil, true},
		{`{}`, nil, true},
		{`[]`, nil, false},
		{`{"items":{}}`, nil, false},
		{`{"items":[{"metadata":{"name":"a"}}`, []string{"a"}, false},
		{`{"items":[{"metadata":1}]}`, nil, false},
		{``, nil, false},
	} {
		var got []string
		err := decodeItems(strings.NewReader(tc.json), func(u usage) { got = append(got, u.Metadata.Name) })
		if (err == nil) != tc.ok || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, %v", tc.json, got, err)
		}
	}
}

// What is asked through the API server stays within the node, whatever its annotation says.
func TestPathOfAnnotation(t *testing.T) {
	for path, ok := range map[string]bool{"/metrics/resource": true, "/x?collect=cpu": true, "http://other/metrics": false, "metrics": false, "/../../../secrets": false} {
		c := newCluster(t)
		c.objects["/api/v1/nodes/n1/proxy/x"] = c.objects[proxyPath("n1")]
		c.objects["/api/v1/secrets"] = c.objects[proxyPath("n1")]
		c.nodes[0].Annotations = map[string]string{kubelet.PathAnnotation: path}
		if r := c.run(); (r.Nodes[0].Error == "") != ok {
			t.Errorf("%q: error %q", path, r.Nodes[0].Error)
		}
	}
}
