package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// A cause is the same at each attempt; otherwise the log would have a line for each. It contains no
// address, because anybody may read /readyz.
func TestCauseOf(t *testing.T) {
	configMaps := schema.GroupResource{Resource: "configmaps"}
	dial := func(port int, err error) error {
		return &url.Error{Op: "Get", URL: "https://10.96.0.1:443/api", Err: &net.OpError{
			Op: "read", Net: "tcp", Source: &net.TCPAddr{
				IP:   net.IPv4(10, 0, 0, 7),
				Port: port,
			}, Addr: &net.TCPAddr{IP: net.IPv4(10, 96, 0, 1), Port: 443}, Err: err,
		}}
	}
	for _, tc := range []struct {
		err  func(attempt int) error
		want string
	}{
		{
			func(port int) error { return dial(port, os.NewSyscallError("connect", syscall.ECONNREFUSED)) },
			"connect: connection refused",
		},
		{
			func(port int) error { return dial(port, os.NewSyscallError("read", syscall.ECONNRESET)) },
			"read: connection reset by peer",
		},
		{func(port int) error {
			return dial(port, &net.DNSError{
				Err:  fmt.Sprintf("read udp 10.0.0.7:%d->10.96.0.10:53: i/o timeout", port),
				Name: "api.example.com",
			})
		}, "its name cannot be looked up"},
		{func(int) error {
			return &url.Error{Op: "Get", URL: "https://10.96.0.1:443/api", Err: context.DeadlineExceeded}
		}, "timeout"},
		{func(port int) error {
			refused := dial(port, os.NewSyscallError("connect", syscall.ECONNREFUSED))
			return &url.Error{
				Op: "Get", URL: "https://10.96.0.1:443/api",
				Err: &net.OpError{Op: "proxyconnect", Net: "tcp", Err: errors.Unwrap(refused)},
			}
		}, "proxyconnect: connect: connection refused"},
		{func(int) error {
			return &url.Error{Op: "Get", URL: "https://10.96.0.1:443/api", Err: errors.New("Bad Gateway")}
		}, "Bad Gateway"},
		{
			func(int) error { return errNoFrontProxy },
			"ConfigMap kube-system/extension-apiserver-authentication has no requestheader-client-ca-file",
		},
		{func(int) error { return apierrors.NewForbidden(configMaps, "x", errors.New("no")) }, "Forbidden"},
		{func(int) error { return apierrors.NewTooManyRequests("no", 1) }, "TooManyRequests"},
		{func(int) error { return fmt.Errorf("wrapped: %w", apierrors.NewInternalError(errors.New("no"))) }, "InternalError"},
	} {
		for port := range 2 {
			if got := causeOf(tc.err(40000 + port)); got != tc.want {
				t.Errorf("%v: %q, want %q", tc.err(port), got, tc.want)
			}
		}
	}
}

func TestRemedyFor(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "x", errors.New("no"))
	for _, tc := range []struct {
		err   error
		proxy string
		want  string
	}{
		{syscall.ECONNREFUSED, "", "lets requests to it through"},
		{syscall.ECONNREFUSED, "10.0.0.9:3128", "through the proxy 10.0.0.9:3128 because HTTPS_PROXY is set"},
		{forbidden, "", "metrics-server-auth-reader"},
		{forbidden, "10.0.0.9:3128", "metrics-server-auth-reader"}, // so the proxy lets it through
		{apierrors.NewUnauthorized("no"), "", "delete the pod"},
		{apierrors.NewUnauthorized("no"), "10.0.0.9:3128", "delete the pod"},
		{errNoFrontProxy, "10.0.0.9:3128", "--requestheader-client-ca-file"},
	} {
		if got := remedyFor(tc.err, "metrics-server", tc.proxy); !strings.Contains(got, tc.want) {
			t.Errorf("%v by %q: %q does not say %q", tc.err, tc.proxy, got, tc.want)
		}
	}
}

func TestProxyTo(t *testing.T) {
	asked := ""
	c := &rest.Config{
		Host: "10.96.0.1:443", TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		Proxy: func(r *http.Request) (*url.URL, error) {
			asked = r.URL.String()
			return url.Parse("http://me:pw@proxy:3128")
		},
	}
	if got := proxyTo(c); got != "proxy:3128" || asked != "https://10.96.0.1:443" {
		t.Errorf("%q for %q", got, asked)
	}
	c.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	if got := proxyTo(c); got != "" {
		t.Errorf("%q, want none", got)
	}
}

// TestNamingProxy checks that a proxy is blamed only for requests that it may have kept from the API server.
func TestNamingProxy(t *testing.T) {
	c := &rest.Config{Host: "10.96.0.1", Proxy: func(*http.Request) (*url.URL, error) {
		return url.Parse("http://proxy:3128")
	}}
	request := fmt.Errorf("read: %w", &url.Error{Op: "Get", URL: "https://10.96.0.1", Err: io.EOF})
	for _, tc := range []struct {
		err   error
		named bool
	}{
		{nil, false},
		{request, true},
		{fmt.Errorf("read: %w", apierrors.NewUnauthorized("Unauthorized")), false},
		{os.ErrNotExist, false}, // of a file
		{&url.Error{Op: "Get", URL: "https://10.96.0.1", Err: errors.New("getting credentials: exec: aws not found")}, false},
	} {
		got := namingProxy(tc.err, c)
		if named := strings.Contains(fmt.Sprint(got), "proxy:3128"); named != tc.named || !errors.Is(got, tc.err) {
			t.Errorf("%v: got %v", tc.err, got)
		}
	}
	c.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	if got := namingProxy(request, c); !errors.Is(got, request) || strings.Contains(got.Error(), "proxy") {
		t.Errorf("without a proxy: %v", got)
	}
}
