package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// The revision of a usage, or of its absence, changes exactly when what is served does.
func TestRevisionsOfUsages(t *testing.T) {
	var unlisted []string
	clock := revision.NewClock(at(0))
	s := New(Config{Clock: clock, OnPodUnlisted: func(namespace, name string) {
		unlisted = append(unlisted, namespace+"/"+name)
	}})
	var pod, node sample.Revision
	step := func(now float64, what string, podChanges, nodeChanges bool, b *sample.Batch) {
		t.Helper()
		before := clock.Last()
		if b != nil {
			s.Record("n", b, at(now))
		}
		var u sample.PodUsage
		s.Pod("ns", "p", at(now), &u)
		n, _ := s.Node("n", at(now))
		fresh := b == nil || u.Revision == 0 || u.Revision > before
		if changed := u.Revision != pod; changed != podChanges || changed && !fresh {
			t.Errorf("%s: revision of the pod changes from %d to %d, want a change: %v", what, pod, u.Revision, podChanges)
		}
		if changed := n.Revision != node; changed != nodeChanges || changed && b != nil && n.Revision <= before {
			t.Errorf("%s: revision of the node changes from %d to %d, want a change: %v", what, node, n.Revision, nodeChanges)
		}
		pod, node = u.Revision, n.Revision
	}
	answer := func(own sample.Sample, containers ...sample.Container) *sample.Batch {
		return &sample.Batch{Node: own, Containers: containers}
	}
	step(1, "nothing yet", false, false, nil)
	step(10, "the first sample", true, true, answer(machine(5, 1), ctr("a", 5, 1)))
	step(25, "a usage", true, true, answer(machine(20, 2), ctr("a", 20, 2)))
	step(40, "the same samples", false, false, answer(machine(20, 2), ctr("a", 20, 2)))
	step(41, "a look", false, false, nil)
	step(55, "a new sample of the pod only", true, false, answer(machine(20, 2), ctr("a", 50, 3)))
	step(70, "another container", true, false, answer(machine(20, 2), ctr("a", 50, 3), ctr("b", 66, 1)))
	step(85, "which vanishes", true, true, answer(machine(80, 5), ctr("a", 50, 3)))
	step(140, "a look before it expires", false, false, nil)
	step(150, "both have expired", true, true, nil)
	step(155, "as before", false, false, nil)
	if lost := pod.Time(); lost != sample.TimeOf(at(145)) {
		t.Errorf("lost at %v, want %v", lost.Std(), at(145))
	}
	step(170, "the kubelet lists nothing", true, true, answer(machine(165, 6)))
	if len(unlisted) != 1 || unlisted[0] != "ns/p" {
		t.Errorf("unlisted: %q, want the pod, once", unlisted)
	}

	zero := ctr("b", 0, 0)
	zero.Memory = 0
	step(180, "two containers", true, true, answer(machine(175, 7), ctr("a", 175, 5), ctr("b", 175, 5)))
	step(195, "both have a usage", true, true, answer(machine(190, 8), ctr("a", 190, 6), ctr("b", 190, 6)))
	step(210, "one ends", true, false, answer(machine(190, 8), ctr("a", 190, 6), zero))
	step(225, "as before", false, false, answer(machine(190, 8), ctr("a", 190, 6), zero))

	step(235, "a newer usage", true, false, answer(machine(190, 8), started(ctr("a", 233, 20), 1), zero))
	step(240, "it restarts", true, false, answer(machine(190, 8), started(ctr("a", 239, 0.5), 237), zero))
	step(245, "once more, still without a usage", false, false,
		answer(machine(190, 8), started(ctr("a", 244, 0.4), 242), zero))

	step(400, "silent for long, and then without rows of the node", true, true,
		answer(sample.Sample{}, ctr("a", 400, 60)))
	step(415, "as before", false, false, answer(sample.Sample{}, ctr("a", 400, 60)))
}

