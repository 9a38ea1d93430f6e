package oidc_test

import (
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// onEachStore runs a test with sessions in SQL, and with sessions in Redis.
func onEachStore(t *testing.T, fn func(t *testing.T, at place)) {
	t.Helper()
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) { fn(t, place{db: db}) })
	if redisdbtest.Listed() {
		t.Run("redis", func(t *testing.T) {
			sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
				redis := redisdbtest.Open(t)
				fn(t, place{db: db, redis: redis, prefix: redisdbtest.Prefix(t, redis)})
			})
		})
	}
}

// Whoever takes back what they allowed must not find the program signed in a minute later, with a code that it had not yet exchanged. Other
// people and programs notice nothing.
func TestCodesDieWithTheConsent(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, secret := n.add(t, "shop", shop)
		n.add(t, "tv", television)
		_, otherSecret := n.add(t, "other", shop)
		p, neighbour := n.person(t, "kim@example.com"), n.person(t, "lee@example.com")
		held, offline := p.code(t, wish()), p.code(t, wish("scope", "openid offline_access"))
		elsewhere, theirs := p.code(t, wish("client_id", "other")), neighbour.code(t, wish())
		must(t, n.Withdraw(t.Context(), p.account.ID, "shop"))
		for _, code := range []string{held, offline} {
			n.post(t, "/oauth/token", exchange(code), basic("shop", secret)).refused(t, 400, "invalid_grant")
		}
		n.post(t, "/oauth/token", exchange(elsewhere), basic("other", otherSecret)).token(t)
		n.post(t, "/oauth/token", exchange(theirs), basic("shop", secret)).token(t)
		n.post(t, "/oauth/token", exchange(p.code(t, wish())), basic("shop", secret)).token(t)

		device := p.approved(t)
		must(t, n.agreeTo(t, p, "tv"))
		must(t, n.Withdraw(t.Context(), p.account.ID, "tv"))
		n.post(t, "/oauth/token", poll(device)).refused(t, 400, "access_denied")
	})
}

// A program that asks again and again, in a hidden frame, while its person takes back what they allowed has nothing left when they are told
// that it has.
func TestWithdrawalRacesCodes(t *testing.T) {
	onEachStore(t, raceWithdrawals)
}

func raceWithdrawals(t *testing.T, at place) {
	const rounds, frames = 12, 3
	c := clocktest.Noon()
	nodes := []*node{newNodeAt(t, at, c, auth.ES256), newNodeAt(t, at, c, auth.ES256)}
	_, secret := nodes[0].add(t, "shop", shop)
	p := nodes[0].person(t, "kim@example.com")
	refresh := params("grant_type", "refresh_token")
	for round := range rounds {
		c.Advance(time.Minute)
		asks := wish("scope", []string{"openid", "openid offline_access"}[round%2])
		p.code(t, asks)
		answers := make([]answer, frames)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				to, err := url.Parse(p.get(t, "/oauth/authorize?"+asks.Encode()).header.Get("Location"))
				if code := to.Query().Get("code"); err == nil && code != "" {
					answers[i] = nodes[i%2].post(t, "/oauth/token", exchange(code), basic("shop", secret))
				}
			})
		}
		wg.Go(func() { must(t, nodes[1].Withdraw(t.Context(), p.account.ID, "shop")) })
		wg.Wait()
		for _, a := range answers {
			if a.status == http.StatusOK {
				nothingWorks(t, nodes, a.token(t), refresh, basic("shop", secret))
			}
		}
	}
}

