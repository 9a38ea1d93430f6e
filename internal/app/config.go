// Package app puts the program together: it is the only package that imports every other one, and only cmd imports it.
//
// It owns the configuration as a whole, the table of modules, the order in which things start and stop, and the command
// line. It promises that nothing is written before the configuration has been checked as a whole, that a start that fails
// says in one line what to do, that a stop lets requests in flight finish, and that everything it started has ended when
// it returns.
//
// It refuses to hold rules of any domain.
package app

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/directory"
	"github.com/sumunio/sumun/internal/federation"
	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/pubsub"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

// Config is the whole configuration. A section belongs to the package that it configures.
type Config struct {
	Listen        string         `yaml:"listen" doc:"Address and port for the public."`
	OpsListen     string         `yaml:"ops_listen" doc:"Address and port for operators: health, metrics, the development mailbox, profiles. Keep it away from the public."`
	Issuer        string         `yaml:"issuer" doc:"Public address of this installation, as browsers and services see it: the issuer of its tokens, and where the links in mails lead. Empty: http://localhost and the port of listen."`
	Service       string         `yaml:"service" doc:"The name people know the service by, in pages and mails."`
	Data          string         `yaml:"data" doc:"Folder for what Sumun keeps on disk. It is made, for its owner only, when it does not exist."`
	MasterKey     keyring.Secret `yaml:"master_key" doc:"32 random bytes in base64, under which private keys lie in the database. It wins over master_key_file."`
	MasterKeyFile string         `yaml:"master_key_file" doc:"A file with the master key, for its owner only. Empty: the file master.key in the data folder. Back it up, apart from the database."`
	Database      keyring.Secret `yaml:"database" doc:"sqlite:PATH, or postgres://user:password@host:5432/database. Empty: the file sumun.db in the data folder."`
	Redis         keyring.Secret `yaml:"redis" doc:"redis://user:password@host:6379/0, redis-sentinel://host:26379,host:26379/mymaster or redis-cluster://host:6379,host:6379 (rediss... with TLS), for sessions (sessions.store) and for limits that several nodes count together. Empty: sessions are in the database, and each node counts for itself."`
	Limits        Switch         `yaml:"limits" doc:"off switches every rate limit and lock off. For load tests only."`
	Drain         time.Duration  `yaml:"drain" doc:"How long /readyz fails before the public listener closes, so that a load balancer can turn away first. 0s on a single machine."`
	Log           LogConfig      `yaml:"log" doc:"What is logged, on standard error."`

	TLS        httpd.TLS         `yaml:"tls" doc:"TLS on the public listener, from files or from an ACME authority. Without either it speaks plain HTTP."`
	HTTP       httpd.Config      `yaml:"http" omit:"listen,tls" doc:"The public listener."`
	SQL        sqldb.Config      `yaml:"sql" omit:"url=database" doc:"How the database is used."`
	Keyring    keyring.Config    `yaml:"keyring" omit:"master_key,master_key_file" doc:"Replacing and making the master key."`
	Pubsub     pubsub.Config     `yaml:"pubsub" doc:"How nodes tell each other news at once, such as that a session has ended. Without it, and while it is interrupted, they find out within a second."`
	Tokens     token.Config      `yaml:"tokens" doc:"Access tokens and the keys that sign them."`
	Sessions   session.Config    `yaml:"sessions" doc:"Sessions and refresh tokens."`
	Passwords  password.Config   `yaml:"passwords" doc:"How passwords are kept, and what is asked of a new one."`
	Identity   identity.Config   `yaml:"identity" doc:"Accounts, and the limits on guessing."`
	OAuth      oidc.Config       `yaml:"oauth" doc:"Programs that ask for tokens over OAuth 2, and the endpoints that they call."`
	Federation federation.Config `yaml:"federation" doc:"With whose word people may sign in: Google, Kakao, Naver, Apple, GitHub, any other OpenID provider and companies that speak SAML."`
	Directory  directory.Config  `yaml:"directory" doc:"Companies' directories, LDAP or Active Directory, that keep their people's passwords."`
	Mail       mail.Config       `yaml:"mail" doc:"How mail leaves."`
	Gateway    gateway.Config    `yaml:"gateway" doc:"Which requests go where, and what is asked of them on the way. Routes, upstreams, rates and strip_headers take effect as soon as the file has changed, without a restart."`
	Audit      audit.Config      `yaml:"audit" doc:"The trail of who did what to which account."`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  LogLevel  `yaml:"level" doc:"debug, info, warn or error."`
	Format LogFormat `yaml:"format" doc:"text for people, json for machines."`
}

