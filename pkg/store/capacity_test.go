package store

import (
	"math"
	"testing"

	"metrics-server/pkg/sample"
)

// No usage exceeds what the node has, whatever its kubelet says.
func TestRule9CPUBeyondTheNodesIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		capacity sample.Capacity
		cpu      float64 // used in the 10 s before the last sample
		milli    int64   // 0: refused
	}{
		"all that there is":            {sample.Capacity{CPU: 4e9}, 40, 4000},
		"a second of imprecision":      {sample.Capacity{CPU: 4e9}, 44, 4000},
		"more":                         {sample.Capacity{CPU: 4e9}, 44.001, 0},
		"half a CPU":                   {sample.Capacity{CPU: 5e8}, 5.501, 0},
		"unknown capacity":             {sample.Capacity{}, 300, 30_000},
		"unknown capacity, absurd":     {sample.Capacity{}, 1e6, 0},
		"absurd capacity":              {sample.Capacity{CPU: math.MaxInt64}, 1e6, 100_000_000},
		"a capacity that rounds to 0":  {sample.Capacity{CPU: 1}, 1, 0},
		"only the memory is known":     {sample.Capacity{Memory: 1 << 40}, 300, 30_000},
		"as much as a counter can say": {sample.Capacity{CPU: 4e9}, 9e9, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := fixture{t, New(Config{Capacity: func(string) sample.Capacity { return c.capacity }})}
			say := func(s, cpu float64) Report {
				b := batchOf(ctr("a", s, cpu))
				b.Node = machine(s, cpu)
				return f.Record("n", b, at(s))
			}
			say(0, 100)
			say(10, 100)
			refused := 0
			if c.milli == 0 {
				refused = 2
			}
			for range 2 { // the same again is not counted again
				if r := say(20, 100+c.cpu); r.Refused[sample.OverCapacity] != refused || r.Refused.Total() != refused {
					t.Errorf("refused %v, want %d", &r.Refused, refused)
				}
				refused = 0
			}
			w := served{T: 20, Window: 10, Milli: c.milli, MiB: 10, Names: "a"}
			if c.milli == 0 {
				w.T = 10 // the last usage
			}
			f.want(20, w)
			if u, ok := f.Node("n", at(20)); !ok || int64(u.CPU/1e6) != c.milli {
				t.Errorf("node is served %v with %+v", ok, u)
			}
			if c.milli == 0 { // and the next plausible one is served
				say(30, 100)
				f.want(30, served{T: 30, Window: 20, MiB: 10, Names: "a"})
			}
		})
	}
}

func TestRule9ACounterThatStaysBeyondIsAnotherOne(t *testing.T) {
	f := fixture{t, New(Config{Capacity: capacity(4, 1024)})}
	f.answer(0, ctr("a", 0, 100))
	f.answer(10, ctr("a", 10, 101))
	before := served{T: 10, Window: 10, Milli: 100, MiB: 10, Names: "a"}
	f.answer(20, ctr("a", 20, 1e6))
	f.want(20, before)
	f.answer(30, ctr("a", 30, 1e6+2))
	f.want(30, served{T: 30, Window: 10, Milli: 200, MiB: 10, Names: "a"})
}

// A container whose counter never has a possible value has no usage.
func TestRule9ACounterWithoutReasonExpires(t *testing.T) {
	f := fixture{t, New(Config{Capacity: capacity(4, 1024)})}
	f.answer(0, ctr("a", 0, 100))
	f.answer(10, ctr("a", 10, 101))
	for s := 20.0; s <= 70; s += 10 {
		f.answer(s, ctr("a", s, math.Mod(s, 20)*1e5+s*1e4))
		f.want(s, served{T: 10, Window: 10, Milli: 100, MiB: 10, Names: "a"})
	}
	f.wantNone(71, `the last valid sample of container "a" on node "n" was received 1m1s `+
		`ago`+refusedAs(sample.OverCapacity))
}

func TestRule9AStartThatTheCounterContradictsIsNoZero(t *testing.T) {
	f := fixture{t, New(Config{Capacity: capacity(4, 1024)})}
	if r := f.answer(0, started(ctr("a", 0, 3600), -12)); r.Refused.Total() != 0 {
		t.Errorf("refused %v: a start is not a usage", &r.Refused)
	}
	f.wantNone(0, `container "a" on node "n" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
	f.answer(10, started(ctr("a", 10, 3601), -12))
	f.want(10, served{T: 10, Window: 10, Milli: 100, MiB: 10, Names: "a"})
}

func TestRule9MemoryBeyondTheNodesIsRefused(t *testing.T) {
	f := fixture{t, New(Config{Capacity: capacity(4, 1000)})}
	say := func(s float64, memory uint64) Report {
		c, own := ctr("a", s, s), machine(s, s)
		c.Memory, own.Memory = memory*mib, memory*mib
		return f.Record("n", &sample.Batch{Node: own, Containers: []sample.Container{c}}, at(s))
	}
	memory := func(s float64, want uint64) {
		t.Helper()
		f.want(s, served{T: s, Window: 15, Milli: 1000, MiB: want, Names: "a"})
		if u, ok := f.Node("n", at(s)); !ok || u.Memory != want*mib {
			t.Errorf("node is served %v with %+v", ok, u)
		}
	}
	say(0, 10)
	say(15, 1000)
	memory(15, 1000)
	say(30, 1100) // a tenth more: it is full
	memory(30, 1000)
	if r := say(45, 1101); r.Refused[sample.OverCapacity] != 2 {
		t.Errorf("refused %v, want 2", &r.Refused)
	}
	f.want(45, served{T: 30, Window: 15, Milli: 1000, MiB: 1000, Names: "a"})
	say(60, 20)
	f.want(60, served{T: 60, Window: 30, Milli: 1000, MiB: 20, Names: "a"})
}

// CPUs and memory can be added to a running machine.
func TestRule9TheCapacityIsFollowed(t *testing.T) {
	has := sample.Capacity{CPU: 1e9, Memory: 5 * mib}
	f := fixture{t, New(Config{Capacity: func(string) sample.Capacity { return has }})}
	f.answer(0, ctr("a", 0, 0))
	if r := f.answer(10, ctr("a", 10, 20)); r.Refused[sample.OverCapacity] != 1 {
		t.Errorf("refused %v, want one", &r.Refused)
	}
	f.wantNone(10, `container "a" on node "n" has no valid sample yet`+refusedAs(sample.OverCapacity))
	has = sample.Capacity{CPU: 8e9, Memory: 50 * mib}
	f.answer(20, ctr("a", 20, 40))
	f.answer(30, ctr("a", 30, 60))
	f.want(30, served{T: 30, Window: 10, Milli: 2000, MiB: 10, Names: "a"})
}
