package session_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

func TestSessions(t *testing.T) { onEach(t, sessionTests) }

var sessionTests = []test{
	{"ids are new", testStartMakesNewIDs},
	{"limit", testLimitEndsTheLeastRecentlyUsed},
	{"limit in parallel", testLimitHoldsInParallel},
	{"list", testList},
	{"end", testEnd},
	{"end only one's own", testEndOnlyOnesOwn},
	{"end all", testEndAll},
	{"end others", testEndOthersTx},
	{"end against sign-in", testEndAllAgainstParallelStarts},
	{"trail", testTrail},
	{"roles", testRoles},
	{"roles against sign-in", testRolesAreNotUndoneByASignIn},
	{"page", testPage},
	{"page expires", testPageExpires},
	{"reauthenticated", testReauthenticated},
}

func testStartMakesNewIDs(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	subject := newSubject()
	seen := map[string]bool{}
	for range 3 {
		started := n.signIn(t, session.Start{Subject: subject, Device: laptop})
		one, cookie := n.openPage(t, subject)
		for _, id := range []string{started.Session.ID, one.ID, started.Tokens.Refresh, cookie} {
			if seen[id] {
				t.Fatalf("%q was given out twice", id)
			}
			seen[id] = true
		}
		if id, err := session.ParseID(one.ID); err != nil || id.Version() != 7 {
			t.Errorf("session id %q is not a UUIDv7: %v", one.ID, err)
		}
	}
}

func testLimitEndsTheLeastRecentlyUsed(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.Limit = 3
	n, c := alone(t, p, cfg)
	subject := newSubject()
	oldest := n.signIn(t, session.Start{Subject: subject})
	c.Advance(time.Minute)
	second := n.signIn(t, session.Start{Subject: subject})
	c.Advance(time.Minute)
	n.openPage(t, subject)
	c.Advance(time.Minute)
	oldest.Tokens = n.refresh(t, oldest.Tokens.Refresh)
	c.Advance(time.Minute)

	n.signIn(t, session.Start{Subject: subject})
	_, err := n.Refresh(t.Context(), second.Tokens.Refresh, laptop)
	if f := fault.From(err); !errors.Is(err, session.ErrEnded) || f.Fields()[0].Code != string(session.LimitReached) {
		t.Errorf("the least recently used session: %v, want it ended by the limit", err)
	}
	if _, err := n.verifier.Verify(t.Context(), second.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("its access token: %v, want %v", err, auth.ErrRevoked)
	}
	n.refresh(t, oldest.Tokens.Refresh)
	if live, _, err := n.List(t.Context(), subject, "", 0); err != nil || len(live) != 3 {
		t.Errorf("%d live sessions, %v; want 3", len(live), err)
	}
}

func testLimitHoldsInParallel(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.Limit = 5
	n, _ := alone(t, p, cfg)
	subject := newSubject()
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := n.start(t.Context(), session.Start{Subject: subject}); err != nil {
				t.Errorf("start: %v", err)
			}
		})
	}
	wg.Wait()
	if live, _, err := n.List(t.Context(), subject, "", 0); err != nil || len(live) != 5 {
		t.Errorf("30 parallel sign-ins left %d sessions, want 5, %v", len(live), err)
	}
}

