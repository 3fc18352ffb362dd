//go:build docker

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// builtImage is the tag of the image that the tests build, and remove at the end.
const builtImage = "localhost/metrics-server:docker-test"

// TestDocker builds the Dockerfile with a Docker engine, as its first lines say, compares the image with that of `make
// image`, and runs it.
func TestDocker(t *testing.T) {
	if out, err := dockerCommand(t, "version").CombinedOutput(); err != nil {
		t.Fatalf("no Docker engine answers: start one, or have hack/docker/engine.sh do it.\n%v\n%s", err, out)
	}
	script := filepath.Join("..", "ldflags.sh")
	stamp, err := exec.CommandContext(t.Context(), script, "-docker").Output()
	if err != nil {
		t.Fatal(err)
	}
	build := append([]string{"build", "-t", builtImage}, strings.Fields(string(stamp))...)
	start := time.Now()
	docker(t, append(build, "../..")...)
	t.Logf("docker build took %s", time.Since(start).Round(time.Second))
	t.Cleanup(func() { docker(t, "image", "rm", "-f", builtImage) })

	t.Run("Same", testSameImage)
	t.Run("Version", func(t *testing.T) {
		out := docker(t, "run", "--rm", "--read-only", builtImage, "--version")
		version := strings.TrimPrefix(strings.Fields(string(stamp))[1], "VERSION=")
		if !strings.Contains(out, version) {
			t.Errorf("docker run %s --version says %q, want %s in it", builtImage, out, version)
		}
	})
	t.Run("Run", testRunning)
}

// testSameImage compares the image with that of `make image`. Two things differ and have to: BuildKit sets PATH in
// every image, and dates the image itself when it is built.
func testSameImage(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "image.tar")
	docker(t, "save", "-o", archive, builtImage)
	image, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	platform := v1.Platform{OS: got.OS, Architecture: got.Architecture, Variant: got.Variant}
	p, err := buildServer(t.Context(), "../..", platform)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newImage(p, platform)
	if err != nil {
		t.Fatal(err)
	}
	want, err := other.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Config.Env) != 1 || !strings.HasPrefix(got.Config.Env[0], "PATH=") {
		t.Errorf("the environment is %q, want PATH alone", got.Config.Env)
	}
	got.Config.Env = nil
	if diff := cmp.Diff(want.Config, got.Config); diff != "" {
		t.Errorf("the configuration differs from that of `make image` (-want +got):\n%s", diff)
	}
	wantFiles, _ := filesOf(t, other)
	gotFiles, size := filesOf(t, image)
	if diff := cmp.Diff(wantFiles, gotFiles); diff != "" {
		t.Errorf("the files differ from those of `make image` (-want +got):\n%s", diff)
	}
	t.Logf("%d files, %.1f MB", len(gotFiles), float64(size)/1e6)
}

// filesOf returns a description of each file of the image, by name, and how large they are together.
func filesOf(t *testing.T, image v1.Image) (files map[string]string, size int64) {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for _, layer := range layers {
		content, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { content.Close() })
		for r := tar.NewReader(content); ; {
			header, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			sum := sha256.New()
			n, copyErr := io.Copy(sum, r)
			if err := errors.Join(err, copyErr); err != nil {
				t.Fatal(err)
			}
			size += n
			files[strings.TrimSuffix(header.Name, "/")] = fmt.Sprintf(
				"type %c, mode %o, owner %d:%d, %s, %d bytes, sha256:%x", header.Typeflag, header.Mode&0o7777,
				header.Uid, header.Gid, header.ModTime.UTC().Format(time.RFC3339), n, sum.Sum(nil))
		}
	}
	return files, size
}

// noAPIServer is a kubeconfig for an API server that does not answer: the server runs and waits for it.
const noAPIServer = `apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: none}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
`

// testRunning checks the user and that /tmp can be written, and that the server, as the container's first process,
// ends at SIGTERM.
func testRunning(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(noAPIServer), 0o644); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(docker(t, "create", "--network", "none", "--cap-drop", "ALL",
		builtImage, "--kubeconfig=/kubeconfig", "--cert-dir=/tmp", "--secure-port=10250"))
	t.Cleanup(func() { docker(t, "rm", "-f", id) })
	docker(t, "cp", kubeconfig, id+":/kubeconfig")
	docker(t, "start", id)
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(logs(t, id), "Serving securely on") {
		if time.Now().After(deadline) {
			t.Fatalf("the server does not serve. It says:\n%s", logs(t, id))
		}
		time.Sleep(200 * time.Millisecond)
	}
	processes := strings.Fields(docker(t, "top", id, "-eo", "pid,uid,gid"))
	if len(processes) != 6 || processes[4] != "65532" || processes[5] != "65532" {
		t.Errorf("the processes are %q, want one of user and group 65532", processes)
	}
	if changes := docker(t, "diff", id); !strings.Contains(changes, "A /tmp/apiserver.crt\n") {
		t.Errorf("the server wrote\n%s, want its certificate in /tmp", changes)
	}
	// After a minute the engine would send SIGKILL, and the exit code would be 137.
	start := time.Now()
	docker(t, "stop", "--time", "60", id)
	state := strings.TrimSpace(docker(t, "inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", id))
	if took := time.Since(start); state != "0 false" || took > 30*time.Second {
		t.Errorf("%s after SIGTERM the exit code, and whether memory was short, is %q, want 0 false. The server said:\n%s",
			took, state, logs(t, id))
	}
}

// logs returns what a container wrote.
func logs(t *testing.T, id string) string {
	t.Helper()
	out, err := dockerCommand(t, "logs", id).CombinedOutput()
	if err != nil {
		t.Fatalf("docker logs: %v\n%s", err, out)
	}
	return string(out)
}

// docker runs a docker command, and returns its standard output.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	cmd := dockerCommand(t, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.String()
}

// dockerCommand is a command of $DOCKER, or else of docker. It also runs in a Cleanup, when t.Context has ended.
func dockerCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program := os.Getenv("DOCKER")
	if program == "" {
		program = "docker"
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	return cmd
}
