package resource

import (
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
)

// heldPart and maxCompressed are those of the engine.
const heldPart, maxCompressed = 8, 32

// stalled is a client that reads nothing until it is released.
type stalled struct {
	discard
	begun, leave chan struct{}
	once         sync.Once
	gone         bool // then, because it reads nothing after that either
}

func (s *stalled) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.begun) })
	<-s.leave
	if s.gone {
		return 0, errBrokenPipe
	}
	return s.discard.Write(b)
}

// However many clients request lists that must be held, and however slowly they read, the lists
// together hold no more than a part of the memory limit. Requests beyond it get a 429, and lists
// that hold nothing are always served.
func TestMemoryOfHeldListsIsLimited(t *testing.T) {
	const memory = 256 << 20
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(memory))
	h := bigCluster().handler(t)
	const path = group + "v1/pods"
	_, _, list := answer(t, h, path, runtime.ContentTypeProtobuf, "")
	fit := memory / heldPart / len(list)
	if fit < 4 || len(list) < 4*bufferSize {
		t.Fatalf("%d lists of %d bytes fit: that shows nothing", fit, len(list))
	}

	leave := make(chan struct{})
	var reading sync.WaitGroup
	var slow []*stalled
	for {
		w := &stalled{discard: discard{header: http.Header{}}, begun: make(chan struct{}), leave: leave}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
		req.Header.Set("Accept", runtime.ContentTypeProtobuf)
		reading.Go(func() { h.ServeHTTP(w, req) })
		<-w.begun
		if w.code != http.StatusOK && w.code != 0 {
			if w.code != http.StatusTooManyRequests || w.header.Get("Retry-After") == "" {
				t.Errorf("the list that is too much: %d %v", w.code, w.header)
			}
			break
		}
		if slow = append(slow, w); len(slow) > 2*fit {
			break
		}
	}
	if len(slow) > fit || len(slow) < fit/2 {
		t.Errorf("%d lists of %d bytes are held at the same time, want at most %d", len(slow), len(list), fit)
	}
	for query, want := range map[string]int{"": http.StatusTooManyRequests, "?pretty=false": http.StatusOK} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path+query, http.NoBody)
		req.Header.Set("User-Agent", "curl/8.5.0")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != want || w.Code != http.StatusOK && !strings.Contains(w.Body.String(), "pretty=false") {
			t.Errorf("curl %s%s meanwhile: %d, want %d: %.300s", path, query, w.Code, want, w.Body)
		}
	}
	for accept, want := range map[string]int{
		mediaJSON: http.StatusOK, mediaJSON + ";as=Table;g=meta.k8s.io;v=v1": http.StatusOK,
		runtime.ContentTypeProtobuf: http.StatusTooManyRequests, "application/yaml": http.StatusTooManyRequests,
	} {
		if code, _, body := answer(t, h, path, accept, ""); code != want {
			t.Errorf("%s meanwhile: %d, want %d: %.200s", accept, code, want, body)
		}
	}
	if code, _, body := answer(t, h, group+"v1/namespaces/namespace-42/pods", runtime.ContentTypeProtobuf,
		""); code != http.StatusOK {
		t.Errorf("a list that fits into one buffer: %d: %.200s", code, body)
	}
	close(leave)
	reading.Wait()
	for _, w := range slow {
		if int(w.bytes) != len(list) {
			t.Errorf("a slow client got %d bytes, want %d", w.bytes, len(list))
		}
	}
	for _, accept := range []string{runtime.ContentTypeProtobuf, "application/yaml"} {
		if code, _, body := answer(t, h, path, accept, ""); code != http.StatusOK {
			t.Errorf("%s afterwards: %d: %.200s", accept, code, body)
		}
	}
}

// A compressor takes more than a megabyte, so among many lists that are read slowly, only some are
// compressed. All are served.
func TestCompressionIsLimited(t *testing.T) {
	h := bigCluster().handler(t)
	leave := make(chan struct{})
	var reading sync.WaitGroup
	let := sync.OnceFunc(func() { close(leave); reading.Wait() })
	defer let()
	list := func() (encoding string) {
		w := &stalled{discard: discard{header: http.Header{}}, begun: make(chan struct{}), leave: leave, gone: true}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, group+"v1/pods", http.NoBody)
		req.Header.Set("Accept", mediaJSON)
		req.Header.Set("Accept-Encoding", "gzip")
		reading.Go(func() { h.ServeHTTP(w, req) })
		<-w.begun
		if w.code != http.StatusOK && w.code != 0 {
			t.Fatalf("status %d", w.code)
		}
		return w.header.Get("Content-Encoding")
	}
	for i := range 2 * maxCompressed {
		want := "gzip"
		if i >= maxCompressed {
			want = ""
		}
		if got := list(); got != want {
			t.Fatalf("list %d of those that are read at the same time is encoded as %q, want %q", i+1, got, want)
		}
	}
	let()
	if got := list(); got != "gzip" {
		t.Errorf("a list afterwards is encoded as %q", got)
	}
	reading.Wait()
}
