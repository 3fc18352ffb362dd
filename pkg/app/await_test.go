package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A cause is the same at each attempt, or the log would have a line for each, and names no address, for anybody may ask /readyz.
func TestCauseOf(t *testing.T) {
	configMaps := schema.GroupResource{Resource: "configmaps"}
	dial := func(port int, err error) error {
		return &url.Error{Op: "Get", URL: "https://10.96.0.1:443/api", Err: &net.OpError{
			Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: port}, Addr: &net.TCPAddr{IP: net.IPv4(10, 96, 0, 1), Port: 443}, Err: err,
		}}
	}
	for _, tc := range []struct {
		err  func(attempt int) error
		want string
	}{
		{func(port int) error { return dial(port, os.NewSyscallError("connect", syscall.ECONNREFUSED)) }, "connect: connection refused"},
		{func(port int) error { return dial(port, os.NewSyscallError("read", syscall.ECONNRESET)) }, "read: connection reset by peer"},
		{func(port int) error {
			return dial(port, &net.DNSError{Err: fmt.Sprintf("read udp 10.0.0.7:%d->10.96.0.10:53: i/o timeout", port), Name: "api.example.com"})
		}, "its name cannot be looked up"},
		{func(int) error {
			return &url.Error{Op: "Get", URL: "https://10.96.0.1:443/api", Err: context.DeadlineExceeded}
		}, "timeout"},
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