func testList(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	subject := newSubject()
	var want []string
	var first session.Started
	for i := range 7 {
		started := n.signIn(t, session.Start{Subject: subject, Roles: []string{"member"}, Device: laptop})
		if i == 0 {
			first = started
		}
		want = append([]string{started.Session.ID}, want...)
		c.Advance(time.Minute * time.Duration(i%2)) // pairs share their time of use
	}
	n.signIn(t, session.Start{})
	ended := n.signIn(t, session.Start{Subject: subject})
	must(t, n.End(t.Context(), subject, ended.Session.ID, session.SignedOut))
	phone := session.NewDevice("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "+
		"Version/18.0 Mobile/15E148 Safari/604.1", netip.MustParseAddr("2001:db8::1"))
	c.Advance(time.Minute)
	_, err := n.Refresh(t.Context(), first.Tokens.Refresh, phone)
	must(t, err)
	want = append([]string{first.Session.ID}, want[:6]...)

	var got []string
	var cursor string
	for {
		page, next, err := n.List(t.Context(), subject, cursor, 3)
		must(t, err)
		for _, one := range page {
			got = append(got, one.ID)
			if one.ID == first.Session.ID && (one.Device != phone || !one.LastUsedAt.Equal(c.Now()) || one.Roles[0] != "member") {
				t.Errorf("session = %+v, want what the last refresh said", one)
			}
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("list = %q\nwant %q", got, want)
	}
	for _, damaged := range []string{"x", strings.Repeat("A", 33), strings.Repeat("=", 32), uuid.NewString()} {
		if _, _, err := n.List(t.Context(), subject, damaged, 3); !errors.Is(err, session.ErrCursor) {
			t.Errorf("cursor %q: %v, want %v", damaged, err, session.ErrCursor)
		}
	}
	c.Advance(7 * 24 * time.Hour)
	if live, _, err := n.List(t.Context(), subject, "", 0); err != nil || len(live) != 0 {
		t.Errorf("%d expired sessions are listed, %v", len(live), err)
	}
}

func testEnd(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	started := n.signIn(t, session.Start{})
	n.claims(t, started.Tokens.Access)
	must(t, n.End(t.Context(), started.Session.Subject, started.Session.ID, session.EndedByOwner))
	if _, err := n.verifier.Verify(t.Context(), started.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token right after End: %v, want %v", err, auth.ErrRevoked)
	}
	_, err := n.Refresh(t.Context(), started.Tokens.Refresh, laptop)
	if f := fault.From(err); !errors.Is(err, session.ErrEnded) || f.Message() == session.ErrEnded.Message() {
		t.Errorf("refresh = %v, want %v with the reason in words", err, session.ErrEnded)
	}
	if err := n.End(t.Context(), started.Session.Subject, started.Session.ID, session.EndedByOwner); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("end again = %v, want %v", err, session.ErrNotFound)
	}
}

// Another person's session must look exactly like one that does not exist.
func testEndOnlyOnesOwn(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	mine, theirs := n.signIn(t, session.Start{}), n.signIn(t, session.Start{})
	for name, id := range map[string]string{"theirs": theirs.Session.ID, "unknown": uuid.NewString(), "garbage": "'; --", "empty": ""} {
		if err := n.End(t.Context(), mine.Session.Subject, id, session.EndedByOwner); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s: %v, want %v", name, err, session.ErrNotFound)
		}
	}
	n.refresh(t, mine.Tokens.Refresh)
	n.refresh(t, theirs.Tokens.Refresh)
}

// Who changes the password goes on without noticing, and everybody else is out at once, also who was about to come in.
func testEndOthersTx(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	kept := n.signIn(t, session.Start{})
	subject := kept.Session.Subject
	other := n.signIn(t, session.Start{Subject: subject})
	keep := n.Keep(t.Context(), subject, kept.Session.ID)
	late := n.signIn(t, session.Start{Subject: subject})
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.EndOthersTx(ctx, tx, keep, session.PasswordChanged)
	})
	n.claims(t, kept.Tokens.Access)
	n.claims(t, n.refresh(t, kept.Tokens.Refresh).Access)
	for name, one := range map[string]session.Started{"another": other, "the one that came late": late} {
		if _, err := n.verifier.Verify(t.Context(), one.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("access token of %s: %v, want %v", name, err, auth.ErrRevoked)
		}
		if _, err := n.Refresh(t.Context(), one.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
			t.Errorf("refresh token of %s: %v, want %v", name, err, session.ErrEnded)
		}
	}
}

