package e2e_test

import (
	"crypto/rand"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// randomAddress is a network that no other test, or earlier run, has used against the same Redis (2001:db8::/32 is for
// documentation).
func randomAddress() string {
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	rand.Read(b[4:])
	return netip.AddrFrom16(b).String()
}

// users lists the addresses of all accounts, as an operator sees them.
func (st store) users(t testing.TB) (emails []string) {
	t.Helper()
	r := st.command(t, "", "user", "list", "--json")
	if r.code != 0 {
		t.Fatalf("user list: %+v", r)
	}
	for line := range strings.Lines(r.stdout) {
		var one account
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("user list: %v in %s", err, line)
		}
		emails = append(emails, one.Email)
	}
	slices.Sort(emails)
	return emails
}
