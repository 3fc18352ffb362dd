package exposition

import (
	"metrics-server/pkg/exposition/lex"
	"metrics-server/pkg/sample"
)

// text parses an answer in text format 0.0.4.
func (a *answer) text(body []byte) {
	var name []byte // of the current family, in body
	var line []byte
	for rest := body; len(rest) > 0; {
		from := rest
		line, rest = lex.Line(rest)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		// A family's rows are contiguous, so the name is nearly always that of the line before.
		n := len(name)
		if n == 0 || !lex.HasName(line, name) {
			if n = lex.NameLen(line); n == 0 {
				a.refuse(sample.Malformed)
				continue
			}
			name = line[:n]
			a.enter(readFamilies[string(name)])
			if a.family.object == pod && a.podRows == nil {
				a.podRows = from
			}
		}
		if a.family.object <= pod {
			continue
		}
		r := row{time: a.received, at: unknown}
		labels := line[n:]
		if a.family.object == container {
			r.at, labels = a.expected(labels)
		}
		r.parse(labels)
		a.add(&r)
	}
}

// expected returns the position in the layout of the row whose labels b begins with, and the rest of
// b, if the row is among the next ones in the layout and written as kubelets do. Comparing a row with
// the last answer's takes a fifth of the time that parsing its labels takes.
func (a *answer) expected(b []byte) (at int, rest []byte) {
	after, ok := cutPrefix(b, `{container="`)
	if !ok || a.layout.escaped {
		return unknown, b
	}
	ids := a.layout.ids
	for i := a.cursor; i < min(a.cursor+lookAhead, len(ids)); i++ {
		id := ids[i]
		if rest, ok = cutPrefix(after, id.Container()); !ok {
			continue
		}
		if rest, ok = cutPrefix(rest, `",namespace="`); !ok {
			continue
		}
		if rest, ok = cutPrefix(rest, id.Namespace()); !ok {
			continue
		}
		if rest, ok = cutPrefix(rest, `",pod="`); !ok {
			continue
		}
		if rest, ok = cutPrefix(rest, id.Pod()); !ok {
			continue
		}
		if rest, ok = cutPrefix(rest, `"}`); ok {
			a.cursor = i + 1
			return i, rest
		}
	}
	return unknown, b
}

func cutPrefix(b []byte, prefix string) (after []byte, ok bool) {
	if len(b) < len(prefix) || string(b[:len(prefix)]) != prefix {
		return nil, false
	}
	return b[len(prefix):], true
}

// parse fills r from the part of a line after the name (labels, value, timestamp), or after the labels
// if r.at is known. A syntax error makes r malformed, and also nameless if it is in the labels.
func (r *row) parse(b []byte) {
	b = lex.SkipBlanks(b)
	var ok bool
	if r.at == unknown && len(b) > 0 && b[0] == '{' {
		if b, ok = r.parseLabels(b[1:]); !ok {
			r.nameless, r.malformed = true, true
			return
		}
		b = lex.SkipBlanks(b)
	}
	r.value, b, ok = lex.Float(b)
	if ok && len(b) > 0 {
		var t int64
		t, b, ok = lex.Int(b)
		r.time = sample.Time(t)
	}
	r.malformed = !ok || len(b) > 0
}

// parseLabels fills r.labels from b, which begins after the opening brace, and returns what follows
// the closing one.
func (r *row) parseLabels(b []byte) (rest []byte, ok bool) {
	for {
		var name, value []byte
		if name, value, b, ok = lex.Label(b); !ok || name == nil {
			return b, ok
		}
		if label := labelOf(name); label != otherLabel {
			if r.labels[label] != nil {
				return nil, false
			}
			r.labels[label] = value
		}
	}
}
