package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// selectors find the server's pods where its Service cannot be read: those of deploy/ and of Helm charts.
var selectors = []string{"k8s-app=metrics-server", "app.kubernetes.io/name=metrics-server"}

const (
	kubeletPort = 10250

	remedyPortClash = "give --secure-port, containerPort and the Service's targetPort another number, such as 4443"
	remedyLogs      = "see why with kubectl -n %s logs %s --previous"
)

// workload looks at the Service, its endpoints and the pods behind it. It returns the pod whose command line is the server's, or
// nil.
func (e *examination) workload(ctx context.Context, ref serviceRef) *corev1.Pod {
	service, err := e.api.CoreV1().Services(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		e.report.add(Line{
			Check: checkService, Status: Problem, Message: fmt.Sprintf("Service %s does not exist", ref),
			Cause: "metrics-server is not installed there", Remedy: remedyInstall + "; if it is installed elsewhere, say where with --namespace and --service",
		})
		service = nil
	case err != nil:
		e.report.add(unanswered(checkService, fmt.Sprintf("Service %s", ref), err, "get services and list endpointslices in "+ref.Namespace))
		service = nil
	}
	pods := e.pods(ctx, ref.Namespace, service)
	var server *corev1.Pod
	if len(pods) > 0 {
		server = &pods[0]
		e.readFlags(server)
	}
	if service != nil {
		endpoints, err := e.api.DiscoveryV1().EndpointSlices(ref.Namespace).List(ctx,
			metav1.ListOptions{LabelSelector: labels.Set{discoveryv1.LabelServiceName: ref.Name}.String()})
		if err != nil {
			e.report.add(unanswered(checkService, fmt.Sprintf("which endpoints Service %s has", ref), err, "list endpointslices in "+ref.Namespace))
			endpoints = nil
		}
		e.report.add(judgeService(ref, service, endpoints, server, e.flags.Port)...)
	}
	for i := range pods {
		flags, _ := e.flagsOf(&pods[i]) // readFlags has said what is wrong with them
		e.report.add(judgePod(&pods[i], e.probeEvents(ctx, &pods[i]), flags.Port))
	}
	return server
}

// pods returns the server's pods that have not ended, the newest first.
func (e *examination) pods(ctx context.Context, namespace string, service *corev1.Service) []corev1.Pod {
	try := selectors
	if service != nil && service.Spec.Type != corev1.ServiceTypeExternalName && len(service.Spec.Selector) > 0 {
		try = []string{labels.SelectorFromSet(service.Spec.Selector).String()}
	}
	for _, selector := range try {
		list, err := e.api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
			LabelSelector: selector, FieldSelector: "status.phase!=Failed,status.phase!=Succeeded", Limit: page, // evicted ones can be many
		})
		if err != nil {
			e.report.add(unanswered(checkPods, "the server's pods", err, "list pods in "+namespace))
			return nil
		}
		pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
		if len(pods) > 0 {
			slices.SortFunc(pods, func(a, b corev1.Pod) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
			return pods
		}
	}
	e.report.add(e.noPods(ctx, namespace, try))
	return nil
}

// noPods says why there are none.
func (e *examination) noPods(ctx context.Context, namespace string, selectors []string) Line {
	what := "no pod of the server is in namespace " + namespace + " (labels " + strings.Join(selectors, " or ") + ")"
	list, err := e.api.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{Limit: page})
	if err != nil {
		l := unanswered(checkPods, "why there is no pod", err, "list deployments in "+namespace)
		l.Status, l.Message = Problem, what
		return l
	}
	return judgeNoPods(what, list.Items, selectors)
}

func judgeNoPods(what string, deployments []appsv1.Deployment, selectors []string) Line {
	l := Line{Check: checkPods, Status: Problem, Message: what, Cause: "no Deployment makes any", Remedy: remedyInstall}
	for _, d := range deployments {
		matches := func(s string) bool {
			selector, err := labels.Parse(s)
			return err == nil && selector.Matches(labels.Set(d.Spec.Template.Labels))
		}
		if !slices.ContainsFunc(selectors, matches) {
			continue
		}
		if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
			l.Cause = "Deployment " + d.Name + " is scaled to 0"
			l.Remedy = fmt.Sprintf("kubectl -n %s scale deployment %s --replicas=1", d.Namespace, d.Name)
			return l
		}
		l.Cause = "Deployment " + d.Name + " has made none"
		l.Remedy = fmt.Sprintf("see the events of kubectl -n %s describe replicaset: a quota, an admission webhook or pod security may forbid the pod", d.Namespace)
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				l.Cause += ": " + c.Message
			}
		}
		return l
	}
	return l
}

