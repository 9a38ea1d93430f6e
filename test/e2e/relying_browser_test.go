package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"golang.org/x/oauth2"
)

// findPackage returns the path of a file of an npm package: what is named is the folder that was installed to, or its node_modules.
func findPackage(t *testing.T, file string) string {
	t.Helper()
	folder := demanded(t, nodeModules)
	for _, at := range []string{filepath.Join(folder, "node_modules", file), filepath.Join(folder, file)} {
		if _, err := os.Stat(at); err == nil {
			return at
		}
	}
	t.Fatalf("%s does not have %s", nodeModules, file)
	return ""
}

// spa is a program that runs in the browser alone, and what its server sees.
type spa struct {
	*httptest.Server
	settings string
	framed   chan url.Values
}

// newSPA starts the server of a program. Requests to /hang are never answered.
func newSPA(t *testing.T) *spa {
	t.Helper()
	p := &spa{framed: make(chan url.Values, 10)}
	library := findPackage(t, "oidc-client-ts/dist/browser/oidc-client-ts.min.js")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		page, err := os.ReadFile("testdata/spa/index.html")
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte(strings.Replace(string(page), "SETTINGS", p.settings, 1)))
	})
	mux.HandleFunc("GET /app.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/spa/app.js") })
	mux.HandleFunc("GET /oidc-client-ts.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, library) })
	mux.HandleFunc("GET /front", func(_ http.ResponseWriter, r *http.Request) { p.framed <- r.URL.Query() })
	over := make(chan struct{})
	mux.HandleFunc("GET /hang", func(_ http.ResponseWriter, r *http.Request) {
		p.framed <- r.URL.Query()
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(func() { close(over); p.Close() })
	return p
}

// register makes the program a client that is told in a frame, at that path.
func (p *spa) register(t *testing.T, st store, path string) program {
	t.Helper()
	return st.addClient(t, "--name", "Shop", "--public", "--redirect-uri", p.URL+"/callback", "--post-logout-redirect-uri", p.URL+"/bye",
		"--frontchannel-logout-uri", p.URL+path, "--scope", "openid", "--scope", "profile", "--scope", "email")
}

// wait waits until the program says that this is so. Pages change meanwhile, and do not answer then.
func (b *browser) wait(state string) {
	b.t.Helper()
	var got string
	err := eventually(b.ctx, stepPatience, "the program is "+state, func(ctx context.Context) (bool, error) {
		var err error
		got, err = chromedp.Run(ctx, chromedp.Evaluate[string](`document.body?.dataset.state ?? ""`))
		return got == state || strings.HasPrefix(got, "failed"), err
	})
	if err != nil || got != state {
		b.t.Fatalf("the program at %s is %q, want %q: %v", b.where(), got, state, err)
	}
}

// entersProgram goes to the program, which sends the browser to Sumun, and comes back signed in.
func (v *visitor) entersProgram(p *spa) {
	v.t.Helper()
	v.do(chromedp.Navigate(p.URL + "/"))
	v.do(chromedp.Evaluate[chromedp.Void](`void manager.signinRedirect()`), chromedp.WaitVisible(chromedp.CSS(`main form[action="/sign-in"]`)))
	v.fill("/sign-in", fields{"identifier": v.email, "password": v.password})
	v.do(chromedp.Click(chromedp.CSS(`main form[action="/sign-in"] button[type=submit]:not([aria-controls])`)),
		chromedp.WaitVisible(chromedp.CSS(`button[name=decision][value=allow]`)),
		chromedp.Click(chromedp.CSS(`button[name=decision][value=allow]`)), chromedp.WaitVisible(chromedp.CSS("#state")))
	v.wait("in")
}

// renews is what a program in the browser does while it is used. It reads nothing but answers that any origin may read.
const renews = `(async () => {
	const before = await manager.getUser();
	const after = await manager.signinSilent();
	const userinfo = (await manager.metadataService.getMetadata()).userinfo_endpoint;
	const ask = async () => (await fetch(userinfo, {headers: {Authorization: "Bearer " + after.access_token}})).status;
	const known = await ask();
	await manager.revokeTokens(["refresh_token"]);
	return {
		email: before.profile.email, name: before.profile.name, sid: before.profile.sid, same: before.profile.sub === after.profile.sub,
		renewed: before.access_token !== after.access_token && before.refresh_token !== after.refresh_token,
		known, revoked: await ask(),
	};
})()`

// A program without a server must be able to sign people in without knowing Sumun: npm oidc-client-ts in a real browser. Without the
// headers that let scripts of other origins read answers it could not even begin.
func TestOIDCClientTS(t *testing.T) {
	t.Parallel()
	chromium, p := startChromium(t), newSPA(t)
	st := sqliteStore(t)
	c := p.register(t, st, "/front")
	st.addUser(t, "kim@example.com", "--name", "Kim")
	s := st.serve(t)
	settings, err := json.Marshal(map[string]string{"authority": s.issuer, "client_id": c.ID})
	if err != nil {
		t.Fatal(err)
	}
	p.settings = string(settings)
	b := newBrowser(t, chromium, profile{s: s, name: "spa", lang: "en", scripts: true, looks: []look{desktop}})
	v := visitor{browser: b, email: "kim@example.com", password: password}
	v.entersProgram(p)
	got := evaluate[struct {
		Email, Name, SID string
		Same, Renewed    bool
		Known, Revoked   int
	}](b, renews)
	if got.Email != "kim@example.com" || got.Name != "Kim" || !got.Same || !got.Renewed || got.Known != 200 || got.Revoked != 401 {
		t.Errorf("got %+v", got)
	}
	b.do(chromedp.Evaluate[chromedp.Void](`void manager.signoutRedirect()`))
	v.wait("left")
	select {
	case told := <-p.framed:
		if told.Get("iss") != s.issuer || told.Get("sid") != got.SID {
			t.Errorf("told %v in the frame, not of %s", told, got.SID)
		}
	default:
		t.Error("the browser went on before the program was told")
	}
	v.do(chromedp.Navigate(s.issuer + "/account"))
	if at := v.where(); !strings.HasPrefix(at, s.issuer+"/sign-in") {
		t.Errorf("still signed in, at %s", at)
	}
}

// Nobody waits for a program that does not answer, and nobody needs a script to be sent on.
func TestFrontChannelInBrowsers(t *testing.T) {
	t.Parallel()
	chromium := startChromium(t)
	for name, c := range map[string]struct {
		path    string
		scripts bool
	}{"without scripts": {"/front", false}, "a program that hangs": {"/hang", true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, st := newSPA(t), sqliteStore(t)
			client := p.register(t, st, c.path)
			st.addUser(t, "kim@example.com")
			s := st.serve(t)
			b := newBrowser(t, chromium, profile{s: s, name: "front", lang: "en", scripts: c.scripts, looks: []look{desktop}})
			v := visitor{browser: b, email: "kim@example.com", password: password}
			idToken := v.entersByHand(p, client)
			out := "/oauth/logout?" + url.Values{"id_token_hint": {idToken}, "post_logout_redirect_uri": {p.URL + "/bye"}, "state": {"s"}}.Encode()
			v.do(chromedp.Evaluate[chromedp.Void](`location.assign(` + quote(s.issuer+out) + `)`)) // which does not wait for the page
			err := eventually(t.Context(), stepPatience, "the browser goes on", func(context.Context) (bool, error) {
				return v.where() == p.URL+"/bye?state=s", nil
			})
			if err != nil {
				t.Fatalf("%v, at %s", err, v.where())
			}
			select {
			case told := <-p.framed:
				if told.Get("iss") != s.issuer || told.Get("sid") == "" {
					t.Errorf("told %v", told)
				}
			default:
				t.Error("the program was not told")
			}
		})
	}
}

// entersByHand signs in to the program without its scripts, and returns the ID token.
func (v *visitor) entersByHand(p *spa, c program) string {
	v.t.Helper()
	verifier := oauth2.GenerateVerifier()
	v.do(chromedp.Navigate(v.s.issuer + "/oauth/authorize?" + url.Values{
		"client_id": {c.ID}, "redirect_uri": {p.URL + "/callback"}, "response_type": {"code"}, "scope": {"openid"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}.Encode()))
	v.fill("/sign-in", fields{"identifier": v.email, "password": v.password})
	v.do(chromedp.Click(chromedp.CSS(`main form[action="/sign-in"] button[type=submit]:not([aria-controls])`)),
		chromedp.WaitVisible(chromedp.CSS(`button[name=decision][value=allow]`)),
		chromedp.Click(chromedp.CSS(`button[name=decision][value=allow]`)), chromedp.WaitReady(chromedp.CSS("#state")))
	at, err := url.Parse(v.where())
	if err != nil {
		v.t.Fatal(err)
	}
	var tokens struct {
		IDToken string `json:"id_token"`
	}
	form := url.Values{"grant_type": {"authorization_code"}, "client_id": {c.ID}, "code": {at.Query().Get("code")},
		"redirect_uri": {p.URL + "/callback"}, "code_verifier": {verifier}}
	v.s.send(v.t, "POST /oauth/token", form.Encode(), header("Content-Type", "application/x-www-form-urlencoded")).want(v.t, 200).decode(v.t, &tokens)
	return tokens.IDToken
}
