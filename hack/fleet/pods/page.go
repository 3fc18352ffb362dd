package pods

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Page appends the page of a pod at a time: its own families among the families that all pods
// share.
func (s *Spec) Page(dst []byte, shared *Shared, at time.Time) []byte {
	dst = append(dst, shared.before...)
	dst = s.own(dst, at)
	return append(dst, shared.after...)
}

// series is one series of the counter, with its fraction of all requests.
type series struct {
	labels string
	share  float64
}

var (
	requests = []series{
		{`code="200",handler="/api/items",method="GET"`, 0.4},
		{`code="200",handler="/api/items",method="POST"`, 0.1},
		{`code="200",handler="/api/search",method="GET"`, 0.2},
		{`code="200",handler="/healthz",method="GET"`, 0.1},
		{`code="304",handler="/api/items",method="GET"`, 0.1},
		{`code="404",handler="/api/items",method="GET"`, 0.06},
		{`code="500",handler="/api/search",method="GET"`, 0.04},
	}
	queues   = []series{{`queue="default"`, 0.5}, {`queue="mail"`, 0.3}, {`queue="thumbnails"`, 0.2}}
	handlers = []series{{`handler="/api/items"`, 0.6}, {`handler="/api/search"`, 0.3}, {`handler="/healthz"`, 0.1}}
	buckets  = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
)

// own appends the families that autoscalers want, and the start of the process.
func (s *Spec) own(dst []byte, at time.Time) []byte {
	started := s.process(at)
	var total, load float64 // requests so far, load now
	s.segments(started, at, func(from, to time.Time, l float64) {
		total, load = total+l*to.Sub(from).Seconds(), l
	})
	types := [...]string{"counter", "gauge", "histogram"}
	if s.Fault == WrongType {
		types = [...]string{"gauge", "histogram", "counter"}
	}
	value := func(dst []byte, v float64) []byte {
		if s.Fault == NotANumber {
			return append(dst, "NaN\n"...)
		}
		return append(strconv.AppendFloat(dst, v, 'g', -1, 64), '\n')
	}

	name := Histogram.Metric()
	dst = header(dst, name, "Time until a request is answered.", types[Histogram])
	for _, h := range handlers {
		count, sum, before := 0.0, 0.0, 0.0
		s.segments(started, at, func(from, to time.Time, l float64) {
			before += l * to.Sub(from).Seconds() * h.share
			now := math.Floor(before)
			sum += (now - count) * l / 1000
			count = now
		})
		for _, le := range buckets {
			dst = append(dst, name+"_bucket{"...)
			dst = append(dst, h.labels...)
			dst = append(dst, `,le="`...)
			dst = strconv.AppendFloat(dst, le, 'g', -1, 64)
			dst = append(dst, `"} `...)
			dst = value(dst, math.Floor(count*le/(le+0.1)))
		}
		dst = line(dst, name+"_bucket", h.labels+`,le="+Inf"`)
		dst = value(dst, count)
		dst = line(dst, name+"_sum", h.labels)
		dst = value(dst, sum)
		dst = line(dst, name+"_count", h.labels)
		dst = value(dst, count)
	}
	dst = header(dst, Counter.Metric(), "Requests that were answered.", types[Counter])
	for _, r := range requests {
		dst = line(dst, Counter.Metric(), r.labels)
		dst = value(dst, math.Floor(total*r.share))
	}
	dst = header(dst, "process_start_time_seconds", "Start time of the process since unix epoch in seconds.", "gauge")
	dst = append(dst, "process_start_time_seconds "...)
	dst = strconv.AppendFloat(dst, float64(started.UnixMilli())/1000, 'g', -1, 64)
	dst = append(dst, '\n')
	dst = header(dst, Gauge.Metric(), "Jobs that wait.", types[Gauge])
	for _, q := range queues {
		dst = line(dst, Gauge.Metric(), q.labels)
		dst = value(dst, load*q.share)
	}
	return dst
}

func header(dst []byte, name, help, kind string) []byte {
	dst = append(append(append(append(dst, "# HELP "...), name...), ' '), help...)
	dst = append(append(append(append(dst, "\n# TYPE "...), name...), ' '), kind...)
	return append(dst, '\n')
}

// line appends a series up to its value.
func line(dst []byte, name, labels string) []byte {
	dst = append(append(append(dst, name...), '{'), labels...)
	return append(dst, "} "...)
}

// Shared is the part of the page that all pods share: families that no autoscaler wants.
type Shared struct{ before, after []byte }

