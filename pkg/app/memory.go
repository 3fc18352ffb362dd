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
	// garbage is the GC percentage: garbage allowed per live heap. The server allocates little for what it
	// keeps: 20 instead of 100 costs one or two hundredths of a CPU and saves a third of the heap.
	garbage = 20
	// customGarbage is the same for the custom metrics server, which evaluates expressions to answer a request
	// and so allocates more for what it keeps. See docs/adr/0016-custom-garbage-collector.md.
	customGarbage = 60
	// uiGarbage is the same for metrics-server ui, which shares a machine with a browser.
	uiGarbage = 50
)

// saveMemory sets the GC percentage to percent, unless GOGC is set.
func saveMemory(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// heedMemoryLimit sets GOMEMLIMIT to nine tenths of the container's memory limit, unless it is set, so that
// a burst of requests makes the server slower instead of getting it killed. For a container without a limit,
// the limit of the parent cgroup applies, in which the kubelet places all pods of the node. The limit is read
// again every minute, since limits of running containers can change.
func heedMemoryLimit(ctx context.Context) {
	limit, err := memlimit.Set(memlimit.WithRefreshInterval(ctx, time.Minute))
	switch {
	case err != nil:
		klog.InfoS("Warning: The container's memory limit is unknown, so the garbage collector ignores it: set GOMEMLIMIT",
			"err", err)
	case limit < math.MaxInt64:
		klog.InfoS("The garbage collector respects the memory limit: the limit of this container, or without one, the "+
			"limit of all pods of the node", "bytes", limit)
	}
}
