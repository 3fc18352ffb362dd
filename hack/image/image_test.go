package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestBinary(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "burner")
	if err := os.WriteFile(binary, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	packBinary := func(out string) []byte {
		t.Helper()
		out = filepath.Join(dir, out)
		if err := run(t.Context(), []string{
			"-o", out, "-tag", "localhost/burner:1", "-platform", "linux/arm64", "-binary",
			"load=" + binary,
		}); err != nil {
			t.Fatal(err)
		}
		archive, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return archive
	}

	first := packBinary("first.tar")
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(binary, later, later); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, packBinary("second.tar")) {
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
	if len(files) != 2 || string(files["load"].content) != "a program" || files["load"].mode != 0o755 ||
		files["tmp/"].mode != 0o1777 {
		t.Errorf("files %v, want an executable load and a tmp/ that everyone may write", files)
	}
}

// pack writes an archive of an image for each platform, which holds the platform's name as its program.
func pack(t *testing.T, path, image string, platforms ...string) []byte {
	t.Helper()
	tag, err := name.NewTag(image)
	if err != nil {
		t.Fatal(err)
	}
	targets, err := parsePlatforms(strings.Join(platforms, ","))
	if err != nil {
		t.Fatal(err)
	}
	var images []platformImage
	for _, platform := range targets {
		image, err := newImage(program{name: "server", content: []byte(platform.String())}, platform)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, platformImage{image, platform})
	}
	if err := writeArchive(path, tag, images); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

func TestSeveralPlatforms(t *testing.T) {
	archive := pack(t, filepath.Join(t.TempDir(), "image.tar"), "registry.example/team/server:v1.2.3",
		"linux/amd64", "linux/arm/v7")

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

// TestPush checks that `make push` gives a registry what the archive holds, by the same digest, and prints its name.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	repository := strings.TrimPrefix(server.URL, "http://") + "/team/server"
	for _, platforms := range [][]string{{"linux/amd64"}, {"linux/amd64", "linux/arm64"}} {
		dist := t.TempDir()
		archive := pack(t, filepath.Join(dist, "metrics-server-image.tar"), repository+":v1.2.3", platforms...)
		push := exec.CommandContext(t.Context(), "make", "-C", "../..", "--no-print-directory", "push", "DIST="+dist,
			"IMAGE="+repository+":v1.2.3")
		push.Env = append(os.Environ(), "MAKEFLAGS=")
		push.Stderr = os.Stderr
		printed, err := push.Output()
		if err != nil {
			t.Fatal(err)
		}
		held := readIndex(t, archive).Manifests[0].Digest
		if want := repository + "@" + held.String() + "\n"; string(printed) != want {
			t.Errorf("%q: it prints %q, want %q", platforms, printed, want)
		}
		digest, err := name.NewDigest(repository + "@" + held.String())
		if err != nil {
			t.Fatal(err)
		}
		pushed, err := remote.Get(digest.Context().Tag("v1.2.3"))
		if err != nil {
			t.Fatal(err)
		}
		if pushed.Digest != held {
			t.Errorf("%q: the registry has %s, the archive %s", platforms, pushed.Digest, held)
		}
		if len(platforms) == 1 {
			continue
		}
		index, err := pushed.ImageIndex()
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(index); err != nil {
			t.Errorf("the registry does not have the whole index: %v", err)
		}
	}
}

// TestServer builds the real one: static, stamped, labelled, and of the same bytes as from a copy of the sources
// elsewhere, in another environment, at another time. It cannot see what differs only if everything is compiled
// again, which would take minutes: docs/security.md says what was found by hand.
func TestServer(t *testing.T) {
	for name, value := range map[string]string{
		"VERSION": "v1.2.3-test+metadata", "COMMIT": "0123456789abcdef", "TREE_STATE": "clean",
		"BUILD_DATE": "2026-01-02T03:04:05Z",
	} {
		t.Setenv(name, value)
	}
	out := filepath.Join(t.TempDir(), "image.tar")
	boms := t.TempDir()
	if err := run(t.Context(), []string{"-o", out, "-tag", "localhost/metrics-server:test", "-sbom", boms}); err != nil {
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
	if got := config.Config.Labels[versionLabel]; got != "v1.2.3-test+metadata" {
		t.Errorf("version label %q, want v1.2.3-test+metadata", got)
	}
	if got := config.Created.Format(time.RFC3339); got != "2026-01-02T03:04:05Z" {
		t.Errorf("created %s, want the build date", got)
	}
	files := readFiles(t, image)
	if diff := cmp.Diff([]string{"metrics-server", "tmp/"}, slices.Sorted(maps.Keys(files))); diff != "" {
		t.Errorf("files in the image (-want +got):\n%s", diff)
	}

	binary := filepath.Join(t.TempDir(), "metrics-server")
	if err := os.WriteFile(binary, files["metrics-server"].content, 0o700); err != nil {
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
	if template := []byte("text/template.(*state).evalField"); bytes.Contains(files["metrics-server"].content, template) {
		t.Errorf("the binary has %s, for which the linker keeps every method of every type", template)
	}
	version, err := exec.CommandContext(t.Context(), binary, "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(version), "v1.2.3-test+metadata") {
		t.Errorf("--version says %q (%v), want v1.2.3-test+metadata", version, err)
	}

	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	bomName := "metrics-server-linux-" + runtime.GOARCH + ".cdx.json"
	bom, err := os.ReadFile(filepath.Join(boms, bomName))
	if err != nil {
		t.Fatal(err)
	}
	checkBOM(t, bom, binary)

	t.Setenv("GOFLAGS", "-tags=elsewhere -buildvcs=true")
	t.Setenv("TZ", "Pacific/Chatham")
	again, err := buildServer(t.Context(), copyOfSources(t), platform)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.content, files["metrics-server"].content) {
		t.Error("the same sources in another directory gave a different binary")
	}
	tag, err := name.NewTag("localhost/metrics-server:test")
	if err != nil {
		t.Fatal(err)
	}
	image, err = newImage(again, platform)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err = errors.Join(writeArchive(filepath.Join(dir, "image.tar"), tag, []platformImage{{image, platform}}),
		writeBOM(dir, again, platform))
	if err != nil {
		t.Fatal(err)
	}
	for file, first := range map[string][]byte{"image.tar": archive, bomName: bom} {
		second, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Errorf("%s is different the second time", file)
		}
	}
}

