package appmetrics

import (
	"regexp/syntax"
	"strings"
	"testing"
	"time"
)

// TestPatterns checks that regular expressions which would take much memory are not compiled.
func TestPatterns(t *testing.T) {
	long := strings.Repeat("a", 3000)
	for pattern, allowed := range map[string]bool{
		`"` + long + `"`:                         true,
		`"[a-z0-9]{1,63}-.*"`:                    true,
		`"\\w{1000}"`:                            true,
		`"(` + long + `){1000}"`:                 false,
		`"(` + long + `)\x7b1000}"`:              false, // what this escapes is a brace
		"`((" + long + "){10}){100}`":            false,
		`'` + strings.Repeat(".{999}", 50) + `'`: false,
	} {
		for _, expression := range []string{
			"sum by (pod) (x{a=~" + pattern + "})", "sum by (pod) (x{a=~" + pattern + "}) + (",
			`label_replace(x, "b", "$1", "c", ` + pattern + ")",
		} {
			d := Definition{Name: "x", Expression: expression, Shape: PerPod, Window: time.Minute}
			_, remote := CompileRemote(d, "pod")
			refused := remote != nil && strings.Contains(remote.Error(), "patterns of its selectors are too complex")
			if refused == allowed {
				t.Errorf("%.40s: %v", expression, remote)
			}
			if _, err := Compile(d); !allowed && (err == nil || err.Error() != remote.Error()) {
				t.Errorf("%.40s: %v for scraped pods, want %v", expression, err, remote)
			}
		}
	}
}

// TestPatternSize compares the estimate with what compiling gives.
func TestPatternSize(t *testing.T) {
	for _, pattern := range []string{
		"a", "abc.*", "(ab|cd)+x?", "[a-z]{3,7}", "(a{10}b){20}", "a{5,}", `\pL{50}`, "(a|b|c){0,100}", "(?i:hello)", "",
	} {
		parsed, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		estimate := patternSize(parsed)
		program, err := syntax.Compile(parsed.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		if n := len(program.Inst); n > 3*estimate+3 || estimate > 3*n {
			t.Errorf("%s compiles to %d instructions, estimated were %d", pattern, n, estimate)
		}
	}
}
