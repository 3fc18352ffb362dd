package appmetrics

import (
	"regexp/syntax"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/strutil"
)

// checkPatterns refuses an expression whose regular expressions take much memory and time to compile: 3 KiB in a group
// that is repeated a thousand times take hundreds of MiB. It checks the text, because PromQL's parser compiles them.
func (q *Query) checkPatterns(text string) error {
	size := 0
	lexer := parser.Lex(text)
	for {
		var item parser.Item
		switch lexer.NextItem(&item); item.Typ {
		case parser.EOF, parser.ERROR: // the parser will report what is wrong
			return nil
		case parser.STRING: // any one: whether it is a pattern is known only after it is parsed
			if pattern, err := strutil.Unquote(item.Val); err == nil {
				if parsed, err := syntax.Parse(pattern, syntax.Perl); err == nil {
					size += patternSize(parsed)
				}
			}
			if size > maxPatterns {
				return q.mistake(OverLimit, item.Pos, "the patterns of its selectors are too complex: shorten them, or use fewer "+
					"repetitions")
			}
		}
	}
}

// patternSize estimates the number of instructions to which r compiles.
func patternSize(r *syntax.Regexp) int {
	size := 1
	if r.Op == syntax.OpLiteral {
		size = len(r.Rune)
	}
	for _, part := range r.Sub {
		size += patternSize(part)
	}
	if r.Op == syntax.OpRepeat {
		size *= max(r.Min, r.Max, 1) // at most 1,000, also of nested ones
	}
	return size
}

// instructionsOf returns to how many instructions a pattern for the value of a label compiles, 0 if it is not valid.
func instructionsOf(pattern string) int {
	parsed, err := syntax.Parse("^(?s:"+pattern+")$", syntax.Perl)
	if err != nil {
		return 0 // the engine will report what is wrong
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0 // as above
	}
	return len(program.Inst)
}

// stepsOf returns how many steps m takes at most for each byte of a value. Alternatives without wildcards are looked
// up in a set.
func stepsOf(m *labels.Matcher) int {
	if m.Type == labels.MatchEqual || m.Type == labels.MatchNotEqual || len(m.SetMatches()) > 0 {
		return 1
	}
	return instructionsOf(m.Value)
}
