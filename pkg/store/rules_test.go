package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
)

func TestRule1UsageIsTheDifferenceByTheKubeletsTimestamps(t *testing.T) {
	f := newFixture(t)
	f.answer(100, ctr("a", 90, 10))
	b := ctr("a", 106.5, 13.3) // 3.3 s of CPU in 16.5 s
	b.Memory, b.Swap, b.Given = 20*mib, 7, b.Given|sample.Swap
	f.answer(115, b)
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
	got.Revision = 0
	want := sample.NodeUsage{Time: ms(10), Window: 10 * time.Second, Usage: sample.Usage{CPU: 1.5e9, Memory: 100 * mib}}
	if d := cmp.Diff(want, got); !ok || d != "" {
		t.Errorf("served %v (-want +got):\n%s", ok, d)
	}
}

func TestRule1APodsTimestampAndWindowAreThoseOfItsOldestContainerSample(t *testing.T) {
	f := newFixture(t)
	f.answer(20, ctr("a", 10, 1), ctr("b", 2, 1))
	f.answer(35, ctr("a", 30, 2), ctr("b", 19, 2.7))
	f.want(36, served{T: 19, Window: 17, Milli: 50 + 100, MiB: 20, Names: "ab"})
}

func TestRule1ContainersAreSortedByName(t *testing.T) {
	f := newFixture(t)
	for s := 0.0; s < 20; s += 15 {
		f.answer(s, ctr("c", s, 0), ctr("a", s, 0), ctr("b", s, 0))
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
				f.answer(last, ctr("a", last, last/2))
			}
			if u, ok := f.get(last); ok != (c.window > 0) || u.Window.Seconds() != c.window {
				t.Errorf("served %v, window %v, want %v s", ok, u.Window, c.window)
			}
		})
	}
}

// With a short resolution, a shorter window suffices, and the 404 says so.
func TestRule2AShortResolution(t *testing.T) {
	f := fixture{t, New(Config{Resolution: 3 * time.Second})}
	f.answer(1, ctr("a", 1, 1))
	f.answer(2.5, ctr("a", 2.5, 1.3))
	f.wantNone(2.5, `the samples of container "a" on node "n" so far are only 1.5s apart: a usage needs two that are at `+
		`least 2s apart`)
	f.answer(4, ctr("a", 4, 1.6))
	f.want(4, served{T: 4, Window: 3, Milli: 200, MiB: 10, Names: "a"})
}

func TestRule2UnchangedTimestampAddsNoSample(t *testing.T) {
	f := newFixture(t)
	f.answer(0, ctr("a", 0, 0))
	f.answer(15, ctr("a", 10, 1))
	same := ctr("a", 10, 5) // even if it says something else
	same.Memory = 99 * mib
	f.answer(30, same)
	f.want(30, served{T: 10, Window: 10, Milli: 100, MiB: 10, Names: "a"})
	if _, n := f.Points(); n != 2 {
		t.Errorf("%d samples are stored, want 2", n)
	}
}

func TestRule2OlderTimestampIsRefused(t *testing.T) {
	f := newFixture(t)
	f.answer(0, ctr("a", 0, 0))
	f.answer(15, ctr("a", 10, 1))
	b := batchOf(ctr("a", 9.999, 8))
	b.Node = machine(10, 1)
	if r := f.Record("n", b, at(30)); r.Refused[sample.TimestampOld] != 1 {
		t.Errorf("%d refused, want 1", r.Refused[sample.TimestampOld])
	}
	b = batchOf(ctr("a", 20, 2))
	b.Node = machine(5, 2)
	if r := f.Record("n", b, at(31)); r.Refused[sample.TimestampOld] != 1 {
		t.Errorf("node: %d refused, want 1", r.Refused[sample.TimestampOld])
	}
	f.want(31, served{T: 10, Window: 10, Milli: 100, MiB: 10, Names: "a"}) // decision (i)
	f.answer(45, ctr("a", 35, 3.5))
	f.want(45, served{T: 35, Window: 15, Milli: 100, MiB: 10, Names: "a"})
}

func TestRule2ZeroTimestampIsRefused(t *testing.T) {
	f := newFixture(t)
	c := ctr("a", 0, 0)
	c.Time = 0
	if r := f.answer(0, c); r.Refused[sample.TimestampOld] != 1 {
		t.Errorf("%d refused, want 1", r.Refused[sample.TimestampOld])
	}
	f.wantNone(0, `container "a" on node "n" has no valid sample yet`+refusedAs(sample.TimestampOld))
}

