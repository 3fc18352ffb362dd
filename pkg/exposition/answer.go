package exposition

import (
	"math"
	"time"

	"metrics-server/pkg/sample"
)

// answer is the state of one parse.
type answer struct {
	*Parser
	layout *Layout
	known  int // how many containers the layout had before this answer
	batch  *sample.Batch

	received sample.Time
	earliest sample.Time // the first timestamp that is not too far behind
	latest   sample.Time // the last timestamp that is not too far ahead

	family family
	cursor int // where in the layout the family's next row is expected

	useful bool // there is usable CPU or memory
	failed bool // resource_scrape_error

	zeros   bool   // there is a zero among CPU and memory
	podRows []byte // the rest of the answer from the first row of a pod on

	nameless  sample.Fields // what the container rows give whose labels could not be read
	nameBytes int           // total length of the names in batch
	excess    excess
}

// row is one row of the current family, still as the kubelet wrote it.
type row struct {
	at     int               // the container's position in the layout, or unknown: then the labels say which it is
	labels [numLabels][]byte // nil: no such label
	value  float64
	time   sample.Time

	malformed bool // the value or the time cannot be parsed
	nameless  bool // the labels cannot be parsed, so the row may be any container's
}

const unknown = -1

// usage are the parts of a sample without which a container or node cannot be served.
const usage = sample.CPU | sample.Memory

// The labels that name a container.
const (
	labelContainer = iota
	labelNamespace
	labelPod
	numLabels

	otherLabel = -1
)

func labelOf(name []byte) int {
	switch string(name) {
	case "container":
		return labelContainer
	case "namespace":
		return labelNamespace
	case "pod":
		return labelPod
	}
	return otherLabel
}

// family is what the rows of a metric family describe.
type family struct {
	object object
	field  sample.Fields // which part of the object's sample
}

type object uint8

const (
	nothing object = iota // the family is skipped
	pod                   // see refuseFalseZeros
	node
	container
	scrapeError
)

// readFamilies are those that are read, by name.
var readFamilies = map[string]family{
	"container_cpu_usage_seconds_total":  {container, sample.CPU},
	"container_memory_working_set_bytes": {container, sample.Memory},
	"container_start_time_seconds":       {container, sample.Start},
	"container_swap_usage_bytes":         {container, sample.Swap},
	"node_cpu_usage_seconds_total":       {node, sample.CPU},
	"node_memory_working_set_bytes":      {node, sample.Memory},
	"node_swap_usage_bytes":              {node, sample.Swap},
	"pod_cpu_usage_seconds_total":        {pod, sample.CPU},
	"pod_memory_working_set_bytes":       {pod, sample.Memory},
	"resource_scrape_error":              {object: scrapeError},
}

// enter makes f the family of the rows that follow.
func (a *answer) enter(f family) {
	a.family = f
	a.cursor = 0 // every family lists the containers in the same order
}

func (a *answer) refuse(why sample.Reason) { a.batch.Refused[why]++ }

// add accepts or refuses r, a row of the current family. It keeps no reference to r.
func (a *answer) add(r *row) {
	s := &a.batch.Node
	switch a.family.object {
	case container:
		c, why := a.container(r)
		if c == nil {
			a.refuse(why)
			if r.nameless {
				a.nameless |= a.family.field
			}
			return
		}
		s = &c.Sample
	case scrapeError:
		switch {
		case r.malformed:
			a.refuse(sample.Malformed)
		case r.value != 0: // also if it is NaN
			a.failed = true
		}
		return
	}

	n, why, ok := a.check(r)
	switch {
	case !ok:
		a.refuse(why)
		if why == sample.TimestampAhead || why == sample.TimestampBehind {
			a.farOff(r.time)
		}
		if a.family.field&usage != 0 {
			s.Given |= sample.Refused
			s.Why = max(s.Why, why) // any of several will do, but independent of the order of rows
		}
	case s.Given.Has(a.family.field):
		a.refuse(sample.Duplicate)
	default:
		a.set(s, n, r.time)
	}
}

