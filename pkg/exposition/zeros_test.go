package exposition

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"metrics-server/pkg/sample"
)

// metric is a row of a container or pod of the pod n/p, sampled that many seconds after the first
// answer. Without a timestamp: no sample says when.
type metric struct {
	value float64
	after float64
}

// podRows are the rows of one answer about the pod. A nil row is missing.
type podRows struct {
	cpu, memory       [2]*metric // of the containers a and b
	podCPU, podMemory *metric
	start             [2]*metric // when a and b started, in seconds after the first answer
}

func v(value float64, after ...float64) *metric { return &metric{value, append(after, 0)[0]} }

func (x podRows) body() string {
	now := received.UnixMilli() - 60_000
	var b strings.Builder
	row := func(family, labels string, m *metric) {
		if m != nil {
			fmt.Fprintf(&b, "%s{%snamespace=\"n\",pod=\"p\"} %v %d\n", family, labels, m.value, now+int64(m.after*1000))
		}
	}
	for i, name := range []string{"a", "b"} {
		row(cpuFamily, fmt.Sprintf("container=%q,", name), x.cpu[i])
	}
	for i, name := range []string{"a", "b"} {
		row(memoryFamily, fmt.Sprintf("container=%q,", name), x.memory[i])
	}
	for i, name := range []string{"a", "b"} {
		if m := x.start[i]; m != nil {
			fmt.Fprintf(&b, "%s{container=%q,namespace=\"n\",pod=\"p\"} %f\n", startFamily, name, float64(now)/1000+m.value)
		}
	}
	row("pod_cpu_usage_seconds_total", "", x.podCPU)
	row("pod_memory_working_set_bytes", "", x.podMemory)
	return b.String()
}

