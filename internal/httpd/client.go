package httpd

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
)

// maxRequestID bounds an incoming X-Request-Id, in bytes.
const maxRequestID = 64

// peerAddr reads the RemoteAddr of a request; the zero Addr when it is not an IP address, as with Unix sockets.
func peerAddr(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// clientAddr returns the first address, going from the peer backwards through X-Forwarded-For, that is not a trusted proxy.
// Everything to the left of it could have been made up by it. An element that is no address ends the walk at the proxy that
// wrote it.
func clientAddr(peer netip.Addr, header http.Header, trusted []netip.Prefix) netip.Addr {
	client, said := peer, header["X-Forwarded-For"]
	if len(said) == 0 || !isTrusted(client, trusted) {
		return client
	}
	hops := strings.Split(strings.Join(said, ","), ",")
	for i := len(hops) - 1; i >= 0 && isTrusted(client, trusted); i-- {
		addr, ok := parseHop(hops[i])
		if !ok {
			break
		}
		client = addr
	}
	return client
}

// parseHop reads one element of X-Forwarded-For: an address, alone or with a port, IPv6 in brackets or not.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.Trim(text, " \t")
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = ap.Addr()
	}
	return addr.Unmap().WithZone(""), true
}

func isTrusted(addr netip.Addr, trusted []netip.Prefix) bool {
	for _, prefix := range trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// requestID returns the id a trusted proxy gave the request, if it is a sane token, and a new one otherwise.
func requestID(header http.Header, trusted bool) string {
	if id := header.Get("X-Request-Id"); trusted && saneID(id) {
		return id
	}
	return newID()
}

// newID returns 128 random bits, which tell requests apart and are no secret.
func newID() string {
	const letters, half = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 13 // of five bits each
	var id [2 * half]byte
	for i := 0; i < len(id); i += half {
		for n, j := rand.Uint64(), i; j < i+half; n, j = n>>5, j+1 {
			id[j] = letters[n&31]
		}
	}
	return string(id[:])
}

func saneID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// isHTTPS reports whether the client's connection is encrypted: ours is, or a trusted proxy says that its own was.
func isHTTPS(r *http.Request, trusted bool) bool {
	if r.TLS != nil {
		return true
	}
	protos := r.Header.Values("X-Forwarded-Proto")
	if !trusted || len(protos) == 0 {
		return false
	}
	last := protos[len(protos)-1]
	return strings.EqualFold(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]), "https")
}
