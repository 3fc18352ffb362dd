package store

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
)

func TestRule1UsageIsTheDifferenceByTheKubeletsTimestamps(t *testing.T) {
	f := newFixture(t)
	f.say(100, ctr("a", 90, 10))
	b := ctr("a", 106.5, 13.3) // 3.3 s of CPU in 16.5 s
	b.Memory, b.Swap, b.Given = 20*mib, 7, b.Given|sample.Swap
	f.say(115, b)
	f.want(116, served{T: 106.5, Window: 16.5, Milli: 200, MiB: 20, Names: "a"})
	if u, _ := f.get(116); u.Node != "n" || u.Containers[0].Swap != 7 || !u.Containers[0].HasSwap {
		t.Errorf("node or swap is not that of the newest sample: %+v", u)
	}
}

func TestRule1OfANode(t *testing.T) {
	s := New(Config{})
	s.Record("n", &sample.Batch{Node: machine(0, 100)}, at(5))
	s.Record("n", &sample.Batch{Node: machine(10, 115)}, at(20))
	got, ok := s.Node("n", at(21))
	want := sample.NodeUsage{Time: ms(10), Window: 10 * time.Second, Usage: sample.Usage{CPU: 1.5e9, Memory: 100 * mib}}
	if d := cmp.Diff(want, got); !ok || d != "" {
		t.Errorf("served %v (-want +got):\n%s", ok, d)
	}
}

func TestRule1APodsTimestampAndWindowAreThoseOfItsOldestContainerSample(t *testing.T) {
	f := newFixture(t)
	f.say(20, ctr("a", 10, 1), ctr("b", 2, 1))
	f.say(35, ctr("a", 30, 2), ctr("b", 19, 2.7))
	f.want(36, served{T: 19, Window: 17, Milli: 50 + 100, MiB: 20, Names: "ab"})
}

func TestRule1ContainersAreSortedByName(t *testing.T) {
	f := newFixture(t)
	for s := 0.0; s < 20; s += 15 {
		f.say(s, ctr("c", s, 0), ctr("a", s, 0), ctr("b", s, 0))
	}
	f.want(15, served{T: 15, Window: 15, MiB: 30, Names: "abc"})
}

func TestRule2SampleAIsTheNewestOneATargetWindowOlder(t *testing.T) {
	for name, c := range map[string]struct {
		times  []float64
		window float64 // 0: none
	}{
		"target window":                       {[]float64{0, 15}, 15},
		"newest that is old enough":           {[]float64{0, 15, 30}, 15},
		"a third less will do":                {[]float64{0, 10, 20}, 10},
		"more than a third less will not":     {[]float64{0, 15, 24}, 24},
		"longer after missed scrapes":         {[]float64{0, 15, 55}, 40},
		"filling: oldest of at least 5 s":     {[]float64{0, 2, 7}, 7},
		"filling: 5 s sharp":                  {[]float64{0, 5}, 5},
		"filling: less than 5 s":              {[]float64{0, 4.999}, 0},
		"a third apart, all are kept":         {[]float64{0, 5, 10, 15}, 10},
		"less than a third apart, not all":    {[]float64{0, 4.9, 9.8, 14.7}, 14.7},
		"three quick scrapes, then the usual": {[]float64{0, 5, 10, 21}, 11},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			last := 0.0
			for _, last = range c.times {
				f.say(last, ctr("a", last, last/2))
			}
			if u, ok := f.get(last); ok != (c.window > 0) || u.Window.Seconds() != c.window {
				t.Errorf("served %v, window %v, want %v s", ok, u.Window, c.window)
			}
		})
	}
}

func TestRule2UnchangedTimestampAddsNoSample(t *testing.T) {
	f := newFixture(t)
	f.say(0, ctr("a", 0, 0))
	f.say(15, ctr("a", 10, 1))
	same := ctr("a", 10, 5) // even if it says something else
	same.Memory = 99 * mib
	f.say(30, same)
	f.want(30, served{T: 10, Window: 10, Milli: 100, MiB: 10, Names: "a"})
	if _, n := f.Points(); n != 2 {
		t.Errorf("%d samples are stored, want 2", n)
	}
}

