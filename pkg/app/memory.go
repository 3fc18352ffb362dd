package app

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"k8s.io/klog/v2"
)

const (
	// garbage is how much of it there may be, in percent of what is alive. Little is made here for all that is kept: a fifth instead
	// of the usual one costs one or two hundredths of a processor, and saves a third of the heap.
	garbage = 20
	// After longStart, the first scrapes of thousands of nodes have both processors of a small machine busy, and there may be startGarbage
	// until the pods are listed. A shorter start has as little as ever: what lasts is made among the garbage, which leaves holes that last as well.
	longStart    = 1500 * time.Millisecond
	startGarbage = 100
)

// saveMemory sets how often garbage is collected, and returns true, unless GOGC says something else.
func saveMemory() bool {
	if os.Getenv("GOGC") != "" {
		return false
	}
	debug.SetGCPercent(garbage)
	return true
}

// spendMemory is for a start that takes long, and after saveMemory. The server is about to run; started is closed when it lists the pods.
func spendMemory(ctx context.Context, started <-chan struct{}) {
	select {
	case <-started:
	case <-ctx.Done():
	case <-time.After(longStart):
		debug.SetGCPercent(startGarbage)
		select {
		case <-started:
		case <-ctx.Done():
		}
		debug.SetGCPercent(garbage)
	}
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
