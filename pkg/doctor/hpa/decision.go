package hpa

import (
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"metrics-server/pkg/doctor"
)

// combined is what all metrics together ask for.
type combined struct {
	replicas int32
	by       int    // the metric that asks for most; -1 if none decides
	why      string // what decides, if it is no metric
	acts     bool   // whether the controller acts on replicas
	failing  int    // metrics without a value
	unread   int    // metrics that could not be read; 0 if they do not matter
}

// combine returns what all metrics together ask for: the highest wins, and a metric without a value forbids to scale
// down. If some metrics could not be read (unread > 0), it returns the controller's last decision.
func combine(h *autoscalingv2.HorizontalPodAutoscaler, current int32, proposed []*Calculation, unread int) combined {
	c := combined{by: -1}
	least := minReplicas(&h.Spec)
	for i, p := range proposed {
		switch {
		case p == nil:
			c.failing++
		case c.by < 0 || p.Replicas > c.replicas:
			c.replicas, c.by = p.Replicas, i
		}
	}
	fixed := func(replicas int32, acts bool, why string) combined {
		return combined{replicas: replicas, by: -1, acts: acts, why: why, failing: c.failing}
	}
	switch {
	case current == 0 && isDisabled(h):
		return fixed(0, false, "scaling is disabled while the target has zero replicas: set it to at least one")
	case current > h.Spec.MaxReplicas:
		return fixed(h.Spec.MaxReplicas, true, "the target has more replicas than maxReplicas, whatever the metrics say")
	case current > 0 && current < least:
		return fixed(least, true, "the target has fewer replicas than minReplicas, whatever the metrics say")
	case unread > 0:
		if condition(h, autoscalingv2.ScalingActive, corev1.ConditionTrue) != nil {
			current = h.Status.DesiredReplicas
		}
		return combined{replicas: current, by: -1, unread: unread}
	case c.failing == len(proposed):
		return fixed(current, false, "no metric has a value, so nothing changes")
	case c.failing > 0 && c.replicas < current:
		return fixed(current, false, fmt.Sprintf("%d of %s no value, and the others ask for less: without all values, "+
			"nothing is scaled down", c.failing, doctor.Plural(len(proposed), "metric")+have(c.failing)))
	}
	c.acts = true
	return c
}

func have(n int) string {
	if n == 1 {
		return " has"
	}
	return " have"
}

// isDisabled reports whether scaling is disabled if the target has zero replicas.
func isDisabled(h *autoscalingv2.HorizontalPodAutoscaler) bool {
	return !scaledToZero(h) || minReplicas(&h.Spec) == 0 && !measuresOutside(h)
}

// scaledToZero reports whether the controller itself has scaled the target to zero.
func scaledToZero(h *autoscalingv2.HorizontalPodAutoscaler) bool {
	return slices.ContainsFunc(h.Status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool {
		return c.Type == "ScaledToZero" && c.Status == corev1.ConditionTrue
	})
}

// measuresOutside reports whether a metric has a value even if there are no pods.
func measuresOutside(h *autoscalingv2.HorizontalPodAutoscaler) bool {
	return slices.ContainsFunc(h.Spec.Metrics, func(m autoscalingv2.MetricSpec) bool {
		return m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	})
}

// decide compares what follows from the metrics with what the controller did.
func (e *examination) decide() {
	h := e.hpa
	e.out.Status = observe(&h.Status)
	if e.scale.Read && e.scaleErr == nil {
		e.out.Decision = decide(h, int32(e.scale.Spec), e.proposed, e.unread, e.now)
	}
	e.add(judgeConditions(h)...)
	if d := e.out.Decision; d != nil && d.capped {
		e.add(doctor.NewLine(checkController, doctor.Warning,
			fmt.Sprintf("the metrics ask for %d replicas, and maxReplicas allows %d", d.Highest, h.Spec.MaxReplicas),
			"the load is higher than the HorizontalPodAutoscaler may follow", "raise maxReplicas"))
	}
}

