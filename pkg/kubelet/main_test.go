package kubelet

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
)

func TestMain(m *testing.M) {
	if os.Getenv(benchServer) != "" {
		serveBenchmark()
		return
	}
	goleak.VerifyTestMain(m)
}

const token = "s3cret-token"

var (
	boot    = time.Now().Truncate(time.Second).Add(-time.Hour)
	cluster = kubelettest.NewCA("cluster")
	node    = kubelettest.NewNode(kubelettest.NodeConfig{Seed: 1, Pods: 30, Containers: 2, Boot: boot})
)

func asked() time.Time { return boot.Add(time.Hour) }

// fake is a kubelet with all its requests.
type fake struct {
	*kubelettest.Server
	*kubelettest.Kubelet

	mu       sync.Mutex
	requests []*http.Request
	notify   func() // called with each request
}

// newFake starts a kubelet that accepts token, and client certificates of cluster.
func newFake(t testing.TB, c kubelettest.ServerConfig) *fake {
	t.Helper()
	return start(t, c, &kubelettest.Kubelet{Answer: node.Append, Now: asked})
}

// newOldFake starts a kubelet for a client in a synctest bubble, where it is the year 2000. The
// kubelet itself must stand outside, as what waits for the network keeps a bubble's clock from
// running.
func newOldFake(t testing.TB, c kubelettest.ServerConfig) *fake {
	t.Helper()
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	old := kubelettest.NewNode(kubelettest.NodeConfig{Seed: 1, Pods: 30, Containers: 2, Boot: now.Add(-time.Hour)})
	return start(t, c, &kubelettest.Kubelet{Answer: old.Append, Now: func() time.Time { return now }})
}

func start(t testing.TB, c kubelettest.ServerConfig, k *kubelettest.Kubelet) *fake {
	t.Helper()
	f := &fake{Kubelet: k, notify: func() {}}
	k.Authenticate, k.Path = c.Certificate != nil, "*"
	f.SetToken(token)
	f.OnRequest = func(r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r)
		notify := f.notify
		f.mu.Unlock()
		notify()
	}
	c.ClientCA = cluster.Pool()
	var err error
	if f.Server, err = kubelettest.Serve(f.Kubelet, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Server.Close)
	return f
}

func secure() kubelettest.ServerConfig {
	return kubelettest.ServerConfig{Certificate: cluster.Server("127.0.0.1", "::1", "localhost")}
}

// onRequest has notify called with each request from now on.
func (f *fake) onRequest(notify func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notify = notify
}

func (f *fake) seen() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// last is the last request that f got.
func (f *fake) last(t *testing.T) *http.Request {
	t.Helper()
	seen := f.seen()
	if len(seen) == 0 {
		t.Fatal("no request arrived")
	}
	return seen[len(seen)-1]
}

// endpoint says that a node has one address, f's.
func (f *fake) endpoint() Endpoint {
	return Endpoint{Node: "n1", Addresses: []Address{{"InternalIP", f.Host()}}, Port: int32(f.Port())}
}

// config trusts cluster and shows token.
func config() Config {
	return Config{CAData: cluster.PEM(), UseNodeStatusPort: true, Rest: &rest.Config{BearerToken: token}}
}

// checkFiles is the interval at which httpconn reads CA and certificate files again.
const checkFiles = 10 * time.Second

const (
	maxError  = 600 // bytes of the text of an error: see httpconn
	minPrefix = 8   // bytes of a token that must not be shown
)

// connected reports whether c has an open connection.
func connected(c *Client) bool {
	addr, _ := c.Peer()
	return addr != ""
}

func newClient(t testing.TB, c Config, e Endpoint) *Client {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Client(e)
}

// within returns a context for a Fetch that has to work, so that a test that hangs ends.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// mustFetch does one Fetch and checks that it brought the node's containers.
func mustFetch(t testing.TB, c *Client) *sample.Batch {
	t.Helper()
	var b sample.Batch
	if err := c.Fetch(within(t), &b); err != nil {
		t.Fatal(err)
	}
	if len(b.Containers) != len(node.Containers()) {
		t.Fatalf("%d containers, want %d", len(b.Containers), len(node.Containers()))
	}
	return &b
}

// fetchError does one Fetch that must end in an *Error.
func fetchError(t *testing.T, c *Client) *Error {
	t.Helper()
	var e *Error
	if err := c.Fetch(within(t), &sample.Batch{}); !errors.As(err, &e) {
		t.Fatalf("error %v, want an *Error", err)
	}
	return e
}

// failure does one Fetch that must end in an *Error with that cause.
func failure(t *testing.T, ctx context.Context, c *Client, cause string) *Error {
	t.Helper()
	var b sample.Batch
	err := c.Fetch(ctx, &b)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want an *Error with cause %q", err, cause)
	}
	if e.Cause() != cause {
		t.Fatalf("cause %q, want %q: %v", e.Cause(), cause, err)
	}
	if e.Remedy() == "" {
		t.Errorf("cause %q has no remedy", cause)
	}
	return e
}

// timeout does a Fetch that must time out during the step in says. On a busy machine a short
// timeout may end an earlier step, so the timeout is raised until it does not.
func timeout(t *testing.T, c *Client, says string) *Error {
	t.Helper()
	for d := 50 * time.Millisecond; ; d *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		e := failure(t, ctx, c, "timeout")
		cancel()
		if strings.Contains(e.Error(), says) {
			return e
		}
		if d > 10*time.Second {
			t.Fatalf("error %q after %v does not say %q", e, d, says)
		}
	}
}

func write(t *testing.T, path string, contents []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", contents, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func file(t *testing.T, contents []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, contents)
	return path
}

// dials records the addresses that are dialled and decides the result of each.
type dials struct {
	mu     sync.Mutex
	addrs  []string
	answer func(ctx context.Context, addr string) (net.Conn, error)
}

func (d *dials) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	d.mu.Lock()
	d.addrs = append(d.addrs, addr)
	answer := d.answer
	d.mu.Unlock()
	return answer(ctx, addr)
}

// take returns what was dialled since the last call.
func (d *dials) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	addrs := d.addrs
	d.addrs = nil
	return addrs
}

func (f *fake) addr() string { return net.JoinHostPort(f.Host(), strconv.Itoa(f.Port())) }

// dialled is a connection to f, whatever address was asked for.
func (f *fake) dialled(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", f.addr())
}