// Containers that come and go change their own pod only.
func TestRevisionsOfOtherPods(t *testing.T) {
	f := newFixture(t)
	sampled := func(pod, name string, at float64) sample.Container {
		return started(ofPod(pod, ctr(name, at, at)), -50)
	}
	p, q, more, other := sampled("p", "a", 15), sampled("q", "a", 15), sampled("q", "b", 1), sampled("o", "a", 1)
	f.answer(1, sampled("p", "a", 1), sampled("q", "a", 1))
	f.answer(15, p, q)
	var was [2]sample.PodUsage
	f.Pod("ns", "p", at(15), &was[0])
	f.Pod("ns", "q", at(15), &was[1])
	for _, tc := range []struct {
		name    string
		now     float64
		lists   []sample.Container
		changes bool // of q
	}{
		{"another pod comes", 20, []sample.Container{other, p, q}, false},
		{"it leaves", 25, []sample.Container{p, q}, false},
		{"the order changes", 30, []sample.Container{q, p}, false},
		{"another container comes", 35, []sample.Container{q, more, p}, true},
		{"it vanishes", 40, []sample.Container{q, p}, true},
		{"it comes back", 45, []sample.Container{q, more, p}, true},
		{"it vanishes again", 50, []sample.Container{q, p}, true},
		{"the other pod is forgotten", 85, []sample.Container{q, p}, false},
		{"so is the other container", 120, []sample.Container{q, p}, false},
	} {
		f.answer(tc.now, tc.lists...)
		var is [2]sample.PodUsage
		if !f.Pod("ns", "p", at(tc.now), &is[0]) || is[0].Revision != was[0].Revision {
			t.Errorf("%s: revision of p changes from %d to %d", tc.name, was[0].Revision, is[0].Revision)
		}
		served := f.Pod("ns", "q", at(tc.now), &is[1])
		if !served || is[1].Revision > was[1].Revision != tc.changes || is[1].Revision < was[1].Revision {
			t.Errorf("%s: revision of q changes from %d to %d, want a change: %v (served: %v)",
				tc.name, was[1].Revision, is[1].Revision, tc.changes, served)
		}
		was = is
	}
}

// The revision of an expiry is higher than all that a client can have reached while there was a usage,
// even if many changes have let revisions run ahead of the time.
func TestRevisionsOfExpiry(t *testing.T) {
	for _, changes := range []int{1, 500_000} {
		clock := revision.NewClock(at(0))
		s := New(Config{Clock: clock})
		s.Record("n", &sample.Batch{Node: machine(5, 1), Containers: []sample.Container{ctr("a", 5, 1)}}, at(5))
		s.Record("n", &sample.Batch{Node: machine(20, 2), Containers: []sample.Container{ctr("a", 20, 2)}}, at(20))
		var known sample.Revision
		for range changes {
			known = clock.Next(at(80))
		}
		var u sample.PodUsage
		if _, ok := s.Node("n", at(80)); !ok || !s.Pod("ns", "p", at(80), &u) {
			t.Fatal("there is no usage")
		}
		now := at(80).Add(time.Microsecond)
		n, node := s.Node("n", now)
		if pod := s.Pod("ns", "p", now, &u); node || pod {
			t.Fatal("the usage has not expired")
		}
		if n.Revision <= known || u.Revision <= known {
			t.Errorf("after %d changes: revision %d of the node and %d of the pod, want higher ones than %d",
				changes, n.Revision, u.Revision, known)
		}
	}
}

// A client that has reached a revision before a pod can be found does not have the pod.
func TestRevisionsOfNewPods(t *testing.T) {
	clock := revision.NewClock(at(0))
	var known sample.Revision
	s := New(Config{Clock: clock, OnPodUnlisted: func(string, string) { known = clock.Last() }})
	s.Record("n", batchOf(ofPod("old", ctr("a", 5, 1))), at(5))
	s.Record("n", batchOf(started(ofPod("young", ctr("a", 20, 1)), 10)), at(20)) // listed after the old one has gone
	var u sample.PodUsage
	if !s.Pod("ns", "young", at(20), &u) || known == 0 {
		t.Fatal("there is no usage, or no pod was reported as unlisted")
	}
	if u.Revision <= known {
		t.Errorf("revision %d, want a later one than %d, at which the pod could not be found", u.Revision, known)
	}
}

