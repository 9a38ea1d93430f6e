package oidc_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// signedIn is a client that a person has signed in to.
type signedIn struct {
	tokenAnswer
	client func(*http.Request)
	id     jwt.MapClaims
	raw    string // the whole answer
}

// enter registers a client with an address of its own, and signs the person in to it.
func (p *person) enter(t testing.TB, id, uri string, m oidc.Metadata, scope string) signedIn {
	t.Helper()
	m.RedirectURIs, m.Scope, m.GrantTypes = []string{uri}, shop.Scope, shop.GrantTypes
	_, secret := p.n.add(t, id, m)
	return p.again(t, id, uri, secret, scope)
}

func (p *person) again(t testing.TB, id, uri, secret, scope string) signedIn {
	t.Helper()
	w := wish("client_id", id, "redirect_uri", uri, "scope", scope)
	a := p.n.post(t, "/oauth/token", exchange(p.code(t, w), "redirect_uri", uri), basic(id, secret))
	got := a.token(t)
	return signedIn{got, basic(id, secret), p.n.idClaims(t, got.IDToken), a.body}
}

// userInfo is what the client is told of the person.
func (n *node) userInfo(t testing.TB, access string) (about map[string]any) {
	t.Helper()
	a := n.send(t, bearerRequest(t, "GET", "/oauth/userinfo", access))
	must(t, json.Unmarshal([]byte(a.body), &about))
	return about
}

// reveals reports whether something that a client gets has an id in it, in the clear or inside of what it can decode.
func reveals(text, id string) bool {
	raw := uuid.MustParse(id)
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(`."_,:{} `, r) }) {
		b, _ := base64.RawURLEncoding.DecodeString(part)
		if strings.Contains(string(b), id) || strings.Contains(string(b), string(raw[:])) {
			return true
		}
	}
	b, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, session.RefreshPrefix))
	return strings.Contains(text, id) || strings.Contains(string(b), string(raw[:]))
}

var pairwise = oidc.Metadata{SubjectType: oidc.SubjectPairwise}

// Two companies that compare what they know of a person find nothing by which it is the same one; one company's two programs do, but
// not that it is the same browser.
func TestPairwiseSubjects(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		p := n.person(t, "kim@example.com")
		a := p.enter(t, "a", "https://a.example/cb", pairwise, "openid")
		sister := p.enter(t, "sister", "https://a.example/other", pairwise, "openid")
		b := p.enter(t, "b", "https://b.example/cb", pairwise, "openid")
		open := p.enter(t, "open", "https://open.example/cb", oidc.Metadata{}, "openid")
		own := p.enter(t, "own", "https://own.example/cb", pairwise, "openid offline_access")
		if open.id["sub"] != p.account.ID || open.id["sid"] != p.session.ID {
			t.Errorf("a client that wants ids: %v", open.id)
		}
		if a.id["sub"] != sister.id["sub"] {
			t.Error("two programs of one sector do not know the same person")
		}
		var subs, sids []string
		for name, c := range map[string]signedIn{"a": a, "sister": sister, "b": b, "own": own} {
			sub, sid := c.id["sub"].(string), c.id["sid"].(string)
			if name != "sister" {
				subs = append(subs, sub)
			}
			sids = append(sids, sid)
			for what, text := range map[string]string{"answer": c.raw, "refresh token": c.RefreshToken, "access token": c.AccessToken} {
				if reveals(text, p.account.ID) || reveals(text, p.session.ID) {
					t.Errorf("%s: its %s tells the account or the session", name, what)
				}
			}
			claims := n.claims(t, c.AccessToken)
			about := n.userInfo(t, c.AccessToken)
			var inspected map[string]any
			must(t, json.Unmarshal([]byte(n.post(t, "/oauth/introspect", params("token", c.AccessToken), c.client).body), &inspected))
			if claims.Subject != sub || claims.SessionID != sid || about["sub"] != sub || inspected["sub"] != sub || inspected["sid"] != sid || inspected["active"] != true {
				t.Errorf("%s knows the person as %s %s %v %v", name, sub, claims.Subject, about, inspected)
			}
			next := n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", c.RefreshToken), c.client).token(t)
			after := n.idClaims(t, next.IDToken)
			if after["sub"] != sub || after["sid"] != sid || n.claims(t, next.AccessToken).Subject != sub {
				t.Errorf("%s: after a refresh %v", name, after)
			}
		}
		if slices.Sort(subs); len(slices.Compact(subs)) != 3 {
			t.Error("two sectors know one name")
		}
		if slices.Sort(sids); len(slices.Compact(sids)) != 4 {
			t.Error("two clients know one session")
		}
	})
}

