package apiserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apiserver/pkg/endpoints/request"
)

// pipes is a listener whose connections are pipes: their deadlines follow the clock of a synctest
// bubble.
type pipes struct {
	accept chan net.Conn
	closed context.Context
	close  context.CancelFunc
	dialed atomic.Int64 // connections
}

func newPipes() *pipes {
	p := &pipes{accept: make(chan net.Conn, 1)}
	p.closed, p.close = context.WithCancel(context.Background())
	return p
}

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	p.dialed.Add(1)
	client, server := net.Pipe()
	p.accept <- server
	return client, nil
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed.Done():
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

// servePipes serves h over pipes and TLS. It returns a client and the URL of the server.
func servePipes(t *testing.T, h http.Handler, http2 bool) (l *pipes, client *http.Client, url string) {
	t.Helper()
	l = newPipes()
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener, s.EnableHTTP2 = l, http2
	s.StartTLS()
	t.Cleanup(s.Close)
	client = s.Client()
	client.Transport.(*http.Transport).DialContext = l.dial
	return l, client, s.URL
}

// If there is one connection too many, the one that has been idle for the longest is closed. Data
// in either direction counts. A connection that was closed makes room.
func TestTooManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clients := newPipes()
		l := newConnections(clients, 4)
		var near, far []net.Conn
		connect := func() {
			t.Helper()
			time.Sleep(time.Second)
			a, err := clients.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			near, far = append(near, a), append(far, c)
		}
		open := func(want ...int) {
			t.Helper()
			var got []int
			for i := range near {
				_ = near[i].SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := near[i].Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
					got = append(got, i)
				}
				_ = near[i].SetReadDeadline(time.Time{})
			}
			if !slices.Equal(got, want) {
				t.Fatalf("open: %v, want %v", got, want)
			}
		}
		for range 4 {
			connect()
		}
		open(0, 1, 2, 3)
		time.Sleep(time.Second)
		go func() { _, _ = near[0].Write([]byte("x")) }()
		if _, err := io.ReadFull(far[0], make([]byte, 1)); err != nil { // moves 0
			t.Fatal(err)
		}
		go func() { _, _ = io.ReadFull(near[1], make([]byte, 1)) }()
		if _, err := far[1].Write([]byte("x")); err != nil { // moves 1
			t.Fatal(err)
		}
		synctest.Wait()
		connect()
		open(0, 1, 3, 4)
		connect()
		open(0, 1, 4, 5)
		if err := far[5].Close(); err != nil {
			t.Fatal(err)
		}
		_ = far[2].Close() // it was taken out before
		if len(l.open) != 3 {
			t.Errorf("%d connections are open, want 3", len(l.open))
		}
		connect()
		open(0, 1, 4, 6)
		for _, c := range far {
			_ = c.Close()
		}
		if len(l.open) != 0 {
			t.Errorf("%d connections are remembered that are closed", len(l.open))
		}
	})
}

// Each request has the whole timeout, also the second one over a connection.
func TestDeadlineIsOfOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, client, url := servePipes(t, withDeadline(http.NotFoundHandler(), time.Minute), false)
		for range 3 {
			r, err := client.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Fatal(err)
			}
			_ = r.Body.Close()
			time.Sleep(50 * time.Second)
		}
		if n := l.dialed.Load(); n != 1 {
			t.Errorf("3 requests within 2 minutes took %d connections, want 1", n)
		}
	})
}

// A request ends at the timeout if its client does not read the answer.
func TestClientsThatDoNotRead(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan error, 1)
			h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				var err error
				for b := make([]byte, 64<<10); err == nil; {
					_, err = w.Write(b)
				}
				ended <- err
			})
			_, client, url := servePipes(t, withDeadline(h, time.Minute), http2)
			start := time.Now()
			r, err := client.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if (r.ProtoMajor == 2) != http2 {
				t.Errorf("the answer is %s", r.Proto)
			}
			err = <-ended
			// Over HTTP/1.1 net/http then closes the connection, which TLS tries for five seconds.
			if d := time.Since(start); d < time.Minute || d > time.Minute+5*time.Second {
				t.Errorf("HTTP/2 %v: the request ended after %v, want 1m0s: %v", http2, d, err)
			}
		})
	}
}

