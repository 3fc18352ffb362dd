package store

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
)

// claimBoth has nodes "x" and "y" claim pod "p" at s, with start times; it returns how many conflicts
// that began, about which the API server says nothing.
func (f fixture) claimBoth(s, startX, startY float64) int {
	f.Helper()
	x := f.answerFrom("x", s, started(ctr("a", s, s), startX))
	y := f.answerFrom("y", s, started(ctr("a", s, s), startY))
	for _, c := range slices.Concat(x.Conflicts, y.Conflicts) {
		f.NoOwner(c.Namespace, c.Pod)
	}
	return len(x.Conflicts) + len(y.Conflicts)
}

func TestRule7TheFirstIsTrustedUntilTheAPIServerWasAsked(t *testing.T) {
	f := newFixture(t)
	for s := 0.0; s <= 600; s += 15 {
		f.answerFrom("x", s, started(ctr("a", s, s), -100))
		f.answerFrom("y", s+1, started(ctr("a", s+1, 0), s-10)) // always the newer start
		if s > 0 {
			f.wantNode(s+1, "x")
		}
	}
	f.NoOwner("ns", "p")
	f.wantNode(601, "y")
	f.RemovePod("ns", "p")
	f.claimBoth(610, -100, -50)
	f.claimBoth(625, -100, -50)
	f.wantNode(625, "y")
	f.SetOwner("ns", "p", "x")
	f.wantNode(625, "x")
	if r := f.answerFrom("z", 626, started(ctr("a", 626, 0), 600)); len(r.Conflicts) != 1 {
		t.Fatalf("conflicts %v, want one", r.Conflicts)
	}
	f.NoOwner("ns", "p")
	f.wantNode(626, "x") // what the API server said before still counts
}

func TestRule7TheAPIServerIsAskedOncePerClaim(t *testing.T) {
	f := newFixture(t)
	if r := f.answerFrom("x", 0, ctr("a", 0, 0)); r.Conflicts != nil {
		t.Errorf("one claim is reported as a conflict: %v", r.Conflicts)
	}
	want := []PodClaim{{Namespace: "ns", Pod: "p", Rival: "x"}}
	if d := cmp.Diff(want, f.answerFrom("y", 0, ctr("a", 0, 0)).Conflicts); d != "" {
		t.Errorf("second claim (-want +got):\n%s", d)
	}
	for s := 15.0; s < 100; s += 15 {
		if n := f.claimBoth(s, -100, -50); n != 0 {
			t.Fatalf("at %v: reported again", s)
		}
	}
	if d := cmp.Diff(want, f.answerFrom("z", 110, ctr("a", 110, 0)).Conflicts); d != "" {
		t.Errorf("third claim (-want +got):\n%s", d)
	}
	f.answerFrom("y", 111)
	if d := cmp.Diff(want, f.answerFrom("y", 112, ctr("a", 112, 0)).Conflicts); d != "" {
		t.Errorf("a claim that was given up and comes back (-want +got):\n%s", d)
	}
}

// A pod moves from x to y and, while y no longer answers, back.
func TestRule7APodThatMovesBackIsAskedAboutAgain(t *testing.T) {
	f := newFixture(t)
	f.claimBoth(0, -100, -50)
	f.claimBoth(15, -100, -50)
	f.SetOwner("ns", "p", "y")
	f.answerFrom("x", 30)
	if r := f.answerFrom("x", 45, started(ctr("a", 45, 0), 40)); len(r.Conflicts) != 1 {
		t.Fatal("no conflict is reported")
	}
	f.wantNode(45, "y") // the last word holds until there is another, so that a list that flaps changes nothing
	f.SetOwner("ns", "p", "x")
	f.answerFrom("x", 60, started(ctr("a", 60, 1), 40))
	f.wantNode(60, "x")
}