func testEndAll(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	subject := newSubject()
	kept, gone := n.signIn(t, session.Start{Subject: subject}), n.signIn(t, session.Start{Subject: subject})
	_, cookie := n.openPage(t, subject)
	stranger := n.signIn(t, session.Start{})
	must(t, n.EndOthers(t.Context(), subject, kept.Session.ID, session.EndedByOwner))
	if _, err := n.Refresh(t.Context(), gone.Tokens.Refresh, laptop); !errors.Is(err, session.ErrEnded) {
		t.Errorf("another session: %v, want %v", err, session.ErrEnded)
	}
	if _, err := n.Authenticate(t.Context(), cookie); !errors.Is(err, session.ErrEnded) {
		t.Errorf("a page's session: %v, want %v", err, session.ErrEnded)
	}
	kept.Tokens = n.refresh(t, kept.Tokens.Refresh)

	rollback := errors.New("rolled back")
	err := n.db.Write(t.Context(), func(tx sqldb.Tx) error {
		must(t, n.EndAllTx(t.Context(), tx, subject, session.PasswordReset))
		return rollback
	})
	if !errors.Is(err, rollback) {
		t.Fatal(err)
	}
	must(t, n.Apply(t.Context()))
	n.claims(t, kept.Tokens.Access)
	kept.Tokens = n.refresh(t, kept.Tokens.Refresh)

	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.EndAllTx(ctx, tx, subject, session.PasswordReset)
	})
	if _, err := n.verifier.Verify(t.Context(), kept.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token after a reset: %v, want %v", err, auth.ErrRevoked)
	}
	n.refresh(t, stranger.Tokens.Refresh)
}

// The owner can read when and how sessions ended.
func testTrail(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.Limit = 2
	n, c := alone(t, p, cfg)
	subject := newSubject()
	var started []session.Started
	for range 3 {
		started = append(started, n.signIn(t, session.Start{Subject: subject, Device: laptop}))
		c.Advance(time.Second)
	}
	must(t, n.EndOthers(t.Context(), subject, started[2].Session.ID, session.EndedByOwner))
	c.Advance(time.Second)
	must(t, n.EndOthers(t.Context(), subject, started[2].Session.ID, session.EndedByOwner)) // nothing left to end
	must(t, n.End(t.Context(), subject, started[2].Session.ID, session.SignedOut))
	events, _, err := audit.New(audit.DefaultConfig(), c.Now).List(t.Context(), p.db.Reader(), subject, "", 0)
	must(t, err)
	var got []string
	for _, e := range events {
		got = append(got, e.Action)
	}
	if want := []string{"session.signed_out", "session.others_ended", "session.limit"}; !slices.Equal(got, want) {
		t.Errorf("events = %q, want %q", got, want)
	}
}

// However sign-ins and resets fall together, a session that a reset does not end began after it.
func testEndAllAgainstParallelStarts(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	subject := newSubject()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var tokens []session.Tokens
	var overtaken atomic.Int32
	for i := range 24 {
		wg.Go(func() {
			if i%3 == 0 {
				err := n.db.Write(t.Context(), func(tx sqldb.Tx) error {
					return n.EndAllTx(t.Context(), tx, subject, session.PasswordReset)
				})
				if err := errors.Join(err, n.Apply(t.Context())); err != nil {
					t.Errorf("end: %v", err)
				}
				return
			}
			started, err := n.start(t.Context(), session.Start{Subject: subject})
			if p.redis != nil && errors.Is(err, session.ErrOvertaken) {
				overtaken.Add(1)
				return
			}
			if err != nil {
				t.Errorf("start: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			tokens = append(tokens, started.Tokens)
		})
	}
	wg.Wait()
	must(t, n.Apply(t.Context()))
	if got := len(tokens) + int(overtaken.Load()); got != 16 {
		t.Errorf("%d sign-ins succeeded or were told to try again, want 16", got)
	}
	for _, one := range tokens {
		_, verified := n.verifier.Verify(t.Context(), one.Access)
		_, refreshed := n.Refresh(t.Context(), one.Refresh, laptop)
		if (verified == nil) != (refreshed == nil) {
			t.Errorf("access token: %v, refresh token: %v; want both good or both dead", verified, refreshed)
		}
	}
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.EndAllTx(ctx, tx, subject, session.PasswordReset)
	})
	if live, _, err := n.List(t.Context(), subject, "", 0); err != nil || len(live) != 0 {
		t.Errorf("%d sessions outlive the last reset, %v", len(live), err)
	}
}

