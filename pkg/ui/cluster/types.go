package cluster

import (
	"hash/maphash"
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/types"

	"metrics-server/pkg/history"
)

// Lengths of the past, in values.
const (
	LongPast  = 240 // of nodes, workloads and autoscalers
	ShortPast = 40  // of pods
)

// Snapshot is the state of a cluster. It is immutable.
type Snapshot struct {
	// Version grows with every change. Two snapshots with the same version are the same.
	Version uint64
	At      time.Time // when it was made
	// Sources has all sources, in the order of the constants.
	Sources []Source

	// Each is sorted by namespace, kind and name.
	Nodes     []*Node
	Pods      []*Pod
	Workloads []*Workload
	HPAs      []*HPA

	short, long view
	allNodes    Past // the sums over the nodes
}

// WasRead reports whether a source has been read, at least in part. If not, nothing is known of the number of its
// objects.
func (s *Snapshot) WasRead(name SourceName) bool {
	return slices.ContainsFunc(s.Sources, func(one Source) bool { return one.Name == name && !one.Updated.IsZero() })
}

// Source is how one kind of object is read from the API server.
type Source struct {
	Name   SourceName
	State  State
	Error  string // "" unless State is Failed, Denied or Absent
	Remedy string
	// Updated is when the last answer or event came; zero if there was none.
	Updated time.Time
	// Objects is how many there are: of metrics, those whose object is known, and of History, the series. Valid iff
	// Updated is not zero.
	Objects int

	listed bool // all pages of a list were read, at least once; of History false
}

// SourceName names a source.
type SourceName string

// The sources.
const (
	Nodes       SourceName = "nodes"
	Pods        SourceName = "pods"
	HPAs        SourceName = "hpas"
	NodeMetrics SourceName = "nodemetrics"
	PodMetrics  SourceName = "podmetrics"
	History     SourceName = "history"
)

func sourceNames() []SourceName {
	return []SourceName{Nodes, Pods, HPAs, NodeMetrics, PodMetrics, History}
}

// State is the state of a source.
type State string

// The states.
const (
	Waiting  State = "waiting"  // there was no complete answer yet
	Watching State = "watching" // changes arrive at once
	Polling  State = "polling"  // it is listed every Config.Interval
	Read     State = "read"     // it was read, once: of History only
	Failed   State = "failed"   // it is tried again; what is known is kept
	Denied   State = "denied"   // the user lacks a right; what is known is kept
	Absent   State = "absent"   // the cluster, or Config.Namespace, does not have it
)

// Amount is CPU and memory. Each is NaN if it is not known, or not set.
type Amount struct {
	CPU    float64 // cores
	Memory float64 // bytes
}

// Unknown values.
var (
	unknown = Amount{math.NaN(), math.NaN()}
	noUsage = Usage{Used: unknown}
)

// Usage is what something uses. Sampled is zero iff Used is unknown.
type Usage struct {
	Used    Amount
	Sampled time.Time     // the end of the window
	Window  time.Duration // over which CPU is a mean
}

// Node is a node.
type Node struct {
	Name           string
	Created        time.Time
	Ready          Readiness
	Cordoned       bool
	KubeletVersion string
	Addresses      []string // without duplicates, in the node's order
	Conditions     []Condition
	Allocatable    Amount

	Usage   Usage
	Missing string // why Usage is unknown, if that can be told; "" otherwise
	Overdue bool   // it should have a usage: Missing is an error

	// Requests and Limits are sums over the pods of the node that have not ended, and count pods without as zero. A
	// sum is NaN if no pod has any, or if pods are not read.
	Requests, Limits Amount
	// Pods counts the pods of the node that run, and PodsMissing those of them that have no usage. They are NaN until pods
	// are read.
	Pods, PodsMissing float64
	PodsOverdue       int // pods that should have a usage

	Past     Past
	uid      uid
	outdated *measured // a usage from before Created, which is not in Usage; nil if there is none
}

// uid is a hash of the UID of an object, which takes less memory.
type uid uint64

var seed = maphash.MakeSeed()

func uidOf(of types.UID) uid { return uid(maphash.String(seed, string(of))) }

// Readiness is the status of a node's condition Ready.
type Readiness string

// The values of Readiness.
const (
	Ready        Readiness = "Ready"
	NotReady     Readiness = "NotReady"
	ReadyUnknown Readiness = "Unknown"
)

