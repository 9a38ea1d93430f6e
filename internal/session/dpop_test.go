package session_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/session"
)

func TestDPoP(t *testing.T) {
	onEach(t, []test{
		{"bound to a key", testRefreshIsBoundToItsKey},
		{"bound in parallel", testParallelRefreshesWithTwoKeys},
		{"another client", testAccessAloneIsBound},
		{"bound to a certificate", testBoundToACertificate},
		{"policy off", testDPoPOff},
		{"policy required", testDPoPRequired},
		{"over HTTP", testHTTPBoundRefresh},
		{"proof used on two nodes", testHTTPReplayedProof},
		{"proof of a stranger", testHTTPStrangersProof},
		{"nonces roll over", testHTTPNonces},
		{"used proofs unknown", testHTTPReplaysAway},
	})
}

// client is one with a key.
type client struct {
	*auth.Prover
	url string
}

func newClient(t testing.TB, now func() time.Time) client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p, err := auth.NewProver(key)
	must(t, err)
	p.Clock = now
	return client{p, issuer + "/v1/sessions/refresh"}
}

func (c client) evidence() session.Evidence { return session.Evidence{Thumbprint: c.Thumbprint()} }

// proof is one for a refresh.
func (c client) proof(t testing.TB, nonce string) string {
	t.Helper()
	proof, err := c.Proof("POST", c.url, "", nonce)
	must(t, err)
	return proof
}

// replays remembers where the place is, as the program does.
func (p *place) replays(now func() time.Time) replay.Store {
	if p.redis != nil {
		return replay.NewRedis(p.redis, p.prefix+"once:")
	}
	return replay.NewSQL(p.db, now, nil)
}

// judging gives a node who judges proofs.
func judging(t testing.TB, p *place, cfg session.Config, now func() time.Time) func(*session.Deps) {
	return func(d *session.Deps) {
		proofs, err := session.NewProofs(cfg, d.Keyring, auth.ProofConfig{
			PublicURLs: []string{issuer}, Replays: replay.Scoped(p.replays(now), "dpop"), Clock: now,
		})
		must(t, err)
		d.Proofs = proofs
	}
}

func (n *node) wantRefused(t *testing.T, presented string, with session.Evidence, want error) {
	t.Helper()
	if _, err := n.RefreshWith(t.Context(), presented, with, laptop); !errors.Is(err, want) {
		t.Errorf("refresh with the key %.6q: %v, want %v", with.Thumbprint, err, want)
	}
}

// Who stole a refresh token, but not the key, gets nothing and breaks nothing: not by the newest token, nor by one that has
// been replaced, nor within the window. The owner goes on.
func testRefreshIsBoundToItsKey(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	mine, thief := newClient(t, c.Now), newClient(t, c.Now)
	started := n.signIn(t, session.Start{Thumbprint: mine.Thumbprint(), Roles: []string{"member"}})
	if !started.Tokens.Bound {
		t.Error("the tokens of the sign-in are not bound")
	}
	tokens := []string{started.Tokens.Refresh}
	for range 3 {
		got, err := n.RefreshWith(t.Context(), tokens[len(tokens)-1], mine.evidence(), laptop)
		must(t, err)
		claims, err := n.verifier.VerifyBound(t.Context(), got.Access)
		if err != nil || claims.Confirmation.JKT != mine.Thumbprint() || !got.Bound {
			t.Errorf("claims = %+v, bound %v, %v", claims, got.Bound, err)
		}
		if _, err := n.verifier.Verify(t.Context(), got.Access); !errors.Is(err, auth.ErrBound) {
			t.Errorf("as a bearer token: %v, want %v", err, auth.ErrBound)
		}
		tokens = append(tokens, got.Refresh)
	}
	before := n.dump(t)
	for _, stolen := range tokens {
		n.wantRefused(t, stolen, session.Evidence{}, session.ErrProofRequired)
		n.wantRefused(t, stolen, thief.evidence(), session.ErrWrongKey)
		n.wantRefused(t, stolen, session.Evidence{Thumbprint: strings.Repeat("A", 43)}, session.ErrWrongKey)
		n.wantRefused(t, stolen, session.Evidence{Thumbprint: "not base64"}, session.ErrWrongKey)
	}
	if after := n.dump(t); stripOutcome(after) != stripOutcome(before) {
		t.Errorf("a thief without the key changed the store:\n%s\nwas:\n%s", after, before)
	}
	if a, b := n.outcomes(t, "unproved"), n.outcomes(t, "wrong_key"); a != 4 || b != 12 {
		t.Errorf("%d without and %d with a wrong key were counted, want 4 and 12", a, b)
	}
	c.Advance(window)
	reissued, err := n.RefreshWith(t.Context(), tokens[2], mine.evidence(), laptop)
	must(t, err)
	n.wantRefused(t, tokens[0], mine.evidence(), session.ErrEnded) // which is theft, with the key too
	n.wantRefused(t, reissued.Refresh, mine.evidence(), session.ErrEnded)
	n.wantTold(t, started.Session.Subject, 1)
}

