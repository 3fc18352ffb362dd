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

// profiles saves profiles of the binary under load, if it serves them.
func (r *run) profiles(ctx context.Context) error {
	if r.Profiles == "" {
		return nil
	}
	if err := r.profile(ctx, "cpu", profileCPU(2*r.Resolution)); err != nil {
		return err
	}
	return r.profile(ctx, "heap", profileHeap)
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

// profileHeap is the path of a heap profile after a garbage collection.
const profileHeap = "/debug/pprof/heap?gc=1"

// profileCPU returns the path of a CPU profile of that time.
func profileCPU(d time.Duration) string {
	return fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(d.Seconds()))
}

// profile saves a profile of the binary. It waits for other profiles, because a program can make
// only one CPU profile at a time.
func (r *run) profile(ctx context.Context, name, path string) error {
	r.profiling.Lock()
	defer r.profiling.Unlock()
	file := filepath.Join(r.Profiles, fmt.Sprintf("%dx%d-%s.pprof", r.Nodes, r.Pods, name))
	return saveProfile(ctx, r.server.URL, path, file)
}

// saveProfile writes what the server at url serves at path to file, over a connection that is not
// measured.
func saveProfile(ctx context.Context, url, path, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	c := binary.NewClient(url)
	defer c.Close()
	b, err := c.Get(ctx, binary.Request{Path: path})
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return os.WriteFile(file, b, 0o644)
}
