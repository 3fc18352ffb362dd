package apiserver

import (
	"encoding/json"
	"testing"
)

func TestAccepted(t *testing.T) {
	const (
		json     = "application/json"
		protobuf = "application/vnd.kubernetes.protobuf"
		v1       = ";g=meta.k8s.io;v=v1"
	)
	metadata, table := ";as=PartialObjectMetadata"+v1, ";as=Table"+v1
	for header, want := range map[string]form{
		"":                        {},
		"*/*":                     {},
		json + ", */*":            {},
		protobuf + "," + json:     {protobuf: true},
		json + metadata:           {partial: true},
		json + table + "," + json: {},
		"application/cbor," + protobuf + table + "," + protobuf + ";type=whatever, */* ": {protobuf: true},
		protobuf + ";as=PartialObjectMetadataList" + v1 + "," + json:                     {protobuf: true, partial: true},
		json + ";as=Table;v=v1;g=meta.k8s.io," + json:                                    {},
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
	const want = `{"f:metadata":{"f:labels":{".":{},"f:app":{}},` +
		`"f:ownerReferences":{".":{},"k:{\"uid\":\"value-1\"}":{".":{},"f:x":{}}}},"f:spec":{"f:a":{},"f:b":{"f:c":{}}}}`
	if string(got) != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}
