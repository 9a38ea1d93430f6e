package upstream_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

// An endpoint that misbehaves before the answer has begun costs a request a clear error, in bounded time, and nobody a connection
// that is out of step.
func TestHostileBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		behave func(c *rawConn)
		status int
		code   string
	}{
		"hangs":             {func(c *rawConn) { c.hang() }, 504, "upstream.timeout"},
		"hangs in the head": {func(c *rawConn) { c.request(); c.send("HTTP/1.1 200 OK\r\nConte"); c.hang() }, 504, "upstream.timeout"},
		"resets":            {func(c *rawConn) { c.request(); c.reset() }, 502, "upstream.unreachable"},
		"resets mid-header": {func(c *rawConn) { c.request(); c.send("HTTP/1.1 200 OK\r\nConte"); c.reset() }, 502, "upstream.unreachable"},
		"closes":            {func(c *rawConn) { c.request() }, 502, "upstream.unreachable"},
		"half-closes":       {func(c *rawConn) { c.request(); _ = c.CloseWrite(); c.hang() }, 502, "upstream.unreachable"},
		"half-closes mid-header": {func(c *rawConn) {
			c.request()
			c.send("HTTP/1.1 200 OK\r\nA: ")
			_ = c.CloseWrite()
			c.hang()
		}, 502, "upstream.unreachable"},
		"speaks something else":      answers("SSH-2.0-OpenSSH_9.9\r\n\r\n"),
		"speaks HTTP/2":              answers("HTTP/2 200\r\n\r\n"),
		"bare LF":                    answers("HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
		"bare LF in the header":      answers("HTTP/1.1 200 OK\r\nA: b\nContent-Length: 0\r\n\r\n"),
		"bare CR":                    answers("HTTP/1.1 200 OK\r\nA: b\rC: d\r\nContent-Length: 0\r\n\r\n"),
		"NUL":                        answers("HTTP/1.1 200 OK\r\nA: b\x00\r\nContent-Length: 0\r\n\r\n"),
		"obs-fold":                   answers("HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
		"space before colon":         answers("HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
		"no name":                    answers("HTTP/1.1 200 OK\r\n: b\r\n\r\n"),
		"no colon":                   answers("HTTP/1.1 200 OK\r\nhello\r\n\r\n"),
		"two lengths":                answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!"),
		"one length twice":           answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
		"list of lengths":            answers("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok"),
		"signed length":              answers("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
		"negative length":            answers("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
		"huge length":                answers("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok"),
		"length and chunks":          answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"chunked twice":              answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"another coding":             answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
		"hidden coding":              answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
		"chunks in HTTP/1.0":         answers("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"status of two digits":       answers("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
		"status of letters":          answers("HTTP/1.1 2OO OK\r\nContent-Length: 0\r\n\r\n"),
		"status 099":                 answers("HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
		"status 999":                 answers("HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n"),
		"protocol nobody asked for":  answers("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
		"informational for ever":     answers(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 40)),
		"header without end":         answers("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 1<<20)),
		"headers without end":        answers("HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 1<<17)),
		"status line without an end": answers("HTTP/1.1 200 " + strings.Repeat("a", 1<<20)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := rawUpstream(t, test.behave)
			g := newGateway(t, impatientConfig(url), upstream.Options{})
			began := time.Now()
			status, _, code, err := g.get(t)
			if err != nil || status != test.status || code != test.code {
				t.Errorf("got %d %q %v, want %d %q", status, code, err, test.status, test.code)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// answers is an endpoint that answers with something malformed.
func answers(text string) struct {
	behave func(c *rawConn)
	status int
	code   string
} {
	return struct {
		behave func(c *rawConn)
		status int
		code   string
	}{func(c *rawConn) { c.request(); c.send(text); c.hang() }, http.StatusBadGateway, "upstream.bad_answer"}
}

// Once the answer has begun, a client must see that it was cut, and never take the beginning for the whole.
func TestHostileWithinTheAnswer(t *testing.T) {
	t.Parallel()
	for name, behave := range map[string]func(c *rawConn){
		"too short": func(c *rawConn) { c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello") },
		"too short, half-close": func(c *rawConn) {
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
			_ = c.CloseWrite()
			c.hang()
		},
		"hangs":               func(c *rawConn) { c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"); c.hang() },
		"resets":              func(c *rawConn) { c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"); c.reset() },
		"no last chunk":       func(c *rawConn) { c.send(chunked + "5\r\nhello\r\n") },
		"cut chunk":           func(c *rawConn) { c.send(chunked + "9\r\nhello") },
		"chunk hangs":         func(c *rawConn) { c.send(chunked + "9\r\nhello"); c.hang() },
		"cut size":            func(c *rawConn) { c.send(chunked + "5\r\nhello\r\n1") },
		"size is no number":   func(c *rawConn) { c.send(chunked + "5\r\nhello\r\nxyz\r\n"); c.hang() },
		"size is signed":      func(c *rawConn) { c.send(chunked + "5\r\nhello\r\n+1\r\na\r\n0\r\n\r\n"); c.hang() },
		"size is 0x":          func(c *rawConn) { c.send(chunked + "5\r\nhello\r\n0x1\r\na\r\n0\r\n\r\n"); c.hang() },
		"size overflows":      func(c *rawConn) { c.send(chunked + "5\r\nhello\r\nfffffffffffffffff\r\na"); c.hang() },
		"size has two words":  func(c *rawConn) { c.send(chunked + "5\r\nhello\r\n1 1\r\na\r\n0\r\n\r\n"); c.hang() },
		"chunk is longer":     func(c *rawConn) { c.send(chunked + "5\r\nhello!\r\n0\r\n\r\n"); c.hang() },
		"bare LF after size":  func(c *rawConn) { c.send(chunked + "5\r\nhello\r\n1\na\r\n0\r\n\r\n"); c.hang() },
		"bare LF after chunk": func(c *rawConn) { c.send(chunked + "5\r\nhello\n0\r\n\r\n"); c.hang() },
		"endless extension":   func(c *rawConn) { c.send(chunked + "5\r\nhello\r\n1;" + strings.Repeat("a", 1<<16)); c.hang() },
		"endless trailer": func(c *rawConn) {
			c.send(chunked + "5\r\nhello\r\n0\r\n" + strings.Repeat("A: b\r\n", 1<<14))
			c.hang()
		},
		"malformed trailer": func(c *rawConn) { c.send(chunked + "5\r\nhello\r\n0\r\nA : b\r\n\r\n"); c.hang() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := rawUpstream(t, func(c *rawConn) { c.request(); behave(c) })
			g := newGateway(t, impatientConfig(url), upstream.Options{})
			status, text, code, err := g.get(t)
			if err == nil {
				t.Errorf("the client took %d %q %q for a whole answer", status, text, code)
			}
		})
	}
}

const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

// What an endpoint sends beyond its answer must never become the answer to somebody else's request.
func TestExtraBytesPoisonTheConnection(t *testing.T) {
	t.Parallel()
	const stolen = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
	for name, first := range map[string]string{
		"after a length":  ok + stolen,
		"after chunks":    chunked + "2\r\nok\r\n0\r\n\r\n" + stolen,
		"after no body":   "HTTP/1.1 204 No Content\r\n\r\n" + stolen,
		"length with 204": "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
		"body with 304":   "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, accepted := rawUpstream(t, func(c *rawConn) {
				for c.request() != nil {
					if c.number == 1 {
						c.send(first)
					} else {
						c.send(ok)
					}
				}
			})
			g := newGateway(t, testConfig(url), upstream.Options{})
			_, _, _, _ = g.get(t)
			if _, text, code, err := g.get(t); text != "ok" || err != nil {
				t.Errorf("the second request got %q %q %v", text, code, err)
			}
			if accepted.Load() != 2 {
				t.Errorf("%d connections were made, want 2", accepted.Load())
			}
		})
	}
}

// An answer that nobody asked for may also come later, while the connection is idle.
func TestBytesOnAnIdleConnectionPoisonIt(t *testing.T) {
	t.Parallel()
	late, sent := make(chan struct{}), make(chan struct{})
	url, _ := rawUpstream(t, func(c *rawConn) {
		for c.request() != nil {
			c.send(ok)
			if c.number == 1 {
				<-late
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")
				close(sent)
			}
		}
	})
	g := newGateway(t, testConfig(url), upstream.Options{})
	if _, text, _, _ := g.get(t); text != "ok" {
		t.Fatalf("got %q", text)
	}
	close(late)
	<-sent
	if _, text, _, err := g.get(t); text != "ok" || err != nil {
		t.Errorf("the second request got %q %v", text, err)
	}
}

// An endpoint that closes an idle connection at the moment it is used costs nobody a request that may be repeated.
func TestClosedIdleConnectionIsNotNoticed(t *testing.T) {
	t.Parallel()
	url, _ := rawUpstream(t, func(c *rawConn) {
		if c.request() != nil {
			c.send(ok)
		}
		if c.number%2 == 1 {
			_, _ = c.r.Peek(1) // the next request has come, and is dropped
		}
	})
	g := newGateway(t, testConfig(url), upstream.Options{})
	for i := range 20 {
		if status, text, code, err := g.get(t); status != 200 || text != "ok" {
			t.Fatalf("request %d got %d %q %q %v", i, status, text, code, err)
		}
	}
}

// A request that may have had an effect is not sent twice: an order is an order.
func TestUnsafeRequestIsNotRepeated(t *testing.T) {
	t.Parallel()
	orders := make(chan string, 100)
	url, _ := rawUpstream(t, func(c *rawConn) {
		for {
			r := c.request()
			if r == nil {
				return
			}
			if r.Method == http.MethodPost {
				body, _ := io.ReadAll(r.Body)
				orders <- string(body)
				return // without an answer
			}
			c.send(ok)
		}
	})
	cfg := testConfig(url)
	cfg.Retry.Attempts = 3
	g := newGateway(t, cfg, upstream.Options{})
	if _, text, _, _ := g.get(t); text != "ok" { // so that the order goes out on a connection that was used before
		t.Fatal(text)
	}
	if status, _, code, err := g.do(t, http.MethodPost, "/", "one unit"); status != 502 || code != "upstream.unreachable" || err != nil {
		t.Errorf("got %d %q %v", status, code, err)
	}
	if n := len(orders); n != 1 {
		t.Errorf("the order was sent %d times", n)
	}

	repeatable := newGateway(t, cfg, upstream.Options{Repeatable: true})
	_, _, _, _ = repeatable.do(t, http.MethodPost, "/", "with a key")
	if n := len(orders); n != 4 {
		t.Errorf("the order that may be repeated was sent %d times, want 3", n-1)
	}
}
