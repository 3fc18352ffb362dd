package exposition

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"metrics-server/pkg/sample"
)

// FuzzParseText wants of every body: no panic; the same result from a layout that knows the
// containers as from one that does not, with the same pointers; what the reference says, where
// it says anything; and with the line bad put in before line number at, if it is bad by itself, that
// nothing else is lost.
func FuzzParseText(f *testing.F) {
	seed := func(body []byte) {
		for i := 0; i < len(malformed); i += 7 {
			f.Add(body, []byte(malformed[i]), uint16(i))
		}
	}
	for _, body := range captures(f) {
		f.Add(body, []byte(nodeCPU+" NaN"), uint16(20))
	}
	seed([]byte("# TYPE " + cpuFamily + " counter\n" + cpuFamily + labelsOfC + " 1.5 1795310601000\n" + memoryFamily +
		labelsOfC + " 2e3\n\n" +
		startFamily + `{pod="p", namespace="n" ,container="c",x="a\\\"\n"} 1.79e9` + "\n" + nodeCPU +
		"{} +Inf 1\r\nresource_scrape_error 0"))
	seed(payload(names(2, 2), 0))

	f.Fuzz(func(t *testing.T, body, bad []byte, at uint16) {
		var p Parser
		var layout Layout
		var batch sample.Batch
		if len(body) > 0 && body[len(body)-1] != '\n' {
			err := p.ParseText(body, received, &layout, &batch)
			if !errors.Is(err, ErrTruncated) || len(batch.Containers) > 0 {
				t.Fatalf("%q: error %v, containers %d", body, err, len(batch.Containers))
			}
			body = append(body, '\n')
		}
		want := resultOf(&batch, p.ParseText(body, received, &layout, &batch))
		first := ids(batch.Containers)
		if d := diff(want, resultOf(&batch, p.ParseText(body, received, &layout, &batch))); d != "" {
			t.Errorf("first (-) and second parse (+) differ:\n%s\n%q", d, body)
		}
		if want.Err == nil && !slices.Equal(first, ids(batch.Containers)) {
			t.Errorf("the second parse gives other IDs\n%q", body)
		}

		checkReference(t, body)

		if bytes.IndexByte(bad, '\n') >= 0 {
			return
		}
		alone := parseText(bad)
		if len(alone.Containers) > 0 || alone.Refused.Total() != 1 {
			return
		}
		for why, n := range alone.Refused {
			want.Refused[why] += n
		}
		want.Node.Given |= alone.Node.Given & sample.Refused // one was present but refused
		want.Node.Why = max(want.Node.Why, alone.Node.Why)
		lines := bytes.SplitAfter(body, []byte("\n"))
		with := insert(lines, int(at)%(len(lines)+1), bad)
		got := parseText(with)
		for _, r := range []result{want, got} {
			for i := range r.Containers { // the line may have been theirs: see TestRowsWithUnreadableLabels
				r.Containers[i].Given &^= sample.Refused
				r.Containers[i].Why = 0
			}
		}
		if d := diff(want, got); d != "" {
			t.Errorf("line %q costs more than itself: want (-), got (+):\n%s\n%q", bad, d, with)
		}
	})
}
