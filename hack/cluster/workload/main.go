// Command workload is every container of the demonstration: without flags it only waits (a pod's pause process,
// an idle container); with -cpu and -memory it uses so much and no more, so that what the metrics API says of it can
// be judged.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	cpu := flag.Int("cpu", 0, "millicores to use, up to 1000")
	memory := flag.Int("memory", 0, "MiB to use in all, the program's own included")
	period := flag.Duration("period", 0, "use -cpu for this long, then nothing for as long, and so on; 0 = always")
	flag.Parse()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	if *memory > 0 {
		if err := hold(*memory << 20); err != nil {
			fmt.Fprintln(os.Stderr, "workload:", err)
			os.Exit(1)
		}
	}
	if *cpu > 0 {
		go burn(float64(min(*cpu, 1000))/1000, *period)
	}
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for { // as process 1 of a pod's namespace: orphans
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// held keeps what hold has taken.
var held []byte

// hold takes memory until the process has bytes of it in all.
func hold(bytes int) error {
	debug.SetGCPercent(20)
	used, err := resident()
	if err != nil || used >= bytes {
		return err
	}
	held, err = syscall.Mmap(-1, 0, bytes-used, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("take %d bytes: %w", bytes-used, err)
	}
	for i := 0; i < len(held); i += os.Getpagesize() {
		held[i] = 1 // a page counts once it is written to
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

// burn uses share of one core: every 50 ms it makes up what the process, all of it and since it started, has used
// too little.
func burn(share float64, period time.Duration) {
	start, due, last := time.Now(), time.Duration(0), time.Now()
	for now := range time.Tick(50 * time.Millisecond) {
		// A machine that was busy for longer is not made busier still to catch up.
		step := min(now.Sub(last), 500*time.Millisecond)
		last = now
		if period == 0 || now.Sub(start)/period%2 == 0 {
			due += time.Duration(share * float64(step))
		}
		for used() < due {
			spin()
		}
	}
}

// used is the CPU time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it cannot fail with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spin takes some 20 microseconds.
func spin() {
	for x := range 50_000 {
		_ = x * x
	}
}
