package oidc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/internal/oidc"
)

const bye = "https://shop.example/bye"

// leaver is somebody who is signed in to the client shop, and wants to leave.
type leaver struct {
	*person
	idToken string
}

// newLeaver adds the client shop, as configure changes it, and signs somebody in to it.
func (n *node) newLeaver(t testing.TB, configure ...func(*oidc.Metadata)) leaver {
	t.Helper()
	m := shop
	for _, change := range configure {
		change(&m)
	}
	_, secret := n.add(t, "shop", m)
	p := n.person(t, "kim@example.com")
	return leaver{p, n.post(t, "/oauth/token", exchange(p.code(t, wish())), basic("shop", secret)).token(t).IDToken}
}

// wants asks to sign out with these parameters.
func (l leaver) wants(t testing.TB, pairs ...string) answer {
	t.Helper()
	return l.get(t, "/oauth/logout?"+params(pairs...).Encode())
}

// signedIn reports whether the session of the browser is still there.
func (l leaver) signedIn(t testing.TB) bool {
	t.Helper()
	return l.get(t, "/account/apps").status == 200
}

// described is what the provider says of itself.
func (n *node) described(t testing.TB) (d map[string]any) {
	t.Helper()
	a := n.send(t, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/.well-known/openid-configuration", nil))
	must(t, json.Unmarshal([]byte(a.body), &d))
	return d
}

// tampered changes a token's claims, but not its signature.
func tampered(raw string) string {
	parts := strings.Split(raw, ".")
	return parts[0] + "." + parts[1][:len(parts[1])-4] + "AAAA." + parts[2]
}

// The modules of the certification plan oidcc-rp-initiated-logout-certification-test-plan, by their names.
func TestRPInitiatedLogoutPlan(t *testing.T) {
	const plain = "oidcc-rp-initiated-logout"
	back := func(query string) func(t *testing.T, l leaver, a answer) {
		return func(t *testing.T, l leaver, a answer) {
			if a.status != 303 || a.header.Get("Location") != bye+query || l.signedIn(t) {
				t.Errorf("%d %v, signed in %t", a.status, a.header["Location"], l.signedIn(t))
			}
		}
	}
	asked := func(t *testing.T, l leaver, a answer) {
		m := hidden.FindStringSubmatch(a.body)
		if a.status != 200 || m == nil || !l.signedIn(t) {
			t.Fatalf("not asked: %d %s", a.status, a.body)
		}
		done := l.n.post(t, "/oauth/sign-out", params("request", html.UnescapeString(m[1])), l.show)
		if done.status != 200 || done.header.Get("Refresh") != "" || l.signedIn(t) {
			t.Errorf("having agreed: %d %v, signed in %t", done.status, done.header, l.signedIn(t))
		}
	}
	refused := func(t *testing.T, l leaver, a answer) {
		if a.status != 400 || a.header.Get("Location")+a.header.Get("Refresh") != "" || !l.signedIn(t) {
			t.Errorf("%d %v, signed in %t", a.status, a.header, l.signedIn(t))
		}
	}
	for module, c := range map[string]struct {
		params func(l leaver) []string
		check  func(t *testing.T, l leaver, a answer)
	}{
		plain: {func(l leaver) []string {
			return []string{"id_token_hint", l.idToken, "post_logout_redirect_uri", bye, "state", "s 1"}
		}, back("?state=s+1")},
		plain + "-no-state": {func(l leaver) []string {
			return []string{"id_token_hint", l.idToken, "post_logout_redirect_uri", bye}
		}, back("")},
		plain + "-no-params":  {func(leaver) []string { return nil }, asked},
		plain + "-only-state": {func(leaver) []string { return []string{"state", "s"} }, asked},
		plain + "-no-post-logout-redirect-uri": {func(l leaver) []string { return []string{"id_token_hint", l.idToken} },
			func(t *testing.T, l leaver, a answer) {
				if a.status != 200 || a.header.Get("Refresh") != "" || l.signedIn(t) {
					t.Errorf("%d %v, signed in %t", a.status, a.header, l.signedIn(t))
				}
			}},
		plain + "-no-id-token-hint": {func(leaver) []string { return []string{"post_logout_redirect_uri", bye, "state", "s"} }, refused},
		plain + "-bad-post-logout-redirect-uri": {func(l leaver) []string {
			return []string{"id_token_hint", l.idToken, "post_logout_redirect_uri", bye + "/bad", "state", "s"}
		}, refused},
		plain + "-query-added-to-post-logout-redirect-uri": {func(l leaver) []string {
			return []string{"id_token_hint", l.idToken, "post_logout_redirect_uri", bye + "?foo=bar", "state", "s"}
		}, refused},
		plain + "-modified-id-token-hint": {func(l leaver) []string {
			return []string{"id_token_hint", tampered(l.idToken), "post_logout_redirect_uri", bye, "state", "s"}
		}, refused},
		plain + "-bad-id-token-hint": {func(leaver) []string {
			return []string{"id_token_hint", "bad", "post_logout_redirect_uri", bye, "state", "s"}
		}, refused},
	} {
		t.Run(module, func(t *testing.T) {
			onEach(t, func(t *testing.T, n *node) {
				l := n.newLeaver(t)
				c.check(t, l, l.wants(t, c.params(l)...))
			})
		})
	}
	t.Run(plain+"-discovery-endpoint-verification", func(t *testing.T) {
		onEach(t, func(t *testing.T, n *node) {
			if d := n.described(t); d["end_session_endpoint"] != issuer+"/oauth/logout" {
				t.Errorf("%v", d["end_session_endpoint"])
			}
		})
	})
}

var frame = regexp.MustCompile(`<iframe src="([^"]*)"[^>]* hidden>`)

// frames are the addresses that a page loads unseen.
func (a answer) frames() (all []string) {
	for _, m := range frame.FindAllStringSubmatch(a.body, -1) {
		all = append(all, html.UnescapeString(m[1]))
	}
	return all
}

// framed returns the address that a client of the front channel has loaded for a session.
func framed(uri, sid string) string {
	return uri + "iss=" + url.QueryEscape(issuer) + "&sid=" + sid
}

// The modules of the certification plan oidcc-frontchannel-rp-initiated-logout-certification-test-plan, by their names.
func TestFrontChannelLogoutPlan(t *testing.T) {
	t.Run("oidcc-frontchannel-logout-discovery-endpoint-verification", func(t *testing.T) {
		onEach(t, func(t *testing.T, n *node) {
			if d := n.described(t); d["frontchannel_logout_supported"] != true || d["frontchannel_logout_session_supported"] != true {
				t.Errorf("%v", d)
			}
		})
	})
	t.Run("oidcc-frontchannel-rp-initiated-logout", func(t *testing.T) {
		onEach(t, func(t *testing.T, n *node) {
			l := n.newLeaver(t, func(m *oidc.Metadata) {
				m.FrontchannelLogoutURI, m.FrontchannelSession = "https://shop.example/front?of=shop", true
			})
			sid := n.idClaims(t, l.idToken)["sid"].(string)
			a := l.wants(t, "id_token_hint", l.idToken, "post_logout_redirect_uri", bye, "state", "s")
			if want := []string{framed("https://shop.example/front?of=shop&", sid)}; !slices.Equal(a.frames(), want) {
				t.Errorf("frames %q, want %q", a.frames(), want)
			}
			if a.status != 200 || a.header.Get("Refresh") != "0; url="+bye+"?state=s" || !strings.Contains(a.body, `href="`+bye+`?state=s"`) || l.signedIn(t) {
				t.Errorf("%d %v %s, signed in %t", a.status, a.header, a.body, l.signedIn(t))
			}
			policy := a.header.Get("Content-Security-Policy")
			if !strings.HasSuffix(policy, "; frame-src https://shop.example") || !strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") {
				t.Errorf("the policy is %s", policy)
			}
		})
	})
}

