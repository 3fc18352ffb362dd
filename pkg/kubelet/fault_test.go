package kubelet

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/httpconn"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

func TestFaults(t *testing.T) {
	const limit = 1 << 20
	for _, tt := range []struct {
		name     string
		fault    kubelettest.Fault
		cause    string
		says     string // in the error's text
		timeout  bool   // waits for the time-out
		compress bool   // ask for gzip
		again    bool   // the connection can be used again
	}{
		{name: "hang", fault: kubelettest.Hang, cause: "timeout", says: "waiting for the answer", timeout: true},
		{
			name: "hang in the header", fault: kubelettest.HangInHeader,
			cause: "timeout", says: "waiting for the answer", timeout: true,
		},
		{
			name: "hang after the header", fault: kubelettest.HangAfterHeader,
			cause: "timeout", says: "reading the answer", timeout: true,
		},
		{
			name: "drip", fault: kubelettest.Drip(time.Millisecond),
			cause: "timeout", says: "reading the answer", timeout: true,
		},
		{
			name: "401", fault: kubelettest.Status(401, "Unauthorized"),
			cause: "401", says: `answer is 401 Unauthorized: "Unauthorized"`, again: true,
		},
		{
			name: "403", fault: kubelettest.Status(403, "Forbidden (user=x)\nmore"),
			cause: "403", says: `answer is 403 Forbidden: "Forbidden (user=x) more"`, again: true,
		},
		{name: "404", fault: kubelettest.Status(404, "404 page not found"), cause: "404", says: "404", again: true},
		{name: "410", fault: kubelettest.Status(410, ""), cause: "http", says: "answer is 410 Gone", again: true},
		{name: "406", fault: kubelettest.Status(406, ""), cause: "http", says: "answer is 406 Not Acceptable", again: true},
		{name: "429", fault: kubelettest.Status(429, "slow down"), cause: "429", says: "slow down", again: true},
		{name: "500", fault: kubelettest.Status(500, "boom"), cause: "5xx", says: "boom", again: true},
		{name: "503", fault: kubelettest.Status(503, ""), cause: "5xx", says: "503", again: true},
		{name: "long refusal", fault: kubelettest.Status(500, strings.Repeat("x", 1<<20)), cause: "5xx", says: "xxx..."},
		{
			name: "redirect", fault: kubelettest.Redirect("https://evil.example/"),
			cause: "redirect", says: `to "https://evil.example/"`, again: true,
		},
		{name: "reset", fault: kubelettest.Reset, cause: "reset"},
		{name: "half", fault: kubelettest.Half, cause: "reset"},
		{
			name: "too large", fault: kubelettest.Flood(limit+1, false),
			cause: "body too large", says: "more than 1048576 bytes",
		},
		{
			name: "far too large", fault: kubelettest.Flood(1<<40, false),
			cause: "body too large", says: "more than 1048576 bytes",
		},
		{
			name: "too large, as declared", fault: kubelettest.Flood(5<<20, true),
			cause: "body too large", says: "has 5242880 bytes, and the limit is 1048576",
		},
		{
			name: "gzip bomb", fault: kubelettest.GzipBomb(16 << 20), compress: true,
			cause: "body too large", says: "more than 1048576 bytes",
		},
		{
			name: "gzip that yields nothing", fault: emptyGzip, compress: true,
			cause: "body too large", says: "more than 1048576 bytes",
		},
		{
			name: "gzip of empty members", fault: emptyMembers, compress: true,
			cause: "body too large", says: "more than 1048576 bytes",
		},
		{
			name: "gzip that yields nothing, declared", fault: declared(5<<20, "gzip"), compress: true,
			cause: "body too large", says: "has 5242880 bytes",
		},
		{name: "not too large", fault: kubelettest.Flood(limit, false), cause: "no samples", again: true},
		{
			name: "not too large, compressed", fault: kubelettest.GzipBomb(limit), compress: true,
			cause: "no samples", again: true,
		},
		{name: "noise", fault: kubelettest.Noise(1, 100_000), cause: "incomplete", again: true},
		{name: "nothing", fault: kubelettest.Noise(1, 0), cause: "no samples", again: true},
		{name: "kubelet error", fault: text("resource_scrape_error 1\n"), cause: "kubelet error", again: true},
		{name: "html", fault: kubelettest.As("text/html; charset=utf-8"), cause: "content type", says: "text/html"},
		{
			name: "OpenMetrics", fault: kubelettest.As("application/openmetrics-text; version=1.0.0"),
			cause: "content type", says: "openmetrics",
		},
		{
			name: "protobuf",
			fault: kubelettest.As("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; " +
				"encoding=delimited"),
			cause: "content type",
		},
		{
			name:  "protobuf in text",
			fault: kubelettest.As("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=text"),
			cause: "content type",
		},
		{name: "brotli", fault: encoded("br"), cause: "content type", says: "encoded as br"},
		{name: "gzip, not asked for", fault: kubelettest.GzipBomb(limit), cause: "content type", says: "encoded as gzip"},
		{name: "gzip that yields nothing, not asked for", fault: emptyGzip, cause: "content type", says: "encoded as gzip"},
		{name: "not gzip", fault: encoded("gzip"), compress: true, cause: "other", says: "gzip"},
		{
			name: "gzip twice", fault: encoded("gzip", "gzip"), compress: true,
			cause: "content type", says: "encoded as gzip, gzip",
		},
		{
			name: "identity, then gzip", fault: encoded("identity", "gzip"),
			cause: "content type", says: "encoded as identity, gzip",
		},
		{name: "deflate", fault: encoded("deflate"), compress: true, cause: "content type", says: "encoded as deflate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, secure())
			config := config()
			config.MaxBody, config.Compress = limit, tt.compress
			c := newClient(t, config, f.endpoint())
			mustFetch(t, c)

			f.SetFault(tt.fault)
			var e *Error
			if tt.timeout {
				e = timeout(t, c, tt.says)
			} else {
				e = failure(t, within(t), c, tt.cause)
			}
			if !strings.Contains(e.Error(), tt.says) || !strings.Contains(e.Error(), `"n1"`) ||
				!strings.Contains(e.Error(), f.addr()) {
				t.Errorf("error %q does not name the node, the address and %q", e, tt.says)
			}
			if len(e.Error()) > 700 {
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

// The remedy for a 401 depends on the credentials that the kubelet was shown.
func TestRemedyOfUnauthorized(t *testing.T) {
	f := newFake(t, secure())
	f.SetFault(kubelettest.Status(http.StatusUnauthorized, "Unauthorized"))
	withCert := config()
	withCert.Rest.CertData, withCert.Rest.KeyData = cluster.Client("metrics-server")
	accepted, forbidden, rejected, unreachable, failing := config(), config(), config(), config(), config()
	accepted.OwnAccess = func() error { return nil }
	forbidden.OwnAccess = func() error { return apierrors.NewForbidden(schema.GroupResource{}, "", nil) }
	rejected.OwnAccess = func() error { return apierrors.NewUnauthorized("no") }
	unreachable.OwnAccess = func() error { return syscall.ECONNREFUSED }
	failing.OwnAccess = func() error { return apierrors.NewServiceUnavailable("no") }
	withCert.OwnAccess = rejected.OwnAccess
	for _, tt := range []struct {
		config Config
		remedy string
		not    string
	}{
		{config(), "authentication.webhook.enabled", "delete the pod"},
		{accepted, "authentication.webhook.enabled", "delete the pod"},
		{accepted, "if that is set, the kubelet could not ask the API server", "repair the API server"},
		{forbidden, "authentication.webhook.enabled", "repair the API server"}, // it knows the user
		{unreachable, "repair the API server first", "authentication.webhook.enabled"},
		{failing, "repair the API server first", "authentication.webhook.enabled"},
		{rejected, "delete the pod", "authentication.webhook.enabled"},
		{withCert, "clientCAFile", "delete the pod"},
	} {
		e := failure(t, within(t), newClient(t, tt.config, f.endpoint()), "401")
		if !strings.Contains(e.Remedy(), tt.remedy) || strings.Contains(e.Remedy(), tt.not) {
			t.Errorf("remedy %q, want one that says %q and not %q", e.Remedy(), tt.remedy, tt.not)
		}
	}
}

// A kubelet that does not check tokens but admits anonymous users answers 403 instead of 401.
// Granting a right is not the remedy, least of all to anonymous users.
func TestRemedyOfForbidden(t *testing.T) {
	const anonymous = "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[metrics])"
	const account = "Forbidden (user=system:serviceaccount:kube-system:metrics-server, verb=get, resource=nodes, "
	withCert, withToken, rejected, plain := config(), config(), config(), config()
	withCert.Rest.CertData, withCert.Rest.KeyData = cluster.Client("metrics-server")
	withToken.Tokens = &tokens{token: weak}
	rejected.OwnAccess = func() error { return apierrors.NewUnauthorized("no") }
	plain.CAData, plain.PlainHTTP = nil, true
	for _, tt := range []struct {
		name   string
		config Config
		code   int
		text   string
		remedy string
		not    string
	}{
		{"anonymous", config(), 403, anonymous, "authentication.webhook.enabled", "ClusterRole"},
		{"anonymous, and a token for kubelets", withToken, 403, anonymous, "authentication.webhook.enabled", "ClusterRole"},
		{"anonymous, and a client certificate", withCert, 403, anonymous, "clientCAFile", "ClusterRole"},
		{"anonymous, and a rejected token", rejected, 403, anonymous, "delete the pod", "ClusterRole"},
		{"anonymous, over plain HTTP", plain, 403, anonymous, "--deprecated-kubelet-completely-insecure", "ClusterRole"},
		{"unauthorized, over plain HTTP", plain, 401, "Unauthorized", "--deprecated-kubelet-completely-insecure", "token"},
		{"no text", config(), 403, "", "ClusterRole system:metrics-server needs", "webhook"},
		{"account", config(), 403, account + "subresource=metrics)", "ClusterRole system:metrics-server needs", "webhook"},
		{
			"account for kubelets", withToken, 403, account + "subresource=metrics)",
			"ClusterRole system:metrics-server-kubelets", "webhook",
		},
		{"account, list of subresources", config(), 403, account + "subresource(s)=[metrics])", "ClusterRole", "webhook"},
		{"path of another right", config(), 403, account + "subresource=proxy)", kubeapi.PathAnnotation, "ClusterRole"},
		{
			"path of other rights", withToken, 403, account + "subresource(s)=[configz proxy])",
			kubeapi.PathAnnotation, "ClusterRole",
		},
		{
			"nobody to ask", config(), 500, "Authorization error (user=u, verb=get, resource=nodes, subresource=metrics)",
			"subjectaccessreviews", "ClusterRole system:metrics-server",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := secure()
			if tt.config.PlainHTTP {
				server.Certificate = nil
			}
			f := newFake(t, server)
			if tt.config.Tokens != nil {
				f.SetToken(weak)
			}
			f.SetFault(kubelettest.Status(tt.code, tt.text))
			e := fetchError(t, newClient(t, tt.config, f.endpoint()))
			if !strings.Contains(e.Remedy(), tt.remedy) || strings.Contains(e.Remedy(), tt.not) {
				t.Errorf("remedy %q, want one that says %q and not %q", e.Remedy(), tt.remedy, tt.not)
			}
		})
	}
}

// Each TLS alert of a kubelet has a remedy of its own.
func TestHandshakeErrors(t *testing.T) {
	nowhere := Endpoint{Node: "n1", Addresses: []Address{{"InternalIP", "127.0.0.1"}}}
	for _, tt := range []struct {
		name   string
		speak  func(net.Conn)
		cause  string
		remedy string
	}{
		// The kubelet waits for the approval of its request for a serving certificate.
		{"internal error", sends("\x15\x03\x03\x00\x02\x02\x50"), "x509", "kubectl certificate approve"},
		{"handshake failure", sends("\x15\x03\x03\x00\x02\x02\x28"), "other", "tlsCipherSuites"},
		{"protocol version", sends("\x15\x03\x03\x00\x02\x02\x46"), "other", "tlsMinVersion"},
		{"insufficient security", sends("\x15\x03\x03\x00\x02\x02\x47"), "other", "tlsCipherSuites"},
		{"access denied", sends("\x15\x03\x03\x00\x02\x02\x31"), "x509", "clientCAFile"},
		{"certificate required", sends("\x15\x03\x03\x00\x02\x02\x74"), "x509", "clientCAFile"},
		{"plain HTTP", sends("HTTP/1.0 400 Bad Request\r\n\r\n"), "other", "plain HTTP"},
		{"SSH", sends("SSH-2.0-OpenSSH_9.9\r\n"), "other", "is not a kubelet"},
		{"a database", sends("J\x00\x00\x00\x0a8.0.36\x00"), "other", "is not a kubelet"},
		{"nothing", sends(""), "reset", "closed the connection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config()
			c.Rest.Dial = spoken(t, tt.speak)
			e := failure(t, within(t), newClient(t, c, nowhere), tt.cause)
			if !strings.Contains(e.Remedy(), tt.remedy) {
				t.Errorf("remedy %q of %q does not say %q", e.Remedy(), e, tt.remedy)
			}
		})
	}
	t.Run("not HTTP", func(t *testing.T) {
		c := config()
		c.CAData, c.PlainHTTP = nil, true
		for _, answer := range []string{
			"SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 200 OK\r\nno field\r\n\r\n", "HTTP/x 200\r\n\r\n",
		} {
			c.Rest.Dial = spoken(t, sends(answer))
			e := failure(t, within(t), newClient(t, c, nowhere), "other")
			if !strings.Contains(e.Remedy(), "is not a kubelet") {
				t.Errorf("remedy %q of %q", e.Remedy(), e)
			}
		}
		c.Rest.Dial = spoken(t, sends("\x15\x03\x03\x00\x02\x02\x46"))
		e := failure(t, within(t), newClient(t, c, nowhere), "other")
		if !strings.Contains(e.Remedy(), "--deprecated-kubelet-completely-insecure") {
			t.Errorf("remedy %q of %q", e.Remedy(), e)
		}
	})
}

// sends waits for the first bytes of a client, writes text and closes the connection.
func sends(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, text)
	}
}

