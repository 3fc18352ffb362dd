package api

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"metrics-server/pkg/sample"
)

// columns are those that nodes and pods have, and a list that is empty.
var columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
	{Name: "CPU", Type: "string", Description: "CPU usage in millicores, averaged over the window; of a pod, the sum over its containers."},
	{Name: "Memory", Type: "string", Description: "Working set in MiB at the end of the window; of a pod, the sum over its containers."},
	{Name: "Window", Type: "string", Description: "The time over which the CPU usage was measured; it ends at the timestamp."},
	{Name: "Age", Type: "string", Description: "How long ago the timestamp is, by this server's clock."},
}

// scrapeColumns are what nodes have beside, shown by kubectl get -o wide.
var scrapeColumns = []metav1.TableColumnDefinition{
	{Name: "Scraped", Type: "string", Priority: 1, Description: "How long ago the node's kubelet last answered."},
	{Name: "Duration", Type: "string", Priority: 1, Description: "How long the last scrape of the node took."},
	{Name: "Error", Type: "string", Priority: 1, Description: "Why the last scrape of the node failed, or what its answer lacks, and what can be done."},
}

// unknown is in the cells of what is not known.
const unknown = "<unknown>"

// cells is what a row of a Table says beside the name. CPU and memory are shown in the units and
// with the rounding of kubectl top, so that the two commands agree. kubectl sorts by the objects,
// not by the cells, so nothing is lost by it.
type cells struct {
	known            bool // there is a usage
	nanocores, bytes int64
	window           time.Duration
	at               time.Time
}

func (c *cells) add(usage corev1.ResourceList) {
	c.nanocores += usage.Cpu().ScaledValue(resource.Nano)
	c.bytes += usage.Memory().Value()
}

func cellsOf(u *sample.PodUsage) cells {
	if len(u.Containers) == 0 {
		return cells{}
	}
	c := cells{known: true, window: u.Window, at: u.Time.Std()}
	for i := range u.Containers {
		c.nanocores += signed(u.Containers[i].CPU)
		c.bytes += signed(u.Containers[i].Memory)
	}
	return c
}

// row is the cells of a row, with more at the end.
func (c *cells) row(name string, now time.Time, more []string) []any {
	row := []any{name, unknown, unknown, unknown, unknown}
	if c.known {
		row = []any{
			name,
			strconv.FormatInt(c.millicores(), 10) + "m",
			strconv.FormatInt(c.mebibytes(), 10) + "Mi",
			c.window.String(),
			age(c.at, now),
		}
	}
	for _, cell := range more {
		row = append(row, cell)
	}
	return row
}

// append appends what row returns, as JSON.
func (c *cells) append(b []byte, name string, now time.Time, more []string) []byte {
	b = append(b, '[')
	b = appendString(b, name)
	if c.known {
		b = append(b, `,"`...)
		b = strconv.AppendInt(b, c.millicores(), 10)
		b = append(b, `m","`...)
		b = strconv.AppendInt(b, c.mebibytes(), 10)
		b = append(b, `Mi","`...)
		b = appendWindow(b, c.window)
		b = append(b, `",`...)
		b = appendAge(b, c.at, now)
	} else {
		for range columns[1:] {
			b = appendString(append(b, ','), unknown)
		}
	}
	for _, cell := range more {
		b = appendString(append(b, ','), cell)
	}
	return append(b, ']')
}

func (c *cells) millicores() int64 { return (c.nanocores + 999_999) / 1_000_000 }
func (c *cells) mebibytes() int64  { return c.bytes >> 20 }

// age is how long before now t was, as kubectl shows ages.
func age(t, now time.Time) string {
	if t.IsZero() {
		return unknown
	}
	return duration.HumanDuration(now.Sub(t))
}

// appendAge appends age's string as JSON.
func appendAge(b []byte, t, now time.Time) []byte {
	d := now.Sub(t)
	if t.IsZero() || d < 0 || d >= 2*time.Minute {
		return appendString(b, age(t, now))
	}
	b = strconv.AppendInt(append(b, '"'), int64(d/time.Second), 10) // the usual one: HumanDuration would allocate
	return append(b, 's', '"')
}

func (pods) moreColumns() []metav1.TableColumnDefinition  { return nil }
func (pods) moreCells(string, time.Time) []string         { return nil }
func (nodes) moreColumns() []metav1.TableColumnDefinition { return scrapeColumns }

func (n nodes) moreCells(name string, now time.Time) []string {
	s := n.Scrape(name)
	scraped := "<never>"
	if !s.Success.IsZero() {
		scraped = age(s.Success, now)
	}
	return []string{scraped, s.Duration.Round(time.Millisecond).String(), cmp.Or(s.Err, s.Lacks, "<none>")}
}

// ConvertToTable implements rest.TableConvertor for an object and for a list of this storage.
func (s *storage[T, P]) ConvertToTable(_ context.Context, obj, _ runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{ColumnDefinitions: slices.Concat(columns, s.moreColumns())}
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
	c, name, now := s.cells(item), item.GetName(), time.Now()
	return metav1.TableRow{Cells: c.row(name, now, s.moreCells(name, now)), Object: runtime.RawExtension{Object: item}}
}

// writeTable writes the list as a Table. apiVersion is that of its objects. Nodes without usage have a row too: whoever looks for
// one that is missing finds it, and why. In an encoding that is not written here they are left out.
func (l *lazyList) writeTable(w io.Writer, apiVersion string) error {
	definitions, err := json.Marshal(slices.Concat(columns, l.moreColumns()))
	if err != nil {
		return err
	}
	b := appendTypeMeta(newBuffer(), "Table", l.form.table)
	b = append(b, `"metadata":{},"columnDefinitions":`...)
	b = append(b, definitions...)
	b = append(b, `,"rows":[`...)

	e := jsonEncoder{shape: l.shape}
	return l.writeItems(w, b, func(b []byte, o *sample.Object, u *sample.PodUsage) []byte {
		c, now := cellsOf(u), time.Now()
		b = append(b, `{"cells":`...)
		b = c.append(b, o.Name, now, l.moreCells(o.Name, now))
		b = append(b, `,"object":`...)
		switch {
		case l.form.include == metav1.IncludeNone:
			return append(b, "null}"...)
		case l.form.include == metav1.IncludeObject && c.known:
			b = appendTypeMeta(b, l.kindName(), apiVersion)
			b = e.appendFields(b, o, u)
		default:
			b = appendTypeMeta(b, "PartialObjectMetadata", l.form.table)
			b = e.appendMetadata(b, o, c.at)
		}
		return append(b, "}}"...)
	})
}
