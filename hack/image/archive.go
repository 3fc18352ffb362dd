package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nonRoot is the user of an image unless the pod names another one. It is a number, because the
// kubelet cannot check runAsNonRoot for a name.
const nonRoot = "65532:65532"

type platformImage struct {
	image    v1.Image
	platform v1.Platform
}

// newImage packs the program as /NAME. The image has nothing else except a /tmp: no shell, no libraries.
func newImage(p program, platform v1.Platform) (v1.Image, error) {
	files, err := newLayer(p)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS:           platform.OS,
		Architecture: platform.Architecture,
		Variant:      platform.Variant,
		Created:      v1.Time{Time: p.created},
		Config: v1.Config{
			Entrypoint: []string{"/" + p.name},
			User:       nonRoot,
			WorkingDir: "/",
			Labels:     p.labels,
		},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: p.created}, CreatedBy: "COPY " + p.name + " /" + p.name},
	})
}

// newLayer is the image's file system as a tar archive. Every header field is fixed, so that the same
// program gives the same bytes.
func newLayer(p program) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := errors.Join(
		w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: p.created}),
		w.WriteHeader(&tar.Header{
			Name: p.name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(p.content)),
			ModTime: p.created,
		}),
	)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(p.content); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}

// writeArchive writes an OCI image layout that holds one name: of the image, or, if there are several, of
// the index of them. The file appears at the end and whole.
func writeArchive(path string, tag name.Tag, images []platformImage) error {
	names := map[string]string{
		"io.containerd.image.name":          tag.Name(), // what ctr and docker load read
		"org.opencontainers.image.ref.name": tag.TagStr(),
	}
	var index v1.ImageIndex = empty.Index
	for _, i := range images {
		d := v1.Descriptor{Platform: &i.platform}
		if len(images) == 1 {
			d.Annotations = names
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: i.image, Descriptor: d})
	}
	if len(images) > 1 {
		index = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
			Add:        index,
			Descriptor: v1.Descriptor{Annotations: names},
		})
	}

	dir, err := os.MkdirTemp("", "metrics-server-layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := layout.Write(dir, index); err != nil {
		return fmt.Errorf("write image layout: %w", err)
	}

	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // fails once the file has been renamed, which is fine
	err = errors.Join(tarDirectory(file, dir), file.Chmod(0o644), file.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(file.Name(), path)
}

// tarDirectory writes the files below dir in lexical order, without what differs from machine to machine:
// times, owners, modes.
func tarDirectory(out io.Writer, dir string) error {
	w := tar.NewWriter(out)
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if entry.IsDir() {
			return w.WriteHeader(&tar.Header{Name: path + "/", Typeflag: tar.TypeDir, Mode: 0o755})
		}
		content, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{
			Name: path, Typeflag: tar.TypeReg, Mode: 0o644,
			Size: int64(len(content)),
		}); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	return errors.Join(err, w.Close())
}
