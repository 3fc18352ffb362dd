package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// program is a static binary and what its image says of it.
type program struct {
	name    string
	content []byte
	created time.Time
	labels  map[string]string
}

// readProgram takes [NAME=]PATH. The image has no creation time: it depends on the file's bytes alone.
func readProgram(arg string) (program, error) {
	name, path, ok := strings.Cut(arg, "=")
	if !ok {
		name, path = filepath.Base(arg), arg
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return program{}, fmt.Errorf("-binary: %w", err)
	}
	return program{name: name, content: content, created: time.Unix(0, 0).UTC()}, nil
}

// buildServer builds the server as `make build` does. It is run in its module's directory, as `go run .` is.
func buildServer(ctx context.Context, platform v1.Platform) (program, error) {
	const root = "../.."
	script, err := filepath.Abs(filepath.Join(root, "hack", "ldflags.sh"))
	if err != nil {
		return program{}, err
	}
	flags, err := exec.CommandContext(ctx, script).Output()
	if err != nil {
		return program{}, fmt.Errorf("%s: %w: run this command in hack/image", script, err)
	}
	ldflags := strings.TrimSpace(string(flags))

	dir, err := os.MkdirTemp("", "metrics-server-image-")
	if err != nil {
		return program{}, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "metrics-server")

	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", binary, "./cmd/metrics-server")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+platform.OS, "GOARCH="+platform.Architecture)
	if platform.Architecture == "arm" && platform.Variant != "" {
		build.Env = append(build.Env, "GOARM="+strings.TrimPrefix(platform.Variant, "v"))
	}
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return program{}, fmt.Errorf("go build for %s: %w", platform, err)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return program{}, err
	}

	stamp := parseStamp(ldflags)
	created, err := time.Parse(time.RFC3339, stamp["buildDate"])
	if err != nil {
		return program{}, fmt.Errorf("BUILD_DATE: %w", err)
	}
	return program{
		name:    "metrics-server",
		content: content,
		created: created,
		labels: map[string]string{
			"org.opencontainers.image.title":       "metrics-server",
			"org.opencontainers.image.description": "Resource metrics of nodes and pods for kubectl top and the autoscalers",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     stamp["gitVersion"],
			"org.opencontainers.image.revision":    stamp["gitCommit"],
			"org.opencontainers.image.created":     stamp["buildDate"],
		},
	}, nil
}

// parseStamp finds the NAME=VALUE of every -X PACKAGE.NAME=VALUE.
func parseStamp(ldflags string) map[string]string {
	stamp := map[string]string{}
	for field := range strings.FieldsSeq(ldflags) {
		variable, value, ok := strings.Cut(field, "=")
		if ok {
			stamp[variable[strings.LastIndexByte(variable, '.')+1:]] = value
		}
	}
	return stamp
}
