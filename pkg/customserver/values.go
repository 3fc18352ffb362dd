package customserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/api/custom"
	"metrics-server/pkg/api/metricgroup"
	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
)

// values answers requests from what the collector has stored. It implements custom.Values and external.Values.
type values struct {
	find      func(demand.Request) (*demand.Want, error)
	wants     func(namespace string) []*demand.Want
	collected func(demand.Request) *wanted
	store     *appmetrics.Store
	polled    func(demand.Request) *remote
	tables    *tables
	state     func(*kubeapi.Notes) // fills in what does not depend on the metric

	evaluating turns
}

var (
	errNotCollected = errors.New("the metric is new and its pods have not been scraped yet: retry in a moment")
	errNotPolled    = errors.New("the metric is new and its backend has not been queried yet: retry in a moment")
)

// Pods implements custom.Values.
func (v *values) Pods(
	ctx context.Context, namespace string, pods labels.Selector, metric string, selector labels.Selector,
) ([]custom.Value, error) {
	r := demand.PodsRequest(namespace, pods, metric, selector)
	_, a, err := v.answer(ctx, r)
	if err != nil {
		return nil, err
	}
	all := make([]custom.Value, len(a.Values))
	for i, one := range a.Values {
		all[i] = value(podReference(namespace, one.Pod), one)
	}
	return all, nil
}

// Object implements custom.Values. If no metric of type Object describes a pod, Object returns the pod's value of a
// metric of type Pods, because users request it in this way.
func (v *values) Object(
	ctx context.Context, namespace string, of schema.GroupResource, name, metric string, selector labels.Selector,
) (custom.Value, error) {
	r := demand.ObjectRequest(namespace, of, name, metric, selector)
	w, a, err := v.answer(ctx, r)
	if err == nil {
		return value(objectReference(w), a.Values[0]), nil
	}
	if _, unknown := v.find(r); unknown == nil || of != (schema.GroupResource{Resource: "pods"}) {
		return custom.Value{}, err
	}
	for _, w := range v.wants(namespace) {
		if w.Request.Pods == "" || w.Metric != metric || w.Selector != r.Selector || !hasPod(w, name) {
			continue
		}
		_, of, err := v.answer(ctx, w.Request)
		if err != nil {
			return custom.Value{}, err
		}
		for _, one := range of.Values {
			if one.Pod == name {
				return value(podReference(namespace, name), one), nil
			}
		}
		for _, m := range of.Missing {
			if m.Pod == name {
				return custom.Value{}, m.Err
			}
		}
	}
	return custom.Value{}, err
}

// External implements external.Values.
func (v *values) External(
	ctx context.Context, namespace, metric string, selector labels.Selector,
) (metricgroup.Value, error) {
	_, a, err := v.answer(ctx, demand.ExternalRequest(namespace, metric, selector))
	if err != nil {
		return metricgroup.Value{}, err
	}
	return valueOf(a.Values[0]), nil
}

func hasPod(w *demand.Want, name string) bool {
	return slices.ContainsFunc(w.Pods, func(p *sample.Pod) bool { return p.Name == name })
}

func podReference(namespace, name string) corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: namespace, Name: name}
}

// objectReference returns the object that a metric of type Object describes.
func objectReference(w *demand.Want) corev1.ObjectReference {
	return corev1.ObjectReference{
		Kind: w.Describes.Kind, APIVersion: w.Describes.APIVersion, Namespace: w.Namespace, Name: w.Request.Object,
	}
}

func value(of corev1.ObjectReference, v appmetrics.Value) custom.Value {
	return custom.Value{Of: of, Value: valueOf(v)}
}

func valueOf(v appmetrics.Value) metricgroup.Value {
	return metricgroup.Value{Number: v.Value, Time: v.Time, Window: v.Window}
}

// answer evaluates the metric of a request. It also returns what was wanted, because the collector
// may have forgotten it by the end of the evaluation. An answer without an error has at least one
// value.
func (v *values) answer(ctx context.Context, r demand.Request) (*demand.Want, *appmetrics.Answer, error) {
	want, a, err := v.evaluated(ctx, r)
	failed, ok := errors.AsType[*appmetrics.Error](err)
	ended := ok && failed.Cause == appmetrics.Canceled || errors.Is(err, context.DeadlineExceeded)
	if ended && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = apierrors.NewTimeoutError(fmt.Sprintf("metric %q was not evaluated in time: give the custom metrics server "+
			"more CPU, or simplify the expressions of the namespace", r.Metric), 0)
	}
	return want, a, err
}

