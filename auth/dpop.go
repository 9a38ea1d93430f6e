package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Confirmation says which key a token is bound to (RFC 7800 section 3.1). The zero value: to none, so that whoever has the
// token may use it. A token that is bound to both needs both.
type Confirmation struct {
	// JKT is the thumbprint of the client's key (RFC 9449 section 6.1), as [Thumbprint] makes it.
	JKT string `json:"jkt,omitempty"`
	// X5T is the thumbprint of the client's TLS certificate (RFC 8705 section 3.1), as [CertificateThumbprint] makes it.
	X5T string `json:"x5t#S256,omitempty"`
}

func (c Confirmation) bound() bool { return c.JKT != "" || c.X5T != "" }

// bare returns nil for a token that is bound to no key, and otherwise the reason why it is worth nothing by itself.
func (c Confirmation) bare() error {
	switch {
	case c.JKT != "":
		return ErrBound
	case c.X5T != "":
		return ErrNoCertificate
	}
	return nil
}

// The reasons to refuse a request for want of a proof (RFC 9449).
var (
	// ErrProof: the proof is missing, malformed, or not one for this request. The description says which.
	ErrProof = dpopRefusal("auth.dpop_proof", "invalid_dpop_proof", "The DPoP proof is not valid.")
	// ErrProofReplayed: the proof was used before. Every request needs a new one.
	ErrProofReplayed = dpopRefusal("auth.dpop_replayed", "invalid_dpop_proof", "The DPoP proof was used before. Make a new one for each request.")
	// ErrNonce: the client is to make a new proof with the nonce of the header DPoP-Nonce.
	ErrNonce = dpopRefusal("auth.dpop_nonce", "use_dpop_nonce", "Make a new DPoP proof with the nonce of DPoP-Nonce.")
	// ErrProofKey: the proof is of another key than the one the token is bound to.
	ErrProofKey = dpopRefusal("auth.dpop_key", invalidToken, "The DPoP proof is of another key than the one the token is bound to.")
	// ErrBound: a token that is bound to a key was presented without a proof of it, as a bearer token.
	ErrBound = dpopRefusal("auth.bound", invalidToken, "The access token is bound to a key. Send it in the scheme DPoP, with a proof.")
	// ErrUnbound: a token that is bound to no key was presented in the scheme DPoP.
	ErrUnbound = dpopRefusal("auth.unbound", invalidToken, "The access token is bound to no key. Send it in the scheme Bearer.")
	// ErrProofsUnavailable: whether the proof was used before cannot be said at the moment. The client tries again with a new one.
	ErrProofsUnavailable = &Error{code: "auth.dpop_unavailable", status: http.StatusServiceUnavailable,
		description: "DPoP proofs cannot be checked at the moment. Try again shortly."}
)

func dpopRefusal(code, oauth, description string) *Error {
	return &Error{code: code, status: http.StatusUnauthorized, oauth: oauth, description: description, dpop: true}
}

// improper is ErrProof that says what is wrong. detail goes to the caller: it is a constant, and repeats nothing.
func improper(detail string) *Error {
	e := *ErrProof
	e.description += " " + detail
	return &e
}

// scheme begins a challenge.
func (e *Error) scheme() string {
	if e.dpop {
		return DPoPChallenge()
	}
	return `Bearer realm="sumun"`
}

// DPoPChallenge begins a challenge of the scheme DPoP (RFC 9449 section 7.1): it names the algorithms that a proof may have.
func DPoPChallenge() string {
	return `DPoP realm="sumun", algs="` + strings.Join(proofAlgorithms[:], " ") + `"`
}

// underScheme makes the challenge of err one of the scheme that the request used.
func underScheme(scheme string, err error) error {
	var e *Error
	if scheme != schemeDPoP || !errors.As(err, &e) || e.dpop {
		return err
	}
	c := *e
	c.dpop = true
	return &c
}

