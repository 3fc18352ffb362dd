package server

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of pipes.
type pipes struct {
	net.Listener
	far chan net.Conn
}

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.far
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// One connection too many costs the one on which nothing has moved for the longest, in either direction. One that was closed makes
// room.
func TestTooManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newConnections(pipes{far: make(chan net.Conn)}, 4)
		var near, far []net.Conn
		connect := func() {
			t.Helper()
			time.Sleep(time.Second)
			a, b := net.Pipe()
			go func() { l.Listener.(pipes).far <- b }()
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

// The time that a request may take is its own: the next one over the same connection has as much.
func TestDeadlineIsOfOneRequest(t *testing.T) {
	const timeout = 300 * time.Millisecond
	s := httptest.NewTLSServer(withDeadline(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RemoteAddr)
	}), timeout))
	t.Cleanup(s.Close)
	get := func() string {
		r, err := s.Client().Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := get()
	time.Sleep(2 * timeout)
	if second := get(); second != first {
		t.Errorf("the second request came from %s, not over the connection of the first one from %s", second, first)
	}
}

// A client that reads nothing keeps its request for as long as requests may take, and no longer.
func TestClientsThatDoNotRead(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		ended := make(chan error, 1)
		s := httptest.NewUnstartedServer(withDeadline(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			var err error
			for b := make([]byte, 64<<10); err == nil; {
				_, err = w.Write(b)
			}
			ended <- err
		}), 300*time.Millisecond))
		s.EnableHTTP2 = http2
		s.StartTLS()
		t.Cleanup(s.Close)
		r, err := s.Client().Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		if (r.ProtoMajor == 2) != http2 {
			t.Errorf("the answer is %s", r.Proto)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("HTTP/2 %v: the request ended without an error", http2)
			}
		case <-time.After(time.Minute):
			t.Errorf("HTTP/2 %v: the request never ends", http2)
		}
		_ = r.Body.Close()
	}
}

// So does one that does not send the body that it has announced: what is left of it is read before a long answer is written.
func TestClientsThatDoNotSend(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"read by the handler": func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		"read for the answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 64<<10)) },
	} {
		ended := make(chan struct{})
		s := httptest.NewServer(withDeadline(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handler(w, r)
			close(ended)
		}), 300*time.Millisecond))
		t.Cleanup(s.Close)
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Errorf("%s: the request never ends", name)
		}
	}
}
