//go:build backends

package backends

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"metrics-server/hack/fleet/proc"
	"metrics-server/pkg/adminfile"
	"metrics-server/pkg/backend"
)

const (
	manyHPAs = 1000
	manyPods = 10 // of each
	// period is how often the HPA controller asks for each metric, and workers is how many requests it has in flight.
	period  = 15 * time.Second
	workers = 5
)

// codes are the values of a label, each of which is a series of each pod.
var codes = []string{"200", "302", "404", "500"}

// BenchmarkHPAs measures the server with 1,000 HPAs of 10 pods each whose metric a backend has: by name, so that the
// HPAs of a namespace share a query, or by an expression of each HPA. An iteration is one period of the HPA controller,
// in which it asks for each metric once.
func BenchmarkHPAs(b *testing.B) {
	for _, k := range kinds {
		for _, shared := range []bool{true, false} {
			name := k.name + "/own-expressions"
			if shared {
				name = k.name + "/by-name"
			}
			b.Run(name, func(b *testing.B) { benchmarkHPAs(b, k, shared) })
		}
	}
}

func benchmarkHPAs(b *testing.B, k kind, shared bool) {
	dir, e := b.TempDir(), newExporter()
	b.Cleanup(e.Close)
	c := backend.Config{Name: "main"}
	p := launch(b, k, dir, "", "15s", e)
	c.URL, c.Parameters = p.url, p.parameters
	s := serve(b, e, &adminfile.File{Backends: []backend.Config{c}, Default: "main"}, manyHPAs, manyPods)
	m := metric{kind: pods, name: "http_requests_total"}
	if !shared {
		m.expression = `sum by (pod) (rate(http_requests_total{app="$APP"}[2m]))`
	}
	all := make([]*declared, manyHPAs)
	for i := range all {
		all[i] = s.declare(b, m)
		for j, pod := range all[i].pods() {
			for _, code := range codes {
				e.set(of("http_requests_total", pod, fmt.Sprintf(",code=%q", code)), value{perSecond: float64(j + 1)})
			}
		}
	}
	for _, d := range all {
		eventually(b, "all pods have values", d.complete)
	}

	var mu sync.Mutex // guards took
	var took []time.Duration
	before := measure(b, s, p)
	for b.Loop() {
		jobs := make(chan *declared)
		var working sync.WaitGroup
		for range workers {
			working.Go(func() {
				for d := range jobs {
					begin := time.Now()
					err := d.complete()
					mu.Lock()
					took = append(took, time.Since(begin))
					mu.Unlock()
					if err != nil {
						b.Error(err)
					}
				}
			})
		}
		tick := time.NewTicker(period / manyHPAs)
		for _, d := range all {
			<-tick.C
			jobs <- d
		}
		tick.Stop()
		close(jobs)
		working.Wait()
	}
	after := measure(b, s, p)
	memory, err := proc.MemoryOf(s.PID())
	if err != nil {
		b.Fatal(err)
	}
	elapsed := after.at.Sub(before.at).Seconds()
	slices.Sort(took)
	b.ReportMetric(float64(after.queries-before.queries)/elapsed, "queries/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric((after.server-before.server).Seconds()/elapsed, "cores")
	b.ReportMetric(float64(memory.RSS)/(1<<20), "MiB")
	b.ReportMetric((after.program-before.program).Seconds()/elapsed, "backend-cores")
	b.ReportMetric(after.machine.Since(before.machine), "machine-busy")
}

// complete returns an error unless each pod has a value.
func (d *declared) complete() error {
	got, err := d.ask()
	if err == nil && len(got) != manyPods {
		err = fmt.Errorf("%d pods of %s have values", len(got), d.Name)
	}
	return err
}

// measured is what was used so far.
type measured struct {
	at              time.Time
	server, program time.Duration // of CPU
	queries         float64       // that the program has answered
	machine         proc.Machine
}

func measure(b *testing.B, s *server, p *program) (m measured) {
	b.Helper()
	var err error
	if m.server, err = proc.CPU(s.PID()); err != nil {
		b.Fatal(err)
	}
	if m.program, err = proc.CPU(p.cmd.Process.Pid); err != nil {
		b.Fatal(err)
	}
	if m.machine, err = proc.MachineNow(); err != nil {
		b.Fatal(err)
	}
	if m.queries, err = p.answered(); err != nil {
		b.Fatal(err)
	}
	m.at = time.Now()
	return m
}

// answered returns how many instant queries the program has answered, as it says itself.
func (p *program) answered() (float64, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, p.url+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var page bytes.Buffer
	if _, err := page.ReadFrom(resp.Body); err != nil {
		return 0, err
	}
	for line := range bytes.Lines(page.Bytes()) {
		series, n, ok := bytes.Cut(bytes.TrimSpace(line), []byte("} "))
		if ok && string(series) == p.counter {
			return strconv.ParseFloat(string(n), 64)
		}
	}
	return 0, fmt.Errorf("%s does not tell how many queries it has answered", p.name)
}