// Pod is a pod.
type Pod struct {
	Namespace, Name string
	Created         time.Time
	Node            string // "" if it is not scheduled
	// Workload is the workload that it belongs to, as docs/history.md defines it.
	Workload history.Key
	Status   string // as kubectl get shows it: Running, Pending, CrashLoopBackOff ...
	// Running says that the phase is Running, Ended that it is Succeeded or Failed.
	Running, Ended bool
	Ready          bool
	Started        time.Time // when the last of its running containers started; zero if none runs
	Restarts       int       // as in kubectl get: while the pod initializes, only init containers count
	IP             string
	Conditions     []Condition
	Containers     []Container // with sidecars, without other init containers

	Usage   Usage
	Missing string // why Usage is unknown, if that can be told; "" otherwise, and of pods that have ended
	// Overdue says that it should have a usage. It is false of pods that have not started, or have only just, and where
	// the metrics of pods cannot be read.
	Overdue bool

	// Requests is a sum over the containers, counting those without as zero; NaN if none has any. Limits is NaN unless
	// all containers have one. If the pod itself has requests or limits, they count instead.
	Requests, Limits Amount

	Past     Past
	uid      uid
	outdated *measured // a usage from before Created, which is not in Usage; nil if there is none
}

// Container is a container of a pod.
type Container struct {
	Name             string
	State            string // Running, or the reason why it is not: CrashLoopBackOff, Completed, ContainerCreating ...
	Restarts         int
	Used             Amount
	Requests, Limits Amount
}

// Workload is the controller of pods, as docs/history.md defines it. It exists iff one of its pods has not ended.
type Workload struct {
	history.Key // Kind, Namespace and Name

	Pods    int // that run
	Pending int // that neither run nor have ended
	Missing int // that run and are not in Used, because they have no usage
	Overdue int // of those, the overdue ones

	// Used, Requests and Limits are sums over the pods that run. Used is NaN if none of them has a usage. Requests
	// counts pods without as zero, and is NaN if none has any. Limits is NaN unless all of them have one.
	Used             Amount
	Requests, Limits Amount
	Sampled          time.Time // the oldest sample in Used; zero if there is none

	Past Past
}

// HPA is a HorizontalPodAutoscaler.
type HPA struct {
	// Object is the autoscaler without its managed fields and annotations, which nothing needs. It must not be changed.
	Object  *autoscalingv2.HorizontalPodAutoscaler
	Metrics []Metric // in the order of Object.Spec.Metrics

	Past Past
}

// Metric is a metric of an HPA: its target, and its value as the HPA controller last saw it.
type Metric struct {
	Type autoscalingv2.MetricSourceType
	// Name is the resource or the metric. Container is that of a ContainerResource, Object that of an Object metric, as
	// Kind/Name.
	Name, Container, Object string
	// Target and Current are percent of the requests for Utilization; per pod for AverageValue; else as is. Their unit is
	// cores, bytes, or that of the metric. Target is NaN if the controller finds no target in the specification, Current
	// if the controller has no value. TargetType is the type that the controller goes by: that of the specification only
	// for Object metrics.
	TargetType      autoscalingv2.MetricTargetType
	Target, Current float64
}

// Ratio returns Current / Target, NaN if either is unknown.
func (m Metric) Ratio() float64 {
	if m.Target == 0 {
		return math.NaN()
	}
	return m.Current / m.Target
}

// Condition is a condition of an object.
type Condition struct{ Type, Status, Reason, Message string }

// Past names the past of an object. Its values are in the snapshots that have the object.
type Past struct {
	since int64 // the tick at which it begins
	slot  int32 // the first of width slots
	width int16
	long  bool
}

// Quantity says which of an object's values Series returns.
type Quantity int

// The quantities. CPU and Memory are those of nodes, pods and workloads; RunningPods and MissingPods those of
// workloads; Current and Desired, in replicas, those of HPAs, and FirstMetric + i is Current of Metrics[i].
const (
	CPU         Quantity = 0
	Memory      Quantity = 1
	RunningPods Quantity = 2
	MissingPods Quantity = 3

	Current     Quantity = 0
	Desired     Quantity = 1
	FirstMetric Quantity = 2
)

// Series are values over time, oldest first.
type Series struct {
	Start  time.Time // of the first value
	Step   time.Duration
	Values []float32 // NaN: unknown
}

// Series returns the last values of q, at most n of them and without the time before the object was first seen.
func (s *Snapshot) Series(p Past, q Quantity, n int) Series {
	v := s.short
	if p.long {
		v = s.long
	}
	return v.series(p, q, n)
}

// NodesSeries returns the sums of the last n values of CPU or Memory over the nodes that there were at each time. A
// value that was not known counts as zero, unless none was known.
func (s *Snapshot) NodesSeries(q Quantity, n int) Series { return s.Series(s.allNodes, q, n) }
