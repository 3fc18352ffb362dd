package store

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

var taken = regexp.MustCompile(`, taken \S+ ago`)

// Setting this server's wall clock forward or back, by any amount, changes nothing: not what is
// served, nor for how long, nor which node is trusted.
func TestTheServersWallClockIsSet(t *testing.T) {
	start := time.Now()
	// life is what a store says at moments that clock reads.
	life := func(clock func(time.Time) time.Time) (said []string) {
		s := New(Config{})
		at := func(seconds int) time.Time { return clock(start.Add(time.Duration(seconds) * time.Second)) }
		tell := func(node string, now int, cs ...sample.Container) {
			r := s.Record(node, &sample.Batch{Node: machine(float64(now), float64(now)), Containers: cs}, at(now))
			said = append(said, fmt.Sprintf("%d: %s: %+v", now, node, r))
		}
		look := func(now int) {
			var u sample.PodUsage
			n, hasNode := s.Node("n", at(now))
			hasPod := s.Pod("ns", "p", at(now), &u)
			n.Revision, u.Revision = 0, 0 // a revision is a time of day
			said = append(said, fmt.Sprintf("%d: %v %+v %s; %v %+v %s", now, hasNode, n, s.WhyNoNode("n", at(now)), hasPod, u,
				s.WhyNoPod("ns", "p", at(now))))
		}
		for now := 0; now <= 60; now += 15 {
			tell("n", now, ctr("a", float64(now), float64(now)))
			look(now + 1)
		}
		for _, now := range []int{90, 119, 121, 150} { // it expires after 60 s
			look(now)
		}
		tell("n", 160, ctr("a", 160, 160)) // a new epoch
		look(161)
		tell("m", 170, ctr("a", 170, 1)) // claims the pod, of which n has a newer start
		tell("n", 175, ctr("a", 175, 175))
		look(176)
		look(234)
		look(236)
		return said
	}
	want := life(func(t time.Time) time.Time { return t })
	const hour = 3600
	for name, by := range map[string]func(seconds int) int64{
		"forward once":              func(s int) int64 { return int64(min(1, s/50)) * hour },
		"back once":                 func(s int) int64 { return int64(min(1, s/50)) * -hour },
		"from 1970 to now":          func(s int) int64 { return int64(max(0, 1-s/50)) * -50 * 365 * 24 * hour },
		"by minutes, to and fro":    func(s int) int64 { return int64(s%7-3) * 600 },
		"by a second at every look": func(s int) int64 { return int64(s % 2) },
	} {
		got := life(func(m time.Time) time.Time { return sharedtest.SetClock(t, m, by(int(m.Sub(start)/time.Second))) })
		for i := range want {
			// The age of a sample depends on the wall clock, and nothing depends on the age.
			if taken.ReplaceAllString(got[i], "") != taken.ReplaceAllString(want[i], "") {
				t.Errorf("%s: says %s\nwant %s", name, got[i], want[i])
			}
		}
	}
}
