package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// push copies the image in an archive of writeArchive to a registry, byte for byte, and returns its
// name with the digest. It uses the credentials of `docker login`.
func push(ctx context.Context, archive string, tag name.Tag) (name.Digest, error) {
	dir, err := os.MkdirTemp("", "metrics-server-push-")
	if err != nil {
		return name.Digest{}, err
	}
	defer os.RemoveAll(dir)
	if err := untar(archive, dir); err != nil {
		return name.Digest{}, fmt.Errorf("unpack %s: %w", archive, err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return name.Digest{}, fmt.Errorf("%s is no OCI image layout: %w", archive, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return name.Digest{}, fmt.Errorf("%s: %w", archive, err)
	}
	if len(manifest.Manifests) != 1 {
		return name.Digest{}, fmt.Errorf("%s holds %d images, want one, or one index", archive, len(manifest.Manifests))
	}
	held := manifest.Manifests[0]
	var what remote.Taggable
	if held.MediaType.IsIndex() {
		what, err = index.ImageIndex(held.Digest)
	} else {
		what, err = index.Image(held.Digest)
	}
	if err != nil {
		return name.Digest{}, fmt.Errorf("%s: %w", archive, err)
	}
	to := remote.WithAuthFromKeychain(authn.DefaultKeychain)
	if err := remote.MultiWrite(map[name.Reference]remote.Taggable{tag: what}, to, remote.WithContext(ctx)); err != nil {
		return name.Digest{}, fmt.Errorf("push to %s: %w", tag, err)
	}
	return tag.Digest(held.Digest.String()), nil
}

// untar unpacks files and directories into dir, and nothing outside of it.
func untar(archive, dir string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(file); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag == tar.TypeDir {
			err = root.MkdirAll(filepath.Clean(header.Name), 0o755)
		} else {
			err = unpackFile(root, header.Name, r)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, path string, content io.Reader) error {
	file, err := root.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}