// decide returns what the controller should do now, as far as that can be known from outside. unread of the metrics
// without a proposal could not be read.
func decide(h *autoscalingv2.HorizontalPodAutoscaler, current int32, proposed []*Calculation, unread int, now time.Time,
) *Decision {
	c := combine(h, current, proposed, unread)
	d := &Decision{Highest: c.replicas, Metric: c.by, Replicas: c.replicas, Steps: []string{}, Unknown: []string{}}
	if c.why != "" && c.acts {
		d.Steps = append(d.Steps, c.why)
	}
	if c.by >= 0 && c.acts {
		last := time.Time{}
		if h.Status.LastScaleTime != nil {
			last = h.Status.LastScaleTime.Time
		}
		l := limit(&h.Spec, current, c.replicas, last, now)
		d.Replicas, d.Steps, d.capped = l.replicas, append(d.Steps, l.steps...), l.capped
		d.Unknown = append(d.Unknown, l.unknown...)
	}
	if c.unread > 0 {
		d.Unknown = append(d.Unknown, fmt.Sprintf("%d of %s could not be read, and may ask for any number of replicas",
			c.unread, doctor.Plural(len(proposed), "metric")))
	}
	d.Verdict = verdict(h, current, c, d)
	return d
}

// verdict says what the controller does and why, compared with what it did at last.
func verdict(h *autoscalingv2.HorizontalPodAutoscaler, current int32, c combined, d *Decision) string {
	var s string
	switch {
	case c.unread > 0:
		s = "what the controller does cannot be known from here"
	case !c.acts:
		return fmt.Sprintf("stays at %s: %s", doctor.Plural(int(current), "replica"), c.why)
	case d.Replicas == current && c.replicas == current:
		s = fmt.Sprintf("stays at %s: the metrics ask for the current number", doctor.Plural(int(current), "replica"))
	case d.Replicas == current:
		s = fmt.Sprintf("stays at %s: the limits above allow no change", doctor.Plural(int(current), "replica"))
	case d.Replicas > current:
		s = fmt.Sprintf("scale up from %d to %d", current, d.Replicas)
	default:
		s = fmt.Sprintf("scale down from %d to %d", current, d.Replicas)
	}
	if c.unread == 0 && d.Replicas != current && len(d.Unknown) > 0 {
		s += ", unless one of the unknowns below prevents it"
	}
	switch desired := h.Status.DesiredReplicas; {
	case len(h.Status.Conditions) == 0:
		s += "; the controller has not decided anything yet"
	case condition(h, autoscalingv2.ScalingActive, corev1.ConditionFalse) != nil:
		s += "; but its last attempt failed, see its conditions"
	case c.unread > 0:
		s += fmt.Sprintf("; it decided on %d at its last attempt", d.Replicas)
	case desired == d.Replicas:
		s += fmt.Sprintf("; the controller decided the same (%d)", desired)
	case d.Replicas < desired && stabilized(h):
		s += fmt.Sprintf("; the controller stays at %d because a recommendation within the stabilization window was higher",
			desired)
	default:
		s += fmt.Sprintf("; the controller decided on %d at its last attempt, with the values of that time (it decides "+
			"every 15 s by default)", desired)
	}
	return s
}

func condition(h *autoscalingv2.HorizontalPodAutoscaler, t autoscalingv2.HorizontalPodAutoscalerConditionType,
	status corev1.ConditionStatus,
) *autoscalingv2.HorizontalPodAutoscalerCondition {
	for i := range h.Status.Conditions {
		if c := &h.Status.Conditions[i]; c.Type == t && c.Status == status {
			return c
		}
	}
	return nil
}

func stabilized(h *autoscalingv2.HorizontalPodAutoscaler) bool {
	c := condition(h, autoscalingv2.AbleToScale, corev1.ConditionTrue)
	return c != nil && c.Reason == "ScaleDownStabilized"
}