// A usage that was there before its pod was known to exist has the revision of the pod's appearance.
func TestRevisionsOfPodsThatAppearLate(t *testing.T) {
	clock := revision.NewClock(at(0))
	s := New(Config{Clock: clock})
	s.Record("n", batchOf(ofPod("p", ctr("a", 5, 1)), ofPod("q", ctr("a", 5, 1))), at(5))
	s.Record("n", batchOf(ofPod("p", ctr("a", 20, 2)), ofPod("q", ctr("a", 20, 2))), at(20))
	var p, q sample.PodUsage
	known := clock.Next(at(21))
	s.PodAppeared("ns", "p", at(22))
	if !s.Pod("ns", "p", at(23), &p) || p.Revision <= known {
		t.Errorf("revision %d of a pod that has appeared, want a later one than %d", p.Revision, known)
	}
	if !s.Pod("ns", "q", at(23), &q) || q.Revision >= known {
		t.Errorf("revision %d of another pod, want an earlier one than %d", q.Revision, known)
	}
	known = clock.Last()
	if s.PodAppeared("ns", "without usage", at(24)); clock.Last() != known {
		t.Error("a pod without a usage takes a revision")
	}
}

// Whatever kubelets and the API server say, every change of what is served has a revision later than any that a client
// can know, unless a pod or node is gone, which is reported. Revisions without a change are rare.
func TestRevisionsOfRandomAnswers(t *testing.T) {
	type view struct {
		served any // nil: nothing
		since  sample.Revision
	}
	changes, repeated := 0, 0
	for seed := range uint64(40) {
		w := newWorld(seed)
		clock, gone := revision.NewClock(at(0)), map[string]bool{}
		s := New(Config{Clock: clock, OnPodUnlisted: func(namespace, name string) { gone[namespace+"/"+name] = true }})
		views, known := map[string]view{}, clock.Last()
		for step := range 250 {
			w.now += w.Float64() * 15
			if w.chance(1) {
				w.now += 90
			}
			node, id := w.nodes[w.IntN(3)], w.id()
			switch {
			case w.chance(1):
				s.RemoveNode(node)
				gone[node] = true
			case w.chance(3):
				s.RemovePod(id.Namespace(), id.Pod())
				gone[id.Namespace()+"/"+id.Pod()] = true
			case w.chance(3):
				s.SetOwner(id.Namespace(), id.Pod(), node)
			default:
				for _, c := range s.Record(node, w.answer(node), at(w.now)).Conflicts {
					if w.chance(50) {
						s.NoOwner(c.Namespace, c.Pod)
					}
				}
			}
			if w.chance(30) {
				w.now += w.Float64() * 30
			}
			look := func(what string, is view) {
				was := views[what]
				views[what] = is
				switch changed := !cmp.Equal(was.served, is.served); {
				case changed && is.since <= known && (is.served != nil || !gone[what]):
					t.Errorf("seed %d, step %d: %s: revision %d, no later than %d, although this has changed (-was +is):\n%s",
						seed, step, what, is.since, known, cmp.Diff(was.served, is.served))
				case changed:
					changes++
				case is.served != nil && is.since != was.since:
					repeated++
				}
			}
			for _, n := range w.nodes {
				u, ok := s.Node(n, at(w.now))
				is := view{since: u.Revision}
				if u.Revision = 0; ok {
					is.served = u
				}
				look(n, is)
			}
			for i := range 6 {
				namespace, name := []string{"a", "b"}[i%2], fmt.Sprint("p", i/2)
				var u sample.PodUsage
				ok := s.Pod(namespace, name, at(w.now), &u)
				is := view{since: u.Revision}
				if u.Revision, u.NodeSince = 0, 0; ok {
					is.served = u
				}
				look(namespace+"/"+name, is)
			}
			known = clock.Last()
			clear(gone)
		}
	}
	// A container that has ended vanishes from the list, which changes nothing that is served.
	if changes < 10_000 || repeated > changes/50 {
		t.Errorf("%d changes, and %d revisions without one", changes, repeated)
	}
}

