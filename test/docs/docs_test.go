package docs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// root is the repository's root, relative to the directory in which this package's tests run.
const root = "../.."

func commands(t *testing.T) []Command {
	t.Helper()
	all, err := Commands(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 120 {
		t.Errorf("%d commands were found, and there are more", len(all))
	}
	return all
}

// TestRules checks that every command has a rule, and that every rule has a command.
func TestRules(t *testing.T) {
	used := map[string]bool{}
	for _, c := range commands(t) {
		r, ok := c.Rule()
		if !ok {
			t.Errorf("%v\nno test runs this: give it a rule in ways.go", c)
		}
		used[r.Words] = true
	}
	for _, r := range rules {
		if !used[r.Words] {
			t.Errorf("ways.go has a rule for %q, which is in no document", r.Words)
		}
	}
}

func TestElsewhere(t *testing.T) {
	for _, r := range rules {
		if r.Way == Elsewhere && !strings.Contains(read(t, r.File), r.Has) {
			t.Errorf("%q is run by %s, says ways.go, which does not have %q any more", r.Words, r.File, r.Has)
		}
	}
}

// searched is the text for which a command searches a server's log.
var searched = regexp.MustCompile(`\blogs deployment/\S+ \| grep '([^']+)'`)

// TestLogs checks that a server logs every text that the documents tell administrators to search a
// log for.
func TestLogs(t *testing.T) {
	var sources strings.Builder
	err := filepath.WalkDir(filepath.Join(root, "pkg"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		sources.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	logged := regexp.MustCompile(`\b(?:klog|log)\.\w+\([^"\n]*"([^"\n]+)"`).FindAllStringSubmatch(sources.String(), -1)
	found := 0
	for _, c := range commands(t) {
		m := searched.FindStringSubmatch(c.Bare())
		if m == nil {
			continue
		}
		found++
		if !slices.ContainsFunc(logged, func(l []string) bool { return strings.Contains(l[1], m[1]) }) {
			t.Errorf("%v\nno server logs %q", c, m[1])
		}
	}
	if found < 3 {
		t.Errorf("%d commands that search a log were found, and there are more", found)
	}
}

// TestOnCluster checks that no command about the custom metrics server is run on the cluster: the
// tests that install that server have removed it when the documents' commands are run.
func TestOnCluster(t *testing.T) {
	for _, c := range commands(t) {
		if r, _ := c.Rule(); r.Way == OnCluster && strings.Contains(c.Text, "custom-metrics-server") {
			t.Errorf("%v\nthe custom metrics server is not installed then: give it a rule of its own in ways.go", c)
		}
	}
}

func TestHere(t *testing.T) {
	for _, c := range commands(t) {
		if r, _ := c.Rule(); r.Way == Here {
			if out, err := run(t, c, c.Text); err != nil || out == "" && r.Words != "cd" && r.Words != "go tool actionlint" {
				t.Errorf("%v\n%v\n%s", c, err, out)
			}
		}
	}
}

// TestParsed also runs the commands that a command of make executes.
func TestParsed(t *testing.T) {
	program := regexp.MustCompile(`(?m)^.*\bgo run \. .*$`)
	for _, c := range commands(t) {
		r, _ := c.Rule()
		if r.Way != Parsed {
			continue
		}
		text := c.Text
		if strings.HasPrefix(r.Words, "make ") {
			recipe, err := run(t, c, strings.Replace(text, "make ", "make -n ", 1))
			if text = program.FindString(recipe); err != nil || text == "" {
				t.Errorf("%v\n%v\n%s", c, err, recipe)
				continue
			}
		}
		if out, err := run(t, c, text+" -h"); err != nil || out == "" {
			t.Errorf("%v\n%s -h: %v\n%s", c, text, err, out)
		}
	}
}

var (
	makeWords  = regexp.MustCompile(`\bmake((?: +(?:[A-Z][A-Z0-9_]*=(?:'[^']*'|"[^"]*"|[^\s'"]*)|[\w-]+))+)`)
	setting    = regexp.MustCompile(`\b([A-Z][A-Z0-9_]*)=(?:'[^']*'|"[^"]*"|\S*)`)
	makeRule   = regexp.MustCompile(`^([a-z0-9-]+):(?: ([^=#]*))?(?:##.*)?$`)
	makeItself = regexp.MustCompile(`\$\(MAKE\) (?:-\S+ )*([\w-]+)`)
)

// targetsOf returns the targets of every `make X` in a text, without settings.
func targetsOf(text string) []string {
	var all []string
	for _, m := range makeWords.FindAllStringSubmatch(text, -1) {
		for word := range strings.FieldsSeq(setting.ReplaceAllString(m[1], "")) {
			if !strings.HasPrefix(word, "-") {
				all = append(all, word)
			}
		}
	}
	return all
}

// makefile returns the targets and what each of them makes in addition.
func makefile(t *testing.T) map[string][]string {
	t.Helper()
	targets := map[string][]string{}
	current := ""
	for line := range strings.Lines(read(t, "Makefile")) {
		if m := makeRule.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			current = m[1]
			targets[current] = append(targets[current], strings.Fields(m[2])...) // a target may have several rules
		}
		for _, m := range makeItself.FindAllStringSubmatch(line, -1) {
			targets[current] = append(targets[current], m[1])
		}
	}
	return targets
}

// TestMake checks that every target and setting named by documents, scripts and workflows exists, and that CI runs the
// targets named by documents, unless ways.go has another rule for them.
func TestMake(t *testing.T) {
	targets := makefile(t)
	files := []string{".ci/run"}
	for _, extension := range []string{".yml", ".sh"} {
		more, err := Files(root, extension)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	inCI := map[string]bool{}
	var made func(target string)
	made = func(target string) {
		if !inCI[target] {
			inCI[target] = true
			for _, also := range targets[target] {
				made(also)
			}
		}
	}
	settings := read(t, "Makefile")
	for _, file := range files {
		var code strings.Builder // without comments, because their prose has the verb "make"
		for line := range strings.Lines(read(t, file)) {
			code.WriteString(uncommented(strings.TrimSpace(line)) + "\n")
		}
		settings += code.String()
		for _, target := range targetsOf(strings.ReplaceAll(code.String(), "run_tests ", "make ")) {
			if _, ok := targets[target]; !ok {
				t.Errorf("%s runs make %s, but the Makefile has no such target", file, target)
			}
			if file == ".ci/run" || strings.HasPrefix(file, ".github/") {
				made(target)
			}
		}
	}
	named := 0
	for _, c := range commands(t) {
		r, _ := c.Rule()
		for _, target := range targetsOf(c.Text) {
			named++
			if _, ok := targets[target]; !ok {
				t.Errorf("%v\nthe Makefile has no target %s", c, target)
			} else if r.Way == InCI && !inCI[target] {
				t.Errorf("%v\nneither .ci/run nor a workflow runs %s: if another test does, add a rule to ways.go", c, target)
			}
		}
		if len(targetsOf(c.Text)) > 0 {
			for _, m := range setting.FindAllStringSubmatch(c.Text, -1) {
				if !regexp.MustCompile(`\b` + m[1] + `\b`).MatchString(settings) {
					t.Errorf("%v\nno script or Makefile uses the setting %s", c, m[1])
				}
			}
		}
	}
	if named < 60 {
		t.Errorf("%d targets are named, and there are more", named)
	}
}

// TestOldMake checks that an old make, with which failures could go unnoticed, is rejected.
func TestOldMake(t *testing.T) {
	out, err := run(t, Command{}, "make .FEATURES= help")
	if err == nil || !strings.Contains(out, "GNU make 4 is required") {
		t.Errorf("an old make is not rejected: %v\n%s", err, out)
	}
}

// TestOneToolchain checks that all modules are built with one release of Go, although their go.mod files ask for
// different ones.
func TestOneToolchain(t *testing.T) {
	chosen := regexp.MustCompile(`(?m)^(?:export )?GOTOOLCHAIN := (\S+)$`)
	for setting, want := range map[string]string{
		"auto": "go1.99.1+auto", "go1.99.0+auto": "go1.99.1+auto", "local": "", "go1.99.1": "",
	} {
		// A stand-in for go, because releases that are not installed would have to be downloaded.
		dir := t.TempDir()
		script := "#!/bin/sh\ncase $2 in GOTOOLCHAIN) echo " + setting + " ;; GOVERSION) echo go1.99.1 ;; esac\n"
		if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := run(t, Command{}, "PATH="+dir+":$PATH make -pn help")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if m := chosen.FindStringSubmatch(out); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("with GOTOOLCHAIN=%s, make sets it to %q, want %q", setting, got, want)
		}
	}
}

// directories are the directories in which a document says to run its commands.
var directories = map[string]string{
	"docs/cluster.md":      "hack/cluster",
	"docs/demo.md":         "hack/cluster",
	"hack/fleet/README.md": "hack/fleet",
	"test/e2e/README.md":   "hack/cluster",
}

// run runs a command of the documents, or a variant of it, in the directory where its reader is
// supposed to be.
func run(t *testing.T, c Command, text string) (string, error) {
	t.Helper()
	if strings.HasPrefix(text, "go run ") && len(c.Shell) == 0 {
		text = "cd " + directories[c.File] + " && " + text
	}
	cmd := exec.CommandContext(
		t.Context(), "bash", "-euo", "pipefail", "-c", strings.Join(append(slices.Clone(c.Shell), text), "\n"),
	)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "MAKEFLAGS=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParse(t *testing.T) {
	const fence = "```"
	got, err := parse(
		"a.md",
		"A `b c`, `make x`\n| `kubectl top` | `cd d && kubectl get pods` | `go` | `kubectl -n a\nlogs b` |\n"+
			fence+"sh\n# no\nexport A=1\nmake 'a # b' \\\n  c   # d\n\ncurl e#f\n"+fence+"\n"+
			fence+"console\n$ kubectl get x\nNAME\nx\n$ kubectl get y\n"+fence+"\n"+fence+"yaml\nmake: no\n"+fence+"\n",
	)
	if err != nil {
		t.Fatal(err)
	}
	shell := []string{"export A=1"}
	want := []Command{
		{File: "a.md", Line: 1, Text: "make x"},
		{File: "a.md", Line: 2, Text: "cd d && kubectl get pods"},
		{File: "a.md", Line: 2, Text: "kubectl -n a logs b"},
		{File: "a.md", Line: 6, Text: "export A=1"},
		{File: "a.md", Line: 7, Text: "make 'a # b' c", Shell: shell},
		{File: "a.md", Line: 10, Text: "curl e#f", Shell: shell},
		{File: "a.md", Line: 13, Text: "kubectl get x", Shows: "NAME\nx\n"},
		{File: "a.md", Line: 16, Text: "kubectl get y"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for _, bad := range []string{fence + "\nmake x\n" + fence, fence + "sh\nmake x\n", fence + "console\nNAME\n" + fence} {
		if got, err := parse("a.md", bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}

// TestComplete checks, without a cluster, what it can of the kubectl commands that test/e2e runs much later: that they
// name a resource, and read only files that exist, and not standard input.
func TestComplete(t *testing.T) {
	checked := 0
	for _, c := range commands(t) {
		if r, _ := c.Rule(); r.Way != OnCluster || !strings.HasPrefix(c.Bare(), "kubectl ") {
			continue
		}
		checked++
		if err := incomplete(c); err != nil {
			t.Errorf("%v\n%v", c, err)
		}
	}
	if checked < 30 {
		t.Errorf("%d commands of kubectl were found, and there are more", checked)
	}
	for text, complete := range map[string]bool{
		"kubectl get --watch":                                          false,
		"kubectl get -n kube-system":                                   false,
		"kubectl -n kube-system get -o wide":                           false,
		"kubectl apply -f -":                                           false,
		"kubectl apply -f missing.yaml":                                false,
		"kubectl create configmap name --from-file=ca.crt":             false,
		"kubectl apply -f dist/components.yaml":                        true,
		"kubectl apply -k deploy/kustomize/base":                       true,
		"kubectl -n kube-system get pods -o wide":                      true,
		"kubectl get --raw '/readyz?verbose'":                          true,
		"kubectl get apiservice v1.metrics.k8s.io -o yaml | tail -n 3": true,
	} {
		if err := incomplete(Command{Text: text}); (err == nil) != complete {
			t.Errorf("%s: %v, want complete to be %t", text, err, complete)
		}
	}
}

// incomplete says what a command of kubectl lacks.
func incomplete(c Command) error {
	text, _, _ := strings.Cut(c.Bare(), " | ")
	words := strings.Fields(text)[1:]
	var names []string // the verb, and what it is applied to
	given := false     // by a flag
	for i := 0; i < len(words); i++ {
		flag, value, joined := strings.Cut(words[i], "=")
		if !strings.HasPrefix(flag, "-") {
			names = append(names, words[i])
			continue
		}
		if !joined && i+1 < len(words) && slices.Contains([]string{"-n", "-o", "-l", "-f", "-k", "-c", "--raw"}, flag) {
			i++
			value = words[i]
		}
		given = given || slices.Contains([]string{"--raw", "-f", "-k"}, flag)
		if !slices.Contains([]string{"-f", "-k", "--from-file"}, flag) || strings.HasPrefix(value, "dist/") {
			continue
		}
		if value == "-" {
			return errors.New("it reads standard input, which is empty here")
		}
		if _, err := os.Stat(filepath.Join(root, value)); err != nil {
			return err
		}
	}
	if len(names) < 2 && !given {
		return fmt.Errorf("it does not say what to %s", strings.Join(names, " "))
	}
	return nil
}
