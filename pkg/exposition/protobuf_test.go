package exposition

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"metrics-server/pkg/sample"
)

func protobufCapture(tb testing.TB) []byte {
	tb.Helper()
	body, err := os.ReadFile("testdata/resource-protobuf.bin")
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

// messages cuts an answer into its messages, each with its length.
func messages(body []byte) [][]byte {
	var messages [][]byte
	for len(body) > 0 {
		size, prefix := binary.Uvarint(body)
		end := prefix + int(size)
		messages = append(messages, body[:end])
		body = body[end:]
	}
	return messages
}

// The protobuf capture was taken within a second of resource-1.txt: most samples are the same ones.
func TestProtobufCapture(t *testing.T) {
	got := parseProtobuf(protobufCapture(t))
	want := parseText(captures(t)["testdata/resource-1.txt"])
	same := 0
	for i, c := range want.Containers {
		if c.Time == got.Containers[i].Time {
			same++
		} else {
			want.Containers[i].Sample = got.Containers[i].Sample
		}
	}
	if d := diff(want, got); d != "" {
		t.Errorf("text (-) and protobuf (+) differ:\n%s", d)
	}
	if same != 4 {
		t.Errorf("%d of %d samples are the same, want 4", same, len(want.Containers))
	}
}

func TestProtobufReusesIDs(t *testing.T) {
	var p Parser
	var layout Layout
	var batch sample.Batch
	var before []*sample.ContainerID
	for range 2 {
		if err := p.ParseProtobuf(protobufCapture(t), received, &layout, &batch); err != nil {
			t.Fatal(err)
		}
		if got := ids(batch.Containers); before != nil && !slices.Equal(got, before) {
			t.Error("IDs are not the same pointers")
		}
		before = ids(batch.Containers)
	}
}

func TestProtobufMalformed(t *testing.T) {
	field := func(number byte, content string) string {
		return string([]byte{number<<3 | 2, byte(len(content))}) + content
	}
	message := func(content string) []byte { return append([]byte{byte(len(content))}, content...) }
	name := field(1, nodeSwap)
	const gaugeType, summaryType, gaugeOfOne = "\x18\x01", "\x18\x02", "\x09\x00\x00\x00\x00\x00\x00\xf0\x3f"

	label := func(name, value string) string { return field(1, field(1, name)+field(2, value)) }
	rows := field(4, label("pod", "p")+label("pod", "q")+field(2, gaugeOfOne))
	bad := map[string][]byte{
		"not a message":             message("\xff\xff"),
		"a message that breaks off": message(name + "\x22\x7f"),
		"no name":                   message(gaugeType + field(4, field(2, gaugeOfOne))),
		"a name that breaks off":    message("\x0a\x7f"),
		"a name that is none":       message(gaugeType + field(1, "a b")),
		"a label that is not UTF-8": message(name + gaugeType + field(4, label("x", "\xff")+field(2, gaugeOfOne))),
		"a label given twice":       message(name + gaugeType + rows),
		"a summary":                 message(name + summaryType + field(4, field(4, "\x08\x01"))),
		"no value":                  message(name + gaugeType + field(4, "")),
	}
	good := messages(protobufCapture(t))
	want := parseProtobuf(slices.Concat(good...))
	want.Refused[sample.Malformed]++
	for what, bad := range bad {
		for at := range len(good) + 1 {
			body := slices.Concat(slices.Concat(good[:at]...), bad, slices.Concat(good[at:]...))
			if d := diff(want, parseProtobuf(body)); d != "" {
				t.Errorf("%s at %d: want (-), got (+):\n%s", what, at, d)
				break
			}
		}
	}

	// A family of no interest may be what it likes, and is not even decoded if its name comes first.
	want.Refused[sample.Malformed]--
	for _, other := range []string{field(1, "pod_x") + "\xff", summaryType + field(4, field(4, "\x08\x01")) + field(1, "pod_x")} {
		if d := diff(want, parseProtobuf(slices.Concat(slices.Concat(good...), message(other)))); d != "" {
			t.Errorf("a family of no interest: want (-), got (+):\n%s", d)
		}
	}
}

// TestProtobufCutOff cuts an answer off at every byte: what came before is kept.
func TestProtobufCutOff(t *testing.T) {
	body := protobufCapture(t)
	whole := 0 // the messages up to here are whole
	for _, m := range messages(body) {
		want := parseProtobuf(body[:whole])
		want.Refused[sample.Malformed]++
		for n := whole + 1; n < whole+len(m); n++ {
			if d := diff(want, parseProtobuf(body[:n])); d != "" {
				t.Fatalf("%d of %d bytes: want (-), got (+):\n%s", n, len(body), d)
			}
		}
		whole += len(m)
	}
	if d := diff(result{Err: ErrNoSamples, Refused: refused(sample.Malformed, 1)}, parseProtobuf(bytes.Repeat([]byte{0xff}, 20))); d != "" {
		t.Errorf("a length that is none: want (-), got (+):\n%s", d)
	}
	if d := diff(result{Err: ErrNoSamples, Refused: refused(sample.Malformed, 1)}, parseProtobuf([]byte(strings.Repeat("\xff", 9)+"\x01x"))); d != "" {
		t.Errorf("a length beyond everything: want (-), got (+):\n%s", d)
	}
}
