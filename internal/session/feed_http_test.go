package session_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

func TestFeedOverHTTP(t *testing.T) {
	t.Parallel()
	onSQL(t, []test{
		{"follow", testFollow},
		{"resume", testResume},
		{"begins anew", testFeedBeginsAnew},
		{"who may", testWhoMayFollow},
		{"how many may", testHowManyMayFollow},
		{"the token ends", testStreamEndsWithItsToken},
		{"the server stops", testStreamEndsWithTheServer},
		{"unreadable", testFeedThatCannotBeRead},
		{"kinds", testKindsOfRevocations},
		// The last, as all that follow would have to read what these leave.
		{"pages", testFeedPages},
		{"slow reader", testSlowReaderIsCut},
	})
}

// provider is a node that serves the feed.
type provider struct {
	*node
	clock  *clocktest.Clock
	tokens *token.Service
	client string // that may follow the feed
	url    string
	stop   func()
}

func newProvider(t testing.TB, p *place, cfg session.Config) *provider {
	t.Helper()
	s := &provider{clock: clocktest.Noon(), client: newSubject()}
	s.node = newNode(t, p, cfg, s.clock.Now, func(d *session.Deps) { s.tokens = d.Tokens })
	mux := http.NewServeMux()
	api := httpd.NewAPI(mux, httpd.APIConfig{Title: "test", Version: "1"})
	s.MountFeed(mux, api, func(r *http.Request) (*auth.Claims, error) {
		claims, err := s.verifier.VerifyRequest(r)
		if err != nil {
			return nil, fault.New(fault.Unauthenticated, "test.unauthenticated", "No.").Wrap(err)
		}
		return claims, nil
	})
	serve := httpd.DefaultConfig()
	serve.Listen, serve.WriteTimeout, serve.RequestTimeout, serve.ReadTimeout = "127.0.0.1:0", 1500*time.Millisecond, time.Second, 1500*time.Millisecond
	log := slog.New(slog.DiscardHandler)
	server, err := httpd.NewServer(serve, httpd.Chain(log, prometheus.NewRegistry(), serve)(mux), log)
	must(t, err)
	must(t, server.Listen(t.Context()))
	s.url = "http://" + server.Addr() + "/v1/revocations"
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	s.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(s.stop)
	return s
}

// service is a token of a service that may follow the feed.
func (s *provider) service(t testing.TB) string {
	t.Helper()
	access, err := s.tokens.Issue(t.Context(), token.Grant{Subject: s.client, ClientID: s.client, Scope: "a " + session.FeedScope})
	must(t, err)
	return access.Token
}

// event is one server-sent event.
type event struct{ name, id, data string }

// follower is a service that follows the feed.
type follower struct {
	body io.ReadCloser
	scan *bufio.Scanner
}

func (s *provider) ask(t testing.TB, bearer, position string, stream bool) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url, nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+bearer)
	if stream {
		r.Header.Set("Accept", "text/event-stream")
		r.Header.Set("Last-Event-ID", position)
	} else if position != "" {
		r.URL.RawQuery = "after=" + position
	}
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	t.Cleanup(func() { answer.Body.Close() })
	return answer
}

func (s *provider) follow(t testing.TB, position string) *follower {
	t.Helper()
	answer := s.ask(t, s.service(t), position, true)
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/event-stream" ||
		answer.Header.Get("Cache-Control") != "no-store" || answer.Header.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("%s %v", answer.Status, answer.Header)
	}
	scan := bufio.NewScanner(answer.Body)
	scan.Buffer(nil, 1<<20)
	return &follower{answer.Body, scan}
}

// next returns the next event, false at the end of the stream.
func (f *follower) next() (e event, ok bool) {
	for f.scan.Scan() {
		name, value, _ := strings.Cut(f.scan.Text(), ": ")
		switch name {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.data = value
		case "":
			return e, true
		}
	}
	return e, false
}

type wireEntry struct {
	Kind, ID     string
	Epoch, Until int64
}

// until reads to the next event of that name, and returns it with all entries on the way.
func (f *follower) until(t testing.TB, name string) (last event, entries []wireEntry, resets int) {
	t.Helper()
	for {
		e, ok := f.next()
		if !ok {
			t.Fatalf("the stream ended before %q", name)
		}
		switch e.name {
		case "reset":
			resets++
		case "revocations":
			var batch struct{ Entries []wireEntry }
			must(t, json.Unmarshal([]byte(e.data), &batch))
			entries = append(entries, batch.Entries...)
		}
		if e.name == name {
			return e, entries, resets
		}
	}
}

