package exposition

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"metrics-server/pkg/sample"
)

// captures returns the answers of a real kubelet in testdata by file name.
func captures(tb testing.TB) map[string][]byte {
	tb.Helper()
	captures := map[string][]byte{}
	for _, pattern := range []string{"testdata/*.txt", "testdata/lifecycle/*.txt"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			tb.Fatalf("no captures match %s: %v", pattern, err)
		}
		for _, file := range files {
			if captures[file], err = os.ReadFile(file); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return captures
}

func TestCaptures(t *testing.T) {
	for file, body := range captures(t) {
		if !checkReference(t, body) {
			t.Errorf("%s: the reference refuses it", file)
		}
		if r := parseText(body); r.Err != nil || r.Refused.Total() != 0 || len(r.Containers) < 5 {
			t.Errorf("%s: got error %v, refused %v, %d containers", file, r.Err, r.Refused, len(r.Containers))
		}
	}
}

func TestCaptureByHand(t *testing.T) {
	got := parseText(captures(t)["testdata/resource-1.txt"])
	if len(got.Containers) != 5 {
		t.Fatalf("got %d containers, want 5", len(got.Containers))
	}
	got.Containers = got.Containers[3:4]
	all := sample.CPU | sample.Memory | sample.Swap
	want := result{
		Node: sample.Sample{Time: 1795310444835, CPU: 3325150998618, Memory: 1064726528, Given: all},
		Containers: []namedSample{{
			ID: sample.NewContainerID("load", "known", "busy"),
			Sample: sample.Sample{
				Time: 1795310442393, Start: 1795310430573, CPU: 2401775870, Memory: 106733568,
				Given: all | sample.Start,
			},
		}},
	}
	if d := diff(want, got); d != "" {
		t.Error(d)
	}
}

const (
	cpuFamily    = "container_cpu_usage_seconds_total"
	memoryFamily = "container_memory_working_set_bytes"
	startFamily  = "container_start_time_seconds"
	swapFamily   = "container_swap_usage_bytes"
	labelsOfC    = `{container="c",namespace="n",pod="p"}`
	nodeCPU      = "node_cpu_usage_seconds_total"
	nodeMemory   = "node_memory_working_set_bytes"
	nodeSwap     = "node_swap_usage_bytes"
)

func refused(why sample.Reason, n int) (r sample.Refusals) {
	r[why] = n
	return r
}

// one returns the result of an answer with only the container that labelsOfC names.
func one(s sample.Sample) result {
	return result{Containers: []namedSample{{sample.NewContainerID("n", "p", "c"), s}}}
}

func TestParseText(t *testing.T) {
	now := sample.TimeOf(received)
	cpu := one(sample.Sample{Time: 1795310601000, CPU: 1_500_000_000, Given: sample.CPU})
	cpuOf := func(namespace, pod, container string) result {
		r := one(cpu.Containers[0].Sample)
		r.Containers[0].ID = sample.NewContainerID(namespace, pod, container)
		return r
	}
	tests := []struct {
		name, body string
		want       result
	}{
		{"a row", cpuFamily + labelsOfC + " 1.5 1795310601000\n", cpu},
		{"CRLF", "# HELP x y\r\n\r\n" + cpuFamily + labelsOfC + " 1.5 1795310601000\r\n", cpu},
		{"CRLF without timestamp", nodeCPU + " 1\r\n", result{Node: sample.Sample{Time: now, CPU: 1e9, Given: sample.CPU}}},
		{"labels in another order", cpuFamily + `{pod="p",container="c",namespace="n"} 1.5 1795310601000`, cpu},
		{"labels that are not known", cpuFamily +
			`{a="{},=\"",container="c",id="/x/y",namespace="n",pod="p",pod_="q"} 1.5 1795310601000`, cpu},
		{"a comma after the last label", cpuFamily + `{container="c",namespace="n",pod="p",} 1.5 1795310601000`, cpu},
		{"no blank at all before the value", cpuFamily + labelsOfC + "1.5 1795310601000", cpu},
		{"blanks everywhere", "\t " + cpuFamily +
			" \t{ container\t= \"c\" ,\tnamespace = \"n\", pod=\"p\"\t, } \t 1.5 \t 1795310601000 \t\n", cpu},
		{"exponents", cpuFamily + labelsOfC + " 15e-1 1795310601000", cpu},
		{"exponents with sign and capital", cpuFamily + labelsOfC + " +.15E+01 +1795310601000", cpu},
		{
			"escapes", cpuFamily + `{container="a\\b",namespace="a\"b",pod="a\nb"} 1.5 1795310601000`,
			cpuOf("a\"b", "a\nb", `a\b`),
		},
		{
			"escapes at the ends", cpuFamily + `{container="\"a\\",namespace="\\",pod="\n"} 1.5 1795310601000`,
			cpuOf(`\`, "\n", `"a\`),
		},
		{"beyond ASCII", cpuFamily + `{container="ü",namespace="n",pod="p"} 1.5 1795310601000`, cpuOf("n", "p", "ü")},
		{
			"names that run into one another", cpuFamily + `{container="c",namespace="n/p",pod="x"} 1.5 1795310601000`,
			cpuOf("n/p", "x", "c"),
		},
		{
			"braces without labels", nodeCPU + "{} 2 1795310601000",
			result{Node: sample.Sample{Time: 1795310601000, CPU: 2e9, Given: sample.CPU}},
		},
		{
			"a node with a label", nodeCPU + `{node="a"} 2 1795310601000`,
			result{Node: sample.Sample{Time: 1795310601000, CPU: 2e9, Given: sample.CPU}},
		},
		{
			"families of no interest, however broken", cpuFamily + labelsOfC + " 1.5 1795310601000\n" +
				"pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 1 2\n" +
				"container_swap_limit_bytes{\n" + cpuFamily + "_x 1\n" + "foo\n",
			cpu,
		},
		{"comments", "#\n# \n#x\n# TYPE\n  # HELP " + cpuFamily + "\n# TYPE " + cpuFamily + " nonsense\n" + cpuFamily +
			labelsOfC + " 1.5 1795310601000\n# EOF", cpu},
		{
			"no timestamp", cpuFamily + labelsOfC + " 1.5",
			one(sample.Sample{Time: now, CPU: 1_500_000_000, Given: sample.CPU}),
		},
		{
			"the time is the CPU's", memoryFamily + labelsOfC + " 7 1795310602000\n" + cpuFamily + labelsOfC +
				" 1 1795310601000\n" + swapFamily + labelsOfC + " 3 1795310603000",
			one(sample.Sample{
				Time: 1795310601000, CPU: 1e9, Memory: 7, Swap: 3,
				Given: sample.CPU | sample.Memory | sample.Swap,
			}),
		},
		{
			"the time is the memory's without CPU", swapFamily + labelsOfC + " 3 1795310603000\n" + memoryFamily + labelsOfC +
				" 7 1795310602000\n",
			one(sample.Sample{Time: 1795310602000, Memory: 7, Swap: 3, Given: sample.Memory | sample.Swap}),
		},
		{
			"zero is a value", cpuFamily + labelsOfC + " 0 1795310601000\n" + memoryFamily + labelsOfC + " -0 1795310601000",
			one(sample.Sample{Time: 1795310601000, Given: sample.CPU | sample.Memory}),
		},
		{
			"a start time has milliseconds", cpuFamily + labelsOfC + " 1.5 1795310601000\n" + startFamily + labelsOfC +
				" 1.7953104305863268e+09",
			one(sample.Sample{Time: 1795310601000, Start: 1795310430586, CPU: 1_500_000_000, Given: sample.CPU | sample.Start}),
		},
		{
			"a container with neither CPU nor memory is listed",
			nodeCPU + " 1 1795310601000\n" + startFamily + labelsOfC + " 1795310000\n",
			result{
				Node:       sample.Sample{Time: 1795310601000, CPU: 1e9, Given: sample.CPU},
				Containers: one(sample.Sample{Start: 1795310000000, Given: sample.Start}).Containers,
			},
		},
		{
			"families in pieces", cpuFamily + labelsOfC + " 1.5 1795310601000\n" + nodeCPU + " 1 1795310601000\n" + cpuFamily +
				`{container="d",namespace="n",pod="p"} 2 1795310601000` + "\n",
			result{
				Node: sample.Sample{Time: 1795310601000, CPU: 1e9, Given: sample.CPU},
				Containers: append(one(cpu.Containers[0].Sample).Containers,
					namedSample{
						sample.NewContainerID("n", "p", "d"),
						sample.Sample{Time: 1795310601000, CPU: 2e9, Given: sample.CPU},
					}),
			},
		},
		{"no row", "# nothing\n", result{Err: ErrNoSamples}},
		{"nothing", "", result{Err: ErrNoSamples}},
		{
			"not an exposition", "<html>\n<p>Not found</p>\n</html>\n",
			result{Err: ErrNoSamples, Refused: refused(sample.Malformed, 3)},
		},
		{
			"the kubelet failed", nodeCPU + " 1 1795310601000\nresource_scrape_error 1\n",
			result{Err: ErrKubelet, Node: sample.Sample{Time: 1795310601000, CPU: 1e9, Given: sample.CPU}},
		},
		{"the kubelet failed and says nothing else", "resource_scrape_error 1\n", result{Err: ErrKubelet}},
		{"the kubelet says something odd of its failure", "resource_scrape_error NaN\n", result{Err: ErrKubelet}},
		{
			"the kubelet did not fail", nodeCPU + " 1 1795310601000\nresource_scrape_error 0\n",
			result{Node: sample.Sample{Time: 1795310601000, CPU: 1e9, Given: sample.CPU}},
		},
		{
			"nothing but start times", startFamily + labelsOfC + " 1795310000",
			result{Err: ErrNoSamples, Containers: one(sample.Sample{Start: 1795310000000, Given: sample.Start}).Containers},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := diff(tt.want, parseText([]byte(tt.body))); d != "" {
				t.Errorf("want (-), got (+):\n%s", d)
			}
			checkReference(t, []byte(tt.body))
		})
	}
}

// TestMalformed puts each bad line before, between and after good ones, and checks that only the
// bad line is lost.
func TestMalformed(t *testing.T) {
	good := captures(t)["testdata/resource-1.txt"]
	for _, bad := range malformed {
		checkOnlyLoses(t, good, []byte(bad), sample.Malformed)
	}
	const invalid = "\xff"
	checkOnlyLoses(t, good, []byte(cpuFamily+`{container="`+invalid+`",namespace="n",pod="p"} 1 1795310601000`),
		sample.Malformed)

	longest := strings.Repeat("x", maxName)
	named := func(name string) []byte {
		return []byte(cpuFamily + `{container="c",namespace="n",pod="` + name + `"} 1 1795310601000`)
	}
	checkOnlyLoses(t, good, named(longest+"x"), sample.Malformed)
	if got := parseText(named(longest)); len(got.Containers) != 1 || got.Refused != (sample.Refusals{}) {
		t.Errorf("a name of %d bytes: %+v", maxName, got)
	}
}

var malformed = []string{
	"@", "1", "1x 1", "{", "}", `"`, "\x00", "\xff", "-",
	`{"` + nodeCPU + `"} 1 1795310601000`, // text format 1.0.0
	nodeCPU, nodeCPU + " ", nodeCPU + " x", nodeCPU + " 1 x", nodeCPU + " 1 1.5", nodeCPU + " 1 1795310601000 x", nodeCPU +
		" 1 1795310601000\r\r",
	nodeCPU + " 0x10", nodeCPU + " 0x1p4", nodeCPU + " 1_0", nodeCPU + " 1e", nodeCPU + " 1e+", nodeCPU + " --1", nodeCPU +
		" 1 1_0", nodeCPU + " 1,5",
	nodeCPU + "{ 1 1795310601000", nodeCPU + "} 1 1795310601000", nodeCPU + "{,} 1 1795310601000", nodeCPU +
		`{a} 1`, nodeCPU + `{a=} 1`, nodeCPU + `{a="} 1`, nodeCPU + `{a=b} 1`,
	nodeCPU + `{a="b" c="d"} 1`, nodeCPU + `{a="b",,} 1`, nodeCPU + `{="b"} 1`, nodeCPU + `{1="b"} 1`, nodeCPU +
		`{a:b="c"} 1`, nodeCPU + `{"a"="b"} 1`,
	nodeCPU + `{__name__="a"} 1`, nodeCPU + `{a="\x"} 1`, nodeCPU + `{a="\"} 1`, nodeCPU + `{a="\`, nodeCPU +
		`{a="\"\`, nodeCPU + `{a="b"`, nodeCPU + `{a="b",`,
	cpuFamily + " 1 1795310601000", cpuFamily + "{} 1 1795310601000",
	cpuFamily + `{namespace="n",pod="p"} 1 1795310601000`, cpuFamily +
		`{container="c",pod="p"} 1 1795310601000`, cpuFamily + `{container="c",namespace="n"} 1 1795310601000`,
	cpuFamily + `{container="",namespace="n",pod="p"} 1 1795310601000`, cpuFamily +
		`{container="c",namespace="",pod="p"} 1 1795310601000`, cpuFamily +
		`{container="c",namespace="n",pod=""} 1 1795310601000`,
	cpuFamily + `{container="c",container="c",namespace="n",pod="p"} 1 1795310601000`, cpuFamily +
		`{container="",container="c",namespace="n",pod="p"} 1 1795310601000`,
}

// checkOnlyLoses puts the line bad, which names no container, at every place of good. It checks
// that one more row is refused, and that everything else is the same as without it. The row counts
// as refused of the node if it is a row of the node.
func checkOnlyLoses(t *testing.T, good, bad []byte, why sample.Reason) {
	t.Helper()
	want := parseText(good)
	want.Refused[why]++
	if bytes.HasPrefix(bad, []byte("node_")) {
		want.Node.Given |= sample.Refused
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	for at := range lines {
		if d := diff(want, parseText(insert(lines, at, bad))); d != "" {
			t.Errorf("line %q at %d: want (-), got (+):\n%s", bad, at, d)
			return
		}
	}
}

// insert returns lines, each with its newline except perhaps the last, with line before the one at
// position at, or at the end.
func insert(lines [][]byte, at int, line []byte) []byte {
	var b bytes.Buffer
	b.Write(bytes.Join(lines[:at], nil))
	if n := b.Len(); n > 0 && b.Bytes()[n-1] != '\n' {
		b.WriteByte('\n')
	}
	b.Write(line)
	b.WriteByte('\n')
	b.Write(bytes.Join(lines[at:], nil))
	return b.Bytes()
}

func TestRefused(t *testing.T) {
	now := received.UnixMilli()
	hour := int64(3_600_000)
	tests := []struct {
		family, value string
		why           sample.Reason
	}{
		{cpuFamily, "NaN 1795310601000", sample.NotANumber},
		{memoryFamily, "nan", sample.NotANumber},
		{cpuFamily, "+Inf 1795310601000", sample.Infinite},
		{memoryFamily, "-Inf 1795310601000", sample.Infinite},
		{memoryFamily, "infinity 1795310601000", sample.Infinite},
		{cpuFamily, "-1 1795310601000", sample.Negative},
		{memoryFamily, "-1e-300 1795310601000", sample.Negative},
		{memoryFamily, "-1e999 1795310601000", sample.Negative},
		{cpuFamily, "9223372036.854776 1795310601000", sample.Overflow},
		{cpuFamily, "1.7976931348623157e308 1795310601000", sample.Overflow},
		{memoryFamily, "9223372036854775808 1795310601000", sample.Overflow},
		{swapFamily, "18446744073709551616 1795310601000", sample.Overflow},
		{memoryFamily, "1e999 1795310601000", sample.Overflow},
		{cpuFamily, fmt.Sprint("1 ", now+hour+1), sample.TimestampAhead},
		{cpuFamily, fmt.Sprint("1 ", now-hour-1), sample.TimestampBehind},
		{memoryFamily, "1 0", sample.TimestampBehind},
		{swapFamily, "1 -1", sample.TimestampBehind},
		{memoryFamily, "1 9223372036854775807", sample.TimestampAhead},
		{memoryFamily, "1 9223372036854775808", sample.TimestampAhead},
		{memoryFamily, "1 -9223372036854775809", sample.TimestampBehind},
		{cpuFamily, "abc 1795310601000", sample.Malformed},
		{cpuFamily, "", sample.Malformed},
		{cpuFamily, "5.5.5", sample.Malformed},
		{cpuFamily, "1,5 1795310601000", sample.Malformed},
		{memoryFamily, "0x10 1795310601000", sample.Malformed},
		{memoryFamily, "1 tomorrow", sample.Malformed},
		{memoryFamily, "1 1.5", sample.Malformed},
		{memoryFamily, "1 1795310601000 1", sample.Malformed},
		{memoryFamily, "\v1 1795310601000", sample.Malformed},
		{swapFamily, "x 1795310601000", sample.Malformed},
		{startFamily, "x", sample.Malformed},
	}
	for _, tt := range tests {
		t.Run(tt.family+" "+tt.value, func(t *testing.T) {
			// The row that is refused, its container's other rows, and a sibling.
			body := tt.family + labelsOfC + " " + tt.value + "\n"
			want := one(sample.Sample{})
			c := &want.Containers[0].Sample
			add := func(family, value string, s sample.Sample) {
				if family == tt.family {
					return
				}
				body += family + labelsOfC + " " + value + "\n"
				s.Given |= c.Given
				s.Time = max(s.Time, c.Time)
				s.CPU, s.Memory, s.Swap, s.Start = s.CPU+c.CPU, s.Memory+c.Memory, s.Swap+c.Swap, s.Start+c.Start
				*c = s
			}
			add(cpuFamily, "1 1795310601000", sample.Sample{Time: 1795310601000, CPU: 1e9, Given: sample.CPU})
			add(memoryFamily, "2 1795310601000", sample.Sample{Time: 1795310601000, Memory: 2, Given: sample.Memory})
			add(swapFamily, "3 1795310601000", sample.Sample{Swap: 3, Given: sample.Swap})
			add(startFamily, "1795310000", sample.Sample{Start: 1795310000000, Given: sample.Start})
			if tt.family == cpuFamily || tt.family == memoryFamily {
				c.Given |= sample.Refused
				c.Why = tt.why
			}
			body += cpuFamily + `{container="d",namespace="n",pod="p"} 1 1795310601000`
			want.Containers = append(want.Containers, namedSample{
				sample.NewContainerID("n", "p", "d"),
				sample.Sample{Time: 1795310601000, CPU: 1e9, Given: sample.CPU},
			})
			want.Refused[tt.why] = 1
			if d := diff(want, parseText([]byte(body))); d != "" {
				t.Errorf("want (-), got (+):\n%s", d)
			}
			checkReference(t, []byte(body))
		})
	}
}

// Kubelets that do not know when a container started report various values. None of them is worth
// an alarm.
func TestInvalidStartTimes(t *testing.T) {
	hour := received.Unix() + 3600
	for _, start := range []string{
		"0", "-0", "-1", "-62135596800", "-6.21355968e+10", "46", "1.5e8", "946684799.999", fmt.Sprint(hour +
			1), "1e16", "1e300", "1e999", "-1e999",
		"NaN", "+Inf", "-Inf", "0 5", "46 -1", fmt.Sprint("7 ", 1000*hour+1),
	} {
		body := cpuFamily + labelsOfC + " 1.5 1795310601000\n" + startFamily + labelsOfC + " " + start + "\n"
		want := one(sample.Sample{Time: 1795310601000, CPU: 1_500_000_000, Given: sample.CPU})
		if d := diff(want, parseText([]byte(body))); d != "" {
			t.Errorf("start %s: want (-), got (+):\n%s", start, d)
		}
		checkReference(t, []byte(body))
	}
	for start, want := range map[string]sample.Time{
		// of a start no timestamp matters
		"946684800": 946684800000, fmt.Sprint(hour): sample.Time(1000 * hour), "1795310000.5 0": 1795310000500,
	} {
		got := parseText([]byte(startFamily + labelsOfC + " " + start + "\n" + nodeCPU + " 1\n"))
		if len(got.Containers) != 1 || got.Containers[0].Start != want || got.Refused.Total() != 0 {
			t.Errorf("start %s: %+v, want %d", start, got, want)
		}
	}
}

func TestLimitsAreAccepted(t *testing.T) {
	hour := received.UnixMilli() + 3_600_000
	body := fmt.Sprintf("%s 9223372036.854774 %d\n%s 9223372036854774784 %d\n", nodeCPU, hour, nodeMemory, hour-7_200_000)
	want := result{Node: sample.Sample{
		Time: sample.Time(hour), CPU: 9223372036854774784, Memory: 9223372036854774784,
		Given: sample.CPU | sample.Memory,
	}}
	if d := diff(want, parseText([]byte(body))); d != "" {
		t.Error(d)
	}
}

func TestRefusedOfNode(t *testing.T) {
	want := result{Node: sample.Sample{
		Time: 1795310601000, Memory: 1, Given: sample.Memory | sample.Refused,
		Why: sample.NotANumber,
	}, Refused: refused(sample.NotANumber, 1)}
	if d := diff(want, parseText([]byte(nodeCPU+" NaN 1795310601000\n"+nodeMemory+" 1 1795310601000"))); d != "" {
		t.Error(d)
	}
}

func TestDuplicates(t *testing.T) {
	body := strings.Join([]string{
		cpuFamily + labelsOfC + " NaN 1795310601000", // refused: the one after it is the first
		cpuFamily + labelsOfC + " 1 1795310601000",
		cpuFamily + labelsOfC + " 2 1795310602000",
		cpuFamily + `{container="c",cpu="1",namespace="n",pod="p"} 3 1795310601000`, // another series, but the same sample
		memoryFamily + labelsOfC + " 5 1795310601000",
		cpuFamily + labelsOfC + " 4 1795310604000",
		nodeCPU + " 1 1795310601000",
		nodeCPU + " 2 1795310602000",
	}, "\n")
	want := one(sample.Sample{
		Time: 1795310601000, CPU: 1e9, Memory: 5, Given: sample.CPU | sample.Memory | sample.Refused,
		Why: sample.NotANumber,
	})
	want.Node = sample.Sample{Time: 1795310601000, CPU: 1e9, Given: sample.CPU}
	want.Refused[sample.NotANumber] = 1
	want.Refused[sample.Duplicate] = 4
	if d := diff(want, parseText([]byte(body))); d != "" {
		t.Error(d)
	}
	checkReference(t, []byte(body))
}

func TestErrorSaysWhy(t *testing.T) {
	var p Parser
	var batch sample.Batch
	body := "x{} 1\n" + nodeCPU + " x\n" + strings.Repeat(nodeMemory+" NaN\n", 2)
	err := p.ParseText([]byte(body), received, new(Layout), &batch)
	if !errors.Is(err, ErrNoSamples) {
		t.Fatalf("got %v, want ErrNoSamples", err)
	}
	if want := "3 rows refused, most of them as not_a_number"; !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want %q in it", err, want)
	}
}

// TestValues compares the conversion with the textbook one: the nearest float64, times 1e9, rounded.
func TestValues(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		seconds := strconv.FormatFloat(float64(random.Int64N(1<<53))/math.Pow(10, float64(random.IntN(18))),
			"efg"[random.IntN(3)], random.IntN(20)-1, 64)
		v, err := strconv.ParseFloat(seconds, 64)
		if err != nil {
			t.Fatal(err)
		}
		got := parseText([]byte(nodeCPU + " " + seconds)).Node.CPU
		if want := math.Round(v * 1e9); want < 1<<63 && got != uint64(want) {
			t.Fatalf("%s: got %d, want %.0f", seconds, got, want)
		}
	}
}

// Names that need escapes are not mistaken for parts of labels, in answers that follow each other.
func TestEscapesInAKnownLayout(t *testing.T) {
	var p Parser
	var layout Layout
	var batch sample.Batch
	for i, body := range []string{
		cpuFamily + `{container="a\",namespace=\"b",namespace="n",pod="p"} 1 1795310601000` + "\n",
		cpuFamily + `{container="a",namespace="b",namespace="n",pod="p"} 1 1795310601000` + "\n" + cpuFamily +
			`{container="c",namespace="n",pod="p"} 1 1795310601000` + "\n",
	} {
		if err := p.ParseText([]byte(body), received, &layout, &batch); err != nil {
			t.Fatal(err)
		}
		if len(batch.Containers) != 1 || batch.Refused[sample.Malformed] != i {
			t.Errorf("got %+v, want one container and %d refused rows", batch, i)
		}
	}
}