// The modules of the certification plan oidcc-backchannel-rp-initiated-logout-certification-test-plan, by their names.
func TestBackChannelLogoutPlan(t *testing.T) {
	t.Run("oidcc-backchannel-logout-discovery-endpoint-verification", func(t *testing.T) {
		onEach(t, func(t *testing.T, n *node) {
			if d := n.described(t); d["backchannel_logout_supported"] != true || d["backchannel_logout_session_supported"] != true {
				t.Errorf("%v", d)
			}
		})
	})
	t.Run("oidcc-backchannel-rp-initiated-logout", func(t *testing.T) {
		onEach(t, func(t *testing.T, n *node) {
			ears := listen(t)
			l := n.newLeaver(t, func(m *oidc.Metadata) { m.BackchannelLogoutURI, m.BackchannelSession = ears.uri, true })
			l.wants(t, "id_token_hint", l.idToken, "post_logout_redirect_uri", bye)
			id, told := n.idClaims(t, l.idToken), ears.hear(t, n)
			if told["aud"] != "shop" || told["sid"] != id["sid"] || told["sub"] != id["sub"] || told["iss"] != issuer || told["nonce"] != nil {
				t.Errorf("told %v", told)
			}
		})
	})
}

// The plan oidcc-session-management-certification-test-plan needs a frame of the provider's in the program's pages that reads a cookie of the
// provider's, which browsers no longer allow: it is not offered, and nobody is led to believe so.
func TestSessionManagementPlan(t *testing.T) {
	t.Run("oidcc-session-management-discovery-endpoint-verification", func(t *testing.T) {
		onEach(t, func(t *testing.T, n *node) {
			if d := n.described(t); d["check_session_iframe"] != nil {
				t.Errorf("%v", d["check_session_iframe"])
			}
		})
	})
	t.Run("oidcc-session-management-rp-initiated-logout", func(t *testing.T) {
		onEach(t, func(t *testing.T, n *node) {
			l := n.newLeaver(t)
			if got := l.get(t, "/oauth/authorize?"+wish().Encode()).landed(t, callback); got.Has("session_state") {
				t.Errorf("%v", got)
			}
		})
	})
}