// judgeService is given nil for the endpoints that could not be read, and for a server that is not known.
func judgeService(ref serviceRef, service *corev1.Service, endpoints *discoveryv1.EndpointSliceList, server *corev1.Pod, securePort int) []Line {
	var lines []Line
	problem := func(message, cause, remedy string) {
		lines = append(lines, Line{Check: checkService, Status: Problem, Message: fmt.Sprintf("Service %s %s", ref, message), Cause: cause, Remedy: remedy})
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return []Line{{Check: checkService, Status: OK, Message: fmt.Sprintf("Service %s stands for %s, which cannot be looked into", ref, service.Spec.ExternalName)}}
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == ref.Port })
	if i < 0 {
		problem(fmt.Sprintf("has no port %d", ref.Port), "the APIService names a port that the Service does not have", "make spec.service.port of the APIService that of the Service (443 in deploy/)")
		return lines
	}
	port := service.Spec.Ports[i]
	target := targetPort(port, server)
	switch {
	case server == nil:
	case target == 0:
		problem(fmt.Sprintf("sends to the port %q, which the pods do not name", port.TargetPort.String()),
			"no container of pod "+server.Name+" has a port of that name", "name the container's port as the Service's targetPort (https in deploy/)")
	case securePort != 0 && target != securePort:
		problem(fmt.Sprintf("sends to port %d, but the server listens on %d", target, securePort),
			"--secure-port is not the Service's targetPort", "make targetPort, containerPort and --secure-port the same")
	}
	if endpoints == nil {
		return lines
	}
	ready, waiting := countEndpoints(endpoints.Items, port.Name)
	switch {
	case ready == 0 && waiting > 0:
		problem("has no ready endpoint", fmt.Sprintf("none of its %s is ready", plural(waiting, "pod")), "see the check of pods below")
	case ready == 0:
		problem("has no endpoint for port "+cmp.Or(port.Name, fmt.Sprint(port.Port)), "its selector matches no pod with an address, or the pods lack that port", "compare the Service's selector and targetPort with the pods' labels and ports")
	case len(lines) == 0:
		lines = append(lines, Line{Check: checkService, Status: OK, Message: fmt.Sprintf("Service %s has %s, port %d leads to %s", ref, plural(ready, "ready endpoint"), port.Port, port.TargetPort.String())})
	}
	return lines
}

// targetPort is the port of the pod that p leads to, or 0 if the pod does not name it.
func targetPort(p corev1.ServicePort, pod *corev1.Pod) int {
	switch {
	case p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal != 0:
		return int(p.TargetPort.IntVal)
	case p.TargetPort.Type == intstr.Int:
		return int(p.Port)
	case pod == nil:
		return 0
	}
	for _, c := range pod.Spec.Containers {
		for _, cp := range c.Ports {
			if cp.Name == p.TargetPort.StrVal {
				return int(cp.ContainerPort)
			}
		}
	}
	return 0
}

// countEndpoints counts the addresses that have a port of that name, by whether they are ready.
func countEndpoints(all []discoveryv1.EndpointSlice, port string) (ready, waiting int) {
	for _, s := range all {
		named := func(p discoveryv1.EndpointPort) bool {
			return p.Name == nil && port == "" || p.Name != nil && *p.Name == port
		}
		if !slices.ContainsFunc(s.Ports, named) {
			continue
		}
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready++
			} else {
				waiting++
			}
		}
	}
	return ready, waiting
}

// probeEvents returns what the kubelet said of the pod's liveness probe, "" also if that cannot be read: it is only a hint.
func (e *examination) probeEvents(ctx context.Context, pod *corev1.Pod) string {
	if restarts(pod) == 0 {
		return ""
	}
	list, err := e.api.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(pod.UID), Limit: page})
	if err != nil {
		return ""
	}
	for _, event := range slices.Backward(list.Items) {
		if event.Reason == "Unhealthy" && strings.HasPrefix(event.Message, "Liveness probe") {
			return event.Message
		}
	}
	return ""
}

func restarts(pod *corev1.Pod) (n int) {
	for _, s := range pod.Status.ContainerStatuses {
		n += int(s.RestartCount)
	}
	return n
}

// waitingReasons are why a container does not start, by the beginning of the reason.
var waitingReasons = []struct{ reason, cause, remedy string }{
	{"ErrImageNeverPull", "the image is not on the node, and imagePullPolicy is Never", "load the image on the node, or change imagePullPolicy"},
	{"ErrImagePull", causeImage, remedyImage},
	{"ImagePullBackOff", causeImage, remedyImage},
	{"InvalidImageName", causeImage, remedyImage},
	{"CreateContainerConfigError", "the pod names a ConfigMap, Secret or user that does not fit", "see the message, and kubectl -n %s describe pod %s"},
	{"CreateContainerError", "the container runtime cannot make the container", "see the message, and kubectl -n %s describe pod %s"},
	{"RunContainerError", "the container runtime cannot start the container", "see the message, and kubectl -n %s describe pod %s"},
}

const (
	causeImage  = "the node cannot get the image: its name is wrong, or the registry cannot be reached or wants credentials"
	remedyImage = "correct the image, or give imagePullSecrets: kubectl -n %s describe pod %s shows the registry's answer"
)

