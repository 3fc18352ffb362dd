package api

import (
	"cmp"
	"encoding/binary"
	"io"
	"strconv"
	"time"

	"metrics-server/pkg/api/wire"
	"metrics-server/pkg/sample"
)

// A protobuf response is a prefix and a message of type runtime.Unknown. Its first field holds
// version and kind, its second the object.
const (
	protobufPrefix = "k8s\x00"
	protobufSuffix = "\x1a\x00\x22\x00" // contentEncoding and contentType, both empty
)

// writeProtobuf writes the object.
func (l *lazyObject[V]) writeProtobuf(w io.Writer, apiVersion string) error {
	e := protobufEncoder[V]{ItemEncoder: l.ItemEncoder}
	b := e.appendObject(newBuffer(), apiVersion, &l.object, &l.value, l.revision)
	_, err := w.Write(b)
	freeBuffer(b)
	return err
}

// writeProtobuf writes the list. The format puts the length first, and usages may change at any
// time, so the whole list is encoded before the first byte is written. The encoding is held in
// buffers, each of which is freed as soon as it is written.
func (l *lazyList[V]) writeProtobuf(w io.Writer, apiVersion string) error {
	if l.encoded == nil {
		if err := l.encode(); err != nil {
			return err
		}
	}
	defer l.free()
	head := append(newBuffer(), protobufPrefix...)
	defer func() { freeBuffer(head) }()
	head = appendEnvelope(head, l.Kind()+"List", apiVersion)
	head = append(head, wire.Field2)
	head = binary.AppendUvarint(head, uint64(l.size))
	if len(l.encoded) == 1 {
		head = append(head, l.encoded[0]...)
		head = append(head, protobufSuffix...)
		_, err := w.Write(head)
		return err
	}
	// The prefix is written separately, for the same reason as in writeItems.
	for _, b := range [][]byte{head[:len(protobufPrefix)], head[len(protobufPrefix):]} {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	for len(l.encoded) > 0 {
		if _, err := w.Write(l.encoded[0]); err != nil {
			return err
		}
		freeBuffer(l.encoded[0])
		l.encoded = l.encoded[1:]
	}
	_, err := io.WriteString(w, protobufSuffix)
	return err
}

// encode encodes the list into buffers, all but the last of which count towards the request's
// share. If the share is exhausted or the request has ended, it frees all buffers and returns the
// error.
func (l *lazyList[V]) encode() error {
	e := protobufEncoder[V]{ItemEncoder: l.ItemEncoder}
	b, meta := wire.Begin(newBuffer(), wire.Field1, 1)
	b = append(b, "\x0a\x00"...) // selfLink
	b = appendRevision(b, wire.Field2, l.revision)
	b = append(b, "\x1a\x00"...) // continue
	b = wire.End(b, meta, 1)
	for o, v := range l.items {
		if len(b) >= bufferSize {
			l.encoded = append(l.encoded, b)
			l.size += len(b)
			if err := cmp.Or(ended(l.ctx), l.output.list.take(int64(cap(b)))); err != nil {
				l.free()
				return err
			}
			b = newBuffer()
		}
		var item int
		b, item = wire.Begin(b, wire.Field2, 2)
		b = e.appendFields(b, o, v, max(o.Changed, l.Revision(v)))
		b = wire.End(b, item, 2)
	}
	l.encoded = append(l.encoded, b)
	l.size += len(b)
	if err := ended(l.ctx); err != nil {
		l.free()
		return err
	}
	return nil
}

// free frees the buffers of encode.
func (l *lazyList[V]) free() {
	for _, b := range l.encoded {
		freeBuffer(b)
	}
	l.encoded, l.size = nil, 0
}

// protobufEncoder encodes objects exactly as the generated code of apimachinery does: in the order
// of field numbers, including empty fields.
type protobufEncoder[V any] struct {
	ItemEncoder[V]
	labels  sample.Labels // of the previous object
	encoded []byte        // the encoding of labels
}

// appendObject appends an object with its kind and version.
func (e *protobufEncoder[V]) appendObject(
	b []byte, apiVersion string, o *sample.Object, v *V, r sample.Revision,
) []byte {
	b = append(b, protobufPrefix...)
	b = appendEnvelope(b, e.Kind(), apiVersion)
	b, raw := wire.Begin(b, wire.Field2, 2)
	b = e.appendFields(b, o, v, r)
	b = wire.End(b, raw, 2)
	return append(b, protobufSuffix...)
}

// appendFields appends the fields of an object.
func (e *protobufEncoder[V]) appendFields(b []byte, o *sample.Object, v *V, r sample.Revision) []byte {
	b, meta := wire.Begin(b, wire.Field1, 2)
	b = e.appendMetadata(b, o, e.Time(v), r)
	b = wire.End(b, meta, 2)
	return e.AppendProtobuf(b, v)
}

func (e *protobufEncoder[V]) appendMetadata(
	b []byte, o *sample.Object, created time.Time, r sample.Revision,
) []byte {
	b = wire.AppendField(b, wire.Field1, o.Name)
	b = append(b, "\x12\x00"...) // generateName
	b = wire.AppendField(b, wire.Field3, o.Namespace)
	b = append(b, "\x22\x00\x2a\x00"...) // selfLink, uid
	b = appendRevision(b, wire.Field6, r)
	b = append(b, "\x38\x00"...) // generation
	b = wire.AppendTimestamp(b, wire.Field8, created)
	return append(b, e.encodeLabels(o.Labels)...)
}

// appendRevision appends a string field with a revision, which is empty if r is zero.
func appendRevision(b []byte, tag byte, r sample.Revision) []byte {
	b, at := wire.Begin(b, tag, 1)
	if r != 0 {
		b = strconv.AppendUint(b, uint64(r), 10)
	}
	return wire.End(b, at, 1)
}

// encodeLabels returns the encoding of labels, which is valid until the next call.
func (e *protobufEncoder[V]) encodeLabels(labels sample.Labels) []byte {
	if sameLabels(e.labels, labels) {
		return e.encoded
	}
	b := e.encoded[:0]
	for i := range labels {
		var entry int
		b, entry = wire.Begin(b, wire.Field11, 1)
		b = wire.AppendField(b, wire.Field1, labels[i].Key)
		b = wire.AppendField(b, wire.Field2, labels[i].Value)
		b = wire.End(b, entry, 1)
	}
	e.labels, e.encoded = labels, b
	return b
}

// appendEnvelope appends the field of runtime.Unknown that holds the version and kind of its
// object.
func appendEnvelope(b []byte, kind, apiVersion string) []byte {
	b, at := wire.Begin(b, wire.Field1, 1)
	b = wire.AppendField(b, wire.Field1, apiVersion)
	b = wire.AppendField(b, wire.Field2, kind)
	return wire.End(b, at, 1)
}
