package exposition

import (
	"bytes"
	"encoding/binary"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"metrics-server/pkg/sample"
)

// protobuf parses an answer in delimited protobuf: messages, each with its length as a varint before it.
// They are given to the decoder one at a time, so that one that is broken costs only itself.
func (a *answer) protobuf(body []byte) {
	for len(body) > 0 {
		size, prefix := binary.Uvarint(body)
		if prefix <= 0 || size > uint64(len(body)-prefix) {
			a.refuse(sample.Malformed)
			return
		}
		end := prefix + int(size)
		if mayMatter(body[prefix:end]) {
			a.message(body[:end])
		}
		body = body[end:]
	}
}

// mayMatter reports false if it sees that message is a family of no interest without decoding it:
// the name is field 1, which every encoder known writes first.
func mayMatter(message []byte) bool {
	const nameTag = 1<<3 | 2
	if len(message) == 0 || message[0] != nameTag {
		return true
	}
	size, prefix := binary.Uvarint(message[1:])
	if prefix <= 0 || size > uint64(len(message)-1-prefix) {
		return true
	}
	return familyOf(message[1+prefix:][:size]).object != nothing
}

// message decodes one message with its length and adds the rows of its family.
func (a *answer) message(b []byte) {
	var decoded dto.MetricFamily
	if err := expfmt.NewDecoder(bytes.NewReader(b), expfmt.FmtProtoDelim).Decode(&decoded); err != nil {
		a.refuse(sample.Malformed)
		return
	}
	a.enter(familyOf([]byte(decoded.GetName())))
	if a.family.object == nothing {
		return
	}
	for _, m := range decoded.GetMetric() {
		r := row{time: a.received, at: unknown}
		if !r.fill(m) {
			a.refuse(sample.Malformed)
			continue
		}
		a.add(&r)
	}
}

// fill fills r from m. It reports false if m has no plain value, or a label twice.
func (r *row) fill(m *dto.Metric) bool {
	for _, l := range m.GetLabel() {
		if label := labelOf([]byte(l.GetName())); label != otherLabel {
			if r.labels[label] != nil {
				return false
			}
			r.labels[label] = []byte(l.GetValue())
		}
	}
	if m.TimestampMs != nil {
		r.time = sample.Time(m.GetTimestampMs())
	}
	switch {
	case m.Counter != nil:
		r.value = m.Counter.GetValue()
	case m.Gauge != nil:
		r.value = m.Gauge.GetValue()
	case m.Untyped != nil:
		r.value = m.Untyped.GetValue()
	default:
		return false
	}
	return true
}
