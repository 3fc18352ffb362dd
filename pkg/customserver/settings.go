package customserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"metrics-server/pkg/adapterconfig"
	"metrics-server/pkg/adminfile"
)

// Checked is what CheckFile finds in a file without mistakes.
type Checked struct {
	Backends, Metrics int
	// NotServed are the parts of the configuration of prometheus-adapter that are left out, and Warnings those that have
	// another meaning here.
	NotServed, Warnings []error
	LeftOutRules        int // as in the metric metrics_server_adapter_rules
}

// CheckFile checks a file for Config.File, and the configuration of prometheus-adapter that it may name. The error has
// every mistake.
func CheckFile(path string) (*Checked, error) {
	l, err := (&settings{path: path}).parse()
	if err != nil {
		return nil, err
	}
	c := &Checked{Backends: len(l.Backends), Metrics: len(l.Metrics), LeftOutRules: leftOut(l.problems)}
	for i := range l.problems {
		if p := &l.problems[i]; p.LeftOut {
			c.NotServed = append(c.NotServed, p)
		} else {
			c.Warnings = append(c.Warnings, p)
		}
	}
	return c, nil
}

// settings is the administrator's file, and the configuration of prometheus-adapter that it may name. Only state may be
// called concurrently with the other methods.
type settings struct {
	path    string
	applied string // the contents of both that are in effect
	problem string // of the last attempt to load them; "" if it succeeded

	mu      sync.Mutex // guards the field that follows
	current settingsState
}

// settingsState is the state of the files, for metrics and the doctor.
type settingsState struct {
	valid          bool      // their present contents are in effect
	since          time.Time // when the contents in effect were loaded
	byDefault      string    // the backend of metrics whose autoscaler names none
	rules, leftOut int       // of the configuration of prometheus-adapter: rules in use, and rules that are left out
}

// loaded is the contents of the files.
type loaded struct {
	*adminfile.File
	content  string // of the files
	rules    *rules // nil if there are none
	problems []adapterconfig.Problem
}

// load reads the files and passes them to apply if they have changed. It returns the same error only once, so that a
// mistake does not fill the log. restored reports that a mistake was undone: the files are again those in effect.
func (s *settings) load(apply func(*loaded) error) (restored bool, err error) {
	l, err := s.parse()
	isNew := err == nil && l.content != s.applied
	if isNew {
		err = apply(l)
	}
	if err != nil {
		s.change(func(of *settingsState) { of.valid = false })
		if err.Error() == s.problem {
			return false, nil
		}
		s.problem = err.Error()
		return false, err
	}
	restored = !isNew && s.problem != ""
	s.applied, s.problem = l.content, ""
	s.change(func(of *settingsState) {
		of.valid = true
		if isNew {
			*of = l.state(time.Now())
		}
	})
	return restored, nil
}

// state returns the state of files that are in effect from now on.
func (l *loaded) state(now time.Time) settingsState {
	s := settingsState{valid: true, since: now, byDefault: l.Default, leftOut: leftOut(l.problems)}
	if l.rules != nil {
		s.rules = l.rules.config.Used()
	}
	return s
}

// leftOut returns how many rules are left out. A whole section of rules counts as one; resourceRules, which have
// another server, do not count.
func leftOut(problems []adapterconfig.Problem) int {
	paths := map[string]bool{}
	for _, p := range problems {
		rule, _, _ := strings.Cut(p.Path, "]")
		section, _, _ := strings.Cut(rule, "[")
		if p.LeftOut && (section == "rules" || section == "externalRules") {
			paths[rule] = true
		}
	}
	return len(paths)
}

func (s *settings) change(change func(*settingsState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.current)
}

func (s *settings) state() settingsState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// parse reads the files.
func (s *settings) parse() (*loaded, error) {
	text, err := os.ReadFile(s.path)
	if err != nil {
		return nil, err
	}
	l := &loaded{content: string(text)}
	if l.File, err = adminfile.Parse(text); err != nil {
		err = fmt.Errorf("file %s:\n%w", s.path, err)
	}
	if l.File == nil || l.Adapter == nil || l.Adapter.File == "" {
		return l, err
	}
	return l, errors.Join(err, s.parseRules(l))
}

// parseRules reads the configuration of prometheus-adapter that the file names.
func (s *settings) parseRules(l *loaded) error {
	file := l.Adapter.File
	if !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(s.path), file)
	}
	rulesText, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("configuration of prometheus-adapter: %w", err)
	}
	config, problems := adapterconfig.Parse(rulesText)
	if config == nil {
		var errs []error
		for i := range problems {
			errs = append(errs, &problems[i])
		}
		return fmt.Errorf("file %s, the configuration of prometheus-adapter:\n%w", file, errors.Join(errs...))
	}
	l.rules = &rules{
		backend: l.Adapter.Backend, config: config, text: string(rulesText), nanAsZero: l.Adapter.NaNAsZero,
	}
	l.problems = problems
	l.content += "\x00" + string(rulesText)
	return nil
}
