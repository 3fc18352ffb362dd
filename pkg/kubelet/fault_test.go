package kubelet

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
)

func TestFaults(t *testing.T) {
	const limit = 1 << 20
	for _, tt := range []struct {
		name    string
		fault   kubelettest.Fault
		cause   string
		says    string // in the error's text
		timeout bool   // waits for the time-out
		again   bool   // the connection can be used again
	}{
		{name: "hang", fault: kubelettest.Hang, cause: "timeout", says: "waiting for the answer", timeout: true},
		{name: "hang in the header", fault: kubelettest.HangInHeader, cause: "timeout", says: "waiting for the answer", timeout: true},
		{name: "hang after the header", fault: kubelettest.HangAfterHeader, cause: "timeout", says: "reading the answer", timeout: true},
		{name: "drip", fault: kubelettest.Drip(time.Millisecond), cause: "timeout", says: "reading the answer", timeout: true},
		{name: "401", fault: kubelettest.Status(401, "Unauthorized"), cause: "401", says: `answer is 401 Unauthorized: "Unauthorized"`, again: true},
		{name: "403", fault: kubelettest.Status(403, "Forbidden (user=x)\nmore"), cause: "403", says: `answer is 403 Forbidden: "Forbidden (user=x)"`, again: true},
		{name: "404", fault: kubelettest.Status(404, "404 page not found"), cause: "404", says: "404", again: true},
		{name: "410", fault: kubelettest.Status(410, ""), cause: "http", says: "answer is 410 Gone", again: true},
		{name: "429", fault: kubelettest.Status(429, "slow down"), cause: "429", says: "slow down", again: true},
		{name: "500", fault: kubelettest.Status(500, "boom"), cause: "5xx", says: "boom", again: true},
		{name: "503", fault: kubelettest.Status(503, ""), cause: "5xx", says: "503", again: true},
		{name: "long refusal", fault: kubelettest.Status(500, strings.Repeat("x", 1<<20)), cause: "5xx", says: "xxx..."},
		{name: "redirect", fault: kubelettest.Redirect("https://evil.example/"), cause: "redirect", says: `to "https://evil.example/"`, again: true},
		{name: "reset", fault: kubelettest.Reset, cause: "reset"},
		{name: "half", fault: kubelettest.Half, cause: "reset"},
		{name: "too large", fault: kubelettest.Flood(limit+1, false), cause: "body too large", says: "more than 1048576 bytes"},
		{name: "far too large", fault: kubelettest.Flood(1<<40, false), cause: "body too large", says: "more than 1048576 bytes"},
		{name: "too large, as declared", fault: kubelettest.Flood(5<<20, true), cause: "body too large", says: "has 5242880 bytes, the limit is 1048576"},
		{name: "gzip bomb", fault: kubelettest.GzipBomb(16 << 20), cause: "body too large", says: "more than 1048576 bytes"},
		{name: "not too large", fault: kubelettest.Flood(limit, false), cause: "no samples", again: true},
		{name: "not too large, compressed", fault: kubelettest.GzipBomb(limit), cause: "no samples", again: true},
		{name: "noise", fault: kubelettest.Noise(1, 100_000), cause: "no samples", again: true},
		{name: "nothing", fault: kubelettest.Noise(1, 0), cause: "no samples", again: true},
		{name: "kubelet error", fault: text("resource_scrape_error 1\n"), cause: "kubelet error", again: true},
		{name: "html", fault: kubelettest.As("text/html; charset=utf-8"), cause: "content type", says: "text/html"},
		{name: "OpenMetrics", fault: kubelettest.As("application/openmetrics-text; version=1.0.0"), cause: "content type", says: "openmetrics"},
		{name: "protobuf in text", fault: kubelettest.As("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text"), cause: "content type"},
		{name: "brotli", fault: encoded("br"), cause: "content type", says: "encoded as br"},
		{name: "not gzip", fault: encoded("gzip"), cause: "other", says: "gzip"},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(tt.name+" by "+proto, func(t *testing.T) {
				server := secure()
				server.HTTP2 = proto == "HTTP/2"
				f := newFake(t, server)
				config := config()
				config.MaxBody = limit
				c := newClient(t, config, f.endpoint())
				mustFetch(t, c)

				f.SetFault(tt.fault)
				ctx := within(t)
				if tt.timeout {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
					defer cancel()
				}
				e := failure(t, ctx, c, tt.cause)
				if !strings.Contains(e.Error(), tt.says) || !strings.Contains(e.Error(), `"n1"`) || !strings.Contains(e.Error(), f.addr()) {
					t.Errorf("error %q does not name the node, the address and %q", e, tt.says)
				}
				if len(e.Error()) > 500 {
					t.Errorf("the error has %d bytes", len(e.Error()))
				}
				if tt.timeout != errors.Is(e, context.DeadlineExceeded) {
					t.Errorf("error %v is a time-out: %v", e, !tt.timeout)
				}

				f.SetFault(nil)
				before := f.Accepted()
				mustFetch(t, c)
				if reused := f.Accepted() == before; reused != tt.again {
					t.Errorf("connection used again: %v, want %v", reused, tt.again)
				}
			})
		}
	}
}