// What a client knows a person by outlives every key that is rotated, and every process.
func TestPairwiseSubjectsStay(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		c := clocktest.Noon()
		n := newNode(t, db, c)
		p := n.person(t, "kim@example.com")
		m := pairwise
		m.RedirectURIs, m.Scope, m.GrantTypes = []string{"https://a.example/cb"}, shop.Scope, shop.GrantTypes
		_, secret := n.add(t, "a", m)
		before := p.again(t, "a", "https://a.example/cb", secret, "openid")
		for _, purpose := range []string{"oidc.pairwise", "oidc.veil"} {
			_, err := n.ring.Rotate(t.Context(), purpose)
			must(t, err)
		}
		c.Advance(2 * time.Minute)
		other := newNode(t, sqldbtest.Reopen(t, db), c)
		other.people.byID.Store(p.account.ID, p.account)
		p.n = other
		after := p.again(t, "a", "https://a.example/cb", secret, "openid")
		next := other.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", before.RefreshToken), before.client).token(t)
		for _, id := range []jwt.MapClaims{after.id, other.idClaims(t, next.IDToken)} {
			if id["sub"] != before.id["sub"] || id["sid"] != before.id["sid"] {
				t.Errorf("%v is not %v", id, before.id)
			}
		}
	})
}

// What ends a person's sign-in, or changes what they may do, reaches the tokens that call them by another name, on every node.
func TestPairwiseTokensDie(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		c := clocktest.Noon()
		n, other := newNode(t, db, c), newNode(t, sqldbtest.Reopen(t, db), c)
		p := n.person(t, "kim@example.com")
		dead := func(when, access string) {
			t.Helper()
			must(t, other.sessions.Apply(t.Context()))
			for _, node := range []*node{n, other} {
				if _, err := node.verifier.Verify(t.Context(), access); !errors.Is(err, auth.ErrRevoked) {
					t.Errorf("%s: %v", when, err)
				}
			}
		}
		service := oidc.Metadata{Name: "Orders", GrantTypes: []string{oidc.GrantExchange}, Resources: []string{"https://orders.example", issuer}}
		_, ordersSecret := n.add(t, "orders", service)
		m := pairwise
		m.Resources = []string{"https://orders.example"}
		a := p.enter(t, "a", "https://a.example/cb", m, "openid orders")
		swapped := n.post(t, "/oauth/token", params("grant_type", oidc.GrantExchange, "subject_token", a.AccessToken, "subject_token_type",
			"urn:ietf:params:oauth:token-type:access_token", "resource", issuer), basic("orders", ordersSecret)).token(t)
		if claims := n.claims(t, swapped.AccessToken); claims.Subject != a.id["sub"] || claims.SessionID != a.id["sid"] {
			t.Errorf("a service gets to know %+v", claims)
		}
		must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error {
			return n.sessions.SetRolesTx(t.Context(), tx, p.account.ID, []string{"chief"})
		}))
		must(t, n.sessions.Apply(t.Context()))
		dead("other roles", swapped.AccessToken)
		next := n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", a.RefreshToken), a.client).token(t)
		must(t, n.sessions.End(t.Context(), p.account.ID, p.session.ID, session.SignedOut))
		dead("signed out", next.AccessToken)
		n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", next.RefreshToken), a.client).refused(t, 400, "invalid_grant")

		p.signIn(t)
		b := p.enter(t, "b", "https://b.example/cb", pairwise, "openid offline_access")
		if n.post(t, "/oauth/revoke", params("token", b.RefreshToken), b.client).status != 200 {
			t.Error("not revoked")
		}
		dead("revoked", b.AccessToken)
		last := p.enter(t, "c", "https://c.example/cb", pairwise, "openid offline_access")
		must(t, n.Withdraw(t.Context(), p.account.ID, "c"))
		dead("withdrawn", last.AccessToken)
	})
}

