package oidc_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/identity/identitytest"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/oidc"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
	"github.com/sumunio/sumun/internal/token"
	"github.com/sumunio/sumun/internal/web"
)

var cookies = httpd.Cookies{Secure: true}

const issuer = "https://id.example.com"

func migrations() []sqldb.Migrations {
	return []sqldb.Migrations{keyring.Migrations, token.Migrations, audit.Migrations, mail.Migrations, replay.Migrations, session.Migrations,
		identity.Migrations, oidc.Migrations}
}

// node is one process of a test.
type node struct {
	*oidc.Service
	db       *sqldb.DB
	sessions *session.Service
	people   *people
	tokens   *token.Service
	ring     *keyring.Keyring
	verifier *auth.Verifier
	clock    *clocktest.Clock
	metrics  *prometheus.Registry
	handler  http.Handler
}

// newNode starts a process. Several may share a database.
func newNode(t testing.TB, db *sqldb.DB, c *clocktest.Clock, configure ...func(*oidc.Config)) *node {
	t.Helper()
	return newNodeSigning(t, db, c, auth.ES256, configure...)
}

// newNodeSigning is newNode with another algorithm of signatures.
func newNodeSigning(t testing.TB, db *sqldb.DB, c *clocktest.Clock, algorithm string, configure ...func(*oidc.Config)) *node {
	t.Helper()
	return newNodeAt(t, place{db: db}, c, algorithm, configure...)
}

// place is where a node keeps what it knows.
type place struct {
	db     *sqldb.DB
	redis  *redisdb.DB // for sessions; nil: they are in db
	prefix string      // of keys

	lifetime time.Duration // of sessions; 0: the default
}

// clock is what Redis goes by: the clock of the test, which its own is not.
func (p place) clock(c *clocktest.Clock) func() time.Time {
	if p.redis == nil {
		return nil
	}
	return c.Now
}

// newNodeAt is newNodeSigning with a place for sessions.
func newNodeAt(t testing.TB, at place, c *clocktest.Clock, algorithm string, configure ...func(*oidc.Config)) *node {
	t.Helper()
	db := at.db
	log := slog.New(slog.DiscardHandler)
	master := keyring.Secret(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)))
	keys, err := keyring.Open(t.Context(), db, keyring.Config{MasterKey: master}, c.Now)
	must(t, err)
	signing := token.DefaultConfig()
	signing.Algorithm = algorithm
	tokens, err := token.New(signing, token.Deps{DB: db, Keyring: keys, Issuer: issuer, Clock: c.Now, Log: log})
	must(t, err)
	must(t, tokens.Load(t.Context()))
	queue, err := mail.NewQueue(mail.DefaultConfig(), mail.Deps{DB: db, Clock: c.Now, Log: log})
	must(t, err)
	trail := audit.New(audit.DefaultConfig(), c.Now)
	n := &node{db: db, people: &people{}, tokens: tokens, ring: keys, clock: c, metrics: prometheus.NewRegistry()}
	lives := session.DefaultConfig()
	if at.lifetime > 0 {
		lives.Idle, lives.Lifetime = at.lifetime, at.lifetime
	}
	n.sessions, err = session.New(lives, session.Deps{
		DB: db, Redis: at.redis, RedisPrefix: at.prefix, Keyring: keys, Tokens: tokens, Audit: trail, Mail: queue, Clock: c.Now, Log: log,
		StoreClock: at.clock(c),
	})
	must(t, err)
	must(t, n.sessions.Load(t.Context()))
	n.people = &people{Service: identitytest.People(t, keys, identity.Deps{
		DB: db, Sessions: n.sessions, Audit: trail, Mail: queue, Limiter: ratelimit.Off{}, Issuer: issuer, Limits: true, Clock: c.Now, Log: log,
	})}
	renderer, err := web.New(web.DefaultConfig())
	must(t, err)
	proofs, err := auth.NewProofs(auth.ProofConfig{PublicURLs: []string{issuer}, Clock: c.Now})
	must(t, err)
	cfg := oidc.DefaultConfig()
	for _, change := range configure {
		change(&cfg)
	}
	n.Service, err = oidc.New(cfg, oidc.Deps{
		DB: db, Sessions: n.sessions, People: n.people, Tokens: tokens, Keyring: keys, Audit: trail, Limiter: ratelimit.NewMemory(c.Now),
		Replays: replay.NewSQL(db, c.Now, log), Proofs: proofs, Issuer: issuer, Certificates: true, Authorities: trusted(t, c.Now),
		Clock: c.Now, Log: log, Metrics: n.metrics,
	})
	must(t, err)
	n.verifier, err = auth.New(auth.Config{Issuer: issuer, Audience: issuer, Keys: tokens, Revocations: n.sessions.Revocations(), Clock: c.Now})
	must(t, err)
	mux := http.NewServeMux()
	n.Mount(mux, renderer, cookies)
	serve := httpd.DefaultConfig()
	n.handler = httpd.Chain(log, prometheus.NewRegistry(), serve, oidc.CrossOrigin()...)(httpd.Routes(mux, nil))
	return n
}

