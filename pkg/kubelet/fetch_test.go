package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
)

func TestFetch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server kubelettest.ServerConfig
		config func(*Config)
		proto  string
	}{
		{"HTTP/1.1", secure(), nil, "HTTP/1.1"},
		{"HTTP/2", kubelettest.ServerConfig{Certificate: secure().Certificate, HTTP2: true}, nil, "HTTP/2.0"},
		{"IPv6", kubelettest.ServerConfig{Certificate: secure().Certificate, Addr: "[::1]:0"}, nil, "HTTP/1.1"},
		{"IPv6 and HTTP/2", kubelettest.ServerConfig{Certificate: secure().Certificate, Addr: "[::1]:0", HTTP2: true}, nil, "HTTP/2.0"},
		{"gzip", secure(), func(c *Config) { c.Compress = true }, "HTTP/1.1"},
		{"gzip and HTTP/2", kubelettest.ServerConfig{Certificate: secure().Certificate, HTTP2: true}, func(c *Config) { c.Compress = true }, "HTTP/2.0"},
		{"not verified", kubelettest.ServerConfig{Certificate: kubelettest.SelfSigned("other")}, func(c *Config) { c.CAData, c.Insecure = nil, true }, "HTTP/1.1"},
		{"plain HTTP", kubelettest.ServerConfig{}, func(c *Config) { c.CAData, c.PlainHTTP = nil, true }, "HTTP/1.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, tt.server)
			config := config()
			if tt.config != nil {
				tt.config(&config)
			}
			c := newClient(t, config, f.endpoint())
			for range 3 {
				b := mustFetch(t, c)
				for i, want := range node.Containers() {
					truth, _ := node.Container(i, asked())
					got := b.Containers[i]
					if *got.ID != sample.NewContainerID(want.Namespace, want.Pod, want.Name) {
						t.Fatalf("container %d is %v", i, *got.ID)
					}
					if got.CPU != truth.CPU || got.Memory != truth.Memory || got.Time != sample.TimeOf(truth.Time) || got.Start != sample.TimeOf(want.Start) {
						t.Fatalf("container %d: %+v, want %+v", i, got.Sample, truth)
					}
				}
				if self := node.Self(asked()); b.Node.CPU != self.CPU || b.Node.Memory != self.Memory {
					t.Fatalf("node: %+v, want %+v", b.Node, self)
				}
			}
			if f.Accepted() != 1 {
				t.Errorf("3 scrapes took %d connections, want 1", f.Accepted())
			}
			r := f.last(t)
			if r.Proto != tt.proto {
				t.Errorf("request by %s, want %s", r.Proto, tt.proto)
			}
			encoding := ""
			if config.Compress {
				encoding = "gzip"
			}
			if got := r.Header.Get("Accept-Encoding"); got != encoding {
				t.Errorf("Accept-Encoding %q, want %q", got, encoding)
			}
			if got := r.Header.Get("Accept"); !strings.HasPrefix(got, "text/plain;version=0.0.4") {
				t.Errorf("Accept %q does not ask for text 0.0.4 first", got)
			}
			if r.Header.Get("User-Agent") != rest.DefaultKubernetesUserAgent() {
				t.Errorf("User-Agent %q", r.Header.Get("User-Agent"))
			}
			if r.Host != f.addr() {
				t.Errorf("Host %q, want %q", r.Host, f.addr())
			}
		})
	}
}

func TestFetchProtobuf(t *testing.T) {
	f := newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	var names [2][]sample.ContainerID
	for i, capture := range []struct{ file, contentType string }{
		{"testdata/resource.txt", kubelettest.ContentType},
		{"testdata/resource.protobuf", "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=underscores"},
	} {
		answer, err := os.ReadFile(capture.file)
		if err != nil {
			t.Fatal(err)
		}
		f.SetFault(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			w.Header().Set("Content-Type", capture.contentType)
			_, _ = w.Write(answer)
		})
		var b sample.Batch
		if err := c.Fetch(within(t), &b); err != nil {
			t.Fatal(err)
		}
		for _, c := range b.Containers {
			names[i] = append(names[i], *c.ID)
		}
	}
	if d := cmp.Diff(names[0], names[1], cmp.AllowUnexported(sample.ContainerID{})); d != "" || len(names[0]) == 0 {
		t.Errorf("containers of a text and of a protobuf answer of one kubelet (-text +protobuf):\n%s", d)
	}
}

