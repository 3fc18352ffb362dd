// Command manifests renders deploy/kustomize into one-file manifests, as releases have them.
//
//	go run . -o ../../dist -image registry.example/metrics-server:v1.2.3
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/api/filters/imagetag"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// deploy is relative to this module's directory, where `go run .` and `go test` run.
const deploy = "../../deploy"

// releases maps each one-file manifest to the kustomization that it is rendered from.
var releases = map[string]string{
	"components.yaml":                       "kustomize/base",
	"components-insecure-kubelet-tls.yaml":  "kustomize/overlays/insecure-kubelet-tls",
	"high-availability.yaml":                "kustomize/overlays/high-availability",
	"custom-metrics.yaml":                   "kustomize/custom-metrics",
	"custom-metrics-high-availability.yaml": "kustomize/overlays/custom-metrics-high-availability",
	"custom-metrics-external.yaml":          "kustomize/overlays/custom-metrics-external",
}

// baseImage is the name that deploy/kustomize gives to the server's image.
const baseImage = "localhost/metrics-server"

func main() {
	out := flag.String("o", "", "the `directory` to write to (required)")
	image := flag.String("image", baseImage+":dev", "the server's image, `NAME:TAG`")
	flag.Parse()
	if err := run(*out, *image); err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

func run(out, image string) error {
	if out == "" {
		return errors.New("-o is required: the directory to write to")
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for file, kustomization := range releases {
		manifest, err := render(filepath.Join(deploy, kustomization), image)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, file), manifest, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// render returns the objects of a kustomization with the server's image replaced.
func render(dir, image string) ([]byte, error) {
	// The tag is what follows the last colon, unless that is a registry's port.
	i := strings.LastIndexByte(image, ':')
	if i <= strings.LastIndexByte(image, '/') || i == len(image)-1 {
		return nil, fmt.Errorf("-image %q: want NAME:TAG", image)
	}
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy // as kubectl does: objects come before those that refer to them
	objects, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", dir, err)
	}
	err = objects.ApplyFilter(imagetag.Filter{
		ImageTag: types.Image{Name: baseImage, NewName: image[:i], NewTag: image[i+1:]},
		FsSlice:  types.FsSlice{{Path: "spec/template/spec/containers[]/image"}},
	})
	if err != nil {
		return nil, fmt.Errorf("set the image in %s: %w", dir, err)
	}
	return objects.AsYaml()
}
