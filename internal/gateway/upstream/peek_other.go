//go:build !unix

package upstream

import "net"

// peeker returns nil: here, a socket cannot be looked at without reading from it.
func peeker(net.Conn) func() bool { return nil }
