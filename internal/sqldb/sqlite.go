package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"modernc.org/sqlite"
)

const (
	// busyTimeout is how long SQLite itself waits for the lock of another process, in milliseconds. No context can end
	// this wait, so it is short, and waitBusy repeats it. It is short too because SQLite looks less and less often the longer
	// it waits: beside a server that writes without a pause, who looks seldom is starved.
	busyTimeout = "5"
	// busyFor is how long a statement or the beginning of a transaction waits for that lock altogether.
	busyFor = 5 * time.Second
)

func (db *DB) openSQLite(ctx context.Context) error {
	path, err := filepath.Abs(db.target.path)
	if err != nil {
		return fmt.Errorf("database %s: %w", db.target.path, err)
	}
	if err := createFile(path); err != nil {
		return err
	}
	writer, err := sqliteDSN(path, "_txlock=immediate", "_pragma=journal_mode(WAL)",
		"_pragma=synchronous("+string(db.cfg.Synchronous)+")", "_pragma=journal_size_limit(67108864)")
	if err != nil {
		return err
	}
	reader, err := sqliteDSN(path, "_pragma=query_only(1)")
	if err != nil {
		return err
	}
	db.writer, db.reader = writer, reader
	// Opening for the first time switches the file to WAL, during which others find it locked.
	if err := sqliteReady(ctx, writer); err != nil {
		return at("database "+path, err)
	}
	readers := db.cfg.MaxConns
	if readers == 0 {
		readers = max(4, runtime.GOMAXPROCS(0))
	}
	writer.SetMaxOpenConns(1)
	writer.SetMaxIdleConns(1)
	reader.SetMaxOpenConns(readers)
	reader.SetMaxIdleConns(readers)
	reader.SetConnMaxIdleTime(5 * time.Minute)
	return nil
}

func sqliteDSN(path string, options ...string) (*sql.DB, error) {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a Windows drive
	}
	dsn := "file://" + (&url.URL{Path: path}).EscapedPath() + "?" + strings.Join(append(options,
		"_busy_timeout="+busyTimeout, "_pragma=foreign_keys(1)"), "&")
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, fmt.Errorf("open sqlite:%s: %w", path, err)
	}
	return sql.OpenDB(cachingConnector{c}), nil
}

// sqliteReady takes and gives back the write lock, which needs everything that writing needs, and changes nothing.
func sqliteReady(ctx context.Context, writer *sql.DB) error {
	return untilWon(ctx, func() error {
		return run(ctx, writer, nil, func(tx Tx) error {
			_, err := tx.ExecContext(ctx, "SELECT count(*) FROM sqlite_schema")
			return err
		})
	})
}

// createFile makes sure that the file exists, can be written to, and is the owner's alone if it is new. SQLite gives its
// -wal and -shm files the permissions of the database file.
func createFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return remedy("database folder "+filepath.Dir(path), err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return remedy("database file "+path, err)
	}
	if err := f.Close(); err != nil {
		return remedy("database file "+path, err)
	}
	return nil
}

// remedy says what to do about an error of the file system.
func remedy(what string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	say := func(advice string) error { return fmt.Errorf("%s: %w; %s", what, err, advice) }
	switch {
	case errors.Is(err, syscall.EISDIR):
		return say("name a file in it instead")
	case errors.Is(err, syscall.ENOTDIR):
		return say("choose a folder")
	case errors.Is(err, syscall.EROFS):
		return ErrReadOnly.Wrap(say("choose a folder that can be written to"))
	case errors.Is(err, fs.ErrPermission):
		return ErrReadOnly.Wrap(say("give the user who runs the program the right to read and write there"))
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ErrFull.Wrap(say("free some space"))
	}
	return say("choose a place where the program can write")
}
