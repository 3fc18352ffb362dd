package appmetrics

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
)

// keepNames returns what keeps all series of some names.
func keepNames(t testing.TB, names ...string) *Kept {
	t.Helper()
	var queries []*Query
	for _, n := range names {
		q, err := Compile(Definition{Name: n, Expression: selectorText(n, nil)})
		if err != nil {
			t.Fatal(err)
		}
		queries = append(queries, q)
	}
	return Keep(queries...)
}

// collected is what a parser says of a page.
type collected struct {
	kept    *Kept
	samples []string
	types   map[string]string
}

func (c *collected) family(name []byte, kind model.MetricType) {
	if c.kept.wantsFamily(name) {
		c.types[string(name)] = string(kind)
	}
}

func (c *collected) sample(_ []byte, v float64, read func(*labels.Labels)) error {
	var l labels.Labels
	read(&l)
	if c.kept.wantsSample([]byte(l.Get(model.MetricNameLabel))) {
		c.samples = append(c.samples, fmt.Sprintf("%s %x", l.String(), math.Float64bits(v)))
	}
	return nil
}

// compare parses a page as a whole and filtered, and compares what is kept. It reports whether the
// page is valid.
func compare(t *testing.T, f format, page []byte, k *Kept) bool {
	t.Helper()
	whole := &collected{kept: k, types: map[string]string{}}
	if parse(f, bytes.Clone(page), whole) != nil {
		if filtered, err := filter(nil, f, page, k); err == nil {
			_ = parse(f, filtered, &collected{kept: k, types: map[string]string{}}) // does not panic
		}
		return false
	}
	filtered, err := filter(nil, f, page, k)
	if err != nil {
		t.Fatalf("the page is valid, but: %v\n%q", err, page)
	}
	part := &collected{kept: k, types: map[string]string{}}
	if err := parse(f, filtered, part); err != nil {
		t.Fatalf("the page is valid, but its filtered part is not: %v\n%q\n%q", err, page, filtered)
	}
	if diff := cmp.Diff(whole.samples, part.samples); diff != "" {
		t.Fatalf("other series (-whole +filtered):\n%s\n%q\n%q", diff, page, filtered)
	}
	if diff := cmp.Diff(whole.types, part.types); diff != "" {
		t.Fatalf("other types (-whole +filtered):\n%s\n%q", diff, page)
	}
	return true
}

var trickyPages = []string{
	"x 1\ny 2\n",
	"x 1\ny 2", // no line break at the end
	"\n\n  x{a=\"1\"}  1 \n\t y\t2\n",
	"y{a=\"line\nx 5\n\"} 1\nx 2\n", // a line break within quotes
	"y{a=\"\\\"\"} 1\nx 2\n",        // an escaped quote
	"y{a=\"\\\\\"} 1\nx 2\n",        // an escaped backslash before the quote
	"y{a=\"}\",b=\"# {\"} 1\nx 2\n",
	"# x 1\n#x 2\n#\n# \nx 3\n",
	"# HELP x has \"one quote\n# HELP y y\nx 3\n",
	"# HELP y x 1\\nx 2\nx 3\n",
	"# TYPE x counter\nx 1\n# TYPE x_other gauge\nx_other 1\n",
	"# TYPE y histogram\nx_bucket{le=\"1\"} 1\nx{le=\"1\"} 1\n", // the type is carried over
	"# TYPE y histogram\ny_sum 1\n# TYPE z summary\nx{le=\"1\",quantile=\"1\"} 1\n",
	"# TYPE x histogram\nx_bucket{le=\"1\"} 1\nx_sum 1\nx_count 1\n",
	"{\"x\"} 1\n{\"x\",a=\"b\"} 2\n{a=\"b\",\"x\"} 3\n{a=\"b\", \"x\" , \"c.d\"=\"e\"} 4\n{\"y\",a=\"x\"} 5\n",
	"{\"y\",\"x\"=\"1\"} 1\n{ \"x\" , } 2\n",
	"{\"y\\\"\",a=\"b\"} 1\n{\"x.y\\\\\"} 1\nx 1\n",
	"# TYPE \"x.y\" counter\n{\"x.y\"} 1\n# TYPE \"a\nb\" gauge\nx 1\n",
	"x{a=\"1\",} 1\nx{} 2\nx {a=\"2\"} 3\n",
	"x 1 1600000000000\nx_total +Inf\nx NaN\nx -Inf\nx 1e400\n",
	"xx 1\nx 2\nx:y 3\n_x 4\n:x 5\nX 6\n",
	"é 1\nx 1\n",
	"y 1 2 3\nx 1\n",
	"y{a=\"b} 1\nx 1\n",
	"x{__name__=\"y\"} 1\ny{__name__=\"x\"} 2\n",
	"",
}

