package resource

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"metrics-server/pkg/api"
	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
	"metrics-server/pkg/store"
)

// watcher discards what it is sent.
type watcher struct {
	discard
	total *atomic.Int64
}

func (*watcher) CloseNotify() <-chan bool { return nil }

func (w *watcher) Write(b []byte) (int, error) {
	w.total.Add(int64(len(b)))
	return len(b), nil
}

// BenchmarkWatches measures a server of 1,000 nodes with 30 pods each that are scraped every 12 s, in
// real time: how many CPUs it takes, scrapes included but without network, and how much memory the
// watches take. Run it with -benchtime=1x.
func BenchmarkWatches(b *testing.B) {
	const nodes, pods, namespaces = 1000, 30, 600
	for _, bm := range []struct {
		name                       string
		namespace, hpa, everything int
	}{
		{"nobody", 0, 0, 0},
		{"1-namespace", 1, 0, 0},
		{"1-everything", 0, 0, 1},
		{"900-namespaces-90-hpas-10-everything", 900, 90, 10},
	} {
		b.Run(bm.name, func(b *testing.B) {
			clock := revision.NewClock(time.Now())
			s := store.New(store.Config{Clock: clock})
			var objects, all fakeObjects
			batches := make([]sample.Batch, nodes)
			for n := range nodes {
				all.list = append(all.list, sample.Object{Name: fmt.Sprintf("n%04d", n)})
			}
			for i := range nodes * pods {
				o := sample.Object{
					Namespace: fmt.Sprintf("namespace-%03d", i*namespaces/(nodes*pods)), Name: fmt.Sprintf("pod-%05d", i),
					Labels: sample.Labels{{Key: "app", Value: fmt.Sprintf("app-%d", i/10)}},
				}
				objects.list = append(objects.list, o)
				to := &batches[i%nodes]
				id := sample.NewContainerID(o.Namespace, o.Name, "app")
				to.Containers = append(to.Containers, sample.Container{ID: &id})
			}
			round := func(n int, at time.Time) {
				batch, given := &batches[n], sample.CPU|sample.Memory
				batch.Node.Time, batch.Node.Given = sample.TimeOf(at), given
				batch.Node.CPU += 1e9
				batch.Node.Memory = 1 << 30
				for i := range batch.Containers {
					c := &batch.Containers[i]
					c.Time, c.Given, c.Memory = sample.TimeOf(at), given, 100<<20
					c.CPU += uint64(1e6 + n)
				}
				s.Record(all.list[n].Name, batch, time.Now())
			}
			for n := range nodes {
				round(n, time.Now().Add(-12*time.Second))
				round(n, time.Now())
			}
			h := newCluster().handlerOf(b, Config{
				Nodes: &all, Pods: &objects, NodeUsage: s, PodUsage: s, Scrapes: &fakeUsage{},
				Clock: clock, NodesGone: api.NewDeletions(clock), PodsGone: api.NewDeletions(clock),
			}, withEngine)
			before := sharedtest.Heap() + stacks()

			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			var sent atomic.Int64
			open := func(i int, format string, args ...any) {
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, group+"v1"+fmt.Sprintf(format, args...), http.NoBody)
				r.Header.Set("Accept", []string{mediaJSON, "application/vnd.kubernetes.protobuf"}[i%2])
				wg.Go(func() {
					time.Sleep(time.Duration(i%100) * 10 * time.Millisecond)
					h.ServeHTTP(&watcher{discard{header: http.Header{}}, &sent}, r)
				})
			}
			for i := range bm.namespace {
				open(i, "/namespaces/namespace-%03d/pods?watch=1", i%namespaces)
			}
			for i := range bm.hpa {
				ns := i % namespaces
				open(i, "/namespaces/namespace-%03d/pods?watch=1&labelSelector=app%%3Dapp-%d", ns, ns*5)
			}
			for i := range bm.everything {
				open(i, "/pods?watch=1")
			}
			time.Sleep(5 * time.Second)
			sent.Store(0)
			var used, lasted time.Duration
			for b.Loop() {
				start, cpu := time.Now(), cpuTime()
				for n := range nodes {
					time.Sleep(time.Until(start.Add(time.Duration(n) * 12 * time.Millisecond)))
					round(n, time.Now())
				}
				used += cpuTime() - cpu
				lasted += time.Since(start)
			}
			b.ReportMetric(used.Seconds()/lasted.Seconds(), "CPUs")
			b.ReportMetric(float64(sent.Load())/lasted.Seconds()/1e3, "kB/s")
			b.ReportMetric(float64(sharedtest.Heap()+stacks()-before)/1e6, "MB")
			cancel()
			wg.Wait()
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func stacks() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}
