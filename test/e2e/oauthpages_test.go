package e2e_test

import (
	"net/url"
	"testing"

	"github.com/chromedp/chromedp"
)

// What a program may know is decided on these pages: whoever cannot read them, or hits the wrong button on a phone, gives it away.
func TestOAuthPages(t *testing.T) {
	t.Parallel()
	chromium := startChromium(t)
	axe := readAxe(t)
	st := sqliteStore(t)
	s := st.serve(t)
	shop := st.addClient(t, "--name", "Shop", "--redirect-uri", s.issuer+"/", "--post-logout-redirect-uri", s.issuer+"/",
		"--scope", "openid", "--scope", "profile", "--scope", "email", "--scope", "offline_access", "--scope", "orders:read")
	tv := st.addClient(t, "--name", "Television", "--public", "--grant", "urn:ietf:params:oauth:grant-type:device_code", "--grant", "refresh_token",
		"--scope", "openid", "--scope", "profile")
	for name, p := range map[string]profile{
		"oauth-en": {lang: "en", scripts: true, axe: axe, looks: []look{desktop, phoneDark}},
		"oauth-ko": {lang: "ko", scripts: true, axe: axe, looks: []look{desktopDark, phone}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			email := name + "@example.com"
			st.addUser(t, email, "--name", "Kim")
			p.s, p.name = s, name
			v := visitor{browser: newBrowser(t, chromium, p), email: email, password: password}
			v.allowsProgram(shop)
			v.connectsDevice(tv)
			v.takesBack()
		})
	}
}

// allowsProgram is asked by a program, refuses, is asked again and agrees.
func (v *visitor) allowsProgram(c program) {
	v.t.Helper()
	ask := "/oauth/authorize?" + url.Values{
		"client_id": {c.ID}, "redirect_uri": {v.s.issuer + "/"}, "response_type": {"code"},
		"scope": {"openid profile email offline_access orders:read"}, "nonce": {"n"},
	}.Encode()
	v.open(page{name: "mistaken program", status: 400}, "/oauth/authorize?client_id=nobody")
	v.open(page{name: "sign in for a program"}, ask)
	v.fill("/sign-in", fields{"identifier": v.email, "password": v.password})
	v.passOn("consent", `main form[action="/sign-in"] button[type=submit]:not([aria-controls])`, ".scopes")
	v.wantText("main", "Shop")
	v.wantText("main", "orders:read")
	v.wantText("main", v.email)
	v.passOn("refused program", `button[name=decision][value=deny]`, ".hero")
	if at, err := url.Parse(v.where()); err != nil || at.Query().Get("error") != "access_denied" {
		v.t.Errorf("the program is not told of the refusal: %s", v.where())
	}
	v.open(page{name: "consent again"}, ask)
	v.passOn("allowed program", `button[name=decision][value=allow]`, ".hero")
	if at, err := url.Parse(v.where()); err != nil || at.Query().Get("code") == "" {
		v.t.Errorf("the program is not told of the consent: %s", v.where())
	}
}

// passOn presses a button behind which a page goes on by itself, to the one that has landmark.
func (b *browser) passOn(name, button, landmark string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(button)), chromedp.WaitVisible(chromedp.CSS(landmark)))
	b.check(name)
}

// connectsDevice types what a device shows, wrongly at first.
func (v *visitor) connectsDevice(c program) {
	v.t.Helper()
	var shown struct {
		UserCode string `json:"user_code"`
	}
	form := url.Values{"client_id": {c.ID}, "scope": {"openid profile"}}.Encode()
	v.s.send(v.t, "POST /oauth/device_authorization", form, header("Content-Type", "application/x-www-form-urlencoded")).want(v.t, 200).decode(v.t, &shown)
	v.open(page{name: "device"}, "/oauth/device")
	v.submit(page{name: "device refused", status: 404}, "/oauth/device", fields{"user_code": "BBBB-BBBB"})
	v.submit(page{name: "device consent"}, "/oauth/device", fields{"user_code": shown.UserCode})
	v.wantText(".user-code", shown.UserCode)
	v.click(page{name: "device done"}, `button[name=decision][value=allow]`)
	v.wantText("main", "Television")
}

// takesBack withdraws what was allowed.
func (v *visitor) takesBack() {
	v.t.Helper()
	v.open(page{name: "apps"}, "/account/apps")
	v.wantText("main", "Shop")
	v.click(page{name: "app withdrawn"}, `form[action="/account/apps"] button`)
	v.open(page{name: "sign out for a program"}, "/oauth/logout")
	v.click(page{name: "signed out for a program"}, `form[action="/oauth/sign-out"] button`)
}
