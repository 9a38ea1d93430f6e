package httpd

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Config says where a server listens and how patient it is.
type Config struct {
	Listen            string         `yaml:"listen" doc:"Where to listen, host:port. An empty host means every address, port 0 a free port."`
	TLS               TLS            `yaml:"tls" doc:"Where certificates come from; without any of it the listener speaks plain HTTP."`
	TrustedProxies    []netip.Prefix `yaml:"trusted_proxies" doc:"Networks whose X-Forwarded-For, X-Forwarded-Proto and X-Request-Id are believed."`
	TrustedOrigins    []string       `yaml:"trusted_origins" doc:"Further origins, such as https://shop.example, whose pages may make unsafe requests."`
	MaxBody           int64          `yaml:"max_body" doc:"The largest request body, in bytes."`
	MaxHeaderBytes    int            `yaml:"max_header_bytes" doc:"The largest request header, in bytes."`
	ReadHeaderTimeout time.Duration  `yaml:"read_header_timeout" doc:"How long a client may take to send its header."`
	ReadTimeout       time.Duration  `yaml:"read_timeout" doc:"How long a client may take to send the whole request."`
	WriteTimeout      time.Duration  `yaml:"write_timeout" doc:"The time from the request's header to the end of the answer."`
	RequestTimeout    time.Duration  `yaml:"request_timeout" doc:"How long a request may be worked on before it is answered with 504. Below write_timeout, so that the answer still gets out."`
	IdleTimeout       time.Duration  `yaml:"idle_timeout" doc:"How long a connection may wait for its next request."`
	LogEvery          int            `yaml:"log_every" doc:"Of the requests that were answered without a failure, every n-th is logged: 1 logs all, 0 none. Failures always are."`
	ShutdownGrace     time.Duration  `yaml:"shutdown_grace" doc:"How long requests in flight may take to finish when the server stops."`
}

// TLS names certificate files or an ACME authority, not both.
type TLS struct {
	CertFile string `yaml:"cert_file" doc:"PEM file with the certificate chain. It is read again when it changes, without a restart."`
	KeyFile  string `yaml:"key_file" doc:"PEM file with the private key of cert_file."`
	ACME     ACME   `yaml:"acme" doc:"An authority that certificates are obtained from, where hosts are listed."`

	ClientCertificates ClientCertificates `yaml:"client_certificates" doc:"How it is known which certificate a client has."`
}

// ClientCertificates says how clients show certificates of their own (RFC 8705), and whose word is taken for them.
type ClientCertificates struct {
	Request bool     `yaml:"request" doc:"Ask clients for a certificate when they connect. They may go without one. Browsers that have any ask their owners which, so name hosts for it where people sign in, too."`
	Hosts   []string `yaml:"hosts" doc:"The names (SNI) under which clients are asked; without any, under all."`
	Header  bool     `yaml:"header" doc:"Believe the headers Client-Cert and Client-Cert-Chain (RFC 9440) of http.trusted_proxies. Each of them must set or remove both, or anybody can claim any certificate."`
	CAFile  string   `yaml:"ca_file" doc:"PEM file with the authorities that vouch for clients which prove themselves by name (tls_client_auth). It is read again when it changes."`
}

// ACME says how certificates are obtained from an authority such as Let's Encrypt (RFC 8555). Using it accepts the authority's
// terms of service.
type ACME struct {
	Hosts        []string `yaml:"hosts" doc:"The only names that certificates are asked for."`
	CacheDir     string   `yaml:"cache_dir" doc:"Folder that keeps account key and certificates between starts."`
	Email        string   `yaml:"email" doc:"Where the authority writes about problems; optional."`
	HTTPListen   string   `yaml:"http_listen" doc:"Where HTTP-01 challenges are answered and plain requests redirected, usually :80. Without it only TLS-ALPN-01 is used, for which the server must be reachable on port 443."`
	DirectoryURL string   `yaml:"directory_url" doc:"The directory of the authority; empty means Let's Encrypt."`
}

// Enabled reports whether the listener speaks TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" || t.KeyFile != "" || t.ACME.enabled() }

func (a ACME) enabled() bool { return len(a.Hosts) > 0 }

// DefaultConfig returns a configuration that listens on loopback without TLS.
func DefaultConfig() Config {
	return Config{
		Listen:            "127.0.0.1:8080",
		MaxBody:           defaultMaxBody,
		MaxHeaderBytes:    32 << 10,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		RequestTimeout:    10 * time.Second,
		IdleTimeout:       120 * time.Second,
		LogEvery:          1,
		ShutdownGrace:     10 * time.Second,
	}
}

