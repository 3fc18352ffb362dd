package apiserver

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// list serves a list. Like an API server's watch cache, it ignores the limit.
func (s *Server) list(w http.ResponseWriter, q query) {
	objects, version := q.collection.snapshot(q.namespace)
	if !q.everything() {
		objects = q.filter(objects)
	}
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatUint(version, 10)}
	w.Header().Set("Content-Type", q.as.contentType())
	out := bufio.NewWriterSize(w, 64<<10)
	defer out.Flush() // an error means that the client is gone
	if q.as.protobuf {
		q.listProtobuf(out, &meta, objects)
	} else {
		q.listJSON(out, &meta, objects)
	}
}

func (q *query) filter(objects []any) []any {
	var out []any
	for _, o := range objects {
		if q.selects(o) {
			out = append(out, o)
		}
	}
	return out
}

func (q *query) listKind() (apiVersion, kind string) {
	if q.as.partial {
		return "meta.k8s.io/v1", "PartialObjectMetadataList"
	}
	return q.collection.version, q.collection.kind + "List"
}

// listProtobuf makes each object twice, the first time for its size, so that no list is ever in
// memory.
func (q *query) listProtobuf(out *bufio.Writer, meta *metav1.ListMeta, objects []any) {
	size := field(meta.Size())
	for _, o := range objects {
		size += field(q.item(o).Size())
	}
	apiVersion, kind := q.listKind()
	buf := append([]byte(nil), magic...)
	buf = appendUnknown(buf, apiVersion, kind, size)
	buf = appendField(buf, 1, meta)
	for _, o := range objects {
		buf = appendField(buf, 2, q.item(o))
		if _, err := out.Write(buf); err != nil {
			return
		}
		buf = buf[:0]
	}
	_, _ = out.Write(buf)
}

// field is the size of a field of a message that has size bytes.
func field(size int) int {
	return 1 + len(binary.AppendUvarint(make([]byte, 0, 10), uint64(size))) + size
}

func appendField(dst []byte, number byte, m message) []byte {
	dst = append(dst, number<<3|2)
	dst = binary.AppendUvarint(dst, uint64(m.Size()))
	return appendMessage(dst, m)
}

func (q *query) listJSON(out *bufio.Writer, meta *metav1.ListMeta, objects []any) {
	apiVersion, kind := q.listKind()
	m, err := json.Marshal(meta)
	must(err)
	fmt.Fprintf(out, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, kind, apiVersion, m)
	var buf []byte
	for i, o := range objects {
		buf = buf[:0]
		if i > 0 {
			buf = append(buf, ',')
		}
		if q.as.partial {
			buf = q.encode(buf, o) // in these, each item says its kind
		} else {
			buf = appendJSON(buf, "", "", q.item(o))
		}
		if _, err := out.Write(buf); err != nil {
			return
		}
	}
	_, _ = out.WriteString("]}\n")
}