// Redis is away when a stolen code is noticed, when a person takes back what they allowed, or when a program gives back what it has: their
// access tokens die at once, and nothing is left when Redis is back.
func TestEndsWithoutRedis(t *testing.T) {
	if !redisdbtest.Listed() {
		return
	}
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) {
		server := redisdbtest.Start(t)
		redis := redisdbtest.OpenURL(t, server.URL())
		n := newNodeAt(t, place{db: db, redis: redis, prefix: redisdbtest.Prefix(t, redis)}, clocktest.Noon(), auth.ES256)
		_, secret := n.add(t, "shop", shop)
		client := basic("shop", secret)
		for _, scope := range []string{"openid offline_access", "openid"} {
			var people [3]*person
			var codes [3]string
			var got [3]tokenAnswer
			for i := range people {
				people[i] = n.person(t, "kim@example.com")
				codes[i] = people[i].code(t, wish("scope", scope))
				got[i] = n.post(t, "/oauth/token", exchange(codes[i]), client).token(t)
			}
			server.Kill()
			n.post(t, "/oauth/token", exchange(codes[0]), client).refused(t, 400, "invalid_grant")
			must(t, n.Withdraw(t.Context(), people[1].account.ID, "shop"))
			if a := n.post(t, "/oauth/revoke", params("token", got[2].RefreshToken), client); a.status != 200 {
				t.Errorf("given back: %d %s", a.status, a.body)
			}
			for i := range got {
				if _, err := n.verifier.Verify(t.Context(), got[i].AccessToken); err == nil {
					t.Errorf("%s, %d: the access token works on", scope, i)
				}
			}
			server.Restart()
			n.awaitRedis(t)
			for i := range got {
				n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got[i].RefreshToken), client).refused(t, 400, "invalid_grant")
				people[i].alone(t, n)
			}
		}
	})
}

// awaitRedis returns when what was decided while Redis was away is carried out.
func (n *node) awaitRedis(t testing.TB) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		err := n.sessions.Apply(t.Context())
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

// Whoever lowers the lifetime of sessions does not end those that there are: a program that knows people by names of its own goes on, and is
// told of the end.
func TestGrantsOutliveALoweredLifetime(t *testing.T) {
	onEachStore(t, func(t *testing.T, at place) {
		c := clocktest.Noon()
		p := newNodeAt(t, at, c, auth.ES256).person(t, "kim@example.com")
		at.lifetime = 24 * time.Hour
		n := newNodeAt(t, at, c, auth.ES256)
		n.people.byID.Store(p.account.ID, p.account)
		p.n = n
		got := p.enter(t, "a", "https://a.example/cb", pairwise, "openid")
		for range 10 { // days in which it is used
			n.pass(t, 20*time.Hour)
			n.Sweep(t.Context())
			form := params("grant_type", "refresh_token", "refresh_token", got.RefreshToken)
			got.tokenAnswer = n.post(t, "/oauth/token", form, got.client).token(t)
		}
	})
}

// Who has the id of a client that was removed must not go on with what people had given that one, although sessions have lived shorter since.
func TestRemovedClientsOutliveALoweredLifetime(t *testing.T) {
	onEachStore(t, func(t *testing.T, at place) {
		c := clocktest.Noon()
		at.lifetime = 90 * 24 * time.Hour
		before := newNodeAt(t, at, c, auth.ES256)
		public := shop
		public.AuthMethod = oidc.AuthNone
		before.add(t, "shop", public)
		p := before.person(t, "kim@example.com")
		code := p.code(t, wish("scope", "openid offline_access"))
		got := before.post(t, "/oauth/token", exchange(code, "client_id", "shop")).token(t)

		at.lifetime = 24 * time.Hour
		n := newNodeAt(t, at, c, auth.ES256)
		must(t, n.Remove(t.Context(), "shop"))
		n.pass(t, 20*24*time.Hour)
		n.Sweep(t.Context())
		n.add(t, "shop", public)
		n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", got.RefreshToken, "client_id", "shop")).refused(t, 400, "invalid_grant")

		must(t, n.Remove(t.Context(), "shop"))
		n.pass(t, 91*24*time.Hour)
		n.Sweep(t.Context())
		n.Sweep(t.Context()) // which finds no grants any more
		if again, _ := n.add(t, "shop", public); again.Epoch != 0 {
			t.Error("a client of whom nothing is left is remembered for ever")
		}
	})
}
