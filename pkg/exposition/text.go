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
		r := row{time: a.received, at: unknown}
		rest := line[n:]
		if a.family.object == container {
			r.at, rest = a.expected(rest)
		}
		if !r.parse(rest) {
			a.refuse(sample.Malformed)
			continue
		}
		a.add(&r)
	}
}

// expected returns where in the layout the row is whose labels b begins with, and what follows them, if it is the next one
// there, or one of the next, and written as kubelets do. To compare a row with what the last answer had in its place takes
// a fifth of the time that it takes to read the labels.
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

// parse fills r from what follows the name in a line, or the labels if it is known whose they are: labels, value, timestamp.
// It reports false if that is not what the format allows.
func (r *row) parse(b []byte) bool {
	b = skipBlanks(b)
	if r.at == unknown && len(b) > 0 && b[0] == '{' {
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
	if v, ok := parseDecimal(b); ok {
		return v, true
	}
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

// powers are the powers of ten that a float64 holds exactly.
var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// parseDecimal parses what nearly every value is: no sign, and digits and a power of ten that a float64 both holds exactly,
// so that their product is the number nearest to what is written, as in strconv, which takes several times as long.
// What it does not parse may be a number all the same.
func parseDecimal(b []byte) (float64, bool) {
	mantissa, n := digits(b)
	exponent := 0
	if b = b[n:]; len(b) > 0 && b[0] == '.' {
		fraction, decimals := digits(b[1:])
		if n+decimals > maxDigits {
			return 0, false
		}
		mantissa = mantissa*uint64(powers[decimals]) + fraction
		n, exponent, b = n+decimals, -decimals, b[1+decimals:]
	}
	if n == 0 || mantissa > 1<<53 {
		return 0, false
	}
	if after, ok := cutPrefix(b, "e+"); ok { // as kubelets write it
		e, n := digits(after)
		if n == 0 || n > 3 {
			return 0, false
		}
		exponent, b = exponent+int(e), after[n:]
	}
	switch {
	case len(b) > 0:
		return 0, false
	case exponent >= 0 && exponent < len(powers):
		return float64(mantissa) * powers[exponent], true
	case exponent < 0 && -exponent < len(powers):
		return float64(mantissa) / powers[-exponent], true
	}
	return 0, false
}

// maxDigits is how many digits fit into 64 bits, whatever they are.
const maxDigits = 19

// digits returns the number that b begins with, and how many digits it has: none beyond maxDigits are read.
func digits(b []byte) (v uint64, n int) {
	for n < len(b) && n < maxDigits && b[n]-'0' <= 9 {
		v = v*10 + uint64(b[n]-'0')
		n++
	}
	return v, n
}

// parseInt parses a timestamp. One that is beyond int64 becomes the nearest there is.
func parseInt(b []byte) (int64, bool) {
	if v, n := digits(b); n > 0 && n < maxDigits && n == len(b) {
		return int64(v), true
	}
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
