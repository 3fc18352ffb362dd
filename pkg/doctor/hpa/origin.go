package hpa

import (
	"context"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"metrics-server/pkg/definition"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
)

// inside examines the origin of a metric of type Pods, Object or External: its definition, its pods and
// their pages. answer is the error that the request for the value gave, nil if there was none.
func (e *examination) inside(ctx context.Context, m *Metric, answer error) {
	who := e.served(ctx, m)
	m.ServedBy = who.services
	if who.foreign {
		e.add(judgeIgnored(m, e.hpa, who)...)
		return
	}
	if who.used == "" && m.Type == string(autoscalingv2.ExternalMetricSourceType) {
		return
	}
	m.explained = len(e.parsed.Mistakes) > 0
	i := slices.IndexFunc(e.parsed.Metrics, func(p demand.Metric) bool { return p.Index == m.Index })
	if i < 0 {
		return // too many metrics, which is one of the mistakes
	}
	said := e.parsed.Metrics[i]
	wrong := func(text, cause, remedy string) {
		m.explained = true
		e.add(doctor.NewLine(checkMetric, doctor.Problem, m.title()+": "+text, cause, remedy))
	}
	m.Window, m.Own = said.Window.String(), said.Expression != ""
	if named := said.Source(""); named != "" {
		m.Backend = named
	} else {
		m.DefaultBackend = m.Backend != "" && m.Named == ""
	}
	if err := said.ErrIn(m.Backend); err != nil && len(e.parsed.Mistakes) == 0 {
		text, remedy := split(err, "correct it")
		wrong(text, "the HorizontalPodAutoscaler asks for something that cannot be served", remedy)
		return
	}
	if n := e.namedAs(&said); n != nil {
		m.name(n, &said)
		said.Definition = n.Definition()
		m.Backend, m.DefaultBackend = said.Source(""), false
	} else if m.Named != "" {
		m.Window = ""
		return
	}
	if m.Backend != "" {
		m.Window = ""
		if said.Expression != "" {
			m.Expression = said.Expression // rather than with a matcher for the namespace
		}
		return
	}
	q, err := definition.Compile(&said)
	if err != nil {
		text, cause, remedy := describeMistake(&said, err)
		m.Expression = said.Expression
		wrong(text, cause, remedy)
		return
	}
	pods, where, fault := e.podsOf(ctx, &said)
	switch {
	case fault != nil && fault.text == "":
		return // a line says it already
	case fault != nil && fault.unknown:
		e.add(doctor.NewLine(checkMetric, doctor.Unknown, m.title()+": "+fault.text, fault.cause, fault.remedy))
		return
	case fault != nil:
		wrong(fault.text, fault.cause, fault.remedy)
		return
	}
	all, omitted := e.ask(ctx, pods, where, said.Service)
	m.Omitted = omitted
	if len(all) == 0 && said.Type != autoscalingv2.PodsMetricSourceType && !e.idle(m) {
		what := "the object"
		if said.Service != "" {
			what = "Service " + e.namespaceOf(&said) + "/" + said.Service
		}
		wrong("there is no pod to scrape for it", what+" has no running pods",
			"check that it has replicas, and that its selector matches their labels")
		return
	}
	e.read(ctx, m, q, all, answer)
}

// judgeIgnored returns a line if annotations speak of a metric that another program serves.
func judgeIgnored(m *Metric, h *autoscalingv2.HorizontalPodAutoscaler, who *owned) []doctor.Line {
	parsed := demand.Parse(h, true)
	i := slices.IndexFunc(parsed.Metrics, func(p demand.Metric) bool { return p.Index == m.Index })
	if i < 0 || parsed.Metrics[i].Service == "" && parsed.Metrics[i].Expression == "" {
		return nil
	}
	remedy := "configure the metric there; or, if nothing needs that program, replace it with the custom metrics server " +
		"(docs/moving.md)"
	if m.Type == string(autoscalingv2.ExternalMetricSourceType) {
		remedy = "configure the metric there; or use type Object, which the custom metrics server serves; or, if nothing " +
			"needs that program, remove it and install external metrics of this project (docs/external-metrics.md)"
	}
	return []doctor.Line{doctor.NewLine(checkMetric, doctor.Warning,
		m.title()+": what the annotations say of it has no effect",
		groupOf(m)+" is served by the Service "+who.used+" of another program, which does not know them", remedy)}
}

