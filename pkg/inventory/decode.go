package inventory

import (
	"bufio"
	"bytes"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"

	"metrics-server/pkg/kubeapi"
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

// codecs are the standard codecs, except that protobuf is decoded only as far as an Inventory keeps it. The
// rest of nodes and of the metadata of pods, above all managed fields, most annotations and the images
// of a node, is skipped: a list of 150,000 pods is 750 MB of protobuf, and whole objects take several
// times that memory and most of the time until the server is ready.
type codecs struct {
	runtime.NegotiatedSerializer
	media []runtime.SerializerInfo
}

func newCodecs(controllers bool) *codecs {
	c := &codecs{NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion()}
	c.media = slices.Clone(c.NegotiatedSerializer.SupportedMediaTypes())
	for i := range c.media {
		info := &c.media[i]
		if info.MediaType != runtime.ContentTypeProtobuf {
			continue
		}
		info.Serializer = objectSerializer{info.Serializer, decoder{controllers}}
		stream := *info.StreamSerializer
		stream.Serializer = eventSerializer{stream.Serializer}
		stream.Framer = bufferedFramer{stream.Framer}
		info.StreamSerializer = &stream
	}
	return c
}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (c *codecs) SupportedMediaTypes() []runtime.SerializerInfo { return c.media }

// objectSerializer decodes the fields of nodes and metadata that are kept, and leaves other objects to the
// standard serializer.
type objectSerializer struct {
	runtime.Serializer
	decoder
}

// Decode implements runtime.Decoder. It does not retain data.
func (s objectSerializer) Decode(
	data []byte, defaults *schema.GroupVersionKind, into runtime.Object,
) (runtime.Object, *schema.GroupVersionKind, error) {
	kind, message := openEnvelope(data)
	if into != nil {
		return s.Serializer.Decode(data, defaults, into)
	}
	switch kind {
	case corev1.SchemeGroupVersion.WithKind(nodeKind):
		o := &corev1.Node{}
		return o, &kind, s.node(message, o)
	case corev1.SchemeGroupVersion.WithKind(nodeListKind):
		l := &corev1.NodeList{}
		return l, &kind, unmarshalList(message, &l.ListMeta, &l.Items, s.node)
	case metav1.SchemeGroupVersion.WithKind(metadataKind):
		o := &metav1.PartialObjectMetadata{}
		return o, &kind, s.metadata(message, o)
	case metav1.SchemeGroupVersion.WithKind(metadataListKind):
		l := &metav1.PartialObjectMetadataList{}
		return l, &kind, unmarshalList(message, &l.ListMeta, &l.Items, s.metadata)
	}
	return s.Serializer.Decode(data, defaults, into)
}

// bufferedFramer reads ahead: an event is read in two or three pieces, and HTTP/2 would send a window
// update to the API server for each.
type bufferedFramer struct{ runtime.Framer }

// NewFrameReader implements runtime.Framer.
func (f bufferedFramer) NewFrameReader(r io.ReadCloser) io.ReadCloser {
	return f.Framer.NewFrameReader(struct {
		io.Reader
		io.Closer
	}{bufio.NewReaderSize(r, 64<<10), r})
}

// eventSerializer decodes the events of a watch and leaves the rest to the standard serializer.
type eventSerializer struct{ runtime.Serializer }

// Decode implements runtime.Decoder. The object of the event refers to data and is valid until the next
// call; the decoder of a watch decodes it before that. The standard serializer copies it twice.
func (s eventSerializer) Decode(
	data []byte, defaults *schema.GroupVersionKind, into runtime.Object,
) (runtime.Object, *schema.GroupVersionKind, error) {
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

// openEnvelope returns the message in data, a runtime.Unknown with its prefix, and its kind, which is empty
// if data cannot be parsed.
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
		return kind, nil // the standard decoder reports the error
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

// decoder decodes the fields that are kept, with or without the owners of objects.
type decoder struct{ owners bool }

// node decodes the fields of a node that are kept. The numbers are from Node, NodeStatus and
// NodeSystemInfo in k8s.io/api/core/v1/generated.proto.
func (d decoder) node(message []byte, into *corev1.Node) error {
	return eachField(message, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			return d.objectMeta(value, &into.ObjectMeta)
		case 3:
			return eachField(value, func(number protowire.Number, value []byte) error {
				switch number {
				case 1:
					return unmarshalCapacity(value, &into.Status.Capacity)
				case 5:
					into.Status.Addresses = append(into.Status.Addresses, corev1.NodeAddress{})
					return into.Status.Addresses[len(into.Status.Addresses)-1].Unmarshal(value)
				case 6:
					return into.Status.DaemonEndpoints.Unmarshal(value)
				case 7: // a NodeSystemInfo
					return eachField(value, func(number protowire.Number, value []byte) error {
						if number == 7 {
							into.Status.NodeInfo.KubeletVersion = string(value)
						}
						return nil
					})
				}
				return nil
			})
		}
		return nil
	})
}

// unmarshalCapacity decodes an entry of a node's capacity if it is CPU or memory.
func unmarshalCapacity(message []byte, into *corev1.ResourceList) error {
	name, value, err := mapEntry(message)
	if err != nil {
		return err
	}
	switch key := corev1.ResourceName(name); key {
	case corev1.ResourceCPU, corev1.ResourceMemory:
		var q resource.Quantity
		if err := q.Unmarshal(value); err != nil {
			return err
		}
		if *into == nil {
			*into = corev1.ResourceList{}
		}
		(*into)[key] = q
	}
	return nil
}

func (d decoder) metadata(message []byte, into *metav1.PartialObjectMetadata) error {
	return eachField(message, func(number protowire.Number, value []byte) error {
		if number == 1 {
			return d.objectMeta(value, &into.ObjectMeta)
		}
		return nil
	})
}

// objectMeta decodes the metadata that is kept or that a reflector needs. The numbers are from
// ObjectMeta in k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
func (d decoder) objectMeta(message []byte, into *metav1.ObjectMeta) error {
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
			case kubeapi.PathAnnotation, metav1.InitialEventsAnnotationKey: // the second ends a streamed list
				put(&into.Annotations, k, v)
			}
			return err
		case 13:
			if d.owners {
				into.OwnerReferences = append(into.OwnerReferences, metav1.OwnerReference{})
				return into.OwnerReferences[len(into.OwnerReferences)-1].Unmarshal(value)
			}
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

// eachField calls f with each length-delimited field of a message, such as a string or a message, and skips
// the others. It returns the first error of f.
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
