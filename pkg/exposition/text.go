package exposition

import (
	"bytes"
	"errors"
	"math"
	"strconv"

	"metrics-server/pkg/sample"
)

// text parses an answer in text format 0.0.4.
func (a *answer) text(body []byte) {
	var name []byte // of the current family, in body
	for len(body) > 0 {
		line := body
		if i := bytes.IndexByte(body, '\n'); i >= 0 {
			line, body = body[:i], body[i+1:]
		} else {
			body = nil
		}
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		line = skipBlanks(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		// A family's rows come in one piece, so the name is nearly always the one before.
		n := len(name)
		if n == 0 || len(line) <= n || !bytes.Equal(line[:n], name) || isNameByte(line[n]) {
			if n = nameLen(line); n == 0 {
				a.refuse(sample.Malformed)
				continue
			}
			name = line[:n]
			a.enter(familyOf(name))
		}
		if a.family.object == nothing {
			continue
		}
		r := row{time: a.received}
		if !r.parse(line[n:]) {
			a.refuse(sample.Malformed)
			continue
		}
		a.add(&r)
	}
}

// parse fills r from what follows the name in a line: labels, value, timestamp.
// It reports false if that is not what the format allows.
func (r *row) parse(b []byte) bool {
	b = skipBlanks(b)
	if len(b) > 0 && b[0] == '{' {
		var ok bool
		if b, ok = r.parseLabels(b[1:]); !ok {
			return false
		}
		b = skipBlanks(b)
	}
	value, b := cutToken(b)
	timestamp, b := cutToken(b)
	if len(b) > 0 {
		return false
	}
	if len(timestamp) > 0 {
		t, ok := parseInt(timestamp)
		if !ok {
			return false
		}
		r.time = sample.Time(t)
	}
	var ok bool
	r.value, ok = parseFloat(value)
	return ok
}

// parseLabels fills r.labels from b, which begins after the opening brace, and returns what follows
// the closing one. The values are parts of b unless they contain an escape.
func (r *row) parseLabels(b []byte) (rest []byte, ok bool) {
	for {
		b = skipBlanks(b)
		if len(b) > 0 && b[0] == '}' { // no label at all, or a comma after the last one
			return b[1:], true
		}
		n := nameLen(b)
		name := b[:n]
		if n == 0 || bytes.IndexByte(name, ':') >= 0 || string(name) == "__name__" {
			return nil, false
		}
		b = skipBlanks(b[n:])
		if len(b) == 0 || b[0] != '=' {
			return nil, false
		}
		b = skipBlanks(b[1:])
		if len(b) == 0 || b[0] != '"' {
			return nil, false
		}
		var value []byte
		if value, b, ok = cutQuoted(b[1:]); !ok {
			return nil, false
		}
		if label := labelOf(name); label != otherLabel {
			if r.labels[label] != nil {
				return nil, false
			}
			r.labels[label] = value
		}
		b = skipBlanks(b)
		if len(b) == 0 || b[0] != ',' && b[0] != '}' {
			return nil, false
		}
		if b[0] == '}' {
			return b[1:], true
		}
		b = b[1:]
	}
}

var quote = []byte{'"'}

// cutQuoted cuts a label value, which is never nil, and its closing quote off b.
func cutQuoted(b []byte) (value, rest []byte, ok bool) {
	value, rest, ok = bytes.Cut(b, quote)
	if !ok || bytes.IndexByte(value, '\\') < 0 {
		return value, rest, ok
	}
	// No name in a cluster needs an escape, so this may allocate.
	value = []byte{}
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch c {
		case '"':
			return value, b[i+1:], true
		case '\\':
			i++
			if i == len(b) {
				return nil, nil, false
			}
			switch c = b[i]; c {
			case '\\', '"':
			case 'n':
				c = '\n'
			default:
				return nil, nil, false
			}
		}
		value = append(value, c)
	}
	return nil, nil, false
}

// parseFloat parses a value. One that is beyond float64 becomes the largest there is,
// which is beyond every field as well.
func parseFloat(b []byte) (float64, bool) {
	for _, c := range b {
		if c == '_' || c == 'x' || c == 'X' { // 1_000 and 0x1p-2 are Go, not the format
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if errors.Is(err, strconv.ErrRange) {
		return math.Copysign(math.MaxFloat64, v), true
	}
	return v, err == nil
}

// parseInt parses a timestamp. One that is beyond int64 becomes the nearest there is.
func parseInt(b []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(b), 10, 64)
	return n, err == nil || errors.Is(err, strconv.ErrRange)
}

// cutToken cuts the bytes up to the next blank, and the blanks after them, off b.
func cutToken(b []byte) (token, rest []byte) {
	i := 0
	for i < len(b) && b[i] != ' ' && b[i] != '\t' {
		i++
	}
	return b[:i], skipBlanks(b[i:])
}

func skipBlanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}

// nameLen returns the length of the metric or label name that b begins with, 0 if it does not.
func nameLen(b []byte) int {
	if len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		return 0
	}
	i := 0
	for i < len(b) && isNameByte(b[i]) {
		i++
	}
	return i
}

// isNameByte says whether c may be in a metric name. In a label name all but the colon may.
func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c == '_' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == ':'
}
