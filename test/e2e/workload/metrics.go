package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// families are those of the metrics page, in its order, each with its type.
var families = []struct{ name, kind string }{
	{"http_requests_total", "counter"},
	{"packets_total", "counter"},
	{"process_start_time_seconds", "gauge"},
	{"queue_length", "gauge"},
	{"request_duration_seconds", "histogram"},
}

// buckets are the upper bounds of request_duration_seconds.
var buckets = []string{"0.1", "0.25", "0.5", "1", "+Inf"}

// page is the metrics page. Values grow with the elapsed time, so that rates are exact no matter
// how often the page is read.
type page struct {
	now func() time.Time

	mu     sync.Mutex // guards the fields that follow
	series map[string]*series
	fault  string // what is wrong with the page: see fail
}

// series is one line of the page. A series of the histogram, such as
// request_duration_seconds{le="0.25"}, stands for observations of exactly that value.
type series struct {
	value, perSecond float64
	since            time.Time // of value
}

func newPage(now func() time.Time) *page {
	p := &page{now: now, series: map[string]*series{}}
	start := now()
	p.series["process_start_time_seconds"] = &series{value: float64(start.UnixMilli()) / 1000, since: start}
	for _, name := range []string{`http_requests_total{code="200",path="/"}`, "packets_total", "queue_length"} {
		p.series[name] = &series{since: start}
	}
	for _, le := range buckets[:len(buckets)-1] {
		p.series[fmt.Sprintf("request_duration_seconds{le=%q}", le)] = &series{since: start}
	}
	return p
}

func (s *series) at(now time.Time) float64 { return s.value + s.perSecond*now.Sub(s.since).Seconds() }

// change applies f to a series at its current value. It makes the series if the page has its family.
func (p *page) change(name string, f func(*series)) error {
	family, _, _ := strings.Cut(name, "{")
	p.mu.Lock()
	defer p.mu.Unlock()
	s, now := p.series[name], p.now()
	switch {
	case s == nil && !slices.ContainsFunc(families, func(f struct{ name, kind string }) bool { return f.name == family }):
		return fmt.Errorf("the page has no family %s", family)
	case s == nil:
		s = &series{}
		p.series[name] = s
	}
	s.value, s.since = s.at(now), now
	f(s)
	return nil
}

// rate makes a series grow from now on: SERIES=PER_SECOND.
func (p *page) rate(text string) error {
	return p.assign(text, func(s *series, v float64) { s.perSecond = v })
}

// set gives a series a value: SERIES=VALUE.
func (p *page) set(text string) error {
	return p.assign(text, func(s *series, v float64) { s.value = v })
}

// count adds 1 to a series.
func (p *page) count(name string) error { return p.change(name, func(s *series) { s.value++ }) }

func (p *page) assign(text string, f func(*series, float64)) error {
	i := strings.LastIndexByte(text, '=')
	if i < 0 {
		return fmt.Errorf("%q has no =", text)
	}
	v, err := strconv.ParseFloat(text[i+1:], 64)
	if err != nil {
		return err
	}
	return p.change(text[:i], func(s *series) { f(s, v) })
}

// fail makes the page wrong from now on: a status such as 404, html, hang, or "" for a good one.
func (p *page) fail(fault string) error {
	if _, err := strconv.Atoi(fault); err != nil && !slices.Contains([]string{"", "html", "hang"}, fault) {
		return fmt.Errorf("%q is no fault", fault)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
	return nil
}

// serve answers a scrape.
func (p *page) serve(w http.ResponseWriter, r *http.Request) error {
	p.mu.Lock()
	fault := p.fault
	p.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	switch code, err := strconv.Atoi(fault); {
	case fault == "hang":
		<-r.Context().Done()
		return errors.New("told to hang")
	case fault == "html":
		w.Header().Set("Content-Type", "text/html")
		_, err = fmt.Fprintln(w, "<html><body>Welcome</body></html>")
		return err
	case err == nil:
		w.WriteHeader(code)
		return nil
	}
	_, err := w.Write(p.text())
	return err
}

// text is the page in the Prometheus text format.
func (p *page) text() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	var b bytes.Buffer
	line := func(name string, value float64) {
		fmt.Fprintf(&b, "%s %s\n", name, strconv.FormatFloat(value, 'g', -1, 64))
	}
	for _, f := range families {
		fmt.Fprintf(&b, "# TYPE %s %s\n", f.name, f.kind)
		if f.kind == "histogram" {
			sum, count := 0.0, 0.0
			for _, le := range buckets {
				if s := p.series[fmt.Sprintf("%s{le=%q}", f.name, le)]; s != nil {
					bound, _ := strconv.ParseFloat(le, 64)
					sum += bound * s.at(now)
					count += s.at(now)
				}
				line(fmt.Sprintf("%s_bucket{le=%q}", f.name, le), count)
			}
			line(f.name+"_sum", sum)
			line(f.name+"_count", count)
			continue
		}
		var names []string
		for name := range p.series {
			if family, _, _ := strings.Cut(name, "{"); family == f.name {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			line(name, p.series[name].at(now))
		}
	}
	return b.Bytes()
}
