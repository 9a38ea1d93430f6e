package mail_test

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

const letterID = "0195f0aa-0000-7000-8000-000000000001"

var hello = mail.Message{To: "kim@example.com", Subject: "주소를 확인하세요", Text: "안녕하세요\n.\nhttps://sumun.example/c?t=1", HTML: "<p>안녕하세요</p>"}

func newSMTP(t *testing.T, cfg mail.Config) *mail.SMTP {
	t.Helper()
	transport, err := mail.NewSMTP(cfg, clocktest.Noon().Now)
	if err != nil {
		t.Fatal(err)
	}
	return transport
}

func start(t *testing.T, s *smtpServer) (*smtpServer, *mail.SMTP) {
	t.Helper()
	s.start(t)
	return s, newSMTP(t, s.config())
}

// Mail would not arrive, arrive garbled, or be answered by robots.
func TestMessageOnTheWire(t *testing.T) {
	t.Parallel()
	server, transport := start(t, &smtpServer{security: mail.SecuritySTARTTLS})
	if err := transport.Send(t.Context(), letterID, hello); err != nil {
		t.Fatal(err)
	}
	got := server.messages()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	m, err := netmail.ReadMessage(strings.NewReader(got[0].data))
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		"From":           "수문 <no-reply@sumun.example>",
		"To":             "<kim@example.com>",
		"Subject":        hello.Subject,
		"Message-Id":     "<" + letterID + "@sumun.example>",
		"Auto-Submitted": "auto-generated",
		"Date":           "Sun, 01 Mar 2026 12:00:00 +0000",
		"User-Agent":     "",
	} {
		value, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get(header))
		if err != nil || value != want {
			t.Errorf("%s: %q, %v; want %q", header, value, err, want)
		}
	}
	mediaType, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/alternative" {
		t.Fatalf("content type %q, %v", mediaType, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, want := range []struct{ mediaType, body string }{{"text/plain", hello.Text}, {"text/html", hello.HTML}} {
		part, err := parts.NextPart() // decodes quoted-printable
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.ReplaceAll(string(body), "\r\n", "\n"); text != want.body || !strings.HasPrefix(part.Header.Get("Content-Type"), want.mediaType) {
			t.Errorf("part %s: %q, want %s %q", part.Header.Get("Content-Type"), text, want.mediaType, want.body)
		}
	}
}

// Passwords and links that open accounts would travel in clear.
func TestSecurity(t *testing.T) {
	t.Parallel()
	for _, security := range []string{mail.SecuritySTARTTLS, mail.SecurityTLS, mail.SecurityNone} {
		t.Run(security, func(t *testing.T) {
			t.Parallel()
			server, transport := start(t, &smtpServer{security: security, password: "correct horse"})
			if err := transport.Send(t.Context(), letterID, hello); err != nil {
				t.Fatal(err)
			}
			got := server.messages()
			if len(got) != 1 || got[0].secure != (security != mail.SecurityNone) || got[0].user != "sumun" {
				t.Errorf("got %+v", got)
			}
		})
	}
	t.Run("no downgrade", func(t *testing.T) {
		t.Parallel()
		server := &smtpServer{security: mail.SecurityNone, password: "correct horse"}
		server.start(t)
		cfg := server.config()
		cfg.SMTP.Security = mail.SecuritySTARTTLS
		err := newSMTP(t, cfg).Send(t.Context(), letterID, hello)
		if err == nil || errors.Is(err, mail.ErrRefused) || strings.Contains(server.heard(), "AUTH") || len(server.messages()) != 0 {
			t.Errorf("%v after %q", err, server.heard())
		}
	})
	t.Run("unknown authority", func(t *testing.T) {
		t.Parallel()
		server := &smtpServer{security: mail.SecuritySTARTTLS, password: "correct horse"}
		server.start(t)
		cfg := server.config()
		cfg.SMTP.CAFile = ""
		err := newSMTP(t, cfg).Send(t.Context(), letterID, hello)
		if err == nil || errors.Is(err, mail.ErrRefused) || strings.Contains(server.heard(), "AUTH") {
			t.Errorf("%v after %q", err, server.heard())
		}
	})
}

// Letters would be given up because of a passing trouble, or be pressed on a server that has said no.
func TestReplies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command, reply string
		refused        bool
	}{
		"unknown recipient":    {"RCPT", "550 5.1.1 <kim@example.com>: no such user", true},
		"recipient later":      {"RCPT", "450 4.2.1 <kim@example.com>: greylisted", false},
		"relaying denied":      {"RCPT", "550 5.7.1 <kim@example.com>: relaying denied", false},
		"sign-in needed":       {"RCPT", "530 5.7.0 authenticate first", false},
		"content refused":      {".", "554 5.7.1 spam for kim@example.com", true},
		"content later":        {".", "451 4.3.0 try again", false},
		"data refused":         {"DATA", "554 no valid recipients", true},
		"sender refused":       {"MAIL", "553 5.7.1 no-reply@sumun.example is not yours", false},
		"sign-in failed":       {"AUTH", "535 5.7.8 wrong", false},
		"no service":           {"GREETING", "554 go away", false},
		"busy":                 {"GREETING", "421 busy", false},
		"hangs up":             {"RCPT", "", false},
		"hangs up after data":  {".", "", false},
		"nonsense":             {"RCPT", "hello?", false},
		"hangs up on the TLS":  {"STARTTLS", "", false},
		"TLS not now":          {"STARTTLS", "454 not now", false},
		"hangs up on greeting": {"GREETING", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, transport := start(t, &smtpServer{
				security: mail.SecuritySTARTTLS, password: "correct horse", replies: map[string]string{c.command: c.reply},
			})
			err := transport.Send(t.Context(), letterID, hello)
			if err == nil || errors.Is(err, mail.ErrRefused) != c.refused {
				t.Fatalf("got %v, want refused: %t", err, c.refused)
			}
			if text := err.Error(); strings.Contains(text, "kim@") || strings.Contains(text, "no-reply@") || strings.Contains(text, "horse") {
				t.Errorf("error tells too much: %s", text)
			}
			if len(server.messages()) != 0 {
				t.Error("the server took the message")
			}
		})
	}
}

