package doctor

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// workload checks the Service, its endpoints and the pods behind it. It returns the pod from which the server's
// arguments were read, or nil. If there are no pods, it is the one that the Deployment would create.
func (e *examination) workload(ctx context.Context, ref serviceRef) *corev1.Pod {
	service, err := e.api.CoreV1().Services(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && e.guessed:
		e.elsewhere = true
		e.report.add(NewLine(checkService, Unknown,
			fmt.Sprintf("the Service of metrics-server is unknown: %s does not exist", ref),
			"only the APIServices say where metrics-server is installed, and they cannot be read",
			"give this command the --namespace and --service of metrics-server, or credentials that may get "+
				"apiservices.apiregistration.k8s.io"))
		service = nil
	case apierrors.IsNotFound(err):
		e.report.add(NewLine(checkService, Problem, fmt.Sprintf("Service %s does not exist", ref),
			"metrics-server is not installed there",
			remedyInstall+"; if it is installed elsewhere, give this command its --namespace and --service"))
		service = nil
	case err != nil:
		e.report.add(Unanswered(checkService, fmt.Sprintf("Service %s cannot be checked", ref), err,
			"get services and list endpointslices in "+ref.Namespace))
		service = nil
	}
	pods, server := e.pods(ctx, ref.Namespace, service)
	if len(pods) > 0 {
		server = &pods[0]
	}
	if server != nil {
		e.readFlags(server)
	}
	if service != nil {
		endpoints, err := e.api.DiscoveryV1().EndpointSlices(ref.Namespace).List(ctx,
			metav1.ListOptions{LabelSelector: labels.Set{discoveryv1.LabelServiceName: ref.Name}.String()})
		if err != nil {
			e.report.add(Unanswered(checkService, fmt.Sprintf("the endpoints of Service %s cannot be checked", ref), err,
				"list endpointslices in "+ref.Namespace))
			endpoints = nil
		}
		e.report.add(judgeService(ref, service, endpoints, server, e.flags.Port)...)
		e.ownEndpoints(ref, endpoints)
	}
	account := e.account(ctx, server)
	for i := range pods {
		pod := &pods[i]
		flags, _, err := e.flagsOf(pod) // readFlags has reported the error
		e.report.add(judgePod(pod, e.probeEvents(ctx, pod), e.nodeDown(ctx, pod), flags.Port))
		if err == nil {
			closed := closedProbes(pod, flags.OpenPaths)
			e.report.add(judgeProbes(pod, closed, e.denied(ctx, closed))...)
		}
		e.report.add(judgeAccount(pod, account, e.api.clock.now())...)
		if flags.Port == 0 {
			continue
		}
		for _, ip := range append(pod.Status.PodIPs, corev1.PodIP{IP: pod.Status.PodIP}) {
			e.own[net.JoinHostPort(ip.IP, strconv.Itoa(flags.Port))] = "pod " + pod.Namespace + "/" + pod.Name
		}
	}
	return server
}

// nodeDown reports whether the node of a pod that is not ready is known not to be ready either.
func (e *examination) nodeDown(ctx context.Context, pod *corev1.Pod) bool {
	if IsReady(pod) || pod.Spec.NodeName == "" {
		return false
	}
	node, err := e.api.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
	return err == nil && !newVisit(node).ready
}
