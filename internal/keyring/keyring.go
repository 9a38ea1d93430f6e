// Package keyring owns the secrets of the program: the master key, what is sealed under it, and the keys of every purpose
// (pepper, token MACs, ...), which are made on first use, kept sealed in the database, rotated, and withdrawn when they have leaked.
//
// It promises that nothing it stores can be read without the master key, that a sealed value opens only for the purpose it
// was sealed for, that several nodes agree on one key, that a key is known to every node before any node uses it, and that a
// wrong or lost master key is noticed at the start and named.
//
// It refuses to make a new master key for a database that was sealed with another one, to read a key file that everybody can
// read, and to print a secret.
package keyring

import (
	"context"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

//go:embed migrations
var files embed.FS

// Migrations is the history of the keyring's tables. They must be applied before Open.
var Migrations = sqldb.Migrations{Name: "keyring", FS: files}

// ErrUnknownKey says that there is no key with such an id.
var ErrUnknownKey = errors.New("unknown key")

// Config says where the master key is.
//
// To replace it, list the new file in PreviousKeyFiles of every node, so that all of them can open what it seals; then make
// it the master key of every node and list the old file instead; then run Reseal, after which the old file may go unless
// another package still keeps values sealed under it (see Stale).
type Config struct {
	// MasterKey is 32 bytes in base64. It comes from the environment (SUMUN_MASTER_KEY) and wins over MasterKeyFile.
	MasterKey        Secret   `yaml:"master_key" doc:"32 bytes in base64; it wins over master_key_file."`
	MasterKeyFile    string   `yaml:"master_key_file" doc:"A file with 32 bytes in base64 that only the user who runs the program can read."`
	PreviousKeyFiles []string `yaml:"previous_key_files" doc:"Master keys that still open what they sealed, and seal nothing new."`
	Create           bool     `yaml:"create" doc:"Make the master key file on the first start, while the database has not been sealed with another key."`
}

// DefaultConfig returns the configuration of a machine where nothing is configured. MasterKeyFile depends on the data folder
// and is for the caller to fill in.
func DefaultConfig() Config { return Config{Create: true} }

// Validate returns everything that is wrong with the configuration, joined. It reads no file.
func (c Config) Validate() error {
	var errs []error
	if c.MasterKey == "" && c.MasterKeyFile == "" {
		errs = append(errs, errors.New("master_key_file: empty; name a file, or set SUMUN_MASTER_KEY"))
	}
	if c.MasterKey != "" {
		if _, err := parseKey(c.MasterKey.Reveal()); err != nil {
			errs = append(errs, fmt.Errorf("master_key: %w", err))
		}
	}
	for _, name := range c.PreviousKeyFiles {
		if name == "" {
			errs = append(errs, errors.New("previous_key_files: an entry is empty; name a file, or remove it"))
		}
	}
	return errors.Join(errs...)
}

// Keyring is open. It is safe for concurrent use.
type Keyring struct {
	db      *sqldb.DB
	clock   func() time.Time
	master  masterKey
	masters map[masterID]masterKey // the current one and the previous ones

	mu    sync.RWMutex // guards rings, not what is in them
	rings map[string]*ring
}

// Open reads the master keys, makes one where that is allowed, and checks them against the database.
func Open(ctx context.Context, db *sqldb.DB, cfg Config, clock func() time.Time) (*Keyring, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	k := &Keyring{db: db, clock: clock, masters: map[masterID]masterKey{}, rings: map[string]*ring{}}
	for _, name := range cfg.PreviousKeyFiles {
		previous, err := readKeyFile(name)
		if err != nil {
			return nil, fmt.Errorf("previous master key: %w", err)
		}
		k.masters[previous.id] = previous
	}
	check, err := readCheck(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	source, err := k.loadMaster(cfg, check)
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	k.masters[k.master.id] = k.master
	if check == nil {
		if check, err = k.writeCheck(ctx); err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
	}
	if _, known := k.masters[sealedBy(check)]; !known {
		return nil, fmt.Errorf("master key: %s holds master key %s, but the database %s was sealed with master key %s; "+
			"give that one, or list its file in previous_key_files", source, k.master.id, db.Name(), sealedBy(check))
	}
	if _, err := k.Unseal(purposeCheck, check); err != nil {
		return nil, fmt.Errorf("keyring: the check value in the database %s is damaged; restore the database from a backup", db.Name())
	}
	return k, nil
}

// loadMaster sets the master key and returns a name for where it came from.
func (k *Keyring) loadMaster(cfg Config, check []byte) (source string, err error) {
	if cfg.MasterKey != "" {
		k.master, err = newMasterKey(cfg.MasterKey.Reveal())
		return "SUMUN_MASTER_KEY", err
	}
	name := cfg.MasterKeyFile
	k.master, err = readKeyFile(name)
	if !errors.Is(err, errNoFile) {
		return name, err
	}
	switch {
	case check != nil:
		return name, fmt.Errorf("%s does not exist, and the database %s was sealed with master key %s; restore the file "+
			"from a backup, or set SUMUN_MASTER_KEY", name, k.db.Name(), sealedBy(check))
	case !cfg.Create:
		return name, fmt.Errorf("%s does not exist; make it with: (umask 077; head -c 32 /dev/urandom | base64 > %s)", name, name)
	}
	k.master, err = createKeyFile(name)
	return name, err
}

const purposeCheck = "keyring:check"

// readCheck returns the check value, nil where there is none yet.
func readCheck(ctx context.Context, db *sqldb.DB) ([]byte, error) {
	check, err := sqldb.One(ctx, db.Reader(), scanBytes, `SELECT sealed FROM keyring_check WHERE one = 1`)
	if errors.Is(err, sqldb.ErrNotFound) {
		return nil, nil
	}
	return check, err
}

// writeCheck stores a check value, unless another node was faster, and returns the one that is stored.
func (k *Keyring) writeCheck(ctx context.Context) ([]byte, error) {
	sealed, err := k.Seal(purposeCheck, nil)
	if err != nil {
		return nil, err
	}
	const insert = `INSERT INTO keyring_check (one, sealed) VALUES (1, $1) ON CONFLICT (one) DO NOTHING`
	if _, err := k.db.Writer().ExecContext(ctx, insert, sealed); err != nil {
		return nil, err
	}
	return readCheck(ctx, k.db)
}

func scanBytes(r sqldb.Row) (b []byte, err error) {
	err = r.Scan(&b)
	return b, err
}

// parseKey reads 32 bytes in base64. Its errors do not repeat the text.
func parseKey(text string) ([]byte, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	key, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("not base64; it must be 32 random bytes, as made by: head -c 32 /dev/urandom | base64")
	}
	if len(key) != masterKeySize {
		return nil, fmt.Errorf("%d bytes long; it must be 32 random bytes, as made by: head -c 32 /dev/urandom | base64", len(key))
	}
	return key, nil
}
