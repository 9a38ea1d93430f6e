package password

import (
	"slices"
	"strings"
	"unicode"
)

const (
	// maxEstimated bounds what the strength is estimated of, in bytes: the estimate takes time that grows with the square of
	// the length, and what is long is strong by its first 64 bytes or not at all.
	maxEstimated = 64
	// maxReplaced bounds the different characters that stand for letters, as in p@55w0rd. zxcvbn tries all that they may mean
	// in every combination: with all of them in a password that would take a processor for ten seconds.
	maxReplaced = 5
)

// replaced are the characters that zxcvbn takes for letters, each with the letter that it usually stands for.
var replaced = strings.NewReplacer("4", "a", "@", "a", "8", "b", "(", "c", "{", "c", "[", "c", "<", "c", "3", "e", "6", "g", "9", "g",
	"!", "i", "1", "i", "|", "i", "0", "o", "$", "s", "5", "s", "+", "t", "7", "t", "%", "x", "2", "z")

const replacing = "4@8({[<369!1|0$5+7%2"

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
	words := c.person.words(2)
	if different(text) <= maxReplaced {
		return score(text, words, true)
	}
	return min(score(text, words, false), score(replaced.Replace(text), words, false))
}

// different counts the different characters that may stand for letters.
func different(text string) (n int) {
	for _, r := range replacing {
		if strings.ContainsRune(text, r) {
			n++
		}
	}
	return n
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
