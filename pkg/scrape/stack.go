package scrape

import "os"

// growStack makes the stack of its goroutine as large as most scrapes need. It would begin with few KiB; each time that is full it
// becomes one twice as large and is copied, with more on it every time: for a goroutine that lives for some hundred microseconds that is
// much of its CPU time. When it is grown at once, there is next to nothing on it to copy.
//
//go:noinline
func growStack() byte { //nolint:unparam // without a result the room could be optimized away
	var room [6 << 10]byte
	return room[len(os.Args)%len(room)]
}