// Zeros are refused if the pod's own rows show that they are not true, and only then.
func TestRule10FalseZeros(t *testing.T) {
	const mib = 1 << 20
	type rows = [2]*metric
	for name, c := range map[string]struct {
		answers []podRows
		refused []string // the containers with refused parts, after each answer
	}{
		"memory of the only container": {
			[]podRows{{cpu: rows{v(5)}, memory: rows{v(0)}, podMemory: v(200 * mib)}}, []string{"a"},
		},
		"memory of all containers": {
			[]podRows{{cpu: rows{v(5), v(5)}, memory: rows{v(0), v(0)}, podMemory: v(200 * mib)}}, []string{"ab"},
		},
		"memory of one of two": {
			[]podRows{{cpu: rows{v(5), v(5)}, memory: rows{v(0), v(50 * mib)}, podMemory: v(200 * mib)}}, []string{"a"},
		},
		"a true zero: the other has it all": {
			[]podRows{{cpu: rows{v(5), v(5)}, memory: rows{v(0), v(50 * mib)}, podMemory: v(50 * mib)}}, []string{""},
		},
		"a true zero: nearly all, samples are not of one moment": {
			[]podRows{{cpu: rows{v(5), v(5)}, memory: rows{v(0), v(50 * mib)}, podMemory: v(57 * mib)}}, []string{""},
		},
		"a true zero: the rest is the pause container": {
			[]podRows{{cpu: rows{v(5)}, memory: rows{v(0)}, podMemory: v(1 * mib)}}, []string{""},
		},
		"a true zero: the rest is the kernel's, on a node with many CPUs": {
			[]podRows{{cpu: rows{v(5)}, memory: rows{v(0)}, podMemory: v(4 * mib)}}, []string{""},
		},
		"memory of 5 MiB": {
			[]podRows{{cpu: rows{v(5)}, memory: rows{v(0)}, podMemory: v(5 * mib)}}, []string{"a"},
		},
		"a true zero: so says the pod": {
			[]podRows{{cpu: rows{v(5)}, memory: rows{v(0)}, podMemory: v(0)}}, []string{""},
		},
		"the pod has no row": {
			[]podRows{{cpu: rows{v(5)}, memory: rows{v(0)}}}, []string{""},
		},
		"the pod has a bad row": {
			[]podRows{{cpu: rows{v(5)}, memory: rows{v(0)}, podMemory: v(-1)}}, []string{""},
		},
		"CPU of a container that works": {
			[]podRows{
				{cpu: rows{v(0)}, memory: rows{v(mib)}, podCPU: v(700)},
				{cpu: rows{v(0, 10)}, memory: rows{v(mib, 10)}, podCPU: v(704, 10)},
				{cpu: rows{v(0, 10)}, memory: rows{v(mib, 10)}, podCPU: v(704, 10)}, // the same again
				{cpu: rows{v(0, 20)}, memory: rows{v(mib, 20)}, podCPU: v(708, 20)},
			}, []string{"a", "a", "a", "a"},
		},
		"CPU that was used before, by a container that has gone": {
			[]podRows{
				{cpu: rows{v(0)}, memory: rows{v(mib)}, podCPU: v(700)},
				{cpu: rows{v(0, 10)}, memory: rows{v(mib, 10)}, podCPU: v(700, 10)},
				{cpu: rows{v(0, 20)}, memory: rows{v(mib, 20)}, podCPU: v(700, 20)},
			}, []string{"a", "", ""},
		},
		"a container that has just started": {
			[]podRows{
				{cpu: rows{v(0)}, memory: rows{v(mib)}, podCPU: v(0)},
				{cpu: rows{v(0, 10)}, memory: rows{v(mib, 10)}, podCPU: v(0.005, 10)}, // the pause container
			}, []string{"", ""},
		},
		"an idle one whose sibling works": {
			[]podRows{
				{cpu: rows{v(0), v(50)}, memory: rows{v(mib), v(mib)}, podCPU: v(50)},
				{cpu: rows{v(0, 10), v(60, 10)}, memory: rows{v(mib), v(mib)}, podCPU: v(60.5, 10)},
			}, []string{"", ""},
		},
		"one that works while its sibling works": {
			[]podRows{
				{cpu: rows{v(0), v(50)}, memory: rows{v(mib), v(mib)}, podCPU: v(50)},
				{cpu: rows{v(0, 10), v(60, 10)}, memory: rows{v(mib), v(mib)}, podCPU: v(65, 10)},
			}, []string{"", "a"},
		},
		"a sibling that was sampled long before the pod, and then worked": {
			[]podRows{
				{cpu: rows{v(0), v(50)}, memory: rows{v(mib), v(mib)}, podCPU: v(50)},
				{cpu: rows{v(0, 10), v(50, 2)}, memory: rows{v(mib), v(mib)}, podCPU: v(58, 10)},
				{cpu: rows{v(0, 20), v(68, 20)}, memory: rows{v(mib), v(mib)}, podCPU: v(68, 20)},
			}, []string{"", "", ""},
		},
		"a sibling whose CPU is refused says nothing": {
			[]podRows{
				{cpu: rows{v(0), v(50)}, memory: rows{v(mib), v(mib)}, podCPU: v(50)},
				{cpu: rows{v(0, 10), v(-1, 10)}, memory: rows{v(mib), v(mib)}, podCPU: v(65, 10)},
			}, []string{"", "b"},
		},
		"a finished init container": {
			[]podRows{
				{cpu: rows{nil, v(50)}, memory: rows{v(0), v(mib)}, podCPU: v(60), podMemory: v(mib)},
				{cpu: rows{nil, v(51, 10)}, memory: rows{v(0), v(mib, 10)}, podCPU: v(61, 10), podMemory: v(mib, 10)},
			}, []string{"", ""},
		},
		"a finished init container whose files the pod still has in memory": {
			[]podRows{
				{cpu: rows{v(0), v(50)}, memory: rows{v(0), v(mib)}, podCPU: v(60), podMemory: v(400 * mib)},
				{cpu: rows{v(0), v(51, 10)}, memory: rows{v(0), v(mib, 10)}, podCPU: v(61, 10), podMemory: v(400*mib, 10)},
			}, []string{"", ""},
		},
		"one that seems to have ended, but works": {
			[]podRows{
				{cpu: rows{v(0), v(50)}, memory: rows{v(0), v(mib)}, podCPU: v(60), podMemory: v(400 * mib)},
				{cpu: rows{v(0), v(51, 10)}, memory: rows{v(0), v(mib, 10)}, podCPU: v(65, 10), podMemory: v(400*mib, 10)},
				{cpu: rows{nil, v(52, 20)}, memory: rows{v(0), v(mib, 20)}, podCPU: v(70, 20), podMemory: v(400*mib, 20)},
				{cpu: rows{v(0, 30), v(53, 30)}, memory: rows{nil, v(mib, 30)}, podCPU: v(71, 30), podMemory: v(400*mib, 30)},
			}, []string{"", "a", "a", ""},
		},
		"just started, and the pod has not been sampled since": {
			[]podRows{
				{cpu: rows{v(0)}, memory: rows{v(mib)}, start: rows{v(-1)}, podCPU: v(12, -5)}, // of an init container
				{cpu: rows{v(1, 10)}, memory: rows{v(mib)}, start: rows{v(-1)}, podCPU: v(13, 10)},
			}, []string{"", ""},
		},
		"just started: the row of the pod is newer than that of the container": {
			[]podRows{
				{cpu: rows{v(0)}, memory: rows{v(0)}, start: rows{v(-1)}, podCPU: v(0), podMemory: v(0)},
				{cpu: rows{v(0)}, memory: rows{v(0)}, start: rows{v(-1)}, podCPU: v(9, 10), podMemory: v(90*mib, 10)},
				{cpu: rows{v(10, 12)}, memory: rows{v(90 * mib)}, start: rows{v(-1)}, podCPU: v(9, 10)},
			}, []string{"", "", ""},
		},
		"just started, without memory yet": {
			[]podRows{
				{cpu: rows{v(0.1)}, memory: rows{v(0)}, start: rows{v(-1)}, podCPU: v(9, 10), podMemory: v(90*mib, 10)},
			}, []string{""},
		},
		"not just started": {
			[]podRows{
				{cpu: rows{v(0.1)}, memory: rows{v(0)}, start: rows{v(-6)}, podCPU: v(9, 10), podMemory: v(90*mib, 10)},
			}, []string{"a"},
		},
		"just started, by a start after the sample": {
			[]podRows{
				{cpu: rows{v(0.1)}, memory: rows{v(0)}, start: rows{v(6)}, podCPU: v(9, 10), podMemory: v(90*mib, 10)},
			}, []string{"a"},
		},
		"one that has ended, whose last work the pod shows later": {
			[]podRows{
				{cpu: rows{v(50)}, memory: rows{v(mib)}, podCPU: v(51)},
				{cpu: rows{v(0, 18)}, memory: rows{v(0)}, podCPU: v(51, 10)},
				{cpu: rows{v(0, 28)}, memory: rows{v(0)}, podCPU: v(58, 20)},
				{cpu: rows{v(0, 38)}, memory: rows{v(0)}, podCPU: v(58, 30)},
			}, []string{"", "", "", ""},
		},
		"one that has ended, whose sibling is restarted": {
			[]podRows{
				{cpu: rows{v(0), v(50)}, memory: rows{v(0), v(mib)}, start: rows{nil, v(-90)}, podCPU: v(60)},
				{cpu: rows{v(0, 10), v(1, 10)}, memory: rows{v(0), v(mib)}, start: rows{nil, v(8)}, podCPU: v(66, 10)},
				{cpu: rows{v(0, 20), v(2, 20)}, memory: rows{v(0), v(mib)}, start: rows{nil, v(8)}, podCPU: v(67, 20)},
			}, []string{"", "", ""},
		},
		"one that has ended, whose sibling is restarted and used more than before": {
			[]podRows{
				{cpu: rows{v(0), v(1)}, memory: rows{v(0), v(mib)}, start: rows{nil, v(-90)}, podCPU: v(60)},
				{cpu: rows{v(0, 10), v(2, 10)}, memory: rows{v(0), v(mib)}, start: rows{nil, v(8)}, podCPU: v(66, 10)},
			}, []string{"", ""},
		},
		"one that has ended, whose sibling vanishes": {
			[]podRows{
				{cpu: rows{v(0), v(50)}, memory: rows{v(0), v(mib)}, podCPU: v(60)},
				{cpu: rows{v(0, 10)}, memory: rows{v(0)}, podCPU: v(63, 10)},
				{cpu: rows{v(0, 20)}, memory: rows{v(0)}, podCPU: v(63, 20)},
			}, []string{"", "", ""},
		},
		"one that has ended, whose sibling ends as soon as it has started": {
			[]podRows{
				{cpu: rows{v(0), v(0)}, memory: rows{v(0), v(0)}, start: rows{v(-90), v(-1)}, podCPU: v(60, -5)},
				{cpu: rows{v(0, 12), v(0, 12)}, memory: rows{v(0), v(0)}, start: rows{v(-90), v(-1)}, podCPU: v(62, 3)},
				{cpu: rows{v(0, 24), v(0, 24)}, memory: rows{v(0), v(0)}, start: rows{v(-90), v(-1)}, podCPU: v(69, 14)},
				{cpu: rows{v(0, 36), v(0, 36)}, memory: rows{v(0), v(0)}, start: rows{v(-90), v(-1)}, podCPU: v(69, 26)},
			}, []string{"", "", "", ""},
		},
		"one that has ended, whose sibling ran again between two answers": {
			[]podRows{
				{cpu: rows{v(0), v(0)}, memory: rows{v(0), v(0)}, start: rows{v(-90), v(-60)}, podCPU: v(60)},
				{cpu: rows{v(0, 12), v(0, 12)}, memory: rows{v(0), v(0)}, start: rows{v(-90), v(3)}, podCPU: v(66, 10)},
				{cpu: rows{v(0, 24), v(0, 24)}, memory: rows{v(0), v(0)}, start: rows{v(-90), v(3)}, podCPU: v(67, 20)},
			}, []string{"", "", ""},
		},
		"an idle one whose sibling is always sampled after the pod": {
			[]podRows{
				{cpu: rows{v(0), v(50, 5)}, memory: rows{v(mib), v(mib)}, podCPU: v(60)},
				{cpu: rows{v(0, 10), v(60, 15)}, memory: rows{v(mib), v(mib)}, podCPU: v(65, 10)},
				{cpu: rows{v(0, 20), v(70, 25)}, memory: rows{v(mib), v(mib)}, podCPU: v(75, 20)},
				{cpu: rows{v(0, 30), v(80, 35)}, memory: rows{v(mib), v(mib)}, podCPU: v(85, 30)},
			}, []string{"a", "a", "", ""},
		},
		"one that works, whose sibling is always sampled after the pod": {
			[]podRows{
				{cpu: rows{v(0, 5), v(50, 5)}, memory: rows{v(mib), v(mib)}, podCPU: v(90)},
				{cpu: rows{v(0, 15), v(51, 15)}, memory: rows{v(mib), v(mib)}, podCPU: v(100, 10)},
				{cpu: rows{v(0, 25), v(52, 25)}, memory: rows{v(mib), v(mib)}, podCPU: v(110, 20)},
				{cpu: rows{v(0, 35), v(53, 35)}, memory: rows{v(mib), v(mib)}, podCPU: v(120, 30)},
			}, []string{"a", "a", "a", "a"},
		},
		"the pod's counter falls": {
			[]podRows{
				{cpu: rows{v(0)}, memory: rows{v(mib)}, podCPU: v(700)},
				{cpu: rows{v(0, 10)}, memory: rows{v(mib, 10)}, podCPU: v(10, 10)},
				{cpu: rows{v(0, 20)}, memory: rows{v(mib, 20)}, podCPU: v(14, 20)},
			}, []string{"a", "", "a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var p Parser
			var layout Layout
			var batch sample.Batch
			for i, answer := range c.answers {
				if err := p.ParseText([]byte(answer.body()), received, &layout, &batch); err != nil {
					t.Fatal(err)
				}
				got := ""
				for _, container := range batch.Containers {
					if container.Given.Has(sample.Refused) {
						got += container.ID.Container()
						if container.Why == sample.Contradicted && container.Given.Has(sample.CPU|sample.Memory) {
							t.Errorf("answer %d: %+v is contradicted, but used", i, container)
						}
					}
				}
				if got != c.refused[i] {
					t.Errorf("answer %d: refused of %q, want %q", i, got, c.refused[i])
				}
				if n := batch.Refused.Total(); n != len(got) {
					t.Errorf("answer %d: %v refused of %q", i, &batch.Refused, got)
				}
			}
		})
	}
}

