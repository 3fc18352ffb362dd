package ui

import (
	"time"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/doctor/hpa"
)

// The answers of the page's API, as JSON. Quantities are in base units: cores, bytes, seconds. A number that is not
// known is null, never zero. Times are RFC 3339 in UTC; the page computes ages from them, so that they grow while
// nothing else changes.

// Status is the answer of /api/status.
type Status struct {
	Version string    `json:"version"` // of this program
	Context string    `json:"context"` // the kubeconfig's context, or "in the pod"
	Server  string    `json:"server"`  // the URL of the API server
	Now     time.Time `json:"now"`     // when this was answered: the page corrects its clock by it
	Since   time.Time `json:"since"`   // the start of this program
	// Sources say how each kind of object is read, in a fixed order.
	Sources    []Source `json:"sources"`
	Totals     Totals   `json:"totals"`
	Namespaces []string `json:"namespaces"` // sorted: of pods and HPAs
	Findings   Findings `json:"findings"`
}

// Source is how one kind of object is read from the API server.
type Source struct {
	Name    string     `json:"name"`  // nodes, pods, hpas, nodemetrics, podmetrics, history
	State   string     `json:"state"` // waiting, watching, polling, read, failed (old objects are shown), denied, absent
	Error   string     `json:"error,omitempty"`
	Remedy  string     `json:"remedy,omitempty"`
	Updated *time.Time `json:"updated"` // the last answer or event
	Objects *int       `json:"objects"` // null until it is read; of metrics, also until their objects are
}

// Totals are sums over the cluster. Numbers of objects are null until these are read.
type Totals struct {
	Nodes     *int `json:"nodes"`
	Pods      *int `json:"pods"` // that run
	Workloads *int `json:"workloads"`
	HPAs      *int `json:"hpas"`
	// Nodes and running pods without usage.
	NodesMissing *int `json:"nodesMissing"`
	PodsMissing  *int `json:"podsMissing"`
	// The sums over the nodes that have usage, or over all nodes if none has. The history has the sums of each time:
	// values that were not known count as zero, unless none was known.
	Resources Resources `json:"resources"`
}

// Resources are the CPU and the memory of something.
type Resources struct {
	CPU    Resource `json:"cpu"`    // cores
	Memory Resource `json:"memory"` // bytes of working set
}

// Resource is one resource of something.
type Resource struct {
	Usage    *float64 `json:"usage"`
	Requests *float64 `json:"requests"` // null: none
	Limits   *float64 `json:"limits"`   // null: none or, except of nodes, not of all containers
	Capacity *float64 `json:"capacity"` // allocatable, of nodes only
	History  Series   `json:"history"`  // at most 40 points in tables and 240 in details; none of containers
}

// Series are values over time, oldest first. Values are null where nothing is known.
type Series struct {
	Start  int64  `json:"start"`  // Unix seconds of the first value
	Step   int64  `json:"step"`   // seconds between values
	Values Values `json:"values"` // numbers and nulls
}

// Values are written as JSON numbers, and NaN as null.
type Values []float32

// Findings are those of the doctor.
type Findings struct {
	Running bool          `json:"running"`
	Checked *time.Time    `json:"checked"`         // the end of the last run that succeeded; null: none has
	Error   string        `json:"error,omitempty"` // why the last run failed; Lines are those of the run before
	Status  doctor.Status `json:"status"`          // the worst of Lines
	Lines   []Finding     `json:"lines"`           // the worst first, then in the doctor's order
}

// Finding is a finding and the objects that it is about. One about all of several nodes is about the cluster, and has
// no Objects.
type Finding struct {
	doctor.Line          // its nodes are in Objects
	ID          int      `json:"id"`          // a finding of a later run has another one
	Objects     []Object `json:"objects"`     // at most 100
	ObjectCount int      `json:"objectCount"` // how many there are
}

// Object names an object: kind, namespace (absent for nodes) and name. Kind is Node, Pod, HorizontalPodAutoscaler, or
// the kind of a workload.
type Object = doctor.Object

// Problem is the answer to a request that fails.
type Problem struct {
	Error  string `json:"error"`
	Remedy string `json:"remedy"`
}

// Table is the answer of /api/nodes, /api/pods, /api/workloads and /api/hpas.
//
// Parameters, all of them optional:
//
//	sort       a column (below); default cpu, or name for HPAs
//	desc       1 or 0; default 0 for texts, 1 for all others; so created with 1 is the oldest first
//	filter     words, all of which must be in the row's names, kind, node, status or namespace, whatever their case; the
//	           word "problem" alone keeps rows with a finding, an error or a bad status
//	namespace  only this namespace
//	node       only the pods of this node
//	workload   KIND/NAME: only the pods of this workload; needs namespace
//	offset     default 0
//	count      1 to 200; default 60
//
// Columns: of all: name, namespace, status, findings; of nodes, pods and workloads: cpu, memory, cpuPercent and
// memoryPercent (of the capacity of nodes, else of the requests), cpuRequests, memoryRequests, cpuLimits and
// memoryLimits; of nodes and pods: created and sampled, as ages; of nodes and workloads: pods, missing; of pods: node,
// workload, restarts; of workloads: kind, pending, and no status; of HPAs: target, current, desired, ratio (the highest
// of its metrics). Nodes have no namespace. Rows with an unknown value come last in both directions; equal rows are in
// the order of their namespaces and names.
type Table[Row any] struct {
	Total   *int  `json:"total"`   // rows in the namespace, without filter, node and workload; null until they are read
	Matched int   `json:"matched"` // rows with all of them
	Offset  int   `json:"offset"`
	Rows    []Row `json:"rows"`
}

