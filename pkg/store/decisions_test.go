package store

import (
	"testing"
	"time"

	"metrics-server/pkg/sample"
)

// The tests of this file are named after the decisions of docs/semantics.md.

func TestDecisionAFourSamplesAreEnoughHoweverOftenTheyCome(t *testing.T) {
	for _, every := range []float64{0.1, 1, 2.5, 4.9, 5, 7, 14.9, 15, 40} {
		f := newFixture(t)
		for s := 0.0; s < 300; s += every {
			f.answer(s, ctr("a", s, s/4))
			u, ok := f.get(s)
			if s < 5 {
				continue
			}
			if !ok || u.Time != ms(s) {
				t.Fatalf("every %v s: at %v: served %v, timestamp %v", every, s, ok, u.Time-ms(0))
			}
			// A usage does not look back further than necessary.
			if most := 15 + 2*max(every, 5); u.Window.Seconds() > most || s > 30 && u.Window.Seconds() < 10 {
				t.Fatalf("every %v s: at %v: window %v", every, s, u.Window)
			}
		}
	}
}

func TestDecisionBThePreviousUsageOfTheEpochStays(t *testing.T) {
	f := newFixture(t)
	f.answer(40, started(ctr("a", 40, 10), 0))
	w := served{T: 40, Window: 40, Milli: 250, MiB: 10, Names: "a"}
	f.want(40, w)
	f.answer(43, started(ctr("a", 43, 20), 0)) // only 3 s after its only older sample
	f.want(43, w)
}

