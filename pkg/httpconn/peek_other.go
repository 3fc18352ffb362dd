//go:build !unix

package httpconn

import "net"

// silent cannot be determined on this system: the exchange that follows will fail if the connection
// is gone.
func silent(net.Conn) bool { return true }
