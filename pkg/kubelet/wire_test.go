package kubelet

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
)

// writesRaw writes pieces to the connection as they are. It closes the connection after the client has
// closed it, or at once if hold is false.
func writesRaw(t *testing.T, hold bool, pieces ...string) kubelettest.Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for _, p := range pieces {
			if _, err := io.WriteString(conn, p); err != nil {
				return
			}
		}
		if hold {
			_, _ = io.Copy(io.Discard, conn)
		}
	}
}

const (
	okText  = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	chunked = okText + "Transfer-Encoding: chunked\r\n\r\n"
)

// nodeRows are the rows of a node that has used cpu seconds.
func nodeRows(cpu string) string {
	return "node_cpu_usage_seconds_total " + cpu + "\nnode_memory_working_set_bytes 5000000000\n"
}

func withLength(body string) string {
	return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", okText, len(body), body)
}

func chunk(body string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(body), body) }

// TestFraming sends answers of every framing, whole and broken. Whatever arrived, the next scrape gets
// its own answer.
func TestFraming(t *testing.T) {
	const (
		good      = "" // no cause of a failure
		switching = "switching protocols"
	)
	whole := nodeRows("123")
	half := whole[:len(whole)-8] // in the middle of a number
	other := withLength(nodeRows("666"))
	padded := whole + strings.Repeat("#\n", 5000)
	for _, tt := range []struct {
		name  string
		cause string
		raw   []string
	}{
		{"length", good, []string{withLength(whole)}},
		{
			"the same length twice", good,
			[]string{okText + fmt.Sprintf("Content-Length: %d\r\nContent-Length: %[1]d\r\n\r\n", len(whole)) + whole},
		},
		{"two lengths", "other", []string{okText + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + whole}},
		{"list of lengths", "other", []string{okText + "Content-Length: 5, 6\r\n\r\n" + whole}},
		{"negative length", "other", []string{okText + "Content-Length: -1\r\n\r\n" + whole}},
		{"signed length", "other", []string{okText + "Content-Length: +10\r\n\r\n" + whole}},
		{"length that is no number", "other", []string{okText + "Content-Length: 1e3\r\n\r\n" + whole}},
		{"length beyond 64 bits", "other", []string{okText + "Content-Length: 99999999999999999999\r\n\r\n" + whole}},
		{
			"length beyond the limit", "body too large",
			[]string{okText + "Content-Length: 9223372036854775807\r\n\r\n" + whole},
		},
		{"length that is too long", "reset", []string{okText + "Content-Length: 5000\r\n\r\n" + whole}},
		{
			"length that cuts off a number", "incomplete",
			[]string{okText + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(half)) + whole},
		},
		{
			"length and chunks", good,
			[]string{okText + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(whole) + "0\r\n\r\n"},
		},
		{
			"length, chunks and an answer after them", good,
			[]string{okText + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(whole) + "0\r\n\r\n" + other},
		},

		{"chunks", good, []string{chunked + chunk(whole[:10]) + chunk(whole[10:]) + "0\r\n\r\n"}},
		{"chunks of a byte", good, []string{chunked, strings.Join(mapped(whole, chunk), ""), "0\r\n\r\n"}},
		{"chunks with extensions", good, []string{chunked + fmt.Sprintf("%x;a=b;c\r\n%s\r\n0;d\r\n\r\n", len(whole), whole)}},
		{"trailers", good, []string{chunked + chunk(whole) + "0\r\nX-Checksum: 1\r\n\r\n"}},
		{"chunks that end in a number", "incomplete", []string{chunked + chunk(half) + "0\r\n\r\n"}},
		{"chunks without end", "reset", []string{chunked + chunk(whole)}},
		{"chunk that breaks off", "reset", []string{chunked + "ffff\r\n" + whole}},
		{"chunk of 16 EiB", "reset", []string{chunked + "ffffffffffffffff\r\n" + whole}},
		{"chunk beyond 64 bits", "other", []string{chunked + "10000000000000000\r\n" + whole}},
		{"negative chunk", "other", []string{chunked + "-5\r\n" + whole}},
		{"chunk of no size", "other", []string{chunked + "\r\n" + whole}},
		{"chunk extension of 64 KiB", "other", []string{chunked + "5;" + strings.Repeat("x", 64<<10) + "\r\n" + whole}},
		{
			"trailers of 1 MiB", "other",
			[]string{chunked + chunk(whole) + "0\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 1000) + "\r\n"},
		},
		{
			"encoding and chunks", "other",
			[]string{okText + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunk(whole) + "0\r\n\r\n"},
		},
		{
			"chunks twice", "other",
			[]string{okText + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(whole) + "0\r\n\r\n"},
		},
		{"another transfer encoding", "other", []string{okText + "Transfer-Encoding: identity\r\n\r\n" + whole}},

		{"until the connection ends", good, []string{okText + "Connection: close\r\n\r\n" + whole}},
		{"until the connection ends, in a number", "incomplete", []string{okText + "Connection: close\r\n\r\n" + half}},
		{"until the connection ends, in a name", "incomplete", []string{okText + "\r\n" + whole[:len(whole)-30]}},
		{"HTTP/1.0", good, []string{"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + whole}},
		{"HTTP/1.0, in a number", "incomplete", []string{"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + half}},

		{"nothing", "reset", []string{""}},
		{"no HTTP", "other", []string{"220 smtp.example ESMTP\r\n"}},
		{"HTTP/0.9", "other", []string{whole}},
		{"half a header", "reset", []string{okText}},
		{"no type", "content type", []string{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nx 1"}},
		{
			"another type", "content type",
			[]string{"HTTP/1.1 200 OK\r\nContent-Type: text/plainer\r\nContent-Length: 3\r\n\r\nx 1"},
		},
		{switching, "http", []string{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"}},
		{"no content, and some", "http", []string{"HTTP/1.1 204 No Content\r\n\r\n" + other}},
		{"408", "http", []string{"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"}},
		{"408 that keeps the connection", "http", []string{"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"}},

		{"informational", good, []string{"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + withLength(whole)}},
		{
			"informational, with a length", good,
			[]string{"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n" + withLength(whole)},
		},
		{"8 informational", good, []string{strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 8) + withLength(whole)}},
		{"9 informational", "other", []string{strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9) + withLength(whole)}},
		{
			"large informational", "other",
			[]string{strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("x", 20<<10)+"\r\n\r\n", 4) +
				withLength(whole)},
		},

		{"another answer behind it", good, []string{withLength(whole) + other}},
		{"another answer behind a long one", good, []string{withLength(padded) + other}},
		{"another answer behind it, in the next record", good, []string{withLength(whole), other}},
		{"another answer behind chunks", good, []string{chunked + chunk(padded) + "0\r\n\r\n" + other}},
		{"a line break behind it", good, []string{withLength(whole) + "\r\n"}},
		{"a byte behind it", good, []string{withLength(padded) + "x"}},
	} {
		for _, plain := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, plain %v", tt.name, plain), func(t *testing.T) {
				server, config := secure(), config()
				if plain {
					server, config.CAData, config.PlainHTTP = kubelettest.ServerConfig{}, nil, true
				}
				f := newFake(t, server)
				d := dialling(&config)
				c := newClient(t, config, f.endpoint())
				for _, kept := range []bool{false, true} { // on a new connection and on one that was used before
					if kept {
						mustFetch(t, c)
					}
					more := strings.Contains(tt.name, "behind") || strings.Contains(tt.name, "after")
					f.SetFault(writesRaw(t, more || tt.name == switching, tt.raw...))
					var b sample.Batch
					if tt.cause == good {
						if err := c.Fetch(within(t), &b); err != nil || b.Node.CPU != 123e9 || b.Node.Memory != 5e9 {
							t.Fatalf("kept %v: error %v, node %+v", kept, err, b.Node)
						}
					} else {
						_ = failure(t, within(t), c, tt.cause)
					}
					if tt.name == switching && connected(c) {
						t.Fatal("a connection that no longer speaks HTTP was kept")
					}
					f.SetFault(nil)
					if more {
						d.awaitBytes(t, c)
					}
					if b := mustFetch(t, c); b.Node.CPU == 666e9 {
						t.Fatal("an unsolicited answer was used")
					}
				}
			})
		}
	}
}

// lastDialled is the last TCP connection that a client opened.
type lastDialled struct{ syscall.Conn }

// dialling makes c record its connections.
func dialling(c *Config) *lastDialled {
	d := &lastDialled{}
	c.Rest.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			d.Conn = conn.(syscall.Conn)
		}
		return conn, err
	}
	return d
}

// awaitBytes waits until bytes that a kubelet sent on c's idle connection, or its end, have arrived.
func (d *lastDialled) awaitBytes(t *testing.T, c *Client) {
	t.Helper()
	if !connected(c) {
		return
	}
	raw, err := d.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(func(fd uintptr) bool {
		_, _, err = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err != syscall.EAGAIN //nolint:errorlint // a system call's error is never wrapped
	}); err != nil {
		t.Fatal(err)
	}
}

func mapped(s string, f func(string) string) []string {
	var out []string
	for i := range s {
		out = append(out, f(s[i:i+1]))
	}
	return out
}

// Informational answers do not close the connection.
func TestInformationalAnswers(t *testing.T) {
	f := newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	for _, code := range []int{100, 102, 103} {
		f.SetFault(func(w http.ResponseWriter, r *http.Request, answer []byte) {
			w.WriteHeader(code)
			kubelettest.Answer(w, r, answer)
		})
		mustFetch(t, c)
		mustFetch(t, c)
	}
	if n := f.Accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// Anything that arrives on an idle connection makes the next scrape open a new one: a 408, an
// unsolicited answer, or a byte.
func TestIdleConnectionSpeaks(t *testing.T) {
	for name, unasked := range map[string]string{
		"408":       "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		"an answer": withLength(nodeRows("666")),
		"garbage":   "\x00",
		"an end":    "",
	} {
		for _, hold := range []bool{false, true} {
			f, config := newFake(t, secure()), config()
			d := dialling(&config)
			c := newClient(t, config, f.endpoint())
			sent := make(chan struct{})
			f.SetFault(func(w http.ResponseWriter, r *http.Request, _ []byte) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, withLength(nodeRows("123")))
				<-sent
				_, _ = io.WriteString(conn, unasked)
				sent <- struct{}{}
				if hold {
					_, _ = io.Copy(io.Discard, conn)
				}
			})
			if err := c.Fetch(within(t), &sample.Batch{}); err != nil {
				t.Fatal(err)
			}
			if !connected(c) {
				t.Fatal("the connection was not kept: there is nothing to test")
			}
			f.SetFault(nil)
			sent <- struct{}{}
			<-sent
			if unasked != "" || !hold {
				d.awaitBytes(t, c)
				mustFetch(t, c)
				if n := f.Accepted(); n != 2 {
					t.Errorf("%s: %d connections, want 2", name, n)
				}
			}
		}
	}
}

// A 408 that crosses a request on a kept connection does not fail the scrape either.
func TestRequestTimeoutOfAKeptConnection(t *testing.T) {
	f := newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	for _, keep := range []string{"", "Connection: close\r\n"} {
		mustFetch(t, c)
		before := len(f.seen())
		f.SetFault(func(w http.ResponseWriter, r *http.Request, answer []byte) {
			f.SetFault(nil)
			writesRaw(t, false, "HTTP/1.1 408 Request Timeout\r\n"+keep+"Content-Length: 0\r\n\r\n")(w, r, answer)
		})
		mustFetch(t, c)
		if n := len(f.seen()) - before; n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	}
}

// After a panic in the parser, the connection is not used again, and the end of the context does not
// interrupt anything.
func TestPanicLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dialled []*canned
		c := newClient(t, Config{PlainHTTP: true, Rest: &rest.Config{
			Dial: func(context.Context, string, string) (net.Conn, error) {
				dialled = append(dialled, &canned{answer: []byte(withLength(nodeRows("123")))})
				return dialled[len(dialled)-1], nil
			},
		}}, Endpoint{Node: "n1", Addresses: []Address{{"Hostname", "n1"}}})
		ctx, cancel := context.WithCancel(t.Context())
		func() {
			defer func() {
				if recover() == nil {
					t.Fatal("no panic: there is nothing to test")
				}
			}()
			_ = c.Fetch(ctx, nil)
		}()
		cancel()
		synctest.Wait()
		if dialled[0].interrupted {
			t.Error("the end of the context interrupts the connection after the panic")
		}
		if err := c.Fetch(t.Context(), &sample.Batch{}); err != nil {
			t.Error(err)
		}
		if n := len(dialled); n != 2 {
			t.Errorf("%d connections: one with an unknown state must not be used again", n)
		}
		if len(c.shared.parsers) != cap(c.shared.parsers) {
			t.Error("the parser was not given back")
		}
	})
}