// stripOutcome leaves out how SQL tells what came of a statement, which is no part of the session.
func stripOutcome(dump string) string {
	for _, outcome := range []string{"rotated", "wrong_key"} {
		dump = strings.ReplaceAll(dump, "outcome="+outcome+" ", "")
	}
	return dump
}

// A thief who is as fast as the owner, with the same token, on two nodes: one lineage, all of it the owner's.
func testParallelRefreshesWithTwoKeys(t *testing.T, p *place) {
	c := clocktest.Noon()
	nodes := []*node{newNode(t, p, session.DefaultConfig(), c.Now), newNode(t, p.again(t), session.DefaultConfig(), c.Now)}
	mine, thief := newClient(t, c.Now), newClient(t, c.Now)
	presented := nodes[0].signIn(t, session.Start{Thumbprint: mine.Thumbprint()}).Tokens.Refresh
	for range 3 {
		var mu sync.Mutex
		var wg sync.WaitGroup
		successors := map[string]bool{}
		for i := range 40 {
			wg.Go(func() {
				if i%4 >= 2 {
					if _, err := nodes[i%2].RefreshWith(t.Context(), presented, thief.evidence(), laptop); !errors.Is(err, session.ErrWrongKey) {
						t.Errorf("the thief: %v, want %v", err, session.ErrWrongKey)
					}
					return
				}
				got, err := nodes[i%2].RefreshWith(t.Context(), presented, mine.evidence(), laptop)
				if err != nil {
					t.Errorf("the owner: %v", err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				successors[got.Refresh] = true
			})
		}
		wg.Wait()
		if len(successors) != 1 {
			t.Fatalf("%d lineages", len(successors))
		}
		for presented = range successors {
		}
	}
}

// A proof that comes with an unbound grant binds the access token, and leaves the grant to whoever has its refresh token.
func testAccessAloneIsBound(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	mine := newClient(t, c.Now)
	started := n.signIn(t, session.Start{ClientID: "shop"})
	got, err := n.RefreshWith(t.Context(), started.Tokens.Refresh, mine.evidence(), laptop)
	must(t, err)
	claims, err := n.verifier.VerifyBound(t.Context(), got.Access)
	must(t, err)
	if claims.Confirmation.JKT != mine.Thumbprint() || !got.Bound {
		t.Errorf("claims = %+v, bound %v", claims, got.Bound)
	}
	if plain := n.refresh(t, got.Refresh); plain.Bound || n.claims(t, plain.Access).Confirmation.JKT != "" {
		t.Error("an access token is bound to a key that nobody has proved")
	}
}

// A program without a secret that has a certificate keeps its refresh tokens to itself; of one that proves itself in another way the
// access tokens alone are bound, so that it can have a new certificate (RFC 8705, section 4).
func testBoundToACertificate(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.DPoP = session.DPoPOff // which is about something else
	n, _ := alone(t, p, cfg)
	mine, other := auth.CertificateThumbprint([]byte("mine")), auth.CertificateThumbprint([]byte("other"))
	bound := func(got session.Tokens, want string) {
		t.Helper()
		claims, err := n.verifier.VerifyBound(t.Context(), got.Access)
		must(t, err)
		if (claims.Confirmation != auth.Confirmation{X5T: want}) || got.Granted.Certificate != want || got.Granted.Thumbprint != "" {
			t.Errorf("bound to %+v, granted %+v, want %q", claims.Confirmation, got.Granted, want)
		}
	}
	with := func(certificate string) session.Evidence {
		return session.Evidence{Form: session.Form{Certificate: certificate}}
	}
	public := n.signIn(t, session.Start{ClientID: "app", Form: session.Form{Certificate: mine, BindsRefresh: true}}).Tokens
	bound(public, mine)
	n.wantRefused(t, public.Refresh, with(other), session.ErrWrongKey)
	n.wantRefused(t, public.Refresh, with(""), session.ErrProofRequired)
	n.wantRefused(t, public.Refresh, session.Evidence{Thumbprint: other}, session.ErrWrongKey)
	got, err := n.RefreshWith(t.Context(), public.Refresh, with(mine), laptop)
	must(t, err)
	bound(got, mine)
	repeated, err := n.RefreshWith(t.Context(), public.Refresh, with(mine), laptop)
	must(t, err)
	bound(repeated, mine)

	confidential := n.signIn(t, session.Start{ClientID: "shop", Form: session.Form{Certificate: mine}}).Tokens
	bound(confidential, mine)
	got, err = n.RefreshWith(t.Context(), confidential.Refresh, with(other), laptop)
	must(t, err)
	bound(got, other)
}

func testDPoPOff(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	on, c := alone(t, p, cfg)
	cfg.DPoP = session.DPoPOff
	off := newNode(t, p, cfg, c.Now)
	mine := newClient(t, c.Now)
	unbound := off.signIn(t, session.Start{Thumbprint: mine.Thumbprint()})
	if unbound.Tokens.Bound {
		t.Error("a sign-in was bound though that is off")
	}
	got, err := off.RefreshWith(t.Context(), unbound.Tokens.Refresh, mine.evidence(), laptop)
	if err != nil || got.Bound {
		t.Errorf("refresh with a proof: bound %v, %v", got.Bound, err)
	}
	// What has been bound stays so: a setting must not make stolen tokens worth something.
	bound := on.signIn(t, session.Start{Thumbprint: mine.Thumbprint()}).Tokens.Refresh
	off.wantRefused(t, bound, session.Evidence{}, session.ErrProofRequired)
	if got, err = off.RefreshWith(t.Context(), bound, mine.evidence(), laptop); err != nil || !got.Bound {
		t.Errorf("refresh of a bound session: bound %v, %v", got.Bound, err)
	}
}

func testDPoPRequired(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	before, c := alone(t, p, cfg)
	cfg.DPoP = session.DPoPRequired
	n := newNode(t, p, cfg, c.Now)
	mine := newClient(t, c.Now)
	if _, err := n.start(t.Context(), session.Start{Subject: newSubject()}); !errors.Is(err, session.ErrProofRequired) {
		t.Errorf("a sign-in without a key: %v, want %v", err, session.ErrProofRequired)
	}
	n.openPage(t, newSubject()) // pages have cookies, which no client can take along
	old := before.signIn(t, session.Start{}).Tokens.Refresh
	n.wantRefused(t, old, session.Evidence{}, session.ErrUnbound)
	n.wantRefused(t, old, mine.evidence(), session.ErrUnbound)
	if got := n.outcomes(t, "unbound"); got != 2 {
		t.Errorf("%d unbound refreshes were counted, want 2", got)
	}
	before.refresh(t, old)                                                    // which has not been touched
	n.refresh(t, n.signIn(t, session.Start{ClientID: "shop"}).Tokens.Refresh) // a client with a policy of its own
	bound := n.signIn(t, session.Start{Thumbprint: mine.Thumbprint()}).Tokens.Refresh
	_, err := n.RefreshWith(t.Context(), bound, mine.evidence(), laptop)
	must(t, err)
}

// refreshing sends a refresh with proofs, by body or by cookie.
func refreshing(t *testing.T, h http.Handler, token string, byCookie bool, proofs ...string) *http.Response {
	t.Helper()
	body := refreshBody(token)
	if byCookie {
		body = ""
	}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/sessions/refresh?x=1", strings.NewReader(body))
	if byCookie {
		r.AddCookie(cookies.RefreshCookie(token, time.Hour))
	} else {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, p := range proofs {
		r.Header.Add("DPoP", p)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func wantCode(t *testing.T, r *http.Response, status int, code, challenge string) {
	t.Helper()
	if got := decode[struct{ Code string }](t, r, status).Code; got != code {
		t.Errorf("code %q, want %q", got, code)
	}
	if got := r.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, `DPoP realm="sumun", algs="ES256 EdDSA RS256", error="`+challenge+`"`) {
		t.Errorf("challenge %s, want %s", got, challenge)
	}
}

func testHTTPBoundRefresh(t *testing.T, p *place) {
	cfg, c := session.DefaultConfig(), clocktest.Noon()
	n := newNode(t, p, cfg, c.Now, judging(t, p, cfg, c.Now))
	h := n.serve(t)
	mine, thief := newClient(t, c.Now), newClient(t, c.Now)
	token := n.signIn(t, session.Start{Thumbprint: mine.Thumbprint()}).Tokens.Refresh
	elsewhere := mine
	elsewhere.url = issuer + "/v1/sessions"
	for _, byCookie := range []bool{false, true} {
		wantCode(t, refreshing(t, h, token, byCookie), 401, "session.proof_required", "invalid_dpop_proof")
		wantCode(t, refreshing(t, h, token, byCookie, thief.proof(t, "")), 401, "session.wrong_key", "invalid_token")
		wantCode(t, refreshing(t, h, token, byCookie, mine.proof(t, ""), mine.proof(t, "")), 401, "auth.dpop_proof", "invalid_dpop_proof")
		wantCode(t, refreshing(t, h, token, byCookie, elsewhere.proof(t, "")), 401, "auth.dpop_proof", "invalid_dpop_proof")
		wantCode(t, refreshing(t, h, token, byCookie, "x"), 401, "auth.dpop_proof", "invalid_dpop_proof")
		r := refreshing(t, h, token, byCookie, mine.proof(t, ""))
		answer := decode[session.TokenAnswer](t, r, 200)
		if answer.TokenType != "DPoP" || r.Header.Get("DPoP-Nonce") == "" {
			t.Errorf("token type %q, nonce %q", answer.TokenType, r.Header.Get("DPoP-Nonce"))
		}
		if token = answer.RefreshToken; byCookie {
			token = r.Cookies()[0].Value
		}
	}
	if refused := refreshing(t, h, token, true, thief.proof(t, "")); len(refused.Cookies()) != 0 {
		t.Errorf("a wrong key cost the browser its cookie: %v", refused.Cookies())
	}
}

// A proof that somebody saw on its way works once, whichever nodes it is sent to, however many send it.
func testHTTPReplayedProof(t *testing.T, p *place) {
	cfg, c := session.DefaultConfig(), clocktest.Noon()
	again := p.again(t)
	nodes := []http.Handler{
		newNode(t, p, cfg, c.Now, judging(t, p, cfg, c.Now)).serve(t),
		newNode(t, again, cfg, c.Now, judging(t, again, cfg, c.Now)).serve(t),
	}
	n := newNode(t, p, cfg, c.Now)
	mine := newClient(t, c.Now)
	token := n.signIn(t, session.Start{Thumbprint: mine.Thumbprint()}).Tokens.Refresh
	proof := mine.proof(t, "")
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			r := refreshing(t, nodes[i%2], token, false, proof)
			if r.StatusCode == 200 {
				won.Add(1)
				return
			}
			wantCode(t, r, 401, "auth.dpop_replayed", "invalid_dpop_proof")
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("one proof was good for %d refreshes", won.Load())
	}
	if r := refreshing(t, nodes[1], token, false, mine.proof(t, "")); r.StatusCode != 200 {
		t.Errorf("a retry with a new proof: status %d", r.StatusCode)
	}
}

// Strangers can make as many proofs as they like. Without a refresh token of ours none is taken down, or they could fill the memory
// that sign-ins need: the proof is as good as new afterwards.
func testHTTPStrangersProof(t *testing.T, p *place) {
	cfg, c := session.DefaultConfig(), clocktest.Noon()
	n := newNode(t, p, cfg, c.Now, judging(t, p, cfg, c.Now))
	h := n.serve(t)
	mine := newClient(t, c.Now)
	token := n.signIn(t, session.Start{Thumbprint: mine.Thumbprint()}).Tokens.Refresh
	proof := mine.proof(t, "")
	for _, junk := range []string{"x", token[:len(token)-4] + "AAAA"} {
		wantProblem(t, refreshing(t, h, junk, false, proof), session.ErrInvalidGrant)
	}
	decode[session.TokenAnswer](t, refreshing(t, h, token, false, proof), 200)
}

// Where nonces are required, each answer brings the next, also from another node, so that a client is asked twice only once.
func testHTTPNonces(t *testing.T, p *place) {
	cfg, c := session.DefaultConfig(), clocktest.Noon()
	cfg.DPoPNonce = session.NonceRequired
	again := p.again(t)
	late := func() time.Time { return c.Now().Add(-30 * time.Second) }
	nodes := []http.Handler{
		newNode(t, p, cfg, c.Now, judging(t, p, cfg, c.Now)).serve(t),
		newNode(t, again, cfg, c.Now, judging(t, again, cfg, late)).serve(t),
	}
	mine := newClient(t, func() time.Time { return time.Unix(0, 0) }) // nobody ever set this clock
	token := newNode(t, p, cfg, c.Now).signIn(t, session.Start{Thumbprint: mine.Thumbprint()}).Tokens.Refresh
	r := refreshing(t, nodes[0], token, false, mine.proof(t, ""))
	wantCode(t, r, 401, "auth.dpop_nonce", "use_dpop_nonce")
	for i := range 6 {
		r = refreshing(t, nodes[i%2], token, false, mine.proof(t, r.Header.Get("DPoP-Nonce")))
		token = decode[session.TokenAnswer](t, r, 200).RefreshToken
		c.Advance(time.Minute)
	}
	c.Advance(time.Hour)
	r = refreshing(t, nodes[0], token, false, mine.proof(t, r.Header.Get("DPoP-Nonce")))
	wantCode(t, r, 401, "auth.dpop_nonce", "use_dpop_nonce")
	r = refreshing(t, nodes[1], token, false, mine.proof(t, r.Header.Get("DPoP-Nonce")))
	decode[session.TokenAnswer](t, r, 200)
}

// While nobody can say whether a proof was used it is not accepted, and nobody is signed out.
func testHTTPReplaysAway(t *testing.T, p *place) {
	cfg, c := session.DefaultConfig(), clocktest.Noon()
	away := &place{db: p.again(t).db, prefix: p.prefix}
	if p.redis != nil {
		away.redis = openRedis(t, p.url)
	}
	n := newNode(t, p, cfg, c.Now, judging(t, away, cfg, c.Now))
	h := n.serve(t)
	mine := newClient(t, c.Now)
	token := n.signIn(t, session.Start{Thumbprint: mine.Thumbprint()}).Tokens.Refresh
	away.close(t)
	r := refreshing(t, h, token, false, mine.proof(t, ""))
	wantProblem(t, r, session.ErrUnavailable)
	if r.Header.Get("Retry-After") == "" {
		t.Error("the answer does not say when to come back")
	}
	_, err := n.RefreshWith(t.Context(), token, mine.evidence(), laptop)
	must(t, err)
}
