package federation

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/crewjam/saml"
	xrv "github.com/mattermost/xml-roundtrip-validator"

	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/mail"
)

// validateSAML is validate for what only SAML has.
func (p Provider) validateSAML(key string) error {
	var errs []error
	wrong := func(member, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s.%s: %s", key, member, fmt.Sprintf(format, args...)))
	}
	if p.Issuer == "" {
		wrong("issuer", "empty; enter the entity id of the identity provider, as its metadata has it")
	}
	if _, err := parseRSAKey(p.Key); err != nil {
		wrong("key", "%v", err)
	}
	switch {
	case (p.MetadataURL == "") == (p.MetadataFile == ""):
		wrong("metadata_url", "%q, and metadata_file is %q; name one of the two", p.MetadataURL, p.MetadataFile)
	case p.MetadataURL != "":
		if err := checkEndpoint(p.MetadataURL); err != nil {
			wrong("metadata_url", "%q %v", p.MetadataURL, err)
		}
	default:
		text, err := os.ReadFile(p.MetadataFile)
		if err == nil {
			_, err = parseMetadata(text, p.Issuer)
		}
		if err != nil {
			wrong("metadata_file", "%q cannot be used: %v", p.MetadataFile, err)
		}
	}
	for _, d := range p.EmailDomains {
		if d == "" || d != mail.LowerASCII(d) || strings.ContainsAny(d, "@ *") {
			wrong("email_domains", "%q is not a mail domain in lower case, such as example.com", d)
		}
	}
	return errors.Join(errs...)
}

// parseRSAKey reads a key for signing requests: RSA, which every identity provider verifies. Its errors do not repeat the text.
func parseRSAKey(text keyring.Secret) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(strings.TrimSpace(text.Reveal())))
	if block == nil {
		return nil, errors.New("not a PEM file; make one with: openssl genrsa -out saml.pem 3072, and give it with key_file")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok || key.N.BitLen() < 2048 {
		return nil, errors.New("not an RSA private key of 2048 bits or more; make one with: openssl genrsa -out saml.pem 3072")
	}
	return key, nil
}

// certificate wraps a key in the form that metadata wants it in. Everything in it follows from the key, so that all nodes publish the
// same, and nobody has to renew what nobody checks: metadata vouches for the key, not a certificate authority.
func certificate(key *rsa.PrivateKey, name string) ([]byte, error) {
	public := x509.MarshalPKCS1PublicKey(&key.PublicKey)
	sum := sha256.Sum256(public)
	template := x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(sum[:16]), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC),
		SignatureAlgorithm: x509.SHA256WithRSA, // PKCS #1 v1.5, which is the same every time
	}
	return x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
}

// metadata describes this installation as a service provider (saml-metadata section 2.4.4).
func (s *samlProvider) metadata() ([]byte, error) {
	key, err := parseRSAKey(s.cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", s.cfg.Name, err)
	}
	der, err := certificate(key, s.cfg.Name)
	if err != nil {
		return nil, err
	}
	yes := true
	return xml.MarshalIndent(saml.EntityDescriptor{
		EntityID: s.entity, ValidUntil: s.clock().Add(metadataValidity).UTC().Truncate(time.Second),
		SPSSODescriptors: []saml.SPSSODescriptor{{
			SSODescriptor: saml.SSODescriptor{
				RoleDescriptor: saml.RoleDescriptor{
					ProtocolSupportEnumeration: "urn:oasis:names:tc:SAML:2.0:protocol",
					KeyDescriptors: []saml.KeyDescriptor{{Use: "signing", KeyInfo: saml.KeyInfo{X509Data: saml.X509Data{
						X509Certificates: []saml.X509Certificate{{Data: base64.StdEncoding.EncodeToString(der)}}}}}},
				},
			},
			AuthnRequestsSigned: &yes, WantAssertionsSigned: &yes,
			AssertionConsumerServices: []saml.IndexedEndpoint{{Binding: saml.HTTPPostBinding, Location: s.redirect, Index: 1, IsDefault: &yes}},
		}},
	}, "", "  ")
}

// metadataValidity is how long whoever reads our metadata may believe it without reading it again.
const metadataValidity = 30 * 24 * time.Hour

// parseMetadata finds an identity provider in its metadata, alone or among others.
func parseMetadata(text []byte, entity string) (*saml.EntityDescriptor, error) {
	if err := xrv.Validate(bytes.NewReader(text)); err != nil {
		return nil, fmt.Errorf("it is not XML that can be relied on: %w", err)
	}
	var one saml.EntityDescriptor
	if err := xml.Unmarshal(text, &one); err == nil {
		return checkPeer(&one, entity)
	}
	var many saml.EntitiesDescriptor
	if err := xml.Unmarshal(text, &many); err != nil {
		return nil, fmt.Errorf("it is no SAML metadata: %w", err)
	}
	for i, e := range many.EntityDescriptors {
		if e.EntityID == entity {
			return checkPeer(&many.EntityDescriptors[i], entity)
		}
	}
	return nil, fmt.Errorf("it does not describe %q; enter the entity id that it has as issuer", entity)
}

func checkPeer(e *saml.EntityDescriptor, entity string) (*saml.EntityDescriptor, error) {
	if e.EntityID != entity {
		return nil, fmt.Errorf("it describes %.256q rather than %q; enter the entity id that it has as issuer", e.EntityID, entity)
	}
	for _, d := range e.IDPSSODescriptors {
		for _, k := range d.KeyDescriptors {
			if k.Use != "encryption" && len(k.KeyInfo.X509Data.X509Certificates) > 0 {
				return e, nil
			}
		}
	}
	return nil, errors.New("it has no certificate of an identity provider to verify signatures with")
}

// ssoAddress is where requests go by redirect, "" for nowhere.
func ssoAddress(e *saml.EntityDescriptor) string {
	for _, d := range e.IDPSSODescriptors {
		for _, service := range d.SingleSignOnServices {
			if service.Binding == saml.HTTPRedirectBinding && checkEndpoint(service.Location) == nil {
				return service.Location
			}
		}
	}
	return ""
}
