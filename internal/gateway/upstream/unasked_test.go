package upstream_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

// atOnce holds back what is written, so that it arrives in one piece.
type atOnce struct {
	net.Conn
	hold bool
	held bytes.Buffer
}

func (c *atOnce) Write(p []byte) (int, error) {
	if c.hold {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

// TLS reads from the socket more than it is asked for. What it has read behind an answer would be the next person's.
func TestUnaskedAnswersWithinTLS(t *testing.T) {
	t.Parallel()
	const head, evil = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	const chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
	for name, records := range map[string][]string{
		"in the record of the body":  {head, "ok" + evil},
		"in a record of its own":     {ok, evil},
		"behind the body's record":   {head, "ok", evil},
		"behind chunks":              {chunks, "0\r\n\r\n", evil},
		"the notice that it is over": {ok, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := httptest.NewTLSServer(http.NotFoundHandler())
			t.Cleanup(keys.Close)
			url, accepted := rawUpstream(t, func(raw *rawConn) {
				socket := &atOnce{Conn: raw.TCPConn}
				c := tls.Server(socket, &tls.Config{Certificates: keys.TLS.Certificates})
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				socket.hold = true
				for _, text := range records {
					if text == "" {
						_ = c.CloseWrite()
						_ = raw.SetDeadline(time.Time{})
					}
					_, _ = io.WriteString(c, text)
				}
				_, _ = raw.Write(socket.held.Bytes())
				_, _ = io.Copy(io.Discard, c)
			})
			cfg := testConfig("https" + url[len("http"):])
			cfg.TLS.CAFile = caFile(t, keys)
			cfg.TLS.ServerName = "example.com"
			g := newGateway(t, cfg, upstream.Options{})
			for i := range 3 {
				if status, text, code, err := g.get(t); status != 200 || text != "ok" || err != nil {
					t.Fatalf("person %d got %d %q %q %v", i, status, text, code, err)
				}
			}
			if accepted.Load() != 3 {
				t.Errorf("%d connections", accepted.Load())
			}
		})
	}
}

// Some endpoints send a body where none may be. When it is late, it would be the beginning of the next person's answer.
func TestLateBodiesBehindNoContent(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"Content-Length: 2", "Transfer-Encoding: chunked"} {
		url, accepted := rawUpstream(t, func(c *rawConn) {
			for c.request() != nil {
				c.send("HTTP/1.1 204 No Content\r\n" + field + "\r\n\r\n")
			}
		})
		g := newGateway(t, testConfig(url), upstream.Options{})
		for range 2 {
			if status, text, _, err := g.get(t); status != 204 || text != "" || err != nil {
				t.Errorf("%s: got %d %q %v", field, status, text, err)
			}
		}
		if accepted.Load() != 2 {
			t.Errorf("%s: a connection on which a body may follow is used again", field)
		}
	}
}
