package repository

import (
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// decodeStrict decodes a YAML file of the repository and fails for keys that v does not have.
func decodeStrict(t *testing.T, file string, v any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(read(t, file)), v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// dependabot is the part of Dependabot's configuration that this repository uses.
type dependabot struct {
	Version int `json:"version"`
	Updates []struct {
		Ecosystem   string   `json:"package-ecosystem"`
		Directory   string   `json:"directory"`
		Directories []string `json:"directories"`
		Schedule    struct {
			Interval string `json:"interval"`
		} `json:"schedule"`
		Limit         int `json:"open-pull-requests-limit"`
		CommitMessage struct {
			Prefix string `json:"prefix"`
		} `json:"commit-message"`
		Groups map[string]struct {
			Patterns []string `json:"patterns"`
		} `json:"groups"`
	} `json:"updates"`
}

// leftOut matches the rows of the table in CONTRIBUTING.md that gives reasons for modules without updates.
var leftOut = regexp.MustCompile("(?m)^\\| `(hack/[^`]+)` \\| ([^|]+) \\|$")

// TestDependabot checks that every Go module, the page of `metrics-server ui`, the workflows and the Dockerfile are
// kept up to date, except for modules that CONTRIBUTING.md leaves out with a reason, and that no entry is of something
// that is gone.
func TestDependabot(t *testing.T) {
	var config dependabot
	decodeStrict(t, ".github/dependabot.yml", &config)
	if config.Version != 2 {
		t.Errorf("version is %d; Dependabot reads 2 only", config.Version)
	}
	got := map[string][]string{} // the directories of each ecosystem
	for _, u := range config.Updates {
		directories := u.Directories
		if u.Directory != "" {
			directories = append(directories, u.Directory)
		}
		if len(directories) == 0 || u.Directory != "" && len(u.Directories) > 0 {
			t.Errorf("%s: give either directory or directories", u.Ecosystem)
		}
		if !slices.Contains([]string{"daily", "weekly", "monthly"}, u.Schedule.Interval) {
			t.Errorf("%s: there is no interval %q", u.Ecosystem, u.Schedule.Interval)
		}
		for name, g := range u.Groups {
			if len(g.Patterns) == 0 {
				t.Errorf("%s: the group %s has no patterns", u.Ecosystem, name)
			}
		}
		got[u.Ecosystem] = append(got[u.Ecosystem], directories...)
	}

	want := map[string][]string{"github-actions": {"/"}, "docker": {"/"}, "npm": {"/pkg/ui/page"}, "gomod": nil}
	reasons := map[string]bool{}
	for _, m := range leftOut.FindAllStringSubmatch(read(t, "CONTRIBUTING.md"), -1) {
		reasons[m[1]] = true
	}
	for _, file := range documents(t, ".mod") {
		module := path.Dir(file)
		if reasons[module] {
			delete(reasons, module)
			continue
		}
		want["gomod"] = append(want["gomod"], path.Join("/", module))
	}
	for module := range reasons {
		t.Errorf("CONTRIBUTING.md leaves out %s, which is no module", module)
	}
	if len(want["gomod"]) < 10 {
		t.Errorf("%d modules were found, and there are more", len(want["gomod"]))
	}
	for ecosystem, directories := range want {
		for _, d := range directories {
			if !slices.Contains(got[ecosystem], d) {
				t.Errorf(
					"dependabot.yml has no entry for %s in %s: add one, or for a module give the reason in CONTRIBUTING.md",
					ecosystem, d,
				)
			}
		}
	}
	for ecosystem, directories := range got {
		for _, d := range directories {
			if !slices.Contains(want[ecosystem], d) {
				t.Errorf("dependabot.yml has an entry for %s in %s, where there is nothing to update", ecosystem, d)
			}
		}
	}
}

// issueForm is a form in .github/ISSUE_TEMPLATE. GitHub ignores a form that has an error, without telling the reporter.
type issueForm struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Title       string   `json:"title"`
	Labels      []string `json:"labels"`
	Body        []struct {
		Type       string `json:"type"`
		ID         string `json:"id"`
		Attributes struct {
			Label       string   `json:"label"`
			Description string   `json:"description"`
			Placeholder string   `json:"placeholder"`
			Render      string   `json:"render"`
			Value       string   `json:"value"`
			Options     []string `json:"options"`
		} `json:"attributes"`
		Validations struct {
			Required bool `json:"required"`
		} `json:"validations"`
	} `json:"body"`
}

var issueFormID = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// TestIssueForms checks the forms, and the list of links next to them, by the rules of GitHub's documentation.
func TestIssueForms(t *testing.T) {
	const dir = ".github/ISSUE_TEMPLATE"
	files, err := filepath.Glob(filepath.Join(root, dir, "*.yml"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range files {
		if filepath.Base(file) == "config.yml" {
			continue
		}
		var form issueForm
		decodeStrict(t, path.Join(dir, filepath.Base(file)), &form)
		if form.Name == "" || form.Description == "" || names[form.Name] {
			t.Errorf("%s: a form needs a description, and a name of its own", file)
		}
		names[form.Name] = true
		seen := map[string]bool{} // ids, and labels with a blank in front
		for _, item := range form.Body {
			a := item.Attributes
			if item.Type == "markdown" {
				if a.Value == "" || item.ID != "" || a.Label != "" {
					t.Errorf("%s: an item of type markdown has a value, and neither id nor label", file)
				}
				continue
			}
			if !slices.Contains([]string{"dropdown", "input", "textarea"}, item.Type) ||
				(item.Type == "dropdown") != (len(a.Options) > 0) || item.Type != "textarea" && a.Render != "" {
				t.Errorf("%s: %s has type %q: options are for a dropdown, render is for a textarea", file, item.ID, item.Type)
			}
			if !issueFormID.MatchString(item.ID) || a.Label == "" || seen[item.ID] || seen[" "+a.Label] {
				t.Errorf("%s: id %q and label %q must be given, valid and unique", file, item.ID, a.Label)
			}
			seen[item.ID], seen[" "+a.Label] = true, true
		}
		if len(seen) == 0 {
			t.Errorf("%s: a form needs an item that is not markdown", file)
		}
	}
	if len(names) < 3 {
		t.Errorf("the forms are %v: want those for bugs, wrong numbers and features", names)
	}

	var config struct {
		Blank *bool `json:"blank_issues_enabled"`
		Links []struct {
			Name  string `json:"name"`
			URL   string `json:"url"`
			About string `json:"about"`
		} `json:"contact_links"`
	}
	decodeStrict(t, dir+"/config.yml", &config)
	for _, l := range config.Links {
		if u, err := url.Parse(l.URL); err != nil || u.Scheme != "https" || l.Name == "" || l.About == "" {
			t.Errorf("config.yml: %+v needs a name, an https URL and a text", l)
		}
	}
}
