package httpconn

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/transport"

	"metrics-server/pkg/kubelet/kubelettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// getFunc sends a request and returns the body of the answer.
type getFunc func(context.Context, *Client) (*Exchange, []byte, error)

// newPool returns a Pool and a function that sends a request to a server that answers with fault.
func newPool(t *testing.T, fault kubelettest.Fault) (*Pool, getFunc) {
	t.Helper()
	s, err := kubelettest.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fault(w, r, nil) }),
		kubelettest.ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := New(Config{Servers: "servers", Accept: "text/plain", MaxBody: 16 << 20})
	t.Cleanup(p.Close)
	as, err := p.NewCredentials(&transport.Config{}, true)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort(s.Host(), strconv.Itoa(s.Port()))
	return p, func(ctx context.Context, c *Client) (*Exchange, []byte, error) {
		x := &Exchange{Addrs: []string{addr}, URL: url.URL{Scheme: "http", Path: "/"}}
		var body []byte
		err := c.Get(ctx, as, "", x, func(a *Answer) error {
			b, err := a.Bytes(ctx)
			body = append(body, b...)
			return err
		})
		return x, body, err
	}
}

func TestLargeBuffersAreNotKept(t *testing.T) {
	small, large := &body{bytes: make([]byte, 0, maxKept)}, &body{bytes: make([]byte, 0, maxKept+1)}
	large.free()
	small.free()
	for range 100 {
		if b := bodyPool.Get().(*body); cap(b.bytes) > maxKept {
			t.Fatalf("a buffer of %d bytes was kept", cap(b.bytes))
		}
	}
}

// While maxLarge large answers are being read, another large answer waits, and a small one does not.
func TestLargeAnswersTakeTurns(t *testing.T) {
	var size atomic.Int64
	size.Store(3 * maxKept)
	p, get := newPool(t, func(w http.ResponseWriter, r *http.Request, _ []byte) {
		kubelettest.Flood(int(size.Load()), false)(w, r, nil)
	})
	turns := p.config.Turns[0].turns
	others := []string{"a", "b", "c", "d"}
	for _, other := range others {
		if err := turns.Take(t.Context(), other); err != nil {
			t.Fatal(err)
		}
	}
	// On a busy machine it takes a while until the answer has grown to maxKept.
	for timeout := 50 * time.Millisecond; ; timeout *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		x, _, err := get(ctx, p.Client("e"))
		cancel()
		if err == nil {
			t.Fatal("the answer was read while others had all turns")
		}
		if x.Step == WaitingForTurn {
			break
		}
		if timeout > 10*time.Second {
			t.Fatalf("timed out while %s, want while %s", x.Step, WaitingForTurn)
		}
	}
	size.Store(1000)
	if _, body, err := get(t.Context(), p.Client("e")); err != nil || len(body) != int(size.Load()) {
		t.Errorf("a small answer: %d bytes, error %v", len(body), err)
	}
	size.Store(3 * maxKept)
	turns.Give(others[0])
	c := p.Client("e")
	for range 2 * maxLarge { // each gives its turn back
		if _, body, err := get(t.Context(), c); err != nil || len(body) != int(size.Load()) {
			t.Fatalf("a large answer: %d bytes, error %v", len(body), err)
		}
	}
}

func TestClosedClientsAreForgotten(t *testing.T) {
	p := New(Config{})
	one := p.Client("")
	p.Client("")
	one.Close()
	if n := len(p.clients); n != 1 {
		t.Errorf("%d clients after one of two was closed", n)
	}
	p.Close()
	if n := len(p.clients); n != 0 {
		t.Errorf("%d clients after the pool was closed", n)
	}
}
