package mail_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
)

// smtpServer is a mail server on a loopback port (RFC 5321, with STARTTLS, AUTH PLAIN and SMTPUTF8). Its fields are
// set before start.
type smtpServer struct {
	security string            // as in the configuration
	password string            // of the user "sumun"; empty: no AUTH
	replies  map[string]string // by command ("GREETING", "EHLO", ..., "." for the end of data): the reply instead of a good one
	hang     string            // the command that is never answered
	hung     chan struct{}     // closed once it has come

	addr     *net.TCPAddr
	caFile   string
	tls      *tls.Config
	mu       sync.Mutex
	received []envelope
	commands []string
}

// envelope is an accepted message.
type envelope struct {
	from, to string // as in the command, parameters included
	data     string
	secure   bool
	user     string
}

func (s *smtpServer) start(t *testing.T) {
	t.Helper()
	s.hung = make(chan struct{})
	s.certify(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().(*net.TCPAddr)
	stop := make(chan struct{})
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() { s.serve(conn, stop) })
		}
	})
	t.Cleanup(func() {
		close(stop)
		_ = listener.Close()
		sessions.Wait()
	})
}

func (s *smtpServer) certify(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(s.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// config is the configuration that reaches the server.
func (s *smtpServer) config() mail.Config {
	cfg := mail.DefaultConfig()
	cfg.Transport = mail.TransportSMTP
	cfg.From = "수문 <no-reply@sumun.example>"
	cfg.SMTP.Host, cfg.SMTP.Port, cfg.SMTP.Security, cfg.SMTP.CAFile = "127.0.0.1", s.addr.Port, s.security, s.caFile
	if s.password != "" {
		cfg.SMTP.Username, cfg.SMTP.Password = "sumun", keyring.Secret(s.password)
	}
	return cfg
}

// session is one connection.
type session struct {
	*smtpServer
	conn   net.Conn
	text   *textproto.Conn
	stop   <-chan struct{}
	secure bool
	now    envelope
}

func (s *smtpServer) serve(conn net.Conn, stop <-chan struct{}) {
	c := &session{smtpServer: s, conn: conn, stop: stop}
	defer func() { _ = c.conn.Close() }()
	if s.security == mail.SecurityTLS {
		c.conn, c.secure = tls.Server(conn, s.tls), true
	}
	c.text = textproto.NewConn(c.conn)
	if !c.reply("GREETING", "220 test ESMTP") {
		return
	}
	for {
		line, err := c.text.ReadLine()
		if err != nil || !c.handle(line) {
			return
		}
	}
}

// reply answers a command, well or as the test wants it, and reports whether it answered well.
func (c *session) reply(command, good string) bool {
	if c.hang == command {
		close(c.hung)
		<-c.stop
		return false
	}
	answer := good
	if bad, ok := c.replies[command]; ok {
		answer = bad
	}
	if answer == "" { // hang up
		_ = c.conn.Close()
		return false
	}
	_ = c.text.PrintfLine("%s", answer)
	return answer == good
}

// handle reports whether the session goes on.
func (c *session) handle(line string) bool {
	c.mu.Lock()
	c.commands = append(c.commands, line)
	c.mu.Unlock()
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "EHLO":
		c.reply(verb, c.greeting())
	case "STARTTLS":
		if c.reply(verb, "220 go on") {
			c.conn, c.secure = tls.Server(c.conn, c.tls), true
			c.text = textproto.NewConn(c.conn)
		}
	case "AUTH":
		c.auth(rest)
	case "MAIL":
		c.now = envelope{from: rest, secure: c.secure, user: c.now.user}
		c.reply(verb, "250 ok")
	case "RCPT":
		c.now.to = rest
		c.reply(verb, "250 ok")
	case "DATA":
		if c.reply(verb, "354 go on") {
			c.data()
		}
	case "QUIT":
		c.reply(verb, "221 bye")
		return false
	default:
		c.reply(verb, "250 ok")
	}
	return true
}

func (c *session) greeting() string {
	lines := []string{"test", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"}
	if c.security == mail.SecuritySTARTTLS && !c.secure {
		lines = append(lines, "STARTTLS")
	}
	if c.password != "" {
		lines = append(lines, "AUTH PLAIN")
	}
	return "250-" + strings.Join(lines[:len(lines)-1], "\r\n250-") + "\r\n250 " + lines[len(lines)-1]
}

func (c *session) auth(rest string) {
	_, encoded, _ := strings.Cut(rest, " ")
	plain, _ := base64.StdEncoding.DecodeString(encoded)
	good := "235 welcome"
	if string(plain) != fmt.Sprintf("\x00sumun\x00%s", c.password) {
		good = "535 5.7.8 who are you?"
	} else {
		c.now.user = "sumun"
	}
	c.reply("AUTH", good)
}

func (c *session) data() {
	body, err := io.ReadAll(bufio.NewReader(c.text.DotReader()))
	if err != nil {
		return
	}
	if c.reply(".", "250 2.0.0 queued") {
		c.now.data = string(body)
		c.mu.Lock()
		c.received = append(c.received, c.now)
		c.mu.Unlock()
	}
}

func (s *smtpServer) messages() []envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]envelope(nil), s.received...)
}

// heard is everything that clients have said outside of messages.
func (s *smtpServer) heard() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.commands, "\n")
}