// evaluated is answer with the errors of ctx.
func (v *values) evaluated(ctx context.Context, r demand.Request) (*demand.Want, *appmetrics.Answer, error) {
	want, err := v.find(r)
	v.note(metricgroup.NotesOf(ctx), want)
	if err != nil {
		return nil, nil, err
	}
	if want.Err != nil {
		return nil, nil, want.Err
	}
	if want.Named != nil {
		a, err := v.named(ctx, want)
		return want, a, err
	}
	if want.Backend != "" {
		w := v.polled(r)
		if w == nil {
			return nil, nil, errNotPolled
		}
		a, err := w.evaluate(time.Now())
		return w.Want, a, err
	}
	end, err := v.evaluating.take(ctx, r.Namespace)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	return v.inTurn(ctx, r)
}

// inTurn evaluates a metric of pods that are scraped. The caller has the turn of the namespace that asks for it.
func (v *values) inTurn(ctx context.Context, r demand.Request) (*demand.Want, *appmetrics.Answer, error) {
	slot, err := v.store.Slot(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer slot.Free()
	// Read only now: values may expire and pods may be deleted during the waits.
	w := v.collected(r)
	if w == nil {
		return nil, nil, errNotCollected
	}
	if w.query.err != nil {
		return nil, nil, w.query.err
	}
	now := time.Now()
	if err := w.query.refusal(now); err != nil {
		return nil, nil, err
	}
	a, err := w.evaluate(ctx, slot, now)
	if a != nil {
		w.query.refuse(a, now)
	}
	return w.Want, a, err
}

// note fills in n, which may be nil, for a metric, which may be nil. What the administrator's file or a rule
// of prometheus-adapter asks is not for users, so it is left out.
func (v *values) note(n *kubeapi.Notes, want *demand.Want) {
	if n == nil {
		return
	}
	v.state(n)
	if want == nil {
		return
	}
	if n.Backend, n.Named = want.Backend, want.Named != nil; n.Backend == "" || n.Named {
		return
	}
	if w := v.polled(want.Request); w != nil && w.err == nil {
		if n.Ruled = w.ruled; !w.ruled {
			n.Expression = w.expression.String()
		}
	}
}

func notReady(p *sample.Pod) appmetrics.Missing {
	return appmetrics.Missing{Pod: p.Name, Err: appmetrics.Errorf(appmetrics.NoAnswer,
		"pod %s has not been ready yet: if this lasts, see kubectl describe pod", p.Name)}
}

func noPods(w *demand.Want) error {
	return fmt.Errorf("no pods for %s: check that the workload has replicas and that its selector, or the "+
		"Service's, matches the labels of the pods", w)
}

// evaluator is an appmetrics.Slot, or a Store, which waits for one.
type evaluator interface {
	Evaluate(ctx context.Context, q *appmetrics.Query, pods []appmetrics.Pod, now time.Time) *appmetrics.Answer
}

// evaluate returns the values of w, at least one unless there is an error. Pods that were never ready do not
// work yet: in a metric of type Pods they are missing, as the HPA controller expects, and a single value is
// that of the others.
func (w *wanted) evaluate(ctx context.Context, by evaluator, now time.Time) (*appmetrics.Answer, error) {
	pods := make([]appmetrics.Pod, 0, len(w.Pods))
	var waiting []appmetrics.Missing
	places := w.places
	for i, p := range w.Pods {
		var at place
		if len(places) > 0 && places[0].pod == i {
			at, places = places[0], places[1:]
		}
		if !p.WasReady {
			waiting = append(waiting, notReady(p))
			continue
		}
		one := appmetrics.Pod{Name: p.Name}
		switch {
		case at.page != nil:
			one.UID, one.Problem = at.page.series, at.page.lastProblem()
		case at.err != nil:
			one.Problem = at.err
		default:
			one.Problem = w.refusal()
		}
		pods = append(pods, one)
	}
	switch {
	case len(w.Pods) == 0:
		return nil, noPods(w.Want)
	case len(pods) == 0:
		return nil, waiting[0].Err
	}
	a := by.Evaluate(ctx, w.query.Query, pods, now)
	a.Missing = append(a.Missing, waiting...)
	return a, a.Err()
}
