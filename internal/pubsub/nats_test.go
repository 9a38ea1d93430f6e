package pubsub_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/pubsub"
)

// openNATS opens a node that is closed when the test ends.
func openNATS(t *testing.T, cfg pubsub.Config) *pubsub.NATS {
	t.Helper()
	n, err := pubsub.OpenNATS(t.Context(), cfg, deps())
	must(t, err)
	t.Cleanup(n.Close)
	return n
}

// serverWith runs a NATS server in this process until the test ends.
func serverWith(t *testing.T, o *server.Options) (address string) {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(o)
	must(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	return s.Addr().String()
}

// TestAloneHasNoPort: who tries Sumun out opens no door.
func TestAloneHasNoPort(t *testing.T) {
	t.Parallel()
	n := openNATS(t, pubsub.DefaultConfig())
	if address := n.Server().Addr(); address != nil {
		t.Errorf("it listens on %s", address)
	}
	s := subject()
	meet(t, s, []node{n}, record(t, n, s))
	// The connection and the server are there for others to use.
	if err := n.Conn().FlushTimeout(time.Second); err != nil || n.Server().ID() == "" {
		t.Error(err)
	}
}

// TestClusterHasNoClients: the port that a cluster cannot do without lets nobody in.
func TestClusterHasNoClients(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	cfg := pubsub.DefaultConfig()
	cfg.Cluster.Listen, cfg.Cluster.Secret = freeAddress(t), "the cluster's secret"
	d := deps()
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	n, err := pubsub.OpenNATS(t.Context(), cfg, d)
	must(t, err)
	t.Cleanup(n.Close)
	address := n.Server().Addr().String()
	if !strings.HasPrefix(address, "127.0.0.1:") {
		t.Errorf("clients are listened to at %s", address)
	}
	for _, user := range []string{"", "sumun@", "sumun:the%20cluster's%20secret@", "token@"} {
		c, err := nats.Connect("nats://" + user + address)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("as %q: %v", user, err)
		}
	}
	s := subject()
	meet(t, s, []node{n}, record(t, n, s))
	if text := log.String(); strings.Contains(text, "Plaintext") {
		t.Errorf("a warning that nobody can heed: %s", text)
	}
}

// TestClusterRefusesStrangers: who does not know the secret, or has no certificate, neither hears nor says anything.
func TestClusterRefusesStrangers(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t), newAuthority(t)
	for name, test := range map[string]struct{ member, stranger func(*pubsub.ClusterConfig) }{
		"secret": {
			func(c *pubsub.ClusterConfig) { c.Secret = "right" },
			func(c *pubsub.ClusterConfig) { c.Secret = "wrong" },
		},
		"no secret": {
			func(c *pubsub.ClusterConfig) { c.Secret = "right" },
			func(*pubsub.ClusterConfig) {},
		},
		"certificate": {
			func(c *pubsub.ClusterConfig) { ca.issue(t, c) },
			func(c *pubsub.ClusterConfig) { stranger.issue(t, c) },
		},
		"no certificate": {
			func(c *pubsub.ClusterConfig) { ca.issue(t, c) },
			func(*pubsub.ClusterConfig) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := freeAddress(t)
			start := func(set func(*pubsub.ClusterConfig), listen string) *pubsub.NATS {
				cfg := pubsub.DefaultConfig()
				cfg.Cluster.Listen, cfg.Cluster.Routes = listen, []string{first}
				set(&cfg.Cluster)
				return openNATS(t, cfg)
			}
			a, b := start(test.member, first), start(test.member, freeAddress(t))
			out := start(test.stranger, freeAddress(t))
			s := subject()
			inside, outside := record(t, b, s), record(t, out, s)
			meet(t, s, []node{a}, inside)
			publish(t, out, s, "from outside")
			meet(t, s, []node{a}, inside)
			meet(t, s, []node{out}, outside)
			if got, _ := inside.has("from outside"); len(got) != 0 || out.Server().NumRoutes() != 0 {
				t.Error("a stranger is heard")
			}
			if got, _ := outside.has(""); strings.Count(strings.Join(got, " "), "hello") != len(got)-1 {
				t.Errorf("a stranger hears %q", got)
			}
		})
	}
}

