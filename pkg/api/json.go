package api

import (
	"io"
	"strconv"
	"time"

	"metrics-server/pkg/api/wire"
	"metrics-server/pkg/sample"
)

// writeJSON writes the object with its kind and version.
func (l *lazyObject[V]) writeJSON(w io.Writer, apiVersion string) error {
	e := jsonEncoder[V]{ItemEncoder: l.ItemEncoder}
	b := appendTypeMeta(newBuffer(), l.Kind(), apiVersion)
	b = e.appendFields(b, &l.object, &l.value, l.revision)
	b = append(b, "}\n"...)
	_, err := w.Write(b)
	freeBuffer(b)
	return err
}

// writeJSON writes the list. It stops at the first error of w, which means that the client is gone,
// and when the request ends.
func (l *lazyList[V]) writeJSON(w io.Writer, apiVersion string) error {
	e := jsonEncoder[V]{ItemEncoder: l.ItemEncoder}
	b := appendTypeMeta(newBuffer(), l.Kind()+"List", apiVersion)
	b = append(appendListMeta(b, l.revision), `"items":[`...)
	return l.writeItems(w, b, func(b []byte, o *sample.Object, v *V) []byte {
		b = append(b, '{')
		b = e.appendFields(b, o, v, max(o.Changed, l.Revision(v)))
		return append(b, '}')
	})
}

// writeItems writes a JSON object that ends with an array of items. It starts with head, a buffer
// that it frees. A short list is written in a single call, which saves the server a frame and one
// or two wake-ups.
func (l *lazyList[V]) writeItems(
	w io.Writer, head []byte, item func([]byte, *sample.Object, *V) []byte,
) error {
	b := head
	defer func() { freeBuffer(b) }()
	first, started := true, false
	for o, v := range l.items {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = item(b, o, v)
		if len(b) < bufferSize {
			continue
		}
		if !started {
			// The generic server decides whether to compress at the first write. Only if that write
			// is short does it wait for more data and compress a long response.
			if _, err := w.Write(b[:1]); err != nil {
				return err
			}
			started, b = true, b[:copy(b, b[1:])]
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		b = b[:0]
	}
	if err := ended(l.ctx); err != nil { // leave the incomplete list invalid
		return err
	}
	b = append(b, "]}\n"...)
	_, err := w.Write(b)
	return err
}

// JSONTime encodes times as metav1.Time does. It remembers the latest, since every object contains
// its time twice.
type JSONTime struct {
	time    time.Time
	buffer  [32]byte
	encoded []byte // the encoding of time, stored in buffer
}

// Append appends the encoding of t.
func (e *JSONTime) Append(b []byte, t time.Time) []byte {
	if len(e.encoded) == 0 || !t.Equal(e.time) {
		e.time, e.encoded = t, append(e.buffer[:0], "null"...)
		if !t.IsZero() {
			e.encoded = append(e.buffer[:0], '"')
			e.encoded = t.AppendFormat(e.encoded, time.RFC3339)
			e.encoded = append(e.encoded, '"')
		}
	}
	return append(b, e.encoded...)
}

// jsonEncoder encodes objects exactly as encoding/json does.
type jsonEncoder[V any] struct {
	ItemEncoder[V]
	labels  sample.Labels // of the previous object
	encoded []byte        // the encoding of labels
	time    JSONTime
}

// appendFields appends the fields of an object except its kind and version.
func (e *jsonEncoder[V]) appendFields(b []byte, o *sample.Object, v *V, r sample.Revision) []byte {
	b = e.appendMetadata(b, o, e.Time(v), r)
	return e.AppendJSON(append(b, ','), v, &e.time)
}

func (e *jsonEncoder[V]) appendMetadata(b []byte, o *sample.Object, created time.Time, r sample.Revision) []byte {
	b = append(b, `"metadata":{`...)
	empty := len(b)
	if o.Name != "" {
		b = append(b, `"name":`...)
		b = wire.AppendString(b, o.Name)
		b = append(b, ',')
	}
	if o.Namespace != "" {
		b = append(b, `"namespace":`...)
		b = wire.AppendString(b, o.Namespace)
		b = append(b, ',')
	}
	if r != 0 {
		b = appendResourceVersion(b, r)
		b = append(b, ',')
	}
	if !created.IsZero() {
		b = append(b, `"creationTimestamp":`...)
		b = e.time.Append(b, created)
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
func (e *jsonEncoder[V]) encodeLabels(labels sample.Labels) []byte {
	if sameLabels(e.labels, labels) {
		return e.encoded
	}
	b := e.encoded[:0]
	for i := range labels {
		if i > 0 {
			b = append(b, ',')
		}
		b = wire.AppendString(b, labels[i].Key)
		b = append(b, ':')
		b = wire.AppendString(b, labels[i].Value)
	}
	e.labels, e.encoded = labels, b
	return b
}

func appendResourceVersion(b []byte, r sample.Revision) []byte {
	b = append(b, `"resourceVersion":"`...)
	b = strconv.AppendUint(b, uint64(r), 10)
	return append(b, '"')
}

// appendListMeta appends the metadata of a list and a comma.
func appendListMeta(b []byte, r sample.Revision) []byte {
	b = append(b, `"metadata":{`...)
	b = appendResourceVersion(b, r)
	return append(b, '}', ',')
}

// appendTypeMeta appends the beginning of an object: the opening brace, kind and apiVersion.
func appendTypeMeta(b []byte, kind, apiVersion string) []byte {
	b = append(b, `{"kind":"`...)
	b = append(b, kind...)
	b = append(b, `","apiVersion":"`...)
	b = append(b, apiVersion...)
	return append(b, '"', ',')
}
