//go:build e2e

package install

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"
)

// answer is what a client got.
type answer struct {
	asked time.Time
	err   error
}

// gap is the time during a replacement in which there were no metrics.
type gap struct {
	asked, failed int
	// longest is from the first of the requests that failed in a row to the next that did not.
	longest time.Duration
	first   error
}

func (g gap) String() string {
	if g.failed == 0 {
		return fmt.Sprintf("none of %d requests failed", g.asked)
	}
	return fmt.Sprintf(
		"%d of %d requests failed, for up to %.1f s; the first error: %v", g.failed, g.asked, g.longest.Seconds(),
		g.first,
	)
}

// momentary is a gap too short for autoscalers to notice: the old server's connections break when it exits.
const momentary = 2 * time.Second

// ask requests the usage of all nodes four times a second until the returned function is called, which fails t if there
// was a longer gap than tolerable.
func ask(t *testing.T) (end func(tolerable time.Duration)) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	var (
		answers []*answer // in the order of requests
		asking  sync.WaitGroup
	)
	asking.Go(func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				a := &answer{asked: now}
				answers = append(answers, a)
				asking.Go(func() { a.err = allNodes() })
			case <-ctx.Done():
				return
			}
		}
	})
	return func(tolerable time.Duration) {
		t.Helper()
		stop()
		asking.Wait()
		g := measure(answers)
		t.Log(g)
		if g.asked < 20 {
			t.Errorf("asked %d times: that proves nothing", g.asked)
		}
		if g.longest > tolerable {
			t.Errorf("the longest gap is to be %v", tolerable)
		}
	}
}

// measure finds the gap in answers.
func measure(answers []*answer) gap {
	g := gap{asked: len(answers)}
	var since time.Time
	for _, a := range answers {
		switch {
		case a.err == nil:
			since = time.Time{}
			continue
		case since.IsZero():
			since = a.asked
		}
		if g.failed++; g.first == nil {
			g.first = a.err
		}
		g.longest = max(g.longest, a.asked.Sub(since)+250*time.Millisecond)
	}
	return g
}

// allNodes is `kubectl get --raw`, by a client that is there already.
func allNodes() error {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	b, err := cluster.client.Discovery().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/nodes").DoRaw(ctx)
	if err != nil {
		return err
	}
	var list struct {
		Items []struct{ Usage map[string]string }
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	if len(list.Items) != len(cluster.nodes) {
		return fmt.Errorf("%d of %d nodes", len(list.Items), len(cluster.nodes))
	}
	return nil
}
