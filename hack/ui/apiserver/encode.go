package apiserver

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// encodable is an object or a Status.
type encodable interface {
	runtime.Object
	Marshal() ([]byte, error)
}

// object is an object of the API.
type object interface {
	encodable
	GetObjectMeta() metav1.Object
}

const protobufType = "application/vnd.kubernetes.protobuf"

// contentType is that of the answer.
func (o *options) contentType() string {
	switch {
	case !o.protobuf:
		return "application/json"
	case o.watch:
		return protobufType + ";stream=watch"
	}
	return protobufType
}

// encode encodes an object that is not part of a list.
func (o *options) encode(of encodable) []byte {
	if !o.protobuf {
		return mustJSON(of)
	}
	apiVersion, kind := of.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	return wrap(apiVersion, kind, must(of.Marshal()))
}

// wrap makes a message a complete object in protobuf.
func wrap(apiVersion, kind string, message []byte) []byte {
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}, Raw: message}
	return append([]byte("k8s\x00"), must(u.Marshal())...)
}

// event encodes an event of a watch.
func (o *options) event(t eventType, of encodable) []byte {
	object := o.encode(of)
	if !o.protobuf {
		return fmt.Appendf(nil, "{\"type\":%q,\"object\":%s}\n", t, object)
	}
	e := metav1.WatchEvent{Type: string(t), Object: runtime.RawExtension{Raw: object}}
	b := must(e.Marshal())
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// list is a list that is being encoded.
type list struct {
	*options
	items int
	body  []byte // the items
}

func newList(o *options) *list { return &list{options: o} }

func (l *list) add(of object) {
	l.items++
	if l.protobuf {
		l.body = protowire.AppendTag(l.body, 2, protowire.BytesType)
		l.body = protowire.AppendBytes(l.body, must(of.Marshal()))
		return
	}
	if l.items > 1 {
		l.body = append(l.body, ',')
	}
	l.body = append(l.body, mustJSON(of)...)
}

// end returns the list.
func (l *list) end(meta *metav1.ListMeta) []byte {
	kind, apiVersion := l.kind+"List", l.apiVersion()
	if l.partial {
		kind, apiVersion = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	if l.protobuf {
		head := protowire.AppendTag(nil, 1, protowire.BytesType)
		head = protowire.AppendBytes(head, must(meta.Marshal()))
		return wrap(apiVersion, kind, append(head, l.body...))
	}
	return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[%s]}`, kind, apiVersion, mustJSON(meta),
		l.body)
}

// mustJSON encodes an object that this package made.
func mustJSON(of any) []byte { return must(json.Marshal(of)) }

// must panics if an object that this package made cannot be encoded.
func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