func TestRule2OlderTimestampIsRefused(t *testing.T) {
	f := newFixture(t)
	f.say(0, ctr("a", 0, 0))
	f.say(15, ctr("a", 10, 1))
	b := answer(ctr("a", 9.999, 8))
	b.Node = machine(10, 1)
	if r := f.Record("n", b, at(30)); r.Old != 1 {
		t.Errorf("%d refused, want 1", r.Old)
	}
	b = answer(ctr("a", 20, 2))
	b.Node = machine(5, 2)
	if r := f.Record("n", b, at(31)); r.Old != 1 {
		t.Errorf("node: %d refused, want 1", r.Old)
	}
	f.want(31, served{T: 10, Window: 10, Milli: 100, MiB: 10, Names: "a"}) // decision (i)
	f.say(45, ctr("a", 35, 3.5))
	f.want(45, served{T: 35, Window: 15, Milli: 100, MiB: 10, Names: "a"})
}

func TestRule2ZeroTimestampIsRefused(t *testing.T) {
	f := newFixture(t)
	c := ctr("a", 0, 0)
	c.Time = 0
	if r := f.say(0, c); r.Old != 1 {
		t.Errorf("%d refused, want 1", r.Old)
	}
	f.wantNone(0, `container "a" on node "n" has no valid sample yet`)
}

func TestRule3NewEpoch(t *testing.T) {
	for name, c := range map[string]struct {
		start, cpu float64 // of the last sample; before: start -1000, CPU 60
		fresh      bool
	}{
		"start moves forward by more than a second":    {-998.999, 70, true},
		"start moves forward by a second":              {-999, 70, false},
		"start moves back":                             {-2000, 70, false},
		"counter goes down":                            {-1000, 59.999, true},
		"counter stands still":                         {-1000, 60, false},
		"start moves forward, counter is higher still": {16, 70, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.say(0, started(ctr("a", 0, 50), -1000))
			f.say(15, started(ctr("a", 15, 60), -1000))
			f.say(30, started(ctr("a", 20, c.cpu), c.start))
			if _, served := f.get(30); served == c.fresh {
				t.Errorf("served: %v, want %v", served, !c.fresh)
			}
		})
	}
}

