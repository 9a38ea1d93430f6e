package upstream_test

import (
	"bufio"
	"context"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/gateway/upstream"
)

// caFile writes the certificate of a test server.
func caFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Endpoints are spoken to in TLS where they ask for it, and only when they are who they say.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, protocol := range []upstream.Protocol{upstream.ProtocolHTTP1, upstream.ProtocolHTTP2} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.Proto)
			}))
			s.EnableHTTP2 = true
			s.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that refuse its certificate
			s.StartTLS()
			t.Cleanup(s.Close)
			cfg := testConfig(s.URL)
			cfg.Protocol = protocol
			if status, _, code, _ := newGateway(t, cfg, upstream.Options{}).get(t); status != 502 || code != "upstream.unreachable" {
				t.Errorf("a stranger was trusted: %d %q", status, code)
			}
			cfg.TLS.CAFile = caFile(t, s)
			want := map[upstream.Protocol]string{upstream.ProtocolHTTP1: "HTTP/1.1", upstream.ProtocolHTTP2: "HTTP/2.0"}[protocol]
			g := newGateway(t, cfg, upstream.Options{})
			for range 3 {
				if status, text, code, err := g.get(t); status != 200 || text != want {
					t.Errorf("got %d %q %q %v", status, text, code, err)
				}
			}
			cfg.TLS.ServerName = "else.example"
			if status, _, code, _ := newGateway(t, cfg, upstream.Options{}).get(t); status != 502 || code != "upstream.unreachable" {
				t.Errorf("another name was trusted: %d %q", status, code)
			}
		})
	}
}

// newHTTP2Front is a gateway that speaks HTTP/2, as gRPC needs it.
func newHTTP2Front(t *testing.T, p *upstream.Pool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := p.Forward(w, r, upstream.Options{}); err != nil {
			w.Header().Set("X-Fault", err.Error())
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// h2cServer speaks HTTP/2 without TLS.
func h2cServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// A call of gRPC is a stream in both directions at once, ended by trailers: all of that passes, message by message.
func TestGRPCStream(t *testing.T) {
	t.Parallel()
	url := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Te") != "trailers" || r.URL.Path != "/shop.Orders/Watch" {
			t.Errorf("got %q %q", r.URL.Path, r.Header)
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		message := make([]byte, 5)
		for {
			if _, err := io.ReadFull(r.Body, message); err != nil {
				break
			}
			_, _ = w.Write(message)
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	})
	cfg := testConfig(url)
	cfg.Protocol = upstream.ProtocolHTTP2
	p, err := upstream.New(cfg, upstream.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	front := newHTTP2Front(t, p)
	body, write := io.Pipe()
	r := request(t, http.MethodPost, front.URL+"/shop.Orders/Watch", body)
	r.Header.Set("Te", "trailers")
	r.Header.Set("Content-Type", "application/grpc")
	answer, err := front.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.ProtoMajor != 2 {
		t.Fatalf("the client speaks %s", answer.Proto)
	}
	message := make([]byte, 5)
	for _, text := range []string{"hello", "world"} {
		_, _ = io.WriteString(write, text)
		if _, err := io.ReadFull(answer.Body, message); err != nil || string(message) != text {
			t.Fatalf("got %q %v", message, err)
		}
	}
	_ = write.Close()
	if rest, err := io.ReadAll(answer.Body); len(rest) > 0 || err != nil {
		t.Errorf("got %q %v", rest, err)
	}
	if answer.Trailer.Get("Grpc-Status") != "0" || answer.Trailer.Get("Grpc-Message") != "fine" {
		t.Errorf("trailer %q", answer.Trailer)
	}
}

// An endpoint of HTTP/2 that hangs, refuses or breaks off is no different from one of HTTP/1.1.
func TestHostileHTTP2(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	url := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-hang
		case "/cut":
			_, _ = io.WriteString(w, "hello")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/early":
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	})
	t.Cleanup(func() { close(hang) })
	cfg := impatientConfig(url)
	cfg.Protocol = upstream.ProtocolHTTP2
	g := newGateway(t, cfg, upstream.Options{})
	for path, want := range map[string]string{"/hang": "504 upstream.timeout", "/abort": "502 upstream.unreachable", "/": "200 "} {
		status, _, code, err := g.do(t, http.MethodGet, path, "")
		if got := strings.TrimSpace(http.StatusText(status)); err != nil || !strings.HasPrefix(want, itoa(status)) || !strings.HasSuffix(want, code) {
			t.Errorf("%s: got %d %s %q %v, want %s", path, status, got, code, err, want)
		}
	}
	if _, text, _, err := g.do(t, http.MethodGet, "/cut", ""); err == nil {
		t.Errorf("the client took %q for a whole answer", text)
	}
	client, err := net.Dial("tcp", g.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(client, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello")
	answer, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil || answer.StatusCode != http.StatusRequestEntityTooLarge || !answer.Close {
		t.Errorf("early answer: %v %v", answer, err)
	}
	dead := testConfig(refusing(t))
	dead.Protocol = upstream.ProtocolHTTP2
	if status, _, code, _ := newGateway(t, dead, upstream.Options{}).get(t); status != 502 || code != "upstream.unreachable" {
		t.Errorf("nobody listens: %d %q", status, code)
	}
}

func itoa(n int) string {
	return string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)})
}

