package session_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// What only a store that takes part in no transaction can get wrong.
func TestRedisStore(t *testing.T) {
	t.Parallel()
	onRedis(t, []test{
		{"small", testRedisIsSmall},
		{"long values", testRedisLongValues},
		{"everything goes", testRedisForgets},
		{"process dies after a reset", testIntentSurvivesACrash},
		{"somebody's hash is damaged", testDamagedHashHoldsUpNobodyElse},
		{"lost writes", testIntentsAreCarriedOutAgain},
		{"reset overtakes sign-in", testResetOvertakesSignIn},
		{"roles overtake sign-in", testRolesOvertakeSignIn},
		{"a mark comes back", testSettledMarkComesBack},
		{"nobody comes", testMarkIsFoundByPatrol},
		{"older database", testSignInOnAnOlderDatabase},
		{"eviction", testEvictedPersonSignsInAgain},
	})
}

// A session is in the compact encoding, in the size class of 320 bytes, besides its key, which is long in tests.
func testRedisIsSmall(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	started := n.signIn(t, session.Start{Roles: []string{"member"}, AMR: []string{"pwd"}, ACR: "1", Device: laptop})
	refresh := started.Tokens.Refresh
	for range 3 {
		c.Advance(time.Hour)
		refresh = n.refresh(t, refresh).Refresh
	}
	client, key := p.redis.Client(), p.key(t, started.Session.Subject)
	encoding, err := client.Do(t.Context(), client.B().ObjectEncoding().Key(key).Build()).ToString()
	must(t, err)
	if encoding != "listpack" && encoding != "ziplist" {
		t.Errorf("encoding = %s, want the compact one", encoding)
	}
	size, err := client.Do(t.Context(), client.B().MemoryUsage().Key(key).Build()).AsInt64()
	must(t, err)
	if size >= 450 {
		t.Errorf("%d bytes for one session, want less than 450", size)
	}
	t.Logf("%d bytes for one session", size)
}

// Values that do not fit the compact encoding are kept all the same, byte for byte.
func testRedisLongValues(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	odd := session.NewDevice("Mozilla/5.0 ("+strings.Repeat("한", 60)+") Chrome/1.0.0.0 Safari/537.36", netip.MustParseAddr("2001:db8::1"))
	start := session.Start{
		Subject: "not a uuid " + newSubject(), Roles: []string{strings.Repeat("r", 300), "b"}, ClientID: strings.Repeat("c", 100),
		Scope: strings.Repeat("s ", 200), Audience: []string{issuer, "https://a.example"}, AMR: []string{"pwd", "otp", "face"}, ACR: "3",
		Device: odd,
	}
	started := n.signIn(t, start)
	tokens, err := n.Refresh(t.Context(), started.Tokens.Refresh, odd)
	must(t, err)
	claims := n.claims(t, tokens.Access)
	if claims.Subject != start.Subject || claims.ClientID != start.ClientID || claims.Scope != start.Scope || claims.ACR != "3" ||
		len(claims.AMR) != 3 || len(claims.Audience) != 2 || len(claims.Roles) != 2 || claims.Roles[0] != start.Roles[0] {
		t.Errorf("claims = %+v", claims)
	}
	if live, _, err := n.List(t.Context(), start.Subject, "", 0); err != nil || len(live) != 1 || live[0].Device != odd {
		t.Errorf("list = %+v, %v; want %+v", live, err, odd)
	}
}

