package measure

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"metrics-server/hack/fleet/truth"
)

// SoakReport is the result of a soak.
type SoakReport struct {
	Options
	Took        time.Duration
	Interrupted bool   // before the end
	Broken      string // what ended it before the end; empty if nothing did

	Changes int            // of pods
	Gone    int            // pods of nodes that left
	Joined  int            // nodes that left and joined
	Faults  map[string]int // the number of faults of each kind
	Verdict truth.Verdict
	Ages    []time.Duration // of what was served of nodes without faults

	Before, After Holding // what the binary held
}

// Holding is what a process keeps in memory.
type Holding struct {
	Heap, RSS  int64 // bytes
	Goroutines int64
	Files      int64
	Series     int64 // of /metrics
	Stale      int64 // of those, that name nodes that left
	Samples    int64 // metrics_server_storage_points
}

// growth is one quantity of a Holding, and how much it may grow without being a leak.
type growth struct {
	name          string
	before, after int64
	most          int64
}

// growths returns how much each quantity may grow. The clusters before and after have the same
// size, but different nodes and pods.
func (r *SoakReport) growths() []growth {
	return growths(&r.Before, &r.After, r.full())
}

// growths returns how much each quantity may grow, up to a number of samples.
func growths(b, a *Holding, samples int64) []growth {
	return []growth{
		{"live heap, bytes", b.Heap, a.Heap, 2<<20 + b.Heap/50},
		{"RSS, bytes", b.RSS, a.RSS, 32<<20 + b.RSS/5}, // freed memory goes back to the kernel late
		{"goroutines", b.Goroutines, a.Goroutines, 5},
		{"open files", b.Files, a.Files, 5},
		{"metric series", b.Series, a.Series, 30}, // for requests of kinds that did not occur before
		{"series of nodes gone", b.Stale, a.Stale, 0},
		{"samples", b.Samples, a.Samples, samples - b.Samples},
	}
}

// full is the maximum number of samples: four per container and node. At the beginning there may be fewer.
func (r *SoakReport) full() int64 { return int64(4 * r.Nodes * (1 + r.Pods*r.Containers)) }

// leaks returns the quantities that grew too much.
func (r *SoakReport) leaks() []string { return leaks(r.growths()) }

func leaks(growths []growth) []string {
	var all []string
	for _, g := range growths {
		if g.after-g.before > g.most {
			all = append(all, fmt.Sprintf("%s: grew from %d to %d, at most %d more is expected", g.name, g.before, g.after,
				g.most))
		}
	}
	return all
}

// finished reports whether the soak ran to its end; only then is it known what leaked.
func (r *SoakReport) finished() bool { return !r.Interrupted && r.Broken == "" }

// OK reports whether the soak ran to its end, all answers were right and nothing leaked.
func (r *SoakReport) OK() bool {
	return r.finished() && r.Verdict.OK() && r.Verdict.Numbers > 0 && len(r.leaks()) == 0
}

// Write writes the report as text.
func (r *SoakReport) Write(w io.Writer) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-20s "+format+"\n", append([]any{name}, args...)...)
	}
	faults := 0
	for _, n := range r.Faults {
		faults += n
	}
	ages := durations(r.Ages)
	fmt.Fprintf(&b, "Soak of %d nodes with %d pods of %d containers, resolution %v, for %v\n",
		r.Nodes, r.Pods, r.Containers, r.Resolution, r.Took.Round(time.Second))
	line("pod changes", "%d, %g per second: restarts, deletions and starts; %d more on nodes that left",
		r.Changes, r.Churn, r.Gone)
	line("nodes", "%d left and rejoined, half of them under another name", r.Joined)
	line("faults", "%d of %d kinds, on %d %% of the nodes at a time: %s",
		faults, len(r.Faults), r.Faulty, strings.Join(slices.Sorted(maps.Keys(r.Faults)), ", "))
	line("lists checked", "%d, with %d numbers", r.Verdict.Lists, r.Verdict.Numbers)
	line("wrong", "%d", r.Verdict.Wrong)
	line("too low, by rule 3", "%d", r.Verdict.Understated)
	line("missing", "%d", r.Verdict.Missing)
	line("age, healthy nodes", "p50 %.1f s, p99 %.1f s", ages.quantile(0.5).Seconds(), ages.quantile(0.99).Seconds())
	if r.finished() {
		for _, g := range r.growths() {
			line(g.name, "%d -> %d", g.before, g.after)
		}
	}
	for _, e := range r.Verdict.Examples {
		fmt.Fprintf(&b, "WRONG: %s\n", e)
	}
	if r.finished() {
		for _, l := range r.leaks() {
			fmt.Fprintf(&b, "LEAK: %s\n", l)
		}
	}
	switch {
	case r.Interrupted:
		fmt.Fprintln(&b, "Interrupted before the check for leaks.")
	case r.OK():
		fmt.Fprintln(&b, "Every number served was right, and nothing leaked.")
	case r.Broken != "":
		fmt.Fprintf(&b, "FAILED before the end: %s\n", r.Broken)
	default:
		fmt.Fprintln(&b, "FAILED.")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
