package exposition

import (
	"bytes"
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

// result is the result of a parse, in a form that can be compared. Containers are in the answer's
// order.
type result struct {
	Err        error // nil or one of the package
	Node       sample.Sample
	Containers []namedSample
	Refused    sample.Refusals
}

type namedSample struct {
	ID sample.ContainerID
	sample.Sample
}

// sorted returns r with the containers in the order of their names.
func (r result) sorted() result {
	r.Containers = slices.Clone(r.Containers)
	slices.SortFunc(r.Containers, func(a, b namedSample) int {
		return strings.Compare(a.ID.Namespace()+"\x00"+a.ID.Pod()+"\x00"+a.ID.Container(),
			b.ID.Namespace()+"\x00"+b.ID.Pod()+"\x00"+b.ID.Container())
	})
	return r
}

func resultOf(batch *sample.Batch, err error) result {
	r := result{Node: batch.Node, Refused: batch.Refused}
	for _, sentinel := range []error{ErrNoSamples, ErrKubelet, ErrTruncated} {
		if errors.Is(err, sentinel) {
			r.Err = sentinel
		}
	}
	for _, c := range batch.Containers {
		r.Containers = append(r.Containers, namedSample{*c.ID, c.Sample})
	}
	return r
}

// parseText parses body. It adds a missing line feed at the end, so that tests can be short.
func parseText(body []byte) result {
	if n := len(body); n > 0 && body[n-1] != '\n' {
		body = append(slices.Clone(body), '\n')
	}
	var p Parser
	var batch sample.Batch
	return resultOf(&batch, p.ParseText(body, received, new(Layout), &batch))
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
		t.Errorf("reference (-) and parser (+) differ:\n%s\n%q", d, body)
	}
	return true
}

// referenceFamilies has expfmt parse body; false if it cannot or if the two need not agree:
//
//   - expfmt refuses the whole of an answer for one bad line, a second HELP or TYPE line, or a blank
//     at the end of a line. The parser here loses the bad line, and no line for the others.
//   - expfmt refuses CRLF. So it gets LF.
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
		plain := f.GetType() == dto.MetricType_COUNTER || f.GetType() == dto.MetricType_GAUGE ||
			f.GetType() == dto.MetricType_UNTYPED
		if readFamilies[name].object != nothing && !plain {
			return nil, false
		}
	}
	return families, true
}

// hasQuotedName reports whether a line begins with a brace, or has a quote that does not open or
// close a label's value.
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

// referenceResult implements the package's contract a second time, with maps and without
// optimisation.
func referenceResult(families map[string]*dto.MetricFamily) result {
	var r result
	containers := map[sample.ContainerID]*sample.Sample{}
	pods := map[string]*sample.Sample{}
	useful := false

	for _, family := range slices.Sorted(maps.Keys(families)) { // CPU before memory
		object, field, _ := strings.Cut(family, "_")
		fields := map[string]sample.Fields{
			"cpu_usage_seconds_total": sample.CPU, "memory_working_set_bytes": sample.Memory,
			"swap_usage_bytes": sample.Swap,
		}
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
		if !known || object != "container" && object != "node" && (object != "pod" || given == sample.Swap) {
			continue
		}
		for _, m := range families[family].Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			v, ok := plainValue(m)
			refuse := func(why sample.Reason) { r.Refused[why]++ }
			if object == "pod" { // only referenceZeros uses it
				refuse = func(sample.Reason) {}
			}
			if !ok {
				refuse(sample.Malformed)
				continue
			}
			s := &r.Node
			switch object {
			case "pod":
				name := labels["namespace"] + "/" + labels["pod"]
				if pods[name] == nil {
					pods[name] = &sample.Sample{}
				}
				s = pods[name]
			case "container":
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
			past, hour := sample.TimeOf(received.Add(-time.Hour)), sample.TimeOf(received.Add(time.Hour))
			scaled := math.Round(v * scale)
			var why sample.Reason
			if given == sample.Start {
				year2000 := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
				if !(v >= float64(year2000.Unix()) && scaled <= float64(hour)) {
					continue // it is not known
				}
				v, at = max(v, 0), past
			}
			switch {
			case math.IsNaN(v):
				why = sample.NotANumber
			case math.Abs(v) > math.MaxFloat64:
				why = sample.Infinite
			case v < 0:
				why = sample.Negative
			case at < past:
				why = sample.TimestampBehind
			case at > hour:
				why = sample.TimestampAhead
			case scaled >= math.Exp2(63):
				why = sample.Overflow
			case s.Given.Has(given):
				refuse(sample.Duplicate)
				continue
			default:
				s.Given |= given
				switch given {
				case sample.CPU:
					s.CPU, s.Time, useful = uint64(scaled), at, useful || object != "pod"
				case sample.Memory:
					s.Memory, useful = uint64(scaled), useful || object != "pod"
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
			refuse(why)
			if given == sample.CPU || given == sample.Memory {
				s.Given |= sample.Refused
				s.Why = max(s.Why, why)
			}
		}
	}
	if r.Err == nil && !useful {
		r.Err = ErrNoSamples
	}
	if r.Err == nil {
		for _, c := range containers {
			n := &r.Node
			noCPU := n.Given.Has(sample.CPU) && n.CPU == 0 && c.CPU > 0
			if noCPU || n.Given.Has(sample.Memory) && n.Memory == 0 && c.Memory > 0 {
				n.Given, n.Why = n.Given&^(sample.CPU|sample.Memory)|sample.Refused, sample.Contradicted
				r.Refused[sample.Contradicted] = 1
			}
		}
		r.Refused[sample.Contradicted] += referenceZeros(containers, pods)
	}
	for id, s := range containers {
		r.Containers = append(r.Containers, namedSample{id, *s})
	}
	return r.sorted()
}

// referenceZeros refuses the zeros that the first answer of a node disproves, and returns their
// number.
func referenceZeros(containers map[sample.ContainerID]*sample.Sample, pods map[string]*sample.Sample) (refused int) {
	type sum struct {
		cpu, memory float64
		unknown     bool
	}
	sums := map[string]sum{}
	for id, s := range containers {
		name := id.Namespace() + "/" + id.Pod()
		of := sums[name]
		of.cpu += float64(s.CPU)
		of.memory += float64(s.Memory)
		of.unknown = of.unknown || s.Given&(sample.CPU|sample.Refused) == sample.Refused
		sums[name] = of
	}
	for id, s := range containers {
		name := id.Namespace() + "/" + id.Pod()
		pod, others := pods[name], sums[name]
		if age := s.Time - s.Start; pod == nil || s.Given.Has(sample.Start) && age >= 0 && age < 5000 {
			continue
		}
		var untrue sample.Fields
		switch {
		case s.CPU > 0 && s.Memory == 0 && s.Given.Has(sample.Memory): // it runs without memory
			if more := float64(pod.Memory) - others.memory; more > 4<<20 && more > float64(pod.Memory/8) {
				untrue = sample.Memory
			}
		// it never ran
		case s.CPU == 0 && s.Memory > 0 && s.Given.Has(sample.CPU) && pod.Given.Has(sample.CPU) && !others.unknown:
			if float64(pod.CPU)-others.cpu > float64(pod.CPU/8) {
				untrue = sample.CPU | sample.Memory
			}
		}
		if untrue != 0 {
			s.Given = s.Given&^untrue | sample.Refused
			s.Why = sample.Contradicted
			refused++
		}
	}
	return refused
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
