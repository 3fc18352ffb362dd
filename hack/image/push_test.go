package main

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// What a registry has afterwards is what the archive holds, by the same digest.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for _, platforms := range []string{"linux/amd64", "linux/amd64,linux/arm64"} {
		tag, err := name.NewTag(strings.TrimPrefix(server.URL, "http://")+"/team/server:v1.2.3", name.StrictValidation)
		if err != nil {
			t.Fatal(err)
		}
		var images []platformImage
		targets, err := parsePlatforms(platforms)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range targets {
			image, err := newImage(program{name: "server", content: []byte(p.String())}, p)
			if err != nil {
				t.Fatal(err)
			}
			images = append(images, platformImage{image, p})
		}
		archive := filepath.Join(t.TempDir(), "image.tar")
		if err := writeArchive(archive, tag, images); err != nil {
			t.Fatal(err)
		}
		digest, err := push(t.Context(), archive, tag)
		if err != nil {
			t.Fatal(err)
		}
		pushed, err := remote.Get(tag)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		if want := readIndex(t, content).Manifests[0].Digest; pushed.Digest != want || digest.DigestStr() != want.String() {
			t.Errorf("%s: the registry has %s, push says %s, the archive holds %s", platforms, pushed.Digest, digest, want)
		}
		if len(targets) == 1 {
			continue
		}
		index, err := pushed.ImageIndex()
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(index); err != nil {
			t.Error(err)
		}
	}
}

func TestPushErrors(t *testing.T) {
	tag, err := name.NewTag("localhost:1/server:v1", name.StrictValidation)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.tar")
	if err := os.WriteFile(empty, make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := newImage(program{name: "server"}, v1.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(dir, "image.tar")
	if err := writeArchive(whole, tag, []platformImage{{image, v1.Platform{}}}); err != nil {
		t.Fatal(err)
	}
	for archive, want := range map[string]string{
		filepath.Join(dir, "none.tar"): "none.tar",
		empty:                          "no OCI image layout",
		whole:                          "push to localhost:1/server:v1",
	} {
		if _, err := push(t.Context(), archive, tag); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", archive, err, want)
		}
	}
}
