package kubelet

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// benchServer is the environment variable that makes the test binary a kubelet, so that the
// benchmark counts only what the client costs.
const benchServer = "KUBELET_BENCHMARK_SERVER"

func serveBenchmark() {
	answer := node.Append(nil, asked())
	k := &kubelettest.Kubelet{Answer: func(dst []byte, _ time.Time) []byte { return append(dst, answer...) }}
	s, err := kubelettest.Serve(k, kubelettest.ServerConfig{Certificate: kubelettest.SelfSigned("127.0.0.1")})
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, s.Port())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark closes it
	s.Close()
}

// benchmarkServer starts a kubelet in a process of its own and returns its port.
func benchmarkServer(b *testing.B) int32 {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServer+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	var port int32
	if _, err := fmt.Fscan(bufio.NewReader(out), &port); err != nil {
		b.Fatal(err)
	}
	return port
}

// BenchmarkFetch is a scrape over an open connection, parsed.
func BenchmarkFetch(b *testing.B) {
	s, e := benchmarkClients(b)
	client, ctx := s.Client(e), within(b)
	var batch sample.Batch
	fetch := func() {
		if err := client.Fetch(ctx, &batch); err != nil {
			b.Fatal(err)
		}
	}
	fetch()
	b.SetBytes(int64(len(node.Append(nil, asked()))))
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		fetch()
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// BenchmarkFirstFetch is the first scrape of one more node, and the memory that it then holds
// between two scrapes: about 6 KB of that are the names of its 60 containers.
func BenchmarkFirstFetch(b *testing.B) {
	s, e := benchmarkClients(b)
	ctx := within(b)
	var batch sample.Batch
	before, goroutines := sharedtest.Heap(), runtime.NumGoroutine()
	for b.Loop() {
		client := s.Client(e)
		for range 2 {
			if err := client.Fetch(ctx, &batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(sharedtest.Heap()-before)/float64(b.N), "heap-B/client")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(b.N), "goroutines/client")
}

func benchmarkClients(b *testing.B) (*Clients, Endpoint) {
	c := config()
	c.CAData, c.Insecure = nil, true
	s, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	port := benchmarkServer(b)
	b.Cleanup(s.Close)
	return s, Endpoint{Node: "n1", Addresses: []Address{{"InternalIP", "127.0.0.1"}}, Port: port}
}

// cpuTime is the CPU time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
