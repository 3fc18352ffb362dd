package server

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// maxConnections is how many connections are kept open. Each takes some 50 KiB. The usual clients are few: the
// API servers' aggregators, which keep at most 25 connections each, the kubelet's probes, and monitoring.
const maxConnections = 1000

// writeBuffer is how much of an answer the kernel takes of a connection, in bytes. Left to itself it takes up to 4 MiB of each
// client that reads slowly, which is memory of the container too. It is enough for 5 MB/s at a round trip of 50 ms.
const writeBuffer = 256 << 10

// connections is a listener that keeps at most max connections open: for another one it closes the one on which nothing has
// moved for the longest. To refuse the new one instead would leave no way in for probes.
type connections struct {
	net.Listener
	max   int
	start time.Time

	mu     sync.Mutex
	open   map[*connection]struct{}
	logged time.Time // last, that there are too many
}

func newConnections(l net.Listener, limit int) *connections {
	return &connections{Listener: l, max: limit, start: time.Now(), open: map[*connection]struct{}{}}
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(writeBuffer) // the default is no reason to refuse a client
	}
	one := &connection{Conn: c, of: l}
	one.moved()
	if idlest := l.add(one); idlest != nil {
		_ = idlest.Conn.Close() // its reader or writer finds out, and closes the rest of it
	}
	return one, nil
}

// add adds one, and takes out the idlest if there are too many.
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
		if now := time.Now(); now.Sub(l.logged) > time.Minute {
			l.logged = now
			klog.InfoS("warning: too many connections are open, so those on which nothing has moved for the longest are closed", "limit", l.max)
		}
	}
	l.open[one] = struct{}{}
	return idlest
}

// connection is one of connections.
type connection struct {
	net.Conn
	of   *connections
	last atomic.Int64 // when something moved, since of.start
}

func (c *connection) moved() { c.last.Store(int64(time.Since(c.of.start))) }

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.moved()
	return n, err
}

// Write implements net.Conn.
func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.moved()
	return n, err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
