package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
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
	r, _ := c.load()
	if r.Kind != nil {
		if err := r.Kind.remove(); err != nil {
			return err
		}
	}
	for _, n := range r.nodes() { // all others end with the first, but their cgroups must be empty below
		if err := n.end(syscall.SIGTERM, syscall.SIGKILL); err != nil {
			return err
		}
	}
	// Their mounts went with their mount namespaces, their networks with their network namespaces.
	if err := removeCgroups(c.id()); err != nil {
		return fmt.Errorf("remove the cgroups: %w", err)
	}
	return c.removeState(r)
}

// removeState removes the state directory, whose record is r, if it is empty or really is one: -state may name a
// directory that somebody needs.
func (c *cluster) removeState(r record) error {
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, os.ErrNotExist) || len(entries) == 0 {
		return os.RemoveAll(c.dir)
	}
	// After a power cut, the record can be empty.
	if _, err := os.Stat(c.path("log", "supervisor.log")); err != nil && !slices.Contains(modes, r.Mode) {
		return fmt.Errorf("%s is not the state directory of a cluster, so it is not removed: give another one with "+
			"-state, or remove it yourself", c.dir)
	}
	return os.RemoveAll(c.dir)
}

// logs shows the end of a component's log.
func (c *cluster) logs(ctx context.Context, flags *flag.FlagSet, args []string) error {
	n := flags.Int("n", 50, "number of lines")
	follow := flags.Bool("f", false, "go on with what is added")
	if err := c.parse(flags, args); err != nil {
		return err
	}
	m, component := c.machine, flags.Arg(0)
	if name, rest, ok := strings.Cut(component, "/"); ok {
		if n, err := parseNode(name); err == nil {
			m, component = c.on(n), rest
		}
	}
	path := m.path("log", component+".log")
	file, err := os.Open(path)
	if err != nil {
		found, _ := filepath.Glob(c.path("log", "*.log"))
		others, _ := filepath.Glob(c.path("nodes", "*", "log", "*.log"))
		for i := range found {
			found[i] = strings.TrimSuffix(filepath.Base(found[i]), ".log")
		}
		for _, path := range others {
			name := filepath.Base(filepath.Dir(filepath.Dir(path)))
			found = append(found, name+"/"+strings.TrimSuffix(filepath.Base(path), ".log"))
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
