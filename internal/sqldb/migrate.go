package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// migrationLock is the key of the advisory lock that migrating processes queue for on PostgreSQL: "sumun" in ASCII.
const migrationLock = 0x73756d756e

// Migrations is the history of one component's tables. Components know nothing of each other's.
type Migrations struct {
	// Name is the component's, in lower-case letters, digits and underscores. The table schema_<name> records what has been applied.
	Name string
	// FS holds goose files NNNNN_name.sql, in its folder migrations if there is one, otherwise at its root. What only one
	// engine understands is in the folders sqlite and postgresql beside them, under numbers of its own.
	FS fs.FS
}

var migrationsName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}$`)

// Migrate brings the tables of all sets up to date, in the order of sets. It may run in several processes at once: one does
// the work, the others wait for it. Each migration is applied whole or not at all. A database that is up to date is only
// read.
func Migrate(ctx context.Context, db *DB, sets ...Migrations) error {
	pending, err := Pending(ctx, db, sets...)
	if err != nil || len(pending) == 0 {
		return err
	}
	unlock, err := db.lockMigrations(ctx)
	if err != nil {
		return fmt.Errorf("migrate %s: wait for other processes: %w", db.Name(), err)
	}
	defer unlock()
	for _, set := range sets {
		p, err := db.provider(set)
		if err != nil {
			return err
		}
		if _, err := p.Up(ctx); err != nil {
			where := set.Name
			if e, ok := errors.AsType[*goose.PartialError](err); ok {
				where, err = where+"/"+filepath.Base(e.Failed.Source.Path), e.Err
			}
			return fmt.Errorf("migrate %s: %s: %w", db.Name(), where, explain(ctx, err))
		}
	}
	return nil
}

// Pending returns the migrations that are not applied yet, as "set/file", in the order in which Migrate applies them. It
// changes nothing. A database that is ahead, as a newer version of the program has migrated it, has none.
func Pending(ctx context.Context, db *DB, sets ...Migrations) ([]string, error) {
	var pending []string
	for _, set := range sets {
		p, err := db.provider(set)
		if err != nil {
			return nil, err
		}
		applied, err := db.applied(ctx, set)
		if err != nil {
			return nil, fmt.Errorf("migrations of %s: %w", set.Name, err)
		}
		for _, source := range p.ListSources() {
			if !slices.Contains(applied, source.Version) {
				pending = append(pending, set.Name+"/"+filepath.Base(source.Path))
			}
		}
	}
	return pending, nil
}

func (m Migrations) table() string { return "schema_" + m.Name }

// applied returns the versions that the set's table records.
func (db *DB) applied(ctx context.Context, set Migrations) ([]int64, error) {
	const (
		onSQLite     = `SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = $1`
		onPostgreSQL = `SELECT count(*) FROM pg_class WHERE oid = to_regclass($1)`
	)
	exists := onSQLite
	if db.Engine() == PostgreSQL {
		exists = onPostgreSQL
	}
	n, err := One(ctx, db.Reader(), scanInt64, exists, set.table())
	if err != nil || n == 0 {
		return nil, err
	}
	return All(ctx, db.Reader(), scanInt64, `SELECT version_id FROM `+set.table()+` WHERE is_applied ORDER BY id`)
}

func scanInt64(r Row) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}

func (db *DB) provider(set Migrations) (*goose.Provider, error) {
	if !migrationsName.MatchString(set.Name) {
		return nil, fmt.Errorf("migrations %q: the name must be lower-case letters, digits and underscores", set.Name)
	}
	dialect := goose.DialectSQLite3
	if db.Engine() == PostgreSQL {
		dialect = goose.DialectPostgres
	}
	files, err := set.files(db.Engine())
	if err != nil {
		return nil, fmt.Errorf("migrations of %s: %w", set.Name, err)
	}
	p, err := goose.NewProvider(dialect, db.writer, files,
		goose.WithTableName(set.table()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("migrations of %s: %w", set.Name, err)
	}
	return p, nil
}

// files returns the files of the set for one engine, all at the root.
func (m Migrations) files(engine Engine) (fs.FS, error) {
	root := m.FS
	if info, err := fs.Stat(root, "migrations"); err == nil && info.IsDir() {
		if root, err = fs.Sub(root, "migrations"); err != nil {
			return nil, err
		}
	}
	if _, err := fs.Stat(root, string(engine)); errors.Is(err, fs.ErrNotExist) {
		return root, nil
	}
	own, err := fs.Sub(root, string(engine))
	if err != nil {
		return nil, err
	}
	return overlay{root, own}, nil
}

// overlay shows several file systems as one.
type overlay []fs.FS

// Open implements fs.FS.
func (o overlay) Open(name string) (fs.File, error) {
	for _, f := range o {
		file, err := f.Open(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadDir implements fs.ReadDirFS.
func (o overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	var all []fs.DirEntry
	for _, f := range o {
		entries, err := fs.ReadDir(f, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all = append(all, entries...)
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, nil
}

// lockMigrations waits until no other process migrates this database. The lock is that of a transaction on a connection
// outside the pools, so it ends with the process, however that dies, and cannot starve the pools.
//
// SQLite would have to keep its write lock over several transactions, so an empty file beside the database is locked instead.
func (db *DB) lockMigrations(ctx context.Context) (unlock func(), err error) {
	var on *sql.DB
	if db.Engine() == PostgreSQL {
		cfg, err := pgConfig(db.target)
		if err != nil {
			return nil, err
		}
		on = stdlib.OpenDB(*cfg)
	} else {
		path, err := filepath.Abs(db.target.path + "-migrate")
		if err != nil {
			return nil, err
		}
		if err := createFile(path); err != nil {
			return nil, err
		}
		if on, err = sqliteDSN(path, "_txlock=exclusive"); err != nil {
			return nil, err
		}
	}
	tx, err := db.beginLock(ctx, on)
	if err != nil {
		return nil, errors.Join(err, on.Close())
	}
	return func() {
		_ = tx.Rollback() // nothing was written; closing the connection frees the lock whatever this says
		_ = on.Close()
	}, nil
}

func (db *DB) beginLock(ctx context.Context, on *sql.DB) (*sql.Tx, error) {
	for {
		tx, err := on.BeginTx(ctx, nil)
		if err == nil && db.Engine() == PostgreSQL {
			_, err = tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock))
			if err != nil {
				_ = tx.Rollback()
			}
		}
		if err == nil {
			return tx, nil
		}
		if err = explain(ctx, err); !errors.Is(err, errLost) || ctx.Err() != nil {
			return nil, err
		}
	}
}
