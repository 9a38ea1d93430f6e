package identity_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/sqldb"
)

// What people say of where they are reached is kept as they said it, in one spelling, until they take it back or leave.
func TestContact(t *testing.T) {
	each(t, func(w *world) {
		a := w.person("ada@example.com", "ada")
		in := w.signedIn("ada@example.com")
		phone, none := " +82 (0)10-1234.5678 ", ""
		home := identity.PostalAddress{Street: " 209 Sejong-daero ", Locality: "Jongno-gu", Region: "서울", PostalCode: "03171", Country: "Korea"}
		after, err := w.EditProfile(t.Context(), w.caller(in), a.Version, identity.Edit{Phone: &phone, Address: &home})
		w.must(err)
		want := home
		want.Street = "209 Sejong-daero"
		if after.Phone != "+821012345678" || after.Address != want || after.Name != a.Name || after.UserName != "ada" || after.Version != a.Version+1 {
			t.Errorf("after the edit: %+v", after)
		}
		again, err := w.EditProfile(t.Context(), w.caller(in), 0, identity.Edit{Address: &want})
		w.must(err)
		if again.Version != after.Version {
			t.Error("the same address again is an edit")
		}
		name := "Ada L."
		other, err := w.EditProfile(t.Context(), w.caller(in), 0, identity.Edit{Name: &name})
		w.must(err)
		if other.Phone != after.Phone || other.Address != want {
			t.Errorf("an edit of the name changes %+v", other)
		}
		for _, wrong := range []string{"010-1234-5678", "+0101234567", "+82", "+821012345678901234", "+82 10 1234 567a", "82101234567", "+", "+٠١٢٣٤٥٦٧٨"} {
			_, err := w.EditProfile(t.Context(), w.caller(in), 0, identity.Edit{Phone: &wrong})
			if !errors.Is(err, identity.ErrInvalidField) || fault.From(err).Fields()[0].Name != "phone_number" {
				t.Errorf("%q: %v", wrong, err)
			}
		}
		for field, wrong := range map[string]identity.PostalAddress{
			"street_address": {Street: "a\x00b"}, "locality": {Locality: strings.Repeat("가", 201)}, "region": {Region: "a\nb"},
			"postal_code": {PostalCode: "\xff"}, "country": {Country: "\u202eaeroK"},
		} {
			_, err := w.EditProfile(t.Context(), w.caller(in), 0, identity.Edit{Address: &wrong})
			if !errors.Is(err, identity.ErrInvalidField) || fault.From(err).Fields()[0].Name != field {
				t.Errorf("%s: %v", field, err)
			}
		}
		gone, err := w.EditProfile(t.Context(), w.caller(in), 0, identity.Edit{Phone: &none, Address: &identity.PostalAddress{}})
		w.must(err)
		if gone.Phone != "" || gone.Address != (identity.PostalAddress{}) {
			t.Errorf("taken back: %+v", gone)
		}
		_, err = w.EditProfile(t.Context(), w.caller(in), 0, identity.Edit{Phone: &phone, Address: &home})
		w.must(err)
		w.must(w.DeleteAccount(t.Context(), w.caller(in), 0))
		left, err := sqldb.One(t.Context(), w.db.Reader(), func(r sqldb.Row) (n int64, err error) { err = r.Scan(&n); return n, err },
			`SELECT COUNT(*) FROM accounts WHERE phone <> '' OR address <> ''`)
		if err != nil || left != 0 {
			t.Errorf("%d numbers or addresses outlive their accounts: %v", left, err)
		}
	})
}

func FuzzContact(f *testing.F) {
	f.Add("+82 10 1234 5678", "209 Sejong-daero")
	f.Add("\x00", "\u202e")
	f.Add("+１２３４５６７８", "a\r\nb")
	f.Fuzz(func(t *testing.T, phone, street string) {
		number, address, err := identity.ParseContact(phone, identity.PostalAddress{Street: street})
		if err != nil {
			return
		}
		if number != "" && (number[0] != '+' || len(number) < 8 || len(number) > 16 || strings.Trim(number[1:], "0123456789") != "") {
			t.Errorf("the number %q was accepted as %q", phone, number)
		}
		if strings.ContainsFunc(address.Street, unicode.IsControl) {
			t.Errorf("the street %q was accepted as %q", street, address.Street)
		}
		if n, a, err := identity.ParseContact(number, address); err != nil || n != number || a != address {
			t.Errorf("%q and %q change when they are read again: %q %q %v", number, address.Street, n, a.Street, err)
		}
	})
}
