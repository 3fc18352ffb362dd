// Package hpa explains HorizontalPodAutoscalers (HPAs): what they want, which values their metrics have, how many
// replicas follow from that by the rules of the HPA controller, and what prevents that. It implements the command
// metrics-server doctor hpa.
//
// Run examines from outside, with the user's own rights, and changes nothing: it only sends GET requests. It asks
// pods through the API server, so it does not test the network between them and the custom metrics server. What
// the rights do not permit is reported as unknown. The arithmetic and functions whose names begin with judge or
// explain are pure. Run leaves no goroutine behind and may be called from several goroutines.
package hpa

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/demand"
	"metrics-server/pkg/doctor"
)

// Config says what to examine.
type Config struct {
	Rest    *rest.Config // for the API server
	Version string       // of this program
	// Namespace and Name are those of one HPA. Without a name, all of the namespace are examined, and without a
	// namespace all of the cluster.
	Namespace, Name string
	// File is a copy of the administrator's file of the custom metrics server, "" for none.
	File string

	pageTimeout time.Duration // for one pod
}

// The names of the checks.
const (
	checkHPA        = "hpa"
	checkTarget     = "target"
	checkPods       = "pods"
	checkMetric     = "metric"
	checkPages      = "pages"
	checkServed     = "served"
	checkAPIService = "apiservice"
	checkBackends   = "backends"
	checkController = "controller"
)

// examination is the state of one Run for one HPA.
type examination struct {
	api         *api
	now         time.Time
	pageTimeout time.Duration
	hpa         *autoscalingv2.HorizontalPodAutoscaler
	parsed      *demand.HPA
	report      *Report
	out         *Autoscaler

	scale    demand.Scale
	scaleErr error
	pods     []*corev1.Pod // that the selector of the scale selects, sorted by name
	podsErr  error         // why they are not known
	pages    map[string]*fetched
	proposed []*Calculation // of each metric of spec.metrics; nil if there is none
	unread   int            // how many of these are nil although the controller may have a value
	owners   map[ownerKey]*owner
	services map[string]*owned // by API group
	named    []*demand.Named   // in the administrator's file
	noted    bool              // the file of the custom metrics server was judged
	failing  []string          // backends of the HPA that were reported
	// defaultBackend is that of the custom metrics server, as far as it is known.
	defaultBackend string
}

// Run examines until ctx ends; what was not checked by then is reported as unknown. It returns an error only if
// nothing could be checked.
func Run(ctx context.Context, c Config) (*Report, error) {
	c.pageTimeout = pageTimeout
	return run(ctx, c, time.Now())
}

func run(ctx context.Context, c Config, now time.Time) (*Report, error) {
	a, err := newAPI(c.Rest)
	if err != nil {
		return nil, err
	}
	named, err := readNamed(c.File)
	if err != nil {
		return nil, err
	}
	r := &Report{Schema: 1, Status: doctor.OK, Version: c.Version, Checks: []doctor.Line{}}
	if c.Name == "" {
		return r, overview(ctx, a, c.Namespace, named, r)
	}
	h, err := a.AutoscalingV2().HorizontalPodAutoscalers(c.Namespace).Get(ctx, c.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read HorizontalPodAutoscaler %s/%s: %w%s", c.Namespace, c.Name, err, remedyRead(err))
	}
	e := &examination{
		api: a, now: now, pageTimeout: c.pageTimeout, hpa: h, report: r, pages: map[string]*fetched{},
		owners: map[ownerKey]*owner{}, services: map[string]*owned{}, named: named,
	}
	e.parsed = demand.Parse(h, e.servesExternal(ctx, h))
	e.run(ctx)
	return r, nil
}

// remedyRead is what to do about an error of reading the HPAs. It begins with a colon.
func remedyRead(err error) string {
	switch {
	case apierrors.IsNotFound(err):
		return ": check its name and namespace (kubectl get hpa -A)"
	case apierrors.IsForbidden(err):
		return ": run doctor with credentials that may get and list horizontalpodautoscalers.autoscaling"
	case apierrors.IsUnauthorized(err):
		return ": the API server does not accept the credentials: give others with --kubeconfig"
	case errors.Is(err, context.DeadlineExceeded):
		return ": see the API server's load, or " + doctor.RemedyDeadline
	}
	return ": " + doctor.RemedyNoAnswer(err)
}

func (e *examination) add(lines ...doctor.Line) { e.report.add(lines...) }

