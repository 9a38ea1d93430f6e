package httpd

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// certCheckInterval is how often a changed certificate is looked for at most.
const certCheckInterval = time.Minute

// certificates serves a certificate from two PEM files and reads them again when they have changed. While they cannot be
// read, or do not belong together because only one has been replaced yet, the last good certificate stays in use.
type certificates struct {
	certFile, keyFile string
	clock             func() time.Time
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	checked time.Time
	loaded  [2]fileState
}

// fileState is what tells two versions of a file apart.
type fileState struct {
	modified time.Time
	size     int64
}

func newCertificates(certFile, keyFile string, clock func() time.Time, log *slog.Logger) (*certificates, error) {
	c := &certificates{certFile: certFile, keyFile: keyFile, clock: clock, log: log, checked: clock()}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// get is a tls.Config.GetCertificate.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() { // one handshake looks, the others go on
		defer c.mu.Unlock()
		if now := c.clock(); now.Sub(c.checked) >= certCheckInterval {
			c.checked = now
			if err := c.reload(); err != nil {
				c.log.Warn("certificate not reloaded, the previous one stays in use", "error", err.Error())
			}
		}
	}
	return c.current.Load(), nil
}

// reload reads the files if they differ from what is loaded.
func (c *certificates) reload() error {
	var state [2]fileState
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("tls: %w; check cert_file and key_file", err)
		}
		state[i] = fileState{info.ModTime(), info.Size()}
	}
	if c.current.Load() != nil && state == c.loaded {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("tls: load %s and %s: %w", c.certFile, c.keyFile, err)
	}
	c.current.Store(&cert)
	c.loaded = state
	return nil
}

// fileTLS returns the configuration of a listener with certificates from files.
func fileTLS(cfg TLS, log *slog.Logger) (*tls.Config, error) {
	certs, err := newCertificates(cfg.CertFile, cfg.KeyFile, time.Now, log)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: certs.get}, nil
}

// acmeManager returns the manager that obtains, keeps and renews certificates for the listed hosts.
func acmeManager(cfg ACME) *autocert.Manager {
	m := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(cfg.CacheDir),
		HostPolicy: autocert.HostWhitelist(cfg.Hosts...),
		Email:      cfg.Email,
	}
	if cfg.DirectoryURL != "" {
		m.Client = &acme.Client{DirectoryURL: cfg.DirectoryURL}
	}
	return m
}
