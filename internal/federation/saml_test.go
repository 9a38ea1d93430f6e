package federation_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/sumunio/sumun/internal/federation"
)

// A company's people sign in with their identity provider, whichever of its signatures it sends, and come back to the same account.
func TestSAML(t *testing.T) {
	each(t, func(w *world) {
		t := w.t
		who := person{id: "7f3a", email: "kim@corp.example", name: "김하늘"}
		b := w.browser()
		p := b.withCorp(who)
		if p.path != "/sign-up/finish" {
			t.Fatalf("a new person is led to %s (%d %s)", p.path, p.status, headline(p))
		}
		p.has(t, "kim@corp.example", "김하늘")
		b.post("/sign-up/finish", url.Values{"name": {"Kim"}})
		if got := b.whose(); got != "kim@corp.example" {
			t.Fatalf("signed in to %q", got)
		}
		for name, change := range map[string]func(*said){
			"assertion":      func(*said) {},
			"response":       func(s *said) { s.SignResponse, s.LeaveAssertion = true, true },
			"both":           func(s *said) { s.SignResponse = true },
			"other hash":     func(s *said) { s.Method = dsig.RSASHA512SignatureMethod },
			"slow clock":     func(s *said) { s.Now, s.NotBefore = s.Now.Add(30*time.Second), s.Now.Add(30*time.Second) },
			"another domain": func(s *said) { s.Email = "kim@elsewhere.example" },
		} {
			again := w.browser()
			if p := again.withCorp(who, change); p.path != "/account" || again.whose() != "kim@corp.example" {
				t.Errorf("%s: ends at %s (%d %s)", name, p.path, p.status, headline(p))
			}
		}
		request, q := b.leaveCorp("?for=proof&return_to=%2Faccount%2Fsessions")
		if request.ForceAuthn == nil || !*request.ForceAuthn {
			t.Error("to prove again the person is not asked again")
		}
		idp := w.others.idp
		s := idp.honest(request, who)
		s.Authn = s.Now.Add(-time.Hour)
		if p := b.deliver(text(t, idp.response(s, idp.assertion(s))), q); p.status != http.StatusForbidden {
			t.Errorf("an old sign-in proves the person again: %d at %s", p.status, p.path)
		}
		request, q = b.leaveCorp("?for=proof&return_to=%2Faccount%2Fsessions")
		s = idp.honest(request, who)
		if p := b.deliver(text(t, idp.response(s, idp.assertion(s))), q); p.path != "/account/sessions" {
			t.Errorf("proving again ends at %s (%d %s)", p.path, p.status, headline(p))
		}
		if p := w.browser().withCorp(person{id: "9", email: "lee@elsewhere.example", name: "Lee"}); strings.Contains(p.text, `name="name"`) || !strings.Contains(p.text, `name="email"`) {
			t.Error("an address in a domain that the identity provider does not answer for is believed")
		}
		if p := w.browser().withCorp(person{id: "11", email: "long@corp.example", name: strings.Repeat("Kim ", 10_000)}); p.path != "/sign-up/finish" {
			t.Errorf("a name that is too long ends at %s (%d %s)", p.path, p.status, headline(p))
		}
		w.member("owner@corp.example")
		thief := w.browser()
		if thief.withCorp(person{id: "10", email: "owner@corp.example"}); thief.whose() != "" {
			t.Error("an address opens an account that its owner has not connected")
		}
	})
}

// With link_verified_email an address in the company's domains opens the account; one elsewhere does not.
func TestSAMLTrustedDomains(t *testing.T) {
	each(t, func(w *world) {
		w.member("owner@corp.example")
		w.member("owner@elsewhere.example")
		for email, want := range map[string]string{"owner@corp.example": "owner@corp.example", "owner@elsewhere.example": ""} {
			b := w.browser()
			if b.withCorp(person{id: email, email: email}); b.whose() != want {
				w.t.Errorf("%s opens %q, want %q", email, b.whose(), want)
			}
		}
	}, func(c *federation.Config) { c.Providers[len(c.Providers)-1].LinkVerifiedEmail = true })
}

