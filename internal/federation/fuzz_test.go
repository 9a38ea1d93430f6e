package federation_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/sumunio/sumun/internal/federation"
)

// plain seals nothing, so that the parser behind the seal is reached as well.
type plain struct{}

func (plain) Seal(_ string, p []byte) ([]byte, error)   { return p, nil }
func (plain) Unseal(_ string, p []byte) ([]byte, error) { return p, nil }

// What browsers and providers send is refused or tamed: nobody signs in as nobody, and no name breaks a page or a mail.
func FuzzStrangers(f *testing.F) {
	f.Add("state=1&code=2&iss=https%3A%2F%2Fid.example", "110169484474386276334", "a@example.com", "김하늘", "e30")
	f.Add("error=access_denied&error=x", "", "a@example.com\r\nBcc: x@y", "\u202egnp.exe\x00", "!!")
	f.Add(`user={"name":{"firstName":1}}`, "\n", "@", strings.Repeat("가", 200), "")
	f.Fuzz(func(t *testing.T, query, subject, email, name, cookie string) {
		_ = federation.ReadAnswer(query)
		if err := federation.Unseal(plain{}, cookie); err != nil && !errors.Is(err, federation.ErrState) {
			t.Errorf("a cookie fails with %v", err)
		}
		i, err := federation.Checked(subject, email, name)
		if err != nil {
			if !errors.Is(err, federation.ErrAnswer) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if i.Subject == "" || len(i.Subject) > 255 || i.Email == "" && i.EmailVerified || strings.ContainsFunc(i.Email+i.Subject, unicode.IsControl) {
			t.Errorf("%+v was accepted", i)
		}
		if utf8.RuneCountInString(i.Name) > 100 || !utf8.ValidString(i.Name) || strings.ContainsFunc(i.Name, unicode.IsControl) {
			t.Errorf("the name %q was accepted", i.Name)
		}
	})
}
