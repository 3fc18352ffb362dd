package store

import (
	"fmt"
	"math"
	"testing"

	"metrics-server/pkg/sample"
)

func TestRule8AFloodCostsLittle(t *testing.T) {
	const flood = 6 * MaxContainers
	f := newFixture(t)
	before := heap()
	for i := range 6 {
		s := float64(15 * i)
		honest := []sample.Container{ctr("a", s, s/10)}
		f.say(s, honest...)
		cs := make([]sample.Container, 0, flood)
		for j := range flood {
			cs = append(cs, ofPod(fmt.Sprintf("flood-%d-%d", i, j), started(ctr("a", s, s), -1000)))
		}
		if r := f.sayAs("liar", s, cs...); r.Excess != flood-MaxContainers {
			t.Errorf("%d containers left out, want %d", r.Excess, flood-MaxContainers)
		}
	}
	if n := len(f.node("liar").pasts); n > 2*MaxContainers {
		t.Errorf("%d containers are remembered, want at most %d", n, 2*MaxContainers)
	}
	if used := heap() - before; used > 10*mib {
		t.Errorf("%d MiB are used, want at most 10", used/mib)
	}
	f.want(75, served{T: 75, Window: 15, Milli: 100, MiB: 10, Names: "a"})
	f.sayAs("liar", 90)
	if n := len(f.node("liar").pasts); n > minRemembered {
		t.Errorf("%d containers are remembered, want at most %d", n, minRemembered)
	}
}

func TestRule8AFloodShowsNoPartialPod(t *testing.T) {
	f := newFixture(t)
	for s := 0.0; s <= 15; s += 15 {
		cs := []sample.Container{ctr("a", s, s), ofPod("torn", ctr("a", s, s)), ofPod("torn", ctr("b", s, s))}
		for i := len(cs); i < MaxContainers; i++ {
			cs = append(cs, ofPod(fmt.Sprint("x-", i), ctr("a", s, s)))
		}
		if r := f.say(s, cs...); r.Excess != 0 {
			t.Fatalf("%d left out of what is just allowed", r.Excess)
		}
		if r := f.say(s+1, append(cs, ofPod("torn", ctr("c", s, s)))...); r.Excess != 3 {
			t.Fatalf("%d containers left out, want the 3 of a pod", r.Excess)
		}
	}
	f.want(16, served{T: 15, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
	var u sample.PodUsage
	if f.Pod("ns", "torn", at(16), &u) {
		t.Errorf("a pod is served in part: %+v", u)
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
		f.sayAs("liar", s, liar(i)...)
		f.say(s, ctr("a", s, s/10))
	}
	f.want(135, served{T: 135, Window: 15, Milli: 100, MiB: 10, Names: "a"})
}