// A demoted administrator loses the role at once and is not signed out.
func testRoles(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	started := n.signIn(t, session.Start{Roles: []string{"admin"}})
	subject := started.Session.Subject
	_, cookie := n.openPage(t, subject)
	bystander := n.signIn(t, session.Start{Roles: []string{"admin"}})
	set := func(roles ...string) {
		t.Helper()
		n.write(t, func(ctx context.Context, tx sqldb.Tx) error { return n.SetRolesTx(ctx, tx, subject, roles) })
	}
	set("admin")
	n.claims(t, started.Tokens.Access)
	set("member")
	if _, err := n.verifier.Verify(t.Context(), started.Tokens.Access); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("access token with the old role: %v, want %v", err, auth.ErrRevoked)
	}
	tokens := n.refresh(t, started.Tokens.Refresh)
	if claims := n.claims(t, tokens.Access); !slices.Equal(claims.Roles, []string{"member"}) || claims.Epoch != 1 {
		t.Errorf("roles %q, epoch %d; want member, 1", claims.Roles, claims.Epoch)
	}
	if again := n.refresh(t, started.Tokens.Refresh); !slices.Equal(n.claims(t, again.Access).Roles, []string{"member"}) {
		t.Error("a repeated answer carries the old role")
	}
	one, err := n.Authenticate(t.Context(), cookie)
	if err != nil || !slices.Equal(one.Roles, []string{"member"}) || one.Epoch != 1 {
		t.Errorf("page's session = %+v, %v; want member, 1", one, err)
	}
	n.claims(t, bystander.Tokens.Access)
	set()
	if claims := n.claims(t, n.refresh(t, tokens.Refresh).Access); len(claims.Roles) != 0 || claims.Epoch != 2 {
		t.Errorf("roles %q, epoch %d; want none, 2", claims.Roles, claims.Epoch)
	}
}

// A sign-in that read the roles before they were taken away must not bring them back.
func testRolesAreNotUndoneByASignIn(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	for name, before := range map[string]bool{"signed in before": true, "never signed in": false} {
		subject := newSubject()
		if before {
			n.signIn(t, session.Start{Subject: subject, Roles: []string{"admin"}})
		}
		n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
			return n.SetRolesTx(ctx, tx, subject, []string{"member"})
		})
		started := n.signIn(t, session.Start{Subject: subject, Roles: []string{"admin"}})
		if claims := n.claims(t, started.Tokens.Access); !slices.Equal(claims.Roles, []string{"member"}) {
			t.Errorf("%s: roles = %q, want member", name, claims.Roles)
		}
	}
}

func testPage(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	opened, cookie := n.openPage(t, newSubject())
	_, other := n.openPage(t, newSubject())
	one, err := n.Authenticate(t.Context(), cookie)
	if err != nil || one.ID != opened.ID || one.Subject != opened.Subject || one.Device != laptop || !one.ExpiresAt.Equal(opened.ExpiresAt) {
		t.Fatalf("authenticate = %+v, %v; want %+v", one, err, opened)
	}
	before := n.dump(t)
	for _, bad := range []string{
		"", "x", opened.ID, cookie[:75], cookie + "A", cookie[:33] + other[33:], other[:33] + cookie[33:], strings.Repeat("A", 76),
		cookie[:60] + "\n" + cookie[61:],
	} {
		if _, err := n.Authenticate(t.Context(), bad); !errors.Is(err, session.ErrInvalidCookie) {
			t.Errorf("cookie %q: %v, want %v", bad, err, session.ErrInvalidCookie)
		}
	}
	c.Advance(59 * time.Second)
	if _, err := n.Authenticate(t.Context(), cookie); err != nil {
		t.Fatal(err)
	}
	if n.dump(t) != before {
		t.Error("the store is written to within a minute, or by garbage")
	}
	c.Advance(time.Second)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := n.Authenticate(t.Context(), cookie); err != nil {
				t.Errorf("authenticate: %v", err)
			}
		})
	}
	wg.Wait()
	if one, err = n.Authenticate(t.Context(), cookie); err != nil || !one.LastUsedAt.Equal(c.Now()) ||
		!one.ExpiresAt.Equal(c.Now().Add(7*24*time.Hour)) {
		t.Errorf("after a minute: %+v, %v", one, err)
	}
}

