package api

import (
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"time"

	"metrics-server/pkg/sample"
)

// An answer in protobuf is a prefix and a message of the type runtime.Unknown:
// its first field has version and kind, its second the object.
const (
	protobufPrefix = "k8s\x00"
	protobufSuffix = "\x1a\x00\x22\x00" // the content encoding and type of the object: none
	emptyListMeta  = "\x0a\x06\x0a\x00\x12\x00\x1a\x00"
)

// Tags of length-delimited fields, by their number in the message at hand.
const (
	field1  = 1<<3 | 2
	field2  = 2<<3 | 2
	field3  = 3<<3 | 2
	field4  = 4<<3 | 2
	field8  = 8<<3 | 2
	field11 = 11<<3 | 2
)

// writeProtobuf writes the object.
func (l *lazyObject) writeProtobuf(w io.Writer, apiVersion string) error {
	e := protobufEncoder{shape: l.shape}
	b := append(newBuffer(), protobufPrefix...)
	b = appendEnvelope(b, l.kindName(), apiVersion)
	b, raw := begin(b, field2, 2)
	b = e.appendFields(b, &l.object, &l.usage)
	b = end(b, raw, 2)
	b = append(b, protobufSuffix...)
	_, err := w.Write(b)
	freeBuffer(b)
	return err
}