// A node that reports zero usage is contradicted by any container with usage.
func TestRule10FalseZerosOfANode(t *testing.T) {
	for name, c := range map[string]struct {
		cpu, memory    float64
		container, mib float64
		refused        bool
	}{
		"no memory":          {5, 0, 1, 1, true},
		"no CPU":             {0, 5, 1, 1, true},
		"neither":            {0, 0, 1, 1, true},
		"both":               {5, 5, 1, 1, false},
		"nothing works":      {0, 5, 0, 5, false},
		"nothing has memory": {5, 0, 5, 0, false},
	} {
		body := podRows{cpu: [2]*metric{v(c.container)}, memory: [2]*metric{v(c.mib)}}.body() +
			fmt.Sprintf("%s %v 1795310601000\n%s %v 1795310601000\n", nodeCPU, c.cpu, nodeMemory, c.memory)
		got := parseText([]byte(body))
		if refused := got.Node.Given == sample.Refused && got.Node.Why == sample.Contradicted &&
			got.Refused[sample.Contradicted] == 1; refused != c.refused || got.Err != nil {
			t.Errorf("%s: got %+v, want the node refused: %v", name, got, c.refused)
		}
		checkReference(t, []byte(body))
	}
}

// A failed answer keeps the doubtful zeros, and an answer without zeros clears them.
func TestDoubtfulZeros(t *testing.T) {
	var p Parser
	var layout Layout
	var batch sample.Batch
	parse := func(body string) error { return p.ParseText([]byte(body), received, &layout, &batch) }
	zero := podRows{cpu: [2]*metric{v(0)}, memory: [2]*metric{v(1)}, podCPU: v(700)}.body()
	if err := parse(zero); err != nil || len(layout.doubts) != 1 {
		t.Fatalf("%v, %d doubts", err, len(layout.doubts))
	}
	if err := parse(zero + "resource_scrape_error 1\n"); err == nil || len(layout.doubts) != 1 {
		t.Errorf("%v, %d doubts", err, len(layout.doubts))
	}
	if err := parse(podRows{cpu: [2]*metric{v(1)}, memory: [2]*metric{v(1)}, podCPU: v(700)}.body()); err != nil ||
		layout.doubts != nil {
		t.Errorf("%v, %d doubts", err, len(layout.doubts))
	}
}

// The rows of pods are not read, nor counted, as long as no container has a zero.
func TestPodRowsAreSkipped(t *testing.T) {
	body := string(slices.Concat([]byte(podRows{cpu: [2]*metric{v(1)}, memory: [2]*metric{v(1)}}.body()),
		[]byte("pod_cpu_usage_seconds_total nonsense\npod_memory_working_set_bytes{\n")))
	if got := parseText([]byte(body)); got.Err != nil || got.Refused.Total() != 0 {
		t.Errorf("got %+v, want nothing refused", got)
	}
}
