package http1

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

// moreFields is room for what handlers add to the header of a request, or of an answer: a gateway does.
const moreFields = 6

// parse makes r, which is empty but for its context, the request that begins with head, to u, which is empty. It reports false when the
// request is not for this package: head is odd in any way, or asks for more than an answer.
func parse(r *http.Request, u *url.URL, head string) (plain bool) {
	line, fields, _ := strings.Cut(head, "\r\n")
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	if version != "HTTP/1.1" || !syntax.Token(method) || method == http.MethodConnect || !strings.HasPrefix(target, "/") || !syntax.Visible(target) {
		return false
	}
	if !parseTarget(u, target) {
		return false
	}
	r.Method, r.URL, r.RequestURI, r.Body = method, u, target, http.NoBody
	r.Proto, r.ProtoMajor, r.ProtoMinor = version, 1, 1
	count := strings.Count(fields, "\r\n") - 1
	r.Header = make(http.Header, count+moreFields)
	values := make([]string, count) // one allocation for all of them
	for i := range values {
		line, fields, _ = strings.Cut(fields, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if value = syntax.Trim(value); !ok || !syntax.Token(name) || !syntax.Text(value) {
			return false
		}
		name = http.CanonicalHeaderKey(name)
		if !plainField(r, name, value) {
			return false
		}
		if before, again := r.Header[name]; again {
			r.Header[name] = append(before, value)
		} else {
			values[i] = value
			r.Header[name] = values[i : i+1 : i+1]
		}
	}
	r.Host = r.Header.Get("Host")
	if r.Host == "" {
		return false
	}
	delete(r.Header, "Host")
	if r.Header.Get("Pragma") == "no-cache" && r.Header["Cache-Control"] == nil { // as net/http has it (RFC 9111, section 5.4)
		r.Header["Cache-Control"] = []string{"no-cache"}
	}
	return true
}

// parseTarget makes u the URL of a target, as url.ParseRequestURI would.
func parseTarget(u *url.URL, target string) bool {
	path, query, asks := strings.Cut(target, "?")
	if isUnescaped(path) {
		u.Path, u.RawQuery, u.ForceQuery = path, query, asks && query == ""
		return true
	}
	parsed, err := url.ParseRequestURI(target)
	if err != nil {
		return false
	}
	*u = *parsed
	return true
}

// isUnescaped reports whether a path is made of characters that stand for themselves, and are written as such by package url.
func isUnescaped(path string) bool {
	for i := range len(path) {
		if !unescaped[path[i]] {
			return false
		}
	}
	return true
}

var unescaped = func() (t [256]bool) {
	for _, c := range []byte("-_.~$&+,/:;=@0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

// plainField notes what a field says of the connection or the body, and reports false where that is not plain.
func plainField(r *http.Request, name, value string) bool {
	switch name {
	case "Host":
		return r.Header["Host"] == nil && isHost(value)
	case "Content-Length":
		if r.Header["Content-Length"] != nil || len(value) > 18 || strings.Trim(value, "0123456789") != "" {
			return false
		}
		n, err := strconv.ParseInt(value, 10, 64)
		r.ContentLength = n
		return err == nil
	case "Connection":
		if strings.EqualFold(value, "close") {
			r.Close = true
			return true
		}
		return strings.EqualFold(value, "keep-alive")
	case "Transfer-Encoding", "Upgrade", "Expect", "Trailer", "Http2-Settings":
		return false
	}
	return true
}

// isHost reports whether s is a name or address, perhaps with a port. What else might be one is net/http's to decide.
func isHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return s != ""
}
