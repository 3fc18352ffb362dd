package doctor

import (
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPodIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
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
			want: Line{
				Check: checkPods, Status: Problem, Message: "no pod", Cause: "no Deployment",
				Remedy: "apply all manifests",
			},
		},
		"pending": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Status.Conditions = []corev1.PodCondition{{
					Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable",
					Message: "0/3 nodes are available: 3 Insufficient cpu.",
				}}
			})
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "Insufficient cpu", Cause: "no node has room",
			Remedy: "requests",
		}},
		"host port taken": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Status.Conditions = []corev1.PodCondition{{
					Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable",
					Message: "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports.",
				}}
			})
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "free ports", Cause: "kubelets listen on 10250", Remedy: "4443",
		}},
		"host network on the kubelet's port": {
			broken: func(c *fakeCluster) { c.pod(func(p *corev1.Pod) { p.Spec.HostNetwork = true }) },
			want: Line{
				Check: checkPods, Status: Problem, Message: "host network with --secure-port=10250",
				Cause: "kubelet listens", Remedy: "4443",
			},
		},
		"image": {
			broken: waiting("ImagePullBackOff", "Back-off pulling image", nil),
			want: Line{
				Check: checkPods, Status: Problem, Message: "ImagePullBackOff: Back-off", Cause: "cannot pull the image",
				Remedy: "kubectl -n kube-system describe pod metrics-server-1",
			},
		},
		"crash loop": {
			broken: waiting("CrashLoopBackOff", "", &corev1.ContainerStateTerminated{ExitCode: 1, Message: "unknown flag"}),
			want: Line{
				Check: checkPods, Status: Problem, Message: "CrashLoopBackOff", Cause: "exit code 1: unknown flag",
				Remedy: "kubectl -n kube-system logs metrics-server-1 --previous",
			},
		},
		"out of memory": {
			broken: waiting("CrashLoopBackOff", "", &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}),
			want:   Line{Check: checkPods, Status: Problem, Cause: "more memory than its limit", Remedy: "memory limit"},
		},
		"being started": {
			broken: waiting("ContainerCreating", "", nil),
			want: Line{
				Check: checkPods, Status: Warning, Message: "ContainerCreating", Cause: "it is starting",
				Remedy: "try again",
			},
		},
		"not ready, with a proxy": {
			broken: func(c *fakeCluster) {
				c.pod(func(p *corev1.Pod) {
					p.Status.Conditions = nil
					p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "https_proxy", Value: "http://10.1.1.1:3128"}}
				})
			},
			want: Line{
				Check: checkPods, Status: Problem, Message: "has https_proxy in its environment",
				Cause: "the proxy probably cannot reach", Remedy: "NO_PROXY",
			},
		},
		"not ready": {
			broken: func(c *fakeCluster) { c.pod(func(p *corev1.Pod) { p.Status.Conditions = nil }) },
			want: Line{
				Check: checkPods, Status: Problem, Message: "runs but is not ready",
				Cause: "kubelets or the API server do not answer", Remedy: "kubectl -n kube-system logs metrics-server-1",
			},
		},
		"restarted by the probe": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0].RestartCount = 2
				p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{}
			})
			c.objects[pathEvents] = &corev1.EventList{Items: []corev1.Event{{Reason: "Unhealthy", Message: "Liveness probe " +
				"failed: HTTP 500"}}}
		}, want: Line{
			Check: checkPods, Status: Warning, Message: "restarted 2 times", Cause: "Liveness probe failed: HTTP 500",
			Remedy: "livenessProbe",
		}},
		"restarted, events unknown": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0].RestartCount = 1
				p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137}
			})
			c.forbid(pathEvents)
		}, want: Line{
			Check: checkPods, Status: Warning, Message: "restarted 1 time", Cause: "exit code 137",
			Remedy: "livenessProbe",
		}},
		"flags are wrong": {broken: func(c *fakeCluster) {
			c.config.Flags = func(args []string) (Flags, error) {
				if len(args) > 0 {
					return Flags{}, errors.New("bad flag")
				}
				return c.flags, nil
			}
		}, want: Line{
			Check: checkPods, Status: Warning, Message: "cannot be parsed", Cause: "bad flag", Remedy: "--kubelet-*",
		}},

		"probe is forbidden": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) { p.Status.Conditions = nil })
			c.objects[pathEvents] = &corev1.EventList{Items: []corev1.Event{{Reason: "Unhealthy", Message: "Readiness probe " +
				"failed: HTTP probe failed with statuscode: 403"}}}
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "not ready",
			Cause: "denies the kubelet's probe: Readiness probe failed", Remedy: "--authorization-always-allow-paths",
		}},
		"probe gets 401": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) { p.Status.Conditions = nil })
			c.objects[pathEvents] = &corev1.EventList{Items: []corev1.Event{{
				Reason: "Unhealthy", Message: "Readiness probe failed: HTTP probe failed with statuscode: 401",
			}}}
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "not ready", Cause: "denies the kubelet's probe",
			Remedy: "--authorization-always-allow-paths",
		}},
		"liveness probe is forbidden": {broken: func(c *fakeCluster) {
			waiting("CrashLoopBackOff", "", &corev1.ContainerStateTerminated{ExitCode: 137})(c)
			c.objects[pathEvents] = &corev1.EventList{Items: []corev1.Event{{Reason: "Unhealthy", Message: "Liveness probe " +
				"failed: HTTP probe failed with statuscode: 403"}}}
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "CrashLoopBackOff", Cause: "denies the kubelet's probe",
			Remedy: "--authorization-always-allow-paths",
		}},
		"probes are not open": {broken: func(c *fakeCluster) {
			c.denied["get /readyz"] = true
			c.flags.OpenPaths = []string{"/healthz", "/live*"}
			c.pod(func(p *corev1.Pod) {
				p.Spec.Containers[0].LivenessProbe, p.Spec.Containers[0].ReadinessProbe = probe("/livez"), probe("/readyz?verbose")
			})
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "is probed at /readyz, which the server denies",
			Cause: "gets 403", Remedy: "add the paths",
		}},
		"probes need the API server": {broken: func(c *fakeCluster) {
			c.flags.OpenPaths = []string{"/healthz"}
			c.pod(func(p *corev1.Pod) {
				p.Spec.Containers[0].LivenessProbe, p.Spec.Containers[0].ReadinessProbe = probe("/livez"), probe("/readyz")
			})
		}, want: Line{
			Check: checkPods, Status: Warning, Message: "is probed at /livez and /readyz, for which the server needs",
			Cause: "whenever the API server does not answer", Remedy: "add the paths",
		}},
		"service account was made again": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Now().Add(-time.Hour)) })
			c.objects[pathAccount] = account(time.Now().Add(-time.Minute))
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "is older than its service account metrics-server",
			Cause: "401", Remedy: "kubectl -n kube-system delete pod metrics-server-1",
		}},
		"service account was created again long ago, and the pod is not ready": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.CreationTimestamp = metav1.NewTime(time.Now().Add(-10 * time.Hour))
				p.Status.Conditions = nil
			})
			c.objects[pathAccount] = account(time.Now().Add(-5 * time.Hour))
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "is older than its service account metrics-server",
			Cause: "401", Remedy: "kubectl -n kube-system delete pod metrics-server-1",
		}},
		"init container crashes": {broken: func(c *fakeCluster) {
			waiting("PodInitializing", "", nil)(c)
			c.pod(func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "istio-init"}, {Name: "last"}}
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
					Name: "istio-init", State: crashed(), LastTerminationState: corev1.ContainerState{
						Terminated: &corev1.ContainerStateTerminated{ExitCode: 137},
					},
				}, {Name: "last", State: p.Status.ContainerStatuses[0].State}}
			})
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "container istio-init is waiting: CrashLoopBackOff",
			Cause: "it terminated with exit code 137", Remedy: "--previous -c istio-init",
		}},
		"init container runs": {broken: func(c *fakeCluster) {
			waiting("PodInitializing", "", nil)(c)
			c.pod(func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "istio-init"}}
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "istio-init", State: ran(time.Minute)}}
			})
		}, want: Line{
			Check: checkPods, Status: Warning, Message: "container metrics-server is waiting: PodInitializing",
			Cause: "it is starting", Remedy: "try again",
		}},
		"node is down": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) { p.Status.Conditions = nil })
			c.nodes[0].Status.Conditions[0].Status = corev1.ConditionUnknown
			c.objects[pathNodes+"/n1"] = c.nodes[0]
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "not ready, nor is its node n1", Cause: "node",
			Remedy: "kubectl -n kube-system delete pod metrics-server-1",
		}},
		"resizer crashes": {broken: func(c *fakeCluster) {
			c.pod(func(p *corev1.Pod) {
				p.Spec.Containers = append([]corev1.Container{nanny()}, p.Spec.Containers...)
				p.Status.Conditions = nil
				p.Status.ContainerStatuses = append([]corev1.ContainerStatus{{
					Name: "metrics-server-vpa", RestartCount: 3,
					State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
					LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}},
				}}, p.Status.ContainerStatuses...)
			})
		}, want: Line{
			Check: checkPods, Status: Problem, Message: "container metrics-server-vpa is waiting", Cause: "exit code 1",
			Remedy: "--previous -c metrics-server-vpa",
		}},
	})
}