// NewShared returns what pages share at a time. Counters grow from time to time.
func NewShared(at time.Time) *Shared {
	t := float64(at.Unix() % (1 << 24))
	var s Shared
	plain := func(dst []byte, name, kind string, v float64) []byte {
		dst = header(dst, name, "What the Go client exposes as "+name+".", kind)
		return fmt.Appendf(dst, "%s %v\n", name, v)
	}

	dst := header(nil, "go_gc_duration_seconds", "A summary of the wall-time pause duration of collections.", "summary")
	for _, q := range []string{"0", "0.25", "0.5", "0.75", "1"} {
		dst = fmt.Appendf(dst, "go_gc_duration_seconds{quantile=%q} %v\n", q, 1e-5*(1+math.Mod(t, 7)))
	}
	dst = fmt.Appendf(dst, "go_gc_duration_seconds_sum %v\ngo_gc_duration_seconds_count %v\n", t/1e4, t)
	dst = fmt.Appendf(header(dst, "go_info", "Information about the Go environment.", "gauge"),
		"go_info{version=\"go1.26.0\"} 1\n")
	for i, name := range []string{
		"alloc_bytes", "buck_hash_sys_bytes", "gc_sys_bytes", "heap_alloc_bytes", "heap_idle_bytes", "heap_inuse_bytes",
		"heap_objects", "heap_released_bytes", "heap_sys_bytes", "mcache_inuse_bytes", "mspan_inuse_bytes",
		"next_gc_bytes", "other_sys_bytes", "stack_inuse_bytes", "stack_sys_bytes", "sys_bytes",
	} {
		dst = plain(dst, "go_memstats_"+name, "gauge", float64(i+3)*1e6+math.Mod(t*float64(i*977+13), 1e6))
	}
	for i, name := range []string{"alloc_bytes_total", "frees_total", "mallocs_total"} {
		dst = plain(dst, "go_memstats_"+name, "counter", t*float64(i+1)*1234)
	}
	dst = plain(dst, "go_goroutines", "gauge", 40+math.Mod(t, 11))
	dst = plain(dst, "go_threads", "gauge", 9)
	dst = header(dst, "grpc_server_handling_seconds", "Time until a call is handled by the server.", "histogram")
	for i, method := range []string{
		"Create", "Delete", "Get", "GetMany", "Health", "List", "Patch", "Search", "Stats", "Update", "Watch",
	} {
		labels := `grpc_method="` + method + `",grpc_service="shop.v1.Items",grpc_type="unary"`
		count := math.Floor(t * float64(i+1) / 3)
		for _, le := range buckets {
			dst = fmt.Appendf(dst, "grpc_server_handling_seconds_bucket{%s,le=\"%v\"} %v\n", labels, le,
				math.Floor(count*le/(le+0.02)))
		}
		dst = fmt.Appendf(dst, "grpc_server_handling_seconds_bucket{%s,le=\"+Inf\"} %v\n", labels, count)
		dst = fmt.Appendf(dst, "grpc_server_handling_seconds_sum{%s} %v\n", labels, count*0.0173)
		dst = fmt.Appendf(dst, "grpc_server_handling_seconds_count{%s} %v\n", labels, count)
	}
	s.before = dst

	dst = plain(nil, "process_cpu_seconds_total", "counter", t/20)
	dst = plain(dst, "process_max_fds", "gauge", 1<<20)
	dst = plain(dst, "process_open_fds", "gauge", 24+math.Mod(t, 5))
	dst = plain(dst, "process_resident_memory_bytes", "gauge", 1e8+math.Mod(t*7919, 1e6))
	dst = plain(dst, "process_virtual_memory_bytes", "gauge", 1.3e9)
	dst = header(dst, "promhttp_metric_handler_requests_total", "Scrapes by HTTP status code.", "counter")
	for _, code := range []string{"200", "500", "503"} {
		dst = fmt.Appendf(dst, "promhttp_metric_handler_requests_total{code=%q} %v\n", code, math.Floor(t/15))
	}
	dst = header(dst, "sql_pool_wait_seconds", "Time that queries wait for a connection.", "histogram")
	for i, db := range []string{"items", "orders", "sessions", "users"} {
		count := math.Floor(t * float64(i+2) / 5)
		for _, le := range buckets {
			dst = fmt.Appendf(dst, "sql_pool_wait_seconds_bucket{db=%q,host=\"db-%d.internal\",le=\"%v\"} %v\n", db, i, le,
				math.Floor(count*le/(le+0.01)))
		}
		dst = fmt.Appendf(dst, "sql_pool_wait_seconds_bucket{db=%q,host=\"db-%d.internal\",le=\"+Inf\"} %v\n", db, i, count)
		dst = fmt.Appendf(dst, "sql_pool_wait_seconds_sum{db=%q,host=\"db-%d.internal\"} %v\n", db, i, count*0.004)
		dst = fmt.Appendf(dst, "sql_pool_wait_seconds_count{db=%q,host=\"db-%d.internal\"} %v\n", db, i, count)
	}
	s.after = dst
	return &s
}
