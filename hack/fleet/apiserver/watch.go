package apiserver

import (
	"bufio"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/hack/fleet/cluster"
)

// bookmarkPeriod is how often a watch that asked for bookmarks gets one.
const bookmarkPeriod = time.Minute

// watch serves a watch. It starts with all objects if the client asks for that or gives no version.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, q query) {
	if q.name != "" {
		s.fail(w, r, http.StatusBadRequest, metav1.StatusReasonBadRequest, "watch a list with a field selector")
		return
	}
	w.Header().Set("Content-Type", q.as.contentType())
	w.WriteHeader(http.StatusOK)
	f := w.(http.Flusher)
	f.Flush()
	c := watching{Server: s, q: q, out: bufio.NewWriterSize(w, 64<<10), flush: f.Flush}
	ends := make(<-chan time.Time)
	if q.timeout > 0 {
		t := time.NewTimer(q.timeout)
		defer t.Stop()
		ends = t.C
	}
	if !c.begin() {
		return
	}
	tick := time.NewTicker(bookmarkPeriod)
	defer tick.Stop()
	for {
		next, ok := c.events()
		if !ok {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-ends:
			return
		case <-tick.C:
			if q.bookmark && !c.bookmark(nil) {
				return
			}
		case <-next:
		}
	}
}

// watching is one watch.
type watching struct {
	*Server
	q           query
	out         *bufio.Writer
	flush       func()
	version     uint64 // all events up to this version were sent
	object, buf []byte
}

// begin sends the existing objects.
func (c *watching) begin() bool {
	q := &c.q
	if !q.initial && q.version != "" && q.version != "0" {
		v, err := strconv.ParseUint(q.version, 10, 64)
		if err != nil {
			return false
		}
		c.version = v
		return true
	}
	objects, version := q.collection.snapshot(q.namespace)
	c.version = version
	for _, o := range objects {
		if (q.everything() || q.selects(o)) && !c.send("ADDED", o) {
			return false
		}
	}
	if q.initial {
		return c.bookmark(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return c.flushed()
}

// events sends the events since the last one, and returns a channel that is closed at the next one.
func (c *watching) events() (<-chan struct{}, bool) {
	var (
		events []cluster.Event
		next   <-chan struct{}
		ok     = true
	)
	if c.q.collection.log != nil {
		events, next, ok = c.q.collection.log.Since(c.version)
	}
	if !ok {
		as := c.q.as
		c.write("ERROR", encode(nil, as, "v1", "Status",
			status(http.StatusGone, metav1.StatusReasonExpired, "too old resource version: list again")))
		c.flushed()
		return nil, false
	}
	for _, e := range events {
		c.version = e.Version
		if c.q.selects(e.Object) && !c.send(e.Type, e.Object) {
			return nil, false
		}
	}
	return next, c.flushed()
}

func (c *watching) send(kind string, o any) bool {
	c.object = c.q.encode(c.object[:0], o)
	return c.write(kind, c.object)
}

// bookmark sends an object that has only a version.
func (c *watching) bookmark(annotations map[string]string) bool {
	m := metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(c.version, 10), Annotations: annotations}
	as := c.q.as
	var object []byte
	if as.partial {
		object = encode(nil, as, "meta.k8s.io/v1", "PartialObjectMetadata", &metav1.PartialObjectMetadata{ObjectMeta: m})
	} else {
		object = encode(nil, as, c.q.collection.version, c.q.collection.kind, c.q.collection.empty(m))
	}
	return c.write("BOOKMARK", object) && c.flushed()
}

func (c *watching) write(kind string, object []byte) bool {
	c.buf = appendEvent(c.buf[:0], c.q.as, kind, object)
	_, err := c.out.Write(c.buf)
	return err == nil
}

func (c *watching) flushed() bool {
	if c.out.Buffered() == 0 {
		return true
	}
	err := c.out.Flush()
	c.flush()
	return err == nil
}