// TestExternalSignIn covers the ways in which a NATS knows its users.
func TestExternalSignIn(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	var pki pubsub.ClusterConfig
	ca.issue(t, &pki)
	pair, err := tls.LoadX509KeyPair(pki.CertFile, pki.KeyFile)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	for name, test := range map[string]struct {
		server server.Options
		url    string // HOST stands for the address
		nats   pubsub.NATSConfig
		wrong  string // a URL that is refused
	}{
		"user and password": {server: server.Options{Username: "sumun", Password: "p@ss"}, url: "nats://sumun:p%40ss@HOST", wrong: "nats://sumun:hunter2@HOST"},
		"token":             {server: server.Options{Authorization: "t0ken"}, url: "nats://t0ken@HOST", wrong: "nats://hunter2@HOST"},
		"TLS": {
			server: server.Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}, TLSTimeout: 5},
			url:    "tls://HOST", nats: pubsub.NATSConfig{CAFile: pki.CAFile, CertFile: pki.CertFile, KeyFile: pki.KeyFile}, wrong: "tls://user:hunter2@HOST",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := serverWith(t, &test.server)
			cfg := pubsub.DefaultConfig()
			cfg.URL, cfg.NATS = keyring.Secret(strings.Replace(test.url, "HOST", address, 1)), test.nats
			n := openNATS(t, cfg)
			s := subject()
			meet(t, s, []node{n}, record(t, n, s))
			if !strings.HasSuffix(n.Name(), "://"+address) {
				t.Errorf("its name is %q", n.Name())
			}
			cfg.URL, cfg.NATS = keyring.Secret(strings.Replace(test.wrong, "HOST", address, 1)), pubsub.NATSConfig{}
			wrong, err := pubsub.OpenNATS(t.Context(), cfg, deps())
			if err == nil {
				wrong.Close()
				t.Fatal("who is somebody else gets in")
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), address) {
				t.Errorf("not one line that names the server and no password: %v", err)
			}
		})
	}
}

// TestExternalPermissions: a subscription that the server refuses must not look like one.
func TestExternalPermissions(t *testing.T) {
	t.Parallel()
	address := serverWith(t, &server.Options{Users: []*server.User{{Username: "sumun", Password: "pw", Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"sumun.>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"sumun.>"}},
	}}}})
	cfg := pubsub.DefaultConfig()
	cfg.URL = keyring.Secret("nats://sumun:pw@" + address)
	n := openNATS(t, cfg)
	s := subject()
	meet(t, s, []node{n}, record(t, n, s))
	cfg.Prefix = "other"
	other := openNATS(t, cfg)
	if _, err := other.Subscribe(t.Context(), s, func([]byte) {}, func() {}); !errors.Is(err, pubsub.ErrUnavailable) ||
		!errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), "other.>") {
		t.Errorf("a subscription that is not allowed: %v", err)
	}
}