func testPageExpires(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.Idle, cfg.Lifetime = time.Hour, 150*time.Minute
	n, c := alone(t, p, cfg)
	_, idle := n.openPage(t, newSubject())
	_, used := n.openPage(t, newSubject())
	for range 3 {
		c.Advance(59 * time.Minute)
		if _, err := n.Authenticate(t.Context(), used); err != nil && c.Now().Before(clocktest.Noon().Now().Add(cfg.Lifetime)) {
			t.Fatalf("in use: %v", err)
		}
	}
	for name, cookie := range map[string]string{"idle": idle, "past its lifetime": used} {
		if _, err := n.Authenticate(t.Context(), cookie); !errors.Is(err, session.ErrInvalidCookie) {
			t.Errorf("%s: %v, want %v", name, err, session.ErrInvalidCookie)
		}
	}
}

func testReauthenticated(t *testing.T, p *place) {
	n, c := alone(t, p, session.DefaultConfig())
	opened, old := n.openPage(t, newSubject())
	started := n.signIn(t, session.Start{})
	c.Advance(time.Hour)
	reauthenticated := func(subject, id string) (cookie string, err error) {
		var commit func(context.Context) (string, error)
		err = n.db.Write(t.Context(), func(tx sqldb.Tx) (err error) {
			commit, err = n.Reauthenticated(t.Context(), tx, subject, id)
			return err
		})
		if err != nil {
			return "", err
		}
		return commit(t.Context())
	}
	cookie, err := reauthenticated(opened.Subject, opened.ID)
	must(t, err)
	if one, err := n.Authenticate(t.Context(), cookie); err != nil || !one.AuthTime.Equal(c.Now()) || one.ID != opened.ID {
		t.Errorf("new cookie: %+v, %v", one, err)
	}
	if _, err := n.Authenticate(t.Context(), old); !errors.Is(err, session.ErrInvalidCookie) {
		t.Errorf("old cookie: %v, want %v", err, session.ErrInvalidCookie)
	}
	if cookie, err := reauthenticated(started.Session.Subject, started.Session.ID); err != nil || cookie != "" {
		t.Errorf("a session without a cookie: %q, %v", cookie, err)
	}
	if claims := n.claims(t, n.refresh(t, started.Tokens.Refresh).Access); !claims.AuthTime.Equal(c.Now()) {
		t.Errorf("auth_time = %v, want %v", claims.AuthTime, c.Now())
	}
	must(t, n.End(t.Context(), opened.Subject, opened.ID, session.SignedOut))
	for _, id := range []string{opened.ID, started.Session.ID, uuid.NewString(), "x", ""} {
		if _, err := reauthenticated(opened.Subject, id); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("session %q: %v, want %v", id, err, session.ErrNotFound)
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	must(t, session.DefaultConfig().Validate())
	err := session.Config{Idle: time.Second, Window: time.Hour, LostAnswer: "shrug"}.Validate()
	for _, key := range []string{"idle: 1s", "lifetime: 0s", "window: 1h", `lost_answer: "shrug"`, "limit: 0"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("error does not say %q:\n%v", key, err)
		}
	}
}