func wireID(r auth.Revocation) string { return base64.RawURLEncoding.EncodeToString(r.ID[:]) }

func wireIDs(entries []wireEntry) []string {
	ids := make([]string, len(entries))
	for i, e := range entries {
		ids[i] = e.ID
	}
	return ids
}

// revoke revokes so many tokens and returns their ids on the wire.
func (s *provider) revoke(t testing.TB, from, n int) []string {
	t.Helper()
	ids, all := make([]string, n), make([]auth.Revocation, n)
	for i := range all {
		all[i] = session.OfToken(fmt.Sprint("token ", from+i))
		ids[i] = wireID(all[i])
	}
	must(t, s.Revoke(t.Context(), all...))
	must(t, s.Apply(t.Context()))
	return ids
}

// A service that misses a revocation lets in who was thrown out.
func testFollow(t *testing.T, p *place) {
	s := newProvider(t, p, session.DefaultConfig())
	s.run(t)
	before := s.revoke(t, 0, 700)
	f := s.follow(t, "")
	e, entries, resets := f.until(t, "current")
	if got := wireIDs(entries); !slices.Equal(got[len(got)-700:], before) || resets != 1 || !strings.Contains(e.data, `"age_ms":0`) {
		t.Errorf("snapshot: %d entries, %d resets, then %+v", len(entries), resets, e)
	}
	started := s.signIn(t, session.Start{})
	must(t, s.End(t.Context(), started.Session.Subject, started.Session.ID, session.SignedOut))
	_, entries, resets = f.until(t, "revocations")
	want := wireID(auth.Revocation{ID: auth.RevocationHash(auth.RevokeSession, started.Session.ID)})
	until := s.clock.Now().Add(session.MaxAccessLifetime)
	if len(entries) != 1 || entries[0].ID != want || entries[0].Kind != "session" || resets != 0 || entries[0].Until < until.Unix() {
		t.Errorf("a session that ended: %+v", entries)
	}
	// It goes on beyond every timeout of the server, and says that it does.
	for range 3 {
		if e, ok := f.next(); !ok || e.name != "current" {
			t.Errorf("heartbeat: %+v %t", e, ok)
		}
	}
}

// Who was away for a moment gets what it missed, once.
func testResume(t *testing.T, p *place) {
	s := newProvider(t, p, session.DefaultConfig())
	s.revoke(t, 0, 3)
	e, _, _ := s.follow(t, "").until(t, "current")
	missed := s.revoke(t, 3, 1200)
	e, entries, resets := s.follow(t, e.id).until(t, "current")
	if !slices.Equal(wireIDs(entries), missed) || resets != 0 {
		t.Errorf("missed %d, got %d, %d resets", len(missed), len(entries), resets)
	}
	if _, entries, resets = s.follow(t, e.id).until(t, "current"); len(entries) != 0 || resets != 0 {
		t.Errorf("nothing was missed: %d entries, %d resets", len(entries), resets)
	}
	number, _, _ := strings.Cut(e.id, ".")
	for _, foreign := range []string{"x", number, number + ".00000000", "99999999.00000000", "-1.00000000", e.id + "0", "0" + e.id} {
		if _, entries, resets := s.follow(t, foreign).until(t, "current"); resets != 1 || len(entries) < 1203 {
			t.Errorf("position %q: %d entries, %d resets", foreign, len(entries), resets)
		}
	}
}

// After a failover numbers may mean something else: who follows must get everything again, and not believe to know it.
func testFeedBeginsAnew(t *testing.T, p *place) {
	s := newProvider(t, p, session.DefaultConfig())
	s.revoke(t, 0, 2)
	f := s.follow(t, "")
	last, _, _ := f.until(t, "current")
	s.exec(t, `DELETE FROM revocations WHERE seq = (SELECT seq FROM revocation_feed)`)
	s.exec(t, `UPDATE revocation_feed SET seq = seq - 1`)
	other := s.revoke(t, 5, 1)
	for name, who := range map[string]*follower{"follows": f, "comes back": s.follow(t, last.id)} {
		_, entries, resets := who.until(t, "revocations")
		for len(entries)%500 == 0 { // a whole batch: there is more
			_, more, _ := who.until(t, "revocations")
			entries = append(entries, more...)
		}
		if resets != 1 || wireIDs(entries)[len(entries)-1] != other[0] {
			t.Errorf("who %s: %d resets, %d entries", name, resets, len(entries))
		}
	}
	// What is over is not told any more, nor kept.
	s.clock.Advance(2 * time.Hour)
	must(t, s.Apply(t.Context()))
	if e, entries, _ := s.follow(t, "").until(t, "current"); len(entries) != 0 || e.id != "0" {
		t.Errorf("two hours later: %+v, %d entries", e, len(entries))
	}
}

