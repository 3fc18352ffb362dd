package exposition

import (
	"math"

	"metrics-server/pkg/sample"
)

// answer is the state of one parse: what both formats share.
type answer struct {
	*Parser
	layout *Layout
	known  int // how many containers the layout had before this answer
	batch  *sample.Batch

	received sample.Time
	latest   sample.Time // the last timestamp that is not too far ahead

	family family
	cursor int // where in the layout the family's next row is expected

	useful bool // there is CPU or memory of something
	failed bool // resource_scrape_error
}

// row is one row of the current family, still as the kubelet wrote it.
type row struct {
	at     int               // the container's position in the layout, or unknown: then the labels say which it is
	labels [numLabels][]byte // nil: no such label
	value  float64
	time   sample.Time
}

const unknown = -1

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

// family says what the rows of a family are about.
type family struct {
	object object
	field  sample.Fields // which part of the object's sample
}

type object uint8

const (
	nothing object = iota // a family that is of no interest
	node
	container
	scrapeError
)

func familyOf(name []byte) family {
	switch string(name) {
	case "container_cpu_usage_seconds_total":
		return family{container, sample.CPU}
	case "container_memory_working_set_bytes":
		return family{container, sample.Memory}
	case "container_start_time_seconds":
		return family{container, sample.Start}
	case "container_swap_usage_bytes":
		return family{container, sample.Swap}
	case "node_cpu_usage_seconds_total":
		return family{node, sample.CPU}
	case "node_memory_working_set_bytes":
		return family{node, sample.Memory}
	case "node_swap_usage_bytes":
		return family{node, sample.Swap}
	case "resource_scrape_error":
		return family{object: scrapeError}
	}
	return family{}
}

// enter makes f the family of the rows that follow.
func (a *answer) enter(f family) {
	a.family = f
	a.cursor = 0 // every family lists the containers in the same order
}

func (a *answer) refuse(why sample.Reason) { a.batch.Refused[why]++ }

// add accepts or refuses r, a row of the current family, which is of interest. It keeps nothing of r.
func (a *answer) add(r *row) {
	s := &a.batch.Node
	switch a.family.object {
	case container:
		c := a.container(r)
		if c == nil {
			a.refuse(sample.Malformed)
			return
		}
		s = &c.Sample
	case scrapeError:
		if r.value != 0 { // also if it is NaN
			a.failed = true
		}
		return
	}

	n, why, ok := a.check(r)
	switch {
	case !ok:
		a.refuse(why)
		if a.family.field&(sample.CPU|sample.Memory) != 0 {
			s.Given |= sample.Refused
		}
	case s.Given.Has(a.family.field):
		a.refuse(sample.Duplicate)
	default:
		a.set(s, n, r.time)
	}
}

// check converts the row's value to the unit of its field: nanoseconds of CPU, bytes, or
// milliseconds of a start time. Everything is below 2^63, so that later sums and differences may be signed.
func (a *answer) check(r *row) (n uint64, why sample.Reason, ok bool) {
	v := r.value
	switch {
	case math.IsNaN(v):
		return 0, sample.NotANumber, false
	case math.IsInf(v, 0):
		return 0, sample.Infinite, false
	case v < 0:
		return 0, sample.Negative, false
	}
	switch a.family.field {
	case sample.CPU:
		v *= 1e9
	case sample.Start:
		v *= 1e3
	}
	if v = math.Round(v); v >= 1<<63 {
		return 0, sample.Overflow, false
	}
	n = uint64(v)
	if r.time <= 0 || r.time > a.latest || a.family.field == sample.Start && sample.Time(n) > a.latest {
		return 0, sample.TimestampAhead, false
	}
	return n, 0, true
}

// set puts n, taken at t, where the current family wants it.
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
			return // how a kubelet says that it does not know
		}
		s.Start = sample.Time(n)
	}
	s.Given |= a.family.field
}

// container returns the container that r names, which it adds to the batch if this is the first row
// of it in this answer; nil if r does not name one.
func (a *answer) container(r *row) *sample.Container {
	i := r.at
	if i == unknown {
		for _, value := range r.labels {
			if len(value) == 0 {
				return nil
			}
		}
		if i = a.find(r); i == unknown {
			return nil
		}
	}
	if a.rows[i] == 0 {
		a.batch.Containers = append(a.batch.Containers, sample.Container{ID: a.layout.ids[i]})
		a.rows[i] = int32(len(a.batch.Containers))
	}
	return &a.batch.Containers[a.rows[i]-1]
}
