package api

import (
	"context"
	"io"
	"iter"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/sample"
)

// lazy is the common part of responses that are not built before they are encoded. They encode
// themselves directly from the values, byte for byte as the standard encoders would encode the
// standard objects.
//
// The hook is runtime.CacheableObject: every encoder first offers such an object, by the encoder's
// identifier, to encode itself. Encoders that are not in Group.encodings are given the standard
// object.
type lazy[V any] struct {
	ItemEncoder[V]
	group    *Group
	standard func() runtime.Object
}

// GetObjectKind implements runtime.Object.
func (*lazy[V]) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// GetObject implements runtime.CacheableObject.
func (l *lazy[V]) GetObject() runtime.Object { return l.standard() }

// lazyObject is one object.
type lazyObject[V any] struct {
	lazy[V]
	object   sample.Object
	value    V
	revision sample.Revision
}

// lazyList is a list of objects, or a Table of them. Nothing is read before it is written: each
// value is the one at the moment it is encoded. No lock is held while a slow client reads.
type lazyList[V any] struct {
	lazy[V]
	ctx    context.Context // of the request; items ends early when it is done
	items  iter.Seq2[*sample.Object, *V]
	output *output
	// revision is the last one that the list is sure to contain.
	revision sample.Revision

	encoded [][]byte // the protobuf encoding, if encode was called
	size    int      // total length of encoded
}

var (
	_ runtime.CacheableObject = &lazyObject[int]{}
	_ runtime.CacheableObject = &lazyList[int]{}
)

// DeepCopyObject implements runtime.Object. A lazy answer is immutable.
func (l *lazyObject[V]) DeepCopyObject() runtime.Object { return l }

// DeepCopyObject implements runtime.Object. A lazy answer is immutable.
func (l *lazyList[V]) DeepCopyObject() runtime.Object { return l }

// CacheEncode implements runtime.CacheableObject.
func (l *lazyObject[V]) CacheEncode(
	id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer,
) error {
	switch e := l.group.encodings[id]; e.media {
	case runtime.ContentTypeJSON:
		return l.writeJSON(w, e.apiVersion)
	case runtime.ContentTypeProtobuf:
		return l.writeProtobuf(w, e.apiVersion)
	}
	return encode(l.GetObject(), w)
}

// CacheEncode implements runtime.CacheableObject.
func (l *lazyList[V]) CacheEncode(
	id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer,
) error {
	switch e := l.group.encodings[id]; e.media {
	case runtime.ContentTypeJSON:
		if l.output.table != "" {
			return l.writeTable(w, e.apiVersion)
		}
		return l.writeJSON(w, e.apiVersion)
	case runtime.ContentTypeProtobuf:
		return l.writeProtobuf(w, e.apiVersion)
	}
	return encode(l.GetObject(), w)
}

// encoding is one that lazy responses implement themselves.
type encoding struct{ media, apiVersion string }

// newEncodings returns the encodings of the group, by the identifiers of the standard encoders.
func (g *Group) newEncodings() map[runtime.Identifier]encoding {
	encodings := map[runtime.Identifier]encoding{}
	for _, info := range g.Codecs.SupportedMediaTypes() {
		if info.MediaType != runtime.ContentTypeJSON && info.MediaType != runtime.ContentTypeProtobuf {
			continue
		}
		for _, v := range g.Scheme.PrioritizedVersionsForGroup(g.Name) {
			id := g.Codecs.EncoderForVersion(info.Serializer, v).Identifier()
			encodings[id] = encoding{info.MediaType, v.String()}
		}
	}
	return encodings
}

// bufferSize is the number of bytes written at once. It is all the memory that a JSON list takes,
// regardless of its length.
const bufferSize = 64 << 10

// buffers have room beyond bufferSize, because a buffer is written only after an item has crossed
// that mark.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, bufferSize+4<<10)
	return &b
}}

func newBuffer() []byte { return (*buffers.Get().(*[]byte))[:0] }

// freeBuffer returns b to the pool, unless a pod with thousands of containers has made it too large
// to keep.
func freeBuffer(b []byte) {
	if cap(b) <= 2*bufferSize {
		buffers.Put(&b)
	}
}

// sameLabels reports whether a and b are the same slice. Objects share label sets where possible,
// and those that do are mostly adjacent, so results that depend only on labels can be reused from
// one object to the next.
func sameLabels(a, b sample.Labels) bool {
	return len(a) > 0 && len(a) == len(b) && &a[0] == &b[0]
}
