package identity_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/sumunio/sumun/internal/identity"
)

func FuzzIfMatch(f *testing.F) {
	for _, seed := range []string{"", "*", `"1"`, `W/"1"`, `"0"`, `"-1"`, `"1", "2"`, `"01"`, `"9223372036854775808"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		version, err := identity.IfMatch(header)
		if version < 0 || err != nil && version != 0 {
			t.Errorf("%q is version %d, %v", header, version, err)
		}
		if version > 0 && !strings.Contains(header, `"`) {
			t.Errorf("%q is no entity tag, but version %d", header, version)
		}
	})
}

func FuzzParsePerson(f *testing.F) {
	f.Add("Ada Lovelace", "ada", "en")
	f.Add("\u202eevil", "a@b", "xx")
	f.Add("김 민지", "KIM", "ko-KR")
	f.Add("\x00", "\x00\x00\x00", "\xff")
	f.Fuzz(func(t *testing.T, name, userName, locale string) {
		n, u, key, _, err := identity.ParsePerson(name, userName, locale)
		if err != nil {
			return
		}
		if n == "" || !utf8.ValidString(n) || strings.ContainsFunc(n, unicode.IsControl) {
			t.Errorf("the name %q was accepted as %q", name, n)
		}
		if strings.ContainsAny(u, "@ \x00") || key != strings.ToLower(u) {
			t.Errorf("the user name %q was accepted as %q with key %q", userName, u, key)
		}
	})
}

// What is looked up must be something a column can hold, whatever was typed: PostgreSQL refuses NUL and broken UTF-8.
func FuzzIdentifier(f *testing.F) {
	for _, seed := range []string{"ada@example.com", "ada", "a\x00b", "\xff", "ＡＤＡ", "ada@", "@", "  "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		_, arg := identity.IdentifierKey(typed)
		if !utf8.ValidString(arg) || strings.ContainsRune(arg, 0) {
			t.Errorf("%q is looked up as %q", typed, arg)
		}
		if again, argAgain := identity.IdentifierKey(arg); arg != "" && (again != arg || argAgain != arg) {
			t.Errorf("%q folds to %q, which folds to %q", typed, arg, argAgain)
		}
	})
}

func FuzzCookieValue(f *testing.F) {
	f.Add("a=b; c=d", "c")
	f.Add("c=\"d\"", "c")
	f.Add(";;=", "")
	f.Fuzz(func(t *testing.T, header, name string) {
		if v := identity.CookieValue(header, name); len(v) > len(header) {
			t.Errorf("%q grew to %q", header, v)
		}
	})
}