// TestKeptConnectionIsGone closes the connection between two scrapes, as a kubelet does that restarts.
func TestKeptConnectionIsGone(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		server := secure()
		server.HTTP2 = http2
		f := newFake(t, server)
		c := newClient(t, config(), f.endpoint())
		for range 3 {
			mustFetch(t, c)
			f.CloseConnections()
		}
		if f.Accepted() != 3 {
			t.Errorf("HTTP/2 %v: %d connections, want 3", http2, f.Accepted())
		}
		if f.Resumed() != 2 {
			t.Errorf("HTTP/2 %v: %d TLS sessions resumed, want 2", http2, f.Resumed())
		}
	}
}

// TestIdleConnectionHasNoGoroutine ends a bubble with an open connection: synctest panics if
// a goroutine of the bubble is left.
func TestIdleConnectionHasNoGoroutine(t *testing.T) {
	f := newOldFake(t, secure())
	var left *Client
	synctest.Test(t, func(t *testing.T) {
		s, err := New(config())
		if err != nil {
			t.Fatal(err)
		}
		left = s.Client(f.endpoint())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := left.Fetch(ctx, &sample.Batch{}); err != nil {
			t.Fatal(err)
		}
	})
	if left.conn == nil {
		t.Fatal("no connection was kept")
	}
	left.Close()
}

func TestCancel(t *testing.T) {
	for name, fault := range map[string]kubelettest.Fault{"before the header": kubelettest.Hang, "in the body": kubelettest.HangAfterHeader} {
		for _, http2 := range []bool{false, true} {
			server := secure()
			server.HTTP2 = http2
			f := newFake(t, server)
			c := newClient(t, config(), f.endpoint())
			f.SetFault(fault)
			ctx, cancel := context.WithCancel(t.Context())
			f.onRequest(cancel)
			if err := c.Fetch(ctx, &sample.Batch{}); err != context.Canceled { //nolint:errorlint // as the caller may compare it too
				t.Errorf("%s: error %v, want exactly context.Canceled", name, err)
			}
			f.onRequest(func() {})
			f.SetFault(nil)
			mustFetch(t, c)
			if f.Accepted() != 2 {
				t.Errorf("%s: %d connections: one whose answer never came must not be used again", name, f.Accepted())
			}
		}
	}
}

func TestClose(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		server := secure()
		server.HTTP2 = http2
		f := newFake(t, server)
		s, err := New(config())
		if err != nil {
			t.Fatal(err)
		}
		idle, busy := s.Client(f.endpoint()), s.Client(f.endpoint())
		mustFetch(t, idle)
		f.SetFault(kubelettest.Hang)
		f.onRequest(s.Close)
		_ = failure(t, within(t), busy, "other")
		s.Close() // again: once more is no harm, and it waits for nothing
		for _, c := range []*Client{idle, busy} {
			if e := failure(t, within(t), c, "other"); !errors.Is(e, net.ErrClosed) {
				t.Errorf("Fetch after Close: %v", e)
			}
			if c.conn != nil {
				t.Error("a closed client holds a connection")
			}
		}
		s.mu.Lock() // the request's Close may still be at work
		if len(s.open) != 0 {
			t.Error("closed clients are still known")
		}
		s.mu.Unlock()
	}
}

func TestSetEndpoint(t *testing.T) {
	f, g := newFake(t, secure()), newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	mustFetch(t, c)

	e := f.endpoint()
	e.Path = "/metrics/resource?again"
	c.SetEndpoint(e)
	mustFetch(t, c)
	if f.last(t).RequestURI != e.Path || f.Accepted() != 1 {
		t.Errorf("a new path: request for %s on connection %d, want %s on 1", f.last(t).RequestURI, f.Accepted(), e.Path)
	}
	c.SetEndpoint(g.endpoint())
	mustFetch(t, c)
	if len(g.seen()) != 1 || len(f.seen()) != 2 {
		t.Errorf("a new address: %d and %d requests at the old and the new one, want 2 and 1", len(f.seen()), len(g.seen()))
	}
}

