package ui

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"metrics-server/pkg/ui/cluster"
)

// How many values of the past are sent with a row, and with the details of an object.
const (
	shortHistory = 40
	longHistory  = 240
)

// MarshalJSON writes each value with the fewest digits that represent it exactly.
func (v Values) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 2+10*len(v)), '[')
	for i, value := range v {
		if i > 0 {
			b = append(b, ',')
		}
		if f := float64(value); math.IsNaN(f) || math.IsInf(f, 0) {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendFloat(b, f, 'g', -1, 32)
		}
	}
	return append(b, ']'), nil
}

// known returns nil for a number that is not known.
func known(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// moment returns nil for a time that is not known.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// window returns the window of a usage in seconds.
func window(u cluster.Usage) *float64 {
	if u.Sampled.IsZero() {
		return nil
	}
	return known(u.Window.Seconds())
}

func resources(used, requests, limits, capacity cluster.Amount) Resources {
	return Resources{
		CPU: Resource{
			Usage: known(used.CPU), Requests: known(requests.CPU), Limits: known(limits.CPU), Capacity: known(capacity.CPU),
		},
		Memory: Resource{
			Usage: known(used.Memory), Requests: known(requests.Memory), Limits: known(limits.Memory),
			Capacity: known(capacity.Memory),
		},
	}
}

func series(s cluster.Series) Series {
	if len(s.Values) == 0 {
		return Series{}
	}
	return Series{Start: s.Start.Unix(), Step: int64(s.Step / time.Second), Values: s.Values}
}

// histories returns the last n values of the CPU and the memory of an object.
func histories(s *cluster.Snapshot, past cluster.Past, n int) (cpu, memory Series) {
	return series(s.Series(past, cluster.CPU, n)), series(s.Series(past, cluster.Memory, n))
}

func conditions(all []cluster.Condition) []Condition {
	c := make([]Condition, len(all))
	for i := range all {
		c[i] = Condition(all[i])
	}
	return c
}

// age maps a time to a number that is the larger, the older it is.
func age(t time.Time) float64 {
	if t.IsZero() {
		return math.NaN()
	}
	return -float64(t.UnixMilli())
}

// usageColumns returns the columns of tables with CPU and memory. whole is 100 percent.
func usageColumns[T any](used, requests, limits, whole func(*T) cluster.Amount) map[string]column[T] {
	of := func(amount func(*T) cluster.Amount, cpu bool) column[T] {
		return column[T]{number: func(_ *state, one *T) float64 {
			if cpu {
				return amount(one).CPU
			}
			return amount(one).Memory
		}}
	}
	ratio := func(one *T) cluster.Amount {
		u, w := used(one), whole(one)
		return cluster.Amount{CPU: divide(u.CPU, w.CPU), Memory: divide(u.Memory, w.Memory)}
	}
	return map[string]column[T]{
		"cpu": of(used, true), "memory": of(used, false),
		"cpuRequests": of(requests, true), "memoryRequests": of(requests, false),
		"cpuLimits": of(limits, true), "memoryLimits": of(limits, false),
		"cpuPercent": of(ratio, true), "memoryPercent": of(ratio, false),
	}
}

// divide returns a / b, or NaN if b is zero.
func divide(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

// with adds columns.
func with[T any](columns, more map[string]column[T]) map[string]column[T] {
	maps.Copy(columns, more)
	return columns
}

func text[T any](of func(*T) string) column[T] { return column[T]{text: of} }

func count[T any](of func(*T) int) column[T] {
	return column[T]{number: func(_ *state, one *T) float64 { return float64(of(one)) }}
}

func aged[T any](of func(*T) time.Time) column[T] {
	return column[T]{number: func(_ *state, one *T) float64 { return age(of(one)) }}
}

// about returns the column with the number of findings.
func about[T any](findings func(*state, *T) []int) column[T] {
	return column[T]{number: func(s *state, one *T) float64 { return float64(len(findings(s, one))) }}
}

var nodeTable = table[cluster.Node, NodeRow]{
	name: "nodes", source: cluster.Nodes, sort: "cpu",
	objects:   func(s *state) []*cluster.Node { return s.snapshot.Nodes },
	namespace: func(*cluster.Node) string { return "" },
	texts: func(n *cluster.Node) texts {
		return texts{names: [3]string{n.Name}, other: [2]string{nodeStatus(n)}}
	},
	problem: func(s *state, n *cluster.Node) bool {
		return badNode(n) || n.Overdue || n.PodsOverdue > 0 || len(nodeFindings(s, n)) > 0
	},
	row: nodeRow,
	columns: with(usageColumns(
		func(n *cluster.Node) cluster.Amount { return n.Usage.Used },
		func(n *cluster.Node) cluster.Amount { return n.Requests },
		func(n *cluster.Node) cluster.Amount { return n.Limits },
		func(n *cluster.Node) cluster.Amount { return n.Allocatable },
	), map[string]column[cluster.Node]{
		"name": text(func(n *cluster.Node) string { return n.Name }), "status": text(nodeStatus),
		"findings": about(nodeFindings),
		"created":  aged(func(n *cluster.Node) time.Time { return n.Created }),
		"sampled":  aged(func(n *cluster.Node) time.Time { return n.Usage.Sampled }),
		"pods":     {number: func(_ *state, n *cluster.Node) float64 { return n.Pods }},
		"missing":  {number: func(_ *state, n *cluster.Node) float64 { return n.PodsMissing }},
	}),
}

func nodeStatus(n *cluster.Node) string {
	if n.Cordoned {
		return string(n.Ready) + ", cordoned"
	}
	return string(n.Ready)
}

func badNode(n *cluster.Node) bool { return n.Ready != cluster.Ready }

func nodeFindings(s *state, n *cluster.Node) []int { return s.diagnosis.of(nodeObject(n.Name)) }

func nodeRow(s *state, n *cluster.Node) NodeRow {
	r := NodeRow{
		Object: nodeObject(n.Name), Resources: resources(n.Usage.Used, n.Requests, n.Limits, n.Allocatable),
		Status: nodeStatus(n), Bad: badNode(n), Pods: known(n.Pods), Missing: known(n.PodsMissing),
		Sampled: moment(n.Usage.Sampled), Window: window(n.Usage), Error: n.Missing, Overdue: n.Overdue,
		PodsOverdue: n.PodsOverdue, Findings: nodeFindings(s, n), Created: n.Created.UTC(),
	}
	r.CPU.History, r.Memory.History = histories(s.snapshot, n.Past, shortHistory)
	return r
}

var podTable = table[cluster.Pod, PodRow]{
	name: "pods", source: cluster.Pods, sort: "cpu", more: []string{"node", "workload"},
	objects:   func(s *state) []*cluster.Pod { return s.snapshot.Pods },
	namespace: func(p *cluster.Pod) string { return p.Namespace },
	texts: func(p *cluster.Pod) texts {
		return texts{names: [3]string{p.Name, p.Namespace, p.Node}, other: [2]string{podStatus(p), p.Workload.Kind}}
	},
	problem: func(s *state, p *cluster.Pod) bool {
		return badPod(p) || p.Overdue || len(podFindings(s, p)) > 0
	},
	belongs: func(p *cluster.Pod, v *view) bool {
		return (v.node == "" || p.Node == v.node) && (v.workload == "" || p.Workload.Kind+"/"+p.Workload.Name == v.workload)
	},
	row: podRow,
	columns: with(usageColumns(
		func(p *cluster.Pod) cluster.Amount { return p.Usage.Used },
		func(p *cluster.Pod) cluster.Amount { return p.Requests },
		func(p *cluster.Pod) cluster.Amount { return p.Limits },
		func(p *cluster.Pod) cluster.Amount { return p.Requests },
	), map[string]column[cluster.Pod]{
		"name":      text(func(p *cluster.Pod) string { return p.Name }),
		"namespace": text(func(p *cluster.Pod) string { return p.Namespace }),
		"node":      text(func(p *cluster.Pod) string { return p.Node }),
		"workload":  text(func(p *cluster.Pod) string { return p.Workload.Name }),
		"status":    text(podStatus),
		"findings":  about(podFindings),
		"created":   aged(func(p *cluster.Pod) time.Time { return p.Created }),
		"sampled":   aged(func(p *cluster.Pod) time.Time { return p.Usage.Sampled }),
		"restarts":  count(func(p *cluster.Pod) int { return p.Restarts }),
	}),
}

// podStatus returns the status of kubectl get, except for a pod that runs but is not ready.
func podStatus(p *cluster.Pod) string {
	if p.Status == "Running" && badPod(p) {
		return "Not ready"
	}
	return p.Status
}

// badPod reports whether a pod is not ready, unless it ended as it should.
func badPod(p *cluster.Pod) bool {
	return !p.Ready && (!p.Ended || !slices.Contains([]string{"Completed", "Succeeded"}, p.Status))
}

func podObject(p *cluster.Pod) Object {
	return Object{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}
}

func podFindings(s *state, p *cluster.Pod) []int { return s.diagnosis.of(podObject(p)) }

func podRow(s *state, p *cluster.Pod) PodRow {
	r := PodRow{
		Object: podObject(p), Resources: resources(p.Usage.Used, p.Requests, p.Limits, nothing), Node: p.Node,
		Status: podStatus(p), Bad: badPod(p), Ready: p.Ready, Restarts: p.Restarts, Sampled: moment(p.Usage.Sampled),
		Window: window(p.Usage), Error: p.Missing, Overdue: p.Overdue, Findings: podFindings(s, p), Created: p.Created.UTC(),
		Workload: Object(p.Workload),
	}
	r.CPU.History, r.Memory.History = histories(s.snapshot, p.Past, shortHistory)
	return r
}

var workloadTable = table[cluster.Workload, WorkloadRow]{
	name: "workloads", source: cluster.Pods, sort: "cpu",
	objects:   func(s *state) []*cluster.Workload { return s.snapshot.Workloads },
	namespace: func(w *cluster.Workload) string { return w.Namespace },
	texts: func(w *cluster.Workload) texts {
		return texts{names: [3]string{w.Name, w.Namespace}, other: [2]string{w.Kind}}
	},
	problem: func(s *state, w *cluster.Workload) bool {
		return w.Overdue > 0 || w.Pending > 0 || len(workloadFindings(s, w)) > 0
	},
	row: workloadRow,
	columns: with(usageColumns(
		func(w *cluster.Workload) cluster.Amount { return w.Used },
		func(w *cluster.Workload) cluster.Amount { return w.Requests },
		func(w *cluster.Workload) cluster.Amount { return w.Limits },
		func(w *cluster.Workload) cluster.Amount { return w.Requests },
	), map[string]column[cluster.Workload]{
		"name":      text(func(w *cluster.Workload) string { return w.Name }),
		"namespace": text(func(w *cluster.Workload) string { return w.Namespace }),
		"kind":      text(func(w *cluster.Workload) string { return w.Kind }),
		"findings":  about(workloadFindings),
		"pods":      count(func(w *cluster.Workload) int { return w.Pods }),
		"pending":   count(func(w *cluster.Workload) int { return w.Pending }),
		"missing":   count(func(w *cluster.Workload) int { return w.Missing }),
	}),
}

// workloadFindings returns the findings of a workload and of its autoscaler.
func workloadFindings(s *state, w *cluster.Workload) []int {
	ids := s.diagnosis.of(Object(w.Key))
	if name := s.scalers()[Object(w.Key)]; name != "" {
		ids = append(slices.Clip(ids), s.diagnosis.of(hpaObject(w.Namespace, name))...)
	}
	return ids
}

func workloadRow(s *state, w *cluster.Workload) WorkloadRow {
	r := WorkloadRow{
		Object: Object(w.Key), Resources: resources(w.Used, w.Requests, w.Limits, nothing), Pods: w.Pods,
		Pending: w.Pending, Missing: w.Missing, PodsOverdue: w.Overdue, Findings: workloadFindings(s, w),
	}
	if s.snapshot.WasRead(cluster.HPAs) {
		r.HPA = new(s.scalers()[Object(w.Key)])
	}
	r.CPU.History, r.Memory.History = histories(s.snapshot, w.Past, shortHistory)
	return r
}
