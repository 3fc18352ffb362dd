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
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"

	"metrics-server/pkg/kubeapi"
)

// standard encodes and decodes as the API server does.
var standard = serializer.NewCodecFactory(scheme).WithoutConversion()

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

// wholeMetadata has nearly every field of metadata.
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
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: text(), Kind: text(), Name: text(), UID: types.UID(text()),
			Controller: new(true),
		}},
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
		o.Annotations[kubeapi.PathAnnotation] = text()
	}
	if r.IntN(4) == 0 {
		o.Labels, o.Annotations = nil, nil
	}
	return metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{
		Kind:       metadataKind,
		APIVersion: metav1.SchemeGroupVersion.String(),
	}, ObjectMeta: o}
}

// kept returns o with only the fields that are kept.
func kept(o metav1.PartialObjectMetadata) metav1.PartialObjectMetadata {
	k := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: o.Name, Namespace: o.Namespace, UID: o.UID, ResourceVersion: o.ResourceVersion, Labels: o.Labels,
	}}
	if len(o.Labels) == 0 {
		k.Labels = nil
	}
	for _, key := range []string{metav1.InitialEventsAnnotationKey, kubeapi.PathAnnotation} {
		if v, ok := o.Annotations[key]; ok {
			put(&k.Annotations, []byte(key), []byte(v))
		}
	}
	return k
}

// wholeNode has nearly every field of a node.
func wholeNode(r *rand.Rand) corev1.Node {
	n := corev1.Node{
		TypeMeta:   metav1.TypeMeta{Kind: nodeKind, APIVersion: "v1"},
		ObjectMeta: wholeMetadata(r).ObjectMeta,
		Spec: corev1.NodeSpec{
			PodCIDR: "10.0.0.0/24", ProviderID: "x",
			Taints: []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}},
		},
		Status: corev1.NodeStatus{
			Capacity: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("32867612Ki"),
				corev1.ResourcePods: resource.MustParse("110"),
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			NodeInfo:   corev1.NodeSystemInfo{MachineID: "m", KubeletVersion: "v1"},
			Images:     []corev1.ContainerImage{{Names: []string{"a", "b"}, SizeBytes: r.Int64()}},
		},
	}
	if r.IntN(4) > 0 {
		n.Status.DaemonEndpoints.KubeletEndpoint.Port = r.Int32()
	}
	for range r.IntN(4) {
		n.Status.Addresses = append(n.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: fmt.Sprint(r.Uint32())})
	}
	return n
}

// keptNode returns n with only the fields that are kept.
func keptNode(n corev1.Node) corev1.Node {
	k := corev1.Node{ObjectMeta: kept(metav1.PartialObjectMetadata{ObjectMeta: n.ObjectMeta}).ObjectMeta}
	k.Status.Addresses, k.Status.DaemonEndpoints = n.Status.Addresses, n.Status.DaemonEndpoints
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if q, ok := n.Status.Capacity[name]; ok {
			if k.Status.Capacity == nil {
				k.Status.Capacity = corev1.ResourceList{}
			}
			k.Status.Capacity[name] = q
		}
	}
	k.Status.NodeInfo.KubeletVersion = n.Status.NodeInfo.KubeletVersion
	return k
}

// The kept fields are the same as with the standard decoder.
func TestNodeEqualsStandardDecoder(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	ours, theirs := protobufOf(t, newCodecs(false)), protobufOf(t, standard)
	list := &corev1.NodeList{
		TypeMeta: metav1.TypeMeta{Kind: nodeListKind, APIVersion: "v1"},
		ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more", RemainingItemCount: new(int64(3))},
	}
	want := &corev1.NodeList{ListMeta: list.ListMeta}
	for range 500 {
		one := wholeNode(r)
		got, kind, err := ours.Serializer.Decode(encode(t, theirs.Serializer, &one), nil, nil)
		if err != nil || kind.Kind != nodeKind {
			t.Fatal(kind, err)
		}
		equal(t, "node", new(keptNode(one)), got.(*corev1.Node))
		list.Items, want.Items = append(list.Items, one), append(want.Items, keptNode(one))
	}
	got, _, err := ours.Serializer.Decode(encode(t, theirs.Serializer, list), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "list", want, got.(*corev1.NodeList))
}