// spoken returns a dial function whose connections are served by speak.
func spoken(t *testing.T, speak func(net.Conn)) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		var done sync.WaitGroup
		done.Go(func() {
			defer theirs.Close()
			speak(theirs)
		})
		t.Cleanup(func() {
			ours.Close()
			done.Wait()
		})
		return ours, nil
	}
}

// Errors about a certificate are short and hide the token, even if the certificate has many names or
// contains a token that its owner was shown before.
func TestCertificatesInErrors(t *testing.T) {
	names := make([]string, 90)
	for i := range names {
		names[i] = fmt.Sprintf("%s.%d.example", strings.Repeat("x", 60), i)
	}
	for name, cert := range map[string]*tls.Certificate{
		"names": cluster.Server(names...),
		"token": cluster.Server(token+".example", "other.example"),
	} {
		t.Run(name, func(t *testing.T) {
			e := newFake(t, secure()).endpoint()
			e.Addresses[0].Address = "localhost"
			c := newClient(t, config(), e)
			mustFetch(t, c)
			// Another server, because this one would resume the session without its certificate.
			e.Port = newFake(t, kubelettest.ServerConfig{Certificate: cert}).endpoint().Port
			c.SetEndpoint(e)
			for range 2 {
				e := failure(t, within(t), c, "x509")
				if !strings.Contains(e.Error(), "example") || len(e.Error()) > 700 || strings.Contains(e.Error(), token) {
					t.Errorf("%d bytes, or with the token: %v", len(e.Error()), e)
				}
			}
		})
	}
}

