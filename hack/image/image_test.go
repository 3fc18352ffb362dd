package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestBinary(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "burner")
	if err := os.WriteFile(binary, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	pack := func(out string) []byte {
		t.Helper()
		out = filepath.Join(dir, out)
		if err := run(t.Context(), []string{"-o", out, "-tag", "localhost/burner:1", "-platform", "linux/arm64", "-binary", "load=" + binary}); err != nil {
			t.Fatal(err)
		}
		archive, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return archive
	}

	first := pack("first.tar")
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(binary, later, later); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, pack("second.tar")) {
		t.Error("packing the same binary twice gave different archives")
	}

	manifest := readIndex(t, first)
	if len(manifest.Manifests) != 1 {
		t.Fatalf("%d entries in the index, want 1", len(manifest.Manifests))
	}
	entry := manifest.Manifests[0]
	checkNames(t, entry.Annotations, "localhost/burner:1", "1")
	if got := entry.Platform.String(); got != "linux/arm64" {
		t.Errorf("platform %s, want linux/arm64", got)
	}
	image := readImage(t, first, entry.Digest)
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != "arm64" || config.OS != "linux" {
		t.Errorf("config is for %s/%s, want linux/arm64", config.OS, config.Architecture)
	}
	if got := config.Config.Entrypoint; len(got) != 1 || got[0] != "/load" {
		t.Errorf("entrypoint %q, want /load", got)
	}
	if config.Config.User != "65532:65532" {
		t.Errorf("user %q, want a number that is not root", config.Config.User)
	}
	files := readFiles(t, image)
	if len(files) != 2 || string(files["load"].content) != "a program" || files["load"].mode != 0o755 || files["tmp/"].mode != 0o1777 {
		t.Errorf("files %v, want an executable load and a tmp/ that everyone may write", files)
	}
}

func TestSeveralPlatforms(t *testing.T) {
	tag, err := name.NewTag("registry.example/team/server:v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	platforms, err := parsePlatforms("linux/amd64,linux/arm/v7")
	if err != nil {
		t.Fatal(err)
	}
	var images []platformImage
	for _, platform := range platforms {
		image, err := newImage(program{name: "server", content: []byte(platform.String())}, platform)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, platformImage{image, platform})
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := writeArchive(path, tag, images); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	outer := readIndex(t, archive)
	if len(outer.Manifests) != 1 || !outer.Manifests[0].MediaType.IsIndex() {
		t.Fatalf("outer index %+v, want one entry that is an index", outer.Manifests)
	}
	checkNames(t, outer.Manifests[0].Annotations, "registry.example/team/server:v1.2.3", "v1.2.3")
	index, err := layout.ImageIndexFromPath(unpack(t, archive))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := index.ImageIndex(outer.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := inner.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"linux/amd64", "linux/arm/v7"} {
		if got := manifest.Manifests[i].Platform.String(); got != want {
			t.Errorf("entry %d is for %s, want %s", i, got, want)
		}
		image, err := inner.Image(manifest.Manifests[i].Digest)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(readFiles(t, image)["server"].content); got != want {
			t.Errorf("the image for %s holds the program for %s", want, got)
		}
	}
}

// TestServer builds the real one: static, stamped, labelled.
func TestServer(t *testing.T) {
	t.Setenv("VERSION", "v1.2.3-test")
	t.Setenv("BUILD_DATE", "2026-01-02T03:04:05Z")
	out := filepath.Join(t.TempDir(), "image.tar")
	if err := run(t.Context(), []string{"-o", out, "-tag", "localhost/metrics-server:test"}); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	image := readImage(t, archive, readIndex(t, archive).Manifests[0].Digest)
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config.Labels["org.opencontainers.image.version"]; got != "v1.2.3-test" {
		t.Errorf("version label %q, want v1.2.3-test", got)
	}
	if got := config.Created.Format(time.RFC3339); got != "2026-01-02T03:04:05Z" {
		t.Errorf("created %s, want the build date", got)
	}

	binary := filepath.Join(t.TempDir(), "metrics-server")
	if err := os.WriteFile(binary, readFiles(t, image)["metrics-server"].content, 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary wants a dynamic linker, which the image does not have")
		}
	}
	version, err := exec.CommandContext(t.Context(), binary, "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(version), "v1.2.3-test") {
		t.Errorf("--version says %q (%v), want v1.2.3-test", version, err)
	}
}

func TestRunErrors(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"", "-o and -tag are required"},
		{"-o x -tag localhost/a:1 extra", "no arguments but flags"},
		{"-o x -tag metrics-server", "-tag"},
		{"-o x -tag localhost/a:1 -platform amd64", "want OS/ARCHITECTURE"},
		{"-o x -tag localhost/a:1 -platform linux/amd64,linux/arm64 -binary y", "one platform"},
		{"-o x -tag localhost/a:1 -binary does-not-exist", "does-not-exist"},
	} {
		err := run(t.Context(), strings.Fields(tt.args))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("run(%q) = %v, want an error that says %q", tt.args, err, tt.want)
		}
	}
}

func checkNames(t *testing.T, annotations map[string]string, image, ref string) {
	t.Helper()
	if got := annotations["io.containerd.image.name"]; got != image {
		t.Errorf("image name %q, want %q", got, image)
	}
	if got := annotations["org.opencontainers.image.ref.name"]; got != ref {
		t.Errorf("ref name %q, want %q", got, ref)
	}
}

// readIndex returns the archive's index after it has checked every digest and size below it.
func readIndex(t *testing.T, archive []byte) *v1.IndexManifest {
	t.Helper()
	index, err := layout.ImageIndexFromPath(unpack(t, archive))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

func readImage(t *testing.T, archive []byte, digest v1.Hash) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(unpack(t, archive))
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

type imageFile struct {
	mode    int64
	content []byte
}

func readFiles(t *testing.T, image v1.Image) map[string]imageFile {
	t.Helper()
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers (%v), want 1", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return readTar(t, r)
}

// unpack returns a directory with the archive's files.
func unpack(t *testing.T, archive []byte) string {
	t.Helper()
	dir := t.TempDir()
	for path, file := range readTar(t, bytes.NewReader(archive)) {
		if strings.HasSuffix(path, "/") {
			continue
		}
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, file.content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readTar(t *testing.T, r io.Reader) map[string]imageFile {
	t.Helper()
	files := map[string]imageFile{}
	for tr := tar.NewReader(r); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = imageFile{header.Mode, content}
	}
}