// What can be done about a 401 depends on what the kubelet was shown.
func TestRemedyOfUnauthorized(t *testing.T) {
	f := newFake(t, secure())
	f.SetFault(kubelettest.Status(http.StatusUnauthorized, "Unauthorized"))
	withCert := config()
	withCert.Rest.CertData, withCert.Rest.KeyData = cluster.Client("metrics-server")
	for remedy, c := range map[string]Config{"authentication.webhook.enabled": config(), "clientCAFile": withCert} {
		if e := failure(t, within(t), newClient(t, c, f.endpoint()), "401"); !strings.Contains(e.Remedy(), remedy) {
			t.Errorf("remedy %q does not speak of %q", e.Remedy(), remedy)
		}
	}
}

func text(body string) kubelettest.Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Type", kubelettest.ContentType)
		_, _ = io.WriteString(w, body)
	}
}

func encoded(encoding string) kubelettest.Fault {
	return func(w http.ResponseWriter, r *http.Request, answer []byte) {
		w.Header().Set("Content-Encoding", encoding)
		kubelettest.Answer(w, r, answer)
	}
}

func TestFloodedHeader(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		server := secure()
		server.HTTP2 = http2
		f := newFake(t, server)
		f.SetFault(kubelettest.FloodHeader(1 << 20))
		c := newClient(t, config(), f.endpoint())
		if e := failure(t, within(t), c, "other"); !http2 && !errors.Is(e, errHeaderTooLarge) {
			t.Errorf("error %v, want %v", e, errHeaderTooLarge)
		}
	}
}

// TestRedirectIsNotFollowed has a kubelet that sends us to another server: neither our credentials
// nor a request may get there.
func TestRedirectIsNotFollowed(t *testing.T) {
	f, target := newFake(t, secure()), newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	for _, code := range []int{301, 302, 303, 307, 308} {
		f.SetFault(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			w.Header().Set("Location", "https://"+target.addr()+"/metrics/resource")
			w.WriteHeader(code)
		})
		_ = failure(t, within(t), c, "redirect")
	}
	if n := target.Accepted(); n != 0 {
		t.Errorf("%d connections to the target of the redirect", n)
	}
}

// TestErrorsHideTheToken has servers that echo what they got, wherever an error may quote it.
func TestErrorsHideTheToken(t *testing.T) {
	raw := func(answer string) kubelettest.Fault {
		return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, answer)
		}
	}
	for _, tt := range []struct {
		name  string
		fault kubelettest.Fault
		says  string
	}{
		{"body", kubelettest.Status(http.StatusUnauthorized, "you sent Bearer "+token), "you sent Bearer [redacted]"},
		{"body, quoted", kubelettest.Status(http.StatusUnauthorized, `{"token":"`+token+`"}`), "[redacted]"},
		{"body, cut off in the middle", kubelettest.Status(http.StatusUnauthorized, strings.Repeat(" ", maxRefusal-10)+token), "[redacted]"},
		{"where it redirects to", kubelettest.Redirect("https://evil.example/?" + token), "https://evil.example/?[redacted]"},
		{"content type", kubelettest.As(token), "[redacted]"},
		{"content type, long", kubelettest.As(strings.Repeat("x", maxError-30) + token), "xxx"},
		{"content encoding", encoded(token), "encoded as [redacted]"},
		{"status line", raw(token + "\r\n\r\n"), "[redacted]"},
		{"status code", raw("HTTP/1.1 " + token + "\r\n\r\n"), "[redacted]"},
		{"header", raw("HTTP/1.1 200 OK\r\n" + token + "\r\n\r\n"), "[redacted]"},
		{"length", raw("HTTP/1.1 200 OK\r\nContent-Length: " + token + "\r\n\r\n"), "[redacted]"},
		{"chunk", raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" + token + "\r\n"), "invalid byte"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, secure())
			f.SetFault(tt.fault)
			err := newClient(t, config(), f.endpoint()).Fetch(within(t), &sample.Batch{})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error %v, which does not say %q", err, tt.says)
			}
			for n := minPrefix; n <= len(token); n++ {
				if strings.Contains(err.Error(), token[:n]) {
					t.Fatalf("%q shows %d bytes of the token", err, n)
				}
			}
		})
	}
}

