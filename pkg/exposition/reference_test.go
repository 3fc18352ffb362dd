package exposition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"metrics-server/pkg/sample"
)

// received is a few seconds after the last capture in testdata.
var received = time.UnixMilli(1795310605000)

// result is what a parse says, in a form that can be compared. Containers are in the answer's order.
type result struct {
	Err        error // nil, ErrNoSamples or ErrKubelet
	Node       sample.Sample
	Containers []namedSample
	Refused    sample.Refusals
}

type namedSample struct {
	ID sample.ContainerID
	sample.Sample
}

// sorted is r with the containers in the order of their names.
func (r result) sorted() result {
	r.Containers = slices.Clone(r.Containers)
	slices.SortFunc(r.Containers, func(a, b namedSample) int {
		return strings.Compare(a.ID.Namespace()+"\x00"+a.ID.Pod()+"\x00"+a.ID.Container(), b.ID.Namespace()+"\x00"+b.ID.Pod()+"\x00"+b.ID.Container())
	})
	return r
}

func resultOf(batch *sample.Batch, err error) result {
	r := result{Node: batch.Node, Refused: batch.Refused}
	for _, sentinel := range []error{ErrNoSamples, ErrKubelet} {
		if errors.Is(err, sentinel) {
			r.Err = sentinel
		}
	}
	for _, c := range batch.Containers {
		r.Containers = append(r.Containers, namedSample{*c.ID, c.Sample})
	}
	return r
}

func parseText(body []byte) result {
	var p Parser
	var batch sample.Batch
	return resultOf(&batch, p.ParseText(body, received, new(Layout), &batch))
}

func parseProtobuf(body []byte) result {
	var p Parser
	var batch sample.Batch
	return resultOf(&batch, p.ParseProtobuf(body, received, new(Layout), &batch))
}

func diff(want, got any) string {
	return cmp.Diff(want, got, cmp.Comparer(errors.Is), cmp.AllowUnexported(sample.ContainerID{}))
}

// checkReference compares what this package reads out of body with what expfmt's text parser does,
// and the same families once more as protobuf. It reports whether the reference accepts body at all.
func checkReference(t *testing.T, body []byte) bool {
	t.Helper()
	families, ok := referenceFamilies(body)
	if !ok {
		return false
	}
	want := referenceResult(families)
	if d := diff(want, parseText(body).sorted()); d != "" {
		t.Errorf("text: reference (-) and parser (+) differ:\n%s\n%q", d, body)
	}
	if d := diff(want, parseProtobuf(encode(t, families)).sorted()); d != "" {
		t.Errorf("protobuf: reference (-) and parser (+) differ:\n%s\n%q", d, body)
	}
	return true
}

// referenceFamilies has expfmt parse body; false if it cannot or if the two need not agree:
//
//   - expfmt refuses the whole of an answer for one bad line, a second HELP or TYPE line, or a blank
//     at the end of a line. The parser here loses the bad line, and no line for the others.
//   - expfmt refuses CRLF and an unfinished last line. So it gets LF and a finished one.
//   - expfmt accepts names in quotes, which are text format 1.0.0 and never asked for, and names in
//     braces. Here such a line is malformed.
//   - expfmt reads a row of a summary or histogram as a part of one. The parser here ignores TYPE.
func referenceFamilies(body []byte) (map[string]*dto.MetricFamily, bool) {
	body = bytes.ReplaceAll(append(slices.Clone(body), '\n'), []byte("\r\n"), []byte("\n"))
	if hasQuotedName(body) {
		return nil, false
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return nil, false
	}
	for name, f := range families {
		plain := f.GetType() == dto.MetricType_COUNTER || f.GetType() == dto.MetricType_GAUGE || f.GetType() == dto.MetricType_UNTYPED
		if familyOf([]byte(name)).object != nothing && !plain {
			return nil, false
		}
	}
	return families, true
}

// decodedFamilies has expfmt decode body as delimited protobuf; false if it cannot or if the two need not agree:
//
//   - expfmt refuses the whole of an answer for one bad message. The parser here loses that message, or what follows if
//     nothing tells where the next one begins.
//   - expfmt makes room for as much as a length says, whether it comes or not.
//   - A family that comes twice, one of ours that is a summary or histogram, or a metric with two values is none that a
//     kubelet sends.
func decodedFamilies(body []byte) (map[string]*dto.MetricFamily, bool) {
	families := map[string]*dto.MetricFamily{}
	for len(body) > 0 {
		size, prefix := binary.Uvarint(body)
		if prefix <= 0 || size > uint64(len(body)-prefix) {
			return nil, false
		}
		message := body[:prefix+int(size)]
		body = body[len(message):]
		var f dto.MetricFamily
		err := expfmt.NewDecoder(bytes.NewReader(message), expfmt.FmtProtoDelim).Decode(&f)
		plain := f.GetType() == dto.MetricType_COUNTER || f.GetType() == dto.MetricType_GAUGE || f.GetType() == dto.MetricType_UNTYPED
		if err != nil || families[f.GetName()] != nil || !plain || slices.ContainsFunc(f.Metric, hasTwoValues) {
			return nil, false
		}
		families[f.GetName()] = &f
	}
	return families, true
}

