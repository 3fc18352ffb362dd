package hpa

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalv1beta1 "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"metrics-server/pkg/demand"
	"metrics-server/pkg/kubeapi"
)

// The APIs that the controller requests, in addition to api.customRoot.
const (
	resourceRoot = "/apis/" + kubeapi.MetricsGroup + "/v1beta1"
	externalRoot = "/apis/" + kubeapi.ExternalMetricsGroup + "/" + kubeapi.ExternalMetricsVersion
)

// metrics examines each metric of the HPA.
func (e *examination) metrics(ctx context.Context) {
	specs := e.hpa.Spec.Metrics
	e.proposed = make([]*Calculation, len(specs))
	for i := range specs {
		e.out.Metrics = append(e.out.Metrics, Metric{Index: i, Type: string(specs[i].Type)})
		m := &e.out.Metrics[i]
		c, err := e.metric(ctx, m, &specs[i])
		if err == nil {
			m.Calculation, e.proposed[i] = c, c
			continue
		}
		m.Error = err.Error()
		if (unanswered(err) || e.podsErr != nil && errors.Is(err, e.podsErr)) && !e.idle(m) {
			e.unread++
		}
		if line := e.explainMetric(m, err); line != nil {
			e.add(*line)
		}
	}
}

func (e *examination) metric(ctx context.Context, m *Metric, spec *autoscalingv2.MetricSpec) (*Calculation, error) {
	switch {
	case spec.Resource != nil:
		m.Name, m.goal = string(spec.Resource.Name), goalOf(spec.Resource.Target)
		m.Target = describeTarget(spec.Resource.Target, "of the requests")
		return e.resource(ctx, m, spec.Resource.Name, "", spec.Resource.Target)
	case spec.ContainerResource != nil:
		c := spec.ContainerResource
		m.Name, m.Container = string(c.Name), c.Container
		m.Target, m.goal = describeTarget(c.Target, "of the request"), goalOf(c.Target)
		return e.resource(ctx, m, c.Name, c.Container, c.Target)
	case spec.Pods != nil:
		m.identify(spec.Pods.Metric, spec.Pods.Target)
		c, err := e.podsMetric(ctx, m, spec.Pods)
		e.inside(ctx, m, err)
		return c, err
	case spec.Object != nil:
		m.identify(spec.Object.Metric, spec.Object.Target)
		m.Object = spec.Object.DescribedObject.Kind + " " + spec.Object.DescribedObject.Name
		c, err := e.objectMetric(ctx, m, spec.Object)
		e.inside(ctx, m, err)
		return c, err
	case spec.External != nil:
		m.identify(spec.External.Metric, spec.External.Target)
		c, err := e.external(ctx, m, spec.External)
		e.inside(ctx, m, err)
		return c, err
	}
	return nil, fmt.Errorf("a metric of type %s is not known to this program", spec.Type)
}

func (m *Metric) identify(id autoscalingv2.MetricIdentifier, target autoscalingv2.MetricTarget) {
	m.Name, m.Target, m.goal = id.Name, describeTarget(target, ""), goalOf(target)
	m.shared = m.Type != string(autoscalingv2.PodsMetricSourceType) && target.AverageValue != nil
	if id.Selector != nil {
		m.Selector = metav1.FormatLabelSelector(id.Selector)
	}
}

// describeTarget writes a target for people.
func describeTarget(t autoscalingv2.MetricTarget, of string) string {
	switch {
	case t.AverageUtilization != nil:
		return goalOf(t) + " " + of
	case t.AverageValue != nil:
		return "average " + goalOf(t)
	case t.Value != nil:
		return "value " + goalOf(t)
	}
	return "none"
}

// goalOf writes the quantity of a target, "" if it has none.
func goalOf(t autoscalingv2.MetricTarget) string {
	switch {
	case t.AverageUtilization != nil:
		return fmt.Sprintf("%d %%", *t.AverageUtilization)
	case t.AverageValue != nil:
		return t.AverageValue.String()
	case t.Value != nil:
		return t.Value.String()
	}
	return ""
}