// waiting makes the container of the server's pod wait, after it ended as last says.
func waiting(reason, message string, last *corev1.ContainerStateTerminated) func(*fakeCluster) {
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

func probe(path string) *corev1.Probe {
	return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path}}}
}

func account(made time.Time) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"},
		ObjectMeta: metav1.ObjectMeta{Name: "metrics-server", CreationTimestamp: metav1.NewTime(made)},
	}
}

func deployment(replicas int32, failure string) appsv1.Deployment {
	d := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "metrics-server"}}
	d.Spec.Replicas = &replicas
	d.Spec.Template.Labels = map[string]string{"k8s-app": "metrics-server"}
	d.Spec.Template.Spec = serverPod("").Spec
	if failure != "" {
		d.Status.Conditions = []appsv1.DeploymentCondition{{
			Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: failure,
		}}
	}
	return d
}

// TestArgumentsWithoutPods checks that the Deployment says which rights the server needs while it has no pods.
func TestArgumentsWithoutPods(t *testing.T) {
	c := newCluster(t)
	c.objects[pathServerPods] = &corev1.PodList{}
	c.objects[pathDeploys] = &appsv1.DeploymentList{Items: []appsv1.Deployment{deployment(0, "")}}
	c.denied["get nodes/metrics"] = true // which only the account for kubelets needs
	if r := c.run(); len(find(r, Line{Check: checkAccess, Status: OK})) != 1 {
		t.Error(text(t, r))
	}
}

// The kubelet renews a pod's token within the hour: a pod that is ready by then has one of the new
// account.
func TestAccountCreatedAgainLongAgo(t *testing.T) {
	c := newCluster(t)
	c.pod(func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Now().Add(-10 * time.Hour)) })
	c.objects[pathAccount] = account(time.Now().Add(-5 * time.Hour))
	if r := c.run(); len(find(r, Line{Check: checkPods, Status: Problem})) != 0 {
		t.Error(text(t, r))
	}
}

// If the port on which the server listens is unknown, the Service's port is not criticised.
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
