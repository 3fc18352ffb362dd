package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

var held struct {
	sync.Mutex
	memory []byte
}

// holdMemory takes or returns memory until the process has mib MiB in total; with 0, only what it
// needs itself.
func holdMemory(mib int) error {
	held.Lock()
	defer held.Unlock()
	if held.memory != nil {
		if err := syscall.Munmap(held.memory); err != nil {
			return err
		}
		held.memory = nil
	}
	debug.FreeOSMemory()
	used, err := resident()
	if err != nil || used >= mib<<20 {
		return err
	}
	held.memory, err = syscall.Mmap(
		-1, 0, mib<<20-used, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE,
	)
	if err != nil {
		return fmt.Errorf("take %d MiB: %w", mib, err)
	}
	for i := 0; i < len(held.memory); i += os.Getpagesize() {
		held.memory[i] = 1 // a page counts once it is written to
	}
	return nil
}

// resident is the memory of this process in bytes.
func resident() (int, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	return pages * os.Getpagesize(), err
}

// burn uses millicores: every 50 ms it makes up for what the whole process has used too little
// since its start, with as many threads as necessary.
func burn(millicores int, period time.Duration) {
	share, threads := float64(millicores)/1000, (millicores+999)/1000
	start, due, last := time.Now(), time.Duration(0), time.Now()
	for now := range time.Tick(50 * time.Millisecond) {
		// After a longer delay on a busy machine, it does not catch up, which would make the machine
		// busier still.
		step := min(now.Sub(last), 500*time.Millisecond)
		last = now
		if period == 0 || now.Sub(start)/period%2 == 0 {
			due += time.Duration(share * float64(step))
		}
		var spinning sync.WaitGroup
		for range threads {
			spinning.Go(func() {
				for processCPU() < due {
					spin()
				}
			})
		}
		spinning.Wait()
	}
}

// work uses d of CPU time, however long that takes on a busy machine.
func work(d time.Duration) {
	runtime.LockOSThread() // the clock is the thread's
	defer runtime.UnlockOSThread()
	for end := cpuClock(threadClock) + d; cpuClock(threadClock) < end; {
		spin()
	}
}

// spin takes some 20 microseconds.
func spin() {
	for x := range 50_000 {
		_ = x * x
	}
}

const (
	processClock = 2 // CLOCK_PROCESS_CPUTIME_ID
	threadClock  = 3 // CLOCK_THREAD_CPUTIME_ID
)

func processCPU() time.Duration { return cpuClock(processClock) }

func cpuClock(id uintptr) time.Duration {
	var ts syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic(errno) // it cannot fail with these clocks
	}
	return time.Duration(ts.Nano())
}
