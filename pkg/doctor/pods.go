package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// selectors match the pods of deploy/ and of Helm charts, for when the server's Service cannot be
// read.
var selectors = []string{"k8s-app=metrics-server", "app.kubernetes.io/name=metrics-server"}

// pods returns the server's pods that have not terminated, the newest first. If there are none, template is the pod
// that the server's Deployment would create; nil if there is no Deployment.
func (e *examination) pods(ctx context.Context, namespace string, service *corev1.Service) (
	pods []corev1.Pod, template *corev1.Pod,
) {
	try := selectors
	if service != nil && service.Spec.Type != corev1.ServiceTypeExternalName && len(service.Spec.Selector) > 0 {
		try = []string{labels.SelectorFromSet(service.Spec.Selector).String()}
	}
	for _, selector := range try {
		list, err := e.api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
			LabelSelector: selector, FieldSelector: "status.phase!=Failed,status.phase!=Succeeded", // evicted pods can be many
			Limit: page,
		})
		if err != nil {
			e.report.add(Unanswered(checkPods, "the server's pods cannot be checked", err, "list pods in "+namespace))
			return nil, nil
		}
		pods = slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
		if len(pods) > 0 {
			slices.SortFunc(pods, func(a, b corev1.Pod) int {
				return b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
			})
			return pods, nil
		}
	}
	if e.guessed && service == nil {
		return nil, nil // the server may be elsewhere
	}
	line, template := e.noPods(ctx, namespace, try)
	e.report.add(line)
	return nil, template
}

// noPods returns the line that says why there are no pods, and the pod that should be there, if that is known.
func (e *examination) noPods(ctx context.Context, namespace string, selectors []string) (Line, *corev1.Pod) {
	message := "the server has no pod in namespace " + namespace + " (labels " + strings.Join(selectors, " or ") + ")"
	list, err := e.api.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{Limit: page})
	if err != nil {
		l := Unanswered(checkPods, message, err, "list deployments in "+namespace)
		l.Status = Problem
		return l, nil
	}
	return judgeNoPods(message, list.Items, selectors)
}

func judgeNoPods(message string, deployments []appsv1.Deployment, selectors []string) (Line, *corev1.Pod) {
	l := NewLine(checkPods, Problem, message, "no Deployment creates such pods", remedyInstall)
	for _, d := range deployments {
		matches := func(s string) bool {
			selector, err := labels.Parse(s)
			return err == nil && selector.Matches(labels.Set(d.Spec.Template.Labels))
		}
		if !slices.ContainsFunc(selectors, matches) {
			continue
		}
		template := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name}, Spec: d.Spec.Template.Spec,
		}
		if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
			l.Cause = "Deployment " + d.Name + " is scaled to 0"
			l.Remedy = fmt.Sprintf("kubectl -n %s scale deployment %s --replicas=1", d.Namespace, d.Name)
			return l, template
		}
		l.Cause = "Deployment " + d.Name + " has created no pod"
		l.Remedy = fmt.Sprintf("see the events of kubectl -n %s describe replicaset: a quota, an admission webhook or pod "+
			"security may forbid the pod", d.Namespace)
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				l.Cause += ": " + c.Message
			}
		}
		return l, template
	}
	return l, nil
}