// Revocations are kept for the longest lifetime that an access token can have; it must not grow elsewhere unnoticed.
func TestMaxAccessLifetime(t *testing.T) {
	t.Parallel()
	cfg := token.DefaultConfig()
	cfg.Lifetime = session.MaxAccessLifetime + time.Second
	if cfg.Validate() == nil {
		t.Errorf("access tokens may live longer than revocations are kept")
	}
}

func TestDeviceLabel(t *testing.T) {
	t.Parallel()
	const webkit = "AppleWebKit/537.36 (KHTML, like Gecko) "
	for _, c := range []struct{ want, userAgent string }{
		{"Chrome on Windows", laptop.UserAgent},
		{"Edge on Windows", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit + "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0"},
		{"Safari on iPhone", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"},
		{"Chrome on iPad", "Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/140.0 Mobile/15E148 Safari/604.1"},
		{"Safari on Mac", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15"},
		{"Firefox on Linux", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		{"Samsung Internet on Android", "Mozilla/5.0 (Linux; Android 15; SM-S928N) " + webkit + "SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36"},
		{"Whale on Windows", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit + "Chrome/138.0.0.0 Whale/4.33.325.17 Safari/537.36"},
		{"KakaoTalk on Android", "Mozilla/5.0 (Linux; Android 15; SM-S928N; wv) " + webkit + "Version/4.0 Chrome/140.0.0.0 Mobile Safari/537.36 KAKAOTALK/25.8.0 (INAPP)"},
		{"Naver on iPhone", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 NAVER(inapp; search; 2000; 12.15.1)"},
		{"Headless Chrome on Linux", "Mozilla/5.0 (X11; Linux x86_64) " + webkit + "HeadlessChrome/140.0.0.0 Safari/537.36"},
		{"Browser on Android", "Mozilla/5.0 (Linux; Android 15)"},
		{"Unknown browser", "Mozilla/5.0"},
		{"curl", "curl/8.5.0"},
		{"Go-http-client", "Go-http-client/2.0"},
		{"okhttp", "okhttp/4.12.0 (x)"},
		{"Unknown device", ""},
		{"Unknown device", "/1.0"},
	} {
		if got := session.DeviceLabel(c.userAgent); got != c.want {
			t.Errorf("%q is %q, want %q", c.userAgent, got, c.want)
		}
	}
}

func FuzzNewDevice(f *testing.F) {
	for _, seed := range []string{laptop.UserAgent, "curl/8", "\x00\x1b[31m\n", strings.Repeat("한", 100), "a\xff\xfe", strings.Repeat("x", 255) + "é",
		"Mozilla/5.0 (Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		d := session.NewDevice(header, netip.Addr{})
		for _, s := range []string{d.UserAgent, d.Label} {
			if len(s) > 256 || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
				t.Errorf("%q became %q", header, s)
			}
		}
		if stored, err := session.StoredDevice(d); err != nil || stored != d {
			t.Errorf("%q comes back from Redis as %q, %v", d, stored, err)
		}
		if d.Label == "" || session.NewDevice(d.UserAgent, netip.Addr{}) != d {
			t.Errorf("%q became %q, then something else", header, d)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "srt_", "srt_" + strings.Repeat("A", 156), "srt_AQ" + strings.Repeat("A", 154), strings.Repeat("A", 76), "AQ" + strings.Repeat("A", 74), strings.Repeat("A", 32),
		strings.Repeat("_", 32), strings.Repeat("A", 31) + "\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// What is accepted has one spelling.
		if again, err := session.ParseRefreshForTest(s); err == nil && again != s {
			t.Errorf("refresh token %q reads as %q", s, again)
		}
		if again, ok := session.ParseCookieForTest(s); ok && again != s {
			t.Errorf("cookie %q reads as %q", s, again)
		}
		if again, err := session.ParseCursorForTest(s); err == nil && again != s {
			t.Errorf("cursor %q reads as %q", s, again)
		}
		if id, err := session.ParseID(s); err == nil && id.String() != s {
			t.Errorf("id %q reads as %q", s, id)
		}
	})
}
