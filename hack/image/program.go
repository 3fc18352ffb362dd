package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// program is a static binary with the metadata of its image.
type program struct {
	name    string
	content []byte
	created time.Time
	labels  map[string]string
}

// fileName is the name of a file of the program for one platform: NAME-OS-ARCHITECTURE.
func (p program) fileName(platform v1.Platform) string {
	return p.name + "-" + strings.ReplaceAll(platform.String(), "/", "-")
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

const (
	versionLabel  = "org.opencontainers.image.version"
	licencesLabel = "org.opencontainers.image.licenses"
)

// serverLabels are the labels that every image of the server has.
var serverLabels = map[string]string{
	"org.opencontainers.image.title":       "metrics-server",
	"org.opencontainers.image.description": "Resource metrics of nodes and pods for kubectl top and the autoscalers",
	licencesLabel:                          "Apache-2.0",
}

// buildFlags are the flags of every build of the server; -ldflags come from hack/ldflags.sh. They
// keep the directory, the machine and the time out of the binary. The tag leaves out the only user
// of text/template, for which the linker would have to keep every method of every type: 18 MB.
var buildFlags = []string{"-trimpath", "-buildvcs=false", "-tags=grpcnotrace"}

// buildServer builds the server from the sources in root, a copy of the repository.
func buildServer(ctx context.Context, root string, platform v1.Platform) (program, error) {
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

	build := exec.CommandContext(ctx, "go", slices.Concat([]string{"build"}, buildFlags,
		[]string{"-ldflags", ldflags, "-o", binary, "./cmd/metrics-server"})...)
	build.Dir = root
	// Everything else that could differ between users and be visible in the binary has its default.
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+platform.OS, "GOARCH="+platform.Architecture,
		"GOFLAGS=-mod=readonly", "GOWORK=off", "GOAMD64=v1", "GOARM64=v8.0")
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
	labels := maps.Clone(serverLabels)
	labels[versionLabel] = stamp["gitVersion"]
	labels["org.opencontainers.image.revision"] = stamp["gitCommit"]
	labels["org.opencontainers.image.created"] = stamp["buildDate"]
	return program{name: "metrics-server", content: content, created: created, labels: labels}, nil
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
