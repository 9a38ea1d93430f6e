package e2e_test

import (
	"context"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// postbox is a mail server that keeps what it is given. It outlives the program, so that it shows what really left.
type postbox struct {
	port int

	mu       sync.Mutex
	received map[string][]letter // by recipient, oldest first
	changed  chan struct{}       // closed with every new letter
}

func newPostbox(t *testing.T) *postbox {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &postbox{port: l.Addr().(*net.TCPAddr).Port, received: map[string][]letter{}, changed: make(chan struct{})}
	var conversations sync.WaitGroup
	conversations.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			conversations.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				_ = b.converse(textproto.NewConn(conn)) // a client that dies in the middle is what some tests are about
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conversations.Wait()
	})
	return b
}

// settings make the program send its mail here.
func (b *postbox) settings() []string {
	return []string{
		"SUMUN_MAIL_TRANSPORT=smtp", "SUMUN_MAIL_SMTP_HOST=127.0.0.1", "SUMUN_MAIL_SMTP_PORT=" + strconv.Itoa(b.port),
		"SUMUN_MAIL_SMTP_SECURITY=none", "SUMUN_MAIL_FROM=Sumun <no-reply@example.com>",
	}
}

// converse is the server's side of SMTP (RFC 5321), as far as it takes to be given a mail.
func (b *postbox) converse(c *textproto.Conn) error {
	if err := c.PrintfLine("220 postbox"); err != nil {
		return err
	}
	var to string
	for {
		line, err := c.ReadLine()
		if err != nil {
			return err
		}
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		reply := "250 OK"
		switch verb {
		case "RCPT":
			to = strings.ToLower(line[strings.IndexByte(line, '<')+1 : strings.IndexByte(line, '>')])
		case "DATA":
			if err := c.PrintfLine("354 go on"); err != nil {
				return err
			}
			if err := b.take(to, c.DotReader()); err != nil {
				return err
			}
		case "QUIT":
			return c.PrintfLine("221 bye")
		}
		if err := c.PrintfLine("%s", reply); err != nil {
			return err
		}
	}
}

// take reads a mail whole before it is accepted.
func (b *postbox) take(to string, content io.Reader) error {
	m, err := mail.ReadMessage(content)
	if err != nil {
		return err
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		return err
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	part, err := multipart.NewReader(m.Body, params["boundary"]).NextRawPart() // the plain text comes first
	if err != nil {
		return err
	}
	text, err := io.ReadAll(quotedprintable.NewReader(part))
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received[to] = append(b.received[to], letter{ID: m.Header.Get("Message-ID"), To: to, Subject: subject, Text: string(text)})
	close(b.changed)
	b.changed = make(chan struct{})
	return nil
}

// to returns what came for an address, and a channel that is closed when there is more for anybody.
func (b *postbox) to(email string) ([]letter, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.received[email], b.changed
}

// awaitToken waits for a one-time link.
func (b *postbox) awaitToken(ctx context.Context, email, page string) (string, error) {
	for {
		letters, more := b.to(email)
		for _, l := range letters {
			if path, token := l.link(); path == page {
				return token, nil
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
