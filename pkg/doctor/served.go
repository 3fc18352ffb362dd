package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// settled is the age at which a node or the containers of a pod must have metrics.
	settled = 2 * time.Minute
	// staleAfter is the least age at which served metrics are too old: after a failed scrape, the
	// last usage is served for at least a minute.
	staleAfter = 90 * time.Second
)

// served compares the nodes and pods that have metrics with those that exist.
func (e *examination) served(ctx context.Context, root string, nodes []usage) {
	now := e.api.clock.now()
	if e.visits != nil {
		e.report.add(judgeServedNodes(e.visits, nodes, max(staleAfter, 5*e.flags.Resolution), now))
	}

	pods := map[string]bool{}
	err := e.api.usages(ctx, root+"/pods", func(u usage) { pods[u.Metadata.Namespace+"/"+u.Metadata.Name] = true })
	if err != nil {
		e.report.add(Unanswered(checkServed, "the pods that have metrics cannot be listed", err,
			"list pods.metrics.k8s.io (ClusterRole system:aggregated-metrics-reader)"))
		return
	}
	if e.flags.NodeSelector != "" {
		e.report.add(OKLine(checkServed,
			fmt.Sprintf("pods with metrics: %d; --node-selector excludes the pods of other nodes", len(pods))))
		return
	}
	have := 0
	var without, young []string
	err = Pages(func(o metav1.ListOptions) (string, error) {
		o.FieldSelector = "status.phase=Running"
		list, err := e.api.metadata.Resource(corev1.SchemeGroupVersion.WithResource("pods")).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			p := &list.Items[i]
			switch name := p.Namespace + "/" + p.Name; {
			case pods[name]:
				have++
			case p.DeletionTimestamp != nil: // its containers are ending, or its node is gone
			case now.Sub(p.CreationTimestamp.Time) < settled:
				young = append(young, name)
			default:
				without = append(without, name)
			}
		}
		return list.Continue, nil
	})
	if err != nil {
		e.report.add(Unanswered(checkServed,
			fmt.Sprintf("whether all pods have metrics cannot be checked (%d have)", len(pods)), err, "list pods"))
		return
	}
	by := e.explainAbsences(ctx, without, now)
	by[justStarted] = append(by[justStarted], young...)
	e.lacking = map[string]bool{}
	for _, name := range by[unserved] {
		namespace, _, _ := strings.Cut(name, "/")
		e.lacking[namespace] = true
	}
	e.report.add(judgeServedPods(have, by))
}

// absence is why a pod whose phase is Running has no metrics.
type absence int

const (
	unserved    absence = iota // it should have metrics
	justStarted                // one of its containers started a moment ago
	notRunning                 // none of its containers runs: they wait to be restarted, or have ended
	gone                       // it was deleted meanwhile
)

// mostExamined is how many pods without metrics are read to find out whether their containers run. With more of them,
// something else is wrong.
const mostExamined = 500

