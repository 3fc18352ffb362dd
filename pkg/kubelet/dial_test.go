package kubelet

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet/kubelettest"
)

func refused(addr string) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED, Addr: fakeAddr(addr)}
}

type fakeAddr string

func (fakeAddr) Network() string  { return "tcp" }
func (a fakeAddr) String() string { return string(a) }

func TestAddresses(t *testing.T) {
	all := []Address{
		{"ExternalIP", "203.0.113.1"},
		{"InternalIP", "10.0.0.1"},
		{"InternalIP", "fd00::1"},
		{"InternalDNS", "n1.internal"},
		{"Hostname", "10.0.0.1"},
		{"ExternalDNS", ""},
	}
	for _, tt := range []struct {
		name   string
		config Config
		port   int32
		addrs  []Address
		want   []string
		err    string
	}{
		{
			"default order, each address once",
			Config{},
			0, all,
			[]string{"10.0.0.1:10250", "n1.internal:10250", "[fd00::1]:10250", "203.0.113.1:10250"},
			"",
		},
		{
			"given order",
			Config{AddressTypes: []string{"InternalIP", "Hostname"}},
			0, all,
			[]string{"10.0.0.1:10250", "[fd00::1]:10250"},
			"",
		},
		{"port in the node's status, not asked for", Config{Port: 4194}, 1234, all[:1], []string{"203.0.113.1:4194"}, ""},
		{
			"port in the node's status, asked for",
			Config{Port: 4194, UseNodeStatusPort: true},
			1234, all[:1],
			[]string{"203.0.113.1:1234"},
			"",
		},
		{
			"no port in the node's status",
			Config{Port: 4194, UseNodeStatusPort: true},
			0, all[:1],
			[]string{"203.0.113.1:4194"},
			"",
		},
		{
			"no address of that type",
			Config{AddressTypes: []string{"Hostname"}},
			0, all[:3],
			nil, `kubelet of node "n1": the node has only addresses of type ExternalIP, InternalIP, none of Hostname`,
		},
		{"no address at all", Config{}, 0, nil, nil, `kubelet of node "n1": the node has no address in its status`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &dials{answer: func(_ context.Context, addr string) (net.Conn, error) { return nil, refused(addr) }}
			tt.config.Rest = &rest.Config{Dial: d.dial}
			c := newClient(t, tt.config, Endpoint{Node: "n1", Addresses: tt.addrs, Port: tt.port})
			cause := "connection refused"
			if tt.err != "" {
				cause = "no address"
			}
			e := failure(t, within(t), c, cause)
			if diff := cmp.Diff(tt.want, d.take()); diff != "" {
				t.Errorf("dialled (-want +got):\n%s", diff)
			}
			if tt.err != "" && e.Error() != tt.err {
				t.Errorf("error %q, want %q", e, tt.err)
			}
			for _, addr := range tt.want {
				if !strings.Contains(e.Error(), addr) {
					t.Errorf("error %q does not name %s", e, addr)
				}
			}
		})
	}
}

func TestPlaces(t *testing.T) {
	name, ip, ip6 := Address{"Hostname", "n1"}, Address{"InternalIP", "10.0.0.1"}, Address{"InternalIP", "fd00::1"}
	for _, tt := range []struct {
		types []string
		path  string
		addrs []Address
		want  []string
	}{
		{nil, "", []Address{ip, ip6}, []string{"10.0.0.1:1/metrics/resource"}},
		{nil, "", []Address{ip, name}, []string{"n1:1/metrics/resource", "10.0.0.1:1/metrics/resource"}},
		{nil, "x?y=z", []Address{ip, name}, []string{"n1:1/x?y=z", "10.0.0.1:1/x?y=z"}},
		{
			nil, "",
			[]Address{ip6, name, ip, ip},
			[]string{"n1:1/metrics/resource", "[fd00::1]:1/metrics/resource", "10.0.0.1:1/metrics/resource"},
		},
		{
			[]string{"Hostname"},
			"",
			[]Address{name, ip, {"ExternalIP", "203.0.113.1"}},
			[]string{"n1:1/metrics/resource", "10.0.0.1:1/metrics/resource"},
		},
		{nil, "", []Address{{"Hostname", "10.0.0.2"}, ip}, []string{"10.0.0.2:1/metrics/resource"}},
		{nil, "", nil, nil},
		{nil, "https://elsewhere.example/", []Address{ip}, nil},
	} {
		s, err := New(Config{AddressTypes: tt.types, UseNodeStatusPort: true})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, s.Places(Endpoint{Node: "n1", Port: 1, Path: tt.path, Addresses: tt.addrs})); d != "" {
			t.Errorf("%v (-want +got):\n%s", tt, d)
		}
		s.Close()
	}
}

