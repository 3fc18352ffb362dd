package apiserver

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"

	"metrics-server/pkg/history"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet/kubelettest"
)

// special serves requests that are not for an object of a collection, and reports whether q is one.
func (s *Server) special(w http.ResponseWriter, r *http.Request, q *request) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case q.group == "" && q.resource == "nodes" && q.sub == "proxy"+kubeapi.KubeletPath:
		s.kubelet(w, q.name)
	case q.group == "" && q.resource == "pods" && q.sub == "proxy/metrics":
		s.page(w, q)
	case q.group == kubeapi.CustomMetricsGroup && q.resource == "pods" && q.sub != "":
		s.values(w, r, q)
	case q.group == kubeapi.MetricsGroup && q.name == "" && r.URL.Query().Has(history.ParameterHistory) &&
		!s.config.Incumbent:
		s.history(w, r, q)
	case q.group == "apps" && q.name != "":
		s.owner(w, q)
	default:
		return false
	}
	return true
}

// kubelet answers as the kubelet of a node. Its samples are valid, but do not agree with the served usage.
func (s *Server) kubelet(w http.ResponseWriter, name string) {
	i := slices.IndexFunc(s.nodes, func(n *node) bool { return n.name == name })
	switch {
	case i < 0:
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("nodes %q not found", name))
	case s.nodes[i].stopped:
		fail(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "error trying to reach service: "+
			"dial tcp "+nodeIP(s.nodes[i])+":10250: connect: connection refused")
	default:
		says := kubelettest.NewNode(kubelettest.NodeConfig{
			Seed: uint64(i), Pods: 3, Boot: s.start.Add(-time.Hour), RequestTime: true,
		})
		send(w, http.StatusOK, string(says.Append(nil, time.Now())))
	}
}

// page answers as a pod, with the counter behind packets-per-second.
func (s *Server) page(w http.ResponseWriter, q *request) {
	name, _, _ := strings.Cut(q.name, ":")
	i, ok := slices.BinarySearchFunc(s.pods, key{q.namespace, name}, func(o *pod, k key) int { return o.compare(k) })
	if !ok {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("pods %q not found", name))
		return
	}
	now := time.Now()
	packets := s.usage(s.pods[i], now).cpu * packetsPerCore * now.Sub(s.start).Seconds()
	send(w, http.StatusOK, fmt.Sprintf("# HELP packets_total Packets received.\n# TYPE packets_total counter\n"+
		"packets_total %.0f\n", packets))
}

// values answers as the custom metrics server, which knows one metric.
func (s *Server) values(w http.ResponseWriter, r *http.Request, q *request) {
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	if q.sub != packetsMetric {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound,
			"no HorizontalPodAutoscaler refers to "+q.sub+", so it is not collected")
		return
	}
	list := &customv1beta2.MetricValueList{
		TypeMeta: metav1.TypeMeta{APIVersion: q.group + "/" + q.version, Kind: "MetricValueList"},
	}
	for it := range s.podItems(func(p *pod) (item, bool) { return podItem(p), p.used() })(q.namespace, key{}, 0) {
		if !selector.Matches(labels.Set(it.labels)) {
			continue
		}
		i, _ := slices.BinarySearchFunc(s.pods, it.key, func(o *pod, k key) int { return o.compare(k) })
		p := s.pods[i]
		value := s.usage(p, p.node.sampled).cpu * packetsPerCore
		list.Items = append(list.Items, customv1beta2.MetricValue{
			DescribedObject: corev1.ObjectReference{Kind: "Pod", Name: p.name, Namespace: p.namespace, APIVersion: "/v1"},
			Metric:          customv1beta2.MetricIdentifier{Name: packetsMetric},
			Timestamp:       metav1.NewTime(p.node.sampled),
			Value:           *resource.NewMilliQuantity(int64(value*1000), resource.DecimalSI),
		})
	}
	send(w, http.StatusOK, list)
}

// owner answers for a ReplicaSet, or a workload or its scale.
func (s *Server) owner(w http.ResponseWriter, q *request) {
	kinds := map[string]string{
		"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet", "replicasets": "Deployment",
	}
	name := q.name
	if q.resource == "replicasets" {
		name = name[:max(0, strings.LastIndex(name, "-"))]
	}
	found := s.workloads[kinds[q.resource]+" "+q.namespace+"/"+name]
	switch {
	case found == nil:
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("%s.apps %q not found", q.resource, q.name))
	case q.sub == "scale":
		send(w, http.StatusOK, scaleObject(found))
	case q.resource == "replicasets":
		send(w, http.StatusOK, ownerObject(key{q.namespace, q.name}, found))
	default:
		send(w, http.StatusOK, ownerObject(found.key, nil))
	}
}

// history answers with one point a minute, from the functions that give the present usage.
func (s *Server) history(w http.ResponseWriter, r *http.Request, q *request) {
	asked := history.Query{Nodes: q.resource == "nodes", Namespace: q.namespace}
	if err := asked.ParseDurations(r.URL.Query()); err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	if s.config.History == 0 {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound,
			"this server keeps no history: start it with --history=2h, for example")
		return
	}
	last := min(asked.Last, s.config.History)
	step := max(asked.Step, (last/240 + time.Minute - 1).Truncate(time.Minute), time.Minute)
	now := time.Now().Truncate(time.Minute)
	a := &history.Answer{Header: history.Header{
		Kind: history.AnswerKind, Version: history.AnswerVersion, Instance: "metrics-server-fake",
		Since: s.start.Add(-s.config.History).UTC(), Retention: int64(s.config.History / time.Second),
		Step: int64(step / time.Second), Start: now.Add(-last + step).UTC(), Points: int(last / step),
	}}
	at := func(i int) time.Time { return a.Start.Add(time.Duration(i) * step) }
	if asked.Nodes {
		for _, n := range s.nodes {
			series := history.Series{Key: history.Key{Kind: history.KindNode, Name: n.name}}
			for i := range a.Points {
				u := usage{cpu: 0.1, memory: 1 << 30}
				for _, p := range n.pods {
					of := s.usage(p, at(i))
					u.cpu, u.memory = u.cpu+of.cpu, u.memory+of.memory
				}
				series.CPU = append(series.CPU, value(u.cpu))
				series.Memory = append(series.Memory, value(u.memory))
			}
			a.Series = append(a.Series, series)
		}
	} else {
		for _, k := range slices.Sorted(maps.Keys(s.workloads)) {
			if o := s.workloads[k]; q.namespace == "" || o.namespace == q.namespace {
				a.Series = append(a.Series, s.workloadSeries(o, a.Points, at))
			}
		}
	}
	send(w, http.StatusOK, a)
}

func (s *Server) workloadSeries(w *workload, points int, at func(int) time.Time) history.Series {
	series := history.Series{Key: history.Key{Kind: w.kind, Namespace: w.namespace, Name: w.name}}
	for i := range points {
		var u usage
		for _, p := range w.pods {
			of := s.usage(p, at(i))
			u.cpu, u.memory = u.cpu+of.cpu, u.memory+of.memory
		}
		series.CPU = append(series.CPU, value(u.cpu))
		series.Memory = append(series.Memory, value(u.memory))
		series.Pods = append(series.Pods, history.Value(len(w.pods)))
	}
	return series
}

// value has the accuracy of the server's history.
func value(x float64) history.Value {
	if x == 0 {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(x))-3)
	return history.Value(math.Round(x/unit) * unit)
}