// The kept fields are the same as with the standard decoder.
func TestMetadataEqualsStandardDecoder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	ours, theirs := protobufOf(t, newCodecs(false)), protobufOf(t, standard)
	managed := protobufOf(t, newCodecs(true))
	for range 1000 {
		one := wholeMetadata(r)
		want := kept(one)
		for _, codec := range []runtime.SerializerInfo{ours, managed} {
			got, _, err := codec.Serializer.Decode(encode(t, theirs.Serializer, &one), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "object", &want, got.(*metav1.PartialObjectMetadata))
			want.OwnerReferences = one.OwnerReferences // of the second codec
		}
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
	return encode(t, info.StreamSerializer.Serializer,
		&metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: encode(t, info.Serializer, object)}})
}

func TestEvents(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	one, node, end := wholeMetadata(r), wholeNode(r), wholeNode(r)
	put(&end.Annotations, []byte(metav1.InitialEventsAnnotationKey), []byte("true"))
	status := apierrors.NewResourceExpired("too old").Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	info := protobufOf(t, newCodecs(false))
	for _, tt := range []struct {
		kind   string
		object runtime.Object
		want   runtime.Object
	}{
		{"ADDED", &one, new(kept(one))},
		{"ADDED", &node, new(keptNode(node))},
		{"BOOKMARK", &end, new(keptNode(end))},
		{"ERROR", &status, &status},
	} {
		var got metav1.WatchEvent
		got.Object.Raw = []byte("of the event before")
		into, _, err := info.StreamSerializer.Serializer.Decode(event(t, tt.kind, tt.object), nil, &got)
		if err != nil || into != runtime.Object(&got) || got.Type != tt.kind {
			t.Fatalf("got type %v, %v, want %s in the given event", got.Type, err, tt.kind)
		}
		object, _, err := info.Serializer.Decode(got.Object.Raw, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, tt.kind, tt.want, object)
	}
}

// Objects that are neither nodes nor metadata, or that are decoded into another type, are left to
// the standard decoder, with its errors.
func TestOtherTypesUseStandardDecoder(t *testing.T) {
	ours, theirs := protobufOf(t, newCodecs(false)), protobufOf(t, standard)
	one := wholeMetadata(rand.New(rand.NewPCG(7, 8)))
	whole := encode(t, theirs.Serializer, &one)
	got := &metav1.PartialObjectMetadata{}
	if _, _, err := ours.Serializer.Decode(whole, nil, got); err != nil || len(got.ManagedFields) == 0 {
		t.Errorf("got %v, %v, want the whole object", got, err)
	}
	for _, data := range [][]byte{
		nil, []byte("k8s\x00"), []byte("{}"), append([]byte("k8s\x00"), 0xff),
		whole[:len(whole)/2],
	} {
		_, _, err := ours.Serializer.Decode(data, nil, nil)
		_, _, want := theirs.Serializer.Decode(data, nil, nil)
		if err == nil || want == nil || err.Error() != want.Error() {
			t.Errorf("%q: %v, want %v", data, err, want)
		}
	}
	var options metav1.ListOptions
	b := encode(t, theirs.StreamSerializer.Serializer, &metav1.ListOptions{Limit: 7})
	if _, _, err := ours.StreamSerializer.Serializer.Decode(b, new(corev1.SchemeGroupVersion.WithKind("ListOptions")),
		&options); err != nil || options.Limit != 7 {
		t.Errorf("got %+v, %v, want the limit 7", options, err)
	}
}