// judgePod looks at a pod of the server. probe is what was last said of its liveness probe.
func judgePod(pod *corev1.Pod, probe string, securePort int) Line {
	line := func(status Status, message, cause, remedy string) Line {
		if strings.Contains(remedy, "%s") {
			remedy = fmt.Sprintf(remedy, pod.Namespace, pod.Name)
		}
		return Line{Check: checkPods, Status: status, Message: "pod " + pod.Namespace + "/" + pod.Name + " " + message, Cause: cause, Remedy: remedy}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			message := "is pending: " + c.Reason + ": " + c.Message
			if strings.Contains(c.Message, "free ports") {
				return line(Problem, message, "on the host network another program has the port on every node that would do: kubelets have 10250", remedyPortClash)
			}
			return line(Problem, message, "no node has room for it or may run it", "give the cluster room, or change the pod's requests, node selector or tolerations")
		}
	}
	clash := pod.Spec.HostNetwork && securePort == kubeletPort
	for _, s := range pod.Status.ContainerStatuses {
		w := s.State.Waiting
		if w == nil {
			continue
		}
		message := "is waiting: " + w.Reason
		if w.Message != "" {
			message += ": " + w.Message
		}
		if w.Reason == "CrashLoopBackOff" {
			cause, remedy := explainEnd(s.LastTerminationState.Terminated, probe, clash)
			return line(Problem, message, cause, remedy)
		}
		for _, r := range waitingReasons {
			if r.reason == w.Reason {
				return line(Problem, message, r.cause, r.remedy)
			}
		}
		return line(Warning, message, "it is being started", "try again in a minute; if it stays so, see kubectl -n %s describe pod %s")
	}
	if clash {
		return line(Problem, fmt.Sprintf("is on the host network with --secure-port=%d", securePort), "the node's kubelet listens on that port", remedyPortClash)
	}
	if name := proxyVariable(serverContainer(pod)); name != "" && !ready(pod) {
		return line(Problem, "runs and is not ready, and has "+name+" in its environment", "a proxy leads neither to the API server nor to kubelets, or to one of them only",
			"add the address of the API server ($KUBERNETES_SERVICE_HOST) and those of the nodes to NO_PROXY, one by one or as ranges such as 10.0.0.0/8, or remove "+name+"; if that is not it, its log says what is: kubectl -n %s logs %s")
	}
	if !ready(pod) {
		return line(Problem, "runs and is not ready", "it cannot serve yet: it started a moment ago, its kubelets do not answer, or the API server does not",
			"its log says which, and what to do: kubectl -n %s logs %s; see the checks of nodes below")
	}
	for _, s := range pod.Status.ContainerStatuses {
		if last := s.LastTerminationState.Terminated; last != nil && s.RestartCount > 0 {
			cause, remedy := explainEnd(last, probe, clash)
			return line(Warning, fmt.Sprintf("is ready, and was restarted %s, last at %s", plural(int(s.RestartCount), "time"), last.FinishedAt.UTC().Format(time.RFC3339)), cause, remedy)
		}
	}
	return line(OK, "is ready on node "+pod.Spec.NodeName+" with image "+serverContainer(pod).Image, "", "")
}

// explainEnd says why a container ended.
func explainEnd(t *corev1.ContainerStateTerminated, probe string, clash bool) (cause, remedy string) {
	const sigkill, sigterm = 128 + 9, 128 + 15
	switch {
	case t == nil:
		return "it ended", remedyLogs
	case t.Reason == "OOMKilled":
		return "it used more memory than its limit", "raise the container's memory limit: docs/benchmarks.md has what clusters take"
	case clash:
		return "on the host network the node's kubelet listens on 10250, the port that it wants", remedyPortClash
	case probe != "":
		return "the kubelet restarted it: " + probe, "see that livenessProbe asks for /livez by HTTPS on the port of --secure-port, and that the container gets the CPU that it needs"
	case t.ExitCode == 0, t.ExitCode == sigkill, t.ExitCode == sigterm:
		return fmt.Sprintf("it was told to end (exit code %d), most likely by the kubelet because its liveness probe failed", t.ExitCode), "see kubectl -n %s describe pod %s, and that livenessProbe asks for /livez by HTTPS on the port of --secure-port"
	}
	cause = fmt.Sprintf("it ended with exit code %d", t.ExitCode)
	if t.Message != "" {
		cause += ": " + t.Message
	}
	return cause, remedyLogs
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// serverContainer is the container of the pod that is the server, as others may stand beside it.
func serverContainer(pod *corev1.Pod) *corev1.Container {
	i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return strings.Contains(c.Name, "metrics-server")
	})
	return &pod.Spec.Containers[max(i, 0)]
}

// proxyVariable is the variable of a container's environment that names a proxy for what the server asks, "" if it has none. What
// is not said in the pod itself is not known.
func proxyVariable(c *corev1.Container) string {
	i := slices.IndexFunc(c.Env, func(v corev1.EnvVar) bool {
		return strings.EqualFold(v.Name, "HTTPS_PROXY") && (v.Value != "" || v.ValueFrom != nil)
	})
	if i < 0 {
		return ""
	}
	return c.Env[i].Name
}

// commandLine is what the pod's server was started with, as far as the pod says it.
func commandLine(pod *corev1.Pod) []string {
	c := serverContainer(pod)
	var args []string
	for _, a := range slices.Concat(c.Command, c.Args) {
		if strings.HasPrefix(a, "-") || len(args) > 0 {
			args = append(args, a) // what comes before the first flag is the program
		}
	}
	return args
}
