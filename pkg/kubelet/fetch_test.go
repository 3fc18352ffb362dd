package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
)

func TestFetch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server kubelettest.ServerConfig
		config func(*Config)
	}{
		{"verified", secure(), nil},
		{"gzip", secure(), func(c *Config) { c.Compress = true }},
		{
			"not verified",
			kubelettest.ServerConfig{Certificate: kubelettest.SelfSigned("other")},
			func(c *Config) { c.CAData, c.Insecure = nil, true },
		},
		{"plain HTTP", kubelettest.ServerConfig{}, func(c *Config) { c.CAData, c.PlainHTTP = nil, true }},
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
					if got.CPU != truth.CPU || got.Memory != truth.Memory || got.Time != sample.TimeOf(truth.Time) ||
						got.Start != sample.TimeOf(want.Start) {
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

// The node has an IPv6 address, but its kubelet listens on an IPv4 address, because this machine may lack IPv6.
func TestFetchIPv6(t *testing.T) {
	f := newFake(t, secure())
	c := config()
	c.Rest.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, strings.Replace(addr, "[::1]", "127.0.0.1", 1))
	}
	e := f.endpoint()
	e.Addresses = []Address{{"InternalIP", "::1"}}
	mustFetch(t, newClient(t, c, e))
	if got, want := f.last(t).Host, fmt.Sprintf("[::1]:%d", f.Port()); got != want {
		t.Errorf("Host %q, want %q", got, want)
	}
}

