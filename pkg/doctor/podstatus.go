package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"metrics-server/pkg/kubeapi"
)

const (
	remedyPortClash = "set --secure-port, containerPort and the Service's targetPort to another port, such as 4443"
	remedyLogs      = "its log has the reason: kubectl -n %s logs %s --previous"
	remedyDescribe  = "see the message, and kubectl -n %s describe pod %s"
)

// judgePod checks a pod of the server. probe is the kubelet's last message about a failed probe of
// it, and nodeDown says that its node is not ready.
func judgePod(pod *corev1.Pod, probe string, nodeDown bool, securePort int) Line {
	line := func(status Status, message, cause, remedy string) Line {
		if strings.Contains(remedy, "%s") {
			remedy = fmt.Sprintf(remedy, pod.Namespace, pod.Name)
		}
		return NewLine(checkPods, status, "pod "+pod.Namespace+"/"+pod.Name+" "+message, cause, remedy).aboutPod(pod)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			message := "is pending: " + c.Reason + ": " + c.Message
			if strings.Contains(c.Message, "free ports") {
				return line(Problem, message, "the pod uses the host network, and on every suitable node another program has its "+
					"port: kubelets listen on 10250", remedyPortClash)
			}
			return line(Problem, message, "no node has room for the pod, or none may run it",
				"make room in the cluster, or change the pod's requests, node selector or tolerations")
		}
	}
	if nodeDown {
		return line(Problem, "is not ready, nor is its node "+pod.Spec.NodeName,
			"the node is down, or its kubelet cannot reach the API server, so the status of the pod is outdated",
			"repair the node (kubectl describe node "+pod.Spec.NodeName+"); to have another node run the pod, delete it: "+
				"kubectl -n %s delete pod %s --wait=false")
	}
	// of names the container if the pod has several.
	of := func(container string) string {
		if !hasSeveral(pod) {
			return ""
		}
		return "container " + container + " "
	}
	server := serverContainer(pod).Name
	clash := pod.Spec.HostNetwork && securePort == kubeapi.KubeletPort
	// Init containers come first: while one of them waits, those that follow wait for it.
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		w := s.State.Waiting
		if w == nil {
			continue
		}
		message := of(s.Name) + "is waiting: " + w.Reason
		if w.Message != "" {
			message += ": " + w.Message
		}
		if w.Reason == "CrashLoopBackOff" {
			cause, remedy := explainEnd(s.LastTerminationState.Terminated, s.Name == server, probe, clash)
			return line(Problem, message, cause, withContainer(remedy, pod, s.Name))
		}
		for _, r := range waitingReasons {
			if r.reason == w.Reason {
				return line(Problem, message, r.cause, r.remedy)
			}
		}
		return line(Warning, message, "it is starting",
			"try again in a minute; if it is still waiting, see kubectl -n %s describe pod %s")
	}
	if clash {
		return line(Problem, fmt.Sprintf("is on the host network with --secure-port=%d", securePort),
			"the node's kubelet listens on that port", remedyPortClash)
	}
	if name := proxyVariable(serverContainer(pod)); name != "" && !IsReady(pod) {
		return line(Problem, "runs but is not ready, and has "+name+" in its environment",
			"the proxy probably cannot reach the API server or the kubelets",
			kubeapi.RemedyProxy+"; if that does not help, its log has the cause: kubectl -n %s logs %s")
	}
	if !IsReady(pod) && isDenied(probe) {
		return line(Problem, "runs but is not ready", "the server denies the kubelet's probe: "+probe, remedyOpenPaths)
	}
	if !IsReady(pod) {
		return line(Problem, "runs but is not ready",
			"it started a moment ago, or kubelets or the API server do not answer it",
			"its log has the cause and the remedy: kubectl -n %s logs %s; see also the check nodes below")
	}
	for _, s := range pod.Status.ContainerStatuses {
		if last := s.LastTerminationState.Terminated; last != nil && s.RestartCount > 0 {
			cause, remedy := explainEnd(last, s.Name == server, probe, clash)
			message := fmt.Sprintf("is ready, but %swas restarted %s, the last time at %s", of(s.Name),
				Plural(int(s.RestartCount), "time"), last.FinishedAt.UTC().Format(time.RFC3339))
			return line(Warning, message, cause, withContainer(remedy, pod, s.Name))
		}
	}
	return line(OK, "is ready on node "+pod.Spec.NodeName+" with image "+serverContainer(pod).Image, "", "")
}