// explainAbsences groups pods without metrics, NAMESPACE/NAME each, by why they have none.
func (e *examination) explainAbsences(ctx context.Context, names []string, now time.Time) map[absence][]string {
	why := make([]absence, len(names))
	var group errgroup.Group
	group.SetLimit(concurrency)
	for i, name := range names[:min(len(names), mostExamined)] {
		group.Go(func() error {
			why[i] = e.absence(ctx, name, now)
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	by := map[absence][]string{}
	for i, name := range names {
		by[why[i]] = append(by[why[i]], name)
	}
	return by
}

// absence returns why the pod NAMESPACE/NAME has no metrics. A pod that cannot be read is assumed to need some.
func (e *examination) absence(ctx context.Context, name string, now time.Time) absence {
	namespace, name, _ := strings.Cut(name, "/")
	p, err := e.api.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return gone
	case err != nil:
		return unserved
	}
	return explainAbsence(p, now)
}

// explainAbsence returns why a pod has no metrics, from the states of its containers. The phase does not say it: a pod
// that crashes again and again stays Running.
func explainAbsence(p *corev1.Pod, now time.Time) absence {
	statuses := slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
	if len(statuses) == 0 {
		return unserved // virtual nodes may not report them
	}
	why := notRunning
	for _, s := range statuses {
		switch started := s.State.Running; {
		case started == nil:
		case now.Sub(started.StartedAt.Time) < settled:
			return justStarted
		default:
			why = unserved
		}
	}
	return why
}

func judgeServedNodes(visits []*visit, served []usage, stale time.Duration, now time.Time) Line {
	have := map[string]bool{}
	for _, u := range served {
		have[u.Metadata.Name] = true
	}
	served = slices.SortedFunc(slices.Values(served), func(a, b usage) int {
		return b.Timestamp.Compare(a.Timestamp.Time)
	})
	young := 0
	var without []string
	for _, v := range visits {
		switch {
		case have[v.Name]:
		case now.Sub(v.created) < settled:
			young++
		default:
			without = append(without, v.Name)
		}
	}
	l := OKLine(checkServed, fmt.Sprintf("%d of %d nodes have metrics", len(visits)-young-len(without), len(visits)))
	if young > 0 {
		l.Message += fmt.Sprintf(" (%d added less than %v ago)", young, settled)
	}
	var oldest usage
	var age time.Duration
	if n := len(served); n > 0 {
		oldest = served[n-1]
		age = now.Sub(oldest.Timestamp.Time)
		l.Message += fmt.Sprintf(", median age %v, oldest %v",
			now.Sub(served[(n-1)/2].Timestamp.Time).Round(time.Second), age.Round(time.Second))
	}
	switch {
	case len(without) > 0:
		l.Status, l.Nodes = Problem, without
		l.Message += "; without metrics: " + Some(without)
		l.Cause = "the server gets no samples of them, or only one since it started"
		l.Remedy = "see the checks nodes and access; the server's answer for a node gives the reason: " +
			"kubectl get --raw /apis/metrics.k8s.io/v1beta1/nodes/NODE"
	case age > stale:
		l.Status, l.Nodes = Warning, []string{oldest.Metadata.Name}
		l.Cause = fmt.Sprintf("the server has had no new sample of %s for that long, or the node's clock is behind",
			oldest.Metadata.Name)
		l.Remedy = "see the check nodes; the server's log names kubelets that do not answer"
	}
	return l
}

// judgeServedPods returns the line for how many pods have metrics, and for why the others have none.
func judgeServedPods(have int, by map[absence][]string) Line {
	without := by[unserved]
	running := have + len(without) + len(by[justStarted])
	l := OKLine(checkServed, fmt.Sprintf("%d of %d running pods have metrics", have, running))
	if n := len(by[justStarted]); n > 0 {
		l.Message += fmt.Sprintf(" (%d started less than %v ago)", n, settled)
	}
	if names := by[notRunning]; len(names) > 0 {
		slices.Sort(names)
		l.Message += fmt.Sprintf("; not running, for example between two crashes: %s", Some(names))
	}
	if len(without) > 0 {
		slices.Sort(without)
		l.Status = Warning
		if len(without)*2 > running {
			l.Status = Problem
		}
		l.Message += "; without metrics: " + Some(without)
		l.Cause = "their kubelets do not answer or do not list them, or one of their containers has no usable sample: a " +
			"pod is served with all its containers or not at all"
		l.Remedy = "see the check nodes; the server's answer for a pod gives the reason: " +
			"kubectl get --raw /apis/metrics.k8s.io/v1beta1/namespaces/NAMESPACE/pods/POD"
	}
	return l
}

// autoscalers finds HorizontalPodAutoscalers that get no resource metrics.
func (e *examination) autoscalers(ctx context.Context) {
	all := 0
	failing := map[scalerCause][]Object{}
	err := Pages(func(o metav1.ListOptions) (string, error) {
		list, err := e.api.AutoscalingV2().HorizontalPodAutoscalers("").List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			h := &list.Items[i]
			all++
			if cause, fails := explainScaler(h, e.lacking); fails {
				failing[cause] = append(failing[cause], Autoscaler(h.Namespace, h.Name))
			}
		}
		return list.Continue, nil
	})
	if err != nil {
		e.report.add(Unanswered(checkAutoscalers, "HorizontalPodAutoscalers cannot be checked", err,
			"list horizontalpodautoscalers.autoscaling"))
		return
	}
	e.report.add(judgeScalers(all, failing)...)
}

// scalerCause is why autoscalers get no metrics.
type scalerCause struct {
	status                 Status
	summary, cause, remedy string
}

var apiFails = scalerCause{
	Problem, "the resource metrics API does not answer",
	"the API server cannot forward the request to metrics-server, or metrics-server fails",
	"see the checks apiservice and aggregation above",
}

var noRequest = scalerCause{
	Warning, "a container has no request",
	"the target is a percentage of the request, and a container of the pods has no request: metrics-server is not at " +
		"fault",
	"set requests for cpu and memory on all containers of the pods that the autoscaler selects",
}

var noPodRequest = scalerCause{
	Warning, "a pod has no request",
	"the target is a percentage of the request, and a pod with spec.resources has none: metrics-server is not at fault",
	"set requests for cpu and memory in spec.resources of the pods that the autoscaler selects",
}

// scalerCauses lists the causes by a part of the condition's message. The first entry that matches
// applies.
var scalerCauses = []struct {
	says string
	scalerCause
}{
	{"missing request for", noRequest},
	{"missing pod-level request for", noPodRequest},
	{"not found in Pod", scalerCause{
		Warning, "a pod lacks the container of the metric",
		"a metric of type ContainerResource names a container that not every pod with the target's labels has: " +
			"metrics-server is not at fault",
		"correct the name of the container; if pods of another workload have the same labels, give those pods others",
	}},
	{"did not receive metrics for", scalerCause{
		Warning, "its pods have no metrics", "none of its pods is ready and has metrics",
		"check that the pods run and are ready, and see the check served above",
	}},
	{"system:anonymous", apiFails},
	{"is forbidden", scalerCause{
		Problem, "the HPA controller may not read the resource metrics",
		"the account of kube-controller-manager lacks the right to list pods.metrics.k8s.io",
		"bind the ClusterRole system:controller:horizontal-pod-autoscaler to the account that kubectl describe hpa names",
	}},
	{"unable to get metrics", apiFails},
	{"unable to fetch metrics", apiFails},
}

// explainScaler returns why h gets no resource metrics; false if it gets them. lacking has the namespaces with
// running pods that lack metrics; it is nil if that is unknown.
func explainScaler(h *autoscalingv2.HorizontalPodAutoscaler, lacking map[string]bool) (scalerCause, bool) {
	for _, c := range h.Status.Conditions {
		if c.Type != autoscalingv2.ScalingActive || c.Status != corev1.ConditionFalse ||
			!strings.HasSuffix(c.Reason, "ResourceMetric") {
			continue
		}
		if strings.Contains(c.Message, "no metrics returned from resource metrics API") {
			return explainNoMetrics(lacking[h.Namespace], lacking != nil), true
		}
		for _, s := range scalerCauses {
			if strings.Contains(c.Message, s.says) {
				return s.scalerCause, true
			}
		}
		return scalerCause{Warning, "it gets no resource metrics", c.Message, "see kubectl describe hpa"}, true
	}
	return scalerCause{}, false
}

// explainNoMetrics returns why the API has no metrics of the pods of an autoscaler. lacking says that running pods of
// its namespace lack metrics, and known that this is known.
func explainNoMetrics(lacking, known bool) scalerCause {
	c := scalerCause{
		Warning, "its pods have no metrics", "none of its pods runs, or the server has no metrics of them",
		"check that its pods run, and see the check served above",
	}
	switch {
	case lacking:
		c.status, c.cause = Problem, "the server has no metrics of running pods in its namespace"
		c.remedy = "check that its pods do not crash, and see the checks served and nodes above"
	case known:
		c.cause = fmt.Sprintf("it has no pods, or none of them runs, or all started less than %v ago: metrics-server is "+
			"not at fault; or the condition is outdated", settled)
		c.remedy = "check that its pods run, and run doctor again in a minute"
	}
	return c
}

func judgeScalers(all int, failing map[scalerCause][]Object) []Line {
	if len(failing) == 0 {
		return []Line{OKLine(checkAutoscalers, Plural(all, "HorizontalPodAutoscaler")+", none lacks resource metrics")}
	}
	var lines []Line
	for c, objects := range failing {
		slices.SortFunc(objects, Object.compare)
		names := make([]string, len(objects))
		for i, o := range objects {
			names[i] = o.Namespace + "/" + o.Name
		}
		l := NewLine(checkAutoscalers, c.status, fmt.Sprintf("%d of %s cannot scale: %s: %s", len(names),
			Plural(all, "HorizontalPodAutoscaler"), c.summary, Some(names)), c.cause, c.remedy)
		l.Objects = objects
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b Line) int { return cmp.Compare(a.Message, b.Message) })
	return lines
}
