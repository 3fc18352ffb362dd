package resource

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/metrics/pkg/apis/metrics"

	"metrics-server/pkg/api/wire"
	"metrics-server/pkg/sample"
)

// columns are the columns that nodes and pods have in common, also used for empty lists. The
// columns that kubectl get shows without -o wide match those of kubernetes-sigs/metrics-server in
// order and units, because scripts parse them.
var columns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
	{
		Name: "cpu", Type: "string", Format: "quantity",
		Description: "CPU usage, averaged over the window; of a pod, the sum over its containers.",
	},
	{
		Name: "memory", Type: "string", Format: "quantity",
		Description: "Working set at the end of the window; of a pod, the sum over its containers.",
	},
	{
		Name: "Window", Type: "string", Format: "duration",
		Description: "The time over which the CPU usage was measured; it ends at the timestamp.",
	},
	{Name: "Age", Type: "string", Priority: 1, Description: "How long ago the timestamp is, by this server's clock."},
}

// scrapeColumns are the additional columns of nodes, shown by kubectl get -o wide.
var scrapeColumns = []metav1.TableColumnDefinition{
	{Name: "Scraped", Type: "string", Priority: 1, Description: "How long ago the node's kubelet last answered."},
	{Name: "Duration", Type: "string", Priority: 1, Description: "How long the last scrape of the node took."},
	{
		Name: "Error", Type: "string", Priority: 1,
		Description: "Why the last scrape of the node failed, or what its answer lacks, and what can be done.",
	},
}

// unknown is the value of a cell that is not known.
const unknown = "<unknown>"

// cells holds the common cells of a row except the name. CPU and memory are quantities, as in the
// objects.
type cells struct {
	known            bool // there is a usage; otherwise all other fields are zero
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

// row returns the cells of a row, followed by more.
func (c *cells) row(name string, now time.Time, more []string) []any {
	row := []any{name, unknown, unknown, unknown, unknown}
	if c.known {
		row = []any{
			name,
			string(appendCPU(nil, uint64(c.nanocores))),
			string(appendBytes(nil, uint64(c.bytes))),
			c.window.String(),
			age(c.at, now),
		}
	}
	for _, cell := range more {
		row = append(row, cell)
	}
	return row
}

// append appends the result of row, encoded as JSON.
func (c *cells) append(b []byte, name string, now time.Time, more []string) []byte {
	b = append(b, '[')
	b = wire.AppendString(b, name)
	if c.known {
		b = append(b, `,"`...)
		b = appendCPU(b, uint64(c.nanocores))
		b = append(b, `","`...)
		b = appendBytes(b, uint64(c.bytes))
		b = append(b, `","`...)
		b = appendWindow(b, c.window)
		b = append(b, `",`...)
		b = appendAge(b, c.at, now)
	} else {
		for range columns[1:] {
			b = wire.AppendString(append(b, ','), unknown)
		}
	}
	for _, cell := range more {
		b = wire.AppendString(append(b, ','), cell)
	}
	return append(b, ']')
}

// age returns the time since t in the format of kubectl.
func age(t, now time.Time) string {
	if t.IsZero() {
		return unknown
	}
	return duration.HumanDuration(now.Sub(t))
}

// appendAge appends the result of age as a JSON string.
func appendAge(b []byte, t, now time.Time) []byte {
	d := now.Sub(t)
	if t.IsZero() || d < 0 || d >= 2*time.Minute {
		return wire.AppendString(b, age(t, now))
	}
	b = strconv.AppendInt(append(b, '"'), int64(d/time.Second), 10) // the common case; HumanDuration would allocate
	return append(b, 's', '"')
}

// Columns implements api.ItemEncoder.
func (pods) Columns() []metav1.TableColumnDefinition { return columns }

// Columns implements api.ItemEncoder.
func (nodes) Columns() []metav1.TableColumnDefinition { return slices.Concat(columns, scrapeColumns) }

// scrapeCells returns the cells of scrapeColumns.
func (n nodes) scrapeCells(name string, now time.Time) []string {
	s := n.Scrape(name)
	scraped := "<never>"
	if !s.Success.IsZero() {
		scraped = age(s.Success, now)
	}
	return []string{scraped, s.Duration.Round(time.Millisecond).String(), cmp.Or(s.Err, s.Lacks, "<none>")}
}

// AppendCells implements api.ItemEncoder.
func (n nodes) AppendCells(b []byte, o *sample.Object, u *sample.PodUsage, now time.Time) []byte {
	c := cellsOf(u)
	return c.append(b, o.Name, now, n.scrapeCells(o.Name, now))
}

// AppendCells implements api.ItemEncoder.
func (pods) AppendCells(b []byte, o *sample.Object, u *sample.PodUsage, now time.Time) []byte {
	c := cellsOf(u)
	return c.append(b, o.Name, now, nil)
}

// Cells implements api.Resource.
func (n nodes) Cells(of *metrics.NodeMetrics, now time.Time) []any {
	c := cells{known: len(of.Usage) > 0, at: of.Timestamp.Time, window: of.Window.Duration}
	c.add(of.Usage)
	return c.row(of.Name, now, n.scrapeCells(of.Name, now))
}

// Cells implements api.Resource.
func (pods) Cells(of *metrics.PodMetrics, now time.Time) []any {
	c := cells{known: len(of.Containers) > 0, at: of.Timestamp.Time, window: of.Window.Duration}
	for i := range of.Containers {
		c.add(of.Containers[i].Usage)
	}
	return c.row(of.Name, now, nil)
}
