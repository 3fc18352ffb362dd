package scrape

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

// BenchmarkGrowStack compares a stack that grows when it is full with one that is grown at once.
func BenchmarkGrowStack(b *testing.B) {
	for _, bm := range []struct {
		name  string
		first func()
	}{
		{"when full", func() {}},
		{"at once", func() { growStack() }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			done := make(chan struct{})
			for b.Loop() {
				go func() {
					bm.first()
					deep(5)
					done <- struct{}{}
				}()
				<-done
			}
		})
	}
}
