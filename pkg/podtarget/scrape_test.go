package podtarget

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"metrics-server/pkg/sample"
)

// dialTo returns Targets all of whose connections lead to addr.
func dialTo(t *testing.T, addr string) *Targets {
	t.Helper()
	s, err := New(Config{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// fakePod serves h and returns a target for it.
func fakePod(t *testing.T, scheme string, h http.HandlerFunc) *Target {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if strings.HasPrefix(scheme, "tls") {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return targetAt(t, server.Listener.Addr().String(), scheme[strings.LastIndex(scheme, " ")+1:])
}

func targetAt(t *testing.T, addr, scheme string) *Target {
	t.Helper()
	a, err := Resolve(testPod([]sample.ContainerPort{port("metrics", 8080)}), sample.Ask{Scheme: scheme}, "")
	if err != nil {
		t.Fatal(err)
	}
	target := dialTo(t, addr).Target("shop", "web-1", a)
	t.Cleanup(target.Close)
	return target
}

const page = "# TYPE x counter\nx 1\n"

func scrape(t *testing.T, target *Target, names ...string) (body string, got Page, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = target.Scrape(ctx, NewFilter(names), func(p Page) error {
		body, got = string(p.Body), p
		return nil
	})
	return body, got, err
}

func TestScrape(t *testing.T) {
	for _, scheme := range []string{"http", "tls https"} {
		t.Run(scheme, func(t *testing.T) {
			var peers []string
			target := fakePod(t, scheme, func(w http.ResponseWriter, r *http.Request) {
				peers = append(peers, r.RemoteAddr)
				for _, forbidden := range []string{"Authorization", "Cookie", "Accept-Encoding"} {
					if r.Header.Get(forbidden) != "" {
						t.Errorf("the request has %s", forbidden)
					}
				}
				if r.URL.RequestURI() != "/metrics" || r.Host != "10.1.2.3:8080" || !strings.HasPrefix(r.Header.Get("Accept"),
					"text/plain;version=0.0.4,") {
					t.Errorf("got a request for %s%s with Accept %s", r.Host, r.URL.RequestURI(), r.Header.Get("Accept"))
				}
				w.Header().Set("Content-Type", "text/plain; version=0.0.4")
				fmt.Fprint(w, page)
			})
			for range 2 {
				body, got, err := scrape(t, target)
				if err != nil || body != page || got.ContentType != "text/plain; version=0.0.4" || got.Filtered ||
					time.Since(got.At) > time.Minute {
					t.Fatalf("got %q, %+v, %v, want the whole page", body, got, err)
				}
			}
			if len(peers) != 2 || peers[0] != peers[1] {
				t.Errorf("the connection is not kept: %v", peers)
			}
		})
	}
}

// TestProtobuf checks that a page in protobuf is not mistaken for HTML if its first byte, the length of the first
// message, is 60, which is the code of '<'.
func TestProtobuf(t *testing.T) {
	const contentType = "Application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
	for _, start := range []string{"<", "\n<"} { // "\n" is the length of a message of ten bytes
		message := start + strings.Repeat("\x00", 60)
		target := fakePod(t, "http", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			fmt.Fprint(w, message)
		})
		if body, _, err := scrape(t, target); err != nil || body != message {
			t.Errorf("got %q, %v, want the message", body, err)
		}
	}
}

func TestErrorOfReader(t *testing.T) {
	target := fakePod(t, "http", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page) })
	want := errors.New("not an exposition")
	err := target.Scrape(t.Context(), Filter{}, func(Page) error { return want })
	if err != want { //nolint:errorlint // itself
		t.Errorf("got %v, want the error of the reader itself", err)
	}
}

func TestFilter(t *testing.T) {
	var queries []string
	target := fakePod(t, "http", func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		fmt.Fprint(w, page)
	})
	_, got, err := scrape(t, target, "x_bucket", "y")
	if err != nil || !got.Filtered {
		t.Fatal(got, err)
	}
	target.NoFilter()
	if _, got, err = scrape(t, target, "x_bucket", "y"); err != nil || got.Filtered {
		t.Fatal(got, err)
	}
	want := []string{"name[]=process_start_time_seconds&name[]=x&name[]=x_bucket&name[]=y", ""}
	if !slices.Equal(queries, want) {
		t.Errorf("%q, want %q", queries, want)
	}
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("a_rather_long_name_%d", i)
	}
	if q := NewFilter(many).query; q != "" {
		t.Errorf("a filter of %d bytes", len(q))
	}
}