func text(body string) kubelettest.Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Type", kubelettest.ContentType)
		_, _ = io.WriteString(w, body)
	}
}

// encoded claims encodings that the answer does not have.
func encoded(encodings ...string) kubelettest.Fault {
	return func(w http.ResponseWriter, _ *http.Request, answer []byte) {
		w.Header().Set("Content-Type", kubelettest.ContentType)
		w.Header()["Content-Encoding"] = encodings
		_, _ = w.Write(answer)
	}
}

// declared announces an answer of size bytes and sends none of them.
func declared(size int, encoding string) kubelettest.Fault {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) {
		w.Header().Set("Content-Type", kubelettest.ContentType)
		w.Header().Set("Content-Encoding", encoding)
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

// emptyGzip sends one gzip member of endless empty blocks: it never yields a byte.
func emptyGzip(w http.ResponseWriter, r *http.Request, _ []byte) {
	endless(w, r, []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 10_000))
}

// emptyMembers sends gzip members without end, each of them empty.
func emptyMembers(w http.ResponseWriter, r *http.Request, _ []byte) {
	var member bytes.Buffer
	gzip.NewWriter(&member).Close()
	endless(w, r, nil, bytes.Repeat(member.Bytes(), 3000))
}

func endless(w http.ResponseWriter, r *http.Request, first, block []byte) {
	w.Header().Set("Content-Type", kubelettest.ContentType)
	w.Header().Set("Content-Encoding", "gzip")
	_, err := w.Write(first)
	for err == nil && r.Context().Err() == nil {
		_, err = w.Write(block)
	}
}

