//go:build unix

package httpconn

import (
	"errors"
	"net"
	"syscall"
)

// silent reports whether nothing unread has arrived on conn, including its end. It consumes nothing,
// does not block, and returns true for a connection that it cannot check.
func silent(conn net.Conn) bool {
	for {
		switch c := conn.(type) {
		case syscall.Conn:
			raw, err := c.SyscallConn()
			if err != nil {
				return false
			}
			var peeked error
			err = raw.Control(func(fd uintptr) {
				_, _, peeked = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			})
			return err == nil && (errors.Is(peeked, syscall.EAGAIN) || errors.Is(peeked, syscall.EINTR))
		case interface{ NetConn() net.Conn }: // TLS to a proxy
			conn = c.NetConn()
		default:
			return true
		}
	}
}