// people are accounts in memory, beside those that have a password.
type people struct {
	*identity.Service
	byID sync.Map
}

func (p *people) Account(ctx context.Context, id string) (identity.Account, error) {
	if a, there := p.byID.Load(id); there {
		return a.(identity.Account), nil
	}
	return p.Service.Account(ctx, id)
}

// onEach runs a test with a node on every engine.
func onEach(t *testing.T, fn func(t *testing.T, n *node)) {
	t.Helper()
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) { fn(t, newNode(t, db, clocktest.Noon())) })
}

// onEachWith is onEach with another configuration.
func onEachWith(t *testing.T, configure func(*oidc.Config), fn func(t *testing.T, n *node)) {
	t.Helper()
	t.Parallel()
	sqldbtest.Each(t, migrations(), func(t *testing.T, db *sqldb.DB) { fn(t, newNode(t, db, clocktest.Noon(), configure)) })
}

// answer is what an endpoint says.
type answer struct {
	status int
	header http.Header
	body   string
}

func (n *node) send(t testing.TB, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	n.handler.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	must(t, err)
	return answer{w.Code, w.Result().Header, string(body)}
}

// post sends a form to an endpoint, with what change adds.
func (n *node) post(t testing.TB, path string, form url.Values, change ...func(*http.Request)) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range change {
		c(r)
	}
	return n.send(t, r)
}

func basic(id, secret string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret)) }
}

// params makes a form of names and values.
func params(pairs ...string) url.Values {
	form := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return form
}

// refused fails unless the answer is that error of RFC 6749, in its form.
func (a answer) refused(t testing.TB, status int, name string) {
	t.Helper()
	var body map[string]string
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Errorf("%v in %s", err, a.body)
	}
	if a.status != status || body["error"] != name || body["error_description"] == "" {
		t.Errorf("answer %d %s, want %d %s", a.status, a.body, status, name)
	}
	if a.header.Get("Cache-Control") != "no-store" || (status == 401) != (a.header.Get("WWW-Authenticate") != "") {
		t.Errorf("header of a refusal: %v", a.header)
	}
}

// tokenAnswer is a token as clients read it.
type tokenAnswer struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	Scope        string `json:"scope"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
}

func (a answer) token(t testing.TB) (got tokenAnswer) {
	t.Helper()
	if a.status != 200 || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" {
		t.Fatalf("answer %d %v %s", a.status, a.header, a.body)
	}
	must(t, json.Unmarshal([]byte(a.body), &got))
	return got
}

func (n *node) claims(t testing.TB, access string) *auth.Claims {
	t.Helper()
	claims, err := n.verifier.Verify(t.Context(), access)
	must(t, err)
	return claims
}

// keys are those that tokens are verified with.
func (n *node) keys() auth.KeySource { return n.tokens }

func (n *node) add(t testing.TB, id string, m oidc.Metadata) (c oidc.Client, secret string) {
	t.Helper()
	if m.Name == "" {
		m.Name = "Test"
	}
	c, secret, err := n.AddClient(t.Context(), id, m)
	must(t, err)
	return c, secret
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
