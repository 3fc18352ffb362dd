package measure

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"metrics-server/hack/fleet/binary"
)

// watches measures while watches are open.
func (r *run) watches(ctx context.Context) error {
	if r.Watches == 0 {
		return nil
	}
	r.say("open %d watches", r.Watches)
	client := binary.NewWatchClient(r.server.URL)
	defer client.Close()
	open, end := context.WithCancel(ctx)
	defer end()
	group, open := errgroup.WithContext(open)
	received := make([]atomic.Int64, r.Watches)
	for i := range received {
		q := r.watch(i)
		group.Go(func() error {
			_, err := client.Do(open, q, (*counter)(&received[i]))
			if open.Err() == nil {
				return fmt.Errorf("the watch %s has ended: %w", q.Path, cmp.Or(err, io.EOF))
			}
			return nil
		})
		if wait(open, 10*time.Millisecond) != nil {
			break
		}
	}
	err := r.withWatches(open, received)
	end()
	if ended := group.Wait(); ended != nil {
		return r.server.Failure(ended)
	}
	return err
}

// withWatches measures after the watches have received what exists.
func (r *run) withWatches(ctx context.Context, received []atomic.Int64) error {
	if err := wait(ctx, r.Resolution); err != nil {
		return err
	}
	sent := make([]int64, len(received))
	for i := range received {
		sent[i] = received[i].Load()
	}
	before, err := r.read()
	if err != nil {
		return err
	}
	memory, most, err := watchMemory(ctx, r.server.PID(), before.at.Add(max(r.For/4, 2*r.Resolution)))
	if err != nil {
		return r.server.Failure(err)
	}
	after, err := r.read()
	if err != nil {
		return err
	}
	span := after.since(before)
	w := Watches{
		Open: len(received), MilliCores: 1000 * span.cores(span.server), Busy: span.busy,
		RSS: memory.RSS, MostRSS: most, Anonymous: memory.Anonymous,
	}
	for i := range received {
		n := received[i].Load() - sent[i]
		if n == 0 {
			w.Silent++
		}
		w.BytesPerSecond += float64(n) / span.wall.Seconds()
	}
	r.report.Watches = w
	if r.Profiles == "" {
		return nil
	}
	if err := r.profile(ctx, "watches", profileCPU(r.Resolution)); err != nil {
		return err
	}
	return r.profile(ctx, "watches-heap", profileHeap)
}

// watch returns the request of the i-th watch. Of a hundred, 90 are of the pods of a namespace, 9 of the pods of a
// workload, and one is of all pods. Of each kind, every other one is in protobuf.
func (r *run) watch(i int) binary.Request {
	q := binary.Request{Path: binary.Group, Accept: []string{binary.JSON, binary.Protobuf}[(i+i/10+i/100)%2]}
	namespaces := r.cluster.Namespaces()
	ns := namespaces[i%len(namespaces)]
	switch {
	case i%100 == 0:
		q.Path += "/pods?watch=1"
	case i%10 == 0:
		pods, _ := r.cluster.Pods(ns)
		q.Path += "/namespaces/" + ns + "/pods?watch=1&labelSelector=app%3D" + pods[i%len(pods)].Workload.Name
	default:
		q.Path += "/namespaces/" + ns + "/pods?watch=1"
	}
	return q
}

// counter counts the bytes that are written to it.
type counter atomic.Int64

func (c *counter) Write(b []byte) (int, error) {
	(*atomic.Int64)(c).Add(int64(len(b)))
	return len(b), nil
}
