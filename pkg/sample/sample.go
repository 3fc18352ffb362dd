// Package sample holds the value types that travel from the kubelet client to the API: samples,
// usages, and the identity of the objects they belong to. It is a leaf: it imports the standard
// library only and has no behaviour beyond small conversions. Values are not synchronised; each
// type says who may share it.
package sample

import (
	"fmt"
	"strings"
	"time"
)

// Time is a moment in Unix milliseconds, the unit of a kubelet's timestamps. Zero means "not given".
type Time int64

// TimeOf converts t, dropping what is below a millisecond.
func TimeOf(t time.Time) Time { return Time(t.UnixMilli()) }

// Std converts t to a time.Time in UTC.
func (t Time) Std() time.Time { return time.UnixMilli(int64(t)).UTC() }

// Sub returns t-u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t-u) * time.Millisecond }

// Add returns t+d, dropping what is below a millisecond.
func (t Time) Add(d time.Duration) Time { return t + Time(d/time.Millisecond) }

// ContainerID names a container of the cluster. It is immutable and shared by pointer: equal
// pointers mean the same container; different pointers may still name the same one. There are hundreds of thousands, so
// the three names are one string.
type ContainerID struct {
	names          string // namespace/pod/container
	pod, container int32  // where they begin
}

// NewContainerID returns the ID of a container. It keeps nothing of its arguments.
func NewContainerID[T string | []byte](namespace, pod, container T) ContainerID {
	// With a constant in it the concatenation copies each once, also if they are bytes.
	names := string(namespace) + "/" + string(pod) + "/" + string(container)
	begins := len(namespace) + 1
	return ContainerID{names: names, pod: int32(begins), container: int32(begins + len(pod) + 1)}
}

// Namespace is that of the pod.
func (id *ContainerID) Namespace() string { return id.names[:max(id.pod-1, 0)] }

// Pod is the pod's name.
func (id *ContainerID) Pod() string { return id.names[id.pod:max(id.container-1, 0)] }

// Container is the container's name.
func (id *ContainerID) Container() string { return id.names[id.container:] }

// Fields says which parts of a Sample the kubelet gave. A part that was not given is zero, but
// a zero that was given is a value.
type Fields uint8

// The parts of a Sample.
const (
	CPU Fields = 1 << iota
	Memory
	Swap
	Start
	// Refused is no part: it says that the kubelet listed the node or container with CPU or memory that was
	// refused. A container with neither, but Refused, is running as far as is known.
	Refused
)

// Has reports whether every part of want was given.
func (f Fields) Has(want Fields) bool { return f&want == want }

// Sample is what a kubelet said of one node or container at one moment.
type Sample struct {
	Time   Time   // when it was taken, by the kubelet's clock
	Start  Time   // when the container started; never given for a node
	CPU    uint64 // cumulative CPU time in nanoseconds
	Memory uint64 // working set in bytes
	Swap   uint64 // swap in use, in bytes
	Given  Fields
}

// Container is the sample of one container.
type Container struct {
	ID *ContainerID
	Sample
}

// Batch is what one answer of a kubelet said: the samples that were accepted, and how many
// were refused and why. The one who fills it may reuse it afterwards, so a receiver copies
// what it keeps; the ContainerIDs may be kept.
type Batch struct {
	Node       Sample      // Given is 0 if the answer had no usable sample of the node
	Containers []Container // distinct, in the kubelet's order
	Refused    Refusals
}

// Reset empties b and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Containers)
	*b = Batch{Containers: b.Containers[:0]}
}

// Reason says why a sample was refused.
type Reason uint8

// The reasons. Their names are values of a metric's label and never change.
const (
	Malformed      Reason = iota // the line, its labels or its value cannot be parsed
	NotANumber                   // NaN
	Infinite                     // +Inf or -Inf
	Negative                     // less than zero
	Overflow                     // more than the field can hold
	TimestampAhead               // more than an hour ahead of this server's clock, or out of range
	TimestampOld                 // older than the newest sample of the same container or node
	Duplicate                    // a second sample of the same series in one answer
	Excess                       // beyond the number of containers that is taken of one answer
	NumReasons                   // how many reasons there are
)

var reasonNames = [NumReasons]string{
	Malformed: "malformed", NotANumber: "not_a_number", Infinite: "infinite", Negative: "negative",
	Overflow: "overflow", TimestampAhead: "timestamp_ahead", TimestampOld: "timestamp_old", Duplicate: "duplicate", Excess: "excess",
}

func (r Reason) String() string { return reasonNames[r] }

// Refusals counts refused samples by Reason.
type Refusals [NumReasons]int

// String names the reasons and how often each was: "negative: 2, duplicate: 1".
func (r *Refusals) String() string {
	var b strings.Builder
	for reason, n := range r {
		if n == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%v: %d", Reason(reason), n)
	}
	return b.String()
}

// Total is the number of refused samples, whatever the reason.
func (r *Refusals) Total() int {
	n := 0
	for _, c := range r {
		n += c
	}
	return n
}