type feedPage struct {
	Position    string
	Entries     []wireEntry
	AgeMS       int64 `json:"age_ms"`
	More, Reset bool
}

func testFeedPages(t *testing.T, p *place) {
	s := newProvider(t, p, session.DefaultConfig())
	_, err := s.db.Writer().ExecContext(t.Context(), `DELETE FROM revocations`)
	must(t, err)
	must(t, s.Apply(t.Context()))
	bearer := s.service(t)
	first := decode[feedPage](t, s.ask(t, bearer, "", false), 200)
	if first.Position != "0" || len(first.Entries) != 0 || first.Entries == nil || first.More || !first.Reset {
		t.Errorf("an empty feed: %+v", first)
	}
	want := s.revoke(t, 0, 14_000) // at once, more than the parameters of a statement could hold
	one := decode[feedPage](t, s.ask(t, bearer, first.Position, false), 200)
	two := decode[feedPage](t, s.ask(t, bearer, one.Position, false), 200)
	if !one.More || one.Reset || two.More || two.Reset || len(one.Entries) != 10_000 ||
		!slices.Equal(append(wireIDs(one.Entries), wireIDs(two.Entries)...), want) {
		t.Errorf("pages: %d %t, %d %t", len(one.Entries), one.More, len(two.Entries), two.More)
	}
}

// The feed tells when people sign out. It is for services, and for those that were given it.
func testWhoMayFollow(t *testing.T, p *place) {
	s := newProvider(t, p, session.DefaultConfig())
	person := s.signIn(t, session.Start{ClientID: "shop", Scope: session.FeedScope}).Tokens.Access
	another, err := s.tokens.Issue(t.Context(), token.Grant{Subject: "shop", ClientID: "shop", Scope: "revocations revocations:read2"})
	must(t, err)
	exchanged, err := s.tokens.Issue(t.Context(), token.Grant{Subject: newSubject(), ClientID: "shop", Scope: session.FeedScope})
	must(t, err)
	for name, bearer := range map[string]string{"a person": person, "another scope": another.Token, "in a person's name": exchanged.Token} {
		for _, stream := range []bool{true, false} {
			wantProblem(t, s.ask(t, bearer, "", stream), session.ErrFeedForbidden)
			if t.Failed() {
				t.Fatal(name)
			}
		}
	}
	if answer := s.ask(t, "x", "", true); answer.StatusCode != 401 || answer.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("without a token: %s", answer.Status)
	}
}

func testHowManyMayFollow(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.FeedStreams = 2
	s := newProvider(t, p, cfg)
	one, _ := s.follow(t, ""), s.follow(t, "")
	wantProblem(t, s.ask(t, s.service(t), "", true), session.ErrFeedFull)
	must(t, one.body.Close())
	deadline := time.Now().Add(20 * time.Second)
	for s.ask(t, s.service(t), "", true).StatusCode != 200 {
		if time.Now().After(deadline) {
			t.Fatal("a stream that ended still counts")
		}
	}
}

// Who is no longer trusted must not go on listening.
func testStreamEndsWithItsToken(t *testing.T, p *place) {
	s := newProvider(t, p, session.DefaultConfig())
	expires, revoked := s.follow(t, ""), s.follow(t, "")
	s.clock.Advance(16 * time.Minute)
	expires.ends(t)
	revoked.ends(t)
	again := s.follow(t, "")
	again.until(t, "current")
	must(t, s.Revoke(t.Context(), session.OfClient(s.client, 1)))
	again.ends(t)
}

func (f *follower) ends(t testing.TB) {
	t.Helper()
	for {
		if _, ok := f.next(); !ok {
			if err := f.scan.Err(); err != nil {
				t.Errorf("the stream ends with %v", err)
			}
			return
		}
	}
}