// TestFallBack fails the addresses of a node in turn.
func TestFallBack(t *testing.T) {
	f := newFake(t, secure())
	d := &dials{}
	c := config()
	c.Insecure, c.CAData = true, nil
	c.Rest.Dial = d.dial
	client := newClient(t, c, Endpoint{
		Node: "n1", Port: 1, Addresses: []Address{{"Hostname", "a"}, {"InternalIP", "b"}, {"ExternalIP", "c"}},
	})

	for _, step := range []struct {
		name    string
		working string
		want    []string
	}{
		{"the preferred one fails", "bc", []string{"a:1", "b:1"}},
		{"the working one is remembered", "abc", []string{"b:1"}},
		{"the remembered one fails", "ac", []string{"b:1", "a:1"}},
		{"back at the preferred one", "abc", []string{"a:1"}},
		{"two fail", "c", []string{"a:1", "b:1", "c:1"}},
		{"all fail", "", []string{"c:1", "a:1", "b:1"}},
		{"nothing is remembered", "abc", []string{"a:1"}},
	} {
		d.answer = func(ctx context.Context, addr string) (net.Conn, error) {
			if !strings.Contains(step.working, addr[:1]) {
				return nil, refused(addr)
			}
			return f.dialled(ctx)
		}
		if step.working == "" {
			_ = failure(t, within(t), client, "connection refused")
		} else {
			mustFetch(t, client)
			mustFetch(t, client) // dials no more: the connection is open
		}
		if diff := cmp.Diff(step.want, d.take()); diff != "" {
			t.Errorf("%s: dialled (-want +got):\n%s", step.name, diff)
		}
		f.CloseConnections()
	}
}

// A fallback address that accepts connections but fails the handshake, or does not answer, is not
// remembered: it may be one that the kubelet's certificate does not name, or something else. The error
// also says why the preferred address was not used.
func TestFallBackToAnAddressThatDoesNotWork(t *testing.T) {
	noSuchHost := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "a", IsNotFound: true}}
	verified := config()
	unverified := config()
	unverified.Insecure, unverified.CAData = true, nil
	plain := config()
	plain.PlainHTTP, plain.CAData = true, nil
	for _, tt := range []struct {
		name   string
		config Config
		server kubelettest.ServerConfig
		closes bool // the fallback address closes connections; otherwise the kubelet is there
		cause  string
		says   []string
	}{
		{
			"a certificate without it", verified,
			kubelettest.ServerConfig{Certificate: cluster.Server("a")},
			false, "x509",
			[]string{"GET https://b:1/", "lookup a: no such host; ", "x509: certificate is valid for a, not b"},
		},
		{
			"no TLS", unverified, secure(), true, "other",
			[]string{"GET https://b:1/", "lookup a: no such host; io: read/write on closed pipe"},
		},
		{
			"no HTTP", plain,
			kubelettest.ServerConfig{},
			true, "other",
			[]string{"GET http://b:1/"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, tt.server)
			var resolves atomic.Bool
			d := &dials{answer: func(ctx context.Context, addr string) (net.Conn, error) {
				switch {
				case addr == "a:1" && !resolves.Load():
					return nil, noSuchHost
				case addr == "a:1" || !tt.closes:
					return f.dialled(ctx)
				}
				here, there := net.Pipe()
				there.Close()
				return here, nil
			}}
			tt.config.Rest.Dial = d.dial
			client := newClient(t, tt.config, Endpoint{
				Node: "n1", Port: 1, Addresses: []Address{{"Hostname", "a"}, {"InternalIP", "b"}},
			})
			for range 2 {
				e := failure(t, within(t), client, tt.cause)
				for _, says := range tt.says {
					if !strings.Contains(e.Error(), says) {
						t.Errorf("error %q does not say %q", e, says)
					}
				}
				if diff := cmp.Diff([]string{"a:1", "b:1"}, d.take()); diff != "" {
					t.Errorf("while the name cannot be resolved: dialled (-want +got):\n%s", diff)
				}
			}
			resolves.Store(true)
			mustFetch(t, client)
			if diff := cmp.Diff([]string{"a:1"}, d.take()); diff != "" {
				t.Errorf("when it can be resolved again: dialled (-want +got):\n%s", diff)
			}
		})
	}
}

