// Package docs extracts the commands from the documents and records what tests each of them, so that
// no document has a command that does not work. Its own tests run the commands that need no cluster;
// test/e2e runs the others. It has no state.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Command is a command in a document.
type Command struct {
	File  string // the document, relative to the root
	Line  int
	Text  string   // one line, without its comment
	Shell []string // the commands before it that change the same shell: cd and export
	Shows string   // the output that the document shows, if any
}

// Bare returns the command without variables and a change of directory in front of it.
func (c Command) Bare() string { return bare.ReplaceAllString(c.Text, "") }

func (c Command) String() string { return fmt.Sprintf("%s:%d: %s", c.File, c.Line, c.Text) }

var (
	bare = regexp.MustCompile(`^(?:[A-Z][A-Z0-9_]*=\S+ )*(?:cd \S+ && )?`)
	// A span of code is a command if it begins with a program and has arguments: `kubectl top` is only a
	// name.
	span   = regexp.MustCompile("`([^`\n]+(?:\n[^`\n]+)?)`")
	spoken = regexp.MustCompile(`^(?:(?:make|go|curl|docker|git|gh|(?:bin/)?metrics-server)(?: \S+)|` +
		`(?:kubectl|helm)(?: \S+){2})`)
)

// Files returns the files below root with an extension, such as ".md", relative to root.
func Files(root, extension string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "bin", "dist", "testdata", "node_modules"}, entry.Name()) {
			return fs.SkipDir
		}
		if !entry.IsDir() && filepath.Ext(file) == extension {
			rel, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	return files, err
}

// Commands returns the commands of all documents below root, in order.
func Commands(root string) ([]Command, error) {
	files, err := Files(root, ".md")
	if err != nil {
		return nil, err
	}
	var all []Command
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return nil, err
		}
		commands, err := parse(file, string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, commands...)
	}
	return all, nil
}

// parse returns the commands of a document: every line of a block of `sh`, the lines that begin with
// `$ ` in a block of `console`, and the spans that are commands. Every block must name its language.
func parse(file, text string) ([]Command, error) {
	var all []Command
	language, fenced := "", false
	var block []Command // of the block so far
	var prose []string  // with empty lines in place of blocks, so that line numbers stay
	continued := false
	for i, line := range strings.Split(text, "\n") {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		if !isFence && !fenced {
			prose = append(prose, line)
			continue
		}
		prose = append(prose, "")
		if isFence {
			if fenced = !fenced; fenced {
				if language = fence; language == "" {
					return nil, fmt.Errorf("%s:%d: the block has no language: use sh for commands, console for commands after "+
						"`$ ` with their output, and text for the rest", file, i+1)
				}
			}
			all, block = append(all, block...), nil
			continue
		}
		typed, prompt := strings.CutPrefix(line, "$ ")
		switch {
		case language == "console" && !prompt && !continued:
			if len(block) == 0 {
				return nil, fmt.Errorf("%s:%d: a block of console must begin with `$ ` and a command", file, i+1)
			}
			block[len(block)-1].Shows += line + "\n"
			continue
		case language != "console" && language != "sh":
			continue
		}
		typed, more := strings.CutSuffix(uncommented(typed), `\`)
		switch typed = strings.TrimSpace(typed); {
		case continued:
			block[len(block)-1].Text += " " + typed
		case typed != "":
			block = append(block, Command{File: file, Line: i + 1, Text: typed, Shell: shellBefore(block)})
		}
		continued = more
	}
	if fenced {
		return nil, fmt.Errorf("%s: a block of code has no end", file)
	}
	whole := strings.Join(prose, "\n")
	for _, m := range span.FindAllStringSubmatchIndex(whole, -1) {
		c := Command{
			File: file, Line: 1 + strings.Count(whole[:m[0]], "\n"),
			Text: strings.ReplaceAll(whole[m[2]:m[3]], "\n", " "),
		}
		if spoken.MatchString(c.Bare()) {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b Command) int { return a.Line - b.Line })
	return all, nil
}

// shellBefore returns the Shell of the command that follows the commands of a block.
func shellBefore(block []Command) []string {
	if len(block) == 0 {
		return nil
	}
	last := block[len(block)-1]
	cd := strings.HasPrefix(last.Text, "cd ") && !strings.Contains(last.Text, "&&")
	if cd || strings.HasPrefix(last.Text, "export ") {
		return append(slices.Clone(last.Shell), last.Text)
	}
	return last.Shell
}

// uncommented returns a line of a shell script without its comment.
func uncommented(line string) string {
	quote := rune(0)
	previous := ' '
	for i, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			quote = r
		case r == '#' && previous == ' ':
			return strings.TrimSpace(line[:i])
		}
		previous = r
	}
	return strings.TrimSpace(line)
}