func TestFilterTrickyPages(t *testing.T) {
	for _, names := range [][]string{
		{"x"},
		{"x", "x_total", "x_sum", "x_count", "x_bucket"},
		{"x.y"},
		{"y"},
		{"nosuch"},
	} {
		valid := 0
		for _, p := range trickyPages {
			if compare(t, textFormat, []byte(p), keepNames(t, names...)) {
				valid++
			}
			compare(t, openMetrics, []byte(p+"# EOF\n"), keepNames(t, names...))
		}
		if valid < len(trickyPages)-5 {
			t.Errorf("%d of %d pages are valid, want all but five", valid, len(trickyPages))
		}
	}
}

// randomPage returns a page of a format with families of few names, so that many are wanted.
func randomPage(r *rand.Rand, f format) []byte {
	names := []string{"x", "x_total", "x_bucket", "x_sum", "x_count", "y", "y_total", "xx", "z", "x.y"}
	values := []string{"1", "a", "x 1", "\\n", "\\\"", "\\\\", "{", "}", "#", "# TYPE x gauge", "é", ""}
	if f == textFormat {
		values = append(values, "\n", "\nx 7\n", "\n# TYPE x counter\n")
	}
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	var b strings.Builder
	space := func() string {
		if f == textFormat && r.IntN(4) == 0 {
			return pick([]string{"", " ", "\t", "  "})
		}
		return ""
	}
	for range r.IntN(30) {
		name := pick(names)
		quoted := name == "x.y" || r.IntN(4) == 0
		switch r.IntN(8) {
		case 0:
			text := name
			if quoted {
				text = `"` + name + `"`
			}
			kind := pick([]string{"counter", "gauge", "histogram", "summary"})
			fmt.Fprintf(&b, "# TYPE %s %s\n", text, kind)
			continue
		case 1:
			text := name
			if quoted {
				text = `"` + name + `"`
			}
			fmt.Fprintf(&b, "# HELP %s %s\n", text, pick([]string{"a", "\"", "x 1", "é", "\\n"}))
			continue
		case 2:
			if f == textFormat {
				b.WriteString(pick([]string{"\n", "#\n", "# comment x 1\n", "#TYPE x counter\n", " \n", "# TYPES x\n"}))
			}
			continue
		}
		var parts []string
		for i := range r.IntN(3) {
			label := pick([]string{"a", "b", "le", "quantile", `"c.d"`, `"x"`}) + ""
			if i > 0 && strings.HasPrefix(parts[0], label+"=") {
				continue
			}
			parts = append(parts, label+"="+space()+`"`+pick(values)+`"`)
		}
		b.WriteString(space())
		if quoted {
			parts = slices.Insert(parts, r.IntN(len(parts)+1), `"`+name+`"`)
		} else {
			b.WriteString(name)
		}
		if len(parts) > 0 {
			b.WriteString(space() + "{" + space() + strings.Join(parts, space()+","+space()) + space() + "}")
		}
		fmt.Fprintf(&b, " %d", r.IntN(100))
		if r.IntN(5) == 0 {
			b.WriteString(" 1600000000")
		}
		if f == openMetrics && r.IntN(5) == 0 {
			b.WriteString(" # {a=\"x 1\"} 1")
		}
		b.WriteString("\n")
	}
	if f == openMetrics {
		b.WriteString("# EOF\n")
	}
	return []byte(b.String())
}

