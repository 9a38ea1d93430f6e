package pubsub

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/sumunio/sumun/internal/keyring"
)

// OverRedis is the URL that stands for the Redis that is configured already.
const OverRedis = "redis"

// Config says how nodes reach each other.
type Config struct {
	URL     keyring.Secret `yaml:"url" doc:"Through what nodes tell each other news at once: nats://user:password@host:4222 or nats://token@host:4222, several with commas between them, tls:// for TLS; redis for the configured Redis; empty for a NATS inside this process, which reaches other nodes through pubsub.cluster."`
	Prefix  string         `yaml:"prefix" doc:"Begins the name of every subject (NATS) or channel (Redis). Installations that share a server have different ones, also in different databases of one Redis. Its user needs to publish and subscribe to this, a dot and anything."`
	NATS    NATSConfig     `yaml:"nats" doc:"Signing in to the NATS of pubsub.url."`
	Cluster ClusterConfig  `yaml:"cluster" doc:"How the NATS inside this process finds those of the other nodes."`
}

// NATSConfig says how this node signs in to an external NATS, beside what is in the URL.
type NATSConfig struct {
	CredentialsFile string `yaml:"credentials_file" doc:"A file with a user's JWT and seed, as nsc writes it."`
	CAFile          string `yaml:"ca_file" doc:"A PEM file of certificate authorities to trust instead of the system's. It asks for TLS."`
	CertFile        string `yaml:"cert_file" doc:"A PEM file with the certificate that this node shows. It asks for TLS."`
	KeyFile         string `yaml:"key_file" doc:"A PEM file with the key of that certificate."`
}

// ClusterConfig says how embedded servers become one cluster.
type ClusterConfig struct {
	Listen    string         `yaml:"listen" doc:"Address and port for the other nodes, such as 10.0.0.1:6222. Empty: this node is alone."`
	Advertise string         `yaml:"advertise" doc:"The address and port under which others reach this node, where that is not listen."`
	Routes    []string       `yaml:"routes" doc:"Address and port of some of the nodes; the rest become known through them. All nodes may have the same list."`
	Name      string         `yaml:"name" doc:"The same on all nodes of a cluster."`
	Secret    keyring.Secret `yaml:"secret" doc:"What nodes show each other, the same on all of them. Needed where others than this machine can reach listen."`
	CAFile    string         `yaml:"ca_file" doc:"A PEM file with the authority that signed the nodes' certificates. With it, nodes speak TLS and accept only those that show one; without TLS, whoever listens on the network reads the secret."`
	CertFile  string         `yaml:"cert_file" doc:"A PEM file with this node's certificate, for the names that routes have, as a server and as a client."`
	KeyFile   string         `yaml:"key_file" doc:"A PEM file with the key of that certificate."`
}

// DefaultConfig is one node.
func DefaultConfig() Config {
	return Config{Prefix: "sumun", Cluster: ClusterConfig{Name: "sumun"}}
}

// IsRedis reports whether OpenRedis is meant, and not OpenNATS.
func (c Config) IsRedis() bool { return c.URL == OverRedis }

// embedded reports whether the server is a part of this process.
func (c Config) embedded() bool { return c.URL == "" }

// Validate reports everything that is wrong with the configuration. It reads the files that are named.
func (c Config) Validate() error {
	var faults []error
	if checkSubject(c.Prefix) != nil || len(c.Prefix) > 32 {
		faults = append(faults, fmt.Errorf("pubsub.prefix: %q is not made of at most 32 of a-z, 0-9, _, - and dots between them; use sumun", c.Prefix))
	}
	if !c.embedded() && !c.IsRedis() {
		if _, err := parseURL(c.URL.Reveal()); err != nil {
			faults = append(faults, fmt.Errorf("pubsub.url: %w", err))
		}
	}
	return errors.Join(append(faults, c.NATS.validate(c), c.Cluster.validate(c))...)
}

func (c NATSConfig) validate(all Config) error {
	if c == (NATSConfig{}) {
		return nil
	}
	var faults []error
	if all.embedded() || all.IsRedis() {
		faults = append(faults, errors.New("pubsub.nats: there is nothing to sign in to; set pubsub.url to that NATS, or leave these keys out"))
	}
	if c.CredentialsFile != "" {
		if err := readable(c.CredentialsFile); err != nil {
			faults = append(faults, fmt.Errorf("pubsub.nats.credentials_file: %q %w; name a file that nsc has written", c.CredentialsFile, err))
		}
	}
	_, err := loadTLS("pubsub.nats", c.CAFile, c.CertFile, c.KeyFile)
	return errors.Join(append(faults, err)...)
}

