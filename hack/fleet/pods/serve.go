package pods

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Port is the port of the metrics of pods.
const Port = 8080

// Stats counts requests and answers.
type Stats struct {
	Answers int64 // pages that were sent
	Faults  int64 // requests to pods with a fault
	Bytes   int64 // of the pages
	Open    int64 // connections, now
}

// Server answers for pods. Make it with Serve, and Close it.
type Server struct {
	listener net.Listener
	shared   atomic.Pointer[Shared]
	stop     context.CancelFunc
	wg       sync.WaitGroup
	pages    sync.Pool // of *[]byte

	answers, faults, bytes, open atomic.Int64

	mu    sync.RWMutex // guards the fields that follow
	pods  map[netip.Addr]*Spec
	conns map[*net.TCPConn]bool
}

// sharedPeriod is how often what all pages share changes.
const sharedPeriod = 5 * time.Second

// Serve answers requests to addr, an address and a port. The address of a connection tells which
// pod is scraped.
func Serve(addr string) (*Server, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", addr)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		listener: l, stop: stop, pods: map[netip.Addr]*Spec{}, conns: map[*net.TCPConn]bool{},
		pages: sync.Pool{New: func() any { return new([]byte) }},
	}
	s.shared.Store(NewShared(time.Now()))
	s.wg.Go(func() { s.change(ctx) })
	s.wg.Go(s.accept)
	return s, nil
}

// Addr returns the address of the server.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close ends the server and its connections.
func (s *Server) Close() {
	s.stop()
	s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Add adds pods, or replaces those at the same addresses.
func (s *Server) Add(specs ...Spec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range specs {
		if p.Fault != "" && fault(p.Fault) == nil {
			return fmt.Errorf("%q is not a fault of a pod", p.Fault)
		}
		s.pods[p.Addr] = &p
	}
	return nil
}

// Remove removes pods. Requests on connections to them are no longer answered.
func (s *Server) Remove(addrs ...netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addrs {
		delete(s.pods, a)
	}
}

// Stats returns what was answered so far.
func (s *Server) Stats() Stats {
	return Stats{
		Answers: s.answers.Load(), Faults: s.faults.Load(), Bytes: s.bytes.Load(), Open: s.open.Load(),
	}
}

// change updates the shared part of the pages until ctx ends.
func (s *Server) change(ctx context.Context) {
	tick := time.NewTicker(sharedPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.shared.Store(NewShared(now))
		}
	}
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // too many open files, perhaps
			continue
		}
		tcp := c.(*net.TCPConn)
		s.mu.Lock()
		s.conns[tcp] = true
		s.mu.Unlock()
		s.open.Add(1)
		s.wg.Go(func() {
			s.converse(tcp)
			tcp.Close()
			s.open.Add(-1)
			s.mu.Lock()
			delete(s.conns, tcp)
			s.mu.Unlock()
		})
	}
}

// converse answers the requests on a connection. It does not use net/http, because with 50,000
// connections and 3,300 pages per second that would take a gigabyte and a third of a core more, on
// the machine that is measured.
func (s *Server) converse(c *net.TCPConn) {
	addr := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	const end = "\r\n\r\n"
	var buf [1024]byte
	for n := 0; ; {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		if n += m; !bytes.Contains(buf[:n], []byte(end)) {
			// Only the end of a header is looked for.
			keep := min(n, len(end)-1)
			copy(buf[:], buf[n-keep:n])
			n = keep
			continue
		}
		n = 0
		s.mu.RLock()
		p := s.pods[addr]
		s.mu.RUnlock()
		if p == nil || s.answer(c, p) != nil {
			return
		}
	}
}

// answer answers one request.
func (s *Server) answer(c *net.TCPConn, p *Spec) error {
	if f := fault(p.Fault); f != nil {
		s.faults.Add(1)
		if f.answer != nil {
			return f.answer(c, p.Page(nil, s.shared.Load(), time.Now()))
		}
	}
	own, shared := s.pages.Get().(*[]byte), s.shared.Load()
	defer s.pages.Put(own)
	*own = p.own((*own)[:0], time.Now())
	size := len(shared.before) + len(*own) + len(shared.after)
	buffers := net.Buffers{[]byte(declared(size)), shared.before, *own, shared.after}
	if _, err := buffers.WriteTo(c); err != nil {
		return err
	}
	s.answers.Add(1)
	s.bytes.Add(int64(size))
	return nil
}
