package api

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"metrics-server/pkg/sample"
)

// ConvertToTable implements rest.TableConvertor for an object and for a list of this storage.
func (s *Storage[T, V, P]) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{ColumnDefinitions: s.Columns()}
	if o, ok := options.(*metav1.TableOptions); ok && o.NoHeaders {
		table.ColumnDefinitions = nil
	}
	if item, ok := obj.(P); ok {
		table.Rows = []metav1.TableRow{s.row(item)}
		table.ResourceVersion = item.GetResourceVersion()
		return table, nil
	}
	if m, err := meta.ListAccessor(obj); err == nil {
		table.ResourceVersion = m.GetResourceVersion()
	}
	items := s.Items(obj)
	table.Rows = make([]metav1.TableRow, len(items))
	for i := range items {
		table.Rows[i] = s.row(&items[i])
	}
	return table, nil
}

func (s *Storage[T, V, P]) row(item P) metav1.TableRow {
	return metav1.TableRow{Cells: s.Cells(item, time.Now()), Object: runtime.RawExtension{Object: item}}
}

// writeTable writes the list as a Table of objects in apiVersion. Cluster-scoped objects without a
// value get a row too, which shows why it is missing; Tables in other encodings, which the generic
// server writes, omit them.
func (l *lazyList[V]) writeTable(w io.Writer, apiVersion string) error {
	definitions, err := json.Marshal(l.Columns())
	if err != nil {
		return err
	}
	b := appendTypeMeta(newBuffer(), "Table", l.output.table)
	b = append(appendListMeta(b, l.revision), `"columnDefinitions":`...)
	b = append(b, definitions...)
	b = append(b, `,"rows":[`...)

	e := jsonEncoder[V]{ItemEncoder: l.ItemEncoder}
	return l.writeItems(w, b, func(b []byte, o *sample.Object, v *V) []byte {
		var created time.Time
		var r sample.Revision
		if l.Exists(v) {
			created, r = l.Time(v), max(o.Changed, l.Revision(v))
		}
		b = append(b, `{"cells":`...)
		b = l.AppendCells(b, o, v, time.Now())
		b = append(b, `,"object":`...)
		switch {
		case l.output.include == metav1.IncludeNone:
			return append(b, "null}"...)
		case l.output.include == metav1.IncludeObject && l.Exists(v):
			b = appendTypeMeta(b, l.Kind(), apiVersion)
			b = e.appendFields(b, o, v, r)
		default:
			b = appendTypeMeta(b, "PartialObjectMetadata", l.output.table)
			b = e.appendMetadata(b, o, created, r)
		}
		return append(b, "}}"...)
	})
}
