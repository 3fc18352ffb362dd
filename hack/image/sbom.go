package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// bom is the part of a CycloneDX 1.6 document that we write: https://cyclonedx.org/docs/1.6/json/.
type bom struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Licences   []licence  `json:"licenses,omitempty"`
	PURL       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type licence struct {
	Expression string `json:"expression"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// newBOM returns the SBOM of a program from what the Go linker recorded in it, not from go.mod, as
// a binary contains only a part of those modules. The same program gives the same document.
func newBOM(p program) (*bom, error) {
	info, err := buildinfo.Read(bytes.NewReader(p.content))
	if err != nil {
		return nil, fmt.Errorf("read what %s is made of: %w", p.name, err)
	}
	sum := sha256.Sum256(p.content)
	version := p.labels[versionLabel]
	purl := "pkg:generic/" + p.name + "@" + url.QueryEscape(version)
	program := component{
		Type: "application", Ref: purl, Name: p.name, Version: version, PURL: purl,
		Hashes:   []hash{{"SHA-256", fmt.Sprintf("%x", sum)}},
		Licences: []licence{{p.labels[licencesLabel]}},
	}
	for _, s := range info.Settings {
		program.Properties = append(program.Properties, property{"go:build:" + s.Key, s.Value})
	}

	// Scanners know Go's own library by this name.
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	components := []component{golang("stdlib", goVersion, "")}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		components = append(components, golang(module.Path, module.Version, module.Sum))
	}
	// The binary does not record which module requires which other one.
	all := dependency{Ref: purl}
	for _, c := range components {
		all.DependsOn = append(all.DependsOn, c.Ref)
	}
	return &bom{
		Format: "CycloneDX", SpecVersion: "1.6", SerialNumber: "urn:uuid:" + uuid(sum), Version: 1,
		Metadata:     metadata{Timestamp: p.created.Format(time.RFC3339), Component: program},
		Components:   components,
		Dependencies: []dependency{all},
	}, nil
}

// golang returns the component of a Go module. Its go.sum hash covers many files, so it is a property
// instead of one of CycloneDX's hashes.
func golang(path, version, sum string) component {
	purl := "pkg:golang/" + strings.ToLower(path) + "@" + url.QueryEscape(version)
	c := component{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}

// uuid makes a UUID from a digest: version 8 of RFC 9562, whose bits we may choose.
func uuid(sum [sha256.Size]byte) string {
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// writeBOM writes what p is made of into dir.
func writeBOM(dir string, p program, platform v1.Platform) error {
	b, err := newBOM(p)
	if err != nil {
		return err
	}
	content, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, p.fileName(platform)+".cdx.json"), append(content, '\n'), 0o644)
}
