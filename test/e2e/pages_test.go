package e2e_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Everything a person does in a browser, in both languages, on a phone and on a desktop, by day and by night, with scripts
// and without.
func TestPages(t *testing.T) {
	t.Parallel()
	chromium := startChromium(t)
	axe := readAxe(t)
	// They all sign in from one address, more often than one household does.
	s := sqliteStore(t).serve(t, "SUMUN_PASSWORDS_FAILURE_TIME=1ms", "SUMUN_GATEWAY_SIGN_IN_RATE=1000", "SUMUN_GATEWAY_RATE=10000")
	for name, p := range map[string]profile{
		"en":           {lang: "en", scripts: true, axe: axe, looks: []look{desktop, phoneDark}},
		"ko":           {lang: "ko", scripts: true, axe: axe, looks: []look{desktopDark, phone}},
		"en-noscript":  {lang: "en", looks: []look{phone}},
		"ko-noscript":  {lang: "ko", looks: []look{desktop}},
		"en-keyboard":  {lang: "en", scripts: true, looks: []look{desktop}},
		"ko-languages": {lang: "ko", scripts: true, looks: []look{phone}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.s, p.name = s, name
			v := visitor{browser: newBrowser(t, chromium, p), email: name + "@example.com", userName: "person-" + name, password: password}
			switch name {
			case "en-keyboard":
				v.byKeyboard()
			case "ko-languages":
				v.switchLanguages()
			default:
				v.wholeLife()
			}
		})
	}
	t.Run("first-administrator", func(t *testing.T) {
		t.Parallel()
		s := sqliteStore(t).serve(t)
		v := visitor{browser: newBrowser(t, chromium, profile{s: s, name: "setup", lang: "en", scripts: true, axe: axe,
			looks: []look{desktop, phoneDark}}), email: "admin@example.com", password: password}
		v.setUp()
	})
	t.Run("recent-sign-in", func(t *testing.T) {
		t.Parallel()
		st := sqliteStore(t)
		st.addUser(t, "owner@example.com")
		s := st.serve(t, "SUMUN_IDENTITY_RECENT_SIGN_IN=5s")
		v := visitor{browser: newBrowser(t, chromium, profile{s: s, name: "recent", lang: "en", scripts: true, axe: axe,
			looks: []look{desktop, phoneDark}}), email: "owner@example.com", password: password}
		v.proveAgain()
	})
	t.Run("mailbox", func(t *testing.T) {
		t.Parallel()
		s := sqliteStore(t).serve(t)
		readMailbox(newBrowser(t, chromium, profile{s: s, name: "mailbox", lang: "en", scripts: true, axe: axe, looks: []look{desktop, phoneDark}}))
	})
}

// visitor is a person with a browser.
type visitor struct {
	*browser
	email, userName, password string
}

func (v *visitor) wholeLife() {
	v.joins()
	v.comesAndGoes()
	v.edits()
	v.endsSessions()
	v.movesAway()
	v.forgets()
	v.leaves()
}

func (v *visitor) joins() {
	v.t.Helper()
	v.open(page{name: "home"}, "/")
	v.click(page{name: "sign up"}, `main a[href="/sign-up"]`)
	v.submit(page{name: "sign up refused", status: 422}, "/sign-up", fields{"email": "nobody"})
	v.submit(page{name: "sign up sent"}, "/sign-up", fields{"email": v.email})
	v.open(page{name: "confirm"}, v.mailedLink(v.email, "/sign-up/confirm"))
	if v.scripts {
		v.seesRules()
	}
	weak := fields{"name": "김민지", "user_name": v.userName, "new_password": "password"}
	v.submit(page{name: "confirm refused", status: 422}, "/sign-up/confirm", weak)
	v.submit(page{name: "account created", path: "/sign-in?notice=account_created"}, "/sign-up/confirm", fields{"new_password": v.password})
}

