package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
)

const watchPods = "/apis/metrics.k8s.io/v1/pods?watch=1"

// Open watches take no places of other requests, one user leaves some for others, and all end when the
// server does.
func TestWatchesOfOneUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chainConfig()
		c.MaxRequestsInFlight = 4
		w := newWatches(8, nil)
		h := testChain(w.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("watch") != "" {
				<-r.Context().Done()
			}
		})), c)
		ask := func(path string) int {
			a := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
			r.Header.Set("Authorization", "Bearer alice")
			h.ServeHTTP(a, r)
			return a.Code
		}
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if code := ask(watchPods); code != http.StatusOK {
					t.Errorf("a watch: %d", code)
				}
			})
			synctest.Wait()
		}
		if code := ask(watchPods); code != http.StatusTooManyRequests {
			t.Errorf("a watch beyond three quarters of the places: %d, want 429", code)
		}
		if code := ask("/apis/metrics.k8s.io/v1/pods"); code != http.StatusOK {
			t.Errorf("a list while watches are open: %d", code)
		}
		w.end()
		wg.Wait()
		if code := ask(watchPods); code != http.StatusOK {
			t.Errorf("a watch after the end, which ends at once: %d", code)
		}
		if w.places.all != 0 {
			t.Errorf("%d places were not given back", w.places.all)
		}
	})
}

// Watches last, and can be opened, for as long after SIGTERM as requests are answered.
func TestWatchesAtTheEnd(t *testing.T) {
	certPEM, keyPEM, err := certutil.GenerateSelfSignedCertKey("localhost", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := dynamiccertificates.NewStaticCertKeyContent("test", certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		const delay = 20 * time.Second
		c := chainConfig()
		c.ExternalAddress, c.LoopbackClientConfig = "localhost:443", &rest.Config{}
		c.ShutdownDelayDuration = delay
		// So that Run does not wait for a listener. Requests go to the handler.
		c.SecureServing = &genericapiserver.SecureServingInfo{Listener: newPipes(), Cert: certificate}
		s, err := New(Config{Name: "test", Generic: c, Registry: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		s.Handler.NonGoRestfulMux.HandleFunc("/apis/metrics.k8s.io/v1/pods", func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(time.Minute)
		stop()
		start := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, watchPods, http.NoBody)
				r.Header.Set("Authorization", "Bearer alice")
				w := httptest.NewRecorder()
				s.Handler.ServeHTTP(w, r)
				if after := time.Since(start); after != delay || w.Code != http.StatusOK {
					t.Errorf("a watch ended after %v with %d: %s", after, w.Code, w.Body)
				}
			})
			time.Sleep(delay / 2)
		}
		wg.Wait()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A watch over WebSocket would have no deadline, so it is rejected. Other requests ignore the header, as does the
// generic API server.
func TestWebSocket(t *testing.T) {
	for _, tc := range []struct {
		path, upgrade string
		code          int
	}{
		{watchPods, "websocket", http.StatusBadRequest},
		{watchPods, "WebSocket", http.StatusBadRequest},
		{"/apis/metrics.k8s.io/v1/watch/pods", "websocket", http.StatusBadRequest},
		{watchPods, "h2c", http.StatusOK},
		{watchPods, "", http.StatusOK},
		{"/apis/metrics.k8s.io/v1/pods", "websocket", http.StatusOK},
	} {
		h := testChain(newWatches(8, nil).serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), chainConfig())
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tc.path, http.NoBody)
		r.Header.Set("Authorization", "Bearer alice")
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", tc.upgrade)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		helps := strings.Contains(w.Body.String(), "omit the Upgrade header")
		if w.Code != tc.code || helps != (tc.code != http.StatusOK) {
			t.Errorf("%s with Upgrade: %s: %d %s, want %d", tc.path, tc.upgrade, w.Code, w.Body, tc.code)
		}
	}
}

// A connection that carries a watch does not count, and is not closed for being idle.
func TestConnectionsOfWatches(t *testing.T) {
	l := newConnections(nil, 2)
	var closed []string
	open := func(address string) {
		c := &connection{Conn: closer{func() { closed = append(closed, address) }}, of: l, address: address}
		c.touch()
		if idlest := l.add(c); idlest != nil {
			_ = idlest.Conn.Close()
		}
	}
	open("watch")
	end := l.watch("watch")
	second := l.watch("watch") // HTTP/2
	open("a")
	open("b")
	open("c")
	second()
	open("d")
	if got := fmt.Sprint(closed); got != "[a b]" {
		t.Errorf("closed %v, want [a b]", got)
	}
	end()
	open("e")
	open("f")
	open("g")
	if got := fmt.Sprint(closed); got != "[a b c d watch]" {
		t.Errorf("closed %v in the end, want the former watch among them", got)
	}
	l.watch("gone")() // a connection that was closed meanwhile
}

