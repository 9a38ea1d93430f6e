package auth

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// addressed reports whether htu names the address of a request as its client saw it, without query and fragment (RFC 9449
// section 4.3). The path is that of the request line, whatever handlers have made of the request's URL since.
func (p *Proofs) addressed(r *http.Request, htu string) bool {
	want, err := normalURL(htu)
	if err != nil {
		return false
	}
	path := normalPath(requestPath(r))
	if len(p.bases) == 0 {
		scheme := "http"
		if p.cfg.Secure(r) {
			scheme = "https"
		}
		base, err := normalURL(scheme + "://" + r.Host)
		return err == nil && strings.TrimSuffix(base, "/")+path == want
	}
	for _, base := range p.bases {
		if base+path == want {
			return true
		}
	}
	return false
}

func requestPath(r *http.Request) string {
	if r.RequestURI != "" {
		if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
			return u.EscapedPath()
		}
	}
	return r.URL.EscapedPath()
}

// normalURL is an http or https URL without query and fragment, after the normalisation by syntax and scheme of RFC 3986
// sections 6.2.2 and 6.2.3: two that it makes the same mean the same, and no others become so.
func normalURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("not a URL") // whose error would repeat it
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Opaque != "" {
		return "", errors.New("not the address of a service")
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" && (u.Scheme != "http" || port != "80") && (u.Scheme != "https" || port != "443") {
		host += ":" + port
	}
	return u.Scheme + "://" + host + normalPath(u.EscapedPath()), nil
}

// normalPath writes each character in one way only, and takes away "." and "..". A slash at the end, two in a row and an
// encoded one are what they are: servers may tell them apart.
func normalPath(escaped string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(escaped); i++ {
		if escaped[i] != '%' || i+2 >= len(escaped) {
			b.WriteByte(escaped[i])
			continue
		}
		c := unhex(escaped[i+1])<<4 | unhex(escaped[i+2])
		if unreserved(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
		i += 2
	}
	return withoutDots(b.String())
}

// withoutDots is RFC 3986 section 5.2.4 for a path that begins with a slash, or is empty.
func withoutDots(path string) string {
	var out []string
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		case ".":
		default:
			out = append(out, s)
			continue
		}
		if last {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/")
}

// unreserved reports whether a character means the same encoded or not (RFC 3986 section 2.3).
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// unhex reads a digit of an escape that url has found to be right.
func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
