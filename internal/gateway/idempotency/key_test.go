package idempotency_test

import (
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/gateway/idempotency"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`"8e03978e"`: "8e03978e", `8e03978e`: "8e03978e", ` "a b" `: "a b", `"a\"b\\c"`: `a"b\c`, `a:b/c=+`: "a:b/c=+",
		strings.Repeat("k", 255): strings.Repeat("k", 255),
	} {
		if got, err := idempotency.ParseKey([]string{in}); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
	if got, err := idempotency.ParseKey(nil); got != "" || err != nil {
		t.Errorf("none: %q, %v", got, err)
	}
	for _, in := range [][]string{
		{""}, {`""`}, {"a", "a"}, {`"a`}, {`a"`}, {`"a";p=1`}, {`"a", "b"`}, {"a,b"}, {"a b"}, {`"a\b"`}, {"키"}, {"\"a\tb\""},
		{strings.Repeat("k", 256)},
	} {
		if got, err := idempotency.ParseKey(in); err == nil {
			t.Errorf("%q is taken for the key %q", in, got)
		}
	}
}

// Two programs must not read two keys in one header: what is a key can be written again and read as the same.
func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{`"a"`, "a", `"a\"b"`, `"\\"`, "", `"`, "a;b", `"a" `} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		key, err := idempotency.ParseKey([]string{in})
		if err != nil {
			if key != "" {
				t.Errorf("%q: key %q with %v", in, key, err)
			}
			return
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, err := idempotency.ParseKey([]string{quoted}); err != nil || again != key || key == "" || len(key) > 255 {
			t.Errorf("%q: key %q, again %q, %v", in, key, again, err)
		}
	})
}