func TestCertificateErrors(t *testing.T) {
	foreign := kubelettest.NewCA("foreign")
	certPEM, keyPEM := foreign.Client("stranger")
	for _, tt := range []struct {
		name   string
		server kubelettest.ServerConfig
		config func(*Config)
		cause  string
		remedy string
	}{
		{"self-signed", kubelettest.ServerConfig{Certificate: kubelettest.SelfSigned("127.0.0.1")}, nil, "x509", "serverTLSBootstrap"},
		{"of another authority", kubelettest.ServerConfig{Certificate: foreign.Server("127.0.0.1")}, nil, "x509", "--kubelet-certificate-authority"},
		{"for another address", kubelettest.ServerConfig{Certificate: cluster.Server("10.0.0.1")}, nil, "x509", "--kubelet-preferred-address-types"},
		{"without addresses", kubelettest.ServerConfig{Certificate: cluster.Server("node1")}, nil, "x509", "--kubelet-preferred-address-types"},
		{"expired", kubelettest.ServerConfig{Certificate: cluster.Expired("127.0.0.1")}, nil, "x509", "clocks"},
		{"client certificate refused", secure(), func(c *Config) {
			c.Rest.CertData, c.Rest.KeyData = certPEM, keyPEM
		}, "x509", "clientCAFile"},
		{"plain HTTP on the port", kubelettest.ServerConfig{}, nil, "other", "port"},
		{"TLS on the port", secure(), func(c *Config) { c.CAData, c.PlainHTTP = nil, true }, "http", "--deprecated-kubelet-completely-insecure"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, tt.server)
			c := config()
			if tt.config != nil {
				tt.config(&c)
			}
			client := newClient(t, c, f.endpoint())
			for range 2 { // and the same the second time
				if e := failure(t, within(t), client, tt.cause); !strings.Contains(e.Remedy(), tt.remedy) {
					t.Errorf("remedy %q of %q does not speak of %q", e.Remedy(), e, tt.remedy)
				}
			}
			if len(f.seen()) > 0 {
				t.Error("a request was sent all the same")
			}
		})
	}
}

// TestFloodIsForgotten checks that one huge answer does not stay in the pool.
func TestFloodIsForgotten(t *testing.T) {
	small, large := &body{bytes: make([]byte, 0, maxKept)}, &body{bytes: make([]byte, 0, maxKept+1)}
	large.free()
	small.free()
	for range 100 {
		if b := bodyPool.Get().(*body); cap(b.bytes) > maxKept {
			t.Fatalf("a buffer of %d bytes was kept", cap(b.bytes))
		}
	}
}

// TestLargeAnswersTakeTurns has more kubelets flood than may at once: the others wait, and one that is as large as a
// kubelet's does not.
func TestLargeAnswersTakeTurns(t *testing.T) {
	large := newFake(t, secure())
	large.SetFault(kubelettest.Flood(3*maxKept, false))
	first := newClient(t, config(), large.endpoint())
	clients := first.shared
	for range maxLarge {
		clients.large <- struct{}{}
	}
	// On a busy machine it takes a while until there is anything to wait with.
	for patience := 50 * time.Millisecond; ; patience *= 2 {
		ctx, cancel := context.WithTimeout(within(t), patience)
		e := failure(t, ctx, first, "timeout")
		cancel()
		if strings.Contains(e.Error(), waitingForTurn) {
			break
		}
		if patience > 10*time.Second {
			t.Fatalf("%v does not say that it was %s", e, waitingForTurn)
		}
	}
	small := clients.Client(newFake(t, secure()).endpoint())
	t.Cleanup(small.Close)
	mustFetch(t, small)
	<-clients.large
	for range 2 * maxLarge { // each gives its turn back
		_ = failure(t, within(t), first, "no samples")
	}
}

func TestErrorsAreKnown(t *testing.T) {
	f := newFake(t, secure())
	c := newClient(t, config(), f.endpoint())
	f.SetFault(text("nothing 1\n"))
	if err := c.Fetch(within(t), &sample.Batch{}); !errors.Is(err, exposition.ErrNoSamples) {
		t.Errorf("%v does not wrap %v", err, exposition.ErrNoSamples)
	}
}
