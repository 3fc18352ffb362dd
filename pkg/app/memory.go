package app

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"k8s.io/klog/v2"
)

// The garbage that may pile up is what collectEvery makes at the pace of the last paceEvery, but at least leastGarbage and at most mostGarbage
// percent of what is alive. Little is made while nodes are scraped and nothing is asked: then there is little, for memory. Much is made when thousands of
// requests are answered: then there is more, for CPU.
const (
	collectEvery = 15 * time.Second
	leastGarbage = 20
	mostGarbage  = 60
	// paceEvery is how often it is looked at how much is made.
	paceEvery = 2 * time.Second
	// After longStart, the first scrapes of thousands of nodes have both processors of a small machine busy, and there may be startGarbage
	// until the pods are listed. A shorter start has as little as possible: what lasts is made among the garbage, which leaves holes that last as well.
	longStart    = 1500 * time.Millisecond
	startGarbage = 100
)

// paceCollector sets the pace of the garbage collector until ctx ends, unless GOGC has set it. The server is about to run; started is closed when
// it lists the pods.
func paceCollector(ctx context.Context, started <-chan struct{}) {
	if os.Getenv("GOGC") != "" {
		return
	}
	percent := leastGarbage
	debug.SetGCPercent(percent)
	select {
	case <-started:
	case <-ctx.Done():
	case <-time.After(longStart):
		debug.SetGCPercent(startGarbage)
		select {
		case <-started:
		case <-ctx.Done():
		}
		debug.SetGCPercent(percent)
	}

	ticker := time.NewTicker(paceEvery)
	defer ticker.Stop()
	heap := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(heap)
	for total := heap[0].Value.Uint64(); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(heap)
		made, alive := heap[0].Value.Uint64()-total, heap[1].Value.Uint64()
		total += made
		percent = garbagePercent(percent, made, alive)
		debug.SetGCPercent(percent)
	}
}

// garbagePercent is how much garbage there may be, in percent of the bytes that are alive, when made bytes were allocated in the last
// paceEvery. It was percent until then, and rises slowly, for much that is over soon.
func garbagePercent(percent int, made, alive uint64) int {
	pileUp := 100 * float64(made) * float64(collectEvery) / float64(paceEvery) / float64(max(alive, 1))
	return int(max(min(pileUp, mostGarbage, float64(percent)*1.5), leastGarbage))
}

// heedMemoryLimit has the garbage collector work harder when nine tenths of the container's memory limit are used, unless
// GOMEMLIMIT is set: a burst of requests makes the server slower and does not get it killed. Limits of running containers can change.
func heedMemoryLimit(ctx context.Context) {
	limit, err := memlimit.Set(memlimit.WithRefreshInterval(ctx, time.Minute))
	switch {
	case err != nil:
		klog.InfoS("warning: the container's memory limit is unknown, so the garbage collector does not heed it; set GOMEMLIMIT", "err", err)
	case limit < math.MaxInt64:
		klog.InfoS("the garbage collector heeds a memory limit", "bytes", limit)
	}
}
