// Package identity owns people: their accounts, passwords and devices, and the ways into an account (sign-up, sign-in,
// recovery).
//
// It promises that an address has one account at most, that an account exists only once its address was proved, that a
// password is guessed no faster than the limits allow however many ask at once, and that no answer, in words or in time,
// tells whether an account exists. What a person is told by mail is written in the transaction that made it true.
//
// It refuses to decide what a person may do (package access) and knows nothing of tokens beyond asking package session
// to start and end sessions.
package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/fault"
)

// Faults that people and programs meet. Their codes are permanent.
var (
	ErrCredentials = fault.New(fault.Unauthenticated, "identity.invalid_credentials",
		"The address or user name and the password do not match.")
	ErrTooManyAttempts = fault.New(fault.RateLimited, "identity.too_many_attempts",
		"Too many attempts. Wait before trying again.")
	ErrTooManyRequests = fault.New(fault.RateLimited, "identity.too_many_requests",
		"Too many requests. Wait before trying again.")
	ErrDisabled = fault.New(fault.Forbidden, "identity.account_disabled",
		"This account is disabled. Ask the people who run this service.")
	ErrNotFound     = fault.New(fault.NotFound, "identity.account_not_found", "There is no such account.")
	ErrConfirmation = fault.New(fault.Gone, "identity.confirmation_invalid",
		"This link has expired or was used already. Ask for a new one.")
	ErrPasswordPolicy = fault.New(fault.Invalid, "identity.password_refused",
		"This password does not meet the rules.")
	ErrPasswordReused = fault.New(fault.Invalid, "identity.password_reused",
		"This password was used recently. Choose another one.")
	ErrCurrentPassword = fault.New(fault.Forbidden, "identity.current_password_wrong",
		"The current password is not right.")
	ErrUserNameTaken = fault.New(fault.Conflict, "identity.user_name_taken",
		"This user name is taken. Choose another one.")
	ErrEmailTaken   = fault.New(fault.Conflict, "identity.email_taken", "There is an account with this address already.")
	ErrInvalidField = fault.New(fault.Invalid, "identity.invalid_field", "Some of what was entered cannot be used.")
	ErrVersion      = fault.New(fault.PreconditionFailed, "identity.version_changed",
		"The account was changed meanwhile. Load it again and repeat the change.")
	ErrRecentSignIn = fault.New(fault.Unauthenticated, "identity.recent_sign_in_required",
		"This needs a recent sign-in. Sign in again and repeat the request.")
)

// RoleAdmin is the role of those who run the installation.
const RoleAdmin = "admin"

// Status says whether an account may be used.
type Status string

// The states of an account.
const (
	Active   Status = "active"
	Disabled Status = "disabled"
)

// Account is a person known to this installation. Version grows by one with every edit of what the person can edit.
type Account struct {
	ID, Email, UserName, Name, Locale string
	EmailVerified                     bool
	Phone                             string // E.164, "" for none; nobody has verified it
	Address                           PostalAddress
	Status                            Status
	Roles                             []string
	Version                           int64
	CreatedAt, UpdatedAt              time.Time
	PasswordChangedAt                 time.Time
	LastSignInAt                      time.Time // zero: never
	Directory                         string    // which keeps the password, "" for none

	emailKey, passwordHash           string
	directorySubject, directoryLogin string
}

// Caller is a signed-in person asking for something: whose account, in which session, and when the password was last
// proved there.
type Caller struct {
	Account, Session string
	AuthTime         time.Time
	Origin           audit.Origin
}

// recent refuses a caller whose last proof of the password is older than limit.
func (c Caller) recent(now time.Time, limit time.Duration) error {
	if now.Sub(c.AuthTime) > limit {
		return ErrRecentSignIn
	}
	return nil
}

// secret is a bearer secret of 256 random bits: what its holder shows, and the hash that is stored.
type secret struct {
	text string
	hash []byte
}

func newSecret() secret {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand since Go 1.24)
	text := base64.RawURLEncoding.EncodeToString(b[:])
	return secret{text: text, hash: secretHash(text)}
}

// secretHash is what is stored and looked up. SHA-256 suffices: the secret is not guessable.
func secretHash(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

const (
	maxNameRunes   = 100
	maxSecretBytes = 64
	minUserName    = 3
	maxUserName    = 32
)

// parseName normalises a person's name (NFC, trimmed): 1 to 100 characters, none of them control characters.
func parseName(s string) (string, error) {
	s = strings.TrimSpace(norm.NFC.String(s))
	switch {
	case s == "":
		return "", invalid("name", "name.required", "Enter a name.")
	case utf8.RuneCountInString(s) > maxNameRunes:
		return "", invalid("name", "name.too_long", "The name may have 100 characters at most.")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, hidden):
		return "", invalid("name", "name.characters", "The name holds characters that cannot be shown.")
	}
	return s, nil
}

// CleanName makes of what somebody else says a person's name that an account can have, or "".
func CleanName(said string) string {
	said = strings.Join(strings.Fields(norm.NFC.String(strings.ToValidUTF8(said, ""))), " ")
	said = strings.Map(func(r rune) rune {
		if hidden(r) {
			return -1
		}
		return r
	}, said)
	if runes := []rune(said); len(runes) > maxNameRunes {
		said = string(runes[:maxNameRunes])
	}
	return strings.TrimSpace(said)
}

// hidden reports control characters, line breaks and the invisible characters that reorder text.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' || r == utf8.RuneError
}

// parseUserName checks an optional user name: 3 to 32 ASCII letters, digits, dots, hyphens and underscores, beginning
// with a letter. It cannot hold an @, so it is never mistaken for an address. The key decides uniqueness.
func parseUserName(s string) (name, key string, err error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", "", nil
	}
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	}
	first := s[0] | 0x20
	if len(s) < minUserName || len(s) > maxUserName || strings.ContainsFunc(s, bad) || first < 'a' || first > 'z' {
		return "", "", invalid("user_name", "user_name.format",
			"A user name has 3 to 32 letters (a-z), digits, dots, hyphens or underscores and begins with a letter.")
	}
	return s, strings.ToLower(s), nil
}

// Locales are the languages that pages and mails are written in; the first is the default.
var locales = []string{"en", "ko"}

// parseLocale accepts "" (no preference) or one of the supported languages as a BCP 47 tag.
func parseLocale(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	tag, err := language.Parse(s)
	if err == nil {
		base, _ := tag.Base()
		if slices.Contains(locales, base.String()) {
			return base.String(), nil
		}
	}
	return "", invalid("locale", "locale.unsupported", "Choose one of the languages en, ko.")
}

func invalid(field, code, message string) error {
	return ErrInvalidField.With(message).WithFields(fault.Field{Name: field, Code: code, Message: message})
}

// parseRoles checks role names: lower-case words of letters, digits and hyphens.
func parseRoles(roles []string) ([]string, error) {
	for _, r := range roles {
		ok := r != "" && len(r) <= 64 && !strings.ContainsFunc(r, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-'
		})
		if !ok {
			return nil, invalid("roles", "roles.format", "A role is a word of lower-case letters, digits and hyphens.")
		}
	}
	out := slices.Clone(roles)
	slices.Sort(out)
	return slices.Compact(out), nil
}