// Nothing stays for ever: the key goes with the last session, and within it what has expired or ended.
func testRedisForgets(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.Idle, cfg.Lifetime = time.Hour, 100*24*time.Hour
	n, c := alone(t, p, cfg)
	subject := newSubject()
	used := n.signIn(t, session.Start{Subject: subject})
	tokens := used.Tokens
	ttl := func() time.Duration {
		client := p.redis.Client()
		ms, err := client.Do(t.Context(), client.B().Pttl().Key(p.key(t, subject)).Build()).AsInt64()
		must(t, err)
		return time.Duration(ms) * time.Millisecond
	}
	if got := ttl(); got <= 59*time.Minute || got > time.Hour {
		t.Errorf("the key lives for %v, want an hour as the session does", got)
	}
	for range 45 {
		n.signIn(t, session.Start{Subject: subject})
		_, cookie := n.openPage(t, subject)
		if _, err := n.Authenticate(t.Context(), cookie); err != nil {
			t.Fatal(err)
		}
	}
	must(t, n.EndOthers(t.Context(), subject, used.Session.ID, session.EndedByOwner))
	if got := len(p.hash(t, subject)); got > 170 {
		t.Errorf("%d fields, want only the latest of the sessions that ended", got)
	}
	for range 40 {
		c.Advance(59 * time.Minute)
		tokens = n.refresh(t, tokens.Refresh)
	}
	if got := p.hash(t, subject); len(got) != 8 {
		t.Errorf("%d fields are left, want those of one session: %q", len(got), got)
	}
	must(t, n.End(t.Context(), subject, used.Session.ID, session.SignedOut))
	c.Advance(2 * time.Hour)
	n.signIn(t, session.Start{Subject: subject})
	if got := p.hash(t, subject); len(got) != 7 {
		t.Errorf("%d fields are left, want those of one new session: %q", len(got), got)
	}
	c.Advance(200 * 24 * time.Hour)
	must(t, n.Chores(t.Context()))
	for _, table := range []string{"session_intents", "session_subjects"} {
		if got := n.count(t, `SELECT count(*) FROM `+table+` WHERE subject = $1`, subject); got != 0 {
			t.Errorf("%d rows are left in %s", got, table)
		}
	}
}

// What cannot be carried out about one person, whose hash is damaged or whose part of a cluster is away, must not keep others signed
// in: not who signs out, not who was signed out by a reset, not after a failover.
func testDamagedHashHoldsUpNobodyElse(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	reset := func(subject string) {
		must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error {
			return n.EndAllTx(t.Context(), tx, subject, session.PasswordReset)
		}))
		c.Advance(time.Millisecond)
	}
	wantEnded := func(what, refresh string) {
		t.Helper()
		if _, err := n.Refresh(t.Context(), refresh, laptop); !errors.Is(err, session.ErrEnded) {
			t.Errorf("%s: %v, want %v", what, err, session.ErrEnded)
		}
	}
	damaged := n.signIn(t, session.Start{}).Session.Subject
	signedOut, wasReset, lost := n.signIn(t, session.Start{}), n.signIn(t, session.Start{}), n.signIn(t, session.Start{})
	client, key := p.redis.Client(), n.key(t, damaged)
	must(t, client.Do(t.Context(), client.B().Set().Key(key).Value("damaged").Build()).Error())
	defer client.Do(t.Context(), client.B().Del().Key(key).Build())
	reset(damaged)

	must(t, n.End(t.Context(), signedOut.Session.Subject, signedOut.Session.ID, session.SignedOut))
	wantEnded("who signed out", signedOut.Tokens.Refresh)
	reset(wasReset.Session.Subject)
	if err := n.Apply(t.Context()); err == nil {
		t.Error("nobody is told that something is not carried out")
	}
	wantEnded("who was signed out by a reset", wasReset.Tokens.Refresh)
	failOver := n.replicaRedis(t, lost.Session)
	reset(lost.Session.Subject)
	_ = n.Apply(t.Context())
	failOver()
	_ = newNode(t, p, session.DefaultConfig(), c.Now).CatchUp(t.Context())
	wantEnded("whose end a failover lost", lost.Tokens.Refresh)
}