// checkBOM compares a document with the output of `go version -m` for the binary.
func checkBOM(t *testing.T, document []byte, binary string) {
	t.Helper()
	var got bom
	if err := json.Unmarshal(document, &got); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "version", "-m", binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	goVersion := lines[0][strings.LastIndex(lines[0], " go")+len(" go"):]
	want := []string{"stdlib " + goVersion}
	for _, line := range lines[1:] {
		if fields := strings.Fields(line); fields[0] == "dep" {
			want = append(want, strings.Join(fields[1:], " "))
		}
	}
	if len(want) < 50 {
		t.Fatalf("go version -m names %d modules, fewer than the server can have", len(want))
	}
	var components, refs []string
	for _, c := range got.Components {
		said := c.Name + " " + c.Version
		for _, p := range c.Properties {
			said += " " + p.Value
		}
		components = append(components, said)
		refs = append(refs, c.Ref)
		if purl := "pkg:golang/" + strings.ToLower(c.Name) + "@" +
			strings.ReplaceAll(c.Version, "+", "%2B"); c.PURL != purl || c.Ref != purl {
			t.Errorf("%s has purl %s and reference %s, want %s", c.Name, c.PURL, c.Ref, purl)
		}
	}
	if diff := cmp.Diff(want, components); diff != "" {
		t.Errorf("modules (-go version -m +SBOM):\n%s", diff)
	}

	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	program := got.Metadata.Component
	if diff := cmp.Diff([]hash{{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(content))}}, program.Hashes); diff != "" {
		t.Errorf("hashes of the program (-want +got):\n%s", diff)
	}
	if program.Version != "v1.2.3-test+metadata" || got.Metadata.Timestamp != "2026-01-02T03:04:05Z" {
		t.Errorf("version %s of %s, want v1.2.3-test+metadata of 2026-01-02T03:04:05Z", program.Version,
			got.Metadata.Timestamp)
	}
	if diff := cmp.Diff([]dependency{{program.Ref, refs}}, got.Dependencies); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(
		got.SerialNumber) {
		t.Errorf("serial number %s", got.SerialNumber)
	}
}

