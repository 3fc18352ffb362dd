// Package exposition parses a kubelet's answer at /metrics/resource into samples. It is pure: no I/O,
// no logs, no clock.
//
// It reads text format 0.0.4, the only format that is requested of kubelets. A row that cannot be used
// is counted by its reason and affects nothing else. The parser reads the families with CPU, memory,
// swap and start times of containers and the node, and resource_scrape_error; it reads the families
// of pods only if a container has a zero. It skips all others, and the HELP and TYPE lines.
//
// The cost of an answer is bounded whatever its content: at most sample.MaxContainers containers are
// accepted, their names have at most maxNameBytes, and nothing larger than the answer is allocated.
//
// A Parser is scratch space: one per worker, for any node. A Layout belongs to one node and makes
// the steady state cheap: an answer that lists the same containers as the one before allocates
// nothing. Neither is safe for concurrent use. A Batch keeps no reference to either of them or to
// the body, except for the ContainerIDs, which are immutable and shared with the Layout.
package exposition

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"metrics-server/pkg/sample"
)

// ErrNoSamples says that the answer had no usable CPU or memory of the node or of any container. The
// error that wraps it says how many rows were refused, and the most frequent reason.
var ErrNoSamples = errors.New("answer has no usable sample of the node or of a container")

// ErrClock wraps ErrNoSamples: no sample is usable because the node's clock or this server's is
// wrong.
var ErrClock = fmt.Errorf("%w", ErrNoSamples)

// ErrKubelet says that resource_scrape_error was not 0: the kubelet failed to collect the metrics.
var ErrKubelet = errors.New("kubelet failed to collect metrics (resource_scrape_error is not 0)")

// ErrTruncated says that the last line of the answer does not end, so the rest is missing. Nothing of
// such an answer is used: a part of a number is another number.
var ErrTruncated = errors.New("answer is incomplete: it ends in the middle of a line")

// clockTolerance is how far a sample's timestamp may deviate from this server's clock.
const clockTolerance = time.Hour

// maxNameBytes is the limit on the total length of the names of containers, twice what names of usual
// length need. A Layout keeps the names for as long as the node exists.
const maxNameBytes = 128 * sample.MaxContainers

// Parser holds the memory that a parse needs and the next one can reuse, which is at most 4 bytes for
// each container of the largest answer so far, and the positions of maxKept names. The zero value is ready.
type Parser struct {
	rows      []int32           // parallel to Layout.ids: position in Batch.Containers plus one, or 0 if not seen yet
	positions map[nameKey]int32 // in Layout.ids, as far as they were needed; see answer.lookUp
}

// maxKept is how many positions a Parser keeps for the next answer.
const maxKept = 1024

// ParseText parses body, an answer in text format 0.0.4 that arrived at received by this server's
// clock, into batch, which it resets first. A sample without a timestamp gets received. A
// container's Time is that of its CPU, or of its memory if it has no CPU, or 0 if it has neither.
//
// Lines may end in LF or CRLF. The error is ErrTruncated, ErrKubelet or wraps ErrNoSamples; after an
// error the batch still says what was refused, and the layout is as it was.
func (p *Parser) ParseText(body []byte, received time.Time, layout *Layout, batch *sample.Batch) error {
	batch.Reset()
	if n := len(body); n > 0 && body[n-1] != '\n' {
		return ErrTruncated
	}
	p.rows = slices.Grow(p.rows[:0], len(layout.ids))[:len(layout.ids)]
	clear(p.rows)
	if len(p.positions) > maxKept {
		p.positions = nil
	}
	clear(p.positions)
	a := answer{
		Parser:   p,
		layout:   layout,
		known:    len(layout.ids),
		batch:    batch,
		received: sample.TimeOf(received),
		earliest: sample.TimeOf(received.Add(-clockTolerance)),
		latest:   sample.TimeOf(received.Add(clockTolerance)),
	}
	a.text(body)
	return a.end()
}

// end completes the batch, or returns the reason why the answer as a whole is not usable.
func (a *answer) end() error {
	a.leaveOutPartialPods()
	a.holdNameless()
	var err error
	switch refused := &a.batch.Refused; {
	case a.failed:
		err = ErrKubelet
	case a.useful:
	case a.batch.Skew != 0 &&
		(refused.Commonest() == sample.TimestampAhead || refused.Commonest() == sample.TimestampBehind):
		err = fmt.Errorf("%w: %d rows refused, most of them as %s: %s",
			ErrClock, refused.Total(), refused.Commonest(), a.batch.Clock())
	case refused.Total() > 0:
		err = fmt.Errorf("%w: %d rows refused, most of them as %s", ErrNoSamples, refused.Total(), refused.Commonest())
	default:
		err = ErrNoSamples
	}
	if err != nil {
		a.layout.truncate(a.known)
		return err
	}
	a.refuseFalseZeros()
	a.layout.follow(a.batch.Containers)
	return nil
}
