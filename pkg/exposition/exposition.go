// Package exposition turns what a kubelet answers at /metrics/resource into samples. It is pure: no
// I/O, no logs, no clock.
//
// It reads the text format 0.0.4 with a parser of its own and the delimited protobuf format with
// expfmt's decoder; both feed the same code that accepts or refuses a row. A row that cannot be
// used is counted by its reason and costs nothing but itself. Only the families that carry a
// container's or the node's CPU, memory, swap and start time, and resource_scrape_error, are looked
// at; every other family is skipped unread. HELP and TYPE lines are comments.
//
// A Parser is scratch space: one per worker, for any node. A Layout belongs to one node and makes
// the steady state cheap: an answer that lists the same containers as the one before allocates
// nothing. Neither is safe for concurrent use. What a parse wrote to a Batch refers to neither of
// them nor to the body, except that the ContainerIDs, which are immutable, are shared with the Layout.
package exposition

import (
	"errors"
	"fmt"
	"time"

	"metrics-server/pkg/sample"
)

// ErrNoSamples says that the answer had neither CPU nor memory, of the node or of any container,
// that could be used. The error that wraps it says how much was refused and mostly why.
var ErrNoSamples = errors.New("answer has no usable sample of the node or of a container")

// ErrKubelet says that resource_scrape_error was not 0: the kubelet itself could not get at the metrics.
var ErrKubelet = errors.New("kubelet failed to collect metrics (resource_scrape_error is not 0): see the kubelet's log")

// aheadLimit is how far a timestamp may be ahead of this server's clock.
const aheadLimit = time.Hour

// maxKept is how many containers an answer may have for a Parser to keep the room for them. No kubelet's has as many.
const maxKept = 8192

// Parser holds what a parse needs for its duration and the next one can reuse. The zero value is
// ready. It keeps at most 40 bytes for each container of the largest answer it saw, or of maxKept.
type Parser struct {
	rows  []int32 // parallel to Layout.ids: position in Batch.Containers plus one, or 0 if not seen yet
	index index
}

// ParseText parses body, an answer in text format 0.0.4 that arrived at received by this server's
// clock, into batch, which it resets first. A sample without a timestamp gets received. A
// container's Time is that of its CPU, or of its memory if it has no CPU, or 0 if it has neither.
//
// Lines may end in LF or CRLF; the last one need not end. The error is ErrKubelet or wraps
// ErrNoSamples; after an error the batch still says what was refused, and the layout is as it was.
func (p *Parser) ParseText(body []byte, received time.Time, layout *Layout, batch *sample.Batch) error {
	a := p.begin(received, layout, batch)
	a.text(body)
	return a.end()
}

// ParseProtobuf is ParseText for the delimited protobuf format. A message that cannot be decoded
// counts as one malformed row, although it takes its whole family along; where the
// lengths between messages are broken, so is the rest of the answer.
func (p *Parser) ParseProtobuf(body []byte, received time.Time, layout *Layout, batch *sample.Batch) error {
	a := p.begin(received, layout, batch)
	a.protobuf(body)
	return a.end()
}

func (p *Parser) begin(received time.Time, layout *Layout, batch *sample.Batch) answer {
	batch.Reset()
	p.rows = zeros(p.rows, len(layout.ids))
	p.index.reset()
	return answer{
		Parser:   p,
		layout:   layout,
		known:    len(layout.ids),
		batch:    batch,
		received: sample.TimeOf(received),
		latest:   sample.TimeOf(received.Add(aheadLimit)),
	}
}

// end decides what the answer as a whole is worth.
func (a *answer) end() error {
	if len(a.rows) > maxKept {
		a.rows, a.index.slots = nil, nil
	}
	var err error
	switch refused := &a.batch.Refused; {
	case a.failed:
		err = ErrKubelet
	case a.useful:
	case refused.Total() > 0:
		err = fmt.Errorf("%w: %d rows refused, most of them as %s", ErrNoSamples, refused.Total(), commonest(refused))
	default:
		err = ErrNoSamples
	}
	if err != nil {
		a.layout.truncate(a.known)
		return err
	}
	a.layout.follow(a.batch.Containers)
	return nil
}

func commonest(refused *sample.Refusals) sample.Reason {
	most := 0
	for i, n := range refused {
		if n > refused[most] {
			most = i
		}
	}
	return sample.Reason(most)
}