// A fallback address is given up if what answers there is not a working kubelet, even if its connection can be kept.
func TestFallBackToSomethingElse(t *testing.T) {
	f := newFake(t, secure())
	d := &dials{}
	c := config()
	c.Rest.Dial, c.Insecure, c.CAData = d.dial, true, nil
	client := newClient(t, c, Endpoint{
		Node: "n1", Port: 1, Addresses: []Address{{"Hostname", "a"}, {"InternalIP", "b"}},
	})
	notFound, page := kubelettest.Status(http.StatusNotFound, "no"), kubelettest.As("text/html")
	broken := kubelettest.Status(http.StatusInternalServerError, "no")
	for _, step := range []struct {
		name    string
		working string // the addresses that accept connections
		fault   kubelettest.Fault
		cause   string
		want    []string
	}{
		{"something else is at the fallback address", "b", notFound, "404", []string{"a:1", "b:1"}},
		{"it is still there", "b", page, "content type", []string{"a:1", "b:1"}},
		{"now a kubelet is", "b", nil, "", []string{"a:1", "b:1"}},
		{"its connection is kept", "ab", nil, "", nil},
		{"it fails", "ab", broken, "5xx", nil},
		{"so does the kubelet at the preferred address", "ab", broken, "5xx", []string{"a:1"}},
		{"whose connection is kept", "ab", nil, "", nil},
	} {
		d.answer = func(ctx context.Context, addr string) (net.Conn, error) {
			if !strings.Contains(step.working, addr[:1]) {
				return nil, refused(addr)
			}
			return f.dialled(ctx)
		}
		f.SetFault(step.fault)
		if step.cause == "" {
			mustFetch(t, client)
		} else {
			_ = failure(t, within(t), client, step.cause)
		}
		if diff := cmp.Diff(step.want, d.take()); diff != "" {
			t.Errorf("%s: dialled (-want +got):\n%s", step.name, diff)
		}
	}
}

// A fallback address whose handshake succeeds is remembered even if the caller does not wait for the first answer: the
// next request has more time for it.
func TestFallBackThatIsSlow(t *testing.T) {
	f := newFake(t, secure())
	d := &dials{answer: func(ctx context.Context, addr string) (net.Conn, error) {
		if addr == "a:1" {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "a", IsNotFound: true}}
		}
		return f.dialled(ctx)
	}}
	c := config()
	c.Rest.Dial, c.Insecure, c.CAData = d.dial, true, nil
	client := newClient(t, c, Endpoint{
		Node: "n1", Port: 1, Addresses: []Address{{"Hostname", "a"}, {"InternalIP", "b"}},
	})
	f.SetFault(kubelettest.Hang)
	ctx, cancel := context.WithCancel(t.Context())
	f.onRequest(cancel)
	_ = failure(t, ctx, client, "timeout")
	f.onRequest(func() {})
	f.SetFault(nil)
	d.take()
	mustFetch(t, client)
	if diff := cmp.Diff([]string{"b:1"}, d.take()); diff != "" {
		t.Errorf("dialled (-want +got):\n%s", diff)
	}
}