// An epoch ends when the counter falls to near zero and the start time confirms it. Nothing that
// the start time does alone ends one.
func TestRule3NewEpoch(t *testing.T) {
	for name, c := range map[string]struct {
		start, cpu float64 // of the last sample, taken at 18; before: start -1000, CPU 60 at 15
		served     bool
	}{
		"starts after the last sample, counter near zero":      {16, 3, false},
		"starts a second before it, counter near zero":         {14.001, 3, false},
		"starts long before it":                                {14, 3, true},
		"starts in the future":                                 {18.001, 3, true},
		"start unchanged, counter near zero":                   {-1000, 3, true},
		"more than what the node can have done since":          {16, 12.001, true},
		"just what the node can have done since":               {16, 12, false},
		"start moves by more than a second, counter is higher": {-998.999, 70, true},
		"start moves back":                                     {-2000, 70, true},
		"start after the last sample, counter is higher":       {16, 70, true},
		"counter stands still":                                 {16, 60, true},
		"counter goes down":                                    {-1000, 59.999, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := fixture{t, New(Config{Capacity: capacity(4, 1024)})}
			f.answer(0, started(ctr("a", 0, 50), -1000))
			f.answer(15, started(ctr("a", 15, 60), -1000))
			f.answer(30, started(ctr("a", 18, c.cpu), c.start))
			if _, served := f.get(30); served != c.served {
				t.Errorf("served: %v, want %v", served, c.served)
			}
		})
	}
}

