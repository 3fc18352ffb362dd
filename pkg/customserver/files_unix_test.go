//go:build unix

package customserver

import (
	"syscall"
	"testing"
)

// Each endpoint keeps a connection: where few files may be open, fewer endpoints are scraped, and what else the server
// needs files for gets some.
func TestEndpointsFitIntoOpenFiles(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = 400
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	l := newLimits()
	total, remedy := l.total(), l.orRaise(endpointLimit)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if total != 300 {
		t.Errorf("%d endpoints with 400 open files, want 300", total)
	}
	if remedy != ", or raise the limit on open files of the server" {
		t.Errorf("the limit on open files applies, and the remedy is %q", remedy)
	}
}