// A hidden refresh token is its client's, has one successor however often it is presented, and is nothing else's.
func TestVeiledRefreshTokens(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		p := n.person(t, "kim@example.com")
		a := p.enter(t, "a", "https://a.example/cb", pairwise, "openid")
		b := p.enter(t, "b", "https://b.example/cb", pairwise, "openid")
		open := p.enter(t, "open", "https://open.example/cb", oidc.Metadata{}, "openid")
		form := func(token string) url.Values { return params("grant_type", "refresh_token", "refresh_token", token) }
		for _, other := range []signedIn{b, open} {
			n.post(t, "/oauth/token", form(a.RefreshToken), other.client).refused(t, 400, "invalid_grant")
		}
		last := a.RefreshToken[len(a.RefreshToken)-10]
		changed := a.RefreshToken[:len(a.RefreshToken)-10] + string(last^1) + a.RefreshToken[len(a.RefreshToken)-9:]
		for _, wrong := range []string{changed, "srt_p.", "srt_p.AAAA", "srt_p." + strings.Repeat("A", 300), a.RefreshToken[:60]} {
			n.post(t, "/oauth/token", form(wrong), a.client).refused(t, 400, "invalid_grant")
		}
		var wg sync.WaitGroup
		got := make([]string, 8)
		for i := range got {
			wg.Go(func() {
				var answer tokenAnswer
				if json.Unmarshal([]byte(n.post(t, "/oauth/token", form(a.RefreshToken), a.client).body), &answer) == nil {
					got[i] = answer.RefreshToken
				}
			})
		}
		wg.Wait()
		if all := slices.Compact(got); len(all) != 1 || all[0] == "" {
			t.Errorf("%d successors of one token", len(all))
		}
	})
}

// A client that another took the id of in the meantime must not go on with the grants of the first, whose names nobody has noted.
func TestPairwiseAfterAnotherClient(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		p := n.person(t, "kim@example.com")
		first := p.enter(t, "a", "https://a.example/cb", oidc.Metadata{}, "openid offline_access")
		n.clock.Advance(time.Minute)
		must(t, n.Remove(t.Context(), "a"))
		m := pairwise
		m.RedirectURIs, m.Scope, m.GrantTypes = []string{"https://a.example/cb"}, shop.Scope, shop.GrantTypes
		_, secret := n.add(t, "a", m)
		n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", first.RefreshToken), basic("a", secret)).refused(t, 400, "invalid_grant")
	})
}

// Signing out works by the names that the client knows, and so does being told of it.
func TestPairwiseLogout(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		told := make(chan string, 10)
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told <- r.FormValue("logout_token") }))
		defer s.Close()
		m := pairwise
		m.BackchannelLogoutURI, m.PostLogoutRedirectURIs = s.URL+"/logout", []string{"https://a.example/bye"}
		p := n.person(t, "kim@example.com")
		a := p.enter(t, "a", "https://a.example/cb", m, "openid")
		if page := p.get(t, "/oauth/logout?"+params("id_token_hint", a.IDToken, "client_id", "b").Encode()); page.status != 400 {
			t.Errorf("another client's hint: %d", page.status)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { n.Run(ctx) })
		wg.Go(func() { n.sessions.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		// A request that names the person does so by the client's name, too.
		for sub, code := range map[string]bool{a.id["sub"].(string): true, p.account.ID: false} {
			w := wish("client_id", "a", "redirect_uri", "https://a.example/cb", "scope", "openid", "prompt", "none", "claims", `{"id_token":{"sub":{"value":"`+sub+`"}}}`)
			if got := p.get(t, "/oauth/authorize?"+w.Encode()).landed(t, "https://a.example/cb"); got.Has("code") != code {
				t.Errorf("asked for %s: %v", sub, got)
			}
		}
		hinted := wish("client_id", "a", "redirect_uri", "https://a.example/cb", "scope", "openid", "prompt", "none", "id_token_hint", a.IDToken)
		if got := p.get(t, "/oauth/authorize?"+hinted.Encode()).landed(t, "https://a.example/cb"); !got.Has("code") {
			t.Errorf("with a hint: %v", got)
		}
		bye := p.get(t, "/oauth/logout?"+params("id_token_hint", a.IDToken, "post_logout_redirect_uri", "https://a.example/bye").Encode())
		if bye.status != 303 || bye.header.Get("Location") != "https://a.example/bye" {
			t.Fatalf("signing out: %d %v", bye.status, bye.header)
		}
		select {
		case raw := <-told:
			claims := jwt.MapClaims{}
			_, _, err := jwt.NewParser().ParseUnverified(raw, claims)
			must(t, err)
			if claims["sub"] != a.id["sub"] || claims["sid"] != a.id["sid"] || reveals(raw, p.account.ID) || reveals(raw, p.session.ID) {
				t.Errorf("told %v of %v", claims, a.id)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it was never told")
		}
	})
}
