package repository

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root is the repository's root, relative to the directory in which this package's tests run.
const root = "../.."

// goPackage is the package in one directory.
type goPackage struct {
	name    string
	docs    []string          // files with a package comment
	imports map[string]string // imports of files that are not tests, and one file that has each
}

// productPackages returns the packages of the product by folder, without the ones that have tests only.
func productPackages(t *testing.T) map[string]*goPackage {
	t.Helper()
	packages := allPackages(t, "cmd", "pkg")
	for folder, p := range packages {
		if p.imports == nil {
			delete(packages, folder)
		}
	}
	return packages
}

// allPackages parses the packages below the given folders of the repository.
func allPackages(t *testing.T, folders ...string) map[string]*goPackage {
	t.Helper()
	packages := map[string]*goPackage{}
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(file string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && entry.Name() == "testdata" {
				return fs.SkipDir
			}
			if entry.IsDir() || !strings.HasSuffix(file, ".go") {
				return nil
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			p := packages[path.Dir(rel)]
			if p == nil {
				p = &goPackage{}
				packages[path.Dir(rel)] = p
			}
			return p.add(rel, parsed)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return packages
}

func (p *goPackage) add(file string, parsed *ast.File) error {
	if parsed.Doc != nil {
		p.docs = append(p.docs, file)
	}
	if strings.HasSuffix(file, "_test.go") {
		return nil
	}
	p.name = parsed.Name.Name
	if p.imports == nil {
		p.imports = map[string]string{}
	}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		p.imports[imported] = file
	}
	return nil
}

// TestPackageDocs checks that each package has one comment that describes it: tools show two
// comments run together, in the order of the files' names.
func TestPackageDocs(t *testing.T) {
	for folder, p := range allPackages(t, "cmd", "hack", "pkg", "test") {
		if len(p.docs) != 1 {
			t.Errorf("%s has %d package comments %q, want exactly one", folder, len(p.docs), p.docs)
		}
	}
}

// TestPackageNames rejects names that do not describe the package: such packages only grow.
func TestPackageNames(t *testing.T) {
	for folder := range allPackages(t, "cmd", "hack", "pkg", "test") {
		for part := range strings.SplitSeq(folder, "/") {
			if slices.Contains(
				[]string{"common", "helper", "helpers", "interfaces", "misc", "shared", "types", "util", "utils"}, part,
			) {
				t.Errorf("%s: name the package after what it does, not %q", folder, part)
			}
		}
	}
}