// seesRules types a password and watches the rules being marked.
func (v *visitor) seesRules() {
	v.t.Helper()
	v.fill("/sign-up/confirm", fields{"new_password": "abc"})
	v.do(chromedp.WaitVisible(chromedp.CSS(`[data-rule][data-kept="false"]`)))
	v.check("confirm rules broken")
	v.fill("/sign-up/confirm", fields{"new_password": v.password})
	v.do(chromedp.WaitNotPresent(chromedp.CSS(`[data-rule]:not([data-kept="true"])`)))
	v.check("confirm rules kept")
	v.do(chromedp.Click(chromedp.CSS(`[data-secret] button`)))
	if shown := evaluate[string](v.browser, `document.querySelector("[name=new_password]").type`); shown != "text" {
		v.t.Errorf("the button does not show the password: %s", shown)
	}
}

func (v *visitor) mailedLink(to, path string) string {
	v.t.Helper()
	token, err := v.s.awaitToken(v.t.Context(), to, path)
	if err != nil {
		v.t.Fatal(err)
	}
	return path + "?token=" + token
}

func (v *visitor) signsIn(as string, want page) {
	v.t.Helper()
	v.submit(want, "/sign-in", fields{"identifier": as, "password": v.password})
}

func (v *visitor) signsOut() {
	v.t.Helper()
	v.click(page{name: "signed out"}, `header form[action="/sign-out"] button`)
}

func (v *visitor) comesAndGoes() {
	v.t.Helper()
	v.submit(page{name: "sign in refused", status: 401}, "/sign-in", fields{"identifier": v.email, "password": "not the one"})
	v.signsIn(v.userName, page{name: "account", path: "/account"})
	v.signsOut()
	v.open(page{name: "sign in to go on", path: "/sign-in?return_to=%2Faccount%2Fsessions"}, "/account/sessions")
	v.signsIn(v.email, page{name: "sessions at first", path: "/account/sessions"})
	v.open(page{name: "home signed in"}, "/")
	v.click(page{name: "account again", path: "/account"}, `main a[href="/account"]`)
	v.wantText("main", v.email)
	v.wantText("main", v.userName)
	v.open(page{name: "not found", status: 404}, "/nothing")
	v.open(page{name: "docs"}, "/docs")
	v.open(page{name: "error reference"}, "/docs/errors")
}

func (v *visitor) edits() {
	v.t.Helper()
	v.open(page{name: "account to edit"}, "/account")
	v.click(page{name: "edit profile"}, `main a[href="/account/profile"]`)
	v.submit(page{name: "edit profile refused", status: 422}, "/account/profile", fields{"user_name": "!"})
	v.submit(page{name: "phone number refused", status: 422}, "/account/profile", fields{"user_name": v.userName, "phone_number": "010-1234-5678"})
	v.submit(page{name: "profile saved", path: "/account?notice=profile_saved"}, "/account/profile",
		fields{"name": "Kim Min-ji", "user_name": v.userName, "phone_number": "+82 10-1234-5678", "street_address": "209 Sejong-daero", "country": "Korea"})
	for _, text := range []string{"Kim Min-ji", "+821012345678", "209 Sejong-daero", "Korea"} {
		v.wantText("main", text)
	}
	v.click(page{name: "change password"}, `main a[href="/account/password"]`)
	next := "velvet anchor drizzle 71"
	v.submit(page{name: "change password refused", status: 403}, "/account/password",
		fields{"current_password": "not the one", "new_password": next})
	v.submit(page{name: "password changed", path: "/account?notice=password_changed"}, "/account/password",
		fields{"current_password": v.password, "new_password": next})
	v.password = next
}

// otherDevice signs in elsewhere, and returns that device's tokens.
func (v *visitor) otherDevice(userAgent string) tokens {
	v.t.Helper()
	got, err := v.s.exchange(v.t.Context(), 201, "POST /v1/sessions", credentials(v.email, v.password), header("User-Agent", userAgent))
	if err != nil {
		v.t.Fatal(err)
	}
	return got
}