func TestFloodedHeader(t *testing.T) {
	f := newFake(t, secure())
	f.SetFault(kubelettest.FloodHeader(1 << 20))
	c := newClient(t, config(), f.endpoint())
	if e := failure(t, within(t), c, "other"); !errors.Is(e, httpconn.ErrHeaderTooLarge) {
		t.Errorf("error %v, want %v", e, httpconn.ErrHeaderTooLarge)
	}
}

// A kubelet redirects to another server, which must get neither credentials nor a request.
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

// Kubelets echo the token in every place that an error may quote.
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
		{
			"body, cut off in the middle",
			kubelettest.Status(http.StatusUnauthorized, strings.Repeat(" ", maxRefusal-10)+token), "[redacted]",
		},
		{"where it redirects to", kubelettest.Redirect("https://evil.example/?" + token), "https://evil.example/?[redacted]"},
		{"content type", kubelettest.As(token), "[redacted]"},
		{"content type, long", kubelettest.As(strings.Repeat("x", maxError-30) + token), "xxx"},
		{"content encoding", encoded(token), "encoded as [redacted]"},
		{"status line", raw(token + "\r\n\r\n"), "[redacted]"},
		{"status code", raw("HTTP/1.1 " + token + "\r\n\r\n"), "[redacted]"},
		{"header", raw("HTTP/1.1 200 OK\r\n" + token + "\r\n\r\n"), "[redacted]"},
		{"length", raw("HTTP/1.1 200 OK\r\nContent-Length: " + token + "\r\n\r\n"), "[redacted]"},
		{
			"chunk", raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" + token + "\r\n"),
			"invalid byte",
		},
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
		{
			"self-signed",
			kubelettest.ServerConfig{Certificate: kubelettest.SelfSigned("127.0.0.1")},
			nil, "x509", "serverTLSBootstrap",
		},
		{
			"of another authority",
			kubelettest.ServerConfig{Certificate: foreign.Server("127.0.0.1")},
			nil, "x509", "--kubelet-certificate-authority",
		},
		{
			"for another address",
			kubelettest.ServerConfig{Certificate: cluster.Server("10.0.0.1")},
			nil, "x509", "or prefer a type of address that the certificate names, with --kubelet-preferred-address-types",
		},
		{
			"without addresses",
			kubelettest.ServerConfig{Certificate: cluster.Server("node1")},
			nil, "x509", "or prefer a type of address that the certificate names, with --kubelet-preferred-address-types",
		},
		{
			"with a common name only",
			kubelettest.ServerConfig{Certificate: cluster.Server()},
			nil, "x509", "Give the kubelet a certificate with SANs: set serverTLSBootstrap",
		},
		{"expired", kubelettest.ServerConfig{Certificate: cluster.Expired("127.0.0.1")}, nil, "x509", "clocks"},
		{
			"for clients",
			kubelettest.ServerConfig{Certificate: cluster.ForClients("127.0.0.1")},
			nil, "x509",
			"issue the certificate",
		},
		{"client certificate refused", secure(), func(c *Config) {
			c.Rest.CertData, c.Rest.KeyData = certPEM, keyPEM
		}, "x509", "clientCAFile"},
		{"plain HTTP on the port", kubelettest.ServerConfig{}, nil, "other", "port"},
		{
			"TLS on the port", secure(), func(c *Config) { c.CAData, c.PlainHTTP = nil, true }, "http",
			"--deprecated-kubelet-completely-insecure",
		},
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

