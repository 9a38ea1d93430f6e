package http1

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// moreFields is room for what handlers add to the header of a request, or of an answer: a gateway does.
const moreFields = 6

// parse makes r, which is empty but for its context, the request that begins with head. It reports false when the request is not for
// this package: head is odd in any way, or asks for more than an answer.
func parse(r *http.Request, head string) (plain bool) {
	line, fields, _ := strings.Cut(head, "\r\n")
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	if version != "HTTP/1.1" || !isToken(method) || method == http.MethodConnect || !strings.HasPrefix(target, "/") || !isVisible(target) {
		return false
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
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
		if value = strings.Trim(value, " \t"); !ok || !isToken(name) || !isText(value) {
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

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return s != ""
}

var tokens = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

// isVisible reports whether s is made of visible ASCII characters.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// isText reports whether s can be the value of a field (RFC 9110, section 5.5). Tokens and cookies are long: eight bytes are looked at
// at once, and one by one only where there is something odd among them.
func isText(s string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		b := s[i : i+8]
		v := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		del := v ^ ones*0x7f
		if ((v-ones*' ')&^v|(del-ones)&^del)&tops != 0 && !isShortText(b) {
			return false
		}
	}
	return isShortText(s[i:])
}

func isShortText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
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
