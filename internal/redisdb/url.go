package redisdb

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

const (
	schemeSingle   = "redis"
	schemeSentinel = "redis-sentinel"
	schemeCluster  = "redis-cluster"

	defaultTimeout = 2 * time.Second
	maxTimeout     = time.Minute

	// Buffers and multiplexing of a connection: the client's defaults (half a MiB each way, times four) suit bulk transfers.
	bufferSize      = 64 << 10
	connectionsLog2 = 1

	// topologyEvery is how soon it is noticed which node of a Cluster has taken the place of another.
	topologyEvery = time.Second
)

// Validate reports what is wrong with a URL, and whether the files that it names can be used. It does not connect. The error
// holds no part of the URL that could be a password. The forms are:
//
//	redis://user:password@host:6379/0
//	redis-sentinel://user:password@host:26379,host:26379/mymaster?db=0
//	redis-cluster://user:password@host:6379,host:6379
//
// With rediss in front (rediss://, rediss-sentinel://, rediss-cluster://) connections use TLS. User, password, ports and
// database may be left out. Options are, after a question mark:
//
//	timeout=2s               the longest wait for a connection or an answer
//	ca=FILE                  trust the certificates in this PEM file instead of the system's
//	cert=FILE&key=FILE       the certificate that this client shows
//	sentinel_user, sentinel_password    where Sentinels ask for their own
//	db=0                     the database behind Sentinel
func Validate(url string) error {
	t, err := parse(url)
	if err != nil {
		return err
	}
	_, err = t.option()
	return err
}

// target is a URL taken apart.
type target struct {
	scheme         string
	tls            bool
	hosts          []string // host:port
	user, password string
	master         string
	db             int
	timeout        time.Duration

	sentinelUser, sentinelPassword string
	ca, cert, key                  string
}

// parse reads a URL. The hosts are cut out first: a list of them is not what net/url calls a host.
func parse(raw string) (target, error) {
	t := target{timeout: defaultTimeout}
	scheme, rest, found := strings.Cut(raw, "://")
	t.scheme = strings.Replace(scheme, "rediss", "redis", 1)
	t.tls = t.scheme != scheme
	if !found || !slices.Contains([]string{schemeSingle, schemeSentinel, schemeCluster}, t.scheme) {
		return t, errors.New("redis: the URL does not begin with redis://, redis-sentinel:// or redis-cluster:// (or rediss...:// " +
			"for TLS); use one such as redis://127.0.0.1:6379")
	}
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	userinfo, hosts, withUser := strings.Cut(rest[:end], "@")
	if !withUser {
		userinfo, hosts = "", rest[:end]
	}
	u, err := url.Parse("redis://" + userinfo + "@host" + rest[end:])
	if err != nil || u.Host != "host" || u.Fragment != "" {
		return t, errors.New("redis: the URL cannot be read; write characters of the password such as @ / : ? # % as %40 and so on")
	}
	t.user = u.User.Username()
	t.password, _ = u.User.Password()
	if err := t.readHosts(hosts); err != nil {
		return t, err // the rest may be half of a password
	}
	return t, errors.Join(t.readPath(strings.Trim(u.Path, "/")), t.readOptions(u.RawQuery))
}