// ears are a program that is told of sessions that have ended.
type ears struct {
	uri   string
	heard chan string
}

func listen(t testing.TB) ears {
	t.Helper()
	e := ears{heard: make(chan string, 10)}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { e.heard <- r.FormValue("logout_token") }))
	t.Cleanup(s.Close)
	e.uri = s.URL + "/logout"
	return e
}

// hear has a node tell what there is to tell, and returns the claims of the logout token.
func (e ears) hear(t testing.TB, n *node) jwt.MapClaims {
	t.Helper()
	n.tell(t)
	select {
	case raw := <-e.heard:
		claims := jwt.MapClaims{}
		_, err := jwt.ParseWithClaims(raw, claims, func(t *jwt.Token) (any, error) {
			key, err := n.tokens.Key(context.Background(), fmt.Sprint(t.Header["kid"]))
			return key.Public, err
		}, jwt.WithTimeFunc(n.clock.Now))
		must(t, err)
		return claims
	default:
		t.Fatal("it was not told")
		return nil
	}
}

// tell notes what has ended, and tells the clients once.
func (n *node) tell(t testing.TB) {
	t.Helper()
	must(t, n.sessions.Apply(t.Context()))
	n.NoteEnded(t.Context(), n.sessions)
	must(t, n.Notify(t.Context()))
}