type closer struct{ f func() }

func (c closer) Close() error                     { c.f(); return nil }
func (closer) Read([]byte) (int, error)           { return 0, errors.New("not implemented") }
func (closer) Write([]byte) (int, error)          { return 0, errors.New("not implemented") }
func (closer) LocalAddr() net.Addr                { return nil }
func (closer) RemoteAddr() net.Addr               { return nil }
func (closer) SetDeadline(time.Time) error        { return nil }
func (closer) SetReadDeadline(time.Time) error    { return nil }
func (closer) SetWriteDeadline(t time.Time) error { return nil }

// watchOf returns the handler of a watch behind all filters. It answers any path.
func watchOf(h http.HandlerFunc) http.Handler {
	next := testChain(h, chainConfig())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, query, _ := strings.Cut(watchPods, "?")
		r.URL.Path, r.URL.RawQuery = path, query
		r.Header.Set("Authorization", "Bearer alice")
		next.ServeHTTP(w, r)
	})
}

// A watch may be quiet for longer than the timeout. Its answer ends properly: the client gets no error, which kubectl
// would print, and the connection can be used again.
func TestQuietWatch(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l, client, url := servePipes(t, watchOf(func(w http.ResponseWriter, _ *http.Request) {
				for range 2 {
					_, _ = w.Write([]byte("event "))
					w.(http.Flusher).Flush()
					time.Sleep(time.Hour)
				}
			}), http2)
			for range 2 {
				r, err := client.Get(url)
				if err != nil {
					t.Fatal(err)
				}
				if (r.ProtoMajor == 2) != http2 {
					t.Errorf("the answer is %s", r.Proto)
				}
				if b, err := io.ReadAll(r.Body); err != nil || string(b) != "event event " {
					t.Errorf("HTTP/2 %v: the client reads %q and then %v, want two events and the end", http2, b, err)
				}
				_ = r.Body.Close()
			}
			if n := l.dialed.Load(); n != 1 {
				t.Errorf("HTTP/2 %v: two watches one after the other took %d connections, want 1", http2, n)
			}
		})
	}
}

// A watch may last, but its client must read each piece within the timeout.
func TestPatience(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan error, 1)
			_, client, url := servePipes(t, watchOf(func(w http.ResponseWriter, _ *http.Request) {
				var err error
				for b := make([]byte, 64<<10); err == nil; {
					_, err = w.Write(b)
					w.(http.Flusher).Flush()
				}
				ended <- err
			}), http2)
			r, err := client.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if (r.ProtoMajor == 2) != http2 {
				t.Errorf("the answer is %s", r.Proto)
			}
			for range 5 {
				time.Sleep(50 * time.Second)
				if _, err := io.CopyN(io.Discard, r.Body, 8<<20); err != nil {
					t.Fatal(err)
				}
			}
			start := time.Now()
			err = <-ended
			// A second is left for an error. Over HTTP/1.1 net/http then closes the connection, which TLS tries for five.
			if d := time.Since(start); d < 50*time.Second || d > time.Minute+6*time.Second {
				t.Errorf("HTTP/2 %v: the watch ended after %v, want 1m0s: %v", http2, d, err)
			}
		})
	}
}

// The same holds for the end of the answer, which net/http writes after the last piece.
func TestPatienceAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, client, url := servePipes(t, watchOf(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("event"))
			w.(http.Flusher).Flush()
		}), false)
		r, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		time.Sleep(2 * time.Minute)
		if b, err := io.ReadAll(r.Body); err == nil || string(b) != "event" {
			t.Errorf("a client that is late for the end reads %q and %v, want an error", b, err)
		}
	})
}

// A watch whose client is gone gets no deadline: over HTTP/2, its timer would keep the closed stream in memory.
func TestNoDeadlineForClientsThatAreGone(t *testing.T) {
	for _, gone := range []bool{false, true} {
		ctx, cancel := context.WithCancel(request.WithRequestInfo(t.Context(), &request.RequestInfo{Verb: "watch"}))
		t.Cleanup(cancel)
		handler := withDeadline(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			if gone {
				cancel()
			}
		}), time.Minute)
		d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		handler.ServeHTTP(d, httptest.NewRequestWithContext(ctx, http.MethodGet, watchPods, http.NoBody))
		if d.write.IsZero() != gone {
			t.Errorf("client gone: %v: the deadline is %v", gone, d.write)
		}
	}
}
