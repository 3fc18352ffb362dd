//go:build e2e

package e2e

import (
	"sync"
	"testing"
	"time"
)

// Tests that change the server, its rights or the nodes of the others run alone, one after another, and so does
// TestAutoscaling, which goes by the CPU that pods use. The rest follows in two groups, whose tests run in parallel.
var (
	// amidFailingNodes are tests that add nodes and break them, and tests that only look at pods on other nodes.
	amidFailingNodes group
	// allNodesWell are tests that expect every node to be served. They begin when those of amidFailingNodes have ended.
	allNodesWell = group{after: &amidFailingNodes}
)

// group is a set of tests that run in parallel.
type group struct {
	after *group         // runs before; nil if no group does
	tests sync.WaitGroup // that have not ended
}

// join makes t a test of g, and returns when t may begin.
func (g *group) join(t *testing.T) {
	t.Helper()
	g.tests.Add(1)
	t.Cleanup(g.tests.Done)
	// No parallel test continues before all of them have called Parallel, so every test of g.after is counted by then.
	t.Parallel()
	if g.after == nil {
		return
	}
	begun := time.Now()
	g.after.tests.Wait()
	t.Logf("%5.1f s until the tests amid failing nodes have ended", time.Since(begun).Seconds())
}

// nodesToAdd are the nodes that tests of amidFailingNodes have still to add. Until they are cordoned, pods of other
// tests could be scheduled on them.
var nodesToAdd sync.WaitGroup

// addsNode announces, before t joins amidFailingNodes, that t adds a node. t calls added when it has.
func addsNode(t *testing.T) (added func()) {
	t.Helper()
	nodesToAdd.Add(1)
	added = sync.OnceFunc(nodesToAdd.Done)
	t.Cleanup(added)
	return added
}
