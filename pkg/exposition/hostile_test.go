package exposition

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// TestTruncated cuts an answer off at every byte. Nothing of it is used unless it ends with a
// newline, because a part of a number is a number, too.
func TestTruncated(t *testing.T) {
	body := payload(names(2, 2), 0)
	var p Parser
	var batch sample.Batch
	for n := 1; n < len(body); n++ {
		var layout Layout
		err := p.ParseText(body[:n], received, &layout, &batch)
		if ends := body[n-1] == '\n'; ends == errors.Is(err, ErrTruncated) {
			t.Fatalf("%q at the end: error %v", body[max(0, n-30):n], err)
		}
		if errors.Is(err, ErrTruncated) && (len(batch.Containers) > 0 || batch.Node.Given != 0 || len(layout.ids) > 0) {
			t.Fatalf("%q at the end: something is used", body[max(0, n-30):n])
		}
	}
	for _, end := range []string{"\r", " ", "# EOF", nodeCPU + " 1\r"} {
		err := p.ParseText(append(slices.Clone(body), end...), received, new(Layout), &batch)
		if !errors.Is(err, ErrTruncated) {
			t.Errorf("%q at the end: error %v", end, err)
		}
	}
}

// A row with unreadable labels may belong to any container, so a container without this row is not
// known to have ended or to be idle.
func TestRowsWithUnreadableLabels(t *testing.T) {
	const all = sample.CPU | sample.Memory
	tests := []struct {
		name string
		body string
		want sample.Fields // of container c
	}{
		{
			"CPU", cpuFamily + `{container="c",namespace="n",pod="p" 5` + "\n" + memoryFamily + labelsOfC + " 7",
			sample.Memory | sample.Refused,
		},
		{
			"memory", memoryFamily + `{container="c",namespace="n,pod="p"} 5` + "\n" + cpuFamily + labelsOfC + " 7",
			sample.CPU | sample.Refused,
		},
		{
			"CPU, after the others", memoryFamily + labelsOfC + " 7\n" + cpuFamily + `{container="c" namespace="n",pod="p"} 5`,
			sample.Memory | sample.Refused,
		},
		{"CPU of another", cpuFamily + "{x 5\n" + cpuFamily + labelsOfC + " 5\n" + memoryFamily + labelsOfC + " 7", all},
		{
			"memory, but the CPU is there and the memory is not", memoryFamily + "{x 5\n" + memoryFamily + labelsOfC + " 7",
			sample.Memory,
		},
		{"CPU, of one that uses no memory", cpuFamily + "{x 5\n" + memoryFamily + labelsOfC + " 0", sample.Memory},
		{"start", startFamily + "{x 5\n" + memoryFamily + labelsOfC + " 7", sample.Memory},
		{
			"readable labels that name no container", cpuFamily + `{id="/"} 5` + "\n" + memoryFamily + labelsOfC + " 7",
			sample.Memory,
		},
	}
	for _, tt := range tests {
		got := parseText([]byte(tt.body))
		if len(got.Containers) != 1 || got.Containers[0].Given != tt.want {
			t.Errorf("%s: got %+v, want one container with %b", tt.name, got.Containers, tt.want)
		}
		if got.Refused != refused(sample.Malformed, 1) {
			t.Errorf("%s: refused %v", tt.name, &got.Refused)
		}
	}
}

// The rows of start times are as old as the container in kubelets before 1.29.
func TestStartWithItsOwnTimestamp(t *testing.T) {
	got := parseText([]byte(cpuFamily + labelsOfC + " 1\n" + startFamily + labelsOfC + " 1.6e9 1600000000000\n"))
	if got.Refused.Total() != 0 || len(got.Containers) != 1 || got.Containers[0].Start != 1_600_000_000_000 {
		t.Errorf("got %+v, want one container with its start time", got)
	}
}