// A message that the server has taken would be sent again because of a bad good-bye.
func TestDeliveredIsDelivered(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]string{"error": "421 no time for that", "hangs up": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, transport := start(t, &smtpServer{security: mail.SecurityNone, replies: map[string]string{"QUIT": reply}})
			if err := transport.Send(t.Context(), letterID, hello); err != nil || len(server.messages()) != 1 {
				t.Errorf("%v, %d messages", err, len(server.messages()))
			}
		})
	}
}

// A server that stops answering would hold up all mail, and the end of the process.
func TestHangingServerIsLeft(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"GREETING", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "."} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server, transport := start(t, &smtpServer{security: mail.SecuritySTARTTLS, hang: command})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				<-server.hung
				cancel()
			}()
			began := time.Now()
			if err := transport.Send(ctx, letterID, hello); err == nil || errors.Is(err, mail.ErrRefused) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("waited %s after it was told to stop", took)
			}
		})
	}
	t.Run("timeout", func(t *testing.T) {
		t.Parallel()
		server := &smtpServer{security: mail.SecuritySTARTTLS, hang: "DATA"}
		server.start(t)
		cfg := server.config()
		cfg.SMTP.Timeout = time.Second
		if err := newSMTP(t, cfg).Send(t.Context(), letterID, hello); err == nil || errors.Is(err, mail.ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		server := &smtpServer{security: mail.SecurityNone}
		t.Run("start", server.start) // and stopped when the subtest ends
		cfg := server.config()
		cfg.SMTP.CAFile = ""
		if err := newSMTP(t, cfg).Send(t.Context(), letterID, hello); err == nil || errors.Is(err, mail.ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
}

// Relays bounce mail that asks for SMTPUTF8 without need; people with an address of their own script would get none at all.
func TestInternationalAddresses(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]string{
		"Kim@example.com":  "TO:<Kim@example.com>",
		"kim@한국인터넷.한국":     "TO:<kim@xn--3e0bx5eku0am2irhf.xn--3e0b707e>",
		"김민수@example.com":  "TO:<김민수@example.com>",
		"o'neil@x.example": "TO:<o'neil@x.example>",
	} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			server, transport := start(t, &smtpServer{security: mail.SecurityNone})
			m := hello
			m.To = to
			if err := transport.Send(t.Context(), letterID, m); err != nil {
				t.Fatal(err)
			}
			got := server.messages()[0]
			if got.to != want || strings.Contains(got.from, "SMTPUTF8") != strings.Contains(want, "김") {
				t.Errorf("MAIL %s, RCPT %s; want %s", got.from, got.to, want)
			}
		})
	}
}

// A name or subject with a line break would add headers or recipients.
func TestHeadersCannotBeInjected(t *testing.T) {
	t.Parallel()
	server, transport := start(t, &smtpServer{security: mail.SecurityNone})
	m := hello
	m.Subject = "Hi\r\nBcc: lee@example.com\r\n\r\nbody"
	if err := transport.Send(t.Context(), letterID, m); err != nil {
		t.Fatal(err)
	}
	got, err := netmail.ReadMessage(strings.NewReader(server.messages()[0].data))
	if err != nil || got.Header.Get("Bcc") != "" {
		t.Errorf("%v, %v", got.Header, err)
	}
	m.To = "kim@example.com>\r\nRCPT TO:<lee@example.com"
	if err := transport.Send(t.Context(), letterID, m); err == nil || strings.Contains(server.heard(), "lee@") {
		t.Errorf("%v after %q", err, server.heard())
	}
}

// The whole way: an unknown recipient is parked at once, a busy server is asked again, and the letter keeps its Message-ID.
func TestQueueOverSMTP(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) {
		f := setup(t, db, compose)
		send := func(replies map[string]string) *smtpServer {
			server, transport := start(t, &smtpServer{security: mail.SecuritySTARTTLS, replies: replies})
			f.transport.setAnswer(func(ctx context.Context, m mail.Message) error { return transport.Send(ctx, letterID, m) })
			f.drain(t)
			f.clock.Advance(time.Minute)
			return server
		}
		f.enqueue(t, mail.Letter{ID: letterID, Kind: "identity.confirm", Address: "kim@example.com"})
		send(map[string]string{"RCPT": "450 later"})
		if got := f.rows(t); len(got) != 1 || got[0].parkedAt != 0 {
			t.Fatalf("after 450: %+v", got)
		}
		server := send(nil)
		if got := f.rows(t); len(got) != 0 || !strings.Contains(server.messages()[0].data, "Message-ID: <"+letterID+"@") {
			t.Fatalf("after 250: %+v, %+v", got, server.messages())
		}
		f.enqueue(t, kim)
		send(map[string]string{"RCPT": "550 unknown"})
		if got := f.rows(t); len(got) != 1 || got[0].parkedAt == 0 || !strings.Contains(got[0].lastError, "550") {
			t.Fatalf("after 550: %+v", got)
		}
	})
}
