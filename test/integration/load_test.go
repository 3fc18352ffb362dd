//go:build integration

package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
)

// crowd is a fleet with so many pods that they do not exist in the API server: a proxy in front of
// it generates them.
const (
	crowdNodes = 10
	crowdPods  = 5000

	crowdResolution = 5 * time.Second
)

// newCrowd starts a server for crowdPods pods, with variables of the environment. It also speaks HTTP/2.
func newCrowd(t *testing.T, env ...string) (*fleet, *metricsServer) {
	t.Helper()
	api := newFlakyAPI(t)
	f := newFleet(t, 0, 0)
	f.api, f.env = api.url, env
	for i := range crowdNodes {
		n := &fakeNode{name: fmt.Sprintf("%s-%d", f.name, i), says: kubelettest.NewNode(kubelettest.NodeConfig{
			Seed: hash(f.name) + uint64(i), Pods: crowdPods / crowdNodes, Containers: 2,
			Boot: time.Now().Add(-time.Hour), RequestTime: true,
		})}
		f.serve(t, n, false)
		f.registerNode(t, n)
		f.nodes = append(f.nodes, n)
	}
	api.fail(at(f.podObjects, apiPods))
	s := startServer(t, f, "--metric-resolution="+crowdResolution.String(), "--disable-http2-serving=false")
	s.ready(t)
	return f, s
}

