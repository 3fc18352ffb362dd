package apiserver

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// query is a request for a resource.
type query struct {
	*collection
	namespace, name string
	as              form

	labels   labels.Selector
	fields   fields.Selector
	version  string // resourceVersion
	watch    bool
	initial  bool // sendInitialEvents
	bookmark bool // allowWatchBookmarks
	timeout  time.Duration
}

// form is the encoding of an object. The zero value is JSON of the whole object.
type form struct {
	protobuf bool
	partial  bool // PartialObjectMetadata
	stream   bool // a watch
}

const protobufType = "application/vnd.kubernetes.protobuf"

func (f form) contentType() string {
	if !f.protobuf {
		return "application/json"
	}
	if f.stream {
		return protobufType + ";stream=watch"
	}
	return protobufType
}

// accepted returns the first supported form in an Accept header.
func accepted(header string) (form, error) {
	if header == "" {
		return form{}, nil
	}
	for clause := range strings.SplitSeq(header, ",") {
		kind, rest, _ := strings.Cut(clause, ";")
		var f form
		switch strings.TrimSpace(kind) {
		case "application/json", "*/*", "application/*":
		case protobufType:
			f.protobuf = true
		default:
			continue
		}
		known := true
		for param := range strings.SplitSeq(rest, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
			if key != "as" {
				continue
			}
			f.partial = value == "PartialObjectMetadata" || value == "PartialObjectMetadataList"
			known = f.partial
		}
		if known {
			return f, nil
		}
	}
	return form{}, fmt.Errorf("none of %q is served, only JSON and protobuf, and PartialObjectMetadata of both", header)
}

// options reads the parameters of a request.
func (q *query) options(v url.Values) error {
	var err error
	if q.labels, err = labels.Parse(v.Get("labelSelector")); err != nil {
		return err
	}
	if q.fields, err = fields.ParseSelector(v.Get("fieldSelector")); err != nil {
		return err
	}
	for _, r := range q.fields.Requirements() {
		if !q.collection.selectable[r.Field] {
			return fmt.Errorf("field label not supported: %s", r.Field)
		}
	}
	if text := v.Get("timeoutSeconds"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("timeoutSeconds: %w", err)
		}
		q.timeout = time.Duration(n) * time.Second
	}
	q.version = v.Get("resourceVersion")
	on := func(name string) bool { return v.Get(name) == "true" || v.Get(name) == "1" }
	q.watch, q.initial, q.bookmark = on("watch"), on("sendInitialEvents"), on("allowWatchBookmarks")
	q.as.stream = q.watch
	if q.initial && (!q.watch || v.Get("resourceVersionMatch") != "NotOlderThan") {
		return fmt.Errorf("sendInitialEvents is for watches with resourceVersionMatch=NotOlderThan")
	}
	return nil
}

// everything reports whether q selects all objects.
func (q *query) everything() bool { return q.labels.Empty() && q.fields.Empty() }

// selects reports whether q selects o.
func (q *query) selects(o any) bool {
	if q.namespace != "" && q.collection.inNamespace(o) != q.namespace {
		return false
	}
	return (q.labels.Empty() || q.labels.Matches(labels.Set(q.collection.labelsOf(o)))) &&
		(q.fields.Empty() || q.fields.Matches(q.collection.fieldsOf(o)))
}