// The authority of the kubelets is not used to verify a proxy.
func TestUntrustedProxy(t *testing.T) {
	p := newFake(t, secure()) // its CA is not the system's
	for _, plain := range []bool{true, false} {
		c := config()
		if plain {
			c.PlainHTTP, c.CAData = true, nil
		}
		c.Rest = &rest.Config{Proxy: func(*http.Request) (*url.URL, error) { return url.Parse("https://" + p.addr()) }}
		e := failure(t, within(t), newClient(t, c, p.endpoint()), "proxy")
		if n := p.Accepted(); !strings.Contains(e.Error(), "certificate") || plain && n != 1 || !plain && n != 2 {
			t.Errorf("plain %v: %d connections to the proxy, %v", plain, n, e)
		}
	}
}

// HTTP/2 is not used even if the kubelet offers it: an idle HTTP/2 connection has a reader, and a
// kubelet that sends frames without end would keep it busy.
func TestHTTP2IsNotSpoken(t *testing.T) {
	server := secure()
	server.HTTP2 = true
	f := newFake(t, server)
	c := newClient(t, config(), f.endpoint())
	for range 2 {
		mustFetch(t, c)
	}
	if proto, n := f.last(t).Proto, f.Accepted(); proto != "HTTP/1.1" || n != 1 {
		t.Errorf("requests by %s over %d connections, want HTTP/1.1 over 1", proto, n)
	}
}

