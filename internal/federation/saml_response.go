package federation

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	dsig "github.com/russellhaering/goxmldsig"

	"github.com/sumunio/sumun/internal/mail"
)

// A response passes three gates. Its shape must be the plain one that leaves no room for wrapping: one assertion, signatures over
// nothing but their own parents (readResponse). The library verifies signature and profile. What people are let in by is then read
// from the bytes that were signed, and from nothing else (signed, believe).

// Namespaces and the values that are looked at.
const (
	nsProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"

	statusPrefix    = "urn:oasis:names:tc:SAML:2.0:status:"
	bearer          = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
	formatTransient = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
	formatEmail     = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
)

// samlSkew is how far the identity provider's clock may be off.
const samlSkew = time.Minute

// Bounds of a response, beside its size in bytes.
const (
	maxElements   = 1000 // of which the library looks at no more either
	maxDepth      = 24
	maxAttributes = 32 // of one element, which are compared with one another
)

// statement is what an identity provider has said of a person, verified.
type statement struct {
	Identity      Identity
	InResponseTo  string
	Assertion     string // its id, which counts once
	Authenticated time.Time
	Until         time.Time
}

// response is a response of a shape that can be verified.
type response struct {
	raw          []byte
	inResponseTo string
	statuses     []string // from general to particular
}

// refusal is the response's status in the words of OAuth, "" for success (saml-core section 3.2.2.2).
func (r *response) refusal() string {
	status := func(i int) string {
		if i < len(r.statuses) {
			return strings.TrimPrefix(r.statuses[i], statusPrefix)
		}
		return ""
	}
	switch {
	case status(0) == "Success":
		return ""
	case slices.Contains([]string{"AuthnFailed", "RequestDenied", "NoPassive", "UnknownPrincipal"}, status(1)):
		return "access_denied"
	case status(0) == "Responder" && status(1) == "":
		return "server_error"
	}
	return fmt.Sprintf("%.40s %.40s", status(0), status(1))
}

// algorithms are those that may be named in a signature, by the element that names them. SHA-1 is not among them, nor is a
// canonicalisation that keeps comments, nor a transformation that could take away more than the signature itself.
var algorithms = map[string][]string{
	"CanonicalizationMethod": {string(dsig.CanonicalXML10ExclusiveAlgorithmId), string(dsig.CanonicalXML10RecAlgorithmId), string(dsig.CanonicalXML11AlgorithmId)},
	"Transform": {string(dsig.EnvelopedSignatureAltorithmId), string(dsig.CanonicalXML10ExclusiveAlgorithmId),
		string(dsig.CanonicalXML10RecAlgorithmId), string(dsig.CanonicalXML11AlgorithmId)},
	"SignatureMethod": {dsig.RSASHA256SignatureMethod, dsig.RSASHA384SignatureMethod, dsig.RSASHA512SignatureMethod,
		dsig.ECDSASHA256SignatureMethod, dsig.ECDSASHA384SignatureMethod, dsig.ECDSASHA512SignatureMethod},
	"DigestMethod": {"http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmldsig-more#sha384", "http://www.w3.org/2001/04/xmlenc#sha512"},
}

// single are elements of which a parent has one at most.
var single = map[string]bool{"Status": true, "StatusCode": true, "Issuer": true, "Subject": true, "NameID": true, "Conditions": true,
	"SubjectConfirmation": true, "SubjectConfirmationData": true, "Signature": true, "SignedInfo": true, "SignatureMethod": true,
	"CanonicalizationMethod": true, "Reference": true, "DigestMethod": true, "DigestValue": true, "SignatureValue": true, "KeyInfo": true, "X509Data": true}

// open is an element that has begun.
type open struct {
	name     xml.Name
	id       string
	children map[xml.Name]int
}

// shape reads a response's tokens, and refuses what no identity provider writes and every attack needs.
type shape struct {
	response
	path     []open
	ids      map[string]bool
	elements int
}

