package hpa

import (
	"context"
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/definition"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/doctor"
)

// overview adds a line for each HPA of a namespace, or with "" of the cluster. It returns an error if it can read none.
func overview(ctx context.Context, a *api, namespace string, named []*demand.Named, r *Report) error {
	e := &examination{api: a, report: &Report{Status: doctor.OK}, services: map[string]*owned{}, named: named}
	err := doctor.Pages(func(o metav1.ListOptions) (string, error) {
		list, err := a.AutoscalingV2().HorizontalPodAutoscalers(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			h := &list.Items[i]
			parsed := demand.Parse(h, e.servesExternal(ctx, h))
			e.state(ctx, parsed)
			r.add(summarize(h, judgeDefinition(parsed, e.own(ctx, parsed), e.defaultBackend)))
		}
		return list.Continue, nil
	})
	if err != nil && len(r.Checks) == 0 {
		remedy := remedyRead(err)
		if namespace == "" && apierrors.IsForbidden(err) {
			remedy = ": give a namespace in which you may list them, with --namespace"
		}
		return fmt.Errorf("list HorizontalPodAutoscalers: %w%s", err, remedy)
	}
	if err != nil {
		r.add(doctor.Unanswered(checkHPA, "the HorizontalPodAutoscalers after these cannot be checked", err,
			"list horizontalpodautoscalers.autoscaling"))
	}
	r.add(e.report.Checks...)
	if len(r.Checks) == 0 {
		r.add(doctor.OKLine(checkHPA, "there are no HorizontalPodAutoscalers"))
	}
	return nil
}

// summarize returns the line of an HPA, from the object and what is wrong with the definitions of its metrics.
func summarize(h *autoscalingv2.HorizontalPodAutoscaler, wrong []doctor.Line) doctor.Line {
	l := doctor.OKLine(h.Namespace+"/"+h.Name, fmt.Sprintf("%s %s: %s (min %d, max %d), %s", h.Spec.ScaleTargetRef.Kind,
		h.Spec.ScaleTargetRef.Name, doctor.Plural(int(h.Status.CurrentReplicas), "replica"), minReplicas(&h.Spec),
		h.Spec.MaxReplicas, observe(&h.Status).desired()))
	l.Objects = []doctor.Object{doctor.Autoscaler(h.Namespace, h.Name)}
	more := fmt.Sprintf("run metrics-server doctor hpa %s/%s for details", h.Namespace, h.Name)
	for _, c := range judgeConditions(h) {
		c.Remedy = "" // it speaks of other checks
		wrong = append(wrong, c)
	}
	if c := condition(h, autoscalingv2.ScalingLimited, corev1.ConditionTrue); c != nil && c.Reason == "TooManyReplicas" {
		wrong = append(wrong, doctor.Line{
			Status: doctor.Warning, Message: "it is at maxReplicas, and the metrics ask for more",
			Cause: c.Message, Remedy: "raise maxReplicas",
		})
	}
	if len(wrong) == 0 {
		return l
	}
	worst := wrong[0]
	for _, w := range wrong[1:] {
		if w.Status != worst.Status && doctor.Worse(worst.Status, w.Status) == w.Status {
			worst = w
		}
	}
	l.Status, l.Cause, l.Remedy = worst.Status, worst.Cause, worst.Remedy
	l.Message += "; " + worst.Message
	if n := len(wrong) - 1; n > 0 {
		l.Message += fmt.Sprintf(" (and %d more)", n)
	}
	l.Remedy = strings.TrimPrefix(l.Remedy+"; "+more, "; ")
	return l
}

// judgeDefinition returns the mistakes in what an HPA says of own, the metrics that the custom metrics server serves.
// What a backend may be asked depends on its settings, which only that server knows.
func judgeDefinition(parsed *demand.HPA, own []demand.Metric, defaultBackend string) []doctor.Line {
	if len(parsed.Mistakes) > 0 {
		return judgeMistakes(parsed, own)
	}
	var lines []doctor.Line
	add := func(text, cause, remedy string) {
		lines = append(lines, doctor.Line{Status: doctor.Problem, Message: text, Cause: cause, Remedy: remedy})
	}
	for i := range own {
		m := &own[i]
		source := m.Source(defaultBackend)
		if err := m.ErrIn(source); err != nil {
			text, remedy := split(err, "correct it")
			add(text, "the HorizontalPodAutoscaler asks for something that cannot be served", remedy)
		} else if source != "" {
			continue
		} else if _, err := definition.Compile(m); err != nil {
			add(describeMistake(m, err))
		}
	}
	return lines
}
