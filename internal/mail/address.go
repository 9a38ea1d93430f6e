package mail

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/sumunio/sumun/internal/fault"
)

// ErrAddress is returned for an e-mail address that Sumun does not accept.
var ErrAddress = fault.New(fault.Invalid, "mail.address", "This is not an e-mail address we can write to.")

const (
	maxAddress = 254 // bytes; RFC 5321, section 4.5.3.1.3, with the errata that count the angle brackets
	maxLocal   = 64  // bytes; RFC 5321, section 4.5.3.1.1
)

// Address is an accepted e-mail address. The zero value is no address.
type Address struct {
	// Spec is the address as typed, its domain in lower case. Mail goes here, and this is what its owner is shown.
	Spec string
	// Key is the same for every way to write the address: all lower case, Unicode compatibility forms folded (NFKC), the
	// domain in its ASCII form. It serves uniqueness and look-ups only. Never send to it: a look-alike that
	// somebody typed can have the key of another's account, but not that account's Spec.
	Key string
}

// String returns Spec.
func (a Address) String() string { return a.Spec }

// Same reports whether two addresses are written alike, but for the case of letters in ASCII. It is stricter than their keys, which take
// look-alikes for one another so that nobody can use them to deceive: what an address opens, a look-alike must not.
func Same(a, b string) bool { return LowerASCII(a) == LowerASCII(b) }

// LowerASCII is strings.ToLower for the letters of ASCII alone: no other letter becomes one of them.
func LowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// ascii is the address as SMTP carries it: the local part as typed, the domain in its ASCII form.
func (a Address) ascii() string {
	return a.Spec[:strings.LastIndexByte(a.Spec, '@')] + a.Key[strings.LastIndexByte(a.Key, '@'):]
}

// hosts maps internationalised domain names as browsers do (UTS 46), refusing what DNS could not hold.
var hosts = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckJoiners(true), idna.StrictDomainName(true),
	idna.VerifyDNSLength(true), idna.Transitional(false))

// ParseAddress accepts a single bare address (addr-spec of RFC 5322, with the UTF-8 of RFC 6531) of at most 254 bytes,
// ignoring space around it. It refuses display names, comments, quoted local parts, address literals and domains of a
// single label: all legal, and none of them what a person types as the own address. Anything refused is [ErrAddress].
func ParseAddress(s string) (Address, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxAddress || !utf8.ValidString(s) {
		return Address{}, ErrAddress
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return Address{}, ErrAddress
	}
	local, domain := s[:at], s[at+1:]
	folded := norm.NFKC.String(strings.ToLower(norm.NFKC.String(local)))
	// The folded form is checked as well: some single letters fold into several characters, spaces among them.
	if !isLocal(local) || !isLocal(folded) {
		return Address{}, ErrAddress
	}
	shown, ascii, ok := parseDomain(domain)
	if !ok || len(local)+1+max(len(shown), len(ascii)) > maxAddress {
		return Address{}, ErrAddress
	}
	return Address{Spec: local + "@" + shown, Key: folded + "@" + ascii}, nil
}

// isLocal reports whether s is a dot-atom (RFC 5322, section 3.2.3) whose characters beyond ASCII are letters, marks
// or digits.
func isLocal(s string) bool {
	if s == "" || len(s) > maxLocal || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		case r < utf8.RuneSelf:
			if !strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", r) {
				return false
			}
		case !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r):
			return false
		}
	}
	return true
}

// parseDomain returns a domain name as it is shown and as DNS knows it.
func parseDomain(s string) (shown, ascii string, ok bool) {
	ascii, err := hosts.ToASCII(s)
	if err != nil {
		return "", "", false
	}
	labels := strings.Split(ascii, ".")
	top := labels[len(labels)-1]
	// A last label of digits is an IPv4 address, or nothing (RFC 1123, section 2.1).
	if len(labels) < 2 || top == "" || !strings.ContainsFunc(top, unicode.IsLetter) {
		return "", "", false
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return ascii, ascii, true
	}
	shown, err = hosts.ToUnicode(ascii)
	return shown, ascii, err == nil
}

// MaskAddress makes an address fit for logs: enough to recognise one that is known, too little to learn one. It keeps
// the first character and the domain: k***@example.com.
func MaskAddress(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		if address == "" {
			return ""
		}
		return "***"
	}
	_, size := utf8.DecodeRuneInString(address[:at])
	if size == at { // a single character would be the whole of it
		size = 0
	}
	return address[:size] + "***" + address[at:]
}

// anAddress matches whatever looks like an address in the text of an error, which mail servers like to quote.
var anAddress = regexp.MustCompile(`[^\s<>()\[\],;:"@]+@[^\s<>()\[\],;:"@]+`)

// maskText masks every address in a text and cuts it to a length that fits a log line and a column.
func maskText(s string) string {
	const limit = 500
	s = strings.ToValidUTF8(anAddress.ReplaceAllStringFunc(s, MaskAddress), "?")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
