package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"metrics-server/hack/fleet/apiserver"
	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
)

// testbed is what every measurement has besides its kubelets or pods: a cluster, the API server, the server under test,
// and what changes the cluster in the background.
type testbed struct {
	say     func(format string, args ...any) // progress
	dir     string                           // for files, removed by end
	cluster *cluster.Cluster
	api     *apiserver.Server
	server  *binary.Server

	live    func(func(context.Context)) // runs something in the background until end; set by startAPIServer
	living  sync.WaitGroup
	endLife context.CancelFunc
	broken  chan error // of liveOrFail
}

// newTestbed returns a testbed in which nothing was started yet. The caller must call end.
func newTestbed(progress io.Writer) (*testbed, error) {
	dir, err := os.MkdirTemp("", "metrics-server-fleet-")
	return &testbed{say: sayTo(progress), dir: dir, broken: make(chan error, 1)}, err
}

// sayTo returns a function that writes a line of progress.
func sayTo(progress io.Writer) func(format string, args ...any) {
	begin := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(progress, "%7.1fs  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
}

// startAPIServer starts the API server of the cluster, and the heartbeats of its nodes.
func (b *testbed) startAPIServer(ctx context.Context) (err error) {
	b.api, err = apiserver.Start(apiserver.Config{
		Cluster: b.cluster, Token: binary.ServerToken, LoadToken: binary.LoadToken,
	})
	if err != nil {
		return err
	}
	life, endLife := context.WithCancel(ctx)
	b.endLife = endLife
	b.live = func(f func(context.Context)) { b.living.Go(func() { f(life) }) }
	b.live(b.cluster.Heartbeats)
	return nil
}

// liveOrFail is live for something whose error ends the measurement.
func (b *testbed) liveOrFail(f func(context.Context) error) {
	b.live(func(ctx context.Context) {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			b.broken <- err
		}
	})
}

// take takes the steps of a measurement, until one fails or something in the background has failed.
func (b *testbed) take(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		err := step(ctx)
		select {
		case broken := <-b.broken:
			err = errors.Join(broken, err)
		default:
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// end stops what was started and removes all files; it may be called twice.
func (b *testbed) end() {
	if b.endLife != nil {
		b.endLife()
		b.living.Wait()
	}
	if b.server != nil {
		b.server.Stop()
		b.server = nil
	}
	if b.api != nil {
		if paths := b.api.Unknown(); len(paths) > 0 {
			b.say("the simulated API server does not know these requested paths: %q", paths)
		}
		_ = b.api.Close()
		b.api = nil
	}
	os.RemoveAll(b.dir)
}
