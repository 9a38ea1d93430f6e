package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

const federated = `federation:
  providers:
    - name: acme
      label: Acme
      issuer: %s
      client_id: sumun
      client_secret: secret
    - {name: google, client_id: x, client_secret: y}
    - {name: kakao, client_id: x}
    - {name: naver, client_id: x, client_secret: y}
directory:
  servers:
    - name: corp
      label: 한빛상사
      urls: ["ldap://127.0.0.1:1"]
      start_tls: false
      bind_dn: cn=sumun,dc=corp,dc=example
      bind_password: secret
      base_dn: dc=corp,dc=example
      domains: [corp.example]
      password_url: https://password.corp.example
`

// Signing in with another service, from the buttons to the account page, and whatever goes wrong on the way: whoever gets lost there
// has no account, and whoever disconnects the last way in has lost one.
func TestFederationPages(t *testing.T) {
	t.Parallel()
	chromium := startChromium(t)
	axe := readAxe(t)
	there := newProvider(t)
	config := filepath.Join(t.TempDir(), "sumun.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, federated, there.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sqliteStore(t).serve(t, "--config", config, "SUMUN_PASSWORDS_FAILURE_TIME=1ms", "SUMUN_GATEWAY_SIGN_IN_RATE=1000", "SUMUN_GATEWAY_RATE=10000")
	for name, p := range map[string]profile{
		"federation-en": {lang: "en", scripts: true, axe: axe, looks: []look{desktop, phoneDark}},
		"federation-ko": {lang: "ko", scripts: true, axe: axe, looks: []look{desktopDark, phone}},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: there is one person at the provider at a time
			p.s, p.name, p.leaves = s, name, there.URL
			v := visitor{browser: newBrowser(t, chromium, p), email: name + "@example.com", password: password}
			v.comesFrom(there)
			v.changesWays(there)
			v.worksElsewhere()
		})
	}
}

const acmeButton = `a[href^="/federation/acme"]`

// comesFrom is refused at a provider, finds it down, and gets an account with it.
func (v *visitor) comesFrom(there *provider) {
	v.t.Helper()
	who := jwt.MapClaims{"sub": v.name, "email": v.email, "email_verified": true, "name": "김하늘"}
	v.open(page{name: "sign in"}, "/sign-in?return_to=%2Faccount%2Fsessions")
	there.set(who, true, false)
	v.click(page{name: "provider denied", status: 403}, acmeButton)
	there.set(who, false, true)
	v.click(page{name: "provider down", status: 503}, acmeButton)
	there.set(who, false, false)
	v.click(page{name: "finish sign up", path: "/sign-up/finish"}, acmeButton)
	v.wantText("main", "Acme")
	v.submit(page{name: "sessions of a new person", path: "/account/sessions"}, "/sign-up/finish", fields{"name": "김하늘"})
}

// changesWays disconnects and connects, and is never left outside.
func (v *visitor) changesWays(there *provider) {
	v.t.Helper()
	disconnect := `form:has([value=acme]) button[value=disconnect]`
	v.open(page{name: "account without a password"}, "/account")
	v.click(page{name: "connections"}, `main a[href="/account/connections"]`)
	v.click(page{name: "last way", status: 409}, disconnect)
	v.open(page{name: "set password"}, "/account/password")
	v.submit(page{name: "password set", path: "/account?notice=password_changed"}, "/account/password", fields{"new_password": v.password})
	v.open(page{name: "connections with a password"}, "/account/connections")
	v.click(page{name: "disconnected", path: "/account/connections?notice=disconnected"}, disconnect)
	v.passOn("connected", `form:has([value=acme]) button[value=connect]`, disconnect)
	v.signsOut()
	v.open(page{name: "sign in again"}, "/sign-in")
	v.click(page{name: "account by provider", path: "/account"}, acmeButton)
	v.wantText("main", v.email)
	v.signsOut()
	v.open(page{name: "sign in with the password"}, "/sign-in")
	v.signsIn(v.email, page{name: "account by password", path: "/account"})
	v.signsOut()
	there.set(jwt.MapClaims{"sub": "somebody", "email": v.email, "email_verified": true}, false, false)
	v.open(page{name: "sign in as somebody else"}, "/sign-in")
	v.click(page{name: "an address that has an account", path: "/sign-up/finish"}, acmeButton)
}

// worksElsewhere has a password in a company's directory, which is down.
func (v *visitor) worksElsewhere() {
	v.t.Helper()
	v.open(page{name: "recover"}, "/recover")
	v.submit(page{name: "password elsewhere"}, "/recover", fields{"email": "kim@corp.example"})
	v.wantText("main", "한빛상사")
	v.open(page{name: "sign in at work"}, "/sign-in")
	v.submit(page{name: "directory down", status: 503}, "/sign-in", fields{"identifier": "kim@corp.example", "password": "whatever 1"})
}