// TestFilterRefused checks that a pod which does not like filters is asked without, from then on.
func TestFilterRefused(t *testing.T) {
	requests := 0
	target := fakePod(t, "http", func(w http.ResponseWriter, r *http.Request) {
		if requests++; r.URL.RawQuery != "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, page)
	})
	for range 2 {
		if body, got, err := scrape(t, target, "x"); err != nil || body != page || got.Filtered {
			t.Fatal(body, got, err)
		}
	}
	if requests != 3 {
		t.Errorf("%d requests, want 3", requests)
	}
}

// TestGzip checks that only large answers are requested compressed.
func TestGzip(t *testing.T) {
	for _, size := range []int{gzipFrom - 1, gzipFrom} {
		var accepted []string
		want := strings.Repeat("x", size)
		target := fakePod(t, "http", func(w http.ResponseWriter, r *http.Request) {
			accepted = append(accepted, r.Header.Get("Accept-Encoding"))
			if r.Header.Get("Accept-Encoding") == "" {
				fmt.Fprint(w, want)
				return
			}
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", "text/plain")
			z := gzip.NewWriter(w)
			fmt.Fprint(z, want)
			_ = z.Close()
		})
		for range 2 {
			if body, _, err := scrape(t, target); err != nil || body != want {
				t.Fatal(len(body), err)
			}
		}
		second := ""
		if size >= gzipFrom {
			second = "gzip"
		}
		if !slices.Equal(accepted, []string{"", second}) {
			t.Errorf("%d bytes: %q", size, accepted)
		}
	}
}

func TestFailures(t *testing.T) {
	answer := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}
	}
	text := func(contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			fmt.Fprint(w, body)
		}
	}
	raw := func(bytes string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, bytes)
			_ = c.Close()
		}
	}
	for _, tt := range []struct {
		name, scheme string
		handler      http.HandlerFunc
		cause        Cause
		want         string
	}{
		{"401", "http", answer(401), Unauthorized, "it answers 401 Unauthorized: serve the metrics"},
		{"403", "http", answer(403), Denied, "it answers 403 Forbidden"},
		{"403 of a mesh", "http", answer(403, "Server", "istio-envoy"), Denied, "authorization policy"},
		{"404", "http", answer(404), NotFound, "metrics-server/path"},
		{"500", "http", answer(500), ServerError, "it answers 500 Internal Server Error: see the log of the pod"},
		{"redirect", "http", answer(302, "Location", "http://169.254.169.254/"), Redirect, "redirects are not followed"},
		{"429", "http", answer(429), BadStatus, "429"},
		{"HTML", "http", text("text/html; charset=utf-8", "<html>"), NotMetrics, "text/html"},
		{"HTML as text", "http", text("text/plain", "\n<html>"), NotMetrics, "the answer is HTML or XML"},
		{"JSON", "http", text("application/json", "{}"), NotMetrics, "application/json"},
		{"uninvited gzip", "http", answer(200, "Content-Encoding", "br"), NotMetrics, "compression"},
		{"too large", "http", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, MaxPage+1))
		}, TooLarge, "more than 8 MiB"},
		{"reset", "http", raw(""), Reset, "mTLS"},
		{
			"cut off", "http", raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"), Reset,
			"the connection was closed before the answer was complete",
		},
		{"not HTTP", "http", raw("SSH-2.0-OpenSSH_9.0\r\n"), NotMetrics, "does not speak HTTP"},
		{"HTTP to a TLS port", "tls http", answer(200), TLSPort, "the scheme is http, and the port speaks TLS"},
		{"TLS alert", "http", raw("\x15\x03\x01\x00\x02\x02\x46"), TLSPort, "use https"},
		{
			"TLS to a plain port", "https", answer(200), PlainPort, "the scheme is https, and the port speaks plain HTTP: " +
				"correct the scheme that annotation metrics-server/scheme of the HorizontalPodAutoscaler, annotation " +
				"prometheus.io/scheme of the pod or the administrator's file sets: use http",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := fakePod(t, tt.scheme, tt.handler)
			_, _, err := scrape(t, target)
			check(t, err, tt.cause, tt.want)
			_, _, again := scrape(t, target)
			if again == nil || again.Error() != err.Error() {
				t.Errorf("the text changes from %q to %q", err, again)
			}
		})
	}
}

func check(t *testing.T, err error, cause Cause, want string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.cause != cause || !strings.Contains(e.Error(), want) {
		t.Fatalf("%v (%T), want cause %s and a text with %q", err, err, cause, want)
	}
	if !strings.Contains(e.Error(), "pod web-1 at http") || e.remedy == "" {
		t.Errorf("%q names no pod or no remedy", e)
	}
}

