// Command workload is every container of the demonstration: without flags it only waits (a pod's pause process,
// an idle container); with -cpu and -memory it uses so much and no more, and with -packets it counts so many packets
// on a metrics page, so that what the metrics APIs say of it can be judged.
package main

import (
	"flag"
	"fmt"
	"net/http"
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
	packets := flag.Float64("packets", 0, "packets per second that packets_total counts at :8080/metrics; 0 = no metrics")
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
	if *packets > 0 {
		go serve(*packets)
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

// serve answers scrapes with a counter that has grown by perSecond since the start.
func serve(perSecond float64) {
	start := time.Now()
	http.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "# TYPE packets_total counter\npackets_total %.0f\n", perSecond*time.Since(start).Seconds())
	})
	s := http.Server{Addr: ":8080", ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, "workload:", s.ListenAndServe())
	os.Exit(1)
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

// burn uses share of one core: every 50 ms it makes up for what the whole process has used too
// little since its start.
func burn(share float64, period time.Duration) {
	start, due, last := time.Now(), time.Duration(0), time.Now()
	for now := range time.Tick(50 * time.Millisecond) {
		// After a longer delay on a busy machine, it does not catch up, which would make the machine
		// busier still.
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