// readResponse answers an error for everything but a response of the plain shape. It believes nothing of it.
func readResponse(raw []byte) (*response, error) {
	s := shape{response: response{raw: raw}, ids: map[string]bool{}}
	d := xml.NewDecoder(bytes.NewReader(raw))
	for first := true; ; first = false {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("the response is not XML: %w", err)
		}
		switch t := token.(type) {
		case xml.ProcInst:
			if !first || t.Target != "xml" {
				return nil, errors.New("the response has a processing instruction")
			}
		case xml.Directive:
			return nil, errors.New("the response has a document type")
		case xml.Comment:
			return nil, errors.New("the response has a comment")
		case xml.StartElement:
			if err := s.begin(t); err != nil {
				return nil, err
			}
		case xml.EndElement:
			if err := s.end(); err != nil {
				return nil, err
			}
		}
	}
	if s.elements == 0 {
		return nil, errors.New("the response is empty")
	}
	return &s.response, nil
}

func (s *shape) begin(t xml.StartElement) error {
	s.elements++
	if s.elements > maxElements || len(s.path) >= maxDepth || len(t.Attr) > maxAttributes {
		return errors.New("the response is too large")
	}
	one := open{name: t.Name, children: map[xml.Name]int{}}
	for i, a := range t.Attr {
		if slices.ContainsFunc(t.Attr[:i], func(b xml.Attr) bool { return a.Name == b.Name }) {
			return fmt.Errorf("an element %s has an attribute twice", t.Name.Local)
		}
		if strings.EqualFold(a.Name.Local, "id") && a.Name.Space != "xmlns" {
			if s.ids[a.Value] || a.Name.Local != "ID" || a.Name.Space != "" {
				return errors.New("two elements have one id, or it is not a SAML id")
			}
			s.ids[a.Value], one.id = true, a.Value
		}
	}
	if err := s.place(t, one); err != nil {
		return err
	}
	if n := len(s.path); n > 0 {
		parent := s.path[n-1]
		parent.children[t.Name]++
		if single[t.Name.Local] && parent.children[t.Name] > 1 {
			return fmt.Errorf("an element %s has two %s", parent.name.Local, t.Name.Local)
		}
	}
	s.path = append(s.path, one)
	return nil
}

// place says whether an element may stand where it does.
func (s *shape) place(t xml.StartElement, one open) error {
	depth := len(s.path)
	var parent open
	if depth > 0 {
		parent = s.path[depth-1]
	}
	wrong := func() error { return fmt.Errorf("an element %s in %s", t.Name.Local, parent.name.Local) }
	switch t.Name {
	case xml.Name{Space: nsProtocol, Local: "Response"}:
		if depth > 0 {
			return wrong()
		}
		s.inResponseTo = attribute(t, "InResponseTo")
		return nil
	case xml.Name{Space: nsAssertion, Local: "Assertion"}:
		if depth != 1 || parent.children[t.Name] > 0 || one.id == "" {
			return wrong()
		}
	case xml.Name{Space: nsProtocol, Local: "StatusCode"}:
		s.statuses = append(s.statuses, attribute(t, "Value"))
	}
	switch {
	case depth == 0:
		return wrong()
	case strings.HasPrefix(t.Name.Local, "Encrypted"):
		return errors.New("what is encrypted cannot be read; let the identity provider sign only")
	case parent.name.Local == "NameID" || parent.name.Local == "Issuer":
		return wrong()
	case t.Name.Space == dsig.Namespace:
		return s.placeSignature(t, parent)
	}
	return nil
}

// placeSignature holds signatures to what they are for: one, directly in the element that it signs and that it names by its id.
func (s *shape) placeSignature(t xml.StartElement, parent open) error {
	ok := true
	switch t.Name.Local {
	case "Signature":
		ok = (parent.name == xml.Name{Space: nsProtocol, Local: "Response"} || parent.name == xml.Name{Space: nsAssertion, Local: "Assertion"}) && parent.id != ""
	case "Reference":
		owner := len(s.path) - 3 // of the signature, of the signed info
		ok = parent.name.Local == "SignedInfo" && owner >= 0 && attribute(t, "URI") == "#"+s.path[owner].id
	case "Object", "Manifest", "RetrievalMethod", "XPath":
		ok = false
	}
	if known, names := algorithms[t.Name.Local]; names {
		ok = ok && slices.Contains(known, attribute(t, "Algorithm"))
	}
	if !ok {
		return fmt.Errorf("a signature has an element %s that is not accepted", t.Name.Local)
	}
	return nil
}