// checkBinding judges what a request brings besides its token, which is good by itself. A proof, which is good once, is looked at last.
func (v *Verifier) checkBinding(r *http.Request, scheme, token string, c Confirmation, proofs *Proofs) error {
	bound := c.JKT != ""
	switch {
	case bound && scheme != schemeDPoP:
		return ErrBound
	case !bound && scheme == schemeDPoP:
		return ErrUnbound
	}
	if c.X5T != "" {
		if err := c.checkCertificate(v.cfg.ClientCertificate(r)); err != nil {
			return err
		}
	}
	if !bound {
		return nil
	}
	return proofs.CheckFor(r, token, c)
}

// DPoPNonce returns what the answer to r must carry in the header DPoP-Nonce, so that the client's next proof is not refused
// for its nonce (RFC 9449 section 8.2); "" for nothing. Middleware sets it by itself.
func (v *Verifier) DPoPNonce(r *http.Request) string { return v.cfg.Proofs.NonceFor(r) }

// Replays remembers which proofs were used.
type Replays interface {
	// Once reports whether id is new, and remembers it for the time that it has to be kept. Of several calls at once with one
	// id, one is told that it is new. An error means that nobody can say.
	Once(ctx context.Context, id string, keep time.Duration) (first bool, err error)
}

// ProofConfig says how DPoP proofs are judged. Its zero value does for a service that clients reach without a proxy between.
type ProofConfig struct {
	// PublicURLs are the addresses under which clients know this service, such as https://api.example.com, with the path that
	// a proxy takes away if it does. A proof must be for one of them. Empty: for the Host of the request, over https if Secure. Forwarded and X-Forwarded-* are never read: whoever can reach the service could write them.
	PublicURLs []string
	// Secure reports whether a request came to the client's end over TLS, where PublicURLs is empty. Nil: whether it came here so.
	Secure func(*http.Request) bool
	// Replays remembers used proofs. Nil: in the memory of this process, so that a proof may be used once at each, within
	// Window; each takes a million within it and then answers [ErrProofsUnavailable].
	Replays Replays
	// Nonces are given to clients and checked. Nil: there are none.
	Nonces *Nonces
	// RequireNonce refuses proofs without a nonce. Otherwise only those must have one that were made at a wrong time by the
	// client's clock.
	RequireNonce bool
	// Window is how far a proof's iat may be from now, either way. Zero: one minute. At most 10 minutes.
	Window time.Duration
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
}

const (
	defaultProofWindow = time.Minute
	maxProofWindow     = 10 * time.Minute
	// replaySkew is how far the clocks of those who share a memory of proofs may be apart.
	replaySkew = time.Minute
)

// Proofs judges DPoP proofs (RFC 9449 section 4.3).
type Proofs struct {
	cfg   ProofConfig
	bases []string // PublicURLs, normalised
}

