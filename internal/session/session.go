// Package session owns the fact that somebody is signed in on a device.
//
// A session is one person on one device. It holds zero to n grants: a grant is one client's refresh family, and signing in
// to Sumun itself is a grant of the client FirstParty. A session of our own pages has a cookie and, until a client asks
// for one, no grant at all. Sessions, grants, the copies of roles and epoch that go into access tokens, refresh-token
// rotation, the limit per person and the revocation feed live here and nowhere else.
//
// It promises that a refresh token has exactly one successor, however many requests present it and whichever node they
// reach; that a session which has ended is refused by this node before End returns, and by every other node within one
// poll of the feed; that a stranger who knows a session's id can change nothing; that an outage of the store signs
// nobody out; and that sessions move between SQL and Redis while they are in use, each in one of them at any instant.
//
// It refuses to know who people are: subjects are opaque, and roles are what the caller says they are.
package session

import (
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/token"
)

// FirstParty is the client of sign-ins to Sumun itself. Theft of one of its refresh tokens ends the whole session.
const FirstParty = "sumun"

// MaxAccessLifetime is the longest that an access token issued for a session may live.
const MaxAccessLifetime = time.Hour

// Faults that callers may meet.
var (
	// ErrInvalidGrant answers a refresh token that is not ours, damaged, expired or forgotten.
	ErrInvalidGrant = fault.New(fault.Unauthenticated, "session.invalid_grant", "The refresh token is not valid. Sign in again.")
	// ErrInvalidCookie answers a session cookie that is not ours, damaged, replaced, expired or forgotten.
	ErrInvalidCookie = fault.New(fault.Unauthenticated, "session.invalid_cookie", "The sign-in on this browser is no longer valid. Sign in again.")
	// ErrEnded answers the tokens and cookies of a session that was ended; its message says why.
	ErrEnded = fault.New(fault.Unauthenticated, "session.ended", "The session has ended. Sign in again.")
	// ErrNotFound answers an id that is unknown, another person's, or no longer live: the three look alike.
	ErrNotFound = fault.New(fault.NotFound, "session.not_found", "There is no such session.")
	// ErrCursor answers a page cursor that List did not give out.
	ErrCursor = fault.New(fault.Malformed, "session.cursor", "The page cursor is not valid. Start again without one.")
	// ErrTwoTokens answers a refresh that carries a cookie and a token in the body.
	ErrTwoTokens = fault.New(fault.Malformed, "session.two_tokens", "Send the refresh token in the cookie or in the body, not in both.")
	// ErrOvertaken answers a sign-in that was decided just before all sessions of the account were ended.
	ErrOvertaken = fault.New(fault.Conflict, "session.overtaken", "The account was changed while you signed in. Sign in again.")
	// ErrLimitReached answers a sign-in beyond a limit whose policy is to refuse.
	ErrLimitReached = fault.New(fault.Conflict, "session.limit_reached", "You are signed in on as many devices as are allowed. Sign out on one of them first.")
	// ErrTooEarly answers a refresh long before the access token expires, where the policy is to refuse that.
	ErrTooEarly = fault.New(fault.RateLimited, "session.too_early", "It is too early to refresh. Use the access token for now.")
	// ErrUnpaired answers a refresh token without its access token, where the policy asks for that.
	ErrUnpaired = fault.New(fault.Unauthenticated, "session.unpaired", "The refresh token must come with the access token that was issued with it.")
	// ErrProofRequired answers a sign-in or refresh that must prove a key and does not try to.
	ErrProofRequired = fault.New(fault.Unauthenticated, "session.proof_required", "A DPoP proof of the client's key is needed.").
				Challenge(auth.DPoPChallenge() + `, error="invalid_dpop_proof"`)
	// ErrWrongKey answers a refresh that proves another key than the one its tokens are bound to.
	ErrWrongKey = fault.New(fault.Unauthenticated, "session.wrong_key", "The DPoP proof is of another key than the one the session is bound to.").
			Challenge(auth.DPoPChallenge() + `, error="invalid_token"`)
	// ErrUnbound answers a refresh of a session that is bound to no key, where that is required by now.
	ErrUnbound = fault.New(fault.Unauthenticated, "session.unbound", "The session is bound to no key, which is required by now. Sign in again, with a DPoP proof.").
			Challenge(auth.DPoPChallenge())
	// ErrFeedForbidden answers who asks for the revocation feed and is no service that may have it.
	ErrFeedForbidden = fault.New(fault.Forbidden, "session.feed_forbidden", "The revocation feed is for services: ask with a token of client_credentials whose scope has revocations:read.")
	// ErrFeedFull answers when this node has as many followers of the feed as it may.
	ErrFeedFull = fault.New(fault.Unavailable, "session.feed_full", "Too many services follow the revocation feed here. Try again shortly.").After(5 * time.Second)
	// ErrUnavailable answers while the store cannot be reached. Nothing was decided; the same token may be presented again.
	ErrUnavailable = fault.New(fault.Unavailable, "session.unavailable", "Sessions cannot be reached right now. Please try again.")
)

// Reason says why a session or grant ended. It is stored, and shown to whoever presents what it ended.
type Reason string