// A server that waits for its streams would never stop, or cut everybody else.
func testStreamEndsWithTheServer(t *testing.T, p *place) {
	s := newProvider(t, p, session.DefaultConfig())
	f := s.follow(t, "")
	f.until(t, "current")
	began := time.Now()
	s.stop()
	f.ends(t)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the server stopped after %v", took)
	}
}

// Whoever does not read is not waited for, and costs no memory.
func testSlowReaderIsCut(t *testing.T, p *place) {
	cfg := session.DefaultConfig()
	cfg.FeedPatience = 200 * time.Millisecond
	s := newProvider(t, p, cfg)
	const many = 15_000 // entries at a time, in all more than the buffers between the two hold
	id := session.OfToken("x").ID
	for range 10 {
		s.exec(t, `INSERT INTO revocations (seq, kind, hash, epoch, keep_until)
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 15000)
			SELECT (SELECT seq FROM revocation_feed) + i, 'token', $1, 0, $2 FROM n`,
			id[:], s.clock.Now().Add(time.Hour).UnixMicro())
		s.exec(t, `UPDATE revocation_feed SET seq = seq + $1`, many)
		must(t, s.Apply(t.Context()))
	}
	f := s.follow(t, "")
	deadline := time.Now().Add(30 * time.Second)
	for s.gauge(t, "sumun_session_feed_streams") > 0 {
		if time.Now().After(deadline) {
			t.Fatal("it is still being waited for")
		}
	}
	if s.gauge(t, "sumun_session_feed_streams_cut_total") != 1 {
		t.Error("it was not counted")
	}
	for {
		if _, ok := f.next(); !ok {
			break
		}
	}
	if f.scan.Err() == nil {
		t.Error("a part was taken for the whole")
	}
}

// gauge reads a metric without labels.
func (n *node) gauge(t testing.TB, name string) float64 {
	t.Helper()
	families, err := n.metrics.Gather()
	must(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// Who follows a node that is cut off from the database must get to know how old its knowledge is.
func testFeedThatCannotBeRead(t *testing.T, p *place) {
	s := newProvider(t, p, session.DefaultConfig())
	f := s.follow(t, "")
	f.until(t, "current")
	s.clock.Advance(90 * time.Second)
	for {
		e, _, _ := f.until(t, "current")
		var current struct {
			AgeMS int64 `json:"age_ms"`
		}
		must(t, json.Unmarshal([]byte(e.data), &current))
		if current.AgeMS == 90_000 {
			return
		}
		if current.AgeMS != 0 {
			t.Fatalf("age %d ms", current.AgeMS)
		}
	}
}

// A key that became known must be worthless everywhere, at once; and nobody may be given tokens that are dead on arrival.
func testKindsOfRevocations(t *testing.T, p *place) {
	s := newProvider(t, p, session.DefaultConfig())
	other := newNode(t, p.again(t), session.DefaultConfig(), s.clock.Now)
	started := s.signIn(t, session.Start{ClientID: "shop"})
	stays := s.signIn(t, session.Start{Subject: started.Session.Subject, ClientID: "app"})
	claims := other.claims(t, started.Tokens.Access)
	must(t, s.Revoke(t.Context(), session.OfGrant(claims.GrantID)))
	must(t, s.Revoke(t.Context(), session.OfToken("another")))
	must(t, other.Apply(t.Context()))
	if !other.Revocations().Revoked(claims) {
		t.Error("a grant that was revoked is accepted")
	}
	other.claims(t, stays.Tokens.Access)

	kept := other.signIn(t, session.Start{})
	must(t, s.tokens.Rotate(t.Context(), token.RotateOptions{RevokeOld: true,
		Revoked: func(ctx context.Context, tx sqldb.Tx, kids []string) error {
			return s.RevokeTx(ctx, tx, session.OfKeys(kids...)...)
		}}))
	must(t, other.Apply(t.Context())) // what a wake or a poll does
	if _, err := other.verifier.Verify(t.Context(), stays.Tokens.Access); err == nil {
		t.Error("a token of a revoked key is accepted")
	}
	other.claims(t, other.refresh(t, kept.Tokens.Refresh).Access)
}

// A stranger's position must not be able to break the server, and has one spelling.
func FuzzFeedPosition(f *testing.F) {
	for _, seed := range []string{"0", "1.00000000", "57.a1b2c3d4", "", "-1.00000000", "1.A1B2C3D4", "9223372036854775807.ffffffff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if again, ok := session.ParsePositionForTest(s); ok && again != s {
			t.Errorf("%q is read as %q", s, again)
		}
	})
}