func TestRule7ALateAnswerDecides(t *testing.T) {
	f := newFixture(t)
	for s := 0.0; s <= 600; s += 15 {
		f.claimBoth(s, -100, -50)
	}
	f.wantNode(600, "y")
	f.SetOwner("ns", "p", "x")
	f.wantNode(600, "x")
}

// A kubelet that claims another node's pod must not get it by waiting until that node has been
// silent for long.
func TestRule7AnAnswerHoldsUntilTheNext(t *testing.T) {
	f := newFixture(t)
	f.claimBoth(0, -100, -50)
	f.SetOwner("ns", "p", "x")
	f.answerFrom("y", 1)
	for s := 15.0; s <= 75; s += 15 {
		f.answerFrom("x", s, started(ctr("a", s, s), -100))
	}
	f.claimBoth(76, -100, -50)
	f.claimBoth(90, -100, -50)
	f.wantNode(90, "x")
	for s := 105.0; s <= 300; s += 15 {
		f.answerFrom("y", s, started(ctr("a", s, s), -50))
	}
	f.wantNone(300, `the last answer of node "x" was received 3m30s ago`)
	if r := f.answerFrom("z", 310, started(ctr("a", 310, 0), 300)); len(r.Conflicts) != 1 {
		t.Error("the API server is not asked again when yet another node claims the pod")
	}
	f.SetOwner("ns", "p", "y")
	f.wantNode(310, "y")
	f.RemovePod("ns", "p") // and recreated under its name, on z
	f.answerFrom("z", 325, started(ctr("a", 325, 1), 315))
	f.wantNode(325, "z")
}

func TestRule7TheAPIServersAnswerDecides(t *testing.T) {
	f := newFixture(t)
	f.claimBoth(0, -100, -50)
	f.claimBoth(15, -100, -50)
	f.wantNode(15, "y")
	f.SetOwner("ns", "p", "x")
	f.wantNode(15, "x")
	f.claimBoth(30, -100, 20)
	f.wantNode(30, "x")
	f.answerFrom("x", 45) // no longer a claimant, but y does not become one that is trusted
	f.wantNone(45, `it runs on node "x", whose kubelet does not list it, and other nodes that list it are ignored`)
	f.claimBoth(60, -100, 20)
	f.wantNode(60, "x")
	f.SetOwner("ns", "p", "") // could not say
	f.wantNode(60, "y")
	f.SetOwner("ns", "p", "elsewhere")
	f.wantNone(60, `it runs on node "elsewhere", whose kubelet does not list it, and other nodes that list it are ignored`)
}

func TestRule7AnAnswerOutlivesItsNode(t *testing.T) {
	f := newFixture(t)
	f.claimBoth(0, -100, -50)
	f.claimBoth(15, -100, -50)
	f.SetOwner("ns", "p", "x")
	f.RemoveNode("x")
	f.wantNone(15, `it runs on node "x", whose kubelet does not list it, and other nodes that list it are ignored`)
	if n := f.claimBoth(30, -100, -50) + f.claimBoth(45, -100, -50); n != 1 {
		t.Errorf("%d conflicts reported after the node came back, want 1", n)
	}
	f.wantNode(45, "x")
}

