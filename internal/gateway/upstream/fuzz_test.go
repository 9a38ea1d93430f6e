package upstream_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

// bytesConn is a connection on which text arrives in parts.
type bytesConn struct {
	net.Conn
	text []byte
	part int
}

func (c *bytesConn) Read(p []byte) (int, error) {
	if len(c.text) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.part)], c.text)
	c.text = c.text[n:]
	return n, nil
}

// An answer that this parser takes must mean the same to others: where they disagree, one person's answer becomes another's.
// What is taken does not depend on how it was cut into packets.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		ok, chunked + "2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n" + ok, "HTTP/1.1 204 No Content\r\n\r\n" + ok, "HTTP/1.0 200 OK\r\n\r\nall of it",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\nA: b\n\n", "HTTP/1.1 200 OK\r\n\r\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 \r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: a,,Upgrade\r\n\r\n", chunked + "00000002\r\nok\r\n000\r\n\r\n",
	} {
		f.Add([]byte(text), true, uint8(2))
		f.Add([]byte(text), false, uint8(255))
	}
	f.Fuzz(func(t *testing.T, text []byte, get bool, part uint8) {
		method := map[bool]string{true: http.MethodGet, false: http.MethodHead}[get]
		whole, err := upstream.ParseAnswer(&bytesConn{text: text, part: len(text) + 1}, method)
		parts, errParts := upstream.ParseAnswer(&bytesConn{text: text, part: int(part) + 1}, method)
		if (err == nil) != (errParts == nil) || err == nil && (whole.Status != parts.Status || !bytes.Equal(whole.Body, parts.Body)) {
			t.Fatalf("whole: %+v %v, in parts: %+v %v", whole, err, parts, errParts)
		}
		if err != nil || whole.Status < 200 {
			return
		}
		r := bufio.NewReader(bytes.NewReader(text))
		theirs, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http refuses what is taken here: %v", err)
		}
		body, err := io.ReadAll(theirs.Body)
		if err != nil {
			t.Fatalf("net/http refuses the body: %v", err)
		}
		if theirs.StatusCode != whole.Status || !bytes.Equal(body, whole.Body) {
			t.Fatalf("net/http reads %d %q, this parser %d %q", theirs.StatusCode, body, whole.Status, whole.Body)
		}
		for name, values := range theirs.Header {
			if !slices.Equal(values, whole.Header[name]) {
				t.Fatalf("net/http reads %s %q, this parser %q", name, values, whole.Header[name])
			}
		}
	})
}

// Whatever is in a request's header, target and host, an endpoint sees this one request and nothing that somebody slipped in.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/a?b=c", "app.example", "X-A", "1", "keep-alive, X-A")
	f.Add("POST", "/", "a:80", "Transfer-Encoding", "chunked", "")
	f.Add("GET", "/ HTTP/1.1\r\nA: b", "a\r\nb", "A: b\r\nC", "d\r\n\r\nGET / HTTP/1.1", "Host, Authorization")
	f.Add("HEAD", "*", "a", "Content-Length", "5", "Upgrade")
	f.Fuzz(func(t *testing.T, method, target, host, name, value, connection string) {
		r := &http.Request{Method: method, Header: http.Header{name: {value}, "Authorization": {"x"}, "Upgrade": {"x"}}}
		if connection != "" {
			r.Header["Connection"] = append(r.Header["Connection"], connection)
		}
		text, err := upstream.WriteHead(r, target, host)
		if err != nil {
			return
		}
		if !strings.HasPrefix(text, method+" "+target+" HTTP/1.1\r\nHost: "+host+"\r\n") || strings.Count(text, "\r\n\r\n") != 1 ||
			strings.Count(text, "\n") != strings.Count(text, "\r\n") || strings.Count(text, "\r") != strings.Count(text, "\n") {
			t.Fatalf("%q", text)
		}
		known := map[string]bool{name: true, "Authorization": true, "Host": true, "Connection": true, "Upgrade": true, "TE": true,
			"Content-Length": true}
		for line := range strings.SplitSeq(strings.TrimSuffix(text, "\r\n\r\n"), "\r\n") {
			if field, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, method+" ") && !known[field] {
				t.Fatalf("a field %q in %q", field, text)
			}
		}
		if !strings.Contains(text, "\r\nAuthorization: ") {
			t.Fatalf("credentials were lost: %q", text)
		}
	})
}
