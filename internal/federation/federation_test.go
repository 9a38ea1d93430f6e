package federation_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/federation"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/identity/identitytest"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/replay"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
	"github.com/sumunio/sumun/internal/web"
)

const goodPW = "lantern-orbit-meadow-42"

var sets = append(identitytest.Migrations(), replay.Migrations, federation.Migrations)

// world is our site on a real database, with its pages on a TLS listener, and the stand-in for all providers.
type world struct {
	t      *testing.T
	db     *sqldb.DB
	clock  *clocktest.Clock
	people *identity.Service
	queue  *mail.Queue
	box    *mail.Mailbox
	others *standIn
	site   *httptest.Server
	logged *bytes.Buffer
}

func each(t *testing.T, fn func(w *world), change ...func(*federation.Config)) {
	t.Helper()
	t.Parallel()
	sqldbtest.Each(t, sets, func(t *testing.T, db *sqldb.DB) { fn(newWorld(t, db, change...)) })
}

func newWorld(t *testing.T, db *sqldb.DB, change ...func(*federation.Config)) *world {
	t.Helper()
	w := &world{t: t, db: db, clock: clocktest.At(time.Now().Truncate(time.Microsecond)), logged: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(&locked{w: w.logged}, nil))
	mux := http.NewServeMux()
	guard := httpd.Guard(httpd.DefaultConfig(), federation.CrossOrigin()...)
	w.site = httptest.NewTLSServer(guard(mux))
	t.Cleanup(w.site.Close)
	w.others = newStandIn(t, w.clock.Now)
	cfg := w.config()
	for _, c := range change {
		c(&cfg)
	}
	pages := web.DefaultConfig()
	pages.Providers = cfg.Buttons()
	renderer, err := web.New(pages)
	w.must(err)
	unit := identitytest.New(t, db, w.site.URL, renderer, w.clock.Now, log)
	w.people, w.queue, w.box = unit.People, unit.Queue, unit.Box
	others, err := federation.New(cfg, federation.Deps{DB: db, People: w.people, Sealer: unit.Ring, Replays: replay.NewSQL(db, w.clock.Now, log), Limiter: ratelimit.NewMemory(w.clock.Now),
		Issuer: w.site.URL, Transport: w.others, Clock: w.clock.Now, Log: log})
	w.must(err)
	cookies := httpd.Cookies{Secure: true}
	w.people.MountPages(mux, renderer, cookies)
	others.Mount(mux, renderer, cookies)
	return w
}

// locked lets several goroutines write the log.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (w *world) config() federation.Config {
	cfg := federation.DefaultConfig()
	cfg.Timeout = 2 * time.Second
	for _, name := range []string{"google", "kakao", "naver", "apple", "github", "work", "corp"} {
		p := federation.Provider{Name: name, ClientID: "our-client", ClientSecret: "our-secret", SignUp: true}
		switch name {
		case "apple":
			p.ClientSecret, p.TeamID, p.KeyID, p.Key = "", "TEAM123456", "KEY1234567", keyring.Secret(w.others.appleKey())
		case "work":
			p.Issuer, p.Label = "https://id.work.example", "Example Corp."
		case "corp":
			p.Kind, p.ClientID, p.ClientSecret, p.Label = federation.KindSAML, "", "", "Corp"
			p.Issuer, p.MetadataURL, p.EmailDomains = idpEntity, "https://idp.corp.example/metadata", []string{"corp.example"}
			p.Key = keyring.Secret(pemOf(w.t, ourKey()))
		}
		cfg.Providers = append(cfg.Providers, p)
	}
	return cfg
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// mails returns what an address received, newest first.
func (w *world) mails(to string) []mail.Received {
	w.t.Helper()
	w.must(w.queue.Drain(w.t.Context()))
	all, err := w.box.List(w.t.Context())
	w.must(err)
	var got []mail.Received
	for _, m := range all {
		if strings.EqualFold(m.To, to) {
			got = append(got, m)
		}
	}
	return got
}

