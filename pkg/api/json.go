package api

import (
	"encoding/json"
	"io"
	"strconv"
	"time"

	"metrics-server/pkg/sample"
)

// writeJSON writes the object with its kind and version.
func (l *lazyObject) writeJSON(w io.Writer, apiVersion string) error {
	e := jsonEncoder{shape: l.shape}
	b := appendTypeMeta(newBuffer(), l.kindName(), apiVersion)
	b = e.appendFields(b, &l.object, &l.usage)
	b = append(b, "}\n"...)
	_, err := w.Write(b)
	freeBuffer(b)
	return err
}

// writeJSON writes the list. It ends with the first error of w: the client is gone.
func (l *lazyList) writeJSON(w io.Writer, apiVersion string) error {
	e := jsonEncoder{shape: l.shape}
	b := appendTypeMeta(newBuffer(), l.kindName()+"List", apiVersion)
	b = append(b, `"metadata":{},"items":[`...)
	return l.writeItems(w, b, func(b []byte, o *sample.Object, u *sample.PodUsage) []byte {
		b = append(b, '{')
		b = e.appendFields(b, o, u)
		return append(b, '}')
	})
}

// writeItems writes an object of JSON that ends with an array of items. It begins with head, a buffer that it frees. A short
// list is written at once, which saves the server a frame and a wake-up or two.
func (l *lazyList) writeItems(w io.Writer, head []byte, item func([]byte, *sample.Object, *sample.PodUsage) []byte) error {
	b := head
	defer func() { freeBuffer(b) }()
	first, begun := true, false
	for o, u := range l.items {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = item(b, o, u)
		if len(b) < bufferSize {
			continue
		}
		if !begun {
			// The generic server decides at the first write whether to compress: it waits for more, and compresses what
			// gets long, only after one as short as this.
			if _, err := w.Write(b[:1]); err != nil {
				return err
			}
			begun, b = true, b[:copy(b, b[1:])]
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		b = b[:0]
	}
	b = append(b, "]}\n"...)
	_, err := w.Write(b)
	return err
}

// jsonEncoder encodes objects as encoding/json does.
type jsonEncoder struct {
	shape
	labels  sample.Labels // those of the last object
	encoded []byte        // what became of them
	time    time.Time     // the last one, which every object has twice
	text    [32]byte
	asText  []byte // what became of it, in text
}

// appendFields appends the fields of an object but for its kind and version.
func (e *jsonEncoder) appendFields(b []byte, o *sample.Object, u *sample.PodUsage) []byte {
	at := u.Time.Std()
	b = e.appendMetadata(b, o, at)
	b = append(b, `,"timestamp":`...)
	b = append(b, e.encodeTime(at)...)
	b = append(b, `,"window":"`...)
	b = appendWindow(b, u.Window)
	b = append(b, '"', ',')
	return e.appendJSON(b, u)
}

func (e *jsonEncoder) appendMetadata(b []byte, o *sample.Object, created time.Time) []byte {
	b = append(b, `"metadata":{`...)
	empty := len(b)
	if o.Name != "" {
		b = append(b, `"name":`...)
		b = appendString(b, o.Name)
		b = append(b, ',')
	}
	if o.Namespace != "" {
		b = append(b, `"namespace":`...)
		b = appendString(b, o.Namespace)
		b = append(b, ',')
	}
	if !created.IsZero() {
		b = append(b, `"creationTimestamp":`...)
		b = append(b, e.encodeTime(created)...)
		b = append(b, ',')
	}
	if len(o.Labels) > 0 {
		b = append(b, `"labels":{`...)
		b = append(b, e.encodeLabels(o.Labels)...)
		b = append(b, '}', ',')
	}
	if len(b) > empty {
		b = b[:len(b)-1] // the last comma
	}
	return append(b, '}')
}

// encodeLabels returns the encoding of labels, which is valid until the next call.
func (e *jsonEncoder) encodeLabels(labels sample.Labels) []byte {
	if sameLabels(e.labels, labels) {
		return e.encoded
	}
	b := e.encoded[:0]
	for i := range labels {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, labels[i].Key)
		b = append(b, ':')
		b = appendString(b, labels[i].Value)
	}
	e.labels, e.encoded = labels, b
	return b
}

