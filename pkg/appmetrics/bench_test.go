package appmetrics

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/fairshare"
	"metrics-server/pkg/sharedtest"
)

// typicalPage returns a page of about 30 KB as a Go application has it, with one counter of 6 series
// that grows with n.
func typicalPage(n int) []byte {
	var b strings.Builder
	family := func(name, kind string) {
		fmt.Fprintf(&b, "# HELP %s This text describes what the family %s counts or measures.\n# TYPE %s %s\n",
			name, name, name, kind)
	}
	for i := range 40 {
		name := fmt.Sprintf("go_memstats_example_%d_bytes", i)
		family(name, "gauge")
		fmt.Fprintf(&b, "%s %d\n", name, 1000000+n*i)
	}
	family("http_requests_total", "counter")
	for _, code := range []string{"200", "404", "500"} {
		for _, method := range []string{"get", "post"} {
			fmt.Fprintf(&b, "http_requests_total{code=%q,handler=\"/api/v1/items\",method=%q} %d\n", code, method, 1000+30*n)
		}
	}
	for i := range 12 {
		name := fmt.Sprintf("http_request_duration_%d_seconds", i)
		family(name, "histogram")
		for _, le := range []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"} {
			fmt.Fprintf(&b, "%s_bucket{code=\"200\",handler=\"/api/v1/items\",le=%q} %d\n", name, le, n*10)
		}
		fmt.Fprintf(&b, "%s_sum{code=\"200\",handler=\"/api/v1/items\"} "+
			"%d.5\n%s_count{code=\"200\",handler=\"/api/v1/items\"} %d\n", name, n, name, n*10)
	}
	b.WriteString("# HELP process_start_time_seconds x\n# TYPE process_start_time_seconds " +
		"gauge\nprocess_start_time_seconds 1.7e+09\n")
	return []byte(b.String())
}

func compileB(b testing.TB, d Definition) *Query {
	b.Helper()
	q, err := Compile(d)
	if err != nil {
		b.Fatal(err)
	}
	return q
}

func BenchmarkRecord(b *testing.B) {
	for name, d := range map[string]Definition{
		"one counter": {Name: "http_requests_total"},
		"one histogram": {Name: "http_request_duration_3_seconds", Selector: []Requirement{{
			"quantile", In,
			[]string{"0.99"},
		}}},
		"missing": {Name: "http_requests_sent"},
	} {
		b.Run(name, func(b *testing.B) {
			k := Keep(compileB(b, d))
			s := New(Config{})
			page := typicalPage(1)
			b.SetBytes(int64(len(page)))
			b.ReportAllocs()
			at := time.Now()
			for b.Loop() {
				at = at.Add(15 * time.Second)
				if err := s.Record("u", k, Page{Namespace: "n", Pod: "p", At: at, Body: page}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParseWhole is what Record would cost at least without the filter.
func BenchmarkParseWhole(b *testing.B) {
	page := typicalPage(1)
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	for b.Loop() {
		p := newParser(textFormat, page)
		for {
			if _, err := p.Next(); err != nil {
				break
			}
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	for name, d := range map[string]Definition{
		"default": {Name: "http_requests_total"},
		"share": {Name: "share", Expression: "sum by (pod) (rate(http_requests_total{code=~\"5..\"}[1m])) / " +
			"sum by (pod) (rate(http_requests_total[1m]))"},
	} {
		for _, count := range []int{50, 500} {
			b.Run(fmt.Sprintf("%s of %d pods", name, count), func(b *testing.B) {
				q := compileB(b, d)
				k := Keep(q)
				s := New(Config{})
				var pods []Pod
				for i := range count {
					p := Pod{UID: fmt.Sprint(i), Name: fmt.Sprintf("php-apache-5c7d9b7c9d-%05d", i)}
					pods = append(pods, p)
					for j := range 10 {
						at := at(15*float64(j) + 12.5*float64(i)/float64(count))
						if err := s.Record(p.UID, k, Page{Namespace: "shop", Pod: p.Name, At: at, Body: typicalPage(j)}); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					if a := s.Evaluate(b.Context(), q, pods, at(150)); len(a.Values) != count {
						b.Fatal(a.Err())
					}
				}
			})
		}
	}
}

// TestRecordAllocations checks that a page like the last one costs no more than its parser.
func TestRecordAllocations(t *testing.T) {
	s := New(Config{})
	k := Keep(compileB(t, Definition{Name: "http_requests_total"}))
	page := typicalPage(1)
	now := at(0)
	record := func() {
		now = now.Add(15 * time.Second)
		if err := s.Record("u", k, Page{Namespace: "n", Pod: "p", At: now, Body: page}); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		record()
	}
	// 9 for the parser, its lexer and their buffers. The race detector makes sync.Pool drop a quarter of
	// what is put into it, which is 3 more; an allocation for each kept series would be 7 more.
	if n := testing.AllocsPerRun(200, record); n > 14 {
		t.Errorf("Record of a page like the last one makes %v allocations", n)
	}
}

// TestMemory checks what a pod takes.
func TestMemory(t *testing.T) {
	const pods = 2000
	fill := func(s *Store, k *Kept, page func(int) []byte) {
		for j := range 10 {
			body := page(j)
			for i := range pods {
				name := fmt.Sprintf("php-apache-5c7d9b7c9d-%05d", i)
				p := Page{Namespace: "shop", Pod: name, At: at(15 * float64(j)), Body: body}
				if err := s.Record("uid-"+name, k, p); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, tt := range []struct {
		name string
		page func(int) []byte
		most int64
	}{
		{"six series", typicalPage, 3200},
		{"no series", func(int) []byte { return []byte("other 1\n") }, 900},
	} {
		k := Keep(compileB(t, Definition{Name: "http_requests_total"}))
		memory := fairshare.New(3, fairshare.Fixed(1<<30))
		s := New(Config{Memory: memory})
		before := sharedtest.Heap()
		fill(s, k, tt.page)
		after := sharedtest.Heap()
		each := (after - before) / pods
		runtime.KeepAlive(s)
		t.Logf("%s: %d bytes for each pod", tt.name, each)
		counted, _ := memory.Taken()
		if counted /= pods; counted < each*3/4 || counted > each*3/2 {
			t.Errorf("%s: %d bytes are counted for a pod that takes %d, want three quarters to one and a half",
				tt.name, counted, each)
		}
		if each > tt.most {
			t.Errorf("%s: a pod takes %d bytes, want at most %d", tt.name, each, tt.most)
		}
	}
}
