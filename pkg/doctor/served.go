package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// settled is how old a pod is when it must have metrics.
	settled = 2 * time.Minute
	// staleAfter is how old what is served may be: a failed scrape hides nothing for at least a minute.
	staleAfter = 90 * time.Second
)

// served compares what is served with what there is.
func (e *examination) served(ctx context.Context, root string, nodes []usage) {
	now := e.api.clock.now()
	if e.visits != nil {
		var want []string
		for _, v := range e.visits {
			want = append(want, v.Name)
		}
		e.report.add(judgeServedNodes(want, nodes, max(staleAfter, 5*e.flags.Resolution), now))
	}

	pods := map[string]bool{}
	if err := e.api.usages(ctx, root+"/pods", func(u usage) { pods[u.Metadata.Namespace+"/"+u.Metadata.Name] = true }); err != nil {
		e.report.add(unanswered(checkServed, "which pods have metrics", err, "list pods.metrics.k8s.io (ClusterRole system:aggregated-metrics-reader)"))
		return
	}
	if e.flags.NodeSelector != "" {
		e.report.add(Line{Check: checkServed, Status: OK, Message: plural(len(pods), "pod") + " have metrics; --node-selector leaves out the pods of other nodes"})
		return
	}
	var running, young int
	var without []string
	err := pages(func(o metav1.ListOptions) (string, error) {
		o.FieldSelector = "status.phase=Running"
		list, err := e.api.metadata.Resource(corev1.SchemeGroupVersion.WithResource("pods")).List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			p := &list.Items[i]
			name := p.Namespace + "/" + p.Name
			running++
			switch {
			case pods[name]:
			case now.Sub(p.CreationTimestamp.Time) < settled:
				young++
			default:
				without = append(without, name)
			}
		}
		return list.Continue, nil
	})
	if err != nil {
		e.report.add(unanswered(checkServed, fmt.Sprintf("how many pods there are (%d have metrics)", len(pods)), err, "list pods"))
		return
	}
	e.report.add(judgeServedPods(running, young, without))
}

func judgeServedNodes(want []string, served []usage, stale time.Duration, now time.Time) Line {
	have := map[string]bool{}
	for _, u := range served {
		have[u.Metadata.Name] = true
	}
	served = slices.SortedFunc(slices.Values(served), func(a, b usage) int { return b.Timestamp.Compare(a.Timestamp.Time) })
	without := slices.DeleteFunc(slices.Clone(want), func(n string) bool { return have[n] })
	l := Line{Check: checkServed, Status: OK, Message: fmt.Sprintf("%d of %d nodes have metrics", len(want)-len(without), len(want))}
	var oldest usage
	var age time.Duration
	if n := len(served); n > 0 {
		oldest = served[n-1]
		age = now.Sub(oldest.Timestamp.Time)
		l.Message += fmt.Sprintf(", %v old in the middle, %v at most", now.Sub(served[(n-1)/2].Timestamp.Time).Round(time.Second), age.Round(time.Second))
	}
	switch {
	case len(without) > 0:
		l.Status, l.Nodes = Problem, without
		l.Message += "; none: " + some(without)
		l.Cause = "the server gets no samples of them, or has had only one since it started or since the node came"
		l.Remedy = "see the checks of nodes and access; the server's answer for one node names the reason: kubectl get --raw /apis/metrics.k8s.io/v1beta1/nodes/NODE"
	case age > stale:
		l.Status, l.Nodes = Warning, []string{oldest.Metadata.Name}
		l.Cause = "the server has had no new sample of " + oldest.Metadata.Name + " for that long, or the node's clock is behind"
		l.Remedy = "see the checks of nodes; the server's log names kubelets that do not answer"
	}
	return l
}