// check converts the row's value to the unit of its field: nanoseconds of CPU, bytes, or
// milliseconds of a start time. Every value is below 2^63, so differences fit into a signed number.
func (a *answer) check(r *row) (n uint64, why sample.Reason, ok bool) {
	v := r.value
	switch {
	case r.malformed:
		return 0, sample.Malformed, false
	case a.family.field == sample.Start:
		return a.start(v), 0, true
	case math.IsNaN(v):
		return 0, sample.NotANumber, false
	case math.IsInf(v, 0):
		return 0, sample.Infinite, false
	case v < 0:
		return 0, sample.Negative, false
	case r.time < a.earliest:
		return 0, sample.TimestampBehind, false
	case r.time > a.latest:
		return 0, sample.TimestampAhead, false
	}
	if a.family.field == sample.CPU {
		v *= 1e9
	}
	if v = math.Round(v); v >= 1<<63 {
		return 0, sample.Overflow, false
	}
	return uint64(v), 0, true
}

// earliestStart is before any container started: in seconds, the beginning of the year 2000.
const earliestStart = 946_684_800

// start converts a start time from seconds, or returns 0 if it cannot be one. Instead of an unknown
// start time, kubelets have reported 0, Go's zero time (in the year 1) and the pod's age.
func (a *answer) start(seconds float64) uint64 {
	if ms := math.Round(seconds * 1e3); seconds >= earliestStart && ms <= float64(a.latest) {
		return uint64(ms)
	}
	return 0
}

// farOff notes how far a refused timestamp is from this server's clock. The newest one is kept, as it
// is nearest to the present time by the node's clock.
func (a *answer) farOff(t sample.Time) {
	const farthest = 200 * 365 * 24 * time.Hour // what a time.Duration can hold
	t = min(max(t, a.received.Add(-farthest)), a.received.Add(farthest))
	if skew := t.Sub(a.received); a.batch.Skew == 0 || skew > a.batch.Skew {
		a.batch.Skew = skew
	}
}

// set stores n, taken at t, in the field of the current family.
func (a *answer) set(s *sample.Sample, n uint64, t sample.Time) {
	switch a.family.field {
	case sample.CPU:
		s.CPU, s.Time, a.useful = n, t, true
	case sample.Memory:
		s.Memory, a.useful = n, true
		if !s.Given.Has(sample.CPU) {
			s.Time = t
		}
	case sample.Swap:
		s.Swap = n
	case sample.Start:
		if n == 0 {
			return
		}
		s.Start = sample.Time(n)
	}
	s.Given |= a.family.field
	a.zeros = a.zeros || n == 0 && a.family.field&usage != 0
}

// container returns the container that r names, and adds it to the batch with its first row. It
// returns nil and the reason if r does not name one or the batch is full.
func (a *answer) container(r *row) (*sample.Container, sample.Reason) {
	i := r.at
	if i == unknown {
		if r.nameless {
			return nil, sample.Malformed
		}
		for _, value := range r.labels {
			if len(value) == 0 {
				return nil, sample.Malformed
			}
		}
		var why sample.Reason
		if i, why = a.find(r); i == unknown {
			return nil, why
		}
	}
	if a.rows[i] == 0 {
		id := a.layout.ids[i]
		size := id.Len()
		if a.full(size) {
			leaveOut(&a.excess, a.batch, id.Namespace(), id.Pod())
			return nil, sample.Excess
		}
		a.nameBytes += size
		a.batch.Containers = append(a.batch.Containers, sample.Container{ID: id})
		a.rows[i] = int32(len(a.batch.Containers))
	}
	return &a.batch.Containers[a.rows[i]-1], 0
}

// full reports whether the batch has no room for a container with names of that length.
func (a *answer) full(nameBytes int) bool {
	return a.excess.begun() || len(a.batch.Containers) == sample.MaxContainers || a.nameBytes+nameBytes > maxNameBytes
}

// holdNameless attributes the rows whose labels could not be parsed. A row is counted as refused for
// every container that it may belong to: those that lack its value and have a non-zero one of the
// other.
func (a *answer) holdNameless() {
	if a.nameless&usage == 0 {
		return
	}
	for i := range a.batch.Containers {
		c := &a.batch.Containers[i]
		if usage&^c.Given&a.nameless != 0 && c.CPU|c.Memory > 0 {
			c.Given |= sample.Refused
			c.Why = sample.Malformed
		}
	}
}
