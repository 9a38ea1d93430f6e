package oidc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/session"
)

// The proofs by a TLS certificate (RFC 8705, section 2).
const (
	// AuthTLS is the proof by a certificate of an authority that the operators trust, which names the client.
	AuthTLS = "tls_client_auth"
	// AuthSelfSigned is the proof by a certificate that the client has registered, itself or its key, and nobody else needs to vouch for.
	AuthSelfSigned = "self_signed_tls_client_auth"
)

// CertificateNames are what the certificate of a client says that proves itself with AuthTLS: one of them (RFC 8705, section 2.1.2).
type CertificateNames struct {
	SubjectDN string `json:"tls_client_auth_subject_dn,omitempty"`
	DNS       string `json:"tls_client_auth_san_dns,omitempty"`
	URI       string `json:"tls_client_auth_san_uri,omitempty"`
	IP        string `json:"tls_client_auth_san_ip,omitempty"`
	Email     string `json:"tls_client_auth_san_email,omitempty"`
}

func (n CertificateNames) count() (count int) {
	for _, name := range []string{n.SubjectDN, n.DNS, n.URI, n.IP, n.Email} {
		if name != "" {
			count++
		}
	}
	return count
}

// provesByCertificate reports whether the client proves itself by what it has shown in TLS.
func (m Metadata) provesByCertificate() bool {
	return m.AuthMethod == AuthTLS || m.AuthMethod == AuthSelfSigned
}

// checkCertificate refuses what cannot be a certificate's name.
func (m Metadata) checkCertificate(refuse func(name, message string)) {
	n := m.CertificateNames
	if m.AuthMethod == AuthTLS && n.count() != 1 || m.AuthMethod != AuthTLS && n.count() != 0 {
		refuse("tls_client_auth_subject_dn", "tls_client_auth, and nothing else, needs exactly one of tls_client_auth_subject_dn, _san_dns, "+
			"_san_uri, _san_ip and _san_email.")
	}
	if _, err := parseDN(n.SubjectDN); n.SubjectDN != "" && err != nil {
		refuse("tls_client_auth_subject_dn", "Must be a name such as CN=billing,O=Example (RFC 4514).")
	}
	if _, err := netip.ParseAddr(n.IP); n.IP != "" && err != nil {
		refuse("tls_client_auth_san_ip", "Must be an address such as 192.0.2.7.")
	}
	if u, err := url.Parse(n.URI); n.URI != "" && (err != nil || !u.IsAbs()) {
		refuse("tls_client_auth_san_uri", "Must be an absolute URI.")
	}
	if n.Email != "" && !strings.Contains(n.Email, "@") {
		refuse("tls_client_auth_san_email", "Must be a mail address.")
	}
}

// certified reports whether the certificate on the connection proves that the client is who it says: that it has the key was proved in
// the handshake, to us or to a proxy of ours.
func (s *Service) certified(ctx context.Context, c Client) bool {
	chain, err := httpd.ClientChain(ctx)
	if err != nil {
		return false
	}
	leaf, now := chain[0], s.deps.Clock()
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return false
	}
	if c.AuthMethod == AuthTLS {
		return c.CertificateNames.in(leaf) && s.deps.Authorities != nil && s.deps.Authorities.Verify(chain) == nil
	}
	has := func(set clientKeys) bool {
		return slices.ContainsFunc(set.Keys, func(k clientKey) bool { return k.isOf(leaf) })
	}
	set, err := s.keys(ctx, c, has)
	return err == nil && has(set)
}

// in reports whether a certificate has the name.
func (n CertificateNames) in(cert *x509.Certificate) bool {
	switch {
	case n.SubjectDN != "":
		parts, err := parseDN(n.SubjectDN)
		return err == nil && isSubject(parts, cert.RawSubject)
	case n.DNS != "":
		return slices.ContainsFunc(cert.DNSNames, func(name string) bool { return strings.EqualFold(name, n.DNS) })
	case n.URI != "":
		return slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == n.URI })
	case n.IP != "":
		want, err := netip.ParseAddr(n.IP)
		return err == nil && slices.ContainsFunc(cert.IPAddresses, func(ip net.IP) bool {
			got, ok := netip.AddrFromSlice(ip)
			return ok && got.Unmap() == want.Unmap()
		})
	case n.Email != "":
		return slices.Contains(cert.EmailAddresses, n.Email)
	}
	return false
}

// isOf reports whether a registered key is a certificate's: the very certificate, where one is registered with it (RFC 7517, section 4.7).
func (k clientKey) isOf(cert *x509.Certificate) bool {
	if len(k.Certificates) > 0 {
		der, err := base64.StdEncoding.DecodeString(k.Certificates[0])
		return err == nil && bytes.Equal(der, cert.Raw)
	}
	public, err := k.public()
	if err != nil {
		return false
	}
	comparable, ok := public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(cert.PublicKey)
}

// boundTo returns the thumbprint of the certificate that the tokens of a request are to be bound to; "" where the client wants none. Which
// certificate it is does not matter here: a client without a secret may make a new one for each sign-in (RFC 8705, section 4).
func (s *Service) boundTo(r *http.Request, c *call) (string, error) {
	if !c.client.BindTokens {
		return "", nil
	}
	if c.thumbprint != "" {
		return "", ErrInvalidRequest.With("The tokens of this client are bound to its TLS certificate. Send no DPoP proof.")
	}
	der := httpd.ClientCertificate(r)
	if der == nil {
		return "", ErrInvalidRequest.With("The tokens of this client are bound to its TLS certificate. Connect with one.")
	}
	return auth.CertificateThumbprint(der), nil
}

// tokens is what the tokens of a request are like.
func (c *call) tokens() session.Form {
	return session.Form{Certificate: c.certificate, BindsRefresh: c.client.Public(), Opaque: c.client.opaque()}
}

// methods are the ways of proving to be a client that work here.
func (s *Service) methods() []string {
	return slices.DeleteFunc(slices.Clone(authMethods), func(name string) bool {
		return name == AuthTLS && (s.deps.Authorities == nil || !s.deps.Certificates) || name == AuthSelfSigned && !s.deps.Certificates
	})
}

// aliases are the endpoints under the address where clients are asked for certificates (RFC 8705, section 5).
func (s *Service) aliases() map[string]string {
	if s.cfg.MTLSURL == "" {
		return nil
	}
	aliases := map[string]string{}
	for name, path := range map[string]string{
		"token_endpoint": tokenPath, "introspection_endpoint": introspectPath, "revocation_endpoint": revokePath,
		"userinfo_endpoint": userInfoPath, "pushed_authorization_request_endpoint": parPath, "device_authorization_endpoint": deviceEndpoint,
	} {
		aliases[name] = s.cfg.MTLSURL + path
	}
	return aliases
}
