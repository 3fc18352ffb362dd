package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// If the wanted version of Kubernetes is not the one that this module requires, it is built from a
// module that is generated for it. The staging modules (k8s.io/api and so on) are part of the
// Kubernetes repository, and its go.mod replaces them with directories; a module that requires
// k8s.io/kubernetes must replace them with their releases.

// goMod is what `go mod edit -json` prints of a go.mod file.
type goMod struct {
	Go      string
	Require []moduleVersion
	Replace []struct{ Old, New moduleVersion }
}

type moduleVersion struct{ Path, Version string }

// kubernetesModule makes a module in dir from which the programs of Kubernetes can be built.
func (c *cluster) kubernetesModule(ctx context.Context, dir string) error {
	goTool := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		out, err := output(cmd)
		return []byte(out), err
	}
	// Its download needs a module to be in.
	if err := writeFiles(dir, map[string]string{"go.mod": "module kubernetes-programs\n"}); err != nil {
		return err
	}
	b, err := goTool("mod", "download", "-json", "k8s.io/kubernetes@"+c.version)
	if err != nil {
		return fmt.Errorf("k8s.io/kubernetes %s: %w", c.version, err)
	}
	var downloaded struct{ GoMod string }
	if err := json.Unmarshal(b, &downloaded); err != nil {
		return err
	}
	if b, err = goTool("mod", "edit", "-json", downloaded.GoMod); err != nil {
		return err
	}
	var mod goMod
	if err := json.Unmarshal(b, &mod); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod.dependent(c.version)), 0o644)
}

// dependent is the go.mod of a module that uses Kubernetes in version, whose own go.mod is m. It
// builds Kubernetes as Kubernetes itself does: with the same versions of all modules and the
// defaults of the same Go release.
func (m goMod) dependent(version string) string {
	staging := "v0." + strings.TrimPrefix(version, "v1.")
	var s strings.Builder
	fmt.Fprintf(&s, "module kubernetes-programs\n\ngo %s\n\nrequire k8s.io/kubernetes %s\n\nrequire (\n", m.Go, version)
	for _, r := range m.Require {
		fmt.Fprintf(&s, "\t%s %s\n", r.Path, r.Version)
	}
	s.WriteString(")\n\nreplace (\n")
	for _, r := range m.Replace {
		if strings.HasPrefix(r.New.Path, "./") {
			r.New = moduleVersion{r.Old.Path, staging}
		}
		fmt.Fprintf(&s, "\t%s => %s %s\n", strings.TrimSpace(r.Old.Path+" "+r.Old.Version), r.New.Path, r.New.Version)
	}
	s.WriteString(")\n")
	return s.String()
}