// A process that dies between the commit of a reset and Redis must leave nothing alive.
func testIntentSurvivesACrash(t *testing.T, p *place) {
	a, c := alone(t, p, session.DefaultConfig())
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now)
	started := a.signIn(t, session.Start{})
	subject := started.Session.Subject
	must(t, a.db.Write(t.Context(), func(tx sqldb.Tx) error {
		return a.EndAllTx(t.Context(), tx, subject, session.PasswordReset)
	}))
	must(t, b.Chores(t.Context()))
	if _, err := b.Refresh(t.Context(), started.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("refresh = %v, want %v", err, session.ErrEnded)
	}
	must(t, b.Apply(t.Context()))
	if _, err := b.verifier.Verify(t.Context(), started.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token: %v, want %v", err, auth.ErrRevoked)
	}
	if got := b.count(t, `SELECT count(*) FROM session_intents WHERE applied_at = 0 AND subject = $1`, subject); got != 0 {
		t.Errorf("%d intents are still to be carried out", got)
	}
	// The next session is not touched by what was decided before it.
	next := a.signIn(t, session.Start{Subject: subject})
	must(t, newNode(t, p, session.DefaultConfig(), c.Now).Chores(t.Context()))
	a.refresh(t, next.Tokens.Refresh)
}

// After a failover to a replica that lacks them, resets and changes of roles are carried out again.
func testIntentsAreCarriedOutAgain(t *testing.T, p *place) {
	a, c := alone(t, p, session.DefaultConfig())
	reset, demoted := a.signIn(t, session.Start{}), a.signIn(t, session.Start{Roles: []string{"admin"}})
	failOver, too := a.replica(t, reset.Session), a.replica(t, demoted.Session)
	a.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return errors.Join(a.EndAllTx(ctx, tx, reset.Session.Subject, session.PasswordReset),
			a.SetRolesTx(ctx, tx, demoted.Session.Subject, []string{"member"}))
	})
	failOver()
	too()
	a.refresh(t, reset.Tokens.Refresh) // it has come back to life
	c.Advance(50 * time.Minute)
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now) // like one that sees another Redis
	must(t, b.Chores(t.Context()))
	if _, err := a.Refresh(t.Context(), reset.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("after the failover: %v, want %v", err, session.ErrEnded)
	}
	if got := a.claims(t, a.refresh(t, demoted.Tokens.Refresh).Access); got.Roles[0] != "member" || got.Epoch != 1 {
		t.Errorf("claims after the failover: %+v", got)
	}
}

// Whichever of the two reaches Redis first, a sign-in that was decided before a reset leaves no session.
func testResetOvertakesSignIn(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	for name, applied := range map[string]bool{"reset first": true, "sign-in first": false} {
		for _, known := range []bool{true, false} {
			subject := newSubject()
			if known {
				n.signIn(t, session.Start{Subject: subject})
			}
			var starting *session.Starting
			must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) (err error) {
				starting, err = n.Begin(t.Context(), tx, session.Start{Subject: subject})
				return err
			}))
			must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) error {
				return n.EndAllTx(t.Context(), tx, subject, session.PasswordReset)
			}))
			if applied {
				must(t, n.Apply(t.Context()))
			}
			started, err := starting.Commit(t.Context())
			if applied {
				if !errors.Is(err, session.ErrOvertaken) {
					t.Errorf("%s: %v, want %v", name, err, session.ErrOvertaken)
				}
				continue
			}
			must(t, err)
			must(t, n.Apply(t.Context()))
			if _, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
				t.Errorf("%s: refresh = %v, want %v", name, err, session.ErrEnded)
			}
			if _, err := n.verifier.Verify(t.Context(), started.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
				t.Errorf("%s: access token = %v, want %v", name, err, auth.ErrRevoked)
			}
		}
	}
}

// A sign-in that brings the roles of before a change must not undo it.
func testRolesOvertakeSignIn(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	subject := newSubject()
	var starting *session.Starting
	must(t, n.db.Write(t.Context(), func(tx sqldb.Tx) (err error) {
		starting, err = n.Begin(t.Context(), tx, session.Start{Subject: subject, Roles: []string{"admin"}})
		return err
	}))
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.SetRolesTx(ctx, tx, subject, []string{"member"})
	})
	started, err := starting.Commit(t.Context())
	must(t, err)
	if _, err := n.verifier.Verify(t.Context(), started.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token with the old role: %v, want %v", err, auth.ErrRevoked)
	}
	if got := n.claims(t, n.refresh(t, started.Tokens.Refresh).Access); got.Roles[0] != "member" || got.Epoch != 1 {
		t.Errorf("claims = %+v, want member", got)
	}
}