// TestClientCertificateWanted imitates a sidecar that requires mTLS.
func TestClientCertificateWanted(t *testing.T) {
	for version, cause := range map[uint16]Cause{
		tls.VersionTLS13: ClientCert,
		tls.VersionTLS12: TLSFailed, // it has no alert of its own for this
	} {
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: version}
		server.StartTLS()
		_, _, err := scrape(t, targetAt(t, server.Listener.Addr().String(), "https"))
		server.Close()
		check(t, err, cause, "client certificate, as the sidecar of a service mesh does")
	}
}

func TestConnectFailures(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		cause Cause
		want  string
	}{
		{"refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, Refused, "not only on localhost"},
		{"no route", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, Unreachable, "no route to host"},
		{"other", errors.New("x"), Unreachable, "cannot connect"},
	} {
		s, err := New(Config{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, tt.err }})
		if err != nil {
			t.Fatal(err)
		}
		a, _ := Resolve(testPod([]sample.ContainerPort{port("", 80)}), sample.Ask{}, "")
		_, _, err = scrape(t, s.Target("shop", "web-1", a))
		check(t, err, tt.cause, tt.want)
	}
}

// checkTimeout checks that a scrape which never ends times out with that text. On a busy machine a short timeout may
// end an earlier step, so the timeout is raised until it does not.
func checkTimeout(t *testing.T, target *Target, want string) {
	t.Helper()
	for timeout := 50 * time.Millisecond; ; timeout *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		err := target.Scrape(ctx, Filter{}, func(Page) error { return nil })
		cancel()
		if err == nil || strings.Contains(err.Error(), want) || timeout > 10*time.Second {
			check(t, err, Timeout, want)
			return
		}
	}
}

func TestTimeouts(t *testing.T) {
	hanging := make(chan struct{})
	var once sync.Once
	release := func() { once.Do(func() { close(hanging) }) }
	target := fakePod(t, "http", func(http.ResponseWriter, *http.Request) { <-hanging })
	t.Cleanup(release)
	checkTimeout(t, target, "the answer is not complete in time")

	s, err := New(Config{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := Resolve(testPod([]sample.ContainerPort{port("", 80)}), sample.Ask{}, "")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	check(t, s.Target("shop", "web-1", a).Scrape(ctx, Filter{}, nil), Timeout,
		"the connection is not accepted in time: check that a NetworkPolicy")

	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	err = s.Target("shop", "web-1", a).Scrape(ctx, Filter{}, nil)
	check(t, err, Timeout, "the connection is not accepted in time: check that a NetworkPolicy")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was canceled", err)
	}
	release()
}

// TestDialIsGuarded checks that refused addresses are not even dialed.
func TestDialIsGuarded(t *testing.T) {
	s, err := New(Config{Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialed")
		return nil, errors.New("no")
	}})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := Resolve(testPod([]sample.ContainerPort{port("", 80)}), sample.Ask{}, "")
	for _, host := range []string{"169.254.169.254:80", "127.0.0.1:80", "[::ffff:127.0.0.1]:80", "example.com:80"} {
		a.URL.Host = host
		if _, _, err := scrape(t, s.Target("shop", "web-1", a)); err == nil {
			t.Errorf("%s is asked", host)
		}
	}
}

func TestClosed(t *testing.T) {
	target := fakePod(t, "http", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page) })
	target.Close()
	if _, _, err := scrape(t, target); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

// Large pages that one namespace sends slowly take half of the turns at most, also if some of them are compressed.
func TestSlowLargePagesOfOneNamespace(t *testing.T) {
	large := strings.Repeat("# a comment\n", largePage/6)
	var begun atomic.Int64 // slow pages
	end := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, large)
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			begun.Add(1)
			<-end
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(end) })
	targets := dialTo(t, server.Listener.Addr().String())
	target := func(namespace, path string) *Target {
		a, err := Resolve(testPod([]sample.ContainerPort{port("metrics", 8080)}), sample.Ask{Path: path}, "")
		if err != nil {
			t.Fatal(err)
		}
		target := targets.Target(namespace, "web-1", a)
		t.Cleanup(target.Close)
		return target
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 2 * largeTurns {
		slow := target("slow", "/slow")
		slow.large = i%2 == 0
		wg.Go(func() { _ = slow.Scrape(ctx, Filter{}, nil) })
	}
	shop := target("shop", "/")
	for left := 10; left > 0; {
		body, _, err := scrape(t, shop)
		if err != nil || len(body) != len(large) {
			t.Errorf("a page of another namespace: %d bytes of %d, %v", len(body), len(large), err)
			break
		}
		if begun.Load() == 2*largeTurns {
			left--
		}
	}
	checkTimeout(t, target("slow", "/"),
		`too many large answers of namespace "slow", or of all namespaces together, are read at once`)
	cancel()
	wg.Wait()
}
