package kubelets

import (
	"crypto/tls"
	"net"
	"sync"
)

// A kubelet writes an answer of 43 KB in eleven pieces, each a TLS record and a system call. The
// client sees the records, so they stay. The system calls are saved, so that the client gets the
// CPU.

// corkingListener accepts connections that can hold back what is written.
type corkingListener struct{ net.Listener }

func (l corkingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &corkedConn{Conn: c}, nil
}

// corkOf returns the corkedConn below a connection of an http.Server.
func corkOf(c net.Conn) *corkedConn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*corkedConn)
}

// corkedConn is a connection that can hold back what is written.
type corkedConn struct {
	net.Conn
	mu   sync.Mutex
	held *[]byte // nil: nothing is held back
}

// most is the most that is held back.
const most = 256 << 10

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 64<<10)
	return &b
}}

func (k *corkedConn) hold() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		k.held = buffers.Get().(*[]byte)
	}
}

func (k *corkedConn) release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		return
	}
	_, _ = k.Conn.Write(*k.held) // the next read reports the error
	k.free()
}

func (k *corkedConn) free() {
	if cap(*k.held) <= most {
		*k.held = (*k.held)[:0]
		buffers.Put(k.held)
	}
	k.held = nil
}

// Write writes b or holds it back.
func (k *corkedConn) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		return k.Conn.Write(b)
	}
	if len(*k.held)+len(b) > most {
		if _, err := k.Conn.Write(*k.held); err != nil {
			return 0, err
		}
		*k.held = (*k.held)[:0]
	}
	*k.held = append(*k.held, b...)
	return len(b), nil
}

// SetLinger sets the option on the TCP connection.
func (k *corkedConn) SetLinger(seconds int) error { return k.Conn.(*net.TCPConn).SetLinger(seconds) }

// Close sends what is held back and closes the connection.
func (k *corkedConn) Close() error {
	k.release()
	return k.Conn.Close()
}
