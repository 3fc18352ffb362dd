package store

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

func TestRule8AFloodCostsLittle(t *testing.T) {
	f := newFixture(t)
	before := sharedtest.Heap()
	for i := range 6 {
		s := float64(15 * i)
		f.answer(s, ctr("a", s, s/10))
		var cs []sample.Container
		for j := range sample.MaxContainers {
			cs = append(cs, ofPod(fmt.Sprintf("flood-%d-%d", i, j), started(ctr("a", s, s), -1000)))
		}
		f.answerFrom("liar", s, cs...)
	}
	if n := len(f.node("liar").layout.containers); n > 2*sample.MaxContainers {
		t.Errorf("%d containers are remembered, want at most %d", n, 2*sample.MaxContainers)
	}
	if used := sharedtest.Heap() - before; used > 10*mib {
		t.Errorf("%d MiB are used, want at most 10", used/mib)
	}
	f.want(75, served{T: 75, Window: 15, Milli: 100, MiB: 10, Names: "a"})
	f.answerFrom("liar", 90)
	if n := len(f.node("liar").layout.containers); n > minRemembered {
		t.Errorf("%d containers are remembered, want at most %d", n, minRemembered)
	}
}

// One answer has as many containers as are accepted, the next one more, which belongs to pod "torn".
func TestRule8AFloodShowsNoPartialPod(t *testing.T) {
	f := newFixture(t)
	var parser exposition.Parser
	var layout exposition.Layout
	var batch sample.Batch
	record := func(s float64, lastContainers ...string) (excess int) {
		var body bytes.Buffer
		row := func(family, pod, container string) {
			fmt.Fprintf(&body, "container_%s{container=%q,namespace=\"ns\",pod=%q} %v %d\n", family, container, pod, s+1, ms(s))
		}
		for _, family := range []string{"cpu_usage_seconds_total", "memory_working_set_bytes"} {
			row(family, "p", "a")
			row(family, "torn", "a")
			for i := range sample.MaxContainers - 3 {
				row(family, fmt.Sprint("x-", i), "a")
			}
			for _, c := range lastContainers {
				row(family, "torn", c)
			}
		}
		if err := parser.ParseText(body.Bytes(), at(s), &layout, &batch); err != nil {
			t.Fatal(err)
		}
		f.Record("n", &batch, at(s))
		return batch.Refused[sample.Excess]
	}
	torn := func(s float64) bool { return f.Pod("ns", "torn", at(s), new(sample.PodUsage)) }
	for _, s := range []float64{0, 15} {
		if n := record(s, "b"); n != 0 {
			t.Fatalf("%d left out of an answer of the maximum size", n)
		}
	}
	if !torn(15) {
		t.Error("the pod is not served although all of it was accepted")
	}
	if n := record(30, "b", "c"); n == 0 {
		t.Fatal("nothing left out of an answer that is too long")
	}
	f.want(30, served{T: 30, Window: 15, Milli: 1000, Names: "a"})
	if torn(30) {
		t.Error("a pod is served in part")
	}
}

func TestRule8ANodeThatLiesCostsOnlyItself(t *testing.T) {
	f := newFixture(t)
	liar := func(i int) []sample.Container {
		extreme := []uint64{0, math.MaxUint64, 1, math.MaxUint64 / 3}[i%4]
		c := ofPod("liar", ctr("a", 0, 0))
		c.CPU, c.Memory, c.Start, c.Given = extreme, extreme, sample.Time(math.MinInt64+i), whole|sample.Start
		d := ofPod("liar", ctr("b", 0, 0))
		d.Time, d.Start, d.Given = sample.Time(math.MaxInt64-100+int64(i)), math.MaxInt64, whole|sample.Start
		return []sample.Container{d, c, d, c}
	}
	for i := range 10 {
		s := float64(15 * i)
		f.answerFrom("liar", s, liar(i)...)
		f.answer(s, ctr("a", s, s/10))
	}
	f.want(135, served{T: 135, Window: 15, Milli: 100, MiB: 10, Names: "a"})
}
