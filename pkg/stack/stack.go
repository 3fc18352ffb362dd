// Package stack makes room on a goroutine's stack before it is needed. A goroutine begins with a stack of a few KiB. Each
// time that is full it becomes one twice as large and is copied, with more on it every time: for a goroutine that lives for
// some hundred microseconds that is much of its CPU time. When it is grown at once, there is next to nothing on it to copy.
package stack

import "os"

// Room6K makes room for 6 KiB.
//
//go:noinline
func Room6K() byte {
	var room [6 << 10]byte
	return room[len(os.Args)%len(room)] // so that it cannot be optimized away
}

// Room12K makes room for 12 KiB.
//
//go:noinline
func Room12K() byte {
	var room [12 << 10]byte
	return room[len(os.Args)%len(room)]
}
