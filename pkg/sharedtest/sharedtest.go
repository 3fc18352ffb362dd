// Package sharedtest has helpers for the tests of several packages. Only tests import it.
package sharedtest

import (
	"context"
	"flag"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the files that tests compare with what they get")

// Start calls run in the background. When stop is called or t ends, it ends the context of run, waits until run
// returns, and fails t if run returns an error.
func Start(t testing.TB, ctx context.Context, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// WithDeadline returns a context whose deadline passes when pass is called.
func WithDeadline(ctx context.Context) (_ context.Context, pass func()) {
	d := deadline{ctx, make(chan struct{})}
	return d, sync.OnceFunc(func() { close(d.passed) })
}

type deadline struct {
	context.Context
	passed chan struct{}
}

func (d deadline) Done() <-chan struct{} { return d.passed }

func (d deadline) Err() error {
	select {
	case <-d.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// RefusingAddr returns an address that refuses connections until t ends. No other program can listen there meanwhile,
// because it is an end of a connection.
func RefusingAddr(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	return c.LocalAddr().String()
}

// CompareWithFile fails t if the contents of a file differ from got. With -update, it rewrites the file first.
func CompareWithFile(t testing.TB, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s is out of date: if the change is intended, run this test with -update (-want +got):\n%s", file, d)
	}
}

// Heap returns how many bytes of memory are in use after a garbage collection, without what only
// pools hold.
func Heap() int64 {
	runtime.GC()
	runtime.GC() // the first one empties pools into their second generation
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// SetClock returns moment as if the wall clock had been set forward or back by whole seconds just before it was
// read: only the wall clock reading changes, not the monotonic one. No function of package time makes
// such a Time.
func SetClock(t testing.TB, moment time.Time, seconds int64) time.Time {
	t.Helper()
	const nanoseconds = 30 // bits below the seconds
	set := moment
	*(*uint64)(unsafe.Pointer(&set)) += uint64(seconds) << nanoseconds
	if by := time.Duration(seconds) * time.Second; set.Sub(moment) != 0 || set.Round(0).Sub(moment.Round(0)) != by {
		t.Fatalf("this test does not know time.Time: %v is not %v set by %v", set, moment, by)
	}
	return set
}