func TestRule3ALessExactStartTimeIsNoNewEpoch(t *testing.T) {
	f := newFixture(t)
	for i, start := range []float64{-1000, -1000.9, -1000, -1001.5, -1000} {
		s := float64(15 * i)
		f.answer(s, started(ctr("a", s, s), start))
	}
	f.want(60, served{T: 60, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
}

// A restart that only the start time shows is not averaged with the time before it, which would
// understate the usage. The last usage is served until there are two samples after the restart.
func TestRule3ARestartWhoseCounterHasPassedTheOldOne(t *testing.T) {
	f := newFixture(t)
	f.answer(6, started(ctr("a", 6, 0.6), 0))
	f.want(6, served{T: 6, Window: 6, Milli: 100, MiB: 10, Names: "a"})
	f.answer(20, started(ctr("a", 20, 9), 11))
	f.want(20, served{T: 6, Window: 6, Milli: 100, MiB: 10, Names: "a"})
	f.answer(35, started(ctr("a", 35, 24), 11))
	f.want(35, served{T: 35, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
}

// The same right after the kubelet's clock was set: the wait for a second sample by the new clock is
// not the wait for a second sample after the restart.
func TestRule3ARestartRightAfterTheClockWasSet(t *testing.T) {
	f := newFixture(t)
	f.answer(15, started(ctr("a", 15, 1.5), 0))
	before := served{T: 15, Window: 15, Milli: 100, MiB: 10, Names: "a"}
	f.want(15, before)
	f.answer(30, started(ctr("a", 5, 1.5), 0)) // refused
	f.answer(45, started(ctr("a", 45, 7.5), 30))
	f.want(45, before)
	f.answer(60, started(ctr("a", 60, 7.6), 52))
	f.want(60, before)
	f.answer(75, started(ctr("a", 75, 22.6), 52))
	f.want(75, served{T: 75, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
}

// A start time that jumps forward with each sample does not keep a container from being served.
func TestRule3AStartTimeThatJumpsWithEachSample(t *testing.T) {
	f := newFixture(t)
	for s := 15.0; s <= 75; s += 15 {
		f.answer(s, started(ctr("a", s, s), s-5))
	}
	f.want(75, served{T: 75, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
	f.answer(90, started(ctr("a", 90, 90), 85))
	f.want(90, served{T: 75, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
	f.answer(105, started(ctr("a", 105, 105), 100))
	f.want(105, served{T: 105, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
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
			f.answer(1, started(ctr("a", 0, c.age/4), -c.age))
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
	f.answer(3, started(ctr("a", 3, 1), 0))
	f.answer(7, started(ctr("a", 7, 2), 0)) // 7 s old, but there is a sample, though only 4 s older
	f.wantNone(7, `the samples of container "a" on node "n" so far are only 4s apart: a usage needs two that are at `+
		`least 5s apart`)
}

func TestRule3AnUnknownStartTimeIsNone(t *testing.T) {
	f := newFixture(t)
	c := ctr("a", 0, 1)
	c.Time = 30_000 // half a minute after 1970 began
	f.answer(0, c)
	if u, ok := f.get(0); ok {
		t.Errorf("served: %+v", u)
	}
}

func TestRule3RestartedContainerIsServedFromItsNewStart(t *testing.T) {
	f := newFixture(t)
	f.answer(0, started(ctr("a", 0, 50), -1000))
	f.answer(15, started(ctr("a", 15, 60), -1000))
	f.answer(30, started(ctr("a", 28, 0.4), 26))
	f.wantNone(30, `container "a" on node "n" has one sample so far, taken 2s ago: a usage needs two that are at least `+
		`5s apart`)
	f.answer(45, started(ctr("a", 38, 2.4), 26))
	f.want(45, served{T: 38, Window: 10, Milli: 200, MiB: 10, Names: "a"})
}

// The counter fell, but the start does not say why: the last usage is served until two samples agree.
func TestRule3ACounterThatFellWithoutAStart(t *testing.T) {
	for name, again := range map[string]func(sample.Container) sample.Container{
		"reported again": func(c sample.Container) sample.Container { return started(c, -20) },
		"not reported":   func(c sample.Container) sample.Container { return c },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.answer(0, started(ctr("a", 0, 20), -20))
			f.answer(15, started(ctr("a", 15, 35), -20))
			f.answer(24, again(ctr("a", 24, 1)))
			f.want(24, served{T: 15, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
			f.answer(28, again(ctr("a", 28, 1.4))) // too near to be a window
			f.want(28, served{T: 15, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
			f.answer(34, again(ctr("a", 34, 2)))
			f.want(34, served{T: 34, Window: 10, Milli: 100, MiB: 10, Names: "a"})
			f.answer(50, started(ctr("a", 50, 1), 40)) // now both say so
			f.want(50, served{T: 50, Window: 10, Milli: 100, MiB: 10, Names: "a"})
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
			f.answer(0, ctr("a", 0, 0), ctr("b", 0, 1))
			f.answer(15, ctr("a", 15, 3), last)
			f.want(15, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
		})
	}
}

func TestRule4ALoneZeroHasEndedToo(t *testing.T) {
	for name, b := range map[string]sample.Container{
		"memory 0, no CPU": given(ctr("b", 15, 0), sample.Memory),
		"CPU 0, no memory": given(ctr("b", 15, 0), sample.CPU),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			b.Memory, b.Swap, b.Given = 0, 1, b.Given|sample.Swap
			f.answer(0, ctr("a", 0, 0), b)
			f.answer(15, ctr("a", 15, 3), b)
			f.want(15, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
			f.answer(30, b)
			f.wantNone(30, `node "n" lists no running container of it: all have ended, or the container runtime there gives `+
				`the kubelet no metrics`)
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
	f.answer(0, ctr("a", 0, 0), noMem(0, 1))
	f.answer(15, ctr("a", 15, 0), noMem(15, 2.5))
	f.want(15, served{T: 15, Window: 15, Milli: 100, MiB: 10, Names: "ab"})
}

func TestRule4PodIsServedOnlyWhenEveryOtherContainerHasAUsage(t *testing.T) {
	f := newFixture(t)
	f.answer(0, ctr("a", 0, 0))
	f.answer(15, ctr("a", 15, 3), ctr("b", 15, 1))
	f.wantNone(18, `container "b" on node "n" has one sample so far, taken 3s ago: a usage needs two that are at least `+
		`5s apart`)
	f.answer(30, ctr("a", 30, 6), ctr("b", 25, 2))
	f.want(30, served{T: 25, Window: 10, Milli: 300, MiB: 20, Names: "ab"})
	f.answer(45, ctr("a", 45, 9), given(ctr("b", 40, 3), sample.CPU))
	f.wantNone(45, `container "b" on node "n" is listed without memory`)
	f.answer(60, ctr("a", 60, 12), given(ctr("b", 55, 3), sample.Memory))
	f.wantNone(60, `container "b" on node "n" is listed without CPU`)
	f.answer(75, ctr("a", 75, 15), ctr("b", 75, 7))
	f.want(75, served{T: 75, Window: 15, Milli: 300, MiB: 20, Names: "ab"}) // b: 5 s of CPU in 50 s
}

func TestRule4NoEmptyListOfContainers(t *testing.T) {
	f := newFixture(t)
	f.answer(0, given(ctr("a", 0, 0), sample.Start))
	f.wantNone(0, `node "n" lists no running container of it: all have ended, or the container runtime there gives the `+
		`kubelet no metrics`)
	f.answer(15, ctr("a", 15, 1))
	f.answer(30, ctr("a", 30, 2))
	f.answer(45)
	f.wantNone(45, unlisted+idle(1, "n"))
	f.answerFrom("another", 45, ofPod("ended", given(ctr("a", 45, 0), sample.Start)))
	f.wantNone(45, unlisted+idle(2, "another"))
	f.answer(60, ofPod("other", ctr("a", 60, 1)))
	f.wantNone(60, unlisted+idle(1, "another"))
	f.answer(120, ofPod("other", ctr("a", 120, 1)))
	f.wantNone(120, unlisted) // the other's answer is too old to be trusted
}

func TestRule5ARefusedSampleCostsOnlyItself(t *testing.T) {
	// Values are refused where they are parsed: one that was is not given.
	f := newFixture(t)
	bad := func(s float64, fields sample.Fields) sample.Container {
		c := ofPod("bad", given(ctr("a", s, s), fields|sample.Refused))
		c.Why = sample.Negative
		return c
	}
	f.answer(0, bad(0, sample.Memory), ctr("a", 0, 0))
	f.answer(15, bad(15, 0), ctr("a", 15, 3))
	f.want(15, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	var u sample.PodUsage
	if f.Pod("ns", "bad", at(15), &u) {
		t.Error("the pod of the refused sample is served")
	}
	if got, want := f.WhyNoPod("ns", "bad",
		at(15)), `container "a" on node "n" has no valid sample yet`+refusedAs(sample.Negative); got != want {
		t.Errorf("why: %q, want %q", got, want)
	}
}

func TestRule5ARefusedSampleHidesNothingThatWasThere(t *testing.T) {
	for name, fields := range map[string]sample.Fields{
		"all of it": 0, "its CPU": sample.Memory,
		"its memory": sample.CPU,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.answer(0, ctr("a", 0, 0), ctr("b", 0, 0))
			f.answer(15, ctr("a", 15, 3), ctr("b", 15, 3))
			before := served{T: 15, Window: 15, Milli: 400, MiB: 20, Names: "ab"}
			f.want(15, before)
			f.answer(30, ctr("a", 15, 3), given(ctr("b", 30, 5), fields|sample.Refused))
			f.want(30, before)
			// A partial sum is never shown, and a usage of which a part was refused is not served for ever.
			f.answer(76, ctr("a", 76, 3), given(ctr("b", 76, 9), fields|sample.Refused))
			f.wantNone(76, `the last valid sample of container "b" on node "n" was received 1m1s `+
				`ago`+refusedAs(sample.Malformed))
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
				b := batchOf(ctr("a", s, s/10))
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
			if got, want := f.WhyNoNode("n",
				at(late)), "the last answer of its kubelet was received "+c.age+" ago"; got != want {
				t.Errorf("why: got %q, want %q", got, want)
			}
		})
	}
}

func TestRule6ANodeThatLeavesIsGoneAtOnce(t *testing.T) {
	f := newFixture(t)
	for s := 0.0; s <= 15; s += 15 {
		b := batchOf(ctr("a", s, s))
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
	f.answer(30, ctr("a", 30, 30)) // it is back, and nothing of before is remembered
	f.wantNone(30, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
}

func TestRule6APodThatLeavesIsGoneAtOnce(t *testing.T) {
	f := newFixture(t)
	old := func(s float64) sample.Container { return started(ctr("a", s, s/5), -1000) }
	other := func(s float64) sample.Container { return ofPod("other", old(s)) }
	f.answer(0, old(0), started(ctr("b", 0, 0), -1000), other(0))
	f.answer(15, old(15), other(15)) // b is remembered
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
	f.answer(20, old(20), other(20)) // may have been recreated
	f.wantNone(20, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
	f.answer(35, old(35), other(35))
	f.want(35, served{T: 35, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	f.RemovePod("ns", "p")
	f.answer(50, other(50)) // its kubelet had listed it once too often
	f.wantNone(50, unlisted)
}

// A StatefulSet's pod is recreated under its name after its node died.
func TestRule6ADeadNodeDoesNotClaimThePodsSuccessor(t *testing.T) {
	f := newFixture(t)
	f.answerFrom("dead", 0, started(ctr("a", 0, 0), -100))
	f.answerFrom("dead", 15, started(ctr("a", 15, 1), -100))
	f.RemovePod("ns", "p")
	if r := f.answerFrom("alive", 20, ctr("a", 20, 0)); r.Conflicts != nil { // of unknown start: it would lose
		t.Errorf("conflicts: %v", r.Conflicts)
	}
	f.answerFrom("alive", 35, ctr("a", 35, 3))
	f.wantNode(35, "alive")
}