func TestDecisionCAContainerThatVanishedIsNotServedButRemembered(t *testing.T) {
	f := newFixture(t)
	old := func(name string, s, cpu float64) sample.Container { return started(ctr(name, s, cpu), -1000) }
	f.answer(0, old("a", 0, 0), old("b", 0, 0))
	f.answer(15, old("a", 15, 1.5), old("b", 15, 3))
	f.answer(30, old("a", 30, 3))
	f.want(30, served{T: 30, Window: 15, Milli: 100, MiB: 10, Names: "a"})
	f.answer(45)
	f.wantNone(45, unlisted+idle(1, "n"))
	f.answer(60, old("a", 60, 6), old("b", 60, 12))
	f.want(60, served{T: 60, Window: 30, Milli: 300, MiB: 20, Names: "ab"})

	f.answer(61, old("b", 61, 12))
	for s := 75.0; s <= 120; s += 15 {
		f.answer(s)
	}
	if _, n := f.Points(); n == 0 {
		t.Error("forgotten within a minute")
	}
	f.answer(121.001)
	if _, n := f.Points(); n != 0 {
		t.Errorf("%d samples are still stored", n)
	}
	f.answer(122, old("a", 122, 12))
	f.wantNone(122, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at `+
		`least 5s apart`)
}

func TestDecisionCWhatComesBackWithALaterStartIsAnotherContainer(t *testing.T) {
	f := newFixture(t)
	f.answer(0, started(ctr("a", 0, 0.1), -100))
	f.answer(15, started(ctr("a", 15, 0.2), -100))
	f.answer(30)
	f.answer(45, started(ctr("a", 45, 5), 35)) // its counter is higher, as its predecessor did little
	f.want(45, served{T: 45, Window: 10, Milli: 500, MiB: 10, Names: "a"})
}

// Without a start time nothing would distinguish it from the next container of its name.
func TestDecisionCAStartThatTheCounterContradictsIsNotAnotherContainer(t *testing.T) {
	f := fixture{t, New(Config{Capacity: capacity(4, 1024)})}
	f.answer(0, started(ctr("a", 0, 3600), -1000))
	f.answer(15, started(ctr("a", 15, 3601.5), -1000))
	f.answer(30)
	f.answer(45, started(ctr("a", 45, 3604.5), 44))
	f.want(45, served{T: 45, Window: 30, Milli: 100, MiB: 10, Names: "a"})
}

func TestDecisionCAContainerOfUnknownStartIsNotRemembered(t *testing.T) {
	f := newFixture(t)
	f.answer(0, ctr("a", 0, 1))
	f.answer(15)
	f.answer(30, ctr("a", 30, 2))
	f.wantNone(30, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
}

func TestDecisionDARingStartsAgainWhenItsNewestSampleExpired(t *testing.T) {
	f := newFixture(t)
	f.answer(0, ctr("a", 3000, 0), ctr("b", 0, 0)) // the clock of a's stats is ahead, and then set back
	f.answer(15, ctr("a", 3015, 3), ctr("b", 15, 0))
	for s := 30.0; s <= 75; s += 15 {
		if r := f.answer(s, ctr("a", s, s/5), ctr("b", s, 0)); r.Refused[sample.TimestampOld] != 1 {
			t.Errorf("at %v: %d refused, want 1", s, r.Refused[sample.TimestampOld])
		}
		f.want(s, served{T: s, Window: 15, Milli: 200, MiB: 20, Names: "ab"}.since(3015))
	}
	f.wantNone(76, `the last valid sample of container "a" on node "n" was received 1m1s `+
		`ago`+refusedAs(sample.TimestampOld))
	f.answer(90, ctr("a", 90, 18), ctr("b", 90, 0))
	f.wantNone(90, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
	f.answer(105, ctr("a", 105, 21), ctr("b", 105, 0))
	f.want(105, served{T: 105, Window: 15, Milli: 200, MiB: 20, Names: "ab"})
}

// since is w with the timestamp of whichever is older, itself or t.
func (w served) since(t float64) served {
	w.T = min(w.T, t)
	return w
}

func TestDecisionDANodeThatWasSilentStartsAgain(t *testing.T) {
	f := newFixture(t)
	for s := 0.0; s <= 15; s += 15 {
		b := batchOf(ctr("a", s, s))
		b.Node = machine(s, s)
		f.Record("n", b, at(s))
	}
	b := batchOf(ctr("a", 76, 60))
	b.Node = machine(76, 60)
	f.Record("n", b, at(76))
	f.wantNone(76, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
	if got, want := f.WhyNoNode("n",
		at(80)), "the node has one sample so far, taken 4s ago: a usage needs two that are at least 5s apart"; got != want {
		t.Errorf("why: got %q, want %q", got, want)
	}
}

// A repeated sample is accepted for a while. After that it counts as refused, and by rule 5 it is
// served for as long again as any other.
func TestDecisionFARepeatedSampleIsServedForFiveMinutes(t *testing.T) {
	f := newFixture(t)
	tell := func(s, taken, cpu float64) sample.Refusals {
		b := batchOf(started(ctr("a", taken, cpu), -20))
		b.Node = machine(taken, cpu)
		return f.Record("n", b, at(s)).Refused
	}
	tell(0, 0, 0)
	for s := 12.0; s <= 312; s += 12 {
		refused := tell(s, 10, 1)
		if want := 2 * min(int(max(s-252, 0)), 1); refused[sample.Frozen] != want || refused.Total() != want {
			t.Fatalf("at %v: refused %v, want %d", s, &refused, want)
		}
		f.want(s, served{T: 10, Window: 10, Milli: 100, MiB: 10, Names: "a"})
		if _, ok := f.Node("n", at(s)); !ok {
			t.Fatalf("at %v: node is not served", s)
		}
	}
	// It does not come back as the first sample of a container that has just started.
	for s := 313.0; s <= 1000; s += 12 {
		tell(s, 10, 1)
		f.wantNone(s, `the last valid sample of container "a" on node "n" was received `+
			``+round(at(s).Sub(at(252))).String()+" ago"+refusedAs(sample.Frozen))
		if got, want := f.WhyNoNode("n",
			at(s)), "the last valid sample of the node was received "+
			""+round(at(s).Sub(at(252))).String()+" ago"+refusedAs(sample.Frozen); got != want {
			t.Fatalf("at %v: why: %q, want %q", s, got, want)
		}
	}
	tell(1000, 1000, 100)
	tell(1010, 1010, 102)
	f.want(1010, served{T: 1010, Window: 10, Milli: 200, MiB: 10, Names: "a"})
}

// A kubelet may repeat a sample whose counter has slipped. The usage before it must then expire as usual.
func TestDecisionFARepeatedSampleThatSlipped(t *testing.T) {
	f := newFixture(t)
	f.answer(0, ctr("a", 0, 0))
	f.answer(15, ctr("a", 15, 3))
	for s := 30.0; s <= 315; s += 15 {
		r := f.answer(s, ctr("a", 30, 2.99))
		if want := min(int(max(s-255, 0)), 1); r.Refused[sample.Frozen] != want {
			t.Fatalf("at %v: %d refused as frozen, want %d", s, r.Refused[sample.Frozen], want)
		}
		f.want(s, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	}
	f.answer(330, ctr("a", 30, 2.99))
	f.wantNone(330, `container "a" on node "n" has one sample so far, taken 5m0s ago: a usage needs two that are at `+
		`least 5s apart`)
}

// A window across the jump would be 75 s long, with the CPU time of 15.
func TestDecisionIAClockThatIsSetForward(t *testing.T) {
	f := newFixture(t)
	f.answer(0, started(ctr("a", 0, 0), -300))
	f.answer(15, started(ctr("a", 15, 3), -300))
	f.want(15, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	f.answer(30, started(ctr("a", 90, 6), -300))
	f.want(30, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	f.answer(45, started(ctr("a", 105, 9), -300))
	f.want(45, served{T: 105, Window: 15, Milli: 200, MiB: 10, Names: "a"})
}

// A kubelet that samples once a minute and is asked four times as often has a clock like any other.
func TestDecisionIRareSamplesAreNoJump(t *testing.T) {
	f := newFixture(t)
	for s := 20.0; s < 200; s += 15 {
		last := float64(int(s) / 60 * 60)
		f.answer(s, ctr("a", last, last/5))
	}
	f.want(199, served{T: 180, Window: 60, Milli: 200, MiB: 10, Names: "a"})
}

// A node whose clock jumps all the time has no usage, instead of an old one for ever.
func TestDecisionIAClockThatIsSetAgainAndAgain(t *testing.T) {
	f := newFixture(t)
	f.answer(0, ctr("a", 0, 0))
	f.answer(15, ctr("a", 15, 3))
	f.answer(30, ctr("a", 100, 6))
	f.want(30, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	f.answer(45, ctr("a", 200, 9))
	f.wantNone(45, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
}

// A window across the jump would be 5 s long, with the CPU time of 30.
func TestDecisionIAClockThatIsSetBack(t *testing.T) {
	f := newFixture(t)
	f.answer(0, started(ctr("a", 0, 0), -300))
	f.answer(15, started(ctr("a", 15, 3), -300))
	if r := f.answer(30, started(ctr("a", 10, 6), -300)); r.Refused[sample.TimestampOld] != 1 {
		t.Errorf("%d samples refused, want 1", r.Refused[sample.TimestampOld])
	}
	f.answer(45, started(ctr("a", 25, 9), -300))
	f.want(45, served{T: 15, Window: 15, Milli: 200, MiB: 10, Names: "a"})
	f.answer(60, started(ctr("a", 40, 12), -300))
	f.want(60, served{T: 40, Window: 15, Milli: 200, MiB: 10, Names: "a"})
}

// The start was reported by the other clock.
func TestDecisionIAStartFromBeforeTheJumpIsNoZero(t *testing.T) {
	f := newFixture(t)
	f.answer(0, started(ctr("a", 0, 0), 0))
	f.answer(4, started(ctr("a", 45, 1), 0))
	f.wantNone(4, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
}

// The clock was 2 minutes fast when the container started, and was set back a minute later. The start time is still
// that of the fast clock when its samples have expired: a window from there would be 12 s long, with 132 s of CPU.
func TestDecisionIAStartFromBeforeTheClockWasSetBackIsNoZero(t *testing.T) {
	f := newFixture(t)
	f.answer(0, started(ctr("a", 60, 60), 0))
	for s := 15.0; s <= 60; s += 15 {
		if r := f.answer(s, started(ctr("a", s-60, 60+s), 0)); r.Refused[sample.TimestampOld] != 1 {
			t.Errorf("at %v: %d samples refused, want 1", s, r.Refused[sample.TimestampOld])
		}
	}
	f.answer(75, started(ctr("a", 12, 132), 0))
	f.wantNone(75, `container "a" on node "n" has one sample so far, taken 1m3s ago: a usage needs two that are at least `+
		`5s apart`)
	f.answer(90, started(ctr("a", 27, 147), 0))
	f.want(90, served{T: 27, Window: 15, Milli: 1000, MiB: 10, Names: "a"})
}

// A scrape that failed, or a sample that was old when it came, is no jump.
func TestDecisionIALongWindowIsNoJump(t *testing.T) {
	f := newFixture(t)
	f.answer(20, ctr("a", 0, 0))
	f.answer(35, ctr("a", 0, 0))
	f.answer(65, ctr("a", 60, 12)) // 60 s later, received 30 s later
	f.want(65, served{T: 60, Window: 60, Milli: 200, MiB: 10, Names: "a"})
	f.answer(120, ctr("a", 120, 24))
	f.want(120, served{T: 120, Window: 60, Milli: 200, MiB: 10, Names: "a"})
}

func TestDecisionHANodeIsServedThoughAnAnswerLacksIt(t *testing.T) {
	s := New(Config{})
	if got, want := s.WhyNoNode("n", at(0)), "its kubelet has not answered yet"; got != want {
		t.Errorf("why: got %q, want %q", got, want)
	}
	s.Record("n", &sample.Batch{}, at(0))
	if got, want := s.WhyNoNode("n",
		at(0)), "its kubelet answers, but without the node's own CPU and memory"; got != want {
		t.Errorf("why: got %q, want %q", got, want)
	}
	s.Record("n", &sample.Batch{Node: machine(1, 1)}, at(1))
	s.Record("n", &sample.Batch{Node: machine(11, 2)}, at(15))
	for _, given := range []sample.Fields{0, sample.CPU, sample.Memory} {
		s.Record("n", &sample.Batch{Node: sample.Sample{Time: ms(30), Given: given, CPU: 9}}, at(30))
		if u, ok := s.Node("n", at(75)); !ok || u.Time != ms(11) || s.WhyNoNode("n", at(75)) != "" {
			t.Errorf("given %b: served %v, %+v", given, ok, u)
		}
	}
	if got, want := s.WhyNoNode("n", at(80)), "the last sample of the node was received 1m5s ago"; got != want {
		t.Errorf("why: got %q, want %q", got, want)
	}
}

func TestSettled(t *testing.T) {
	old := func(name string, s float64) sample.Container { return started(ctr(name, s, s), -300) }
	young := func(name string, s float64) sample.Container { return started(ctr(name, s, 0), s-2) }
	type list = []sample.Container
	for name, c := range map[string]struct {
		first, second list
		noNode        bool
		want          bool
	}{
		"every usage is there": {first: list{old("a", 0)}, second: list{old("a", 15)}, want: true},
		"no pods":              {want: true},
		"an answer without the node's own": {
			first: list{old("a", 0)}, second: list{old("a", 15)}, noNode: true,
			want: true,
		},
		"and an old container without usage": {second: list{old("a", 15)}, noNode: true},
		"and a young one":                    {second: list{young("a", 15)}, noNode: true, want: true},
		"an old container without usage":     {first: list{old("a", 0)}, second: list{old("a", 15), old("b", 15)}},
		"of unknown start":                   {second: list{ctr("a", 15, 0)}},
		"a young pod does not count":         {second: list{young("a", 15)}, want: true},
		"nor one with a young container":     {second: list{old("a", 15), young("b", 15)}, want: true},
		"but its neighbours do": {second: list{
			ofPod("o", old("a", 15)), young("b", 15),
			ofPod("q", young("a", 15)),
		}},
		"several young pods":                    {second: list{young("a", 15), ofPod("q", young("a", 15))}, want: true},
		"and those after it":                    {second: list{young("b", 15), ofPod("q", old("a", 15))}},
		"a container that ended does not count": {second: list{given(old("a", 15), sample.Start)}, want: true},
		"nor one that vanished":                 {first: list{old("a", 0)}, want: true},
		"a part is missing":                     {first: list{old("a", 0)}, second: list{given(old("a", 15), sample.CPU)}},
		"a minute old":                          {second: list{started(ctr("a", 15, 0), -45), old("b", 15)}, want: true},
		"more than a minute old":                {second: list{started(ctr("a", 15, 0), -45.001), old("b", 15)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{})
			var r Report
			for i, cs := range []list{c.first, c.second} {
				b := batchOf(cs...)
				if !c.noNode {
					b.Node = machine(float64(15*i), 0)
				}
				r = s.Record("n", b, at(float64(15*i)))
			}
			if r.Settled != c.want {
				t.Errorf("settled: %v, want %v", r.Settled, c.want)
			}
		})
	}
}

func TestSettledWaitsForTheNodesOwnUsage(t *testing.T) {
	s := New(Config{})
	for i, want := range []bool{false, true} {
		now := float64(15 * i)
		if r := s.Record("n", &sample.Batch{Node: machine(now, now)}, at(now)); r.Settled != want {
			t.Errorf("answer %d: settled: %v, want %v", i, r.Settled, want)
		}
	}
}

// Moments of one process carry a clock that setting the wall clock does not move; it must not be dropped.
func TestTheMonotonicClockIsKept(t *testing.T) {
	s := New(Config{})
	now := time.Now()
	s.Record("n", &sample.Batch{}, now)
	//nolint:staticcheck // Equal would not see what Round drops
	if kept := s.node("n").born; kept != now || kept == now.Round(0) {
		t.Error("the monotonic clock reading is lost")
	}
}
