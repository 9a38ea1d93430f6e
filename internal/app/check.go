package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/directory"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/sqldb"
)

// finding is the outcome of one check.
type finding struct {
	what, text string
	err        error
}

// checkTimeout bounds each check.
const checkTimeout = 10 * time.Second

// check tries everything that the configuration names, and changes nothing. Without tables there is no database.
func check(ctx context.Context, cfg Config, sets []sqldb.Migrations) []finding {
	findings := []finding{{what: "configuration", text: "valid"}}
	add := func(what string, try func(ctx context.Context) (string, error)) {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		text, err := try(ctx)
		findings = append(findings, finding{what, text, err})
	}
	stores := len(sets) > 0
	if cfg.usesData(stores) {
		add("data folder", func(context.Context) (string, error) { return checkData(cfg.Data) })
	}
	if stores {
		add("database", func(ctx context.Context) (string, error) { return checkDatabase(ctx, cfg) })
	}
	if cfg.Redis != "" {
		add("redis", func(ctx context.Context) (string, error) { return checkRedis(ctx, cfg) })
	}
	if stores {
		add("dpop", func(context.Context) (string, error) { return explainDPoP(cfg), nil })
		add("pubsub", func(ctx context.Context) (string, error) { return checkBus(ctx, cfg) })
	}
	if file := cfg.HTTP.TLS.ClientCertificates.CAFile; stores && file != "" {
		add("clients", func(context.Context) (string, error) { return checkAuthorities(file) })
	}
	if stores && len(cfg.Directory.Servers) > 0 {
		add("directories", func(ctx context.Context) (string, error) {
			return "answer, and let the service account search", directory.Check(ctx, cfg.Directory)
		})
	}
	if stores && cfg.Mail.Transport == mail.TransportSMTP {
		add("mail", func(ctx context.Context) (string, error) { return checkSMTP(ctx, cfg.Mail.SMTP) })
	}
	add("listen", func(ctx context.Context) (string, error) { return checkPort(ctx, cfg.HTTP) })
	ops := httpd.DefaultConfig()
	ops.Listen = cfg.OpsListen
	add("ops_listen", func(ctx context.Context) (string, error) { return checkPort(ctx, ops) })
	return findings
}

func checkData(folder string) (string, error) {
	info, err := os.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return folder + " will be made at the first start", nil
	}
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is not a folder; name another one with --data or SUMUN_DATA", folder)
	}
	probe, err := os.CreateTemp(folder, ".check-*")
	if err != nil {
		return "", fmt.Errorf("%w; let this user write there, or name another folder with --data or SUMUN_DATA", err)
	}
	return folder + " can be written to", errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// checkDatabase opens the database and, if it has been used before, the keyring in it.
func checkDatabase(ctx context.Context, cfg Config) (text string, err error) {
	if err := databaseExists(cfg); err != nil {
		return cfg.SQL.Redacted() + " will be made at the first start", nil
	}
	db, err := sqldb.Open(ctx, cfg.SQL)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	fresh, err := sqldb.Pending(ctx, db, keyring.Migrations)
	if err != nil {
		return "", err
	}
	if len(fresh) > 0 {
		return db.Name() + " answers; its tables will be made at the first start", nil
	}
	cfg.Keyring.Create = false
	if _, err := keyring.Open(ctx, db, cfg.Keyring, time.Now); err != nil {
		return "", err
	}
	pending, err := sqldb.Pending(ctx, db, allTables()...)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s answers, the master key fits, %d pending migrations", db.Name(), len(pending)), nil
}

// allTables are the migrations of everything.
func allTables() []sqldb.Migrations {
	return append([]sqldb.Migrations{keyring.Migrations}, tables(modules())...)
}

// databaseExists fails for a SQLite file that nobody has made yet. Commands that only look must not make it.
func databaseExists(cfg Config) error {
	path, sqlite := strings.CutPrefix(cfg.SQL.Redacted(), "sqlite:")
	if !sqlite {
		return nil
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no database %s; name the data folder of your installation with --data or SUMUN_DATA, "+
			"or make a new one with `sumun migrate`", path)
	}
	return nil
}

func checkAuthorities(file string) (string, error) {
	_, err := httpd.OpenAuthorities(file, time.Now, slog.New(slog.DiscardHandler))
	return file + " has authorities that vouch for clients", err
}

func checkSMTP(ctx context.Context, cfg mail.SMTPConfig) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", cfg.Address())
	if err != nil {
		return "", fmt.Errorf("%w; check mail.smtp.host and mail.smtp.port, and what lies between", err)
	}
	return cfg.Address() + " can be reached", conn.Close()
}

// checkPort loads the certificates, if there are any, binds the port and gives it back.
func checkPort(ctx context.Context, cfg httpd.Config) (string, error) {
	server, err := httpd.NewServer(cfg, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	if err := server.Listen(ctx); err != nil {
		return "", err
	}
	return cfg.Listen + " is free", server.Close()
}
