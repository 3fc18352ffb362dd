package apiserver

import (
	"encoding/json"
	"testing"
)

func TestAccepted(t *testing.T) {
	for header, want := range map[string]form{
		"":                      {},
		"*/*":                   {},
		"application/json, */*": {},
		"application/vnd.kubernetes.protobuf,application/json":                                                                                     {protobuf: true},
		"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json":                                     {protobuf: true, partial: true},
		"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1":                                                                             {partial: true},
		"application/json;as=Table;v=v1;g=meta.k8s.io,application/json":                                                                            {},
		"application/cbor,application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/vnd.kubernetes.protobuf;type=whatever, */* ": {protobuf: true},
	} {
		if got, err := accepted(header); err != nil || got != want {
			t.Errorf("%q: %+v, %v", header, got, err)
		}
	}
	if got, err := accepted("application/cbor, text/html"); err == nil {
		t.Errorf("%+v, which nobody asked for", got)
	}
}

func TestFieldsV1(t *testing.T) {
	got := fieldsV1("metadata{labels{.,app},ownerReferences{.,k:uid{.,x}}},spec{a,b{c}}").GetRawBytes()
	var m map[string]any
	if err := json.Unmarshal(got, &m); err != nil {
		t.Fatal(err)
	}
	const want = `{"f:metadata":{"f:labels":{".":{},"f:app":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"value-1\"}":{".":{},"f:x":{}}}},"f:spec":{"f:a":{},"f:b":{"f:c":{}}}}`
	if string(got) != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}
