package kubelets

import (
	"io"
	"net/netip"
	"strings"
	"testing"

	"metrics-server/hack/fleet/child"
)

// TestChild sends a child the requests of a parent.
func TestChild(t *testing.T) {
	in, ask := io.Pipe()
	answer, out := io.Pipe()
	done := make(chan error)
	go func() { done <- Main(in, out) }()
	p := &Processes{of: map[netip.AddrPort]*child.Process{}}
	if err := p.attach(child.Attach(ask, answer), Config{Token: "good"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(p.CA()), "CERTIFICATE") {
		t.Errorf("%q", p.CA())
	}
	if err := p.Add(spec(t, "127.31.1.1", "a"), spec(t, "127.31.1.2", "b")); err != nil {
		t.Fatal(err)
	}
	if err := p.SetFault(addr("127.31.1.1"), "500"); err != nil {
		t.Error(err)
	}
	if err := p.Remove(addr("127.31.1.2")); err != nil {
		t.Error(err)
	}
	if err := p.SetFault(addr("127.31.1.2"), "500"); err == nil {
		t.Error("a kubelet that was removed takes a fault")
	}
	if got, err := p.Stats(); err != nil || got != (Stats{}) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := p.Add(Spec{Addr: addr("127.31.1.3"), Fault: "x"}); err == nil ||
		!strings.Contains(err.Error(), "not a fault") {
		t.Errorf("an error of a child: %v", err)
	}
	ask.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