// encodeTime returns the encoding of t, as that of metav1.Time, which is valid until the next call.
func (e *jsonEncoder) encodeTime(t time.Time) []byte {
	if len(e.asText) > 0 && t.Equal(e.time) {
		return e.asText
	}
	b := append(e.text[:0], "null"...)
	if !t.IsZero() {
		b = append(b[:0], '"')
		b = t.AppendFormat(b, time.RFC3339)
		b = append(b, '"')
	}
	e.time, e.asText = t, b
	return b
}

func (nodes) appendJSON(b []byte, u *sample.PodUsage) []byte {
	b = append(b, `"usage":`...)
	return appendUsage(b, &u.Containers[0].Usage)
}

func (pods) appendJSON(b []byte, u *sample.PodUsage) []byte {
	b = append(b, `"containers":[`...)
	for i := range u.Containers {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":`...)
		b = appendString(b, u.Containers[i].Name)
		b = append(b, `,"usage":`...)
		b = appendUsage(b, &u.Containers[i].Usage)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendUsage(b []byte, u *sample.Usage) []byte {
	b = append(b, `{"cpu":"`...)
	b = appendCPU(b, u.CPU)
	b = append(b, `","memory":"`...)
	b = appendBytes(b, u.Memory)
	if u.HasSwap {
		b = append(b, `","swap":"`...)
		b = appendBytes(b, u.Swap)
	}
	return append(b, '"', '}')
}

// appendTypeMeta appends the beginning of an object: a brace and two fields.
func appendTypeMeta(b []byte, kind, apiVersion string) []byte {
	b = append(b, `{"kind":"`...)
	b = append(b, kind...)
	b = append(b, `","apiVersion":"`...)
	b = append(b, apiVersion...)
	return append(b, '"', ',')
}

// appendWindow appends a window as time.Duration prints it, which takes no escapes: a window has no microseconds.
func appendWindow(b []byte, d time.Duration) []byte {
	d = roundWindow(d)
	if d < time.Second || d >= time.Minute {
		return append(b, d.String()...)
	}
	// The usual one. String would allocate.
	b = strconv.AppendInt(b, int64(d/time.Second), 10)
	if ms := int(d % time.Second / time.Millisecond); ms != 0 {
		b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return append(b, 's')
}

// appendString appends s as a string of JSON. encoding/json escapes what needs it.
func appendString(b []byte, s string) []byte {
	if !isPlain(s) {
		escaped, _ := json.Marshal(s) // of a string it cannot fail
		return append(b, escaped...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// isPlain reports whether every byte of s stands for itself in a string of JSON: it is ASCII, and neither a control
// character nor one of "&<>\. It looks at eight bytes at a time, and at some of the last ones twice.
func isPlain(s string) bool {
	if len(s) < 8 {
		var word uint64
		for i := range len(s) {
			word |= uint64(s[i]) << (8 * i)
		}
		return arePlain(word | blanks<<(8*len(s)))
	}
	for ; len(s) > 8; s = s[min(8, len(s)-8):] {
		if !arePlain(eight(s)) {
			return false
		}
	}
	return arePlain(eight(s))
}

// eight returns the first eight bytes of s.
func eight(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

const (
	ones   = 0x0101010101010101
	highs  = 0x80 * ones
	blanks = ' ' * ones
)

// arePlain is isPlain for the eight bytes of a word.
func arePlain(word uint64) bool {
	quotes := (word | 4*ones) ^ '&'*ones // 0 in the bytes that are " or &, which differ in one bit
	angles := (word | 2*ones) ^ '>'*ones // < and >
	slashes := word ^ '\\'*ones
	// A byte below n, and no byte above 0x7f, makes the subtraction of n borrow: as far as the first such byte at least.
	special := (word - blanks) | (quotes - ones) | (angles - ones) | (slashes - ones)
	return (special|word)&highs == 0
}