// A certificate without SANs names no address of any type, so the remedy must not be to prefer another
// type.
func TestCommonNameOnly(t *testing.T) {
	foreign := kubelettest.NewCA("foreign")
	for name, cert := range map[string]*tls.Certificate{
		"of the authority": cluster.Server(), "of another": foreign.Server(), "self-signed": kubelettest.SelfSigned(),
	} {
		for _, host := range []string{"127.0.0.1", "localhost"} {
			t.Run(name+" at "+host, func(t *testing.T) {
				f := newFake(t, kubelettest.ServerConfig{Certificate: cert})
				e := f.endpoint()
				e.Addresses = []Address{{Type: "InternalIP", Address: host}}
				got := failure(t, within(t), newClient(t, config(), e), "x509")
				if !strings.Contains(got.Remedy(), "certificate with SANs") ||
					strings.Contains(got.Remedy(), "--kubelet-preferred-address-types") {
					t.Errorf("%v: got the remedy %q, want one about SANs only", got, got.Remedy())
				}
			})
		}
	}
}

// The server recognises itself at a kubelet's address, whatever it answers and whether or not it trusts
// its own certificate.
func TestOwnPort(t *testing.T) {
	authority := kubelettest.NewCA("serving")
	own := authority.Server("127.0.0.1")
	ownPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]})
	for name, change := range map[string]func(*Config){
		"unverified":        func(c *Config) { c.CAData, c.Insecure = nil, true },
		"of the authority":  func(c *Config) { c.CAData = authority.PEM() },
		"of another":        func(*Config) {},
		"without the token": func(c *Config) { c.CAData, c.Insecure, c.Rest.BearerToken = nil, true, "" },
	} {
		for _, code := range []int{401, 403, 404, 429, 503} {
			t.Run(fmt.Sprintf("%s, %d", name, code), func(t *testing.T) {
				f := newFake(t, kubelettest.ServerConfig{Certificate: own})
				f.SetFault(kubelettest.Status(code, `{"kind":"Status","message":"no"}`))
				c := config()
				c.ServingCertificate = func() []byte { return ownPEM }
				change(&c)
				e := failure(t, within(t), newClient(t, c, f.endpoint()), "own port")
				if !strings.Contains(e.Remedy(), "this is the server itself") ||
					!strings.Contains(e.Remedy(), "set --secure-port, containerPort") {
					t.Error(e.Remedy())
				}
			})
		}
	}
	t.Run("a kubelet", func(t *testing.T) {
		f := newFake(t, secure())
		f.SetFault(kubelettest.Status(403, "Forbidden"))
		junk := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")})
		for _, served := range [][]byte{ownPEM, nil, []byte("no PEM"), junk} {
			c := config()
			c.ServingCertificate = func() []byte { return served }
			_ = failure(t, within(t), newClient(t, c, f.endpoint()), "403")
		}
	})
}

