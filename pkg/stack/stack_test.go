package stack

import "testing"

// deep needs about n KiB of stack.
//
//go:noinline
func deep(n int) byte {
	var frame [1 << 10]byte
	if n > 1 {
		frame[n%len(frame)] = deep(n - 1)
	}
	return frame[n%len(frame)]
}

// inGoroutines runs f in a goroutine of its own, again and again.
func inGoroutines(b *testing.B, f func()) {
	done := make(chan struct{})
	for b.Loop() {
		go func() {
			f()
			done <- struct{}{}
		}()
		<-done
	}
}

// BenchmarkRoom compares stacks that are grown when they are full with those that are grown at once.
func BenchmarkRoom(b *testing.B) {
	for _, bm := range []struct {
		name string
		room func() byte
		deep int // KiB
	}{
		{"6 KiB", Room6K, 5},
		{"12 KiB", Room12K, 11},
	} {
		b.Run(bm.name+"/when full", func(b *testing.B) { inGoroutines(b, func() { deep(bm.deep) }) })
		b.Run(bm.name+"/at once", func(b *testing.B) {
			inGoroutines(b, func() {
				bm.room()
				deep(bm.deep)
			})
		})
	}
}
