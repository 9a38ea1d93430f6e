package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/sqldb"
)

// foundation is what every module stands on.
type foundation struct {
	cfg     Config
	log     *slog.Logger
	clock   func() time.Time
	from    source    // of cfg
	db      *sqldb.DB // nil where no module has tables, as are keyring and bus
	keyring *keyring.Keyring
	redis   *redisdb.DB // nil without
	limiter ratelimit.Limiter
	replays replay.Store
	bus     bus // nil where nothing is served
	metrics *prometheus.Registry
	closers []func() error // in the order in which they were opened
}

// An opener opens the foundation. The caller closes it.
type opener func(ctx context.Context, cfg Config, log *slog.Logger, sets []sqldb.Migrations) (*foundation, error)

// open makes what is missing: data folder, database, master key, tables.
func open(ctx context.Context, cfg Config, log *slog.Logger, sets []sqldb.Migrations) (*foundation, error) {
	if err := makeDataFolder(cfg, len(sets) > 0); err != nil {
		return nil, err
	}
	return connect(ctx, cfg, log, sets, sqldb.Migrate)
}

// openExisting makes nothing: it fails where there is no installation, or one whose tables are not those of this version.
func openExisting(ctx context.Context, cfg Config, log *slog.Logger, sets []sqldb.Migrations) (*foundation, error) {
	if err := databaseExists(cfg); err != nil {
		return nil, err
	}
	cfg.Keyring.Create = false
	return connect(ctx, cfg, log, sets, upToDate)
}

func upToDate(ctx context.Context, db *sqldb.DB, sets ...sqldb.Migrations) error {
	pending, err := sqldb.Pending(ctx, db, sets...)
	if err == nil && len(pending) > 0 {
		err = fmt.Errorf("%s lacks tables of this version (%s); make them with `sumun migrate`, or name the database of your "+
			"installation with --data or --database", db.Name(), pending[0])
	}
	return err
}

// connect opens the database, checks the master key against it and has the tables seen to. Where there are no tables, there is
// no database.
func connect(
	ctx context.Context, cfg Config, log *slog.Logger, sets []sqldb.Migrations,
	tables func(context.Context, *sqldb.DB, ...sqldb.Migrations) error,
) (_ *foundation, err error) {
	f := &foundation{cfg: cfg, log: log, clock: time.Now, metrics: httpd.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if len(sets) > 0 {
		if err := f.openDatabase(ctx, sets, tables); err != nil {
			return nil, err
		}
	}
	if err := f.openRedis(ctx); err != nil {
		return nil, err
	}
	f.openReplays()
	return f, f.openLimiter(ctx)
}

func (f *foundation) openDatabase(
	ctx context.Context, sets []sqldb.Migrations, tables func(context.Context, *sqldb.DB, ...sqldb.Migrations) error,
) (err error) {
	if f.db, err = sqldb.Open(ctx, f.cfg.SQL); err != nil {
		return err
	}
	f.closers = append(f.closers, f.db.Close)
	// The keyring's tables come first, so that nothing else is touched in a database of another master key.
	if err := tables(ctx, f.db, keyring.Migrations); err != nil {
		return err
	}
	if f.keyring, err = keyring.Open(ctx, f.db, f.cfg.Keyring, f.clock); err != nil {
		return err
	}
	return tables(ctx, f.db, sets...)
}

// openRedis opens Redis where there is one. It has to answer at the start.
func (f *foundation) openRedis(ctx context.Context) (err error) {
	if f.cfg.Redis == "" {
		return nil
	}
	if f.redis, err = redisdb.Open(ctx, f.cfg.Redis.Reveal()); err != nil {
		return err
	}
	f.closers = append(f.closers, func() error { f.redis.Close(); return nil })
	return nil
}

// close closes everything that was opened, the last first.
func (f *foundation) close() error {
	var errs []error
	for i := len(f.closers) - 1; i >= 0; i-- {
		errs = append(errs, f.closers[i]())
	}
	f.closers = nil
	return errors.Join(errs...)
}

// makeDataFolder makes the data folder, unless everything that would be in it is configured to be elsewhere.
func makeDataFolder(cfg Config, stores bool) error {
	if !cfg.usesData(stores) {
		return nil
	}
	const remedy = "name another folder with --data or SUMUN_DATA"
	err := os.MkdirAll(cfg.Data, 0o700)
	switch {
	case err == nil:
		return ownFolder(cfg.Data)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("data folder %s: there is a file of that name; %s", cfg.Data, remedy)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("data folder %s: this user may not write there; allow it, or %s", cfg.Data, remedy)
	default:
		return fmt.Errorf("data folder %s: %w; %s", cfg.Data, errors.Unwrap(err), remedy)
	}
}

// ownFolder refuses a data folder that others may write to: they could put another database or master key there.
func ownFolder(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if others := info.Mode().Perm() & 0o022; runtime.GOOS != "windows" && others != 0 {
		return fmt.Errorf("data folder %s: others may write there (%s); run: chmod go-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// usesData reports whether anything is kept in the data folder; stores says whether there is a database.
func (c Config) usesData(stores bool) bool {
	var inside []string
	if stores {
		inside = append(inside, strings.TrimPrefix(c.SQL.URL, "sqlite:"))
		if c.MasterKey == "" {
			inside = append(inside, c.MasterKeyFile)
		}
	}
	if len(c.TLS.ACME.Hosts) > 0 {
		inside = append(inside, c.TLS.ACME.CacheDir)
	}
	for _, path := range inside {
		if relative, err := filepath.Rel(c.Data, path); err == nil && filepath.IsLocal(relative) {
			return true
		}
	}
	return false
}
