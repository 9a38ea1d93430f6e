package oidc

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// checkRedirect says what is wrong with a redirect URI that a client wants to register; "" if nothing is. Web programs use https, or
// http on the machine itself (RFC 8252, section 7.3), native ones a scheme of their own domain (section 7.1).
func checkRedirect(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || !u.IsAbs() || len(uri) > maxURI:
		return "Is not an absolute URI."
	case strings.Contains(uri, "#"):
		return "Has a fragment, which never reaches a server."
	case u.User != nil:
		return "Has a user name in it."
	case strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "Has characters that are not allowed in a URI."
	case strings.Trim(u.Host, hostCharacters) != "":
		return "Its host is neither a name nor an address."
	}
	switch scheme := u.Scheme; {
	case !strings.HasPrefix(uri, scheme+":"): // which has been put into lower case
		return "Its scheme must be written in lower case."
	case scheme == "https" && u.Host != "":
		return ""
	case scheme == "http" && isLoopback(u.Hostname()):
		return ""
	case scheme == "http":
		return "Must use https, unless it is on this very machine (127.0.0.1, [::1] or localhost)."
	case strings.Contains(scheme, ".") && u.Host == "":
		return ""
	default:
		return "Must use https, or a scheme that is a domain name in reverse, such as com.example.app:/callback."
	}
}

const maxURI = 2000

// hostCharacters are those of names, addresses and ports. RFC 3986 allows more, which mean something else where pages name the host: in
// Content-Security-Policy.
const hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// allowsRedirect reports whether a request may be answered to the URI: it is one of the client's, letter by letter. Only the port
// of an http URI with a loopback address is free: a native program learns it when it begins to listen (RFC 8252, section 7.3).
func (m Metadata) allowsRedirect(uri string) bool {
	if slices.Contains(m.RedirectURIs, uri) {
		return true
	}
	asked, ok := portless(uri)
	return ok && slices.ContainsFunc(m.RedirectURIs, func(registered string) bool {
		r, ok := portless(registered)
		return ok && r == asked
	})
}

// portless returns an http URI with a loopback address without its port. The rest stays as it is spelt. The name localhost has no
// free port: it may resolve to something else.
func portless(uri string) (string, bool) {
	rest, found := strings.CutPrefix(uri, "http://")
	if !found {
		return "", false
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host := rest[:end]
	if strings.ContainsAny(host, `@\%`) {
		return "", false
	}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		if host[i+1:] == "" || strings.Trim(host[i+1:], "0123456789") != "" {
			return "", false
		}
		host = host[:i]
	}
	if host != "127.0.0.1" && host != "[::1]" {
		return "", false
	}
	return host + rest[end:], true
}
