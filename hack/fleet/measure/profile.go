package measure

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
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

// profileStart saves a CPU profile of the first half minute, as soon as the binary serves profiles.
func (r *run) profileStart(ctx context.Context) {
	for r.Profiles != "" && ctx.Err() == nil {
		if r.profile(ctx, "start", profileCPU(30*time.Second)) == nil {
			return
		}
		_ = wait(ctx, 50*time.Millisecond)
	}
}

// profileRequest saves a CPU profile of the binary while it answers q again and again.
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
			return r.server.failure(err)
		}
	}
}

func profileCPU(d time.Duration) string {
	return fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(d.Seconds()))
}

// profile saves what the binary serves at path.
func (r *run) profile(ctx context.Context, name, path string) error {
	if err := os.MkdirAll(r.Profiles, 0o755); err != nil {
		return err
	}
	c := newClient(r.server.url) // on a connection of its own: r.client's is what is measured
	defer c.close()
	b, err := c.get(ctx, request{path: path})
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return os.WriteFile(filepath.Join(r.Profiles, fmt.Sprintf("%dx%d-%s.pprof", r.Nodes, r.Pods, name)), b, 0o644)
}
