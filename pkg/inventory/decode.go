package inventory

import (
	"bufio"
	"bytes"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
)

const (
	nodeKind         = "Node"
	nodeListKind     = nodeKind + "List"
	metadataKind     = "PartialObjectMetadata"
	metadataListKind = metadataKind + "List"
)

var scheme = newScheme()

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Node{}, &corev1.NodeList{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	if err := metav1.AddMetaToScheme(s); err != nil {
		panic(err) // a type is registered twice
	}
	return s
}

// codecs are the standard codecs but for protobuf, of which they take what an Inventory keeps of nodes and of the metadata of pods.
// They pass over the rest, managed fields, nearly all annotations and the images of a node above all: a list of 150,000 pods is 750 MB of protobuf, and
// to make objects of all that takes several times the memory and most of the time until the server is ready.
type codecs struct {
	runtime.NegotiatedSerializer
	media []runtime.SerializerInfo
}

func newCodecs() *codecs {
	c := &codecs{NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion()}
	c.media = slices.Clone(c.NegotiatedSerializer.SupportedMediaTypes())
	for i := range c.media {
		info := &c.media[i]
		if info.MediaType != runtime.ContentTypeProtobuf {
			continue
		}
		info.Serializer = objectSerializer{info.Serializer}
		stream := *info.StreamSerializer
		stream.Serializer = eventSerializer{stream.Serializer}
		stream.Framer = bufferedFramer{stream.Framer}
		info.StreamSerializer = &stream
	}
	return c
}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (c *codecs) SupportedMediaTypes() []runtime.SerializerInfo { return c.media }

// objectSerializer decodes nodes and metadata, of which it takes what is kept here, and leaves all else to the standard one.
type objectSerializer struct{ runtime.Serializer }

// Decode implements runtime.Decoder. It keeps nothing of data.
func (s objectSerializer) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	kind, message := openEnvelope(data)
	if into != nil {
		return s.Serializer.Decode(data, defaults, into)
	}
	switch kind {
	case corev1.SchemeGroupVersion.WithKind(nodeKind):
		o := &corev1.Node{}
		return o, &kind, unmarshalNode(message, o)
	case corev1.SchemeGroupVersion.WithKind(nodeListKind):
		l := &corev1.NodeList{}
		return l, &kind, unmarshalList(message, &l.ListMeta, &l.Items, unmarshalNode)
	case metav1.SchemeGroupVersion.WithKind(metadataKind):
		o := &metav1.PartialObjectMetadata{}
		return o, &kind, unmarshalMetadata(message, o)
	case metav1.SchemeGroupVersion.WithKind(metadataListKind):
		l := &metav1.PartialObjectMetadataList{}
		return l, &kind, unmarshalList(message, &l.ListMeta, &l.Items, unmarshalMetadata)
	}
	return s.Serializer.Decode(data, defaults, into)
}

// bufferedFramer reads ahead: an event is read in two or three pieces, and for each HTTP/2 would tell the API server that it
// may send more.
type bufferedFramer struct{ runtime.Framer }

// NewFrameReader implements runtime.Framer.
func (f bufferedFramer) NewFrameReader(r io.ReadCloser) io.ReadCloser {
	return f.Framer.NewFrameReader(struct {
		io.Reader
		io.Closer
	}{bufio.NewReaderSize(r, 64<<10), r})
}

// eventSerializer decodes the events of a watch and leaves all else to the standard one.
type eventSerializer struct{ runtime.Serializer }

// Decode implements runtime.Decoder. The object of the event is a part of data, which is valid until the next call: the
// decoder of a watch decodes it before that. The standard one copies it, and then again.
func (s eventSerializer) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	event, ok := into.(*metav1.WatchEvent)
	if !ok {
		return s.Serializer.Decode(data, defaults, into)
	}
	*event = metav1.WatchEvent{}
	err := eachField(data, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			event.Type = string(value)
		case 2: // a runtime.RawExtension
			return eachField(value, func(number protowire.Number, value []byte) error {
				if number == 1 {
					event.Object.Raw = value
				}
				return nil
			})
		}
		return nil
	})
	gvk := metav1.SchemeGroupVersion.WithKind("WatchEvent")
	return event, &gvk, err
}

