package federation_test

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	dsig "github.com/russellhaering/goxmldsig"
)

const idpEntity = "urn:example:idp"

func newRSA() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

var (
	ourKey     = sync.OnceValue(newRSA) // of requests
	idpKey     = sync.OnceValue(newRSA)
	anotherKey = sync.OnceValue(newRSA)
)

func pemOf(t *testing.T, key *rsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// identityProvider is a company's identity provider on this machine, honest unless told otherwise.
type identityProvider struct {
	t     *testing.T
	clock func() time.Time

	mu  sync.Mutex
	key *rsa.PrivateKey
}

func newIdentityProvider(t *testing.T, clock func() time.Time) *identityProvider {
	return &identityProvider{t: t, clock: clock, key: idpKey()}
}

func (p *identityProvider) use(key *rsa.PrivateKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key = key
}

func (p *identityProvider) signing() *rsa.PrivateKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key
}

func certOf(t *testing.T, key *rsa.PrivateKey) []byte {
	t.Helper()
	template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "idp"}, NotBefore: time.Unix(0, 0), NotAfter: time.Date(2049, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (p *identityProvider) metadata() []byte {
	return fmt.Appendf(nil, `<?xml version="1.0"?>
<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID=%q>
  <IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">
    <KeyDescriptor use="signing"><KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data><X509Certificate>%s</X509Certificate></X509Data></KeyInfo></KeyDescriptor>
    <SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://idp.corp.example/sso?tenant=7"/>
  </IDPSSODescriptor>
</EntityDescriptor>`, idpEntity, base64.StdEncoding.EncodeToString(certOf(p.t, p.signing())))
}

// asked is a request as an identity provider reads it, its signature verified with the key in our metadata.
func (p *identityProvider) asked(address string, ours []byte) (saml.AuthnRequest, url.Values) {
	p.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		p.t.Fatal(err)
	}
	q := u.Query()
	_, signed, _ := strings.Cut(u.RawQuery, "SAMLRequest=")
	signed, _, _ = strings.Cut("SAMLRequest="+signed, "&Signature=")
	var about saml.EntityDescriptor
	if err := xml.Unmarshal(ours, &about); err != nil {
		p.t.Fatalf("our metadata: %v", err)
	}
	der, err := base64.StdEncoding.DecodeString(about.SPSSODescriptors[0].KeyDescriptors[0].KeyInfo.X509Data.X509Certificates[0].Data)
	if err != nil {
		p.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(q.Get("Signature"))
	if err != nil {
		p.t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(signed))
	if err := rsa.VerifyPKCS1v15(cert.PublicKey.(*rsa.PublicKey), crypto.SHA256, sum[:], signature); err != nil {
		p.t.Errorf("the request's signature: %v", err)
	}
	packed, err := base64.StdEncoding.DecodeString(q.Get("SAMLRequest"))
	if err != nil {
		p.t.Fatal(err)
	}
	text, err := io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
	if err != nil {
		p.t.Fatal(err)
	}
	var request saml.AuthnRequest
	if err := xml.Unmarshal(text, &request); err != nil {
		p.t.Fatal(err)
	}
	if request.Destination != "https://idp.corp.example/sso?tenant=7" || q.Get("tenant") != "7" {
		p.t.Errorf("the request went to %s for %s", address, request.Destination)
	}
	return request, q
}

// said is what an identity provider writes. The zero values of facts are filled in honestly.
type said struct {
	ID, InResponseTo, Recipient, Audience, Issuer string
	Subject, Format, Email, Name                  string
	Status, Detail                                string
	Now, NotBefore, NotOnOrAfter, Authn           time.Time
	Key                                           *rsa.PrivateKey
	Method                                        string // of the signature
	SignResponse, LeaveAssertion                  bool
	Extra                                         string // in the assertion
}

var assertionText = template.Must(template.New("").Funcs(template.FuncMap{"at": func(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}}).Parse(`<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="{{.ID}}" Version="2.0" IssueInstant="{{at .Now}}">` +
	`<saml:Issuer>{{.Issuer}}</saml:Issuer>` +
	`<saml:Subject><saml:NameID Format="{{.Format}}">{{.Subject}}</saml:NameID>` +
	`<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData InResponseTo="{{.InResponseTo}}" NotOnOrAfter="{{at .NotOnOrAfter}}" Recipient="{{.Recipient}}"/></saml:SubjectConfirmation></saml:Subject>` +
	`<saml:Conditions NotBefore="{{at .NotBefore}}" NotOnOrAfter="{{at .NotOnOrAfter}}">{{if .Audience}}<saml:AudienceRestriction><saml:Audience>{{.Audience}}</saml:Audience></saml:AudienceRestriction>{{end}}</saml:Conditions>{{.Extra}}` +
	`<saml:AuthnStatement AuthnInstant="{{at .Authn}}" SessionIndex="s1"><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>` +
	`<saml:AttributeStatement>{{if .Email}}<saml:Attribute Name="email"><saml:AttributeValue>{{.Email}}</saml:AttributeValue></saml:Attribute>{{end}}` +
	`<saml:Attribute Name="urn:oid:2.16.840.1.113730.3.1.241" FriendlyName="displayName"><saml:AttributeValue>{{.Name}}</saml:AttributeValue></saml:Attribute></saml:AttributeStatement>` +
	`</saml:Assertion>`))

// honest answers a request truthfully.
func (p *identityProvider) honest(r saml.AuthnRequest, who person) said {
	now := p.clock()
	return said{ID: "_" + rand.Text(), InResponseTo: r.ID, Recipient: r.AssertionConsumerServiceURL, Audience: r.Issuer.Value, Issuer: idpEntity,
		Subject: who.id, Format: "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent", Email: who.email, Name: who.name, Status: "Success",
		Now: now, NotBefore: now.Add(-time.Minute), NotOnOrAfter: now.Add(2 * time.Minute), Authn: now, Key: p.signing(), Method: dsig.RSASHA256SignatureMethod}
}

// assertion writes an assertion, signed unless it is to be left alone.
func (p *identityProvider) assertion(s said) *etree.Element {
	p.t.Helper()
	var text strings.Builder
	if err := assertionText.Execute(&text, s); err != nil {
		p.t.Fatal(err)
	}
	el := p.parse(text.String())
	if s.LeaveAssertion {
		return el
	}
	return p.sign(el, s)
}

func (p *identityProvider) parse(text string) *etree.Element {
	p.t.Helper()
	doc := etree.NewDocument()
	if err := doc.ReadFromString(text); err != nil {
		p.t.Fatal(err)
	}
	return doc.Root()
}

// sign puts an enveloped signature behind the issuer.
func (p *identityProvider) sign(el *etree.Element, s said) *etree.Element {
	p.t.Helper()
	c, err := dsig.NewSigningContext(s.Key, [][]byte{certOf(p.t, s.Key)})
	if err != nil {
		p.t.Fatal(err)
	}
	c.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	if err := c.SetSignatureMethod(s.Method); err != nil {
		p.t.Fatal(err)
	}
	signature, err := c.ConstructSignature(el, true)
	if err != nil {
		p.t.Fatal(err)
	}
	el = el.Copy()
	el.InsertChildAt(1, signature)
	return el
}

// response wraps assertions.
func (p *identityProvider) response(s said, assertions ...*etree.Element) *etree.Element {
	detail := ""
	if s.Detail != "" {
		detail = `<samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:` + s.Detail + `"/>`
	}
	el := p.parse(`<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_` + rand.Text() + `" Version="2.0" IssueInstant="` +
		s.Now.UTC().Format(time.RFC3339) + `" Destination="` + s.Recipient + `" InResponseTo="` + s.InResponseTo + `">` +
		`<saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">` + s.Issuer + `</saml:Issuer>` +
		`<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:` + s.Status + `">` + detail + `</samlp:StatusCode></samlp:Status></samlp:Response>`)
	for _, a := range assertions {
		el.AddChild(a)
	}
	if s.SignResponse {
		return p.sign(el, s)
	}
	return el
}

func text(t *testing.T, el *etree.Element) string {
	t.Helper()
	doc := etree.NewDocument()
	doc.SetRoot(el.Copy())
	s, err := doc.WriteToString()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// leaveCorp begins a sign-in with the company.
func (b *browser) leaveCorp(query string) (saml.AuthnRequest, url.Values) {
	b.w.t.Helper()
	about := b.get("/federation/corp/metadata")
	if about.status != http.StatusOK || about.header.Get("Content-Type") != "application/samlmetadata+xml" {
		b.w.t.Fatalf("our metadata: %d %s", about.status, about.header.Get("Content-Type"))
	}
	return b.w.others.idp.asked(b.leave("/federation/corp"+query), []byte(about.text))
}

// deliver posts a response as a browser does that comes from the identity provider: from another site, without cookies. It then
// follows where it is sent, with cookies.
func (b *browser) deliver(response string, q url.Values) page {
	b.w.t.Helper()
	form := url.Values{"SAMLResponse": {base64.StdEncoding.EncodeToString([]byte(response))}, "RelayState": {q.Get("RelayState")}}
	req, err := http.NewRequestWithContext(b.w.t.Context(), http.MethodPost, b.w.site.URL+"/federation/corp/callback", strings.NewReader(form.Encode()))
	b.w.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "https://idp.corp.example")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	req.Header.Set("Accept-Language", "en")
	bare := *b.w.site.Client()
	bare.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := bare.Do(req)
	b.w.must(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther {
		text, err := io.ReadAll(resp.Body)
		b.w.must(err)
		return page{resp.StatusCode, resp.Request.URL.Path, string(text), resp.Header}
	}
	if len(resp.Cookies()) > 0 || len(resp.Header.Get("Location")) > 4000 {
		b.w.t.Errorf("the form is answered with %d cookies and an address of %d bytes", len(resp.Cookies()), len(resp.Header.Get("Location")))
	}
	return b.get(resp.Header.Get("Location"))
}

// withCorp signs in with the company.
func (b *browser) withCorp(who person, change ...func(*said)) page {
	b.w.t.Helper()
	request, q := b.leaveCorp("")
	s := b.w.others.idp.honest(request, who)
	for _, c := range change {
		c(&s)
	}
	return b.deliver(text(b.w.t, b.w.others.idp.response(s, b.w.others.idp.assertion(s))), q)
}
