package oidc_test

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/sqldb"
)

// inspector is a client that may ask for tokens for several services, and about them.
func inspector() oidc.Metadata {
	m := machine
	m.Resources = []string{"https://a.example", "https://b.example", "https://c.example"}
	return m
}

// A service that asks about tokens must not pay for a signature check for each of its resources that a token is not for: one costs as much
// as all the rest.
func TestATokenIsJudgedForOneAudienceOnly(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		c, secret := n.add(t, "inspector", inspector())
		as := basic("inspector", secret)
		for _, resource := range append(inspector().Resources, issuer) {
			got := n.post(t, "/oauth/token", params("grant_type", oidc.GrantClientCredentials, "resource", resource), as).token(t)
			for range 2 { // unknown, and known
				if asked := n.Audiences(c, got.AccessToken); !slices.Equal(asked, []string{resource}) {
					t.Errorf("a token for %s is judged for %v", resource, asked)
				}
				if a := n.post(t, "/oauth/introspect", params("token", got.AccessToken), as); !strings.Contains(a.body, `"active":true`) {
					t.Errorf("a token for %s: %s", resource, a.body)
				}
			}
		}
	})
}

// What cannot be a token of ours must be found out before any signature is checked, or asking about it would be a way to keep us busy.
func TestTokensForOthersAreNotActive(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "inspector", inspector())
		other := machine
		other.Resources = []string{"https://other.example"}
		_, otherSecret := n.add(t, "other", other)
		got := n.post(t, "/oauth/token", params("grant_type", oidc.GrantClientCredentials), basic("other", otherSecret)).token(t)
		parts := strings.Split(got.AccessToken, ".")
		for name, token := range map[string]string{
			"for another":  got.AccessToken,
			"no JSON":      parts[0] + ".AAAA." + parts[2],
			"no audience":  parts[0] + ".e30." + parts[2],
			"one part":     parts[0],
			"nothing":      "..",
			"wrong base64": parts[0] + ".?." + parts[2],
			"unread":       parts[0] + "." + strings.Repeat("A", 9<<10) + "." + parts[2],
		} {
			if a := n.post(t, "/oauth/introspect", params("token", token), basic("inspector", secret)); strings.TrimSpace(a.body) != `{"active":false}` {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
	})
}

// newBenchNode returns a node and a client of it.
func newBenchNode(b *testing.B) (*node, func(*http.Request)) {
	b.Helper()
	cfg := sqldb.DefaultConfig()
	cfg.URL = "sqlite:" + filepath.Join(b.TempDir(), "bench.db")
	db, err := sqldb.Open(b.Context(), cfg)
	must(b, err)
	b.Cleanup(func() { must(b, db.Close()) })
	must(b, sqldb.Migrate(b.Context(), db, migrations()...))
	n := newNode(b, db, clocktest.Noon(), func(c *oidc.Config) { c.Requests = 10_000_000 })
	_, secret := n.add(b, "inspector", inspector())
	return n, basic("inspector", secret)
}

func BenchmarkIntrospect(b *testing.B) {
	n, as := newBenchNode(b)
	got := n.post(b, "/oauth/token", params("grant_type", oidc.GrantClientCredentials, "resource", "https://c.example"), as).token(b)
	form := params("token", got.AccessToken)
	b.ReportAllocs()
	for b.Loop() {
		n.post(b, "/oauth/introspect", form, as)
	}
}

func BenchmarkClientCredentials(b *testing.B) {
	n, as := newBenchNode(b)
	form := params("grant_type", oidc.GrantClientCredentials)
	b.ReportAllocs()
	for b.Loop() {
		n.post(b, "/oauth/token", form, as)
	}
}
