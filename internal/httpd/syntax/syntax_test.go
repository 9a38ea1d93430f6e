package syntax_test

import (
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

// Were a byte overlooked that ends a line, a value could write a header into somebody's answer.
func FuzzText(f *testing.F) {
	f.Add("plain text\tand \xff more than eight bytes")
	f.Add("0123456\r\n89abcde\x7f")
	f.Add("12345678\x00")
	f.Fuzz(func(t *testing.T, s string) {
		want := !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
		if got := syntax.Text(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	})
}

// A byte that is odd is found wherever it stands, whatever stands beside it.
func TestTextFindsEveryByte(t *testing.T) {
	t.Parallel()
	for length := range 26 {
		for at := range length {
			for c := range 256 {
				for _, other := range []byte{'a', '\t', 0xff, ' ', 0x80} {
					s := []byte(strings.Repeat(string([]byte{other}), length))
					s[at] = byte(c)
					want := c >= ' ' && c != 0x7f || c == '\t'
					if got := syntax.Text(string(s)); got != want {
						t.Fatalf("%q: %v", s, got)
					}
				}
			}
		}
	}
}

// What is no token, or not visible, ends a line or splits one.
func TestWords(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		s := "a" + string([]byte{byte(c)})
		token := c < 0x80 && (strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z')
		if syntax.Token(s) != token {
			t.Errorf("token %q: %v", s, !token)
		}
		if visible := c > ' ' && c < 0x7f; syntax.Visible(s) != visible {
			t.Errorf("visible %q: %v", s, !visible)
		}
	}
	if syntax.Token("") || syntax.Visible("") || !syntax.Text("") {
		t.Error("nothing is a text, and neither a token nor visible")
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{"": "", " \t ": "", "a": "a", " a b\t": "a b", "\r a": "\r a"} {
		if got := syntax.Trim(s); got != want {
			t.Errorf("%q: %q", s, got)
		}
	}
}
