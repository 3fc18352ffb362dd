package inventory

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
)

// standard encodes and decodes as the API server does.
var standard = serializer.NewCodecFactory(metadataScheme).WithoutConversion()

// protobufOf returns what codecs have for protobuf.
func protobufOf(t testing.TB, codecs runtime.NegotiatedSerializer) runtime.SerializerInfo {
	t.Helper()
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		t.Fatal("no protobuf")
	}
	return info
}

func encode(t testing.TB, codec runtime.Encoder, o runtime.Object) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := codec.Encode(o, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wholeMetadata is metadata with about everything that there can be.
func wholeMetadata(r *rand.Rand) metav1.PartialObjectMetadata {
	text := func() string { return fmt.Sprintf("%016x", r.Uint64())[:r.IntN(16)] }
	pairs := func() map[string]string {
		m := map[string]string{}
		for range r.IntN(5) {
			m[text()] = text()
		}
		return m
	}
	now := metav1.NewTime(time.Unix(r.Int64N(1<<32), 0))
	o := metav1.ObjectMeta{
		Name: text(), GenerateName: text(), Namespace: text(), UID: types.UID(text()),
		ResourceVersion: text(), Generation: r.Int64(), CreationTimestamp: now,
		Labels: pairs(), Annotations: pairs(), Finalizers: []string{text()},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: text(), Kind: text(), Name: text(), UID: types.UID(text()), Controller: new(true)}},
		ManagedFields: []metav1.ManagedFieldsEntry{{
			Manager: text(), Operation: metav1.ManagedFieldsOperationApply, APIVersion: "v1", Time: &now,
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`),
		}},
	}
	if r.IntN(2) == 0 {
		o.DeletionTimestamp, o.DeletionGracePeriodSeconds = &now, new(r.Int64())
	}
	if r.IntN(4) == 0 {
		o.Annotations[metav1.InitialEventsAnnotationKey] = "true"
	}
	if r.IntN(4) == 0 {
		o.Labels, o.Annotations = nil, nil
	}
	return metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: metadataKind, APIVersion: metav1.SchemeGroupVersion.String()}, ObjectMeta: o}
}

// kept is o with what is kept of it only.
func kept(o metav1.PartialObjectMetadata) metav1.PartialObjectMetadata {
	k := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: o.Name, Namespace: o.Namespace, UID: o.UID, ResourceVersion: o.ResourceVersion, Labels: o.Labels,
	}}
	if len(o.Labels) == 0 {
		k.Labels = nil
	}
	if v, ok := o.Annotations[metav1.InitialEventsAnnotationKey]; ok {
		k.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: v}
	}
	return k
}

// What the standard decoder finds is found, as far as it is kept.
func TestMetadataIsThatOfTheStandardDecoder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	ours, theirs := protobufOf(t, newMetadataCodecs()), protobufOf(t, standard)
	for range 1000 {
		one := wholeMetadata(r)
		got, _, err := ours.Serializer.Decode(encode(t, theirs.Serializer, &one), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := kept(one)
		equal(t, "object", &want, got.(*metav1.PartialObjectMetadata))
	}

	list := &metav1.PartialObjectMetadataList{
		TypeMeta: metav1.TypeMeta{Kind: metadataListKind, APIVersion: metav1.SchemeGroupVersion.String()},
		ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more", RemainingItemCount: new(int64(3))},
	}
	want := &metav1.PartialObjectMetadataList{ListMeta: list.ListMeta}
	for range 50 {
		one := wholeMetadata(r)
		list.Items, want.Items = append(list.Items, one), append(want.Items, kept(one))
	}
	got, _, err := ours.Serializer.Decode(encode(t, theirs.Serializer, list), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "list", want, got.(*metav1.PartialObjectMetadataList))
}

// event is a frame of a watch.
func event(t testing.TB, kind string, object runtime.Object) []byte {
	t.Helper()
	info := protobufOf(t, standard)
	return encode(t, info.StreamSerializer.Serializer, &metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: encode(t, info.Serializer, object)}})
}

func TestEvents(t *testing.T) {
	one := wholeMetadata(rand.New(rand.NewPCG(5, 6)))
	status := apierrors.NewResourceExpired("too old").Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	info := protobufOf(t, newMetadataCodecs())
	for _, tt := range []struct {
		kind   string
		object runtime.Object
		want   runtime.Object
	}{
		{"ADDED", &one, new(kept(one))},
		{"ERROR", &status, &status},
	} {
		var got metav1.WatchEvent
		got.Object.Raw = []byte("of the event before")
		into, _, err := info.StreamSerializer.Serializer.Decode(event(t, tt.kind, tt.object), nil, &got)
		if err != nil || into != runtime.Object(&got) || got.Type != tt.kind {
			t.Fatalf("%s: %v, %v", tt.kind, got.Type, err)
		}
		object, _, err := info.Serializer.Decode(got.Object.Raw, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, tt.kind, tt.want, object)
	}
}

// What is not metadata, or wanted as something else, is left to the standard decoder, with its errors.
func TestOthersAreLeftToTheStandardDecoder(t *testing.T) {
	ours, theirs := protobufOf(t, newMetadataCodecs()), protobufOf(t, standard)
	one := wholeMetadata(rand.New(rand.NewPCG(7, 8)))
	whole := encode(t, theirs.Serializer, &one)
	got := &metav1.PartialObjectMetadata{}
	if _, _, err := ours.Serializer.Decode(whole, nil, got); err != nil || len(got.ManagedFields) == 0 {
		t.Errorf("%v, %v", got, err)
	}
	for _, data := range [][]byte{nil, []byte("k8s\x00"), []byte("{}"), append([]byte("k8s\x00"), 0xff), whole[:len(whole)/2]} {
		_, _, err := ours.Serializer.Decode(data, nil, nil)
		_, _, want := theirs.Serializer.Decode(data, nil, nil)
		if err == nil || want == nil || err.Error() != want.Error() {
			t.Errorf("%q: %v, want %v", data, err, want)
		}
	}
	var options metav1.ListOptions
	b := encode(t, theirs.StreamSerializer.Serializer, &metav1.ListOptions{Limit: 7})
	if _, _, err := ours.StreamSerializer.Serializer.Decode(b, new(corev1.SchemeGroupVersion.WithKind("ListOptions")), &options); err != nil || options.Limit != 7 {
		t.Errorf("%+v, %v", options, err)
	}
}

func FuzzMetadata(f *testing.F) {
	theirs := protobufOf(f, standard)
	one := wholeMetadata(rand.New(rand.NewPCG(9, 10)))
	f.Add(encode(f, theirs.Serializer, &one))
	f.Add(event(f, "ADDED", &one))
	ours := protobufOf(f, newMetadataCodecs())
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _ = ours.StreamSerializer.Serializer.Decode(data, nil, &metav1.WatchEvent{}) // it must not panic
		got, _, err := ours.Serializer.Decode(data, nil, nil)
		object, _, wrong := theirs.Serializer.Decode(data, nil, nil)
		want, ok := object.(*metav1.PartialObjectMetadata)
		if err != nil || wrong != nil || !ok { // what is passed over may be wrong
			return
		}
		equal(t, "object", new(kept(*want)), got.(*metav1.PartialObjectMetadata))
	})
}

// BenchmarkEvent decodes an event of a watch, as there is one for each pod when the server starts.
func BenchmarkEvent(b *testing.B) {
	one := wholeMetadata(rand.New(rand.NewPCG(11, 12)))
	for i := range 12 {
		one.Annotations = map[string]string{fmt.Sprintf("note-%d", i): fmt.Sprintf("%0200d", i)}
	}
	one.ManagedFields[0].FieldsV1 = metav1.NewFieldsV1(strings.Repeat(`{"f:metadata":{}}`, 200))
	frame := event(b, "ADDED", &one)
	for name, codecs := range map[string]runtime.NegotiatedSerializer{"ours": newMetadataCodecs(), "standard": standard} {
		info := protobufOf(b, codecs)
		objects := codecs.DecoderToVersion(info.Serializer, schema.GroupVersion{Version: "v1"})
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				var got metav1.WatchEvent
				if _, _, err := info.StreamSerializer.Serializer.Decode(frame, nil, &got); err != nil {
					b.Fatal(err)
				}
				if _, err := runtime.Decode(objects, got.Object.Raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