// The reasons.
const (
	SignedOut       Reason = "signed_out"       // its own client asked
	EndedByOwner    Reason = "ended_by_owner"   // from another session of the same person
	EndedByOperator Reason = "operator"         // by an administrator
	PasswordChanged Reason = "password_changed" // new password, by somebody who knew the old one
	PasswordReset   Reason = "password_reset"   // new password, by mail
	AccountDisabled Reason = "account_disabled"
	AccountDeleted  Reason = "account_deleted"
	GrantRevoked    Reason = "grant_revoked" // a client's share was withdrawn, by itself or by the person
	LimitReached    Reason = "session_limit" // a newer session took its place
	Theft           Reason = "theft"         // a refresh token was presented that had been replaced, or too early
)

// ended returns ErrEnded with the reason in words, and as the code of a field named "reason" for programs.
func (r Reason) ended() *fault.Fault {
	text := r.text()
	return ErrEnded.With(text).WithFields(fault.Field{Name: "reason", Code: string(r), Message: text})
}

func (r Reason) text() string {
	switch r {
	case SignedOut:
		return "You signed out of this session."
	case EndedByOwner:
		return "This session was ended from another device."
	case EndedByOperator:
		return "This session was ended by an administrator."
	case PasswordChanged:
		return "This session ended because the password was changed. Sign in again."
	case PasswordReset:
		return "This session ended because the password was reset. Sign in again."
	case AccountDisabled:
		return "This session ended because the account is disabled."
	case AccountDeleted:
		return "This session ended because the account was deleted."
	case GrantRevoked:
		return "What this application was allowed has been withdrawn. Sign in again."
	case LimitReached:
		return "This session ended because there were too many. Sign in again."
	case Theft:
		return "This session was ended because its refresh token was used in a way that looks like theft. Sign in again."
	default:
		return ErrEnded.Message()
	}
}

// Session is somebody signed in on a device, as its owner sees it.
type Session struct {
	ID      string // UUIDv7
	Subject string
	Roles   []string
	Epoch   int64 // of the subject; rises with every change of roles
	Device  Device

	CreatedAt  time.Time
	LastUsedAt time.Time // the last refresh of any grant, or use of the cookie to the minute
	AuthTime   time.Time // when the person last proved who they are
	ExpiresAt  time.Time // unless it is used before

	AMR []string // how they did (RFC 8176)
	ACR string

	clients []string // that it has live grants for; FirstParty if none
}

// Start is what a new session is made of.
type Start struct {
	Subject string
	// Roles are taken over when the subject has no record here yet. Afterwards SetRolesTx alone changes them, so that a
	// sign-in that read them before a change cannot bring the old ones back.
	Roles []string

	// From is the session that this one grows out of: it must be live when this one starts, or ErrNotFound comes from Begin or Commit.
	From string
	Page bool // of our own pages: it has a cookie, and no grant

	ClientID    string // of the first grant; FirstParty when empty
	ClientEpoch int64
	Confined    bool     // its refresh tokens work together with ClientID alone; see Evidence
	Scope       string   // space-separated (RFC 6749, section 3.3)
	Audience    []string // of its access tokens; the token issuer's default when empty

	Thumbprint string // of the key that the first grant is bound to; none when empty
	Narrow     Narrow // of the first grant, if any; every refresh needs it again (Evidence)
	Form       Form   // of the first grant's tokens

	AMR      []string
	ACR      string
	AuthTime time.Time // when it starts, if zero
	Device   Device
}

// Form is what a client's tokens are like, whatever they say. It comes anew with every refresh: what a client is may change.
type Form struct {
	// Certificate is the thumbprint of the TLS certificate that access tokens are bound to (RFC 8705); none when empty.
	Certificate string
	// BindsRefresh binds the grant to Certificate, too: for clients that have no other proof of who they are (section 4).
	BindsRefresh bool
	Opaque       bool // access tokens are for this installation alone to read
}

// Tokens are what a client gets for a sign-in or a refresh.
type Tokens struct {
	SessionID        string
	Access           string
	ExpiresIn        time.Duration
	Refresh          string
	RefreshExpiresIn time.Duration // when it expires unless it is used
	Bound            bool          // the access token is bound to the client's key

	Granted token.Grant // what the access token says
}

// Started is a new session with the tokens of its first grant, or the value of its cookie.
type Started struct {
	Session Session
	Tokens  Tokens
	Cookie  string
}

// Device is what is known of a device. NewDevice makes one from a request.
type Device struct {
	Label     string     // "Chrome on Windows"
	UserAgent string     // at most 256 bytes, valid UTF-8, no control characters
	Address   netip.Addr // the zero Addr when unknown
}

// ParseID reads the id of a session in its one spelling. Anything else names no session: ErrNotFound.
func ParseID(s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil || id.String() != s {
		return uuid.UUID{}, ErrNotFound
	}
	return id, nil
}

// position is a place in the order of List: newest use first, then id.
type position struct {
	used int64 // microseconds
	id   uuid.UUID
}

// cursor writes the position as an opaque string.
func (p position) cursor() string {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.used))
	return base64.RawURLEncoding.EncodeToString(append(b, p.id[:]...))
}

// parseCursor reads what cursor wrote; anything else is ErrCursor.
func parseCursor(s string) (position, error) {
	b, ok := decode(s, 8+16)
	if !ok {
		return position{}, ErrCursor
	}
	return position{used: int64(binary.BigEndian.Uint64(b)), id: uuid.UUID(b[8:])}, nil
}

// decode reads unpadded, canonical base64url of exactly n bytes. The length is checked first: the standard decoder skips
// line breaks, and what has two spellings cannot be compared.
func decode(s string, n int) ([]byte, bool) {
	if len(s) != base64.RawURLEncoding.EncodedLen(n) {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil && len(b) == n
}