// A request ends at the timeout, too, if its client announces a body and does not send it: net/http
// reads what is left of a body before it writes a long answer.
func TestClientsThatDoNotSend(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"read by the handler": func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		"read for the answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 64<<10)) },
	} {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan struct{})
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				handler(w, r)
				close(ended)
			})
			l := newPipes()
			s := &http.Server{Handler: withDeadline(h, time.Minute)}
			go func() { _ = s.Serve(l) }()
			t.Cleanup(func() { _ = s.Close() })
			start := time.Now()
			c, err := l.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			<-ended
			if d := time.Since(start); d != time.Minute {
				t.Errorf("%s: the request ended after %v, want 1m0s", name, d)
			}
		})
	}
}

// A profile may take as long as its query says. The same query does not prolong other requests.
func TestTimeoutOfProfiles(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"": 0, "seconds=90": 90 * time.Second, "seconds=0.5": 500 * time.Millisecond,
		"debug=1&seconds=300": 5 * time.Minute, "seconds=1e99": maxProfile,
		"seconds=Inf": maxProfile, "seconds=NaN": 0, "seconds=-5": 0, "seconds=x": 0, "seconds=86400": maxProfile,
	} {
		for path, asked := range map[string]bool{
			"/debug/pprof/profile": true, "/debug/pprof/trace": true, "/debug/pprof/heap": true,
			"/debug/pprofx": false, "/livez": false, "/apis/metrics.k8s.io/v1/pods": false,
		} {
			want := want
			if !asked {
				want = 0
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path+"?"+query, http.NoBody)
			if got := profileDuration(r); got != want {
				t.Errorf("%s?%s: %v, want %v", path, query, got, want)
			}
		}
	}

	synctest.Test(t, func(t *testing.T) {
		profile := func(w http.ResponseWriter, r *http.Request) { // as net/http/pprof makes one
			select {
			case <-time.After(90 * time.Second):
			case <-r.Context().Done():
			}
			_, _ = io.WriteString(w, "profile")
		}
		_, client, url := servePipes(t, testChain(http.HandlerFunc(profile), chainConfig()), false)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/debug/pprof/trace?seconds=90", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer alice")
		start := time.Now()
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != "profile" || resp.StatusCode != http.StatusOK || time.Since(start) != 90*time.Second {
			t.Errorf("a profile of 90 s: %d %q, %v after %v", resp.StatusCode, b, err, time.Since(start))
		}
	})
}

// deadlines is a response writer that keeps the deadlines that are set.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = t; return nil }

// TestDeadlineOfARequest checks that only requests without a body may take longer than the timeout:
// profiles as long as they were asked to, and watches without a limit.
func TestDeadlineOfARequest(t *testing.T) {
	const timeout = time.Minute
	for _, tt := range []struct {
		name, verb, target, body string
		want                     time.Duration // 0: no deadline
	}{
		{"list", "list", "/apis/metrics.k8s.io/v1/pods", "", timeout},
		{"watch", "watch", "/apis/metrics.k8s.io/v1/pods?watch=1", "", 0},
		{"watch with a body", "watch", "/apis/metrics.k8s.io/v1/pods?watch=1", "x", timeout},
		{"profile", "get", "/debug/pprof/profile?seconds=90", "", timeout + 90*time.Second},
		{"profile with a body", "post", "/debug/pprof/profile?seconds=90", "x", timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				past := time.Now().Add(-time.Hour) // as a previous request may have left it
				w := &deadlines{ResponseRecorder: httptest.NewRecorder(), read: past, write: past}
				h := withDeadline(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					var want time.Time
					if tt.want != 0 {
						want = time.Now().Add(tt.want)
					}
					if !w.read.Equal(want) || !w.write.Equal(want) {
						t.Errorf("deadlines %v and %v, want %v", w.read, w.write, want)
					}
				}), timeout)
				r := httptest.NewRequestWithContext(request.WithRequestInfo(t.Context(), &request.RequestInfo{Verb: tt.verb}),
					http.MethodPost, tt.target, strings.NewReader(tt.body))
				h.ServeHTTP(w, r)
			})
		})
	}
}