func (t *target) readHosts(list string) error {
	standard := "6379"
	if t.scheme == schemeSentinel {
		standard = "26379"
	}
	for host := range strings.SplitSeq(list, ",") {
		name, port, err := net.SplitHostPort(host)
		if err != nil {
			name, port = strings.Trim(host, "[]"), standard
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || !isHost(name) {
			return errors.New("redis: the URL has a host that cannot be read; write HOST or HOST:PORT, several with commas between " +
				"them, and characters of the password such as @ / : ? # % as %40 and so on")
		}
		t.hosts = append(t.hosts, net.JoinHostPort(name, port))
	}
	if t.scheme == schemeSingle && len(t.hosts) > 1 {
		return errors.New("redis: the URL has several hosts; begin it with redis-sentinel:// or redis-cluster://")
	}
	return nil
}

// isHost keeps out what may be the rest of a password, for a host is printed.
func isHost(name string) bool {
	if net.ParseIP(name) != nil {
		return true
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	return name != "" && strings.Trim(name, letters) == ""
}

// readPath takes the master's name with Sentinel and the number of the database otherwise.
func (t *target) readPath(path string) error {
	switch {
	case t.scheme == schemeSentinel && path == "":
		return errors.New("redis: the URL names no master; put it after the hosts, as in redis-sentinel://HOST,HOST/mymaster")
	case t.scheme == schemeSentinel:
		t.master = path
	case path != "":
		return t.readDB(path)
	}
	return nil
}

func (t *target) readDB(value string) error {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		return errors.New("redis: the URL's database is not a number; use one such as 0")
	}
	if t.scheme == schemeCluster && n != 0 {
		return errors.New("redis: the URL has a database, which a Cluster does not; leave it out")
	}
	t.db = int(n)
	return nil
}

func (t *target) readOptions(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("redis: the URL's options cannot be read; write them as ?name=value&name=value")
	}
	var errs []error
	for name, list := range values {
		value := list[len(list)-1]
		switch name {
		case "db":
			errs = append(errs, t.readDB(value))
		case "timeout":
			if t.timeout, err = time.ParseDuration(value); err != nil || t.timeout <= 0 || t.timeout > maxTimeout {
				errs = append(errs, fmt.Errorf("redis: the URL's timeout is not a duration up to %v; use one such as 2s", maxTimeout))
			}
		case "ca":
			t.ca = value
		case "cert":
			t.cert = value
		case "key":
			t.key = value
		case "sentinel_user":
			t.sentinelUser = value
		case "sentinel_password":
			t.sentinelPassword = value
		default:
			errs = append(errs, errors.New("redis: the URL has an option that is not known; use timeout, db, ca, cert, key, "+
				"sentinel_user or sentinel_password"))
		}
	}
	if (t.ca != "" || t.cert != "" || t.key != "") && !t.tls {
		errs = append(errs, errors.New("redis: the URL has certificates but does not ask for TLS; begin it with rediss"))
	}
	if (t.cert == "") != (t.key == "") {
		errs = append(errs, errors.New("redis: the URL has only one of cert and key; give both"))
	}
	return errors.Join(errs...)
}

// name is the URL without user, password and options.
func (t target) name() string {
	scheme := t.scheme
	if t.tls {
		scheme = strings.Replace(scheme, "redis", "rediss", 1)
	}
	name := scheme + "://" + strings.Join(t.hosts, ",")
	if t.scheme == schemeSentinel {
		name += "/" + t.master
	}
	if t.db != 0 {
		name += fmt.Sprintf("/%d", t.db)
	}
	return name
}

func (t target) explain(err error) error { return explain(t.name(), err) }

// option is what the client is made with. Client-side caching is off: nothing uses it, and it needs a permission more.
func (t target) option() (rueidis.ClientOption, error) {
	o := rueidis.ClientOption{
		InitAddress: t.hosts, Username: t.user, Password: t.password, SelectDB: t.db,
		ClientName: "sumun", ClientSetInfo: rueidis.DisableClientSetInfo,
		Dialer: net.Dialer{Timeout: t.timeout}, ConnWriteTimeout: t.timeout,
		ReadBufferEachConn: bufferSize, WriteBufferEachConn: bufferSize, PipelineMultiplex: connectionsLog2,
		DisableCache: true, ForceSingleClient: t.scheme == schemeSingle, ShuffleInit: t.scheme == schemeCluster,
	}
	o.ClusterOption.ShardsRefreshInterval = topologyEvery
	if t.scheme == schemeSentinel {
		o.Sentinel = rueidis.SentinelOption{
			MasterSet: t.master, Username: t.sentinelUser, Password: t.sentinelPassword, Dialer: o.Dialer,
		}
	}
	if !t.tls {
		return o, nil
	}
	var err error
	if o.TLSConfig, err = t.tlsConfig(); err != nil {
		return o, err
	}
	o.Sentinel.TLSConfig = o.TLSConfig
	return o, nil
}

// tlsConfig names no server: crypto/tls takes the name from the address it dials, which Sentinel and Cluster hand out.
func (t target) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.ca != "" {
		pem, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, fmt.Errorf("redis: the URL's ca: %w; name a readable PEM file", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis: the URL's ca: %s holds no certificate; name a PEM file", t.ca)
		}
	}
	if t.cert != "" {
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, fmt.Errorf("redis: the URL's cert and key: %w; name two PEM files that belong together", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
