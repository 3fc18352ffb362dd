// Package sample holds the value types that travel from the kubelet client to the API: samples,
// usages, and the identity of the objects they belong to. It is a leaf: it imports the standard
// library only and has no behavior beyond small conversions. Values are not synchronized; each
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
// pointers mean the same container; different pointers may still name the same one. The three names
// share one string, because there can be hundreds of thousands of IDs.
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

// Namespace is the pod's namespace.
func (id *ContainerID) Namespace() string { return id.names[:max(id.pod-1, 0)] }

// Pod is the pod's name.
func (id *ContainerID) Pod() string { return id.names[id.pod:max(id.container-1, 0)] }

// Container is the container's name.
func (id *ContainerID) Container() string { return id.names[id.container:] }

// Len is the total length of the three names in bytes.
func (id *ContainerID) Len() int { return max(len(id.names)-2, 0) }

// Fields says which parts of a Sample the kubelet gave. A part that was not given is zero, but
// a zero that was given is a value.
type Fields uint8

// The parts of a Sample.
const (
	CPU Fields = 1 << iota
	Memory
	Swap
	Start
	// Refused is not a part: it says that the kubelet gave CPU or memory that was refused. A container
	// with Refused and neither of the two is presumed to be running.
	Refused
)

// Has reports whether every part of want was given.
func (f Fields) Has(want Fields) bool { return f&want == want }

// Sample is what a kubelet reported about one node or container at one moment.
type Sample struct {
	Time   Time   // when it was taken, by the kubelet's clock
	Start  Time   // when the container started; never given for a node
	CPU    uint64 // cumulative CPU time in nanoseconds
	Memory uint64 // working set in bytes
	Swap   uint64 // swap in use, in bytes
	Given  Fields
	Why    Reason // why CPU or memory was refused; valid iff Given has Refused
}

// FrozenAfter is how long a kubelet may repeat a sample, or give one that is older than others in the
// same answer, before that counts as a fault. Kubelets take a new sample every 10 to 20 s.
const FrozenAfter = 4 * time.Minute

// Container is the sample of one container.
type Container struct {
	ID *ContainerID
	Sample
}

// MaxContainers is how many containers are accepted from one answer, far more than any kubelet runs. It
// bounds the memory that a flooding node takes, and the time for which it keeps others waiting.
const MaxContainers = 8192

// Batch is the content of one answer of a kubelet: the samples that were accepted, and how many were
// refused and why. Its owner may reuse it, so a receiver copies what it keeps; the ContainerIDs may
// be kept.
type Batch struct {
	Node       Sample      // Given is 0 if the answer had no usable sample of the node
	Containers []Container // distinct, at most MaxContainers, in the kubelet's order
	Refused    Refusals
	// Skew is how far ahead of this server's clock the newest timestamp is that was refused as
	// TimestampAhead or TimestampBehind; zero if there is none.
	Skew time.Duration
}

// Clock describes Skew in words, as a deviation of the node's clock; "" if Skew is zero.
func (b *Batch) Clock() string {
	if b.Skew == 0 {
		return ""
	}
	by, side := b.Skew.Abs().Round(time.Minute).String(), "ahead"
	if b.Skew < 0 {
		side = "behind"
	}
	if days := b.Skew.Abs() / (24 * time.Hour); days >= 3 {
		by = fmt.Sprintf("%d days", days)
	}
	return fmt.Sprintf("the node's clock is %s %s", by, side)
}

// Reset empties b and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Containers)
	*b = Batch{Containers: b.Containers[:0]}
}

// Reason is why a sample was refused.
type Reason uint8

// The reasons. Their names are label values of a metric and never change.
const (
	Malformed       Reason = iota // the line, its labels or its value cannot be parsed
	NotANumber                    // NaN
	Infinite                      // +Inf or -Inf
	Negative                      // less than zero
	Overflow                      // more than the field can hold
	TimestampAhead                // more than an hour ahead of this server's clock
	TimestampBehind               // more than an hour behind this server's clock
	TimestampOld                  // older than the newest sample of the same container or node
	Duplicate                     // a second sample of the same series in one answer
	Excess                        // beyond the number of containers accepted from one answer
	OverCapacity                  // more CPU or memory than the node has
	Contradicted                  // a zero, although other rows of the same answer show usage
	Frozen                        // the same sample again and again, for minutes
	NumReasons                    // how many reasons there are
)

var reasonNames = [NumReasons]string{
	Malformed: "malformed", NotANumber: "not_a_number", Infinite: "infinite", Negative: "negative",
	Overflow: "overflow", TimestampAhead: "timestamp_ahead", TimestampBehind: "timestamp_behind",
	TimestampOld: "timestamp_old", Duplicate: "duplicate", Excess: "excess",
	OverCapacity: "over_capacity", Contradicted: "contradicted", Frozen: "frozen",
}

func (r Reason) String() string { return reasonNames[r] }

var meanings = [NumReasons]string{
	Malformed:       "it cannot be parsed",
	NotANumber:      "it is not a number",
	Infinite:        "it is infinite",
	Negative:        "it is less than zero",
	Overflow:        "it is larger than any counter",
	TimestampAhead:  "its timestamp is more than an hour ahead of the server's clock",
	TimestampBehind: "its timestamp is more than an hour behind the server's clock",
	TimestampOld:    "it is older than the sample before it",
	Duplicate:       "the kubelet lists it twice",
	Excess:          "the kubelet lists too many containers",
	OverCapacity:    "it shows more CPU or memory than the node has",
	Contradicted:    "it shows zero CPU or memory, but other rows of the same answer show usage",
	Frozen:          "the kubelet has repeated the same sample for minutes",
}

// Meaning explains the reason, as the second half of "the sample was refused because ...".
func (r Reason) Meaning() string { return meanings[r] }

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

// Commonest is the most frequent reason.
func (r *Refusals) Commonest() Reason {
	most := 0
	for i, n := range r {
		if n > r[most] {
			most = i
		}
	}
	return Reason(most)
}

// Total is the number of refused samples, whatever the reason.
func (r *Refusals) Total() int {
	n := 0
	for _, c := range r {
		n += c
	}
	return n
}

// Add adds o to r.
func (r *Refusals) Add(o *Refusals) {
	for i, n := range o {
		r[i] += n
	}
}