// A route that does not declare what it sends answers 406 unless everything is accepted.
func TestUndeclaredText(t *testing.T) {
	f := newFake(t, secure())
	f.SetFault(func(w http.ResponseWriter, r *http.Request, answer []byte) {
		if !strings.Contains(r.Header.Get("Accept"), "*/*") {
			http.Error(w, "406: Not Acceptable", http.StatusNotAcceptable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(answer)
	})
	mustFetch(t, newClient(t, config(), f.endpoint()))
}

// A kubelet that restarts closes the connection between two scrapes.
func TestKeptConnectionIsGone(t *testing.T) {
	f := newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	for range 3 {
		mustFetch(t, c)
		f.CloseConnections()
	}
	if f.Accepted() != 3 {
		t.Errorf("%d connections, want 3", f.Accepted())
	}
	if f.Resumed() != 2 {
		t.Errorf("%d TLS sessions resumed, want 2", f.Resumed())
	}
}

// The test ends a synctest bubble with an open connection: synctest panics if a goroutine is left.
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
	if !connected(left) {
		t.Fatal("no connection was kept")
	}
	left.Close()
}

func TestCancel(t *testing.T) {
	for name, tt := range map[string]struct {
		fault kubelettest.Fault
		says  string
	}{
		"before the header": {kubelettest.Hang, "canceled while waiting for the answer"},
		"in the body":       {kubelettest.HangAfterHeader, "canceled while "}, // perhaps before the header has arrived
	} {
		f := newFake(t, secure())
		c := newClient(t, config(), f.endpoint())
		f.SetFault(tt.fault)
		ctx, cancel := context.WithCancel(t.Context())
		f.onRequest(cancel)
		e := failure(t, ctx, c, "timeout")
		if !errors.Is(e, context.Canceled) || !strings.Contains(e.Error(), tt.says) {
			t.Errorf("%s: error %v, want one that wraps context.Canceled and says %q", name, e, tt.says)
		}
		if strings.Contains(e.Remedy(), "--kubelet-request-timeout") {
			t.Errorf("%s: remedy %q, but more time would not help", name, e.Remedy())
		}
		f.onRequest(func() {})
		f.SetFault(nil)
		mustFetch(t, c)
		if f.Accepted() != 2 {
			t.Errorf("%s: %d connections: one whose answer never came must not be used again", name, f.Accepted())
		}
	}
}

func TestClose(t *testing.T) {
	f := newFake(t, secure())
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
		if connected(c) {
			t.Error("a closed client holds a connection")
		}
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

func TestPeer(t *testing.T) {
	for _, server := range []kubelettest.ServerConfig{secure(), {}} {
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
		got, want := c.Addresses(), []string{fmt.Sprintf("localhost.invalid:%d", f.Port()), f.addr()}
		if !slices.Equal(got, want) {
			t.Errorf("addresses %q, want %q", got, want)
		}
		mustFetch(t, c)
		addr, cert := c.Peer()
		if addr != f.addr() || (cert == nil) != (server.Certificate == nil) ||
			cert != nil && !cert.Equal(server.Certificate.Leaf) {
			t.Errorf("the peer is %q with certificate %v, want the server", addr, cert)
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
	for annotation, want := range map[string]string{
		"":                 "/metrics/resource",
		" \n":              "/metrics/resource",
		"/custom/metrics":  "/custom/metrics",
		" /custom/metrics": "/custom/metrics",
		"metrics/nodes/b44-path/metrics/resource": "/metrics/nodes/b44-path/metrics/resource",
		"metrics\n":                 "/metrics",
		"metrics/":                  "/metrics/",
		"/":                         "/",
		"*":                         "/*",
		"a b":                       "/a%20b",
		"/metrics?a=b&c=%2F":        "/metrics?a=b&c=%2F",
		"metrics?a=../b:c":          "/metrics?a=../b:c",
		"metrics?":                  "/metrics",
		"/a%2Fb":                    "/a%2Fb",
		"a%3Fb":                     "/a%3Fb",
		"/has@sign:1":               "/has@sign:1",
		"user@evil.example":         "/user@evil.example",
		"/..a/b..":                  "/..a/b..",
		"/a//b":                     "/a//b",
		"\\\\evil.example\\metrics": "/%5C%5Cevil.example%5Cmetrics",
	} {
		e := f.endpoint()
		e.Path = annotation
		c.SetEndpoint(e)
		mustFetch(t, c)
		if got := f.last(t).RequestURI; got != want {
			t.Errorf("%q: requested %q, want %q", annotation, got, want)
		}
	}
	before := len(f.seen())
	for _, annotation := range []string{
		"http://evil.example/", "https://evil.example/metrics", "//evil.example/metrics", " //evil.example/metrics",
		"///metrics", "evil.example:80", "evil.example:80/metrics", ":80", "javascript:x", "?x=y", "/a\nb", "/a\x00",
		"/a#b", "#", "/%zz", "%",
		"/metrics/../exec", "../exec", "..", ".", "/a/./b", "/a/..", "/metrics/%2e%2e/exec", "/metrics/.%2E/exec",
		"/a%2F..%2Fb",
	} {
		e := f.endpoint()
		e.Path = annotation
		c.SetEndpoint(e)
		err := failure(t, within(t), c, "other")
		if !strings.Contains(err.Error(), kubeapi.PathAnnotation) || !strings.Contains(err.Error(), `"n1"`) ||
			!strings.Contains(err.Remedy(), kubeapi.PathAnnotation) {
			t.Errorf("path %q: error %q with remedy %q does not name the annotation and the node", annotation, err, err.Remedy())
		}
	}
	if len(f.seen()) != before {
		t.Error("a request was sent in spite of a bad path")
	}
}

// While all parsers are in use, an answer waits to be parsed.
func TestParsersAreLimited(t *testing.T) {
	f := newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	var taken []*exposition.Parser
	for range cap(c.shared.parsers) {
		taken = append(taken, <-c.shared.parsers)
	}
	_ = timeout(t, c, "waiting for a processor")
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
	interrupted    bool // SetDeadline was called
}

func (c *canned) Write(p []byte) (int, error) { c.unread = c.answer; return len(p), nil }
func (c *canned) SetDeadline(time.Time) error { c.interrupted = true; return nil }
func (c *canned) Close() error                { return nil }
func (c *canned) Read(p []byte) (n int, err error) {
	n = copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// A scrape allocates what net/http needs to write a request and read a header, however much the node
// lists.
func TestAllocations(t *testing.T) {
	const budget = 50
	body := string(node.Append(nil, asked()))
	conn := &canned{
		answer: []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"8000\r\n" + body[:0x8000] + "\r\n2000\r\n" + body[0x8000:0xa000] + "\r\n" +
			hex(len(body)-0xa000) + "\r\n" + body[0xa000:] + "\r\n0\r\n\r\n"),
	}
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