// resource asks metrics.k8s.io.
func (e *examination) resource(ctx context.Context, m *Metric, name corev1.ResourceName, container string,
	target autoscalingv2.MetricTarget,
) (*Calculation, error) {
	if e.podsErr != nil {
		return nil, reported{e.podsErr}
	}
	at := resourceRoot + "/namespaces/" + e.hpa.Namespace + "/pods"
	query := queryOf(e.scale.Selector.String(), "")
	m.Request = at + "?" + query.Encode()
	var list metricsv1beta1.PodMetricsList
	if err := e.api.get(ctx, at, query, &list); err != nil {
		return nil, err
	}
	values := map[string]reading{}
	for i := range list.Items {
		item := &list.Items[i]
		if v, ok := usageOf(item, name, container); ok {
			values[item.Name] = reading{value: v, time: item.Timestamp.Time, window: item.Window.Duration}
			m.value(item.Name, v, item.Timestamp.Time, e.now)
		}
	}
	q := question{
		current: int32(e.scale.Spec), values: values, pods: e.pods, cpu: name == corev1.ResourceCPU,
		tolerance: toleranceOf(e.hpa), now: e.now,
	}
	switch {
	case target.AverageUtilization != nil:
		requests, err := requestsOf(e.pods, container, name)
		if err != nil {
			return nil, err
		}
		q.target, q.requests = int64(*target.AverageUtilization), requests
	case target.AverageValue != nil:
		q.target = target.AverageValue.MilliValue()
	}
	c, err := perPod(q)
	if _, none := errors.AsType[*noValueError](err); none && container != "" {
		err = cmp.Or(checkContainer(e.pods, container), err)
	}
	return c, err
}

// usageOf returns the usage of a pod or of one of its containers, in thousandths.
func usageOf(p *metricsv1beta1.PodMetrics, name corev1.ResourceName, container string) (sum int64, ok bool) {
	for _, c := range p.Containers {
		if container != "" && c.Name != container {
			continue
		}
		q, found := c.Usage[name]
		if !found {
			return 0, false
		}
		sum, ok = sum+q.MilliValue(), true
	}
	return sum, ok
}

// podsMetric asks custom.metrics.k8s.io as the controller does.
func (e *examination) podsMetric(ctx context.Context, m *Metric, spec *autoscalingv2.PodsMetricSource) (*Calculation,
	error,
) {
	if e.podsErr != nil {
		return nil, reported{e.podsErr}
	}
	selector, err := metav1.LabelSelectorAsSelector(spec.Metric.Selector)
	if err != nil {
		return nil, err
	}
	list, err := e.custom(ctx, m, "/namespaces/"+e.hpa.Namespace+"/pods/*/"+spec.Metric.Name,
		e.scale.Selector.String(), selector.String())
	if err != nil {
		return nil, err
	}
	values := map[string]reading{}
	for _, v := range list.Items {
		values[v.DescribedObject.Name] = reading{value: v.Value.MilliValue()}
		m.value(v.DescribedObject.Name, v.Value.MilliValue(), v.Timestamp.Time, e.now)
	}
	if spec.Target.AverageValue == nil {
		return nil, errNoAverage
	}
	return perPod(question{
		current: int32(e.scale.Spec), target: spec.Target.AverageValue.MilliValue(), values: values, pods: e.pods,
		tolerance: toleranceOf(e.hpa), now: e.now,
	})
}

// request asks for m as the controller does, and notes what the custom metrics server says besides.
func (e *examination) request(ctx context.Context, m *Metric, at string, query url.Values, into any) error {
	m.Request = strings.TrimSuffix(at+"?"+query.Encode(), "?")
	notes, err := e.api.getMetric(ctx, at, query, into)
	e.note(m, notes)
	return err
}

func (e *examination) custom(ctx context.Context, m *Metric, at, pods, selector string,
) (*customv1beta2.MetricValueList, error) {
	list := &customv1beta2.MetricValueList{} // v1beta1 has the same in the fields that are read
	if err := e.request(ctx, m, e.api.customRoot()+at, queryOf(pods, selector), list); err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, errors.New("the answer of " + kubeapi.CustomMetricsGroup + " is empty")
	}
	return list, nil
}