// copyOfSources returns a directory with the sources of the server only.
func copyOfSources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range []string{"cmd", "pkg"} {
		if err := os.CopyFS(filepath.Join(dir, path), os.DirFS(filepath.Join("../..", path))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "hack"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"go.mod", "go.sum", "hack/ldflags.sh"} {
		content, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestRelease makes make write the files of a release for this platform, and checks what TestServer
// does not.
func TestRelease(t *testing.T) {
	dist := t.TempDir()
	platform := "linux-" + runtime.GOARCH
	const docs = "https://docs.example/v1.2.3"
	release := exec.CommandContext(t.Context(), "make", "-C", "../..", "release-files", "DIST="+dist,
		"IMAGE=registry.example/metrics-server:v1.2.3",
		// and not the release's Go, with which all is compiled anew
		"PLATFORMS=linux/"+runtime.GOARCH, "DOCS="+docs, "TOOLCHAIN=local")
	release.Env = append(os.Environ(), "MAKEFLAGS=", "VERSION=v1.2.3", "BUILD_DATE=2026-01-02T03:04:05Z")
	if out, err := release.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dist, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		contents[e.Name()] = string(content)
	}
	for _, name := range []string{
		"metrics-server-" + platform, "metrics-server-" + platform + ".cdx.json", "metrics-server-image.tar",
		"components.yaml", "custom-metrics.yaml", "custom-metrics-external.yaml", "alerts.yaml",
		"prometheusrule.yaml", "custom-metrics-alerts.yaml", "custom-metrics-prometheusrule.yaml", "dashboard.json",
		"config.schema.json",
	} {
		if contents[name] == "" {
			t.Errorf("there is no %s", name)
		}
	}
	if charts, err := filepath.Glob(filepath.Join(dist, "metrics-server-*.tgz")); err != nil || len(charts) != 1 {
		t.Errorf("charts %v (%v), want one", charts, err)
	}
	if !strings.Contains(contents["components.yaml"], "image: registry.example/metrics-server:v1.2.3\n") {
		t.Error("components.yaml does not have the image of the release")
	}
	for _, name := range []string{
		"alerts.yaml", "prometheusrule.yaml", "custom-metrics-alerts.yaml", "custom-metrics-prometheusrule.yaml",
	} {
		if n := strings.Count(contents[name], "runbook_url: "); n == 0 ||
			n != strings.Count(contents[name], "runbook_url: "+docs+"/") {
			t.Errorf("%s has runbooks elsewhere than at %s", name, docs)
		}
	}
	version, err := exec.CommandContext(t.Context(), filepath.Join(dist, "metrics-server-"+platform),
		"--version").CombinedOutput()
	if err != nil || !strings.Contains(string(version), "v1.2.3") {
		t.Errorf("the binary says %q (%v), want v1.2.3", version, err)
	}

	sums := map[string]string{}
	for line := range strings.Lines(contents["SHA256SUMS"]) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		sums[name] = sum
	}
	want := map[string]string{}
	for name, content := range contents {
		if name != "SHA256SUMS" {
			want[name] = fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
		}
	}
	if diff := cmp.Diff(want, sums); diff != "" {
		t.Errorf("SHA256SUMS (-want +got):\n%s", diff)
	}
}

// TestOtherBuilds checks that the Dockerfile makes the same image as this module, and `make build`
// the same binary.
func TestOtherBuilds(t *testing.T) {
	read := func(path string) string {
		content, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	flags := strings.Join(buildFlags, " ")
	if want := "BUILDFLAGS = " + flags + ` -ldflags "$$(hack/ldflags.sh)"` +
		"\n"; !strings.Contains(read("Makefile"), want) {
		t.Errorf("the Makefile has no line %s", want)
	}

	// Shell commands continue on the next line after a backslash.
	text := regexp.MustCompile(`\s*\\\n\s*`).ReplaceAllString(read("Dockerfile"), " ")
	toolchain := regexp.MustCompile(`(?m)^toolchain go(.*)$`).FindStringSubmatch(read("go.mod"))
	if toolchain == nil {
		t.Fatal("go.mod names no toolchain")
	}
	build, final, ok := strings.Cut(text, "\nFROM scratch\n")
	if !ok {
		t.Fatal("the image of the Dockerfile is not from scratch")
	}
	for _, want := range []string{
		"FROM --platform=$BUILDPLATFORM golang:" + toolchain[1] + " AS build\n",
		"CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOAMD64=v1 GOARM64=v8.0",
		"go build " + flags + ` -ldflags "$(hack/ldflags.sh)" -o /out/metrics-server ./cmd/metrics-server`,
		"mkdir -m 1777 /out/tmp && touch -d ",
	} {
		if !strings.Contains(build, want) {
			t.Errorf("the Dockerfile does not build with %q", want)
		}
	}
	var got []string
	for line := range strings.SplitSeq(final, "\n") {
		if line = strings.Join(strings.Fields(line), " "); line != "" && !strings.HasPrefix(line, "#") {
			got = append(got, line)
		}
	}
	labels := []string{"LABEL"}
	for _, key := range []string{"title", "description", "licenses"} {
		key = "org.opencontainers.image." + key
		labels = append(labels, fmt.Sprintf("%s=%q", key, serverLabels[key]))
	}
	for key, argument := range map[string]string{"version": "VERSION", "revision": "COMMIT", "created": "BUILD_DATE"} {
		labels = append(labels, fmt.Sprintf("org.opencontainers.image.%s=%q", key, "$"+argument))
	}
	slices.Sort(labels[4:])
	want := []string{
		"COPY --from=build /out/ /", "USER " + nonRoot, `ENTRYPOINT ["/metrics-server"]`,
		// What hack/ldflags.sh says of a tree without git.
		"ARG VERSION=v0.0.0-unknown COMMIT=unknown BUILD_DATE=1970-01-01T00:00:00Z",
		strings.Join(labels, " "),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the last stage of the Dockerfile (-want +got):\n%s", diff)
	}
}

func TestRunErrors(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"", "-o, -sbom or -binaries is required"},
		{"-o x -tag localhost/a:1 extra", "no arguments but flags"},
		{"-o x", "-tag"},
		{"-o x -tag localhost/a:1 -sbom . -binary y", "-sbom and -binaries are of the server"},
		{"-o x -tag localhost/a:1 -binaries . -binary y", "-sbom and -binaries are of the server"},
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
