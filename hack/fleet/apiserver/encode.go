package apiserver

import (
	"bytes"
	"encoding/binary"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// message is an API object; all of them can encode themselves.
type message interface {
	Size() int
	MarshalTo(b []byte) (int, error)
}

// magic is the prefix of every protobuf object that is not part of another one.
var magic = []byte("k8s\x00")

// encode appends m as a complete object, as in a response or an event.
func encode(dst []byte, as form, apiVersion, kind string, m message) []byte {
	if !as.protobuf {
		return appendJSON(dst, apiVersion, kind, m)
	}
	dst = append(dst, magic...)
	dst = appendUnknown(dst, apiVersion, kind, m.Size())
	return appendMessage(dst, m)
}

// appendUnknown appends the beginning of a runtime.Unknown of that kind, up to and including the
// length of its raw object, which must follow.
func appendUnknown(dst []byte, apiVersion, kind string, size int) []byte {
	t := runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}
	dst = append(dst, 1<<3|2)
	dst = binary.AppendUvarint(dst, uint64(t.Size()))
	dst = appendMessage(dst, &t)
	dst = append(dst, 2<<3|2)
	return binary.AppendUvarint(dst, uint64(size))
}

func appendMessage(dst []byte, m message) []byte {
	n := m.Size()
	at := len(dst)
	dst = append(dst, make([]byte, n)...)
	_, err := m.MarshalTo(dst[at:])
	must(err)
	return dst
}

// appendJSON appends m in JSON. It writes the kind itself and omits the kind in m.
func appendJSON(dst []byte, apiVersion, kind string, m message) []byte {
	b, err := json.Marshal(m)
	must(err)
	if kind == "" {
		return append(dst, b...)
	}
	dst = append(dst, `{"kind":"`...)
	dst = append(dst, kind...)
	dst = append(dst, `","apiVersion":"`...)
	dst = append(dst, apiVersion...)
	dst = append(dst, `",`...)
	return append(dst, bytes.TrimPrefix(b, []byte("{"))...)
}

// must panics if an object that this package made cannot be encoded.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// encode appends o as a complete object, in the form that q asks for.
func (q *query) encode(dst []byte, o any) []byte {
	if q.as.partial {
		return encode(dst, q.as, "meta.k8s.io/v1", "PartialObjectMetadata",
			&metav1.PartialObjectMetadata{ObjectMeta: q.collection.meta(o)})
	}
	return encode(dst, q.as, q.collection.version, q.collection.kind, q.collection.whole(o))
}

// item appends o as an item of a list.
func (q *query) item(o any) message {
	if q.as.partial {
		return &metav1.PartialObjectMetadata{ObjectMeta: q.collection.meta(o)}
	}
	return q.collection.whole(o)
}

// appendEvent appends a watch event with an object that encode has encoded.
func appendEvent(dst []byte, as form, kind string, object []byte) []byte {
	if !as.protobuf {
		dst = append(dst, `{"type":"`...)
		dst = append(dst, kind...)
		dst = append(dst, `","object":`...)
		dst = append(dst, object...)
		return append(dst, '}', '\n')
	}
	e := metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: object}}
	dst = binary.BigEndian.AppendUint32(dst, uint32(e.Size()))
	return appendMessage(dst, &e)
}