// end demands of an element that is complete what the library takes for granted.
func (s *shape) end() error {
	one := s.path[len(s.path)-1]
	s.path = s.path[:len(s.path)-1]
	demanded := map[string][]string{"Assertion": {"Issuer", "Subject", "Conditions", "AuthnStatement"}, "Subject": {"NameID", "SubjectConfirmation"},
		"SubjectConfirmation": {"SubjectConfirmationData"}, "Conditions": {"AudienceRestriction"}}
	for _, child := range demanded[one.name.Local] {
		if one.name.Space == nsAssertion && one.children[xml.Name{Space: nsAssertion, Local: child}] == 0 {
			return fmt.Errorf("an element %s has no %s", one.name.Local, child)
		}
	}
	return nil
}

func attribute(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name == (xml.Name{Local: name}) {
			return a.Value
		}
	}
	return ""
}

// witness keeps what a signature covers. It implements saml.SignatureVerifier.
type witness struct{ signed *etree.Element }

func (w *witness) VerifySignature(c *dsig.ValidationContext, el *etree.Element) error {
	signed, err := c.Validate(el)
	w.signed = signed
	return err
}

// signed verifies a response and returns the assertion as it was signed.
func (s *samlProvider) signed(r *response, peer *saml.EntityDescriptor) (signed *saml.Assertion, err error) {
	here, err := url.Parse(s.redirect)
	if err != nil {
		return nil, err
	}
	// The library stumbles over namespaces that it cannot resolve, which anybody may post: it takes its error to be about the element that
	// it has not got.
	defer func() {
		if stumbled := recover(); stumbled != nil {
			signed, err = nil, fmt.Errorf("the response does not verify: %v", stumbled)
		}
	}()
	var w witness
	library := saml.ServiceProvider{EntityID: s.entity, AcsURL: *here, IDPMetadata: peer, SignatureVerifier: &w}
	if _, err := library.ParseXMLResponse(r.raw, []string{r.inResponseTo}, *here); err != nil {
		if private, ok := errors.AsType[*saml.InvalidResponseError](err); ok {
			err = private.PrivateErr
		}
		return nil, fmt.Errorf("the response does not verify: %.300w", err)
	}
	doc := etree.NewDocument()
	doc.SetRoot(w.signed)
	text, err := doc.WriteToBytes()
	if err != nil {
		return nil, err
	}
	if w.signed.Tag == "Assertion" {
		var a saml.Assertion
		return &a, xml.Unmarshal(text, &a)
	}
	var whole struct {
		Assertion *saml.Assertion `xml:"urn:oasis:names:tc:SAML:2.0:assertion Assertion"`
	}
	if err := xml.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	if whole.Assertion == nil {
		return nil, errors.New("the response has no assertion")
	}
	return whole.Assertion, nil
}