// TestExcess lists more containers than are accepted: only whole pods are accepted, and what is
// remembered is bounded however often the list changes.
func TestExcess(t *testing.T) {
	row := func(family, namespace, pod, container string) string {
		return fmt.Sprintf("%s{container=%q,namespace=%q,pod=%q} 1\n", family, container, namespace, pod)
	}
	tests := []struct {
		name     string
		pad      string // makes the names longer
		expected int    // containers that fit
	}{
		{"many", "", sample.MaxContainers},
		{"long names", strings.Repeat("x", 240), maxNameBytes / (3 * 250)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p Parser
			var layout Layout
			var batch sample.Batch
			for turn := range 3 {
				var body bytes.Buffer
				// Two containers each, the second ones after all of the first ones.
				pods := tt.expected - 100
				for _, family := range []string{cpuFamily, memoryFamily} {
					for _, container := range []string{"a", "b"} {
						for i := range pods {
							body.WriteString(row(family, fmt.Sprintf("%s%010d", tt.pad, turn), fmt.Sprintf("%s%010d", tt.pad, i),
								tt.pad+container))
						}
					}
				}
				if err := p.ParseText(body.Bytes(), received, &layout, &batch); err != nil {
					t.Fatal(err)
				}
				seen := map[string]int{}
				for _, c := range batch.Containers {
					seen[c.ID.Pod()]++
					if c.Given != sample.CPU|sample.Memory {
						t.Fatalf("%v has %b", *c.ID, c.Given)
					}
				}
				for pod, n := range seen {
					if n != 2 {
						t.Fatalf("%d containers of pod %s were taken", n, pod)
					}
				}
				if len(seen) < 50 {
					t.Errorf("only %d pods were taken", len(seen))
				}
				// Each row that is left out, and each container that was taken before its pod turned out to be partial.
				left := 2 * (pods - len(seen))
				if got := batch.Refused[sample.Excess]; got < left || got > 2*left || batch.Refused.Total() != got {
					t.Errorf("refused %v of %d containers", &batch.Refused, left)
				}
				size := 0
				for _, id := range layout.ids {
					size += id.Len()
				}
				if len(layout.ids) > sample.MaxContainers || cap(layout.ids) > 3*sample.MaxContainers || size > maxNameBytes {
					t.Errorf("turn %d: the layout remembers %d containers, %d bytes of names, room for %d", turn, len(layout.ids),
						size, cap(layout.ids))
				}
			}
		})
	}

	// A single name that is too long does not exclude other containers.
	body := row(cpuFamily, "n", strings.Repeat("x", 2*maxNameBytes), "c") + string(payload(names(2, 2), 0))
	if got := parseText([]byte(body)); len(got.Containers) != 4 || got.Refused != refused(sample.Malformed, 1) {
		t.Errorf("next to a name that is too long: %d containers, refused %v", len(got.Containers), &got.Refused)
	}
}

// TestCostIsBounded checks the promise of the package: whatever an answer contains, it costs a few
// times its own size while it is parsed, and far less afterwards.
func TestCostIsBounded(t *testing.T) {
	const (
		size     = 4 << 20
		perByte  = 6       // bytes allocated for each byte of an answer
		retained = 4 << 20 // bytes, by a parser, a layout and a batch together, after any number of answers
	)
	repeat := func(line string) func() []byte {
		return func() []byte { return bytes.Repeat([]byte(line), size/len(line)) }
	}
	numbered := func(format string) func() []byte {
		return func() []byte {
			var b bytes.Buffer
			for i := 0; b.Len() < size; i++ {
				fmt.Fprintf(&b, format, i)
			}
			return b.Bytes()
		}
	}
	long := strings.Repeat("x", 244)
	for name, body := range map[string]func() []byte{
		"new containers": numbered(swapFamily + `{pod="%x",namespace="n",container="c"}0` + "\n"),
		"long names": numbered(swapFamily + `{pod="%08x` + long + `",namespace="` + long + `",container="` + long +
			`"}0` + "\n"),
		"zeros of new containers, and rows of their pods": numbered(cpuFamily + `{pod="%x",namespace="n",container="c"}0` +
			"\n" +
			`pod_cpu_usage_seconds_total{pod="%[1]x",namespace="n"}9` + "\n"),
		"a zero, and rows of pods that cannot be read": func() []byte {
			row := `pod_cpu_usage_seconds_total{pod="\"",namespace="n"}x` + "\n"
			return append([]byte(cpuFamily+labelsOfC+" 0\n"), bytes.Repeat([]byte(row), size/len(row))...)
		},
		"escapes": repeat(swapFamily + `{pod="\"",namespace="\\",container="\n"}1` + "\n"),
		"one long label": func() []byte {
			return []byte(swapFamily + `{x="` + strings.Repeat(`\n`, size/2) + "\"} 1\n")
		},
		"many labels": func() []byte {
			return []byte(swapFamily + "{" + strings.Repeat(`a="",`, size/5) + "} 1\n")
		},
		"slow numbers": repeat(nodeCPU + " 0." + strings.Repeat("0", 60) + strings.Repeat("123456789", 6) + "e-300\n"),
		"one long number": func() []byte {
			return []byte(nodeCPU + " 1." + strings.Repeat("7", size) + "\n")
		},
		"no numbers":    repeat(nodeSwap + " x\n" + nodeCPU + " x\n"),
		"no timestamps": repeat(nodeSwap + " 1 x\n" + nodeCPU + " 1 x\n"),
		"short lines":   repeat("a\n"),
		"empty lines":   repeat("\n"),
		"one line":      func() []byte { return append(bytes.Repeat([]byte("a"), size), '\n') },
		"garbage":       repeat("\x00\xff{\"\\"),
	} {
		t.Run(name, func(t *testing.T) {
			body := append(body(), '\n')
			var p Parser
			var layout Layout
			var batch sample.Batch
			before := sharedtest.Heap()
			for range 2 { // what is known and what is not
				var a, b runtime.MemStats
				runtime.ReadMemStats(&a)
				_ = p.ParseText(body, received, &layout, &batch)
				runtime.ReadMemStats(&b)
				if got := b.TotalAlloc - a.TotalAlloc; got > perByte*uint64(len(body)) {
					t.Errorf("%d bytes allocated for an answer of %d", got, len(body))
				}
			}
			if got := sharedtest.Heap() - before; got > retained {
				t.Errorf("%d bytes are retained", got)
			}
			runtime.KeepAlive(body)
			runtime.KeepAlive(&p)
			runtime.KeepAlive(&layout)
			runtime.KeepAlive(&batch)
		})
	}
}