func (v *visitor) endsSessions() {
	v.t.Helper()
	const mac = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15"
	const windows = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0"
	one, two := v.otherDevice(mac), v.otherDevice(windows)
	v.click(page{name: "sessions", path: "/account/sessions"}, `nav a[href="/account/sessions"]`)
	for _, words := range []string{"Safari", "Mac", "Firefox", "Windows", "127.0.0.1"} {
		v.wantText("main", words)
	}
	v.click(page{name: "session ended", path: "/account/sessions?notice=session_ended"},
		`form:has(input[value="`+one.SessionID+`"]) button`)
	v.s.wantDead(v.t, one)
	v.s.me(v.t, two.AccessToken)
	v.click(page{name: "other sessions ended", path: "/account/sessions?notice=other_sessions_ended"},
		`form[action="/account/sessions/end-others"] button`)
	v.s.wantDead(v.t, two)
	v.click(page{name: "activity"}, `nav a[href="/account/activity"]`)
}

func (v *visitor) movesAway() {
	v.t.Helper()
	v.open(page{name: "change address"}, "/account/address")
	moved := "moved." + v.email
	v.submit(page{name: "change address refused", status: 422}, "/account/address", fields{"email": v.email})
	v.submit(page{name: "change address sent"}, "/account/address", fields{"email": moved})
	link := v.mailedLink(moved, "/address/confirm")
	v.open(page{name: "account with a pending address"}, "/account")
	v.wantText("main", moved)
	v.open(page{name: "address to confirm"}, link)
	v.submit(page{name: "address changed", path: "/account?notice=address_changed"}, "/address/confirm", nil)
	v.email = moved
	v.wantText("main", moved)
}

func (v *visitor) forgets() {
	v.t.Helper()
	elsewhere := v.otherDevice("")
	v.signsOut()
	v.click(page{name: "sign in"}, `main a[href="/sign-in"]`)
	v.click(page{name: "recover"}, `main a[href="/recover"]`)
	v.submit(page{name: "recover sent"}, "/recover", fields{"email": v.email})
	link := v.mailedLink(v.email, "/recover/reset")
	v.open(page{name: "reset"}, link)
	v.submit(page{name: "reset refused", status: 422}, "/recover/reset", fields{"new_password": v.password})
	v.password = "marble tunnel coconut 23"
	v.submit(page{name: "password reset", path: "/sign-in?notice=password_reset"}, "/recover/reset", fields{"new_password": v.password})
	v.s.wantDead(v.t, elsewhere)
	v.open(page{name: "link used up", status: 410}, link)
	v.open(page{name: "sign in after a reset"}, "/sign-in")
	v.signsIn(v.email, page{name: "account after a reset", path: "/account"})
}

func (v *visitor) leaves() {
	v.t.Helper()
	v.click(page{name: "delete"}, `main a[href="/account/delete"]`)
	v.submit(page{name: "delete refused", status: 422}, "/account/delete", nil)
	v.do(chromedp.Click(chromedp.CSS(`[name=confirm]`)))
	v.submit(page{name: "deleted"}, "/account/delete", nil)
	v.open(page{name: "sign in after deletion", path: "/sign-in?return_to=%2Faccount"}, "/account")
	v.signsIn(v.email, page{name: "sign in refused after deletion", status: 401})
	a := v.s.send(v.t, "POST /v1/sessions", credentials(v.email, v.password))
	if a.status != http.StatusUnauthorized {
		v.t.Errorf("a deleted account signs in: %d", a.status)
	}
}

// byKeyboard signs in without a mouse, and goes through everything on the account page.
func (v *visitor) byKeyboard() {
	v.t.Helper()
	v.s.mustRegister(v.t, v.email)
	v.open(page{name: "sign in"}, "/sign-in")
	focused := func() string {
		return evaluate[string](v.browser, `document.activeElement.id || document.activeElement.outerHTML`)
	}
	if got := focused(); got != "identifier" {
		v.t.Errorf("the first field is not ready to type in; focus is on %s", got)
	}
	v.do(chromedp.KeyEvent(v.email), chromedp.KeyEvent(kb.Tab))
	if got := focused(); got != "password" {
		v.t.Errorf("after the address comes %s", got)
	}
	v.lead(page{name: "account", path: "/account"}, chromedp.KeyEvent(v.password), chromedp.KeyEvent(kb.Enter))

	v.do(chromedp.KeyEvent(kb.Tab))
	if got := focused(); !strings.Contains(got, `href="#main"`) {
		v.t.Errorf("the first stop is not the way around the menu but %s", got)
	}
	reachable := evaluate[int](v.browser, `[...document.querySelectorAll("a[href], button, input:not([type=hidden]), summary")]
		.filter((e) => e.offsetParent !== null || e.className === "skip").length`)
	stops := map[string]bool{}
	for range reachable {
		stops[focused()] = true
		if !evaluate[bool](v.browser, focusShows) {
			v.t.Errorf("focus does not show on %s", focused())
		}
		v.do(chromedp.KeyEvent(kb.Tab))
	}
	if len(stops) < reachable-2 { // links that look alike are one here
		v.t.Errorf("the keyboard reaches %d of %d: %v", len(stops), reachable, stops)
	}
}

