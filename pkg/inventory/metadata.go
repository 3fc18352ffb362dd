package inventory

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// NewPodsClient returns a client for Config.Pods that uses h, an HTTP client made for c.
//
// It reads what an Inventory keeps of a pod's metadata and passes over the rest, managed fields and annotations
// above all: a list of 150,000 pods is 750 MB of protobuf, and to make objects of all that takes several times the memory and
// most of the time until the server is ready.
func NewPodsClient(c *rest.Config, h *http.Client) (rest.Interface, error) {
	c = rest.CopyConfig(c)
	c.APIPath, c.GroupVersion = "/api", &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = newMetadataCodecs()
	return rest.RESTClientForConfigAndClient(c, h)
}

const (
	metadataKind     = "PartialObjectMetadata"
	metadataListKind = metadataKind + "List"
)

// podList lists the metadata of pods with c, as a source wants it.
func podList(c rest.Interface) func(context.Context, metav1.ListOptions) (runtime.Object, error) {
	return func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return podRequest(c, o, metadataListKind).Do(ctx).Get()
	}
}

// podWatch watches the metadata of pods with c, as a source wants it.
func podWatch(c rest.Interface) func(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		o.Watch = true
		return podRequest(c, o, metadataKind).Watch(ctx)
	}
}

func podRequest(c rest.Interface, o metav1.ListOptions, kind string) *rest.Request {
	as := fmt.Sprintf(";as=%s;g=%s;v=v1", kind, metav1.GroupName)
	r := c.Get().Resource("pods").VersionedParams(&o, parameters).
		SetHeader("Accept", runtime.ContentTypeProtobuf+as+","+runtime.ContentTypeJSON+as)
	if o.TimeoutSeconds != nil {
		r = r.Timeout(time.Duration(*o.TimeoutSeconds) * time.Second)
	}
	return r
}

var (
	metadataScheme = newMetadataScheme()
	parameters     = runtime.NewParameterCodec(metadataScheme)
)

func newMetadataScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	if err := metav1.AddMetaToScheme(s); err != nil {
		panic(err) // a type is registered twice
	}
	return s
}

// metadataCodecs are the standard codecs for metadata but for protobuf.
type metadataCodecs struct {
	runtime.NegotiatedSerializer
	media []runtime.SerializerInfo
}

func newMetadataCodecs() *metadataCodecs {
	c := &metadataCodecs{NegotiatedSerializer: serializer.NewCodecFactory(metadataScheme).WithoutConversion()}
	c.media = slices.Clone(c.NegotiatedSerializer.SupportedMediaTypes())
	for i := range c.media {
		info := &c.media[i]
		if info.MediaType != runtime.ContentTypeProtobuf {
			continue
		}
		info.Serializer = metadataSerializer{info.Serializer}
		stream := *info.StreamSerializer
		stream.Serializer = eventSerializer{stream.Serializer}
		stream.Framer = bufferedFramer{stream.Framer}
		info.StreamSerializer = &stream
	}
	return c
}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (c *metadataCodecs) SupportedMediaTypes() []runtime.SerializerInfo { return c.media }

// metadataSerializer decodes metadata, of which it takes what is kept here, and leaves all else to the standard one.
type metadataSerializer struct{ runtime.Serializer }

// Decode implements runtime.Decoder. It keeps nothing of data.
func (s metadataSerializer) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	kind, message := openEnvelope(data)
	if into != nil || kind.GroupVersion() != metav1.SchemeGroupVersion {
		return s.Serializer.Decode(data, defaults, into)
	}
	switch kind.Kind {
	case metadataKind:
		o := &metav1.PartialObjectMetadata{}
		return o, &kind, unmarshalObject(message, o)
	case metadataListKind:
		l := &metav1.PartialObjectMetadataList{}
		return l, &kind, unmarshalList(message, l)
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

func unmarshalList(message []byte, into *metav1.PartialObjectMetadataList) error {
	return eachField(message, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			return into.ListMeta.Unmarshal(value)
		case 2:
			into.Items = append(into.Items, metav1.PartialObjectMetadata{})
			return unmarshalObject(value, &into.Items[len(into.Items)-1])
		}
		return nil
	})
}

// unmarshalObject takes what is kept of a pod, and what a reflector looks for. The numbers are those of ObjectMeta in
// k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
func unmarshalObject(message []byte, into *metav1.PartialObjectMetadata) error {
	return eachField(message, func(number protowire.Number, value []byte) error {
		if number != 1 {
			return nil
		}
		return eachField(value, func(number protowire.Number, value []byte) error {
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
				if into.Labels == nil {
					into.Labels = map[string]string{}
				}
				into.Labels[string(k)] = string(v)
				return err
			case 12:
				k, v, err := mapEntry(value)
				if string(k) == metav1.InitialEventsAnnotationKey { // ends a list that is streamed
					into.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: string(v)}
				}
				return err
			}
			return nil
		})
	})
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
