package appmetrics

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"google.golang.org/protobuf/encoding/protowire"
)

type format uint8

const (
	textFormat format = iota
	openMetrics
	protobuf
)

// formatOf chooses the format by the Content-Type. Unknown types are tried as text: many
// applications serve a correct page with a wrong type, and anything else fails to parse.
func formatOf(contentType string) (format, error) {
	mediaType, parameters, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "application/openmetrics-text":
		return openMetrics, nil
	case "application/vnd.google.protobuf":
		if _, params, err := mime.ParseMediaType(contentType); err == nil && params["encoding"] != "delimited" {
			return 0, fmt.Errorf("it is protobuf, but not in the encoding \"delimited\": Content-Type has %q",
				strings.TrimSpace(parameters))
		}
		return protobuf, nil
	}
	return textFormat, nil
}

// filter appends to dst the part of a page that a parser has to see: the samples and types of the
// wanted families, and the first sample. Without the first sample, a document that is no metrics
// page would pass as a page without wanted families.
func filter(dst []byte, f format, page []byte, k *Kept) ([]byte, error) {
	if f == protobuf {
		return filterMessages(dst, page, k)
	}
	return filterLines(dst, f, page, k)
}

var (
	errUnterminated = errors.New("a quoted label value or name has no closing quotation mark")
	errNoLine       = errors.New("a line begins with neither a metric's name nor a brace nor a comment")
)

// filterLines filters the text formats. It keeps lines unchanged and in order. The parser carries
// the type of the last "# TYPE" over to families without one, so the last type that was passed over
// is kept as well if a sample that is kept follows it.
func filterLines(dst []byte, f format, page []byte, k *Kept) ([]byte, error) {
	var passedType []byte
	first := true
	keep := func(line []byte) {
		dst = append(append(dst, line...), '\n')
	}
	for len(page) > 0 {
		line, sample := page, page
		if f == textFormat && (page[0] == ' ' || page[0] == '\t') {
			sample = bytes.TrimLeft(page, " \t")
			if len(sample) == 0 {
				break
			}
		}
		switch c := sample[0]; {
		case c == '\n':
			page = sample[1:]
			continue
		case c == '#':
			end, family, kind := comment(sample)
			if end < 0 {
				return dst, errUnterminated
			}
			end += len(page) - len(sample)
			line, page = line[:end], page[min(end+1, len(page)):]
			switch {
			case kind == typeComment && k.wantsFamily(family):
				keep(line)
				passedType = nil
			case kind == typeComment:
				passedType = line
			case kind == otherComment && f == openMetrics:
				keep(line) // "# EOF", or what OpenMetrics does not allow
			}
			continue
		case c == '{' || nameByte[c] && (c < '0' || c > '9'):
		default:
			return dst, errNoLine
		}

		name, quotedName := sampleName(sample)
		end, ok := lineEnd(sample)
		if !ok {
			return dst, errUnterminated
		}
		end += len(page) - len(sample)
		line, page = line[:end], page[min(end+1, len(page)):]
		if first || k.wantsSample(name) || (quotedName && name == nil) {
			first = false
			if passedType != nil {
				keep(passedType)
				passedType = nil
			}
			keep(line)
		}
	}
	return dst, nil
}

// nameByte says which bytes an unquoted name has.
var nameByte = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = b == '_' || b == ':' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
	}
	return t
}()

// unquotedName returns the name that b begins with.
func unquotedName(b []byte) []byte {
	for i, c := range b {
		if !nameByte[c] {
			return b[:i]
		}
	}
	return b
}

