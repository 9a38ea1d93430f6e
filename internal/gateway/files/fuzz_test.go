package files_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/gateway/files"
)

// Whatever a path says, the name is one below the directory, and not one that nobody is to see.
func FuzzNameOf(f *testing.F) {
	for _, seed := range []string{"/", "/a/b.js", "/../etc/passwd", "/a/../../b", "//x", "/.git/config", "/.well-known/a", "/a\x00b", `/a\..\b`, "/a//b/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		name, ok := files.NameOf(path)
		if !ok {
			return
		}
		if !filepath.IsLocal(name) || strings.Contains(name, "..") && filepath.Clean(name) != name {
			t.Fatalf("%q is %q", path, name)
		}
		if name == "." {
			return
		}
		for i, part := range strings.Split(filepath.ToSlash(name), "/") {
			if part == "" || strings.HasPrefix(part, ".") && (i > 0 || part != ".well-known") {
				t.Fatalf("%q is %q", path, name)
			}
		}
	})
}
