package oidc

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/session"
)

// Exposed to the tests of this package.
var (
	CheckRedirect  = checkRedirect
	AllowsRedirect = Metadata.allowsRedirect

	CheckFrontchannel = Metadata.checkFrontchannel
)

// ParseRequest reads an authorization request of a client, and returns where its answer would go.
func ParseRequest(m Metadata, params url.Values) (string, error) {
	if !m.allowsRedirect(params.Get("redirect_uri")) {
		return "", errors.New("another address")
	}
	r := &request{client: Client{ID: "shop", Metadata: m}, redirectURI: params.Get("redirect_uri"), mode: modeQuery, maxAge: -1, params: params}
	if err := r.check(); err != nil {
		return "", err
	}
	_ = r.again(time.Unix(0, 0))
	to := r.location(r.answer("https://id.example.com", url.Values{"code": {"x"}}))
	_, err := url.Parse(to)
	return to, err
}

// Hear is what a node does about what the revocation feed tells.
func (s *Service) Hear(ctx context.Context, revocations ...auth.Revocation) {
	s.noteEnded(ctx, revocations)
}

// Sweep removes what is over.
func (s *Service) Sweep(ctx context.Context) { s.sweep(ctx) }

// Audiences are those that a token is judged for.
func (s *Service) Audiences(c Client, raw string) []string { return s.audiences(c, raw) }

// SubjectOf is the subject of a certificate with the name that is written as text; false where there can be none.
func SubjectOf(text string) (raw []byte, can bool) {
	parts, err := parseDN(text)
	if err != nil {
		return nil, false
	}
	var subject pkix.RDNSequence
	for _, part := range slices.Backward(parts) {
		var set pkix.RelativeDistinguishedNameSET
		for _, a := range part {
			oid, err := x509.ParseOID(a.oid)
			if err != nil {
				return nil, false
			}
			var id asn1.ObjectIdentifier
			for _, arc := range strings.Split(oid.String(), ".") {
				n, err := strconv.Atoi(arc)
				if err != nil {
					return nil, false
				}
				id = append(id, n)
			}
			set = append(set, pkix.AttributeTypeAndValue{Type: id, Value: a.value})
		}
		subject = append(subject, set)
	}
	raw, err = asn1.Marshal(subject)
	return raw, err == nil
}

// IsSubject reports whether the name written as text is the subject of a certificate.
func IsSubject(text string, raw []byte) bool {
	parts, err := parseDN(text)
	return err == nil && isSubject(parts, raw)
}

// WantsSigned reports whether Accept asks for a signed answer.
var WantsSigned = wantsSigned

// NoteEnded notes what has been revoked so far.
func (s *Service) NoteEnded(ctx context.Context, sessions *session.Service) {
	done, stop := context.WithCancel(ctx)
	sessions.Follow(done, func(_ context.Context, all []auth.Revocation) {
		s.noteEnded(ctx, all)
		stop()
	})
}

// ReadMetadata reads what a program says of itself.
func ReadMetadata(body []byte) (Metadata, error) {
	s, err := readMetadata(body)
	return s.Metadata, err
}

// CheckAll refuses what cannot be accepted of a client.
func (m Metadata) CheckAll() error {
	m.complete()
	return m.check()
}

// UsableKeys counts the keys of a set that signatures are verified with, each of which must be one.
func UsableKeys(document []byte) (int, error) {
	set, err := parseClientKeys(document)
	for _, k := range set.Keys {
		if _, err := k.public(); err != nil {
			panic("a key that cannot be used")
		}
	}
	return len(set.Keys), err
}

// Sector is who knows people by the names that a client knows.
func Sector(m Metadata) string { return m.sector() }

// ParseVeil reads a hidden refresh token, and returns how it is written.
func ParseVeil(presented string) (string, error) {
	id, nonce, sealed, err := parseVeil(presented)
	b := append(append(binary.BigEndian.AppendUint32(nil, id), nonce...), sealed...)
	return veilPrefix + base64.RawURLEncoding.EncodeToString(b), err
}