// sampleName returns the name of the sample that b begins with, and whether it is quoted within
// braces. A quoted name of nil is one that the parser has to judge.
func sampleName(b []byte) (name []byte, quoted bool) {
	if b[0] != '{' {
		return unquotedName(b), false
	}
	b = b[1:]
	for {
		b = bytes.TrimLeft(b, " \t,")
		if len(b) == 0 {
			return nil, true
		}
		if b[0] != '"' { // a label
			label := unquotedName(b)
			if len(label) == 0 {
				return nil, true
			}
			b = b[len(label):]
		} else {
			end := quotedEnd(b)
			if end < 0 {
				return nil, true
			}
			text := b[1 : end-1]
			b = bytes.TrimLeft(b[end:], " \t")
			if len(b) == 0 {
				return nil, true
			}
			if b[0] == ',' || b[0] == '}' {
				return unescape(text), true
			}
		}
		b = bytes.TrimLeft(b, " \t")
		if len(b) == 0 || b[0] != '=' {
			return nil, true
		}
		b = bytes.TrimLeft(b[1:], " \t")
		if len(b) == 0 || b[0] != '"' {
			return nil, true
		}
		end := quotedEnd(b)
		if end < 0 {
			return nil, true
		}
		b = b[end:]
	}
}

var unescaper = strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\n`, "\n")

// unescape does what the parsers do with a quoted name.
func unescape(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	return []byte(unescaper.Replace(string(b)))
}

// quotedEnd returns where the quoted text that b begins with ends, after the quote, or -1.
func quotedEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// lineEnd returns the length of the sample's line that b begins with, without its line break, and
// false if a quoted text does not end. Line breaks within quotes do not end a line.
func lineEnd(b []byte) (int, bool) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		end = len(b)
	}
	line := b[:end]
	// Lines with an even number of quotes and without escapes are the rule, and these scans are
	// several times faster than a look at each byte.
	if bytes.IndexByte(line, '\\') < 0 && bytes.Count(line, []byte{'"'})%2 == 0 {
		return end, true
	}
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\n':
			return i, true
		case '"':
			n := quotedEnd(b[i:])
			if n < 0 {
				return 0, false
			}
			i += n - 1
		}
	}
	return len(b), true
}

type commentKind uint8

const (
	otherComment commentKind = iota
	typeComment
	describingComment // HELP or UNIT
)

// comment returns the length of the comment that b begins with, without its line break, and, if it
// describes a family, the family's name. The length is -1 if the name's quotes do not end.
func comment(b []byte) (end int, family []byte, kind commentKind) {
	end = bytes.IndexByte(b, '\n')
	if end < 0 {
		end = len(b)
	}
	rest := b[1:end]
	text := bytes.TrimLeft(rest, " \t")
	if len(text) == len(rest) || len(text) < len("TYPE ") || text[4] != ' ' && text[4] != '\t' {
		return end, nil, otherComment
	}
	switch string(text[:4]) {
	case "TYPE":
		kind = typeComment
	case "HELP", "UNIT":
		kind = describingComment
	default:
		return end, nil, otherComment
	}
	text = bytes.TrimLeft(text[4:], " \t")
	if len(text) == 0 || text[0] != '"' {
		return end, unquotedName(text), kind
	}
	// A quoted name may hold line breaks: the comment ends at the first one after the name.
	at := end - len(text)
	n := quotedEnd(b[at:])
	if n < 0 {
		return -1, nil, kind
	}
	family = b[at+1 : at+n-1] // like the parsers, which do not unescape the name in a comment
	end = bytes.IndexByte(b[at+n:], '\n')
	if end < 0 {
		return len(b), family, kind
	}
	return at + n + end, family, kind
}

// filterMessages filters a page of length-delimited protobuf messages, one a family.
func filterMessages(dst, page []byte, k *Kept) ([]byte, error) {
	for len(page) > 0 {
		length, n := protowire.ConsumeVarint(page)
		if n < 0 || length > uint64(len(page)-n) {
			return dst, errors.New("a protobuf message is cut off")
		}
		end := n + int(length)
		name, metrics, err := inspectFamily(page[n:end])
		if err != nil {
			return dst, err
		}
		// The parser skips a family without metrics by calling itself: millions of them would exhaust the
		// stack, which nothing recovers from.
		if metrics && k.wantsFamily(name) {
			dst = append(dst, page[:end]...)
		}
		page = page[end:]
	}
	return dst, nil
}

// inspectFamily returns the name of a family, a field of its message, and whether it has metrics. As always in
// protobuf, the last name counts. It refuses metrics with too many labels: the parser reads all of them again for
// each bucket of a histogram.
func inspectFamily(m []byte) (name []byte, metrics bool, err error) {
	err = eachField(m, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			name = value
		case 4:
			metrics = true
			labels := 0
			return eachField(value, func(number protowire.Number, label []byte) error {
				if number == 1 {
					labels += len(label)
				}
				if labels > maxMetricLabels {
					return Errorf(OverLimit, "the labels of a series of %s have more than %d bytes in total: shorten them", name,
						maxMetricLabels)
				}
				return nil
			})
		}
		return nil
	})
	return name, metrics, err
}

// eachField calls f with each field of a message whose value is bytes.
func eachField(m []byte, f func(number protowire.Number, value []byte) error) error {
	for len(m) > 0 {
		number, wireType, n := protowire.ConsumeTag(m)
		if n < 0 {
			return protowire.ParseError(n)
		}
		used := protowire.ConsumeFieldValue(number, wireType, m[n:])
		if used < 0 {
			return protowire.ParseError(used)
		}
		if wireType == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(m[n:])
			if err := f(number, value); err != nil {
				return err
			}
		}
		m = m[n+used:]
	}
	return nil
}

func newParser(f format, filtered []byte) textparse.Parser {
	switch f {
	case openMetrics:
		return textparse.NewOpenMetricsParser(filtered, labels.NewSymbolTable())
	case protobuf:
		// Native histograms are read as classic ones: those have sum and count, and buckets if the
		// application declares them.
		return textparse.NewProtobufParser(filtered, true, true, false, false, labels.NewSymbolTable())
	}
	return textparse.NewPromParser(filtered, labels.NewSymbolTable(), false)
}

// visitor receives the entries of a page.
type visitor interface {
	// sample gets the series' text, which is valid during the call, and its value. Labels are
	// written only when labels is called.
	sample(text []byte, v float64, labels func(*labels.Labels)) error
	// family gets a family and its type.
	family(name []byte, t model.MetricType)
}

// parse calls v for each entry of a filtered page.
func parse(f format, filtered []byte, v visitor) error {
	p := newParser(f, filtered)
	read := p.Labels // one closure for all samples
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch entry {
		case textparse.EntryType:
			v.family(p.Type())
		case textparse.EntrySeries:
			text, _, val := p.Series()
			if math.IsNaN(val) {
				val = math.Float64frombits(value.NormalNaN) // not the mark of a stale series
			}
			if err := v.sample(text, val, read); err != nil {
				return err
			}
		}
	}
}

// familyNames returns the names of all families of a page, sorted, without parsing values. It is
// for explanations only.
func familyNames(f format, page []byte) []string {
	seen := map[string]bool{}
	add := func(b []byte) {
		if len(b) > 0 && len(b) <= maxName && len(seen) < maxNames && utf8.Valid(b) {
			seen[string(b)] = true
		}
	}
	for len(page) > 0 && len(seen) < maxNames {
		if f == protobuf {
			length, n := protowire.ConsumeVarint(page)
			if n < 0 || length > uint64(len(page)-n) {
				break
			}
			end := n + int(length)
			name, _, _ := inspectFamily(page[n:end]) // it has been parsed once already
			add(name)
			page = page[end:]
			continue
		}
		page = bytes.TrimLeft(page, " \t\n")
		if len(page) == 0 {
			break
		}
		var end int
		ok := true
		if page[0] == '#' {
			var name []byte
			end, name, _ = comment(page)
			add(name)
		} else {
			name, _ := sampleName(page)
			add(name)
			end, ok = lineEnd(page)
		}
		if end < 0 || !ok {
			break
		}
		page = page[min(end+1, len(page)):]
	}
	names := make([]string, 0, len(seen))
	for n := range seen {
		// A histogram is named once, not with each of its suffixes.
		if base, ok := cutSuffix(n); ok && seen[base] {
			continue
		}
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// cutSuffix cuts the suffix of a histogram's or summary's series.
func cutSuffix(name string) (string, bool) {
	for _, s := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, s); ok {
			return base, true
		}
	}
	return name, false
}
