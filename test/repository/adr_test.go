package repository

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	recordName  = regexp.MustCompile(`^(\d{4})-[a-z0-9-]+\.md$`)
	recordTitle = regexp.MustCompile(`^# (\d{4}): \S.*\n\n.*(accepted|superseded)`)
)

// TestDecisionRecords checks that the records in docs/adr are numbered without gaps, have all
// sections in order, and are listed in the index.
func TestDecisionRecords(t *testing.T) {
	const dir = "docs/adr"
	files, err := filepath.Glob(filepath.Join(root, dir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	index := read(t, dir+"/README.md")
	records := 0
	for _, file := range files {
		name := filepath.Base(file)
		if name == "README.md" {
			continue
		}
		records++
		m := recordName.FindStringSubmatch(name)
		if len(m) != 2 || m[1] != fmt.Sprintf("%04d", records) {
			t.Errorf("%s: want the name %04d-title.md", name, records)
			continue
		}
		text := read(t, path.Join(dir, name))
		if title := recordTitle.FindStringSubmatch(text); len(title) != 3 || title[1] != m[1] {
			t.Errorf("%s: want it to begin with the title %q, and a line with date and status", name, "# "+m[1]+": ...")
		}
		rest := text
		for _, section := range []string{"Context", "Decision", "Cost", "Remove when"} {
			_, after, found := strings.Cut(rest, "\n## "+section+"\n")
			if !found {
				t.Errorf("%s: there is no section %q, or it is in the wrong place", name, section)
				break
			}
			rest = after
		}
		if !strings.Contains(index, "["+m[1]+"]("+name+")") {
			t.Errorf("%s: %s/README.md does not list it", name, dir)
		}
	}
	if records < 10 {
		t.Errorf("%d records were found, and there are more", records)
	}
}
