package schedule

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sharedtest"
)

func TestPhaseIsEvenlySpread(t *testing.T) {
	f := func(name string, format func(i int) string) {
		t.Helper()
		const nodes, slices = 15000, 100
		var count [slices]int
		p := plan{period}
		for i := range nodes {
			phase := p.phase(format(i), nodes)
			if phase < 0 || phase >= period {
				t.Fatalf("%s: phase %v", name, phase)
			}
			count[phase*slices/period]++
		}
		chi2 := 0.0
		for _, c := range count {
			d := float64(c) - nodes/slices
			chi2 += d * d / (nodes / slices)
		}
		if chi2 > 149 { // 99 degrees of freedom: exceeded by one hash of a thousand
			t.Errorf("%s: chi square %.0f, counts %v", name, chi2, count)
		}
	}
	nodes := names(15000)
	f("numbered", func(i int) string { return nodes[i] })
	f("addresses", func(i int) string {
		return "ip-10-0-" + string(rune('0'+i/250%10)) + "-" + nodes[i][5:] + ".eu-west-1.compute.internal"
	})
}

func TestPhaseIsStable(t *testing.T) {
	got := map[string]time.Duration{}
	for _, name := range []string{"", "node-a", "node-b"} {
		got[name] = plan{period}.phase(name, 15000)
	}
	// FNV-1a and the finaliser of MurmurHash3, computed apart. A change would move every node at an
	// upgrade.
	want := map[string]time.Duration{
		"": 14025 * time.Millisecond, "node-a": 4237500 * time.Microsecond, "node-b": 11925 * time.Millisecond,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Few nodes share slots too, and the phase of a node moves little when nodes are added.
func TestPhaseOfFewAndMany(t *testing.T) {
	const most = 100_000
	p := plan{period}
	for _, c := range []struct{ nodes, slots int }{
		{1, 5},
		{250, 5},
		{251, 10},
		{500, 10},
		{1000, 20},
		{2500, 50},
		{2501, 100},
		{5000, 100},
		{10000, 200},
		{15000, 400},
		{40000, 800},
	} {
		phases := map[time.Duration]bool{}
		distance := period / time.Duration(c.slots)
		for _, name := range names(15000) {
			phase := p.phase(name, c.nodes)
			phases[phase] = true
			if moves := p.phase(name, most) - phase; moves < 0 || moves >= distance {
				t.Errorf("%d nodes: the phase of %s is %v, and moves by %v when there are %d", c.nodes, name, phase, moves, most)
			}
			if phase%distance != 0 {
				t.Errorf("%d nodes: the phase of %s is %v, which is no multiple of %v", c.nodes, name, phase, distance)
			}
		}
		if len(phases) != c.slots {
			t.Errorf("%d nodes: %d phases, want %d", c.nodes, len(phases), c.slots)
		}
	}
}

func TestSlot(t *testing.T) {
	day := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	f := func(phase, earliest, want time.Duration) {
		t.Helper()
		if got := (plan{period}).slot(phase, day.Add(earliest)); !got.Equal(day.Add(want)) {
			t.Errorf("phase %v, not before %v: %v, want %v", phase, earliest, got.Sub(day), want)
		}
	}
	f(0, 0, 0)
	f(0, 1, period)
	f(4*time.Second, 0, 4*time.Second)
	f(4*time.Second, 4*time.Second, 4*time.Second)
	f(4*time.Second, 4*time.Second+1, 19*time.Second)
	f(4*time.Second, 100*time.Hour, 100*time.Hour+4*time.Second)
}

func TestRetryIsBoundedAndSpread(t *testing.T) {
	for _, r := range []time.Duration{time.Second, period, time.Minute} {
		p := plan{r}
		distinct := map[time.Duration]bool{}
		for _, name := range names(1000) {
			start := time.Unix(1e9, 0)
			for failures := 2; failures < 12; failures++ {
				d := p.retry(name, start, failures).Sub(start)
				longest := r * 11 / 6
				if failures == 2 {
					longest = r * 3 / 2
				}
				if d > longest || d <= longest-r/4 {
					t.Fatalf("period %v: try %v after failure %d", r, d, failures)
				}
				if again := p.retry(name, start, failures).Sub(start); again != d {
					t.Fatalf("the same failure is tried again after %v and %v", d, again)
				}
				distinct[d] = true
			}
		}
		if len(distinct) < 9900 {
			t.Errorf("period %v: only %d of 10000 tries are at times of their own", r, len(distinct))
		}
	}
}

// Setting this server's wall clock, during a scrape or between two, moves the next scrape by less than
// a period.
func TestTheWallClockIsSet(t *testing.T) {
	p := plan{period}
	started := time.Now()
	for _, by := range []int64{0, 1, -1, 7, -7, 3600, -3600, 1_000_000_000, -1_000_000_000} {
		for took := range 20 {
			now := sharedtest.SetClock(t, started.Add(time.Duration(took)*time.Second), by)
			for _, n := range []*entry{
				{name: "settled", status: TargetStatus{Settled: true}},
				{name: "fresh", firstSuccess: started},
				{name: "failed once", status: TargetStatus{Failures: 1}},
				{name: "failed once, was settled", status: TargetStatus{Failures: 1, Settled: true}},
				{name: "fails", status: TargetStatus{Failures: 5}},
			} {
				next := p.next(n, 1, followUps, started, now)
				if wait := next.Sub(now); wait < 0 || wait > 2*period {
					t.Errorf("%s, set by %d s after %d s: next after %v", n.name, by, took, wait)
				}
				wait := next.Sub(sharedtest.SetClock(t, started, -by))
				if wait < p.gap() || wait > time.Duration(took)*time.Second+2*period {
					t.Errorf("%s, set by %d s and then by %d s: next after %v", n.name, by, -by, wait)
				}
			}
		}
	}
}

// A follow-up is skipped if it is due right after another scrape.
func TestFollowUpsAreApart(t *testing.T) {
	p := plan{period}
	first := time.Now()
	for asked, want := range map[time.Duration]time.Duration{
		0:                                   followUps[0],
		followUps[1] - 490*time.Millisecond: followUps[2],
		followUps[1] - 510*time.Millisecond: followUps[1],
		followUps[3]:                        followUps[4],
	} {
		started := first.Add(asked)
		e := &entry{name: "n", firstSuccess: first}
		if got := p.next(e, 1, followUps, started, started.Add(20*time.Millisecond)).Sub(first); got != want {
			t.Errorf("after a scrape at %v the next is at %v, want %v", asked, got, want)
		}
	}
}
