// Package kubelets serves the simulated kubelets, in this process (Serve) or in others (Start), which is for
// thousands of nodes: each takes a listener and a connection, and a process may have only so many open files.
//
// What they answer is kubelettest's. All of them are one http.Server, so that a node costs little more than its
// listener and its connection do.
package kubelets

import (
	"context"
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
	Fault string // one of Faults, or empty
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

// Faults are the names of what a faulty kubelet can do.
var Faults = []string{"hang", "drip", "500", "half"}

func fault(name string) (kubelettest.Fault, error) {
	switch name {
	case "":
		return nil, nil
	case "hang":
		return kubelettest.Hang, nil
	case "drip":
		return kubelettest.Drip(100 * time.Millisecond), nil
	case "500":
		return kubelettest.Status(http.StatusInternalServerError, "simulated"), nil
	case "half":
		return kubelettest.Half, nil
	}
	return nil, fmt.Errorf("%q is not a fault", name)
}

// Server is the kubelets of this process.
type Server struct {
	config  Config
	ca      *kubelettest.CA
	server  *http.Server
	serving sync.WaitGroup
	close   context.CancelFunc

	mu    sync.Mutex
	nodes map[netip.Addr]*node

	answers, faults, refused, bytes atomic.Int64
}

// node is one kubelet.
type node struct {
	spec    Spec
	node    atomic.Pointer[kubelettest.Node]
	handler kubelettest.Kubelet
	tls     *tls.Config
	faulty  bool
}

// nodeKey is the key of a connection's *node in its context.
type nodeKey struct{}

// Serve returns a server without kubelets. Close it.
func Serve(c Config) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{config: c, ca: kubelettest.NewCA("fleet-kubelets"), nodes: map[netip.Addr]*node{}, close: cancel}
	s.server = &http.Server{
		Handler:     http.HandlerFunc(s.serve),
		ErrorLog:    log.New(io.Discard, "", 0), // what a binary does to its connections is not ours to log
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, nodeKey{}, s.node(c.LocalAddr()))
		},
		ConnState: corkBetween,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				return s.node(hello.Conn.LocalAddr()).tls, nil
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
	f, err := fault(spec.Fault)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", spec.Addr.String())
	if err != nil {
		return err
	}
	spec.Pods = nil // fresh has them
	n := &node{spec: spec, faulty: f != nil}
	n.node.Store(fresh)
	n.handler = kubelettest.Kubelet{
		Answer:       func(dst []byte, now time.Time) []byte { return n.node.Load().Append(dst, now) },
		Authenticate: true,
	}
	n.handler.SetToken(s.config.Token)
	n.handler.SetFault(f)
	n.tls = &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{*s.ca.Server(spec.Addr.Addr().String())},
		NextProtos:   []string{"http/1.1"},
	}
	if spec.HTTP2 {
		n.tls.NextProtos = []string{"h2", "http/1.1"}
	}
	s.nodes[spec.Addr.Addr()] = n
	s.serving.Go(func() {
		_ = s.server.ServeTLS(corkingListener{Listener: l, cork: !n.faulty && !spec.HTTP2}, "", "") // it ends with Close
	})
	return nil
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

func (s *Server) node(local net.Addr) *node {
	addr := local.(*net.TCPAddr).AddrPort().Addr().Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[addr]
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	n := r.Context().Value(nodeKey{}).(*node)
	if n.faulty {
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