// An address that drops packets leaves time for the next one.
func TestDialLeavesTimeForTheNextAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		d := &dials{answer: func(ctx context.Context, _ string) (net.Conn, error) {
			at = append(at, time.Since(start))
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
		}}
		c := newClient(t, Config{Rest: &rest.Config{Dial: d.dial}}, Endpoint{
			Node: "n1", Addresses: []Address{{"Hostname", "a"}, {"InternalIP", "b"}, {"ExternalIP", "c"}},
		})
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		e := failure(t, ctx, c, "timeout")
		if diff := cmp.Diff([]time.Duration{0, 3 * time.Second, 6 * time.Second}, at); diff != "" {
			t.Errorf("times of dials (-want +got):\n%s", diff)
		}
		if time.Since(start) != 9*time.Second || !strings.Contains(e.Error(), "while connecting") {
			t.Errorf("after %v: %v", time.Since(start), e)
		}
	})
}

// The reported cause is from the address that refused, not from the name that cannot be resolved.
func TestDialThatTimesOutAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dials{answer: func(ctx context.Context, addr string) (net.Conn, error) {
			if addr[0] == 'a' {
				return nil, refused(addr)
			}
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "i/o timeout", Name: "b", IsTimeout: true}}
		}}
		c := newClient(t, Config{Rest: &rest.Config{Dial: d.dial}, AddressTypes: []string{"InternalIP", "Hostname"}},
			Endpoint{Node: "n1", Addresses: []Address{{"InternalIP", "a"}, {"Hostname", "b"}}})
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		e := failure(t, ctx, c, "connection refused")
		if !strings.Contains(e.Error(), "timed out while connecting: ") ||
			!strings.Contains(e.Error(), "lookup b: i/o timeout") {
			t.Errorf("got %v, want the causes of both addresses", e)
		}
	})
}

func TestCausesOfDialFailures(t *testing.T) {
	dns := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "n1", IsNotFound: true}}
	op := func(err error) error { return &net.OpError{Op: "dial", Err: err} }
	for _, tt := range []struct {
		errs  []error
		cause string
	}{
		{[]error{dns}, "dns"},
		{[]error{op(&net.DNSError{Err: "i/o timeout", IsTimeout: true})}, "dns"},
		{[]error{dns, op(syscall.ECONNREFUSED)}, "connection refused"},
		{[]error{dns, op(syscall.EHOSTUNREACH)}, "no route"},
		{[]error{dns, op(syscall.ENETUNREACH)}, "no route"},
		{[]error{dns, op(os.NewSyscallError("connect", syscall.EPERM))}, "no route"}, // a policy enforced by eBPF
		{[]error{op(os.NewSyscallError("connect", syscall.EACCES))}, "no route"},     // a firewall that rejects IPv6
		{[]error{op(context.DeadlineExceeded), dns}, "timeout"},
		{[]error{op(syscall.ETIMEDOUT)}, "timeout"},
		{[]error{op(syscall.ECONNRESET)}, "reset"},
		{[]error{op(syscall.EMFILE)}, "other"},
		{[]error{errors.New("boom")}, "other"},
	} {
		var addrs []Address
		for i := range tt.errs {
			addrs = append(addrs, Address{"InternalIP", string(rune('a' + i))})
		}
		d := &dials{answer: func(_ context.Context, addr string) (net.Conn, error) { return nil, tt.errs[addr[0]-'a'] }}
		c := newClient(t, Config{Rest: &rest.Config{Dial: d.dial}}, Endpoint{Node: "n1", Addresses: addrs})
		e := failure(t, within(t), c, tt.cause)
		for _, err := range tt.errs {
			if !errors.Is(e, err) {
				t.Errorf("%v does not wrap %v", e, err)
			}
		}
	}
}