func (c ClusterConfig) validate(all Config) error {
	var faults []error
	wrong := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("pubsub.cluster."+key+": "+format, args...))
	}
	if checkSubject(c.Name) != nil {
		wrong("name", "%q is not made of a-z, 0-9, _, - and dots between them; use sumun", c.Name)
	}
	if c.Listen == "" {
		if len(c.Routes) > 0 || c.Advertise != "" {
			wrong("listen", "it is empty, but there are routes or an address to advertise; set it to an address such as 10.0.0.1:6222")
		}
		return errors.Join(faults...)
	}
	if !all.embedded() {
		wrong("listen", "%q is for the NATS inside this process, and pubsub.url names another; leave one of the two out", c.Listen)
	}
	for i, address := range append([]string{c.Listen, c.Advertise}, c.Routes...) {
		key := [...]string{"listen", "advertise", "routes"}[min(i, 2)]
		if _, _, err := splitAddress(address); err != nil && (i != 1 || address != "") {
			wrong(key, "%q is not an address and a port; write it like 10.0.0.1:6222", address)
		}
	}
	if c.Secret == "" && !onlyHere(c.Listen) {
		wrong("secret", "it is empty, and everybody who can reach %s could read and send news; set it to a long random text, the "+
			"same on all nodes", c.Listen)
	}
	if _, err := loadTLS("pubsub.cluster", c.CAFile, c.CertFile, c.KeyFile); err != nil {
		faults = append(faults, err)
	}
	if (c.CAFile == "") != (c.CertFile == "") {
		wrong("ca_file", "nodes show certificates to each other; set ca_file, cert_file and key_file, or none of them")
	}
	return errors.Join(faults...)
}

// parseURL reads a list of NATS servers. The error holds no part of it, which may be a password.
func parseURL(list string) ([]*url.URL, error) {
	var all []*url.URL
	for one := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			return nil, errors.New("it cannot be read; write it like nats://user:password@host:4222, and characters of the password " +
				"such as @ / : ? # % as %40 and so on")
		}
		if u.Scheme != "nats" && u.Scheme != "tls" {
			return nil, errors.New("it does not begin with nats:// or tls://; write it like nats://host:4222, redis for the " +
				"configured Redis, or leave it empty for the NATS inside this process")
		}
		if u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, errors.New("it is not made of hosts and ports; write it like nats://user:password@host:4222, and characters " +
				"of the password such as @ / : ? # % as %40 and so on")
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "4222")
		}
		all = append(all, u)
	}
	return all, nil
}

// hostNames is a list of servers without what must not be printed.
func hostNames(servers []*url.URL) string {
	names := make([]string, len(servers))
	for i, u := range servers {
		names[i] = u.Scheme + "://" + u.Host
	}
	return strings.Join(names, ",")
}

// loadTLS reads a CA and a pair of certificate and key. It returns nil when neither is named.
func loadTLS(section, ca, cert, key string) (*tls.Config, error) {
	if ca == "" && cert == "" && key == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	var faults []error
	if ca != "" {
		pem, err := os.ReadFile(ca)
		c.RootCAs = x509.NewCertPool()
		if err != nil || !c.RootCAs.AppendCertsFromPEM(pem) {
			faults = append(faults, fmt.Errorf("%s.ca_file: %q cannot be read or holds no certificate; name a PEM file", section, ca))
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s.cert_file: %q and key_file %q cannot be loaded (%w); name two PEM files that belong "+
				"together", section, cert, key, err))
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, errors.Join(faults...)
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return errors.New("cannot be read")
	}
	return f.Close()
}

func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && n == 0 {
		err = errors.New("port 0")
	}
	return host, int(n), err
}

// onlyHere reports whether only this machine can reach the address.
func onlyHere(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip, parsed := netip.ParseAddr(host)
	return err == nil && (host == "localhost" || parsed == nil && ip.IsLoopback())
}
