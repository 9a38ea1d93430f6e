package password

import (
	"slices"
	"strings"
	"unicode"

	zxcvbn "github.com/ccojocar/zxcvbn-go"
)

// maxEstimated bounds what the strength is estimated of, in bytes: the estimate takes time that grows with the square of
// the length, and what is long is strong by its first 64 bytes or not at all.
const maxEstimated = 64

// nistChecks are the rules of NIST SP 800-63B revision 4, section 3.1.1.2, beyond length: no composition rules, but a
// comparison with what is expected, common or known from breaches. The estimate of strength stands for the list of common
// passwords; it knows thirty thousand of them, with the usual replacements.
func nistChecks(cfg PolicyConfig) []check {
	return []check{
		{Rule{Code: Guessable}, func(c candidate) bool { return strength(c) >= cfg.MinScore }},
		{Rule{Code: Personal}, notMadeOfPerson},
	}
}

// strength is zxcvbn's score, 0 to 4.
func strength(c candidate) int {
	text := c.text
	if len(text) > maxEstimated {
		text = strings.ToValidUTF8(text[:maxEstimated], "")
	}
	return zxcvbn.PasswordStrength(text, c.person.words(2)).Score
}

// notMadeOfPerson refuses a password that is little else than words about its owner. The whole is compared, not parts of
// it, as section 3.1.1.2 has it: whoever is called Ann may well use "annual harvest moon".
func notMadeOfPerson(c candidate) bool {
	words := c.person.words(2)
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	rest := c.lower
	for _, w := range words {
		rest = strings.ReplaceAll(rest, w, "")
	}
	if rest == c.lower {
		return true
	}
	letters := 0
	for _, r := range rest {
		if unicode.IsLetter(r) {
			letters++
		}
	}
	return letters >= 4
}
