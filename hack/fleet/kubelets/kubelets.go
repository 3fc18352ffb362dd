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
	Fault string // the Name of one of Faults, or empty
	Pods  []kubelettest.Pod
}

// Config is what the kubelets of a process have in common.
type Config struct {
	Token string // that is accepted
}

// Stats counts requests and answers.
type Stats struct {
	Answers int64 // correct answers
	Faults  int64 // requests that were deliberately answered wrongly, or not at all
	Refused int64 // requests without the token
	Bytes   int64 // of the right answers, before compression
}

// Server is the kubelets of this process.
type Server struct {
	config   Config
	ca       *kubelettest.CA
	stranger *kubelettest.CA // not trusted by the server
	server   *http.Server
	serving  sync.WaitGroup
	close    context.CancelFunc

	mu       sync.Mutex
	kubelets map[netip.Addr]*kubelet

	answers, faults, refused, bytes atomic.Int64
}

// kubelet is one kubelet of a Server.
type kubelet struct {
	spec    Spec
	node    atomic.Pointer[kubelettest.Node]
	handler kubelettest.Kubelet
	faulty  atomic.Bool
	tls     atomic.Pointer[tls.Config]
	right   atomic.Int64 // Unix nanoseconds of the last correct answer

	// Server.mu guards the rest.
	listener net.Listener // nil: nothing listens
	conns    map[net.Conn]struct{}
}

// kubeletKey is the key of a connection's *kubelet in its context.
type kubeletKey struct{}

// Serve returns a server without kubelets. Close it.
func Serve(c Config) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		config: c, ca: kubelettest.NewCA("fleet-kubelets"), stranger: kubelettest.NewCA("stranger"),
		kubelets: map[netip.Addr]*kubelet{}, close: cancel,
	}
	s.server = &http.Server{
		Handler:     http.HandlerFunc(s.serve),
		ErrorLog:    log.New(io.Discard, "", 0), // what a binary does with its connections is not for our log
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, kubeletKey{}, s.kubelet(c.LocalAddr()))
		},
		ConnState: s.track,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				if k := s.kubelet(hello.Conn.LocalAddr()); k != nil {
					return k.tls.Load(), nil
				}
				return nil, net.ErrClosed
			},
		},
		Protocols: new(http.Protocols),
	}
	s.server.Protocols.SetHTTP1(true)
	return s
}

// CA returns the authority that signed the kubelets' certificates, in PEM.
func (s *Server) CA() []byte { return s.ca.PEM() }

// Add starts a kubelet, or replaces the pods of the kubelet at that address.
func (s *Server) Add(spec Spec) error {
	fresh := kubelettest.NewNode(kubelettest.NodeConfig{
		Seed: spec.Seed, Boot: spec.Boot, List: spec.Pods,
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kubelets[spec.Addr.Addr()]; k != nil {
		k.node.Store(fresh)
		return nil
	}
	spec.Pods = nil // fresh has the pods
	k := &kubelet{spec: spec, conns: map[net.Conn]struct{}{}}
	k.node.Store(fresh)
	k.handler = kubelettest.Kubelet{
		Answer:       func(dst []byte, now time.Time) []byte { return k.node.Load().Append(dst, now) },
		Authenticate: true,
	}
	k.handler.SetToken(s.config.Token)
	if err := s.setFault(k, spec.Fault); err != nil {
		return err
	}
	s.kubelets[spec.Addr.Addr()] = k
	return nil
}

// SetFault applies the fault of that name to the kubelet at addr; "" ends its fault.
func (s *Server) SetFault(addr netip.Addr, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kubelets[addr]
	if k == nil {
		return fmt.Errorf("there is no kubelet at %v", addr)
	}
	return s.setFault(k, name)
}

// setFault is SetFault for k. mu is held.
func (s *Server) setFault(k *kubelet, name string) error {
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
		Certificates: []tls.Certificate{*ca.Server(k.spec.Addr.Addr().String())},
		NextProtos:   []string{"http/1.1"},
	}
	// Without keys of its own it would resume sessions that were made with another certificate, which a kubelet cannot.
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	config.SetSessionTicketKeys([][32]byte{key})
	k.tls.Store(config)
	k.faulty.Store(name != "")
	if k.handler.SetFault(nil); f.do != nil {
		k.handler.SetFault(f.do())
	}
	if f.place != inAnswer {
		k.closeConns()
	}
	if f.place == inListener {
		return k.closeListener()
	}
	return s.listen(k)
}

// listen lets k accept connections, unless it does. mu is held.
func (s *Server) listen(k *kubelet) error {
	if k.listener != nil {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", k.spec.Addr.String())
	if err != nil {
		return err
	}
	k.listener = l
	s.serving.Go(func() {
		_ = s.server.ServeTLS(corkingListener{l}, "", "") // it ends with l
	})
	return nil
}

// closeListener is for a node without connections. Server.mu is held.
func (k *kubelet) closeListener() error {
	if k.listener == nil {
		return nil
	}
	err := k.listener.Close()
	k.listener = nil
	return err
}

func (k *kubelet) closeConns() {
	for c := range k.conns {
		corkOf(c).Conn.Close() // not the TLS above it, which would wait for a write that hangs
	}
}

// Remove ends the kubelet at addr.
func (s *Server) Remove(addr netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kubelets[addr]
	if k == nil {
		return fmt.Errorf("there is no kubelet at %v", addr)
	}
	delete(s.kubelets, addr)
	k.closeConns()
	return k.closeListener()
}

// LastAnswer returns when the kubelet at addr last gave a correct answer.
func (s *Server) LastAnswer(addr netip.Addr) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Unix(0, s.kubelets[addr].right.Load())
}

// track is the http.Server's ConnState. A kubelet without a fault holds back what it writes until
// the end of the request.
func (s *Server) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	k := s.kubelets[localAddr(c.LocalAddr())]
	if k != nil {
		switch state {
		case http.StateNew:
			k.conns[c] = struct{}{}
		case http.StateClosed, http.StateHijacked:
			delete(k.conns, c)
		}
	}
	s.mu.Unlock()
	switch {
	case k == nil:
	case state == http.StateActive && !k.faulty.Load():
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

func (s *Server) kubelet(local net.Addr) *kubelet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kubelets[localAddr(local)]
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	k := r.Context().Value(kubeletKey{}).(*kubelet)
	if k == nil {
		panic(http.ErrAbortHandler) // it was removed a moment ago
	}
	if k.faulty.Load() {
		s.faults.Add(1) // some never return
		k.handler.ServeHTTP(w, r)
		return
	}
	c := counter{ResponseWriter: w, code: http.StatusOK}
	k.handler.ServeHTTP(&c, r)
	if c.code != http.StatusOK {
		s.refused.Add(1)
		return
	}
	k.right.Store(time.Now().UnixNano())
	s.answers.Add(1)
	s.bytes.Add(c.bytes)
}

// counter counts the bytes written.
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
