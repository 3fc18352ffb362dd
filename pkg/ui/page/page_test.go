package page

import (
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// maxBytes bounds what the page adds to the binary.
const maxBytes = 100 << 10

func files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(Files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(Files, name)
		all[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestFiles(t *testing.T) {
	all := files(t)
	want := []string{"app.css", "app.js", "icon.svg", "index.html", "licences.txt"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(all))); diff != "" {
		t.Errorf("files, -want +got:\n%s", diff)
	}
	size := 0
	for name, text := range all {
		size += len(text)
		if len(text) == 0 {
			t.Errorf("%s is empty: run make ui", name)
		}
	}
	if size > maxBytes {
		t.Errorf("the page has %d bytes, more than %d", size, maxBytes)
	}
	if licences := all["licences.txt"]; !strings.Contains(licences, "preact ") ||
		!strings.Contains(licences, "Permission is hereby granted, free of charge") {
		t.Errorf("licences.txt lacks the licence of Preact:\n%s", licences)
	}
}

var (
	reference = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	inline    = regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script>`)
	address   = regexp.MustCompile(`https?://[\w.-]+`)
)

// TestContentSecurityPolicy checks what a policy of 'self' alone would block in the browser: inline scripts and styles,
// and whatever is fetched from elsewhere.
func TestContentSecurityPolicy(t *testing.T) {
	all := files(t)
	index := all["index.html"]
	references := reference.FindAllStringSubmatch(index, -1)
	if len(references) != 3 {
		t.Errorf("index.html refers to %q, want the script, the style sheet and the icon", references)
	}
	for _, m := range references {
		if _, ok := all[m[1]]; !ok {
			t.Errorf("index.html refers to %s, which is no file of the page", m[1])
		}
	}
	if found := inline.FindString(index); found != "" {
		t.Errorf("index.html has %q inline, which the policy forbids", found)
	}
	for name, text := range all {
		for _, found := range address.FindAllString(text, -1) {
			if found != "http://www.w3.org" { // the names of namespaces
				t.Errorf("%s has the address %s: nothing may be fetched from elsewhere", name, found)
			}
		}
	}
}
