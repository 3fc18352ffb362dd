// Package docs reads the commands out of the documents and says for each what runs it, so that nobody is told to type what
// no test has seen. Its own tests run what needs no cluster, those of test/e2e the rest. It has no state.
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

// Command is one that a document tells its reader to type.
type Command struct {
	File  string // of the document, seen from the root
	Line  int
	Text  string   // one line, without its comment
	Shell []string // what was typed before it in the same shell, of what changes the shell: cd and export
	Shows string   // what the document says it prints, if it does
}

// Bare is the command without the directory and the variables that it is given.
func (c Command) Bare() string { return bare.ReplaceAllString(c.Text, "") }

func (c Command) String() string { return fmt.Sprintf("%s:%d: %s", c.File, c.Line, c.Text) }

var (
	bare = regexp.MustCompile(`^(?:[A-Z][A-Z0-9_]*=\S+ )*(?:cd \S+ && )?`)
	// A span of code is a command if it begins with a program and says what that is to do: `kubectl top` is a name.
	span   = regexp.MustCompile("`([^`\n]+(?:\n[^`\n]+)?)`")
	spoken = regexp.MustCompile(`^(?:(?:make|go|curl|docker|git|gh|(?:bin/)?metrics-server)(?: \S+)|(?:kubectl|helm)(?: \S+){2})`)
)

// Files are the files below root with an extension, such as ".md", seen from there.
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

// Commands are those of all documents below root, in their order.
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

// parse takes every line of a block of `sh`, what stands behind `$ ` in a block of `console`, and the spans that are
// commands. A block has to say what it is of.
func parse(file, text string) ([]Command, error) {
	var all []Command
	language, fenced := "", false
	var block []Command // of the block so far
	var prose []string  // with empty lines in the places of blocks, so that lines have their numbers
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
					return nil, fmt.Errorf("%s:%d: say what the block is of: sh is for commands, console for commands behind `$ ` and what they print, text for the rest", file, i+1)
				}
			}
			all, block = append(all, block...), nil
			continue
		}
		typed, prompt := strings.CutPrefix(line, "$ ")
		switch {
		case language == "console" && !prompt && !continued:
			if len(block) == 0 {
				return nil, fmt.Errorf("%s:%d: a block of console begins with a command, behind `$ `", file, i+1)
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
		c := Command{File: file, Line: 1 + strings.Count(whole[:m[0]], "\n"), Text: strings.ReplaceAll(whole[m[2]:m[3]], "\n", " ")}
		if spoken.MatchString(c.Bare()) {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b Command) int { return a.Line - b.Line })
	return all, nil
}

// shellBefore is the Shell of the command that follows those of a block.
func shellBefore(block []Command) []string {
	if len(block) == 0 {
		return nil
	}
	last := block[len(block)-1]
	if cd := strings.HasPrefix(last.Text, "cd ") && !strings.Contains(last.Text, "&&"); cd || strings.HasPrefix(last.Text, "export ") {
		return append(slices.Clone(last.Shell), last.Text)
	}
	return last.Shell
}

// uncommented is a line of a shell without its comment.
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