// DefaultConfig is what runs on a machine where nothing was configured.
func DefaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:8080", OpsListen: "127.0.0.1:9090", Service: "Sumun", Data: "sumun-data", Limits: true,
		Log:  LogConfig{Level: "info", Format: "text"},
		HTTP: httpd.DefaultConfig(), SQL: sqldb.DefaultConfig(), Keyring: keyring.DefaultConfig(),
		Pubsub: pubsub.DefaultConfig(), Tokens: token.DefaultConfig(), Sessions: session.DefaultConfig(), Passwords: password.DefaultConfig(),
		Identity: identity.DefaultConfig(), OAuth: oidc.DefaultConfig(), Federation: federation.DefaultConfig(), Directory: directory.DefaultConfig(), Mail: mail.DefaultConfig(), Audit: audit.DefaultConfig(),
		Gateway: gateway.DefaultConfig(),
	}
}

// complete derives what was left empty from the rest.
func (c *Config) complete() {
	if absolute, err := filepath.Abs(c.Data); err == nil && c.Data != "" {
		c.Data = absolute // so that messages leave no doubt
	}
	if c.Database == "" {
		c.Database = keyring.Secret("sqlite:" + filepath.Join(c.Data, "sumun.db"))
	}
	c.Issuer = strings.TrimSuffix(c.Issuer, "/")
	if c.MasterKeyFile == "" {
		c.MasterKeyFile = filepath.Join(c.Data, "master.key")
	}
	if len(c.TLS.ACME.Hosts) > 0 && c.TLS.ACME.CacheDir == "" {
		c.TLS.ACME.CacheDir = filepath.Join(c.Data, "certificates")
	}
	c.SQL.URL = c.Database.Reveal()
	c.HTTP.Listen, c.HTTP.TLS = c.Listen, c.TLS
	c.Keyring.MasterKey, c.Keyring.MasterKeyFile = c.MasterKey, c.MasterKeyFile
}

// deriveIssuer names this installation after the address it is served on, when nobody named it. It is for trying Sumun
// out: browsers take localhost for a safe place, even without TLS.
func (c *Config) deriveIssuer(bound string) {
	if c.Issuer != "" {
		return
	}
	if hosts := c.TLS.ACME.Hosts; len(hosts) > 0 {
		c.Issuer = "https://" + hosts[0]
		return
	}
	scheme := "http"
	if c.TLS.Enabled() {
		scheme = "https"
	}
	_, port, _ := net.SplitHostPort(bound)
	c.Issuer = scheme + "://localhost:" + port
}

// Validate returns what is wrong with the keys that belong to no section, joined.
func (c *Config) Validate() error {
	var errs []error
	errs = append(errs, httpd.CheckListen("ops_listen", c.OpsListen))
	if c.Listen == c.OpsListen && !strings.HasSuffix(c.Listen, ":0") {
		errs = append(errs, fmt.Errorf("ops_listen: %q is taken by listen; give it a port of its own", c.OpsListen))
	}
	if c.Issuer != "" {
		if err := checkIssuer(c.Issuer); err != nil {
			errs = append(errs, fmt.Errorf("issuer: %q %w", c.Issuer, err))
		}
	}
	if c.Service == "" {
		errs = append(errs, errors.New("service: it is empty; give the name people know the service by"))
	}
	if c.Redis == "" && c.Sessions.Store == session.InRedis {
		errs = append(errs, errors.New("sessions.store: redis needs redis, which is empty; give its URL, or use auto or sql"))
	}
	if c.Redis != "" {
		if err := redisdb.Validate(c.Redis.Reveal()); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, c.checkPubsub())
	if c.Gateway.ForwardAuth.Listen != "" && len(c.HTTP.TrustedProxies) == 0 {
		errs = append(errs, errors.New("gateway.forward_auth.listen: nobody may ask there; list your proxies in http.trusted_proxies, such as 127.0.0.1/32"))
	}
	if c.Data == "" {
		errs = append(errs, errors.New("data: it is empty; name a folder"))
	}
	if c.Drain < 0 || c.Drain > 5*time.Minute {
		errs = append(errs, fmt.Errorf("drain: %s is outside 0s to 5m; use 10s behind a load balancer", c.Drain))
	}
	return errors.Join(errs...)
}

func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "", u.User != nil:
		return errors.New("is not a public address; write it like https://id.example.com")
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("has a path; Sumun needs a host name of its own, so write only https://id.example.com")
	case u.Host != strings.ToLower(u.Host):
		return errors.New("is compared letter by letter; write it in lower case")
	}
	return nil
}

// issuerHost is the host part of a valid issuer.
func (c *Config) issuerHost() string {
	u, err := url.Parse(c.Issuer)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// issuerOrigin is the origin of the pages as browsers name it (RFC 6454).
func (c *Config) issuerOrigin() string {
	u, err := url.Parse(c.Issuer)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