func TestProxy(t *testing.T) {
	f := newFake(t, secure())
	proxy := newProxy(t)
	for _, scheme := range []string{"http", "socks5"} {
		proxy.take()
		c := config()
		c.Rest.Proxy = func(r *http.Request) (*url.URL, error) {
			if r.URL.Scheme != "https" || r.URL.Host != f.addr() {
				t.Errorf("proxy asked for %v", r.URL)
			}
			return &url.URL{Scheme: scheme, Host: proxy.addr, User: url.UserPassword("me", "pw")}, nil
		}
		client := newClient(t, c, f.endpoint())
		mustFetch(t, client)
		mustFetch(t, client)
		want := []string{"socks5 " + f.addr()}
		if scheme == "http" {
			want = []string{"CONNECT " + f.addr() + " Basic bWU6cHc="}
		}
		if d := cmp.Diff(want, proxy.take()); d != "" {
			t.Errorf("%s proxy was asked (-want +got):\n%s", scheme, d)
		}
	}

	c := config()
	c.Rest.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://127.0.0.1") }
	c.Rest.Dial = func(_ context.Context, _, addr string) (net.Conn, error) { return nil, refused(addr) }
	e := failure(t, within(t), newClient(t, c, f.endpoint()), "proxy")
	if !strings.Contains(e.Error(), "127.0.0.1:80") || !errors.Is(e, syscall.ECONNREFUSED) {
		t.Errorf("error %q does not name the proxy with its port and its fault", e)
	}
	if !strings.Contains(e.Remedy(), "NO_PROXY") {
		t.Errorf("remedy %q", e.Remedy())
	}

	c = config()
	proxy.refuse = true
	c.Rest.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://" + proxy.addr) }
	e = failure(t, within(t), newClient(t, c, f.endpoint()), "proxy")
	if !strings.Contains(e.Error(), "through the proxy "+proxy.addr) || !strings.Contains(e.Error(), "403") {
		t.Errorf("error %q does not say that the proxy refused", e)
	}
}

// If a proxy or a DNS server does not answer in time, the error does not blame the kubelet.
func TestSilentProxyOrDNS(t *testing.T) {
	for _, tt := range []struct {
		cause, remedy, says string
		address             Address
		proxy               func(*http.Request) (*url.URL, error)
		err                 error // when the time is up
	}{
		{
			cause: "proxy", remedy: "NO_PROXY", says: "dial 10.0.0.1:10250 through the proxy p:3128",
			address: Address{"InternalIP", "10.0.0.1"},
			proxy:   func(*http.Request) (*url.URL, error) { return url.Parse("http://me:pw@p:3128") },
			err:     context.DeadlineExceeded,
		},
		{
			cause: "dns", remedy: "InternalIP", says: "lookup node1: i/o timeout", address: Address{"Hostname", "node1"},
			err: &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "i/o timeout", Name: "node1", IsTimeout: true}},
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &dials{answer: func(ctx context.Context, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, tt.err
			}}
			c := newClient(t, Config{Rest: &rest.Config{Dial: d.dial, Proxy: tt.proxy}},
				Endpoint{Node: "n1", Addresses: []Address{tt.address}})
			ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
			defer cancel()
			e := failure(t, ctx, c, tt.cause)
			if text := e.Error(); !strings.Contains(text, "timed out while connecting: ") || !strings.Contains(text, tt.says) ||
				strings.Contains(text, "pw") {
				t.Error(text)
			}
			if !strings.Contains(e.Remedy(), tt.remedy) {
				t.Errorf("remedy %q does not speak of %q", e.Remedy(), tt.remedy)
			}
		})
	}
}

// proxyServer implements as much of HTTP CONNECT and SOCKS 5 as the client needs.
type proxyServer struct {
	addr   string
	refuse bool

	mu    sync.Mutex
	asked []string
}

func (p *proxyServer) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

func newProxy(t *testing.T) *proxyServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxyServer{addr: l.Addr().String()}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); group.Wait() })
	return p
}

func (p *proxyServer) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	var to, note string
	if first, _ := in.Peek(1); len(first) == 1 && first[0] == 5 {
		hello := make([]byte, 2)
		_, _ = io.ReadFull(in, hello)
		_, _ = in.Discard(int(hello[1]))
		_, _ = conn.Write([]byte{5, 0})
		request := make([]byte, 10) // version, connect, 0, IPv4, address, port
		_, _ = io.ReadFull(in, request)
		to = (&net.TCPAddr{IP: request[4:8], Port: int(request[8])<<8 | int(request[9])}).String()
		note = "socks5 " + to
		_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	} else {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		to, note = r.Host, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization")
		if p.refuse {
			_, _ = io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	}
	p.mu.Lock()
	p.asked = append(p.asked, note)
	p.mu.Unlock()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(conn, out); conn.Close() })
	_, _ = io.Copy(out, in)
	out.Close()
	back.Wait()
}
