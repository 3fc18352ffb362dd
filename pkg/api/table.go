package api

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"metrics-server/pkg/sample"
)

// columns are the same for nodes and pods, and for a list that is empty.
var columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
	{Name: "CPU", Type: "string", Description: "CPU usage in millicores, averaged over the window; of a pod, the sum over its containers."},
	{Name: "Memory", Type: "string", Description: "Working set in MiB at the end of the window; of a pod, the sum over its containers."},
	{Name: "Window", Type: "string", Description: "The time over which the CPU usage was measured; it ends at the timestamp."},
}

// cells is what a row of a Table says beside the name. CPU and memory are shown in the units and
// with the rounding of kubectl top, so that the two commands agree. kubectl sorts by the objects,
// not by the cells, so nothing is lost by it.
type cells struct {
	nanocores, bytes int64
	window           time.Duration
}

func (c *cells) add(usage corev1.ResourceList) {
	c.nanocores += usage.Cpu().ScaledValue(resource.Nano)
	c.bytes += usage.Memory().Value()
}

func (c *cells) millicores() int64 { return (c.nanocores + 999_999) / 1_000_000 }
func (c *cells) mebibytes() int64  { return c.bytes >> 20 }

func (c *cells) row(name string) []any {
	return []any{
		name,
		strconv.FormatInt(c.millicores(), 10) + "m",
		strconv.FormatInt(c.mebibytes(), 10) + "Mi",
		c.window.String(),
	}
}

// ConvertToTable implements rest.TableConvertor for an object and for a list of this storage.
func (s *storage[T, P]) ConvertToTable(_ context.Context, obj, _ runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{ColumnDefinitions: columns}
	if item, ok := obj.(P); ok {
		table.Rows = []metav1.TableRow{s.row(item)}
		return table, nil
	}
	items := s.items(obj)
	table.Rows = make([]metav1.TableRow, len(items))
	for i := range items {
		table.Rows[i] = s.row(&items[i])
	}
	return table, nil
}

func (s *storage[T, P]) row(item P) metav1.TableRow {
	c := s.cells(item)
	return metav1.TableRow{Cells: c.row(item.GetName()), Object: runtime.RawExtension{Object: item}}
}

// writeTable writes the list as a Table. apiVersion is that of its objects.
func (l *lazyList) writeTable(w io.Writer, apiVersion string) error {
	definitions, err := json.Marshal(columns)
	if err != nil {
		return err
	}
	b := appendTypeMeta(newBuffer(), "Table", l.form.table)
	b = append(b, `"metadata":{},"columnDefinitions":`...)
	b = append(b, definitions...)
	b = append(b, `,"rows":[`...)

	e := jsonEncoder{shape: l.shape}
	return l.writeItems(w, b, func(b []byte, o *sample.Object, u *sample.PodUsage) []byte {
		b = appendCells(b, o.Name, u)
		b = append(b, `,"object":`...)
		switch l.form.include {
		case metav1.IncludeNone:
			return append(b, "null}"...)
		case metav1.IncludeObject:
			b = appendTypeMeta(b, l.kindName(), apiVersion)
			b = e.appendFields(b, o, u)
		default:
			b = appendTypeMeta(b, "PartialObjectMetadata", l.form.table)
			b = e.appendMetadata(b, o, u.Time.Std())
		}
		return append(b, "}}"...)
	})
}

// appendCells appends the beginning of a row: what cells.row has.
func appendCells(b []byte, name string, u *sample.PodUsage) []byte {
	var c cells
	for i := range u.Containers {
		c.nanocores += signed(u.Containers[i].CPU)
		c.bytes += signed(u.Containers[i].Memory)
	}
	b = append(b, `{"cells":[`...)
	b = appendString(b, name)
	b = append(b, `,"`...)
	b = strconv.AppendInt(b, c.millicores(), 10)
	b = append(b, `m","`...)
	b = strconv.AppendInt(b, c.mebibytes(), 10)
	b = append(b, `Mi","`...)
	b = appendWindow(b, u.Window)
	return append(b, `"]`...)
}
