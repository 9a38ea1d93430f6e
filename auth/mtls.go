package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
)

// The reasons to refuse a token that is bound to a client's TLS certificate (RFC 8705 section 3).
var (
	// ErrNoCertificate: the token is bound to a certificate, and the client has shown none on this connection.
	ErrNoCertificate = refusal("auth.certificate_missing", invalidToken,
		"The access token is bound to a TLS client certificate. Connect with it.")
	// ErrCertificate: the client has shown another certificate than the one the token is bound to.
	ErrCertificate = refusal("auth.certificate", invalidToken, "The access token is bound to another TLS client certificate.")
)

// CertificateThumbprint is the x5t#S256 of a certificate in DER (RFC 8705 section 3.1).
func CertificateThumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// checkCertificate compares the certificate of a connection, nil for none. Who vouches for it does not matter, nor whether it has
// expired: it is proof of a key, and what it was for was decided when the token was issued.
func (c Confirmation) checkCertificate(der []byte) error {
	switch {
	case len(der) == 0:
		return ErrNoCertificate
	case subtle.ConstantTimeCompare([]byte(CertificateThumbprint(der)), []byte(c.X5T)) != 1:
		return ErrCertificate
	}
	return nil
}

// connectionCertificate is the certificate that a client has shown this very process.
func connectionCertificate(r *http.Request) []byte {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0].Raw
}
