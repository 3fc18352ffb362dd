// Command image packs static binaries into container images, without Docker.
//
// It writes an OCI image layout as a tar archive, which `ctr images import`, podman, skopeo and
// `docker load` (from version 25 on) take. Without -binary it packs the server, built for each platform
// with the flags of `make build`. The same commit gives the same bytes, whenever and wherever it is
// packed, and the Dockerfile at the root gives an image of the same contents.
// With -sbom it also writes the SBOM of each server, and with -binaries also each server binary in the image.
//
//	go run . -o metrics-server.tar -tag localhost/metrics-server:dev -platform linux/amd64,linux/arm64
//	go run . -o burner.tar -tag localhost/burner:1 -binary /path/to/burner
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	out := flags.String("o", "", "write the archive to this `file`")
	tag := flags.String("tag", "", "full `name` of the image, such as localhost/metrics-server:dev (required with -o)")
	sbom := flags.String("sbom", "", "write what each server is made of, as CycloneDX, into this `directory`")
	binaries := flags.String("binaries", "", "write each server itself into this `directory`, as "+
		"metrics-server-OS-ARCHITECTURE")
	platforms := flags.String("platform", "linux/"+runtime.GOARCH, "`platforms`, separated by commas")
	binary := flags.String("binary", "", "pack this static binary instead of the server: `[NAME=]PATH`, NAME if "+
		"not the file's own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0, *out+*sbom+*binaries == "":
		flags.Usage()
		return errors.New("-o, -sbom or -binaries is required, and there are no arguments but flags")
	case *sbom+*binaries != "" && *binary != "":
		return errors.New("-sbom and -binaries are of the server and of no other -binary")
	}
	var ref name.Tag
	if *out != "" {
		var err error
		if ref, err = name.NewTag(*tag, name.StrictValidation); err != nil {
			return fmt.Errorf("-tag: %w", err)
		}
	}
	targets, err := parsePlatforms(*platforms)
	if err != nil {
		return err
	}
	if *binary != "" && len(targets) > 1 {
		return errors.New("-binary is a binary for one platform: name that one with -platform")
	}

	var images []platformImage
	for _, platform := range targets {
		var p program
		if *binary != "" {
			p, err = readProgram(*binary)
		} else {
			p, err = buildServer(ctx, "../..", platform)
		}
		if err != nil {
			return err
		}
		if *sbom != "" {
			if err := writeBOM(*sbom, p, platform); err != nil {
				return err
			}
		}
		if *binaries != "" {
			if err := os.WriteFile(filepath.Join(*binaries, p.fileName(platform)), p.content, 0o755); err != nil {
				return err
			}
		}
		image, err := newImage(p, platform)
		if err != nil {
			return fmt.Errorf("pack %s for %s: %w", p.name, platform, err)
		}
		images = append(images, platformImage{image, platform})
	}
	if *out == "" {
		return nil
	}
	return writeArchive(*out, ref, images)
}

func parsePlatforms(list string) ([]v1.Platform, error) {
	var platforms []v1.Platform
	for s := range strings.SplitSeq(list, ",") {
		p, err := v1.ParsePlatform(s)
		if err != nil || p.OS == "" || p.Architecture == "" {
			return nil, fmt.Errorf("-platform %q: want OS/ARCHITECTURE[/VARIANT], such as linux/amd64", s)
		}
		platforms = append(platforms, *p)
	}
	return platforms, nil
}