func judgeServedPods(running, young int, without []string) Line {
	l := Line{Check: checkServed, Status: OK, Message: fmt.Sprintf("%d of %d pods that run have metrics", running-young-len(without), running)}
	if young > 0 {
		l.Message += fmt.Sprintf(" (%d too young)", young)
	}
	if len(without) > 0 {
		slices.Sort(without)
		l.Status = Warning
		if len(without)*2 > running {
			l.Status = Problem
		}
		l.Message += "; none: " + some(without)
		l.Cause = "their kubelets do not answer or do not list them, or one of their containers has no sample yet: a pod is served whole or not at all"
		l.Remedy = "see the checks of nodes; the server's answer for one pod names the reason: kubectl get --raw /apis/metrics.k8s.io/v1beta1/namespaces/NAMESPACE/pods/POD"
	}
	return l
}

// autoscalers looks for HorizontalPodAutoscalers that get no resource metrics.
func (e *examination) autoscalers(ctx context.Context) {
	all := 0
	failing := map[scalerCause][]string{}
	err := pages(func(o metav1.ListOptions) (string, error) {
		list, err := e.api.AutoscalingV2().HorizontalPodAutoscalers("").List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			h := &list.Items[i]
			all++
			if cause, fails := explainScaler(h.Status.Conditions); fails {
				failing[cause] = append(failing[cause], h.Namespace+"/"+h.Name)
			}
		}
		return list.Continue, nil
	})
	if err != nil {
		e.report.add(unanswered(checkAutoscalers, "whether autoscalers get metrics", err, "list horizontalpodautoscalers.autoscaling"))
		return
	}
	e.report.add(judgeScalers(all, failing)...)
}

// scalerCause is why autoscalers have no metrics.
type scalerCause struct {
	status                 Status
	summary, cause, remedy string
}

var scalerCauses = []struct {
	says string
	scalerCause
}{
	{"missing request for", scalerCause{
		Warning, "a container has no request", "a percentage of the request is the target, and a container of the pods has none: this is no fault of metrics-server",
		"set requests for cpu and memory on all containers that the autoscaler's selector finds",
	}},
	{"did not receive metrics for", scalerCause{
		Warning, "its pods have no metrics", "none of its pods is ready and has metrics", "see that the pods run, and the check of served above",
	}},
	{"no metrics returned from resource metrics API", scalerCause{
		Problem, "its pods have no metrics", "the server has no metrics of pods that the autoscaler's selector finds", "see the checks of served and nodes above",
	}},
	{"unable to get metrics", scalerCause{
		Problem, "the resource metrics API does not answer", "the API server has nobody to pass the request on to, or the server fails", "see the checks of apiservice and aggregation above",
	}},
	{"unable to fetch metrics", scalerCause{
		Problem, "the resource metrics API does not answer", "the API server has nobody to pass the request on to, or the server fails", "see the checks of apiservice and aggregation above",
	}},
}

// explainScaler says why an autoscaler with these conditions gets no resource metrics, if it gets none.
func explainScaler(conditions []autoscalingv2.HorizontalPodAutoscalerCondition) (scalerCause, bool) {
	for _, c := range conditions {
		if c.Type != autoscalingv2.ScalingActive || c.Status != corev1.ConditionFalse || !strings.HasSuffix(c.Reason, "ResourceMetric") {
			continue
		}
		for _, s := range scalerCauses {
			if strings.Contains(c.Message, s.says) {
				return s.scalerCause, true
			}
		}
		return scalerCause{Warning, "it has no resource metrics", c.Message, "see kubectl describe hpa"}, true
	}
	return scalerCause{}, false
}

func judgeScalers(all int, failing map[scalerCause][]string) []Line {
	if len(failing) == 0 {
		return []Line{{Check: checkAutoscalers, Status: OK, Message: plural(all, "HorizontalPodAutoscaler") + ", none lacks resource metrics"}}
	}
	var lines []Line
	for c, names := range failing {
		slices.Sort(names)
		lines = append(lines, Line{
			Check: checkAutoscalers, Status: c.status, Cause: c.cause, Remedy: c.remedy,
			Message: fmt.Sprintf("%d of %s cannot scale: %s: %s", len(names), plural(all, "HorizontalPodAutoscaler"), c.summary, some(names)),
		})
	}
	slices.SortFunc(lines, func(a, b Line) int { return cmp.Compare(a.Message, b.Message) })
	return lines
}