// podObjects answers lists and watches of pods with those of f's kubelets.
func (f *fleet) podObjects(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("Content-Type", "application/json")
	q, kind := r.URL.Query(), `"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1"`
	before := `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1",` +
		`"metadata":{"resourceVersion":"1"},"items":[`
	between, after := ",", `]}`
	if q.Get("watch") != "" {
		before, between = "", "\n"
		after = `{"type":"BOOKMARK","object":{` + kind +
			`,"metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"
	}
	if q.Get("watch") == "" || q.Get("sendInitialEvents") == "true" {
		sep := before
		for _, n := range f.nodes {
			for _, c := range n.says.Containers() {
				if c.Name != "c0" {
					continue
				}
				pod := fmt.Sprintf(
					`{%s,"metadata":{"name":%q,"namespace":%q,"uid":"%s-%s","resourceVersion":"1",`+
						`"labels":{"app":"web","fleet":%q,"pod-template-hash":"5d4f8c7b9"}}}`,
					kind, c.Pod, c.Namespace, c.Namespace, c.Pod, f.name,
				)
				if between == "\n" {
					pod = `{"type":"ADDED","object":` + pod + `}`
				}
				_, _ = io.WriteString(w, sep+pod)
				sep = between
			}
		}
		_, _ = io.WriteString(w, "\n"+after)
	}
	if q.Get("watch") != "" {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	return true
}

// memory is the memory of the process in MiB, except pages of its binary, which the kernel reclaims before it kills.
func (s *metricsServer) memory() (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			return kib >> 10, err
		}
	}
	return 0, fmt.Errorf("no RssAnon in %q", status)
}

// watchMemory samples the memory of the process until stop is called, which returns the maximum.
func (s *metricsServer) watchMemory(t *testing.T) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		most := 0
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			now, err := s.memory()
			if err != nil {
				t.Errorf("the server's memory: %v", err)
				break
			}
			most = max(most, now)
		}
		done <- most
	}()
	return func() int {
		cancel()
		return <-done
	}
}

// goroutines returns the number of goroutines that the process reports.
func (s *metricsServer) goroutines(t *testing.T, monitor string) int {
	t.Helper()
	_, body, err := s.get("/metrics", monitor)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
	}
	t.Fatal("no go_goroutines")
	return 0
}

// descriptors returns how many files and connections the process has open.
func (s *metricsServer) descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// prober requests /livez continuously until stop is called, which returns how long each answer
// took. It is a process of its own, like the kubelet: a goroutine among hundreds of clients would
// have to wait for them.
func (s *metricsServer) prober(t *testing.T) (stop func() []time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), probeVariable+"="+s.url+"/livez")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (took []time.Duration) {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the prober: %v", err)
		}
		for line := range strings.Lines(out.String()) {
			d, err := time.ParseDuration(strings.TrimSpace(line))
			if err != nil {
				t.Errorf("/livez: %s", line)
				continue
			}
			took = append(took, d)
		}
		slices.Sort(took)
		return took
	}
}

// probeVariable is the environment variable of a prober with the URL to probe.
const probeVariable = "INTEGRATION_PROBE"

// probe requests url until standard input ends, over a new connection each time like the kubelet,
// and prints how long each answer took, or the error.
func probe(url string, out io.Writer) {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	client := insecure()
	client.Transport.(*http.Transport).DisableKeepAlives = true
	s := &metricsServer{url: url, http: client}
	for {
		start := time.Now()
		if err := s.ok(""); err != nil {
			_, _ = fmt.Fprintf(out, "%v: %v\n", time.Since(start), err)
		} else {
			_, _ = fmt.Fprintln(out, time.Since(start))
		}
		select {
		case <-ended:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))].Round(time.Millisecond)
}

// form is how a client asks for a list.
type form struct {
	name, accept, encoding string
	http2                  bool
}

var forms = []form{
	{name: "json", accept: "application/json"},
	{name: "json-gzip", accept: "application/json", encoding: "gzip"},
	{name: "json-http2", accept: "application/json", http2: true}, // all over one connection
	{name: "protobuf", accept: "application/vnd.kubernetes.protobuf"},
	{name: "table", accept: "application/json;as=Table;g=meta.k8s.io;v=v1"},
	{name: "yaml", accept: "application/yaml"},
}

// listers runs n clients that list all pods until stop is called, which returns the numbers of
// complete lists and of rejections with Retry-After, by form.
func (s *metricsServer) listers(t *testing.T, n int, token string) (stop func() (served, turnedAway map[string]int)) {
	t.Helper()
	type result struct {
		form string
		code int
	}
	ctx, cancel := context.WithCancel(t.Context())
	results, counted := make(chan result), make(chan struct{})
	served, turnedAway := map[string]int{}, map[string]int{}
	go func() {
		defer close(counted)
		for r := range results {
			if r.code == http.StatusOK {
				served[r.form]++
			} else {
				turnedAway[r.form]++
			}
		}
	}()
	var clients sync.WaitGroup
	shared := map[string]*http.Client{}
	for _, f := range forms {
		shared[f.name] = insecure()
		transport := shared[f.name].Transport.(*http.Transport)
		transport.ForceAttemptHTTP2, transport.MaxIdleConnsPerHost = f.http2, n
		transport.DisableCompression = true
		shared[f.name].Timeout = patience
	}
	for i := range n {
		f := forms[i%len(forms)]
		clients.Go(func() {
			for ctx.Err() == nil {
				code, err := listOnce(ctx, shared[f.name], s.url+podsPath, token, f)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("%s: %v", f.name, err)
					return
				}
				results <- result{f.name, code}
				if code == http.StatusTooManyRequests {
					time.Sleep(time.Second)
				}
			}
		})
	}
	return func() (map[string]int, map[string]int) {
		cancel()
		clients.Wait()
		close(results)
		<-counted
		for _, c := range shared {
			c.CloseIdleConnections()
		}
		return served, turnedAway
	}
}

// listOnce reads a list to its end, and checks that it is one.
func listOnce(ctx context.Context, c *http.Client, url, token string, f form) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", f.accept)
	if f.encoding != "" {
		req.Header.Set("Accept-Encoding", f.encoding)
	}
	r, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	n, err := io.Copy(io.Discard, r.Body)
	switch {
	case err != nil:
		return 0, fmt.Errorf("after %d bytes: %w", n, err)
	case r.StatusCode == http.StatusTooManyRequests && r.Header.Get("Retry-After") != "":
	case r.StatusCode != http.StatusOK:
		return 0, fmt.Errorf("status %d, Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
	case n < 20*crowdPods:
		return 0, fmt.Errorf("%d bytes are not a list of %d pods", n, crowdPods)
	}
	return r.StatusCode, nil
}

// container is the memory limit in MiB of the container that TestLoad simulates. The server gives
// nine tenths of such a limit to the garbage collector.
const container = 256

// TestLoad overloads a server whose container has little memory. The server may get slower and reject requests, but it
// must not be killed, must answer its probes and keep scraping, and must recover afterwards.
func TestLoad(t *testing.T) {
	f, s := newCrowd(t, fmt.Sprintf("GOMEMLIMIT=%dMiB", container*9/10))
	tok, mon := reader(t), monitor(t)
	s.servesAll(t, tok)
	connections, goroutines := s.descriptors(t), s.goroutines(t, mon)
	idle, err := s.memory()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("before: %d MiB, %d descriptors, %d goroutines", idle, connections, goroutines)

	// during overloads the server, and checks what it must still do meanwhile and afterwards.
	during := func(what string, load func(t *testing.T) string) {
		t.Run(what, func(t *testing.T) {
			probes, scrapes, memory := s.prober(t), s.watchScrapes(t, f, tok), s.watchMemory(t)
			seen := load(t)
			took, oldest, peak := probes(), scrapes(), memory()
			t.Logf("%s; /livez of %d: p50 %v, p99 %v, max %v; oldest sample %v; at most %d MiB", seen, len(took),
				quantile(took, .5), quantile(took, .99), quantile(took, 1), oldest.Round(time.Millisecond), peak)
			if peak > container {
				t.Errorf("the server held %d MiB: its container would have been killed", peak)
			}
			// A kubelet gives a probe a second and ends a container after three in a row that fail. Machines that run this
			// are as busy with the clients as with the server.
			if p50 := quantile(took, .5); len(took) == 0 || p50 > time.Second {
				t.Errorf("half of the probes took more than %v", p50)
			}
			if oldest > 6*crowdResolution {
				t.Errorf("a node's sample got %v old: scraping does not go on", oldest)
			}
			eventually(t, "all is as it was", func() error {
				if c, g := s.descriptors(t), s.goroutines(t, mon); c > connections+20 || g > goroutines+50 {
					return fmt.Errorf(
						"%d descriptors and %d goroutines are left, before it were %d and %d", c, g, connections, goroutines,
					)
				}
				return nil
			})
			s.servesAll(t, tok)
		})
	}

	during("200 clients list everything", func(t *testing.T) string {
		stop := s.listers(t, 200, tok)
		time.Sleep(10 * time.Second)
		served, turnedAway := stop()
		total := 0
		for _, n := range served {
			total += n
		}
		if total < 20 {
			t.Errorf("only %d lists in 10 s", total)
		}
		return fmt.Sprintf("served %v, turned away %v", served, turnedAway)
	})
	// giveUp runs 200 clients of an aggregator that each give up after 1 to 100 ms. Over HTTP/1.1 each
	// of them costs the aggregator a connection.
	giveUp := func(t *testing.T, http2 bool) string {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		client := insecure()
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = http2
		// Open the connection of the aggregator first. Otherwise each client would begin to connect, a
		// thousand in a moment.
		if _, err := listOnce(ctx, client, s.url+podsPath, tok, forms[0]); err != nil {
			t.Error(err)
		}
		var clients sync.WaitGroup
		var given atomic.Int64
		for i := range 200 {
			clients.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					short, cancel := context.WithTimeout(ctx, time.Duration(1+(i*7+n*13)%100)*time.Millisecond)
					_, _ = listOnce(short, client, s.url+podsPath, tok, forms[(i+n)%len(forms)])
					cancel()
					given.Add(1)
					time.Sleep(50 * time.Millisecond)
				}
			})
		}
		clients.Wait()
		client.CloseIdleConnections()
		return fmt.Sprintf("%d requests", given.Load())
	}
	during("200 clients give up", func(t *testing.T) string { return giveUp(t, false) })
	during("200 clients give up over HTTP2", func(t *testing.T) string { return giveUp(t, true) })
	during("10000 connections", func(t *testing.T) string {
		conns := s.connect(t, 10_000)
		defer func() {
			for _, c := range conns {
				_ = c.Close()
			}
		}()
		time.Sleep(3 * time.Second)
		kept := s.descriptors(t) - connections
		if kept > 1100 {
			t.Errorf("the server keeps %d connections, want 1000", kept)
		}
		return fmt.Sprintf("%d connections, of which the server keeps %d", len(conns), kept)
	})
}

// servesAll waits until every pod is served.
func (s *metricsServer) servesAll(t *testing.T, token string) {
	t.Helper()
	eventually(t, "all pods are served", func() error {
		pods, err := s.items(podsPath, token)
		if err == nil && len(pods) != crowdPods {
			err = fmt.Errorf("%d of %d", len(pods), crowdPods)
		}
		return err
	})
}

// watchScrapes watches the samples of f's nodes until stop is called, which returns the greatest age seen.
func (s *metricsServer) watchScrapes(t *testing.T, f *fleet, token string) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan time.Duration)
	client := *s
	client.http = insecure()
	go func() {
		var oldest time.Duration
		defer func() { done <- oldest }()
		closed := 0 // connections, one after the other
		for ; ctx.Err() == nil; time.Sleep(500 * time.Millisecond) {
			now := time.Now() // what is served later may only be newer
			nodes, err := client.items(nodesPath, token)
			if errors.Is(err, errTurnedAway) {
				continue // the next look will see how old it was
			}
			// The server closes the idlest of too many connections, which may be this one: a client comes again.
			if broken := new(url.Error); errors.As(err, &broken) && !broken.Timeout() && !errors.Is(err, syscall.ECONNREFUSED) &&
				closed < 2 {
				closed++
				continue
			}
			closed = 0
			if err != nil || len(nodes) != len(f.nodes) {
				t.Errorf("%d of %d nodes are served: %v", len(nodes), len(f.nodes), err)
				return
			}
			for _, n := range nodes {
				oldest = max(oldest, now.Sub(n.Timestamp.Time))
			}
		}
	}()
	return func() time.Duration {
		cancel()
		return <-done
	}
}

// connect opens n idle connections, or as many as this process may. One in five completes the TLS
// handshake, and one in ten requests a probe; the others send nothing at all.
func (s *metricsServer) connect(t *testing.T, n int) []net.Conn {
	t.Helper()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	n = min(n, int(files.Cur)-1000)
	var mu sync.Mutex
	var conns []net.Conn
	var dialers sync.WaitGroup
	secure := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
	var plain net.Dialer
	for i := range 32 {
		dialers.Go(func() {
			for j := i; j < n; j += 32 {
				dial := plain.DialContext
				if j%5 == 0 {
					dial = secure.DialContext
				}
				c, err := dial(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
				if err != nil {
					continue // taken for the idlest while it shook hands
				}
				if j%10 == 0 {
					_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
				}
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
			}
		})
	}
	dialers.Wait()
	if len(conns) < n*9/10 {
		t.Errorf("%d of %d connections were accepted", len(conns), n)
	}
	return conns
}

// Clients that do not read their answers cannot keep others out for longer than a minute, which is
// the timeout of a request, even if they stay connected.
func TestClientsThatReadNothing(t *testing.T) {
	t.Parallel()
	_, s := newCrowd(t)
	tok, mon := reader(t), monitor(t)
	s.servesAll(t, tok)
	connections, goroutines := s.descriptors(t), s.goroutines(t, mon)
	memory := s.watchMemory(t)
	dial := tls.Dialer{
		NetDialer: &net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(
				c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }),
				err,
			)
		}},
		Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}},
	}
	const most = 400 // requests in flight
	start := time.Now()
	for range most + 50 {
		c, err := dial.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := fmt.Fprintf(
			c, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", podsPath, tok,
		); err != nil {
			t.Fatal(err)
		}
	}
	probes := s.prober(t)
	eventually(t, "all places are taken", func() error {
		code, _, err := s.get(nodesPath, tok)
		if code != http.StatusTooManyRequests {
			return fmt.Errorf("%d %w", code, err)
		}
		return nil
	})
	eventually(t, "others are answered again", func() error { return s.allowed(nodesPath, tok) })
	after := time.Since(start)
	took, peak := probes(), memory()
	t.Logf(
		"answered again after %v; /livez of %d: p50 %v, p99 %v, max %v; at most %d MiB", after.Round(time.Second),
		len(took), quantile(took, .5), quantile(took, .99), quantile(took, 1), peak,
	)
	if peak > 2*container {
		t.Errorf("the server held %d MiB", peak)
	}
	eventually(t, "nothing is left of them", func() error {
		if c, g := s.descriptors(t), s.goroutines(t, mon); c > connections+100 || g > goroutines+200 {
			return fmt.Errorf(
				"%d descriptors and %d goroutines are left, before it were %d and %d", c, g, connections, goroutines,
			)
		}
		return nil
	})
}
