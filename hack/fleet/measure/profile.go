package measure

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"metrics-server/hack/fleet/binary"
)

// profiles saves profiles of the binary at its daily work, if it serves them.
func (r *run) profiles(ctx context.Context) error {
	if r.Profiles == "" {
		return nil
	}
	if err := r.profile(ctx, "cpu", profileCPU(2*r.Resolution)); err != nil {
		return err
	}
	return r.profile(ctx, "heap", "/debug/pprof/heap?gc=1")
}

// startProfile is how much of the start is profiled.
const startProfile = 20 * time.Second

// profileStart saves a CPU profile of the start, as soon as the binary serves profiles.
func (r *run) profileStart(ctx context.Context) {
	for begun := time.Now(); r.Profiles != "" && time.Since(begun) < startProfile; {
		if r.profile(ctx, "start", profileCPU(startProfile)) == nil || wait(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
}

// profileRequest saves a CPU profile of the binary while it answers ask again and again.
func (r *run) profileRequest(ctx context.Context, name string, ask func() error) error {
	if r.Profiles == "" {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		done <- r.profile(ctx, strings.NewReplacer(" ", "-", ",", "").Replace(name), profileCPU(4*time.Second))
	}()
	for {
		select {
		case err := <-done:
			return err
		default:
		}
		if err := ask(); err != nil {
			return r.server.Failure(err)
		}
	}
}

func profileCPU(d time.Duration) string {
	return fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(d.Seconds()))
}

// profile saves what the binary serves at path. It waits for other profiles: a program makes one of its CPU time at once.
func (r *run) profile(ctx context.Context, name, path string) error {
	r.profiling.Lock()
	defer r.profiling.Unlock()
	if err := os.MkdirAll(r.Profiles, 0o755); err != nil {
		return err
	}
	c := binary.NewClient(r.server.URL) // on a connection of its own: r.client's is what is measured
	defer c.Close()
	b, err := c.Get(ctx, binary.Request{Path: path})
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return os.WriteFile(filepath.Join(r.Profiles, fmt.Sprintf("%dx%d-%s.pprof", r.Nodes, r.Pods, name)), b, 0o644)
}
