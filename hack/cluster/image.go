package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	// workloadImage is the image of the program in workload/: the pods' pause process, and workloads of known usage.
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

// buildWorkloadImage builds and packs the program in workload/.
func (c *cluster) buildWorkloadImage(ctx context.Context, archive string) error {
	program := c.path("tmp", "workload")
	if err := c.goBuild(ctx, c.module(), "./workload", program, "GOOS=linux"); err != nil {
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

// fileDigest identifies what is in a file.
func fileDigest(path string) (string, error) {
	b, err := os.ReadFile(path)
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b)), err
}

// importImage gives an image archive to the node's containerd.
func (c *cluster) importImage(ctx context.Context, r record, archive string) error {
	// The socket is in the node's mount namespace, which the kernel shows below its first process.
	socket := fmt.Sprintf("/proc/%d/root%s", r.Supervisor, containerdSock)
	cmd := exec.CommandContext(ctx, "/usr/bin/ctr", "--address", socket, "--namespace", "k8s.io",
		"images", "import", "--snapshotter", r.Layout.Snapshotter, archive)
	_, err := output(cmd)
	return err
}
