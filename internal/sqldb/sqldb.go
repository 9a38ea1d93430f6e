// Package sqldb owns the connection to the SQL database, SQLite or PostgreSQL: opening it, transactions, classes of errors,
// migrations and housekeeping. It is the only package that imports a database driver.
//
// It promises that one text of SQL serves both engines ($n placeholders whose first appearances ascend, times as UTC
// microseconds), that a write transaction lost to another one is run again, that a commit which has begun is finished even
// when the caller has gone, and that what an operator can mend (no space, no connection, a damaged file) is reported as an
// error that says how.
//
// It refuses to hide SQL, to repeat a commit whose outcome is unknown, and to print a password.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Engine is the kind of database behind a DB, for the few texts that must differ (locking clauses, triggers).
type Engine string

// The engines.
const (
	SQLite     Engine = "sqlite"
	PostgreSQL Engine = "postgresql"
)

// Synchronous says how long a commit on SQLite waits for the disk.
type Synchronous string

const (
	// SynchronousNormal hands every commit to the operating system before it is answered. It survives the death of the
	// process at any moment; a power cut may take the last commits with it, and never damages the file.
	SynchronousNormal Synchronous = "normal"
	// SynchronousFull also waits for the disk. A power cut loses nothing that was answered; a commit takes one fsync, on
	// most disks a tenth of the speed or less.
	SynchronousFull Synchronous = "full"
)

// Config says which database is used and how.
type Config struct {
	// URL may hold a password: print Redacted, not the Config.
	URL         string      `yaml:"url" doc:"sqlite:PATH or postgres://user:password@host:5432/database. Options of libpq (sslmode, connect_timeout, ...) may follow a PostgreSQL URL."`
	MaxConns    int         `yaml:"max_conns" doc:"The most connections of this process: all of them on PostgreSQL, the readers on SQLite (which has one writer besides). 0 chooses by the number of processors."`
	Synchronous Synchronous `yaml:"synchronous" doc:"SQLite only: normal survives the death of the process, full a power cut as well. PostgreSQL has a setting of its own, synchronous_commit, which is on by default."`
}

// DefaultConfig returns what is used where nothing is configured, except the URL, which has no default here.
//
// Commits are SynchronousNormal: an answered write must survive the death of the process, and a sign-in service that waits
// for the disk at every refresh is ten times slower. Who must also survive a power cut on SQLite chooses SynchronousFull.
func DefaultConfig() Config {
	return Config{Synchronous: SynchronousNormal}
}

// Validate returns everything that is wrong with the configuration, joined.
func (c Config) Validate() error {
	var errs []error
	if _, err := parseURL(c.URL); err != nil {
		errs = append(errs, err)
	}
	if c.MaxConns < 0 || c.MaxConns > 10_000 {
		errs = append(errs, fmt.Errorf("max_conns: %d is out of range; give 0 (automatic) to 10000", c.MaxConns))
	}
	if c.Synchronous != SynchronousNormal && c.Synchronous != SynchronousFull {
		errs = append(errs, fmt.Errorf("synchronous: %q is unknown; give normal or full", c.Synchronous))
	}
	return errors.Join(errs...)
}

// Redacted returns the URL without its password and options, for messages and logs.
func (c Config) Redacted() string {
	t, err := parseURL(c.URL)
	if err != nil {
		return "(invalid database URL)"
	}
	return t.name()
}

// target is a parsed URL.
type target struct {
	engine Engine
	path   string   // SQLite
	url    *url.URL // PostgreSQL
}

func (t target) name() string {
	if t.engine == SQLite {
		return "sqlite:" + t.path
	}
	return "postgresql://" + t.url.Host + t.url.Path
}

// parseURL never repeats a PostgreSQL URL in its errors: a password with unescaped characters is what usually breaks one.
func parseURL(raw string) (target, error) {
	scheme, rest, _ := strings.Cut(raw, ":")
	switch scheme {
	case "sqlite":
		path := strings.TrimPrefix(rest, "//")
		if path == "" || strings.HasPrefix(path, ":memory:") {
			return target{}, fmt.Errorf("url: %q names no file; write sqlite:PATH, for example sqlite:data/sumun.db", raw)
		}
		return target{engine: SQLite, path: path}, nil
	case "postgres", "postgresql":
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || len(u.Path) < 2 {
			return target{}, errors.New("url: not a valid PostgreSQL URL; write postgres://user:password@host:5432/database, " +
				"with special characters in the password percent-encoded")
		}
		return target{engine: PostgreSQL, url: u}, nil
	case "":
		return target{}, errors.New("url: empty; write sqlite:PATH or postgres://user:password@host:5432/database")
	default:
		return target{}, errors.New("url: unknown kind of database; write sqlite:PATH or postgres://user:password@host:5432/database")
	}
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	cfg    Config
	target target
	writer *sql.DB
	reader *sql.DB // on PostgreSQL the same as writer
}

// Open opens the database and checks that it answers, can be written to and is recent enough (PostgreSQL 14). A SQLite file
// that does not exist is created, readable by its owner only, and so is its folder. The configuration must be valid.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	t, err := parseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	db := &DB{cfg: cfg, target: t}
	if t.engine == SQLite {
		err = db.openSQLite(ctx)
	} else {
		err = db.openPostgreSQL(ctx)
	}
	if err != nil {
		_ = db.Close() // why it could not be opened matters more
		return nil, forOperator(err)
	}
	return db, nil
}

// Config returns the configuration that the database was opened with.
func (db *DB) Config() Config { return db.cfg }

// Engine returns the kind of database.
func (db *DB) Engine() Engine { return db.target.engine }

// Name names the database in messages. It holds no password.
func (db *DB) Name() string { return db.target.name() }

// Reader returns a handle for single queries. On SQLite it cannot write, and waits for no writer.
func (db *DB) Reader() Queryer { return pool{db.reader} }

// Writer returns a handle for single statements that commit by themselves. SQLite has one writer: using it within the
// function given to Write waits for itself until the context ends.
func (db *DB) Writer() Queryer { return pool{db.writer} }

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	// A query of the schema touches the file on SQLite, where "SELECT 1" would succeed without it.
	query := "SELECT 1"
	if db.Engine() == SQLite {
		query = "SELECT count(*) FROM sqlite_schema"
	}
	var n int64
	if err := db.reader.QueryRowContext(ctx, query).Scan(&n); err != nil {
		return fmt.Errorf("ping %s: %w", db.Name(), explain(ctx, err))
	}
	return nil
}

// Close closes all connections after the statements in flight.
func (db *DB) Close() error {
	var errs []error
	if db.reader != nil && db.reader != db.writer {
		errs = append(errs, db.reader.Close())
	}
	if db.writer != nil {
		errs = append(errs, db.writer.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close %s: %w", db.Name(), err)
	}
	return nil
}

// Clock returns the database server's time. On SQLite, which has no server, it is the time of this machine.
func (db *DB) Clock(ctx context.Context) (time.Time, error) {
	const (
		onSQLite     = `SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER)`
		onPostgreSQL = `SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)`
	)
	query := onSQLite
	if db.Engine() == PostgreSQL {
		query = onPostgreSQL
	}
	us, err := One(ctx, db.Reader(), scanInt64, query)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the clock of %s: %w", db.Name(), err)
	}
	return Time(us), nil
}