// The remedy for a virtual node must not be to update its kubelet or to read its log.
func TestVirtualNodes(t *testing.T) {
	for name, tt := range map[string]struct {
		fault   kubelettest.Fault
		virtual bool // the remedy is that of virtual nodes
	}{
		"501":             {kubelettest.Status(501, "not implemented"), true},
		"404":             {kubelettest.Status(404, "404 page not found"), true},
		"405":             {kubelettest.Status(405, ""), true},
		"500":             {kubelettest.Status(500, "not implemented"), true},
		"404 of a proxy":  {kubelettest.Status(404, "<html><title>Not Found</title></html>"), true},
		"empty":           {text(""), true},
		"another type":    {kubelettest.As("application/json"), true},
		"reset":           {kubelettest.Reset, true},
		"not our token":   {kubelettest.Status(401, "Unauthorized"), false},
		"right is absent": {kubelettest.Status(403, "Forbidden"), false},
		"too often":       {kubelettest.Status(429, ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, secure())
			f.SetFault(tt.fault)
			e := f.endpoint()
			e.Virtual = true
			got := fetchError(t, newClient(t, config(), e))
			if is := got.Remedy() == RemedyVirtual; is != tt.virtual {
				t.Errorf("%v: got the remedy %q, want that of virtual nodes: %v", got, got.Remedy(), tt.virtual)
			}
			e.Virtual = false
			if got := fetchError(t, newClient(t, config(), e)); got.Remedy() == RemedyVirtual {
				t.Errorf("of a node that is not virtual: %v: %s", got, got.Remedy())
			}
		})
	}
	t.Run("nothing listens", func(t *testing.T) {
		addr := netip.MustParseAddrPort(sharedtest.RefusingAddr(t))
		e := Endpoint{
			Node: "n1", Addresses: []Address{{"InternalIP", addr.Addr().String()}}, Port: int32(addr.Port()), Virtual: true,
		}
		if got := failure(t, within(t), newClient(t, config(), e), "connection refused"); got.Remedy() != RemedyVirtual {
			t.Error(got.Remedy())
		}
		e.Addresses = nil
		if got := failure(t, within(t), newClient(t, config(), e), "no address"); got.Remedy() != RemedyVirtual {
			t.Error(got.Remedy())
		}
	})
	t.Run("501 of a node that does not say what it is", func(t *testing.T) {
		f := newFake(t, secure())
		f.SetFault(kubelettest.Status(501, "not implemented"))
		got := failure(t, within(t), newClient(t, config(), f.endpoint()), "5xx")
		if !strings.Contains(got.Remedy(), "--node-selector") || strings.Contains(got.Remedy(), "log") {
			t.Error(got.Remedy())
		}
	})
}

