package mail

import (
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/keyring"
)

// Values of [Config.Transport].
const (
	TransportMailbox = "mailbox"
	TransportSMTP    = "smtp"
)

// Values of [SMTPConfig.Security].
const (
	SecuritySTARTTLS = "starttls" // plain connection that must be upgraded (RFC 3207), usually port 587
	SecurityTLS      = "tls"      // TLS from the first byte (RFC 8314), usually port 465
	SecurityNone     = "none"     // no encryption, usually port 25 of a relay on the same machine
)

// Config says how mail leaves.
type Config struct {
	Transport string     `yaml:"transport" doc:"mailbox keeps mail in the database for a developer to look at, smtp sends it."`
	From      string     `yaml:"from" doc:"The sender of every letter: an address, or a name and an address in angle brackets."`
	Workers   int        `yaml:"workers" doc:"How many letters one process sends at a time."`
	SMTP      SMTPConfig `yaml:"smtp" doc:"The mail server, when the transport is smtp."`
}

// SMTPConfig says which server takes our mail.
type SMTPConfig struct {
	Host     string         `yaml:"host" doc:"Its host name or IP address."`
	Port     int            `yaml:"port" doc:"0 for the usual port of the security: 587, 465 or 25."`
	Username string         `yaml:"username" doc:"Who signs in to the server. Empty: nobody does."`
	Password keyring.Secret `yaml:"password" doc:"The password of that user."`
	Security string         `yaml:"security" doc:"starttls, tls (from the first byte) or none (with a password on this machine only)."`
	CAFile   string         `yaml:"ca_file" doc:"A PEM file of certificate authorities to trust instead of the system's."`
	Timeout  time.Duration  `yaml:"timeout" doc:"Bounds connecting, and sending, each."`
}

// DefaultConfig is the development mailbox.
func DefaultConfig() Config {
	return Config{
		Transport: TransportMailbox,
		From:      "Sumun <no-reply@sumun.invalid>",
		Workers:   4,
		SMTP:      SMTPConfig{Security: SecuritySTARTTLS, Timeout: 20 * time.Second},
	}
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var faults []error
	if _, err := parseFrom(c.From); err != nil {
		faults = append(faults, fmt.Errorf("from: %q is not a sender; use the form Name <no-reply@example.com>", c.From))
	}
	if c.Workers < 1 || c.Workers > 64 {
		faults = append(faults, fmt.Errorf("workers: %d is outside 1 to 64; use 4", c.Workers))
	}
	switch c.Transport {
	case TransportMailbox:
	case TransportSMTP:
		if strings.Contains(c.From, ".invalid") {
			faults = append(faults, fmt.Errorf("from: %q can receive no answers and will be refused; use an address of your own domain", c.From))
		}
		faults = append(faults, c.SMTP.validate())
	default:
		faults = append(faults, fmt.Errorf("transport: %q is unknown; use mailbox or smtp", c.Transport))
	}
	return errors.Join(faults...)
}

func (c SMTPConfig) validate() error {
	var faults []error
	wrong := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("smtp."+key+": "+format, args...))
	}
	if c.Host == "" {
		wrong("host", "it is empty; name the server that takes your mail")
	} else if _, err := hosts.ToASCII(c.Host); err != nil && net.ParseIP(c.Host) == nil {
		wrong("host", "%q is not a host name or IP address; leave out the port, which is smtp.port", c.Host)
	}
	if c.Port < 0 || c.Port > 65535 {
		wrong("port", "%d is outside 1 to 65535; use 0 for the usual port of smtp.security", c.Port)
	}
	switch c.Security {
	case SecuritySTARTTLS, SecurityTLS:
	case SecurityNone:
		if c.Username != "" && !mayHearPassword(c.Host) {
			wrong("security", "%q would send the password of %q in clear over the network; use starttls or tls", c.Security, c.Username)
		}
	default:
		wrong("security", "%q is unknown; use starttls, tls or none", c.Security)
	}
	if c.Password != "" && c.Username == "" {
		wrong("username", "it is empty, but a password is set; set both or neither")
	}
	if c.Timeout < time.Second || c.Timeout > time.Minute {
		wrong("timeout", "%s is outside 1s to 1m; use 20s", c.Timeout)
	}
	if c.CAFile != "" {
		if _, err := os.Stat(c.CAFile); err != nil {
			wrong("ca_file", "%q cannot be read (%v); name a PEM file, or leave it empty for the system's authorities", c.CAFile, errors.Unwrap(err))
		}
	}
	return errors.Join(faults...)
}

// Address returns where the server listens, as host:port.
func (c SMTPConfig) Address() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.port())) }

func (c SMTPConfig) port() int {
	switch {
	case c.Port != 0:
		return c.Port
	case c.Security == SecurityTLS:
		return 465
	case c.Security == SecurityNone:
		return 25
	}
	return 587
}

// mayHearPassword reports whether the SMTP library sends a password in clear to host: to this machine by these names only.
func mayHearPassword(host string) bool {
	return host == "localhost" || host == "127.0.0.1" || host == "::1"
}

// parseFrom reads the sender, whose address obeys the same rules as everybody's.
func parseFrom(s string) (*netmail.Address, error) {
	from, err := netmail.ParseAddress(s)
	if err != nil {
		return nil, err
	}
	address, err := ParseAddress(from.Address)
	if err != nil {
		return nil, err
	}
	from.Address = address.ascii()
	return from, nil
}
