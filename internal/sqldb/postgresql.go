package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	connectTimeout = 5 * time.Second
	oldestVersion  = 14 // older ones get no more fixes

	// userTimeout is how long what was sent may go unacknowledged before the connection counts as broken (RFC 5482). The
	// system's own answer is a quarter of an hour.
	userTimeout = 15 * time.Second
)

// keepAlive notices within half a minute that the peer of an idle connection has died, or that a firewall has forgotten it.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

func (db *DB) openPostgreSQL(ctx context.Context) error {
	cfg, err := pgConfig(db.target)
	if err != nil {
		return err
	}
	conns := db.cfg.MaxConns
	if conns == 0 {
		conns = max(10, 4*runtime.GOMAXPROCS(0))
	}
	db.writer = stdlib.OpenDB(*cfg)
	db.reader = db.writer
	db.writer.SetMaxOpenConns(conns)
	db.writer.SetMaxIdleConns(conns)
	db.writer.SetConnMaxIdleTime(5 * time.Minute)
	db.writer.SetConnMaxLifetime(time.Hour) // lets a load balancer in front of the servers spread the connections anew

	version, err := serverVersion(ctx, db.writer)
	if err != nil {
		return connectError(ctx, cfg, err)
	}
	if version/10_000 < oldestVersion {
		return fmt.Errorf("open %s: the server is PostgreSQL %d; version %d or newer is needed",
			db.Name(), version/10_000, oldestVersion)
	}
	return nil
}

func pgConfig(t target) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(t.url.String())
	if err != nil {
		// The cause may repeat parts of the URL, and with them the password.
		return nil, fmt.Errorf("open %s: an option of the URL, a certificate file or the service file it names is not valid", t.name())
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	cfg.DialFunc = (&net.Dialer{KeepAliveConfig: keepAlive, Control: setUserTimeout}).DialContext
	if _, set := cfg.RuntimeParams["application_name"]; !set {
		cfg.RuntimeParams["application_name"] = "sumun"
	}
	// When a context ends, the server is asked to stop the statement and the connection lives on. By default it is
	// closed, and a burst of impatient callers becomes a burst of new connections.
	cfg.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: 2 * time.Second}
	}
	return cfg, nil
}

func serverVersion(ctx context.Context, on *sql.DB) (int, error) {
	var text string
	if err := on.QueryRowContext(ctx, "SHOW server_version_num").Scan(&text); err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// connectError turns the error of a first connection into one line that names the server and the database.
func connectError(ctx context.Context, cfg *pgx.ConnConfig, err error) error {
	where := fmt.Sprintf("PostgreSQL at %s:%d, database %q", cfg.Host, cfg.Port, cfg.Database)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case "28P01", "28000": // invalid_password, invalid_authorization_specification
			return fmt.Errorf("%s: the server refuses user %q; check user and password in the database URL, and pg_hba.conf (%s)",
				where, cfg.User, e.Message)
		case "3D000": // invalid_catalog_name
			return fmt.Errorf("%s: there is no such database; create it with: createdb -h %s -p %d -U %s %s",
				where, cfg.Host, cfg.Port, cfg.User, cfg.Database)
		case "42501": // insufficient_privilege
			return fmt.Errorf("%s: user %q may not connect; grant it CONNECT on the database (%s)", where, cfg.User, e.Message)
		}
		return at(where, explain(ctx, err))
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", where, ctx.Err())
	}
	return ErrUnreachable.Wrap(fmt.Errorf("%s: no connection; check that the server runs, and host, port and sslmode in the database URL (%w)",
		where, lastCause(err)))
}

// lastCause returns the innermost error: pgx tries every address of a host with and without TLS, and tells it all.
func lastCause(err error) error {
	for {
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if e.Unwrap() == nil {
				return err
			}
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			all := e.Unwrap()
			if len(all) == 0 {
				return err
			}
			err = all[len(all)-1]
		default:
			return err
		}
	}
}
