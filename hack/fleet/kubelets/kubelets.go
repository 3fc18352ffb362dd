// Package kubelets serves the simulated kubelets, in this process (Serve) or in others (Start), which is for
// thousands of nodes: each takes a listener and a connection, and a process may have only so many open files.
//
// What they answer is kubelettest's. All of them are one http.Server, so that a node costs little more than its
// listener and its connection do.
package kubelets

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
)

// Spec is one kubelet.
type Spec struct {
	Addr  netip.AddrPort
	Seed  uint64
	Boot  time.Time
	HTTP2 bool
	Fault string // the Name of one of Faults, or empty
	Pods  []kubelettest.Pod
}

// Config is what the kubelets of a process have in common.
type Config struct {
	Token       string // that is accepted
	RequestTime bool   // see kubelettest.NodeConfig
}

// Stats is what was asked and answered so far.
type Stats struct {
	Answers int64 // that were right
	Faults  int64 // requests that were answered wrongly, or not, on purpose
	Refused int64 // requests without the token
	Bytes   int64 // of the right answers, before compression
}

// Server is the kubelets of this process.
type Server struct {
	config   Config
	ca       *kubelettest.CA
	stranger *kubelettest.CA // whom nobody knows
	server   *http.Server
	serving  sync.WaitGroup
	close    context.CancelFunc

	mu    sync.Mutex
	nodes map[netip.Addr]*node

	answers, faults, refused, bytes atomic.Int64
}

// node is one kubelet.
type node struct {
	spec    Spec
	node    atomic.Pointer[kubelettest.Node]
	handler kubelettest.Kubelet
	faulty  atomic.Bool
	tls     atomic.Pointer[tls.Config]
	right   atomic.Int64 // Unix nanoseconds of the last answer that was right

	// Server.mu guards the rest.
	listener net.Listener // nil: nobody listens
	conns    map[net.Conn]struct{}
}

// nodeKey is the key of a connection's *node in its context.
type nodeKey struct{}

// Serve returns a server without kubelets. Close it.
func Serve(c Config) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{config: c, ca: kubelettest.NewCA("fleet-kubelets"), stranger: kubelettest.NewCA("stranger"), nodes: map[netip.Addr]*node{}, close: cancel}
	s.server = &http.Server{
		Handler:     http.HandlerFunc(s.serve),
		ErrorLog:    log.New(io.Discard, "", 0), // what a binary does to its connections is not ours to log
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, nodeKey{}, s.node(c.LocalAddr()))
		},
		ConnState: s.track,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				if n := s.node(hello.Conn.LocalAddr()); n != nil {
					return n.tls.Load(), nil
				}
				return nil, net.ErrClosed
			},
		},
		Protocols: new(http.Protocols),
	}
	s.server.Protocols.SetHTTP1(true)
	s.server.Protocols.SetHTTP2(true)
	return s
}

// CA returns the authority that signed the kubelets' certificates, in PEM.
func (s *Server) CA() []byte { return s.ca.PEM() }

// Add starts a kubelet, or tells one at the same address its pods anew.
func (s *Server) Add(spec Spec) error {
	fresh := kubelettest.NewNode(kubelettest.NodeConfig{Seed: spec.Seed, Boot: spec.Boot, List: spec.Pods, RequestTime: s.config.RequestTime})
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[spec.Addr.Addr()]; n != nil {
		n.node.Store(fresh)
		return nil
	}
	spec.Pods = nil // fresh has them
	n := &node{spec: spec, conns: map[net.Conn]struct{}{}}
	n.node.Store(fresh)
	n.handler = kubelettest.Kubelet{
		Answer:       func(dst []byte, now time.Time) []byte { return n.node.Load().Append(dst, now) },
		Authenticate: true,
	}
	n.handler.SetToken(s.config.Token)
	if err := s.setFault(n, spec.Fault); err != nil {
		return err
	}
	s.nodes[spec.Addr.Addr()] = n
	return nil
}

// SetFault makes the kubelet at addr do what the fault of that name is; none heals it.
func (s *Server) SetFault(addr netip.Addr, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[addr]
	if n == nil {
		return fmt.Errorf("there is no kubelet at %v", addr)
	}
	return s.setFault(n, name)
}

