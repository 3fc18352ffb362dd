package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/schedule"
)

// eventServer is an API server that takes events, or refuses them.
type eventServer struct {
	refuse bool

	mu   sync.Mutex
	said []string
	more chan struct{}
}

func (s *eventServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.more <- struct{}{} }()
	w.Header().Set("Content-Type", "application/json")
	if s.refuse {
		s.said = append(s.said, "refused")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w,
			`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no","code":403}`)
		return
	}
	var e corev1.Event
	_ = json.Unmarshal(body, &e)
	what := r.Method + " " + r.URL.Path
	if r.Method == http.MethodPost {
		what = strings.Join([]string{
			what, e.Type, e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name,
			string(e.InvolvedObject.UID), e.Source.Component, e.Message,
		}, "|")
		e.Name = "first"
	} else {
		what = fmt.Sprint(r.Method, " count ", e.Count) // its path has a name made of the time
	}
	s.said = append(s.said, what)
	_ = json.NewEncoder(w).Encode(&e)
}

// wait waits for the n-th request from now on, and returns all so far.
func (s *eventServer) wait(t *testing.T, n int) []string {
	t.Helper()
	for range n {
		select {
		case <-s.more:
		case <-time.After(time.Minute):
			t.Fatalf("no event arrived within a minute; so far: %q", s.said)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said
}

func startEvents(t *testing.T, s *eventServer) *events {
	t.Helper()
	s.more = make(chan struct{}, 100)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	e, err := newEvents(&rest.Config{Host: h.URL})
	if err != nil {
		t.Fatal(err)
	}
	e.start()
	t.Cleanup(e.broadcaster.Shutdown)
	return e
}

func TestEventsOfNodes(t *testing.T) {
	s := &eventServer{}
	e := startEvents(t, s)
	down := schedule.TargetStatus{
		Err: errors.New("connection refused"), Cause: "connection refused",
		Remedy: "start the kubelet",
	}
	e.failing("n1", down)
	s.wait(t, 1)
	e.failing("n1", down)
	s.wait(t, 1)
	e.recovered("n1", 61*time.Second)
	want := []string{
		"POST /api/v1/namespaces/default/events|Warning|MetricsScrapeFailing|Node|n1|n1|metrics-server|cannot scrape " +
			"resource metrics: connection refused: start the kubelet",
		"PATCH count 2", // the same again
		"POST /api/v1/namespaces/default/events|Normal|MetricsScrapeRecovered|Node|n1|n1|metrics-server|resource metrics " +
			"are scraped again, after 1m1s",
	}
	if d := cmp.Diff(want, s.wait(t, 1)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Older manifests do not permit events: that is logged once, and each event is tried only once.
func TestEventsThatAreForbidden(t *testing.T) {
	s := &eventServer{refuse: true}
	e := startEvents(t, s)
	for _, node := range []string{"n1", "n2", "n3"} {
		e.failing(node, schedule.TargetStatus{Err: errors.New("down")})
	}
	if said := s.wait(t, 3); len(said) != 3 {
		t.Errorf("got %q, want one request an event", said)
	}
	if logged := e.sink.(*eventSink).logged.Load(); !logged {
		t.Error("no log line says that events are forbidden")
	}
}