func TestIsVirtual(t *testing.T) {
	for _, tt := range []struct {
		version string
		labels  map[string]string
		want    bool
	}{
		{"v1.37.2", nil, false},
		{"v1.37.2", map[string]string{"type": "kwok", "kubernetes.io/hostname": "vk-1"}, false},
		{"v1.28.3-eks-4f4795d", map[string]string{"eks.amazonaws.com/compute-type": "fargate"}, false},
		{"v1.15.2-vk-1.9.0", nil, true},
		{"vk-azure-aci-1.4.1", nil, true},
		{"v1.37.2", map[string]string{"type": "virtual-kubelet"}, true},
		{"v1.37.2", map[string]string{"virtual-kubelet.io/provider": "admiralty"}, true},
		{"", nil, false},
	} {
		if got := IsVirtual(tt.version, tt.labels); got != tt.want {
			t.Errorf("%q %v: got %t, want %t", tt.version, tt.labels, got, tt.want)
		}
	}
}

// A kubelet answers 406 at a path that has no text: the port and TLS are right.
func TestRemedyOfNotAcceptable(t *testing.T) {
	f := newFake(t, secure())
	f.SetFault(kubelettest.Status(http.StatusNotAcceptable, ""))
	e := failure(t, within(t), newClient(t, config(), f.endpoint()), string(CauseStatus))
	if r := e.Remedy(); !strings.Contains(r, kubeapi.PathAnnotation) || strings.Contains(r, "TLS") {
		t.Errorf("remedy %q", r)
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
