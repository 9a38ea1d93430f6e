package keyring

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// maxKeyFile is more than a key file ever holds, and less than a file named by mistake.
const maxKeyFile = 4 << 10

// errNoFile says that there is no key file.
var errNoFile = errors.New("no key file")

// readKeyFile reads a master key. It refuses a file that everybody can read or others can change; a group may read it, as
// that is how orchestrators hand secrets to a program.
func readKeyFile(name string) (masterKey, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return masterKey{}, fmt.Errorf("%s: %w", name, errNoFile)
	}
	if err != nil {
		return masterKey{}, fmt.Errorf("%w; let the user who runs the program read it", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return masterKey{}, err
	}
	if !info.Mode().IsRegular() {
		return masterKey{}, fmt.Errorf("%s is not a file; name the file with the key", name)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o027 != 0 {
		return masterKey{}, fmt.Errorf("%s has permissions %04o, so others can get at the key; run: chmod 600 %s", name, info.Mode().Perm(), name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return masterKey{}, fmt.Errorf("read %s: %w", name, err)
	}
	key, err := newMasterKey(string(text))
	if err != nil {
		return masterKey{}, fmt.Errorf("%s is damaged: %w; restore it from a backup", name, err)
	}
	return key, nil
}

// createKeyFile makes a master key that is either completely on the disk or not there at all, and returns it, or the one
// that another process has made in the meantime.
func createKeyFile(name string) (masterKey, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return masterKey{}, fmt.Errorf("folder of the master key: %w", err)
	}
	key := make([]byte, masterKeySize)
	if _, err := rand.Read(key); err != nil {
		return masterKey{}, err
	}
	draft := name + "." + rand.Text()
	defer os.Remove(draft)
	if err := writeDraft(draft, base64.StdEncoding.EncodeToString(key)+"\n"); err != nil {
		return masterKey{}, fmt.Errorf("make %s: %w", name, err)
	}
	// A link, unlike a rename, never replaces a file that another process has put there.
	if err := os.Link(draft, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return masterKey{}, fmt.Errorf("make %s: %w; make it with: (umask 077; head -c 32 /dev/urandom | base64 > %s)", name, err, name)
	}
	if err := syncFolder(filepath.Dir(name)); err != nil {
		return masterKey{}, fmt.Errorf("make %s: %w", name, err)
	}
	return readKeyFile(name)
}

func writeDraft(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncFolder makes the name of a new file survive a power cut. Windows has no such call and needs none.
func syncFolder(name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
