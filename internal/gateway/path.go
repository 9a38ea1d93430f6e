package gateway

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// canonical returns the path of a request as routes match it, decoded, and as the upstream gets it, escaped. There is one
// spelling of each path: percent escapes of characters that need none are decoded, the others are in upper case (RFC 3986,
// section 6.2.2).
//
// What two programs may read in different ways is refused rather than repaired, so that nobody asks a policy about one path
// and the upstream for another: empty segments, "." and "..", also when escaped; "/", "\" and ";" in an escaped form, and the
// latter two in any; control characters; escapes of escapes; what is not UTF-8.
func canonical(u *url.URL) (decoded, escaped string, err error) {
	if u.RawPath == "" && isPlain(u.Path) {
		return u.Path, u.Path, nil
	}
	raw := u.EscapedPath()
	if len(raw) == 0 || raw[0] != '/' {
		return "", "", ErrPath
	}
	path := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return "", "", ErrPath
			}
			c = unhex(raw[i+1])<<4 | unhex(raw[i+2])
			i += 2
			if c == '/' {
				return "", "", ErrPath
			}
		}
		if c < ' ' || c == 0x7f || c == '\\' || c == ';' {
			return "", "", ErrPath
		}
		path = append(path, c)
	}
	if !utf8.Valid(path) || hasOddSegment(path) || hasEscape(path) {
		return "", "", ErrPath
	}
	return string(path), escape(path), nil
}

// isPlain reports whether a path is canonical and needs no escapes.
func isPlain(path string) bool {
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	for i := 1; i < len(path); i++ {
		if c := path[i]; !plain[c] || path[i-1] == '/' && (c == '/' || c == '.') {
			return false // a segment that begins with a dot takes the long way
		}
	}
	return true
}

// plain are the characters that stand for themselves in a path (pchar of RFC 3986, section 3.3), without ";", and "/".
var plain = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@/") {
		set[c] = true
	}
	return set
}()

// hasOddSegment reports whether a decoded path has a segment that others would resolve or drop.
func hasOddSegment(path []byte) bool {
	segments := strings.Split(string(path[1:]), "/")
	for i, s := range segments {
		if s == "." || s == ".." || s == "" && i < len(segments)-1 {
			return true
		}
	}
	return false
}

// hasEscape reports whether a decoded path would be decoded further by who decodes twice.
func hasEscape(path []byte) bool {
	for i := 0; i+2 < len(path); i++ {
		if path[i] == '%' && isHex(path[i+1]) && isHex(path[i+2]) {
			return true
		}
	}
	return false
}

func escape(path []byte) string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(path)+8)
	for _, c := range path {
		if plain[c] {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}
