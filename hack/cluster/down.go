package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// down ends the cluster.
func (c *cluster) down(ctx context.Context) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(c.dir); errors.Is(err, os.ErrNotExist) {
		sayf("No cluster runs.")
		return nil
	}
	return step("ending the cluster", func(*progress) error { return c.remove() })
}

// remove ends the cluster's processes, running or left over, and removes its cgroups and files. It cannot be
// interrupted, takes a few seconds at most, and may be called again.
func (c *cluster) remove() error {
	if r, running := c.load(); running {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			if err := syscall.Kill(r.Supervisor, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("end the supervisor, process %d: %w", r.Supervisor, err)
			}
			for end := time.Now().Add(10 * time.Second); running && time.Now().Before(end); _, running = c.load() {
				if err := sleep(context.Background(), 10*time.Millisecond); err != nil {
					return err
				}
			}
		}
		if running {
			return fmt.Errorf("the supervisor, process %d, does not end", r.Supervisor)
		}
	}
	// Its mounts went with its mount namespace, its network with its network namespace.
	if err := removeCgroups(c.id()); err != nil {
		return fmt.Errorf("remove the cgroups: %w", err)
	}
	return removeState(c.dir)
}

// removeState removes dir if it looks like a state directory: -state may have been pointed at something dear.
func removeState(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || len(entries) == 0 {
		return os.RemoveAll(dir)
	}
	for _, e := range entries {
		if e.Name() == "log" && e.IsDir() {
			return os.RemoveAll(dir)
		}
	}
	return fmt.Errorf("%s is not the state directory of a cluster: not removed", dir)
}

// logs shows the end of a component's log.
func (c *cluster) logs(ctx context.Context, flags *flag.FlagSet, args []string) error {
	n := flags.Int("n", 50, "number of lines")
	follow := flags.Bool("f", false, "go on with what is added")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	path := c.path("log", flags.Arg(0)+".log")
	file, err := os.Open(path)
	if err != nil {
		found, _ := filepath.Glob(c.path("log", "*.log"))
		for i := range found {
			found[i] = strings.TrimSuffix(filepath.Base(found[i]), ".log")
		}
		return fmt.Errorf("no log %q; there is: %s", flags.Arg(0), strings.Join(found, " "))
	}
	defer file.Close()
	fmt.Print(tail(path, *n))
	if _, err := file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	for *follow && sleep(ctx, 300*time.Millisecond) == nil {
		if _, err := io.Copy(os.Stdout, file); err != nil {
			return err
		}
	}
	return nil
}