// upgrade asks for another protocol, with bytes of it right behind.
func upgrade(t *testing.T, g *gateway) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", g.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Key: x\r\n\r\nearly")
	return c, bufio.NewReader(c)
}

// echoTunnel changes to websocket, says hello in the same packet, and sends back what comes.
func echoTunnel(t *testing.T) (url string, ended chan struct{}) {
	ended = make(chan struct{})
	url, _ = rawUpstream(t, func(c *rawConn) {
		r := c.request()
		if r == nil || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" || r.Header.Get("Sec-WebSocket-Key") != "x" {
			t.Errorf("the endpoint got %v", r)
			return
		}
		c.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: y\r\n\r\nhello")
		_, _ = io.Copy(c, c.r)
		close(ended)
	})
	return url, ended
}

// WebSockets pass, including bytes that come right behind the change, until one side has enough.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	url, ended := echoTunnel(t)
	g := newGateway(t, testConfig(url), upstream.Options{})
	c, r := upgrade(t, g)
	answer, err := http.ReadResponse(r, nil)
	if err != nil || answer.StatusCode != 101 || answer.Header.Get("Upgrade") != "WebSocket" || answer.Header.Get("Sec-WebSocket-Accept") != "y" {
		t.Fatalf("got %v %v", answer, err)
	}
	text := make([]byte, len("helloearly"))
	if _, err := io.ReadFull(r, text); err != nil || string(text) != "helloearly" {
		t.Fatalf("got %q %v", text, err)
	}
	_, _ = io.WriteString(c, "more")
	if _, err := io.ReadFull(r, text[:4]); err != nil || string(text[:4]) != "more" {
		t.Fatalf("got %q %v", text[:4], err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	<-ended
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("got %q %v", rest, err)
	}
	if err := <-g.errs; err != nil {
		t.Error(err)
	}
}

// A tunnel ends when its context does, for example because the session was revoked, and when both sides are silent.
func TestUpgradeIsCutOff(t *testing.T) {
	t.Parallel()
	for name, silence := range map[string]time.Duration{"context": time.Hour, "silence": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, ended := echoTunnel(t)
			cfg := testConfig(url)
			cfg.Timeouts.Tunnel = silence
			p, err := upstream.New(cfg, upstream.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, revoke := context.WithCancel(t.Context())
			defer revoke()
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := p.Forward(w, r.WithContext(ctx), upstream.Options{}); err != nil {
					t.Error(err)
				}
			}))
			t.Cleanup(front.Close)
			_, r := upgrade(t, &gateway{Server: front})
			if answer, err := http.ReadResponse(r, nil); err != nil || answer.StatusCode != 101 {
				t.Fatalf("got %v %v", answer, err)
			}
			if name == "context" {
				revoke()
			}
			_, _ = io.Copy(io.Discard, r)
			<-ended
		})
	}
}

// An endpoint may refuse to change the protocol, and may not change to one that nobody asked for.
func TestUpgradeRefused(t *testing.T) {
	t.Parallel()
	for want, text := range map[int]string{
		403: "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
		502: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
	} {
		url, _ := rawUpstream(t, func(c *rawConn) { c.request(); c.send(text); c.hang() })
		g := newGateway(t, testConfig(url), upstream.Options{})
		_, r := upgrade(t, g)
		if answer, err := http.ReadResponse(r, nil); err != nil || answer.StatusCode != want {
			t.Errorf("got %v %v, want %d", answer, err, want)
		}
	}
}