// describeMistake describes an error of definition.Compile.
func describeMistake(m *demand.Metric, err error) (text, cause, remedy string) {
	if m.ExpressionAt == "" {
		return err.Error(), "the name or the selector of the metric cannot be used", "correct spec.metrics"
	}
	return err.Error(), "the expression cannot be used", "correct the expression"
}

// namespaceOf returns the namespace of the object or the Service whose pods have a metric.
func (e *examination) namespaceOf(m *demand.Metric) string {
	if m.Named != nil {
		return m.Named.Namespace
	}
	return e.hpa.Namespace
}

// whoNames says what names the object or the Service whose pods have a metric.
func whoNames(m *demand.Metric) string {
	switch {
	case m.Named != nil:
		return "the administrator's file"
	case m.Service != "":
		return "annotation " + kubeapi.TargetsAnnotation
	}
	return "the HorizontalPodAutoscaler"
}

// podsOf returns the pods that are scraped for a metric, and where. If a fault has no text, another
// line has reported it already.
func (e *examination) podsOf(ctx context.Context, m *demand.Metric) ([]*corev1.Pod, sample.Ask, *fault) {
	where := m.Ask
	isService := m.Object.Kind == "Service" && group(m.Object.APIVersion) == ""
	namespace, by := e.namespaceOf(m), whoNames(m)
	switch {
	case m.Type == autoscalingv2.PodsMetricSourceType:
		if e.podsErr != nil {
			return nil, where, &fault{}
		}
		return e.pods, where, nil
	case m.Service == "" && m.Type == autoscalingv2.ExternalMetricSourceType:
		return nil, where, &fault{} // a mistake in another part of the HPA hides that its Service is missing
	case m.Service == "" && m.Object.Kind == "Pod" && group(m.Object.APIVersion) == "":
		p, err := e.api.CoreV1().Pods(namespace).Get(ctx, m.Object.Name, metav1.GetOptions{})
		if err != nil {
			return nil, where, unreadNamed("pod "+namespace+"/"+m.Object.Name, by, "get pods", err)
		}
		return []*corev1.Pod{p}, where, nil
	case m.Service == "" && !isService:
		scale, err := demand.ReadScale(ctx, e.api.dynamic, e.api.mapper, namespace, m.Object)
		if err != nil {
			l := judgeScale(err, scale.Resource.String(), m.Object.Kind+" "+m.Object.Name)
			return nil, where, &fault{
				text: l.Message, cause: "the scale says which pods belong to the object", unknown: l.Status == doctor.Unknown,
				remedy: l.Remedy + ", or name the Service whose pods to scrape in annotation " + kubeapi.TargetsAnnotation,
			}
		}
		return e.selected(ctx, namespace, scale.Selector, where)
	}
	name := m.Service
	if name == "" {
		name = m.Object.Name
	}
	s, err := e.api.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, where, unreadNamed("Service "+namespace+"/"+name, by, "get services", err)
	}
	if len(s.Spec.Selector) == 0 {
		f := newFault("Service "+namespace+"/"+name+" has no pod selector",
			"its pods are not known", "use a Service that has one; annotation "+kubeapi.TargetsAnnotation+" can name it")
		if m.Named != nil {
			f.remedy = "name a Service that has one in " + by
		}
		return nil, where, f
	}
	if m.Service != "" {
		if where.Port, err = demand.ServicePort(s, m.ServicePort); err != nil {
			return nil, where, newFault(err.Error(),
				by+" names a port that the Service does not have", "use one of its ports in "+by)
		}
	}
	return e.selected(ctx, namespace, labels.SelectorFromSet(s.Spec.Selector), where)
}

func (e *examination) selected(ctx context.Context, namespace string, s labels.Selector, where sample.Ask) (
	[]*corev1.Pod, sample.Ask, *fault,
) {
	pods, err := e.listPods(ctx, namespace, s)
	if err != nil {
		return nil, where, unread("the pods with "+s.String(), "list pods", err)
	}
	return pods, where, nil
}

// unreadNamed explains why an object that by names could not be read.
func unreadNamed(what, by, right string, err error) *fault {
	if apierrors.IsNotFound(err) {
		return newFault(what+" does not exist", by+" names it", "create it or correct the name")
	}
	return unread(what, right, err)
}

// unread explains why something could not be read.
func unread(what, right string, err error) *fault {
	l := doctor.Unanswered(checkMetric, what+" cannot be read", err, right)
	return unknownFault(l.Message, l.Cause, l.Remedy)
}
