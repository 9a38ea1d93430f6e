package mail_test

import (
	"errors"
	netmail "net/mail"
	"strings"
	"testing"
	"unicode"

	"github.com/sumunio/sumun/internal/mail"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, spec, key string }{
		{"kim@example.com", "kim@example.com", "kim@example.com"},
		{"  Kim.Min-Su+shop@Example.COM \n", "Kim.Min-Su+shop@example.com", "kim.min-su+shop@example.com"},
		{"o'neil!#$%&*/=?^_`{|}~@mail.example.co.kr", "o'neil!#$%&*/=?^_`{|}~@mail.example.co.kr", "o'neil!#$%&*/=?^_`{|}~@mail.example.co.kr"},
		{"ＫＩＭ@example.com", "ＫＩＭ@example.com", "kim@example.com"},
		{"ﬁre@example.com", "ﬁre@example.com", "fire@example.com"},
		{"김민수@한국인터넷.한국", "김민수@한국인터넷.한국", "김민수@xn--3e0bx5eku0am2irhf.xn--3e0b707e"},
		{"kim@xn--3e0bx5eku0am2irhf.xn--3e0b707e", "kim@xn--3e0bx5eku0am2irhf.xn--3e0b707e", "kim@xn--3e0bx5eku0am2irhf.xn--3e0b707e"},
		{"kim@BÜCHER.example", "kim@bücher.example", "kim@xn--bcher-kva.example"},
		{"kim@１２３.example", "kim@123.example", "kim@123.example"},
	} {
		got, err := mail.ParseAddress(c.in)
		if err != nil || got.Spec != c.spec || got.Key != c.key {
			t.Errorf("%q: got %q, %q, %v; want %q, %q", c.in, got.Spec, got.Key, err, c.spec, c.key)
		}
	}
}

// A header or a second recipient could be smuggled in, or a person locked out of an address that nobody can write to.
func TestParseAddressRefuses(t *testing.T) {
	t.Parallel()
	label := strings.Repeat("a", 63)
	for name, in := range map[string]string{
		"nothing":             "",
		"no at":               "kim.example.com",
		"no local part":       "@example.com",
		"no domain":           "kim@",
		"two":                 "kim@example.com,lee@example.com",
		"two ats":             "kim@lee@example.com",
		"header":              "kim@example.com\r\nBcc: lee@example.com",
		"header before":       "kim\r\nBcc:lee@example.com",
		"display name":        "Kim <kim@example.com>",
		"angle brackets":      "<kim@example.com>",
		"quoted":              `"kim lee"@example.com`,
		"comment":             "kim(lee)@example.com",
		"space":               "kim lee@example.com",
		"NUL":                 "kim\x00@example.com",
		"leading dot":         ".kim@example.com",
		"trailing dot":        "kim.@example.com",
		"double dot":          "kim..lee@example.com",
		"single label":        "root@localhost",
		"address literal":     "kim@[127.0.0.1]",
		"IP address":          "kim@127.0.0.1",
		"dot at the end":      "kim@example.com.",
		"empty label":         "kim@example..com",
		"hyphen":              "kim@-example.com",
		"underscore":          "kim@ex_ample.com",
		"long label":          "kim@a" + label + ".com",
		"long local part":     label + "aa@example.com",
		"long":                "kim@" + strings.Repeat(label+".", 4) + "com",
		"invalid UTF-8":       "k\xffm@example.com",
		"zero width":          "k\u200bim@example.com",
		"right to left":       "k\u202eim@example.com",
		"emoji":               "😀@example.com",
		"folds into a space":  "a\ufdfa@example.com",
		"folds into an at":    "kim\uff20lee@example.com",
		"ideographic full":    "kim@example。com@x",
		"percent in a domain": "kim@exa%mple.com",
	} {
		if got, err := mail.ParseAddress(in); !errors.Is(err, mail.ErrAddress) {
			t.Errorf("%s: %q became %+v, %v", name, in, got, err)
		}
	}
}

// Two accounts could stand for one address.
func TestKeyOfAKeyIsTheKey(t *testing.T) {
	t.Parallel()
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		a, err := mail.ParseAddress("a" + string(r) + "@example.com")
		if err != nil {
			continue
		}
		if again, err := mail.ParseAddress(a.Key); err != nil || again.Key != a.Key {
			t.Errorf("%U: key %q has the key %q, %v", r, a.Key, again.Key, err)
		}
	}
}

func TestMaskAddress(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"kim@example.com": "k***@example.com",
		"김민수@example.com": "김***@example.com",
		"k@example.com":   "***@example.com",
		"@example.com":    "***@example.com",
		"kim":             "***",
		"":                "",
	} {
		if got := mail.MaskAddress(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// A mail server's complaint would carry addresses into the logs.
func TestMaskText(t *testing.T) {
	t.Parallel()
	got := mail.MaskText("550 5.1.1 <kim@example.com>: unknown\r\nRCPT TO:<lee.min+x@example.com>,\x00" + strings.Repeat("x", 600))
	if strings.Contains(got, "kim@") || strings.Contains(got, "lee.min") || strings.ContainsFunc(got, unicode.IsControl) || len(got) > 510 {
		t.Errorf("got %q", got)
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"kim@example.com", "Kim <kim@example.com>", "김민수@한국인터넷.한국", "kim@example.com\r\nBcc: lee@example.com",
		`"a b"@example.com`, "ﬁ@bücher.example", "a@b。c", "a@xn--a.example"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := mail.ParseAddress(s)
		if err != nil {
			if !errors.Is(err, mail.ErrAddress) || a != (mail.Address{}) {
				t.Fatalf("%q: %+v, %v", s, a, err)
			}
			return
		}
		if len(a.Spec) > 254 || strings.ContainsAny(a.Spec+a.Key, "\r\n\t <>\"\\,;:()[]\x00") {
			t.Fatalf("%q was accepted as %+v", s, a)
		}
		again, err := mail.ParseAddress(a.Spec)
		if err != nil || again != a {
			t.Fatalf("%q: %+v parses to %+v, %v", s, a, again, err)
		}
		// The standard library, asked for a whole header, must see this one address and nothing else.
		list, err := netmail.ParseAddressList(a.Spec)
		if err != nil || len(list) != 1 || list[0].Address != a.Spec || list[0].Name != "" {
			t.Fatalf("%q: net/mail reads %q as %v, %v", s, a.Spec, list, err)
		}
	})
}
