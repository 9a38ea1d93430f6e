package pubsub

import (
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	// serverReady bounds how long the embedded server may take to start.
	serverReady = 10 * time.Second
	// serverPending bounds what the server holds for one connection that does not read, in bytes.
	serverPending = 16 << 20
	// clusterUser is the name that goes with passwords that are all there is to know.
	clusterUser = "sumun"
)

// startServer starts a NATS server in this process, which keeps nothing on disk, and returns how to connect to it in memory.
// Alone it has no port.
func startServer(cfg ClusterConfig, log *slog.Logger) (*server.Server, []nats.Option, error) {
	us := onlyUs(rand.Text())
	o := &server.Options{
		CustomClientAuthentication: us, DontListen: true, NoSigs: true, MaxPending: serverPending, WriteDeadline: 2 * time.Second,
	}
	if cfg.Listen != "" {
		if err := cluster(o, cfg); err != nil {
			return nil, nil, err
		}
		if err := cfg.CheckPort(); err != nil {
			return nil, nil, err
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, nil, fmt.Errorf("pubsub: embedded NATS: %w", err)
	}
	s.SetLoggerV2(serverLog{log}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(serverReady) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, nil, errors.New("pubsub: embedded NATS did not start; the log says why")
	}
	return s, []nats.Option{nats.InProcessServer(s), nats.UserInfo(clusterUser, string(us))}, nil
}

// cluster adds what connects embedded servers.
func cluster(o *server.Options, cfg ClusterConfig) error {
	host, port, err := splitAddress(cfg.Listen)
	if err != nil {
		return fmt.Errorf("pubsub.cluster.listen: %w", err)
	}
	o.Cluster = server.ClusterOpts{
		Name: cfg.Name, Host: host, Port: port, Advertise: cfg.Advertise,
		PingInterval: 5 * time.Second, MaxPingsOut: 2, WriteDeadline: 2 * time.Second, NoAdvertise: true,
	}
	// The server listens to no other nodes before it listens to clients. Nobody is told of the port, and only we get in.
	o.DontListen, o.Host, o.Port = false, "127.0.0.1", server.RANDOM_PORT
	var user *url.Userinfo
	if cfg.Secret != "" {
		o.Cluster.Username, o.Cluster.Password = clusterUser, cfg.Secret.Reveal()
		user = url.UserPassword(clusterUser, cfg.Secret.Reveal())
	}
	for _, address := range cfg.Routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", User: user, Host: address})
	}
	t, err := loadTLS("pubsub.cluster", cfg.CAFile, cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return err
	}
	if t != nil {
		t.ClientCAs, t.ClientAuth = t.RootCAs, tls.RequireAndVerifyClientCert
		o.Cluster.TLSConfig, o.Cluster.TLSTimeout = t, 5
	}
	return nil
}

// onlyUs is the password of this process for its own server.
type onlyUs string

// Check implements server.Authentication.
func (o onlyUs) Check(c server.ClientAuthentication) bool {
	return subtle.ConstantTimeCompare([]byte(c.GetOpts().Password), []byte(o)) == 1
}

// CheckPort says in one line what the server would only log: that the port for the other nodes cannot be had.
func (c ClusterConfig) CheckPort() error {
	if c.Listen == "" {
		return nil
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("pubsub.cluster.listen: %w; another program uses this port, or the address is not this machine's", err)
	}
	return l.Close()
}

// serverLog passes on what the embedded server has to say. Its notices are for whoever looks into it.
type serverLog struct{ log *slog.Logger }

func (l serverLog) event(level func(string, ...any), format string, args []any) {
	level("embedded NATS", "event", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (l serverLog) Noticef(format string, args ...any) { l.event(l.log.Debug, format, args) }
func (l serverLog) Debugf(format string, args ...any)  { l.event(l.log.Debug, format, args) }
func (l serverLog) Tracef(format string, args ...any)  { l.event(l.log.Debug, format, args) }
func (l serverLog) Warnf(format string, args ...any)   { l.event(l.log.Warn, format, args) }
func (l serverLog) Errorf(format string, args ...any)  { l.event(l.log.Warn, format, args) }
func (l serverLog) Fatalf(format string, args ...any)  { l.event(l.log.Error, format, args) }