// It is a change of a pod that another node speaks for it (rule 7), or no node that is trusted, even if
// that node's samples are old.
func TestRevisionsOfConflicts(t *testing.T) {
	nothing := func(fixture) {}
	owner := func(name string) func(fixture) { return func(f fixture) { f.SetOwner("ns", "p", name) } }
	noOwner := func(f fixture) { f.NoOwner("ns", "p") }
	unlists := func(name string) func(fixture) { return func(f fixture) { f.answerFrom(name, 17) } }
	repeats := func(f fixture) { f.answerFrom("y", 60, started(ctr("a", 16, 1), -50)) } // the sample
	third := func(f fixture) { f.answerFrom("z", 17, started(ctr("a", 17, 1), 10)) }
	leaves := func(name string) func(fixture) { return func(f fixture) { f.RemoveNode(name) } }
	for _, tc := range []struct {
		name          string
		before, after func(fixture)
		was, is       string // the node that speaks for the pod
		at            float64
	}{
		{"nothing happens", nothing, nothing, "x", "x", 18},
		{"the trusted node is the owner", nothing, owner("x"), "x", "x", 18},
		{"the other node is", nothing, owner("y"), "x", "y", 18},
		{"the owner changes", owner("y"), owner("x"), "y", "x", 18},
		{"a node that does not list it is the owner", nothing, owner("elsewhere"), "x", "", 18},
		{"the owner lists it no longer", owner("y"), unlists("y"), "y", "", 18},
		{"the owner leaves", owner("y"), leaves("y"), "y", "", 18},
		{"the other node lists it no longer", owner("x"), unlists("y"), "x", "x", 18},
		{"the other node leaves", owner("x"), leaves("y"), "x", "x", 18},
		{"nobody knows, and the newer start wins", nothing, noOwner, "x", "y", 18},
		{"the winner lists it no longer", noOwner, unlists("y"), "y", "x", 18},
		{"the winner leaves", noOwner, leaves("y"), "y", "x", 18},
		{"another node claims it", noOwner, third, "y", "y", 18},
		{"the trusted node falls silent", nothing, repeats, "x", "y", 90},
	} {
		t.Run(tc.name, func(t *testing.T) {
			clock := revision.NewClock(at(0))
			f := fixture{t, New(Config{Clock: clock})}
			for s := 0.0; s <= 15; s += 15 {
				f.answerFrom("x", s, started(ctr("a", s, s/15), -100))
				f.answerFrom("y", s+1, started(ctr("a", s+1, s/15), -50))
			}
			tc.before(f)
			was, _ := f.get(16)
			known := clock.Next(at(17)) // up to which a client knows all changes
			tc.after(f)
			is, ok := f.get(tc.at)
			if was.Node != tc.was || is.Node != tc.is || ok != (tc.is != "") {
				t.Fatalf("served from %q and then %q, want %q and %q", was.Node, is.Node, tc.was, tc.is)
			}
			if tc.was == tc.is && is.Revision != was.Revision {
				t.Errorf("the revision changes from %d to %d without a change", was.Revision, is.Revision)
			}
			if tc.was != tc.is && is.Revision <= known {
				t.Errorf("revision %d, want a later one than %d", is.Revision, known)
			}
			if ok && tc.was != tc.is != (is.NodeSince > known) {
				t.Errorf("served from the node since %d, although that of %d was %q", is.NodeSince, known, tc.was)
			}
			if again, _ := f.get(tc.at); again.Revision != is.Revision {
				t.Errorf("the revision changes from %d to %d at a second look", is.Revision, again.Revision)
			}
		})
	}
}
