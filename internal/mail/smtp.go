package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/textproto"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"
)

// SMTP hands messages to a mail server (RFC 5321, RFC 6409). Every message gets a connection of its own; it is safe for
// concurrent use.
type SMTP struct {
	cfg   SMTPConfig
	from  *netmail.Address
	tls   *tls.Config
	clock func() time.Time
}

// NewSMTP returns the transport. It reads the CA file, and does not connect.
func NewSMTP(cfg Config, clock func() time.Time) (*SMTP, error) {
	cfg.Transport = TransportSMTP
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	from, err := parseFrom(cfg.From)
	if err != nil {
		return nil, fmt.Errorf("mail.from: %w", err)
	}
	s := &SMTP{cfg: cfg.SMTP, from: from, clock: clock}
	s.tls = &tls.Config{ServerName: cfg.SMTP.Host, MinVersion: tls.VersionTLS12}
	if cfg.SMTP.CAFile != "" {
		pem, err := os.ReadFile(cfg.SMTP.CAFile)
		if err != nil {
			return nil, fmt.Errorf("mail.smtp.ca_file: %w", err)
		}
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("mail.smtp.ca_file: %q holds no certificate; it must be PEM", cfg.SMTP.CAFile)
		}
	}
	return s, nil
}

// Send implements [Transport]. It ends when ctx does. The Message-ID is made from id, so that a redelivery can be
// recognised. The error wraps [ErrRefused] when the server has refused the recipient or the content for good; what an
// operator can put right (sign-in, sender, an unreachable server) is temporary. Its text holds no whole address.
func (s *SMTP) Send(ctx context.Context, id string, m Message) error {
	to, err := ParseAddress(m.To)
	if err != nil {
		return fmt.Errorf("recipient: %w", err)
	}
	// The connection ends with this context. The library would forget it when greeting, TLS or sign-in fail, and go on
	// without regard to the context once connected.
	sending, done := context.WithCancel(ctx)
	defer done()
	client, err := s.client(to, func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, address)
		if err == nil {
			context.AfterFunc(sending, func() { _ = conn.Close() })
		}
		return conn, err
	})
	if err != nil {
		return err
	}
	msg := s.message(id, to, m)
	err = client.DialAndSendWithContext(sending, msg)
	switch {
	case msg.IsDelivered(): // at most the good-bye went wrong
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("smtp: %w", ctx.Err())
	}
	return classify(err)
}

func (s *SMTP) message(id string, to Address, m Message) *gomail.Msg {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(s.from)
	msg.ToMailAddress(&netmail.Address{Address: to.ascii()})
	msg.Subject(m.Subject)
	msg.SetDateWithValue(s.clock())
	msg.SetMessageIDWithValue(id + s.from.Address[strings.LastIndexByte(s.from.Address, '@'):])
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no vacation replies, please
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	return msg
}

// client prepares one connection.
func (s *SMTP) client(to Address, dial gomail.DialContextFunc) (*gomail.Client, error) {
	options := []gomail.Option{
		gomail.WithPort(s.cfg.port()), gomail.WithTimeout(s.cfg.Timeout), gomail.WithTLSConfig(s.tls),
		gomail.WithoutNoop(), gomail.WithoutRset(), gomail.WithDialContextFunc(dial),
	}
	switch s.cfg.Security {
	case SecurityTLS:
		options = append(options, gomail.WithSSL())
	case SecuritySTARTTLS:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	}
	if s.cfg.Username != "" {
		options = append(options, gomail.WithUsername(s.cfg.Username), gomail.WithPassword(s.cfg.Password.Reveal()),
			gomail.WithOpportunisticSMTPAuth(gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin))
	}
	// A relay may bounce what asks for SMTPUTF8 (RFC 6531) when the next one has never heard of it, so only those ask
	// who must.
	if isASCII(to.ascii()) && isASCII(s.from.Address) {
		options = append(options, gomail.WithoutSMTPUTF8())
	}
	client, err := gomail.NewClient(s.cfg.Host, options...)
	if err != nil {
		return nil, fmt.Errorf("smtp client: %w", err)
	}
	return client, nil
}

func (s *SMTP) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s.cfg.Security == SecurityTLS {
		return (&tls.Dialer{Config: s.tls}).DialContext(ctx, network, address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// classify tells what is final from what may pass, and masks the addresses that servers quote.
func classify(err error) error {
	var refusal *gomail.SendError
	if errors.As(err, &refusal) && isFinal(refusal) {
		return fmt.Errorf("smtp: %w: %s", ErrRefused, maskText(refusal.Error()))
	}
	var reply *textproto.Error
	if errors.As(err, &reply) {
		return fmt.Errorf("smtp: the server answered %s", maskText(reply.Error()))
	}
	return fmt.Errorf("smtp: %s", maskText(err.Error()))
}

// isFinal reports whether a server has refused this recipient or this content for good. A demand to sign in (RFC 4954,
// section 6), or a recipient refused as a matter of policy (5.7 of RFC 3463: "relaying denied"), is about us, and an
// operator can see to it.
func isFinal(e *gomail.SendError) bool {
	switch code := e.ErrorCode(); {
	case code < 500, code == 530, code == 534, code == 535, code == 538:
		return false
	}
	switch e.Reason {
	case gomail.ErrSMTPRcptTo:
		return !strings.HasPrefix(e.EnhancedStatusCode(), "5.7.")
	case gomail.ErrSMTPData, gomail.ErrSMTPDataClose:
		return true
	}
	return false
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
