// Package lex splits the Prometheus text format 0.0.4 into tokens: lines, names, labels and numbers.
// It is pure and has no state, so its functions may be called concurrently. Each cuts a token off the
// beginning of its argument and returns the rest; tokens are parts of the argument, except for label
// values with an escape.
package lex

import (
	"bytes"
	"errors"
	"math"
	"strconv"
)

// Line cuts a line off body. The line is without its end, which is LF or CRLF, and leading blanks.
func Line(body []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(body, []byte{'\n'})
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return SkipBlanks(line), rest
}

// SkipBlanks returns b without its leading blanks.
func SkipBlanks(b []byte) []byte {
	for len(b) > 0 && isBlank(b[0]) {
		b = b[1:]
	}
	return b
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// NameLen returns the length of the metric or label name that b begins with, 0 if there is none.
func NameLen(b []byte) int {
	if len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		return 0
	}
	i := 0
	for i < len(b) && isNameByte(b[i]) {
		i++
	}
	return i
}

// HasName reports whether a line begins with name as the name of its metric.
func HasName(line, name []byte) bool {
	n := len(name)
	return len(line) > n && bytes.Equal(line[:n], name) && !isNameByte(line[n])
}

// isNameByte reports whether c may be in a metric name. Label names may have all of these but the colon.
func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c == '_' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == ':'
}

// Label cuts a label and the comma after it off b, which follows an opening brace or another label. At
// the closing brace, name is nil and rest follows the brace. Otherwise, value is not nil.
func Label(b []byte) (name, value, rest []byte, ok bool) {
	b = SkipBlanks(b)
	if len(b) > 0 && b[0] == '}' {
		return nil, nil, b[1:], true
	}
	name = b[:NameLen(b)]
	if len(name) == 0 || bytes.IndexByte(name, ':') >= 0 || string(name) == "__name__" {
		return nil, nil, nil, false
	}
	b = SkipBlanks(b[len(name):])
	if len(b) == 0 || b[0] != '=' {
		return nil, nil, nil, false
	}
	b = SkipBlanks(b[1:])
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, nil, false
	}
	if value, b, ok = quoted(b[1:]); !ok {
		return nil, nil, nil, false
	}
	b = SkipBlanks(b)
	switch {
	case len(b) > 0 && b[0] == ',':
		return name, value, b[1:], true
	case len(b) > 0 && b[0] == '}':
		return name, value, b, true
	}
	return nil, nil, nil, false
}

var quote = []byte{'"'}

// quoted cuts a label value, which is never nil, and its closing quote off b.
func quoted(b []byte) (value, rest []byte, ok bool) {
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

// Float cuts a number and the blanks after it off b. A number beyond float64 becomes the largest
// float64 of its sign.
func Float(b []byte) (v float64, rest []byte, ok bool) {
	if v, rest, ok = decimal(b); ok {
		return v, rest, true
	}
	word, rest := word(b)
	for _, c := range word {
		if c == '_' || c == 'x' || c == 'X' { // 1_000 and 0x1p-2 are Go, not the format
			return 0, nil, false
		}
	}
	v, err := strconv.ParseFloat(string(word), 64)
	if errors.Is(err, strconv.ErrRange) {
		return math.Copysign(math.MaxFloat64, v), rest, true
	}
	return v, rest, err == nil
}

// powers are the powers of ten that a float64 holds exactly.
var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// decimal is Float for the form that nearly every value has: no sign, and digits and a power of ten
// that a float64 both represents exactly. Their product or quotient is then correctly rounded, as in
// strconv, which takes several times as long. What it does not accept may still be a number.
func decimal(b []byte) (v float64, rest []byte, ok bool) {
	mantissa, n := digits(b)
	exponent := 0
	if b = b[n:]; len(b) > 0 && b[0] == '.' {
		fraction, decimals := digits(b[1:])
		if n+decimals > maxDigits {
			return 0, nil, false
		}
		mantissa = mantissa*uint64(powers[decimals]) + fraction
		n, exponent, b = n+decimals, -decimals, b[1+decimals:]
	}
	if n == 0 || mantissa > 1<<53 {
		return 0, nil, false
	}
	if len(b) > 1 && b[0] == 'e' && b[1] == '+' { // as kubelets write it
		e, n := digits(b[2:])
		if n == 0 || n > 3 {
			return 0, nil, false
		}
		exponent, b = exponent+int(e), b[2+n:]
	}
	if rest, ok = wordEnd(b); !ok {
		return 0, nil, false
	}
	switch {
	case exponent >= 0 && exponent < len(powers):
		return float64(mantissa) * powers[exponent], rest, true
	case exponent < 0 && -exponent < len(powers):
		return float64(mantissa) / powers[-exponent], rest, true
	}
	return 0, nil, false
}

// Int cuts an integer and the blanks after it off b. One beyond int64 becomes the nearest int64.
func Int(b []byte) (v int64, rest []byte, ok bool) {
	if v, n := digits(b); n > 0 && n < maxDigits {
		if rest, ok = wordEnd(b[n:]); ok {
			return int64(v), rest, true
		}
	}
	word, rest := word(b)
	v, err := strconv.ParseInt(string(word), 10, 64)
	return v, rest, err == nil || errors.Is(err, strconv.ErrRange)
}

// maxDigits is how many decimal digits always fit into 64 bits.
const maxDigits = 19

// digits returns the number that b begins with, and how many digits it has. It reads at most maxDigits.
func digits(b []byte) (v uint64, n int) {
	for n < len(b) && n < maxDigits && b[n]-'0' <= 9 {
		v = v*10 + uint64(b[n]-'0')
		n++
	}
	return v, n
}

// word cuts the bytes up to the next blank, and the blanks after them, off b.
func word(b []byte) (word, rest []byte) {
	i := 0
	for i < len(b) && !isBlank(b[i]) {
		i++
	}
	return b[:i], SkipBlanks(b[i:])
}

// wordEnd returns b without its leading blanks; ok is false if b begins in the middle of a word.
func wordEnd(b []byte) (rest []byte, ok bool) {
	return SkipBlanks(b), len(b) == 0 || isBlank(b[0])
}