// FuzzDecode compares objects, lists and watch events with the standard decoder's. Data that either
// decoder rejects is not compared, because fields that are skipped may be invalid.
func FuzzDecode(f *testing.F) {
	theirs := protobufOf(f, standard)
	one := wholeMetadata(rand.New(rand.NewPCG(9, 10)))
	node := wholeNode(rand.New(rand.NewPCG(9, 10)))
	more := metav1.ListMeta{Continue: "more"}
	for _, o := range []runtime.Object{&one, &node} {
		f.Add(encode(f, theirs.Serializer, o))
		f.Add(event(f, "ADDED", o))
	}
	f.Add(encode(f, theirs.Serializer, &corev1.NodeList{
		TypeMeta: metav1.TypeMeta{Kind: nodeListKind, APIVersion: "v1"}, ListMeta: more,
		Items: []corev1.Node{node, node},
	}))
	f.Add(encode(f, theirs.Serializer, &metav1.PartialObjectMetadataList{
		TypeMeta: metav1.TypeMeta{Kind: metadataListKind, APIVersion: metav1.SchemeGroupVersion.String()}, ListMeta: more,
		Items: []metav1.PartialObjectMetadata{one, one},
	}))
	ours := protobufOf(f, newCodecs(false))
	f.Fuzz(func(t *testing.T, data []byte) {
		compareDecoded(t, ours, theirs, data)
		got, want := &metav1.WatchEvent{}, &metav1.WatchEvent{}
		_, _, err := ours.StreamSerializer.Serializer.Decode(data, nil, got)
		_, _, wrong := theirs.StreamSerializer.Serializer.Decode(data, nil, want)
		if err != nil || wrong != nil {
			return
		}
		if got.Type != want.Type || !bytes.Equal(got.Object.Raw, want.Object.Raw) {
			t.Fatalf("event %q of %q, want %q of %q", got.Type, got.Object.Raw, want.Type, want.Object.Raw)
		}
		compareDecoded(t, ours, theirs, got.Object.Raw)
	})
}

// compareDecoded fails t if both serializers decode data and ours differs in a field that is kept.
func compareDecoded(t *testing.T, ours, theirs runtime.SerializerInfo, data []byte) {
	got, _, err := ours.Serializer.Decode(data, nil, nil)
	object, _, wrong := theirs.Serializer.Decode(data, nil, nil)
	if err != nil || wrong != nil {
		return
	}
	switch want := object.(type) {
	case *metav1.PartialObjectMetadata:
		equal(t, "metadata", new(kept(*want)), got.(*metav1.PartialObjectMetadata))
	case *metav1.PartialObjectMetadataList:
		list := &metav1.PartialObjectMetadataList{ListMeta: want.ListMeta}
		for _, o := range want.Items {
			list.Items = append(list.Items, kept(o))
		}
		equal(t, "list of metadata", list, got.(*metav1.PartialObjectMetadataList))
	case *corev1.Node:
		equal(t, "node", new(keptNode(*want)), got.(*corev1.Node))
	case *corev1.NodeList:
		list := &corev1.NodeList{ListMeta: want.ListMeta}
		for _, n := range want.Items {
			list.Items = append(list.Items, keptNode(n))
		}
		equal(t, "list of nodes", list, got.(*corev1.NodeList))
	}
}

// BenchmarkEvent decodes an event of a watch, as there is one for each node and each pod when the server starts.
func BenchmarkEvent(b *testing.B) {
	r := rand.New(rand.NewPCG(11, 12))
	pod, node := wholeMetadata(r), wholeNode(r)
	pod.Annotations = map[string]string{"note": strings.Repeat("x", 200)}
	pod.ManagedFields[0].FieldsV1 = metav1.NewFieldsV1(strings.Repeat(`{"f:metadata":{}}`, 200))
	node.ManagedFields = pod.ManagedFields
	for i := range 50 { // as many as a kubelet reports
		node.Status.Images = append(node.Status.Images,
			corev1.ContainerImage{Names: []string{fmt.Sprintf("registry/%0120d", i), fmt.Sprintf("registry/%060d", i)}})
	}
	for what, object := range map[string]runtime.Object{"pod": &pod, "node": &node} {
		frame := event(b, "ADDED", object)
		for whose, codecs := range map[string]runtime.NegotiatedSerializer{"ours": newCodecs(false), "standard": standard} {
			info := protobufOf(b, codecs)
			objects := codecs.DecoderToVersion(info.Serializer, schema.GroupVersion{Version: "v1"})
			b.Run(what+"/"+whose, func(b *testing.B) {
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
}
