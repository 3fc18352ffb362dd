package repository

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	reliabilityRow = regexp.MustCompile(`(?m)^\|([^|\n]+)\|([^|\n]+)\|([^|\n]+)\|$`)
	namedTest      = regexp.MustCompile("`([a-z0-9/]+): ((?:Test|Fuzz)[A-Za-z0-9_]+)`")
)

// TestReliability checks that every fault of docs/reliability.md has a test, and that every test
// that it names exists.
func TestReliability(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	faults := 0
	for _, row := range reliabilityRow.FindAllSubmatch(text, -1) {
		fault, tests := strings.TrimSpace(string(row[1])), string(row[3])
		if fault == "fault" || strings.Trim(fault, "-") == "" {
			continue
		}
		faults++
		named := namedTest.FindAllStringSubmatch(tests, -1)
		if len(named) == 0 || namedTest.ReplaceAllString(tests, "") != " "+strings.Repeat(", ", len(named)-1)+" " {
			t.Errorf("docs/reliability.md: the tests of %q are%s: write `folder: TestName`, several with commas", fault, tests)
		}
		for _, test := range named {
			if !hasTest(t, test[1], test[2]) {
				t.Errorf("docs/reliability.md: the test of %q, %s, is not in %s", fault, test[2], test[1])
			}
		}
	}
	if faults < 40 {
		t.Errorf("%d faults were found in docs/reliability.md, which has more", faults)
	}
}

// hasTest reports whether a folder has a test of that name, under any build tag.
func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(source), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