func hasTwoValues(m *dto.Metric) bool {
	return m.Counter != nil && m.Gauge != nil || m.Counter != nil && m.Untyped != nil || m.Gauge != nil && m.Untyped != nil
}

// hasQuotedName says whether a line begins with a brace, or has a quote that does not open or close
// a label's value.
func hasQuotedName(body []byte) bool {
	for line := range bytes.Lines(body) {
		line = bytes.TrimLeft(line, " \t")
		if bytes.HasPrefix(line, []byte("{")) {
			return true
		}
		if bytes.HasPrefix(line, []byte("#")) {
			continue
		}
		before, quoted := byte(0), false
		for i := 0; i < len(line); i++ {
			switch c := line[i]; {
			case c == '\\' && quoted:
				i++
			case c == '"':
				if !quoted && before != '=' {
					return true
				}
				quoted = !quoted
				before = c
			case c != ' ' && c != '\t':
				before = c
			}
		}
	}
	return false
}

func encode(tb testing.TB, families map[string]*dto.MetricFamily) []byte {
	tb.Helper()
	var b bytes.Buffer
	encoder := expfmt.NewEncoder(&b, expfmt.FmtProtoDelim)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if err := encoder.Encode(families[name]); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Bytes()
}

// referenceResult is the package's contract once more, over maps and without haste.
func referenceResult(families map[string]*dto.MetricFamily) result {
	var r result
	containers := map[sample.ContainerID]*sample.Sample{}
	useful := false

	for _, family := range slices.Sorted(maps.Keys(families)) { // CPU before memory
		object, field, _ := strings.Cut(family, "_")
		fields := map[string]sample.Fields{"cpu_usage_seconds_total": sample.CPU, "memory_working_set_bytes": sample.Memory, "swap_usage_bytes": sample.Swap}
		if object == "container" {
			fields["start_time_seconds"] = sample.Start
		}
		given, known := fields[field]
		if family == "resource_scrape_error" {
			for _, m := range families[family].Metric {
				if v, ok := plainValue(m); !ok {
					r.Refused[sample.Malformed]++
				} else if v != 0 {
					r.Err = ErrKubelet
				}
			}
			continue
		}
		if !known || object != "container" && object != "node" {
			continue
		}
		for _, m := range families[family].Metric {
			v, ok := plainValue(m)
			if !ok {
				r.Refused[sample.Malformed]++
				continue
			}
			s := &r.Node
			if object == "container" {
				labels := map[string]string{}
				for _, l := range m.Label {
					labels[l.GetName()] = l.GetValue()
				}
				id := sample.NewContainerID(labels["namespace"], labels["pod"], labels["container"])
				if id.Namespace() == "" || id.Pod() == "" || id.Container() == "" {
					r.Refused[sample.Malformed]++
					continue
				}
				if containers[id] == nil {
					containers[id] = &sample.Sample{}
				}
				s = containers[id]
			}
			scale := map[sample.Fields]float64{sample.CPU: 1e9, sample.Start: 1e3}[given]
			if scale == 0 {
				scale = 1
			}
			at := sample.TimeOf(received)
			if m.TimestampMs != nil {
				at = sample.Time(*m.TimestampMs)
			}
			hour := sample.TimeOf(received.Add(time.Hour))
			scaled := math.Round(v * scale)
			var why sample.Reason
			switch {
			case math.IsNaN(v):
				why = sample.NotANumber
			case math.Abs(v) > math.MaxFloat64:
				why = sample.Infinite
			case v < 0:
				why = sample.Negative
			case scaled >= math.Exp2(63):
				why = sample.Overflow
			case at <= 0 || at > hour || given == sample.Start && sample.Time(scaled) > hour:
				why = sample.TimestampAhead
			case s.Given.Has(given):
				r.Refused[sample.Duplicate]++
				continue
			case given == sample.Start && scaled == 0:
				continue
			default:
				s.Given |= given
				switch given {
				case sample.CPU:
					s.CPU, s.Time, useful = uint64(scaled), at, true
				case sample.Memory:
					s.Memory, useful = uint64(scaled), true
					if s.Given&sample.CPU == 0 {
						s.Time = at
					}
				case sample.Swap:
					s.Swap = uint64(scaled)
				case sample.Start:
					s.Start = sample.Time(scaled)
				}
				continue
			}
			r.Refused[why]++
			if given == sample.CPU || given == sample.Memory {
				s.Given |= sample.Refused
			}
		}
	}
	if r.Err == nil && !useful {
		r.Err = ErrNoSamples
	}
	for id, s := range containers {
		r.Containers = append(r.Containers, namedSample{id, *s})
	}
	return r.sorted()
}

// plainValue returns m's value; false if it has none, or one of the labels that name a container twice.
func plainValue(m *dto.Metric) (float64, bool) {
	for _, name := range []string{"namespace", "pod", "container"} {
		first := slices.IndexFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == name })
		if first >= 0 && slices.ContainsFunc(m.Label[first+1:], func(l *dto.LabelPair) bool { return l.GetName() == name }) {
			return 0, false
		}
	}
	if m.Counter == nil && m.Gauge == nil && m.Untyped == nil {
		return 0, false
	}
	// There is no more than one of the three; the others are 0.
	return m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue(), true
}
