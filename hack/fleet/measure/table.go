package measure

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"metrics-server/hack/fleet/truth"
)

// Subject is what was measured, and when.
type Subject struct {
	Binary string    `json:"binary"`
	Flags  []string  `json:"flags,omitempty"`
	Time   time.Time `json:"time"`
}

func newSubject(binary string, flags []string) Subject {
	return Subject{Binary: binary, Flags: flags, Time: time.Now().UTC().Truncate(time.Second)}
}

// command returns the binary and its flags, separated by blanks.
func (s *Subject) command() string { return strings.Join(append([]string{s.Binary}, s.Flags...), " ") }

// table is a report as text: titles, and below each of them lines whose values are aligned.
type table struct {
	out   io.Writer
	lines *tabwriter.Writer
}

func newTable(out io.Writer) *table { return &table{out, tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)} }

func (t *table) title(format string, args ...any) {
	t.lines.Flush()
	fmt.Fprintf(t.out, format+"\n", args...)
}

func (t *table) line(name, format string, args ...any) {
	fmt.Fprintf(t.lines, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
}

// overloaded warns of figures of an overloaded machine.
func (t *table) overloaded() {
	t.title("THE MACHINE WAS OVERLOADED: times are meaningless, CPU is unreliable")
}

// examples writes what was wrong.
func (t *table) examples(v *truth.Verdict) {
	for _, e := range v.Examples {
		t.line("", "%s", e)
	}
}

func (t *table) flush() error { return t.lines.Flush() }

func mebi(bytes int64) string { return fmt.Sprintf("%.0f MiB", float64(bytes)/(1<<20)) }

// short formats a time in seconds with three digits.
func short(s float64) string {
	if s >= 0.9995 { // otherwise this would be 1e+03 ms
		return fmt.Sprintf("%.3g s", s)
	}
	return fmt.Sprintf("%.3g ms", 1000*s)
}