// believe checks what the library leaves open (saml-profiles section 4.1.4.3), by our clock, and reads the person.
func (s *samlProvider) believe(a *saml.Assertion) (*statement, error) {
	now := s.clock()
	if a.Subject == nil || a.Subject.NameID == nil || len(a.Subject.SubjectConfirmations) != 1 || a.Conditions == nil || len(a.AuthnStatements) == 0 {
		return nil, errors.New("the assertion is not complete")
	}
	confirmation, authn := a.Subject.SubjectConfirmations[0], a.AuthnStatements[0]
	data := confirmation.SubjectConfirmationData
	if data == nil || confirmation.Method != bearer || data.InResponseTo == "" || !data.NotBefore.IsZero() || data.Recipient != s.redirect {
		return nil, errors.New("the assertion is not for who brings it here")
	}
	for _, restriction := range a.Conditions.AudienceRestrictions {
		if restriction.Audience.Value != s.entity {
			return nil, errors.New("the assertion is for another audience")
		}
	}
	until := data.NotOnOrAfter
	for _, end := range []time.Time{a.Conditions.NotOnOrAfter, deref(authn.SessionNotOnOrAfter)} {
		if !end.IsZero() && end.Before(until) {
			until = end
		}
	}
	switch until = until.Add(samlSkew); {
	case data.NotOnOrAfter.IsZero() || !now.Before(until):
		return nil, errors.New("the assertion has expired")
	case a.Conditions.NotBefore.After(now.Add(samlSkew)), a.IssueInstant.After(now.Add(samlSkew)), authn.AuthnInstant.After(now.Add(samlSkew)):
		return nil, errors.New("the assertion is from the future")
	}
	if latest := now.Add(flowLifetime); until.After(latest) {
		until = latest // no flow that it could answer lives longer
	}
	who, err := s.person(a)
	if err != nil {
		return nil, err
	}
	if who, err = who.checked(); err != nil { // here, so that it fits into an address
		return nil, errors.New("the NameID cannot name anybody")
	}
	return &statement{Identity: who, InResponseTo: data.InResponseTo, Assertion: a.ID, Authenticated: authn.AuthnInstant, Until: until}, nil
}

func deref(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// Usual names of attributes: short, as LDAP object identifiers (X.500/LDAP attribute profile), as Microsoft's claims.
var (
	usualEmail = []string{"email", "mail", "urn:oid:0.9.2342.19200300.100.1.3", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress"}
	usualName  = []string{"displayName", "urn:oid:2.16.840.1.113730.3.1.241", "http://schemas.microsoft.com/identity/claims/displayname", "cn", "urn:oid:2.5.4.3", "name"}
)

// person reads who the assertion is about.
func (s *samlProvider) person(a *saml.Assertion) (Identity, error) {
	values := map[string][]string{}
	for _, all := range a.AttributeStatements {
		for _, one := range all.Attributes {
			for _, v := range one.Values {
				values[one.Name] = append(values[one.Name], v.Value)
				if one.FriendlyName != "" && one.FriendlyName != one.Name {
					values[one.FriendlyName] = append(values[one.FriendlyName], v.Value)
				}
			}
		}
	}
	first := func(chosen string, usual []string) string {
		if chosen != "" {
			usual = []string{chosen}
		}
		for _, name := range usual {
			if v := values[name]; len(v) > 0 {
				return strings.TrimSpace(v[0])
			}
		}
		return ""
	}
	subject, err := s.subject(a.Subject.NameID, values)
	if err != nil {
		return Identity{}, err
	}
	who := s.identity(subject)
	who.Name = first(s.cfg.Attributes.Name, usualName)
	who.Email = first(s.cfg.Attributes.Email, usualEmail)
	if who.Email == "" && a.Subject.NameID.Format == formatEmail {
		who.Email = strings.TrimSpace(a.Subject.NameID.Value)
	}
	_, domain, _ := strings.Cut(who.Email, "@")
	who.EmailVerified = slices.Contains(s.cfg.EmailDomains, mail.LowerASCII(domain))
	return who, nil
}

// subject is what names the person for ever.
func (s *samlProvider) subject(id *saml.NameID, values map[string][]string) (string, error) {
	if name := s.cfg.Attributes.Subject; name != "" {
		if v := values[name]; len(v) == 1 {
			return strings.TrimSpace(v[0]), nil
		}
		return "", fmt.Errorf("the assertion has no single attribute %q", name)
	}
	switch {
	case id.Format == formatTransient:
		return "", errors.New("the NameID is another one each time; let it be persistent, or set attributes.subject")
	case id.SPNameQualifier != "" && id.SPNameQualifier != s.entity:
		return "", errors.New("the NameID is for another service")
	}
	return strings.TrimSpace(id.Value), nil
}