func TestRule7TheNewerContainerStartWins(t *testing.T) {
	f := newFixture(t)
	f.claimBoth(0, -100, -50)
	f.claimBoth(15, -100, -50)
	f.wantNode(15, "y")
	f.claimBoth(30, 20, -50) // x's says another start, but its counter goes on: it has not restarted
	f.wantNode(30, "y")
	f.answerFrom("x", 45, started(ctr("a", 45, 4), 35)) // now it has: it wins, though it has no older sample
	f.answerFrom("y", 45, started(ctr("a", 45, 45), -50))
	f.wantNode(45, "x")

	// A pod that moved is not served from where it was, even if it is not known well where it is.
	f.answerFrom("z", 46, started(ctr("a", 46, 0), 44))
	f.NoOwner("ns", "p")
	f.wantNone(46, `container "a" on node "z" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
}

func TestRule7ThenTheNewerSampleWithoutFlicker(t *testing.T) {
	f := newFixture(t)
	f.claimBoth(0, -100, -100)
	f.answerFrom("x", 15, started(ctr("a", 15, 1), -100))
	f.answerFrom("y", 16, started(ctr("a", 16, 1), -100))
	f.wantNode(16, "y")
	for s := 30.0; s < 120; s += 15 { // now each in turn has the newer sample
		f.answerFrom("x", s, started(ctr("a", s, s), -100))
		f.wantNode(s, "y")
		f.answerFrom("y", s+5, started(ctr("a", s+5, s), -100))
		f.wantNode(s+5, "y")
	}
	for s := 120.0; s < 200; s += 15 { // y falls silent: x takes over when y's answer has expired
		f.answerFrom("x", s, started(ctr("a", s, s), -100))
	}
	f.wantNode(165+5+5, "x")
}

func TestRule7ThenTheName(t *testing.T) {
	f := newFixture(t)
	f.claimBoth(0, -100, -100)
	f.claimBoth(15, -100, -100)
	f.wantNode(15, "x")
}

// The API server is asked about a pod of a silent node, too, because nobody may claim such a pod.
// Until it has answered, the node that answers is believed.
func TestRule7ASilentNodeClaimsNothing(t *testing.T) {
	f := newFixture(t)
	f.answerFrom("x", 0, ctr("a", 0, 0))
	f.answerFrom("x", 15, ctr("a", 15, 1))
	if r := f.answerFrom("y", 76, ctr("a", 76, 0)); len(r.Conflicts) != 1 {
		t.Errorf("conflict with a node whose answer has expired: %v", r.Conflicts)
	}
	f.answerFrom("y", 90, ctr("a", 90, 0))
	f.wantNode(90, "y")
	if r := f.answerFrom("x", 91, ctr("a", 91, 2)); len(r.Conflicts) != 1 {
		t.Error("no conflict reported when the silent node was back")
	}
	f.wantNode(91, "y") // x starts again and has nothing to serve
	f.RemoveNode("y")
	f.wantNone(91, `container "a" on node "x" has one sample so far, taken 0s ago: a usage needs two that are at least `+
		`5s apart`)
}

func TestRule7AllSilent(t *testing.T) {
	f := newFixture(t)
	f.claimBoth(0, -100, -50)
	f.claimBoth(15, -100, -50)
	f.wantNone(100, `the last answer of node "x" was received 1m25s ago`)
}

func TestRule7OnlyTheClaimedPod(t *testing.T) {
	f := newFixture(t)
	other := func(s float64) sample.Container { return ofPod("other", ctr("a", s, s)) }
	f.answerFrom("x", 0, other(0), ctr("a", 0, 0))
	if r := f.answerFrom("y", 0, ctr("a", 0, 0)); len(r.Conflicts) != 1 || r.Conflicts[0].Pod != "p" {
		t.Errorf("conflicts: %v", r.Conflicts)
	}
	f.answerFrom("x", 15, other(15), ctr("a", 15, 0))
	f.SetOwner("ns", "other", "y") // nobody asked
	var u sample.PodUsage
	if !f.Pod("ns", "other", at(15), &u) || u.Node != "x" {
		t.Errorf("other pod is served from %q", u.Node)
	}
}

// A conflict that ended leaves nothing behind.
func TestConflictsAreForgotten(t *testing.T) {
	f := newFixture(t)
	f.claimBoth(0, -100, -50)
	f.answerFrom("x", 15)
	f.answerFrom("y", 15)
	f.claimBoth(30, -100, -50)
	f.RemoveNode("x")
	f.RemoveNode("y")
	f.claimBoth(45, -100, -50)
	f.RemovePod("ns", "p")
	if claims := len(f.index.pods); claims+len(f.index.contests) > 0 {
		t.Errorf("left: %d claims, %d contests", claims, len(f.index.contests))
	}
}
