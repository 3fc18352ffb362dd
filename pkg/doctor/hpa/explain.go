package hpa

import (
	"context"
	"errors"
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
)

// reported is an error that a line explains already.
type reported struct{ error }

func (r reported) Unwrap() error { return r.error }

// unanswered reports whether err says nothing about what the controller gets, which has rights and a time limit of its
// own.
func unanswered(err error) bool {
	return !doctor.DistrustsFrontProxy(err) && (apierrors.IsForbidden(err) || errors.Is(err, context.DeadlineExceeded))
}

// idle reports whether the controller needs no value of m because the target has zero replicas: either scaling is
// disabled, or m depends on pods, and only the other metrics count.
func (e *examination) idle(m *Metric) bool {
	kind := autoscalingv2.MetricSourceType(m.Type)
	ofPods := kind != autoscalingv2.ObjectMetricSourceType && kind != autoscalingv2.ExternalMetricSourceType
	return e.scale.Read && e.scale.Spec == 0 && (ofPods || isDisabled(e.hpa))
}

// explainMetric returns the line for a metric without a number of replicas, nil if another line says it already.
func (e *examination) explainMetric(m *Metric, err error) *doctor.Line {
	if _, known := errors.AsType[reported](err); known || e.idle(m) {
		return nil
	}
	l := doctor.Line{
		Check: checkServed, Status: doctor.Problem, Message: m.title() + " has no value: " + err.Error(),
		Cause: "the controller gets the same answer, and cannot calculate with the metric",
	}
	who := e.services[groupOf(m)]
	named := who != nil // rather than of a resource
	request, noContainer := errors.AsType[*noRequestError](err)
	_, missing := errors.AsType[*noContainerError](err)
	unfit, isUnfit := errors.AsType[*unfitError](err)
	none, isNone := errors.AsType[*noValueError](err)
	switch {
	case isNone && len(none.missing) > 0 && !named:
		l.Cause, l.Remedy = kubeapi.MetricsGroup+" has no value of "+doctor.Some(none.missing), remedyResource
	case isNone:
		l.Check, l.Cause = checkMetric, "pods that are not ready, being deleted or failed do not count, and the others have "+
			"no value"
		l.Remedy = "check that the pods run and become ready; the other findings may say why values are missing"
	case isUnfit:
		l.Check, l.Cause, l.Remedy = checkMetric, unfit.cause, unfit.remedy
	case noContainer:
		l.Check, l.Cause = checkMetric, "the target is a percentage of the requests, and each container needs one"
		where := "on container " + request.container
		if request.container == "" {
			where = "in spec.resources of the pods"
		}
		l.Remedy = fmt.Sprintf("set a request for %s %s, or use a target of type AverageValue", request.resource, where)
	case missing:
		l.Check, l.Cause = checkMetric, "the metric is of a container that not every pod has"
		l.Remedy = "correct the name of the container"
	case doctor.DistrustsFrontProxy(err):
		l.Cause, l.Remedy = doctor.CauseFrontProxy, doctor.RemedyFrontProxy
	case apierrors.IsForbidden(err):
		l.Status, l.Message, l.Cause = doctor.Unknown, m.title()+": the value cannot be read", err.Error()
		l.Remedy = "run doctor with credentials that have the right in this message"
	case unanswered(err):
		unknown := doctor.Unanswered(checkServed, m.title()+": the value cannot be read", err, "")
		return &unknown
	case named && who.services == "" && who.known:
		return nil // said by the check of the APIServices
	case named && who.foreign:
		l.Remedy = "see the log and the configuration of the program behind Service " + who.used
	case named && apierrors.IsTimeout(err):
		l.Remedy = "give the custom metrics server more CPU, or simplify the expressions of the HorizontalPodAutoscalers " +
			"of the namespace"
	case m.explained && !apierrors.IsServiceUnavailable(err):
		return nil
	case (m.Backend != "" || m.Named != "") && apierrors.IsNotFound(err):
		l.Remedy = "do what the message says; only an administrator can change the backend and the file that names it " +
			"(docs/backends.md)"
	case named && apierrors.IsNotFound(err):
		l.Remedy = "do what the message says, or run doctor again in a minute"
		if unreached(err) {
			l.Remedy = "check whether a NetworkPolicy blocks the custom metrics server, or run doctor again in a minute"
		}
		if m.clean {
			l.Cause += "; the pages of all pods are in order when read through the API server"
		} else {
			l.Cause += "; no cause was found in the pages that could be read"
		}
	case named:
		l.Remedy = "see the check apiservice and the log of the custom metrics server"
		if who.used != "" {
			l.Remedy += " (Service " + who.used + ")"
		}
	default:
		l.Remedy = "run metrics-server doctor, which examines " + kubeapi.MetricsGroup
	}
	return &l
}

// remedyResource is what to do if metrics.k8s.io has no value of a pod. A new one has none for a while.
const remedyResource = "check that the pods run; if they have run for a minute, run metrics-server doctor, which " +
	"examines " + kubeapi.MetricsGroup

// groupOf returns the API group in which the controller finds a metric.
func groupOf(m *Metric) string {
	switch autoscalingv2.MetricSourceType(m.Type) {
	case autoscalingv2.PodsMetricSourceType, autoscalingv2.ObjectMetricSourceType:
		return kubeapi.CustomMetricsGroup
	case autoscalingv2.ExternalMetricSourceType:
		return kubeapi.ExternalMetricsGroup
	}
	return kubeapi.MetricsGroup
}

// unreached reports whether the custom metrics server says that scrapes of pods fail, rather than what is wrong with
// their values.
func unreached(err error) bool {
	if strings.Contains(err.Error(), appmetrics.ShareUsedUp) {
		return false // the page was read, and there is no room for it
	}
	return strings.Contains(err.Error(), " at http") || strings.Contains(err.Error(), "has not answered")
}
