package apiserver

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// maxConnections is the maximum number of open connections. Each takes some 50 KiB. The usual
// clients are few: the aggregators of the API servers, which keep at most 25 connections each, the
// kubelet's probes, and monitoring.
const maxConnections = 1000

// writeBuffer is the size in bytes of the kernel's send buffer of a connection. By default it grows
// up to 4 MiB for each client that reads slowly, which counts as memory of the container. This size
// is enough for 5 MB/s at a round-trip time of 50 ms.
const writeBuffer = 256 << 10

// connections is a listener that keeps at most max connections open, besides those that carry a watch,
// whose number is limited by watches. To accept another one, it closes the connection that has been
// idle for the longest; rejecting the new one instead would lock out probes.
type connections struct {
	net.Listener
	max   int
	start time.Time

	mu     sync.Mutex
	open   map[*connection]struct{} // except those that carry a watch
	all    map[string]*connection   // by remote address
	logged time.Time                // when the warning about too many connections was last logged
}

func newConnections(l net.Listener, limit int) *connections {
	return &connections{
		Listener: l, max: limit, start: time.Now(),
		open: map[*connection]struct{}{}, all: map[string]*connection{},
	}
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(writeBuffer) // on failure the default applies
	}
	one := &connection{Conn: c, of: l, address: c.RemoteAddr().String()}
	one.touch()
	if idlest := l.add(one); idlest != nil {
		_ = idlest.Conn.Close() // its reader or writer gets an error and cleans up
	}
	return one, nil
}

// add adds one. If there are too many, it removes the idlest connection and returns it.
func (l *connections) add(one *connection) (idlest *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.max {
		for c := range l.open {
			if idlest == nil || c.last.Load() < idlest.last.Load() {
				idlest = c
			}
		}
		delete(l.open, idlest)
		if l.all[idlest.address] == idlest {
			delete(l.all, idlest.address)
		}
		if now := time.Now(); now.Sub(l.logged) > time.Minute {
			l.logged = now
			klog.InfoS("Warning: Too many connections are open, so those that have been idle for the longest are closed",
				"limit", l.max)
		}
	}
	l.open[one] = struct{}{}
	l.all[one.address] = one
	return idlest
}

// watch exempts the connection from a remote address from the limit until end is called.
func (l *connections) watch(address string) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.all[address]
	if c == nil {
		return func() {}
	}
	delete(l.open, c)
	c.watches++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if c.watches--; c.watches == 0 && l.all[address] == c {
			c.touch()
			l.open[c] = struct{}{}
		}
	}
}

// connection is an open connection of a connections listener.
type connection struct {
	net.Conn
	of      *connections
	address string       // of the client
	last    atomic.Int64 // time of the last read or write, since of.start
	watches int          // that it carries; guarded by of.mu
}

func (c *connection) touch() { c.last.Store(int64(time.Since(c.of.start))) }

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.touch()
	return n, err
}

// Write implements net.Conn.
func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.touch()
	return n, err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	if c.of.all[c.address] == c {
		delete(c.of.all, c.address)
	}
	c.of.mu.Unlock()
	return c.Conn.Close()
}
