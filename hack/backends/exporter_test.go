//go:build backends

package backends

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// exporter serves the metrics that the programs scrape, with the labels for namespace and pod that a Prometheus in a
// cluster would attach.
type exporter struct {
	*httptest.Server
	start time.Time

	mu     sync.Mutex // guards the field that follows
	series map[string]value
}

// value is that of a series. It grows with time.
type value struct{ first, perSecond float64 }

func newExporter() *exporter {
	e := &exporter{start: time.Now(), series: map[string]value{}}
	e.Server = httptest.NewServer(e)
	return e
}

// ServeHTTP implements http.Handler.
func (e *exporter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	since := time.Since(e.start).Seconds()
	var page strings.Builder
	for series, v := range e.series {
		fmt.Fprintf(&page, "%s %g\n", series, v.first+v.perSecond*since)
	}
	_, _ = io.WriteString(w, page.String())
}

// set adds a series, such as queue{pod="a"}, or changes its value.
func (e *exporter) set(series string, v value) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.series[series] = v
}

// remove removes a series.
func (e *exporter) remove(series string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.series, series)
}