func TestRule3StartTimeThatIsToldLessExactlyIsNoNewEpoch(t *testing.T) {
	f := newFixture(t)
	for i, start := range []float64{-1000, -1000.9, -1000, -1001.5, -1000} {
		s := float64(15 * i)
		f.say(s, started(ctr("a", s, s), start))
	}
	f.want(60, served{T: 60, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
}

// A container that starts, is sampled, and starts again has two starts that may be less than a second apart.
func TestRule3ARestartWithinASecondIsANewEpoch(t *testing.T) {
	f := newFixture(t)
	f.say(1, started(ctr("a", 0.5, 0.5), 0))
	f.say(19, started(ctr("a", 18.9, 18), 0.9))
	f.want(19, served{T: 18.9, Window: 18, Milli: 1000, MiB: 10, Names: "a"})
}

func TestRule3StartTimeServesAsSampleA(t *testing.T) {
	for name, c := range map[string]struct {
		resolution time.Duration
		age        float64
		served     bool
	}{
		"younger than 5 s":                 {15 * time.Second, 4.999, false},
		"5 s":                              {15 * time.Second, 5, true},
		"a minute":                         {15 * time.Second, 60, true},
		"more than a minute":               {15 * time.Second, 60.001, false},
		"two target windows, if longer":    {40 * time.Second, 80, true},
		"more than two target windows":     {40 * time.Second, 80.001, false},
		"starts after its sample":          {15 * time.Second, -1, false},
		"starts well after its sample":     {15 * time.Second, -10, false},
		"short resolution, still 5 s":      {time.Second, 4, false},
		"short resolution, still a minute": {time.Second, 60, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := fixture{t, New(Config{Resolution: c.resolution})}
			f.say(1, started(ctr("a", 0, c.age/4), -c.age))
			if !c.served {
				if _, ok := f.get(1); ok {
					t.Error("served")
				}
				return
			}
			f.want(1, served{T: 0, Window: c.age, Milli: 250, MiB: 10, Names: "a"})
		})
	}
}

func TestRule3StartTimeIsNotUsedWithAnOlderSample(t *testing.T) {
	f := newFixture(t)
	f.say(3, started(ctr("a", 3, 1), 0))
	f.say(7, started(ctr("a", 7, 2), 0)) // 7 s old, but there is a sample, though only 4 s older
	f.wantNone(7, `the samples of container "a" on node "n" so far are only 4s apart: a usage needs two that are at least 5s apart`)
}

func TestRule3AnUnknownStartTimeIsNone(t *testing.T) {
	f := newFixture(t)
	c := ctr("a", 0, 1)
	c.Time = 30_000 // half a minute after 1970 began
	f.say(0, c)
	if u, ok := f.get(0); ok {
		t.Errorf("served: %+v", u)
	}
}

func TestRule3RestartedContainerIsServedFromItsNewStart(t *testing.T) {
	f := newFixture(t)
	f.say(0, started(ctr("a", 0, 50), -1000))
	f.say(15, started(ctr("a", 15, 60), -1000))
	f.say(30, started(ctr("a", 28, 0.4), 26))
	f.wantNone(30, `container "a" on node "n" has one sample so far, taken 2s ago: a usage needs two that are at least 5s apart`)
	f.say(45, started(ctr("a", 38, 2.4), 26))
	f.want(45, served{T: 38, Window: 10, Milli: 200, MiB: 10, Names: "a"})
}

func TestRule3AStartThatTheCounterContradictedIsNoTrueZero(t *testing.T) {
	for name, again := range map[string]func(sample.Container) sample.Container{
		"told again": func(c sample.Container) sample.Container { return started(c, -20) },
		"not told":   func(c sample.Container) sample.Container { return c },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.say(0, started(ctr("a", 0, 20), -20))
			f.say(15, started(ctr("a", 15, 35), -20))
			f.say(24, again(ctr("a", 24, 1)))
			f.wantNone(24, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least 5s apart`)
			f.say(34, started(ctr("a", 34, 2), -20))
			f.want(34, served{T: 34, Window: 10, Milli: 100, MiB: 10, Names: "a"})
			f.say(50, started(ctr("a", 50, 2), 40)) // another start is to be believed again
			f.want(50, served{T: 50, Window: 10, Milli: 200, MiB: 10, Names: "a"})
		})
	}
}

func TestRule4ContainerThatEndedIsLeftOut(t *testing.T) {
	for name, last := range map[string]sample.Container{
		"neither CPU nor memory": given(started(ctr("b", 15, 2), -100), sample.Start|sample.Swap),
		"both zero": func() sample.Container {
			c := ctr("b", 15, 0)
			c.Memory = 0
			return c
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.say(0, ctr("a", 0, 0), ctr("b", 0, 1))
			f.say(15, ctr("a", 15, 3), last)
			f.want(15, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
		})
	}
}

func TestRule4ZeroOfOneOfTheTwoIsAValue(t *testing.T) {
	f := newFixture(t)
	noMem := func(s, cpu float64) sample.Container {
		c := ctr("b", s, cpu)
		c.Memory = 0
		return c
	}
	f.say(0, ctr("a", 0, 0), noMem(0, 1))
	f.say(15, ctr("a", 15, 0), noMem(15, 2.5))
	f.want(15, served{T: 15, Window: 15, Milli: 100, MiB: 10, Names: "ab"})
}

func TestRule4PodIsServedOnlyWhenEveryOtherContainerHasAUsage(t *testing.T) {
	f := newFixture(t)
	f.say(0, ctr("a", 0, 0))
	f.say(15, ctr("a", 15, 3), ctr("b", 15, 1))
	f.wantNone(18, `container "b" on node "n" has one sample so far, taken 3s ago: a usage needs two that are at least 5s apart`)
	f.say(30, ctr("a", 30, 6), ctr("b", 25, 2))
	f.want(30, served{T: 25, Window: 10, Milli: 300, MiB: 20, Names: "ab"})
	f.say(45, ctr("a", 45, 9), given(ctr("b", 40, 3), sample.CPU))
	f.wantNone(45, `container "b" on node "n" is listed without memory`)
	f.say(60, ctr("a", 60, 12), given(ctr("b", 55, 0), sample.Memory))
	f.wantNone(60, `container "b" on node "n" is listed without CPU`)
	f.say(75, ctr("a", 75, 15), ctr("b", 75, 7))
	f.want(75, served{T: 75, Window: 15, Milli: 300, MiB: 20, Names: "ab"}) // b: 5 s of CPU in 50 s
}

func TestRule4NoEmptyListOfContainers(t *testing.T) {
	f := newFixture(t)
	f.say(0, given(ctr("a", 0, 0), sample.Start))
	f.wantNone(0, `node "n" lists no running container of it: all have ended, or the container runtime there gives the kubelet no metrics`)
	f.say(15, ctr("a", 15, 1))
	f.say(30, ctr("a", 30, 2))
	f.say(45)
	f.wantNone(45, unlisted+idle(1, "n"))
	f.sayAs("another", 45, ofPod("ended", given(ctr("a", 45, 0), sample.Start)))
	f.wantNone(45, unlisted+idle(2, "another"))
	f.say(60, ofPod("other", ctr("a", 60, 1)))
	f.wantNone(60, unlisted+idle(1, "another"))
	f.say(120, ofPod("other", ctr("a", 120, 1)))
	f.wantNone(120, unlisted) // the other's answer is too old to be believed
}

func TestRule5ARefusedSampleCostsOnlyItself(t *testing.T) {
	// Values are refused where they are parsed: one that was is not given.
	f := newFixture(t)
	bad := func(s float64, fields sample.Fields) sample.Container {
		return ofPod("bad", given(ctr("a", s, s), fields|sample.Refused))
	}
	f.say(0, bad(0, sample.Memory), ctr("a", 0, 0))
	f.say(15, bad(15, 0), ctr("a", 15, 3))
	f.want(15, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	var u sample.PodUsage
	if f.Pod("ns", "bad", at(15), &u) {
		t.Error("the pod of the refused sample is served")
	}
	if got, want := f.WhyNoPod("ns", "bad", at(15)), `container "a" on node "n" has no valid sample yet`; got != want {
		t.Errorf("why: %q, want %q", got, want)
	}
}

func TestRule5ARefusedSampleHidesNothingThatWasThere(t *testing.T) {
	for name, fields := range map[string]sample.Fields{"all of it": 0, "its CPU": sample.Memory, "its memory": sample.CPU} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.say(0, ctr("a", 0, 0), ctr("b", 0, 0))
			f.say(15, ctr("a", 15, 3), ctr("b", 15, 3))
			before := served{T: 15, Window: 15, Milli: 400, MiB: 20, Names: "ab"}
			f.want(15, before)
			f.say(30, ctr("a", 15, 3), given(ctr("b", 30, 5), fields|sample.Refused))
			f.want(30, before)
			// A partial sum is never shown, and what was refused is not served for ever.
			f.say(76, ctr("a", 76, 3), given(ctr("b", 76, 9), fields|sample.Refused))
			f.wantNone(76, `the last sample of container "b" on node "n" was received 1m1s ago`)
		})
	}
}

func TestRule6AFailedScrapeHidesNothingUntilExpiry(t *testing.T) {
	for name, c := range map[string]struct {
		resolution time.Duration
		expiry     float64
		age        string
	}{
		"at least a minute": {10 * time.Second, 60, "1m0s"},
		"four resolutions":  {20 * time.Second, 80, "1m20s"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fixture{t, New(Config{Resolution: c.resolution})}
			for s := 0.0; s <= 20; s += 20 {
				b := answer(ctr("a", s, s/10))
				b.Node = machine(s, s)
				f.Record("n", b, at(s))
			}
			w := served{T: 20, Window: 20, Milli: 100, MiB: 10, Names: "a"}
			f.want(20+c.expiry, w)
			if _, ok := f.Node("n", at(20+c.expiry)); !ok {
				t.Error("node is gone too early")
			}
			late := 20.001 + c.expiry
			f.wantNone(late, `the last answer of node "n" was received `+c.age+` ago`)
			if _, ok := f.Node("n", at(late)); ok {
				t.Error("node is served for too long")
			}
			if got, want := f.WhyNoNode("n", at(late)), "the last answer of its kubelet was received "+c.age+" ago"; got != want {
				t.Errorf("why: got %q, want %q", got, want)
			}
		})
	}
}

func TestRule6ANodeThatLeavesIsGoneAtOnce(t *testing.T) {
	f := newFixture(t)
	for s := 0.0; s <= 15; s += 15 {
		b := answer(ctr("a", s, s))
		b.Node = machine(s, s)
		f.Record("n", b, at(s))
	}
	f.RemoveNode("n")
	f.RemoveNode("n") // and again
	f.wantNone(15, unlisted)
	if _, ok := f.Node("n", at(15)); ok {
		t.Error("node is served")
	}
	if n, c := f.Points(); n != 0 || c != 0 {
		t.Errorf("points: %d, %d, want 0", n, c)
	}
	f.say(30, ctr("a", 30, 30)) // it is back, and nothing of before is remembered
	f.wantNone(30, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least 5s apart`)
}

func TestRule6APodThatLeavesIsGoneAtOnce(t *testing.T) {
	f := newFixture(t)
	old := func(s float64) sample.Container { return started(ctr("a", s, s/5), -1000) }
	other := func(s float64) sample.Container { return ofPod("other", old(s)) }
	f.say(0, old(0), started(ctr("b", 0, 0), -1000), other(0))
	f.say(15, old(15), other(15)) // b is remembered
	f.want(15, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	for range 2 {
		f.RemovePod("ns", "p")
		f.RemovePod("ns", "unknown")
		f.wantNone(15, unlisted)
		var u sample.PodUsage
		if !f.Pod("ns", "other", at(15), &u) {
			t.Fatal("another pod of the node is gone too")
		}
		if _, n := f.Points(); n != 2 {
			t.Fatalf("%d samples are stored, want 2", n)
		}
	}
	f.say(20, old(20), other(20)) // made anew, for all that is known
	f.wantNone(20, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least 5s apart`)
	f.say(35, old(35), other(35))
	f.want(35, served{T: 35, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	f.RemovePod("ns", "p")
	f.say(50, other(50)) // its kubelet had listed it once too often
	f.wantNone(50, unlisted)
}

// A StatefulSet's pod is made anew under its name where its node died.
func TestRule6ADeadNodeDoesNotClaimThePodsSuccessor(t *testing.T) {
	f := newFixture(t)
	f.sayAs("dead", 0, started(ctr("a", 0, 0), -100))
	f.sayAs("dead", 15, started(ctr("a", 15, 1), -100))
	f.RemovePod("ns", "p")
	if r := f.sayAs("alive", 20, ctr("a", 20, 0)); r.Conflicts != nil { // of unknown start: it would lose
		t.Errorf("conflicts: %v", r.Conflicts)
	}
	f.sayAs("alive", 35, ctr("a", 35, 3))
	f.wantNode(35, "alive")
}

func TestNanocores(t *testing.T) {
	for _, cpu := range []uint64{0, 1, 999, 1e9, math.MaxUint64 / 1000, math.MaxUint64/1000 + 1, math.MaxInt64, math.MaxUint64} {
		for _, window := range []sample.Time{1, 3, 999, 1000, 5000, 15_001, 1 << 40, math.MaxInt64} {
			want := new(big.Int).Mul(new(big.Int).SetUint64(cpu), big.NewInt(1000))
			want.Quo(want, big.NewInt(int64(window)))
			if top := big.NewInt(math.MaxInt64); want.Cmp(top) > 0 {
				want = top
			}
			if got := nanocores(cpu, window); got != want.Uint64() {
				t.Errorf("nanocores(%d, %d) = %d, want %d", cpu, window, got, want)
			}
		}
	}
}