// After an older copy of the database has been restored, Redis knows of later decisions than it. That refuses sign-ins for as long as
// one could still be on its way, and not for good.
func testSignInOnAnOlderDatabase(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	subject := n.signIn(t, session.Start{}).Session.Subject
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.EndAllTx(ctx, tx, subject, session.PasswordReset)
	})
	n.exec(t, `UPDATE session_subjects SET seq = 0 WHERE subject = $1`, subject)
	if _, err := n.start(t.Context(), session.Start{Subject: subject}); !errors.Is(err, session.ErrOvertaken) {
		t.Errorf("at once: %v, want %v", err, session.ErrOvertaken)
	}
	c.Advance(time.Hour)
	n.refresh(t, n.signIn(t, session.Start{Subject: subject}).Tokens.Refresh)
}

// A process that dies right after it has noticed a theft, of a person whom nobody asks for again: the owner must be told all the same.
func testMarkIsFoundByPatrol(t *testing.T, p *place) {
	a, c := alone(t, p, session.DefaultConfig())
	b := newNode(t, p.again(t), session.DefaultConfig(), c.Now)
	started := a.signIn(t, session.Start{})
	third := a.refresh(t, a.refresh(t, started.Tokens.Refresh).Refresh)
	_, err := a.Mark(t.Context(), started.Tokens.Refresh, laptop)
	must(t, err)
	for range 2 {
		must(t, errors.Join(a.Chores(t.Context()), b.Chores(t.Context())))
	}
	a.wantTold(t, started.Session.Subject, 1)
	must(t, b.Apply(t.Context()))
	if _, err := b.verifier.Verify(t.Context(), third.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token: %v, want %v", err, auth.ErrRevoked)
	}
}

// A mark that was settled and returns with a failover is removed, and its owner not told twice.
func testSettledMarkComesBack(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	started := n.signIn(t, session.Start{})
	second := n.refresh(t, started.Tokens.Refresh)
	third := n.refresh(t, second.Refresh)
	_, err := n.Mark(t.Context(), started.Tokens.Refresh, laptop)
	must(t, err)
	failOver := n.replica(t, started.Session)
	for range 2 {
		if _, err := n.Refresh(t.Context(), third.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
			t.Errorf("refresh = %v, want %v", err, session.ErrEnded)
		}
		for field := range p.hash(t, started.Session.Subject) {
			if field[0] == 'p' {
				t.Errorf("the mark is still there: %q", field)
			}
		}
		n.wantTold(t, started.Session.Subject, 1)
		failOver()
	}
}

// Redis may evict anybody's key when it is full: that person signs in again, nothing else.
func testEvictedPersonSignsInAgain(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	started := n.signIn(t, session.Start{Roles: []string{"member"}})
	_, cookie := n.openPage(t, started.Session.Subject)
	client := p.redis.Client()
	must(t, client.Do(t.Context(), client.B().Del().Key(p.key(t, started.Session.Subject)).Build()).Error())
	_, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop)
	if f := fault.From(err); !errors.Is(err, session.ErrInvalidGrant) || f.Status() != 401 {
		t.Errorf("refresh = %v, want %v", err, session.ErrInvalidGrant)
	}
	if _, err := n.Authenticate(t.Context(), cookie); !errors.Is(err, session.ErrInvalidCookie) {
		t.Errorf("authenticate = %v, want %v", err, session.ErrInvalidCookie)
	}
	again := n.signIn(t, session.Start{Subject: started.Session.Subject, Roles: []string{"member"}})
	n.refresh(t, again.Tokens.Refresh)
}