// TestFilterProperty checks that filtering before parsing keeps exactly the series that parsing the
// whole page and filtering afterwards keeps.
func TestFilterProperty(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	kept := []*Kept{
		keepNames(t, "x"), keepNames(t, "x_total", "x.y"), keepNames(t, "x_bucket", "x_sum", "x_count"),
		keepNames(t, "z"), keepNames(t, "nosuch"),
	}
	for _, f := range []format{textFormat, openMetrics} {
		valid := 0
		for range 4000 {
			page := randomPage(r, f)
			for _, k := range kept {
				if compare(t, f, page, k) {
					valid++
				}
			}
		}
		if valid < 10000 {
			t.Errorf("format %v: %d of 20,000 comparisons are of valid pages, want 10,000", f, valid)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, p := range trickyPages {
		f.Add([]byte(p), byte(textFormat))
		f.Add([]byte(p+"# EOF\n"), byte(openMetrics))
	}
	f.Add(protobufPage(f), byte(protobuf))
	k := keepNames(f, "x", "x_total", "x_bucket", "x.y")
	f.Fuzz(func(t *testing.T, page []byte, kind byte) {
		familyNames(format(kind%3), page) // ends, and does not panic
		if bytes.IndexByte(page, 0) >= 0 && kind%3 != byte(protobuf) {
			_, _ = filter(nil, format(kind%3), page, k) // the text parsers stop at a NUL in some places
			return
		}
		compare(t, format(kind%3), page, k)
	})
}

// FuzzRecord checks that a page means the same whatever page came before it: rows are found where they were on that
// page, and their labels are not parsed again.
func FuzzRecord(f *testing.F) {
	for i, p := range trickyPages {
		f.Add([]byte(trickyPages[(i+1)%len(trickyPages)]), []byte(p), "")
	}
	f.Add([]byte("x 1\nx{a=\"b\"} 2\n"), []byte("x{a=\"b\"} 3\nx 4\nx{pod=\"p\"} 5\n"), "text/plain")
	f.Add([]byte("# TYPE x counter\nx_total 1\n# EOF\n"), []byte("# TYPE x gauge\nx 2\n# EOF\n"),
		"application/openmetrics-text; version=1.0.0")
	f.Add([]byte("process_start_time_seconds 1\nx_total 5\n"), []byte("process_start_time_seconds 2\nx_total 1\n"), "")
	f.Add([]byte("y 1\nx 1\nx 1\n"), []byte("x 1\nx 1\n"), "")
	f.Add([]byte("x{a=\"1\",b=\"2\"} 1\nx{b=\"2\",a=\"1\"} 1\n"), []byte("x{b=\"2\",a=\"1\"} 1\n"), "")
	f.Add(protobufPage(f), protobufPage(f), "application/vnd.google.protobuf; "+
		"proto=io.prometheus.client.MetricFamily; encoding=delimited")
	k := keepNames(f, "x", "x_total", "x_bucket", "x.y")
	f.Fuzz(func(t *testing.T, first, second []byte, contentType string) {
		page := func(seconds float64, body []byte) Page {
			return Page{
				Namespace: "shop", Pod: "a", At: at(seconds), ContentType: contentType, Body: slices.Clone(body),
			}
		}
		record := func(s *Store) (now []string, err error) {
			err = s.Record("uid", k, page(15, second))
			for _, one := range s.targets["uid"].series {
				if err == nil && one.now() {
					now = append(now, fmt.Sprintf("%s %x", one.labels, math.Float64bits(one.last)))
				}
			}
			slices.Sort(now)
			return now, err
		}
		alone, after := New(Config{}), New(Config{})
		_ = after.Record("uid", k, page(0, first))
		want, wantErr := record(alone)
		got, err := record(after)
		if diff := cmp.Diff(want, got); diff != "" || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("%q after %q: %v, want %v (-alone +after)\n%s", second, first, err, wantErr, diff)
		}
	})
}

// protobufPage returns a page with a counter, a histogram and a summary, delimited.
func protobufPage(t testing.TB) []byte {
	t.Helper()
	families := []*dto.MetricFamily{
		{
			Name: new("y_total"), Type: dto.MetricType_COUNTER.Enum(),
			Metric: []*dto.Metric{{Counter: &dto.Counter{Value: new(1.0)}}},
		},
		{Name: new("x_total"), Type: dto.MetricType_COUNTER.Enum(), Metric: []*dto.Metric{{
			Label:   []*dto.LabelPair{{Name: new("a"), Value: new("b")}},
			Counter: &dto.Counter{Value: new(50.0)},
		}}},
		{Name: new("x"), Type: dto.MetricType_HISTOGRAM.Enum(), Metric: []*dto.Metric{{Histogram: &dto.Histogram{
			SampleCount: new(uint64(2)), SampleSum: new(3.0), Bucket: []*dto.Bucket{
				{UpperBound: new(1.0), CumulativeCount: new(uint64(1))},
				{UpperBound: new(math.Inf(1)), CumulativeCount: new(uint64(2))},
			},
		}}}},
		{Name: new("z"), Type: dto.MetricType_SUMMARY.Enum(), Metric: []*dto.Metric{{Summary: &dto.Summary{
			SampleCount: new(uint64(2)), SampleSum: new(3.0),
			Quantile: []*dto.Quantile{{Quantile: new(0.5), Value: new(1.0)}},
		}}}},
	}
	var page []byte
	for _, f := range families {
		m, err := proto.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		page = append(binary.AppendUvarint(page, uint64(len(m))), m...)
	}
	return page
}

func TestProtobuf(t *testing.T) {
	page := protobufPage(t)
	for _, names := range [][]string{{"x_total"}, {"x_bucket", "x_sum"}, {"x_count"}, {"z"}, {"z_sum"}, {"nosuch"}} {
		k := keepNames(t, names...)
		if !compare(t, protobuf, page, k) {
			t.Error("the page is not valid")
		}
		filtered, err := filter(nil, protobuf, page, k)
		if err != nil || len(filtered) >= len(page) {
			t.Errorf("%v: %d of %d bytes pass the filter (%v), want fewer", names, len(filtered), len(page), err)
		}
	}
	const contentType = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
	w := newWorld(t, Definition{Name: "x_total"})
	for i := range 2 {
		p := Page{Namespace: "shop", Pod: "a", At: at(15 * float64(i)), ContentType: contentType, Body: page}
		if err := w.store.Record("uid-a", w.kept, p); err != nil {
			t.Fatal(err)
		}
	}
	w.want(w.answer(16, "a"), "a=0")
	for _, bad := range [][]byte{page[:len(page)-1], {200}, {1, 255}} {
		err := w.store.Record("uid-a", w.kept, Page{Pod: "a", At: at(30), ContentType: contentType, Body: bad})
		if causeOf(err) != NotExposition {
			t.Errorf("%v: got %v, want that it is no exposition format", bad, err)
		}
	}
	err := w.store.Record("uid-a", w.kept, Page{
		Pod: "a", At: at(30),
		ContentType: "application/vnd.google.protobuf; encoding=text", Body: page,
	})
	if causeOf(err) != NotExposition {
		t.Errorf("protobuf as text: %v", err)
	}
}

func TestNotExposition(t *testing.T) {
	for _, tt := range []struct{ contentType, body, want string }{
		{"text/html", "<!doctype html><p>hi", `its page is HTML and not in an exposition format (its Content-Type ` +
			`is "text/html"): the path or the port is wrong`},
		{"", "\n <html>", "its page is HTML and not in an exposition format (its Content-Type is missing): the " +
			"path or the port is wrong"},
		{"application/json", `{"status": "ok"}`, `its page is not in an exposition format (its Content-Type is ` +
			`"application/json"): expected equal, got ":" ("INVALID") while parsing: "{\"status\":"`},
		{"application/json", `[1, 2]`, `its page is not in an exposition format (its Content-Type is ` +
			`"application/json"): ` + errNoLine.Error()},
		{"text/plain", "OK", `its page is not in an exposition format (its Content-Type is "text/plain"): expected ` +
			`value after metric, got "\n" ("INVALID") while parsing: "OK\n"`},
		{"text/plain", "404 page not found", `its page is not in an exposition format (its Content-Type is ` +
			`"text/plain"): ` + errNoLine.Error()},
		{"text/plain", "y 1\ny{a=\"b} 1\ndepth 1\n", `its page is not in an exposition format (its Content-Type is ` +
			`"text/plain"): ` + errUnterminated.Error()},
		{"application/openmetrics-text", "depth 1\n", `its page is not in an exposition format (its Content-Type ` +
			`is "application/openmetrics-text"): data does not end with # EOF`},
		{"text/plain", "depth x\n", `its page is not in an exposition format (its Content-Type is "text/plain"): ` +
			`strconv.ParseFloat: parsing "x": invalid syntax while parsing: "depth x"`},
	} {
		w := newWorld(t, Definition{Name: "depth"})
		err := w.store.Record("uid-a", w.kept, Page{
			Pod: "a", At: at(0), ContentType: tt.contentType,
			Body: []byte(tt.body),
		})
		if causeOf(err) != NotExposition || err.Error() != tt.want {
			t.Errorf("%q:\ngot  %v\nwant %s", tt.body, err, tt.want)
		}
	}
	// A correct page with a wrong type is taken as what it is.
	w := newWorld(t, Definition{Name: "depth"})
	if err := w.store.Record("uid-a", w.kept, Page{
		Pod: "a", At: at(0),
		ContentType: "application/octet-stream", Body: []byte("depth 1\n"),
	}); err != nil {
		t.Error(err)
	}
}

func TestFamilyNames(t *testing.T) {
	page := "# HELP x_total x\n# TYPE x_total counter\nx_total 1\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} " +
		"1\nh_sum 1\nh_count 1\n{\"a.b\",c=\"d\"} 1\ny 2"
	want := []string{"a.b", "h", "x_total", "y"}
	if got := familyNames(textFormat, []byte(page)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := familyNames(protobuf, protobufPage(t)), []string{
		"x", "x_total", "y_total",
		"z",
	}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