// script is a connection to a kubelet that sends first, and then block without end. It counts the bytes
// that were read.
type script struct {
	net.Conn
	first, block string
	read         int64
}

func (s *script) Write(p []byte) (int, error) { return len(p), nil }
func (s *script) SetDeadline(time.Time) error { return nil }
func (s *script) Close() error                { return nil }
func (s *script) Read(p []byte) (n int, err error) {
	if s.first == "" {
		s.first = s.block
	}
	if s.first == "" {
		return 0, io.EOF
	}
	n = copy(p, s.first)
	s.first = s.first[n:]
	s.read += int64(n)
	return n, nil
}

// TestCostOfAnAnswer sends answers without end, in every accepted form and in some others: the bytes
// read and the bytes allocated stay within a few times the limit of an answer.
func TestCostOfAnAnswer(t *testing.T) {
	const limit = 2 << 20
	const onWire = limit + limit/8 + 3*(64<<10) // framing, header, and what is read ahead
	zipped := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, s)
		z.Close()
		return b.String()
	}
	lines := strings.Repeat("# x\n", 1<<10)
	gzipped := okText + "Content-Encoding: gzip\r\n\r\n"
	containers := func() string {
		var b strings.Builder
		for i := 0; b.Len() < limit-100; i++ {
			fmt.Fprintf(&b, "container_swap_usage_bytes{pod=\"%x\",namespace=\"n\",container=\"c\"}0\n", i)
		}
		return b.String()
	}
	for name, s := range map[string]*script{
		"until the connection ends":  {first: okText + "\r\n", block: lines},
		"chunks":                     {first: chunked, block: chunk(lines)},
		"chunks of a byte":           {first: chunked, block: strings.Repeat(chunk("\n"), 1000)},
		"chunks of a byte, extended": {first: chunked, block: strings.Repeat("1;xxxxxxxxxxxxx\r\n\n\r\n", 1000)},
		"one chunk":                  {first: chunked + "fffffffffff\r\n", block: lines},
		"trailers":                   {first: chunked + "0\r\n", block: "X: x\r\n"},
		"containers":                 {first: withLength(containers())},
		"header":                     {first: okText, block: "X: x\r\n"},
		"one field of the header":    {first: okText + "X: ", block: lines[:3]},
		"informational":              {block: "HTTP/1.1 103 Early Hints\r\nX: x\r\n\r\n"},
		"gzip bomb":                  {first: gzipped, block: zipped(strings.Repeat(lines, 1<<10))},
		"gzip, empty blocks": {
			first: gzipped + "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", block: strings.Repeat("\x00\x00\x00\xff\xff", 1000),
		},
		"gzip, empty members": {first: gzipped, block: zipped("")},
		"gzip, endless name":  {first: gzipped + "\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xff", block: "name"},
		"protobuf": {
			first: "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.google.protobuf;" +
				"proto=io.prometheus.client.MetricFamily;encoding=delimited\r\n\r\n",
			block: "\x22\x00",
		},
		"brotli":                 {first: okText + "Content-Encoding: br\r\n\r\n", block: lines},
		"a refusal":              {first: "HTTP/1.1 500 Internal Server Error\r\n\r\n", block: lines},
		"an endless status line": {first: "HTTP/1.1 200 ", block: "O"},
	} {
		for _, compress := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, gzip asked for %v", name, compress), func(t *testing.T) {
				s := *s
				c := newClient(t, Config{PlainHTTP: true, MaxBody: limit, Compress: compress, Rest: &rest.Config{
					Dial: func(context.Context, string, string) (net.Conn, error) { return &s, nil },
				}}, Endpoint{Node: "n1", Addresses: []Address{{"Hostname", "n1"}}})
				ctx := within(t)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := c.Fetch(ctx, &sample.Batch{})
				runtime.ReadMemStats(&after)
				if ctx.Err() != nil || name != "containers" && !errors.As(err, new(*Error)) {
					t.Fatalf("error %v", err)
				}
				if s.read > onWire {
					t.Errorf("%d bytes were read from the connection: %v", s.read, err)
				}
				if got := after.TotalAlloc - before.TotalAlloc; got > 6*limit {
					t.Errorf("%d bytes were allocated for %d bytes received: %v", got, s.read, err)
				}
			})
		}
	}
}