// setFault is SetFault for n. mu is held.
func (s *Server) setFault(n *node, name string) error {
	f := &Fault{}
	if name != "" {
		var err error
		if f, err = FaultNamed(name); err != nil {
			return err
		}
	}
	ca := s.ca
	if f.place == inCertificate {
		ca = s.stranger
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{*ca.Server(n.spec.Addr.Addr().String())},
		NextProtos:   []string{"http/1.1"},
	}
	if n.spec.HTTP2 {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	// Without keys of its own it would resume sessions that were made with another certificate, which a kubelet cannot.
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	config.SetSessionTicketKeys([][32]byte{key})
	n.tls.Store(config)
	n.faulty.Store(name != "")
	if n.handler.SetFault(nil); f.do != nil {
		n.handler.SetFault(f.do())
	}
	if f.place != inAnswer {
		n.closeConns()
	}
	if f.place == inListener {
		return n.closeListener()
	}
	return s.listen(n)
}

// listen lets n accept connections, unless it does. mu is held.
func (s *Server) listen(n *node) error {
	if n.listener != nil {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", n.spec.Addr.String())
	if err != nil {
		return err
	}
	n.listener = l
	s.serving.Go(func() {
		_ = s.server.ServeTLS(corkingListener{l}, "", "") // it ends with l
	})
	return nil
}

// closeListener is for a node without connections. Server.mu is held.
func (n *node) closeListener() error {
	if n.listener == nil {
		return nil
	}
	err := n.listener.Close()
	n.listener = nil
	return err
}

func (n *node) closeConns() {
	for c := range n.conns {
		corkOf(c).Conn.Close() // not the TLS above it, which would wait for a write that hangs
	}
}

// Remove ends the kubelet at addr.
func (s *Server) Remove(addr netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[addr]
	if n == nil {
		return fmt.Errorf("there is no kubelet at %v", addr)
	}
	delete(s.nodes, addr)
	n.closeConns()
	return n.closeListener()
}

// LastAnswer is when the kubelet at addr answered last as it should.
func (s *Server) LastAnswer(addr netip.Addr) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Unix(0, s.nodes[addr].right.Load())
}

// track is the http.Server's ConnState. What a kubelet that works writes from the begin to the end of a request is sent at its end.
func (s *Server) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	n := s.nodes[localAddr(c.LocalAddr())]
	if n != nil {
		switch state {
		case http.StateNew:
			n.conns[c] = struct{}{}
		case http.StateClosed, http.StateHijacked:
			delete(n.conns, c)
		}
	}
	s.mu.Unlock()
	switch {
	case n == nil:
	case state == http.StateActive && !n.spec.HTTP2 && !n.faulty.Load():
		corkOf(c).hold()
	case state == http.StateIdle, state == http.StateHijacked:
		corkOf(c).release()
	}
}

// Stats returns what was asked and answered so far.
func (s *Server) Stats() Stats {
	return Stats{Answers: s.answers.Load(), Faults: s.faults.Load(), Refused: s.refused.Load(), Bytes: s.bytes.Load()}
}

// Close ends all kubelets.
func (s *Server) Close() error {
	s.close()
	err := s.server.Close()
	s.serving.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func localAddr(a net.Addr) netip.Addr { return a.(*net.TCPAddr).AddrPort().Addr().Unmap() }

func (s *Server) node(local net.Addr) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[localAddr(local)]
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	n := r.Context().Value(nodeKey{}).(*node)
	if n == nil {
		panic(http.ErrAbortHandler) // it was removed a moment ago
	}
	if n.faulty.Load() {
		s.faults.Add(1) // some never return
		n.handler.ServeHTTP(w, r)
		return
	}
	c := counter{ResponseWriter: w, code: http.StatusOK}
	n.handler.ServeHTTP(&c, r)
	if c.code != http.StatusOK {
		s.refused.Add(1)
		return
	}
	n.right.Store(time.Now().UnixNano())
	s.answers.Add(1)
	s.bytes.Add(c.bytes)
}

// counter counts what is written.
type counter struct {
	http.ResponseWriter
	code  int
	bytes int64
}

func (c *counter) WriteHeader(code int) {
	c.code = code
	c.ResponseWriter.WriteHeader(code)
}

func (c *counter) Write(b []byte) (int, error) {
	c.bytes += int64(len(b))
	return c.ResponseWriter.Write(b)
}
