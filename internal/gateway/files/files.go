// Package files answers requests with the files of a directory.
//
// It owns the way from a path to a file, and what is said of a file in the answer's header. It promises that nothing outside of the
// directory is read, whatever paths and symbolic links say (os.Root keeps to it); that only regular files are given, and
// no directory is ever listed; and that who has a file already is not sent it again (RFC 9110, sections 13 and 14).
//
// It refuses names that begin with a dot, except /.well-known/ (RFC 8615): what editors and version control leave behind is nobody's.
// It keeps nothing open between requests, so that a directory may be exchanged for another by renaming it or a link to it.
package files

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Config is what a route says about files. The zero Config is off.
type Config struct {
	Root          string        `yaml:"root" doc:"The directory. It may be a link that is made to point elsewhere while it is served. Empty: no files."`
	Index         string        `yaml:"index" doc:"The file that stands for a directory."`
	Missing       string        `yaml:"missing" doc:"The file, such as /index.html, that browsers get for a page that is no file: of an application that reads the address itself. Empty: 404."`
	Precompressed bool          `yaml:"precompressed" doc:"Whether app.js.zst, app.js.br or app.js.gz is given instead of app.js to clients that accept it, where it is there and not older."`
	MaxAge        time.Duration `yaml:"max_age" doc:"How long a client may use a file without asking whether it has changed."`
	Immutable     []string      `yaml:"immutable" doc:"Directories, such as /assets/, whose files never change because their names do. Clients keep them for a year and do not ask."`
}

// DefaultConfig has clients ask each time whether a file has changed.
func DefaultConfig() Config { return Config{Index: "index.html"} }

// Enabled reports whether there are files.
func (c Config) Enabled() bool { return c.Root != "" }

// Validate returns everything that is wrong with the configuration. Whether the directory is there is for New to say.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Root) {
		errs = append(errs, fmt.Errorf("root: %q depends on where the process was started; write it from / on", c.Root))
	}
	if c.Index == "" || strings.ContainsAny(c.Index, `/\`) || strings.HasPrefix(c.Index, ".") {
		errs = append(errs, fmt.Errorf("index: %q is no name of a file; use index.html", c.Index))
	}
	if _, ok := nameOf(c.Missing); c.Missing != "" && (!ok || strings.HasSuffix(c.Missing, "/")) {
		errs = append(errs, fmt.Errorf("missing: %q is no file below root; write it like /index.html", c.Missing))
	}
	if c.MaxAge < 0 || c.MaxAge > year {
		errs = append(errs, fmt.Errorf("max_age: %s is outside 0s to %s; use 0s", c.MaxAge, year))
	}
	for _, dir := range c.Immutable {
		if !strings.HasPrefix(dir, "/") || !strings.HasSuffix(dir, "/") {
			errs = append(errs, fmt.Errorf("immutable: %q is no directory below root; write it like /assets/", dir))
		}
	}
	return errors.Join(errs...)
}

// year is as long as anything may be kept.
const year = 365 * 24 * time.Hour

// nameOf returns the name below root of a decoded path, "." for root itself. It refuses names that begin with a dot, and what is no name.
func nameOf(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok || strings.ContainsRune(rest, 0) {
		return "", false
	}
	if rest = strings.TrimSuffix(rest, "/"); rest == "" {
		return ".", true
	}
	for i, part := range strings.Split(rest, "/") {
		if strings.HasPrefix(part, ".") && (i > 0 || part != ".well-known") {
			return "", false
		}
	}
	name, err := filepath.Localize(rest) // on Windows it also refuses what means a device
	return name, err == nil
}