// What is not exactly what our request asked for, signed by the identity provider, lets nobody in. Among it are the wrappings XSW 1 to
// 8 of Somorovsky et al., On Breaking SAML.
func TestSAMLForgeries(t *testing.T) {
	who := person{id: "7f3a", email: "victim@corp.example", name: "Victim"}
	evil := func(idp *identityProvider, s said) *etree.Element {
		s.ID, s.Subject, s.Email, s.LeaveAssertion = "_evil", "admin", "admin@corp.example", true
		return idp.assertion(s)
	}
	change := func(f func(*said)) func(*identityProvider, said) string {
		return func(idp *identityProvider, s said) string {
			f(&s)
			return text(idp.t, idp.response(s, idp.assertion(s)))
		}
	}
	replace := func(old, new string) func(*identityProvider, said) string {
		return func(idp *identityProvider, s said) string {
			whole := text(idp.t, idp.response(s, idp.assertion(s)))
			if !strings.Contains(whole, old) {
				idp.t.Fatalf("the response has no %q", old)
			}
			return strings.Replace(whole, old, new, 1)
		}
	}
	tree := func(f func(idp *identityProvider, s said, response, assertion *etree.Element)) func(*identityProvider, said) string {
		return func(idp *identityProvider, s said) string {
			a := idp.assertion(s)
			r := idp.response(s, a)
			f(idp, s, r, a)
			return text(idp.t, r)
		}
	}
	signature := func(el *etree.Element) *etree.Element { return el.FindElement("./Signature") }
	forgeries := map[string]func(*identityProvider, said) string{
		"unsigned":                change(func(s *said) { s.LeaveAssertion = true }),
		"signed by another key":   change(func(s *said) { s.Key = anotherKey() }),
		"signed with SHA-1":       change(func(s *said) { s.Method = dsig.RSASHA1SignatureMethod }),
		"another audience":        change(func(s *said) { s.Audience = "https://other.example" }),
		"no audience":             change(func(s *said) { s.Audience = "" }),
		"another recipient":       change(func(s *said) { s.Recipient = "https://other.example/acs" }),
		"another issuer":          change(func(s *said) { s.Issuer = "urn:evil" }),
		"answers another request": change(func(s *said) { s.InResponseTo = "_other" }),
		"answers nothing":         change(func(s *said) { s.InResponseTo = "" }),
		"expired":                 change(func(s *said) { s.NotOnOrAfter = s.Now.Add(-2 * time.Minute) }),
		"not yet valid":           change(func(s *said) { s.NotBefore = s.Now.Add(2 * time.Minute) }),
		"from the future":         change(func(s *said) { s.Now = s.Now.Add(2 * time.Minute) }),
		"issued long ago":         change(func(s *said) { s.Now = s.Now.Add(-10 * time.Minute) }),
		"transient":               change(func(s *said) { s.Format = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient" }),
		"nobody":                  change(func(s *said) { s.Subject = "" }),
		"a comment in the NameID": replace("7f3a</saml:NameID>", "7f<!-- x -->3a</saml:NameID>"),
		"an instruction":          replace("7f3a</saml:NameID>", "7f<?x y?>3a</saml:NameID>"),
		"changed afterwards":      replace("victim@corp.example", "admin@corp.example"),
		"a document type":         func(idp *identityProvider, s said) string { return `<!DOCTYPE r>` + replace("x", "x")(idp, s) },
		"an entity": func(idp *identityProvider, s said) string {
			return `<!DOCTYPE r [<!ENTITY e "admin">]>` + replace("7f3a</", "&e;</")(idp, s)
		},
		"billion laughs": func(*identityProvider, said) string {
			return `<!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]><l>&b;</l>`
		},
		"an unknown entity":   replace("7f3a</", "&e;</"),
		"encrypted":           replace("<saml:Assertion", `<saml:EncryptedAssertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"/><saml:Assertion`),
		"an attribute twice":  replace(`<saml:NameID Format=`, `<saml:NameID x="1" x="2" Format=`),
		"garbage":             func(*identityProvider, said) string { return "\x00\xff<" },
		"nothing":             func(*identityProvider, said) string { return "" },
		"another document":    func(idp *identityProvider, s said) string { return text(idp.t, idp.assertion(s)) },
		"very large":          replace("</saml:Assertion>", strings.Repeat("<c/>", 1100)+"</saml:Assertion>"),
		"a prefix of nothing": replace("</saml:Assertion>", "<nothing:c/></saml:Assertion>"),
		"a prefix of XML's":   replace("</saml:Assertion>", `<c xmlns:xml="urn:evil"/></saml:Assertion>`),
		"very deep":           func(*identityProvider, said) string { return strings.Repeat("<a>", 5000) },
		"two signed assertions": func(idp *identityProvider, s said) string {
			return text(idp.t, idp.response(s, idp.assertion(s), idp.assertion(with(s, "_second"))))
		},
		"a second, unsigned one": tree(func(idp *identityProvider, s said, r, _ *etree.Element) { r.AddChild(evil(idp, s)) }),
		"a first, unsigned one":  tree(func(idp *identityProvider, s said, r, a *etree.Element) { r.InsertChildAt(a.Index(), evil(idp, s)) }),
		"a transformation that filters": replace(`<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>`,
			`<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"/>`),
		"comments canonicalised": replace(`<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>`,
			`<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#WithComments"/>`),
		"XSW1, XSW2: a copy beside or around the signed response": func(idp *identityProvider, s said) string {
			s.SignResponse, s.LeaveAssertion = true, true
			r := idp.response(s, idp.assertion(s))
			forged := idp.response(with(s, "_x"), evil(idp, s))
			forged.RemoveChild(signature(forged))
			whole := signature(r).Copy()
			r.RemoveChild(signature(r))
			whole.CreateElement("ds:Object").AddChild(r)
			forged.InsertChildAt(1, whole)
			return text(idp.t, forged)
		},
		"XSW3: a forged sibling": tree(func(idp *identityProvider, s said, r, a *etree.Element) { r.InsertChildAt(1, evil(idp, s)) }),
		"XSW4: the signed one inside the forged": tree(func(idp *identityProvider, s said, r, a *etree.Element) {
			forged := evil(idp, s)
			r.RemoveChild(a)
			forged.AddChild(a)
			r.AddChild(forged)
		}),
		"XSW5, XSW6: the signature moved into the forged": tree(func(idp *identityProvider, s said, r, a *etree.Element) {
			forged := evil(idp, s)
			sig := signature(a)
			a.RemoveChild(sig)
			r.RemoveChild(a)
			forged.InsertChildAt(1, sig)
			sig.CreateElement("ds:Object").AddChild(a)
			r.AddChild(forged)
		}),
		"XSW7: the forged in extensions": tree(func(idp *identityProvider, s said, r, a *etree.Element) {
			extensions := etree.NewElement("samlp:Extensions")
			extensions.AddChild(evil(idp, s))
			r.InsertChildAt(1, extensions)
		}),
		"XSW8: the signed one in an object of the forged one's signature": tree(func(idp *identityProvider, s said, r, a *etree.Element) {
			forged := evil(idp, s)
			forged.CreateAttr("ID", s.ID)
			sig := signature(a).Copy()
			a.RemoveChild(signature(a))
			r.RemoveChild(a)
			sig.CreateElement("ds:Object").AddChild(a)
			forged.InsertChildAt(1, sig)
			r.AddChild(forged)
		}),
		"one id twice": tree(func(idp *identityProvider, s said, r, a *etree.Element) {
			r.FindElement("./Status").CreateAttr("ID", s.ID)
		}),
	}
	each(t, func(w *world) {
		owner := w.browser()
		owner.withCorp(who)
		owner.post("/sign-up/finish", url.Values{"name": {"Victim"}})
		for name, forge := range forgeries {
			b := w.browser()
			request, q := b.leaveCorp("")
			p := b.deliver(forge(w.others.idp, w.others.idp.honest(request, who)), q)
			if p.status < 400 || p.status >= 503 || b.whose() != "" {
				w.t.Errorf("%s: answered with %d at %s, signed in as %q", name, p.status, p.path, b.whose())
			}
			p.has(w.t, `href="/federation/corp"`)
		}
		b := w.browser()
		if p := b.withCorp(who); b.whose() != who.email { // else nothing would be shown by the refusals
			w.t.Errorf("the truth is refused: %d %q", p.status, headline(p))
		}
	})
}

func with(s said, id string) said {
	s.ID = id
	return s
}

// A response counts in the browser that asked, once, and its assertion counts once whatever it is wrapped in.
func TestSAMLAnswersBelongToTheirBrowser(t *testing.T) {
	each(t, func(w *world) {
		t, idp := w.t, w.others.idp
		who := person{id: "1", email: "one@corp.example", name: "One"}
		victim, thief := w.browser(), w.browser()
		request, q := victim.leaveCorp("")
		s := idp.honest(request, who)
		response := text(t, idp.response(s, idp.assertion(s)))
		_, other := thief.leaveCorp("")
		for name, relay := range map[string]url.Values{"with the thief's state": other, "with the victim's state": q, "with none": {}} {
			if p := thief.deliver(response, relay); p.status != http.StatusBadRequest {
				t.Errorf("another browser, %s: %d at %s", name, p.status, p.path)
			}
		}
		cookies := victim.http.Jar.Cookies(mustURL(t, w.site.URL+"/"))
		if p := victim.deliver(response, q); p.path != "/sign-up/finish" {
			t.Fatalf("the true response ends at %s (%d)", p.path, p.status)
		}
		victim.http.Jar.SetCookies(mustURL(t, w.site.URL), cookies)
		if p := victim.deliver(response, q); p.status != http.StatusBadRequest {
			t.Errorf("a second use: %d", p.status)
		}
		request, q = thief.leaveCorp("")
		s.InResponseTo = request.ID // the identity provider signs one assertion id twice
		if p := thief.deliver(text(t, idp.response(s, idp.assertion(s))), q); p.status != http.StatusBadRequest {
			t.Errorf("an assertion id that was used: %d at %s", p.status, p.path)
		}
		if p := thief.get("/federation/corp/callback?code=x&state=" + q.Get("RelayState")); p.status < 400 {
			t.Errorf("an answer that was never posted: %d", p.status)
		}
	})
}

// Refusals, outages and new keys at an identity provider: a page that says so, a way to try again, and new keys are found.
func TestSAMLFailures(t *testing.T) {
	each(t, func(w *world) {
		t, idp := w.t, w.others.idp
		who := person{id: "1", email: "one@corp.example", name: "One"}
		for status, want := range map[string]int{"Responder AuthnFailed": 403, "Requester RequestDenied": 403, "Responder": 503, "Requester": 502, "VersionMismatch": 502} {
			b := w.browser()
			request, q := b.leaveCorp("")
			s := idp.honest(request, who)
			s.Status, s.Detail, _ = strings.Cut(status, " ")
			p := b.deliver(text(t, idp.response(s)), q)
			if p.status != want {
				t.Errorf("%s: %d %q", status, p.status, headline(p))
			}
			p.has(t, `href="/federation/corp"`)
		}
		w.clock.Advance(11 * time.Second)
		idp.use(anotherKey())
		if p := w.browser().withCorp(who); p.path != "/sign-up/finish" {
			t.Errorf("after the keys have changed: %d %q", p.status, headline(p))
		}
		w.others.mu.Lock()
		w.others.broken = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Host == "idp.corp.example" {
				<-r.Context().Done()
				return true
			}
			return false
		}
		w.others.mu.Unlock()
		if p := w.browser().withCorp(who); p.path != "/sign-up/finish" {
			t.Errorf("while the metadata cannot be read again: %d %q", p.status, headline(p))
		}
	})
	t.Run("down from the start", func(t *testing.T) {
		each(t, func(w *world) {
			w.others.mu.Lock()
			w.others.broken = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }
			w.others.mu.Unlock()
			p := w.browser().get("/federation/corp")
			if p.status != http.StatusServiceUnavailable || p.header.Get("Retry-After") == "" {
				w.t.Errorf("%d %q", p.status, headline(p))
			}
			p.has(w.t, `href="/federation/corp"`)
			w.others.mu.Lock()
			w.others.broken = nil
			w.others.mu.Unlock()
			w.clock.Advance(11 * time.Second)
			if p := w.browser().withCorp(person{id: "1"}); p.path != "/sign-up/finish" {
				w.t.Errorf("when it is up again: %d %q", p.status, headline(p))
			}
		})
	})
}

// What no identity provider writes is refused, whatever it is, without a panic and without deep recursion.
func FuzzSAMLResponse(f *testing.F) {
	f.Add([]byte(`<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_1" InResponseTo="_2"><samlp:Status><samlp:StatusCode Value="x"/></samlp:Status></samlp:Response>`))
	f.Add([]byte(`<!DOCTYPE a><a/>`))
	f.Add([]byte(`<a xmlns="urn:oasis:names:tc:SAML:2.0:protocol"><Response/></a>`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := federation.ReadResponse(raw); err == nil && !strings.Contains(string(raw), "Response") {
			t.Errorf("%q was read as a response", raw)
		}
	})
}

// A response is as quickly refused as it is read, however many attributes it has: all that fit in, compared with one another, would cost
// seconds.
func TestSAMLAttributesAreBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`<Response xmlns="urn:oasis:names:tc:SAML:2.0:protocol"`)
	for i := range 30_000 {
		fmt.Fprintf(&b, " a%d=''", i)
	}
	b.WriteString("/>")
	if err := federation.ReadResponse([]byte(b.String())); err == nil {
		t.Error("30,000 attributes are accepted")
	}
}