// openEnvelope returns what is in data, a runtime.Unknown with its prefix, and of what kind it says that it is. There is no
// kind if that cannot be said.
func openEnvelope(data []byte) (kind schema.GroupVersionKind, message []byte) {
	data, ok := bytes.CutPrefix(data, []byte("k8s\x00"))
	if !ok {
		return kind, nil
	}
	var version, name string
	err := eachField(data, func(number protowire.Number, value []byte) error {
		switch number {
		case 1: // a runtime.TypeMeta
			return eachField(value, func(number protowire.Number, value []byte) error {
				switch number {
				case 1:
					version = string(value)
				case 2:
					name = string(value)
				}
				return nil
			})
		case 2:
			message = value
		}
		return nil
	})
	if err != nil {
		return kind, nil // the standard decoder says what is wrong
	}
	return schema.FromAPIVersionAndKind(version, name), message
}

func unmarshalList[T any](message []byte, into *metav1.ListMeta, items *[]T, unmarshal func([]byte, *T) error) error {
	return eachField(message, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			return into.Unmarshal(value)
		case 2:
			*items = append(*items, *new(T))
			return unmarshal(value, &(*items)[len(*items)-1])
		}
		return nil
	})
}

// unmarshalNode takes what is kept of a node. The numbers are those of Node and NodeStatus in k8s.io/api/core/v1/generated.proto.
func unmarshalNode(message []byte, into *corev1.Node) error {
	return eachField(message, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			return unmarshalObjectMeta(value, &into.ObjectMeta)
		case 3:
			return eachField(value, func(number protowire.Number, value []byte) error {
				switch number {
				case 5:
					into.Status.Addresses = append(into.Status.Addresses, corev1.NodeAddress{})
					return into.Status.Addresses[len(into.Status.Addresses)-1].Unmarshal(value)
				case 6:
					return into.Status.DaemonEndpoints.Unmarshal(value)
				}
				return nil
			})
		}
		return nil
	})
}

func unmarshalMetadata(message []byte, into *metav1.PartialObjectMetadata) error {
	return eachField(message, func(number protowire.Number, value []byte) error {
		if number == 1 {
			return unmarshalObjectMeta(value, &into.ObjectMeta)
		}
		return nil
	})
}

// unmarshalObjectMeta takes what is kept of an object's metadata, and what a reflector looks for. The numbers are those of ObjectMeta in
// k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
func unmarshalObjectMeta(message []byte, into *metav1.ObjectMeta) error {
	return eachField(message, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			into.Name = string(value)
		case 3:
			into.Namespace = string(value)
		case 5:
			into.UID = types.UID(value)
		case 6:
			into.ResourceVersion = string(value)
		case 11:
			k, v, err := mapEntry(value)
			put(&into.Labels, k, v)
			return err
		case 12:
			k, v, err := mapEntry(value)
			switch string(k) {
			case PathAnnotation, metav1.InitialEventsAnnotationKey: // the second ends a list that is streamed
				put(&into.Annotations, k, v)
			}
			return err
		}
		return nil
	})
}

func put(m *map[string]string, key, value []byte) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[string(key)] = string(value)
}

func mapEntry(message []byte) (key, value []byte, err error) {
	err = eachField(message, func(number protowire.Number, b []byte) error {
		switch number {
		case 1:
			key = b
		case 2:
			value = b
		}
		return nil
	})
	return key, value, err
}

// eachField calls f with each field of a message that has a length, as texts and messages have, and passes over the others.
// It ends with the first error of f.
func eachField(message []byte, f func(number protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
				return protowire.ParseError(n)
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(number, value); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}