// NewProofs returns a judge, or every fault of the configuration.
func NewProofs(cfg ProofConfig) (*Proofs, error) {
	p := &Proofs{cfg: cfg}
	var faults []error
	for _, public := range cfg.PublicURLs {
		base, err := normalURL(public)
		if err != nil {
			faults = append(faults, fmt.Errorf("auth.ProofConfig.PublicURLs contains %q: %w; write it like https://api.example.com", public, err))
		}
		p.bases = append(p.bases, strings.TrimSuffix(base, "/"))
	}
	if cfg.Window < 0 || cfg.Window > maxProofWindow {
		faults = append(faults, fmt.Errorf("auth.ProofConfig.Window is %v: use 0 to %v", cfg.Window, maxProofWindow))
	}
	if cfg.RequireNonce && cfg.Nonces == nil {
		faults = append(faults, errors.New("auth.ProofConfig.RequireNonce without Nonces refuses every proof: make some with NewNonces"))
	}
	p.cfg.Window = cmp.Or(cfg.Window, defaultProofWindow)
	if p.cfg.Secure == nil {
		p.cfg.Secure = func(r *http.Request) bool { return r.TLS != nil }
	}
	if p.cfg.Clock == nil {
		p.cfg.Clock = time.Now
	}
	if p.cfg.Replays == nil {
		p.cfg.Replays = newMemoryReplays(p.cfg.Clock)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return p, nil
}

// Check judges the proof of a request at a token endpoint, and returns the thumbprint of its key. A request without a proof is
// [ErrProof]; Sent tells. A proof is good once.
func (p *Proofs) Check(r *http.Request) (thumbprint string, err error) {
	got, until, err := p.judge(r)
	if err != nil {
		return "", err
	}
	return got.thumbprint, p.once(r.Context(), got, until)
}

// CheckFor judges the proof of a request that presents an access token bound to a key.
func (p *Proofs) CheckFor(r *http.Request, accessToken string, c Confirmation) error {
	got, until, err := p.judge(r)
	if err != nil {
		return err
	}
	if got.claims.tokenHash != tokenHash(accessToken) {
		return improper("Its ath is not the hash of the access token.")
	}
	if got.thumbprint != c.JKT {
		return ErrProofKey
	}
	return p.once(r.Context(), got, until)
}

// Sent reports whether a request has a header DPoP, whatever is in it.
func Sent(r *http.Request) bool { return len(r.Header.Values("DPoP")) > 0 }

// NonceFor is [Verifier.DPoPNonce].
func (p *Proofs) NonceFor(r *http.Request) string {
	if p.cfg.Nonces == nil || !Sent(r) {
		return ""
	}
	nonce, err := p.cfg.Nonces.current(r.Context(), p.cfg.Clock())
	if err != nil {
		return "" // then the proof is not accepted either, should it need one
	}
	return nonce
}

// judge does all but look for replays, which is last so that only proofs are remembered that were good. It returns until when
// the proof would be accepted.
func (p *Proofs) judge(r *http.Request) (proof, time.Time, error) {
	headers := r.Header.Values("DPoP")
	if len(headers) != 1 {
		return proof{}, time.Time{}, improper("Send exactly one DPoP header.")
	}
	got, err := parseProof(headers[0])
	if err != nil {
		return proof{}, time.Time{}, err
	}
	if got.claims.method != r.Method {
		return proof{}, time.Time{}, improper("Its htm is not the method of this request.")
	}
	if !p.addressed(r, got.claims.url) {
		return proof{}, time.Time{}, improper("Its htu is not the address of this request.")
	}
	until, err := p.expiry(r.Context(), got)
	return got, until, err
}

// expiry judges when a proof was made: by its nonce, which comes from our own clocks, or by the client's clock (RFC 9449
// section 11.1).
func (p *Proofs) expiry(ctx context.Context, got proof) (time.Time, error) {
	now, nonces := p.cfg.Clock(), p.cfg.Nonces
	issuedAt := got.claims.issuedAt
	switch away := now.Sub(issuedAt).Abs(); {
	case nonces != nil && got.claims.nonce != "":
		return nonces.expiry(ctx, got.claims.nonce, now)
	case nonces != nil && (p.cfg.RequireNonce || away > p.cfg.Window):
		return time.Time{}, ErrNonce
	case away > p.cfg.Window:
		return time.Time{}, improper("Its iat is too far from the server's clock.")
	}
	return issuedAt.Add(p.cfg.Window), nil
}

// once refuses a proof that was used before. What is remembered is a hash, as the id of a proof is whatever the client likes;
// the key is in it, so that nobody can use up the ids of others.
func (p *Proofs) once(ctx context.Context, got proof, until time.Time) error {
	sum := sha256.Sum256([]byte(got.thumbprint + "\x00" + got.claims.id))
	id := base64.RawURLEncoding.EncodeToString(sum[:])
	first, err := p.cfg.Replays.Once(ctx, id, until.Sub(p.cfg.Clock())+replaySkew)
	if err != nil {
		return ErrProofsUnavailable.wrap(err)
	}
	if !first {
		return ErrProofReplayed
	}
	return nil
}

// tokenHash is the claim ath (RFC 9449 section 4.2).
func tokenHash(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