var linkInMail = regexp.MustCompile(`https://\S+\?token=[A-Za-z0-9_-]+`)

func (w *world) link(to string) string {
	w.t.Helper()
	for _, m := range w.mails(to) {
		if link := linkInMail.FindString(m.Text); link != "" {
			return link
		}
	}
	w.t.Fatalf("no link was mailed to %s", to)
	return ""
}

// member has an account with a password.
func (w *world) member(email string) identity.Account {
	w.t.Helper()
	a, err := w.people.AddAccount(w.t.Context(), identity.NewAccount{Email: email, Name: "Somebody", Password: goodPW, Verified: true})
	w.must(err)
	return a
}

// browser is one person's browser. It follows redirects on our site only.
type browser struct {
	w    *world
	http *http.Client
}

func (w *world) browser() *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	w.must(err)
	c := w.site.Client()
	return &browser{w: w, http: &http.Client{Transport: c.Transport, Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if "https://"+r.URL.Host != w.site.URL {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

// page is an answer, read.
type page struct {
	status int
	path   string
	text   string
	header http.Header
}

func (b *browser) do(req *http.Request) page {
	b.w.t.Helper()
	req.Header.Set("Accept-Language", "en")
	resp, err := b.http.Do(req)
	b.w.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	b.w.must(err)
	return page{resp.StatusCode, resp.Request.URL.Path, string(text), resp.Header}
}

func (b *browser) get(path string) page {
	b.w.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = b.w.site.URL + path
	}
	req, err := http.NewRequestWithContext(b.w.t.Context(), http.MethodGet, path, nil)
	b.w.must(err)
	return b.do(req)
}

func (b *browser) post(path string, form url.Values) page {
	b.w.t.Helper()
	req, err := http.NewRequestWithContext(b.w.t.Context(), http.MethodPost, b.w.site.URL+path, strings.NewReader(form.Encode()))
	b.w.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(req)
}

func (b *browser) signIn(email string) {
	b.w.t.Helper()
	if p := b.post("/sign-in", url.Values{"identifier": {email}, "password": {goodPW}}); p.path != "/account" {
		b.w.t.Fatalf("sign-in of %s ended at %s with %d", email, p.path, p.status)
	}
}

// go to a provider and return the address there.
func (b *browser) leave(path string) string {
	b.w.t.Helper()
	p := b.get(path)
	to := p.header.Get("Location")
	if p.status != http.StatusSeeOther || to == "" {
		b.w.t.Fatalf("%s answers %d at %s: %s", path, p.status, p.path, headline(p))
	}
	return to
}

// back is the browser coming back from the provider.
func (b *browser) back(provider string, answer url.Values) page {
	b.w.t.Helper()
	return b.get("/federation/" + provider + "/callback?" + answer.Encode())
}

// with signs in with a provider.
func (b *browser) with(provider string, who person) page {
	b.w.t.Helper()
	return b.back(provider, b.w.others.approve(b.leave("/federation/"+provider), who))
}

// whose returns the account that the browser is signed in to, "" for none.
func (b *browser) whose() string {
	b.w.t.Helper()
	p := b.get("/account")
	if p.path != "/account" {
		return ""
	}
	m := regexp.MustCompile(`<h3>E-mail address</h3><p>([^<]+)</p>`).FindStringSubmatch(p.text)
	if m == nil {
		b.w.t.Fatal("the account page shows no address")
	}
	return m[1]
}

var heading = regexp.MustCompile(`(?s)<h1>(.*?)</h1>`)

func headline(p page) string {
	if m := heading.FindStringSubmatch(p.text); m != nil {
		return m[1]
	}
	return ""
}

func (p page) has(t *testing.T, what ...string) {
	t.Helper()
	for _, s := range what {
		if !strings.Contains(p.text, s) {
			t.Errorf("the page %s (%d, %q) lacks %q", p.path, p.status, headline(p), s)
		}
	}
}