// What is said of a kubelet is that of the connection, whichever protocol it speaks.
func TestPeer(t *testing.T) {
	http2 := secure()
	http2.HTTP2 = true
	for _, server := range []kubelettest.ServerConfig{secure(), http2, {}} {
		f := newFake(t, server)
		with := config()
		if server.Certificate == nil {
			with.PlainHTTP, with.CAData = true, nil
		}
		e := f.endpoint()
		e.Addresses = append([]Address{{"Hostname", "localhost.invalid"}}, e.Addresses...)
		with.AddressTypes = []string{"Hostname", "InternalIP"}
		c := newClient(t, with, e)

		if addr, cert := c.Peer(); addr != "" || cert != nil {
			t.Errorf("before a connection: %q, %v", addr, cert)
		}
		if got, want := c.Addresses(), []string{fmt.Sprintf("localhost.invalid:%d", f.Port()), f.addr()}; !slices.Equal(got, want) {
			t.Errorf("addresses %q, want %q", got, want)
		}
		mustFetch(t, c)
		addr, cert := c.Peer()
		if addr != f.addr() || (cert == nil) != (server.Certificate == nil) || cert != nil && !cert.Equal(server.Certificate.Leaf) {
			t.Errorf("HTTP/2 %t: %q, %v", server.HTTP2, addr, cert)
		}
		c.Close()
		if addr, _ := c.Peer(); addr != "" {
			t.Errorf("after Close: %q", addr)
		}
	}
}

func TestPathAnnotation(t *testing.T) {
	f := newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	for _, path := range []string{"/custom/metrics", "/metrics?a=b&c=%2F", "/a%2Fb", "/has@sign:1"} {
		e := f.endpoint()
		e.Path = path
		c.SetEndpoint(e)
		mustFetch(t, c)
		if got := f.last(t).RequestURI; got != path {
			t.Errorf("requested %q, want %q", got, path)
		}
	}
	before := len(f.seen())
	for _, path := range []string{
		"metrics", "http://evil.example/", "https://evil.example/metrics", "//evil.example/metrics",
		"evil.example:80", "?x=y", "*", "/a\nb", "/a#b", "/%zz", " /a",
	} {
		e := f.endpoint()
		e.Path = path
		c.SetEndpoint(e)
		if err := failure(t, within(t), c, "other"); !strings.Contains(err.Error(), PathAnnotation) || !strings.Contains(err.Error(), `"n1"`) {
			t.Errorf("path %q: error %q does not name the annotation and the node", path, err)
		}
	}
	if len(f.seen()) != before {
		t.Error("a request was sent in spite of a bad path")
	}
}

// TestParsersAreLimited takes all parsers away: the answer has arrived but waits to be parsed.
func TestParsersAreLimited(t *testing.T) {
	f := newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	var taken []*exposition.Parser
	for range cap(c.shared.parsers) {
		taken = append(taken, <-c.shared.parsers)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if e := failure(t, ctx, c, "timeout"); !strings.Contains(e.Error(), "waiting for a processor") {
		t.Error(e)
	}
	for _, p := range taken {
		c.shared.parsers <- p
	}
	mustFetch(t, c)
	if len(c.shared.parsers) != cap(c.shared.parsers) {
		t.Error("a parser was not given back")
	}
}

// canned is a connection to a kubelet that gives the same answer again and again, without any work.
type canned struct {
	net.Conn
	answer, unread []byte
}

func (c *canned) Write(p []byte) (int, error) { c.unread = c.answer; return len(p), nil }
func (c *canned) SetDeadline(time.Time) error { return nil }
func (c *canned) Close() error                { return nil }
func (c *canned) Read(p []byte) (n int, err error) {
	n = copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// TestAllocations holds a scrape to what net/http needs to write a request and read a header: the
// number does not depend on how much the node lists.
func TestAllocations(t *testing.T) {
	const budget = 50
	body := string(node.Append(nil, asked()))
	conn := &canned{answer: []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"8000\r\n" + body[:0x8000] + "\r\n2000\r\n" + body[0x8000:0xa000] + "\r\n" + hex(len(body)-0xa000) + "\r\n" + body[0xa000:] + "\r\n0\r\n\r\n")}
	c := newClient(t, Config{PlainHTTP: true, Rest: &rest.Config{
		Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}, Endpoint{Node: "n1", Addresses: []Address{{"Hostname", "n1"}}})
	ctx := within(t)
	var b sample.Batch
	if n := testing.AllocsPerRun(100, func() {
		if err := c.Fetch(ctx, &b); err != nil {
			t.Fatal(err)
		}
	}); n > budget {
		t.Errorf("%v allocations for a scrape, want at most %d", n, budget)
	}
}

func hex(n int) string {
	const digits = "0123456789abcdef"
	s := ""
	for ; n > 0; n /= 16 {
		s = string(digits[n%16]) + s
	}
	return s
}