// conditionCauses lists why the controller does not act, by a part of the condition's message. The first entry that
// matches applies.
var conditionCauses = []struct{ says, cause, remedy string }{
	{
		"unable to get the target's current scale", "the target does not exist, has no scale, or the controller may not " +
			"read it", "see the check target; if it finds nothing, grant the controller get and update of the scale",
	},
	{"system:anonymous", doctor.CauseFrontProxy, doctor.RemedyFrontProxy},
	{"metrics API: Unauthorized", doctor.CauseFrontProxy, doctor.RemedyFrontProxy},
	{
		"is forbidden", "the account of the controller lacks a right",
		"bind the role that grants it to the service account kube-system/horizontal-pod-autoscaler",
	},
	{
		"the server could not find the requested resource", "no APIService is registered for the API that the metric needs",
		"see the check apiservice",
	},
	{
		"currently unable to handle the request", "the program behind an APIService is not available",
		"see the check apiservice; for resource metrics run metrics-server doctor",
	},
	{
		"missing request for", "the target is a percentage of the requests, and a container has none",
		"set requests on all containers of the pods",
	},
	{
		"missing pod-level request for",
		"the target is a percentage of the requests, and a pod with spec.resources has none",
		"set the request in spec.resources of the pods",
	},
	{
		"not found in Pod", "the metric is of a container that not every pod has",
		"correct the name of the container",
	},
	{
		"did not receive metrics for targeted pods", "no pod is ready and has a value",
		"see the findings for this metric; if there are none, check that the pods run and become ready",
	},
	{"no metrics returned from resource metrics API", "there are no resource metrics of the pods", remedyResource},
	{"resource metrics API", "metrics.k8s.io cannot be read", "run metrics-server doctor"},
	{"controlled by more than one HPA", causeAmbiguous, remedyAmbiguous},
	{"controlled by multiple HPAs", causeAmbiguous, remedyAmbiguous}, // before Kubernetes 1.37
	{
		"missing a selector", "the target's scale does not say which pods belong to it",
		"let the controller of the target set status.selector",
	},
	{
		"unable to update the target scale", "the controller may not change the scale, or something rejects the change",
		"grant it update of the scale, and see the admission webhooks",
	},
	{
		"external metrics API", "the metric is not served", "see the findings for this metric; if there are none, the " +
			"condition is outdated, or see the log of the program that serves it: wait 15 s and run doctor again",
	},
	{
		"custom metrics API", "the metric is not served", "see the findings for this metric; if there are none, the " +
			"condition is outdated: wait 15 s and run doctor again",
	},
}

const (
	causeAmbiguous  = "several HorizontalPodAutoscalers select the same pods"
	remedyAmbiguous = "if they have the same target, delete all but one; otherwise give the pods of each target a " +
		"label of their own, and use it in the target's selector"
)

// judgeConditions returns what the controller says is wrong.
func judgeConditions(h *autoscalingv2.HorizontalPodAutoscaler) []doctor.Line {
	if len(h.Status.Conditions) == 0 {
		return []doctor.Line{doctor.NewLine(checkController, doctor.Warning, "the controller has not looked at it yet",
			"it was created a moment ago, or the HPA controller of kube-controller-manager does not run or is slow",
			"try again in a minute; if nothing changes, see the log of kube-controller-manager, and with many "+
				"HorizontalPodAutoscalers raise its --concurrent-horizontal-pod-autoscaler-syncs and --kube-api-qps")}
	}
	var lines []doctor.Line
	for _, t := range []autoscalingv2.HorizontalPodAutoscalerConditionType{
		autoscalingv2.AbleToScale, autoscalingv2.ScalingActive,
	} {
		c := condition(h, t, corev1.ConditionFalse)
		if c == nil {
			continue
		}
		l := doctor.NewLine(checkController, doctor.Problem, fmt.Sprintf("%s is False: %s: %s", c.Type, c.Reason, c.Message),
			"the controller gives no further reason", "see kubectl describe hpa for its Events")
		if c.Reason == "ScalingDisabled" {
			l.Status, l.Cause = doctor.Warning, "the target was set to zero replicas, which turns autoscaling off"
			l.Remedy = "set the replicas of the target to at least one"
		}
		for _, known := range conditionCauses {
			if strings.Contains(c.Message, known.says) {
				l.Cause, l.Remedy = known.cause, known.remedy
				break
			}
		}
		lines = append(lines, l)
	}
	return lines
}
