package repository

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// dependencyRow is a row of the tables in docs/dependencies.md: a module, its licence, and more columns.
var dependencyRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\| [^|]+ \\| [^|]+ \\|$")

// TestDependencies checks that docs/dependencies.md gives a reason for every direct dependency of the product, and the
// right licence.
func TestDependencies(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range dependencyRow.FindAllSubmatch(text, -1) {
		if _, ok := documented[string(row[1])]; ok {
			t.Errorf("docs/dependencies.md has two rows for %s", row[1])
		}
		documented[string(row[1])] = string(row[2])
	}

	for _, path := range directDependencies(t) {
		licence, ok := documented[path]
		if !ok {
			t.Errorf("go.mod requires %s, but docs/dependencies.md does not say why: add a row, or remove the dependency", path)
			continue
		}
		delete(documented, path)
		if got := licencesIn(t, moduleDir(t, path)); !slices.Contains(got, licence) {
			t.Errorf("docs/dependencies.md gives %s the licence %s, but it has %v", path, licence, got)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(documented)) {
		t.Errorf("docs/dependencies.md has a row for %s, which go.mod does not require directly", path)
	}
}

func directDependencies(t *testing.T) []string {
	t.Helper()
	var direct []string
	for _, r := range goModOf(t, ".").Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	if len(direct) == 0 {
		t.Fatal("go.mod requires nothing directly")
	}
	return direct
}

// TestSharedVersions checks that the programs and libraries that tests use are built from the same versions of modules
// as the server. Go then compiles a thousand packages once instead of up to five times.
func TestSharedVersions(t *testing.T) {
	server := map[string]string{}
	for _, r := range goModOf(t, ".").Require {
		server[r.Path] = r.Version
	}
	// The recommender of VerticalPodAutoscaler 1.8.1 does not compile with client_golang 1.25, nor does Prometheus 0.314
	// with automemlimit 1.0.
	older := map[string]string{
		"github.com/prometheus/client_golang": "hack/vpa",
		"github.com/prometheus/common":        "hack/vpa",

		"github.com/KimMachineGun/automemlimit": "hack/observability",
	}
	for module, least := range map[string]int{
		"hack/cluster": 80, "hack/helm": 50, "hack/manifests": 30, "hack/observability": 60, "hack/vpa": 40,
	} {
		mod := goModOf(t, module)
		versions := map[string]string{}
		for _, r := range mod.Require {
			versions[r.Path] = r.Version
		}
		for _, r := range mod.Replace {
			versions[r.Old.Path] = r.New.Version
		}
		shared := 0
		for path, version := range versions {
			if server[path] == "" || older[path] == module {
				continue
			}
			shared++
			if version != server[path] {
				t.Errorf("%[1]s is %[2]s in go.mod and %[3]s in %[4]s/go.mod: raise the older one (go get %[1]s@VERSION, "+
					"go mod tidy); if %[4]s replaces it, raise k8s.io/kubernetes and the replace directive instead",
					path, server[path], version, module)
			}
		}
		if shared < least {
			t.Errorf("%s has %d modules in common with the server, want at least %d", module, shared, least)
		}
	}
}

// goMod is what is read here of a go.mod file.
type goMod struct {
	Require []struct {
		Path, Version string
		Indirect      bool
	}
	Replace []struct {
		Old, New struct{ Path, Version string }
	}
}

func goModOf(t *testing.T, module string) goMod {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = filepath.Join(root, module)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod goMod
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	return mod
}

// moduleDir returns where the sources of a module are, which are fetched if they are not there.
func moduleDir(t *testing.T, path string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", path)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	return module.Dir
}