// focusShows tells whether a person can see where they are.
const focusShows = `(() => { const s = getComputedStyle(document.activeElement);
	return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0 || s.boxShadow !== "none"; })()`

// switchLanguages changes the language with the button on the page, which stays where it is.
func (v *visitor) switchLanguages() {
	v.t.Helper()
	v.open(page{name: "sign in"}, "/sign-in?return_to=/account/activity")
	v.lang = "en"
	v.click(page{name: "sign in in English", path: "/sign-in?return_to=%2Faccount%2Factivity"}, `form[action="/language"] button`)
	v.wantText("h1", "Sign in")
	v.open(page{name: "sign up in English"}, "/sign-up")
	v.lang = "ko"
	v.click(page{name: "sign up in Korean", path: "/sign-up"}, `form[action="/language"] button`)
	v.submit(page{name: "sent"}, "/sign-up", fields{"email": v.email})
	v.wantMailIn("ko")
}

// wantMailIn fails unless the mail that the visitor caused is in the language.
func (v *visitor) wantMailIn(lang string) {
	v.t.Helper()
	v.mailedLink(v.email, "/sign-up/confirm")
	letters, err := v.s.letters(v.t.Context(), v.email)
	if err != nil || !strings.Contains(letters[0].HTML, `lang="`+lang+`"`) {
		v.t.Errorf("the mail is not in %s: %v %v", lang, err, letters)
	}
}

// setUp is the first thing an operator does.
func (v *visitor) setUp() {
	v.t.Helper()
	v.open(page{name: "setup"}, v.s.setupLink)
	v.submit(page{name: "setup refused", status: 422}, "/setup", fields{"email": v.email, "new_password": v.password})
	v.submit(page{name: "setup done", path: "/sign-in?notice=account_created"}, "/setup", fields{"name": "Admin", "new_password": v.password})
	v.open(page{name: "setup twice", status: 410}, v.s.setupLink)
	v.open(page{name: "sign in"}, "/sign-in")
	v.signsIn(v.email, page{name: "account", path: "/account"})
}

// proveAgain changes the password long after signing in.
func (v *visitor) proveAgain() {
	v.t.Helper()
	v.open(page{name: "sign in"}, "/sign-in")
	v.signsIn(v.email, page{name: "account", path: "/account"})
	asked := "/account/reauthenticate?return_to=%2Faccount%2Fpassword"
	if err := eventually(v.t.Context(), stepPatience, "the sign-in to be long ago", func(context.Context) (bool, error) {
		v.do(chromedp.Navigate(v.s.issuer + "/account/password"))
		return strings.HasSuffix(v.where(), asked), nil
	}); err != nil {
		v.t.Fatal(err)
	}
	v.check("reauthenticate")
	v.submit(page{name: "reauthenticate refused", status: 401}, "/account/reauthenticate", fields{"current_password": "not the one"})
	v.submit(page{name: "change password", path: "/account/password"}, "/account/reauthenticate", fields{"current_password": v.password})
}

// readMailbox is what a developer does all day.
func readMailbox(b *browser) {
	b.t.Helper()
	b.open(page{name: "mailbox without its token", status: 403}, b.s.ops+"/mailbox")
	b.open(page{name: "mailbox empty"}, b.s.ops+"/mailbox?token="+b.s.mailboxToken)
	b.s.mustRegister(b.t, "dev@example.com")
	b.open(page{name: "mailbox"}, b.s.ops+"/mailbox")
	b.click(page{name: "mailbox message"}, `a[href^="/mailbox/messages/"]`)
	b.wantText("body", "dev@example.com")
}
