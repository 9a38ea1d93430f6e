package password

import (
	"strings"
	"unicode"
)

// runLength is the shortest run of characters that the rules kisa refuse.
const runLength = 3

// keyboard are the rows of keys whose neighbours count as following each other.
var keyboard = []string{"1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"}

// kisaChecks are the rules of the Korea Internet & Security Agency's guide to choosing and using passwords: three kinds of
// characters with at least 8 of them or two kinds with at least 10, no user name, no runs.
func kisaChecks(cfg PolicyConfig) []check {
	three, two := max(8, cfg.MinLength), max(10, cfg.MinLength)
	return []check{
		{Rule{Code: Classes, Args: []any{"min_two", two, "min_three", three}}, func(c candidate) bool {
			n := classes(c.text)
			return n >= 3 && c.length >= three || n == 2 && c.length >= two
		}},
		{Rule{Code: Runs, Args: []any{"length", runLength}}, func(c candidate) bool { return !hasRun(c.lower) }},
		{Rule{Code: Personal}, func(c candidate) bool {
			for _, w := range c.person.words(3) {
				if strings.Contains(c.lower, w) {
					return false
				}
			}
			return true
		}},
	}
}

// classes counts the kinds of characters among upper case, lower case, digits, and all others. Letters without case, such
// as Hangul, are others.
func classes(s string) int {
	var upper, lower, digit, other int
	for _, r := range s {
		switch {
		case unicode.IsUpper(r):
			upper = 1
		case unicode.IsLower(r):
			lower = 1
		case unicode.IsDigit(r):
			digit = 1
		default:
			other = 1
		}
	}
	return upper + lower + digit + other
}

// hasRun reports whether a text in lower case has runLength characters in a row that are the same, follow each other in
// alphabet or numbers, or lie side by side on a keyboard, in either direction.
func hasRun(lower string) bool {
	text := []rune(lower)
	for _, follows := range []func(a, b rune) bool{same, next, previous, right, left} {
		n := 1
		for i := 1; i < len(text); i++ {
			if !follows(text[i-1], text[i]) {
				n = 1
			} else if n++; n >= runLength {
				return true
			}
		}
	}
	return false
}

func same(a, b rune) bool     { return a == b }
func next(a, b rune) bool     { return b == a+1 && (isLatin(a) && isLatin(b) || isDigit(a) && isDigit(b)) }
func previous(a, b rune) bool { return next(b, a) }
func left(a, b rune) bool     { return right(b, a) }

func right(a, b rune) bool {
	pair := string([]rune{a, b})
	for _, row := range keyboard {
		if strings.Contains(row, pair) {
			return true
		}
	}
	return false
}

func isLatin(r rune) bool { return 'a' <= r && r <= 'z' }
func isDigit(r rune) bool { return '0' <= r && r <= '9' }
