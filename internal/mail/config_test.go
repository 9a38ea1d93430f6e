package mail_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/mail"
)

func TestDefaultConfigIsValid(t *testing.T) {
	t.Parallel()
	if err := mail.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

// An operator would have to find one mistake after the other, and guess at the remedy.
func TestValidateReportsEveryFault(t *testing.T) {
	t.Parallel()
	cfg := mail.Config{
		Transport: mail.TransportSMTP, From: "nobody",
		SMTP: mail.SMTPConfig{
			Host: "mail.example.com:587", Port: 70000, Password: "hunter2", Security: "ssl", Timeout: time.Hour, CAFile: "/nowhere.pem",
		},
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`from: "nobody"`, "workers: 0", `smtp.host: "mail.example.com:587"`, "smtp.port: 70000", "smtp.username: ",
		`smtp.security: "ssl"`, "smtp.timeout: 1h0m0s", `smtp.ca_file: "/nowhere.pem"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the password shows:\n%v", err)
	}
}

// The password of the mail account would cross the network in clear.
func TestPasswordNeedsEncryptionExceptOnThisMachine(t *testing.T) {
	t.Parallel()
	cfg := mail.DefaultConfig()
	cfg.Transport, cfg.From = mail.TransportSMTP, "no-reply@example.com"
	cfg.SMTP.Security, cfg.SMTP.Username, cfg.SMTP.Password = mail.SecurityNone, "sumun", "secret"
	for host, ok := range map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, "mail.example.com": false} {
		cfg.SMTP.Host = host
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestUnknownTransportIsRefused(t *testing.T) {
	t.Parallel()
	cfg := mail.DefaultConfig()
	cfg.Transport = "pigeon"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), `transport: "pigeon"`) {
		t.Errorf("got %v", err)
	}
}

// Every letter would be refused or take the blame of spam.
func TestSMTPNeedsASenderOfItsOwn(t *testing.T) {
	t.Parallel()
	cfg := mail.DefaultConfig()
	cfg.Transport, cfg.SMTP.Host = mail.TransportSMTP, "mail.example.com"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "from: ") {
		t.Errorf("got %v", err)
	}
}

// The check of a configuration must try the port that mail will go to.
func TestSMTPAddress(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]mail.SMTPConfig{
		"mail.example.com:587":  {Host: "mail.example.com", Security: mail.SecuritySTARTTLS},
		"mail.example.com:465":  {Host: "mail.example.com", Security: mail.SecurityTLS},
		"[::1]:25":              {Host: "::1", Security: mail.SecurityNone},
		"mail.example.com:2525": {Host: "mail.example.com", Port: 2525, Security: mail.SecurityTLS},
	} {
		if got := cfg.Address(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