// Validate returns everything that is wrong with the configuration, each with its key, value and remedy.
func (c Config) Validate() error {
	errs := []error{CheckListen("listen", c.Listen), c.TLS.validate(), c.checkClientCertificates()}
	origins := http.NewCrossOriginProtection()
	for _, origin := range c.TrustedOrigins {
		if origins.AddTrustedOrigin(origin) != nil {
			errs = append(errs, fmt.Errorf("trusted_origins: %q is no origin; write it like https://shop.example", origin))
		}
	}
	for _, prefix := range c.TrustedProxies {
		if !prefix.IsValid() {
			errs = append(errs, errors.New("trusted_proxies: an entry is no network; write it like 10.0.0.0/8"))
		}
	}
	if c.MaxBody < 1 {
		errs = append(errs, fmt.Errorf("max_body: %d is too small; use 1048576 bytes", c.MaxBody))
	}
	if c.MaxHeaderBytes < 4096 {
		errs = append(errs, fmt.Errorf("max_header_bytes: %d is too small for cookies and tokens; use 32768 bytes", c.MaxHeaderBytes))
	}
	if c.LogEvery < 0 {
		errs = append(errs, fmt.Errorf("log_every: %d is below 0; use 1 to log every request, 0 to log failures only", c.LogEvery))
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{
		{"read_header_timeout", c.ReadHeaderTimeout},
		{"read_timeout", c.ReadTimeout},
		{"write_timeout", c.WriteTimeout},
		{"request_timeout", c.RequestTimeout},
		{"idle_timeout", c.IdleTimeout},
		{"shutdown_grace", c.ShutdownGrace},
	} {
		if d.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: %s would let a slow client stay for ever; use a positive duration such as 15s", d.key, d.value))
		}
	}
	if c.RequestTimeout >= c.WriteTimeout && c.WriteTimeout > 0 {
		errs = append(errs, fmt.Errorf("request_timeout: %s is not below write_timeout, %s, so that nobody would get to know; use 10s",
			c.RequestTimeout, c.WriteTimeout))
	}
	return errors.Join(errs...)
}

func (t TLS) validate() error {
	var errs []error
	if (t.CertFile == "") != (t.KeyFile == "") {
		errs = append(errs, fmt.Errorf("tls: cert_file %q and key_file %q go together; set both or neither", t.CertFile, t.KeyFile))
	}
	if !t.ACME.enabled() {
		if a := t.ACME; a.Email+a.HTTPListen+a.DirectoryURL != "" {
			errs = append(errs, errors.New("tls.acme.hosts: empty; name the hosts to obtain certificates for"))
		}
		return errors.Join(errs...)
	}
	if t.CertFile != "" || t.KeyFile != "" {
		errs = append(errs, errors.New("tls: both files and acme.hosts are set; choose one"))
	}
	for _, host := range t.ACME.Hosts {
		if _, err := netip.ParseAddr(host); err == nil || host == "" || strings.ContainsAny(host, ":/*@ ") {
			errs = append(errs, fmt.Errorf("tls.acme.hosts: %q is no host name; write it like id.example.com", host))
		}
	}
	if t.ACME.CacheDir == "" {
		errs = append(errs, errors.New("tls.acme.cache_dir: empty; name a folder, or every start asks for new certificates and runs into limits"))
	}
	if t.ACME.HTTPListen != "" {
		errs = append(errs, CheckListen("tls.acme.http_listen", t.ACME.HTTPListen))
	}
	return errors.Join(errs...)
}

func (c Config) checkClientCertificates() error {
	var errs []error
	of := c.TLS.ClientCertificates
	if of.Request && !c.TLS.Enabled() {
		errs = append(errs, errors.New("tls.client_certificates.request: true, but this listener speaks no TLS; set tls.cert_file, or have "+
			"the proxy that does tell about them with tls.client_certificates.header"))
	}
	if len(of.Hosts) > 0 && !of.Request {
		errs = append(errs, fmt.Errorf("tls.client_certificates.hosts: %q, but nobody is asked; set request to true, or leave it out", of.Hosts))
	}
	for _, host := range of.Hosts {
		if host == "" || strings.ContainsAny(host, ":/*@ ") {
			errs = append(errs, fmt.Errorf("tls.client_certificates.hosts: %q is no host name; write it like mtls.id.example.com", host))
		}
	}
	if of.Header && len(c.TrustedProxies) == 0 {
		errs = append(errs, errors.New("tls.client_certificates.header: true, but nobody is believed; list the proxies in trusted_proxies"))
	}
	return errors.Join(errs...)
}

// CheckListen returns what is wrong with an address to listen on, naming the key that holds it.
func CheckListen(key, listen string) error {
	_, port, err := net.SplitHostPort(listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("%s: %q is no address; write it like 127.0.0.1:8080", key, listen)
	}
	return nil
}

// Warnings returns what is allowed and dangerous.
func (c Config) Warnings() []string {
	var warnings []string
	if !c.TLS.Enabled() && !IsLoopback(c.Listen) {
		warnings = append(warnings, fmt.Sprintf("listen: %s is plain HTTP on an address others can reach: passwords and tokens "+
			"travel unprotected; set tls, or listen on 127.0.0.1 behind a proxy that speaks TLS", c.Listen))
	}
	if slices.ContainsFunc(c.TrustedProxies, func(p netip.Prefix) bool { return p.IsValid() && p.Bits() == 0 }) {
		warnings = append(warnings, "trusted_proxies: the whole Internet is trusted, so that anybody can pretend to come from "+
			"any address; list your proxies only")
	}
	if c.TLS.ClientCertificates.Header && slices.ContainsFunc(c.TrustedProxies, func(p netip.Prefix) bool { return p.IsValid() && p.Bits() == 0 }) {
		warnings = append(warnings, "tls.client_certificates.header: the whole Internet is trusted, so that anybody can claim any "+
			"certificate; list your proxies only")
	}
	return warnings
}

// IsLoopback reports whether only this machine can reach an address to listen on.
func IsLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	return err == nil && IsLoopbackHost(host)
}

// IsLoopbackHost reports whether everybody means their own machine by a host name or address. Names below localhost are among
// them (RFC 6761, section 6.3).
func IsLoopbackHost(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
