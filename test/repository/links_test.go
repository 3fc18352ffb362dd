package repository

import (
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"metrics-server/test/docs"
)

var (
	codeBlock  = regexp.MustCompile("(?s)\n *```.*?\n *```")
	codeSpan   = regexp.MustCompile("`[^`\n]+`")
	mdLink     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mdHeading  = regexp.MustCompile(`(?m)^#{1,6} +(.+?)\s*$`)
	notInSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	runbookURL = regexp.MustCompile(`(?m)^ *runbook_url: (\S+)$`)
)

// TestLinks checks that every link of every document leads to an existing file and heading of this
// repository, or out of it, and that the runbooks of alerts exist.
func TestLinks(t *testing.T) {
	links, runbooks := 0, 0
	for _, file := range documents(t, ".md") {
		for _, m := range mdLink.FindAllStringSubmatch(prose(t, file), -1) {
			if u, err := url.Parse(m[1]); err != nil || u.Scheme == "" {
				links++
				checkLink(t, file, m[1])
			}
		}
	}
	for _, file := range documents(t, ".yaml") {
		for _, m := range runbookURL.FindAllStringSubmatch(read(t, file), -1) {
			runbooks++
			checkLink(t, "README.md", m[1])
		}
	}
	if links < 30 || runbooks < 10 {
		t.Errorf("%d links and %d runbooks were found, and there are more", links, runbooks)
	}
}

// checkLink checks a link of a file, both relative to the root.
func checkLink(t *testing.T, file, link string) {
	t.Helper()
	target, anchor, hasAnchor := strings.Cut(link, "#")
	if target == "" {
		target = file
	} else {
		target = path.Join(path.Dir(file), target)
	}
	if strings.HasPrefix(target, "../") {
		t.Errorf("%s links to %s, outside of the repository", file, link)
		return
	}
	if _, err := os.Stat(filepath.Join(root, target)); err != nil {
		t.Errorf("%s links to %s, which is not there", file, link)
		return
	}
	if hasAnchor && !slices.Contains(anchors(read(t, target)), anchor) {
		t.Errorf("%s links to %s: %s has no such heading", file, link, target)
	}
}

// anchors are the names by which a document's headings can be linked to, as GitHub makes them.
func anchors(text string) []string {
	var all []string
	seen := map[string]int{}
	for _, m := range mdHeading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		slug := strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		n := seen[slug]
		seen[slug]++
		if n > 0 {
			slug += "-" + strconv.Itoa(n)
		}
		all = append(all, slug)
	}
	return all
}

func TestAnchors(t *testing.T) {
	got := anchors("# A `b`: c, d\n\n```\n# no heading\n```\n## \"It isn't\" - e_f\n### A b c d\n")
	if want := []string{"a-b-c-d", "it-isnt---e_f", "a-b-c-d-1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// documents returns the files of the repository with an extension, relative to the root.
func documents(t *testing.T, extension string) []string {
	t.Helper()
	files, err := docs.Files(root, extension)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// prose returns a document without its code.
func prose(t *testing.T, file string) string {
	t.Helper()
	return codeSpan.ReplaceAllString(codeBlock.ReplaceAllString(read(t, file), ""), "")
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
