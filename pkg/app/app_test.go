package app

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A port that cannot be had is named, with what to do, whoever asks for it first.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for name, serve := range map[string]func(*Options) error{
		"generic":   func(o *Options) error { _, err := o.genericConfig(); return err },
		"meanwhile": func(o *Options) error { _, err := o.serveMeanwhile(http.NotFoundHandler()); return err },
	} {
		err := serve(parse(t, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port)))
		if err == nil {
			t.Fatalf("%s: listens on a port that is taken", name)
		}
		for _, want := range []string{fmt.Sprintf("--secure-port %d: ", port), "address already in use", "--secure-port=4443"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in: %v", name, want, err)
			}
		}
	}
}

func TestServingError(t *testing.T) {
	doc, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	bind := func(errno syscall.Errno) error {
		return &net.OpError{Op: "listen", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4zero, Port: 443}, Err: os.NewSyscallError("bind", errno)}
	}
	for _, tc := range []struct {
		err        error
		documented string
		remedy     string // "": none
	}{
		{bind(syscall.EADDRINUSE), "bind: address already in use", "--secure-port=4443"},
		{bind(syscall.EACCES), "bind: permission denied", "--secure-port=10250"},
		{&os.PathError{Op: "open", Path: "/tls.key", Err: syscall.EACCES}, "", ""},
		{errors.New("no"), "", ""},
	} {
		const head = "serve on --bind-address 0.0.0.0 --secure-port 443: "
		got := NewOptions().servingError(443, tc.err).Error()
		remedy, ok := strings.CutPrefix(got, head+tc.err.Error())
		if !ok || !strings.Contains(remedy, tc.remedy) || (tc.remedy == "") != (remedy == "") {
			t.Errorf("%q, want %q, the error and a remedy with %q", got, head, tc.remedy)
		}
		if !strings.Contains(string(doc), tc.documented) {
			t.Errorf("docs/troubleshooting.md does not have %q", tc.documented)
		}
	}
}