// writeProtobuf writes the list. Its length stands before it, and usages may change at any time, so there is
// no way but to encode it all before the first byte is written. What is held is the encoding itself, in pieces that go
// back as soon as they are written.
func (l *lazyList) writeProtobuf(w io.Writer, apiVersion string) error {
	if l.encoded == nil {
		if err := l.encode(context.Background()); err != nil {
			return err
		}
	}
	defer l.free()
	head := append(newBuffer(), protobufPrefix...)
	defer func() { freeBuffer(head) }()
	head = appendEnvelope(head, l.kindName()+"List", apiVersion)
	head = append(head, field2)
	head = binary.AppendUvarint(head, uint64(l.size))
	if len(l.encoded) == 1 {
		head = append(head, l.encoded[0]...)
		head = append(head, protobufSuffix...)
		_, err := w.Write(head)
		return err
	}
	// The prefix goes first by itself, for the same reason as in writeItems.
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

// encode encodes the list into buffers, of which all but the last are taken from the request's share. If that refuses, or
// the client is gone, nothing is held.
func (l *lazyList) encode(ctx context.Context) error {
	e := protobufEncoder{shape: l.shape}
	b := append(newBuffer(), emptyListMeta...)
	for o, u := range l.items {
		if len(b) >= bufferSize {
			l.encoded = append(l.encoded, b)
			l.size += len(b)
			if err := cmp.Or(ctx.Err(), l.form.share.take(int64(cap(b)))); err != nil {
				l.free()
				return err
			}
			b = newBuffer()
		}
		var item int
		b, item = begin(b, field2, 2)
		b = e.appendFields(b, o, u)
		b = end(b, item, 2)
	}
	l.encoded = append(l.encoded, b)
	l.size += len(b)
	return nil
}

// free gives back what encode made.
func (l *lazyList) free() {
	for _, b := range l.encoded {
		freeBuffer(b)
	}
	l.encoded, l.size = nil, 0
}

// protobufEncoder encodes objects as the generated code of apimachinery does: fields in the order of their numbers,
// and empty ones too.
type protobufEncoder struct {
	shape
	labels  sample.Labels // those of the last object
	encoded []byte        // what became of them
}

// appendFields appends the fields of an object.
func (e *protobufEncoder) appendFields(b []byte, o *sample.Object, u *sample.PodUsage) []byte {
	at := u.Time.Std()
	b, meta := begin(b, field1, 2)
	b = e.appendMetadata(b, o, at)
	b = end(b, meta, 2)
	b = appendTimestamp(b, field2, at)
	b, window := begin(b, field3, 1)
	b = append(b, 1<<3)
	b = binary.AppendUvarint(b, uint64(roundWindow(u.Window)))
	b = end(b, window, 1)
	return e.appendProtobuf(b, u)
}

func (e *protobufEncoder) appendMetadata(b []byte, o *sample.Object, created time.Time) []byte {
	b = appendField(b, field1, o.Name)
	b = append(b, "\x12\x00"...) // generateName
	b = appendField(b, field3, o.Namespace)
	b = append(b, "\x22\x00\x2a\x00\x32\x00\x38\x00"...) // selfLink, uid, resourceVersion, generation
	b = appendTimestamp(b, field8, created)
	return append(b, e.encodeLabels(o.Labels)...)
}

// encodeLabels returns the encoding of labels, which is valid until the next call.
func (e *protobufEncoder) encodeLabels(labels sample.Labels) []byte {
	if sameLabels(e.labels, labels) {
		return e.encoded
	}
	b := e.encoded[:0]
	for i := range labels {
		var entry int
		b, entry = begin(b, field11, 1)
		b = appendField(b, field1, labels[i].Key)
		b = appendField(b, field2, labels[i].Value)
		b = end(b, entry, 1)
	}
	e.labels, e.encoded = labels, b
	return b
}

func (nodes) appendProtobuf(b []byte, u *sample.PodUsage) []byte {
	return appendResources(b, field4, &u.Containers[0].Usage)
}

func (pods) appendProtobuf(b []byte, u *sample.PodUsage) []byte {
	for i := range u.Containers {
		var container int
		b, container = begin(b, field4, 1)
		b = appendField(b, field1, u.Containers[i].Name)
		b = appendResources(b, field2, &u.Containers[i].Usage)
		b = end(b, container, 1)
	}
	return b
}

// appendResources appends a usage, which is a map: a field with key and value for each of its entries.
func appendResources(b []byte, tag byte, u *sample.Usage) []byte {
	b, entry := begin(b, tag, 1)
	b = endQuantity(appendCPU(append(b, entryCPU...), u.CPU), entry, len(entryCPU))
	b, entry = begin(b, tag, 1)
	b = endQuantity(appendBytes(append(b, entryMemory...), u.Memory), entry, len(entryMemory))
	if u.HasSwap {
		b, entry = begin(b, tag, 1)
		b = endQuantity(appendBytes(append(b, entrySwap...), u.Swap), entry, len(entrySwap))
	}
	return b
}

// How the entries of a usage begin: the name of the resource, and a quantity, whose only field is its text. The lengths of the two,
// which endQuantity sets, are 0.
const (
	entryCPU    = "\x0a\x03cpu\x12\x00\x0a\x00"
	entryMemory = "\x0a\x06memory\x12\x00\x0a\x00"
	entrySwap   = "\x0a\x04swap\x12\x00\x0a\x00"
)

// endQuantity sets the lengths of the entry that begins at at, and whose quantity has its text head bytes behind that. All are short.
func endQuantity(b []byte, at, head int) []byte {
	n := len(b) - at
	b[at-1], b[at+head-3], b[at+head-1] = byte(n), byte(n-head+2), byte(n-head)
	return b
}

// appendTimestamp appends a time in seconds as metav1.Time does.
func appendTimestamp(b []byte, tag byte, t time.Time) []byte {
	b, at := begin(b, tag, 1)
	if !t.IsZero() {
		b = append(b, 1<<3)
		b = binary.AppendUvarint(b, uint64(t.Unix()))
		b = append(b, 2<<3, 0)
	}
	return end(b, at, 1)
}

// appendEnvelope appends the field of runtime.Unknown that says what its object is.
func appendEnvelope(b []byte, kind, apiVersion string) []byte {
	b, at := begin(b, field1, 1)
	b = appendField(b, field1, apiVersion)
	b = appendField(b, field2, kind)
	return end(b, at, 1)
}

func appendField(b []byte, tag byte, s string) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// begin appends the tag of a field whose length is not known yet, and keeps room for that many bytes of it. The content is
// what is appended until end, which gets at and room.
func begin(b []byte, tag byte, room int) (_ []byte, at int) {
	b = append(b, tag, 0)
	if room == 2 {
		b = append(b, 0)
	}
	return b, len(b)
}

// end puts the length of the field that began at at before it. If it does not take the room that was kept, the content
// moves, which is cheaper than to work out its length beforehand.
func end(b []byte, at, room int) []byte {
	size := len(b) - at
	switch {
	case room == 1 && size < 1<<7:
		b[at-1] = byte(size)
		return b
	case room == 2 && size >= 1<<7 && size < 1<<14:
		b[at-2], b[at-1] = byte(size)|1<<7, byte(size>>7)
		return b
	}
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(size))
	b = append(b, length[:]...) // room for a longer length
	copy(b[at-room+n:], b[at:at+size])
	copy(b[at-room:], length[:n])
	return b[:at-room+n+size]
}
