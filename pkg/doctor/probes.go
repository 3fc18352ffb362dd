package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// closedProbes returns the paths of the pod's probes that are not among open. The kubelet probes
// them without credentials, so anonymous users need the right to get them.
func closedProbes(pod *corev1.Pod, open []string) []string {
	c := serverContainer(pod)
	var closed []string
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if probe == nil || probe.HTTPGet == nil {
			continue
		}
		path, _, _ := strings.Cut(probe.HTTPGet.Path, "?")
		isOpen := slices.ContainsFunc(open, func(pattern string) bool { return covers(pattern, path) })
		if !isOpen && !slices.Contains(closed, path) {
			closed = append(closed, path)
		}
	}
	return closed
}

// denied returns the paths that anonymous users may not get, as far as the API server tells.
func (e *examination) denied(ctx context.Context, paths []string) (denied []string) {
	for _, path := range paths {
		review, err := e.api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{
				User: "system:anonymous", Groups: []string{"system:unauthenticated"},
				NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: "get", Path: path},
			},
		}, metav1.CreateOptions{})
		if err == nil && !review.Status.Allowed {
			denied = append(denied, path)
		}
	}
	return denied
}

// judgeProbes takes the paths of a pod's probes that --authorization-always-allow-paths lacks, and
// those among them that anonymous users may not get.
func judgeProbes(pod *corev1.Pod, closed, denied []string) []Line {
	line := func(status Status, paths []string, restriction, consequence string) []Line {
		return []Line{NewLine(checkPods, status, fmt.Sprintf("pod %s/%s is probed at %s, %s", pod.Namespace, pod.Name,
			strings.Join(paths, " and "),
			restriction), "--authorization-always-allow-paths lacks the path, "+consequence, remedyOpenPaths).aboutPod(pod)}
	}
	switch {
	case len(denied) > 0:
		return line(Problem, denied, "which the server denies to anonymous clients",
			"and anonymous users have no right to get it: the kubelet, which probes without credentials, gets 403, restarts "+
				"the container or never considers it ready")
	case len(closed) > 0:
		return line(Warning, closed, "for which the server needs the API server's permission",
			"so the probe fails, and the kubelet restarts the container, whenever the API server does not answer")
	}
	return nil
}

const remedyOpenPaths = "add the paths of the probes to --authorization-always-allow-paths, or remove the flag " +
	"(its default is /healthz,/readyz,/livez)"

// covers reports whether pattern, which may end in a star, matches path.
func covers(pattern, path string) bool {
	pattern, path = strings.TrimPrefix(pattern, "/"), strings.TrimPrefix(path, "/")
	prefix, open := strings.CutSuffix(pattern, "*")
	return pattern == path || open && strings.HasPrefix(path, prefix)
}

// probeEvents returns the kubelet's last message about a failed probe of a pod that was restarted
// or is not ready, preferring the liveness probe. As it is only a hint, it is "" if events cannot
// be read.
func (e *examination) probeEvents(ctx context.Context, pod *corev1.Pod) string {
	if restarts(pod) == 0 && IsReady(pod) {
		return ""
	}
	list, err := e.api.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(pod.UID), Limit: page,
	})
	if err != nil {
		return ""
	}
	for _, probe := range []string{livenessProbe, readinessProbe} {
		for _, event := range slices.Backward(list.Items) {
			if event.Reason == "Unhealthy" && strings.HasPrefix(event.Message, probe) {
				return event.Message
			}
		}
	}
	return ""
}

// The beginnings of the kubelet's messages about failed probes.
const (
	livenessProbe  = "Liveness probe"
	readinessProbe = "Readiness probe"
)

// isDenied reports whether a probe failed because the server denies it to anonymous clients.
func isDenied(probe string) bool {
	return strings.Contains(probe, "statuscode: 403") || strings.Contains(probe, "statuscode: 401")
}