// Who has signed in once is known to every program, and who leaves one has left all of them, however a program learns of it; a program
// whose tokens go on (offline_access) as well.
func TestSingleSignOn(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		p := n.person(t, "kim@example.com")
		secrets, tokens, all := map[string]string{}, map[string]tokenAnswer{}, map[string]ears{}
		for _, id := range []string{"shop", "news", "mail"} {
			m := shop
			m.RedirectURIs, m.FrontchannelLogoutURI = []string{"https://" + id + ".example/cb"}, "https://"+id+".example/out"
			all[id] = listen(t)
			m.BackchannelLogoutURI = all[id].uri
			_, secrets[id] = n.add(t, id, m)
			w := wish("client_id", id, "redirect_uri", m.RedirectURIs[0])
			if id == "mail" {
				w.Set("scope", "openid offline_access")
				w.Set("prompt", "consent")
			}
			tokens[id] = n.post(t, "/oauth/token", exchange(p.code(t, w), "redirect_uri", m.RedirectURIs[0]), basic(id, secrets[id])).token(t)
		}
		first, second, third := n.idClaims(t, tokens["shop"].IDToken), n.idClaims(t, tokens["news"].IDToken), n.idClaims(t, tokens["mail"].IDToken)
		if first["sub"] != second["sub"] || first["sid"] != second["sid"] || first["auth_time"] != second["auth_time"] {
			t.Errorf("shop has %v, news %v", first, second)
		}
		// The program with a session of its own knows the browser's as well as the others do.
		a := p.get(t, "/oauth/logout?"+params("id_token_hint", tokens["mail"].IDToken).Encode())
		want := []string{
			framed("https://mail.example/out?", third["sid"].(string)), framed("https://news.example/out?", second["sid"].(string)),
			framed("https://shop.example/out?", first["sid"].(string)),
		}
		if got := a.frames(); a.status != 200 || !slices.Equal(got, want) {
			t.Errorf("%d %q, want %q", a.status, got, want)
		}
		if policy := a.header.Get("Content-Security-Policy"); !strings.HasSuffix(policy, "frame-src https://mail.example https://news.example https://shop.example") {
			t.Errorf("the policy is %s", policy)
		}
		for id, sid := range map[string]any{"shop": first["sid"], "news": second["sid"], "mail": third["sid"]} {
			if told := all[id].hear(t, n); told["sid"] != sid || told["aud"] != id {
				t.Errorf("%s is told %v", id, told)
			}
			again := n.post(t, "/oauth/token", params("grant_type", "refresh_token", "refresh_token", tokens[id].RefreshToken), basic(id, secrets[id]))
			if id == "mail" {
				again.token(t)
			} else {
				again.refused(t, 400, "invalid_grant")
			}
		}
		n.tell(t) // what the feed repeats is no news
		must(t, n.sessions.End(t.Context(), p.account.ID, third["sid"].(string), "ended_by_owner"))
		if told := all["mail"].hear(t, n); told["sid"] != third["sid"] {
			t.Errorf("mail is told %v of the end of its own session", told)
		}
		for id, one := range all {
			if len(one.heard) > 0 {
				t.Errorf("%s is told twice", id)
			}
		}
	})
}

// A device goes on when its person leaves the browser in which they allowed it: they are not sitting at it.
func TestDeviceOutlivesTheBrowser(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		ears := listen(t)
		n.add(t, "tv", oidc.Metadata{
			Name: "Television", AuthMethod: oidc.AuthNone, GrantTypes: []string{oidc.GrantDevice, "refresh_token"}, Scope: "openid",
			BackchannelLogoutURI: ears.uri,
		})
		p := n.person(t, "kim@example.com")
		var shown struct {
			DeviceCode string `json:"device_code"`
			UserCode   string `json:"user_code"`
		}
		asked := n.post(t, "/oauth/device_authorization", params("client_id", "tv", "scope", "openid"))
		must(t, json.Unmarshal([]byte(asked.body), &shown))
		n.post(t, "/oauth/device", params("user_code", shown.UserCode, "decision", "allow"), p.show)
		n.clock.Advance(time.Minute)
		n.post(t, "/oauth/token", params("grant_type", oidc.GrantDevice, "device_code", shown.DeviceCode, "client_id", "tv")).token(t)
		must(t, n.sessions.End(t.Context(), p.account.ID, p.session.ID, "signed_out"))
		n.tell(t)
		if len(ears.heard) > 0 {
			t.Error("it is told of a session that is not its own")
		}
	})
}

// What a client names is loaded by our page, and named in its policy: only its own addresses will do.
func TestFrontChannelAddresses(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		for uri, good := range map[string]bool{
			"https://shop.example/out":                          true,
			"https://shop.example/out?of=1":                     true,
			"http://127.0.0.1/out":                              true,
			"https://shop.example:444/out":                      false,
			"http://shop.example/out":                           false,
			"https://evil.example/out":                          false,
			"https://shop.example.evil.example/out":             false,
			"https://shop.example@evil.example/out":             false,
			"https://shop.example/out#f":                        false,
			"https://*/out":                                     false,
			"https://shop.example;script-src/out":               false,
			"com.example.shop:/out":                             false,
			"javascript:alert(1)":                               false,
			"//shop.example/out":                                false,
			"https://shop.example/out\nX: 1":                    false,
			"https://shop.example/" + strings.Repeat("a", 2000): false,
		} {
			m := shop
			m.FrontchannelLogoutURI = uri
			_, _, err := n.AddClient(t.Context(), "", m)
			if (err == nil) != good {
				t.Errorf("%s: %v", uri, err)
			}
		}
		m := shop
		m.RedirectURIs = []string{"https://shop.example;script-src/cb"}
		if _, _, err := n.AddClient(t.Context(), "", m); err == nil {
			t.Error("a host can end a directive of a page's policy")
		}
	})
}