func (e *examination) run(ctx context.Context) {
	h := e.hpa
	e.out = &Autoscaler{
		Namespace: h.Namespace, Name: h.Name, Target: h.Spec.ScaleTargetRef.Kind + " " + h.Spec.ScaleTargetRef.Name,
		MinReplicas: minReplicas(&h.Spec), MaxReplicas: h.Spec.MaxReplicas, Tolerance: toleranceOf(h),
		Pods: []Pod{}, Metrics: []Metric{}, Conditions: []Condition{},
	}
	e.report.Autoscaler = e.out
	for _, c := range h.Status.Conditions {
		e.out.Conditions = append(e.out.Conditions, Condition{
			Type: string(c.Type), Status: string(c.Status), Reason: c.Reason, Message: c.Message,
		})
	}
	if len(e.parsed.Mistakes) > 0 {
		e.add(judgeMistakes(e.parsed, e.own(ctx, e.parsed))...)
	}
	e.target(ctx)
	e.others(ctx)
	e.metrics(ctx)
	e.decide()
	if len(e.report.Checks) == 0 {
		e.add(doctor.OKLine(checkHPA, "nothing is wrong"))
	}
}

// own returns the metrics of an HPA that this project serves, or would serve if it were installed. Those that the
// administrator's file names have its definitions.
func (e *examination) own(ctx context.Context, parsed *demand.HPA) []demand.Metric {
	var own []demand.Metric
	for _, m := range parsed.Metrics {
		if e.served(ctx, &Metric{Type: string(m.Type)}).foreign {
			continue
		}
		if n := e.namedAs(&m); n != nil {
			m.Definition = n.Definition()
		}
		own = append(own, m)
	}
	return own
}

// judgeMistakes returns the mistakes that concern an HPA as a whole. own are its metrics that this project serves.
func judgeMistakes(parsed *demand.HPA, own []demand.Metric) (lines []doctor.Line) {
	status := doctor.Problem
	cause := "one mistake in the HorizontalPodAutoscaler disables all of its metrics that the custom metrics server serves"
	if len(own) == 0 {
		status, cause = doctor.Warning, "the custom metrics server serves none of its metrics, so this has no effect"
	}
	for _, m := range parsed.Mistakes {
		text, remedy := split(m, "correct it")
		lines = append(lines, doctor.NewLine(checkHPA, status, text, cause, remedy))
	}
	return lines
}

// explained is an error that knows its remedy, which its text ends with.
type explained interface {
	Error() string
	Remedy() string
}

// split returns the text of an error without its remedy, and the remedy, or fallback if it has none.
func split(err explained, fallback string) (text, remedy string) {
	if err.Remedy() == "" {
		return err.Error(), fallback
	}
	return strings.TrimSuffix(err.Error(), ": "+err.Remedy()), err.Remedy()
}

// target reads the scale of the target and its pods.
func (e *examination) target(ctx context.Context) {
	h := e.hpa
	ref := h.Spec.ScaleTargetRef
	e.scale, e.scaleErr = demand.ReadScale(ctx, e.api.dynamic, e.api.mapper, h.Namespace, ref)
	if e.scale.Read {
		e.out.Scale = &Scale{
			Resource: e.scale.Resource.String(), SpecReplicas: int32(e.scale.Spec), StatusReplicas: int32(e.scale.Status),
		}
		if e.scale.Selector != nil {
			e.out.Scale.Selector = e.scale.Selector.String()
		}
	}
	if e.scaleErr != nil {
		e.podsErr = e.scaleErr
		e.add(judgeScale(e.scaleErr, e.scale.Resource.String(), e.out.Target))
		return
	}
	e.pods, e.podsErr = e.listPods(ctx, h.Namespace, e.scale.Selector)
	if e.podsErr != nil {
		e.add(doctor.Unanswered(checkPods, "the pods of the target cannot be checked", e.podsErr,
			"list pods in namespace "+h.Namespace))
		return
	}
	for _, p := range e.pods {
		e.out.Pods = append(e.out.Pods, podOf(p))
	}
	e.overlap(ctx)
	e.add(judgePods(e.out, e.pods)...)
}

// judgeScale returns the line for a scale that could not be read, or that has no selector.
func judgeScale(err error, resource, target string) doctor.Line {
	known, ok := err.(*demand.Error) //nolint:errorlint // ReadScale returns nothing else
	if !ok {
		return doctor.Unanswered(checkTarget, "the scale of "+target+" cannot be checked", err, "get its scale")
	}
	if demand.Cause(known.Cause()) == demand.Forbidden {
		return doctor.NewLine(checkTarget, doctor.Unknown, "the scale of "+target+" cannot be checked",
			"the right to get "+resource+"/scale is missing", "run doctor with credentials that may get "+resource+"/scale")
	}
	text, remedy := split(known, "correct spec.scaleTargetRef")
	l := doctor.NewLine(checkTarget, doctor.Problem, text,
		"without its scale, the controller can neither read nor change the replicas of "+target, remedy)
	switch demand.Cause(known.Cause()) {
	case demand.Failing:
		l.Status, l.Cause = doctor.Unknown, "the API server did not answer as expected"
	case demand.NoSelector:
		l.Cause = "the pods of the target are unknown"
	}
	return l
}