func TestOpenNATSSaysWhatToDo(t *testing.T) {
	t.Parallel()
	closed, taken := freeAddress(t), serverWith(t, &server.Options{})
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = hangs.Close() })
	for name, test := range map[string]struct {
		set  func(*pubsub.Config)
		want []string
	}{
		"nobody there": {func(c *pubsub.Config) { c.URL = keyring.Secret("nats://sumun:hunter2@" + closed) }, []string{closed, "check that it runs"}},
		"hangs":        {func(c *pubsub.Config) { c.URL = keyring.Secret("nats://hunter2@" + hangs.Addr().String()) }, []string{"check that it runs"}},
		"port in use":  {func(c *pubsub.Config) { c.Cluster.Listen = taken }, []string{"pubsub.cluster.listen", taken, "another program"}},
		"nonsense":     {func(c *pubsub.Config) { c.URL = "http://hunter2@host" }, []string{"pubsub.url", "nats://"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := pubsub.DefaultConfig()
			test.set(&cfg)
			began := time.Now()
			n, err := pubsub.OpenNATS(t.Context(), cfg, deps())
			if err == nil {
				n.Close()
				t.Fatal("it opened")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("not one line without a password: %v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := pubsub.DefaultConfig()
	cfg.URL = keyring.Secret("nats://" + hangs.Addr().String())
	if n, err := pubsub.OpenNATS(ctx, cfg, deps()); err == nil {
		n.Close()
		t.Error("it opened for a caller who has gone")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	must(t, pubsub.DefaultConfig().Validate())
	var pki pubsub.ClusterConfig
	newAuthority(t).issue(t, &pki)
	for name, test := range map[string]struct {
		set  func(*pubsub.Config)
		want string // "" when it is right
	}{
		"redis":              {func(c *pubsub.Config) { c.URL = "redis" }, ""},
		"several":            {func(c *pubsub.Config) { c.URL = "nats://u:p@a:4222, tls://b" }, ""},
		"cluster":            {func(c *pubsub.Config) { c.Cluster.Listen, c.Cluster.Secret = "10.0.0.1:6222", "s" }, ""},
		"cluster at home":    {func(c *pubsub.Config) { c.Cluster.Listen = "127.0.0.1:6222" }, ""},
		"not a URL":          {func(c *pubsub.Config) { c.URL = "hunter2" }, "pubsub.url"},
		"cut by a slash":     {func(c *pubsub.Config) { c.URL = "nats://u:hunter2/x@host" }, "pubsub.url"},
		"control character":  {func(c *pubsub.Config) { c.URL = "nats://hunter2\n@a" }, "pubsub.url"},
		"no host":            {func(c *pubsub.Config) { c.URL = "nats://hunter2@" }, "pubsub.url"},
		"one of two wrong":   {func(c *pubsub.Config) { c.URL = "nats://a,redis" }, "pubsub.url"},
		"prefix":             {func(c *pubsub.Config) { c.Prefix = "a b" }, "pubsub.prefix"},
		"no prefix":          {func(c *pubsub.Config) { c.Prefix = "" }, "pubsub.prefix"},
		"routes alone":       {func(c *pubsub.Config) { c.Cluster.Routes = []string{"a:1"} }, "pubsub.cluster.listen"},
		"no port":            {func(c *pubsub.Config) { c.Cluster.Listen = "127.0.0.1" }, "pubsub.cluster.listen"},
		"route without port": {func(c *pubsub.Config) { c.Cluster.Listen, c.Cluster.Routes = "127.0.0.1:1", []string{"a"} }, "pubsub.cluster.routes"},
		"advertise":          {func(c *pubsub.Config) { c.Cluster.Listen, c.Cluster.Advertise = "127.0.0.1:1", "a" }, "pubsub.cluster.advertise"},
		"open to everybody":  {func(c *pubsub.Config) { c.Cluster.Listen = "0.0.0.0:6222" }, "pubsub.cluster.secret"},
		"two servers":        {func(c *pubsub.Config) { c.URL, c.Cluster.Listen = "nats://a", "127.0.0.1:1" }, "pubsub.cluster.listen"},
		"name":               {func(c *pubsub.Config) { c.Cluster.Name = "" }, "pubsub.cluster.name"},
		"half of TLS":        {func(c *pubsub.Config) { c.Cluster.Listen, c.Cluster.CAFile = "127.0.0.1:1", pki.CAFile }, "pubsub.cluster.ca_file"},
		"key of another":     {func(c *pubsub.Config) { c.URL, c.NATS.CertFile, c.NATS.KeyFile = "nats://a", pki.CertFile, pki.CAFile }, "pubsub.nats.cert_file"},
		"no CA":              {func(c *pubsub.Config) { c.URL, c.NATS.CAFile = "nats://a", "/nowhere" }, "pubsub.nats.ca_file"},
		"no credentials":     {func(c *pubsub.Config) { c.URL, c.NATS.CredentialsFile = "nats://a", "/nowhere" }, "pubsub.nats.credentials_file"},
		"sign in to nothing": {func(c *pubsub.Config) { c.NATS.CAFile = pki.CAFile }, "pubsub.nats"},
	} {
		cfg := pubsub.DefaultConfig()
		test.set(&cfg)
		err := cfg.Validate()
		if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells a password: %v", name, err)
		}
	}
	broken := pubsub.Config{URL: "x", Cluster: pubsub.ClusterConfig{Routes: []string{"a"}}}
	if err := broken.Validate(); err == nil || strings.Count(err.Error(), "\n") < 3 {
		t.Errorf("not everything that is wrong is reported: %v", err)
	}
}

// authority signs certificates for nodes of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority " + rand.Text()}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{cert, key, writePEM(t, "CERTIFICATE", der)}
}

// issue gives a node of this machine a certificate.
func (a *authority) issue(t *testing.T, c *pubsub.ClusterConfig) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	c.CAFile, c.CertFile, c.KeyFile = a.file, writePEM(t, "CERTIFICATE", der), writePEM(t, "PRIVATE KEY", secret)
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}