func (e *examination) objectMetric(ctx context.Context, m *Metric, spec *autoscalingv2.ObjectMetricSource,
) (*Calculation, error) {
	selector, err := metav1.LabelSelectorAsSelector(spec.Metric.Selector)
	if err != nil {
		return nil, err
	}
	of := spec.DescribedObject
	at := "/namespaces/" + e.hpa.Namespace + "/metrics/" + spec.Metric.Name
	if of.Kind != "Namespace" || group(of.APIVersion) != "" {
		r, err := demand.ReadResource(e.api.mapper, of)
		if err != nil {
			return nil, err
		}
		at = "/namespaces/" + e.hpa.Namespace + "/" + r.String() + "/" + of.Name + "/" + spec.Metric.Name
	}
	list, err := e.custom(ctx, m, at, "", selector.String())
	if err != nil {
		return nil, err
	}
	v := list.Items[0]
	m.value(m.Object, v.Value.MilliValue(), v.Timestamp.Time, e.now)
	// Of this type of metric alone, the controller goes by the type of the target, not only by its values.
	target := spec.Target
	switch {
	case target.Type == autoscalingv2.ValueMetricType && target.Value != nil:
		target.AverageValue = nil
	case target.Type == autoscalingv2.AverageValueMetricType && target.AverageValue != nil:
		target.Value = nil
	case target.Value != nil || target.AverageValue != nil:
		return nil, errOtherType
	}
	return e.single(v.Value.MilliValue(), target)
}

// single calculates the replicas for one value: per pod if the target has an averageValue.
func (e *examination) single(value int64, target autoscalingv2.MetricTarget) (*Calculation, error) {
	switch {
	case !e.scale.Read:
		return nil, reported{e.scaleErr}
	case target.AverageValue != nil:
		return average(int32(e.scale.Status), value, target.AverageValue.MilliValue(), toleranceOf(e.hpa))
	case target.Value == nil:
		return nil, errNoValue
	case e.podsErr != nil:
		return nil, reported{e.podsErr}
	}
	n := 0
	for _, p := range e.pods {
		if ready(p) {
			n++
		}
	}
	tolerance := toleranceOf(e.hpa)
	c, err := total(int32(e.scale.Spec), value, target.Value.MilliValue(), n, tolerance)
	if err == nil && len(e.pods) == 0 && e.scale.Spec > 0 && !tolerance.contains(c.Ratio) {
		return nil, errNoPods
	}
	return c, err
}

// external asks external.metrics.k8s.io, which this project or another program serves.
func (e *examination) external(ctx context.Context, m *Metric, spec *autoscalingv2.ExternalMetricSource,
) (*Calculation, error) {
	selector, err := metav1.LabelSelectorAsSelector(spec.Metric.Selector)
	if err != nil {
		return nil, err
	}
	if who := e.served(ctx, m); who.known && who.services == "" {
		return nil, reported{errors.New("nobody serves " + kubeapi.ExternalMetricsGroup)}
	}
	at := externalRoot + "/namespaces/" + e.hpa.Namespace + "/" + strings.ToLower(spec.Metric.Name)
	var list externalv1beta1.ExternalMetricValueList
	if err := e.request(ctx, m, at, queryOf(selector.String(), ""), &list); err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, errors.New("the answer of " + kubeapi.ExternalMetricsGroup + " is empty")
	}
	var sum int64
	for _, v := range list.Items {
		sum += v.Value.MilliValue()
		m.value(v.MetricName, v.Value.MilliValue(), v.Timestamp.Time, e.now)
	}
	return e.single(sum, spec.Target)
}

// quantity writes thousandths of a metric as Kubernetes does.
func (m *Metric) quantity(v int64) string {
	if m.Name == string(corev1.ResourceMemory) && strings.HasSuffix(m.Type, "Resource") {
		return resource.NewQuantity(v/1000, resource.BinarySI).String()
	}
	return resource.NewMilliQuantity(v, resource.DecimalSI).String()
}
