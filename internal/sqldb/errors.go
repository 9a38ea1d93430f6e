package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sumunio/sumun/internal/fault"
)

// What can be wrong with a database that is nobody's mistake in SQL. What to do about it is in the cause, which operators
// see and clients do not.
var (
	// ErrUnreachable says that there is no connection to the database.
	ErrUnreachable = fault.New(fault.Unavailable, "database.unreachable", "The database cannot be reached at the moment.").After(5 * time.Second)
	// ErrBusy says that a transaction lost to others again and again.
	ErrBusy = fault.New(fault.Unavailable, "database.busy", "The database is busy at the moment.").After(time.Second)
	// ErrFull says that there is no space left.
	ErrFull = fault.New(fault.Unavailable, "database.full", "The database cannot store anything at the moment.").After(time.Minute)
	// ErrReadOnly says that the database refuses to be written to.
	ErrReadOnly = fault.New(fault.Unavailable, "database.read_only", "The database cannot be written to at the moment.").After(time.Minute)
	// ErrDamaged says that the file or its disk is broken.
	ErrDamaged = fault.New(fault.Internal, "database.damaged", "The database is damaged.")
	// ErrUnconfirmed says that the connection broke during a commit: the change may have been made or not.
	ErrUnconfirmed = fault.New(fault.Internal, "database.unconfirmed", "It is not known whether the change was made. Look before you repeat it.")
)

// errLost marks an error after which the whole transaction may run again.
var errLost = errors.New("lost to another transaction")

// IsUnique reports whether err is the violation of a unique index or primary key.
func IsUnique(err error) bool {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY ||
			e.Code() == sqlite3.SQLITE_CONSTRAINT_ROWID
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "23505"
}

// explain puts an error of database/sql or a driver into its class. An error that has one, or none, stays what it is.
func explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if explained := explainAnswer(ctx, err); explained != err {
		return explained
	}
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return err
	}
	if ctx.Err() != nil {
		return withContext(ctx, err)
	}
	if isDisconnected(err) {
		return ErrUnreachable.Wrap(fmt.Errorf("check that the database server runs and can be reached: %w", err))
	}
	return err
}

// explainAnswer is explain for what the database itself has answered, and for errors that may be anybody's.
func explainAnswer(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return err
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return explainSQLite(ctx, e, err)
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return explainPostgreSQL(ctx, e, err)
	}
	return err
}

// withContext makes sure that errors.Is finds why the context ended.
func withContext(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w: %w", ctx.Err(), err)
}

// explainCommit is explain for the error of a commit. Unless the database says that it has not committed, nobody knows: a
// server that shuts down may say so after a commit too.
func explainCommit(err error) error {
	explained := explainAnswer(context.Background(), err)
	_, fromSQLite := errors.AsType[*sqlite.Error](err)
	_, fromPostgreSQL := errors.AsType[*pgconn.PgError](err)
	if (fromSQLite || fromPostgreSQL) && !errors.Is(explained, ErrUnreachable) {
		return fmt.Errorf("commit: %w", explained)
	}
	return ErrUnconfirmed.Wrap(fmt.Errorf("commit: %w", err))
}

// at puts where something happened in front of an error, within its class.
func at(where string, err error) error {
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Unwrap() != nil {
		return f.Wrap(fmt.Errorf("%s: %w", where, f.Unwrap()))
	}
	return fmt.Errorf("%s: %w", where, err)
}

// line is an error of a class that is shown to an operator without what clients would be told.
type line struct {
	cause error
	class *fault.Fault
}

func (l line) Error() string   { return l.cause.Error() }
func (l line) Unwrap() []error { return []error{l.class, l.cause} }

// forOperator makes one plain line of an error that has a class.
func forOperator(err error) error {
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Unwrap() != nil {
		return line{f.Unwrap(), f}
	}
	return err
}

func explainSQLite(ctx context.Context, e *sqlite.Error, err error) error {
	switch e.Code() & 0xff { // the primary result code
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return ErrBusy.Wrap(fmt.Errorf("%w: %w", errLost, err))
	case sqlite3.SQLITE_FULL:
		return ErrFull.Wrap(fmt.Errorf("free space on the disk that holds the database file: %w", err))
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return ErrReadOnly.Wrap(fmt.Errorf("let the program write to the database file and its folder: %w", err))
	case sqlite3.SQLITE_IOERR:
		return ErrDamaged.Wrap(fmt.Errorf("check the disk that holds the database file, its free space and its log: %w", err))
	case sqlite3.SQLITE_CANTOPEN:
		return ErrUnreachable.Wrap(fmt.Errorf("check that the database file and its folder exist and may be written to: %w", err))
	case sqlite3.SQLITE_CORRUPT:
		return ErrDamaged.Wrap(fmt.Errorf("restore the database file from a backup, or rescue it with the .recover command of sqlite3: %w", err))
	case sqlite3.SQLITE_NOTADB:
		return ErrDamaged.Wrap(fmt.Errorf("the file is not a SQLite database; give another path, or restore it from a backup: %w", err))
	case sqlite3.SQLITE_INTERRUPT:
		if ctx.Err() != nil {
			return withContext(ctx, err)
		}
	}
	return err
}

func explainPostgreSQL(ctx context.Context, e *pgconn.PgError, err error) error {
	switch e.Code {
	case "40001", "40P01": // serialization_failure, deadlock_detected
		return ErrBusy.Wrap(fmt.Errorf("%w: %w", errLost, err))
	case "53100": // disk_full
		return ErrFull.Wrap(fmt.Errorf("free space on the disk of the database server: %w", err))
	case "25006": // read_only_sql_transaction
		return ErrReadOnly.Wrap(fmt.Errorf("connect to the primary server, not to a replica, and not in a transaction for reading: %w", err))
	case "53300": // too_many_connections
		return ErrUnreachable.Wrap(fmt.Errorf("raise max_connections of the server or lower max_conns here: %w", err))
	case "57014": // query_canceled
		if ctx.Err() != nil {
			return withContext(ctx, err)
		}
	}
	switch {
	case strings.HasPrefix(e.Code, "08"), strings.HasPrefix(e.Code, "57P"): // connection_exception, shutdown and recovery
		return ErrUnreachable.Wrap(fmt.Errorf("the database server ended the connection: %w", err))
	case strings.HasPrefix(e.Code, "XX001"), strings.HasPrefix(e.Code, "XX002"): // data_corrupted, index_corrupted
		return ErrDamaged.Wrap(fmt.Errorf("restore the database from a backup: %w", err))
	}
	return err
}

func isDisconnected(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	for _, known := range []error{
		driver.ErrBadConn, sql.ErrConnDone, net.ErrClosed, io.ErrUnexpectedEOF, syscall.ECONNREFUSED, syscall.ECONNRESET,
		syscall.EPIPE,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return strings.Contains(err.Error(), "conn closed") // pgx has no sentinel for it
}
