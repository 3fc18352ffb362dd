package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

const (
	// workloadImage is the image of test/e2e/workload: the pods' pause process, and workloads with a known usage.
	workloadImage = "localhost/workload:dev"
	serverImage   = "localhost/metrics-server:demo"
)

// goBuild builds the package pkg of the module in dir as a static program.
func (c *cluster) goBuild(ctx context.Context, dir, pkg, program string, env ...string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, pkg)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOTMPDIR="+c.path("tmp")), env...)
	killGroup(cmd)
	_, err := output(cmd)
	return err
}

// buildWorkloadImage builds and packs test/e2e/workload.
func (c *cluster) buildWorkloadImage(ctx context.Context, archive string) error {
	program := c.path("tmp", "workload")
	if err := c.goBuild(ctx, c.root, "./test/e2e/workload", program, "GOOS=linux"); err != nil {
		return err
	}
	return c.packImage(ctx, archive, workloadImage, "-binary", program)
}

// packImage writes an image archive with hack/image; without -binary in args it has the server.
func (c *cluster) packImage(ctx context.Context, archive, tag string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"run", ".", "-o", archive, "-tag", tag}, args...)...)
	cmd.Dir = filepath.Join(c.root, "hack", "image")
	// Temporary files go where they are removed even if this is interrupted.
	cmd.Env = append(os.Environ(), "TMPDIR="+c.path("tmp"))
	killGroup(cmd)
	_, err := output(cmd)
	return err
}

// fileDigest identifies the content of a file.
func fileDigest(path string) (string, error) {
	b, err := os.ReadFile(path)
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b)), err
}

// importImages gives image archives to the containerd of each of nodes.
func importImages(ctx context.Context, r record, nodes []node, archives []string) error {
	return each(nodes, func(n node) error {
		// The socket is in the node's mount namespace, which the kernel shows below its first process.
		socket := fmt.Sprintf("/proc/%d/root%s", n.Supervisor, containerdSock)
		for _, archive := range archives {
			cmd := exec.CommandContext(ctx, "/usr/bin/ctr", "--address", socket, "--namespace", "k8s.io",
				"images", "import", "--snapshotter", r.Layout.Snapshotter, archive)
			if _, err := output(cmd); err != nil {
				return fmt.Errorf("image %s to %s: %w", filepath.Base(archive), n.name(), err)
			}
		}
		return nil
	})
}

// images are the archives of the images that every node has, also one that is added; the newest last, as a name
// means the image that came last.
func (c *cluster) images() ([]string, error) {
	archives, err := filepath.Glob(c.path("images", "*.tar"))
	if err != nil {
		return nil, err
	}
	written := map[string]time.Time{}
	for _, archive := range archives {
		info, err := os.Stat(archive)
		if err != nil {
			return nil, err
		}
		written[archive] = info.ModTime()
	}
	slices.SortFunc(archives, func(a, b string) int { return written[a].Compare(written[b]) })
	return archives, nil
}

// loadImages loads image archives, as written by docker save, on all nodes, including nodes that are added later. An
// archive that is loaded again replaces the previous one.
func (c *cluster) loadImages(ctx context.Context, archives []string) error {
	r, unlock, err := c.change(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, archive := range archives {
		b, err := os.ReadFile(archive)
		if err != nil {
			return err
		}
		abs, err := filepath.Abs(archive)
		if err != nil {
			return err
		}
		kept := c.path("images", fmt.Sprintf("loaded-%.8x.tar", sha256.Sum256([]byte(abs))))
		if err := writeFile(kept, b, 0o600); err != nil {
			return err
		}
		err = step(filepath.Base(archive)+" to the nodes",
			func(*progress) error { return importImages(ctx, r, r.up(""), []string{kept}) })
		if err != nil {
			return errors.Join(err, os.Remove(kept))
		}
	}
	return nil
}