// listPods returns the pods of a namespace that a selector selects, sorted by name.
func (e *examination) listPods(ctx context.Context, namespace string, selector labels.Selector) ([]*corev1.Pod, error) {
	var pods []*corev1.Pod
	err := doctor.Pages(func(o metav1.ListOptions) (string, error) {
		o.LabelSelector = selector.String()
		list, err := e.api.CoreV1().Pods(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			pods = append(pods, &list.Items[i])
		}
		return list.Continue, nil
	})
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods, err
}

// podOf returns what the report says of a pod.
func podOf(p *corev1.Pod) Pod {
	out := Pod{Name: p.Name}
	known := demand.Pod(p)
	if known != nil {
		out.WasReady = known.WasReady
	}
	switch {
	case p.DeletionTimestamp != nil:
		out.State = "terminating"
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed ||
		p.Status.Phase == corev1.PodPending:
		out.State = strings.ToLower(string(p.Status.Phase))
	case known.Ready:
		out.State = "ready"
	case known.WasReady:
		out.State = "not ready now"
	default:
		out.State = "never ready"
	}
	return out
}

// ready reports whether the controller counts a pod as ready for metrics of type Object and External.
func ready(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && doctor.IsReady(p)
}

// judgePods returns what is wrong with the pods as a whole.
func judgePods(out *Autoscaler, pods []*corev1.Pod) []doctor.Line {
	if len(pods) == 0 {
		if out.Scale.SpecReplicas == 0 {
			return nil
		}
		return []doctor.Line{doctor.NewLine(checkPods, doctor.Problem, "no pod has the labels "+out.Scale.Selector,
			"the pods were not created, or the selector of the target does not match their labels: the controller "+
				"needs at least one",
			"see kubectl describe of the target, and compare the selector with the labels in its pod template")}
	}
	var foreign, owners, bare []string
	for _, p := range out.Pods {
		switch {
		case p.Owner == "":
			continue
		case p.Owner == noOwner:
			bare = append(bare, p.Name)
		case !slices.Contains(owners, p.Owner):
			owners = append(owners, p.Owner)
		}
		foreign = append(foreign, p.Name)
	}
	if len(foreign) == 0 {
		return nil
	}
	var causes, remedies []string
	if len(owners) > 0 {
		causes = append(causes, "the labels overlap with those of "+doctor.Some(owners))
		remedies = append(remedies, "give the pods of each workload a label of their own, and use it in the selector (the "+
			"selector is immutable: recreate the Deployment)")
	}
	if len(bare) > 0 {
		causes = append(causes, "no workload owns "+doctor.Some(bare))
		remedies = append(remedies, "delete the pods that no workload owns, or remove the labels from them")
	}
	return []doctor.Line{doctor.NewLine(checkPods, doctor.Problem,
		fmt.Sprintf("the target does not own %d of %s that the selector %s selects: %s", len(foreign),
			doctor.Plural(len(pods), "pod"), out.Scale.Selector, doctor.Some(foreign)),
		strings.Join(causes, "; ")+"; the controller counts every pod with the labels, so the mean and the "+
			"replicas are wrong", strings.Join(remedies, "; "))}
}

// others finds other HPAs of the same target.
func (e *examination) others(ctx context.Context) {
	list, err := e.api.AutoscalingV2().HorizontalPodAutoscalers(e.hpa.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		e.add(doctor.Unanswered(checkHPA, "whether other HorizontalPodAutoscalers have the same target cannot be checked",
			err, "list horizontalpodautoscalers.autoscaling"))
		return
	}
	var names []string
	for i := range list.Items {
		h := &list.Items[i]
		if a, b := h.Spec.ScaleTargetRef, e.hpa.Spec.ScaleTargetRef; h.Name != e.hpa.Name && a.Kind == b.Kind &&
			a.Name == b.Name {
			names = append(names, h.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	e.add(doctor.NewLine(checkHPA, doctor.Problem,
		"other HorizontalPodAutoscalers have the same target: "+doctor.Some(names),
		"the controller does not scale a target whose pods several HorizontalPodAutoscalers select (AmbiguousSelector)",
		"delete all but one, and put all metrics into that one"))
}
