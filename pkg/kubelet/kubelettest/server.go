package kubelettest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// ServerConfig describes a Server.
type ServerConfig struct {
	Addr        string           // default 127.0.0.1:0
	Certificate *tls.Certificate // nil: plain HTTP
	HTTP2       bool             // offer HTTP/2 too, as kubelets before 1.36 do
	ClientCA    *x509.CertPool   // client certificates of this authority are accepted
}

// Server serves a handler, usually a Kubelet, on a port.
type Server struct {
	addr     *net.TCPAddr
	server   *http.Server
	done     chan struct{}
	accepted atomic.Int64
	resumed  atomic.Int64
	handlers sync.WaitGroup // grows only while mu is held and closed is false

	mu     sync.Mutex
	cert   *tls.Certificate
	open   map[net.Conn]struct{}
	closed bool
}

// Serve starts a server. The caller must close it.
func Serve(h http.Handler, c ServerConfig) (*Server, error) {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", c.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{
		addr: l.Addr().(*net.TCPAddr),
		done: make(chan struct{}),
		cert: c.Certificate,
		open: map[net.Conn]struct{}{},
	}
	s.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.begin() {
				defer s.handlers.Done()
				h.ServeHTTP(w, r)
			}
		}),
		ErrorLog:  log.New(io.Discard, "", 0), // tests mistreat the server on purpose
		ConnState: s.track,
		Protocols: new(http.Protocols),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.cert, nil
			},
			VerifyConnection: func(cs tls.ConnectionState) error {
				if cs.DidResume {
					s.resumed.Add(1)
				}
				return nil
			},
		},
	}
	s.server.Protocols.SetHTTP1(true)
	s.server.Protocols.SetHTTP2(c.HTTP2)
	if c.ClientCA != nil {
		s.server.TLSConfig.ClientAuth = tls.VerifyClientCertIfGiven
		s.server.TLSConfig.ClientCAs = c.ClientCA
	}
	go func() {
		defer close(s.done)
		if c.Certificate == nil {
			_ = s.server.Serve(l) // it ends with Close
		} else {
			_ = s.server.ServeTLS(l, "", "")
		}
	}()
	return s, nil
}

// Host returns the IP address that the server listens on.
func (s *Server) Host() string { return s.addr.IP.String() }

// Port returns the port that the server listens on.
func (s *Server) Port() int { return s.addr.Port }

// Accepted returns the number of connections so far.
func (s *Server) Accepted() int { return int(s.accepted.Load()) }

// Resumed returns how many connections resumed a TLS session.
func (s *Server) Resumed() int { return int(s.resumed.Load()) }

// Open returns the number of open connections.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// SetCertificate changes the serving certificate of new connections.
func (s *Server) SetCertificate(c *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert = c
}

// CloseConnections closes all open connections, as a restart of the kubelet does.
func (s *Server) CloseConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close()
	}
}

// begin adds a handler for Close to wait for, unless Close has been called.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.handlers.Add(1)
	}
	return !s.closed
}

// Close stops the server and waits for its handlers.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.server.Close()
	s.CloseConnections()
	<-s.done
	s.handlers.Wait()
}

func (s *Server) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.accepted.Add(1)
		s.open[c] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(s.open, c)
	}
}