// waitingReasons lists why a container does not start, by the reason of its state.
var waitingReasons = []struct{ reason, cause, remedy string }{
	{
		"ErrImageNeverPull", "the image is not on the node, and imagePullPolicy is Never",
		"load the image on the node, or change imagePullPolicy",
	},
	{"ErrImagePull", causeImage, remedyImage},
	{"ImagePullBackOff", causeImage, remedyImage},
	{"InvalidImageName", causeImage, remedyImage},
	{
		"CreateContainerConfigError", "the pod refers to a ConfigMap, Secret or user that does not exist or is not permitted",
		remedyDescribe,
	},
	{"CreateContainerError", "the container runtime cannot create the container", remedyDescribe},
	{"RunContainerError", "the container runtime cannot start the container", remedyDescribe},
}

const (
	causeImage = "the node cannot pull the image: its name is wrong, or the registry cannot be reached or requires " +
		"credentials"
	remedyImage = "correct the image, or set imagePullSecrets; kubectl -n %s describe pod %s shows the registry's answer"
)

// explainEnd returns why a container terminated. server says that it runs the server.
func explainEnd(t *corev1.ContainerStateTerminated, server bool, probe string, clash bool) (cause, remedy string) {
	const sigkill, sigterm = 128 + 9, 128 + 15
	switch {
	case t == nil:
		return "it terminated", remedyLogs
	case t.Reason == "OOMKilled":
		return "it used more memory than its limit",
			"raise the container's memory limit; docs/benchmarks.md has the memory that clusters of each size need"
	case !server: // what follows is about the server
	case clash:
		return "the pod uses the host network, and the node's kubelet listens on its port, 10250", remedyPortClash
	case isDenied(probe):
		return "the kubelet restarted it because the server denies the kubelet's probe: " + probe, remedyOpenPaths
	case strings.HasPrefix(probe, livenessProbe):
		return "the kubelet restarted it: " + probe, "check that livenessProbe requests /livez over HTTPS on the port of " +
			"--secure-port, and that the container gets enough CPU"
	case t.ExitCode == 0, t.ExitCode == sigkill, t.ExitCode == sigterm:
		return fmt.Sprintf("it was told to terminate (exit code %d), most likely by the kubelet because its liveness probe "+
				"failed", t.ExitCode), "see kubectl -n %s describe pod %s, and check that livenessProbe requests /livez over " +
				"HTTPS on the port of --secure-port"
	}
	cause = fmt.Sprintf("it terminated with exit code %d", t.ExitCode)
	if t.Message != "" {
		cause += ": " + t.Message
	}
	return cause, remedyLogs
}

// withContainer adds the container to a command for logs if the pod has several.
func withContainer(remedy string, pod *corev1.Pod, container string) string {
	if remedy == remedyLogs && hasSeveral(pod) {
		return remedy + " -c " + container
	}
	return remedy
}

// hasSeveral reports whether pod has several containers, so that each has to be named.
func hasSeveral(pod *corev1.Pod) bool {
	return len(pod.Spec.InitContainers)+len(pod.Spec.Containers) > 1
}

// IsReady reports whether a pod is ready.
func IsReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func restarts(pod *corev1.Pod) (n int) {
	for _, s := range pod.Status.ContainerStatuses {
		n += int(s.RestartCount)
	}
	return n
}

// proxyVariable returns the name of the variable in a container's environment that sets a proxy for
// the server's requests, "" if the pod has none. Variables from ConfigMaps or Secrets are not
// considered.
func proxyVariable(c *corev1.Container) string {
	i := slices.IndexFunc(c.Env, func(v corev1.EnvVar) bool {
		return strings.EqualFold(v.Name, "HTTPS_PROXY") && (v.Value != "" || v.ValueFrom != nil)
	})
	if i < 0 {
		return ""
	}
	return c.Env[i].Name
}