// NodeRow is a row of /api/nodes. /api/nodes/NAME answers with a NodeDetail.
type NodeRow struct {
	Object
	Resources
	Status      string     `json:"status"`                // Ready, NotReady, Unknown, or with ", cordoned"
	Bad         bool       `json:"bad"`                   // that status is a problem
	Pods        *float64   `json:"pods"`                  // that run; null until pods are read
	Missing     *float64   `json:"missing"`               // of those, without usage; the same
	PodsOverdue int        `json:"podsOverdue,omitempty"` // of those, that should have one
	Sampled     *time.Time `json:"sampled"`               // when its usage was measured; null: it has none
	Window      *float64   `json:"window"`                // seconds over which CPU usage is a mean
	Error       string     `json:"error,omitempty"`       // why it has no usage
	Overdue     bool       `json:"overdue,omitempty"`     // it should have one
	Findings    []int      `json:"findings"`              // IDs; not those about all nodes
	Created     time.Time  `json:"created"`
}

// PodRow is a row of /api/pods. /api/pods/NAMESPACE/NAME answers with a PodDetail.
type PodRow struct {
	Object
	Resources
	Node     string     `json:"node"`     // "" until it is scheduled
	Workload Object     `json:"workload"` // as docs/history.md defines it: the pod itself if it has no controller
	Status   string     `json:"status"`   // as kubectl get prints it, but "Not ready" if it runs and is not ready
	Bad      bool       `json:"bad"`      // that status is a problem
	Ready    bool       `json:"ready"`
	Restarts int        `json:"restarts"`
	Sampled  *time.Time `json:"sampled"`
	Window   *float64   `json:"window"`
	Error    string     `json:"error,omitempty"`   // why it has no usage; none if it has ended
	Overdue  bool       `json:"overdue,omitempty"` // it should have one: it is not just starting, and metrics are read
	Findings []int      `json:"findings"`
	Created  time.Time  `json:"created"`
}

// WorkloadRow is a row of /api/workloads: the controller of pods, as docs/history.md defines it.
// /api/workloads/NAMESPACE/KIND/NAME answers with a WorkloadDetail.
type WorkloadRow struct {
	Object
	Resources           // sums over the running pods
	Pods        int     `json:"pods"`                  // that run
	Pending     int     `json:"pending"`               // pods that neither run nor have ended
	Missing     int     `json:"missing"`               // of those that run, without usage: they are not in the sums
	PodsOverdue int     `json:"podsOverdue,omitempty"` // of those, that should have one
	HPA         *string `json:"hpa"`                   // that scales it; "": none does; null until HPAs are read
	Findings    []int   `json:"findings"`
}

// HPARow is a row of /api/hpas. /api/hpas/NAMESPACE/NAME answers with an HPADetail.
type HPARow struct {
	Object
	Target  Object      `json:"target"`
	Min     int32       `json:"min"`
	Max     int32       `json:"max"`
	Current int32       `json:"current"`
	Desired int32       `json:"desired"`
	Metrics []HPAMetric `json:"metrics"` // in the order of spec.metrics
	// CurrentHistory is Current over time.
	CurrentHistory Series `json:"currentHistory"`
	// Status is ok, limited (by min or max), inactive (the controller has no value, or scaling is off) or unable (to get
	// or change the scale).
	Status   string `json:"status"`
	Bad      bool   `json:"bad"`              // that status is a problem
	Reason   string `json:"reason,omitempty"` // the message of the condition that says so
	Findings []int  `json:"findings"`
}

// HPAMetric is a metric of an HPA and its value in status.currentMetrics.
type HPAMetric struct {
	Type    string   `json:"type"`    // Resource, ContainerResource, Pods, Object, External
	Name    string   `json:"name"`    // with the container or the object that it is of
	Target  string   `json:"target"`  // for people: "60 %", "average 1k"; "none" if the controller finds none
	Current string   `json:"current"` // for people; "" if unknown
	Ratio   *float64 `json:"ratio"`   // current / target
}

// NodeDetail is the answer of /api/nodes/NAME.
type NodeDetail struct {
	NodeRow
	KubeletVersion string      `json:"kubeletVersion"`
	Addresses      []string    `json:"addresses"`
	Conditions     []Condition `json:"conditions"`
}

// PodDetail is the answer of /api/pods/NAMESPACE/NAME.
type PodDetail struct {
	PodRow
	Containers []Container `json:"containers"`
	IP         string      `json:"ip"`
	Conditions []Condition `json:"conditions"`
}

// Container is a container of a pod.
type Container struct {
	Name string `json:"name"`
	Resources
	State    string `json:"state"`
	Restarts int    `json:"restarts"`
}

// WorkloadDetail is the answer of /api/workloads/NAMESPACE/KIND/NAME.
type WorkloadDetail struct {
	WorkloadRow
	PodCount Series `json:"podCount"`
}

// HPADetail is the answer of /api/hpas/NAMESPACE/NAME.
type HPADetail struct {
	HPARow
	DesiredHistory Series      `json:"desiredHistory"` // with the steps of CurrentHistory
	MetricHistory  []HPASeries `json:"metricHistory"`  // of Metrics, in their order
	Conditions     []Condition `json:"conditions"`
	// Report is that of `metrics-server doctor hpa`. It is renewed every 15 seconds, and nil until the first is complete.
	Report      *hpa.Report `json:"report"`
	ReportText  string      `json:"reportText"`            // as text, for a terminal
	ReportError string      `json:"reportError,omitempty"` // why there is none
}

// HPASeries is a metric of an HPA over time, in its own unit (percent for utilization).
type HPASeries struct {
	Current Series   `json:"current"`
	Target  *float64 `json:"target"` // null: the controller finds none
	Unit    string   `json:"unit"`   // "%", "cores", "bytes" or "" (the metric's own)
}

// Condition is a condition of an object.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}
