package api

import (
	"io"
	"iter"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/metrics/pkg/apis/metrics"

	"metrics-server/pkg/sample"
)

// lazy is what answers have in common that are not built before they are encoded: they write themselves, straight
// from the usage, and byte for byte as the standard encoders would write the standard objects.
//
// They get their turn as runtime.CacheableObjects. Every encoder first asks such an object, giving its own identifier,
// to write itself. An encoder that is not in formats is given the standard object.
type lazy struct {
	shape
	standard func() runtime.Object
}

// shape is what differs between nodes and pods in an encoding.
type shape interface {
	kindName() string
	// moreColumns are those of a Table beside the common ones, and moreCells what an object has in them.
	moreColumns() []metav1.TableColumnDefinition
	moreCells(name string, now time.Time) []string
	// appendJSON and appendProtobuf append what follows the window, as fields of the object.
	appendJSON(b []byte, u *sample.PodUsage) []byte
	appendProtobuf(b []byte, u *sample.PodUsage) []byte
}

// GetObjectKind implements runtime.Object.
func (*lazy) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// GetObject implements runtime.CacheableObject.
func (l *lazy) GetObject() runtime.Object { return l.standard() }

// lazyObject is one node or pod.
type lazyObject struct {
	lazy
	object sample.Object
	usage  sample.PodUsage
}

// lazyList is a list of them, or a Table, of which nothing is read before it is written. The usage is that of
// the moment at which it is read. Nothing is locked while a slow client takes its time.
type lazyList struct {
	lazy
	items iter.Seq2[*sample.Object, *sample.PodUsage]
	form  *form

	encoded [][]byte // as protobuf, if that was done before
	size    int      // of it
}

var (
	_ runtime.CacheableObject = &lazyObject{}
	_ runtime.CacheableObject = &lazyList{}
)

// DeepCopyObject implements runtime.Object. A lazy answer is immutable.
func (l *lazyObject) DeepCopyObject() runtime.Object { return l }

// DeepCopyObject implements runtime.Object. A lazy answer is immutable.
func (l *lazyList) DeepCopyObject() runtime.Object { return l }

// CacheEncode implements runtime.CacheableObject.
func (l *lazyObject) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	switch f := formats[id]; f.media {
	case runtime.ContentTypeJSON:
		return l.writeJSON(w, f.apiVersion)
	case runtime.ContentTypeProtobuf:
		return l.writeProtobuf(w, f.apiVersion)
	}
	return encode(l.GetObject(), w)
}

// CacheEncode implements runtime.CacheableObject.
func (l *lazyList) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	switch f := formats[id]; f.media {
	case runtime.ContentTypeJSON:
		if l.form.table != "" {
			return l.writeTable(w, f.apiVersion)
		}
		return l.writeJSON(w, f.apiVersion)
	case runtime.ContentTypeProtobuf:
		return l.writeProtobuf(w, f.apiVersion)
	}
	return encode(l.GetObject(), w)
}

// format is an encoding that lazy answers write themselves.
type format struct{ media, apiVersion string }

// encoders are the standard encoders for all there are, and formats are these by the identifiers of those.
var encoders, formats = newFormats()

func newFormats() (map[format]runtime.Encoder, map[runtime.Identifier]format) {
	encoders, formats := map[format]runtime.Encoder{}, map[runtime.Identifier]format{}
	for _, info := range Codecs.SupportedMediaTypes() {
		if info.MediaType != runtime.ContentTypeJSON && info.MediaType != runtime.ContentTypeProtobuf {
			continue
		}
		for _, v := range Scheme.PrioritizedVersionsForGroup(metrics.GroupName) {
			f, encoder := format{info.MediaType, v.String()}, Codecs.EncoderForVersion(info.Serializer, v)
			encoders[f], formats[encoder.Identifier()] = encoder, f
		}
	}
	return encoders, formats
}

// bufferSize is how much is written at once. It is the memory that a list in JSON takes, however long.
const bufferSize = 64 << 10

// buffers has some room beyond bufferSize: a buffer is full when the last item has crossed the mark.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, bufferSize+4<<10)
	return &b
}}

func newBuffer() []byte { return (*buffers.Get().(*[]byte))[:0] }

// freeBuffer takes b back, unless a pod with thousands of containers has made it too large to keep.
func freeBuffer(b []byte) {
	if cap(b) <= 2*bufferSize {
		buffers.Put(&b)
	}
}

// sameLabels reports whether a and b are one slice. Objects share their labels where they can, and those that do stand
// mostly next to each other: what depends on labels only need not be worked out for each of them.
func sameLabels(a, b sample.Labels) bool {
	return len(a) > 0 && len(a) == len(b) && &a[0] == &b[0]
}
